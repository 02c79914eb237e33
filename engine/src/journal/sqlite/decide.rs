//! What a person's decision changes in the database: a few statements over one JSON list of deliveries (`?1`), as far as
//! they stand in one of the states that were asked for (`?2`, a bit for each).

use rusqlite::{Connection, params};

use super::{counters::Moves, number, state, write::key};
use crate::journal::{
    Audit, DeliveryId, State,
    rows::json,
    store::{Chosen, StoreError},
};

const REPLAYABLE: &str = "SELECT d.destination, d.state, count(*) FROM json_each(?1) j CROSS JOIN delivery d
    ON d.sequence = j.value ->> 1 AND d.route = j.value ->> 2 AND d.destination = j.value ->> 0
    WHERE d.state IN (2, 3, 4, 5, 6) AND (1 << d.state) & ?2 GROUP BY d.destination, d.state";
const REPLAY_WAITING: &str = "UPDATE pending SET state = 0, attempts = 0, first_attempt = NULL FROM json_each(?1) j
    WHERE pending.destination = j.value ->> 0 AND pending.sequence = j.value ->> 1 AND pending.route = j.value ->> 2
    AND pending.state IN (2, 3) AND (1 << pending.state) & ?2";
const REPLAY_ENDED: &str =
    "INSERT INTO pending (destination, sequence, route, lanes, received, state, attempts)
    SELECT d.destination, d.sequence, d.route, d.lanes, m.received, 0, 0
    FROM json_each(?1) j CROSS JOIN delivery d
    ON d.sequence = j.value ->> 1 AND d.route = j.value ->> 2 AND d.destination = j.value ->> 0
    CROSS JOIN message m ON m.sequence = d.sequence WHERE d.state IN (4, 5, 6) AND (1 << d.state) & ?2";
const REPLAYED: &str = "UPDATE delivery SET state = 0 FROM json_each(?1) j
    WHERE delivery.sequence = j.value ->> 1 AND delivery.route = j.value ->> 2
    AND delivery.destination = j.value ->> 0 AND delivery.state IN (2, 3, 4, 5, 6)
    AND (1 << delivery.state) & ?2";

// Retrying: so that what was made is sent again as it was.
const RELEASABLE: &str = "SELECT d.destination, d.state, count(*) FROM json_each(?1) j CROSS JOIN delivery d
    ON d.sequence = j.value ->> 1 AND d.route = j.value ->> 2 AND d.destination = j.value ->> 0
    WHERE d.state IN (2, 3) AND (1 << d.state) & ?2 GROUP BY d.destination, d.state";
const RELEASE_WAITING: &str = "UPDATE pending SET state = 1, attempts = 0, first_attempt = NULL FROM json_each(?1) j
    WHERE pending.destination = j.value ->> 0 AND pending.sequence = j.value ->> 1 AND pending.route = j.value ->> 2
    AND pending.state IN (2, 3) AND (1 << pending.state) & ?2";
const RELEASED: &str = "UPDATE delivery SET state = 1 FROM json_each(?1) j
    WHERE delivery.sequence = j.value ->> 1 AND delivery.route = j.value ->> 2
    AND delivery.destination = j.value ->> 0 AND delivery.state IN (2, 3) AND (1 << delivery.state) & ?2";

const SKIPPABLE: &str = "SELECT d.destination, d.state, count(*) FROM json_each(?1) j CROSS JOIN delivery d
    ON d.sequence = j.value ->> 1 AND d.route = j.value ->> 2 AND d.destination = j.value ->> 0
    WHERE d.state IN (1, 2, 3) AND (1 << d.state) & ?2 GROUP BY d.destination, d.state";
const SKIP_WAITING: &str = "DELETE FROM pending WHERE state IN (1, 2, 3) AND (1 << state) & ?2
    AND (destination, sequence, route) IN
    (SELECT CAST(value ->> 0 AS TEXT), CAST(value ->> 1 AS INTEGER), CAST(value ->> 2 AS TEXT) FROM json_each(?1))";
const SKIPPED: &str = "UPDATE delivery SET state = 6, at = ?3, reason = ?4 FROM json_each(?1) j
    WHERE delivery.sequence = j.value ->> 1 AND delivery.route = j.value ->> 2
    AND delivery.destination = j.value ->> 0 AND delivery.state IN (1, 2, 3) AND (1 << delivery.state) & ?2";

const NOTE: &str =
    "INSERT INTO note (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const NO_NOTE: &str = "DELETE FROM note WHERE name = ?";
const AUDIT: &str = "INSERT INTO audit (at, action, who, why, asked, deliveries) VALUES (?, ?, ?, ?, ?, ?)";

/// Makes ended or waiting deliveries ready, to be mapped anew.
pub(super) fn requeue(connection: &Connection, moves: &mut Moves, chosen: Chosen) -> Result<u64, StoreError> {
    let Chosen { ids, states, audit } = chosen;
    let (ids, states) = (listed(&ids)?, bits(&states));
    let total = count(connection, moves, REPLAYABLE, (&ids, states), State::Ready)?;
    moves.requeued();
    for sql in [REPLAY_WAITING, REPLAY_ENDED, REPLAYED] {
        connection.prepare_cached(sql)?.execute(params![ids, states])?;
    }
    audited(connection, audit, total)
}

/// Lets parked and held deliveries go on as they were made.
pub(super) fn release(connection: &Connection, moves: &mut Moves, chosen: Chosen) -> Result<u64, StoreError> {
    let Chosen { ids, states, audit } = chosen;
    let (ids, states) = (listed(&ids)?, bits(&states));
    let total = count(connection, moves, RELEASABLE, (&ids, states), State::Retrying)?;
    for sql in [RELEASE_WAITING, RELEASED] {
        connection.prepare_cached(sql)?.execute(params![ids, states])?;
    }
    audited(connection, audit, total)
}

/// Makes waiting deliveries dead letters.
pub(super) fn skip(connection: &Connection, moves: &mut Moves, chosen: Chosen) -> Result<u64, StoreError> {
    let Chosen { ids, states, audit } = chosen;
    let (ids, states) = (listed(&ids)?, bits(&states));
    let total = count(connection, moves, SKIPPABLE, (&ids, states), State::Dead)?;
    connection.prepare_cached(SKIP_WAITING)?.execute(params![ids, states])?;
    let skipped = params![ids, states, audit.at.as_microsecond(), audit.why];
    connection.prepare_cached(SKIPPED)?.execute(skipped)?;
    audited(connection, audit, total)
}

/// How many there are that a decision can be made about; they leave their state for another.
fn count(
    connection: &Connection,
    moves: &mut Moves,
    sql: &'static str,
    (ids, states): (&str, i64),
    to: State,
) -> Result<u64, StoreError> {
    let mut total = 0;
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![ids, states])?;
    while let Some(row) = rows.next()? {
        let (destination, before, deliveries): (String, i64, i64) = row.try_into()?;
        moves.add(&destination, state(before)?, -deliveries);
        moves.add(&destination, to, deliveries);
        total += deliveries.unsigned_abs();
    }
    Ok(total)
}

/// Notes what holds for the whole journal, or that nothing does any more.
pub(super) fn note(
    connection: &Connection,
    name: &'static str,
    value: Option<String>,
    audit: Option<Audit>,
) -> Result<(), StoreError> {
    match value {
        Some(value) => connection.prepare_cached(NOTE)?.execute([name, &value])?,
        None => connection.prepare_cached(NO_NOTE)?.execute([name])?,
    };
    match audit {
        Some(audit) => audited(connection, audit, 0).map(|_| ()),
        None => Ok(()),
    }
}

fn audited(connection: &Connection, audit: Audit, total: u64) -> Result<u64, StoreError> {
    connection.prepare_cached(AUDIT)?.execute(params![
        audit.at.as_microsecond(),
        audit.action,
        audit.who,
        audit.why,
        audit.asked,
        total.cast_signed(),
    ])?;
    Ok(total)
}

/// A bit for each state.
fn bits(states: &[State]) -> i64 {
    states.iter().fold(0, |bits, state| bits | 1 << number(*state))
}

fn listed(ids: &[DeliveryId]) -> Result<String, StoreError> {
    json(&ids.iter().map(key).collect::<Vec<_>>())
}

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    REPLAYABLE,
    REPLAY_WAITING,
    REPLAY_ENDED,
    REPLAYED,
    RELEASABLE,
    RELEASE_WAITING,
    RELEASED,
    SKIPPABLE,
    SKIP_WAITING,
    SKIPPED,
];

//! What a person's decision changes in the database: a few statements over one JSON list of deliveries.

use sqlx::SqliteConnection;

use super::{column, counters::Moves, state, write::key};
use crate::journal::{Audit, DeliveryId, State, rows::json, store::StoreError};

const REPLAYABLE: &str = "SELECT d.destination, d.state, count(*) FROM json_each(?) j CROSS JOIN delivery d
    ON d.sequence = j.value ->> 1 AND d.route = j.value ->> 2 AND d.destination = j.value ->> 0
    WHERE d.state IN (2, 3, 4, 5, 6) GROUP BY d.destination, d.state";
const REPLAY_WAITING: &str = "UPDATE pending SET state = 0, attempts = 0, first_attempt = NULL FROM json_each(?) j
    WHERE pending.destination = j.value ->> 0 AND pending.sequence = j.value ->> 1 AND pending.route = j.value ->> 2
    AND pending.state IN (2, 3)";
const REPLAY_ENDED: &str =
    "INSERT INTO pending (destination, sequence, route, lanes, received, state, attempts)
    SELECT d.destination, d.sequence, d.route, d.lanes, m.received, 0, 0
    FROM json_each(?) j CROSS JOIN delivery d
    ON d.sequence = j.value ->> 1 AND d.route = j.value ->> 2 AND d.destination = j.value ->> 0
    CROSS JOIN message m ON m.sequence = d.sequence WHERE d.state IN (4, 5, 6)";
const REPLAYED: &str = "UPDATE delivery SET state = 0 FROM json_each(?) j
    WHERE delivery.sequence = j.value ->> 1 AND delivery.route = j.value ->> 2
    AND delivery.destination = j.value ->> 0 AND delivery.state IN (2, 3, 4, 5, 6)";

// Retrying: so that what was made is sent again as it was.
const RELEASABLE: &str = "SELECT d.destination, d.state, count(*) FROM json_each(?) j CROSS JOIN delivery d
    ON d.sequence = j.value ->> 1 AND d.route = j.value ->> 2 AND d.destination = j.value ->> 0
    WHERE d.state IN (2, 3) GROUP BY d.destination, d.state";
const RELEASE_WAITING: &str = "UPDATE pending SET state = 1, attempts = 0, first_attempt = NULL FROM json_each(?) j
    WHERE pending.destination = j.value ->> 0 AND pending.sequence = j.value ->> 1 AND pending.route = j.value ->> 2
    AND pending.state IN (2, 3)";
const RELEASED: &str = "UPDATE delivery SET state = 1 FROM json_each(?) j
    WHERE delivery.sequence = j.value ->> 1 AND delivery.route = j.value ->> 2
    AND delivery.destination = j.value ->> 0 AND delivery.state IN (2, 3)";

const SKIPPABLE: &str = "SELECT d.destination, d.state, count(*) FROM json_each(?) j CROSS JOIN delivery d
    ON d.sequence = j.value ->> 1 AND d.route = j.value ->> 2 AND d.destination = j.value ->> 0
    WHERE d.state IN (1, 2, 3) GROUP BY d.destination, d.state";
const SKIP_WAITING: &str = "DELETE FROM pending WHERE state IN (1, 2, 3) AND (destination, sequence, route) IN
    (SELECT CAST(value ->> 0 AS TEXT), CAST(value ->> 1 AS INTEGER), CAST(value ->> 2 AS TEXT) FROM json_each(?))";
const SKIPPED: &str = "UPDATE delivery SET state = 6, at = ?2, reason = ?3 FROM json_each(?1) j
    WHERE delivery.sequence = j.value ->> 1 AND delivery.route = j.value ->> 2
    AND delivery.destination = j.value ->> 0 AND delivery.state IN (1, 2, 3)";

const NOTE: &str =
    "INSERT INTO note (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const NO_NOTE: &str = "DELETE FROM note WHERE name = ?";
const AUDIT: &str = "INSERT INTO audit (at, action, who, why, asked, deliveries) VALUES (?, ?, ?, ?, ?, ?)";

/// Makes ended or waiting deliveries ready, to be mapped anew.
pub(super) async fn requeue(
    connection: &mut SqliteConnection,
    moves: &mut Moves,
    ids: &[DeliveryId],
    audit: Audit,
) -> Result<u64, StoreError> {
    let ids = listed(ids)?;
    let total = count(connection, moves, REPLAYABLE, &ids, State::Ready).await?;
    moves.requeued();
    for sql in [REPLAY_WAITING, REPLAY_ENDED, REPLAYED] {
        sqlx::query(sql).bind(&ids).execute(&mut *connection).await?;
    }
    audited(connection, audit, total).await
}

/// Lets parked and held deliveries go on as they were made.
pub(super) async fn release(
    connection: &mut SqliteConnection,
    moves: &mut Moves,
    ids: &[DeliveryId],
    audit: Audit,
) -> Result<u64, StoreError> {
    let ids = listed(ids)?;
    let total = count(connection, moves, RELEASABLE, &ids, State::Retrying).await?;
    for sql in [RELEASE_WAITING, RELEASED] {
        sqlx::query(sql).bind(&ids).execute(&mut *connection).await?;
    }
    audited(connection, audit, total).await
}

/// Makes waiting deliveries dead letters.
pub(super) async fn skip(
    connection: &mut SqliteConnection,
    moves: &mut Moves,
    ids: &[DeliveryId],
    audit: Audit,
) -> Result<u64, StoreError> {
    let ids = listed(ids)?;
    let total = count(connection, moves, SKIPPABLE, &ids, State::Dead).await?;
    sqlx::query(SKIP_WAITING).bind(&ids).execute(&mut *connection).await?;
    sqlx::query(SKIPPED)
        .bind(&ids)
        .bind(audit.at.as_microsecond())
        .bind(&audit.why)
        .execute(&mut *connection)
        .await?;
    audited(connection, audit, total).await
}

/// How many there are that a decision can be made about; they leave their state for another.
async fn count(
    connection: &mut SqliteConnection,
    moves: &mut Moves,
    sql: &'static str,
    ids: &str,
    to: State,
) -> Result<u64, StoreError> {
    let mut total = 0;
    for row in sqlx::query(sql).bind(ids).fetch_all(connection).await? {
        let deliveries: i64 = column(&row, 2)?;
        let destination: &str = column(&row, 0)?;
        moves.add(destination, state(column(&row, 1)?)?, -deliveries);
        moves.add(destination, to, deliveries);
        total += deliveries.unsigned_abs();
    }
    Ok(total)
}

/// Notes what holds for the whole journal, or that nothing does any more.
pub(super) async fn note(
    connection: &mut SqliteConnection,
    name: &'static str,
    value: Option<String>,
    audit: Option<Audit>,
) -> Result<(), StoreError> {
    match value {
        Some(value) => sqlx::query(NOTE).bind(name).bind(value).execute(&mut *connection).await?,
        None => sqlx::query(NO_NOTE).bind(name).execute(&mut *connection).await?,
    };
    match audit {
        Some(audit) => audited(connection, audit, 0).await.map(|_| ()),
        None => Ok(()),
    }
}

async fn audited(connection: &mut SqliteConnection, audit: Audit, total: u64) -> Result<u64, StoreError> {
    sqlx::query(AUDIT)
        .bind(audit.at.as_microsecond())
        .bind(audit.action)
        .bind(audit.who)
        .bind(audit.why)
        .bind(audit.asked)
        .bind(total.cast_signed())
        .execute(connection)
        .await?;
    Ok(total)
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

//! What a person's decision changes in the database: one statement for all its deliveries, and the audit.

use sqlx::PgConnection;

use super::{batch::DELIVERY_BYTES, text};
use crate::journal::{
    Audit, State,
    counters::Moves,
    rows::{Cells, state, state_number},
    store::{Chosen, StoreError},
};

/// One kind of decision.
pub(super) struct Decided {
    /// Of deliveries `$1` to `$3`, at the time `$4` for the reason `$5`, as far as they stand in one of the states `$6`
    /// that were asked for; says how many left which state.
    sql: &'static str,
    /// Where they stand then.
    to: State,
}

/// What a decision has changed.
pub(super) struct Changed {
    pub deliveries: u64,
    /// More bytes that ended deliveries take.
    pub used: i64,
}

/// The deliveries that stand in one of some states, and after them what is done about these.
macro_rules! decided {
    ($states:literal, $changes:literal) => {
        concat!(
            "WITH v AS (SELECT DISTINCT sequence, route, destination, at, reason
                FROM unnest($1::bigint[], $2::text[], $3::text[]) AS u (sequence, route, destination),
                (VALUES ($4::bigint, $5::text)) AS w (at, reason)),
            was AS MATERIALIZED (
                SELECT d.sequence, d.route, d.destination, d.state, d.lanes, v.at, v.reason,
                    coalesce(length(d.output), 0) + coalesce(length(d.detail), 0) AS bytes FROM v JOIN delivery d
                ON d.sequence = v.sequence AND d.route = v.route AND d.destination = v.destination
                WHERE d.state IN (",
            $states,
            ") AND d.state = ANY($6::bigint[])), ",
            $changes,
            " SELECT destination, state, count(*), sum(bytes)::bigint FROM was GROUP BY destination, state"
        )
    };
}

/// Ended and waiting deliveries become ready, to be mapped anew.
pub(super) const REQUEUE: Decided = Decided {
    to: State::Ready,
    sql: decided!(
        "2, 3, 4, 5, 6",
        "waiting AS (
            UPDATE pending p SET state = 0, attempts = 0, first_attempt = NULL FROM was
            WHERE p.destination = was.destination AND p.sequence = was.sequence AND p.route = was.route
            AND p.state IN (2, 3)),
        ended AS (
            INSERT INTO pending (destination, sequence, route, lanes, received, state, attempts)
            SELECT was.destination, was.sequence, was.route, was.lanes, m.received, 0, 0
            FROM was JOIN message m ON m.sequence = was.sequence WHERE was.state IN (4, 5, 6)),
        known AS (
            UPDATE delivery d SET state = 0 FROM was
            WHERE d.sequence = was.sequence AND d.route = was.route AND d.destination = was.destination)"
    ),
};

/// Parked and held deliveries go on as they were made: retrying, so that the output is sent again as it was.
pub(super) const RELEASE: Decided = Decided {
    to: State::Retrying,
    sql: decided!(
        "2, 3",
        "waiting AS (
            UPDATE pending p SET state = 1, attempts = 0, first_attempt = NULL FROM was
            WHERE p.destination = was.destination AND p.sequence = was.sequence AND p.route = was.route),
        known AS (
            UPDATE delivery d SET state = 1 FROM was
            WHERE d.sequence = was.sequence AND d.route = was.route AND d.destination = was.destination)"
    ),
};

/// Waiting deliveries become dead letters.
pub(super) const SKIP: Decided = Decided {
    to: State::Dead,
    sql: decided!(
        "1, 2, 3",
        "waiting AS (
            DELETE FROM pending p USING was
            WHERE p.destination = was.destination AND p.sequence = was.sequence AND p.route = was.route),
        known AS (
            UPDATE delivery d SET state = 6, at = was.at, reason = was.reason FROM was
            WHERE d.sequence = was.sequence AND d.route = was.route AND d.destination = was.destination)"
    ),
};

const NOTE: &str =
    "INSERT INTO note (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const NO_NOTE: &str = "DELETE FROM note WHERE name = $1";
const AUDIT: &str =
    "INSERT INTO audit (at, action, who, why, asked, deliveries) VALUES ($1, $2, $3, $4, $5, $6)";

/// Makes a decision about deliveries, and notes it.
pub(super) async fn decide(
    connection: &mut PgConnection,
    moves: &mut Moves,
    decided: &Decided,
    chosen: Chosen,
) -> Result<Changed, StoreError> {
    let Chosen { ids, states, audit } = chosen;
    let left = sqlx::query(decided.sql)
        .bind(ids.iter().map(|id| id.sequence.0).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| id.route.as_str()).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| id.destination.as_str()).collect::<Vec<_>>())
        .bind(audit.at.as_microsecond())
        .bind(text(&audit.why))
        .bind(states.iter().map(|state| state_number(*state)).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    let mut changed = Changed { deliveries: 0, used: 0 };
    for row in &left {
        let (destination, was, deliveries) = (row.text(0)?, state(row.number(1)?)?, row.number(2)?);
        moves.add(destination, was, -deliveries);
        moves.add(destination, decided.to, deliveries);
        changed.deliveries += deliveries.unsigned_abs();
        let bytes = row.number(3)? + deliveries * DELIVERY_BYTES;
        changed.used += bytes * (i64::from(decided.to.is_end()) - i64::from(was.is_end()));
    }
    if decided.to == State::Ready {
        moves.requeued();
    }
    audited(connection, audit, changed.deliveries).await?;
    Ok(changed)
}

/// Notes what holds for the whole journal, or that nothing does any more.
pub(super) async fn note(
    connection: &mut PgConnection,
    name: &'static str,
    value: Option<String>,
    audit: Option<Audit>,
) -> Result<(), StoreError> {
    match value {
        Some(value) => sqlx::query(NOTE).bind(name).bind(text(&value)).execute(&mut *connection).await?,
        None => sqlx::query(NO_NOTE).bind(name).execute(&mut *connection).await?,
    };
    match audit {
        Some(audit) => audited(connection, audit, 0).await,
        None => Ok(()),
    }
}

async fn audited(connection: &mut PgConnection, audit: Audit, total: u64) -> Result<(), StoreError> {
    sqlx::query(AUDIT)
        .bind(audit.at.as_microsecond())
        .bind(text(&audit.action))
        .bind(text(&audit.who))
        .bind(text(&audit.why))
        .bind(text(&audit.asked))
        .bind(total.cast_signed())
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 6] = [REQUEUE.sql, RELEASE.sql, SKIP.sql, NOTE, NO_NOTE, AUDIT];

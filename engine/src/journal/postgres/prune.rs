//! Removing what retention has chosen, in steps of some milliseconds.
//!
//! Promise:  P2. What is unfinished at the moment of the step stays, whatever was chosen before.
//! Not here: search keys of what has gone (sweep.rs); giving space back. PostgreSQL's vacuum does so, mostly to the tables themselves.

use std::collections::BTreeMap;

use sqlx::{Connection, PgConnection};

use super::{
    PostgresStore, batch,
    head::{self, Numbers},
    sweep, write,
};
use crate::journal::{
    Aged, Sequence, State,
    counters::Moves,
    rows::{Cells, instant, many, state},
    store::{Prune, Pruned, StoreError},
};

const AGED: &str = "SELECT m.sequence, m.received, (m.quarantine IS NOT NULL)::int::bigint,
    coalesce(length(m.body), 0)::bigint FROM message m WHERE m.sequence > $1 ORDER BY m.sequence LIMIT $2";
const AGED_WITH_BODY: &str = "SELECT m.sequence, m.received, (m.quarantine IS NOT NULL)::int::bigint,
    length(m.body)::bigint FROM message m WHERE m.sequence > $1 AND m.body IS NOT NULL
    ORDER BY m.sequence LIMIT $2";
const ENDED: &str = "SELECT d.sequence, d.route, d.state FROM unnest($1::bigint[]) AS v (sequence) JOIN delivery d USING (sequence)";
const UNFINISHED: &str =
    "SELECT DISTINCT p.sequence FROM unnest($1::bigint[]) AS v (sequence) JOIN pending p USING (sequence)";
const FORGET_BODIES: &str = "WITH was AS MATERIALIZED (
        SELECT m.sequence, length(m.body) AS bytes FROM unnest($1::bigint[]) AS v (sequence)
        JOIN message m USING (sequence) WHERE m.body IS NOT NULL),
    gone AS (UPDATE message m SET body = NULL FROM was WHERE m.sequence = was.sequence)
    SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM was";
const FORGET_EXCHANGES: &str = "WITH was AS MATERIALIZED (
        SELECT d.sequence, d.route, d.destination,
            coalesce(length(d.output), 0) + coalesce(length(d.detail), 0) AS bytes
        FROM unnest($1::bigint[]) AS v (sequence) JOIN delivery d USING (sequence)
        WHERE d.output IS NOT NULL OR d.detail IS NOT NULL),
    gone AS (
        UPDATE delivery d SET output = NULL, detail = NULL FROM was
        WHERE d.sequence = was.sequence AND d.route = was.route AND d.destination = was.destination)
    SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM was";
const REMOVE_DELIVERIES: &str = "WITH gone AS (
        DELETE FROM delivery d USING unnest($1::bigint[]) AS v (sequence) WHERE d.sequence = v.sequence
        RETURNING d.destination, d.state, coalesce(length(d.output), 0) + coalesce(length(d.detail), 0) AS bytes)
    SELECT destination, state, count(*), sum(bytes)::bigint FROM gone GROUP BY destination, state";
const REMOVE_MESSAGES: &str = "DELETE FROM message m USING unnest($1::bigint[]) AS v (sequence)
    WHERE m.sequence = v.sequence RETURNING coalesce(length(m.body), 0)::bigint";

pub(super) async fn aged(
    connection: &mut PgConnection,
    after: Sequence,
    with_body: bool,
    limit: usize,
) -> Result<Vec<Aged>, StoreError> {
    let mut transaction = connection.begin().await?;
    let sql = if with_body { AGED_WITH_BODY } else { AGED };
    let rows = sqlx::query(sql).bind(after.0).bind(many(limit)).fetch_all(&mut *transaction).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let sequence = Sequence(row.number(0)?);
        let one = Aged {
            sequence,
            received: instant(row.number(1)?)?,
            quarantined: row.number(2)? != 0,
            unfinished: false,
            body_bytes: row.number(3)?.unsigned_abs(),
            deliveries: Vec::new(),
        };
        found.insert(sequence, one);
    }
    let sequences: Vec<i64> = found.keys().map(|sequence| sequence.0).collect();
    for row in sqlx::query(ENDED).bind(&sequences).fetch_all(&mut *transaction).await? {
        if let Some(one) = found.get_mut(&Sequence(row.number(0)?)) {
            one.deliveries.push((row.text(1)?.to_owned(), state(row.number(2)?)?));
        }
    }
    for sequence in unfinished(&mut transaction, &sequences).await? {
        if let Some(one) = found.get_mut(&Sequence(sequence)) {
            one.unfinished = true;
        }
    }
    Ok(found.into_values().collect())
}

async fn unfinished(connection: &mut PgConnection, sequences: &[i64]) -> Result<Vec<i64>, StoreError> {
    Ok(sqlx::query_scalar(UNFINISHED).bind(sequences).fetch_all(connection).await?)
}

pub(super) async fn prune(
    store: &PostgresStore,
    writer: &mut PgConnection,
    prune: Prune,
) -> Result<Pruned, StoreError> {
    let before = store.head.lock().numbers();
    let mut transaction = writer.begin().await?;
    write::enter(&mut transaction, store.session).await?;
    let all: Vec<i64> = prune.bodies.iter().chain(&prune.messages).map(|sequence| sequence.0).collect();
    let waiting = unfinished(&mut transaction, &all).await?;
    let free = |sequences: Vec<Sequence>| -> Vec<i64> {
        sequences.into_iter().map(|one| one.0).filter(|one| !waiting.contains(one)).collect()
    };
    let mut step = Step { connection: &mut transaction, moves: Moves::default(), freed: 0 };
    let bodies = step.forget(&free(prune.bodies)).await?;
    let messages = step.remove(&free(prune.messages)).await?;
    let Step { moves, freed, .. } = step;
    let after = Numbers { messages: before.messages - messages, used: before.used - freed, ..before };
    // With them: the newest message may be among those that go, and no number is ever given twice.
    head::write(&mut transaction, after).await?;
    transaction.commit().await?;
    store.head.lock().written(after);
    store.counters.lock().apply(moves);
    Ok(Pruned { bodies: bodies.unsigned_abs(), messages: messages.unsigned_abs() })
}

/// One transaction in the making.
struct Step<'t> {
    connection: &'t mut PgConnection,
    moves: Moves,
    freed: i64,
}

impl Step<'_> {
    /// Takes the bytes of messages and of what was sent and answered; says of how many messages.
    async fn forget(&mut self, sequences: &[i64]) -> Result<i64, StoreError> {
        let mut bodies = 0;
        for sql in [FORGET_EXCHANGES, FORGET_BODIES] {
            let row = sqlx::query(sql).bind(sequences).fetch_one(&mut *self.connection).await?;
            bodies = row.number(0)?;
            self.freed += row.number(1)?;
        }
        Ok(bodies)
    }

    /// Takes everything of messages; says of how many.
    async fn remove(&mut self, sequences: &[i64]) -> Result<i64, StoreError> {
        for row in sqlx::query(REMOVE_DELIVERIES).bind(sequences).fetch_all(&mut *self.connection).await? {
            let (was, deliveries) = (state(row.number(1)?)?, row.number(2)?);
            if was == State::Dead {
                self.moves.add(row.text(0)?, was, -deliveries);
            }
            self.freed += row.number(3)? + deliveries * batch::DELIVERY_BYTES;
        }
        let removed = sqlx::query(REMOVE_MESSAGES).bind(sequences).fetch_all(&mut *self.connection).await?;
        for row in &removed {
            self.freed += batch::MESSAGE_BYTES + row.number(0)?;
        }
        sweep::note(self.connection, sequences).await?;
        Ok(removed.len() as i64)
    }
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 8] = [
    AGED,
    AGED_WITH_BODY,
    ENDED,
    UNFINISHED,
    FORGET_BODIES,
    FORGET_EXCHANGES,
    REMOVE_DELIVERIES,
    REMOVE_MESSAGES,
];

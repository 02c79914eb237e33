//! Removing what retention has chosen, and giving the space back, in steps of some milliseconds.
//!
//! Promise:  P2. What is unfinished at the moment of the step stays, whatever was chosen before.
//!
//! Search keys of removed messages are not looked for one by one, which would write a page for each: they lead nowhere
//! until a sweep in the order of the table, a page after the other, takes them out.

use sqlx::{Connection, SqliteConnection, SqlitePool};
use std::{collections::BTreeMap, sync::atomic::Ordering};

use super::{SqliteStore, checkpoint, column, counters::Moves, instant, read, state};
use crate::journal::{
    Aged, Sequence, State,
    store::{Prune, Pruned, StoreError},
};

/// Search keys that one step of the sweep looks at.
const SWEPT: i64 = 2000;
/// Pages that one step gives back: 2 MB.
const GIVEN_BACK: i64 = 512;

/// Where the sweep over the search keys is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sweep {
    /// Everything removed since the sweep began lies up to here.
    upto: i64,
    at: (i64, i64, String, i64),
}

impl Sweep {
    /// A sweep over everything.
    pub(super) fn all(upto: i64) -> Self {
        Self { upto, at: (0, 0, String::new(), 0) }
    }
}

const AGED: &str = "SELECT m.sequence, m.received, m.quarantine IS NOT NULL, coalesce(length(m.body), 0)
    FROM message m WHERE m.sequence > ? ORDER BY m.sequence LIMIT ?";
const AGED_WITH_BODY: &str = "SELECT m.sequence, m.received, m.quarantine IS NOT NULL, length(m.body)
    FROM message m INDEXED BY message_with_body WHERE m.sequence > ? AND m.body IS NOT NULL
    ORDER BY m.sequence LIMIT ?";
const ENDED: &str = "SELECT d.sequence, d.route, d.state FROM json_each(?) j CROSS JOIN delivery d
    ON d.sequence = j.value";
const UNFINISHED: &str = concat!(
    "WITH RECURSIVE ",
    read::to_destination!(),
    " SELECT DISTINCT p.sequence FROM json_each(?) j CROSS JOIN to_destination CROSS JOIN pending p
    ON p.destination = name AND p.sequence = j.value"
);
const FORGET_BODIES: &str =
    "UPDATE message SET body = NULL WHERE sequence IN (SELECT value FROM json_each(?))";
const FORGET_EXCHANGES: &str = "UPDATE delivery SET output = NULL, detail = NULL
    WHERE sequence IN (SELECT value FROM json_each(?)) AND (output IS NOT NULL OR detail IS NOT NULL)";
const DEAD: &str =
    "SELECT d.destination, count(*) FROM json_each(?) j CROSS JOIN delivery d ON d.sequence = j.value
    WHERE d.state = 6 GROUP BY d.destination";
const REMOVE_DELIVERIES: &str = "DELETE FROM delivery WHERE sequence IN (SELECT value FROM json_each(?))";
const REMOVE_MESSAGES: &str = "DELETE FROM message WHERE sequence IN (SELECT value FROM json_each(?))";
/// What retention removes is never given again, also when it was the newest.
const LAST: &str = "UPDATE mark SET value = ? WHERE name = 'last'";
const SWEEP_TO: &str = "SELECT block, kind, value, sequence FROM search
    WHERE (block, kind, value, sequence) > (?, ?, ?, ?)
    ORDER BY block, kind, value, sequence LIMIT 1 OFFSET ?";
const SWEEP: &str = "DELETE FROM search WHERE (block, kind, value, sequence) > (?1, ?2, ?3, ?4)
    AND (block, kind, value, sequence) <= (?5, ?6, ?7, ?8) AND sequence <= ?9
    AND NOT EXISTS (SELECT 1 FROM message m WHERE m.sequence = search.sequence)";

pub(super) async fn aged(
    readers: &SqlitePool,
    after: Sequence,
    with_body: bool,
    limit: usize,
) -> Result<Vec<Aged>, StoreError> {
    let mut transaction = readers.begin().await?;
    let sql = if with_body { AGED_WITH_BODY } else { AGED };
    let rows = sqlx::query(sql).bind(after.0).bind(read::many(limit)).fetch_all(&mut *transaction).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let sequence = Sequence(column(row, 0)?);
        let one = Aged {
            sequence,
            received: instant(column(row, 1)?)?,
            quarantined: column(row, 2)?,
            unfinished: false,
            body_bytes: column::<i64>(row, 3)?.unsigned_abs(),
            deliveries: Vec::new(),
        };
        found.insert(sequence, one);
    }
    let sequences = read::json(&found.keys().collect::<Vec<_>>())?;
    for row in sqlx::query(ENDED).bind(&sequences).fetch_all(&mut *transaction).await? {
        if let Some(one) = found.get_mut(&Sequence(column(&row, 0)?)) {
            one.deliveries.push((column(&row, 1)?, state(column(&row, 2)?)?));
        }
    }
    for sequence in unfinished(&mut transaction, &sequences).await? {
        if let Some(one) = found.get_mut(&sequence) {
            one.unfinished = true;
        }
    }
    Ok(found.into_values().collect())
}

async fn unfinished(connection: &mut SqliteConnection, sequences: &str) -> Result<Vec<Sequence>, StoreError> {
    let rows = sqlx::query(UNFINISHED).bind(sequences).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(Sequence(column(row, 0)?))).collect()
}

pub(super) async fn prune(
    store: &SqliteStore,
    writer: &mut SqliteConnection,
    prune: Prune,
) -> Result<Pruned, StoreError> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    let mut moves = Moves::default();
    let all: Vec<_> = prune.bodies.iter().chain(&prune.messages).collect();
    let waiting = unfinished(&mut transaction, &read::json(&all)?).await?;
    let free = |sequences: &[Sequence]| {
        let free: Vec<_> = sequences.iter().filter(|sequence| !waiting.contains(sequence)).collect();
        Ok::<_, StoreError>((free.iter().max().map(|last| last.0), read::json(&free)?))
    };
    let (_, bodies) = free(&prune.bodies)?;
    let (last, messages) = free(&prune.messages)?;
    for row in sqlx::query(DEAD).bind(&messages).fetch_all(&mut *transaction).await? {
        moves.add(column(&row, 0)?, State::Dead, -column::<i64>(&row, 1)?);
    }
    let mut pruned = Pruned::default();
    sqlx::query(FORGET_EXCHANGES).bind(&bodies).execute(&mut *transaction).await?;
    pruned.bodies = sqlx::query(FORGET_BODIES).bind(bodies).execute(&mut *transaction).await?.rows_affected();
    if last.is_some() {
        sqlx::query(LAST).bind(store.last.load(Ordering::Acquire)).execute(&mut *transaction).await?;
    }
    sqlx::query(REMOVE_DELIVERIES).bind(&messages).execute(&mut *transaction).await?;
    pruned.messages =
        sqlx::query(REMOVE_MESSAGES).bind(messages).execute(&mut *transaction).await?.rows_affected();
    transaction.commit().await?;
    store.counters.lock().apply(moves);
    store.wrote(super::COMMIT_WEIGHT_BYTES);
    if let Some(upto) = last {
        let mut sweep = store.sweep.lock();
        let upto = sweep.as_ref().map_or(upto, |known| known.upto.max(upto));
        *sweep = Some(Sweep::all(upto));
    }
    Ok(pruned)
}

/// One small step: search keys that lead nowhere, then free pages. Says whether there is more to do.
pub(super) async fn reclaim(store: &SqliteStore, writer: &mut SqliteConnection) -> Result<bool, StoreError> {
    let sweep = store.sweep.lock().clone();
    if let Some(sweep) = sweep {
        let next = step(writer, &sweep).await?;
        let mut known = store.sweep.lock();
        // A step of pruning meanwhile began it anew.
        if known.as_ref() == Some(&sweep) {
            *known = next;
        }
        store.wrote(super::COMMIT_WEIGHT_BYTES);
        return Ok(true);
    }
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *writer).await?;
    if free > 0 {
        let give_back = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({GIVEN_BACK})"));
        sqlx::query(give_back).fetch_all(&mut *writer).await?;
        store.wrote(usize::try_from(GIVEN_BACK * 2 * i64::from(super::PAGE_BYTES)).unwrap_or_default());
    } else {
        // What the log still holds of it is written over, so that the files shrink now and not some day.
        sqlx::query(checkpoint::COPY).fetch_all(&mut *writer).await?;
    }
    Ok(free > 0)
}

async fn step(writer: &mut SqliteConnection, sweep: &Sweep) -> Result<Option<Sweep>, StoreError> {
    let (block, kind, value, sequence) = &sweep.at;
    let row = sqlx::query(SWEEP_TO)
        .bind(block)
        .bind(kind)
        .bind(value)
        .bind(sequence)
        .bind(SWEPT - 1)
        .fetch_optional(&mut *writer)
        .await?;
    let to = match &row {
        Some(row) => (
            column::<i64>(row, 0)?,
            column::<i64>(row, 1)?,
            column::<String>(row, 2)?,
            column::<i64>(row, 3)?,
        ),
        None => (i64::MAX, 0, String::new(), 0),
    };
    sqlx::query(SWEEP)
        .bind(block)
        .bind(kind)
        .bind(value)
        .bind(sequence)
        .bind(to.0)
        .bind(to.1)
        .bind(&to.2)
        .bind(to.3)
        .bind(sweep.upto)
        .execute(&mut *writer)
        .await?;
    Ok(row.map(|_| Sweep { upto: sweep.upto, at: to }))
}

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[AGED, AGED_WITH_BODY, UNFINISHED, FORGET_BODIES, REMOVE_MESSAGES, SWEEP_TO];

//! Removing what retention has chosen, and giving the space back, in steps of some milliseconds.
//!
//! Promise:  P2. What is unfinished at the moment of the step stays, whatever was chosen before.
//!
//! Search keys of removed messages are not looked for one by one, which would write a page for each: they lead nowhere
//! until a sweep in the order of the table, a page after the other, takes them out.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sqlx::SqlitePool;

use super::{checkpoint, column, counters::Moves, instant, read, state};
use crate::journal::{
    Aged, Sequence, State,
    store::{Prune, Pruned, StoreError},
};

/// Search keys that one step of the sweep looks at.
const SWEPT: i64 = 2000;
/// Pages that one step gives back: 2 MB.
const GIVEN_BACK: i64 = 512;

/// Where the sweep over the search keys is.
#[derive(Debug, Clone)]
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

    /// A sweep that begins anew, since more was removed meanwhile.
    pub(super) fn anew(known: Option<&Self>, removed: i64) -> Self {
        Self::all(known.map_or(removed, |known| known.upto.max(removed)))
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
    for row in sqlx::query(UNFINISHED).bind(&sequences).fetch_all(&mut *transaction).await? {
        if let Some(one) = found.get_mut(&Sequence(column(&row, 0)?)) {
            one.unfinished = true;
        }
    }
    Ok(found.into_values().collect())
}

/// What a step of pruning has changed.
pub(super) struct Done {
    pub pruned: Pruned,
    pub moves: Moves,
    /// The newest message that went.
    pub last: Option<i64>,
}

/// Removes what may go; `last` is the newest message.
pub(super) fn prune(connection: &mut Connection, last: i64, prune: &Prune) -> Result<Done, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let all: Vec<_> = prune.bodies.iter().chain(&prune.messages).collect();
    let waiting = unfinished(&transaction, &read::json(&all)?)?;
    let free = |sequences: &[Sequence]| {
        let free: Vec<_> = sequences.iter().filter(|sequence| !waiting.contains(sequence)).collect();
        Ok::<_, StoreError>((free.iter().max().map(|last| last.0), read::json(&free)?))
    };
    let (_, bodies) = free(&prune.bodies)?;
    let (removed, messages) = free(&prune.messages)?;
    let moves = moves(&transaction, &messages)?;
    let execute =
        |sql, value: &str| Ok::<_, StoreError>(transaction.prepare_cached(sql)?.execute([value])? as u64);
    execute(FORGET_EXCHANGES, &bodies)?;
    let bodies = execute(FORGET_BODIES, &bodies)?;
    if removed.is_some() {
        transaction.execute(LAST, [last])?;
    }
    execute(REMOVE_DELIVERIES, &messages)?;
    let messages = execute(REMOVE_MESSAGES, &messages)?;
    transaction.commit()?;
    Ok(Done { pruned: Pruned { bodies, messages }, moves, last: removed })
}

fn unfinished(connection: &Connection, sequences: &str) -> Result<Vec<Sequence>, StoreError> {
    let mut statement = connection.prepare_cached(UNFINISHED)?;
    let rows = statement.query_map([sequences], |row| Ok(Sequence(row.get(0)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The dead letters that go with their messages.
fn moves(connection: &Connection, messages: &str) -> Result<Moves, StoreError> {
    let mut moves = Moves::default();
    let mut statement = connection.prepare_cached(DEAD)?;
    let mut rows = statement.query([messages])?;
    while let Some(row) = rows.next()? {
        let (destination, deliveries): (String, i64) = row.try_into()?;
        moves.add(&destination, State::Dead, -deliveries);
    }
    Ok(moves)
}

/// One step of a sweep; where the next begins.
pub(super) fn sweep(connection: &Connection, sweep: Sweep) -> Result<Option<Sweep>, StoreError> {
    let Sweep { upto, at: (block, kind, value, sequence) } = sweep;
    let to = connection
        .prepare_cached(SWEEP_TO)?
        .query_row(params![block, kind, value, sequence, SWEPT - 1], |row| row.try_into())
        .optional()?;
    let last = (i64::MAX, 0, String::new(), 0);
    let (to_block, to_kind, to_value, to_sequence) = to.as_ref().unwrap_or(&last);
    connection.prepare_cached(SWEEP)?.execute(params![
        block,
        kind,
        value,
        sequence,
        to_block,
        to_kind,
        to_value,
        to_sequence,
        upto
    ])?;
    Ok(to.map(|at| Sweep { upto, at }))
}

/// Gives some free pages back; how many bytes were written for it, roughly, if there were any.
pub(super) fn give_back(connection: &mut Connection) -> Result<Option<usize>, StoreError> {
    let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    if free == 0 {
        // What the log still holds of it is written over, so that the files shrink now and not some day.
        checkpoint::pages(connection, checkpoint::COPY)?;
        return Ok(None);
    }
    // A row for each page: all of them in one commit, which ends with the last.
    let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({GIVEN_BACK})"))?;
    let mut pages = statement.raw_query();
    while pages.next()?.is_some() {}
    Ok(Some(usize::try_from(GIVEN_BACK * 2 * i64::from(super::PAGE_BYTES)).unwrap_or_default()))
}

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[AGED, AGED_WITH_BODY, UNFINISHED, FORGET_BODIES, REMOVE_MESSAGES, SWEEP_TO];

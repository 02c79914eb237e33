//! What only reads: on connections of its own, each answer from one snapshot of the database.

use std::path::Path;

use sqlx::{AssertSqlSafe, SqlitePool};

/// The highest sequence ever given: retention may have removed its message, and has noted it then.
macro_rules! last {
    () => {
        "max(coalesce((SELECT max(sequence) FROM message), 0), (SELECT value FROM mark WHERE name = 'last'))"
    };
}
pub(super) use last;

use super::{PAGE_BYTES, column, counters::Counters, instant, number, search};
pub(super) use crate::journal::rows::{json, many, summary as one_summary, summary_columns};
use crate::journal::{
    Audit, Count, DeliveryId, DeliveryRecord, Filter, Key, Pending, Sequence, State, Stats, Summary,
    rows::{self, DELIVERY_COLUMNS, audit_columns, output_columns, pending_columns, stored_columns},
    store::{StoreError, Stored, StoredDelivery},
};

/// The destinations that something is owed to. The table begins with them: go from one to the next instead of reading
/// it all.
macro_rules! to_destination {
    () => {
        "to_destination (name) AS (
            SELECT min(destination) FROM pending
            UNION ALL
            SELECT (SELECT min(destination) FROM pending WHERE destination > name)
            FROM to_destination WHERE name IS NOT NULL)"
    };
}
pub(super) use to_destination;

pub(super) async fn pending(
    readers: &SqlitePool,
    destination: &str,
    after: Sequence,
    limit: usize,
) -> Result<Vec<Pending>, StoreError> {
    const PAGE: &str = concat!(
        "SELECT ",
        pending_columns!(),
        " FROM pending WHERE destination = ? AND sequence > ? ORDER BY sequence, route LIMIT ?"
    );
    const REST: &str = concat!(
        "SELECT ",
        pending_columns!(),
        " FROM pending WHERE destination = ? AND sequence = ? AND route > ? ORDER BY route"
    );
    let page = sqlx::query(PAGE).bind(destination).bind(after.0).bind(many(limit));
    let page = page.fetch_all(readers).await?;
    let mut found = page.iter().map(rows::pending).collect::<Result<Vec<_>, _>>()?;
    // In a reading of its own: whatever has been put back meanwhile is read again.
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let rest = sqlx::query(REST).bind(destination).bind(last.id.sequence.0).bind(last.id.route.clone());
        for row in &rest.fetch_all(readers).await? {
            found.push(rows::pending(row)?);
        }
    }
    Ok(found)
}

pub(super) async fn messages(
    readers: &SqlitePool,
    sequences: &[Sequence],
    most_bytes: usize,
) -> Result<Vec<Stored>, StoreError> {
    const MESSAGES: &str = concat!(
        "WITH wanted AS MATERIALIZED (
            SELECT m.sequence, sum(m.size_bytes) OVER (ORDER BY m.sequence) - m.size_bytes AS before
            FROM json_each(?) j CROSS JOIN message m ON m.sequence = j.value)
        SELECT ",
        stored_columns!(),
        " FROM wanted w CROSS JOIN message m ON m.sequence = w.sequence WHERE w.before <= ?"
    );
    let query = sqlx::query(MESSAGES).bind(json(sequences)?).bind(many(most_bytes));
    query.fetch_all(readers).await?.iter().map(rows::stored).collect()
}

pub(super) async fn outputs(
    readers: &SqlitePool,
    ids: &[DeliveryId],
) -> Result<Vec<StoredDelivery>, StoreError> {
    const OUTPUTS: &str = concat!(
        "SELECT ",
        output_columns!(),
        " FROM json_each(?) j CROSS JOIN delivery d
        ON d.sequence = j.value ->> 0 AND d.route = j.value ->> 1 AND d.destination = j.value ->> 2"
    );
    let ids: Vec<_> = ids.iter().map(|id| (id.sequence, &id.route, &id.destination)).collect();
    let rows = sqlx::query(OUTPUTS).bind(json(&ids)?).fetch_all(readers).await?;
    rows.iter().map(rows::output).collect()
}

/// What was sent and answered in all deliveries of messages.
pub(super) async fn exchanges(
    readers: &SqlitePool,
    sequences: &[Sequence],
) -> Result<Vec<StoredDelivery>, StoreError> {
    const EXCHANGES: &str = concat!(
        "SELECT ",
        output_columns!(),
        " FROM json_each(?) j CROSS JOIN delivery d ON d.sequence = j.value"
    );
    let rows = sqlx::query(EXCHANGES).bind(json(sequences)?).fetch_all(readers).await?;
    rows.iter().map(rows::output).collect()
}

pub(super) async fn removed(
    readers: &SqlitePool,
    sequences: &[Sequence],
) -> Result<Vec<Sequence>, StoreError> {
    const REMOVED: &str = "SELECT m.sequence FROM json_each(?) j CROSS JOIN message m ON m.sequence = j.value
        WHERE m.body IS NULL";
    let rows = sqlx::query_scalar(REMOVED).bind(json(sequences)?).fetch_all(readers).await?;
    Ok(rows.into_iter().map(Sequence).collect())
}

pub(super) async fn note(readers: &SqlitePool, name: &str) -> Result<Option<String>, StoreError> {
    let query = sqlx::query_scalar("SELECT value FROM note WHERE name = ?").bind(name.to_owned());
    Ok(query.fetch_optional(readers).await?)
}

pub(super) async fn summary(readers: &SqlitePool, sequence: Sequence) -> Result<Option<Summary>, StoreError> {
    const ONE: &str = concat!("SELECT ", summary_columns!(), " FROM message m WHERE m.sequence = ?");
    let row = sqlx::query(ONE).bind(sequence.0).fetch_optional(readers).await?;
    row.as_ref().map(one_summary).transpose()
}

pub(super) async fn deliveries(
    readers: &SqlitePool,
    sequence: Sequence,
) -> Result<Vec<DeliveryRecord>, StoreError> {
    const UNFINISHED: &str = concat!(
        "WITH RECURSIVE ",
        to_destination!(),
        " SELECT p.sequence, p.route, p.destination, p.lanes, p.received, p.state, p.attempts, p.first_attempt
        FROM to_destination CROSS JOIN pending p ON p.destination = name AND p.sequence = ?"
    );
    let mut transaction = readers.begin().await?;
    let known = format!("SELECT {DELIVERY_COLUMNS} FROM delivery d WHERE d.sequence = ?");
    let known = sqlx::query(AssertSqlSafe(known)).bind(sequence.0).fetch_all(&mut *transaction).await?;
    let unfinished = sqlx::query(UNFINISHED).bind(sequence.0).fetch_all(&mut *transaction).await?;
    rows::of_message(&known, &unfinished)
}

pub(super) async fn select(
    readers: &SqlitePool,
    filter: &Filter,
    after: Sequence,
    limit: usize,
) -> Result<Vec<DeliveryRecord>, StoreError> {
    let mut transaction = readers.begin().await?;
    let page = selection(filter, "d.sequence > ?1");
    let query = |sql: String, bound: i64, limit: i64| {
        sqlx::query(AssertSqlSafe(sql))
            .bind(bound)
            .bind(filter.destination.clone())
            .bind(filter.route.clone())
            .bind(filter.sequence.map(|sequence| sequence.0))
            .bind(filter.control_id.clone())
            .bind(limit)
    };
    let rows = query(page, after.0, many(limit)).fetch_all(&mut *transaction).await?;
    let mut found = rows.iter().map(rows::delivery).collect::<Result<Vec<_>, _>>()?;
    if let Some(last) = found.last().filter(|_| found.len() == limit).map(|last| last.id.sequence) {
        found.retain(|delivery| delivery.id.sequence != last);
        let rest = selection(filter, "d.sequence = ?1");
        for row in &query(rest, last.0, i64::MAX).fetch_all(&mut *transaction).await? {
            found.push(rows::delivery(row)?);
        }
    }
    Ok(found)
}

/// States are our own numbers; everything that a person gives is bound.
fn selection(filter: &Filter, place: &str) -> String {
    let states: Vec<_> = filter.states.iter().map(|state| number(*state).to_string()).collect();
    let mut sql = format!(
        "SELECT {DELIVERY_COLUMNS} FROM delivery d WHERE {place} AND d.state IN ({})",
        states.join(",")
    );
    let for_a_person =
        |state: &State| matches!(state, State::Retrying | State::Parked | State::Held | State::Dead);
    if filter.states.iter().all(for_a_person) {
        // The words of the partial index, so that it may be used.
        sql.push_str(" AND d.state IN (1, 2, 3, 6)");
    }
    if filter.destination.is_some() {
        sql.push_str(" AND d.destination = ?2");
    }
    if filter.route.is_some() {
        sql.push_str(" AND d.route = ?3");
    }
    if filter.sequence.is_some() {
        sql.push_str(" AND d.sequence = ?4");
    }
    if filter.control_id.is_some() {
        sql.push_str(&format!(
            " AND d.sequence IN ({})",
            search::found_by(Key::ControlId(""), "?5", "1", "9223372036854775807")
        ));
    }
    sql.push_str(" ORDER BY d.sequence, d.route, d.destination LIMIT ?6");
    sql
}

pub(super) async fn quarantine(
    readers: &SqlitePool,
    after: Sequence,
    limit: usize,
) -> Result<Vec<Summary>, StoreError> {
    const QUARANTINE: &str = concat!(
        "SELECT ",
        summary_columns!(),
        " FROM message m
         WHERE m.quarantine IS NOT NULL AND m.sequence > ? ORDER BY m.sequence LIMIT ?"
    );
    let rows = sqlx::query(QUARANTINE).bind(after.0).bind(many(limit)).fetch_all(readers).await?;
    rows.iter().map(one_summary).collect()
}

pub(super) async fn audit(readers: &SqlitePool, limit: usize) -> Result<Vec<Audit>, StoreError> {
    const AUDIT: &str = concat!("SELECT ", audit_columns!(), " FROM audit ORDER BY id DESC LIMIT ?");
    let rows = sqlx::query(AUDIT).bind(many(limit)).fetch_all(readers).await?;
    rows.iter().map(rows::audit).collect()
}

pub(super) async fn counts(
    readers: &SqlitePool,
    counters: &parking_lot::Mutex<Counters>,
) -> Result<Vec<Count>, StoreError> {
    let all = counters.lock().all();
    let mut counts = Vec::with_capacity(all.len());
    for (destination, state, deliveries) in all {
        let oldest = match (deliveries, state) {
            (0, _) => None,
            (_, State::Ready) => oldest_ready(readers, counters, &destination).await?,
            _ => oldest_other(readers, &destination, state).await?,
        };
        let oldest = oldest.map(instant).transpose()?;
        counts.push(Count { destination, state, deliveries, oldest });
    }
    Ok(counts)
}

async fn oldest_ready(
    readers: &SqlitePool,
    counters: &parking_lot::Mutex<Counters>,
    destination: &str,
) -> Result<Option<i64>, StoreError> {
    const OLDEST: &str = "SELECT sequence, received FROM pending
        WHERE destination = ? AND sequence >= ? AND state = 0 ORDER BY sequence LIMIT 1";
    let (from, replays) = counters.lock().ready_from(destination);
    let row = sqlx::query(OLDEST).bind(destination).bind(from.0).fetch_optional(readers).await?;
    let Some(row) = row else { return Ok(None) };
    counters.lock().found_ready(destination, Sequence(column(&row, 0)?), replays);
    Ok(Some(column(&row, 1)?))
}

async fn oldest_other(
    readers: &SqlitePool,
    destination: &str,
    state: State,
) -> Result<Option<i64>, StoreError> {
    const WAITING: &str = "SELECT received FROM pending INDEXED BY pending_waiting
        WHERE destination = ? AND state = ? AND state <> 0 ORDER BY sequence LIMIT 1";
    const DEAD: &str = "SELECT m.received FROM delivery d INDEXED BY delivery_for_a_person
        CROSS JOIN message m ON m.sequence = d.sequence
        WHERE d.destination = ? AND d.state = ? AND d.state IN (1, 2, 3, 6) ORDER BY d.sequence LIMIT 1";
    let sql = if state == State::Dead { DEAD } else { WAITING };
    Ok(sqlx::query_scalar(sql).bind(destination).bind(number(state)).fetch_optional(readers).await?)
}

pub(super) async fn stats(readers: &SqlitePool, database: &Path) -> Result<Stats, StoreError> {
    const STATS: &str = concat!(
        "SELECT ",
        last!(),
        ", (SELECT min(sequence) FROM message), (SELECT count(*) FROM message WHERE quarantine IS NOT NULL),
        (SELECT count(*) FROM message), (SELECT value FROM mark WHERE name = 'searched'),
        (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count)"
    );
    let row = sqlx::query(STATS).fetch_one(readers).await?;
    let bytes = |suffix: &str| {
        let mut path = database.to_owned().into_os_string();
        path.push(suffix);
        std::fs::metadata(path).map_or(0, |file| file.len())
    };
    let last = column::<i64>(&row, 0)?;
    let pages = column::<i64>(&row, 5)? - column::<i64>(&row, 6)?;
    Ok(Stats {
        last: Sequence(last),
        first: column::<Option<i64>>(&row, 1)?.map(Sequence),
        quarantined: column::<i64>(&row, 2)?.unsigned_abs(),
        messages: column::<i64>(&row, 3)?.unsigned_abs(),
        disk_bytes: bytes("") + bytes("-wal"),
        used_bytes: (pages * i64::from(PAGE_BYTES)).unsigned_abs(),
        search_behind: (last - column::<i64>(&row, 4)?).unsigned_abs(),
    })
}

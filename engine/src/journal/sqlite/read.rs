//! What only reads: on connections of its own, each answer from one snapshot of the database.

use std::{collections::BTreeMap, path::Path};

use sqlx::{AssertSqlSafe, SqlitePool, sqlite::SqliteRow};

use super::{PAGE_BYTES, column, counters::Counters, instant, number, search, state};
use crate::{
    connector::ErrorClass,
    journal::{
        Audit, Count, DeliveryId, DeliveryRecord, Filter, Key, Keys, Pending, Sequence, State, Stats,
        Summary,
        body::{Body, Codec, Flaw},
        store::{StoreError, Stored, StoredDelivery},
    },
};

/// The columns of a [`Summary`], of `message m`.
macro_rules! summary_columns {
    () => {
        "m.sequence, m.received, m.listener, m.peer, m.control_id, m.trigger_event, m.sending_application,
         m.sending_facility, m.patient, m.nhs_number, m.local_number, m.visit, m.orders, m.size_bytes, m.hash,
         m.quarantine, m.flag"
    };
}

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
pub(super) use {summary_columns, to_destination};

/// The columns of a [`DeliveryRecord`], of `delivery d`.
const DELIVERY: &str =
    "d.sequence, d.route, d.destination, d.state, d.lanes, d.at, d.attempts, d.first_attempt,
    d.revision, d.reason, d.class";

pub(super) async fn pending(
    readers: &SqlitePool,
    destination: &str,
    after: Sequence,
    limit: usize,
) -> Result<Vec<Pending>, StoreError> {
    const PAGE: &str = "SELECT sequence, route, lanes, received, state, attempts, first_attempt FROM pending
        WHERE destination = ? AND sequence > ? ORDER BY sequence, route LIMIT ?";
    const REST: &str = "SELECT sequence, route, lanes, received, state, attempts, first_attempt FROM pending
        WHERE destination = ? AND sequence = ? AND route > ? ORDER BY route";
    let mut transaction = readers.begin().await?;
    let page = sqlx::query(PAGE)
        .bind(destination)
        .bind(after.0)
        .bind(many(limit))
        .fetch_all(&mut *transaction)
        .await?;
    let mut found = page.iter().map(|row| one_pending(row, destination)).collect::<Result<Vec<_>, _>>()?;
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let rest = sqlx::query(REST)
            .bind(destination)
            .bind(last.id.sequence.0)
            .bind(last.id.route.clone())
            .fetch_all(&mut *transaction)
            .await?;
        for row in &rest {
            found.push(one_pending(row, destination)?);
        }
    }
    Ok(found)
}

pub(super) async fn messages(
    readers: &SqlitePool,
    sequences: &[Sequence],
) -> Result<Vec<Stored>, StoreError> {
    const MESSAGES: &str = concat!(
        "SELECT ",
        summary_columns!(),
        ", m.codec, m.body FROM json_each(?) j CROSS JOIN message m
         ON m.sequence = j.value"
    );
    let rows = sqlx::query(MESSAGES).bind(json(sequences)?).fetch_all(readers).await?;
    let stored = |row: &SqliteRow| {
        let summary = one_summary(row)?;
        let codec = u8::try_from(column::<i64>(row, 17)?).ok().and_then(Codec::from_number);
        let (size_bytes, hash) = (summary.size_bytes, summary.hash);
        let body = match (codec, column::<Option<Vec<u8>>>(row, 18)?) {
            (_, None) => Err(Flaw::Removed),
            (None, _) => Err(Flaw::Unreadable),
            (Some(codec), Some(packed)) => Ok(Body { codec, size_bytes, hash, packed }),
        };
        Ok(Stored { summary, body })
    };
    rows.iter().map(stored).collect()
}

pub(super) async fn outputs(
    readers: &SqlitePool,
    ids: &[DeliveryId],
) -> Result<Vec<StoredDelivery>, StoreError> {
    const OUTPUTS: &str = "SELECT d.sequence, d.route, d.destination, d.state, d.revision, d.output, d.detail
        FROM json_each(?) j CROSS JOIN delivery d
        ON d.sequence = j.value ->> 0 AND d.route = j.value ->> 1 AND d.destination = j.value ->> 2";
    let ids: Vec<_> = ids.iter().map(|id| (id.sequence, &id.route, &id.destination)).collect();
    let rows = sqlx::query(OUTPUTS).bind(json(&ids)?).fetch_all(readers).await?;
    rows.iter().map(one_output).collect()
}

/// What was sent and answered in all deliveries of messages.
pub(super) async fn exchanges(
    readers: &SqlitePool,
    sequences: &[Sequence],
) -> Result<Vec<StoredDelivery>, StoreError> {
    const EXCHANGES: &str =
        "SELECT d.sequence, d.route, d.destination, d.state, d.revision, d.output, d.detail
        FROM json_each(?) j CROSS JOIN delivery d ON d.sequence = j.value";
    let rows = sqlx::query(EXCHANGES).bind(json(sequences)?).fetch_all(readers).await?;
    rows.iter().map(one_output).collect()
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
        " SELECT p.destination, p.sequence, p.route, p.lanes, p.received, p.state, p.attempts, p.first_attempt
        FROM to_destination CROSS JOIN pending p ON p.destination = name AND p.sequence = ?"
    );
    let mut transaction = readers.begin().await?;
    let known = format!("SELECT {DELIVERY} FROM delivery d WHERE d.sequence = ?");
    let known = sqlx::query(AssertSqlSafe(known)).bind(sequence.0).fetch_all(&mut *transaction).await?;
    let unfinished = sqlx::query(UNFINISHED).bind(sequence.0).fetch_all(&mut *transaction).await?;
    let mut found = BTreeMap::new();
    for row in &known {
        let delivery = one_delivery(row)?;
        found.insert((delivery.id.destination.clone(), delivery.id.route.clone()), delivery);
    }
    for row in &unfinished {
        let destination: String = column(row, 0)?;
        let route: String = column(row, 2)?;
        let never_attempted = || DeliveryRecord {
            id: DeliveryId { sequence, route: route.clone(), destination: destination.clone() },
            state: State::Ready,
            lanes: Vec::new(),
            at: None,
            attempts: 0,
            first_attempt: None,
            revision: String::new(),
            reason: String::new(),
            class: None,
        };
        let delivery = found.entry((destination.clone(), route.clone())).or_insert_with(never_attempted);
        delivery.lanes = lanes(column(row, 3)?)?;
        delivery.state = state(column(row, 5)?)?;
        delivery.attempts = count(column(row, 6)?);
        delivery.first_attempt = column::<Option<i64>>(row, 7)?.map(instant).transpose()?;
    }
    Ok(found.into_values().collect())
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
    let mut found = rows.iter().map(one_delivery).collect::<Result<Vec<_>, _>>()?;
    if let Some(last) = found.last().filter(|_| found.len() == limit).map(|last| last.id.sequence) {
        found.retain(|delivery| delivery.id.sequence != last);
        let rest = selection(filter, "d.sequence = ?1");
        for row in &query(rest, last.0, i64::MAX).fetch_all(&mut *transaction).await? {
            found.push(one_delivery(row)?);
        }
    }
    Ok(found)
}

/// States are our own numbers; everything that a person gives is bound.
fn selection(filter: &Filter, place: &str) -> String {
    let states: Vec<_> = filter.states.iter().map(|state| number(*state).to_string()).collect();
    let mut sql =
        format!("SELECT {DELIVERY} FROM delivery d WHERE {place} AND d.state IN ({})", states.join(","));
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
        sql.push_str(&format!(" AND d.sequence IN ({})", search::found_by(Key::ControlId(""), "?5")));
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
    const AUDIT: &str = "SELECT at, action, who, why, asked, deliveries FROM audit ORDER BY id DESC LIMIT ?";
    let rows = sqlx::query(AUDIT).bind(many(limit)).fetch_all(readers).await?;
    let one = |row: &SqliteRow| {
        Ok(Audit {
            at: instant(column(row, 0)?)?,
            action: column(row, 1)?,
            who: column(row, 2)?,
            why: column(row, 3)?,
            asked: column(row, 4)?,
            deliveries: column::<i64>(row, 5)?.unsigned_abs(),
        })
    };
    rows.iter().map(one).collect()
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
    const STATS: &str = "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'message'),
        (SELECT min(sequence) FROM message), (SELECT count(*) FROM message WHERE quarantine IS NOT NULL),
        (SELECT count(*) FROM message), (SELECT value FROM mark WHERE name = 'searched'),
        (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count)";
    let row = sqlx::query(STATS).fetch_one(readers).await?;
    let bytes = |suffix: &str| {
        let mut path = database.to_owned().into_os_string();
        path.push(suffix);
        std::fs::metadata(path).map_or(0, |file| file.len())
    };
    let last = column::<Option<i64>>(&row, 0)?.unwrap_or_default();
    let pages = column::<i64>(&row, 5)? - column::<i64>(&row, 6)?;
    Ok(Stats {
        last: Sequence(last),
        first: column::<Option<i64>>(&row, 1)?.map(Sequence),
        quarantined: column::<i64>(&row, 2)?.unsigned_abs(),
        messages: column::<i64>(&row, 3)?.unsigned_abs(),
        disk_bytes: bytes("") + bytes("-wal"),
        used_bytes: (pages * PAGE_BYTES).unsigned_abs(),
        search_behind: (last - column::<i64>(&row, 4)?).unsigned_abs(),
    })
}

pub(super) fn one_summary(row: &SqliteRow) -> Result<Summary, StoreError> {
    let hash: &[u8] = column(row, 14)?;
    Ok(Summary {
        sequence: Sequence(column(row, 0)?),
        received: instant(column(row, 1)?)?,
        listener: column(row, 2)?,
        peer: column(row, 3)?,
        keys: Keys {
            control_id: column(row, 4)?,
            trigger: column(row, 5)?,
            sending_application: column(row, 6)?,
            sending_facility: column(row, 7)?,
            patient: column(row, 8)?,
            nhs_number: column(row, 9)?,
            local_number: column(row, 10)?,
            visit: column(row, 11)?,
            orders: orders(column(row, 12)?)?,
        },
        size_bytes: usize::try_from(column::<i64>(row, 13)?).unwrap_or(usize::MAX),
        // A hash of another length is damage: it will match nothing.
        hash: hash.try_into().unwrap_or_default(),
        quarantine: column(row, 15)?,
        flag: column(row, 16)?,
    })
}

fn one_output(row: &SqliteRow) -> Result<StoredDelivery, StoreError> {
    Ok(StoredDelivery {
        id: one_id(row)?,
        state: state(column(row, 3)?)?,
        revision: column(row, 4)?,
        output: column(row, 5)?,
        detail: column(row, 6)?,
    })
}

fn one_pending(row: &SqliteRow, destination: &str) -> Result<Pending, StoreError> {
    Ok(Pending {
        id: DeliveryId {
            sequence: Sequence(column(row, 0)?),
            route: column(row, 1)?,
            destination: destination.to_owned(),
        },
        lanes: lanes(column(row, 2)?)?,
        received: instant(column(row, 3)?)?,
        state: state(column(row, 4)?)?,
        attempts: count(column(row, 5)?),
        first_attempt: column::<Option<i64>>(row, 6)?.map(instant).transpose()?,
    })
}

fn one_delivery(row: &SqliteRow) -> Result<DeliveryRecord, StoreError> {
    Ok(DeliveryRecord {
        id: one_id(row)?,
        state: state(column(row, 3)?)?,
        lanes: lanes(column(row, 4)?)?,
        at: Some(instant(column(row, 5)?)?),
        attempts: count(column(row, 6)?),
        first_attempt: column::<Option<i64>>(row, 7)?.map(instant).transpose()?,
        revision: column(row, 8)?,
        reason: column(row, 9)?,
        class: column::<Option<&str>>(row, 10)?.and_then(class),
    })
}

fn one_id(row: &SqliteRow) -> Result<DeliveryId, StoreError> {
    Ok(DeliveryId {
        sequence: Sequence(column(row, 0)?),
        route: column(row, 1)?,
        destination: column(row, 2)?,
    })
}

fn class(word: &str) -> Option<ErrorClass> {
    use ErrorClass::{Misconfigured, Rejected, Unavailable, Uncertain};
    [Unavailable, Uncertain, Rejected, Misconfigured].into_iter().find(|class| class.word() == word)
}

fn lanes(text: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError("the lanes of a delivery cannot be read".to_owned()))
}

fn orders(text: &str) -> Result<Vec<String>, StoreError> {
    match text {
        "" => Ok(Vec::new()),
        list => serde_json::from_str(list)
            .map_err(|_| StoreError("the order numbers of a message cannot be read".to_owned())),
    }
}

fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn many(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn json<T: serde::Serialize>(rows: &[T]) -> Result<String, StoreError> {
    serde_json::to_string(rows).map_err(|error| StoreError(format!("ids cannot be written down: {error}")))
}

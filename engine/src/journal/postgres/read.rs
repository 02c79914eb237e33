//! What only reads: on sessions of their own, each answer from one snapshot of the database.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, QueryBuilder};

use super::{head::Numbers, keys::BLOCK, search, text};
use crate::journal::{
    Audit, Count, DeliveryId, DeliveryRecord, Filter, Key, Pending, Sequence, State, Stats, Summary,
    counters::Counters,
    rows::{
        self, Cells, DELIVERY_COLUMNS, audit_columns, instant, many, output_columns, pending_columns,
        state_number, stored_columns, summary_columns,
    },
    store::{StoreError, Stored, StoredDelivery},
};

/// Messages among which those with a key are looked for together: half a million.
const SELECTED: i64 = 64 * BLOCK;

pub(super) async fn pending(
    connection: &mut PgConnection,
    destination: &str,
    after: Sequence,
    limit: usize,
) -> Result<Vec<Pending>, StoreError> {
    const PAGE: &str = concat!(
        "SELECT ",
        pending_columns!(),
        " FROM pending WHERE destination = $1 AND sequence > $2 ORDER BY sequence, route LIMIT $3"
    );
    const REST: &str = concat!(
        "SELECT ",
        pending_columns!(),
        " FROM pending WHERE destination = $1 AND sequence = $2 AND route > $3 ORDER BY route"
    );
    let mut transaction = connection.begin().await?;
    let page = sqlx::query(PAGE).bind(destination).bind(after.0).bind(many(limit));
    let page = page.fetch_all(&mut *transaction).await?;
    let mut found = page.iter().map(rows::pending).collect::<Result<Vec<_>, _>>()?;
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let rest = sqlx::query(REST).bind(destination).bind(last.id.sequence.0).bind(last.id.route.clone());
        for row in &rest.fetch_all(&mut *transaction).await? {
            found.push(rows::pending(row)?);
        }
    }
    Ok(found)
}

pub(super) async fn messages(
    connection: &mut PgConnection,
    sequences: &[Sequence],
    most_bytes: usize,
) -> Result<Vec<Stored>, StoreError> {
    const MESSAGES: &str = concat!(
        "WITH wanted AS MATERIALIZED (
            SELECT sequence, sum(size_bytes) OVER (ORDER BY sequence) - size_bytes AS before
            FROM message WHERE sequence = ANY($1))
        SELECT ",
        stored_columns!(),
        " FROM wanted w JOIN message m ON m.sequence = w.sequence WHERE w.before <= $2"
    );
    let sequences: Vec<i64> = sequences.iter().map(|sequence| sequence.0).collect();
    let query = sqlx::query(MESSAGES).bind(sequences).bind(many(most_bytes));
    query.fetch_all(connection).await?.iter().map(rows::stored).collect()
}

pub(super) async fn outputs(
    connection: &mut PgConnection,
    ids: &[DeliveryId],
) -> Result<Vec<StoredDelivery>, StoreError> {
    const OUTPUTS: &str = concat!(
        "SELECT ",
        output_columns!(),
        " FROM unnest($1::bigint[], $2::text[], $3::text[]) AS v (sequence, route, destination)
        JOIN delivery d ON d.sequence = v.sequence AND d.route = v.route AND d.destination = v.destination"
    );
    let query = sqlx::query(OUTPUTS)
        .bind(ids.iter().map(|id| id.sequence.0).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| id.route.as_str()).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| id.destination.as_str()).collect::<Vec<_>>());
    query.fetch_all(connection).await?.iter().map(rows::output).collect()
}

pub(super) async fn summary(
    connection: &mut PgConnection,
    sequence: Sequence,
) -> Result<Option<Summary>, StoreError> {
    const ONE: &str = concat!("SELECT ", summary_columns!(), " FROM message m WHERE m.sequence = $1");
    let row = sqlx::query(ONE).bind(sequence.0).fetch_optional(connection).await?;
    row.as_ref().map(rows::summary).transpose()
}

pub(super) async fn deliveries(
    connection: &mut PgConnection,
    sequence: Sequence,
) -> Result<Vec<DeliveryRecord>, StoreError> {
    const UNFINISHED: &str = concat!("SELECT ", pending_columns!(), " FROM pending WHERE sequence = $1");
    let known = format!("SELECT {DELIVERY_COLUMNS} FROM delivery d WHERE d.sequence = $1");
    let mut transaction = connection.begin().await?;
    let known = sqlx::query(AssertSqlSafe(known)).bind(sequence.0).fetch_all(&mut *transaction).await?;
    let unfinished = sqlx::query(UNFINISHED).bind(sequence.0).fetch_all(&mut *transaction).await?;
    rows::of_message(&known, &unfinished)
}

pub(super) async fn select(
    connection: &mut PgConnection,
    filter: &Filter,
    after: Sequence,
    limit: usize,
) -> Result<Vec<DeliveryRecord>, StoreError> {
    let mut transaction = connection.begin().await?;
    let mut found = match &filter.control_id {
        Some(control_id) => {
            select_by_key(&mut transaction, filter, Key::ControlId(control_id), after, limit).await?
        }
        None => deliveries_by(&mut transaction, selection(filter, "d.sequence > ", after.0), limit).await?,
    };
    if let Some(last) = found.last().filter(|_| found.len() >= limit).map(|last| last.id.sequence) {
        found.retain(|delivery| delivery.id.sequence != last);
        let rest = selection(filter, "d.sequence = ", last.0);
        found.extend(deliveries_by(&mut transaction, rest, usize::MAX).await?);
    }
    Ok(found)
}

/// Of the messages with a key, those of one window after the other.
async fn select_by_key(
    connection: &mut PgConnection,
    filter: &Filter,
    key: Key<'_>,
    after: Sequence,
    limit: usize,
) -> Result<Vec<DeliveryRecord>, StoreError> {
    const KEPT: &str = "SELECT coalesce(min(sequence), 1), coalesce(max(sequence), 0) FROM message";
    let kept = sqlx::query(KEPT).fetch_one(&mut *connection).await?;
    let (mut from, mut last) = (kept.number(0)?.max(after.0.saturating_add(1)), kept.number(1)?);
    if let Some(only) = filter.sequence {
        (from, last) = (from.max(only.0), last.min(only.0));
    }
    let mut found = Vec::new();
    while from <= last && found.len() < limit {
        let end = from.saturating_add(SELECTED);
        let mut sequences = Vec::new();
        let mut before = end;
        while from < before {
            let candidates = search::candidates(connection, key, (from, before), usize::MAX).await?;
            sequences.extend(candidates.sequences);
            before = candidates.from;
        }
        if !sequences.is_empty() {
            let mut sql = selection(filter, "d.sequence > ", after.0);
            sql.push(" AND d.sequence = ANY(").push_bind(sequences).push(")");
            found.extend(deliveries_by(connection, sql, limit - found.len()).await?);
        }
        from = end;
    }
    Ok(found)
}

async fn deliveries_by(
    connection: &mut PgConnection,
    mut sql: QueryBuilder<Postgres>,
    limit: usize,
) -> Result<Vec<DeliveryRecord>, StoreError> {
    sql.push(" ORDER BY d.sequence, d.route, d.destination LIMIT ").push_bind(many(limit));
    sql.build().fetch_all(connection).await?.iter().map(rows::delivery).collect()
}

/// States are our own numbers; everything that a person gives is bound.
fn selection(filter: &Filter, place: &str, bound: i64) -> QueryBuilder<Postgres> {
    let states: Vec<_> = filter.states.iter().map(|state| state_number(*state).to_string()).collect();
    let mut sql = QueryBuilder::new(format!("SELECT {DELIVERY_COLUMNS} FROM delivery d WHERE {place}"));
    sql.push_bind(bound).push(format!(" AND d.state IN ({})", states.join(",")));
    let for_a_person =
        |state: &State| matches!(state, State::Retrying | State::Parked | State::Held | State::Dead);
    if filter.states.iter().all(for_a_person) {
        // The words of the partial index, so that it may be used.
        sql.push(" AND d.state IN (1, 2, 3, 6)");
    }
    if let Some(destination) = &filter.destination {
        sql.push(" AND d.destination = ").push_bind(text(destination));
    }
    if let Some(route) = &filter.route {
        sql.push(" AND d.route = ").push_bind(text(route));
    }
    if let Some(sequence) = filter.sequence {
        sql.push(" AND d.sequence = ").push_bind(sequence.0);
    }
    if let Some(control_id) = &filter.control_id {
        let has = " AND (SELECT m.control_id FROM message m WHERE m.sequence = d.sequence) = ";
        sql.push(has).push_bind(text(control_id));
    }
    sql
}

pub(super) async fn quarantine(
    connection: &mut PgConnection,
    after: Sequence,
    limit: usize,
) -> Result<Vec<Summary>, StoreError> {
    const QUARANTINE: &str = concat!(
        "SELECT ",
        summary_columns!(),
        " FROM message m WHERE m.quarantine IS NOT NULL AND m.sequence > $1 ORDER BY m.sequence LIMIT $2"
    );
    let rows = sqlx::query(QUARANTINE).bind(after.0).bind(many(limit)).fetch_all(connection).await?;
    rows.iter().map(rows::summary).collect()
}

pub(super) async fn audit(connection: &mut PgConnection, limit: usize) -> Result<Vec<Audit>, StoreError> {
    const AUDIT: &str = concat!("SELECT ", audit_columns!(), " FROM audit ORDER BY id DESC LIMIT $1");
    let rows = sqlx::query(AUDIT).bind(many(limit)).fetch_all(connection).await?;
    rows.iter().map(rows::audit).collect()
}

pub(super) async fn counts(
    connection: &mut PgConnection,
    counters: &parking_lot::Mutex<Counters>,
) -> Result<Vec<Count>, StoreError> {
    let all = counters.lock().all();
    let mut counts = Vec::with_capacity(all.len());
    for (destination, state, deliveries) in all {
        let oldest = match (deliveries, state) {
            (0, _) => None,
            (_, State::Ready) => oldest_ready(&mut *connection, counters, &destination).await?,
            _ => oldest_other(&mut *connection, &destination, state).await?,
        };
        let oldest = oldest.map(instant).transpose()?;
        counts.push(Count { destination, state, deliveries, oldest });
    }
    Ok(counts)
}

async fn oldest_ready(
    connection: &mut PgConnection,
    counters: &parking_lot::Mutex<Counters>,
    destination: &str,
) -> Result<Option<i64>, StoreError> {
    const OLDEST: &str = "SELECT sequence, received FROM pending
        WHERE destination = $1 AND sequence >= $2 AND state = 0 ORDER BY sequence LIMIT 1";
    let (from, replays) = counters.lock().ready_from(destination);
    let row = sqlx::query(OLDEST).bind(destination).bind(from.0).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    counters.lock().found_ready(destination, Sequence(row.number(0)?), replays);
    Ok(Some(row.number(1)?))
}

async fn oldest_other(
    connection: &mut PgConnection,
    destination: &str,
    state: State,
) -> Result<Option<i64>, StoreError> {
    const WAITING: &str = "SELECT received FROM pending
        WHERE destination = $1 AND state = $2 AND state <> 0 ORDER BY sequence LIMIT 1";
    const DEAD: &str = "SELECT m.received FROM delivery d JOIN message m ON m.sequence = d.sequence
        WHERE d.destination = $1 AND d.state = $2 AND d.state = 6 ORDER BY d.sequence LIMIT 1";
    let sql = if state == State::Dead { DEAD } else { WAITING };
    Ok(sqlx::query_scalar(sql).bind(destination).bind(state_number(state)).fetch_optional(connection).await?)
}

pub(super) async fn removed(
    connection: &mut PgConnection,
    sequences: &[Sequence],
) -> Result<Vec<Sequence>, StoreError> {
    const REMOVED: &str = "SELECT m.sequence FROM message m WHERE m.sequence = ANY($1) AND m.body IS NULL";
    let sequences: Vec<i64> = sequences.iter().map(|sequence| sequence.0).collect();
    let rows = sqlx::query_scalar(REMOVED).bind(sequences).fetch_all(connection).await?;
    Ok(rows.into_iter().map(Sequence).collect())
}

pub(super) async fn note(connection: &mut PgConnection, name: &str) -> Result<Option<String>, StoreError> {
    let query = sqlx::query_scalar("SELECT value FROM note WHERE name = $1").bind(name);
    Ok(query.fetch_optional(connection).await?)
}

pub(super) async fn stats(connection: &mut PgConnection, numbers: Numbers) -> Result<Stats, StoreError> {
    const STATS: &str = "SELECT (SELECT min(sequence) FROM message),
        (SELECT count(*) FROM message WHERE quarantine IS NOT NULL),
        (SELECT searched FROM head),
        (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
         WHERE relnamespace = to_regnamespace('tie') AND relkind = 'r')";
    let row = sqlx::query(STATS).fetch_one(connection).await?;
    Ok(Stats {
        last: Sequence(numbers.last),
        first: row.number_if_any(0)?.map(Sequence),
        quarantined: row.number(1)?.unsigned_abs(),
        messages: numbers.messages.unsigned_abs(),
        disk_bytes: row.number(3)?.unsigned_abs(),
        used_bytes: numbers.used.max(0).unsigned_abs(),
        search_behind: (numbers.last - row.number(2)?).max(0).unsigned_abs(),
    })
}

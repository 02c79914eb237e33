//! Searching: candidates by an index, the newest first, so many at most in one call; then the other conditions.
//!
//! Promise:  P6. A call looks at a bounded number of messages, whatever is asked for, and says where to go on.

use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite, SqliteConnection, SqlitePool};

use super::{column, number, read};
use crate::journal::{Key, Page, Query, Sequence, Summary, store::StoreError};

/// Messages that one call looks at: about a tenth of a second.
const LOOKED_AT: i64 = 50_000;

/// Messages with a key from a sequence on and before another: those in the search table, block by block, the newest
/// first, and those that have come since it was last filled. The last three are expressions of SQL.
pub(super) fn found_by(key: Key<'_>, parameter: &str, from: &str, before: &str) -> String {
    let (kind, column) = match key {
        Key::ControlId(_) => (1, "control_id"),
        Key::Patient(_) => (2, "patient"),
        Key::NhsNumber(_) => (3, "nhs_number"),
        Key::LocalNumber(_) => (4, "local_number"),
        Key::Visit(_) => (5, "visit"),
        Key::Order(_) => (6, "orders"),
    };
    let has = match key {
        Key::Order(_) => format!("orders <> '' AND {parameter} IN (SELECT value FROM json_each(orders))"),
        _ => format!("{column} = {parameter}"),
    };
    format!(
        "SELECT sequence FROM (WITH RECURSIVE block (id) AS (
            SELECT max(block) FROM search WHERE block <= (SELECT value FROM mark WHERE name = 'searched')
            UNION ALL
            SELECT (SELECT max(block) FROM search WHERE block < id) FROM block WHERE id >= {from})
            SELECT s.sequence FROM block CROSS JOIN search s ON s.block = id AND s.kind = {kind}
            AND s.value = {parameter} AND s.sequence >= {from} AND s.sequence < {before})
         UNION ALL
         SELECT sequence FROM message WHERE {has} AND sequence >= {from} AND sequence < {before}
         AND sequence > (SELECT value FROM mark WHERE name = 'searched')"
    )
}

pub(super) async fn search(
    readers: &SqlitePool,
    query: &Query<'_>,
    before: Sequence,
    limit: usize,
) -> Result<Page, StoreError> {
    // No message is found by a key that it does not have.
    if query.key.is_some_and(|key| key.value().is_empty()) || limit == 0 {
        return Ok(Page::default());
    }
    let mut transaction = readers.begin().await?;
    let Some((first, before)) = bounds(&mut transaction, query, before).await? else {
        return Ok(Page::default());
    };
    let from = look_from(&mut transaction, query, first, before).await?;
    let mut sql = found(query, from, before);
    sql.push(" ORDER BY m.sequence DESC LIMIT ").push_bind(read::many(limit));
    let rows = sql.build().fetch_all(&mut *transaction).await?;
    let messages = rows.iter().map(read::one_summary).collect::<Result<Vec<Summary>, _>>()?;
    let next = match messages.last() {
        // What is older has not been looked at.
        Some(last) if messages.len() == limit => last.sequence,
        _ => Sequence(from),
    };
    Ok(Page { messages, next: (next.0 > first).then_some(next) })
}

/// The sequences between which everything lies that can be meant: the first of them, and the one after the last.
/// Clocks jump, so that there may be messages of other times between them. None if there is nothing.
async fn bounds(
    connection: &mut SqliteConnection,
    query: &Query<'_>,
    before: Sequence,
) -> Result<Option<(i64, i64)>, StoreError> {
    const KEPT: &str = "SELECT (SELECT min(sequence) FROM message),
        (SELECT max(sequence) FROM message WHERE sequence < ?)";
    const RECEIVED: &str = "SELECT min(sequence), max(sequence) FROM message INDEXED BY message_received
        WHERE received >= ? AND received < ? AND sequence < ?";
    let row = if query.since.is_none() && query.until.is_none() {
        sqlx::query(KEPT).bind(before.0).fetch_one(connection).await?
    } else {
        let since = query.since.map_or(i64::MIN, |since| since.as_microsecond());
        let until = query.until.map_or(i64::MAX, |until| until.as_microsecond());
        sqlx::query(RECEIVED).bind(since).bind(until).bind(before.0).fetch_one(connection).await?
    };
    let (first, last) = (column::<Option<i64>>(&row, 0)?, column::<Option<i64>>(&row, 1)?);
    Ok(first.zip(last).map(|(first, last)| (first, last + 1)))
}

/// Where one call has looked at as many messages as it may, or at some more: those of a block that it has begun.
async fn look_from(
    connection: &mut SqliteConnection,
    query: &Query<'_>,
    first: i64,
    before: i64,
) -> Result<i64, StoreError> {
    let (candidates, value) = match query.key {
        Some(key) => (found_by(key, "?3", "?1", "?2"), key.value()),
        None if query.quarantined => {
            let quarantined = "SELECT sequence FROM message WHERE quarantine IS NOT NULL
                AND sequence >= ?1 AND sequence < ?2 ORDER BY sequence DESC";
            (quarantined.to_owned(), "")
        }
        // All that lie there, row by row.
        None => return Ok(first.max(before - LOOKED_AT)),
    };
    let sql = format!(
        "SELECT CASE WHEN count(*) < ?4 THEN ?1 ELSE min(sequence) END
         FROM (SELECT sequence FROM ({candidates}) LIMIT ?4)"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(first).bind(before).bind(value.to_owned());
    Ok(query.bind(LOOKED_AT).fetch_one(connection).await?)
}

/// Everything that a person gives is bound.
fn found<'q>(query: &Query<'q>, from: i64, before: i64) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(concat!(
        "WITH RECURSIVE ",
        read::to_destination!(),
        ", asked (value, first, before) AS (SELECT "
    ));
    sql.push_bind(query.key.map_or("", Key::value).to_owned());
    sql.push(", ").push_bind(from).push(", ").push_bind(before);
    sql.push(concat!(") SELECT ", read::summary_columns!(), " FROM message m WHERE m.sequence >= "));
    sql.push_bind(from).push(" AND m.sequence < ").push_bind(before);
    if let Some(key) = query.key {
        sql.push(" AND m.sequence IN (")
            .push(found_by(
                key,
                "(SELECT value FROM asked)",
                "(SELECT first FROM asked)",
                "(SELECT before FROM asked)",
            ))
            .push(")");
    }
    if let Some(since) = query.since {
        sql.push(" AND m.received >= ").push_bind(since.as_microsecond());
    }
    if let Some(until) = query.until {
        sql.push(" AND m.received < ").push_bind(until.as_microsecond());
    }
    if let Some(listener) = query.listener {
        sql.push(" AND m.listener = ").push_bind(listener.to_owned());
    }
    if let Some(trigger) = query.trigger {
        sql.push(" AND m.trigger_event = ").push_bind(trigger.to_owned());
    }
    if query.quarantined {
        sql.push(" AND m.quarantine IS NOT NULL");
    }
    owed(&mut sql, query);
    sql
}

/// Conditions on a delivery: one and the same must fulfil them all.
fn owed(sql: &mut QueryBuilder<Sqlite>, query: &Query<'_>) {
    if query.route.is_none() && query.destination.is_none() && query.state.is_none() {
        return;
    }
    let pending = "SELECT 1 FROM to_destination CROSS JOIN pending x ON x.destination = name AND x.sequence = m.sequence
        WHERE true";
    // While a delivery is pending its row in this table only remembers the last attempt.
    let ended = "SELECT 1 FROM delivery x WHERE x.sequence = m.sequence AND x.state IN (4, 5, 6)";
    let tables: &[&str] = match query.state {
        Some(state) if state.is_end() => &[ended],
        Some(_) => &[pending],
        None => &[pending, ended],
    };
    for (place, table) in tables.iter().enumerate() {
        sql.push(if place == 0 { " AND (EXISTS (" } else { " OR EXISTS (" }).push(*table);
        if let Some(route) = query.route {
            sql.push(" AND x.route = ").push_bind(route.to_owned());
        }
        if let Some(destination) = query.destination {
            sql.push(" AND x.destination = ").push_bind(destination.to_owned());
        }
        if let Some(state) = query.state {
            sql.push(" AND x.state = ").push_bind(number(state));
        }
        sql.push(")");
    }
    sql.push(")");
}

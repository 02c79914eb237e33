//! Searching: candidates by an index, the newest first, so many at most in one call; then the other conditions.
//!
//! Promise:  P6. A call looks at a bounded number of messages, whatever is asked for, and says where to go on.
//! Not here: how keys come into the table (keys.rs).
//!
//! The table `search` has a part of the hash of each value, since a sender may put any length of text into a field and
//! an index cannot hold it. The value itself is compared as well.

use sqlx::{Connection, PgConnection, Postgres, QueryBuilder};

use super::{
    keys::{self, BLOCK, Code},
    spans, text,
};
use crate::journal::{
    Key, Page, Query, Sequence, Summary,
    rows::{self, Cells, many, state_number, summary_columns},
    store::StoreError,
};

/// Messages that one call looks at: some tenths of a second.
pub(super) const LOOKED_AT: usize = 50_000;
/// Rows of keys that are read together.
const ROWS: i64 = if cfg!(test) { 2 } else { 128 };
/// Blocks that one call looks at, each row some page of the disk: of 16 million messages.
const BLOCKS: i64 = if cfg!(test) { 5 } else { 2048 };

const ROWS_OF_KEY: &str = "SELECT block, part, keys FROM search WHERE list = $1 AND (block, part) < ($2, $3)
    AND block >= $4 AND low <= $5 AND high >= $5 ORDER BY block DESC, part DESC LIMIT $6";

/// Messages that may have a key: all of them from one sequence on, the newest first.
pub(super) struct Candidates {
    pub from: i64,
    pub sequences: Vec<i64>,
}

/// The newest messages that may have a key, from a sequence on and before another: at most so many, and as many as can be
/// found in bounded time. Within a transaction: keys that are written meanwhile would be seen neither here nor there.
pub(super) async fn candidates(
    connection: &mut PgConnection,
    key: Key<'_>,
    (first, before): (i64, i64),
    most: usize,
) -> Result<Candidates, StoreError> {
    if key.value().is_empty() {
        // No message is found by a key that it does not have.
        return Ok(Candidates { from: first, sequences: Vec::new() });
    }
    let searched = keys::searched(connection).await?;
    let mut sequences = match first.max(searched + 1) {
        beyond if beyond < before => beyond_the_mark(connection, key, beyond, before).await?,
        _ => Vec::new(),
    };
    let code = Code::of(key);
    let (mut block, mut part) = ((before - 1).div_euclid(BLOCK), i64::MAX);
    let last_block = first.div_euclid(BLOCK).max(block.min(searched / BLOCK) - BLOCKS + 1);
    let mut from;
    loop {
        let rows = sqlx::query(ROWS_OF_KEY)
            .bind(code.list())
            .bind(block)
            .bind(part)
            .bind(last_block)
            .bind(code.hash())
            .bind(ROWS)
            .fetch_all(&mut *connection)
            .await?;
        for row in &rows {
            (block, part) = (row.number(0)?, row.number(1)?);
            let found = code.found_in(block, row.bytes(2)?);
            sequences.extend(found.filter(|sequence| (first..before).contains(sequence)));
        }
        let is_last = many(rows.len()) < ROWS;
        // The last block may have more rows.
        from = first.max(if is_last { last_block } else { block + 1 } * BLOCK);
        if is_last || from < before && sequences.len() > most {
            break;
        }
    }
    sequences.retain(|sequence| *sequence >= from);
    sequences.sort_unstable_by(|one, other| other.cmp(one));
    // Those of a block that is not whole are there, too.
    sequences.dedup();
    if sequences.len() > most {
        sequences.truncate(most);
        from = sequences.last().map_or(from, |last| *last);
    }
    Ok(Candidates { from, sequences })
}

/// Those whose keys are not in the table, or in a block that is not whole.
async fn beyond_the_mark(
    connection: &mut PgConnection,
    key: Key<'_>,
    first: i64,
    before: i64,
) -> Result<Vec<i64>, StoreError> {
    let mut sql = QueryBuilder::new("SELECT m.sequence, m.orders FROM message m WHERE m.sequence >= ");
    sql.push_bind(first).push(" AND m.sequence < ").push_bind(before);
    push_has(&mut sql, key);
    let mut found = Vec::new();
    for row in sql.build().fetch_all(connection).await? {
        let has = match key {
            // A list that cannot be read is damaged, and has the word somewhere.
            Key::Order(value) => match row.text(1).and_then(rows::read_orders) {
                Ok(orders) => orders.iter().any(|order| order == value),
                Err(_) => true,
            },
            _ => true,
        };
        if has {
            found.push(row.number(0)?);
        }
    }
    Ok(found)
}

/// ` AND …`: `message m` has a key.
pub(super) fn push_has(sql: &mut QueryBuilder<Postgres>, key: Key<'_>) {
    let column = match key {
        Key::ControlId(_) => "control_id",
        Key::Patient(_) => "patient",
        Key::NhsNumber(_) => "nhs_number",
        Key::LocalNumber(_) => "local_number",
        Key::Visit(_) => "visit",
        Key::Order(value) => {
            // As it stands in the list: enough where the hash has said so too.
            let word = serde_json::Value::from(value).to_string();
            sql.push(" AND strpos(m.orders, ").push_bind(word).push(") > 0");
            return;
        }
    };
    sql.push(format!(" AND m.{column} = ")).push_bind(text(key.value()));
}

pub(super) async fn search(
    connection: &mut PgConnection,
    query: &Query<'_>,
    before: Sequence,
    limit: usize,
) -> Result<Page, StoreError> {
    if limit == 0 {
        return Ok(Page::default());
    }
    let mut transaction = connection.begin().await?;
    let Some((first, before)) = bounds(&mut transaction, query, before).await? else {
        return Ok(Page::default());
    };
    let mut sql = QueryBuilder::new(concat!("SELECT ", summary_columns!(), " FROM message m WHERE "));
    let from = match query.key {
        Some(key) => {
            let found = candidates(&mut transaction, key, (first, before), LOOKED_AT).await?;
            sql.push("m.sequence = ANY(").push_bind(found.sequences).push(")");
            push_has(&mut sql, key);
            found.from
        }
        None => {
            let from = look_from(&mut transaction, query, first, before).await?;
            sql.push("m.sequence >= ").push_bind(from).push(" AND m.sequence < ").push_bind(before);
            from
        }
    };
    conditions(&mut sql, query);
    sql.push(" ORDER BY 1 DESC LIMIT ").push_bind(many(limit));
    let rows = sql.build().fetch_all(&mut *transaction).await?;
    let messages = rows.iter().map(rows::summary).collect::<Result<Vec<Summary>, _>>()?;
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
    connection: &mut PgConnection,
    query: &Query<'_>,
    before: Sequence,
) -> Result<Option<(i64, i64)>, StoreError> {
    const KEPT: &str = "SELECT (SELECT min(sequence) FROM message),
        (SELECT max(sequence) FROM message WHERE sequence < $1)";
    let row = sqlx::query(KEPT).bind(before.0).fetch_one(&mut *connection).await?;
    let Some(kept) = row.number_if_any(0)?.zip(row.number_if_any(1)?) else { return Ok(None) };
    let (first, last) = if query.since.is_none() && query.until.is_none() {
        kept
    } else {
        let Some(span) = spans::bounds(connection, query.since, query.until).await? else { return Ok(None) };
        (kept.0.max(span.0), kept.1.min(span.1))
    };
    Ok((first <= last).then_some((first, last + 1)))
}

/// Where one call has looked at as many messages as it may.
async fn look_from(
    connection: &mut PgConnection,
    query: &Query<'_>,
    first: i64,
    before: i64,
) -> Result<i64, StoreError> {
    const QUARANTINED: &str = "SELECT sequence FROM message WHERE quarantine IS NOT NULL
        AND sequence >= $1 AND sequence < $2 ORDER BY 1 DESC LIMIT 1 OFFSET $3";
    if !query.quarantined {
        // All that lie there, row by row.
        return Ok(first.max(before - many(LOOKED_AT)));
    }
    let found = sqlx::query_scalar(QUARANTINED).bind(first).bind(before).bind(many(LOOKED_AT) - 1);
    Ok(found.fetch_optional(connection).await?.unwrap_or(first))
}

/// Everything that a person gives is bound.
fn conditions(sql: &mut QueryBuilder<Postgres>, query: &Query<'_>) {
    if query.quarantined {
        sql.push(" AND m.quarantine IS NOT NULL");
    }
    if let Some(since) = query.since {
        sql.push(" AND m.received >= ").push_bind(since.as_microsecond());
    }
    if let Some(until) = query.until {
        sql.push(" AND m.received < ").push_bind(until.as_microsecond());
    }
    if let Some(listener) = query.listener {
        sql.push(" AND m.listener = ").push_bind(text(listener));
    }
    if let Some(trigger) = query.trigger {
        sql.push(" AND m.trigger_event = ").push_bind(text(trigger));
    }
    owed(sql, query);
}

/// Conditions on a delivery: one and the same must fulfil them all.
fn owed(sql: &mut QueryBuilder<Postgres>, query: &Query<'_>) {
    if query.route.is_none() && query.destination.is_none() && query.state.is_none() {
        return;
    }
    let pending = "SELECT 1 FROM pending x WHERE x.sequence = m.sequence";
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
            sql.push(" AND x.route = ").push_bind(text(route));
        }
        if let Some(destination) = query.destination {
            sql.push(" AND x.destination = ").push_bind(text(destination));
        }
        if let Some(state) = query.state {
            sql.push(" AND x.state = ").push_bind(state_number(state));
        }
        sql.push(")");
    }
    sql.push(")");
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 1] = [ROWS_OF_KEY];

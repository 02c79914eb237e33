//! Searching: candidates by an index, the newest first, so many at most in one call; then the other conditions.
//!
//! Promise:  P6. A call looks at a bounded number of messages, whatever is asked for, and says where to go on.
//!
//! The table `search` holds a hash of each value, since a sender may put any length of text into a field and an index
//! cannot hold it, and a short one, since there are several for each message. The value itself is compared as well.

use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, Postgres, QueryBuilder};

use super::{Statement, spans, text};
use crate::journal::{
    Key, Keys, Page, Query, Sequence, Summary,
    rows::{self, Cells, many, state_number, summary_columns},
    store::StoreError,
};

/// Messages that one call looks at: some tenths of a second.
const LOOKED_AT: i64 = 50_000;

/// Rows of the table, as columns.
#[derive(Default)]
pub(super) struct Rows {
    kinds: Vec<i64>,
    hashes: Vec<i64>,
    sequences: Vec<i64>,
}

impl Rows {
    pub(super) fn add(&mut self, sequence: i64, keys: &Keys) {
        for (kind, value) in self::keys(keys) {
            self.kinds.push(kind);
            self.hashes.push(hash(value));
            self.sequences.push(sequence);
        }
    }

    /// Of a message that is read: sequence, control id, patient, NHS number, local number, visit, orders.
    pub(super) fn add_row(&mut self, row: &impl Cells) -> Result<(), StoreError> {
        let keys = Keys {
            control_id: row.text(1)?.to_owned(),
            patient: row.text(2)?.to_owned(),
            nhs_number: row.text(3)?.to_owned(),
            local_number: row.text(4)?.to_owned(),
            visit: row.text(5)?.to_owned(),
            orders: rows::read_orders(row.text(6)?)?,
            ..Keys::default()
        };
        self.add(row.number(0)?, &keys);
        Ok(())
    }

    /// All of them, as three parameters: kinds, hashes, sequences.
    pub(super) fn bind(self, query: Statement) -> Statement {
        query.bind(self.kinds).bind(self.hashes).bind(self.sequences)
    }
}

/// The kinds and values of a message's keys; it is not found by what it does not have.
fn keys(keys: &Keys) -> impl Iterator<Item = (i64, &str)> {
    let single = [
        Key::ControlId(&keys.control_id),
        Key::Patient(&keys.patient),
        Key::NhsNumber(&keys.nhs_number),
        Key::LocalNumber(&keys.local_number),
        Key::Visit(&keys.visit),
    ];
    let all = single.into_iter().chain(keys.orders.iter().map(|order| Key::Order(order)));
    all.map(|key| (kind(key), key.value())).filter(|(_, value)| !value.is_empty())
}

fn kind(key: Key<'_>) -> i64 {
    match key {
        Key::ControlId(_) => 1,
        Key::Patient(_) => 2,
        Key::NhsNumber(_) => 3,
        Key::LocalNumber(_) => 4,
        Key::Visit(_) => 5,
        Key::Order(_) => 6,
    }
}

/// Ours and not PostgreSQL's, whose hashes may change with its versions.
fn hash(value: &str) -> i64 {
    let hash: [u8; 32] = Sha256::digest(text(value)).into();
    hash.first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}

/// `search s JOIN message m … WHERE …`: the messages with a key.
pub(super) fn push_found_by(sql: &mut QueryBuilder<Postgres>, key: Key<'_>) {
    sql.push("search s JOIN message m ON m.sequence = s.sequence WHERE s.kind = ").push_bind(kind(key));
    sql.push(" AND s.hash = ").push_bind(hash(key.value()));
    let column = match key {
        Key::ControlId(_) => "control_id",
        Key::Patient(_) => "patient",
        Key::NhsNumber(_) => "nhs_number",
        Key::LocalNumber(_) => "local_number",
        Key::Visit(_) => "visit",
        Key::Order(value) => {
            // As it stands in the list; beside the hash no more is needed.
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
    // No message is found by a key that it does not have.
    if query.key.is_some_and(|key| key.value().is_empty()) || limit == 0 {
        return Ok(Page::default());
    }
    let mut transaction = connection.begin().await?;
    let Some((first, before)) = bounds(&mut transaction, query, before).await? else {
        return Ok(Page::default());
    };
    let from = look_from(&mut transaction, query, first, before).await?;
    let mut sql = QueryBuilder::new(concat!("SELECT ", summary_columns!(), " FROM "));
    candidates(&mut sql, query, from, before);
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
    if query.key.is_none() && !query.quarantined {
        // All that lie there, row by row.
        return Ok(first.max(before - LOOKED_AT));
    }
    let mut sql = QueryBuilder::new("SELECT m.sequence FROM ");
    candidates(&mut sql, query, first, before);
    sql.push(" ORDER BY 1 DESC LIMIT 1 OFFSET ").push_bind(LOOKED_AT - 1);
    let found: Option<i64> = sql.build_query_scalar().fetch_optional(connection).await?;
    Ok(found.unwrap_or(first))
}

/// What an index gives, between two sequences.
fn candidates(sql: &mut QueryBuilder<Postgres>, query: &Query<'_>, from: i64, before: i64) {
    match query.key {
        Some(key) => {
            push_found_by(sql, key);
            sql.push(" AND s.sequence >= ").push_bind(from).push(" AND s.sequence < ").push_bind(before);
        }
        None => {
            sql.push("message m WHERE m.sequence >= ").push_bind(from);
            sql.push(" AND m.sequence < ").push_bind(before);
        }
    }
    if query.quarantined {
        sql.push(" AND m.quarantine IS NOT NULL");
    }
}

/// Everything that a person gives is bound.
fn conditions(sql: &mut QueryBuilder<Postgres>, query: &Query<'_>) {
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

//! Between which sequences the messages of a time lie: what keeps a search by time from reading all of them.
//!
//! Promise:  P6. A row for ten minutes of receipt, however many messages came in them, and never too narrow: clocks jump,
//!           so that messages of one time may lie far apart, and others between them.
//! Not here: looking at the messages themselves (search.rs).

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::PgConnection;

use super::Statement;
use crate::journal::{
    rows::Cells,
    store::{Append, StoreError},
};

/// In microseconds.
const SPAN: i64 = 600_000_000;
/// Numbers put in beyond the last, so that the row need not be written with every commit.
const AHEAD: i64 = 1_000;
/// Spans remembered: messages come in the newest, but for a clock that jumps.
const REMEMBERED: usize = 16;

const BOUNDS: &str = "SELECT min(first), max(last) FROM span WHERE began >= $1 AND began < $2";
const FORGET: &str = "DELETE FROM span WHERE last < (SELECT min(sequence) FROM message)";

/// Of the newest spans: the last number that is noted, or will be by the commit under way: no other comes after one that
/// has failed.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeMap<i64, i64>);

impl Spans {
    /// Notes where messages lie, in the statement that brings them: starts, firsts, lasts.
    pub(super) fn bind(&mut self, query: Statement, appends: &[(i64, Append)]) -> Statement {
        let mut lie: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for (sequence, append) in appends {
            let (_, last) = lie.entry(began(append.received)).or_insert((*sequence, *sequence));
            *last = *sequence;
        }
        lie.retain(|began, (_, last)| self.0.get(began).is_none_or(|noted| noted < last));
        let query = query
            .bind(lie.keys().copied().collect::<Vec<_>>())
            .bind(lie.values().map(|(first, _)| *first).collect::<Vec<_>>())
            .bind(lie.values().map(|(_, last)| last + AHEAD).collect::<Vec<_>>());
        self.0.extend(lie.into_iter().map(|(began, (_, last))| (began, last + AHEAD)));
        while self.0.len() > REMEMBERED {
            self.0.pop_first();
        }
        query
    }
}

fn began(received: Timestamp) -> i64 {
    let received = received.as_microsecond();
    received - received.rem_euclid(SPAN)
}

/// The first and the last sequence that a message received since a time and before another can have.
pub(super) async fn bounds(
    connection: &mut PgConnection,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<Option<(i64, i64)>, StoreError> {
    let row = sqlx::query(BOUNDS)
        .bind(since.map_or(i64::MIN, began))
        .bind(until.map_or(i64::MAX, Timestamp::as_microsecond))
        .fetch_one(connection)
        .await?;
    Ok(row.number_if_any(0)?.zip(row.number_if_any(1)?))
}

/// Forgets spans of which no message is kept. At a start only: there are fifty thousand in a year, and to look for the
/// oldest message in every step of retention would be to walk over all that it has removed, again and again.
pub(super) async fn forget(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query(FORGET).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 1] = [BOUNDS];

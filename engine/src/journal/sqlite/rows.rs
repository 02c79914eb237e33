//! Statements over a list of rows, prepared once for every length that is worth it.

use std::sync::{Arc, OnceLock};

use sqlx::{AssertSqlSafe, SqliteConnection, sqlite::SqliteArguments};

use crate::journal::store::StoreError;

pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

/// Up to here each number of rows has its statement: each statement is a way to SQLite's thread and back.
const EACH: usize = 32;
/// Rows in the longest: those beyond [`EACH`] have 64, 128 and 256.
const LONGEST: usize = 256;
const SIZES: usize = EACH + 3;

/// A statement with a `VALUES` list.
pub(super) struct Rows {
    head: &'static str,
    columns: usize,
    tail: &'static str,
    sizes: [OnceLock<Arc<str>>; SIZES],
}

impl Rows {
    pub(super) const fn new(head: &'static str, columns: usize, tail: &'static str) -> Self {
        Self { head, columns, tail, sizes: [const { OnceLock::new() }; SIZES] }
    }

    /// Runs for all rows, in as few statements as there are.
    pub(super) async fn run<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: Vec<T>,
        bind: fn(Query<'_>, T) -> Query<'_>,
    ) -> Result<(), StoreError> {
        let mut rows = rows.into_iter();
        while rows.len() > 0 {
            let together = together(rows.len());
            let mut query = sqlx::query(AssertSqlSafe(self.sql(together)));
            for row in rows.by_ref().take(together) {
                query = bind(query, row);
            }
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Made once for each length.
    pub(super) fn sql(&self, rows: usize) -> Arc<str> {
        let make = || {
            let row = format!("({})", vec!["?"; self.columns].join(","));
            [self.head, &vec![row.as_str(); rows].join(","), self.tail].concat().into()
        };
        let place = if rows <= EACH { rows - 1 } else { EACH + (rows / EACH).ilog2() as usize - 1 };
        self.sizes.get(place).map_or_else(make, |sql| sql.get_or_init(make).clone())
    }
}

/// How many of so many rows one statement takes.
fn together(rows: usize) -> usize {
    if rows <= EACH { rows } else { 1 << rows.min(LONGEST).ilog2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_its_statement() {
        let rows = Rows::new("VALUES ", 2, "");
        for length in 1..=2000 {
            let together = together(length);
            assert!(together <= length && (length > EACH || together == length));
            assert_eq!(rows.sql(together).matches('?').count(), 2 * together);
        }
        assert!(rows.sizes.iter().all(|one| one.get().is_some()), "all are used");
        assert_eq!((together(33), together(100), together(256), together(999)), (32, 64, 256, 256));
    }
}

//! Statements that go to SQLite's thread together.
//!
//! Each way to that thread and back costs more than a small statement does, and with all processors busy much more. A
//! text of statements is prepared once; so that there are not too many of them, all lists of rows in a text have the same
//! length, and only some lengths are in use.

use sqlx::{
    Encode, QueryBuilder, Sqlite, SqliteConnection, Type, query_builder::Separated, sqlite::SqliteRow,
};

use crate::journal::store::StoreError;

/// Up to here each number of rows has its text.
const EACH: usize = 32;
/// Rows in the longest list: those beyond [`EACH`] have 64, 128 and 256.
const LONGEST: usize = 256;

/// Where the values of a row go.
pub(super) type Values<'q> = Separated<'q, Sqlite, &'static str>;

/// A statement with a list of rows: what stands before `VALUES`, and after them.
pub(super) struct Rows {
    pub head: &'static str,
    pub tail: &'static str,
}

/// Statements in the making; nothing is done before [`Script::run`].
pub(super) struct Script<'c> {
    connection: &'c mut SqliteConnection,
    text: QueryBuilder<Sqlite>,
    /// Of which length its lists of rows are.
    rows: Option<usize>,
    given: Vec<SqliteRow>,
}

impl<'c> Script<'c> {
    pub fn new(connection: &'c mut SqliteConnection) -> Self {
        Self { connection, text: QueryBuilder::new(""), rows: None, given: Vec::new() }
    }

    /// A statement without values.
    pub fn add(&mut self, sql: &str) {
        self.text.push(sql).push(";");
    }

    /// A statement with one value.
    pub fn add_with<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, sql: &str, value: T) {
        let (before, after) = sql.split_once('?').unwrap_or((sql, ""));
        self.text.push(before).push_bind(value).push(after).push(";");
    }

    /// A statement with a list of rows. What is in the script may run already.
    pub async fn add_rows<T>(
        &mut self,
        statement: &Rows,
        rows: Vec<T>,
        bind: fn(&mut Values<'_>, T),
    ) -> Result<(), StoreError> {
        let mut rows = rows.into_iter();
        while rows.len() > 0 {
            let many = together(rows.len());
            if self.rows.is_some_and(|rows| rows != many) {
                self.run().await?;
            }
            let some = rows.by_ref().take(many);
            self.text.push(statement.head).push(" ");
            self.text.push_values(some, |mut values, row| bind(&mut values, row));
            self.text.push(statement.tail).push(";");
            self.rows = Some(many);
        }
        Ok(())
    }

    /// Runs what has been added, and gives the rows of everything that has run.
    pub async fn finish(mut self) -> Result<Vec<SqliteRow>, StoreError> {
        self.run().await?;
        Ok(self.given)
    }

    async fn run(&mut self) -> Result<(), StoreError> {
        self.rows = None;
        let mut text = std::mem::replace(&mut self.text, QueryBuilder::new(""));
        self.given.extend(text.build().fetch_all(&mut *self.connection).await?);
        Ok(())
    }

    /// The connection, for what must run by itself: after all that has been added.
    pub async fn alone(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        self.run().await?;
        Ok(self.connection)
    }
}

/// How many of so many rows one statement takes.
fn together(rows: usize) -> usize {
    if rows <= EACH { rows } else { 1 << rows.min(LONGEST).ilog2() }
}

#[cfg(test)]
mod tests {
    use sqlx::Row;

    use super::*;

    async fn connection() -> SqliteConnection {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new().in_memory(true);
        let mut connection = options.connect().await.unwrap();
        sqlx::query("CREATE TABLE t (a, b)").execute(&mut connection).await.unwrap();
        connection
    }

    #[test]
    fn few_lengths_are_in_use() {
        for rows in 1..=2000 {
            let together = together(rows);
            assert!(together <= rows && (rows > EACH || together == rows));
        }
        assert_eq!((together(33), together(100), together(256), together(999)), (32, 64, 256, 256));
    }

    #[tokio::test]
    async fn statements_run_in_their_order_with_their_values_and_all_rows_come_back() {
        let mut connection = connection().await;
        let mut script = Script::new(&mut connection);
        const INTO: Rows = Rows { head: "INSERT INTO t (a, b)", tail: "" };
        let pair = |values: &mut Values<'_>, n: i64| {
            values.push_bind(n).push_bind(format!("{n}'?;"));
        };
        script.add("BEGIN");
        script.add_with("INSERT INTO t VALUES (?, 'first')", -1);
        script.add("SELECT count(*) FROM t");
        script.add_rows(&INTO, (0..100).collect(), pair).await.unwrap();
        script.add_with("SELECT b FROM t WHERE a = ?", 99);
        script.add("ROLLBACK");
        script.add("SELECT count(*) FROM t");
        let given = script.finish().await.unwrap();
        assert_eq!((given[0].get::<i64, _>(0), given[1].get::<String, _>(0)), (1, "99'?;".to_owned()));
        assert_eq!((given.len(), given[2].get::<i64, _>(0)), (3, 0));
        let mut wrong = Script::new(&mut connection);
        wrong.add("NONSENSE");
        assert!(wrong.finish().await.is_err());
    }
}

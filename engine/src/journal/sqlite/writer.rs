//! The connection that writes: the one that changes the database.
//!
//! In:       work, one piece after the other; the connection and the lock of the journal, which are kept to the end.
//! Out:      what came of it.
//! Promise:  P1, P7. Work that was begun is finished before anybody hears of it. After a panic nothing is written again.
//! Not here: what is written (write.rs, decide.rs, keys.rs, prune.rs), when, and on which thread (whoever has the turn).
//!
//! By rusqlite, not sqlx, which takes the way to a thread of its own and back for each statement: DECISIONS.md, "A commit is
//! one way".

use std::{fs::File, path::Path};

use parking_lot::Mutex;
use rusqlite::{Connection, Error, OpenFlags};

use super::{checkpoint::PATIENT, closed};
use crate::journal::store::StoreError;

/// More than there are statements that write.
const STATEMENTS: usize = 64;

/// The connection, until the store is closed. Nobody else may open the journal before it is gone.
pub(super) struct Writer(Mutex<Option<Held>>);

struct Held {
    connection: Connection,
    _lock: File,
}

impl Writer {
    pub(super) fn new(connection: Connection, lock: File) -> Self {
        Self(Mutex::new(Some(Held { connection, _lock: lock })))
    }

    /// Does a piece of work, here and now: it waits for the disk.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut place = self.0.lock();
        // Work that ends by a panic does not put it back.
        let mut held = place.take().ok_or_else(closed)?;
        let done = work(&mut held.connection);
        *place = Some(held);
        done
    }

    /// Lets go of the database.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        match self.0.lock().take() {
            Some(Held { connection, _lock }) => let_go(connection),
            None => Ok(()),
        }
    }
}

/// A connection that writes, to a database that is a journal already.
pub(super) fn connect(database: &Path, cache_kib: u32) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(PATIENT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 134217728;
         PRAGMA cache_size = -{cache_kib}; PRAGMA trusted_schema = OFF"
    ))?;
    Ok(connection)
}

pub(super) fn let_go(connection: Connection) -> Result<(), StoreError> {
    connection.close().map_err(|(_, error)| error.into())
}

impl From<Error> for StoreError {
    /// SQLite's texts name tables and columns, never values. Of a file that is at hand any failure can be the data's own.
    fn from(error: Error) -> Self {
        Self::unreadable(match error {
            Error::SqliteFailure(code, text) => {
                let text = text.unwrap_or_else(|| code.to_string());
                format!("error returned from database: (code: {}) {text}", code.extended_code)
            }
            // Their texts could hold the value.
            Error::FromSqlConversionFailure(column, ..) | Error::IntegralValueOutOfRange(column, _) => {
                format!("column {column} cannot be read")
            }
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        Writer::new(Connection::open_in_memory().unwrap(), tempfile::tempfile().unwrap())
    }

    #[test]
    fn none_is_done_after_the_end() {
        let writer = writer();
        writer.run(|connection| Ok(connection.execute_batch("CREATE TABLE t (a)")?)).unwrap();
        writer.close().unwrap();
        writer.close().unwrap();
        assert_eq!(writer.run(|_| Ok(())).unwrap_err().to_string(), "the store has been closed");
    }

    #[test]
    fn p1_after_a_panic_nothing_is_written() {
        let writer = writer();
        let panics = || writer.run(|_| -> Result<(), _> { panic!("a fault of ours") });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert!(writer.run(|_| Ok(())).is_err());
    }

    #[test]
    fn p9_errors_name_no_values() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (a TEXT UNIQUE) STRICT; INSERT INTO t VALUES ('CANARY')")
            .unwrap();
        let told = |error: Error| StoreError::from(error).to_string();
        let twice = told(connection.execute("INSERT INTO t VALUES ('CANARY')", []).unwrap_err());
        assert_eq!(twice, "error returned from database: (code: 2067) UNIQUE constraint failed: t.a");
        let text = connection.query_row("SELECT a FROM t", [], |row| row.get::<_, i64>(0)).unwrap_err();
        assert!(!told(text).contains("CANARY"));
    }
}

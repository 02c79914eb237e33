//! The thread that writes: it has the one connection that changes the database.
//!
//! In:       work, one piece after the other; the connection and the lock of the journal, which it keeps to its end.
//! Out:      what came of it, to whoever waits.
//! Promise:  P1, P7. Work that was begun is finished, also when nobody waits for it any more. After a panic nothing is
//!           written again.
//! Not here: what is written (write.rs, decide.rs, keys.rs, prune.rs), when (the committer).
//!
//! By rusqlite, not sqlx, which takes the way to a thread of its own and back for each statement: DECISIONS.md, "A commit is
//! one way".

use std::{fs::File, io, path::Path, thread};

use rusqlite::{Connection, Error, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::{checkpoint::PATIENT, closed};
use crate::journal::store::StoreError;

/// More than there are statements that write.
const STATEMENTS: usize = 64;

type Work = Box<dyn FnOnce(&mut Option<Held>) + Send>;

/// What the thread has until the store is closed. Nobody else may open the journal before the connection is gone.
struct Held {
    connection: Connection,
    _lock: File,
}

/// The way to the thread, which ends when this is dropped.
pub(super) struct Writer(mpsc::Sender<Work>);

impl Writer {
    pub(super) fn start(connection: Connection, lock: File) -> io::Result<Self> {
        let (sender, mut work) = mpsc::channel::<Work>(1);
        let mut held = Some(Held { connection, _lock: lock });
        thread::Builder::new().name("journal".to_owned()).spawn(move || {
            while let Some(work) = work.blocking_recv() {
                work(&mut held);
            }
        })?;
        Ok(Self(sender))
    }

    /// Waits for what comes of a piece of work.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.send(|held| held.as_mut().map_or_else(|| Err(closed()), |held| work(&mut held.connection))).await
    }

    /// Lets go of the database, after all work that was handed in before.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        self.send(|held| {
            let Some(Held { connection, _lock }) = held.take() else { return Ok(()) };
            let_go(connection)
        })
        .await
    }

    async fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Option<Held>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |held| {
            // Whoever asked may have given up: what is done is done.
            let _ = answer.send(work(held));
        });
        let gone = || StoreError::new("the thread that writes has ended");
        self.0.send(work).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
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
        Writer::start(Connection::open_in_memory().unwrap(), tempfile::tempfile().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn work_is_done_in_its_order_and_none_after_the_end() {
        let writer = writer();
        writer.run(|connection| Ok(connection.execute_batch("CREATE TABLE t (a)")?)).await.unwrap();
        let add =
            |n: i64| writer.run(move |connection| Ok(connection.execute("INSERT INTO t VALUES (?)", [n])?));
        let (one, two) = tokio::join!(add(1), add(2));
        assert_eq!((one.unwrap(), two.unwrap()), (1, 1));
        let rows = writer.run(|connection| {
            Ok(connection.query_row("SELECT group_concat(a) FROM t", [], |row| row.get::<_, String>(0))?)
        });
        assert_eq!(rows.await.unwrap(), "1,2");
        writer.close().await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(add(3).await.unwrap_err().to_string(), "the store has been closed");
    }

    #[tokio::test]
    async fn p1_after_a_panic_nothing_is_written() {
        let writer = writer();
        let panics = writer.run(|_| -> Result<(), _> { panic!("a fault of ours") });
        assert!(panics.await.unwrap_err().to_string().contains("thread that writes has ended"));
        assert!(writer.run(|_| Ok(())).await.is_err());
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

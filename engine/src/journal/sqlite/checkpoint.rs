//! Checkpoints: what the log holds is copied into the database, so that the log can begin anew.
//!
//! Promise:  P7. An error of a copy or a sync is an error of the store: the next commit, or the next look, ends with it.
//!           The log stays bounded. A commit waits for what was written while most of it was copied, not for all of it:
//!           the copy is made by a connection of its own, beside the commits. It waits for the whole where the disk does
//!           not keep up.
//! Not here: what asks for a checkpoint besides (prune.rs).

use std::{sync::atomic::Ordering, time::Duration};

use rusqlite::Connection;
use tokio::{
    sync::{
        Mutex,
        oneshot::{self, error::TryRecvError},
    },
    task::spawn_blocking,
};

use super::{SqliteStore, closed, writer::let_go};
use crate::journal::store::StoreError;

/// Written bytes between two looks at the length of the log.
const LOOK_BYTES: u64 = 8 << 20;
/// Log pages (4 kB each) that make a copy worth its time: 64 MB.
const WORTH_PAGES: i64 = 16_000;
/// So long may the log become while it is copied.
const PATIENT_PAGES: i64 = WORTH_PAGES * 3 / 2;
/// A log that is so long is held by its readers.
const HELD_PAGES: i64 = WORTH_PAGES * 4;

/// Copies as much of the log as its readers allow, and waits for nobody.
pub(super) const COPY: &str = "PRAGMA wal_checkpoint(PASSIVE)";
/// How long a statement waits for others: one that has the log begin anew, and any other.
const HASTY: Duration = Duration::from_millis(20);
pub(super) const PATIENT: Duration = Duration::from_secs(10);

/// The connection that copies.
pub(super) struct Copier(Mutex<Work>);

enum Work {
    AtRest(Connection),
    UnderWay(oneshot::Receiver<Result<Connection, StoreError>>),
    /// The log cannot begin anew yet: a little was written meanwhile.
    Done(Connection),
    /// The store is closed, or a copy has failed.
    Over,
}

impl Copier {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Mutex::new(Work::AtRest(connection)))
    }

    /// Tells of a copy that has failed. Not while somebody else is at it.
    pub(super) fn look(&self) -> Result<(), StoreError> {
        self.0.try_lock().map_err(|_| closed())?.look()
    }

    /// Lets a copy end, then lets go of the database.
    pub(super) async fn close(&self) {
        let mut work = self.0.lock().await;
        let ended = work.end().await;
        let closed = match std::mem::replace(&mut *work, Work::Over) {
            Work::AtRest(connection) | Work::Done(connection) => let_go(connection),
            Work::UnderWay(_) | Work::Over => Ok(()),
        };
        if let Err(error) = ended.and(closed) {
            // Everything is in the log; the next start reads it from there.
            tracing::warn!(%error, "the journal's log was not copied before the stop");
        }
    }
}

impl Work {
    fn look(&mut self) -> Result<(), StoreError> {
        let ended = match self {
            Self::AtRest(_) | Self::Done(_) => return Ok(()),
            Self::Over => return Err(closed()),
            Self::UnderWay(running) => match running.try_recv() {
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Closed) => Err(stopped()),
                Ok(ended) => ended,
            },
        };
        self.ended(ended)
    }

    fn ended(&mut self, ended: Result<Connection, StoreError>) -> Result<(), StoreError> {
        *self = Self::Over;
        *self = Self::Done(ended?);
        Ok(())
    }

    /// Begins, where none is under way.
    fn begin(&mut self) {
        *self = match std::mem::replace(self, Self::Over) {
            Self::AtRest(mut connection) | Self::Done(mut connection) => {
                let (done, ended) = oneshot::channel();
                spawn_blocking(move || {
                    let copied = pages(&mut connection, COPY);
                    // Whoever waits for it has the journal's end in mind.
                    drop(done.send(copied.map(|_| connection)));
                });
                Self::UnderWay(ended)
            }
            other => other,
        };
    }

    /// Waits for the one that is under way.
    async fn end(&mut self) -> Result<(), StoreError> {
        let Self::UnderWay(running) = self else { return Ok(()) };
        let ended = running.await.unwrap_or_else(|_| Err(stopped()));
        self.ended(ended)
    }

    /// Whether one has ended since this was last asked.
    fn has_ended(&mut self) -> bool {
        let (next, ended) = match std::mem::replace(self, Self::Over) {
            Self::Done(connection) => (Self::AtRest(connection), true),
            other => (other, false),
        };
        *self = next;
        ended
    }
}

/// Whether there is anything to be maintained, or soon will be: a copy that has ended is looked at by the next commit.
pub(super) fn is_due(store: &SqliteStore) -> bool {
    store.unlooked_bytes.load(Ordering::Acquire) >= LOOK_BYTES
        || store.copier.0.try_lock().map_or(true, |work| matches!(*work, Work::Done(_)))
}

fn stopped() -> StoreError {
    StoreError::new("the copy of the log has stopped")
}

/// Called after the answers, so that nobody waits for it who has been served.
pub(super) async fn maintain(store: &SqliteStore) -> Result<(), StoreError> {
    let mut work = store.copier.0.lock().await;
    work.look()?;
    if store.unlooked_bytes.load(Ordering::Acquire) >= LOOK_BYTES {
        store.unlooked_bytes.store(0, Ordering::Release);
        let pages = store.writer.run(|connection| pages(connection, "PRAGMA wal_checkpoint(NOOP)"))?;
        if pages >= HELD_PAGES {
            // Readers have kept the log from starting anew for too long: wait for those of this moment, but not for a
            // backup, which may read for minutes: the log grows meanwhile.
            work.end().await?;
            work.has_ended();
            return store.writer.run(restart);
        }
        if pages >= PATIENT_PAGES {
            work.end().await?;
        }
        if pages >= WORTH_PAGES && !matches!(*work, Work::Done(_)) {
            work.begin();
        }
    }
    if work.has_ended() {
        store.writer.run(|connection| pages(connection, COPY))?;
    }
    Ok(())
}

fn restart(connection: &mut Connection) -> Result<(), StoreError> {
    connection.busy_timeout(HASTY)?;
    pages(connection, "PRAGMA wal_checkpoint(RESTART)")?;
    Ok(connection.busy_timeout(PATIENT)?)
}

/// Runs a checkpoint; the length of the log in pages.
pub(super) fn pages(connection: &mut Connection, sql: &str) -> Result<i64, StoreError> {
    Ok(connection.query_row(sql, [], |row| row.get(1))?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::OpenFlags;

    use super::*;
    use crate::journal::{
        conformance::{append as append_of, message, noise},
        sqlite::open::DATABASE,
        store::{Change, Store},
    };

    const LONG: usize = 4_000_000;

    /// Appends a message whose bytes do not compress.
    async fn append(store: &SqliteStore, number: u64) -> Result<(), StoreError> {
        let mut new = message(number as i64, &[("adt", "record")]);
        new.raw = noise(number, LONG).into();
        store.commit(vec![Change::Append(append_of(new))]).await.map(drop)
    }

    async fn log_pages(store: &SqliteStore) -> i64 {
        store.writer.run(|connection| pages(connection, "PRAGMA wal_checkpoint(NOOP)")).unwrap()
    }

    /// A store whose log is worth a copy.
    async fn with_a_long_log(directory: &Path) -> SqliteStore {
        let store = SqliteStore::open(directory).await.unwrap();
        for number in 0..=WORTH_PAGES as u64 * 4096 / LONG as u64 {
            append(&store, number).await.unwrap();
        }
        assert!(log_pages(&store).await >= WORTH_PAGES);
        store
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn messages_are_committed_while_the_log_is_copied_and_then_it_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let store = with_a_long_log(directory.path()).await;
        store.maintain().await.unwrap();
        assert!(matches!(*store.copier.0.lock().await, Work::UnderWay(_)), "nobody waits for the copy");
        append(&store, 100).await.unwrap();
        store.copier.0.lock().await.end().await.unwrap();
        store.maintain().await.unwrap();
        append(&store, 101).await.unwrap();
        assert!(log_pages(&store).await < WORTH_PAGES / 4, "the log has begun anew");
        assert!(std::fs::metadata(directory.path().join(DATABASE)).unwrap().len() > 64 << 20);
        store.close().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn p7_after_a_copy_that_failed_nothing_is_committed() {
        let directory = tempfile::tempdir().unwrap();
        let store = with_a_long_log(directory.path()).await;
        let database = directory.path().join(DATABASE);
        let cannot_write = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        *store.copier.0.lock().await = Work::AtRest(cannot_write);
        store.maintain().await.unwrap();
        let is_running =
            async || matches!(&*store.copier.0.lock().await, Work::UnderWay(running) if running.is_empty());
        while is_running().await {
            tokio::task::yield_now().await;
        }
        let failed = append(&store, 100).await.unwrap_err().to_string();
        assert!(failed.contains("disk I/O error"), "{failed}");
        assert!(append(&store, 101).await.is_err(), "nor later");
        assert!(store.maintain().await.is_err());
    }
}

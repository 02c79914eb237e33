//! The embedded store: one SQLite database in a directory of its own.
//!
//! In:       batches from the committer; readings.
//! Promise:  P1, P7. WAL with `synchronous=FULL`: a commit has synced the log before it returns. One connection
//!           writes, a few only read. Checkpoints are ours, not SQLite's: its automatic ones swallow errors, and an
//!           error of a sync must close the journal. One engine at a time: a locked file beside the database.
//! Not here: statements (write.rs, read.rs), the connection that writes (writer.rs), when the log is copied into the database
//!           (checkpoint.rs).
//!
//! ```text
//! <directory>/journal.sqlite (-wal, -shm)   the database, 0600
//! <directory>/journal.lock                  locked while an engine has it open; says whose process
//! ```

mod backup;
mod checkpoint;
#[cfg(test)]
mod damage_tests;
mod decide;
#[cfg(test)]
mod frozen_tests;
mod keys;
mod open;
mod place;
mod prune;
mod read;
mod repeats;
mod search;
#[cfg(test)]
mod tests;
mod verify;
mod write;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

use async_trait::async_trait;
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

pub use backup::{CopyError, backup, restore};
pub use open::{OpenError, glance};
pub use verify::{Damaged, Report, verify};

use super::{
    Aged, Arrival, Audit, Count, DeliveryId, DeliveryRecord, Filter, Page, Pending, Predecessors, Query,
    Sequence, Stats, Summary,
    counters::{self, Counters},
    rows::{instant, state, state_number as number, unreadable},
    store::{Change, Committed, Prune, Pruned, Store, StoreError, Stored, StoredDelivery},
};
use place::Place;

/// Of the database. A commit writes about ten pages which hold little that is new: ends of indexes, the page above each,
/// the list of pages. So they are small.
const PAGE_BYTES: u32 = 4096;
/// What a commit writes besides its bodies, roughly.
const COMMIT_WEIGHT_BYTES: usize = 128 << 10;

/// A journal in a SQLite database.
pub struct SqliteStore {
    writer: writer::Writer,
    copier: checkpoint::Copier,
    readers: SqlitePool,
    counters: parking_lot::Mutex<Counters>,
    last: AtomicI64,
    /// Search keys that are not in their table yet.
    unwritten: parking_lot::Mutex<keys::Unwritten>,
    /// Written since the length of the log was last looked at.
    unlooked_bytes: AtomicU64,
    database: PathBuf,
    place: Place,
    /// Search keys of removed messages that are still to be swept out.
    sweep: parking_lot::Mutex<Option<prune::Sweep>>,
}

impl SqliteStore {
    /// Opens the journal in a directory, or makes a new one there.
    ///
    /// # Errors
    /// When another engine has it open, when it was written by a newer release, or when it cannot be read.
    pub async fn open(directory: &Path) -> Result<Self, OpenError> {
        open::open(directory).await
    }

    /// So much was written to the log, roughly.
    fn wrote(&self, bytes: usize) {
        self.unlooked_bytes.fetch_add(bytes as u64, Ordering::AcqRel);
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, batch: Vec<Change>) -> Result<Vec<Committed>, StoreError> {
        self.commit_here(batch)
    }

    fn commit_here(&self, batch: Vec<Change>) -> Result<Vec<Committed>, StoreError> {
        // Before anything is written, and said to be durable, over a disk that has failed.
        self.copier.look()?;
        let weight = batch.iter().map(Change::bytes).sum::<usize>() + COMMIT_WEIGHT_BYTES;
        // What is taken out of memory here is not put back when the commit fails: the journal is closed then.
        let slice = self.unwritten.lock().slice(batch.iter().map(keys::count).sum());
        let last = self.last.load(Ordering::Acquire);
        let work = move |connection: &mut _| write::commit(connection, last, batch, slice);
        let write::Written { last, answers, moves, keys } = self.writer.run(work)?;
        self.place.check()?;
        self.last.store(last, Ordering::Release);
        self.unwritten.lock().add_all(keys);
        self.counters.lock().apply(moves);
        self.wrote(weight);
        Ok(answers)
    }

    fn is_at_hand(&self) -> bool {
        !checkpoint::is_due(self) && !self.unwritten.lock().is_due()
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        checkpoint::maintain(self).await
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned, StoreError> {
        let last = self.last.load(Ordering::Acquire);
        let work = move |connection: &mut _| prune::prune(connection, last, &prune);
        let prune::Done { pruned, moves, last } = self.writer.run(work)?;
        self.counters.lock().apply(moves);
        self.wrote(COMMIT_WEIGHT_BYTES);
        if let Some(removed) = last {
            let mut sweep = self.sweep.lock();
            *sweep = Some(prune::Sweep::anew(sweep.as_ref(), removed));
        }
        Ok(pruned)
    }

    async fn reclaim(&self) -> Result<bool, StoreError> {
        let sweep = self.sweep.lock().clone();
        if let Some(sweep) = sweep {
            *self.sweep.lock() = self.writer.run(|connection| prune::sweep(connection, sweep))?;
            self.wrote(COMMIT_WEIGHT_BYTES);
            return Ok(true);
        }
        let written = self.writer.run(prune::give_back)?;
        self.wrote(written.unwrap_or_default());
        Ok(written.is_some())
    }

    async fn close(&self) {
        self.readers.close().await;
        self.copier.close().await;
        if let Err(error) = self.writer.close() {
            // Everything is in the log; the next start reads it from there.
            tracing::warn!(%error, "the journal's database did not close cleanly");
        }
    }

    async fn last(&self) -> Result<Sequence, StoreError> {
        Ok(Sequence(self.last.load(Ordering::Acquire)))
    }

    async fn pending(
        &self,
        destination: &str,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<Pending>, StoreError> {
        read::pending(&self.readers, destination, after, limit).await
    }

    async fn messages(&self, sequences: &[Sequence], most_bytes: usize) -> Result<Vec<Stored>, StoreError> {
        read::messages(&self.readers, sequences, most_bytes).await
    }

    async fn outputs(&self, ids: &[DeliveryId]) -> Result<Vec<StoredDelivery>, StoreError> {
        read::outputs(&self.readers, ids).await
    }

    async fn summary(&self, sequence: Sequence) -> Result<Option<Summary>, StoreError> {
        read::summary(&self.readers, sequence).await
    }

    async fn search(&self, query: &Query<'_>, before: Sequence, limit: usize) -> Result<Page, StoreError> {
        search::search(&self.readers, query, before, limit).await
    }

    async fn arrivals(&self, before: Sequence, limit: usize) -> Result<Vec<Arrival>, StoreError> {
        repeats::arrivals(&self.readers, before, limit).await
    }

    async fn earlier(
        &self,
        arrival: &Arrival,
        since: jiff::Timestamp,
        before: Sequence,
    ) -> Result<Predecessors, StoreError> {
        repeats::earlier(&self.readers, arrival, since, before).await
    }

    async fn deliveries(&self, sequence: Sequence) -> Result<Vec<DeliveryRecord>, StoreError> {
        read::deliveries(&self.readers, sequence).await
    }

    async fn select(
        &self,
        filter: &Filter,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        read::select(&self.readers, filter, after, limit).await
    }

    async fn quarantine(&self, after: Sequence, limit: usize) -> Result<Vec<Summary>, StoreError> {
        read::quarantine(&self.readers, after, limit).await
    }

    async fn audit(&self, limit: usize) -> Result<Vec<Audit>, StoreError> {
        read::audit(&self.readers, limit).await
    }

    async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        read::counts(&self.readers, &self.counters).await
    }

    async fn aged(&self, after: Sequence, with_body: bool, limit: usize) -> Result<Vec<Aged>, StoreError> {
        prune::aged(&self.readers, after, with_body, limit).await
    }

    async fn removed(&self, sequences: &[Sequence]) -> Result<Vec<Sequence>, StoreError> {
        read::removed(&self.readers, sequences).await
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        read::note(&self.readers, name).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        read::stats(&self.readers, &self.database).await
    }
}

fn closed() -> StoreError {
    StoreError::new("the store has been closed")
}

/// A column of a row, as it was declared.
fn column<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(index).map_err(unreadable)
}

//! The shared store: a schema of its own, `tie`, in a PostgreSQL database (15 or later).
//!
//! In:       batches from the committer; readings.
//! Promise:  P1, P7. One session writes, with `synchronous_commit` on: a commit has synced PostgreSQL's log before it
//!           returns. The session is never replaced: when it is lost during a commit nobody knows the outcome, so the
//!           journal closes and the engine starts anew; lost while nothing comes, it is missed within seconds. Readers
//!           are a few other sessions with the same server, replaced as they break.
//!           One engine at a time: the writing session holds an advisory lock, and every transaction names the
//!           token that the engine took when it opened the journal, so that one which was cut off and followed by
//!           another cannot commit any more. Sequences become visible in their order, whoever commits (head.rs).
//!           Nothing waits for ever: the server ends statements and waits for locks, and we what it does not answer.
//! Not here: statements (batch.rs, write.rs, read.rs), the numbers kept in memory (head.rs, counters.rs).

mod batch;
mod decide;
#[cfg(test)]
mod fencing_tests;
mod head;
mod keys;
#[cfg(test)]
mod keys_tests;
mod open;
mod prune;
mod read;
mod readers;
mod repeats;
mod search;
mod session;
#[cfg(test)]
mod silence_tests;
mod spans;
mod sweep;
#[cfg(test)]
mod tests;
mod write;

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use tokio::{sync::Mutex, time::timeout};

use head::Head;
use keys::Unwritten;
pub use open::OpenError;
use readers::Readers;
use spans::Spans;

use super::{
    Aged, Arrival, Audit, Count, DeliveryId, DeliveryRecord, Filter, Page, Pending, Predecessors, Query,
    Sequence, Stats, Summary,
    counters::Counters,
    store::{Change, Committed, Prune, Pruned, Store, StoreError, Stored, StoredDelivery},
};
use crate::secret::SecretRef;

/// How a database is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A host name or address; or, beginning with a slash, the directory of the server's socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role.
    pub user: String,
    /// Its password; without one the server must know the engine otherwise.
    pub password: Option<SecretRef>,
    /// How the connection is protected. A socket in the file system is not.
    pub sslmode: SslMode,
    /// Authorities that may have signed the server's certificate, as PEM, besides those of the web.
    pub ca: Option<PathBuf>,
}

/// How a connection is protected: libpq's words (PostgreSQL documentation, section 34.19).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Not at all.
    Disable,
    /// Encrypted, whoever the server is.
    Require,
    /// Encrypted; the certificate is signed by an authority that we trust.
    VerifyCa,
    /// Encrypted; the certificate is signed by an authority that we trust, and names the host.
    #[default]
    VerifyFull,
}

/// Sessions for couriers, gauges and the look at repeats.
const READERS: u32 = 4;
/// Sessions for what persons ask for, so that they take none of the others.
const SEARCHERS: u32 = 2;

/// A journal in a PostgreSQL database.
pub struct PostgresStore {
    /// Taken out when the store is closed.
    writer: Mutex<Option<PgConnection>>,
    road: Readers,
    persons: Readers,
    counters: parking_lot::Mutex<Counters>,
    head: parking_lot::Mutex<Head>,
    spans: parking_lot::Mutex<Spans>,
    keys: parking_lot::Mutex<Unwritten>,
    /// Who we are to the database.
    session: Session,
    times: Times,
}

/// After which times the database is waited for no longer.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// For the server to see that the engine before us is gone, also by a pulled cable: keepalives need 25 seconds.
    lock: Duration,
    /// For a step of opening.
    step: Duration,
    /// For the schema of a newer release.
    migrate: Duration,
    /// For counting what is owed.
    count: Duration,
    /// For a transaction: then its outcome is unknown.
    commit: Duration,
    /// For a reading: longer than the server allows a statement.
    read: Duration,
    /// How long the session that writes may be left alone, and how long it may take to answer then.
    quiet: Duration,
    /// For readers to end.
    close: Duration,
}

const TIMES: Times = Times {
    lock: Duration::from_secs(40),
    step: Duration::from_secs(30),
    migrate: Duration::from_secs(600),
    count: Duration::from_secs(330),
    commit: Duration::from_secs(30),
    read: Duration::from_secs(35),
    quiet: Duration::from_secs(5),
    close: Duration::from_secs(2),
};

/// A statement with what is bound to it.
type Statement = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// What every transaction proves before it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    /// The engine's fencing token.
    token: i64,
    /// The server process that the lock and the settings belong to.
    process: i32,
}

impl PostgresStore {
    /// Opens the journal in a database, or makes a new one there.
    ///
    /// # Errors
    /// When the database cannot be reached or does not keep what it has confirmed, when another engine has the
    /// journal open, or when it was written by a newer release.
    pub async fn open(settings: &Settings) -> Result<Self, OpenError> {
        open::open(settings, TIMES).await
    }
}

/// A change on the session that writes. After an error, or an end that nobody knows, the session is gone, and the lock
/// with it: nothing is ever tried again on it.
macro_rules! change {
    ($store:ident, $time:expr, $change:path $(, $argument:expr)*) => {{
        let mut place = $store.writer.lock().await;
        let mut writer = place.take().ok_or_else(closed)?;
        let late = || StoreError::new(format!("the database has not answered within {:?}", $time));
        let changed = timeout($time, $change($store, &mut writer $(, $argument)*));
        let changed = changed.await.unwrap_or_else(|_| Err(late()))?;
        *place = Some(writer);
        Ok(changed)
    }};
}

/// A reading on one of some sessions.
macro_rules! read {
    ($readers:expr, $reading:path $(, $argument:expr)*) => {{
        let mut session = $readers.session().await?;
        let read = $readers.in_time($reading(&mut session $(, $argument)*)).await?;
        session.keep();
        Ok(read)
    }};
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, batch: Vec<Change>) -> Result<Vec<Committed>, StoreError> {
        change!(self, self.times.commit, write::commit, batch)
    }

    /// Checkpoints and vacuum are PostgreSQL's own, and search keys are written by commits. But the session must be known
    /// to live: who believes in a lock that the server has dropped delivers beside the engine that has it.
    async fn maintain(&self) -> Result<(), StoreError> {
        if self.head.lock().looked().elapsed() < self.times.quiet {
            return Ok(());
        }
        change!(self, self.times.quiet, head::look_after)
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.times.quiet)
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned, StoreError> {
        change!(self, self.times.commit, prune::prune, prune)
    }

    /// Search keys that lead nowhere any more. PostgreSQL's vacuum makes room in the tables for what comes.
    async fn reclaim(&self) -> Result<bool, StoreError> {
        change!(self, self.times.commit, sweep::sweep)
    }

    /// The session that writes first: with it goes the lock, for which another engine may be waiting.
    async fn close(&self) {
        if let Some(mut writer) = self.writer.lock().await.take() {
            let end = async {
                head::note(self, &mut writer).await?;
                Ok::<_, StoreError>(writer.close().await?)
            };
            if let Ok(Err(error)) = timeout(self.times.quiet, end).await {
                // What was committed is committed; the server drops the lock when it sees that we are gone.
                tracing::warn!(%error, "the session with the journal's database did not end cleanly");
            }
        }
        let readers = async { tokio::join!(self.road.close(), self.persons.close()) };
        // What is still read is of no use to anybody.
        let _ = timeout(self.times.close, readers).await;
    }

    async fn last(&self) -> Result<Sequence, StoreError> {
        Ok(Sequence(self.head.lock().numbers().last))
    }

    async fn pending(
        &self,
        destination: &str,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<Pending>, StoreError> {
        read!(self.road, read::pending, destination, after, limit)
    }

    async fn messages(&self, sequences: &[Sequence], most_bytes: usize) -> Result<Vec<Stored>, StoreError> {
        read!(self.road, read::messages, sequences, most_bytes)
    }

    async fn outputs(&self, ids: &[DeliveryId]) -> Result<Vec<StoredDelivery>, StoreError> {
        read!(self.road, read::outputs, ids)
    }

    async fn summary(&self, sequence: Sequence) -> Result<Option<Summary>, StoreError> {
        read!(self.road, read::summary, sequence)
    }

    async fn search(&self, query: &Query<'_>, before: Sequence, limit: usize) -> Result<Page, StoreError> {
        read!(self.persons, search::search, query, before, limit)
    }

    async fn arrivals(&self, before: Sequence, limit: usize) -> Result<Vec<Arrival>, StoreError> {
        read!(self.road, repeats::arrivals, before, limit)
    }

    async fn earlier(
        &self,
        arrival: &Arrival,
        since: jiff::Timestamp,
        before: Sequence,
    ) -> Result<Predecessors, StoreError> {
        read!(self.road, repeats::earlier, arrival, since, before)
    }

    async fn deliveries(&self, sequence: Sequence) -> Result<Vec<DeliveryRecord>, StoreError> {
        read!(self.road, read::deliveries, sequence)
    }

    async fn select(
        &self,
        filter: &Filter,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        read!(self.persons, read::select, filter, after, limit)
    }

    async fn quarantine(&self, after: Sequence, limit: usize) -> Result<Vec<Summary>, StoreError> {
        read!(self.persons, read::quarantine, after, limit)
    }

    async fn audit(&self, limit: usize) -> Result<Vec<Audit>, StoreError> {
        read!(self.persons, read::audit, limit)
    }

    async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        read!(self.road, read::counts, &self.counters)
    }

    async fn aged(&self, after: Sequence, with_body: bool, limit: usize) -> Result<Vec<Aged>, StoreError> {
        read!(self.road, prune::aged, after, with_body, limit)
    }

    async fn removed(&self, sequences: &[Sequence]) -> Result<Vec<Sequence>, StoreError> {
        read!(self.road, read::removed, sequences)
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        read!(self.road, read::note, name)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let numbers = self.head.lock().numbers();
        read!(self.road, read::stats, numbers)
    }
}

fn closed() -> StoreError {
    StoreError::new("the store has been closed")
}

/// A text as PostgreSQL can hold it: the one character that it refuses, and which no HL7 value may have, is shown by
/// its symbol. The message's own bytes are kept as they are.
fn text(value: &str) -> String {
    value.replace('\0', "\u{2400}")
}

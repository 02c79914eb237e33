//! The shared store: a schema of its own, `tie`, in a PostgreSQL database (15 or later).
//!
//! In:       batches from the committer; readings.
//! Promise:  P1, P7. One session writes, with `synchronous_commit` on: a commit has synced PostgreSQL's log before it
//!           returns. The session is never replaced: when it is lost during a commit nobody knows the outcome, so the
//!           journal closes and the engine starts anew. Readers are a few other sessions, replaced as they break.
//!           One engine at a time: the writing session holds an advisory lock, and every transaction names the
//!           token that the engine took when it opened the journal, so that one which was cut off and followed by
//!           another cannot commit any more. Sequences become visible in their order, whoever commits (see the
//!           migration). Nothing waits for ever: statements, locks and commits have time-outs.
//! Not here: statements (write.rs, read.rs), the numbers kept in memory (counters.rs).

mod decide;
mod open;
mod prune;
mod read;
mod repeats;
mod search;
#[cfg(test)]
mod tests;
mod write;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::Mutex;

pub use open::OpenError;

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

/// A journal in a PostgreSQL database.
pub struct PostgresStore {
    /// Taken out when the store is closed.
    writer: Mutex<Option<PgConnection>>,
    readers: PgPool,
    counters: parking_lot::Mutex<Counters>,
    last: AtomicI64,
    /// Who we are to the database.
    session: Session,
}

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
        open::open(settings).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, batch: Vec<Change>) -> Result<Vec<Committed>, StoreError> {
        let mut place = self.writer.lock().await;
        // After an error the session is gone, and the lock with it: nothing is ever tried again on it.
        let mut writer = place.take().ok_or_else(closed)?;
        let committed = write::commit(self, &mut writer, batch).await?;
        *place = Some(writer);
        Ok(committed)
    }

    /// Nothing: checkpoints and vacuum are PostgreSQL's own, and search keys are written with their messages.
    async fn maintain(&self, _idle: bool) -> Result<(), StoreError> {
        Ok(())
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned, StoreError> {
        let mut place = self.writer.lock().await;
        let mut writer = place.take().ok_or_else(closed)?;
        let pruned = prune::prune(self, &mut writer, prune).await?;
        *place = Some(writer);
        Ok(pruned)
    }

    /// Nothing: PostgreSQL's vacuum makes room in the tables for what comes.
    async fn reclaim(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.close().await
        {
            // What was committed is committed; the server drops the lock when it sees that we are gone.
            tracing::warn!(%error, "the session with the journal's database did not end cleanly");
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

    async fn messages(&self, sequences: &[Sequence]) -> Result<Vec<Stored>, StoreError> {
        read::messages(&self.readers, sequences).await
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
        read::stats(&self.readers).await
    }
}

fn closed() -> StoreError {
    StoreError("the store has been closed".to_owned())
}

/// A text as PostgreSQL can hold it: the one character that it refuses, and which no HL7 value may have, is shown by
/// its symbol. The message's own bytes are kept as they are.
fn text(value: &str) -> String {
    value.replace('\0', "\u{2400}")
}

//! Sessions that only read: a few of them, replaced as they break.
//!
//! Promise:  P2. Every one is a session of the very server that is written to: one that lags would show a couriers' page
//!           as the last, and what it does not show yet would be overtaken. No reading waits for ever, and one that is late,
//!           fails or is given up takes its session with it, so that no other waits for its answer.
//! Not here: what is read (read.rs, search.rs, repeats.rs, prune.rs).

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sqlx::{
    PgConnection, PgPool, Postgres, Row,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::session::CONNECT_TIME;
use crate::journal::store::StoreError;

/// Sessions of one purpose.
pub(super) struct Readers {
    pool: PgPool,
    /// For one reading.
    time: Duration,
    /// Why the last session could not be used.
    refused: Arc<Mutex<Option<String>>>,
}

/// One of them, in use. Closed when dropped, unless it is kept.
pub(super) struct Reader {
    connection: PoolConnection<Postgres>,
    kept: bool,
}

impl Readers {
    /// None is there yet. `server` is what [`server`] says of the session that writes.
    pub(super) fn new(options: PgConnectOptions, sessions: u32, server: i64, time: Duration) -> Self {
        // Each answer by an index: a plan made when a table was small must not read it all later.
        let options = options.options([
            ("default_transaction_read_only", "on"),
            ("default_transaction_isolation", "repeatable read"),
            ("statement_timeout", "30s"),
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
        ]);
        let refused = Arc::new(Mutex::new(None));
        let told = refused.clone();
        // Sessions stay: see the pool of `sqlite/open.rs`. One that is broken is seen when it is asked for.
        let pool = PgPoolOptions::new().max_connections(sessions).acquire_timeout(CONNECT_TIME);
        let pool = pool.idle_timeout(None).max_lifetime(None);
        let pool = pool.after_connect(move |connection, _| {
            let told = told.clone();
            Box::pin(async move {
                let why = match self::server(connection).await? {
                    (there, false) if there == server => None,
                    (_, true) => Some("this session is with a standby".to_owned()),
                    _ => {
                        Some("this session is with another server than the one that is written to".to_owned())
                    }
                };
                let why = why.map(|why| {
                    format!(
                        "{why}, or it has been started anew: `host` must lead to one server, whoever asks"
                    )
                });
                told.lock().clone_from(&why);
                why.map_or(Ok(()), |why| Err(sqlx::Error::Configuration(why.into())))
            })
        });
        Self { pool: pool.connect_lazy_with(options), time, refused }
    }

    pub(super) async fn session(&self) -> Result<Reader, StoreError> {
        match self.pool.acquire().await {
            Ok(connection) => Ok(Reader { connection, kept: false }),
            Err(error) => Err(self.refused.lock().take().map_or_else(|| error.into(), StoreError::new)),
        }
    }

    /// What is read, if it comes in time.
    pub(super) async fn in_time<T>(
        &self,
        reading: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let late = || StoreError::new(format!("the database has not answered within {:?}", self.time));
        timeout(self.time, reading).await.unwrap_or_else(|_| Err(late()))
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Reader {
    /// Nothing is under way on it.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Deref for Reader {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.kept {
            self.connection.close_on_drop();
        }
    }
}

/// Which server this is, by the microsecond of its start; and whether it is a standby.
pub(super) async fn server(connection: &mut PgConnection) -> Result<(i64, bool), sqlx::Error> {
    const SERVER: &str =
        "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, pg_is_in_recovery()";
    let row = sqlx::query(SERVER).fetch_one(connection).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

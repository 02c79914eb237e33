//! Opening the database: lock, migrations, token, whether this is where the journal was, counts. Each step has its time.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Row, migrate::Migrator};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Counters, PostgresStore, READERS, SEARCHERS, Session, Settings, Times, decide,
    head::{self, Head},
    keys,
    readers::{self, Readers},
    session, spans,
};
use crate::journal::{
    PAUSED,
    rows::{Cells, state},
    store::StoreError,
};

static MIGRATIONS: Migrator = sqlx::migrate!("src/journal/postgres/migrations");

/// The advisory lock of the engine that writes: "TIE1", and which of our locks.
const LOCK: (i32, i32) = (0x5449_4531, 1);
const PAUSE: Duration = Duration::from_millis(100);
/// The note that says which database the journal was last written in.
const PLACE: &str = "place";

/// Why a journal in a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else writes to it.
    #[error(
        "another engine has the journal in database {place} open{}: stop it first, or give this instance a database of its own",
        .who.as_ref().map(|who| format!(" (server process {who})")).unwrap_or_default()
    )]
    InUse {
        /// The database.
        place: String,
        /// The server process of its session, and where it comes from.
        who: Option<String>,
    },
    /// It is of a newer release.
    #[error(
        "the journal in database {place} was written by a newer release of TIE (schema {found}; this release knows {known}): start that release, or restore a backup"
    )]
    Newer {
        /// The database.
        place: String,
        /// Its schema.
        found: i64,
        /// The newest schema that this release knows.
        known: i64,
    },
    /// The schema belongs to something else.
    #[error("database {0} has a schema `tie` that is no journal of TIE: use another database")]
    NotAJournal(String),
    /// What it confirms may be lost, or it is of no use to a journal.
    #[error("database {place} cannot hold a journal: {why}")]
    Unfit {
        /// The database.
        place: String,
        /// Why not, and what to do.
        why: String,
    },
    /// The process's environment would have a say in how it is reached.
    #[error(
        "database {place} is not opened: the environment variable {variable} is set, which would change how it is reached; \
         unset it, and say what is needed in `[journal.postgres]`"
    )]
    Environment {
        /// The database.
        place: String,
        /// The variable.
        variable: &'static str,
    },
    /// The password could not be fetched.
    #[error("the password for database {place}: {why}")]
    Password {
        /// The database.
        place: String,
        /// Why not.
        why: String,
    },
    /// PostgreSQL says no.
    #[error("the journal in database {place} cannot be opened: {error}")]
    Database {
        /// The database.
        place: String,
        /// Why not.
        error: StoreError,
    },
}

pub(super) async fn open(settings: &Settings, times: Times) -> Result<PostgresStore, OpenError> {
    let place = Place(format!("{} at {}:{}", settings.database, settings.host, settings.port));
    if let Some(variable) = session::VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some()) {
        return Err(OpenError::Environment { place: place.0, variable });
    }
    let options =
        session::options(settings).map_err(|why| OpenError::Password { place: place.0.clone(), why })?;
    let mut writer = session::connect(&options).await.map_err(|error| place.failed(error))?;
    if let Some(why) = place.step(times.step, session::unfit(&mut writer)).await? {
        return Err(OpenError::Unfit { place: place.0, why });
    }
    place.whole(times.lock + times.step, lock(&mut writer, &place, times.lock)).await?;
    place.whole(times.migrate, migrate(&mut writer, &place)).await?;
    place.step(times.step, session::settle(&mut writer)).await?;
    let session = place.step(times.step, enter(&mut writer)).await?;
    place.step(times.step, stay(&mut writer)).await?;
    let (written, now) = place.step(times.step, head::read(&mut writer)).await?;
    let keys = place.step(times.count, keys::unwritten(&mut writer, session, now.last)).await?;
    let counters = place.step(times.count, seed(&mut writer)).await?;
    let (server, _) = place.step(times.step, readers::server(&mut writer)).await?;
    let readers = |sessions| Readers::new(options.clone(), sessions, server, times.read);
    let (road, persons) = (readers(READERS), readers(SEARCHERS));
    // Whether they reach the same server is told now, and not when the first delivery is due.
    road.session().await.map_err(|error| place.failed(error))?.keep();
    Ok(PostgresStore {
        writer: tokio::sync::Mutex::new(Some(writer)),
        road,
        persons,
        counters: parking_lot::Mutex::new(counters),
        head: parking_lot::Mutex::new(Head::new(now, written)),
        spans: parking_lot::Mutex::default(),
        keys: parking_lot::Mutex::new(keys),
        session,
        times,
    })
}

/// Which database, for errors.
struct Place(String);

impl Place {
    fn failed(&self, error: impl Into<StoreError>) -> OpenError {
        OpenError::Database { place: self.0.clone(), error: error.into() }
    }

    /// A step of opening, that ends whatever becomes of the database meanwhile.
    async fn step<T, E: Into<StoreError>>(
        &self,
        time: Duration,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, OpenError> {
        self.whole(time, async { step.await.map_err(|error| self.failed(error)) }).await
    }

    /// The same of one that tells its own errors.
    async fn whole<T>(
        &self,
        time: Duration,
        step: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, OpenError> {
        let late = |_| {
            let why = format!(
                "it has not answered within {time:?}; if it has a synchronous standby, see whether that is there"
            );
            Err(self.failed(StoreError::new(why)))
        };
        timeout(time, step).await.unwrap_or_else(late)
    }
}

/// Only one engine at a time. The lock goes with the session; a server may need a moment to see that one is gone.
async fn lock(connection: &mut PgConnection, place: &Place, patience: Duration) -> Result<(), OpenError> {
    const HOLDER: &str = "SELECT l.pid || coalesce(', from ' || host(a.client_addr), '')
        FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.classid::bigint = $1 AND l.objid::bigint = $2 AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let failed = |error: sqlx::Error| place.failed(error);
    let end = Instant::now() + patience;
    let mut told = false;
    loop {
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCK.0)
            .bind(LOCK.1)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        if taken {
            return Ok(());
        }
        if Instant::now() > end {
            let holder = sqlx::query_scalar(HOLDER).bind(i64::from(LOCK.0)).bind(i64::from(LOCK.1));
            let who = holder.fetch_optional(connection).await.map_err(failed)?;
            return Err(OpenError::InUse { place: place.0.clone(), who });
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!(
                "another engine has the journal open: waiting for {patience:?} for the server to see it gone"
            );
        }
        sleep(PAUSE).await;
    }
}

/// Refuses what is not ours before anything is written, then brings an older journal up to date.
async fn migrate(connection: &mut PgConnection, place: &Place) -> Result<(), OpenError> {
    // The permission to create a schema is asked for only where there is none: the role need not have it.
    const FOUND: &str =
        "SELECT to_regnamespace('tie') IS NOT NULL, to_regclass('tie._sqlx_migrations') IS NOT NULL,
        (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('tie'))";
    let failed = |error: sqlx::Error| place.failed(error);
    let row = sqlx::query(FOUND).fetch_one(&mut *connection).await.map_err(failed)?;
    let schema: bool = row.try_get(0).map_err(failed)?;
    let stamped: bool = row.try_get(1).map_err(failed)?;
    let relations: i64 = row.try_get(2).map_err(failed)?;
    if !schema {
        sqlx::query("CREATE SCHEMA tie").execute(&mut *connection).await.map_err(failed)?;
    } else if stamped {
        let newest = "SELECT coalesce(max(version), 0) FROM tie._sqlx_migrations";
        let found: i64 = sqlx::query_scalar(newest).fetch_one(&mut *connection).await.map_err(failed)?;
        let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
        if found > known {
            return Err(OpenError::Newer { place: place.0.clone(), found, known });
        }
    } else if relations > 0 {
        return Err(OpenError::NotAJournal(place.0.clone()));
    }
    // `run` over a connection gives a future that cannot be spawned (sqlx 0.9); this is what it calls.
    let done = MIGRATIONS.run_direct(None, connection, false).await;
    done.map_err(|error| place.failed(StoreError::new(error.to_string())))
}

/// Takes the next token: from here on an engine before us cannot commit, also if it has not yet seen that it is alone.
async fn enter(writer: &mut PgConnection) -> Result<Session, sqlx::Error> {
    const ENTER: &str = "INSERT INTO node (name, token) VALUES ('engine', 1)
        ON CONFLICT (name) DO UPDATE SET token = node.token + 1 RETURNING token, pg_backend_pid()";
    let row = sqlx::query(ENTER).fetch_one(writer).await?;
    Ok(Session { token: row.try_get(0)?, process: row.try_get(1)? })
}

/// A journal that was put back delivers nothing before a person has seen that the other delivers nothing any more. A
/// standby that takes over is the same system.
async fn stay(writer: &mut PgConnection) -> Result<(), StoreError> {
    const NOTED: &str = "SELECT value FROM note WHERE name = $1";
    let here = whereabouts(writer).await?;
    let mut transaction = writer.begin().await?;
    let was: Option<String> = sqlx::query_scalar(NOTED).bind(PLACE).fetch_optional(&mut *transaction).await?;
    if was.as_ref() == Some(&here) {
        return Ok(());
    }
    let paused: Option<String> =
        sqlx::query_scalar(NOTED).bind(PAUSED).fetch_optional(&mut *transaction).await?;
    if let Some(was) = was.filter(|_| paused.is_none()) {
        let why = format!(
            "this database is not where the journal was last written: that was {was}, this is {here}; see that nothing \
             is delivered from there any more, then `tie resume --why …`"
        );
        tracing::warn!(why, "the journal is paused");
        decide::note(&mut transaction, PAUSED, Some(why), None).await?;
    }
    decide::note(&mut transaction, PLACE, Some(here), None).await?;
    Ok(transaction.commit().await?)
}

/// Which database of which system of the world's. Any role may ask, unless somebody has forbidden it.
async fn whereabouts(writer: &mut PgConnection) -> Result<String, StoreError> {
    const DATABASE: &str = "SELECT oid::bigint, has_function_privilege('pg_control_system()', 'EXECUTE')
        FROM pg_database WHERE datname = current_database()";
    const SYSTEM: &str = "SELECT system_identifier::text FROM pg_control_system()";
    let row = sqlx::query(DATABASE).fetch_one(&mut *writer).await?;
    let (database, may_ask): (i64, bool) = (row.try_get(0)?, row.try_get(1)?);
    let system: String = match may_ask {
        true => sqlx::query_scalar(SYSTEM).fetch_one(writer).await?,
        false => "that may not be asked for".to_owned(),
    };
    Ok(format!("database {database} of system {system}"))
}

async fn seed(writer: &mut PgConnection) -> Result<Counters, StoreError> {
    let mut counters = Counters::default();
    let unfinished = "SELECT destination, state, count(*) FROM pending GROUP BY destination, state";
    let dead = "SELECT destination, state, count(*) FROM delivery WHERE state = 6
                GROUP BY destination, state";
    // All rows are wanted here, and there may be a million: not within the time of a statement that is waited for.
    let mut transaction = writer.begin().await?;
    sqlx::query("SET LOCAL statement_timeout = '5min'").execute(&mut *transaction).await?;
    sqlx::query("SET LOCAL enable_seqscan = on").execute(&mut *transaction).await?;
    for sql in [unfinished, dead] {
        for row in sqlx::query(sql).fetch_all(&mut *transaction).await? {
            let (state, deliveries) = (state(row.number(1)?)?, row.number(2)?.unsigned_abs());
            counters.set(row.text(0)?.to_owned(), state, deliveries);
        }
    }
    spans::forget(&mut transaction).await?;
    transaction.commit().await?;
    Ok(counters)
}

//! Opening the database: who we are to it, whether it keeps what it confirms, lock, migrations, token, counts.

use std::time::Duration;

use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Row,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::time::{Instant, sleep, timeout};

use super::{Counters, PostgresStore, Session, Settings, SslMode};
use crate::journal::{
    rows::{Cells, state},
    store::StoreError,
};

static MIGRATIONS: Migrator = sqlx::migrate!("src/journal/postgres/migrations");

/// The advisory lock of the engine that writes: "TIE1", and which of our locks.
const LOCK: (i32, i32) = (0x5449_4531, 1);
/// The oldest server that is tested.
const OLDEST_SERVER: i64 = 150_000;
const READERS: u32 = 4;
/// A connection that is not there by then will not come.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A server may need so long to be up.
const START_TIME: Duration = Duration::from_secs(30);
/// A server may need so long to see that the engine before us is gone.
const LOCK_TIME: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

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

pub(super) async fn open(settings: &Settings) -> Result<PostgresStore, OpenError> {
    let place = format!("{} at {}:{}", settings.database, settings.host, settings.port);
    let options = options(settings).map_err(|why| OpenError::Password { place: place.clone(), why })?;
    let failed = |error: StoreError| OpenError::Database { place: place.clone(), error };
    let failed_sql = |error: sqlx::Error| OpenError::Database { place: place.clone(), error: error.into() };

    let mut writer = connect(&options).await.map_err(failed)?;
    if let Some(why) = unfit(&mut writer).await.map_err(failed_sql)? {
        return Err(OpenError::Unfit { place, why });
    }
    lock(&mut writer, &place).await?;
    migrate(&mut writer, &place).await?;
    settle(&mut writer).await.map_err(failed_sql)?;
    let session = enter(&mut writer).await.map_err(failed_sql)?;
    let last =
        sqlx::query_scalar("SELECT last FROM head").fetch_one(&mut writer).await.map_err(failed_sql)?;
    let last: i64 = last;
    let counters = seed(&mut writer).await.map_err(failed)?;
    let readers = readers(options).await.map_err(failed_sql)?;
    Ok(PostgresStore {
        writer: tokio::sync::Mutex::new(Some(writer)),
        readers,
        counters: parking_lot::Mutex::new(counters),
        last: last.into(),
        session,
    })
}

/// Everything is said, so that nothing is taken from the process's `PG…` variables.
fn options(settings: &Settings) -> Result<PgConnectOptions, String> {
    let password = match &settings.password {
        None => String::new(),
        Some(reference) => reference.fetch()?.expose().to_owned(),
    };
    let options = PgConnectOptions::new_without_pgpass()
        .host(&settings.host)
        .port(settings.port)
        .database(&settings.database)
        .username(&settings.user)
        .password(&password)
        .application_name("tie")
        .ssl_mode(if settings.host.starts_with('/') { PgSslMode::Disable } else { ssl(settings.sslmode) })
        .options([
            ("search_path", "tie"),
            // A cable that was pulled must not keep the lock for hours.
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            ("jit", "off"),
        ])
        .disable_statement_logging();
    Ok(match &settings.ca {
        None => options,
        Some(ca) => options.ssl_root_cert(ca),
    })
}

fn ssl(mode: SslMode) -> PgSslMode {
    match mode {
        SslMode::Disable => PgSslMode::Disable,
        SslMode::Require => PgSslMode::Require,
        SslMode::VerifyCa => PgSslMode::VerifyCa,
        SslMode::VerifyFull => PgSslMode::VerifyFull,
    }
}

/// A server that is just starting is waited for.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let end = Instant::now() + START_TIME;
    loop {
        let error = match timeout(CONNECT_TIME, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => return Err(StoreError(format!("no answer within {} s", CONNECT_TIME.as_secs()))),
        };
        let starting =
            error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57P03");
        if !starting || Instant::now() > end {
            return Err(error.into());
        }
        sleep(PAUSE).await;
    }
}

/// Why a server cannot be trusted with a journal, if it cannot.
async fn unfit(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    const ASK: &str =
        "SELECT current_setting('server_version_num')::bigint, current_setting('server_version'),
        current_setting('fsync'), current_setting('full_page_writes'), current_setting('server_encoding'),
        pg_is_in_recovery()";
    let row = sqlx::query(ASK).fetch_one(connection).await?;
    let (number, version): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
    let (fsync, pages, encoding): (String, String, String) =
        (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    let standby: bool = row.try_get(5)?;
    Ok(if number < OLDEST_SERVER {
        Some(format!("it is PostgreSQL {version}; 15 or later is needed"))
    } else if standby {
        Some("it is a standby and takes no writes: give the address of the primary".to_owned())
    } else if fsync != "on" {
        Some("its `fsync` is off, so that a power cut loses what was acknowledged: set it on".to_owned())
    } else if encoding != "UTF8" {
        Some(format!("its encoding is {encoding}: create it with ENCODING 'UTF8'"))
    } else {
        if pages != "on" {
            tracing::warn!(
                "the database has `full_page_writes` off: after a power cut pages may be torn and the journal damaged, \
                 unless the file system writes whole pages"
            );
        }
        None
    })
}

/// Only one engine at a time. The lock goes with the session; a server may need a moment to see that one is gone.
async fn lock(connection: &mut PgConnection, place: &str) -> Result<(), OpenError> {
    const HOLDER: &str = "SELECT l.pid || coalesce(', from ' || host(a.client_addr), '')
        FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.classid::bigint = $1 AND l.objid::bigint = $2 AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let failed = |error: sqlx::Error| OpenError::Database { place: place.to_owned(), error: error.into() };
    let end = Instant::now() + LOCK_TIME;
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
            return Err(OpenError::InUse { place: place.to_owned(), who });
        }
        sleep(PAUSE).await;
    }
}

/// Refuses what is not ours before anything is written, then brings an older journal up to date.
async fn migrate(connection: &mut PgConnection, place: &str) -> Result<(), OpenError> {
    // The permission to create a schema is asked for only where there is none: the role need not have it.
    const FOUND: &str =
        "SELECT to_regnamespace('tie') IS NOT NULL, to_regclass('tie._sqlx_migrations') IS NOT NULL,
        (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('tie'))";
    let failed = |error: sqlx::Error| OpenError::Database { place: place.to_owned(), error: error.into() };
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
            return Err(OpenError::Newer { place: place.to_owned(), found, known });
        }
    } else if relations > 0 {
        return Err(OpenError::NotAJournal(place.to_owned()));
    }
    // `run` over a connection gives a future that cannot be spawned (sqlx 0.9); this is what it calls.
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| OpenError::Database {
        place: place.to_owned(),
        error: StoreError(error.to_string()),
    })
}

/// The settings of the session that writes. Its statements look up by whole keys, whatever the statistics say.
async fn settle(writer: &mut PgConnection) -> Result<(), sqlx::Error> {
    const SETTINGS: &str = "SELECT
        set_config('synchronous_commit',
            CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
        set_config('statement_timeout', '20s', false), set_config('lock_timeout', '10s', false),
        set_config('idle_in_transaction_session_timeout', '30s', false),
        set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
        set_config('enable_bitmapscan', 'off', false), set_config('enable_hashjoin', 'off', false),
        set_config('enable_mergejoin', 'off', false)";
    sqlx::query(SETTINGS).execute(writer).await.map(drop)
}

/// Takes the next token: from here on an engine before us cannot commit, also if it has not yet seen that it is alone.
async fn enter(writer: &mut PgConnection) -> Result<Session, sqlx::Error> {
    const ENTER: &str = "INSERT INTO node (name, token) VALUES ('engine', 1)
        ON CONFLICT (name) DO UPDATE SET token = node.token + 1 RETURNING token, pg_backend_pid()";
    let row = sqlx::query(ENTER).fetch_one(writer).await?;
    Ok(Session { token: row.try_get(0)?, process: row.try_get(1)? })
}

/// Sessions that only read, each answer by an index: a plan made when a table was small must not read it all later.
async fn readers(options: PgConnectOptions) -> Result<PgPool, sqlx::Error> {
    let options = options.options([
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "repeatable read"),
        ("statement_timeout", "30s"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ]);
    let pool = PgPoolOptions::new().max_connections(READERS).acquire_timeout(CONNECT_TIME);
    pool.connect_with(options).await
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
    transaction.commit().await?;
    Ok(counters)
}

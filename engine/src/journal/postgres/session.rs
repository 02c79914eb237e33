//! A session with the database: how it is reached, whether its server can be trusted, its settings.
//!
//! Not here: lock and token (open.rs), what is done with it.

use std::time::Duration;

use sqlx::{
    ConnectOptions, PgConnection, Row,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::{Instant, sleep, timeout};

use super::{Settings, SslMode};
use crate::journal::store::StoreError;

/// Why a server whose `fsync` is off is not used.
pub(super) const NO_SYNC: &str =
    "its `fsync` is off, so that a power cut loses what was acknowledged: set it on";
/// What sqlx would take from the process where nothing is said, and nothing can be said against (0.9).
pub(super) const VARIABLES: [&str; 4] = ["PGOPTIONS", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"];
/// The oldest server that is tested.
const OLDEST_SERVER: i64 = 150_000;
/// A connection that is not there by then will not come.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A server may need so long to be up.
const START_TIME: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// Everything is said, so that nothing is taken from the process's `PG…` variables; those of [`VARIABLES`] are not set.
pub(super) fn options(settings: &Settings) -> Result<PgConnectOptions, String> {
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
            // A cable that was pulled must not keep the lock for hours: the first three are for a session that waits
            // for us, the last, in milliseconds, for one that has answered and waits for its bytes to be taken.
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "25000"),
            ("jit", "off"),
            // That a table is there already is no news.
            ("client_min_messages", "warning"),
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
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let end = Instant::now() + START_TIME;
    loop {
        let error = match timeout(CONNECT_TIME, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => return Err(StoreError::new(format!("no answer within {CONNECT_TIME:?}"))),
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
pub(super) async fn unfit(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    const ASK: &str =
        "SELECT current_setting('server_version_num')::bigint, current_setting('server_version'),
        current_setting('fsync'), current_setting('full_page_writes'), current_setting('server_encoding'),
        pg_is_in_recovery(), current_setting('data_sync_retry')";
    let row = sqlx::query(ASK).fetch_one(connection).await?;
    let (number, version): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
    let (fsync, pages, encoding): (String, String, String) =
        (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    let (standby, retry): (bool, String) = (row.try_get(5)?, row.try_get(6)?);
    Ok(if number < OLDEST_SERVER {
        Some(format!("it is PostgreSQL {version}; 15 or later is needed"))
    } else if standby {
        Some("it is a standby and takes no writes: give the address of the primary".to_owned())
    } else if fsync != "on" {
        Some(NO_SYNC.to_owned())
    } else if retry != "off" {
        Some(
            "its `data_sync_retry` is on: after a failed sync it would try again and report success for what was lost; \
             set it off"
                .to_owned(),
        )
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

/// The settings of the session that writes, whatever the database or the role have by default: nobody ends it because it
/// is idle, and a transaction that has waited for another sees what that has done. Its statements look up by whole keys,
/// whatever the statistics say.
pub(super) async fn settle(writer: &mut PgConnection) -> Result<(), sqlx::Error> {
    const SETTINGS: &str = "SELECT
        set_config('synchronous_commit',
            CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
        set_config('statement_timeout', '20s', false), set_config('lock_timeout', '10s', false),
        set_config('idle_in_transaction_session_timeout', '30s', false),
        set_config('idle_session_timeout', '0', false),
        set_config('default_transaction_isolation', 'read committed', false),
        -- Of PostgreSQL 17 and later.
        (SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'),
        set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
        set_config('enable_bitmapscan', 'off', false), set_config('enable_hashjoin', 'off', false),
        set_config('enable_mergejoin', 'off', false)";
    sqlx::query(SETTINGS).execute(writer).await.map(drop)
}

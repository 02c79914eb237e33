//! Opening the database: lock, permissions, pragmas, migrations, and the numbers that are kept in memory.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sqlx::{
    ConnectOptions, Row, SqliteConnection, SqlitePool,
    migrate::Migrator,
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

use super::{
    Counters, PAGE_BYTES, SqliteStore,
    checkpoint::{Copier, PATIENT},
    keys,
    place::Place,
    prune::Sweep,
    read, state,
    writer::{Writer, connect},
};
use crate::journal::{Count, State, Stats, store::StoreError};

/// The name of the database in its directory.
pub(super) const DATABASE: &str = "journal.sqlite";

static MIGRATIONS: Migrator = sqlx::migrate!("src/journal/sqlite/migrations");

/// "TIE1", as the first migration writes it.
const APPLICATION_ID: i64 = 0x5449_4531;
const READERS: u32 = 4;
const WRITER_CACHE_KIB: u32 = 32 * 1024;
const COPIER_CACHE_KIB: u32 = 64;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else writes to it.
    #[error("another engine{} has the journal in {} open", .process.as_ref().map(|id| format!(" (process {id})")).unwrap_or_default(), .directory.display())]
    InUse {
        /// The journal's directory.
        directory: PathBuf,
        /// The other process, if it has told.
        process: Option<String>,
    },
    /// It is of a newer release.
    #[error("the journal in {} was written by a newer release of TIE (schema {found}; this release knows {known}): start that release, or restore a backup", .directory.display())]
    Newer {
        /// The journal's directory.
        directory: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this release knows.
        known: i64,
    },
    /// It is a database of something else.
    #[error("{} is a SQLite database, but no journal of TIE", .0.display())]
    NotAJournal(PathBuf),
    /// The file system says no.
    #[error("{}: {error}", .path.display())]
    File {
        /// What was opened.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// What is owed cannot be told.
    #[error("the journal in {} is damaged: {what}. Copy its files away, run `tie journal verify` to see what is affected, then put a backup back with `tie journal restore`", .directory.display())]
    Damaged {
        /// The journal's directory.
        directory: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// SQLite says no.
    #[error("the journal in {} cannot be opened: {error}", .directory.display())]
    Database {
        /// The journal's directory.
        directory: PathBuf,
        /// Why not.
        error: StoreError,
    },
}

pub(super) async fn open(directory: &Path) -> Result<SqliteStore, OpenError> {
    make_directory(directory)?;
    let lock = lock(directory)?;
    let database = directory.join(DATABASE);
    make_file(&database)?;
    let failed = |error: StoreError| OpenError::Database { directory: directory.to_owned(), error };
    let failed_sql = |error: sqlx::Error| failed(error.into());

    let one = pool(1).connect_with(making_options(&database)).await.map_err(failed_sql)?;
    migrate(&one, directory, &database).await?;
    let mut first = one.acquire().await.map_err(failed_sql)?;
    check(&mut first, directory).await?;
    let readers = pool(READERS)
        // A connection to a file is as good as it was.
        .test_before_acquire(false)
        .connect_with(reader_options(&database))
        .await
        .map_err(failed_sql)?;
    let last = number(&mut first, LAST).await.map_err(failed_sql)?;
    let searched = number(&mut first, SEARCHED).await.map_err(failed_sql)?;
    let counters = seed(&mut first).await.map_err(failed)?;
    let unwritten = keys::unwritten(&mut first, searched, last).await.map_err(failed)?;
    let copier = Copier::new(connect(&database, COPIER_CACHE_KIB).map_err(failed)?);
    let writer = connect(&database, WRITER_CACHE_KIB).map_err(failed)?;
    let writer = Writer::new(writer, lock);
    drop(first);
    // Not before there are others, or it would think that nobody needs the log.
    one.close().await;
    // The name of a new file must survive a power cut as well as its content.
    sync_directory(directory)?;
    let place = Place::of(&database).map_err(|error| OpenError::File { path: database.clone(), error })?;
    Ok(SqliteStore {
        place,
        writer,
        copier,
        readers,
        counters: parking_lot::Mutex::new(counters),
        last: last.into(),
        unwritten: parking_lot::Mutex::new(unwritten),
        unlooked_bytes: 0.into(),
        // Where a sweep was when the engine stopped is not known: it begins anew.
        sweep: parking_lot::Mutex::new(Some(Sweep::all(last))),
        database,
    })
}

/// Connections that stay as long as the pool does. sqlx's task that ends old ones goes once round for each idle one, and a
/// pool that is just being closed may count nearly 2^64 of them: the task would keep a processor for ever.
pub(super) fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(connections).idle_timeout(None).max_lifetime(None)
}

/// A connection pool that only reads, also beside a running engine.
pub(super) async fn readers(database: &Path) -> Result<SqlitePool, OpenError> {
    let failed = |error| OpenError::File { path: database.to_owned(), error };
    fs::metadata(database).map_err(failed)?;
    pool(1)
        .connect_with(reader_options(database))
        .await
        .map_err(|error| OpenError::Database { directory: database.to_owned(), error: error.into() })
}

/// One connection that changes nothing of the database, but may write copies of it.
pub(super) async fn alone(database: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new().filename(database).read_only(true).disable_statement_logging().connect().await
}

/// Sizes, and deliveries by destination and state, without opening the journal for writing.
///
/// # Errors
/// When there is no journal or it cannot be read.
pub async fn glance(directory: &Path) -> Result<(Stats, Vec<Count>), OpenError> {
    let failed = |error| OpenError::Database { directory: directory.to_owned(), error };
    let database = directory.join(DATABASE);
    let readers = readers(&database).await?;
    let seen = async {
        let stats = read::stats(&readers, &database).await?;
        let counters = seed(&mut *readers.acquire().await?).await?;
        let counts = read::counts(&readers, &parking_lot::Mutex::new(counters)).await?;
        Ok((stats, counts))
    };
    let seen = seen.await;
    readers.close().await;
    seen.map_err(failed)
}

/// A look at what every start needs: what is owed, and the newest message. The rest is checked as it is read, since a
/// look at all of it takes minutes.
async fn check(connection: &mut SqliteConnection, directory: &Path) -> Result<(), OpenError> {
    const NEWEST: &str = "SELECT count(body) FROM (SELECT body FROM message ORDER BY sequence DESC LIMIT 1)";
    let damaged = |what: String| OpenError::Damaged { directory: directory.to_owned(), what };
    let owed: Result<Vec<String>, _> =
        sqlx::query_scalar("PRAGMA quick_check('pending')").fetch_all(&mut *connection).await;
    match owed {
        Ok(said) if said.iter().all(|line| line == "ok") => {}
        Ok(said) => return Err(damaged(said.into_iter().take(3).collect::<Vec<_>>().join("; "))),
        Err(error) => return Err(damaged(error.to_string())),
    }
    number(connection, NEWEST).await.map_err(|error| damaged(error.to_string())).map(drop)
}

const LAST: &str = concat!("SELECT ", read::last!());
const SEARCHED: &str = "SELECT value FROM mark WHERE name = 'searched'";

/// Of the connection that makes a journal, or brings it up to date.
fn making_options(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .page_size(PAGE_BYTES)
        // Cannot be chosen later: pruned space must go back to the disk.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(PATIENT)
        .pragma("wal_autocheckpoint", "0")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

fn reader_options(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .read_only(true)
        .busy_timeout(PATIENT)
        // Enough for one reading: SQLite forgets what a reader has cached whenever the writer commits.
        .pragma("cache_size", "-2048")
        .pragma("query_only", "ON")
        .disable_statement_logging()
}

/// Refuses what is not ours before anything is written, then brings an older journal up to date.
async fn migrate(one: &SqlitePool, directory: &Path, database: &Path) -> Result<(), OpenError> {
    let failed = |error: StoreError| OpenError::Database { directory: directory.to_owned(), error };
    let found = match one.acquire().await {
        Ok(mut connection) => found(&mut connection).await,
        Err(error) => Err(error),
    };
    let found = found.map_err(|error| failed(error.into()))?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    match found {
        Found::Other => return Err(OpenError::NotAJournal(database.to_owned())),
        Found::Schema(found) if found > known => {
            return Err(OpenError::Newer { directory: directory.to_owned(), found, known });
        }
        Found::Nothing | Found::Schema(_) => {}
    }
    MIGRATIONS.run(one).await.map_err(|error| failed(StoreError::new(error.to_string())))
}

enum Found {
    Nothing,
    Schema(i64),
    Other,
}

async fn found(connection: &mut SqliteConnection) -> Result<Found, sqlx::Error> {
    if number(connection, "SELECT count(*) FROM sqlite_schema").await? == 0 {
        return Ok(Found::Nothing);
    }
    if number(connection, "PRAGMA application_id").await? != APPLICATION_ID {
        // A crash may have come between the migrator's own table and the first migration.
        let ours =
            "SELECT count(*) = 1 AND max(name) = '_sqlx_migrations' FROM sqlite_schema WHERE type = 'table'";
        return Ok(if number(connection, ours).await? == 1 { Found::Nothing } else { Found::Other });
    }
    let schema = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";
    Ok(Found::Schema(number(connection, schema).await?))
}

async fn number(connection: &mut SqliteConnection, sql: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(sql).fetch_one(connection).await
}

async fn seed(connection: &mut SqliteConnection) -> Result<Counters, StoreError> {
    let mut counters = Counters::default();
    let unfinished = "SELECT destination, state, count(*) FROM pending GROUP BY destination, state";
    let dead = "SELECT destination, 6, count(*) FROM delivery INDEXED BY delivery_for_a_person
                WHERE state = 6 AND state IN (1, 2, 3, 6) GROUP BY destination";
    for sql in [unfinished, dead] {
        for row in sqlx::query(sql).fetch_all(&mut *connection).await? {
            let deliveries: i64 = row.try_get(2)?;
            let state: State = state(row.try_get(1)?)?;
            counters.set(row.try_get(0)?, state, deliveries.unsigned_abs());
        }
    }
    Ok(counters)
}

pub(super) fn make_directory(directory: &Path) -> Result<(), OpenError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| OpenError::File { path: directory.to_owned(), error })
}

/// Only one engine at a time. The lock goes with the process, whatever ends it.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("journal.lock");
    let failed = |error| OpenError::File { path: path.clone(), error };
    let mut file = private_file(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            written.map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // Only for the message: an unreadable number is left out.
            let read = file.rewind().and_then(|()| file.read_to_string(&mut process));
            let known = read.is_ok() && process.parse::<u32>().is_ok();
            Err(OpenError::InUse { directory: directory.to_owned(), process: known.then_some(process) })
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// SQLite gives the files beside the database the same permissions.
pub(super) fn make_file(path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::File { path: path.to_owned(), error };
    private_file(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

pub(super) fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    for path in [Some(directory), parent].into_iter().flatten() {
        File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(|error| OpenError::File { path: path.to_owned(), error })?;
    }
    Ok(())
}

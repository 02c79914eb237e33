//! Copies of a whole journal: taken while an engine runs, and put back paused.
//!
//! Promise:  a backup is the journal at one moment, and is read back as a whole before it gets its name. A restore
//!           overwrites nothing, and what it puts back delivers nothing until a person says so: the original may have
//!           delivered meanwhile what the copy still owes.
//! Not here: the configuration (git), and where copies are kept.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sqlx::Connection;

use super::{
    OpenError, SqliteStore,
    open::{self, DATABASE},
    verify,
};
use crate::journal::{
    PAUSED,
    store::{Change, Store},
};

/// What a copy is called until it is known to be sound.
const UNFINISHED: &str = "journal.sqlite.part";

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Nothing is ever overwritten.
    #[error("{} already holds a journal: choose another directory", .0.display())]
    Exists(PathBuf),
    /// There is nothing to copy.
    #[error("{} holds no journal", .0.display())]
    Nothing(PathBuf),
    /// The journal cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file system says no.
    #[error("{}: {error}", .path.display())]
    File {
        /// What was written.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// SQLite says no.
    #[error("the copy could not be written: {0}")]
    Database(String),
    /// What was read is not sound.
    #[error("the copy {} is damaged: `tie journal verify` on the original tells what is affected", .0.display())]
    Damaged(PathBuf),
}

/// Copies the journal of a directory to another, also while an engine runs, and reads the copy back.
///
/// # Errors
/// When the target holds a journal, when it cannot be written, or when the copy is not sound.
pub async fn backup(directory: &Path, target: &Path) -> Result<verify::Report, CopyError> {
    let source = directory.join(DATABASE);
    let (part, finished) = places(&source, target)?;
    let mut connection =
        open::alone(&source).await.map_err(|error| CopyError::Database(error.to_string()))?;
    let copied = sqlx::query("VACUUM INTO ?").bind(part.display().to_string()).execute(&mut connection).await;
    // The copy is whole or refused below, however this ends.
    let _ = connection.close().await;
    copied.map_err(|error| CopyError::Database(error.to_string()))?;
    finish(&part, &finished, target).await
}

/// Puts a backup back where no journal is; it is paused until a person resumes it.
///
/// # Errors
/// When the directory holds a journal, when the backup is not sound, or when it cannot be written.
pub async fn restore(backup: &Path, directory: &Path, now: Timestamp) -> Result<verify::Report, CopyError> {
    let source = backup.join(DATABASE);
    let (part, finished) = places(&source, directory)?;
    fs::copy(&source, &part).map_err(|error| CopyError::File { path: part.clone(), error })?;
    let report = finish(&part, &finished, directory).await?;
    let store = SqliteStore::open(directory).await?;
    let reason = format!("restored from a backup at {now}: the original may have delivered meanwhile");
    let paused = store.commit(vec![Change::Note(PAUSED, Some(reason), None)]).await;
    store.close().await;
    match paused {
        Ok(_) => Ok(report),
        Err(error) => {
            // A journal that is not paused must not be left behind.
            let _ = fs::remove_file(&finished);
            Err(CopyError::Database(error.to_string()))
        }
    }
}

/// Where to write and what it is called in the end; the directory is made.
fn places(source: &Path, target: &Path) -> Result<(PathBuf, PathBuf), CopyError> {
    if !source.is_file() {
        return Err(CopyError::Nothing(source.parent().unwrap_or(source).to_owned()));
    }
    let (part, finished) = (target.join(UNFINISHED), target.join(DATABASE));
    if finished.exists() {
        return Err(CopyError::Exists(target.to_owned()));
    }
    open::make_directory(target)?;
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CopyError::File { path: part, error }),
        _ => Ok((part, finished)),
    }
}

/// Synced, read back as a whole, and only then given its name.
async fn finish(part: &Path, finished: &Path, target: &Path) -> Result<verify::Report, CopyError> {
    let failed = |error| CopyError::File { path: part.to_owned(), error };
    open::make_file(part)?;
    File::open(part).and_then(|file| file.sync_all()).map_err(failed)?;
    let report = verify::database(part).await?;
    if !report.is_sound() {
        return Err(CopyError::Damaged(part.to_owned()));
    }
    fs::rename(part, finished).map_err(failed)?;
    open::sync_directory(target)?;
    Ok(report)
}

//! Where a journal is, and the one way to open it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{postgres, sqlite, store::Store};

/// Where a journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory: the embedded store.
    Directory(PathBuf),
    /// A database: the shared store.
    Postgres(postgres::Settings),
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The embedded store.
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    /// The shared store.
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
}

impl Location {
    /// The same, with paths that are meant relative to a directory.
    #[must_use]
    pub fn below(&self, home: &Path) -> Self {
        match self {
            Self::Directory(path) => Self::Directory(home.join(path)),
            Self::Postgres(settings) => {
                let ca = settings.ca.as_ref().map(|ca| home.join(ca));
                Self::Postgres(postgres::Settings { ca, ..settings.clone() })
            }
        }
    }

    /// The directory, if it is in one.
    pub fn into_directory(self) -> Option<PathBuf> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }

    /// Opens the journal for writing, or makes a new one there.
    ///
    /// # Errors
    /// When it is in use, of a newer release, no journal, or cannot be reached.
    pub async fn open(&self) -> Result<Arc<dyn Store>, OpenError> {
        Ok(match self {
            Self::Directory(path) => Arc::new(sqlite::SqliteStore::open(path).await?),
            Self::Postgres(settings) => Arc::new(postgres::PostgresStore::open(settings).await?),
        })
    }
}

//! Whether the files that are written to still are the journal.
//!
//! Promise:  P1. Removed or replaced files stay open and can be written and synced without an error, and are gone with
//!           the process: what was committed to them must not be acknowledged.
//! Not here: what is done about it (the committer closes the journal for good, like after any failed write).

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::journal::store::StoreError;

/// The files of an open journal, known by device and inode.
pub(super) struct Place {
    files: [(PathBuf, OnceLock<(u64, u64)>); 2],
}

impl Place {
    /// The database at this path, as it is now, and its log, as it is at the first check.
    pub(super) fn of(database: &Path) -> io::Result<Self> {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let files =
            [(database.to_owned(), OnceLock::from(identity(database)?)), (log.into(), OnceLock::new())];
        Ok(Self { files })
    }

    /// Fails when one of the files is not in its place any more.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, known) in &self.files {
            let gone = |why: &str| StoreError::new(format!("{} {why} while the engine runs", path.display()));
            let found = identity(path).map_err(|_| gone("was removed"))?;
            if *known.get_or_init(|| found) != found {
                return Err(gone("was replaced"));
            }
        }
        Ok(())
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

//! Watching the configuration: tells when its files have changed and settled.
//!
//! Promise:  an editor's save (write, or rename over), a `git checkout` of many files and a swapped symbolic link
//!           each give one wake-up, after they are done. Folders may be removed and made again.
//! Not here: what is in the files, whether they really differ: a revision is named by content.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{EventKind, RecursiveMode, Watcher as _};
use parking_lot::RwLock;
use tokio::{sync::mpsc, time::Instant};

use crate::config;

/// The files are left alone for so long before they are read.
const QUIET: Duration = Duration::from_millis(200);
/// Files that never come to rest are read after so long all the same.
const PATIENCE: Duration = Duration::from_secs(5);
/// A git command that holds the index is waited for so long: it may have died and left its lock.
const GIT_PATIENCE: Duration = Duration::from_secs(30);
/// The folders of every configuration; those of the mappings are named in `tie.toml`.
const FOLDERS: [&str; 2] = ["routes", "testdata"];

/// Watches one configuration directory.
pub struct Watch {
    home: PathBuf,
    config_file: PathBuf,
    /// As `tie.toml` names them.
    folders: Arc<RwLock<Vec<PathBuf>>>,
    watcher: notify::RecommendedWatcher,
    changes: mpsc::Receiver<()>,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the operating system gives no notifications.
    pub fn begin(home: &Path, config_file: &Path) -> notify::Result<Self> {
        // One place is enough: a wake-up that is already waiting speaks for all changes before it is taken.
        let (tell, changes) = mpsc::channel(1);
        let home = std::path::absolute(home)?;
        let config_file = std::path::absolute(home.join(config_file))?;
        let folders = Arc::default();
        let scope =
            Scope { home: home.clone(), config_file: config_file.clone(), folders: Arc::clone(&folders) };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error is an overflow: something changed, nobody knows what.
            if event.is_ok_and(|event| !scope.concerns(&event)) {
                return;
            }
            let _ = tell.try_send(());
        })?;
        let mut watch = Self { home, config_file, folders, watcher, changes };
        watch.arm()?;
        Ok(watch)
    }

    /// Tells of every change once the files have settled, until the receiver is dropped. A task of its own: waiting
    /// for quiet must not begin anew whenever whoever listens looks at something else.
    pub fn settled(mut self) -> mpsc::Receiver<()> {
        let (tell, told) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                self.changed().await;
                if tell.send(()).await.is_err() {
                    break;
                }
            }
        });
        told
    }

    /// Waits for a change and for the files to settle. Ends only with a change.
    async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let began = Instant::now();
        loop {
            let quiet = tokio::time::timeout(QUIET, self.changes.recv()).await.is_err();
            let waited = began.elapsed();
            let git_is_busy = self.home.join(".git/index.lock").exists() && waited < GIT_PATIENCE;
            if !git_is_busy && (quiet || waited > PATIENCE) {
                break;
            }
        }
        // A folder that was removed and made again is a new one to the operating system.
        if let Err(error) = self.arm() {
            tracing::warn!(%error, "the configuration is not watched completely: use `tie reload` after an edit");
        }
    }

    fn arm(&mut self) -> notify::Result<()> {
        let mut places = vec![(self.home.clone(), RecursiveMode::NonRecursive)];
        if let Some(folder) = self.config_file.parent().filter(|folder| **folder != *self.home) {
            places.push((folder.to_owned(), RecursiveMode::NonRecursive));
        }
        let text = std::fs::read_to_string(&self.config_file).unwrap_or_default();
        let folders: Vec<PathBuf> =
            FOLDERS.iter().map(PathBuf::from).chain(config::mapping_folders(&text)).collect();
        let whole = |folder: &PathBuf| (self.home.join(folder), RecursiveMode::Recursive);
        places.extend(folders.iter().map(whole).filter(|(folder, _)| folder.is_dir()));
        *self.folders.write() = folders;
        for (place, mode) in places {
            let _ = self.watcher.unwatch(&place);
            self.watcher.watch(&place, mode)?;
        }
        Ok(())
    }
}

/// What of the watched folders belongs to the configuration: not the journal or a log beside it.
struct Scope {
    home: PathBuf,
    config_file: PathBuf,
    folders: Arc<RwLock<Vec<PathBuf>>>,
}

impl Scope {
    fn concerns(&self, event: &notify::Event) -> bool {
        !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(|path| self.holds(path))
    }

    fn holds(&self, path: &Path) -> bool {
        let in_folder = |below: &Path| self.folders.read().iter().any(|folder| below.starts_with(folder));
        // Kubernetes swaps the link `..data` that the file itself is a link into.
        path == self.config_file
            || path.file_name().is_some_and(|name| name == "..data")
            || path.strip_prefix(&self.home).is_ok_and(in_folder)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn told(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn saves_of_every_kind_are_told_and_so_is_a_folder_made_again() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("tie.toml"), "").unwrap();
        fs::create_dir(home.path().join("routes")).unwrap();
        let mut watch = Watch::begin(home.path(), Path::new("tie.toml")).unwrap();

        fs::write(home.path().join("routes/adt.toml"), "a").unwrap();
        assert!(told(&mut watch).await, "written in place");

        fs::write(home.path().join("routes/.adt.toml.swp"), "b").unwrap();
        fs::rename(home.path().join("routes/.adt.toml.swp"), home.path().join("routes/adt.toml")).unwrap();
        assert!(told(&mut watch).await, "renamed over");

        fs::remove_dir_all(home.path().join("routes")).unwrap();
        fs::create_dir(home.path().join("routes")).unwrap();
        assert!(told(&mut watch).await, "removed and made again");

        fs::write(home.path().join("routes/adt.toml"), "c").unwrap();
        assert!(told(&mut watch).await, "written in the new folder");
    }

    #[tokio::test]
    async fn a_log_or_a_journal_beside_the_configuration_wakes_nobody() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("tie.toml"), "").unwrap();
        let mut watch = Watch::begin(home.path(), Path::new("tie.toml")).unwrap();
        fs::write(home.path().join("engine.log"), "x").unwrap();
        assert!(tokio::time::timeout(QUIET * 4, watch.changed()).await.is_err());
    }

    #[tokio::test]
    async fn a_git_command_is_waited_for() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(".git")).unwrap();
        fs::write(home.path().join("tie.toml"), "").unwrap();
        let lock = home.path().join(".git/index.lock");
        fs::write(&lock, "").unwrap();
        let mut watch = Watch::begin(home.path(), Path::new("tie.toml")).unwrap();
        fs::write(home.path().join("tie.toml"), "x").unwrap();
        let early = tokio::time::timeout(QUIET * 4, watch.changed()).await;
        assert!(early.is_err(), "told while git was at work");
        fs::remove_file(&lock).unwrap();
        fs::write(home.path().join("tie.toml"), "y").unwrap();
        assert!(told(&mut watch).await);
    }
}

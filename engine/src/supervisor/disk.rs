//! The journal's disk: how much is free, and a reserve file for when nothing is.
//!
//! Promise:  P7. The file holds space that nobody else can take. It is given up when the disk is all but full, while the
//!           engine runs or before it starts, so that outcomes are recorded and what was taken is finished. On a disk
//!           without room even then the start waits instead of failing again and again.
//! Not here: what happens to messages meanwhile (intake).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};
use tokio_util::sync::CancellationToken;

use super::parts::Parts;

/// How often the disk is asked: so much may be written in between, at the most, without filling the reserve.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often somebody is told that the start waits for room.
const TELL_EVERY: u32 = 60;
/// What must stay free, where nobody has said it and the disk is not small.
const RESERVE_BYTES: u64 = 512_000_000;
/// The longest reserve file.
const FILE_BYTES: u64 = 64 << 20;
/// What a start needs: to read the log back and to write outcomes.
const START_BYTES: u64 = 8 << 20;

/// Somebody who knows how much is free.
trait Disk: Send + Sync {
    /// Bytes that this process may still write.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Its whole size.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn total_bytes(&self) -> io::Result<u64>;
}

/// The file system of a directory, which need not be there yet.
struct FileSystem(PathBuf);

impl Disk for FileSystem {
    fn free_bytes(&self) -> io::Result<u64> {
        let file_system = self.ask()?;
        Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        let file_system = self.ask()?;
        Ok(file_system.f_blocks.saturating_mul(file_system.f_frsize))
    }
}

impl FileSystem {
    fn ask(&self) -> io::Result<StatVfs> {
        let there = self.0.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
        Ok(statvfs(there)?)
    }
}

/// What must stay free where nobody has said it.
fn usual_reserve(disk: &dyn Disk) -> u64 {
    disk.total_bytes().map_or(RESERVE_BYTES, |total| (total / 20).min(RESERVE_BYTES))
}

/// The file that keeps room.
struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    fn of(directory: &Path, reserve_bytes: u64) -> Self {
        Self { path: directory.join("reserve"), bytes: FILE_BYTES.min(reserve_bytes / 4) }
    }

    fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Takes the room, or none of it.
    fn take(&self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&self.path)?;
        let taken = fallocate(&file, FallocateFlags::empty(), 0, self.bytes).map_err(io::Error::from);
        let taken = taken.and_then(|()| File::sync_all(&file));
        if taken.is_err() {
            self.give_up()?;
        }
        taken
    }

    fn give_up(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// Keeps the file while there is room, gives it up when there is none.
    fn keep(&self, free_bytes: u64, low: bool) {
        let result = match self.is_there() {
            true if free_bytes < self.bytes / 2 => {
                tracing::error!(
                    free_bytes,
                    "the journal's disk is full: the reserve is given up, to finish what was taken"
                );
                self.give_up()
            }
            false if !low && self.bytes > 0 && free_bytes > 2 * self.bytes => self.take(),
            true | false => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(path = %self.path.display(), %error, "the reserve file");
        }
    }
}

/// What must stay free on the disk of a directory, once there is room to start in; none if told to stop meanwhile. The
/// disk of a database is its server's matter.
pub async fn ready(directory: Option<&Path>, said: Option<u64>, stop: &CancellationToken) -> Option<u64> {
    let Some(directory) = directory else { return Some(0) };
    let disk = FileSystem(directory.to_owned());
    match has_room(&disk, directory, stop).await {
        true => Some(said.unwrap_or_else(|| usual_reserve(&disk))),
        false => None,
    }
}

/// Waits until there is room to start in; gives up the reserve file for it. False if told to stop meanwhile.
async fn has_room(disk: &dyn Disk, directory: &Path, stop: &CancellationToken) -> bool {
    let reserve = Reserve::of(directory, 0);
    let mut looks = 0;
    while disk.free_bytes().is_ok_and(|free| free < START_BYTES) {
        if reserve.is_there() && reserve.give_up().is_ok() {
            tracing::error!(
                "the journal's disk is full: the reserve is given up, to start and finish what was taken"
            );
            continue;
        }
        if looks % TELL_EVERY == 0 {
            tracing::error!(directory = %directory.display(), "the start waits: the journal's disk is full, make room on it");
        }
        looks += 1;
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    true
}

/// Looks at the disk until it is dropped.
pub async fn watch(parts: Parts, directory: PathBuf, reserve_bytes: u64) {
    let disk = FileSystem(directory.clone());
    let reserve = Reserve::of(&directory, reserve_bytes);
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        let free_bytes = match disk.free_bytes() {
            Ok(free_bytes) => free_bytes,
            Err(error) => {
                tracing::warn!(%error, "the journal's disk does not say how much is free");
                continue;
            }
        };
        match parts.room.look(free_bytes) {
            Some(true) => tracing::error!(
                free_bytes,
                reserve_bytes,
                "the journal's disk is nearly full: messages are refused"
            ),
            Some(false) => {
                tracing::info!(free_bytes, "the journal's disk has room again: messages are taken")
            }
            None => {}
        }
        let low = parts.room.disk_is_low();
        parts.metrics.disk(free_bytes, low);
        reserve.keep(free_bytes, low);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    struct Said(AtomicU64);

    impl Disk for Said {
        fn free_bytes(&self) -> io::Result<u64> {
            Ok(self.0.load(Ordering::Acquire))
        }

        fn total_bytes(&self) -> io::Result<u64> {
            self.free_bytes()
        }
    }

    #[test]
    fn a_small_disk_has_a_small_reserve() {
        let reserve = |total| usual_reserve(&Said(AtomicU64::new(total)));
        assert_eq!((reserve(24_000_000), reserve(1 << 40)), (1_200_000, 512_000_000));
    }

    #[test]
    fn a_file_system_says_what_is_free_even_below_a_directory_that_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let free = FileSystem(directory.path().join("not/there")).free_bytes().unwrap();
        assert!(free > 0);
    }

    #[test]
    fn p7_the_reserve_takes_room_and_gives_it_back_when_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(directory.path(), 4 << 20);
        reserve.keep(1 << 20, false);
        assert!(!reserve.is_there(), "not while there is hardly any");
        reserve.keep(10 << 20, true);
        assert!(!reserve.is_there(), "not while messages are refused");
        reserve.keep(10 << 20, false);
        assert_eq!(fs::metadata(&reserve.path).unwrap().len(), 1 << 20);
        reserve.keep(1 << 20, true);
        assert!(reserve.is_there());
        reserve.keep(1000, true);
        assert!(!reserve.is_there());
    }

    #[tokio::test]
    async fn p7_on_a_full_disk_the_start_gives_up_the_reserve_and_waits() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(directory.path(), 4 << 20);
        reserve.take().unwrap();
        let disk = Arc::new(Said(AtomicU64::new(0)));
        let stop = CancellationToken::new();
        let start = tokio::spawn({
            let (disk, path, stop) = (disk.clone(), directory.path().to_owned(), stop.clone());
            async move { has_room(&*disk, &path, &stop).await }
        });
        while reserve.is_there() {
            tokio::time::sleep(Duration::from_millis(1)).await; // poll
        }
        assert!(!start.is_finished());
        disk.0.store(1 << 30, Ordering::Release);
        assert!(start.await.unwrap());
        disk.0.store(0, Ordering::Release);
        stop.cancel();
        assert!(!has_room(&*disk, directory.path(), &stop).await, "a stop is heard while it waits");
    }
}

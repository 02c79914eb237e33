//! Room: whether there is place for another message, on the disk and in memory.
//!
//! Promise:  P6, P7. Nothing is taken when the journal's disk has less free than the reserve, so that what was taken can
//!           be finished: outcomes are recorded from the reserve. It is taken up again by itself with a quarter more
//!           free than that, so that the two do not alternate. Bytes that are taken and not yet stored are bounded, over
//!           all listeners and for each: whoever comes beyond waits, unread, and is refused when that takes too long.
//! Not here: asking the disk (supervisor), what a refused sender is told (reception).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a message may wait for memory before its sender is asked to send it again.
const PATIENCE: Duration = Duration::from_secs(5);
const KIB: usize = 1024;

/// The place of an instance.
pub struct Room {
    reserve_bytes: u64,
    disk_is_low: AtomicBool,
    all: Share,
    patience: Duration,
}

/// Memory for messages that are not stored yet. Cheap to clone.
#[derive(Clone)]
pub(super) struct Share {
    kib: u32,
    free: Arc<Semaphore>,
}

/// Memory that a message holds until it is stored: of its listener and of all.
pub(super) struct Held {
    _of_listener: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Room {
    /// Place with so much to be kept free on the disk, and so much memory for what is not stored yet.
    pub fn new(reserve_bytes: u64, unstored_bytes: usize) -> Self {
        Self {
            reserve_bytes,
            disk_is_low: AtomicBool::new(false),
            all: Share::new(unstored_bytes),
            patience: PATIENCE,
        }
    }

    /// Takes note of how much is free on the journal's disk. Says whether that is too little, if that has changed.
    pub fn look(&self, free_bytes: u64) -> Option<bool> {
        let was = self.disk_is_low.load(Ordering::Acquire);
        let enough =
            if was { self.reserve_bytes.saturating_add(self.reserve_bytes / 4) } else { self.reserve_bytes };
        let is = free_bytes < enough;
        self.disk_is_low.store(is, Ordering::Release);
        (is != was).then_some(is)
    }

    /// Whether nothing is taken because the disk is nearly full.
    pub fn disk_is_low(&self) -> bool {
        self.disk_is_low.load(Ordering::Acquire)
    }

    /// What one listener may have of the memory: half of it, so that a second one has room too.
    pub(super) fn share(&self) -> Share {
        Share::new(self.all.kib as usize * KIB / 2)
    }

    /// Waits for memory; none if there is none in time.
    pub(super) async fn hold(&self, listener: &Share, bytes: usize) -> Option<Held> {
        let held = async {
            let _of_listener = listener.take(bytes).await?;
            Some(Held { _of_listener, _of_all: self.all.take(bytes).await? })
        };
        timeout(self.patience, held).await.ok().flatten()
    }
}

impl Share {
    fn new(bytes: usize) -> Self {
        let kib = u32::try_from(bytes / KIB).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        Self { kib, free: Arc::new(Semaphore::new(kib as usize)) }
    }

    /// A message that is longer than all of it takes all of it.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / KIB + 1).unwrap_or(u32::MAX).min(self.kib);
        self.free.clone().acquire_many_owned(kib).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p6_the_disk_is_low_below_the_reserve_until_there_is_a_quarter_more() {
        let room = Room::new(1000, 1 << 20);
        for (free, changed, low) in [
            (5000, None, false),
            (1000, None, false),
            (999, Some(true), true),
            (0, None, true),
            (1100, None, true),
            (1249, None, true),
            (1250, Some(false), false),
            (1000, None, false),
        ] {
            assert_eq!((room.look(free), room.disk_is_low()), (changed, low), "{free}");
        }
        assert_eq!(Room::new(0, 1).look(0), None, "no reserve is asked for");
    }

    #[tokio::test]
    async fn p6_memory_is_bounded_for_each_listener_and_for_all() {
        let room = Room { patience: Duration::from_millis(20), ..Room::new(0, 1024 * KIB) };
        let (one, two, three) = (room.share(), room.share(), room.share());
        let first = room.hold(&one, 500 * KIB).await.unwrap();
        assert!(room.hold(&one, 100 * KIB).await.is_none(), "half of it is all that one listener has");
        let second = room.hold(&two, 500 * KIB).await.unwrap();
        assert!(room.hold(&three, 100 * KIB).await.is_none(), "and the whole is all that there is");
        drop(first);
        assert!(room.hold(&one, 100 * KIB).await.is_some());
        drop(second);
        let longest = room.hold(&three, 1 << 30).await.unwrap();
        assert!(room.hold(&three, 1).await.is_none(), "a message that is too long for it has it alone");
        drop(longest);
        assert!(room.hold(&three, 1).await.is_some());
    }
}

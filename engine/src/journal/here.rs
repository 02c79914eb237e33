//! Commits on a thread of the runtime: whoever finds nobody at it makes them where it is.
//!
//! Promise:  P5. A disk that holds such a thread up holds up no socket but those that wait for it: within two ticks another
//!           thread of the runtime looks after the rest, all but the one task that tokio has woken last on the thread itself.
//! Not here: when a commit is made so (committer.rs).

use std::{
    future::ready,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify, time::sleep};

/// From one look to the next. A disk that is quick enough has ended many commits by then.
const TICK: Duration = Duration::from_millis(10);

/// Commits that are made so, one at a time.
#[derive(Default)]
pub(super) struct Here {
    /// How many have begun.
    begun: AtomicU64,
    is_under_way: AtomicBool,
    is_watched: AtomicBool,
    called: Notify,
}

/// A commit that is under way.
pub(super) struct UnderWay<'h>(&'h Here);

impl Here {
    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.begun.fetch_add(1, SeqCst);
        self.is_under_way.store(true, SeqCst);
        if !self.is_watched.swap(true, SeqCst) {
            self.called.notify_one();
        }
        UnderWay(self)
    }

    /// Watches over them for as long as any are made. The thread that commits may have been the one that waits for the sockets
    /// of all: another is called, finds nothing else to do, and waits for them.
    pub(super) async fn watch(&self, runtime: &Handle) {
        loop {
            self.called.notified().await;
            let mut seen = 0;
            while self.is_watched.load(SeqCst) {
                sleep(TICK).await;
                let begun = self.begun.load(SeqCst);
                if begun != seen {
                    seen = begun;
                } else if self.is_under_way.load(SeqCst) {
                    runtime.spawn(ready(()));
                } else {
                    self.is_watched.store(false, SeqCst);
                    // One may have begun before this could be seen.
                    self.is_watched.fetch_or(self.begun.load(SeqCst) != seen, SeqCst);
                }
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.is_under_way.store(false, SeqCst);
    }
}

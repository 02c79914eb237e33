//! The stage: whoever wants to do something to the world waits here for its turn, and gets it alone.
//!
//! Between two turns everything that can run has run, since the next turn is given after a tick of the paused clock,
//! which moves only when no task can. Those who wait are sorted by what they want, not by when they came. So a run
//! depends on the dice alone: neither on the order in which tokio wakes tasks (it draws that by chance in places) nor
//! on the machine.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

#[derive(Default)]
pub struct Stage {
    waiting: Mutex<BTreeMap<String, Waiting>>,
    pub arrived: Notify,
}

struct Waiting {
    from: Instant,
    go: Arc<Notify>,
}

impl Stage {
    /// Waits for a turn, at least for so long. Who wants the same as another stands behind it.
    pub async fn turn(&self, mut what: String, at_least: Duration) {
        let go = Arc::new(Notify::new());
        let waiting = Waiting { from: Instant::now() + at_least, go: go.clone() };
        {
            let mut all = self.waiting.lock();
            while all.contains_key(&what) {
                what.push('\'');
            }
            all.insert(what.clone(), waiting);
        }
        let leave = Leave { stage: self, what, go };
        self.arrived.notify_one();
        leave.go.notified().await;
    }

    /// Those who may have the next turn, sorted.
    pub fn ready(&self) -> Vec<String> {
        let now = Instant::now();
        self.waiting.lock().iter().filter(|(_, one)| one.from <= now).map(|(what, _)| what.clone()).collect()
    }

    /// When the next of those who wait may have a turn.
    pub fn next(&self) -> Option<Instant> {
        self.waiting.lock().values().map(|one| one.from).min()
    }

    /// Gives the turn.
    pub fn release(&self, what: &str) {
        if let Some(one) = self.waiting.lock().remove(what) {
            one.go.notify_one();
        }
    }

    /// Forgets everybody: their tasks are gone.
    pub fn clear(&self) {
        self.waiting.lock().clear();
    }
}

/// Whoever stops waiting (a time-out, a crash) leaves the stage.
struct Leave<'a> {
    stage: &'a Stage,
    what: String,
    go: Arc<Notify>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut waiting = self.stage.waiting.lock();
        if waiting.get(&self.what).is_some_and(|one| Arc::ptr_eq(&one.go, &self.go)) {
            waiting.remove(&self.what);
        }
    }
}

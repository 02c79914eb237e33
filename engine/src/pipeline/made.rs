//! What was made of a message for one destination of a route, kept for the others: they get the same, so it is made once.
//!
//! Promise:  bounded in number and size. What is not kept any more is made again, and is the same: a mapping gives the same
//!           bytes for the same message and revision.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::{delivery::Prepared, journal::Sequence};

/// So many are kept at most, the youngest.
const MOST: usize = 256;
/// What is larger is made for each destination anew.
const LARGEST: usize = 256 << 10;

/// A message, the route that it took, and the revision.
pub(super) type Key = (Sequence, Arc<str>, Arc<str>);

/// What is kept.
#[derive(Default)]
pub(super) struct Made(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    slots: HashMap<Key, Slot, RandomState>,
    /// The keys in the order in which they came; some may be gone.
    order: VecDeque<Key>,
}

struct Slot {
    made: Arc<OnceCell<Prepared>>,
    /// How many destinations have not asked yet.
    left: usize,
}

impl Made {
    /// What is to be sent to one of so many destinations: made now, or made for another one before. None if it could not be
    /// made, which the next one may.
    pub async fn of(
        &self,
        key: impl FnOnce() -> Key,
        destinations: usize,
        make: impl Future<Output = Option<Prepared>>,
    ) -> Option<Prepared> {
        if destinations < 2 {
            return make.await;
        }
        let key = key();
        let made = self.0.lock().slot(&key, destinations);
        let made = made.get_or_try_init(|| async { make.await.ok_or(()) }).await.ok()?.clone();
        if made.bytes() > LARGEST {
            self.0.lock().slots.remove(&key);
        }
        Some(made)
    }
}

impl Kept {
    /// The place of what is made; the last destination that asks takes it out.
    fn slot(&mut self, key: &Key, destinations: usize) -> Arc<OnceCell<Prepared>> {
        if !self.slots.contains_key(key) {
            self.make_room();
            self.order.push_back(key.clone());
        }
        let fresh = || Slot { made: Arc::default(), left: destinations };
        let slot = self.slots.entry(key.clone()).or_insert_with(fresh);
        slot.left -= 1;
        let made = slot.made.clone();
        if slot.left == 0 {
            self.slots.remove(key);
        }
        made
    }

    fn make_room(&mut self) {
        while self.slots.len() >= MOST {
            let Some(oldest) = self.order.pop_front() else { return };
            self.slots.remove(&oldest);
        }
        if self.order.len() >= 4 * MOST {
            self.order.retain(|key| self.slots.contains_key(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(number: i64) -> Key {
        (Sequence(number), "feed".into(), "r1".into())
    }

    #[tokio::test]
    async fn each_destination_gets_it_and_it_is_made_once() {
        let (made, times) = (Made::default(), AtomicUsize::new(0));
        let make = async |reason: &str| {
            times.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Some(Prepared::Filtered { reason: reason.into(), revision: "r1".into() })
        };
        let asked = (0..3).map(|_| made.of(|| key(1), 3, make("why")));
        let got = futures::future::join_all(asked).await;
        assert!(got.iter().all(|got| matches!(got, Some(Prepared::Filtered { .. }))));
        assert_eq!(times.load(Ordering::Relaxed), 1);
        assert!(made.0.lock().slots.is_empty(), "all have it: nothing is kept");
        made.of(|| key(1), 1, make("why")).await;
        assert_eq!(times.load(Ordering::Relaxed), 2, "one destination alone");
    }

    #[tokio::test]
    async fn what_failed_is_tried_again_by_the_next() {
        let made = Made::default();
        assert_eq!(made.of(|| key(1), 2, async { None }).await, None);
        let other = Prepared::Held { reason: String::new(), revision: String::new() };
        assert_eq!(made.of(|| key(1), 2, async { Some(other.clone()) }).await, Some(other.clone()));
    }

    #[tokio::test]
    async fn no_more_is_kept_than_there_is_room_for() {
        let made = Made::default();
        for number in 0..5000 {
            let one = Prepared::Filtered { reason: String::new(), revision: String::new() };
            made.of(|| key(number), 2, async { Some(one) }).await;
        }
        let kept = made.0.lock();
        assert!(
            kept.slots.len() <= MOST && kept.order.len() <= 4 * MOST,
            "{} {}",
            kept.slots.len(),
            kept.order.len()
        );
    }
}

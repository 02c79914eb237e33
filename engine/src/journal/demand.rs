//! Demand: how much waits elsewhere for a processor, so that the journal can leave it more of them.
//!
//! Promise:  a hint and no more: nothing is wrong when it is.
//! Not here: what the journal does about it (committer.rs).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// So many pieces of work wait only where messages come faster than they are mapped.
const HIGH: usize = 8;

/// Work that waits. Cheap to clone: all clones count the same.
#[derive(Clone, Default)]
pub struct Demand(Arc<AtomicUsize>);

impl Demand {
    /// A piece of work waits for a processor.
    pub fn waits(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece of work waits no longer.
    pub fn served(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How much waits.
    pub fn waiting(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether there is more than the processors have time for.
    pub(super) fn is_high(&self) -> bool {
        self.waiting() >= HIGH
    }
}

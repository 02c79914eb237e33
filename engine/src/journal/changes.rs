//! Who waits for what becomes of one message, and how they are woken.
//!
//! Promise:  a change that is committed after somebody has begun to wait wakes them. Nothing is kept of messages that
//!           nobody waits for.
//! Not here: what has changed: whoever is woken reads it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Sequence;

/// The messages that somebody waits for.
#[derive(Default)]
pub(super) struct Watched {
    /// So that nobody else pays for it.
    any: AtomicUsize,
    messages: Mutex<HashMap<Sequence, watch::Sender<()>>>,
}

/// Changes of the deliveries of one message.
pub struct Changes {
    sequence: Sequence,
    watched: Arc<Watched>,
    changed: Option<watch::Receiver<()>>,
}

impl Watched {
    pub(super) fn follow(self: &Arc<Self>, sequence: Sequence) -> Changes {
        let mut messages = self.messages.lock();
        let changed = match messages.entry(sequence) {
            Entry::Occupied(known) => known.get().subscribe(),
            Entry::Vacant(new) => new.insert(watch::Sender::new(())).subscribe(),
        };
        self.any.store(messages.len(), Ordering::Release);
        Changes { sequence, watched: self.clone(), changed: Some(changed) }
    }

    /// A delivery of the message has changed; the change is committed.
    pub(super) fn tell(&self, sequence: Sequence) {
        if self.any.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(message) = self.messages.lock().get(&sequence) {
            message.send_replace(());
        }
    }
}

impl Changes {
    /// Waits for the next change since the last call, or since it is followed.
    pub async fn next(&mut self) {
        match &mut self.changed {
            // It cannot end while it is followed.
            Some(changed) => drop(changed.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.changed = None;
        let mut messages = self.watched.messages.lock();
        if messages.get(&self.sequence).is_some_and(|message| message.receiver_count() == 0) {
            messages.remove(&self.sequence);
        }
        self.watched.any.store(messages.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_follows_is_woken_and_nothing_is_kept_after() {
        let watched = Arc::new(Watched::default());
        watched.tell(Sequence(1));
        let (mut one, mut other) = (watched.follow(Sequence(1)), watched.follow(Sequence(1)));
        watched.tell(Sequence(2));
        watched.tell(Sequence(1));
        tokio::join!(one.next(), other.next());
        drop(one);
        assert_eq!(watched.messages.lock().len(), 1, "the other still waits");
        watched.tell(Sequence(1));
        other.next().await;
        drop(other);
        assert!(watched.messages.lock().is_empty() && watched.any.load(Ordering::Acquire) == 0);
    }
}

//! The turn to commit: one at a time has it, the committer or whoever finds nobody at it.
//!
//! In:       what has gathered.
//! Out:      one transaction and one sync for all of it, then all the answers, then what is done between two.
//! Promise:  P1, P7. No answer before the commit. After the first error, or a fault of ours, nothing is tried again: the queue
//!           is shut, and the store never touched any more.
//! Not here: who gathers with whom, and when (committer.rs); what a change means to a store (store.rs).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::sync::{oneshot, watch};

use super::{
    Entry, JournalError, Sequence, Tip,
    queue::{Chore, FEW, Queue, Request, Waiting},
    recent::Recent,
    store::{Change, Committed, Store, StoreError},
};
use crate::metrics::Metrics;

/// A disk that takes longer is waited for on the committer's own thread.
const QUICK: Duration = Duration::from_millis(1);

pub(super) struct Turn {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    recent: Arc<Recent>,
    tip: watch::Sender<Tip>,
    /// How many changes the last commit had, and how long it took.
    together: usize,
    took: Duration,
    /// The store is closed, or must not be used any more.
    is_over: bool,
}

impl Turn {
    pub(super) fn new(
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        recent: Arc<Recent>,
        tip: watch::Sender<Tip>,
    ) -> Self {
        Self { store, metrics, recent, tip, together: 0, took: Duration::ZERO, is_over: false }
    }

    /// Whether a commit may be made on the thread that asks: the disk is here, and was quick the last time, when there were
    /// few. Where there are many, the first of them would keep all others waiting for a sync of its own.
    pub(super) fn is_at_hand(&self) -> bool {
        self.together <= FEW && self.took < QUICK && self.store.is_at_hand()
    }

    /// Commits changes on the thread that asks, and answers. Nothing else may have been asked for.
    pub(super) fn commit_here(&mut self, requests: Vec<Request>, queue: &Queue) {
        if self.begin() {
            let Sorted { changes, waiting, .. } = sort(requests);
            let done = catch_unwind(AssertUnwindSafe(|| {
                let (together, began) = (changes.len(), Instant::now());
                let committed = self.store.commit_here(changes);
                (self.together, self.took) = (together, began.elapsed());
                self.answer(committed, waiting, queue).map(|()| true)
            }));
            self.conclude(done, queue);
        }
    }

    /// Does what was asked for. With nothing the store is looked after all the same.
    pub(super) async fn work_off(&mut self, requests: Vec<Request>, queue: &Queue) {
        if self.begin() {
            let done = AssertUnwindSafe(self.all_of(requests, queue)).catch_unwind().await;
            self.conclude(done, queue);
        }
    }

    /// Nobody uses the journal any more.
    pub(super) async fn end(&mut self, queue: &Queue) {
        if self.begin() {
            queue.shut("nobody uses the journal any more");
            self.store.close().await;
        }
    }

    /// Whether the store may be used. Until that is known to have gone well, nobody else may.
    fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.is_over, true)
    }

    fn conclude(&mut self, done: thread::Result<Result<bool, String>>, queue: &Queue) {
        let reason = match done {
            Ok(Ok(goes_on)) => return self.is_over = !goes_on,
            Ok(Err(reason)) => reason,
            Err(_) => "the committer has stopped".to_owned(),
        };
        queue.shut(&reason);
        tracing::error!(error = reason, "the journal is closed: nothing more can be made durable");
        // Never let go of: a store that closes syncs once more, and what failed must not be tried again.
        std::mem::forget(self.store.clone());
    }

    /// Whether it goes on afterwards.
    async fn all_of(&mut self, requests: Vec<Request>, queue: &Queue) -> Result<bool, String> {
        let Sorted { changes, waiting, chores, closes } = sort(requests);
        if !changes.is_empty() {
            let (together, began) = (changes.len(), Instant::now());
            let committed = self.store.commit(changes).await;
            (self.together, self.took) = (together, began.elapsed());
            self.answer(committed, waiting, queue)?;
        }
        self.store.maintain().await.map_err(|error| shut(&error, queue))?;
        for chore in chores {
            self.chore(chore, queue).await?;
        }
        if closes.is_empty() {
            return Ok(true);
        }
        queue.shut("the engine is stopping");
        self.store.close().await;
        for done in closes {
            // Nobody may be waiting for the end any more.
            let _ = done.send(());
        }
        Ok(false)
    }

    fn answer(
        &self,
        committed: Result<Vec<Committed>, StoreError>,
        mut waiting: Vec<Waiting>,
        queue: &Queue,
    ) -> Result<(), String> {
        let reason = match committed {
            Ok(committed) if committed.len() == waiting.len() => {
                self.metrics.committed(self.together, self.took.as_secs_f64());
                self.keep(&committed, &mut waiting);
                self.advance(&committed);
                for (waiting, committed) in waiting.into_iter().zip(committed) {
                    // Whoever asked may have given up; the change is durable all the same.
                    let _ = waiting.answer.send(Ok(committed));
                }
                return Ok(());
            }
            Ok(_) => "the store has answered for another batch".to_owned(),
            Err(error) => error.to_string(),
        };
        let reason = shut(&reason, queue);
        for waiting in waiting {
            let _ = waiting.answer.send(Err(JournalError::Closed(reason.clone())));
        }
        Err(reason)
    }

    async fn chore(&self, chore: Chore, queue: &Queue) -> Result<(), String> {
        // Whoever asked may have given up: what is done is done.
        match chore {
            Chore::Prune(prune, answer) => match self.store.prune(prune).await {
                Ok(pruned) => drop(answer.send(pruned)),
                Err(error) => return Err(shut(&error, queue)),
            },
            Chore::Reclaim(answer) => match self.store.reclaim().await {
                Ok(more) => drop(answer.send(more)),
                Err(error) => return Err(shut(&error, queue)),
            },
        }
        Ok(())
    }

    /// Before anybody hears of them: what is to be delivered is at hand then.
    fn keep(&self, committed: &[Committed], waiting: &mut [Waiting]) {
        let arrived = committed.iter().zip(waiting).filter_map(|(committed, waiting)| match committed {
            Committed::Appended(sequence) => Some(Entry { sequence: *sequence, ..waiting.arrived.take()? }),
            Committed::Recorded(_) | Committed::Requeued(_) | Committed::Noted => None,
        });
        self.recent.keep(arrived);
    }

    fn advance(&self, committed: &[Committed]) {
        let mut last = Sequence::default();
        let mut requeued = 0;
        for one in committed {
            match one {
                Committed::Appended(sequence) => last = last.max(*sequence),
                Committed::Requeued(deliveries) => requeued += deliveries,
                Committed::Recorded(_) | Committed::Noted => {}
            }
        }
        self.tip.send_if_modified(|tip| {
            let before = *tip;
            tip.last = tip.last.max(last);
            tip.requeued += requeued;
            *tip != before
        });
    }
}

/// Before anybody hears of it, so that nobody who has been told can hand in something else.
fn shut(reason: &impl ToString, queue: &Queue) -> String {
    let reason = reason.to_string();
    queue.shut(&reason);
    reason
}

struct Sorted {
    changes: Vec<Change>,
    waiting: Vec<Waiting>,
    chores: Vec<Chore>,
    closes: Vec<oneshot::Sender<()>>,
}

fn sort(requests: Vec<Request>) -> Sorted {
    let mut changes = Vec::with_capacity(requests.len());
    let mut waiting = Vec::with_capacity(requests.len());
    let mut chores = Vec::new();
    let mut closes = Vec::new();
    for request in requests {
        match request {
            Request::Change(change, who) => {
                changes.push(*change);
                waiting.push(who);
            }
            Request::Chore(chore) => chores.push(chore),
            Request::Close(done) => closes.push(done),
        }
    }
    Sorted { changes, waiting, chores, closes }
}

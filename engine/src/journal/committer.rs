//! The committer: the one task that makes things durable, many at a time, on a thread of its own.
//!
//! In:       changes, each with somebody who waits for its answer.
//! Out:      one transaction and one sync for all that have gathered, then all the answers.
//! Promise:  P1, P7. No answer before the commit; a message, a person's decision, or whatever comes behind them waits
//!           for nobody; outcomes alone wait for others, two milliseconds at most (company.rs). At most a bounded
//!           number of changes and bytes in hand. After the first error nothing is tried again: everybody,
//!           now and later, is told that the journal is closed.
//! Not here: what a change means to a store (store.rs).

use std::{sync::Arc, thread, time::Instant};

use tokio::{
    runtime::{self, Handle, RuntimeFlavor},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant as Moment, timeout, timeout_at},
};

use super::{
    Entry, JournalError, Sequence, Tip,
    company::{self, Company},
    recent::Recent,
    store::{Change, Committed, Prune, Pruned, Store},
};
use crate::metrics::Metrics;

/// Changes in one transaction. More would make the first of them wait without saving anything.
const GROUP: usize = 1000;
/// Changes that may wait in the channel; whoever comes after them waits to get in.
const QUEUE: usize = 4 * GROUP;
/// Packed bytes in hand, in KiB. A change that is longer than all of it takes all of it.
const BUDGET_KIB: u32 = 64 * 1024;

/// Where the answer to a change will come.
pub(super) type Answered = oneshot::Receiver<Result<Committed, JournalError>>;
type Answer = oneshot::Sender<Result<Committed, JournalError>>;

/// The way to the committer. Cheap to clone.
#[derive(Clone)]
pub(super) struct Committer {
    requests: mpsc::Sender<Request>,
    budget: Arc<Semaphore>,
    closed: watch::Receiver<Option<Arc<str>>>,
    tip: watch::Receiver<Tip>,
}

enum Request {
    Change(Box<Change>, Waiting),
    Chore(Chore),
    Close(oneshot::Sender<()>),
}

impl Request {
    /// Whether only a lane waits for it.
    fn may_wait(&self) -> bool {
        match self {
            Self::Change(change, _) => matches!(**change, Change::Record(_)),
            Self::Chore(_) | Self::Close(_) => false,
        }
    }
}

/// What is done between two transactions, after everybody has been answered.
enum Chore {
    Prune(Prune, oneshot::Sender<Pruned>),
    Reclaim(oneshot::Sender<bool>),
}

/// Somebody who wants to know, and the bytes that are theirs until then.
struct Waiting {
    answer: Answer,
    /// The message, if it is to be delivered when it is durable.
    arrived: Option<Entry>,
    _bytes: OwnedSemaphorePermit,
}

struct Task {
    store: Arc<dyn Store>,
    requests: mpsc::Receiver<Request>,
    metrics: Arc<Metrics>,
    recent: Arc<Recent>,
    tip: watch::Sender<Tip>,
    company: Company,
    door: Door,
}

/// Shuts when dropped, so that a panic of the task closes the journal too.
struct Door {
    closed: watch::Sender<Option<Arc<str>>>,
    budget: Arc<Semaphore>,
}

impl Committer {
    pub(super) fn start(store: Arc<dyn Store>, tip: Tip, recent: Arc<Recent>, metrics: Arc<Metrics>) -> Self {
        let (requests, received) = mpsc::channel(QUEUE);
        let (tip_sender, tip) = watch::channel(tip);
        let (closed_sender, closed) = watch::channel(None);
        let budget = Arc::new(Semaphore::new(BUDGET_KIB as usize));
        let door = Door { closed: closed_sender, budget: budget.clone() };
        let company = Company::new();
        let task = Task { store, requests: received, metrics, recent, tip: tip_sender, company, door };
        run_apart(task.run());
        Self { requests, budget, closed, tip }
    }

    /// Waits until the change is durable.
    pub(super) async fn commit(&self, change: Change) -> Result<Committed, JournalError> {
        self.answer(self.submit(change, None).await?).await
    }

    /// Hands a change in and returns when it has its place in the order, with the way to its answer.
    pub(super) async fn submit(
        &self,
        change: Change,
        arrived: Option<Entry>,
    ) -> Result<Answered, JournalError> {
        let kib = u32::try_from(change.bytes() / 1024 + 1).unwrap_or(BUDGET_KIB).min(BUDGET_KIB);
        let _bytes = match self.budget.clone().acquire_many_owned(kib).await {
            Ok(permit) => permit,
            Err(_) => return Err(self.why_closed()),
        };
        let (answer, answered) = oneshot::channel();
        let sent =
            self.requests.send(Request::Change(Box::new(change), Waiting { answer, arrived, _bytes })).await;
        match sent {
            Ok(()) => Ok(answered),
            Err(_) => Err(self.why_closed()),
        }
    }

    /// Waits for the answer to a change that was handed in.
    pub(super) async fn answer(&self, answered: Answered) -> Result<Committed, JournalError> {
        answered.await.unwrap_or_else(|_| Err(self.why_closed()))
    }

    /// Removes messages or their bytes.
    pub(super) async fn prune(&self, prune: Prune) -> Result<Pruned, JournalError> {
        let (done, answered) = oneshot::channel();
        self.chore(Chore::Prune(prune, done), answered).await
    }

    /// Gives some space back; whether there is more to give.
    pub(super) async fn reclaim(&self) -> Result<bool, JournalError> {
        let (done, answered) = oneshot::channel();
        self.chore(Chore::Reclaim(done), answered).await
    }

    async fn chore<T>(&self, chore: Chore, answered: oneshot::Receiver<T>) -> Result<T, JournalError> {
        if self.requests.send(Request::Chore(chore)).await.is_err() {
            return Err(self.why_closed());
        }
        answered.await.map_err(|_| self.why_closed())
    }

    /// Lets everything that was handed in before finish, then closes the store.
    pub(super) async fn close(&self) {
        let (done, ended) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            // An error means that the task has ended otherwise: closed all the same.
            let _ = ended.await;
        }
    }

    pub(super) fn tip(&self) -> watch::Receiver<Tip> {
        self.tip.clone()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    pub(super) async fn closed(&self) -> Arc<str> {
        let mut closed = self.closed.clone();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }

    fn why_closed(&self) -> JournalError {
        let reason = self.closed.borrow().clone();
        JournalError::Closed(reason.unwrap_or_else(gone).to_string())
    }
}

/// On a thread of its own, which waits for nobody's turn and may wait for the disk; where all else shares one thread, there.
fn run_apart(task: impl Future<Output = ()> + Send + 'static) {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        tokio::spawn(task);
        return;
    }
    // Where it ends early the task is gone, and with it the door: the journal is closed.
    let work = || match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(own) => own.block_on(task),
        Err(error) => tracing::error!(%error, "the journal's thread cannot begin"),
    };
    if let Err(error) = thread::Builder::new().name("journal".to_owned()).spawn(work) {
        tracing::error!(%error, "the journal's thread could not be started");
    }
}

impl Task {
    async fn run(mut self) {
        let mut gathered = Vec::with_capacity(GROUP);
        loop {
            if !self.gather(&mut gathered).await {
                self.door.shut("nobody uses the journal any more");
                return self.store.close().await;
            }
            // Where others share this thread, those just answered are about to hand in their next: let them run once, or
            // every second transaction would hold a single change. Costs nothing when nobody else is there.
            tokio::task::yield_now().await;
            self.take_along(&mut gathered);
            self.wait_for_company(&mut gathered).await;
            let Sorted { changes, waiting, chores, close } = sort(&mut gathered);
            let mut done = self.commit(changes, waiting).await;
            for chore in chores {
                if done.is_ok() {
                    done = self.chore(chore).await;
                }
            }
            if let Err(error) = done {
                tracing::error!(%error, "the journal is closed: nothing more can be made durable");
                // Never let go of: a store that closes syncs once more, and what failed must not be tried again.
                std::mem::forget(self.store.clone());
                return self.refuse_all();
            }
            if let Some(done) = close {
                self.door.shut("the engine is stopping");
                self.refuse_all();
                self.store.close().await;
                // Nobody may be waiting for the end any more.
                let _ = done.send(());
                return;
            }
        }
    }

    /// Waits for requests; no longer than the store has patience, so that there may be none. Says whether anybody may
    /// still hand in some.
    async fn gather(&mut self, gathered: &mut Vec<Request>) -> bool {
        let received = self.requests.recv_many(gathered, GROUP);
        match self.store.patience() {
            None => received.await > 0,
            // What was cut off has taken nothing.
            Some(patience) => timeout(patience, received).await.map_or(true, |received| received > 0),
        }
    }

    /// Whoever has come meanwhile.
    fn take_along(&mut self, gathered: &mut Vec<Request>) {
        while gathered.len() < GROUP
            && let Ok(request) = self.requests.try_recv()
        {
            gathered.push(request);
        }
    }

    /// Outcomes alone may wait a little.
    async fn wait_for_company(&mut self, gathered: &mut Vec<Request>) {
        if gathered.is_empty() || !gathered.iter().all(Request::may_wait) {
            return;
        }
        let before = gathered.len();
        let Some(wanted) = self.company.wanted(before) else { return };
        let until = Moment::now() + company::LONGEST;
        while gathered.len() < wanted {
            match timeout_at(until, self.requests.recv()).await {
                Ok(Some(request)) => {
                    let waits = request.may_wait();
                    gathered.push(request);
                    if !waits {
                        self.take_along(gathered);
                        return self.company.taken_along();
                    }
                }
                // Nobody is left who could come.
                Ok(None) => return,
                Err(_) => return self.company.time_over(before, gathered.len()),
            }
        }
        self.company.enough_came();
        self.take_along(gathered);
    }

    async fn commit(&mut self, changes: Vec<Change>, mut waiting: Vec<Waiting>) -> Result<(), String> {
        if !changes.is_empty() {
            let together = changes.len();
            let began = Instant::now();
            match self.store.commit(changes).await {
                Ok(committed) if committed.len() == waiting.len() => {
                    self.metrics.committed(together, began.elapsed().as_secs_f64());
                    self.keep(&committed, &mut waiting);
                    self.advance(&committed);
                    for (waiting, committed) in waiting.into_iter().zip(committed) {
                        // Whoever asked may have given up; the change is durable all the same.
                        let _ = waiting.answer.send(Ok(committed));
                    }
                }
                outcome => {
                    let reason = match outcome {
                        Ok(_) => "the store has answered for another batch".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    self.door.shut(&reason);
                    for waiting in waiting {
                        let _ = waiting.answer.send(Err(JournalError::Closed(reason.clone())));
                    }
                    return Err(reason);
                }
            }
        }
        self.store.maintain().await.map_err(|error| {
            self.door.shut(&error.to_string());
            error.to_string()
        })
    }

    async fn chore(&mut self, chore: Chore) -> Result<(), String> {
        // Whoever asked may have given up: what is done is done.
        let done = match chore {
            Chore::Prune(prune, answer) => self.store.prune(prune).await.map(|pruned| {
                let _ = answer.send(pruned);
            }),
            Chore::Reclaim(answer) => self.store.reclaim().await.map(|more| {
                let _ = answer.send(more);
            }),
        };
        done.map_err(|error| {
            self.door.shut(&error.to_string());
            error.to_string()
        })
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

    /// Tells everybody who is still waiting.
    fn refuse_all(&mut self) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Change(_, waiting) => {
                    let reason = self.door.closed.borrow().clone().unwrap_or_else(gone);
                    let _ = waiting.answer.send(Err(JournalError::Closed(reason.to_string())));
                }
                // Its end of the channel is dropped: that is the answer.
                Request::Chore(_) => {}
                Request::Close(done) => {
                    let _ = done.send(());
                }
            }
        }
    }
}

impl Door {
    /// Only the first reason counts.
    fn shut(&self, reason: &str) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason.into());
            }
            first
        });
        self.budget.close();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shut("the committer has stopped");
    }
}

struct Sorted {
    changes: Vec<Change>,
    waiting: Vec<Waiting>,
    chores: Vec<Chore>,
    close: Option<oneshot::Sender<()>>,
}

fn sort(gathered: &mut Vec<Request>) -> Sorted {
    let mut changes = Vec::with_capacity(gathered.len());
    let mut waiting = Vec::with_capacity(gathered.len());
    let mut chores = Vec::new();
    let mut close = None;
    for request in gathered.drain(..) {
        match request {
            Request::Change(change, who) => {
                changes.push(*change);
                waiting.push(who);
            }
            Request::Chore(chore) => chores.push(chore),
            Request::Close(done) => close = Some(done),
        }
    }
    Sorted { changes, waiting, chores, close }
}

fn gone() -> Arc<str> {
    "the committer has stopped".into()
}

//! The committer: decides who is made durable with whom, and where: on a thread of its own, or where it is asked.
//!
//! In:       changes, each with somebody who waits for its answer.
//! Out:      a turn (turn.rs) for all that have gathered.
//! Promise:  P1, P7. No answer before the commit. Who comes alone commits where it is, and takes waiting outcomes along
//!           (here.rs); otherwise the committer does as soon as it can. Outcomes alone wait for others, two milliseconds,
//!           four at most (company.rs). Where more is owed than the processors can map, all let others gather for some
//!           milliseconds. At most a bounded number of changes and bytes in hand.
//! Not here: the commit itself (turn.rs), what waits for it (queue.rs).

use std::{sync::Arc, thread, time::Duration};

use tokio::{
    runtime::{self, Handle, RuntimeFlavor},
    sync::{Mutex, oneshot, watch},
    time::{Instant as Moment, sleep_until, timeout},
};

use super::{
    Entry, JournalError, Tip,
    company::{self, Company},
    demand::Demand,
    here::Here,
    queue::{Came, Chore, Queue, Request, Waiting},
    recent::Recent,
    store::{Change, Committed, Prune, Pruned, Store},
    turn::Turn,
};
use crate::metrics::Metrics;

/// From one commit to the next where the processors are wanted elsewhere. Each costs the same pages, the same sync and the
/// same wake-ups, whether it holds ten changes or forty.
const PACE: Duration = Duration::from_millis(3);

/// Where the answer to a change will come.
pub(super) type Answered = oneshot::Receiver<Result<Committed, JournalError>>;

/// The way into the journal. Cheap to clone.
#[derive(Clone)]
pub(super) struct Committer(Arc<Entrance>);

/// Open as long as anybody has it.
struct Entrance {
    shared: Arc<Shared>,
    tip: watch::Receiver<Tip>,
}

struct Shared {
    queue: Queue,
    turn: Mutex<Turn>,
    demand: Demand,
    here: Here,
    patience: Option<Duration>,
    /// The runtime, where others of its threads go on while one commits.
    others: Option<Handle>,
}

/// The committer's own part.
struct Task {
    shared: Arc<Shared>,
    company: Company,
    /// When the last commit began.
    began: Moment,
}

impl Committer {
    pub(super) fn start(
        store: Arc<dyn Store>,
        tip: Tip,
        recent: Arc<Recent>,
        metrics: Arc<Metrics>,
        demand: Demand,
    ) -> Self {
        let (tip_sender, tip) = watch::channel(tip);
        let patience = store.patience();
        let turn = Mutex::new(Turn::new(store, metrics, recent, tip_sender));
        let runtime = Handle::current();
        let others = (runtime.metrics().num_workers() > 1).then_some(runtime);
        let (queue, here) = (Queue::new(), Here::default());
        let shared = Arc::new(Shared { queue, turn, demand, here, patience, others });
        run_apart(Task { shared: shared.clone(), company: Company::new(), began: Moment::now() });
        Self(Arc::new(Entrance { shared, tip }))
    }

    fn queue(&self) -> &Queue {
        &self.0.shared.queue
    }

    /// Waits until the change is durable.
    pub(super) async fn commit(&self, change: Change) -> Result<Committed, JournalError> {
        let answered = match change {
            Change::Append(_) => self.submit_alone(change, None).await?,
            // Only a lane waits for it, or it is much.
            _ => self.submit(change, None).await?,
        };
        self.answer(answered).await
    }

    /// Hands a change in and returns when it has its place in the order, with the way to its answer.
    pub(super) async fn submit(
        &self,
        change: Change,
        arrived: Option<Entry>,
    ) -> Result<Answered, JournalError> {
        let (request, answered) = self.request(change, arrived).await?;
        self.queue().push(request)?;
        Ok(answered)
    }

    /// The same for one that nothing follows before it is answered: where nobody is at it, it is durable on return. The
    /// ways to the committer and back would take as long as the disk does.
    pub(super) async fn submit_alone(
        &self,
        change: Change,
        arrived: Option<Entry>,
    ) -> Result<Answered, JournalError> {
        let (request, answered) = self.request(change, arrived).await?;
        let shared = &self.0.shared;
        let turn = if shared.can_commit_here() { shared.turn.try_lock().ok() } else { None };
        let Some(mut turn) = turn.filter(|turn| turn.is_at_hand()) else {
            self.queue().push(request)?;
            return Ok(answered);
        };
        if let Some(requests) = self.queue().push_and_take(request)? {
            let _under_way = shared.here.begin();
            turn.commit_here(requests, self.queue());
        }
        Ok(answered)
    }

    async fn request(
        &self,
        change: Change,
        arrived: Option<Entry>,
    ) -> Result<(Request, Answered), JournalError> {
        let bytes = self.queue().room(change.bytes()).await?;
        let (answer, answered) = oneshot::channel();
        Ok((Request::Change(Box::new(change), Waiting::new(answer, arrived, bytes)), answered))
    }

    /// Waits for the answer to a change that was handed in.
    pub(super) async fn answer(&self, answered: Answered) -> Result<Committed, JournalError> {
        answered.await.unwrap_or_else(|_| Err(self.queue().why_closed()))
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
        self.queue().push(Request::Chore(chore))?;
        answered.await.map_err(|_| self.queue().why_closed())
    }

    /// Lets everything that was handed in before finish, then closes the store.
    pub(super) async fn close(&self) {
        let (done, ended) = oneshot::channel();
        if self.queue().push(Request::Close(done)).is_ok() {
            // An error means that the committer has ended otherwise: closed all the same.
            let _ = ended.await;
        }
    }

    pub(super) fn tip(&self) -> watch::Receiver<Tip> {
        self.0.tip.clone()
    }

    pub(super) fn demand(&self) -> &Demand {
        &self.0.shared.demand
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queue().is_closed()
    }

    pub(super) async fn closed(&self) -> Arc<str> {
        self.queue().closed().await
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.shared.queue.leave();
    }
}

impl Shared {
    /// Whether a task may commit where it runs.
    fn can_commit_here(&self) -> bool {
        self.others.is_some() && !self.demand.is_high()
    }
}

/// On a thread of its own, which waits for nobody's turn and may wait for the disk; where all else shares one thread, there.
fn run_apart(task: Task) {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        tokio::spawn(task.run());
        return;
    }
    // Where it ends early the task is gone: the journal is closed.
    let work = || match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(own) => {
            let shared = task.shared.clone();
            own.spawn(async move {
                if let Some(others) = &shared.others {
                    shared.here.watch(others).await;
                }
            });
            own.block_on(task.run());
        }
        Err(error) => tracing::error!(%error, "the journal's thread cannot begin"),
    };
    if let Err(error) = thread::Builder::new().name("journal".to_owned()).spawn(work) {
        tracing::error!(%error, "the journal's thread could not be started");
    }
}

impl Task {
    async fn run(mut self) {
        let shared = self.shared.clone();
        while self.gather().await {
            let mut turn = shared.turn.lock().await;
            self.began = Moment::now();
            turn.work_off(shared.queue.take(), &shared.queue).await;
        }
        shared.turn.lock().await.end(&shared.queue).await;
    }

    /// Waits until something is to be done, if only to look after the store. Says whether anything ever will be.
    async fn gather(&mut self) -> bool {
        loop {
            match self.somebody().await {
                Some(true) => {}
                Some(false) => return false,
                None => return true,
            }
            // Where others share this thread, those just answered are about to hand in their next: let them run once, or
            // every second transaction would hold a single change. Costs nothing when nobody else is there.
            tokio::task::yield_now().await;
            if !self.wait_for_company().await {
                continue;
            }
            if self.shared.demand.is_high() {
                sleep_until(self.began + PACE).await;
            }
            return true;
        }
    }

    /// Waits until somebody comes, or can come no more; none where that took longer than the store has patience.
    async fn somebody(&self) -> Option<bool> {
        let any = self.shared.queue.any();
        match self.shared.patience {
            None => Some(any.await),
            Some(patience) => timeout(patience, any).await.ok(),
        }
    }

    /// Outcomes alone may wait a little. Whether those that were there are still there.
    async fn wait_for_company(&mut self) -> bool {
        let queue = &self.shared.queue;
        let Some(alone) = queue.alone() else { return true };
        let Some(wanted) = self.company.wanted(alone.outcomes) else { return true };
        let waited = timeout(company::LONGEST, queue.company(alone, wanted)).await;
        let came = waited.unwrap_or_else(|_| queue.came(alone));
        match came {
            Came::Haste | Came::Gone => self.company.taken_along(),
            Came::Enough => self.company.enough_came(),
            Came::Only(outcomes) => self.company.time_over(alone.outcomes, outcomes),
        }
        !matches!(came, Came::Gone)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Nothing happens where it is closed already. Otherwise a fault of ours has ended it.
        self.shared.queue.shut("the committer has stopped");
    }
}

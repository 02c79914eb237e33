//! What has been handed in to the journal and waits for its transaction.
//!
//! In:       requests, each with whoever waits for its answer.
//! Out:      what has gathered, in the order in which it came, to whoever has the turn to commit.
//! Promise:  P6. The bytes in hand are bounded, and with them the number. The committer is called once, when it has something
//!           to do, and not by everybody. P7. Once it is shut nothing comes in, and everybody is told why.
//! Not here: when it is emptied (committer.rs), what is done then (turn.rs).

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::{
    Entry, JournalError,
    store::{Change, Committed, Prune, Pruned},
};

/// Changes in one transaction. More would make the first of them wait without saving anything.
pub(super) const GROUP: usize = 1000;
/// Packed bytes in hand, in KiB. One that is longer than all of it takes all of it.
const BUDGET_KIB: u32 = 64 * 1024;
/// What a change takes besides its bytes: so there are 16,000 at most.
const CHANGE_KIB: usize = 4;
/// More changes come together only from several connections, or with outcomes of a backlog.
pub(super) const FEW: usize = 4;
/// So many packed bytes are written in no time.
const LITTLE_BYTES: usize = 32 * 1024;
/// The committer is at work: it will look by itself.
const NEVER: usize = usize::MAX;

pub(super) enum Request {
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

    fn bytes(&self) -> usize {
        match self {
            Self::Change(change, _) => change.bytes(),
            Self::Chore(_) | Self::Close(_) => 0,
        }
    }
}

/// What is done between two transactions, after everybody has been answered.
pub(super) enum Chore {
    Prune(Prune, oneshot::Sender<Pruned>),
    Reclaim(oneshot::Sender<bool>),
}

/// Somebody who wants to know, and the bytes that are theirs until then.
pub(super) struct Waiting {
    pub answer: oneshot::Sender<Result<Committed, JournalError>>,
    /// The message, if it is to be delivered when it is durable.
    pub arrived: Option<Entry>,
    _bytes: OwnedSemaphorePermit,
}

impl Waiting {
    pub(super) fn new(
        answer: oneshot::Sender<Result<Committed, JournalError>>,
        arrived: Option<Entry>,
        bytes: OwnedSemaphorePermit,
    ) -> Self {
        Self { answer, arrived, _bytes: bytes }
    }
}

pub(super) struct Queue {
    gathered: Mutex<Gathered>,
    called: Notify,
    budget: Arc<Semaphore>,
    closed: watch::Sender<Option<Arc<str>>>,
}

struct Gathered {
    requests: Vec<Request>,
    /// How many of them may not wait.
    urgent: usize,
    /// How often it was emptied.
    emptied: u64,
    /// The committer wants to be called when there are so many, or an urgent one.
    call_at: usize,
    /// Whether anybody can still hand something in.
    used: bool,
}

/// Outcomes that are there and nothing else.
#[derive(Clone, Copy)]
pub(super) struct Alone {
    pub outcomes: usize,
    emptied: u64,
}

/// Who came while outcomes waited.
pub(super) enum Came {
    /// As many as were wanted.
    Enough,
    /// Somebody who does not wait.
    Haste,
    /// Somebody who did not wait, and took them along.
    Gone,
    /// Too few: so many are there now.
    Only(usize),
}

impl Queue {
    pub(super) fn new() -> Self {
        let (requests, used) = (Vec::new(), true);
        Self {
            gathered: Mutex::new(Gathered { requests, urgent: 0, emptied: 0, call_at: NEVER, used }),
            called: Notify::new(),
            budget: Arc::new(Semaphore::new(BUDGET_KIB as usize)),
            closed: watch::Sender::new(None),
        }
    }

    /// Waits until so many packed bytes may be in hand.
    pub(super) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, JournalError> {
        let kib = u32::try_from(bytes / 1024 + CHANGE_KIB).unwrap_or(BUDGET_KIB).min(BUDGET_KIB);
        self.budget.clone().acquire_many_owned(kib).await.map_err(|_| self.why_closed())
    }

    /// Hands a request in; it has its place in the order then.
    pub(super) fn push(&self, request: Request) -> Result<(), JournalError> {
        let mut gathered = self.gathered.lock();
        self.take_in(&mut gathered, request)?;
        if gathered.urgent > 0 || gathered.requests.len() >= gathered.call_at {
            self.call(&mut gathered);
        }
        Ok(())
    }

    /// Hands a request in, and takes all that is there where that is little, and otherwise nothing but outcomes. For who has
    /// the turn.
    pub(super) fn push_and_take(&self, request: Request) -> Result<Option<Vec<Request>>, JournalError> {
        let mut gathered = self.gathered.lock();
        self.take_in(&mut gathered, request)?;
        let bytes: usize = gathered.requests.iter().take(FEW).map(Request::bytes).sum();
        if gathered.urgent > 1 || gathered.requests.len() > FEW || bytes > LITTLE_BYTES {
            self.call(&mut gathered);
            return Ok(None);
        }
        Ok(Some(gathered.take()))
    }

    fn take_in(&self, gathered: &mut Gathered, request: Request) -> Result<(), JournalError> {
        // It is shut before it is emptied for the last time: whoever comes in before is told then.
        if self.is_closed() {
            return Err(self.why_closed());
        }
        gathered.urgent += usize::from(!request.may_wait());
        gathered.requests.push(request);
        Ok(())
    }

    fn call(&self, gathered: &mut Gathered) {
        if gathered.call_at != NEVER {
            gathered.call_at = NEVER;
            self.called.notify_one();
        }
    }

    /// All that is there, as far as it goes into one transaction.
    pub(super) fn take(&self) -> Vec<Request> {
        self.gathered.lock().take()
    }

    /// Waits until there is something. Says whether there is, or ever will be.
    pub(super) async fn any(&self) -> bool {
        loop {
            {
                let mut gathered = self.gathered.lock();
                if !gathered.requests.is_empty() {
                    return true;
                }
                if !gathered.used || self.is_closed() {
                    return false;
                }
                gathered.call_at = 1;
            }
            self.called.notified().await;
        }
    }

    /// How many outcomes are there, where nothing else is.
    pub(super) fn alone(&self) -> Option<Alone> {
        let gathered = self.gathered.lock();
        let outcomes = gathered.requests.len();
        (outcomes > 0 && gathered.urgent == 0).then_some(Alone { outcomes, emptied: gathered.emptied })
    }

    /// Waits until so many have come to those that were there alone, or somebody who does not wait.
    pub(super) async fn company(&self, alone: Alone, wanted: usize) -> Came {
        loop {
            {
                let mut gathered = self.gathered.lock();
                match gathered.came(alone) {
                    Came::Only(outcomes) if outcomes >= wanted => return Came::Enough,
                    Came::Only(_) => gathered.call_at = wanted,
                    other => return other,
                }
            }
            self.called.notified().await;
        }
    }

    /// Who has come since these were there alone.
    pub(super) fn came(&self, alone: Alone) -> Came {
        self.gathered.lock().came(alone)
    }

    /// Nobody is left who could hand something in.
    pub(super) fn leave(&self) {
        self.gathered.lock().used = false;
        self.called.notify_one();
    }

    /// Nothing is taken in any more, and whoever still waits is told. Only the first reason counts.
    pub(super) fn shut(&self, reason: &str) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason.into());
            }
            first
        });
        self.budget.close();
        let left = std::mem::take(&mut self.gathered.lock().requests);
        self.called.notify_one();
        for request in left {
            match request {
                // Whoever asked may have given up.
                Request::Change(_, waiting) => drop(waiting.answer.send(Err(self.why_closed()))),
                // Its end of the channel is dropped: that is the answer.
                Request::Chore(_) => {}
                Request::Close(done) => drop(done.send(())),
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    pub(super) async fn closed(&self) -> Arc<str> {
        let mut closed = self.closed.subscribe();
        // The sender lives as long as this.
        let reason = closed.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(stopped)
    }

    pub(super) fn why_closed(&self) -> JournalError {
        JournalError::Closed(self.closed.borrow().clone().unwrap_or_else(stopped).to_string())
    }
}

impl Gathered {
    fn came(&self, alone: Alone) -> Came {
        match (self.emptied == alone.emptied, self.urgent) {
            (false, _) => Came::Gone,
            (true, 0) => Came::Only(self.requests.len()),
            (true, _) => Came::Haste,
        }
    }

    fn take(&mut self) -> Vec<Request> {
        self.emptied += 1;
        let rest = self.requests.split_off(self.requests.len().min(GROUP));
        self.urgent = rest.iter().filter(|request| !request.may_wait()).count();
        std::mem::replace(&mut self.requests, rest)
    }
}

/// Why the journal is closed where nobody could say more.
fn stopped() -> Arc<str> {
    "the committer has stopped".into()
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::join_all};

    use super::*;
    use crate::journal::{DeliveryId, Sequence, State, store::Record};

    type Answered = oneshot::Receiver<Result<Committed, JournalError>>;

    async fn request(queue: &Queue, change: Change) -> (Request, Answered) {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting::new(answer, None, queue.room(change.bytes()).await.unwrap());
        (Request::Change(Box::new(change), waiting), answered)
    }

    async fn outcome(queue: &Queue, number: i64) -> (Request, Answered) {
        let id = DeliveryId { sequence: Sequence(number), route: String::new(), destination: String::new() };
        let (state, at, reason) = (State::Delivered, jiff::Timestamp::UNIX_EPOCH, String::new());
        let (attempts, first_attempt, revision) = (1, None, String::new());
        let (class, output, detail) = (None, None, None);
        let record =
            Record { id, state, at, attempts, first_attempt, revision, reason, class, output, detail };
        request(queue, Change::Record(record)).await
    }

    async fn urgent(queue: &Queue) -> (Request, Answered) {
        request(queue, Change::Note("n", None, None)).await
    }

    #[tokio::test]
    async fn who_waits_for_company_is_called_by_enough_or_by_haste_or_finds_it_gone() {
        let queue = Arc::new(Queue::new());
        let company = |wanted| {
            let (queue, alone) = (queue.clone(), queue.alone().unwrap());
            tokio::spawn(async move { queue.company(alone, wanted).await })
        };
        // Only who is woken goes on.
        let yields = async || {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        queue.push(outcome(&queue, 1).await.0).unwrap();
        let alone = queue.alone().unwrap();
        let enough = company(3);
        yields().await;
        queue.push(outcome(&queue, 2).await.0).unwrap();
        yields().await;
        assert!(!enough.is_finished());
        queue.push(outcome(&queue, 3).await.0).unwrap();
        yields().await;
        assert!(matches!(enough.now_or_never(), Some(Ok(Came::Enough))));
        let haste = company(9);
        yields().await;
        queue.push(urgent(&queue).await.0).unwrap();
        yields().await;
        assert!(matches!(haste.now_or_never(), Some(Ok(Came::Haste))));
        assert_eq!(queue.take().len(), 4);
        assert!(matches!(queue.came(alone), Came::Gone));
        assert!(queue.alone().is_none());
    }

    #[tokio::test]
    async fn who_has_the_turn_takes_outcomes_along_but_nobody_else_in_haste() {
        let queue = Queue::new();
        queue.push(outcome(&queue, 1).await.0).unwrap();
        let taken = queue.push_and_take(urgent(&queue).await.0).unwrap().unwrap();
        assert_eq!(taken.iter().map(Request::may_wait).collect::<Vec<_>>(), [true, false]);
        queue.push(urgent(&queue).await.0).unwrap();
        assert!(queue.push_and_take(urgent(&queue).await.0).unwrap().is_none());
        assert_eq!(queue.take().len(), 2, "nobody is lost");
        assert!(queue.push_and_take(urgent(&queue).await.0).unwrap().is_some());
    }

    #[tokio::test]
    async fn p5_what_is_much_or_long_is_left_to_the_committer() {
        let queue = Queue::new();
        for number in 0..FEW as i64 {
            queue.push(outcome(&queue, number).await.0).unwrap();
        }
        assert!(queue.push_and_take(urgent(&queue).await.0).unwrap().is_none());
        assert_eq!(queue.take().len(), FEW + 1);
        let long = Change::Note("n", Some("x".repeat(LITTLE_BYTES + 1)), None);
        assert!(queue.push_and_take(request(&queue, long).await.0).unwrap().is_none());
        assert_eq!(queue.take().len(), 1);
    }

    #[tokio::test]
    async fn p6_so_many_are_taken_at_once_and_the_rest_keeps_its_place() {
        let queue = Queue::new();
        for number in 0..=GROUP as i64 {
            queue.push(outcome(&queue, number).await.0).unwrap();
        }
        queue.push(urgent(&queue).await.0).unwrap();
        assert_eq!(queue.take().len(), GROUP);
        assert!(queue.alone().is_none(), "one that is in haste is left");
        let rest = queue.take();
        assert_eq!(rest.iter().map(Request::may_wait).collect::<Vec<_>>(), [true, false]);
    }

    #[tokio::test]
    async fn p7_once_it_is_shut_everybody_is_told_why_and_nobody_comes_in() {
        let queue = Queue::new();
        let late = urgent(&queue).await.0;
        let (requests, answers): (Vec<_>, Vec<_>) =
            join_all([outcome(&queue, 1), outcome(&queue, 2)]).await.into_iter().unzip();
        requests.into_iter().for_each(|request| queue.push(request).unwrap());
        queue.shut("the disk is gone");
        queue.shut("another reason");
        for answered in answers {
            let refused = answered.await.unwrap().unwrap_err().to_string();
            assert!(refused.contains("the disk is gone"), "{refused}");
        }
        assert!(queue.push(late).is_err() && queue.room(1).await.is_err());
        assert!(!queue.any().await);
    }
}

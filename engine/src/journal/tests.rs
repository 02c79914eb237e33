//! The committer over stores that fail, wait or panic on purpose.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt, future::join_all};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{Semaphore, oneshot, watch},
};

use super::{
    Aged, Arrival, Audit, Count, DeliveryId, DeliveryRecord, Filter, Journal, JournalError, Page, Pending,
    Predecessors, Query, Sequence, State, Stats, Summary, Tip,
    conformance::{self, append, id, message, noise, outcome, over},
    queue::{Queue, Request, Waiting},
    sqlite::SqliteStore,
    store::{Change, Committed, Prune, Pruned, Store, StoreError, Stored, StoredDelivery},
    turn::Turn,
};

/// A SQLite store with something in the way of its commits.
pub(crate) struct Hindered {
    inner: SqliteStore,
    hindrance: Hindrance,
    commits: AtomicUsize,
    /// Of these, on the thread that asked.
    here: AtomicUsize,
    closed: AtomicUsize,
    maintained: AtomicUsize,
}

pub(crate) enum Hindrance {
    /// The n-th commit fails before anything is written.
    CommitFails(usize),
    /// The n-th commit is written, and then its sync is said to have failed.
    SyncFails(usize),
    /// The n-th call of `maintain` fails.
    MaintainFails(usize),
    /// The same, and it wants to be looked after while nothing comes.
    LostWhileQuiet(usize),
    CommitPanics(usize),
    /// No reading of what is owed ever ends; tells that one has begun. The second commit fails.
    Silent(Arc<tokio::sync::Notify>),
    /// None at all.
    Nothing,
    /// Each commit holds its thread until it is told to go on.
    Held(Mutex<mpsc::Receiver<()>>),
    /// Each commit waits for a permit.
    Gate(Arc<Semaphore>),
}

impl Hindered {
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for Hindered {
    async fn commit(&self, batch: Vec<Change>) -> Result<Vec<Committed>, StoreError> {
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        match &self.hindrance {
            Hindrance::CommitFails(n) if *n == number => Err(StoreError::new("disk I/O error")),
            Hindrance::SyncFails(n) if *n == number => {
                self.inner.commit(batch).await?;
                Err(StoreError::new("disk I/O error"))
            }
            Hindrance::CommitPanics(n) if *n == number => panic!("on purpose"),
            Hindrance::Silent(_) if number == 2 => Err(StoreError::new("disk I/O error")),
            Hindrance::Held(go_on) => {
                go_on.lock().recv().unwrap();
                self.inner.commit(batch).await
            }
            Hindrance::Gate(gate) => {
                gate.acquire().await.unwrap().forget();
                self.inner.commit(batch).await
            }
            _ => self.inner.commit(batch).await,
        }
    }

    fn is_at_hand(&self) -> bool {
        match self.hindrance {
            // Wants to be maintained after each, or waits for others.
            Hindrance::MaintainFails(_) | Hindrance::LostWhileQuiet(_) | Hindrance::Gate(_) => false,
            _ => self.inner.is_at_hand(),
        }
    }

    fn commit_here(&self, batch: Vec<Change>) -> Result<Vec<Committed>, StoreError> {
        self.here.fetch_add(1, Ordering::SeqCst);
        self.commit(batch).now_or_never().expect("nothing here waits")
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        let number = self.maintained.fetch_add(1, Ordering::SeqCst) + 1;
        match self.hindrance {
            Hindrance::MaintainFails(n) | Hindrance::LostWhileQuiet(n) if n == number => {
                Err(StoreError::new("disk I/O error"))
            }
            _ => self.inner.maintain().await,
        }
    }

    fn patience(&self) -> Option<std::time::Duration> {
        let impatient = matches!(self.hindrance, Hindrance::LostWhileQuiet(_));
        impatient.then_some(std::time::Duration::from_millis(1))
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned, StoreError> {
        self.inner.prune(prune).await
    }

    async fn reclaim(&self) -> Result<bool, StoreError> {
        self.inner.reclaim().await
    }

    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
        self.inner.close().await;
    }

    async fn aged(&self, after: Sequence, with_body: bool, limit: usize) -> Result<Vec<Aged>, StoreError> {
        self.inner.aged(after, with_body, limit).await
    }

    async fn removed(&self, sequences: &[Sequence]) -> Result<Vec<Sequence>, StoreError> {
        self.inner.removed(sequences).await
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.inner.note(name).await
    }

    async fn last(&self) -> Result<Sequence, StoreError> {
        self.inner.last().await
    }

    async fn pending(&self, to: &str, after: Sequence, limit: usize) -> Result<Vec<Pending>, StoreError> {
        if let Hindrance::Silent(began) = &self.hindrance {
            began.notify_one();
            std::future::pending::<()>().await;
        }
        self.inner.pending(to, after, limit).await
    }

    async fn messages(&self, sequences: &[Sequence], most_bytes: usize) -> Result<Vec<Stored>, StoreError> {
        self.inner.messages(sequences, most_bytes).await
    }

    async fn outputs(&self, ids: &[DeliveryId]) -> Result<Vec<StoredDelivery>, StoreError> {
        self.inner.outputs(ids).await
    }

    async fn summary(&self, sequence: Sequence) -> Result<Option<Summary>, StoreError> {
        self.inner.summary(sequence).await
    }

    async fn search(&self, q: &Query<'_>, before: Sequence, limit: usize) -> Result<Page, StoreError> {
        self.inner.search(q, before, limit).await
    }

    async fn arrivals(&self, before: Sequence, limit: usize) -> Result<Vec<Arrival>, StoreError> {
        self.inner.arrivals(before, limit).await
    }

    async fn earlier(
        &self,
        arrival: &Arrival,
        since: Timestamp,
        before: Sequence,
    ) -> Result<Predecessors, StoreError> {
        self.inner.earlier(arrival, since, before).await
    }

    async fn deliveries(&self, sequence: Sequence) -> Result<Vec<DeliveryRecord>, StoreError> {
        self.inner.deliveries(sequence).await
    }

    async fn select(&self, f: &Filter, after: Sequence, n: usize) -> Result<Vec<DeliveryRecord>, StoreError> {
        self.inner.select(f, after, n).await
    }

    async fn quarantine(&self, after: Sequence, limit: usize) -> Result<Vec<Summary>, StoreError> {
        self.inner.quarantine(after, limit).await
    }

    async fn audit(&self, limit: usize) -> Result<Vec<Audit>, StoreError> {
        self.inner.audit(limit).await
    }

    async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        self.inner.counts().await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.inner.stats().await
    }
}

pub(crate) async fn hindered(
    directory: &tempfile::TempDir,
    hindrance: Hindrance,
) -> (Journal, Arc<Hindered>) {
    let inner = SqliteStore::open(directory.path()).await.unwrap();
    let (commits, here, closed, maintained) = Default::default();
    let store = Arc::new(Hindered { inner, hindrance, commits, here, closed, maintained });
    (over(store.clone()).await, store)
}

/// Producers that go on until they are refused; the sequences that were acknowledged to them.
async fn produce_until_closed(journal: &Journal) -> Vec<Sequence> {
    let producers = (0..8).map(|producer| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                match journal.append(message(producer, &[("adt", "record")])).await {
                    Ok(sequence) => acknowledged.push(sequence),
                    Err(JournalError::Closed(reason)) => return (acknowledged, reason),
                    Err(other) => panic!("{other}"),
                }
            }
        })
    });
    let mut all = Vec::new();
    for ended in join_all(producers.collect::<Vec<_>>()).await {
        let (acknowledged, reason) = ended.unwrap();
        assert!(reason.contains("disk I/O error"), "{reason}");
        all.extend(acknowledged);
    }
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p7_after_a_failed_commit_nothing_is_acknowledged_and_nothing_is_tried_again() {
    for n in 1..=12 {
        for hindrance in [Hindrance::CommitFails(n), Hindrance::SyncFails(n), Hindrance::MaintainFails(n)] {
            let directory = tempfile::tempdir().unwrap();
            let (journal, store) = hindered(&directory, hindrance).await;
            let acknowledged = produce_until_closed(&journal).await;
            assert!(journal.is_closed());
            assert!(journal.closed().await.contains("disk I/O error"));
            let commits = store.commits.load(Ordering::SeqCst);
            assert_eq!(commits, n);
            let refused = journal.append(message(1, &[("adt", "record")])).await;
            assert!(matches!(refused, Err(JournalError::Closed(_))));
            let record = journal.record(outcome(&id(Sequence(1), "adt", "record"), State::Dead, 1)).await;
            assert!(matches!(record, Err(JournalError::Closed(_))));
            assert_eq!(store.commits.load(Ordering::SeqCst), commits, "the store was used after its error");
            store.close().await;

            let journal = over(Arc::new(SqliteStore::open(directory.path()).await.unwrap())).await;
            let kept: Vec<_> = journal
                .pending("record", Sequence(0), 100_000)
                .await
                .unwrap()
                .into_iter()
                .map(|pending| pending.id.sequence)
                .collect();
            assert!(acknowledged.iter().all(|sequence| kept.contains(sequence)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_store_that_is_lost_while_nothing_comes_closes_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, store) = hindered(&directory, Hindrance::LostWhileQuiet(5)).await;
    let closed = tokio::time::timeout(std::time::Duration::from_secs(20), journal.closed()).await;
    assert_eq!(&*closed.expect("nobody looks after it"), "disk I/O error");
    assert_eq!(store.commits.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_store_closes_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _store) = hindered(&directory, Hindrance::CommitPanics(2)).await;
    journal.append(message(1, &[("adt", "record")])).await.unwrap();
    let refused = journal.append(message(2, &[("adt", "record")])).await;
    assert!(matches!(refused, Err(JournalError::Closed(_))));
    assert_eq!(&*journal.closed().await, "the committer has stopped");
    let refused = journal.append(message(3, &[("adt", "record")])).await;
    assert!(matches!(refused, Err(JournalError::Closed(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gathers_during_a_commit_goes_into_the_next_one_and_nobody_is_answered_before() {
    let directory = tempfile::tempdir().unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let (journal, store) = hindered(&directory, Hindrance::Gate(gate.clone())).await;
    let append = |number| {
        let journal = journal.clone();
        tokio::spawn(async move { journal.append(message(number, &[("adt", "record")])).await })
    };
    let first = append(0);
    while store.commits.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // The committer is now in the store with the first; the others can only gather.
    let rest: Vec<_> = (1..500).map(append).collect();
    gate.add_permits(1);
    first.await.unwrap().unwrap();
    assert!(rest.iter().any(|waiting| !waiting.is_finished()), "answered before their commit");
    gate.add_permits(100);
    for waiting in rest {
        waiting.await.unwrap().unwrap();
    }
    let commits = store.commits.load(Ordering::SeqCst);
    assert!(commits <= 20, "{commits} commits for 500 messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_bytes_in_hand_are_bounded_and_a_message_beyond_the_bound_still_goes_through() {
    let directory = tempfile::tempdir().unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let (journal, store) = hindered(&directory, Hindrance::Gate(gate.clone())).await;
    let long: bytes::Bytes = noise(1, 70_000_000).into();
    let appends: Vec<_> = (0..3)
        .map(|number| {
            let (journal, long) = (journal.clone(), long.clone());
            tokio::spawn(async move {
                let mut message = message(number, &[("adt", "record")]);
                message.raw = long;
                journal.append(message).await
            })
        })
        .collect();
    for round in 1..=3 {
        while store.commits.load(Ordering::SeqCst) < round {
            tokio::task::yield_now().await;
        }
        let answered = appends.iter().filter(|append| append.is_finished()).count();
        assert_eq!(answered, round - 1, "each takes the whole budget: one commit each");
        gate.add_permits(1);
        while appends.iter().filter(|append| append.is_finished()).count() < round {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(journal.body(Sequence(3)).await.unwrap().unwrap(), long);
}

/// Where there are many, or the disk is slow, they are better off together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_after_many_or_after_a_slow_commit_leaves_it_to_the_committer() {
    let directory = tempfile::tempdir().unwrap();
    let (go_on, held) = mpsc::channel();
    let (journal, store) = hindered(&directory, Hindrance::Held(Mutex::new(held))).await;
    let append = |number| {
        let journal = journal.clone();
        tokio::spawn(async move { journal.append(message(number, &[("adt", "record")])).await.unwrap() })
    };
    let here = || store.here.load(Ordering::SeqCst);
    let first = append(1);
    while here() == 0 {
        std::thread::yield_now();
    }
    // The disk is slow this time, and meanwhile others come.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(2) {
        std::thread::yield_now();
    }
    let second = append(2);
    go_on.send(()).unwrap();
    go_on.send(()).unwrap();
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!((here(), store.commits()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_waits_for_a_commit_that_is_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let (go_on, held) = mpsc::channel();
    let (journal, store) = hindered(&directory, Hindrance::Held(Mutex::new(held))).await;
    let append = tokio::spawn({
        let journal = journal.clone();
        async move { journal.append(message(1, &[("adt", "record")])).await }
    });
    while store.here.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let mut close = Box::pin(journal.close());
    assert!(futures::poll!(&mut close).is_pending());
    assert_eq!(store.closed.load(Ordering::SeqCst), 0);
    go_on.send(()).unwrap();
    close.await;
    assert_eq!((append.await.unwrap().unwrap(), store.closed.load(Ordering::SeqCst)), (Sequence(1), 1));
}

/// A store that closes syncs once more, and says then that all is well.
#[tokio::test]
async fn p7_after_an_error_or_a_fault_the_store_is_not_touched_any_more() {
    for (hindrance, here) in [
        (Hindrance::CommitFails(1), true),
        (Hindrance::CommitFails(1), false),
        (Hindrance::CommitPanics(1), true),
        (Hindrance::CommitPanics(1), false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (_journal, store) = hindered(&directory, hindrance).await;
        let (queue, tip) = (Queue::new(), watch::Sender::new(Tip { last: Sequence(0), requeued: 0 }));
        let mut turn = Turn::new(store.clone(), conformance::metrics(), Arc::default(), tip);
        let (answer, answered) = oneshot::channel();
        let append = Change::Append(append(message(1, &[("adt", "record")])));
        let waiting = Waiting::new(answer, None, queue.room(1).await.unwrap());
        let requests = vec![Request::Change(Box::new(append), waiting)];
        match here {
            true => turn.commit_here(requests, &queue),
            false => turn.work_off(requests, &queue).await,
        }
        assert!(!matches!(answered.await, Ok(Ok(_))) && queue.is_closed());
        turn.work_off(Vec::new(), &queue).await;
        turn.commit_here(Vec::new(), &queue);
        turn.end(&queue).await;
        let touched = [&store.commits, &store.maintained, &store.closed].map(|n| n.load(Ordering::SeqCst));
        assert_eq!(touched, [1, 0, 0]);
    }
}

#[tokio::test]
async fn p7_whoever_asked_for_a_chore_hears_why_the_journal_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _store) = hindered(&directory, Hindrance::MaintainFails(1)).await;
    let (appended, reclaimed) =
        tokio::join!(journal.append(message(1, &[("adt", "record")])), journal.committer.reclaim());
    assert_eq!(appended.unwrap(), Sequence(1), "it is durable");
    let refused = reclaimed.unwrap_err().to_string();
    assert!(refused.contains("disk I/O error"), "{refused}");
}

#[tokio::test]
async fn where_mappings_wait_for_processors_commits_are_fewer() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _store) = hindered(&directory, Hindrance::Nothing).await;
    tokio::time::pause();
    let for_ten = async || {
        let began = tokio::time::Instant::now();
        for number in 0..10 {
            journal.append(message(number, &[("adt", "record")])).await.unwrap();
        }
        began.elapsed()
    };
    assert_eq!(for_ten().await, Duration::ZERO);
    let demand = journal.demand();
    (0..20).for_each(|_| demand.waits());
    let waited = for_ten().await;
    assert!((27..60).contains(&waited.as_millis()), "{waited:?}");
    (0..20).for_each(|_| demand.served());
    assert_eq!(for_ten().await, Duration::ZERO);
}

#[tokio::test]
async fn an_outcome_waits_two_milliseconds_for_a_message_that_takes_it_along() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, store) = hindered(&directory, Hindrance::Nothing).await;
    tokio::time::pause();
    let first = journal.append(message(1, &[("adt", "record")])).await.unwrap();
    let second = journal.append(message(2, &[("adt", "record")])).await.unwrap();
    let delivered = async |sequence| {
        let began = tokio::time::Instant::now();
        journal.record(outcome(&id(sequence, "adt", "record"), State::Delivered, 1)).await.unwrap();
        began.elapsed()
    };
    let waited = delivered(first).await;
    assert!((2..=3).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(store.commits(), 3);
    // The one that waited in vain lets the next go at once; the one after it waits again.
    let third = journal.append(message(3, &[("adt", "record")])).await.unwrap();
    assert_eq!(delivered(second).await, Duration::ZERO);
    let a_message = async {
        // The outcome is there first, and the committer waits.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(store.commits(), 5);
        journal.append(message(4, &[("adt", "record")])).await.unwrap();
    };
    let (waited, ()) = tokio::join!(delivered(third), a_message);
    assert_eq!((waited, store.commits()), (Duration::ZERO, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_alone_commits_where_it_is_and_everybody_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, store) = hindered(&directory, Hindrance::Nothing).await;
    journal.append(message(0, &[("adt", "record")])).await.unwrap();
    assert_eq!(store.here.load(Ordering::SeqCst), 1);
    let lives = (1..=4).map(|one: i64| {
        let journal = journal.clone();
        tokio::spawn(async move {
            for number in 0..100 {
                let sequence = journal.append(message(one * 1000 + number, &[("adt", "record")])).await;
                let id = id(sequence.unwrap(), "adt", "record");
                assert!(journal.record(outcome(&id, State::Delivered, 1)).await.unwrap());
            }
        })
    });
    for life in join_all(lives.collect::<Vec<_>>()).await {
        life.unwrap();
    }
    let counts = journal.counts().await.unwrap();
    assert_eq!(counts.iter().map(|count| count.deliveries).sum::<u64>(), 1, "the first is owed: {counts:?}");
    let here = store.here.load(Ordering::SeqCst);
    assert!(here < store.commits(), "outcomes alone are the committer's");
}

/// The thread that is held up may be the one that waits for the sockets of all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_disk_that_holds_a_commit_up_holds_up_no_other_socket() {
    let directory = tempfile::tempdir().unwrap();
    let (go_on, held) = mpsc::channel();
    let (journal, store) = hindered(&directory, Hindrance::Held(Mutex::new(held))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let journal = journal.clone();
            tokio::spawn(async move {
                let asked = socket.read_u8().await.unwrap();
                if asked == b'm' {
                    journal.append(message(1, &[("adt", "record")])).await.unwrap();
                }
                socket.write_u8(asked).await.unwrap();
            });
        }
    });
    let ask = |word: &[u8; 1]| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(word).unwrap();
        socket
    };
    let answer = |mut socket: TcpStream| {
        let mut answer = [0];
        socket.read_exact(&mut answer).map(|()| answer)
    };
    // All threads rest again after this, the one that waits for the sockets too.
    assert_eq!(answer(ask(b"e")).unwrap(), *b"e");
    let sender = ask(b"m");
    while store.here.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(answer(ask(b"e")).expect("nobody looks after the sockets"), *b"e");
    go_on.send(()).unwrap();
    assert_eq!(answer(sender).unwrap(), *b"m");
}

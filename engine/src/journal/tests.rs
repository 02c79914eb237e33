//! The committer over stores that fail, wait or panic on purpose.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{
    Aged, Arrival, Audit, Count, DeliveryId, DeliveryRecord, Filter, Journal, JournalError, Page, Pending,
    Predecessors, Query, Sequence, State, Stats, Summary,
    conformance::{id, message, noise, outcome, over},
    sqlite::SqliteStore,
    store::{Change, Committed, Prune, Pruned, Store, StoreError, Stored, StoredDelivery},
};

/// A SQLite store with something in the way of its commits.
pub(crate) struct Hindered {
    inner: SqliteStore,
    hindrance: Hindrance,
    commits: AtomicUsize,
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
            Hindrance::Gate(gate) => {
                gate.acquire().await.unwrap().forget();
                self.inner.commit(batch).await
            }
            _ => self.inner.commit(batch).await,
        }
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
    let (commits, maintained) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let store = Arc::new(Hindered { inner, hindrance, commits, maintained });
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

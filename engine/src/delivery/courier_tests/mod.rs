//! The courier's promises, with a real journal and a receiver that does what a test says.

mod decisions;
mod ends;
mod failures;
mod pace;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rand::Rng;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    connector::{
        DeliveryError, ErrorClass, FAILURES, GiveUp, Limit, Outbound, Payload, Policy, REFUSALS, Receipt,
        Retry,
    },
    delivery::{Pauses, Prepared, Remark, Window, Windows, lanes::Limits},
    journal::{
        Decision, DeliveryId, DeliveryRecord, Disposition, Entry, Filter, Identifiers, Keys, NewDelivery,
        NewMessage, Requeue, Sequence, State, conformance,
        sqlite::SqliteStore,
        tests::{Hindered, Hindrance, hindered},
    },
};

/// What the receiver does with a message.
#[derive(Debug, Clone, Copy)]
enum Reply {
    Take,
    Fail(ErrorClass),
    /// Answers so.
    Answer(ErrorClass),
    /// Takes it and loses the answer.
    TakeAndFail,
    /// Never answers.
    Hang {
        left: bool,
    },
    Panic,
}

use Reply::{Answer, Fail, Hang, Panic, Take, TakeAndFail};

type Decide = dyn Fn(&str, u32) -> Reply + Send + Sync;

/// A receiver: what it does depends on the message's control id and how often it has seen it.
struct Receiver {
    decide: Mutex<Arc<Decide>>,
    seen: Mutex<HashMap<String, u32>>,
    taken: watch::Sender<Vec<String>>,
    repeats: Repeats,
    /// How many it is asked for now, and the most that it ever was.
    asked: AtomicUsize,
    most: AtomicUsize,
}

impl Receiver {
    fn new(safe: bool, decide: impl Fn(&str, u32) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Self::to_which(if safe { Repeats::ChangeNothing } else { Repeats::Harm }, decide)
    }

    /// One to which repeats do this.
    fn to_which(repeats: Repeats, decide: impl Fn(&str, u32) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            decide: Mutex::new(Arc::new(decide)),
            seen: Mutex::default(),
            taken: watch::Sender::default(),
            repeats,
            asked: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    fn mend(&self) {
        *self.decide.lock().unwrap() = Arc::new(|_, _| Take);
    }

    fn take(&self, id: &str) {
        self.taken.send_modify(|taken| taken.push(id.to_owned()));
    }

    async fn taken(&self, at_least: usize) -> Vec<String> {
        let mut taken = self.taken.subscribe();
        let all = timeout(Duration::from_secs(60), taken.wait_for(|taken| taken.len() >= at_least)).await;
        let now = self.taken.borrow().clone();
        assert!(all.is_ok(), "only {} of {at_least} came: {now:?}", now.len());
        now
    }

    fn attempts(&self, id: &str) -> u32 {
        self.seen.lock().unwrap().get(id).copied().unwrap_or(0)
    }
}

/// A request, until it is answered or cut off.
struct Asked<'a>(&'a AtomicUsize);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Destination for Receiver {
    async fn deliver(&self, outbound: &Outbound) -> Result<Receipt, DeliveryError> {
        let id = String::from_utf8(outbound.payload.bytes().to_vec()).unwrap();
        let attempt = {
            let mut seen = self.seen.lock().unwrap();
            let count = seen.entry(id.clone()).or_default();
            *count += 1;
            *count
        };
        let decide = self.decide.lock().unwrap().clone();
        self.most.fetch_max(self.asked.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let _asked = Asked(&self.asked);
        match decide(&id, attempt) {
            Take => {
                // Others get their turn in between, as over a network.
                tokio::task::yield_now().await;
                self.take(&id);
                Ok(Receipt { answer: "AA".to_owned(), detail: None })
            }
            Fail(class) => Err(DeliveryError::new(class, "scripted")),
            Answer(class) => Err(DeliveryError { answered: true, ..DeliveryError::new(class, "scripted") }),
            TakeAndFail => {
                self.take(&id);
                Err(DeliveryError::new(ErrorClass::Uncertain, "scripted"))
            }
            Hang { left } => {
                if left {
                    outbound.mark_left();
                }
                std::future::pending().await
            }
            Panic => panic!("scripted"),
        }
    }

    fn repeats(&self) -> Repeats {
        self.repeats
    }
}

/// Sends the control id; a control id `a+b` as two outputs; others by their first word.
struct Mapping {
    policy: Policy,
    made: AtomicUsize,
    /// What was made up to here was made by the revision before.
    reloaded_at: AtomicUsize,
}

#[async_trait]
impl Prepare for Mapping {
    async fn prepare(&self, entry: &Entry, _: &DeliveryId) -> Prepared {
        let made = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let revision = format!("r{made}");
        let reason = "scripted".to_owned();
        match entry.control_id.split('-').next().unwrap() {
            "filtered" => Prepared::Filtered { reason, revision },
            "held" => Prepared::Held { reason, revision },
            "dead" => Prepared::Dead { reason, revision },
            "panic" => panic!("scripted"),
            "empty" => Prepared::Send { payloads: Vec::new(), revision, remarks: Vec::new() },
            _ => {
                let parts = entry.control_id.split('+');
                let payloads = parts.map(|part| Payload::Hl7(Bytes::from(part.to_owned()))).collect();
                let odd = entry.control_id.starts_with("odd").then(|| "s".repeat(9000));
                let remarks = ["one", "two"].map(str::to_owned).into_iter().chain(odd);
                let remarks = remarks.map(|text| Remark { kind: "said", text });
                let remarks = if entry.control_id.contains("odd") { remarks.collect() } else { Vec::new() };
                Prepared::Send { payloads, revision, remarks }
            }
        }
    }

    fn is_live(&self, revision: &str) -> bool {
        // One for each that is made: only a reload would make it another.
        self.reloaded_at.load(Ordering::Relaxed) < revision.trim_start_matches('r').parse().unwrap()
    }

    fn policy(&self, _: &DeliveryId) -> Policy {
        self.policy
    }
}

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

const QUICK: Retry = Retry {
    first: Duration::from_millis(1),
    max: Duration::from_millis(4),
    give_up: Duration::from_secs(3600),
    then: GiveUp::DeadLetter,
};

struct World {
    _folder: tempfile::TempDir,
    journal: Journal,
    clock: Arc<TestClock>,
    metrics: Arc<Metrics>,
    mapping: Arc<Mapping>,
    settings: Settings,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), JournalError>>,
}

impl World {
    async fn new(policy: impl Into<Policy>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap());
        let store = Arc::new(SqliteStore::open(&folder.path().join("journal")).await.unwrap());
        let journal = Journal::start(store, Identifiers::default(), metrics.clone()).await.unwrap();
        let pauses = Pauses {
            first: Duration::from_millis(5),
            longest: Duration::from_millis(20),
            held: Duration::from_millis(20),
        };
        Self {
            _folder: folder,
            journal,
            clock: Arc::new(TestClock(AtomicI64::new(1_000_000))),
            metrics,
            mapping: Arc::new(Mapping {
                policy: policy.into(),
                made: AtomicUsize::new(0),
                reloaded_at: AtomicUsize::new(0),
            }),
            settings: Settings { pauses, timeout: Duration::from_secs(30), ..Settings::default() },
        }
    }

    fn start(&self, name: &str, receiver: &Arc<Receiver>) -> Running {
        self.start_showing(name, receiver, watch::Sender::new(Standing::Closed))
    }

    fn start_showing(&self, name: &str, receiver: &Arc<Receiver>, shown: watch::Sender<Standing>) -> Running {
        let stop = CancellationToken::new();
        let courier = Courier::new(
            name,
            receiver.clone() as Arc<dyn Destination>,
            self.settings.clone(),
            self.journal.clone(),
            self.mapping.clone(),
            self.metrics.clone(),
            self.clock.clone(),
        );
        Running { task: tokio::spawn(courier.showing(shown).run(stop.clone())), stop }
    }

    /// A message of one patient, or of two by a merge, for one destination.
    async fn append(&self, destination: &str, id: &str, lanes: &[&str]) -> Sequence {
        let delivery = NewDelivery {
            route: "adt".to_owned(),
            destination: destination.to_owned(),
            lanes: lanes.iter().map(|&lane| lane.to_owned()).collect(),
        };
        let message = NewMessage {
            received: self.clock.now(),
            listener: "hospital".to_owned(),
            peer: "192.0.2.1".to_owned(),
            raw: Bytes::from(format!("MSH|^~\\&|||||||ADT^A01|{id}")),
            keys: Keys { control_id: id.to_owned(), ..Keys::default() },
            flag: None,
            disposition: Disposition::Routed(vec![delivery]),
        };
        self.journal.append(message).await.unwrap()
    }

    async fn record(&self, sequence: Sequence) -> DeliveryRecord {
        self.journal.deliveries(sequence).await.unwrap().remove(0)
    }

    /// Waits until the delivery stands so.
    async fn stands(&self, sequence: Sequence, state: State) -> DeliveryRecord {
        let wait = async {
            loop {
                let record = self.record(sequence).await;
                if record.state == state {
                    return record;
                }
                tokio::task::yield_now().await;
            }
        };
        let stood = timeout(Duration::from_secs(30), wait).await;
        match stood {
            Ok(record) => record,
            Err(_) => panic!("waited for {state:?}: {:?}", self.record(sequence).await),
        }
    }

    async fn requeue(&self, states: &[State]) -> u64 {
        self.decide(Decision::Replay, states).await
    }

    async fn decide(&self, decision: Decision, states: &[State]) -> u64 {
        let filter = Filter { states: states.to_vec(), ..Filter::default() };
        let request = Requeue {
            filter,
            limit: usize::MAX,
            dry_run: false,
            who: "a person".to_owned(),
            why: "mended".to_owned(),
            at: self.clock.now(),
        };
        self.journal.decide(decision, &request).await.unwrap().deliveries
    }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(30), self.task).await.expect("stops in time").unwrap().unwrap();
    }
}

//! The courier's promises, with a real journal and a receiver that does what a test says.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use jiff::Timestamp;
use rand::Rng;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::*;
use crate::{
    connector::{DeliveryError, ErrorClass, FAILURES, GiveUp, Limit, Outbound, REFUSALS, Receipt, Retry},
    delivery::Window,
    journal::{
        Decision, DeliveryRecord, Disposition, Filter, Identifiers, Keys, NewDelivery, NewMessage, Requeue,
        Sequence, State, conformance,
        sqlite::SqliteStore,
        tests::{Hindrance, hindered},
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
    safe: bool,
}

impl Receiver {
    fn new(safe: bool, decide: impl Fn(&str, u32) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            decide: Mutex::new(Arc::new(decide)),
            seen: Mutex::default(),
            taken: watch::Sender::default(),
            safe,
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

    fn repeats_are_safe(&self) -> bool {
        self.safe
    }
}

/// Sends the control id; a control id `a+b` as two outputs; others by their first word.
struct Mapping {
    policy: Policy,
    made: AtomicUsize,
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
            "empty" => Prepared::Send { payloads: Vec::new(), revision },
            _ => {
                let parts = entry.control_id.split('+');
                let payloads = parts.map(|part| Payload::Hl7(Bytes::from(part.to_owned()))).collect();
                Prepared::Send { payloads, revision }
            }
        }
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
            mapping: Arc::new(Mapping { policy: policy.into(), made: AtomicUsize::new(0) }),
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

#[tokio::test]
async fn every_class_of_error_comes_to_its_state() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("rejected", _) => Fail(ErrorClass::Rejected),
        ("uncertain", 1) => TakeAndFail,
        ("unavailable", 1..=3) => Fail(ErrorClass::Unavailable),
        ("misconfigured", 1..=3) => Fail(ErrorClass::Misconfigured),
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let cases = [
        ("rejected", State::Dead, 1),
        ("uncertain", State::Delivered, 2),
        ("unavailable", State::Delivered, 4),
        ("misconfigured", State::Delivered, 4),
        ("good", State::Delivered, 1),
        ("filtered-1", State::Filtered, 0),
        ("empty-1", State::Filtered, 0),
        ("held-1", State::Held, 0),
        ("dead-1", State::Dead, 0),
        ("panic-1", State::Held, 0),
    ];
    for (id, state, attempts) in cases {
        let sequence = world.append("record", id, &[id]).await;
        let record = world.stands(sequence, state).await;
        assert_eq!(record.attempts, attempts, "{id}");
        assert!(!record.reason.is_empty(), "{id}");
    }
    running.stop().await;
}

#[tokio::test]
async fn what_may_have_been_taken_is_not_repeated_where_repeats_are_not_safe() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(false, |id, _| match id {
        "lost" => TakeAndFail,
        "panic!" => Panic,
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let lost = world.append("record", "lost", &["p1"]).await;
    let behind = world.append("record", "behind", &["p1"]).await;
    let fault = world.append("record", "panic!", &["p2"]).await;
    world.stands(lost, State::Held).await;
    world.stands(fault, State::Held).await;
    world.append("record", "other", &["p3"]).await;
    assert_eq!(receiver.taken(2).await, ["lost", "other"]);
    assert_eq!(world.record(behind).await.state, State::Ready, "its lane waits for a person");
    running.stop().await;
    assert_eq!(receiver.attempts("lost"), 1);
}

/// H4: the engine dies between the first byte and the answer; a person decides, not the next start.
#[tokio::test]
async fn h4_what_was_being_sent_when_the_engine_died_waits_for_a_person() {
    for (safe, expected) in [(false, State::Held), (true, State::Delivered)] {
        let world = World::new(QUICK).await;
        let receiver =
            Receiver::new(safe, |_, attempt| if attempt == 1 { Hang { left: true } } else { Take });
        let running = world.start("record", &receiver);
        let lost = world.append("record", "lost", &["p1"]).await;
        while receiver.attempts("lost") == 0 {
            tokio::task::yield_now().await;
        }
        running.task.abort(); // as a kill: nothing is recorded any more
        assert!(running.task.await.unwrap_err().is_cancelled());

        let running = world.start("record", &receiver);
        let stood = world.stands(lost, expected).await;
        assert_eq!(receiver.attempts("lost"), if safe { 2 } else { 1 });
        if !safe {
            assert_eq!(stood.class, Some(ErrorClass::Uncertain));
            assert_eq!(stood.reason, "the engine ended while it was sent; it may have been taken");
            // A person has looked: it is not there.
            world.decide(Decision::Release, &[State::Held]).await;
            world.stands(lost, State::Delivered).await;
        }
        running.stop().await;
        assert_eq!(receiver.taken(1).await, ["lost"]);
    }
}

#[tokio::test]
async fn a_time_out_is_uncertain_only_if_something_had_left() {
    let mut world = World::new(QUICK).await;
    world.settings.timeout = Duration::from_millis(20);
    let receiver = Receiver::new(false, |id, attempt| match (id, attempt) {
        ("left", _) => Hang { left: true },
        ("not-left", 1) => Hang { left: false },
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let left = world.append("record", "left", &["p1"]).await;
    let not_left = world.append("record", "not-left", &["p2"]).await;
    assert_eq!(world.stands(left, State::Held).await.class, Some(ErrorClass::Uncertain));
    world.stands(not_left, State::Delivered).await;
    running.stop().await;
}

#[tokio::test]
async fn a_lane_that_is_parked_goes_on_in_order_when_a_person_lets_it() {
    let world = World::new(Retry { then: GiveUp::Park, ..QUICK }).await;
    let receiver = Receiver::new(true, |id, _| if id == "bad" { Fail(ErrorClass::Rejected) } else { Take });
    let running = world.start("record", &receiver);
    let bad = world.append("record", "bad", &["p1"]).await;
    world.stands(bad, State::Parked).await;
    for id in ["p1-2", "p1-3"] {
        world.append("record", id, &["p1"]).await;
    }
    world.append("record", "merge", &["p1", "p2"]).await;
    world.append("record", "p2-1", &["p2"]).await;
    world.append("record", "other", &["p3"]).await;
    assert_eq!(receiver.taken(1).await, ["other"]);
    receiver.mend();
    assert_eq!(world.requeue(&[State::Parked]).await, 1);
    assert_eq!(receiver.taken(6).await, ["other", "bad", "p1-2", "p1-3", "merge", "p2-1"]);
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_a_person_skips_while_it_is_tried_is_not_tried_again() {
    let mut world = World::new(QUICK).await;
    world.settings.timeout = Duration::from_millis(20);
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("bad", 1) => Fail(ErrorClass::Unavailable),
        ("bad", _) => Hang { left: false },
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let bad = world.append("record", "bad", &["p1"]).await;
    let behind = world.append("record", "behind", &["p1"]).await;
    while receiver.attempts("bad") < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.decide(Decision::Skip, &[State::Retrying]).await, 1);
    world.stands(behind, State::Delivered).await;
    let attempts = receiver.attempts("bad");
    world.append("record", "last", &["p1"]).await;
    receiver.taken(2).await;
    assert_eq!((world.record(bad).await.state, receiver.attempts("bad")), (State::Dead, attempts));
    running.stop().await;
}

#[tokio::test]
async fn what_is_released_is_sent_as_it_was_made_before_what_stands_behind_it() {
    let world = World::new(Retry { then: GiveUp::Park, ..QUICK }).await;
    let receiver = Receiver::new(true, |id, _| if id == "bad" { Fail(ErrorClass::Rejected) } else { Take });
    let running = world.start("record", &receiver);
    let bad = world.append("record", "bad", &["p1"]).await;
    world.stands(bad, State::Parked).await;
    world.append("record", "behind", &["p1"]).await;
    receiver.mend();
    assert_eq!(world.decide(Decision::Release, &[State::Parked]).await, 1);
    assert_eq!(receiver.taken(2).await, ["bad", "behind"]);
    assert_eq!(world.stands(bad, State::Delivered).await.revision, "r1", "made once");
    running.stop().await;
}

#[tokio::test]
async fn giving_up_is_by_age_and_never_for_a_destination_that_needs_a_person() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |id, _| match id {
        "away" => Fail(ErrorClass::Unavailable),
        _ => Fail(ErrorClass::Misconfigured),
    });
    let running = world.start("record", &receiver);
    let away = world.append("record", "away", &["p1"]).await;
    world.stands(away, State::Retrying).await;
    world.clock.0.fetch_add(3600, Ordering::Relaxed);
    world.stands(away, State::Dead).await;
    let held = world.append("record", "held!", &["p1"]).await;
    world.stands(held, State::Retrying).await;
    world.clock.0.fetch_add(1_000_000, Ordering::Relaxed);
    let before = receiver.attempts("held!");
    while receiver.attempts("held!") < before + 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.record(held).await.state, State::Retrying);
    running.stop().await;
}

#[tokio::test]
async fn what_was_made_once_is_sent_again_as_it_was_even_after_a_restart() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("two", 1..=2) => Fail(ErrorClass::Unavailable),
        ("two", _) => Hang { left: false },
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let sequence = world.append("record", "one+two+three", &["p1"]).await;
    while receiver.attempts("two") < 3 {
        tokio::task::yield_now().await;
    }
    running.task.abort();
    assert!(running.task.await.unwrap_err().is_cancelled(), "as by kill -9");
    receiver.mend();
    let running = world.start("record", &receiver);
    let record = world.stands(sequence, State::Delivered).await;
    assert_eq!(record.revision, "r1");
    assert_eq!(world.mapping.made.load(Ordering::Relaxed), 1, "mapped once");
    assert_eq!(receiver.taken(3).await, ["one", "two", "three"], "what was taken is not repeated");
    running.stop().await;
}

/// P5: one destination that hangs, one that is away: the third does not notice.
#[tokio::test]
async fn p5_a_dead_destination_does_not_block_another() {
    let world = World::new(QUICK).await;
    let [hung, away, good] = [
        Receiver::new(true, |_, _| Hang { left: true }),
        Receiver::new(true, |_, _| Fail(ErrorClass::Unavailable)),
        Receiver::new(true, |_, _| Take),
    ];
    let running = [("hung", &hung), ("away", &away), ("good", &good)].map(|(name, r)| world.start(name, r));
    for n in 0..50 {
        for name in ["hung", "away", "good"] {
            world.append(name, &format!("m{n}"), &[&format!("p{}", n % 7)]).await;
        }
    }
    good.taken(50).await;
    assert_eq!(hung.taken(0).await.len() + away.taken(0).await.len(), 0);
    let [hung, ..] = running;
    hung.task.abort();
}

/// P5, P6: 10,000 messages of a patient whom the receiver cannot store, before and among 1,000 others.
#[tokio::test]
async fn p5_one_poisoned_patient_does_not_hold_up_the_others() {
    let slow = Retry { first: Duration::from_secs(600), max: Duration::from_secs(600), ..QUICK };
    let world = World::new(slow).await;
    let receiver = Receiver::new(true, |id, _| match id.starts_with("poison") {
        true => Fail(ErrorClass::Uncertain),
        false => Take,
    });
    let ids = (0..11_000).map(|n| match n % 11 == 10 {
        true => (format!("other{n}"), format!("p{}", n % 101)),
        false => (format!("poison{n}"), "poisoned".to_owned()),
    });
    let ids: Vec<_> = ids.collect();
    for some in ids.chunks(1000) {
        let all = some.iter().map(async |(id, lane)| world.append("record", id, &[lane]).await);
        futures::future::join_all(all).await;
    }
    let running = world.start("record", &receiver);
    assert_eq!(receiver.taken(1000).await.len(), 1000);
    running.stop().await;
    assert_eq!(receiver.seen.lock().unwrap().keys().filter(|id| id.starts_with("poison")).count(), 1);
}

/// P5: one message that is always answered by 401 or 403, while the destination takes all others.
#[tokio::test]
async fn p5_one_message_that_is_always_refused_does_not_hold_its_destination() {
    let mut world = World::new(QUICK).await;
    // Whoever waited for the probe of a held destination would wait longer than this test.
    world.settings.pauses.held = Duration::from_secs(600);
    let receiver =
        Receiver::new(true, |id, _| if id == "bad" { Fail(ErrorClass::Misconfigured) } else { Take });
    let running = world.start("record", &receiver);
    let bad = world.append("record", "bad", &["p0"]).await;
    let behind = world.append("record", "behind", &["p0"]).await;
    let mut others = 0;
    while world.record(bad).await.state != State::Dead {
        others += 1;
        let other = world.append("record", &format!("o{others}"), &[&format!("p{others}")]).await;
        world.stands(other, State::Delivered).await;
    }
    assert!(receiver.attempts("bad") >= REFUSALS);
    world.stands(behind, State::Delivered).await;
    running.stop().await;
}

/// P5: one message that the receiver always fails over, while it takes all others.
#[tokio::test]
async fn p5_one_message_that_is_always_failed_over_ends_soon_and_opens_no_circuit() {
    let mut world = World::new(QUICK).await;
    // Whoever waited for a probe would wait longer than this test.
    world.settings.pauses.first = Duration::from_secs(600);
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("bad" | "worse", _) => Answer(ErrorClass::Failing),
        // Two of three that open the circuit.
        (_, 1) => Fail(ErrorClass::Unavailable),
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let bad = [world.append("record", "bad", &["p0"]).await, world.append("record", "worse", &["p1"]).await];
    let behind = world.append("record", "behind", &["p0"]).await;
    let mut others = 1;
    for bad in bad {
        while world.record(bad).await.state != State::Dead {
            others += 1;
            let other = world.append("record", &format!("o{others}"), &[&format!("p{others}")]).await;
            world.stands(other, State::Delivered).await;
        }
    }
    assert!(receiver.attempts("bad") >= FAILURES && receiver.attempts("worse") >= FAILURES);
    world.stands(behind, State::Delivered).await;
    running.stop().await;
}

#[tokio::test]
async fn a_destination_that_fails_over_all_gives_nobody_up_before_its_time() {
    let day = Duration::from_secs(24 * 3600);
    let world = World::new(Retry { give_up: day, ..QUICK }).await;
    let receiver = Receiver::new(true, |_, _| Answer(ErrorClass::Failing));
    let running = world.start("record", &receiver);
    let mut all = Vec::new();
    for n in 0..4 {
        all.push(world.append("record", &format!("m{n}"), &[&format!("p{n}")]).await);
    }
    let asked = |times: u32| (0..4).all(|n| receiver.attempts(&format!("m{n}")) >= times);
    while !asked(10) {
        tokio::task::yield_now().await;
    }
    world.clock.0.fetch_add(2 * 3600, Ordering::Relaxed);
    while !asked(30) {
        tokio::task::yield_now().await;
    }
    receiver.mend();
    receiver.taken(4).await;
    for sequence in all {
        world.stands(sequence, State::Delivered).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_is_failed_over_alone_ends_after_an_hour() {
    let world = World::new(Retry { give_up: Duration::from_secs(24 * 3600), ..QUICK }).await;
    let receiver = Receiver::new(true, |_, _| Answer(ErrorClass::Failing));
    let running = world.start("record", &receiver);
    let alone = world.append("record", "alone", &["p1"]).await;
    while receiver.attempts("alone") < 20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.record(alone).await.state, State::Retrying);
    world.clock.0.fetch_add(3600, Ordering::Relaxed);
    world.stands(alone, State::Dead).await;
    running.stop().await;
}

#[tokio::test]
async fn what_is_failed_over_is_not_repeated_where_repeats_are_not_safe() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(false, |_, _| Answer(ErrorClass::Failing));
    let running = world.start("record", &receiver);
    let sequence = world.append("record", "m1", &["p1"]).await;
    assert_eq!(world.stands(sequence, State::Dead).await.attempts, 1);
    running.stop().await;
}

/// H4: a receiver that never says which message its acknowledgements are for files each repeat.
#[tokio::test]
async fn what_is_answered_unclearly_is_asked_three_times_then_held_and_its_destination_is_not_away() {
    let mut world = World::new(QUICK).await;
    world.settings.pauses.first = Duration::from_secs(600);
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("good", _) => Take,
        ("early", 1..=9) => Fail(ErrorClass::Unavailable),
        _ => Answer(ErrorClass::Uncertain),
    });
    let shown = watch::Sender::new(Standing::Closed);
    let running = world.start_showing("record", &receiver, shown.clone());
    for n in 0..5 {
        let sequence = world.append("record", &format!("m{n}"), &[&format!("p{n}")]).await;
        let record = world.stands(sequence, State::Held).await;
        assert_eq!((record.attempts, record.class), (3, Some(ErrorClass::Uncertain)));
    }
    let early = world.append("record", "early", &["p9"]).await;
    assert_eq!(world.stands(early, State::Held).await.attempts, 12, "what nobody answered does not count");
    let good = world.append("record", "good", &["p10"]).await;
    world.stands(good, State::Delivered).await;
    assert_eq!(*shown.borrow(), Standing::Closed);
    running.stop().await;
}

#[tokio::test]
async fn a_destination_that_refuses_all_gives_nobody_up() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |_, _| Fail(ErrorClass::Misconfigured));
    let running = world.start("record", &receiver);
    let mut all = Vec::new();
    for n in 0..10 {
        all.push(world.append("record", &format!("m{n}"), &[&format!("p{n}")]).await);
    }
    let probes = || receiver.seen.lock().unwrap().values().sum::<u32>();
    while probes() < 40 {
        tokio::task::yield_now().await;
    }
    receiver.mend();
    receiver.taken(10).await;
    for sequence in all {
        world.stands(sequence, State::Delivered).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_rejected_can_be_tried_again_and_then_parked() {
    let rejected = Limit { attempts: 3, age: Duration::MAX, then: GiveUp::Park };
    let world = World::new(Policy { rejected, unmapped: GiveUp::Park, ..QUICK.into() }).await;
    let receiver = Receiver::new(true, |id, attempt| match (id, attempt) {
        ("bad", _) | ("locked", 1..=2) => Fail(ErrorClass::Rejected),
        _ => Take,
    });
    let running = world.start("record", &receiver);
    let cases = [("bad", State::Parked, 3), ("locked", State::Delivered, 3), ("dead-1", State::Parked, 0)];
    for (id, state, attempts) in cases {
        let sequence = world.append("record", id, &[id]).await;
        assert_eq!(world.stands(sequence, state).await.attempts, attempts, "{id}");
    }
    running.stop().await;
}

#[tokio::test]
async fn in_a_maintenance_window_everything_waits_quietly_and_goes_on_in_order() {
    let mut world = World::new(QUICK).await;
    // The clock of the test stands at 13:46:40 of a Monday.
    let window = Window::new(vec![jiff::civil::Weekday::Monday], "13:00", "14:00").unwrap();
    world.settings.windows = Some(Windows::new(jiff::tz::TimeZone::UTC, vec![window]));
    let receiver = Receiver::new(true, |_, _| Take);
    let shown = watch::Sender::new(Standing::Closed);
    let running = world.start_showing("record", &receiver, shown.clone());
    let first = world.append("record", "first", &["p1"]).await;
    shown.subscribe().wait_for(|standing| *standing == Standing::Maintenance).await.unwrap();
    world.append("record", "second", &["p1"]).await;
    assert_eq!((world.record(first).await.state, receiver.attempts("first")), (State::Ready, 0));
    world.clock.0.fetch_add(3600, Ordering::Relaxed);
    world.append("record", "third", &["p1"]).await;
    assert_eq!(receiver.taken(3).await, ["first", "second", "third"]);
    shown.subscribe().wait_for(|standing| *standing == Standing::Closed).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_destination_that_is_paused_is_given_nothing() {
    let mut world = World::new(QUICK).await;
    world.settings.paused = true;
    let receiver = Receiver::new(true, |_, _| Take);
    let shown = watch::Sender::new(Standing::Closed);
    let running = world.start_showing("record", &receiver, shown.clone());
    let sequence = world.append("record", "first", &["p1"]).await;
    shown.subscribe().wait_for(|standing| *standing == Standing::Paused).await.unwrap();
    running.stop().await;
    assert_eq!((world.record(sequence).await.state, receiver.attempts("first")), (State::Ready, 0));
    world.settings.paused = false;
    let running = world.start("record", &receiver);
    receiver.taken(1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_rate_is_kept_and_what_is_filtered_costs_nothing_of_it() {
    let mut world = World::new(QUICK).await;
    world.settings.rate = Some("50/s".parse().unwrap());
    let receiver = Receiver::new(true, |_, _| Take);
    for n in 0..200 {
        world.append("record", &format!("filtered-{n}"), &[&format!("f{n}")]).await;
    }
    for n in 0..20 {
        world.append("record", &format!("m{n}+x{n}"), &[&format!("p{n}")]).await;
    }
    let began = Instant::now();
    let running = world.start("record", &receiver);
    receiver.taken(40).await;
    // Forty requests, of which a tenth of a second's worth may go at once, and the last two are paid afterwards.
    let took = began.elapsed();
    assert!((Duration::from_millis(600)..Duration::from_secs(20)).contains(&took), "{took:?}");
    running.stop().await;
}

/// After an outage the backlog does not fall upon the receiver at once, and while it lasts nobody storms.
#[tokio::test]
async fn a_dead_destination_is_probed_and_not_stormed() {
    let mut world = World::new(QUICK).await;
    world.settings.pauses = Pauses {
        first: Duration::from_millis(50),
        longest: Duration::from_secs(60),
        held: Duration::from_secs(60),
    };
    let receiver = Receiver::new(true, |_, _| Fail(ErrorClass::Unavailable));
    for n in 0..300 {
        world.append("record", &format!("m{n}"), &[&format!("p{n}")]).await;
    }
    let running = world.start("record", &receiver);
    let attempts = || receiver.seen.lock().unwrap().values().sum::<u32>();
    let began = Instant::now();
    while attempts() < 12 {
        tokio::task::yield_now().await;
    }
    // Eight were under way when it opened; then one each after 50, 100, 200 and 400 ms, though each of the three
    // hundred would be due again after some milliseconds.
    assert!(began.elapsed() > Duration::from_millis(700), "{:?}", began.elapsed());
    receiver.mend();
    receiver.taken(300).await;
    running.stop().await;
}

/// P10: a hung delivery does not keep the engine from stopping, and is done again later.
#[tokio::test]
async fn p10_a_stop_waits_for_no_hung_delivery() {
    let mut world = World::new(QUICK).await;
    world.settings.grace = Duration::from_millis(20);
    let receiver = Receiver::new(true, |id, _| if id == "hung" { Hang { left: true } } else { Take });
    let running = world.start("record", &receiver);
    let sequence = world.append("record", "hung", &["p1"]).await;
    while receiver.attempts("hung") == 0 {
        tokio::task::yield_now().await;
    }
    running.stop().await;
    assert_eq!(world.record(sequence).await.state, State::Ready);
    receiver.mend();
    let running = world.start("record", &receiver);
    assert_eq!(receiver.taken(1).await, ["hung"]);
    running.stop().await;
}

#[tokio::test]
async fn p10_what_may_have_left_at_a_stop_is_held_where_repeats_are_not_safe() {
    let mut world = World::new(QUICK).await;
    world.settings.grace = Duration::from_millis(20);
    let receiver = Receiver::new(false, |_, _| Hang { left: true });
    let running = world.start("record", &receiver);
    let sequence = world.append("record", "hung", &["p1"]).await;
    while receiver.attempts("hung") == 0 {
        tokio::task::yield_now().await;
    }
    running.stop().await;
    assert_eq!(world.record(sequence).await.state, State::Held);
}

#[tokio::test]
async fn the_courier_ends_when_the_journal_can_record_nothing() {
    let world = World::new(QUICK).await;
    let receiver = Receiver::new(true, |_, _| Take);
    let running = world.start("record", &receiver);
    world.journal.close().await;
    let ended = timeout(Duration::from_secs(30), running.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(JournalError::Closed(_))), "{ended:?}");
}

/// P2, P4: whatever fails and however often the engine is killed, each patient's messages arrive in order and none
/// is missing. What is repeated is the last one of its patient, never an earlier one.
#[tokio::test]
async fn p4_the_order_of_each_patient_survives_failures_and_restarts() {
    // Refused at random now and then, but never at fault.
    let refused = Policy::from(QUICK).misconfigured;
    let policy = Policy { misconfigured: Limit { attempts: u32::MAX, ..refused }, ..QUICK.into() };
    for seed in 0..12 {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut world = World::new(policy).await;
        world.settings.timeout = Duration::from_millis(20);
        world.settings.grace = Duration::from_millis(5);
        world.settings.concurrency = chance.random_range(1..9);
        world.settings.limits = Limits {
            window: chance.random_range(4..40),
            per_lane: chance.random_range(1..6),
            page: chance.random_range(2..20),
            waiting: 1000,
            lanes: 1000,
        };
        let moods = Mutex::new(StdRng::seed_from_u64(seed + 1000));
        let receiver = Receiver::new(true, move |_, _| match moods.lock().unwrap().random_range(0..20) {
            0..3 => Fail(ErrorClass::Unavailable),
            3..5 => TakeAndFail,
            5 => Fail(ErrorClass::Misconfigured),
            6 => Hang { left: true },
            7 => Hang { left: false },
            _ => Take,
        });
        let mut running = world.start("record", &receiver);
        let mut lanes: HashMap<String, Vec<String>> = HashMap::new();
        for n in 0..150 {
            let mut own: Vec<String> = vec![format!("p{}", chance.random_range(0..8))];
            if chance.random_range(0..10) == 0 {
                own.push(format!("p{}", chance.random_range(0..8)));
                own.dedup();
            }
            let id = format!("m{n}");
            world.append("record", &id, &own.iter().map(String::as_str).collect::<Vec<_>>()).await;
            own.into_iter().for_each(|lane| lanes.entry(lane).or_default().push(id.clone()));
            if chance.random_range(0..15) == 0 {
                if chance.random() {
                    running.stop().await;
                } else {
                    running.task.abort();
                    let _ = running.task.await;
                }
                running = world.start("record", &receiver);
            }
        }
        // Repeats make the number of takings open: wait for the last message of every lane.
        let last: HashSet<&String> = lanes.values().filter_map(|ids| ids.last()).collect();
        let mut taken = receiver.taken.subscribe();
        let all = taken.wait_for(|taken| last.iter().all(|id| taken.contains(*id)));
        timeout(Duration::from_secs(60), all).await.expect("all arrive").unwrap();
        running.stop().await;
        let taken = receiver.taken.borrow().clone();
        for (lane, ids) in lanes {
            let mut arrived: Vec<&String> = taken.iter().filter(|id| ids.contains(id)).collect();
            arrived.dedup();
            assert_eq!(arrived, ids.iter().collect::<Vec<_>>(), "seed {seed}, lane {lane}");
        }
    }
}

#[tokio::test]
async fn p10_a_courier_finishes_no_reading_when_the_journal_closes_or_it_is_to_stop() {
    for closes in [true, false] {
        let (directory, began) = (tempfile::tempdir().unwrap(), Arc::new(tokio::sync::Notify::new()));
        let (journal, _) = hindered(&directory, Hindrance::Silent(began.clone())).await;
        let world = World { journal: journal.clone(), ..World::new(QUICK).await };
        world.append("record", "a", &["one"]).await;
        let running = world.start("record", &Receiver::new(true, |_, _| Take));
        began.notified().await;
        match closes {
            true => assert!(journal.append(conformance::message(2, &[("adt", "record")])).await.is_err()),
            false => running.stop.cancel(),
        }
        let ended = timeout(Duration::from_secs(20), running.task).await.expect("it waits for its reading");
        assert_eq!(ended.unwrap().is_err(), closes);
    }
}

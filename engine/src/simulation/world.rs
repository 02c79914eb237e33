//! Everything outside the engine, which a crash does not touch: the disk, the senders' and receivers' memories, time,
//! and the list of what happened.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    dice::Dice,
    disk::Disk,
    feeds::Variant,
    letters::Letter,
    receivers::Receiver,
    senders::{self, Sender},
    stage::Stage,
};
use crate::{
    clock::Clock,
    journal::{DeliveryId, Sequence},
};

pub struct World {
    pub seed: u64,
    pub stage: Stage,
    pub disk: Arc<Mutex<Disk>>,
    pub facts: Mutex<Facts>,
}

/// What is known outside the engine.
pub struct Facts {
    pub letters: BTreeMap<usize, Letter>,
    pub senders: Vec<Sender>,
    pub receivers: BTreeMap<&'static str, Receiver>,
    /// This destination never fails, whatever happens to the others.
    pub steady: Option<&'static str>,
    /// No fault of any kind from here on.
    pub calm: bool,
    /// The configurations that were live, the last one now.
    pub live: Vec<Variant>,
    /// When each message was committed, in virtual time.
    pub committed: BTreeMap<Sequence, Duration>,
    /// How many configurations had been live when each letter was sent for the first time.
    pub first_sent: BTreeMap<usize, usize>,
    /// The configurations that may have decided who is owed a message: those from its first sending to its commit.
    pub decided_by: BTreeMap<Sequence, Vec<Variant>>,
    /// Which letter a message is.
    pub letter_of: BTreeMap<Sequence, usize>,
    /// Deliveries that a person put back after their end: they come late on purpose.
    pub put_back: BTreeSet<DeliveryId>,
    /// Deliveries that a person sent on or put back, wherever they stood: they may come again.
    pub sent_on: BTreeSet<DeliveryId>,
    /// Deliveries that a person skipped.
    pub skipped: BTreeSet<DeliveryId>,
    /// Deliveries that waited for a person at some time.
    pub stuck: BTreeSet<DeliveryId>,
    /// Deliveries that took longer than they should where nothing was in the way.
    pub late: BTreeSet<DeliveryId>,
    /// The last start, stop, reload or failure of the journal, in virtual time: what takes longer for it is excused.
    pub disturbed: Duration,
    pub trace: Vec<String>,
    /// The first promise that was not kept.
    pub broken: Option<String>,
    times: HashMap<String, u64>,
    started: Option<Instant>,
    before: Duration,
    clock_seconds: i64,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        let mut dice = Dice::new(seed, "world", 0);
        let steady = dice.in_thousand(600).then(|| *dice.pick(&super::feeds::DESTINATIONS));
        let senders = senders::all(&mut dice);
        let letters = senders.iter().flat_map(|sender| &sender.letters);
        let letters = letters.map(|letter| (letter.number, letter.clone())).collect();
        let receivers = super::feeds::DESTINATIONS.map(|name| (name, Receiver::default())).into();
        let facts = Facts {
            letters,
            senders,
            receivers,
            steady,
            calm: false,
            live: vec![Variant::Home],
            committed: BTreeMap::new(),
            first_sent: BTreeMap::new(),
            decided_by: BTreeMap::new(),
            letter_of: BTreeMap::new(),
            put_back: BTreeSet::new(),
            sent_on: BTreeSet::new(),
            skipped: BTreeSet::new(),
            stuck: BTreeSet::new(),
            late: BTreeSet::new(),
            disturbed: Duration::ZERO,
            trace: Vec::new(),
            broken: None,
            times: HashMap::new(),
            started: None,
            before: Duration::ZERO,
            clock_seconds: 0,
        };
        let world = Self { seed, stage: Stage::default(), disk: Arc::default(), facts: Mutex::new(facts) };
        let world = Arc::new(world);
        CURRENT.with(|current| *current.borrow_mut() = Some(world.clone()));
        world
    }

    /// The world of this thread: connectors are built by plain functions and find it here.
    pub fn current() -> Arc<Self> {
        CURRENT.with(|current| current.borrow().clone()).expect("a world was made on this thread")
    }

    /// The dice for a thing, other ones each time.
    pub fn dice(&self, of: &str) -> Dice {
        let mut facts = self.facts.lock();
        let time = facts.times.entry(of.to_owned()).or_default();
        *time += 1;
        Dice::new(self.seed, of, *time)
    }

    /// Whether a fault happens now, so many times in a thousand; never once it is calm.
    pub fn fails(&self, what: &str, in_thousand: u64) -> bool {
        !self.facts.lock().calm && self.dice(what).in_thousand(in_thousand)
    }

    pub async fn turn(&self, what: String) {
        self.stage.turn(what, Duration::ZERO).await;
    }

    /// An incarnation of the engine begins; called in its runtime.
    pub fn begin(&self) {
        let mut facts = self.facts.lock();
        facts.started = Some(Instant::now());
        facts.disturbed = facts.elapsed();
    }

    /// It has ended, however.
    pub fn end(&self, pause: Duration) {
        self.stage.clear();
        let mut facts = self.facts.lock();
        facts.before = facts.elapsed() + pause;
        facts.started = None;
        for receiver in facts.receivers.values_mut() {
            receiver.in_flight.clear();
            receiver.attempts.clear();
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.facts.lock().elapsed()
    }

    /// What takes longer from here on is excused anew.
    pub fn disturb(&self) {
        let mut facts = self.facts.lock();
        facts.disturbed = facts.elapsed();
    }

    pub fn tell(&self, what: impl Into<String>) {
        self.facts.lock().tell(what);
    }

    pub fn broken(&self, what: impl Into<String>) {
        self.facts.lock().broken(what);
    }

    pub fn jump(&self, seconds: i64) {
        self.facts.lock().clock_seconds += seconds;
    }
}

impl Facts {
    pub fn elapsed(&self) -> Duration {
        self.before + self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    pub fn tell(&mut self, what: impl Into<String>) {
        let line = format!("{:>9.3} {}", self.elapsed().as_secs_f64(), what.into());
        self.trace.push(line);
    }

    /// A promise was not kept.
    pub fn broken(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.tell(format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    pub fn now(&self) -> Variant {
        *self.live.last().expect("something is live from the beginning")
    }
}

/// The wall clock of the simulated machine: it jumps.
pub struct WallClock(pub Arc<World>);

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let facts = self.0.facts.lock();
        let seconds = 1_800_000_000 + facts.clock_seconds;
        let elapsed = jiff::SignedDuration::try_from(facts.elapsed()).unwrap();
        Timestamp::from_second(seconds).unwrap() + elapsed
    }
}

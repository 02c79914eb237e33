//! Lanes: which of the unfinished deliveries of one destination may run now.
//!
//! In:       rows of the journal's pending table, in pages, in order of sequence; what became of each attempt.
//! Out:      the next delivery that may run; where in the journal to read next.
//! Promise:  P4: a delivery runs when it is first in all its lanes and none of them has another in flight.
//!           A merge stands in two lanes; since every lane is in order of sequence, two merges cannot wait for
//!           each other. P5, P6: memory is bounded, and no lane's backlog keeps another lane out: a lane has at
//!           most [`Limits::per_lane`] deliveries here, one that waits for its next attempt only its first, and one
//!           that waits for a person none.
//! Not here: reading the journal, time, sending (courier). Pure.
//!
//! What is here is a window on the journal. The invariant is that in every lane the window holds a prefix of
//! what is pending: nothing below `Lane::beyond` is missing. A row that does not fit is passed over, and closes
//! all its lanes from itself on; they are read again from there once there is room (a lane is then *hungry*).
//! The lowest delivery that does not wait is therefore always runnable or running, so the window cannot jam.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

pub use super::limits::Limits;
use crate::journal::{Pending, Sequence, State};

/// A delivery to this destination: the message's place and the route's name.
pub type Key = (Sequence, Arc<str>);

/// The window on the unfinished deliveries of one destination.
#[derive(Debug)]
pub struct Lanes {
    limits: Limits,
    slots: BTreeMap<Key, Slot>,
    lanes: HashMap<Arc<str>, Lane>,
    /// First in all their lanes, nothing of those lanes in flight, not waiting.
    runnable: BTreeSet<Key>,
    /// When what waits for its next attempt is due.
    due: BTreeSet<(Duration, Key)>,
    /// Pauses of deliveries that left the window before they were due.
    pauses: HashMap<Key, Duration>,
    /// Closed lanes that have room again.
    hungry: HashSet<Arc<str>>,
    /// All rows up to here have been offered.
    seen: Sequence,
    waiting: usize,
}

#[derive(Debug)]
struct Slot {
    lanes: Vec<Arc<str>>,
    pending: Pending,
    phase: Phase,
    /// A person has decided something since it began to run: when it ends, only the journal knows where it stands.
    doubtful: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Running,
    Pausing(Duration),
}

#[derive(Debug, Default)]
struct Lane {
    queue: BTreeSet<Key>,
    running: bool,
    /// From here on, rows of this lane may be in the journal that are not in the window.
    beyond: Option<Key>,
}

impl Lanes {
    /// An empty window: everything is still to be read.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: BTreeMap::new(),
            lanes: HashMap::new(),
            runnable: BTreeSet::new(),
            due: BTreeSet::new(),
            pauses: HashMap::new(),
            hungry: HashSet::new(),
            seen: Sequence(0),
            waiting: 0,
        }
    }

    /// After which sequence to read the next page, if there is anything to gain; `tip` is the journal's last.
    pub fn read_after(&self, tip: Sequence) -> Option<Sequence> {
        // Room for a good part of a page, so that a full window is not topped up row by row.
        let worth = self.limits.page.min(self.limits.window / 4).max(1);
        if self.active() + worth > self.limits.window || self.waiting >= self.limits.waiting || self.is_full()
        {
            return None;
        }
        let hungry = self.hungry.iter().filter_map(|name| self.lanes.get(name)?.beyond.as_ref());
        let refill = hungry.map(|key| Sequence(key.0.0 - 1)).min();
        let forward = (self.seen < tip).then_some(self.seen);
        refill.into_iter().chain(forward).min()
    }

    /// Takes a page in, read from where `read_after` said. `end` is the tip as it was before the reading, if the
    /// page was not full and so reached it. `now` is the time since the courier began.
    pub fn take_page(&mut self, rows: Vec<Pending>, end: Option<Sequence>, now: Duration) {
        let mut open: HashSet<Arc<str>> = self.hungry.clone();
        let last = rows.last().map(|row| row.id.sequence);
        let mut stopped = None;
        for row in rows {
            let sequence = row.id.sequence;
            if !self.offer(row, &mut open, now) {
                stopped = Some(sequence);
                break;
            }
        }
        match (stopped, end) {
            (None, Some(tip)) => {
                self.seen = self.seen.max(tip).max(last.unwrap_or_default());
                for name in open {
                    self.hungry.remove(&name);
                    self.reopen(&name, None);
                }
            }
            // What is at and after this row is still to be read; a sequence may have several rows.
            (stopped, _) => {
                let Some(from) = stopped.or(last) else { return };
                self.seen = self.seen.max(Sequence(from.0 - 1));
                let from: Key = (from, Arc::from(""));
                for name in open {
                    self.reopen(&name, Some(&from));
                }
            }
        }
    }

    /// The next delivery that may run, lowest first.
    pub fn next(&self) -> Option<Key> {
        self.runnable.first().cloned()
    }

    /// The next delivery that may run and may be a probe, rather one that has never failed.
    pub fn probe(&self, may: impl Fn(&Key) -> bool) -> Option<Key> {
        let never_failed = |key: &&Key| self.slots.get(*key).is_some_and(|slot| slot.pending.attempts == 0);
        let mut fresh = self.runnable.iter().filter(|key| may(key));
        fresh.find(never_failed).or_else(|| self.runnable.iter().find(|key| may(key))).cloned()
    }

    /// What is known of a delivery in the window.
    pub fn pending(&self, key: &Key) -> Option<&Pending> {
        Some(&self.slots.get(key)?.pending)
    }

    /// Marks a delivery as in flight and says what is known of it.
    pub fn start(&mut self, key: &Key) -> Option<&Pending> {
        if !self.runnable.remove(key) {
            return None;
        }
        let slot = self.slots.get_mut(key)?;
        slot.phase = Phase::Running;
        for name in &slot.lanes {
            if let Some(lane) = self.lanes.get_mut(name) {
                lane.running = true;
            }
        }
        Some(&slot.pending)
    }

    /// A delivery that was started does not run after all: it is as if it had not been started.
    pub fn put_back(&mut self, key: &Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.doubtful {
            return self.read_again(key);
        }
        slot.phase = Phase::Ready;
        let names = slot.lanes.clone();
        for name in &names {
            self.update_lane(name, |lane| lane.running = false);
        }
        // What was put back by a person meanwhile may stand before it.
        self.refresh_firsts(&names);
    }

    /// A delivery in flight has ended: its lanes go on.
    pub fn finish(&mut self, key: &Key) {
        self.pauses.remove(key);
        match self.slots.get(key).is_some_and(|slot| slot.doubtful) {
            true => self.read_again(key),
            false => self.leave(key, true),
        }
    }

    /// A delivery in flight has failed and is to be tried again at `due`: only its lanes wait.
    pub fn pause(&mut self, key: &Key, due: Duration, attempts: u32, first: Option<jiff::Timestamp>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.doubtful {
            self.pauses.insert(key.clone(), due);
            return self.read_again(key);
        }
        slot.phase = Phase::Pausing(due);
        slot.pending.attempts = attempts;
        slot.pending.first_attempt = first;
        slot.pending.state = State::Retrying;
        let names = slot.lanes.clone();
        self.waiting += 1;
        self.due.insert((due, key.clone()));
        for name in &names {
            self.update_lane(name, |lane| lane.running = false);
        }
        self.shrink(key);
        // What was put back meanwhile may stand before it, and has waited for it to end.
        self.refresh_firsts(&names);
    }

    /// A delivery in flight waits for a person now, and its lanes with it: they stay closed until a decision.
    pub fn stick(&mut self, key: &Key) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.doubtful {
            return self.read_again(key);
        }
        let names = slot.lanes.clone();
        self.shrink(key);
        self.leave(key, false);
        self.refresh_firsts(&names);
    }

    /// Lets what is due by `now` run again.
    pub fn wake(&mut self, now: Duration) {
        while let Some((due, _)) = self.due.first() {
            if *due > now {
                return;
            }
            let Some((_, key)) = self.due.pop_first() else { return };
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.phase = Phase::Ready;
                self.waiting -= 1;
            }
            self.refresh(&key);
        }
    }

    /// When `wake` has something to do next.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Forgets all but what is in flight, to be read again from the beginning: after a person has put deliveries
    /// back, or released or discarded some, the window may be wrong about any of them.
    pub fn forget(&mut self, now: Duration) {
        self.pauses.retain(|_, due| *due > now);
        self.pauses.extend(self.due.iter().map(|(due, key)| (key.clone(), *due)));
        self.due.clear();
        self.runnable.clear();
        self.hungry.clear();
        self.waiting = 0;
        self.seen = Sequence(0);
        self.slots.retain(|_, slot| slot.phase == Phase::Running);
        self.slots.values_mut().for_each(|slot| slot.doubtful = true);
        let slots = &self.slots;
        self.lanes.retain(|_, lane| {
            lane.queue.retain(|key| slots.contains_key(key));
            lane.beyond = None;
            !lane.queue.is_empty()
        });
    }

    /// How many deliveries are in the window; those that wait are counted.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether so many lanes wait for a person that no more can be read.
    pub fn is_full(&self) -> bool {
        self.lanes.len() >= self.limits.lanes
    }

    /// Whether the window is empty.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All rows of this lane below `from` have been offered; below the end of the journal, without one.
    fn reopen(&mut self, name: &Arc<str>, from: Option<&Key>) {
        self.update_lane(name, |lane| {
            if from.is_none_or(|from| lane.beyond.as_ref().is_some_and(|beyond| beyond < from)) {
                lane.beyond = from.cloned();
            }
        });
        if let Some(first) = self.lanes.get(name).and_then(|lane| lane.queue.first()).cloned() {
            self.refresh(&first);
        }
    }

    fn active(&self) -> usize {
        self.slots.len() - self.waiting
    }

    /// Returns false if there was no room, so that the row and all after it must be read again.
    fn offer(&mut self, row: Pending, open: &mut HashSet<Arc<str>>, now: Duration) -> bool {
        let key: Key = (row.id.sequence, Arc::from(row.id.route.as_str()));
        if self.slots.contains_key(&key) {
            return true;
        }
        let stuck = matches!(row.state, State::Parked | State::Held);
        let has_room = self.active() < self.limits.window && self.waiting < self.limits.waiting;
        if !(stuck || has_room) || self.is_full() {
            return false;
        }
        let names: Vec<Arc<str>> = row.lanes.iter().map(|name| self.intern(name)).collect();
        if !stuck && names.iter().all(|name| self.has_place(name, &key, open.contains(name))) {
            for name in &names {
                let Some(lane) = self.lanes.get_mut(name) else { continue };
                if lane.beyond.as_ref().is_some_and(|beyond| *beyond <= key) {
                    lane.beyond = Some((key.0, Arc::from(format!("{}\0", key.1))));
                    self.hungry.insert(name.clone());
                    open.insert(name.clone());
                }
            }
            self.admit(key, names, row, now);
        } else {
            for name in &names {
                let was_open = open.remove(name);
                if was_open {
                    self.hungry.remove(name);
                }
                let lane = self.lanes.entry(name.clone()).or_default();
                lane.beyond = match lane.beyond.take() {
                    Some(beyond) if !was_open && beyond < key => Some(beyond),
                    _ => Some(key.clone()),
                };
            }
            // Up to this row their lanes are known again.
            self.refresh_firsts(&names);
        }
        true
    }

    fn has_place(&self, name: &str, key: &Key, open: bool) -> bool {
        let Some(lane) = self.lanes.get(name) else { return true };
        let reached = open || lane.beyond.as_ref().is_none_or(|beyond| beyond >= key);
        reached && lane.queue.len() < self.limits.per_lane && !self.waits_before(lane, key)
    }

    /// Whether the first of the lane waits and the row stands behind it, so that there is no use in knowing it. What was
    /// put back may stand before it, and is to run.
    fn waits_before(&self, lane: &Lane, key: &Key) -> bool {
        lane.queue.first().is_some_and(|first| first < key) && self.waits(lane)
    }

    /// Whether the first of the lane waits, so that there is no use in knowing what stands behind it.
    fn waits(&self, lane: &Lane) -> bool {
        let first = lane.queue.first().and_then(|key| self.slots.get(key));
        first.is_some_and(|slot| matches!(slot.phase, Phase::Pausing(_)))
    }

    fn intern(&self, name: &str) -> Arc<str> {
        self.lanes.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| name.clone())
    }

    fn admit(&mut self, key: Key, lanes: Vec<Arc<str>>, pending: Pending, now: Duration) {
        let paused = self.pauses.remove(&key).filter(|due| *due > now);
        let phase = match (pending.state, paused) {
            (State::Retrying, Some(due)) => Phase::Pausing(due),
            _ => Phase::Ready,
        };
        let mut pushed_back = Vec::new();
        for name in &lanes {
            let lane = self.lanes.entry(name.clone()).or_default();
            pushed_back.extend(lane.queue.first().filter(|first| **first > key).cloned());
            lane.queue.insert(key.clone());
        }
        self.slots.insert(key.clone(), Slot { lanes, pending, phase, doubtful: false });
        for other in pushed_back {
            self.refresh(&other);
        }
        match phase {
            Phase::Ready | Phase::Running => self.refresh(&key),
            Phase::Pausing(due) => {
                self.waiting += 1;
                self.due.insert((due, key.clone()));
                self.shrink(&key);
            }
        }
    }

    /// Lets go of a delivery and of what stands behind it, which makes the room to ask the journal how it stands.
    fn read_again(&mut self, key: &Key) {
        let Some(slot) = self.slots.get(key) else { return };
        let names = slot.lanes.clone();
        self.shrink(key);
        self.leave(key, false);
        self.hungry.extend(names.iter().cloned());
        self.refresh_firsts(&names);
    }

    /// Decides anew whether the first of each lane may run.
    fn refresh_firsts(&mut self, names: &[Arc<str>]) {
        for name in names {
            if let Some(first) = self.lanes.get(name).and_then(|lane| lane.queue.first()).cloned() {
                self.refresh(&first);
            }
        }
    }

    /// Lets go of everything behind a delivery that waits; the journal still has it.
    fn shrink(&mut self, head: &Key) {
        let Some(slot) = self.slots.get(head) else { return };
        let mut work: Vec<(Arc<str>, Key)> =
            slot.lanes.iter().map(|name| (name.clone(), head.clone())).collect();
        for (name, _) in &work {
            self.hungry.remove(name);
        }
        while let Some((name, from)) = work.pop() {
            let Some(lane) = self.lanes.get(&name) else { continue };
            let behind = lane.queue.range((Bound::Excluded(from), Bound::Unbounded));
            for key in behind.cloned().collect::<Vec<_>>() {
                let Some(slot) = self.slots.get(&key) else { continue };
                if slot.phase == Phase::Running {
                    continue;
                }
                // Whatever stands behind it in its other lane must go too, or it would overtake.
                work.extend(slot.lanes.iter().map(|other| (other.clone(), key.clone())));
                self.leave(&key, false);
            }
        }
    }

    /// Takes a delivery out of the window: because it has ended, or to be read again later.
    fn leave(&mut self, key: &Key, ended: bool) {
        let Some(slot) = self.slots.remove(key) else { return };
        self.runnable.remove(key);
        match slot.phase {
            Phase::Ready | Phase::Running => {}
            Phase::Pausing(due) => {
                self.waiting -= 1;
                self.due.remove(&(due, key.clone()));
                self.pauses.insert(key.clone(), due);
            }
        }
        for name in &slot.lanes {
            self.update_lane(name, |lane| {
                lane.queue.remove(key);
                if slot.phase == Phase::Running {
                    lane.running = false;
                }
                if !ended && lane.beyond.as_ref().is_none_or(|beyond| beyond > key) {
                    lane.beyond = Some(key.clone());
                }
            });
            if ended {
                self.go_on(name);
            }
        }
    }

    /// After a delivery of this lane has ended.
    fn go_on(&mut self, name: &Arc<str>) {
        let Some(lane) = self.lanes.get(name) else { return };
        if lane.beyond.is_some() && lane.queue.len() <= self.limits.per_lane / 2 && !self.waits(lane) {
            self.hungry.insert(name.clone());
        }
        if let Some(first) = lane.queue.first().cloned() {
            self.refresh(&first);
        }
    }

    /// Decides anew whether a delivery may run.
    fn refresh(&mut self, key: &Key) {
        let Some(slot) = self.slots.get(key) else { return };
        let free = |lane: &Lane| {
            lane.queue.first() == Some(key)
                && !lane.running
                && lane.beyond.as_ref().is_none_or(|beyond| beyond > key)
        };
        let may_run = slot.phase == Phase::Ready
            && slot.lanes.iter().all(|name| self.lanes.get(name).is_some_and(free));
        if may_run {
            self.runnable.insert(key.clone());
        } else {
            self.runnable.remove(key);
        }
    }

    /// Changes a lane and drops it when nothing is known of it any more.
    fn update_lane(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Lane)) {
        if let Entry::Occupied(mut entry) = self.lanes.entry(name.clone()) {
            change(entry.get_mut());
            let lane = entry.get();
            if lane.queue.is_empty() && lane.beyond.is_none() {
                entry.remove();
                self.hungry.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::journal::DeliveryId;

    /// The journal's pending table, and what a correct engine may do with it.
    #[derive(Default)]
    struct Model {
        rows: BTreeMap<Key, Pending>,
        running: BTreeSet<Key>,
        started: Vec<Key>,
        tip: Sequence,
    }

    impl Model {
        fn append(&mut self, lanes: &[u8]) -> Key {
            self.tip.0 += 1;
            let id = DeliveryId { sequence: self.tip, route: "adt".into(), destination: "record".into() };
            let lanes = lanes.iter().map(|lane| format!("patient|{lane}")).collect();
            let key: Key = (self.tip, Arc::from("adt"));
            let received = jiff::Timestamp::UNIX_EPOCH;
            let row = Pending { id, lanes, received, state: State::Ready, attempts: 0, first_attempt: None };
            self.rows.insert(key.clone(), row);
            key
        }

        /// Reads one page, as the courier does.
        fn read(&self, lanes: &mut Lanes, now: u64) -> bool {
            let Some(after) = lanes.read_after(self.tip) else { return false };
            let limit = lanes.limits.page;
            let page: Vec<Pending> =
                self.rows.values().filter(|row| row.id.sequence > after).take(limit).cloned().collect();
            let end = (page.len() < limit).then_some(self.tip);
            lanes.take_page(page, end, Duration::from_millis(now));
            true
        }

        /// Starts the next delivery and checks that it was its turn.
        fn start(&mut self, lanes: &mut Lanes, fresh: bool) -> Option<Key> {
            let key = if fresh { lanes.probe(|_| true) } else { lanes.next() }?;
            lanes.start(&key).expect("what is offered can be started");
            let mine = &self.rows[&key].lanes;
            for (other, row) in self.rows.range(..key.clone()) {
                assert!(!row.lanes.iter().any(|lane| mine.contains(lane)), "{key:?} overtook {other:?}");
            }
            for other in &self.running {
                let shares = self.rows[other].lanes.iter().any(|lane| mine.contains(lane));
                assert!(!shares, "{key:?} ran beside {other:?}");
            }
            assert!(!matches!(self.rows[&key].state, State::Parked | State::Held));
            self.running.insert(key.clone());
            self.started.push(key.clone());
            Some(key)
        }

        fn finish(&mut self, lanes: &mut Lanes, key: &Key) {
            self.rows.remove(key);
            self.running.remove(key);
            lanes.finish(key);
        }

        fn fail(&mut self, lanes: &mut Lanes, key: &Key, due: u64) {
            let row = self.rows.get_mut(key).unwrap();
            row.attempts += 1;
            row.state = State::Retrying;
            self.running.remove(key);
            lanes.pause(key, Duration::from_millis(due), row.attempts, None);
        }

        /// Parks whatever can run, until nothing can.
        fn park_all(&mut self, lanes: &mut Lanes) {
            while self.read(lanes, 0) {}
            while let Some(key) = self.start(lanes, false) {
                self.park(lanes, &key);
                while self.read(lanes, 0) {}
            }
        }

        fn park(&mut self, lanes: &mut Lanes, key: &Key) {
            self.rows.get_mut(key).unwrap().state = State::Parked;
            self.running.remove(key);
            lanes.stick(key);
        }

        /// A person puts everything that waits for them back.
        fn release(&mut self, lanes: &mut Lanes, now: u64) {
            for row in self.rows.values_mut() {
                if row.state == State::Parked {
                    row.state = State::Ready;
                }
            }
            lanes.forget(Duration::from_millis(now));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(Vec<u8>),
        Read,
        Start { fresh: bool },
        Finish(usize),
        Fail(usize, u64),
        Park(usize),
        Release,
        Restart,
        Wake(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => proptest::collection::vec(0u8..6, 1..4).prop_map(|mut lanes| {
                lanes.sort_unstable();
                lanes.dedup();
                Step::Append(lanes)
            }),
            4 => Just(Step::Read),
            4 => any::<bool>().prop_map(|fresh| Step::Start { fresh }),
            3 => any::<usize>().prop_map(Step::Finish),
            2 => (any::<usize>(), 0u64..50).prop_map(|(which, pause)| Step::Fail(which, pause)),
            1 => any::<usize>().prop_map(Step::Park),
            1 => Just(Step::Release),
            1 => Just(Step::Restart),
            2 => (0u64..40).prop_map(Step::Wake),
        ]
    }

    fn pick(running: &BTreeSet<Key>, which: usize) -> Option<Key> {
        running.iter().nth(which % running.len().max(1)).cloned()
    }

    fn limits() -> impl Strategy<Value = Limits> {
        (2usize..33, 1usize..9, 2usize..9).prop_map(|(window, per_lane, page)| Limits {
            window,
            per_lane,
            waiting: 100,
            lanes: 1000,
            page,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// P4 and P2 in small: whatever happens in between, a delivery never overtakes another of its lanes,
        /// and in the end every one of them has run.
        #[test]
        fn p4_lanes_keep_their_order_and_lose_nothing(
            limits in limits(),
            steps in proptest::collection::vec(step(), 1..150),
        ) {
            let mut model = Model::default();
            let mut lanes = Lanes::new(limits);
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Append(names) => { model.append(&names); }
                    Step::Read => { model.read(&mut lanes, now); }
                    Step::Start { fresh } => { model.start(&mut lanes, fresh); }
                    Step::Finish(which) => if let Some(key) = pick(&model.running, which) {
                        model.finish(&mut lanes, &key);
                    },
                    Step::Fail(which, pause) => if let Some(key) = pick(&model.running, which) {
                        model.fail(&mut lanes, &key, now + pause);
                    },
                    Step::Park(which) => if let Some(key) = pick(&model.running, which) {
                        model.park(&mut lanes, &key);
                    },
                    Step::Release => model.release(&mut lanes, now),
                    Step::Restart => {
                        model.running.clear();
                        lanes = Lanes::new(limits);
                    }
                    Step::Wake(passed) => {
                        now += passed;
                        lanes.wake(Duration::from_millis(now));
                    }
                }
                prop_assert!(lanes.active() <= limits.window + 6, "the window is bounded");
            }
            model.release(&mut lanes, now);
            let mut rounds = 0;
            while !model.rows.is_empty() {
                rounds += 1;
                prop_assert!(rounds < 5000, "jammed with {} left: {lanes:?}", model.rows.len());
                now += 100;
                lanes.wake(Duration::from_millis(now));
                model.read(&mut lanes, now);
                model.start(&mut lanes, false);
                if let Some(key) = pick(&model.running, rounds) {
                    model.finish(&mut lanes, &key);
                }
            }
            while model.read(&mut lanes, now) {}
            prop_assert!(lanes.is_empty());
            prop_assert!(lanes.lanes.is_empty(), "nothing is left behind: {lanes:?}");
        }
    }

    /// P5: the first patient's message cannot be delivered, and 10,000 of them stand before everybody else's.
    #[test]
    fn p5_a_poisoned_patient_does_not_fill_the_window() {
        let mut model = Model::default();
        let mut lanes = Lanes::new(Limits::default());
        let poisoned: Vec<Key> = (0..10_000).map(|_| model.append(&[0])).collect();
        (0..100).for_each(|n| drop(model.append(&[1 + n])));
        while model.read(&mut lanes, 0) {}
        let first = model.start(&mut lanes, false).unwrap();
        assert_eq!(first, poisoned[0]);
        model.fail(&mut lanes, &first, 1_000_000);
        while let Some(key) = model.start(&mut lanes, false) {
            model.finish(&mut lanes, &key);
            while model.read(&mut lanes, 0) {}
        }
        assert_eq!(model.rows.len(), 10_000, "all of the others are delivered");
        assert_eq!(lanes.len(), 1, "and the poisoned lane takes one place");
    }

    /// A bad mapping has parked a day's patients: everybody else is served, before and after a restart.
    #[test]
    fn p5_very_many_parked_lanes_leave_room_for_the_others() {
        let limits = Limits { window: 16, per_lane: 4, waiting: 8, lanes: 110, page: 16 };
        let mut model = Model::default();
        (0..100).for_each(|lane| drop(model.append(&[lane])));
        (0..100).for_each(|lane| drop(model.append(&[lane])));
        let mut lanes = Lanes::new(limits);
        model.park_all(&mut lanes);
        assert_eq!(model.rows.values().filter(|row| row.state == State::Parked).count(), 100);
        assert!(lanes.is_empty(), "what waits for a person takes no place");
        let other = model.append(&[100]);
        for mut lanes in [lanes, Lanes::new(limits)] {
            while model.read(&mut lanes, 0) {}
            assert_eq!(lanes.next(), Some(other.clone()));
            assert!(!lanes.is_full());
        }
    }

    /// Beyond a bound nothing more is read, which is told; what a person decides makes room.
    #[test]
    fn p6_parked_lanes_are_bounded() {
        let limits = Limits { window: 16, per_lane: 4, waiting: 8, lanes: 10, page: 4 };
        let mut model = Model::default();
        let mut lanes = Lanes::new(limits);
        (0..20).for_each(|lane| drop(model.append(&[lane])));
        model.park_all(&mut lanes);
        assert!(lanes.is_full() && lanes.lanes.len() == 10);
        model.rows.retain(|_, row| row.state != State::Parked);
        lanes.forget(Duration::ZERO);
        while model.read(&mut lanes, 0) {}
        assert_eq!(lanes.next(), model.rows.keys().next().cloned());
    }

    /// A lane that flows, but slowly, leaves room for the others too.
    #[test]
    fn p5_a_long_lane_leaves_room_for_the_others() {
        let mut model = Model::default();
        let mut lanes = Lanes::new(Limits { window: 256, per_lane: 16, waiting: 16, lanes: 1000, page: 32 });
        (0..10_000).for_each(|_| drop(model.append(&[0])));
        let other = model.append(&[1]);
        let mut reads = 0;
        while model.read(&mut lanes, 0) {
            reads += 1;
        }
        assert!(reads < 400, "each row is read about once: {reads} pages");
        let first = model.start(&mut lanes, false).unwrap();
        assert_eq!(model.start(&mut lanes, false), Some(other), "while the long lane's first is in flight");
        model.finish(&mut lanes, &first);
        let mut refills = 0;
        while let Some(key) = model.start(&mut lanes, false) {
            model.finish(&mut lanes, &key);
            while model.read(&mut lanes, 0) {
                refills += 1;
            }
        }
        assert!(refills < 3000, "a refill reads about a page: {refills}");
    }

    /// Found by the simulation: a skip was committed together with the outcome that parked, and the lane stayed as
    /// that outcome said.
    #[test]
    fn what_a_person_decided_about_one_in_flight_counts_when_it_ends() {
        for (parks, skipped) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut model = Model::default();
            let mut lanes = Lanes::new(Limits::default());
            let [first, behind] = [model.append(&[1, 2]), model.append(&[2])];
            model.read(&mut lanes, 0);
            assert_eq!(model.start(&mut lanes, false), Some(first.clone()));
            lanes.forget(Duration::ZERO);
            match parks {
                true => model.park(&mut lanes, &first),
                false => model.fail(&mut lanes, &first, 1000),
            }
            if skipped {
                model.rows.remove(&first);
            }
            while model.read(&mut lanes, 0) {}
            let expected = skipped.then_some(behind);
            assert_eq!(lanes.next(), expected, "parks: {parks}, skipped: {skipped}");
            lanes.wake(Duration::from_secs(1));
            let again = (!parks && !skipped).then_some(first).or(expected);
            assert_eq!(lanes.next(), again, "later; parks: {parks}, skipped: {skipped}");
        }
    }

    /// Found by the simulation: what was skipped and put back while it was in flight waited for a restart.
    #[test]
    fn what_was_put_back_while_it_was_in_flight_runs_again_before_what_stands_behind_it() {
        let mut model = Model::default();
        let mut lanes = Lanes::new(Limits::default());
        let [first, behind] = [model.append(&[1, 2]), model.append(&[2])];
        model.read(&mut lanes, 0);
        assert_eq!(model.start(&mut lanes, false), Some(first.clone()));
        lanes.forget(Duration::ZERO);
        while model.read(&mut lanes, 0) {}
        model.running.remove(&first);
        lanes.finish(&first);
        while model.read(&mut lanes, 0) {}
        assert_eq!(model.start(&mut lanes, false), Some(first.clone()));
        model.finish(&mut lanes, &first);
        while model.read(&mut lanes, 0) {}
        assert_eq!(lanes.next(), Some(behind));
    }

    /// Found by the simulation: such a lane is read again, and that ends at a merge for which there is no place.
    #[test]
    fn what_stands_before_a_merge_that_waits_runs_after_one_that_ends_in_doubt() {
        let mut model = Model::default();
        let mut lanes = Lanes::new(Limits::default());
        let [parked, first, behind, _merge] =
            [model.append(&[0]), model.append(&[1]), model.append(&[1]), model.append(&[0, 1])];
        model.read(&mut lanes, 0);
        assert_eq!(model.start(&mut lanes, false), Some(parked.clone()));
        model.park(&mut lanes, &parked);
        assert_eq!(model.start(&mut lanes, false), Some(first.clone()));
        lanes.forget(Duration::ZERO);
        while model.read(&mut lanes, 0) {}
        model.finish(&mut lanes, &first);
        while model.read(&mut lanes, 0) {}
        assert_eq!(lanes.next(), Some(behind));
    }

    /// A decision makes all that is in flight doubtful, and the window is full of what stands behind it.
    #[test]
    fn a_full_window_behind_deliveries_in_doubt_does_not_jam() {
        let mut model = Model::default();
        let mut lanes = Lanes::new(Limits { window: 64, per_lane: 8, waiting: 64, lanes: 1000, page: 16 });
        (0..20).for_each(|_| (0..8).for_each(|lane| drop(model.append(&[lane]))));
        while model.read(&mut lanes, 0) {}
        let running: Vec<Key> = std::iter::from_fn(|| model.start(&mut lanes, false)).collect();
        assert_eq!(running.len(), 8);
        lanes.forget(Duration::ZERO);
        while model.read(&mut lanes, 0) {}
        running.iter().for_each(|key| model.finish(&mut lanes, key));
        while !model.rows.is_empty() {
            while model.read(&mut lanes, 0) {}
            let next = model.start(&mut lanes, false).expect("something runs while anything is pending");
            model.finish(&mut lanes, &next);
        }
    }

    /// Found by the simulation: what was put back below a delivery in flight waited for ever once that one failed,
    /// whether the window was read again before that or after it.
    #[test]
    fn what_was_put_back_below_one_in_flight_runs_when_that_fails() {
        for (parks, read_before) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut model = Model::default();
            let mut lanes = Lanes::new(Limits::default());
            let [held, later] = [model.append(&[1]), model.append(&[1])];
            let row = model.rows.remove(&held).unwrap();
            model.read(&mut lanes, 0);
            assert_eq!(model.start(&mut lanes, false), Some(later.clone()));
            // A person puts it back; the window is read again.
            model.rows.insert(held.clone(), row);
            lanes.forget(Duration::ZERO);
            if read_before {
                model.read(&mut lanes, 0);
            }
            if parks {
                lanes.stick(&later);
            } else {
                lanes.pause(&later, Duration::from_secs(1), 1, None);
            }
            while model.read(&mut lanes, 0) {}
            assert_eq!(lanes.next(), Some(held), "parks: {parks}, read before: {read_before}");
        }
    }

    #[test]
    fn a_merge_waits_for_both_patients_and_both_wait_for_it() {
        let mut model = Model::default();
        let mut lanes = Lanes::new(Limits::default());
        let [one, two] = [model.append(&[1]), model.append(&[2])];
        let merge = model.append(&[1, 2]);
        let [after_one, after_two] = [model.append(&[1]), model.append(&[2])];
        model.read(&mut lanes, 0);
        assert_eq!(model.start(&mut lanes, false), Some(one.clone()));
        assert_eq!(model.start(&mut lanes, false), Some(two.clone()));
        assert_eq!(model.start(&mut lanes, false), None);
        model.finish(&mut lanes, &one);
        assert_eq!(model.start(&mut lanes, false), None, "the other patient's is still in flight");
        model.finish(&mut lanes, &two);
        assert_eq!(model.start(&mut lanes, false), Some(merge.clone()));
        assert_eq!(model.start(&mut lanes, false), None);
        model.finish(&mut lanes, &merge);
        assert_eq!(model.start(&mut lanes, false), Some(after_one));
        assert_eq!(model.start(&mut lanes, false), Some(after_two));
    }
}

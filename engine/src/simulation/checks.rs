//! The promises, as what must never be seen from outside, whatever the engine does within. Everything is judged by the
//! simulated systems' own memories and the rules in `letters` and `feeds`, not by the engine's routing, lanes or states.

use std::{collections::BTreeSet, time::Duration};

use super::{
    disk::Disk,
    feeds::{HELD, Variant},
    letters::{self, Kind, Letter},
    world::{Facts, World},
};
use crate::{
    connector::ErrorClass,
    journal::{
        BEING_SENT, DeliveryId, Sequence, State,
        store::{Change, Chosen, Committed, Record},
    },
};

/// P5: a destination that never fails has what it is owed after so long at the most, with everything else on fire. Two
/// endless scripts may be at work before it, and a reading of the journal may fail.
const SOON: Duration = Duration::from_secs(12);

/// With pauses that double from one second on there are half as many.
const MOST_IN_10_S: usize = 15;

impl World {
    /// P1: what has just been acknowledged is on the disk, byte by byte; P2: owed to whom it should be.
    pub fn check_acknowledged(&self, sender: usize) {
        let disk = self.disk.lock();
        let mut facts = self.facts.lock();
        let from = &facts.senders[sender];
        let listener = from.listener;
        let sent = from.letters[from.next..from.next + from.in_frame].to_vec();
        for letter in sent {
            let copies: Vec<Sequence> = disk
                .messages
                .iter()
                .filter(|(_, message)| message.raw() == Some(letter.raw.clone()))
                .map(|(sequence, _)| *sequence)
                .collect();
            if copies.is_empty() {
                facts.broken(format!("P1: L{} is acknowledged and not on the disk", letter.number));
            }
            // Of a repeat too: it stays owed to whom its first copy was.
            let right = copies.iter().all(|sequence| {
                let deciding = facts.decided_by[sequence].iter();
                deciding
                    .map(|variant| variant.owed(listener, letter.trigger))
                    .any(|owed| owed == owed_to(&disk, *sequence))
            });
            if !right {
                facts.broken(format!("P2: L{} is not owed to whom it should be", letter.number));
            }
        }
    }

    /// Only what cannot be taken is refused.
    pub fn check_refused(&self, sender: usize, code: &str) {
        let mut facts = self.facts.lock();
        let from = &facts.senders[sender];
        let letter = &from.letters[from.next];
        let stray = letter.kind == Kind::Stray && from.listener == "hospital";
        if from.in_frame > 1 || !(stray || letter.kind == Kind::Junk) {
            let number = letter.number;
            facts.broken(format!("P2: L{number} is refused: {code}"));
        }
    }

    /// P4: one at a time of what is to be in order; P5: no flood of repeats.
    pub fn check_start(&self, to: &'static str, letter: usize, output: &str) {
        let mut facts = self.facts.lock();
        let mine = facts.order(letter, route(output));
        let others = facts.receivers[to].in_flight.clone();
        // A letter that is in the journal twice may be under way twice where nothing is in order.
        let copies = facts.letter_of.values().filter(|one| **one == letter).count();
        for (other, its) in &others {
            let same = copies == 1 && (*other, its.as_str()) == (letter, output);
            if same || share(&mine, &facts.order(*other, route(its))) {
                facts.broken(format!("P4: L{letter} and L{other} are on their way to {to} at the same time"));
            }
        }
        let elapsed = facts.elapsed();
        let receiver = facts.receivers.get_mut(to).unwrap();
        receiver.in_flight.insert((letter, output.to_owned()));
        let attempts = receiver.attempts.entry((letter, output.to_owned())).or_default();
        attempts.push(elapsed);
        let storm =
            attempts.iter().filter(|at| **at + Duration::from_secs(10) > elapsed).count() > MOST_IN_10_S;
        if storm {
            facts.broken(format!("P5: {to} is asked for L{letter} again and again"));
        }
    }

    /// P4: nothing is taken before what stands before it, or again after what stands after it.
    pub fn check_taken(&self, to: &'static str, letter: usize, output: &str) {
        let disk = self.disk.lock();
        let mut facts = self.facts.lock();
        let (route, elapsed) = (route(output), facts.elapsed());
        let receiver = facts.receivers.get_mut(to).unwrap();
        let key = (letter, output.to_owned());
        *receiver.taken.entry(key.clone()).or_default() += 1;
        receiver.first.entry(key).or_insert(elapsed);
        receiver.shows.insert(output.to_owned(), letter);
        let of_letter = |id: &DeliveryId, facts: &Facts| facts.letter_of.get(&id.sequence) == Some(&letter);
        let Some(id) = disk
            .unfinished(to)
            .map(|(id, _)| id)
            .find(|id| id.route == route && of_letter(id, &facts))
            .cloned()
        else {
            // A person may skip what is under way.
            let skipped = facts.skipped.iter().any(|id| id.destination == to && of_letter(id, &facts));
            if !skipped {
                facts.broken(format!("P2: L{letter} is sent to {to}, which is not owed it"));
            }
            return;
        };
        // H4: where repeats do harm, nothing is taken twice unless a person has looked.
        let again = facts.receivers[to].taken[&(letter, output.to_owned())];
        let copies = facts.letter_of.values().filter(|one| **one == letter).count();
        if to == HELD
            && again as usize > copies
            && !facts.sent_on.iter().any(|id| id.destination == to && of_letter(id, &facts))
        {
            facts.broken(format!("H4: {to} takes L{letter} {again} times"));
        }
        let mine = facts.order(letter, route);
        for (before, _) in disk.unfinished(to).filter(|(other, _)| other.sequence < id.sequence) {
            let its = facts.order_of(before);
            if share(&mine, &its) && !facts.put_back.contains(before) {
                let which = facts.letter_of[&before.sequence];
                facts.broken(format!("P4: {to} takes L{letter} before L{which}, which is not finished"));
            }
        }
        if facts.put_back.contains(&id) {
            return;
        }
        for lane in mine {
            let top = facts.receivers.get_mut(to).unwrap().top.entry(lane.clone()).or_default();
            let behind = id.sequence < *top;
            *top = id.sequence.max(*top);
            if behind {
                facts.broken(format!("P4: {to} takes L{letter} after a later one of {lane}"));
            }
        }
    }

    /// Judges what is about to become durable.
    pub fn before_commit(&self, disk: &Disk, batch: &[Change]) {
        let mut facts = self.facts.lock();
        for change in batch {
            match change {
                Change::Append(_) => {}
                Change::Record(record) => {
                    let stands = disk.deliveries.get(&record.id).map(|one| one.record.state);
                    let what = name(&facts, &record.id);
                    facts.tell(format!("{what} is {:?} ({})", record.state, record.reason));
                    if stands.is_some_and(|state| !state.is_end()) {
                        facts.check_record(record);
                    }
                }
                Change::Note(..) => {}
                Change::Release(chosen) => {
                    let ids = standing(disk, chosen, |_| true);
                    facts.tell(format!("{} deliveries are released", ids.len()));
                    facts.sent_on.extend(ids);
                }
                Change::Skip(chosen) => {
                    let ids = standing(disk, chosen, |_| true);
                    facts.tell(format!("{} deliveries are skipped", ids.len()));
                    facts.skipped.extend(ids);
                }
                Change::Requeue(chosen) => {
                    let ids = standing(disk, chosen, |_| true);
                    facts.tell(format!("{} deliveries are put back", ids.len()));
                    facts.put_back.extend(standing(disk, chosen, State::is_end));
                    facts.sent_on.extend(ids);
                }
            }
        }
    }

    /// Takes note of what has become durable.
    pub fn after_commit(&self, disk: &Disk, committed: &[Committed]) {
        let mut facts = self.facts.lock();
        let elapsed = facts.elapsed();
        for one in committed {
            let Committed::Appended(sequence) = one else { continue };
            let raw = disk.messages[sequence].raw().unwrap_or_default();
            let letter = letters::number(&raw).unwrap_or_default();
            facts.committed.insert(*sequence, elapsed);
            facts.letter_of.insert(*sequence, letter);
            let first = facts.first_sent.get(&letter).map_or(0, |live| live - 1);
            let deciding = facts.live[first..].to_vec();
            facts.decided_by.insert(*sequence, deciding);
            facts.tell(format!("L{letter} is message {}", sequence.0));
        }
    }

    /// P2: whether everything has ended that waits for nobody; what has not, if it is too late for that.
    pub fn unsettled(&self) -> Vec<String> {
        let disk = self.disk.lock();
        let facts = self.facts.lock();
        let mut found = Vec::new();
        for sender in facts.senders.iter().filter(|sender| sender.next < sender.letters.len()) {
            found.push(format!("L{} is not answered", sender.letters[sender.next].number));
        }
        // Also at a destination that was taken away: what began in the storm must not end after the mending.
        for (to, receiver) in facts.receivers.iter().filter(|(_, receiver)| !receiver.in_flight.is_empty()) {
            found.push(format!("{to} is still at {:?}", receiver.in_flight));
        }
        for to in super::feeds::DESTINATIONS.into_iter().filter(|to| facts.now().has_destination(to)) {
            let mut blocked: BTreeSet<String> = BTreeSet::new();
            for (id, delivery) in disk.unfinished(to) {
                let order = facts.holds_up(id);
                let waits = matches!(delivery.record.state, State::Parked | State::Held);
                if waits || order.iter().any(|lane| blocked.contains(lane)) {
                    blocked.extend(order);
                } else {
                    found.push(format!("{} is {:?}", name(&facts, id), delivery.record.state));
                }
            }
        }
        found
    }

    /// After everything was mended and put back: all has ended, and well. P3: what the receivers show is what they
    /// would show had everything come once.
    pub fn check_end(&self) {
        let disk = self.disk.lock();
        let mut facts = self.facts.lock();
        for (id, delivery) in &disk.deliveries {
            let kind = facts.letters[&facts.letter_of[&id.sequence]].kind;
            let state = delivery.record.state;
            let right = match kind {
                Kind::Reject | Kind::Throw | Kind::Endless => matches!(state, State::Dead | State::Parked),
                Kind::Skip => state == State::Filtered,
                _ => state == State::Delivered,
            };
            // What is not held itself waits behind one of those that can never be mapped, or `unsettled` tells.
            if !right && !matches!(state, State::Ready | State::Retrying) {
                let what = format!("P2: in the end {} is {state:?}", name(&facts, id));
                facts.broken(what);
            }
        }
        facts.check_shown(&disk);
    }

    /// P5: nobody has waited for the troubles of others.
    pub fn check_steady(&self) {
        let disk = self.disk.lock();
        let mut facts = self.facts.lock();
        let Some(steady) = facts.steady else { return };
        // What waits for a person holds up what stands behind it, and through a merge what stands behind that.
        let mut blocked: BTreeSet<String> = BTreeSet::new();
        let mut late = Vec::new();
        for id in disk.deliveries.keys().filter(|id| id.destination == steady) {
            let order = facts.holds_up(id);
            if facts.stuck.contains(id) || order.iter().any(|lane| blocked.contains(lane)) {
                blocked.extend(order);
            } else if facts.late.contains(id) && !facts.put_back.contains(id) {
                late.push(format!("P5: {} waited for others", name(&facts, id)));
            }
        }
        late.into_iter().for_each(|what| facts.broken(what));
    }
}

impl Facts {
    fn check_record(&mut self, record: &Record) {
        let Record { id, state, revision, class, reason, .. } = record;
        let letter = self.letters[&self.letter_of[&id.sequence]].clone();
        let to = id.destination.as_str();
        let what = name(self, id);
        let receiver = &self.receivers[to];
        let taken = |output| receiver.taken.contains_key(&(letter.number, output));
        let ends_badly = matches!(letter.kind, Kind::Reject | Kind::Throw | Kind::Endless);
        let wrong = match state {
            State::Ready => Some("P2: is recorded as ready"),
            State::Delivered if !letter.outputs(&id.route).into_iter().all(taken) => {
                Some("P2: is delivered, but was not taken")
            }
            State::Filtered if letter.kind != Kind::Skip => Some("P2: is filtered for no reason"),
            State::Dead => match class {
                Some(ErrorClass::Rejected) if receiver.refused.contains(&letter.number) => None,
                Some(
                    ErrorClass::Unavailable
                    | ErrorClass::Uncertain
                    | ErrorClass::Failing
                    | ErrorClass::Misconfigured,
                ) => None,
                None if ends_badly => None,
                _ => Some("P2: is dead for no reason"),
            },
            State::Retrying | State::Parked | State::Held | State::Filtered | State::Delivered => None,
        };
        if let Some(wrong) = wrong {
            self.broken(format!("{wrong}: {what}"));
        }
        let was_live = self.live.iter().any(|variant| format!("{variant:?}") == *revision);
        if !revision.is_empty() && !was_live {
            self.broken(format!("P8: {what} names `{revision}`, which was never live"));
        }
        if matches!(state, State::Parked | State::Held) {
            self.stuck.insert(id.clone());
        }
        // What was on its way when the engine ended may not be repeated by itself.
        let by_the_end = to == HELD && (reason == BEING_SENT || reason.starts_with("the engine "));
        if self.steady == Some(to) && class.is_some() && !by_the_end {
            self.broken(format!("P5: {what} has failed at a destination that never fails"));
        }
        if matches!(state, State::Delivered | State::Filtered) {
            let from = self.committed[&id.sequence].max(self.disturbed);
            if self.elapsed() > from + SOON {
                self.late.insert(id.clone());
            }
        }
    }

    /// P3, for patients that nobody has put something back for after its end. Of a delivery that has not ended, for
    /// it waits behind one that can never be mapped, some outputs may be shown already.
    fn check_shown(&mut self, disk: &Disk) {
        let delivered = disk.deliveries.iter().filter(|(_, one)| one.record.state == State::Delivered);
        let mut last = std::collections::BTreeMap::new();
        for (id, _) in delivered {
            let letter = &self.letters[&self.letter_of[&id.sequence]];
            for output in letter.outputs(&id.route) {
                last.insert((id.destination.clone(), output), (letter.number, id.route.clone()));
            }
        }
        let late: BTreeSet<(String, String)> = self
            .put_back
            .iter()
            .flat_map(|id| self.order_of(id).into_iter().map(|lane| (id.destination.clone(), lane)))
            .collect();
        let unfinished = disk.deliveries.iter().filter(|(_, one)| one.record.state != State::Delivered);
        let begun: BTreeSet<(&str, usize)> =
            unfinished.map(|(id, _)| (id.destination.as_str(), self.letter_of[&id.sequence])).collect();
        for ((to, output), (letter, route)) in last {
            let order = self.order(letter, &route);
            let in_order =
                !order.is_empty() && order.iter().all(|lane| !late.contains(&(to.clone(), lane.clone())));
            let shows = self.receivers[to.as_str()].shows.get(&output).copied();
            let is_begun = shows.is_some_and(|shown| begun.contains(&(to.as_str(), shown)));
            if in_order && shows != Some(letter) && !is_begun {
                self.broken(format!("P3: {to} shows {shows:?} as {output} and not L{letter}"));
            }
        }
    }

    /// What of a letter must be in order with others on a route, by whatever was live.
    fn order(&self, letter: usize, route: &str) -> Vec<String> {
        let patients = self.letters.get(&letter).map(|letter: &Letter| letter.patients.clone());
        let patients = patients.unwrap_or_default();
        match route {
            "images" => Vec::new(),
            "results" if self.was_by_patient() => {
                patients.into_iter().map(|patient| format!("results of {patient}")).collect()
            }
            "results" => vec!["results".to_owned()],
            _ => patients,
        }
    }

    fn order_of(&self, id: &DeliveryId) -> Vec<String> {
        self.order(self.letter_of[&id.sequence], &id.route)
    }

    /// What may hold up what: all that has been in one order at any time.
    fn holds_up(&self, id: &DeliveryId) -> Vec<String> {
        match id.route.as_str() {
            "results" if self.was_by_patient() => {
                let patients = self.order(self.letter_of[&id.sequence], "adt");
                patients.into_iter().chain(["results".to_owned()]).collect()
            }
            _ => self.order_of(id),
        }
    }

    fn was_by_patient(&self) -> bool {
        self.live.contains(&Variant::ByPatient)
    }
}

/// Those of the chosen deliveries that stand as was asked for, and so.
fn standing(disk: &Disk, chosen: &Chosen, so: fn(State) -> bool) -> Vec<DeliveryId> {
    let stands = |id: &&DeliveryId| {
        let state = disk.deliveries[*id].record.state;
        chosen.states.contains(&state) && so(state)
    };
    chosen.ids.iter().filter(stands).cloned().collect()
}

fn share(one: &[String], other: &[String]) -> bool {
    one.iter().any(|lane| other.contains(lane))
}

fn route(output: &str) -> &str {
    output.split('-').next().unwrap_or_default()
}

fn name(facts: &Facts, id: &DeliveryId) -> String {
    let letter = facts.letter_of.get(&id.sequence).copied().unwrap_or_default();
    format!("L{letter} (message {}, {}) to {}", id.sequence.0, id.route, id.destination)
}

fn owed_to(disk: &Disk, sequence: Sequence) -> Vec<(&str, &str)> {
    let owed = disk.deliveries.keys().filter(|id| id.sequence == sequence);
    let mut owed: Vec<_> = owed.map(|id| (id.route.as_str(), id.destination.as_str())).collect();
    owed.sort_unstable();
    owed
}

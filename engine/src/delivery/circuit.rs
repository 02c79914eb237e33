//! The circuit of one destination: how many attempts it can bear now.
//!
//! Promise:  a destination that is away is asked by one probe at a time and not by its whole backlog, and gets its
//!           load back by doubling. P5: one message that always fails does not open the circuit, since it takes
//!           failures of different deliveries, and does not keep it open (the courier probes with others first).
//!           One that is refused as if the destination were misconfigured raises a doubt, which another delivery
//!           settles at once: if that one is refused too the destination is held, else the message is at fault.
//!           A receiver that answers is not away, however little its answers say: only what nobody answered, or a wish
//!           for time, opens the circuit.
//! Not here: the pause of the single delivery (retry). Pure: time is passed in, as the time since the courier began.

use std::{collections::HashMap, time::Duration};

use crate::{connector::ErrorClass, delivery::lanes::Key};

/// So many failures in a row, of at least two deliveries, open the circuit.
const FAILURES: usize = 3;
/// How long a circuit that is not closed waits before a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The first pause of an open circuit; it doubles with each probe that fails.
    pub first: Duration,
    /// The longest pause of an open circuit.
    pub longest: Duration,
    /// How often a destination that needs a person is asked whether it still does.
    pub held: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { first: seconds(1), longest: seconds(30), held: seconds(60) }
    }
}

/// A receiver that asks for more is asked again after this.
const LONGEST_RETRY_AFTER: Duration = super::retry::LONGEST_RETRY_AFTER;

/// What a destination is given, for metrics and pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Everything.
    Closed,
    /// Nothing for a while, then one probe: the destination is away.
    Open,
    /// Nothing for a while, then one probe: a person must mend the configuration.
    Held,
    /// Nothing until its maintenance window ends.
    Maintenance,
    /// Nothing: its configuration says so.
    Paused,
    /// What is known already, and nothing more: too many patients' messages wait for a person.
    Full,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 6] =
        [Self::Closed, Self::Open, Self::Held, Self::Maintenance, Self::Paused, Self::Full];

    /// The word for metrics and pages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "delivering",
            Self::Open => "away",
            Self::Held => "held",
            Self::Maintenance => "maintenance",
            Self::Paused => "paused",
            Self::Full => "full",
        }
    }
}

/// What the destination did instead of taking a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What the engine does next.
    pub class: ErrorClass,
    /// The receiver has read it and answered.
    pub answered: bool,
    /// The receiver asked for this much time.
    pub retry_after: Option<Duration>,
}

/// A delivery that was refused as if the destination were misconfigured, or failing.
#[derive(Debug)]
struct Suspect {
    /// How often, with answers to others in between.
    refusals: u32,
    /// How many answers there had been at the last refusal.
    answers: u64,
}

/// What speaks against a delivery that is asked for again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// Refusals as if misconfigured or failing that count if it is refused now: those with answers to others in between.
    pub refusals: u32,
    /// Answers that leave open if it was taken, with this one if it is such.
    pub unclear: u32,
    /// Several have been refused and nobody answered since: the destination is at fault rather than a message.
    pub alike: bool,
}

/// The circuit of one destination.
#[derive(Debug)]
pub struct Circuit {
    at_most: usize,
    pauses: Pauses,
    /// What may be in flight while it is closed; below `at_most` after a recovery.
    ramp: usize,
    failures: Vec<Key>,
    standing: Standing,
    pause: Duration,
    next_probe: Duration,
    probing: bool,
    suspects: HashMap<Key, Suspect>,
    /// How often the answer to a delivery has left open if it was taken.
    unclear: HashMap<Key, u32>,
    /// Answers to any delivery so far.
    answers: u64,
    /// The first that was refused since the last answer to any.
    refused: Option<Key>,
    /// Others were refused since then too.
    alike: bool,
    /// The destination is held on the word of this delivery alone.
    doubt: Option<Key>,
}

impl Circuit {
    /// A closed circuit for a destination that takes `at_most` deliveries at once.
    pub fn new(at_most: usize, pauses: Pauses) -> Self {
        let at_most = at_most.max(1);
        Self {
            at_most,
            pauses,
            ramp: at_most,
            failures: Vec::new(),
            standing: Standing::Closed,
            pause: pauses.first,
            next_probe: Duration::ZERO,
            probing: false,
            suspects: HashMap::new(),
            unclear: HashMap::new(),
            answers: 0,
            refused: None,
            alike: false,
            doubt: None,
        }
    }

    /// How many deliveries may be in flight now.
    pub fn allowance(&self, now: Duration) -> usize {
        match self.standing {
            Standing::Closed => self.ramp,
            _ => usize::from(!self.probing && (self.doubt.is_some() || now >= self.next_probe)),
        }
    }

    /// Whether as many may be in flight as ever, when it is closed.
    pub fn is_at_its_best(&self) -> bool {
        self.ramp >= self.at_most
    }

    /// Whether this delivery may be the probe: in doubt, any but the suspects.
    pub fn may_probe(&self, key: &Key, now: Duration) -> bool {
        self.doubt.is_none() || now >= self.next_probe || !self.suspects.contains_key(key)
    }

    /// Whether it is still open if the message or the destination is at fault.
    pub fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// What speaks against this delivery if it is not taken now.
    pub fn record(&self, key: &Key) -> Record {
        let again = |suspect: &Suspect| suspect.refusals + u32::from(self.answers > suspect.answers);
        Record {
            refusals: self.suspects.get(key).map_or(1, again),
            unclear: self.unclear.get(key).map_or(1, |unclear| unclear.saturating_add(1)),
            alike: self.alike || self.refused.as_ref().is_some_and(|refused| refused != key),
        }
    }

    /// A delivery has ended, or waits for a person: nothing of it need be known any more.
    pub fn forget(&mut self, key: &Key) {
        self.suspects.remove(key);
        self.unclear.remove(key);
    }

    /// What it lets through.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// When it lets a probe through, if it is not closed and none is on its way.
    pub fn next_probe(&self) -> Option<Duration> {
        (self.standing != Standing::Closed && !self.probing).then_some(self.next_probe)
    }

    /// An attempt begins.
    pub fn started(&mut self) {
        self.probing = self.standing != Standing::Closed;
    }

    /// An attempt ended without anybody having been asked, such as by a mapping that filtered.
    pub fn unused(&mut self) {
        self.probing = false;
    }

    /// The destination took a message, or read it and refused it: it is there.
    pub fn answered(&mut self) {
        self.answers += 1;
        (self.refused, self.alike) = (None, false);
        if self.standing == Standing::Closed {
            self.ramp = self.ramp.saturating_mul(2).min(self.at_most);
        }
        self.is_there();
    }

    /// The destination has answered, though it took nothing.
    fn is_there(&mut self) {
        self.failures.clear();
        self.probing = false;
        if self.standing == Standing::Closed {
            return;
        }
        self.standing = Standing::Closed;
        self.pause = self.pauses.first;
        // A doubt that is settled was no outage.
        self.ramp = if self.doubt.take().is_some() { self.at_most } else { 1 };
    }

    /// An attempt failed.
    pub fn failed(&mut self, key: &Key, failure: Failure, now: Duration) {
        self.probing = false;
        let Failure { class, answered, retry_after } = failure;
        let there = answered && retry_after.is_none();
        match class {
            ErrorClass::Rejected => self.answered(),
            ErrorClass::Misconfigured => self.refused(key, now),
            ErrorClass::Failing => {
                self.suspect(key);
                if retry_after.is_none() { self.is_there() } else { self.unreachable(key, retry_after, now) }
            }
            ErrorClass::Uncertain if there => {
                let unclear = self.unclear.entry(key.clone()).or_default();
                *unclear = unclear.saturating_add(1);
                self.is_there();
            }
            ErrorClass::Unavailable if there => self.is_there(),
            ErrorClass::Unavailable | ErrorClass::Uncertain => self.unreachable(key, retry_after, now),
        }
    }

    /// Takes down a refusal, and says how many count against the delivery now.
    fn suspect(&mut self, key: &Key) -> u32 {
        let Record { refusals, alike, .. } = self.record(key);
        self.suspects.insert(key.clone(), Suspect { refusals, answers: self.answers });
        self.alike = alike;
        self.refused.get_or_insert_with(|| key.clone());
        refusals
    }

    fn refused(&mut self, key: &Key, now: Duration) {
        let others_are_taken = self.suspect(key) > 1 && self.standing == Standing::Closed;
        if others_are_taken {
            return;
        }
        self.doubt = match (self.standing, self.doubt.take()) {
            (Standing::Closed, _) => Some(key.clone()),
            (_, Some(first)) if first == *key => Some(first),
            _ => None,
        };
        self.standing = Standing::Held;
        self.next_probe = now + self.pauses.held;
    }

    fn unreachable(&mut self, key: &Key, retry_after: Option<Duration>, now: Duration) {
        if self.doubt.take().is_some() {
            // Whoever was to settle the doubt could not: the destination is away.
            self.next_probe = now;
        }
        match self.standing {
            Standing::Closed => {
                if self.failures.len() < FAILURES || !self.failures.contains(key) {
                    self.failures.push(key.clone());
                }
                let others = self.failures.iter().any(|other| other != key);
                let opens = self.failures.len() >= FAILURES && others;
                if opens || retry_after.is_some() {
                    self.failures.clear();
                    self.standing = Standing::Open;
                    self.pause = self.pauses.first;
                    self.next_probe = now + self.pause.max(wish(retry_after));
                }
            }
            // Attempts that were already under way when it opened say nothing new.
            _ if now < self.next_probe => {
                self.next_probe = self.next_probe.max(now + wish(retry_after));
            }
            _ => {
                self.standing = Standing::Open;
                self.pause = (self.pause * 2).min(self.pauses.longest);
                self.next_probe = now + self.pause.max(wish(retry_after));
            }
        }
    }
}

fn wish(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::Sequence;

    fn key(n: i64) -> Key {
        (Sequence(n), Arc::from("adt"))
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn silent(class: ErrorClass) -> Failure {
        Failure { class, answered: false, retry_after: None }
    }

    fn away(circuit: &mut Circuit, n: i64, now: u64) {
        circuit.failed(&key(n), silent(ErrorClass::Unavailable), seconds(now));
    }

    #[test]
    fn p5_one_message_that_always_fails_never_opens_it() {
        let mut circuit = Circuit::new(8, Pauses::default());
        for now in 0..100 {
            away(&mut circuit, 1, now);
        }
        assert_eq!((circuit.standing(), circuit.allowance(seconds(100))), (Standing::Closed, 8));
    }

    #[test]
    fn failures_of_different_deliveries_open_it_and_an_answer_between_them_does_not() {
        let mut circuit = Circuit::new(8, Pauses::default());
        away(&mut circuit, 1, 0);
        away(&mut circuit, 2, 0);
        circuit.answered();
        away(&mut circuit, 1, 0);
        away(&mut circuit, 2, 0);
        assert_eq!(circuit.standing(), Standing::Closed);
        away(&mut circuit, 1, 0);
        assert_eq!((circuit.standing(), circuit.allowance(seconds(0))), (Standing::Open, 0));
    }

    #[test]
    fn one_probe_at_a_time_with_growing_pauses_then_the_load_comes_back_by_doubling() {
        let mut circuit = Circuit::new(8, Pauses::default());
        (1..=3).for_each(|n| away(&mut circuit, n, 0));
        let mut now = 0;
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(circuit.next_probe(), Some(seconds(now + pause)));
            now += pause;
            assert_eq!(circuit.allowance(seconds(now) - Duration::from_millis(1)), 0);
            assert_eq!(circuit.allowance(seconds(now)), 1);
            circuit.started();
            assert_eq!((circuit.allowance(seconds(now)), circuit.next_probe()), (0, None));
            away(&mut circuit, 4, now);
        }
        circuit.started();
        let mut loads = Vec::new();
        for _ in 0..5 {
            circuit.answered();
            loads.push(circuit.allowance(seconds(now)));
        }
        assert_eq!(loads, [1, 2, 4, 8, 8]);
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_lengthen_the_pause() {
        let mut circuit = Circuit::new(8, Pauses::default());
        (1..=8).for_each(|n| away(&mut circuit, n, 0));
        assert_eq!(circuit.next_probe(), Some(seconds(1)));
    }

    #[test]
    fn retry_after_holds_the_whole_destination_for_so_long() {
        for class in [ErrorClass::Unavailable, ErrorClass::Failing] {
            let mut circuit = Circuit::new(8, Pauses::default());
            circuit.failed(
                &key(1),
                Failure { class, answered: true, retry_after: Some(seconds(90)) },
                seconds(5),
            );
            assert_eq!(circuit.next_probe(), Some(seconds(95)), "{class:?}");
        }
    }

    #[test]
    fn a_misconfigured_destination_is_held_and_asked_slowly_until_it_is_mended() {
        let mut circuit = Circuit::new(8, Pauses::default());
        refuse(&mut circuit, 1, 0);
        assert_eq!((circuit.standing(), circuit.next_probe()), (Standing::Held, Some(seconds(60))));
        circuit.started();
        refuse(&mut circuit, 1, 61);
        assert_eq!(circuit.next_probe(), Some(seconds(121)));
        circuit.started();
        circuit.answered();
        assert_eq!(circuit.standing(), Standing::Closed);
    }

    fn refuse(circuit: &mut Circuit, n: i64, now: u64) {
        circuit.failed(&key(n), silent(ErrorClass::Misconfigured), seconds(now));
    }

    #[test]
    fn p5_a_refusal_of_one_message_is_settled_by_another_at_once() {
        let mut circuit = Circuit::new(8, Pauses::default());
        for refusals in 1..5 {
            assert_eq!(circuit.record(&key(1)).refusals, refusals);
            refuse(&mut circuit, 1, 5);
            if refusals == 1 {
                assert_eq!((circuit.standing(), circuit.allowance(seconds(5))), (Standing::Held, 1));
                assert!(circuit.may_probe(&key(2), seconds(5)) && !circuit.may_probe(&key(1), seconds(64)));
                assert!(circuit.may_probe(&key(1), seconds(65)), "if there is no other");
                circuit.started();
            } else {
                assert_eq!(circuit.standing(), Standing::Closed, "others have been taken since");
            }
            circuit.answered();
            assert_eq!(
                (circuit.standing(), circuit.allowance(seconds(5))),
                (Standing::Closed, 8),
                "no outage"
            );
        }
        circuit.forget(&key(1));
        assert_eq!(circuit.record(&key(1)).refusals, 1);
    }

    #[test]
    fn p5_a_receiver_that_answers_is_not_away_whatever_it_says() {
        let fail = |circuit: &mut Circuit, n, class| {
            circuit.failed(&key(n), Failure { class, answered: true, retry_after: None }, seconds(9));
        };
        for class in [ErrorClass::Unavailable, ErrorClass::Uncertain, ErrorClass::Failing] {
            let mut circuit = Circuit::new(8, Pauses::default());
            (1..=9).for_each(|n| fail(&mut circuit, n, class));
            assert_eq!(
                (circuit.standing(), circuit.allowance(seconds(9))),
                (Standing::Closed, 8),
                "{class:?}"
            );
            // Nor does it count with what nobody answered.
            (1..=2).for_each(|n| away(&mut circuit, n, 9));
            fail(&mut circuit, 3, class);
            away(&mut circuit, 4, 9);
            assert_eq!(circuit.standing(), Standing::Closed, "{class:?}");
            (1..=3).for_each(|n| away(&mut circuit, n, 9));
            assert_eq!(circuit.standing(), Standing::Open);
            circuit.started();
            fail(&mut circuit, 7, class);
            assert_eq!((circuit.standing(), circuit.allowance(seconds(10))), (Standing::Closed, 1), "slowly");
        }
    }

    #[test]
    fn a_failure_counts_against_a_message_only_when_others_are_answered_in_between() {
        let mut circuit = Circuit::new(8, Pauses::default());
        let fail = |circuit: &mut Circuit, n| {
            circuit.failed(&key(n), silent(ErrorClass::Failing), seconds(0));
        };
        let record = |circuit: &Circuit, n| {
            let Record { refusals, alike, .. } = circuit.record(&key(n));
            (refusals, alike)
        };
        (0..9).for_each(|_| fail(&mut circuit, 1));
        assert_eq!(record(&circuit, 1), (1, false), "nobody to compare it with");
        assert_eq!(record(&circuit, 2), (1, true));
        fail(&mut circuit, 2);
        assert_eq!(
            (record(&circuit, 1), record(&circuit, 2)),
            ((1, true), (1, true)),
            "the receiver's fault"
        );
        for refusals in 2..5 {
            circuit.answered();
            assert_eq!(record(&circuit, 1), (refusals, false));
            fail(&mut circuit, 1);
        }
        circuit.forget(&key(1));
        assert_eq!(record(&circuit, 1).0, 1);
    }

    #[test]
    fn every_unclear_answer_is_counted_until_the_delivery_ends() {
        let mut circuit = Circuit::new(8, Pauses::default());
        for unclear in 1..5 {
            assert_eq!(circuit.record(&key(1)).unclear, unclear);
            let failure = Failure { class: ErrorClass::Uncertain, answered: true, retry_after: None };
            circuit.failed(&key(1), failure, seconds(0));
            circuit.failed(&key(1), silent(ErrorClass::Uncertain), seconds(0));
            circuit.answered();
        }
        circuit.forget(&key(1));
        assert_eq!(circuit.record(&key(1)).unclear, 1);
    }

    #[test]
    fn two_messages_that_are_refused_hold_the_destination_and_count_against_neither() {
        let mut circuit = Circuit::new(8, Pauses::default());
        refuse(&mut circuit, 1, 0);
        circuit.started();
        refuse(&mut circuit, 2, 1);
        assert_eq!((circuit.standing(), circuit.next_probe()), (Standing::Held, Some(seconds(61))));
        assert_eq!(circuit.allowance(seconds(60)), 0);
        for now in [61, 121, 181] {
            circuit.started();
            refuse(&mut circuit, 1 + now as i64 % 2, now);
            assert_eq!((circuit.record(&key(1)).refusals, circuit.record(&key(2)).refusals), (1, 1));
        }
        circuit.started();
        circuit.answered();
        assert_eq!(
            (circuit.standing(), circuit.allowance(seconds(200))),
            (Standing::Closed, 1),
            "slowly again"
        );
    }

    #[test]
    fn a_doubt_that_ends_at_a_dead_destination_is_an_outage() {
        let mut circuit = Circuit::new(8, Pauses::default());
        refuse(&mut circuit, 1, 0);
        circuit.started();
        away(&mut circuit, 2, 1);
        assert_eq!((circuit.standing(), circuit.next_probe()), (Standing::Open, Some(seconds(3))));
    }

    #[test]
    fn a_message_that_is_refused_shows_that_the_destination_is_there() {
        let mut circuit = Circuit::new(8, Pauses::default());
        (1..=3).for_each(|n| away(&mut circuit, n, 0));
        circuit.started();
        circuit.failed(&key(9), silent(ErrorClass::Rejected), seconds(2));
        assert_eq!(circuit.standing(), Standing::Closed);
    }
}

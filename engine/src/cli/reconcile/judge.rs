//! What a trace says about one control id: accounted for, or where it is missing and why.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::lists::List;
use crate::{
    admin::{Delivery, Found, TRACED, Trace, TracedDelivery, TracedMessage},
    journal::State,
};

/// Something that a person should know of one control id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) finding: What,
    /// Nothing is amiss: only worth knowing.
    pub(super) harmless: bool,
    pub(super) control_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination: Option<String>,
    /// Why, as the journal has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
}

/// What is said of a control id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// The journal has no message of this control id.
    NeverArrived,
    /// It is in quarantine: no parser or route could take it, or it was refused.
    Quarantined,
    /// It waits for its turn.
    Ready,
    /// It is tried again.
    Retrying,
    /// Its lane waits for a person.
    Parked,
    /// It waits for a person.
    Held,
    /// It was set aside.
    Dead,
    /// It counts as delivered, but the receiver's list does not name it.
    NotReceived,
    /// It counts as delivered, but the receiver does not hold what it wrote.
    NotHeld,
    /// It counts as delivered, but the receiver cannot be asked: it wrote nothing that has an id of its own.
    NotAsked,
    /// The receiver's list names it, but it was never sent.
    NeverSent,
    /// The receiver's list names it, though it does not count as delivered.
    ReceivedAlready,
    /// Messages with different content have this control id.
    DifferentContent,
    /// The sender's list names it more often than messages with it arrived.
    FewerArrived,
    /// So many messages have this control id that the oldest were not looked at.
    NotAllSeen,
    /// The sender's list names it more than once, and nothing is missing by that.
    SentAgain,
    /// The same message arrived more than once.
    ArrivedAgain,
    /// The receiver's list names it more than once.
    ReceivedAgain,
    /// It arrived in the time and at the listener that are asked for, but the sender's list does not name it.
    NotListed,
}

impl What {
    /// For people; begins a heading.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::NeverArrived => "never arrived here",
            Self::Quarantined => "in quarantine",
            Self::Ready => "waiting for its turn",
            Self::Retrying => "being tried again",
            Self::Parked => "parked: its patient's messages wait for a person",
            Self::Held => "held for a person",
            Self::Dead => "dead letters",
            Self::NotReceived => "delivered, but not in the receiver's list",
            Self::NotHeld => "delivered, but the receiver does not hold what they wrote",
            Self::NotAsked => "delivered, but the receiver cannot be asked for them",
            Self::NeverSent => "in the receiver's list, but never sent",
            Self::ReceivedAlready => "in the receiver's list, though not known as delivered",
            Self::DifferentContent => "one control id, different content",
            Self::FewerArrived => "named more often in the sender's list than they arrived",
            Self::NotAllSeen => "used so often that the oldest messages with it were not looked at",
            Self::SentAgain => "more than once in the sender's list",
            Self::ArrivedAgain => "arrived more than once",
            Self::ReceivedAgain => "more than once in the receiver's list",
            Self::NotListed => "arrived, but not in the sender's list",
        }
    }
}

/// Receivers' lists by destination.
pub(super) type Received = BTreeMap<String, List>;

/// What is asked of every message.
#[derive(Debug, Default)]
pub(super) struct Question {
    /// Receivers' lists.
    pub(super) received: Received,
    /// The destination that is asked what it holds.
    pub(super) asked: Option<String>,
    /// The sender's list names transmissions: a message that was sent again stands there again.
    pub(super) transmissions: bool,
    /// Only messages of this listener.
    pub(super) listener: Option<String>,
    /// Only messages received from then on.
    pub(super) since: Option<Timestamp>,
    /// Only messages received before.
    pub(super) until: Option<Timestamp>,
}

/// What is said of one control id.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) findings: Vec<Finding>,
    /// Where each of its deliveries stands, for the tally.
    pub(super) stands: Vec<(String, State)>,
}

impl Finding {
    pub(super) fn new(finding: What, control_id: &str) -> Self {
        use What::{ArrivedAgain, DifferentContent, NotListed, ReceivedAgain, ReceivedAlready, SentAgain};
        let noted = [ArrivedAgain, DifferentContent, NotListed, ReceivedAgain, ReceivedAlready, SentAgain];
        Self {
            finding,
            harmless: noted.contains(&finding),
            control_id: control_id.to_owned(),
            sequence: None,
            route: None,
            destination: None,
            reason: String::new(),
        }
    }

    pub(super) fn at(self, destination: &str) -> Self {
        Self { destination: Some(destination.to_owned()), ..self }
    }

    pub(super) fn of(self, message: &Found) -> Self {
        Self { sequence: Some(message.sequence), ..self }
    }

    fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..self }
    }
}

impl Judgement {
    /// Whether nothing is missing.
    pub(super) fn is_accounted_for(&self) -> bool {
        self.findings.iter().all(|finding| finding.harmless)
    }
}

impl Question {
    /// Judges one control id that was sent so often; `missing` are resources that the destination asked does not hold.
    pub(super) fn judge(&self, trace: &Trace, times_sent: u32, missing: &BTreeSet<String>) -> Judgement {
        let id = trace.control_id.as_str();
        let meant: Vec<_> = trace.messages.iter().filter(|message| self.means(message)).collect();
        let (routed, refused): (Vec<_>, Vec<_>) =
            meant.into_iter().partition(|message| !message.deliveries.is_empty());
        let mut judgement =
            Judgement { findings: self.arrivals(id, times_sent, &routed, &refused), stands: Vec::new() };
        if trace.cut && !self.reaches_back_before(trace) {
            let reason = format!("only the newest {TRACED} were looked at");
            judgement.findings.push(Finding::new(What::NotAllSeen, id).because(reason));
        }
        let mut best: BTreeMap<_, (&TracedMessage, &TracedDelivery)> = BTreeMap::new();
        for message in routed {
            for delivery in &message.deliveries {
                let Delivery { route, destination, .. } = &delivery.delivery;
                let kept =
                    best.entry((&message.message.sha256, route, destination)).or_insert((message, delivery));
                if rank(delivery.delivery.state) < rank(kept.1.delivery.state) {
                    *kept = (message, delivery);
                }
            }
        }
        for (message, delivery) in best.into_values() {
            self.judge_delivery(&mut judgement, id, message, delivery, missing);
        }
        judgement
    }

    /// What is said of how many messages arrived. Copies of one content are one message; what came in part, was refused
    /// and came again whole is one message, unless the list names more.
    fn arrivals(
        &self,
        id: &str,
        times_sent: u32,
        routed: &[&TracedMessage],
        refused: &[&TracedMessage],
    ) -> Vec<Finding> {
        let mut found = Vec::new();
        let taken: BTreeSet<_> = routed.iter().map(|one| &one.message.sha256).collect();
        let named = if self.transmissions { 1 } else { times_sent as usize };
        let lacking = named.saturating_sub(taken.len());
        let mut others = BTreeSet::new();
        for message in refused.iter().map(|one| &one.message) {
            let sha256 = &message.sha256;
            if others.len() < lacking && !taken.contains(sha256) && others.insert(sha256) {
                let reason = message.quarantine.clone().unwrap_or_default();
                found.push(Finding::new(What::Quarantined, id).of(message).because(reason));
            }
        }
        let arrived = taken.len() + others.len();
        if arrived < named {
            let what = if arrived == 0 { What::NeverArrived } else { What::FewerArrived };
            let told = || format!("named {named} times, {arrived} arrived");
            let reason = if named > 1 { told() } else { String::new() };
            found.push(Finding::new(what, id).because(reason));
        } else if times_sent > 1 {
            found.push(Finding::new(What::SentAgain, id));
        }
        if let Some(newest) = routed.first().filter(|_| routed.len() > 1) {
            let what = if taken.len() > 1 { What::DifferentContent } else { What::ArrivedAgain };
            found.push(Finding::new(what, id).of(&newest.message));
        }
        found
    }

    /// Whether the messages of a trace, the newest first, go back to before the time that is asked for.
    fn reaches_back_before(&self, trace: &Trace) -> bool {
        let oldest = trace.messages.last().map(|message| message.message.received);
        oldest.zip(self.since).is_some_and(|(oldest, since)| oldest < since)
    }

    fn means(&self, message: &TracedMessage) -> bool {
        let Found { listener, received, .. } = &message.message;
        self.listener.as_ref().is_none_or(|wanted| wanted == listener)
            && self.since.is_none_or(|since| *received >= since)
            && self.until.is_none_or(|until| *received < until)
    }

    fn judge_delivery(
        &self,
        judgement: &mut Judgement,
        id: &str,
        message: &TracedMessage,
        traced: &TracedDelivery,
        missing: &BTreeSet<String>,
    ) {
        let Delivery { route, destination, state, reason, .. } = &traced.delivery;
        judgement.stands.push((destination.clone(), *state));
        let mut find = |what, reason: &str| {
            let finding = Finding::new(what, id).of(&message.message).at(destination).because(reason);
            judgement.findings.push(Finding { route: Some(route.clone()), ..finding });
        };
        let named = self.received.get(destination).map(|list| list.times(id));
        if named.is_some_and(|times| times > 1) {
            find(What::ReceivedAgain, "");
        }
        if let Some(what) = waits(*state) {
            find(what, reason);
        }
        match state {
            State::Delivered if named == Some(0) => find(What::NotReceived, ""),
            State::Delivered | State::Filtered => {}
            _ if named.is_some_and(|times| times > 0) => find(What::ReceivedAlready, ""),
            _ => {}
        }
        if *state == State::Delivered && self.asked.as_ref() == Some(destination) {
            let gone: Vec<_> =
                traced.written.iter().filter(|name| missing.contains(*name)).cloned().collect();
            if traced.written.is_empty() {
                find(What::NotAsked, "");
            } else if !gone.is_empty() {
                find(What::NotHeld, &gone.join(", "));
            }
        }
    }
}

/// What a state is to somebody who wants everything done.
fn waits(state: State) -> Option<What> {
    match state {
        State::Delivered | State::Filtered => None,
        State::Ready => Some(What::Ready),
        State::Retrying => Some(What::Retrying),
        State::Parked => Some(What::Parked),
        State::Held => Some(What::Held),
        State::Dead => Some(What::Dead),
    }
}

/// Of several copies of one message the one that came farthest counts.
fn rank(state: State) -> u8 {
    match state {
        State::Delivered => 0,
        State::Filtered => 1,
        State::Ready | State::Retrying => 2,
        State::Parked | State::Held => 3,
        State::Dead => 4,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A message with its content and deliveries `(destination, state)`.
    fn message(sequence: i64, content: &str, deliveries: &[(&str, &str)]) -> Value {
        let deliveries: Vec<_> = deliveries
            .iter()
            .map(|(destination, state)| {
                json!({"route": "adt", "destination": destination, "state": state, "at": null, "attempts": 1,
                       "first_attempt": null, "revision": "", "reason": "why", "class": null,
                       "written": ["Patient/1"]})
            })
            .collect();
        let quarantine = if deliveries.is_empty() { json!("no route takes it") } else { Value::Null };
        json!({"sequence": sequence, "received": "2026-03-01T12:00:00Z", "listener": "hospital", "peer": "",
               "control_id": "A", "trigger": "", "sending_application": "", "sending_facility": "", "size_bytes": 1,
               "sha256": content, "quarantine": quarantine, "flag": null, "deliveries": deliveries})
    }

    fn judged(question: &Question, times: u32, messages: &[Value], missing: &[&str]) -> Vec<What> {
        let trace = serde_json::from_value(json!({"control_id": "A", "messages": messages})).unwrap();
        let missing = missing.iter().map(|name| (*name).to_owned()).collect();
        let judgement = question.judge(&trace, times, &missing);
        judgement.findings.iter().map(|finding| finding.finding).collect()
    }

    #[test]
    fn each_way_to_be_missing_has_its_name() {
        use What::*;
        let plain = Question::default();
        let one = |deliveries: &[(&str, &str)]| judged(&plain, 1, &[message(1, "x", deliveries)], &[]);
        assert_eq!(judged(&plain, 1, &[], &[]), [NeverArrived]);
        assert_eq!(one(&[]), [Quarantined]);
        assert_eq!(one(&[("r", "delivered"), ("s", "filtered")]), []);
        assert_eq!(one(&[("r", "delivered"), ("s", "dead")]), [Dead]);
        assert_eq!(one(&[("r", "ready")]), [Ready]);
        assert_eq!(one(&[("r", "retrying")]), [Retrying]);
        assert_eq!(one(&[("r", "parked")]), [Parked]);
        assert_eq!(one(&[("r", "held")]), [Held]);
        let other_day =
            Question { since: Some("2026-03-02T00:00:00Z".parse().unwrap()), ..Question::default() };
        assert_eq!(judged(&other_day, 1, &[message(1, "x", &[("r", "delivered")])], &[]), [NeverArrived]);
    }

    #[test]
    fn repeats_are_noted_and_excuse_nothing_but_their_own_content() {
        use What::*;
        let plain = Question::default();
        let (done, dead) = ([("r", "delivered")], [("r", "dead")]);
        let again = [message(2, "x", &dead), message(1, "x", &done)];
        assert_eq!(judged(&plain, 1, &again, &[]), [ArrivedAgain], "the first was delivered");
        let other = [message(2, "y", &dead), message(1, "x", &done)];
        assert_eq!(judged(&plain, 1, &other, &[]), [DifferentContent, Dead], "this was not");
        let mended = [message(2, "x", &done), message(1, "part", &[])];
        assert_eq!(judged(&plain, 1, &mended, &[]), [], "sent again whole after it had come in part");
    }

    #[test]
    fn h1_a_message_less_than_the_list_names_is_a_loss() {
        use What::*;
        let (days, log) = (Question::default(), Question { transmissions: true, ..Question::default() });
        let done = [("r", "delivered")];
        let one = [message(1, "monday", &done)];
        assert_eq!(judged(&days, 2, &one, &[]), [FewerArrived], "a counter that begins anew each day");
        assert_eq!(judged(&log, 2, &one, &[]), [SentAgain], "sent again after its acknowledgement was lost");
        let both = [message(2, "tuesday", &done), message(1, "monday", &done)];
        assert_eq!(judged(&days, 2, &both, &[]), [SentAgain, DifferentContent]);
        assert_eq!(judged(&days, 3, &both, &[]), [FewerArrived, DifferentContent]);
        let again = [message(2, "monday", &done), message(1, "monday", &done)];
        assert_eq!(judged(&days, 2, &again, &[]), [FewerArrived, ArrivedAgain], "two copies are one message");
        let refused = [message(2, "tuesday", &[]), message(1, "monday", &done)];
        assert_eq!(judged(&days, 2, &refused, &[]), [Quarantined, SentAgain]);
        assert_eq!(judged(&days, 3, &refused, &[]), [Quarantined, FewerArrived]);
        assert_eq!(judged(&log, 2, &refused, &[]), [SentAgain], "it came in part, then whole");
        assert_eq!(judged(&days, 2, &[], &[]), [NeverArrived]);
        let trace = serde_json::from_value(json!({"control_id": "A", "messages": one})).unwrap();
        let judgement = days.judge(&trace, 2, &BTreeSet::new());
        assert_eq!(judgement.findings[0].reason, "named 2 times, 1 arrived");
        assert!(!judgement.is_accounted_for() && log.judge(&trace, 2, &BTreeSet::new()).is_accounted_for());
    }

    #[test]
    fn h1_what_was_not_looked_at_is_not_accounted_for() {
        let messages = [message(1, "x", &[("r", "delivered")])];
        let trace =
            serde_json::from_value(json!({"control_id": "A", "messages": messages, "cut": true})).unwrap();
        let judged = |question: Question| question.judge(&trace, 1, &BTreeSet::new());
        let all = judged(Question::default());
        assert_eq!(all.findings.iter().map(|one| one.finding).collect::<Vec<_>>(), [What::NotAllSeen]);
        assert!(!all.is_accounted_for() && all.findings[0].reason.contains("100"), "{all:?}");
        // What is older than the oldest that was looked at is not asked about.
        let since = Some("2026-03-01T12:00:01Z".parse().unwrap());
        let later = judged(Question { since, ..Question::default() });
        assert_eq!(later.findings.iter().map(|one| one.finding).collect::<Vec<_>>(), [What::NeverArrived]);
    }

    #[test]
    fn receivers_are_believed_more_than_the_journal() {
        use What::*;
        let list = |text: &str| {
            let received = [("r".to_owned(), List::of(text))].into();
            Question { received, ..Question::default() }
        };
        let done = [message(1, "x", &[("r", "delivered"), ("other", "delivered")])];
        assert_eq!(judged(&list("A"), 1, &done, &[]), []);
        assert_eq!(judged(&list("B"), 1, &done, &[]), [NotReceived]);
        assert_eq!(judged(&list("A\nA"), 1, &done, &[]), [ReceivedAgain]);
        let waits = [message(1, "x", &[("r", "retrying")])];
        assert_eq!(judged(&list("A"), 1, &waits, &[]), [Retrying, ReceivedAlready]);
        let asked = Question { asked: Some("r".to_owned()), ..Question::default() };
        assert_eq!(judged(&asked, 1, &done, &["Patient/2"]), []);
        assert_eq!(judged(&asked, 1, &done, &["Patient/1"]), [NotHeld]);
    }
}

//! What the journal can be asked, and what it answers.
//!
//! Not here: how a store finds it (the stores).

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    DeliveryId, Entry, Keys, Sequence, State,
    codec::{Flaw, Hash},
};
use crate::connector::{ErrorClass, Payload};

/// How far the journal is. Changes after every commit that adds work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tip {
    /// The highest sequence committed.
    pub last: Sequence,
    /// Rises whenever a person's decision has changed deliveries at lower sequences.
    pub requeued: u64,
}

/// The bytes of a delivery.
#[derive(Debug, Clone)]
pub struct Work {
    /// The message.
    pub entry: Entry,
    /// What was made of it before: set only for a delivery that is retrying and had an output.
    pub output: Option<Output>,
    /// An attempt at it has begun of which no end is known ([`BEING_SENT`](super::BEING_SENT)).
    pub being_sent: bool,
}

/// What a mapping made once, to be sent again as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// What to send.
    pub payloads: Vec<Payload>,
    /// The revision that made it.
    pub revision: String,
}

/// A stored body that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message {}{}", .sequence.0, told(*.flaw))]
pub struct Damage {
    /// The message.
    pub sequence: Sequence,
    /// What is wrong.
    pub flaw: Flaw,
}

fn told(flaw: Flaw) -> String {
    match flaw {
        Flaw::Removed => " has no bytes any more: retention has removed them".to_owned(),
        Flaw::Missing => " is not in the journal".to_owned(),
        Flaw::Unreadable | Flaw::Altered => format!(" in the journal is damaged: {flaw}"),
    }
}

/// A message as retention looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aged {
    /// Its place.
    pub sequence: Sequence,
    /// When it was received.
    pub received: Timestamp,
    /// It is in quarantine.
    pub quarantined: bool,
    /// A delivery of it is unfinished.
    pub unfinished: bool,
    /// Stored bytes of its body; 0 once it was removed.
    pub body_bytes: u64,
    /// The routes of its deliveries that have ended or failed, and where these stand.
    pub deliveries: Vec<(String, State)>,
}

/// A message without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its place.
    pub sequence: Sequence,
    /// When it was received.
    pub received: Timestamp,
    /// The listener's name.
    pub listener: String,
    /// Who sent it.
    pub peer: String,
    /// What it can be found by.
    pub keys: Keys,
    /// Length of the message.
    pub size_bytes: usize,
    /// SHA-256 of the bytes.
    pub hash: [u8; 32],
    /// Why it is in quarantine, if it is.
    pub quarantine: Option<String>,
    /// A remark for a person.
    pub flag: Option<String>,
}

/// A delivery as it stands, ended or not.
#[derive(Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Which delivery.
    pub id: DeliveryId,
    /// Where it stands.
    pub state: State,
    /// The lanes it stands or stood in.
    pub lanes: Vec<String>,
    /// When it ended or last failed; none if it was never attempted.
    pub at: Option<Timestamp>,
    /// Attempts made.
    pub attempts: u32,
    /// When the first attempt was made.
    pub first_attempt: Option<Timestamp>,
    /// The revision that made the output; empty if none did.
    pub revision: String,
    /// What the receiver answered, or why it failed or was filtered.
    pub reason: String,
    /// How the last failure was classed.
    pub class: Option<ErrorClass>,
}

/// A delivery with the bytes that were sent and answered: patient data.
#[derive(Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What was sent.
    pub output: Vec<Payload>,
    /// What the receiver said in full.
    pub detail: Option<Bytes>,
}

/// Which messages a search means. What is not set matches all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'a> {
    /// Received at or after this time.
    pub since: Option<Timestamp>,
    /// Received before this time.
    pub until: Option<Timestamp>,
    /// The listener's name.
    pub listener: Option<&'a str>,
    /// MSH-9 as `ADT^A01`.
    pub trigger: Option<&'a str>,
    /// Only messages in quarantine.
    pub quarantined: bool,
    /// What it has.
    pub key: Option<Key<'a>>,
    /// With a delivery of this route; the same delivery must be to `destination` and stand in `state`.
    pub route: Option<&'a str>,
    /// With a delivery to this destination.
    pub destination: Option<&'a str>,
    /// With a delivery that stands so.
    pub state: Option<State>,
}

/// A part of what a search finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The newest first.
    pub messages: Vec<Summary>,
    /// Go on with what is before this; none if everything has been looked at.
    pub next: Option<Sequence>,
}

/// What makes a message a repeat of another: where it came from, its control id and its content.
#[derive(Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Its place; of a message that is not stored yet, 0.
    pub sequence: Sequence,
    /// When it was received.
    pub received: Timestamp,
    /// The listener's name.
    pub listener: String,
    /// MSH-3, first component.
    pub sending_application: String,
    /// MSH-4, first component.
    pub sending_facility: String,
    /// MSH-10.
    pub control_id: String,
    /// SHA-256 of the bytes.
    pub hash: Hash,
}

impl Arrival {
    /// Whether it is the same message as one that is stored, was routed, and was received at that time or later.
    pub fn is_repeat_of(&self, stored: &Summary, since: Timestamp) -> bool {
        let Summary { listener, keys, hash, .. } = stored;
        stored.quarantine.is_none()
            && stored.received >= since
            && (&self.listener, &self.control_id, &self.hash) == (listener, &keys.control_id, hash)
            && (&self.sending_application, &self.sending_facility)
                == (&keys.sending_application, &keys.sending_facility)
    }
}

/// The routed messages with the source and control id of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Predecessors {
    /// The newest with the same content.
    pub copy: Option<Sequence>,
    /// The newest with other content.
    pub other: Option<Sequence>,
}

/// What a message can be found by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// MSH-10.
    ControlId(&'a str),
    /// The patient key of [`Keys::patient`].
    Patient(&'a str),
    /// The NHS number: ten digits.
    NhsNumber(&'a str),
    /// The patient's number at the sender.
    LocalNumber(&'a str),
    /// PV1-19.
    Visit(&'a str),
    /// A placer, filler or accession number.
    Order(&'a str),
}

impl<'a> Key<'a> {
    /// What is looked for.
    pub fn value(self) -> &'a str {
        match self {
            Self::ControlId(value)
            | Self::Patient(value)
            | Self::NhsNumber(value)
            | Self::LocalNumber(value)
            | Self::Visit(value)
            | Self::Order(value) => value,
        }
    }

    /// The same kind of key, of another value.
    #[must_use]
    pub fn with<'b>(self, value: &'b str) -> Key<'b> {
        match self {
            Self::ControlId(_) => Key::ControlId(value),
            Self::Patient(_) => Key::Patient(value),
            Self::NhsNumber(_) => Key::NhsNumber(value),
            Self::LocalNumber(_) => Key::LocalNumber(value),
            Self::Visit(_) => Key::Visit(value),
            Self::Order(_) => Key::Order(value),
        }
    }
}

/// How many deliveries of one destination stand in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The destination.
    pub destination: String,
    /// An unfinished state, or `Dead`.
    pub state: State,
    /// How many.
    pub deliveries: u64,
    /// When the message of the oldest of them was received.
    pub oldest: Option<Timestamp>,
}

/// The size of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// The highest sequence.
    pub last: Sequence,
    /// The lowest sequence still kept.
    pub first: Option<Sequence>,
    /// Messages.
    pub messages: u64,
    /// Messages in quarantine.
    pub quarantined: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of them that hold something.
    pub used_bytes: u64,
    /// Messages that are not in the search index yet: a search reads them one by one.
    pub search_behind: u64,
}

/// Which deliveries are meant. What is not set matches all; `states` is never empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Where they stand: for a replay parked, held, dead, filtered or delivered; what is ready is never touched.
    pub states: Vec<State>,
    /// The destination's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The route's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// One message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// Messages with this MSH-10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_id: Option<String>,
    /// Messages after this place: where an earlier decision said to go on. A store is told by the `after` of its own
    /// `select`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Sequence>,
}

/// What a person decides about deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They are done again from the beginning: mapped anew by the live revision, in their old place in their lanes.
    Replay,
    /// What is parked or held goes on: sent again as it was made, or mapped if nothing was made.
    Release,
    /// What is retrying, parked or held becomes a dead letter; its lanes go on.
    Skip,
}

/// A person's request to make a [`Decision`] about deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requeue {
    /// Which.
    pub filter: Filter,
    /// At most so many, the oldest first; the deliveries of one message are not divided.
    pub limit: usize,
    /// Only say which.
    pub dry_run: bool,
    /// Who asks.
    pub who: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// What a [`Decision`] did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requeued {
    /// How many deliveries match (and were changed, if this was no dry run).
    pub deliveries: u64,
    /// The first of them, at most a hundred.
    pub first: Vec<DeliveryId>,
    /// How many match, but cannot be done again: retention has removed the bytes of their messages.
    pub without_bytes: u64,
    /// The limit was reached and there are more, after this place.
    pub more_after: Option<Sequence>,
}

/// A delivery that waits for its next attempt or for a person, and what waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The delivery: retrying, parked or held.
    pub delivery: DeliveryRecord,
    /// Deliveries behind it in its lanes.
    pub behind: u64,
}

/// What waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingList {
    /// The oldest first.
    pub lanes: Vec<Waiting>,
    /// There are no others.
    pub complete: bool,
    /// If not, `behind` is a lower bound: too much is unfinished to count it all.
    pub counted_all: bool,
}

/// One line of the audit: who decided what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// When.
    pub at: Timestamp,
    /// What: `replay`, `release`, `skip`, `prune`, …
    pub action: String,
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// The filter, as JSON.
    pub asked: String,
    /// How many deliveries it changed.
    pub deliveries: u64,
}

//! The journal: the durable record of every message and of what became of it.
//!
//! In:       accepted bytes and the outcomes of deliveries.
//! Out:      what is unfinished, in order; everything else by search.
//! Promise:  P1, P7. A call that changes something returns after its transaction is committed and synced.
//!           What has come meanwhile is gathered into one transaction, by a committer or by whoever finds nobody at it.
//!           A failed sync is never retried: the journal is then closed and the engine must stop.
//! Not here: what a message means (hl7), who gets it (routing), how (delivery).

pub mod blob;
pub mod body;
mod changes;
pub mod codec;
mod committer;
mod company;
#[cfg(test)]
pub(crate) mod conformance;
mod counters;
mod debug;
mod decisions;
mod demand;
mod handle;
mod here;
mod identifiers;
mod loading;
mod location;
mod packed;
pub mod postgres;
mod queue;
mod readings;
mod recent;
mod retention;
mod rows;
pub mod sqlite;
pub mod store;
#[cfg(test)]
pub(crate) mod tests;
mod turn;

use bytes::Bytes;
use jiff::Timestamp;

pub use changes::Changes;
pub use demand::Demand;
pub use handle::{BEING_SENT, Journal, NEWEST, PAUSED};
pub use identifiers::{Identifiers, StartError};
pub use location::{Location, OpenError};
pub use readings::{
    Aged, Arrival, Audit, Count, Damage, Decision, DeliveryRecord, Exchange, Filter, Key, Output, Page,
    Predecessors, Query, Requeue, Requeued, Stats, Summary, Tip, Waiting, WaitingList, Work,
};

pub use retention::{Ages, Retention};

use crate::connector::{ErrorClass, Payload};

/// A message's place in the journal: rising, never used twice, not necessarily without gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub struct Sequence(pub i64);

/// What intake hands to the journal.
#[derive(Clone)]
pub struct NewMessage {
    /// When the last byte was read.
    pub received: Timestamp,
    /// The listener's name.
    pub listener: String,
    /// Who sent it.
    pub peer: String,
    /// The exact bytes.
    pub raw: Bytes,
    /// What it can be found by.
    pub keys: Keys,
    /// A remark for a person, such as `same control id as message 41, other content`; without patient data.
    pub flag: Option<String>,
    /// What is to become of it.
    pub disposition: Disposition,
}

/// What a message can be found by; taken at intake, before any mapping. Empty where the message has none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// MSH-10.
    pub control_id: String,
    /// MSH-9 as `ADT^A01`.
    pub trigger: String,
    /// MSH-3, first component.
    pub sending_application: String,
    /// MSH-4, first component.
    pub sending_facility: String,
    /// The key that orders one patient's messages: assigning authority and identifier.
    pub patient: String,
    /// The patient's NHS number: ten digits.
    pub nhs_number: String,
    /// The patient's number at the sender, as the sender writes it.
    pub local_number: String,
    /// PV1-19.
    pub visit: String,
    /// Placer, filler and accession numbers, each once.
    pub orders: Vec<String>,
}

/// What is to become of an accepted message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// To be delivered; at least one delivery.
    Routed(Vec<NewDelivery>),
    /// Kept for a person: no parser or no route could take it.
    Quarantined {
        /// Why, without patient data.
        reason: String,
    },
}

/// One delivery that an accepted message owes.
#[derive(Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// The route's name.
    pub route: String,
    /// The destination's name.
    pub destination: String,
    /// The lanes it stands in, at least one: two for a merge, which orders both identities.
    pub lanes: Vec<String>,
}

/// Names one delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// The message.
    pub sequence: Sequence,
    /// The route.
    pub route: String,
    /// The destination.
    pub destination: String,
}

/// Where a delivery stands. The first four are unfinished, the last three are the only ends there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not attempted yet.
    Ready,
    /// Failed, and will be attempted again by itself.
    Retrying,
    /// Its lane waits for a person because of it.
    Parked,
    /// It waits for a person; its lane too.
    Held,
    /// The mapping decided that it is not for this destination.
    Filtered,
    /// The destination has taken it.
    Delivered,
    /// Set aside for a person: a dead letter.
    Dead,
}

impl State {
    /// Every state, in travelling order.
    pub const ALL: [Self; 7] =
        [Self::Ready, Self::Retrying, Self::Parked, Self::Held, Self::Filtered, Self::Delivered, Self::Dead];

    /// Whether nothing more will happen by itself or is owed.
    pub fn is_end(self) -> bool {
        match self {
            Self::Ready | Self::Retrying | Self::Parked | Self::Held => false,
            Self::Filtered | Self::Delivered | Self::Dead => true,
        }
    }

    /// The word for metrics, pages and people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Held => "held",
            Self::Filtered => "filtered",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

/// What became of a delivery, or of one attempt at it.
#[derive(Clone)]
pub struct Outcome {
    /// Which delivery.
    pub id: DeliveryId,
    /// Where it stands now; never `Ready`.
    pub state: State,
    /// When this was known.
    pub at: Timestamp,
    /// Attempts made so far.
    pub attempts: u32,
    /// When the first attempt was made.
    pub first_attempt: Option<Timestamp>,
    /// What was sent or is to be sent again; none if no mapping made anything.
    pub output: Vec<Payload>,
    /// The exact bytes of the message: a long output lies beside them, since it holds most of them again.
    pub message: Bytes,
    /// The revision whose mapping made the output.
    pub revision: String,
    /// What the receiver answered, or why it failed or was filtered; without patient data.
    pub reason: String,
    /// How a failure was classed.
    pub class: Option<ErrorClass>,
    /// What the receiver said in full.
    pub detail: Option<Bytes>,
}

/// An unfinished delivery, as lanes need it: without the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Pending {
    /// Which delivery.
    pub id: DeliveryId,
    /// The lanes it stands in.
    pub lanes: Vec<String>,
    /// When the message was received.
    pub received: Timestamp,
    /// Where it stands.
    pub state: State,
    /// Attempts made so far.
    pub attempts: u32,
    /// When the first attempt was made.
    pub first_attempt: Option<Timestamp>,
}

/// A message as the road needs it.
#[derive(Clone)]
pub struct Entry {
    /// Its place.
    pub sequence: Sequence,
    /// When it was received.
    pub received: Timestamp,
    /// The listener's name.
    pub listener: String,
    /// MSH-10.
    pub control_id: String,
    /// The exact bytes.
    pub raw: Bytes,
}

/// Why the journal did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// Nothing can be made durable any more: the engine must stop and recover by restart.
    #[error("the journal is closed: {0}")]
    Closed(String),
    /// A reading failed; the next may not.
    #[error("the journal could not be read: {0}")]
    Read(String),
    /// Bytes that were asked for are not what was written.
    #[error("{0}")]
    Damaged(Damage),
}

//! The contract that a store of the journal fills: SQLite and PostgreSQL.
//!
//! Promise:  a store's `commit` is one transaction: when it returns `Ok` all of the batch is on stable storage, and
//!           when it returns `Err` the journal never calls it again. Sequences rise in the order of the batch.
//! Not here: packing, grouping, closing (body.rs, blob.rs, committer.rs), which are the same for every store.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    Arrival, Count, DeliveryId, DeliveryRecord, Disposition, Keys, Page, Pending, Predecessors, Query,
    Sequence, State, Stats, Summary,
    blob::Blob,
    body::Body,
    codec::Flaw,
    readings::{Aged, Audit, Filter},
};
use crate::connector::ErrorClass;

/// What a store is asked to make durable.
#[derive(Debug)]
pub enum Change {
    /// A message and the deliveries it owes.
    Append(Box<Append>),
    /// What became of a delivery. A delivery that is not pending has its one outcome already: nothing changes.
    Record(Record),
    /// Deliveries to be done again. One that is ready or retrying is left alone.
    Requeue(Chosen),
    /// Parked and held deliveries that go on as they were made: they become `Retrying`, with no attempt counted and
    /// their output kept. Others are left alone.
    Release(Chosen),
    /// Retrying, parked and held deliveries that become dead letters at the audit's time, with its `why` as the reason;
    /// output and answer are kept. Others are left alone.
    Skip(Chosen),
    /// What holds for the whole journal from now on, by its name; nothing takes it away.
    Note(&'static str, Option<String>, Option<Audit>),
}

impl Change {
    /// Packed bytes held in memory until the commit.
    pub fn bytes(&self) -> usize {
        let length = |blob: &Option<Blob>| blob.as_ref().map_or(0, Blob::stored_bytes);
        match self {
            Self::Append(append) => append.body.packed.len(),
            Self::Record(record) => length(&record.output) + length(&record.detail),
            Self::Requeue(chosen) | Self::Release(chosen) | Self::Skip(chosen) => {
                chosen.ids.len() * size_of::<DeliveryId>()
            }
            Self::Note(_, value, _) => value.as_ref().map_or(0, String::len),
        }
    }
}

/// What a person decides about.
#[derive(Debug)]
pub struct Chosen {
    /// The deliveries.
    pub ids: Vec<DeliveryId>,
    /// Where they stood when they were chosen. One that stands elsewhere when this becomes durable is left alone: it
    /// was delivered meanwhile, or somebody else has decided about it.
    pub states: Vec<State>,
    /// Who decides, why, when.
    pub audit: Audit,
}

/// A message, packed.
#[derive(Debug)]
pub struct Append {
    /// When the last byte was read.
    pub received: Timestamp,
    /// The listener's name.
    pub listener: String,
    /// Who sent it.
    pub peer: String,
    /// What it can be found by.
    pub keys: Keys,
    /// A remark for a person.
    pub flag: Option<String>,
    /// What is to become of it.
    pub disposition: Disposition,
    /// The bytes.
    pub body: Body,
}

/// An outcome, packed. The fields are those of [`super::Outcome`].
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Record {
    pub id: DeliveryId,
    pub state: State,
    pub at: Timestamp,
    pub attempts: u32,
    pub first_attempt: Option<Timestamp>,
    pub revision: String,
    pub reason: String,
    pub class: Option<ErrorClass>,
    pub output: Option<Blob>,
    pub detail: Option<Blob>,
}

/// What a commit gave to its changes, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The message's place.
    Appended(Sequence),
    /// Whether the delivery was pending, so that this is now where it stands.
    Recorded(bool),
    /// How many deliveries a person's decision (requeue, release, skip) has changed.
    Requeued(u64),
    /// It holds.
    Noted,
}

/// What retention removes in one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prune {
    /// Messages that lose their bytes, and what was sent and answered.
    pub bodies: Vec<Sequence>,
    /// Messages that go with everything.
    pub messages: Vec<Sequence>,
}

impl Prune {
    /// Whether nothing is to be removed.
    pub fn is_empty(&self) -> bool {
        self.bodies.is_empty() && self.messages.is_empty()
    }
}

/// What retention has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Messages that lost their bytes.
    pub bodies: u64,
    /// Messages that went.
    pub messages: u64,
}

impl std::ops::AddAssign for Pruned {
    fn add_assign(&mut self, more: Self) {
        self.bodies += more.bodies;
        self.messages += more.messages;
    }
}

/// A message as it lies in a store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// All but the bytes.
    pub summary: Summary,
    /// The bytes; `Removed` if retention took them, `Unreadable` if the store cannot tell how they were packed.
    pub body: Result<Body, Flaw>,
}

/// What a store knows of a delivery that is to be attempted or shown.
#[derive(Debug, Clone)]
pub struct StoredDelivery {
    /// Which.
    pub id: DeliveryId,
    /// Where it stands.
    pub state: State,
    /// The revision of the output.
    pub revision: String,
    /// What was made.
    pub output: Option<Blob>,
    /// What was answered.
    pub detail: Option<Blob>,
    /// What was last said of it.
    pub reason: String,
}

/// Why a store could not do what was asked. The text names no value of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    what: String,
    of_the_data: bool,
}

impl StoreError {
    /// Nothing is said about what lies in the store: it may well be read another time.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), of_the_data: false }
    }

    /// What was asked for lies there so that it cannot be read, unless nothing can.
    pub fn unreadable(what: impl Into<String>) -> Self {
        Self { what: what.into(), of_the_data: true }
    }

    /// Whether it can be a fault of the very data that were asked for.
    pub fn is_of_the_data(&self) -> bool {
        self.of_the_data
    }
}

/// Where the journal lies. What changes it (`commit`, `commit_here`, `maintain`, `prune`, `reclaim`, `close`) is never called twice
/// at a time; every other method only reads, and may run beside it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes the whole batch durable, or nothing of it. Never called twice at a time.
    async fn commit(&self, batch: Vec<Change>) -> Result<Vec<Committed>, StoreError>;

    /// Whether `commit_here` may be called now: a commit waits for nobody but a disk of this machine, and there is nothing to
    /// be maintained after the last. Asked by nobody while another changes something.
    fn is_at_hand(&self) -> bool {
        false
    }

    /// The same as `commit`, on the thread that asks. Nothing is maintained after it.
    fn commit_here(&self, _batch: Vec<Change>) -> Result<Vec<Committed>, StoreError> {
        Err(StoreError::new("the store is not at hand"))
    }

    /// Called after every commit has been answered, for what need not be in it, such as checkpoints. An error
    /// closes the journal, as one of `commit` does.
    async fn maintain(&self) -> Result<(), StoreError>;

    /// How long `maintain` may stay away while nothing is handed in: a store that can be lost unseen looks after itself
    /// then. None, as for a file at hand: for ever.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Removes messages or their bytes in one short transaction, but nothing of a message that has an unfinished
    /// delivery at that moment. Called by the committer between two commits; an error closes the journal.
    async fn prune(&self, prune: Prune) -> Result<Pruned, StoreError>;

    /// Gives space of what was removed back to the disk, in one short step; says whether there is more to do. Called
    /// and failing like `prune`.
    async fn reclaim(&self) -> Result<bool, StoreError>;

    /// Lets go of everything, after the last commit.
    async fn close(&self);

    /// The highest sequence ever given.
    async fn last(&self) -> Result<Sequence, StoreError>;

    /// Unfinished deliveries of a destination after a sequence, in order of sequence and route. At most `limit`, but
    /// the deliveries of one message are never torn apart.
    async fn pending(
        &self,
        destination: &str,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<Pending>, StoreError>;

    /// Messages with their bytes, in any order; one that does not exist is left out. Of the lowest sequences, as many as
    /// have so many bytes together and the one with which they are more.
    async fn messages(&self, sequences: &[Sequence], most_bytes: usize) -> Result<Vec<Stored>, StoreError>;

    /// What is known of deliveries that have ended or failed, in any order; others are left out.
    async fn outputs(&self, ids: &[DeliveryId]) -> Result<Vec<StoredDelivery>, StoreError>;

    /// One message without its bytes.
    async fn summary(&self, sequence: Sequence) -> Result<Option<Summary>, StoreError>;

    /// Messages that a query takes, of a lower sequence than `before`, the newest first, at most `limit`. A store looks
    /// at a bounded number of messages in one call and says where to go on.
    async fn search(&self, query: &Query<'_>, before: Sequence, limit: usize) -> Result<Page, StoreError>;

    /// Routed messages below a sequence, the newest first: what repeats are recognised by after a start.
    async fn arrivals(&self, before: Sequence, limit: usize) -> Result<Vec<Arrival>, StoreError>;

    /// The routed messages below a sequence, received at a time or later, that have the listener, MSH-3, MSH-4 and
    /// MSH-10 of another.
    async fn earlier(
        &self,
        arrival: &Arrival,
        since: Timestamp,
        before: Sequence,
    ) -> Result<Predecessors, StoreError>;

    /// Every delivery of a message, pending and ended, by destination and route.
    async fn deliveries(&self, sequence: Sequence) -> Result<Vec<DeliveryRecord>, StoreError>;

    /// Deliveries that a filter takes, of messages after a sequence, the oldest first.
    async fn select(
        &self,
        filter: &Filter,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError>;

    /// Messages in quarantine after a sequence, the oldest first.
    async fn quarantine(&self, after: Sequence, limit: usize) -> Result<Vec<Summary>, StoreError>;

    /// What persons have decided, the newest first.
    async fn audit(&self, limit: usize) -> Result<Vec<Audit>, StoreError>;

    /// Deliveries by destination and state, for unfinished states and `Dead`. Cheap: asked every second.
    async fn counts(&self) -> Result<Vec<Count>, StoreError>;

    /// Messages after a sequence as retention looks at them, the oldest first; on demand only those with bytes.
    async fn aged(&self, after: Sequence, with_body: bool, limit: usize) -> Result<Vec<Aged>, StoreError>;

    /// Which of these messages have no bytes any more.
    async fn removed(&self, sequences: &[Sequence]) -> Result<Vec<Sequence>, StoreError>;

    /// What was last noted under a name.
    async fn note(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Sizes.
    async fn stats(&self) -> Result<Stats, StoreError>;
}

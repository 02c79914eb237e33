//! [`Journal`]: the handle that the rest of the engine uses.
//!
//! Promise:  P1. `append` and `record` return after their commit. Bodies are packed on the way in and
//!           verified on the way out, the same for every store.
//! Not here: what a person decides (decisions.rs), grouping (committer.rs), storing (store.rs and the stores).

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    Arrival, Audit, Count, Damage, DeliveryRecord, Disposition, Entry, Filter, JournalError, Key, NewMessage,
    Outcome, Page, Pending, Predecessors, Query, Sequence, State, Stats, Summary, Tip,
    blob::Blob,
    body::Body,
    changes::{Changes, Watched},
    committer::Committer,
    demand::Demand,
    identifiers::{Identifiers, StartError},
    packed::Packed,
    recent::Recent,
    store::{Append, Change, Committed, Record, Store, StoreError},
};
use crate::metrics::Metrics;

/// Beyond every message: where a search begins.
pub const NEWEST: Sequence = Sequence(i64::MAX);
/// What is said of a retrying delivery while an attempt is under way that may not be repeated. Where it still stands when
/// the next attempt begins, nobody knows how that one ended.
pub const BEING_SENT: &str = "being sent";
/// Unfinished deliveries in one reading that looks for one of them.
const WAITING_PAGE: usize = 1000;
/// The note that says why nothing is delivered.
pub const PAUSED: &str = "paused";

/// The journal. Cheap to clone; the last handle gone, the store is closed.
#[derive(Clone)]
pub struct Journal {
    pub(super) store: Arc<dyn Store>,
    pub(super) committer: Committer,
    pub(super) watched: Arc<Watched>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) recent: Arc<Recent>,
    identifiers: Identifiers,
    packed: Arc<Packed>,
    paused: Arc<watch::Sender<Option<String>>>,
}

impl Journal {
    /// Starts the committer over an open store.
    ///
    /// # Errors
    /// When the store cannot be read, or deliveries wait that came under another key for identifiers.
    pub async fn start(
        store: Arc<dyn Store>,
        identifiers: Identifiers,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let (last, paused) = match Self::look(&store, &identifiers).await {
            Ok(found) => found,
            Err(error) => {
                // Nobody else will, and the next start would find it open.
                store.close().await;
                return Err(error);
            }
        };
        let tip = Tip { last, requeued: 0 };
        let paused = Arc::new(watch::Sender::new(paused));
        let (watched, packed) = Default::default();
        let recent = Arc::new(Recent::default());
        let demand = Demand::default();
        let committer = Committer::start(store.clone(), tip, recent.clone(), metrics.clone(), demand);
        Ok(Self { store, committer, watched, metrics, recent, identifiers, packed, paused })
    }

    /// The newest message, and why nothing is delivered.
    async fn look(
        store: &Arc<dyn Store>,
        identifiers: &Identifiers,
    ) -> Result<(Sequence, Option<String>), StartError> {
        identifiers.settle(store).await?;
        Ok((store.last().await?, store.note(PAUSED).await?))
    }

    /// Makes a message and the deliveries it owes durable. A message that owes none goes to quarantine.
    ///
    /// # Errors
    /// `Closed`: the message must not be acknowledged.
    pub async fn append(&self, message: NewMessage) -> Result<Sequence, JournalError> {
        let began = Instant::now();
        let (append, arrived) = self.to_append(message).await;
        let answered = self.committer.submit_alone(append, arrived).await?;
        let sequence = sequence(self.committer.answer(answered).await?)?;
        self.metrics.append_seconds(began.elapsed().as_secs_f64());
        Ok(sequence)
    }

    /// Makes several messages durable, in their order.
    ///
    /// # Errors
    /// `Closed`: none of them may be acknowledged, though some may have been stored.
    pub async fn append_all(&self, mut messages: Vec<NewMessage>) -> Result<Vec<Sequence>, JournalError> {
        if messages.len() == 1
            && let Some(message) = messages.pop()
        {
            return Ok(vec![self.append(message).await?]);
        }
        let began = Instant::now();
        let mut answers = Vec::with_capacity(messages.len());
        for message in messages {
            let (append, arrived) = self.to_append(message).await;
            answers.push(self.committer.submit(append, arrived).await?);
        }
        let mut sequences = Vec::with_capacity(answers.len());
        for answer in answers {
            sequences.push(sequence(self.committer.answer(answer).await?)?);
            self.metrics.append_seconds(began.elapsed().as_secs_f64());
        }
        Ok(sequences)
    }

    /// What is to be stored, and what is wanted of it at once.
    async fn to_append(&self, message: NewMessage) -> (Change, Option<Entry>) {
        let NewMessage { received, listener, peer, raw, keys, flag, disposition } = message;
        let keys = self.identifiers.of_message(keys);
        let arrived = matches!(disposition, Disposition::Routed(_)).then(|| Entry {
            sequence: Sequence::default(),
            received,
            listener: listener.clone(),
            control_id: keys.control_id.clone(),
            raw: raw.clone(),
        });
        let body = Body::pack_async(raw).await;
        let disposition = self.identifiers.of_lanes(sound(disposition));
        let append = Append { received, listener, peer, keys, flag, disposition, body };
        (Change::Append(Box::new(append)), arrived)
    }

    /// Makes an outcome durable, and says whether the delivery was pending. One that is not has had its outcome, or a
    /// person has set it aside meanwhile: nothing changes then, and nothing more is to be done about it.
    ///
    /// # Errors
    /// `Closed`: the lane must not move on.
    pub async fn record(&self, outcome: Outcome) -> Result<bool, JournalError> {
        let Outcome {
            id,
            state,
            at,
            attempts,
            first_attempt,
            output,
            message,
            revision,
            reason,
            class,
            detail,
        } = outcome;
        let output = self.packed.of(output, message).await;
        let detail = match detail {
            None => None,
            Some(detail) => Some(Blob::pack_async(detail).await),
        };
        let record =
            Record { id, state, at, attempts, first_attempt, revision, reason, class, output, detail };
        let sequence = record.id.sequence;
        let committed = self.committer.commit(Change::Record(record)).await?;
        self.watched.tell(sequence);
        match committed {
            Committed::Recorded(pending) => {
                if !pending {
                    tracing::warn!(
                        sequence = sequence.0,
                        "an outcome came for a delivery that is not pending"
                    );
                }
                Ok(pending)
            }
            other => Err(mixed_up(other)),
        }
    }

    /// Unfinished deliveries of a destination after a sequence, in order. At most `limit`, but the deliveries of
    /// one message are never torn apart: ask on with the last sequence seen.
    ///
    /// # Errors
    /// `Read`.
    pub async fn pending(
        &self,
        destination: &str,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<Pending>, JournalError> {
        Ok(self.store.pending(destination, after, limit).await?)
    }

    /// One message without its bytes.
    ///
    /// # Errors
    /// `Read`.
    pub async fn message(&self, sequence: Sequence) -> Result<Option<Summary>, JournalError> {
        Ok(self.store.summary(sequence).await?)
    }

    /// Messages with a key, the newest first.
    ///
    /// # Errors
    /// `Read`.
    pub async fn find(&self, key: Key<'_>, limit: usize) -> Result<Vec<Summary>, JournalError> {
        let query = Query { key: Some(key), ..Query::default() };
        let mut found = Vec::new();
        let mut before = Some(NEWEST);
        while let Some(place) = before.filter(|_| found.len() < limit) {
            let page = self.search(&query, place, limit - found.len()).await?;
            found.extend(page.messages);
            before = page.next;
        }
        Ok(found)
    }

    /// Messages that a query takes, of a lower sequence than `before`, the newest first, at most `limit`. Looks at a
    /// bounded number of messages: there may be more from [`Page::next`] on, even if none is in this page.
    ///
    /// # Errors
    /// `Read`.
    pub async fn search(
        &self,
        query: &Query<'_>,
        before: Sequence,
        limit: usize,
    ) -> Result<Page, JournalError> {
        let text = query.key.map(|key| self.identifiers.of_key(key)).unwrap_or_default();
        let key = query.key.map(|key| key.with(&text));
        Ok(self.store.search(&Query { key, ..*query }, before, limit).await?)
    }

    /// What becomes of the deliveries of a message from now on.
    pub fn follow(&self, sequence: Sequence) -> Changes {
        self.watched.follow(sequence)
    }

    /// Routed messages below a sequence, the newest first.
    ///
    /// # Errors
    /// `Read`.
    pub async fn arrivals(&self, before: Sequence, limit: usize) -> Result<Vec<Arrival>, JournalError> {
        Ok(self.store.arrivals(before, limit).await?)
    }

    /// The routed messages below a sequence, received at a time or later, with the source and control id of another.
    ///
    /// # Errors
    /// `Read`.
    pub async fn earlier(
        &self,
        arrival: &Arrival,
        since: Timestamp,
        before: Sequence,
    ) -> Result<Predecessors, JournalError> {
        Ok(self.store.earlier(arrival, since, before).await?)
    }

    /// Every delivery of a message, pending and ended.
    ///
    /// # Errors
    /// `Read`.
    pub async fn deliveries(&self, sequence: Sequence) -> Result<Vec<DeliveryRecord>, JournalError> {
        Ok(self.store.deliveries(sequence).await?)
    }

    /// Dead letters of messages after a sequence, the oldest first.
    ///
    /// # Errors
    /// `Read`.
    pub async fn dead(&self, limit: usize, after: Sequence) -> Result<Vec<DeliveryRecord>, JournalError> {
        let filter = Filter { states: vec![State::Dead], ..Filter::default() };
        Ok(self.store.select(&filter, after, limit).await?)
    }

    /// Messages in quarantine after a sequence, the oldest first.
    ///
    /// # Errors
    /// `Read`.
    pub async fn quarantine(&self, limit: usize, after: Sequence) -> Result<Vec<Summary>, JournalError> {
        Ok(self.store.quarantine(after, limit).await?)
    }

    /// What persons have decided, the newest first.
    ///
    /// # Errors
    /// `Read`.
    pub async fn audit(&self, limit: usize) -> Result<Vec<Audit>, JournalError> {
        Ok(self.store.audit(limit).await?)
    }

    /// Whether a delivery of a route is unfinished, attempted or not, of a message up to a place.
    ///
    /// # Errors
    /// `Read`.
    pub async fn has_waiting(&self, route: &str, up_to: Sequence) -> Result<bool, JournalError> {
        let counts = self.store.counts().await?;
        let owed: BTreeSet<&str> = counts
            .iter()
            .filter(|count| !count.state.is_end() && count.deliveries > 0)
            .map(|count| count.destination.as_str())
            .collect();
        for destination in owed {
            let mut after = Some(Sequence(0));
            while let Some(place) = after {
                let page = self.store.pending(destination, place, WAITING_PAGE).await?;
                let mut early = page.iter().take_while(|one| one.id.sequence <= up_to);
                if early.any(|one| one.id.route == route) {
                    return Ok(true);
                }
                after = page.last().map(|last| last.id.sequence).filter(|last| *last < up_to);
            }
        }
        Ok(false)
    }

    /// What was last noted under a name.
    ///
    /// # Errors
    /// `Read`.
    pub async fn noted(&self, name: &'static str) -> Result<Option<String>, JournalError> {
        Ok(self.store.note(name).await?)
    }

    /// Notes something under a name.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn note(&self, name: &'static str, what: &str) -> Result<(), JournalError> {
        self.committer.commit(Change::Note(name, Some(what.to_owned()), None)).await.map(drop)
    }

    /// Why nothing is delivered, if that is so: a restored journal waits until a person lets it go on.
    pub fn paused(&self) -> Option<String> {
        self.paused.borrow().clone()
    }

    /// Resolves as soon as deliveries may be made.
    pub async fn resumed(&self) {
        // The sender lives as long as this handle.
        let _ = self.paused.subscribe().wait_for(Option::is_none).await;
    }

    /// Lets deliveries be made again; says whether they were paused.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn resume(&self, audit: Audit) -> Result<bool, JournalError> {
        let was_paused = self.paused().is_some();
        if was_paused {
            self.committer.commit(Change::Note(PAUSED, None, Some(audit))).await?;
            self.paused.send_replace(None);
        }
        Ok(was_paused)
    }

    /// Deliveries by destination and state, unfinished and dead, with the oldest of each. Cheap.
    ///
    /// # Errors
    /// `Read`.
    pub async fn counts(&self) -> Result<Vec<Count>, JournalError> {
        Ok(self.store.counts().await?)
    }

    /// The size of the journal.
    ///
    /// # Errors
    /// `Read`.
    pub async fn stats(&self) -> Result<Stats, JournalError> {
        Ok(self.store.stats().await?)
    }

    /// What the journal leaves the processors to: where much of it waits, it commits less often.
    pub fn demand(&self) -> Demand {
        self.committer.demand().clone()
    }

    /// How far the journal is, changing with every commit that adds work.
    pub fn watch(&self) -> watch::Receiver<Tip> {
        self.committer.tip()
    }

    /// Whether nothing can be made durable any more.
    pub fn is_closed(&self) -> bool {
        self.committer.is_closed()
    }

    /// Resolves with the reason when nothing can be made durable any more: the engine must stop then.
    pub async fn closed(&self) -> Arc<str> {
        self.committer.closed().await
    }

    /// Makes durable what was handed in before, then closes the store. Every later change gets `Closed`.
    pub async fn close(&self) {
        self.committer.close().await;
    }
}

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.to_string())
    }
}

impl From<Damage> for JournalError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

fn sequence(committed: Committed) -> Result<Sequence, JournalError> {
    match committed {
        Committed::Appended(sequence) => Ok(sequence),
        other => Err(mixed_up(other)),
    }
}

/// Nothing may be owed to nobody, and nothing twice: either would be a loss or break the whole transaction.
fn sound(disposition: Disposition) -> Disposition {
    match disposition {
        Disposition::Routed(mut deliveries) => {
            deliveries.sort_by(|one, other| {
                (&one.route, &one.destination).cmp(&(&other.route, &other.destination))
            });
            deliveries
                .dedup_by(|one, kept| (&one.route, &one.destination) == (&kept.route, &kept.destination));
            match deliveries.is_empty() {
                true => Disposition::Quarantined { reason: "no route takes this message".to_owned() },
                false => Disposition::Routed(deliveries),
            }
        }
        quarantined => quarantined,
    }
}

pub(super) fn mixed_up(committed: Committed) -> JournalError {
    JournalError::Closed(format!("the store has answered another question: {committed:?}"))
}

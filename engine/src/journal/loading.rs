//! What the journal gives back of what was put in: messages and outputs, whole.
//!
//! Promise:  P6: no more is read than there is room for. P7: what is damaged is told of its message, and harms no other.
//! Not here: what is known about messages without their bytes (handle.rs).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    BEING_SENT, Damage, DeliveryId, Entry, Exchange, Journal, JournalError, Output, Pending, Sequence, State,
    Summary, Work,
    blob::{self, Blob},
    codec::Flaw,
    store::{Stored, StoredDelivery},
};
use crate::connector::Payload;

impl Journal {
    /// The bytes of unfinished deliveries, which are given in the order of their messages: of the first ones, as many as
    /// come with messages of so many bytes together, but of one at least.
    ///
    /// # Errors
    /// `Read`. Damage is told for each delivery.
    pub async fn load(
        &self,
        pending: &[Pending],
        most_bytes: usize,
    ) -> Result<Vec<Result<Work, Damage>>, JournalError> {
        let mut sequences: Vec<_> = pending.iter().map(|pending| pending.id.sequence).collect();
        sequences.dedup();
        // What was never tried has no output yet.
        let tried = pending.iter().filter(|pending| pending.state == State::Retrying);
        let tried: Vec<DeliveryId> = tried.map(|pending| pending.id.clone()).collect();
        let (entries, outputs) =
            tokio::try_join!(self.arrived(&sequences, most_bytes), self.outputs(&tried))?;
        let mut outputs: BTreeMap<DeliveryId, StoredDelivery> =
            outputs.into_iter().map(|output| (output.id.clone(), output)).collect();
        let mut bytes = 0;
        let mut loaded = Vec::with_capacity(pending.len());
        for pending in pending {
            let Some(entry) = entries.get(&pending.id.sequence).filter(|_| bytes <= most_bytes) else {
                break;
            };
            bytes += entry.as_ref().map_or(0, |entry| entry.raw.len());
            let output = outputs.remove(&pending.id).filter(|output| output.state == State::Retrying);
            loaded.push(match entry.clone() {
                Ok(entry) => work(entry, output).await,
                Err(damage) => Err(damage),
            });
        }
        Ok(loaded)
    }

    /// Messages by their sequence, the lowest first; only what did not arrive a moment ago is read.
    async fn arrived(
        &self,
        sequences: &[Sequence],
        most_bytes: usize,
    ) -> Result<BTreeMap<Sequence, Result<Entry, Damage>>, JournalError> {
        let (recent, older) = self.recent.of(sequences);
        let mut entries =
            if older.is_empty() { BTreeMap::new() } else { self.entries(&older, most_bytes).await? };
        entries.extend(recent.into_iter().map(|entry| (entry.sequence, Ok(entry))));
        Ok(entries)
    }

    async fn outputs(&self, ids: &[DeliveryId]) -> Result<Vec<StoredDelivery>, JournalError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.store.outputs(ids).await?)
    }

    /// Messages by their sequence. When they cannot be read together they are read one by one: one that cannot be read
    /// though others can is damaged, and must not hold up the others. A store that was late or away says nothing about it.
    async fn entries(
        &self,
        sequences: &[Sequence],
        most_bytes: usize,
    ) -> Result<BTreeMap<Sequence, Result<Entry, Damage>>, JournalError> {
        let together = match self.store.messages(sequences, most_bytes).await {
            Ok(stored) => return Ok(of_all(sequences, stored, most_bytes).await),
            Err(error) => error,
        };
        let mut entries = BTreeMap::new();
        let mut bytes = 0;
        for sequence in sequences {
            if bytes > most_bytes {
                break;
            }
            match self.store.messages(&[*sequence], most_bytes).await {
                Ok(stored) => {
                    bytes += stored.iter().map(|one| one.summary.size_bytes).sum::<usize>();
                    entries.extend(of_all(&[*sequence], stored, most_bytes).await);
                }
                Err(error) if error.is_of_the_data() => {
                    let damage = Damage { sequence: *sequence, flaw: Flaw::Unreadable };
                    entries.insert(*sequence, Err(damage));
                }
                Err(error) => return Err(error.into()),
            }
        }
        match entries.values().any(Result::is_ok) || self.can_read(sequences).await {
            true => Ok(entries),
            false => Err(together.into()),
        }
    }

    /// Whether the store can be read elsewhere: what cannot be read then is damaged, not out of reach.
    async fn can_read(&self, sequences: &[Sequence]) -> bool {
        let last = sequences.iter().max().copied().unwrap_or_default();
        self.store.audit(1).await.is_ok() && self.store.summary(Sequence(last.0 + 1)).await.is_ok()
    }

    /// The exact bytes of a message.
    ///
    /// # Errors
    /// `Read`, `Damaged`.
    pub async fn body(&self, sequence: Sequence) -> Result<Option<Bytes>, JournalError> {
        let stored = self.store.messages(&[sequence], usize::MAX).await?.into_iter().next();
        match stored {
            Some(stored) => Ok(Some(entry(stored).await?.raw)),
            None => Ok(None),
        }
    }

    /// What was sent in a delivery, and answered.
    ///
    /// # Errors
    /// `Read`, `Damaged`.
    pub async fn exchange(&self, id: &DeliveryId) -> Result<Option<Exchange>, JournalError> {
        let found = self.store.outputs(std::slice::from_ref(id)).await?.into_iter().next();
        let Some(mut delivery) = found else { return Ok(None) };
        let detail = match delivery.detail.take() {
            Some(blob) => Some(unpack(blob, id.sequence, Bytes::new()).await?),
            None => None,
        };
        let Some(blob) = delivery.output else { return Ok(Some(Exchange { output: Vec::new(), detail })) };
        let sequence = id.sequence;
        let message = match blob.needs_message().map_err(|flaw| Damage { sequence, flaw })? {
            false => Bytes::new(),
            true => match self.body(id.sequence).await {
                Ok(Some(message)) => message,
                // Retention has removed both since the output was read.
                Ok(None) => return Ok(None),
                Err(JournalError::Damaged(Damage { flaw: Flaw::Removed, .. })) => {
                    return Ok(Some(Exchange { output: Vec::new(), detail: None }));
                }
                Err(error) => return Err(error),
            },
        };
        let output = payloads(unpack(blob, sequence, message).await?, sequence)?;
        Ok(Some(Exchange { output, detail }))
    }
}

/// What the store gave of messages that it was asked for; what it had no room for is left out.
async fn of_all(
    asked: &[Sequence],
    stored: Vec<Stored>,
    most_bytes: usize,
) -> BTreeMap<Sequence, Result<Entry, Damage>> {
    let bytes: usize = stored.iter().map(|one| one.summary.size_bytes).sum();
    let mut all = BTreeMap::new();
    for one in stored {
        all.insert(one.summary.sequence, entry(one).await);
    }
    let last = all.last_key_value().map(|(last, _)| *last).filter(|_| bytes > most_bytes);
    for sequence in asked.iter().filter(|sequence| last.is_none_or(|last| **sequence < last)) {
        let missing = Err(Damage { sequence: *sequence, flaw: Flaw::Missing });
        all.entry(*sequence).or_insert(missing);
    }
    all
}

async fn entry(stored: Stored) -> Result<Entry, Damage> {
    let Summary { sequence, received, listener, keys, .. } = stored.summary;
    let raw = match stored.body {
        Ok(body) => body.unpack_async().await.map_err(|flaw| Damage { sequence, flaw })?,
        Err(flaw) => return Err(Damage { sequence, flaw }),
    };
    Ok(Entry { sequence, received, listener, control_id: keys.control_id, raw })
}

/// A message with what has been made of it before.
async fn work(entry: Entry, delivery: Option<StoredDelivery>) -> Result<Work, Damage> {
    let Some(delivery) = delivery else { return Ok(Work { entry, output: None, being_sent: false }) };
    let being_sent = delivery.reason == BEING_SENT;
    let sequence = entry.sequence;
    let output = match delivery.output {
        Some(blob) => {
            let bytes = unpack(blob, sequence, entry.raw.clone()).await?;
            Some(Output { payloads: payloads(bytes, sequence)?, revision: delivery.revision })
        }
        None => None,
    };
    Ok(Work { entry, output, being_sent })
}

async fn unpack(blob: Blob, sequence: Sequence, message: Bytes) -> Result<Bytes, Damage> {
    blob.unpack_async(message).await.map_err(|flaw| Damage { sequence, flaw })
}

fn payloads(bytes: Bytes, sequence: Sequence) -> Result<Vec<Payload>, Damage> {
    blob::read_payloads(bytes).map_err(|flaw| Damage { sequence, flaw })
}

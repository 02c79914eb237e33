//! How the numbers of patients, visits and orders stand in what the journal searches and orders by.
//!
//! Promise:  P9. With a key they stand there as keyed hashes only (HMAC-SHA256, of which 128 bits): without the key
//!           nobody can tell or try out whose they are. The same number gives the same hash, so that search and order
//!           are what they are without.
//! Not here: the bytes of the messages, which hold the numbers as they came, until retention takes them.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{
    Count, Disposition, Key, Keys, NewDelivery,
    store::{Change, Store, StoreError},
};
use crate::secret::{Secret, SecretRef};

/// The note that says under which key the identifiers of the journal stand.
const NOTE: &str = "identifiers";
/// Shorter keys can be tried out.
const SHORTEST_KEY: usize = 16;
/// Bytes of a hash that are kept: no two numbers will ever meet by chance.
const KEPT: usize = 16;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A reading failed, or a writing.
    #[error("the journal cannot be used: {0}")]
    Store(String),
    /// Later messages of the same patients would overtake these.
    #[error(
        "{0} deliveries wait in an order that was made with another `identifier_key`: start with that key as before \
         until nothing waits, then change it"
    )]
    OtherKey(u64),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// Writes identifiers as they are, or as keyed hashes.
#[derive(Clone, Default)]
pub struct Identifiers(Option<Hmac<Sha256>>);

impl Identifiers {
    /// With the key that is referred to; as they are without one.
    ///
    /// # Errors
    /// Why there is no such key, or that it is too short.
    pub fn of(key: Option<&SecretRef>) -> Result<Self, String> {
        key.map_or_else(|| Ok(Self::default()), |key| Self::hashed(&key.fetch()?))
    }

    fn hashed(key: &Secret) -> Result<Self, String> {
        let key = key.expose().as_bytes();
        if key.len() < SHORTEST_KEY {
            return Err(format!(
                "the key has {} bytes, which is too short: {SHORTEST_KEY} at least",
                key.len()
            ));
        }
        Ok(Self(Hmac::new_from_slice(key).ok()))
    }

    /// Takes note of the key in a journal that nobody writes to yet.
    ///
    /// # Errors
    /// When deliveries wait that were put into their lanes under another key: later messages of the same patients would
    /// overtake them.
    pub(super) async fn settle(&self, store: &Arc<dyn Store>) -> Result<(), StartError> {
        let (now, before) = (self.hide("note", ""), store.note(NOTE).await?.unwrap_or_default());
        if now == before {
            return Ok(());
        }
        let unfinished = |count: &Count| !count.state.is_end();
        let waiting: u64 = store
            .counts()
            .await?
            .iter()
            .filter(|count| unfinished(count))
            .map(|count| count.deliveries)
            .sum();
        if waiting > 0 {
            return Err(StartError::OtherKey(waiting));
        }
        if store.last().await?.0 > 0 {
            tracing::warn!(
                "the key for identifiers is another than before: older messages are found by control id, time and route \
                 only"
            );
        }
        let note = Change::Note(NOTE, (!now.is_empty()).then_some(now), None);
        store.commit(vec![note]).await?;
        Ok(())
    }

    pub(super) fn of_message(&self, keys: Keys) -> Keys {
        Keys {
            patient: self.hide("patient", &keys.patient),
            nhs_number: self.hide("nhs", &keys.nhs_number),
            local_number: self.hide("local", &keys.local_number),
            visit: self.hide("visit", &keys.visit),
            orders: keys.orders.iter().map(|order| self.hide("order", order)).collect(),
            ..keys
        }
    }

    /// A lane keeps the word before its first `|`, which says what it orders by.
    pub(super) fn of_lanes(&self, disposition: Disposition) -> Disposition {
        let hide = |lane: String| match lane.split_once('|').filter(|_| self.0.is_some()) {
            Some((kind, of)) => format!("{kind}|{}", self.hide("lane", of)),
            None => lane,
        };
        match disposition {
            Disposition::Routed(deliveries) => Disposition::Routed(
                deliveries
                    .into_iter()
                    .map(|one| NewDelivery { lanes: one.lanes.into_iter().map(hide).collect(), ..one })
                    .collect(),
            ),
            quarantined @ Disposition::Quarantined { .. } => quarantined,
        }
    }

    /// What a key that is searched for stands as.
    pub(super) fn of_key(&self, key: Key<'_>) -> String {
        match key {
            Key::ControlId(text) => text.to_owned(),
            Key::Patient(text) => self.hide("patient", text),
            Key::NhsNumber(text) => self.hide("nhs", text),
            Key::LocalNumber(text) => self.hide("local", text),
            Key::Visit(text) => self.hide("visit", text),
            Key::Order(text) => self.hide("order", text),
        }
    }

    /// The kind is hashed too: a visit and an order of the same number do not look alike. Nothing stays nothing.
    fn hide(&self, kind: &str, text: &str) -> String {
        let Some(keyed) = self.0.as_ref().filter(|_| !text.is_empty() || kind == "note") else {
            return text.to_owned();
        };
        let hash =
            keyed.clone().chain_update(kind).chain_update([0]).chain_update(text).finalize().into_bytes();
        hash.iter().take(KEPT).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(key: &str) -> Result<Identifiers, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), key).unwrap();
        Identifiers::of(Some(&SecretRef::File(file.path().to_owned())))
    }

    #[test]
    fn a_key_that_can_be_tried_out_is_refused_and_never_shown() {
        assert_eq!(keyed("hunter2\n").err().unwrap(), "the key has 7 bytes, which is too short: 16 at least");
        assert!(Identifiers::of(Some(&SecretRef::Env("TIE_NO_SUCH_VARIABLE".to_owned()))).is_err());
    }

    /// HMAC-SHA256 as everybody computes it, so that a hash in the tables can be made by hand:
    /// `printf 'nhs\0%s' 9434765919 | openssl dgst -sha256 -hmac KEY`, its first half.
    #[test]
    fn a_hash_is_the_first_half_of_an_hmac_over_the_kind_and_the_number() {
        let keyed = keyed("0123456789abcdef").unwrap();
        assert_eq!(keyed.of_key(Key::NhsNumber("9434765919")), "1f6e02bf40bcc75d94e5b0c2581d1709");
        assert_eq!(keyed.of_key(Key::NhsNumber("")), "");
        assert_eq!(Identifiers::default().of_key(Key::NhsNumber("9434765919")), "9434765919");
    }
}

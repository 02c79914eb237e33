//! What the courier is told to send: the pipeline decides it, delivery does it.

use async_trait::async_trait;

use crate::{
    connector::{Payload, Policy},
    journal::{DeliveryId, Entry},
};

/// What is sent to a destination: the pipeline answers with the live revision.
#[async_trait]
pub trait Prepare: Send + Sync + 'static {
    /// Makes what is to be sent of a message.
    async fn prepare(&self, entry: &Entry, id: &DeliveryId) -> Prepared;
    /// Whether what a revision made is what would be made now.
    fn is_live(&self, revision: &str) -> bool;
    /// When to try again, when to give up and what then.
    fn policy(&self, id: &DeliveryId) -> Policy;
}

/// What a mapping has noticed about a message that it made something of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// For metrics: `unmapped`, `doubtful` or `said`.
    pub kind: &'static str,
    /// Without patient data.
    pub text: String,
}

/// What a mapping decided about a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// Send these, in this order.
    Send {
        /// What to send; if empty, it counts as filtered.
        payloads: Vec<Payload>,
        /// The revision that made it.
        revision: String,
        /// What a person should look at all the same.
        remarks: Vec<Remark>,
    },
    /// Not for this destination.
    Filtered {
        /// Why, without patient data.
        reason: String,
        /// The revision that decided so.
        revision: String,
    },
    /// A person must decide; the lane waits.
    Held {
        /// Why, without patient data.
        reason: String,
        /// The revision that decided so.
        revision: String,
    },
    /// Nothing can be made of it: dead letter or park, by the route's policy.
    Dead {
        /// Why, without patient data.
        reason: String,
        /// The revision that decided so.
        revision: String,
    },
}

impl Prepared {
    /// The length of what is to be sent.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Send { payloads, .. } => payloads.iter().map(|payload| payload.bytes().len()).sum(),
            Self::Filtered { .. } | Self::Held { .. } | Self::Dead { .. } => 0,
        }
    }
}

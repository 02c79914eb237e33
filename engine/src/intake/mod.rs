//! Intake: admits what sources hand in, and answers it.
//!
//! In:       raw messages and refusals from the listeners.
//! Out:      entries in the journal, routed or in quarantine; the acknowledgement to send back.
//! Promise:  P1, P6, P9. A positive acknowledgement is made after the journal has committed the exact bytes, and
//!           by nothing else. What cannot be taken is answered with a reason and kept where there are bytes.
//! Not here: sockets and frames (plugins), who gets a message (routing, by way of [`Router`]), what it becomes.

mod admit;
mod control_id;
mod duplicates;
mod fhir;
mod identifier;
mod keys;
mod outcome;
pub mod patient;
mod reception;
mod room;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use encoding_rs::Encoding;

use crate::{
    clock::Clock,
    connector::Acknowledge,
    incoming::Incoming,
    journal::{Journal, NewDelivery},
    metrics::Metrics,
};
pub use duplicates::Duplicates;
pub use patient::{PatientKey, PatientKeys, Patients};
pub use reception::Reception;
pub use room::Room;

/// Decides who gets a message. Filled by the pipeline with the live revision.
pub trait Router: Send + Sync + 'static {
    /// The deliveries that a message owes; none if no route takes it.
    fn route(&self, listener: &str, message: &Incoming, patient: &PatientKeys) -> Vec<NewDelivery>;
    /// What the acknowledgement of a message with these deliveries waits for: the most that one of its routes asks for.
    fn acknowledge(&self, deliveries: &[NewDelivery], listener: Acknowledge) -> Acknowledge;
}

/// What a listener does with what comes in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name.
    pub listener: String,
    /// How bytes are read when MSH-18 does not say.
    pub charset: &'static Encoding,
    /// The answer to a message that no route takes. It is kept in quarantine whatever the answer.
    pub unmatched: Unmatched,
    /// What this instance is for.
    pub environment: Environment,
    /// For how long a message that comes again is a repeat; none if it never is.
    pub duplicates: Option<Duration>,
    /// How patients are told apart, and which are not real.
    pub patients: Arc<Patients>,
    /// What an acknowledgement waits for where the route does not say.
    pub acknowledge: Acknowledge,
    /// How long it waits for that.
    pub patience: Duration,
}

/// What the receptions of all listeners share. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// Where messages are stored.
    pub journal: Journal,
    /// Who gets them.
    pub router: Arc<dyn Router>,
    /// What came before.
    pub duplicates: Arc<Duplicates>,
    /// Whether there is place for more.
    pub room: Arc<Room>,
    /// What happened.
    pub metrics: Arc<Metrics>,
    /// When.
    pub clock: Arc<dyn Clock>,
}

/// How a message that no route takes is answered. It is kept in quarantine either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// AA or CA: the sender need not know.
    Accept,
    /// AE or CE.
    #[default]
    Error,
    /// AR or CR.
    Reject,
}

/// What an instance is for. Hazard H11: a live instance rejects messages that MSH-11 marks as test or training (`T`,
/// `D`), and those of test patients ([`Patients::test_numbers`]). The other way round nothing is rejected, since most test feeds say `P`: what keeps live data out of a test
/// instance is that no live system is told its address.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Real patients.
    Live,
    /// Trials and development.
    Test,
    /// People learn with it.
    Training,
}

impl Environment {
    /// The word for pages, logs and mappings.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
            Self::Training => "training",
        }
    }
}

//! What the admin listener says, as types that both ends share: the server writes them, `tie status` reads them.
//!
//! Promise: P9. What could tell a patient (keys, lanes, bodies) has no place in them.

use std::{collections::BTreeMap, net::SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::Problem,
    journal::{Audit, DeliveryId, DeliveryRecord, State, Summary},
};

/// Whether messages are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Messages are taken.
    pub ready: bool,
    /// Why not: `starting`, `draining`, `the journal is closed: …`.
    pub reasons: Vec<String>,
}

/// Everything at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// `live`, `test`, `training`.
    pub environment: String,
    /// When the engine was started.
    pub started: Timestamp,
    /// Whether messages are taken.
    pub readiness: Readiness,
    /// What is live.
    pub revision: RevisionStatus,
    /// How the last change of the configuration ended.
    pub last_reload: Option<ReloadStatus>,
    /// The durable record.
    pub journal: JournalStatus,
    /// What messages come in by.
    pub listeners: Vec<ListenerStatus>,
    /// The feeds.
    pub routes: Vec<RouteStatus>,
    /// Where messages go.
    pub destinations: Vec<DestinationStatus>,
}

/// The revision that is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionStatus {
    /// Its content hash.
    pub id: String,
    /// The git commit of the configuration directory, if it is a checkout.
    pub git_commit: Option<String>,
    /// When it went live.
    pub since: Timestamp,
}

/// How a change of the configuration ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// When.
    pub at: Timestamp,
    /// How.
    pub result: ReloadResult,
    /// The revision that was tried, if the files could be read at all.
    pub revision: Option<String>,
    /// Why it was refused; warnings if it was not.
    pub problems: Vec<Problem>,
}

/// How a change of the configuration can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadResult {
    /// It is live.
    Live,
    /// Nothing had changed.
    Unchanged,
    /// What was live still is.
    Refused,
}

/// The durable record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Changes can be made durable.
    pub open: bool,
    /// The highest sequence.
    pub last: i64,
    /// The lowest sequence still kept.
    pub first: Option<i64>,
    /// Messages in quarantine.
    pub quarantined: u64,
    /// Why nothing is delivered until a person resumes, if that is so.
    pub paused: Option<String>,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Its connector.
    pub kind: String,
    /// Whether it serves.
    pub serving: bool,
    /// Why it does not.
    pub reason: Option<String>,
}

/// One feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Its listeners.
    pub from: Vec<String>,
    /// Its mapping.
    pub map: String,
    /// Its destinations.
    pub to: Vec<String>,
}

/// Deliveries by state.
pub type Counts = BTreeMap<String, u64>;

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Its name.
    pub name: String,
    /// Its connector.
    pub kind: String,
    /// What it is given: `delivering`, `away`, `held`, `maintenance`, `paused`; `gone` if it is not configured any more.
    pub standing: String,
    /// Why it is given nothing.
    pub reason: Option<String>,
    /// The most requests in a time, if there is a bound.
    pub rate: Option<String>,
    /// Unfinished deliveries and dead letters by state.
    pub deliveries: Counts,
    /// Age of the oldest unfinished delivery.
    pub oldest_seconds: Option<i64>,
    /// The same by state.
    pub ages: BTreeMap<String, i64>,
}

impl DestinationStatus {
    /// Whether it is given nothing though nobody wanted it so.
    pub fn needs_a_look(&self) -> bool {
        matches!(self.standing.as_str(), "away" | "held" | "gone" | "full")
    }
}

/// A message that was found, without anything that could tell a patient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its place in the journal.
    pub sequence: i64,
    /// When it was received.
    pub received: Timestamp,
    /// The listener.
    pub listener: String,
    /// Who sent it.
    pub peer: String,
    /// MSH-10.
    pub control_id: String,
    /// MSH-9.
    pub trigger: String,
    /// MSH-3.
    pub sending_application: String,
    /// MSH-4.
    pub sending_facility: String,
    /// Length of the message.
    pub size_bytes: usize,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Why it is in quarantine, if it is.
    pub quarantine: Option<String>,
    /// A remark for a person.
    pub flag: Option<String>,
}

/// A message with what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageView {
    /// The message.
    #[serde(flatten)]
    pub message: Found,
    /// Its deliveries.
    pub deliveries: Vec<Delivery>,
}

/// What became of one delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The route.
    pub route: String,
    /// The destination.
    pub destination: String,
    /// Where it stands.
    pub state: State,
    /// When it ended or last failed.
    pub at: Option<Timestamp>,
    /// Attempts made.
    pub attempts: u32,
    /// When the first was made.
    pub first_attempt: Option<Timestamp>,
    /// The revision that made the output.
    pub revision: String,
    /// What the receiver answered, or why it failed or was filtered.
    pub reason: String,
    /// How the last failure was classed.
    pub class: Option<String>,
}

/// Which deliveries a person means. What is not said matches all; `states` must say something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRequest {
    /// Where they stand. To replay what is filtered or delivered, another condition is needed.
    pub states: Vec<State>,
    /// The destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// One message by its place in the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// Messages with this MSH-10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_id: Option<String>,
    /// Messages after this place in the journal: where an earlier answer said to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// At most so many, the oldest first; the deliveries of one message are not divided.
    #[serde(default = "default_limit")]
    pub limit: usize,
    /// Only say which.
    #[serde(default)]
    pub dry_run: bool,
    /// Who asks; for the audit.
    #[serde(default)]
    pub who: String,
    /// Why; for the audit. A skip needs a reason, which becomes that of the dead letter.
    #[serde(default)]
    pub why: String,
}

/// What a decision did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionAnswer {
    /// How many deliveries.
    pub deliveries: u64,
    /// Nothing was changed.
    pub dry_run: bool,
    /// How many match besides, but cannot be done again: retention has removed the bytes of their messages.
    #[serde(default)]
    pub without_bytes: u64,
    /// There are more than `limit`: go on with `after` at this. What is done again may come to the same state again, so
    /// the same request without it could begin with the same deliveries.
    #[serde(default)]
    pub more_after: Option<i64>,
    /// The first of them.
    pub first: Vec<DeliveryName>,
}

/// Names one delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryName {
    /// The message.
    pub sequence: i64,
    /// The route.
    pub route: String,
    /// The destination.
    pub destination: String,
}

/// A delivery that waits, and its lane with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The destination.
    pub destination: String,
    /// The route.
    pub route: String,
    /// The message that waits, by its place in the journal.
    pub sequence: i64,
    /// Tells lanes apart without saying whose they are; another one after each start of the engine.
    pub lane: String,
    /// `retrying`, `parked` or `held`.
    pub state: State,
    /// When it last failed.
    pub since: Option<Timestamp>,
    /// Attempts made.
    pub attempts: u32,
    /// How the failure was classed.
    pub class: Option<String>,
    /// What the receiver answered, or why it failed.
    pub reason: String,
    /// Deliveries behind it in its lanes.
    pub behind: u64,
}

/// The lanes that wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lanes {
    /// The oldest first.
    pub lanes: Vec<Lane>,
    /// There are no others.
    pub complete: bool,
    /// If not, `behind` is a lower bound.
    pub counted_all: bool,
}

/// What persons have decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audits {
    /// The newest first.
    pub audit: Vec<AuditLine>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When.
    pub at: Timestamp,
    /// What: `replay`, `release`, `skip`, …
    pub action: String,
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// What was asked for.
    pub asked: serde_json::Value,
    /// How many deliveries it changed.
    pub deliveries: u64,
}

/// What one request may change unless it says otherwise.
pub(super) fn default_limit() -> usize {
    1_000
}

impl Readiness {
    /// Messages are taken.
    pub fn ready() -> Self {
        Self { ready: true, reasons: Vec::new() }
    }

    /// Messages are not taken.
    pub fn not(reason: impl Into<String>) -> Self {
        Self { ready: false, reasons: vec![reason.into()] }
    }
}

impl From<Summary> for Found {
    fn from(summary: Summary) -> Self {
        let Summary { sequence, received, listener, peer, keys, size_bytes, hash, quarantine, flag } =
            summary;
        Self {
            sequence: sequence.0,
            received,
            listener,
            peer,
            control_id: keys.control_id,
            trigger: keys.trigger,
            sending_application: keys.sending_application,
            sending_facility: keys.sending_facility,
            size_bytes,
            sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            quarantine,
            flag,
        }
    }
}

impl From<DeliveryRecord> for Delivery {
    fn from(record: DeliveryRecord) -> Self {
        let DeliveryRecord { id, state, lanes: _, at, attempts, first_attempt, revision, reason, class } =
            record;
        Self {
            route: id.route,
            destination: id.destination,
            state,
            at,
            attempts,
            first_attempt,
            revision,
            reason,
            class: class.map(|class| class.word().to_owned()),
        }
    }
}

impl From<DeliveryId> for DeliveryName {
    fn from(id: DeliveryId) -> Self {
        Self { sequence: id.sequence.0, route: id.route, destination: id.destination }
    }
}

impl From<Audit> for AuditLine {
    fn from(audit: Audit) -> Self {
        let Audit { at, action, who, why, asked, deliveries } = audit;
        let asked = serde_json::from_str(&asked).unwrap_or(serde_json::Value::String(asked));
        Self { at, action, who, why, asked, deliveries }
    }
}

/// Where the admin listener of a configuration can be called from this machine.
pub fn callable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

//! The contract that connectors fill: how bytes come in, how they go out, and how each says what went wrong.
//!
//! A connector is one file in `plugins/`: an option struct that is also its documentation, and a `Source`, a
//! `Destination` or both. It has no queue, retry, back-off, time-out, metric or spawned task of its own that
//! outlives its call: the engine owns those, once, for all connectors. The engine knows no connector by name;
//! it is handed a list of [`Plugin`]s.

mod policy;
pub mod removals;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use toml::{Spanned, de::DeValue};

use crate::{document::Document, error::Problem};

pub use crate::document::{ByteSize, Period, Rate};
pub use policy::{FAILURES, GiveUp, Limit, Policy, REFUSALS, Retry};

/// A system or socket that messages come from. It runs until told to stop.
#[async_trait]
pub trait Source: Send {
    /// Serves until `stop` is cancelled; then takes no new work, lets what is in hand finish, and returns.
    ///
    /// # Errors
    /// Only what keeps the source from serving at all, such as an address that is taken.
    async fn run(self: Box<Self>, inbox: Inbox, stop: CancellationToken) -> Result<(), SourceError>;
}

/// What it does to a receiver to be sent the same message again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// It may be filed twice: what is `Uncertain` is held for a person, unless the site says otherwise by `repeat`.
    Harm,
    /// Most receivers recognise it: what is `Uncertain` is sent again by itself, and never more than must be.
    AreRecognised,
    /// Nothing: it stands under a key of its own. What was sent while the engine ended may be sent again, however many.
    ChangeNothing,
}

/// A place that messages are delivered to. The engine owns queue, retries, time-outs, metrics and shutdown.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Hands over one message. `Ok` means that the receiver has taken responsibility for it.
    ///
    /// The future is dropped when the engine's time-out passes or the engine stops; whatever connection it
    /// held must then not be used again.
    async fn deliver(&self, outbound: &Outbound) -> Result<Receipt, DeliveryError>;

    /// What a repeat does to receivers of this kind; the site may know better (`repeat`).
    fn repeats(&self) -> Repeats {
        Repeats::Harm
    }

    /// Whether it knows what to do with an element that is `null`: see [`removals`]. Others are handed none.
    fn takes_removals(&self) -> bool {
        false
    }

    /// Which of these resources, each named `Type/id`, the receiver does not hold; none if it cannot be asked at all.
    /// For reconciliation, away from the road.
    async fn missing(&self, _resources: &[String]) -> Option<Result<Vec<String>, DeliveryError>> {
        None
    }

    /// How many deliveries at once are of use, such as the number of connections; the engine starts no more.
    fn at_once(&self) -> usize {
        usize::MAX
    }
}

/// Why a source cannot serve.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Who sent the bytes: for the journal, the log and the allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer(pub String);

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self(address.ip().to_canonical().to_string())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a source could not make a whole message of what it read. The engine writes the refusal's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The message is longer than the listener takes; the limit in bytes.
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The message began but did not end in time.
    Incomplete {
        /// How long the source waited.
        waited: Duration,
    },
    /// The bytes are no frame of this protocol.
    NotFramed,
    /// The message is of another kind than what is taken here.
    OtherFormat {
        /// What is taken: `HL7 v2`, `FHIR as JSON`.
        taken: &'static str,
    },
    /// Others had the memory for messages until this one's time was up: the same bytes may be taken another time.
    Busy,
    /// The listener serves as many connections as it may.
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
    /// The peer is not on the listener's list.
    PeerNotAllowed,
}

/// What a source has seen besides messages. The engine counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Messages are taken from now on: the socket is bound, the subscription made. Sent once, first.
    Serving,
    /// A connection was opened.
    Connected,
    /// A connection was closed, by either side.
    Disconnected,
    /// So many bytes outside any frame were passed over.
    Junk {
        /// How many.
        bytes: usize,
    },
}

/// The engine's side of a source.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// Takes one message; returns what to answer, and returns only after the journal has the bytes. `Err` means that
    /// the engine cannot answer: close the connection.
    async fn accept(&self, raw: Bytes, peer: &Peer) -> Result<Reply, IntakeClosed>;
    /// Refuses what could not become a message; `head` is the beginning of it, as far as it was read.
    async fn refuse(&self, head: Bytes, refusal: Refusal, peer: &Peer) -> Reply;
    /// Takes note of something that is no message.
    fn notice(&self, notice: Notice);
}

/// What to answer: as an acknowledgement of HL7 v2 where the message wants one, and in words for protocols that have
/// their own. No patient data is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The acknowledgement; none if the message wants none.
    pub acknowledgement: Option<Bytes>,
    /// What it means.
    pub meaning: Meaning,
    /// Why, for the sender's engineer; empty where all is well.
    pub reason: String,
    /// The element or field that is wrong, if it is known.
    pub place: Option<String>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It is stored, and nothing more is said: AA, 202.
    Stored,
    /// It is stored, and what the route waits for has been done: AA, 200.
    Done,
    /// It cannot be read, or lacks what every message has: 400.
    Unreadable,
    /// It was read, and is not taken, or not done: AE, 422.
    Refused,
    /// The same bytes may be taken another time: AR with 207, 503.
    NotNow,
}

/// The engine stops or its journal has failed: nothing can be acknowledged any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine takes no more messages")]
pub struct IntakeClosed;

/// Where a source hands in its messages. A source cannot acknowledge early: it has nothing to send.
pub type Inbox = Arc<dyn Intake>;

/// One message on its way to one destination.
#[derive(Debug)]
pub struct Outbound {
    /// What to hand over.
    pub payload: Payload,
    /// Control id of the message that this was made from.
    pub control_id: String,
    /// Set by the connector once the first byte has left: a time-out after that is `Uncertain`, before it `Unavailable`.
    /// Shared, since a body may be sent by a task of the connector's client library.
    pub left: Arc<AtomicBool>,
}

impl Outbound {
    /// A message that has not left yet.
    pub fn new(payload: Payload, control_id: impl Into<String>) -> Self {
        Self { payload, control_id: control_id.into(), left: Arc::default() }
    }

    /// Says that bytes of the message may have reached the receiver from now on.
    pub fn mark_left(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// Whether bytes of the message may have reached the receiver.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }
}

/// What a mapping made, as bytes ready to send, but for what the sender removed: see [`removals`]. `Debug` prints sizes only.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// A FHIR Bundle, as JSON; posted to the base address.
    FhirBundle(Bytes),
    /// One FHIR resource, as JSON; put to `[base]/[type]/[id]`.
    FhirResource {
        /// `Patient`, `Observation`, …
        resource_type: String,
        /// The logical id.
        id: String,
        /// The resource.
        json: Bytes,
    },
    /// An HL7 v2 message.
    Hl7(Bytes),
}

impl Payload {
    /// The bytes to send.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::FhirBundle(bytes) | Self::Hl7(bytes) => bytes,
            Self::FhirResource { json, .. } => json,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FhirBundle(bytes) => write!(f, "FhirBundle({} bytes)", bytes.len()),
            Self::FhirResource { resource_type, json, .. } => {
                write!(f, "FhirResource({resource_type}, {} bytes)", json.len())
            }
            Self::Hl7(bytes) => write!(f, "Hl7({} bytes)", bytes.len()),
        }
    }
}

/// The proof that a receiver took a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The protocol's answer in a few words, without patient data: `200`, `AA`.
    pub answer: String,
    /// What the receiver said in full (an OperationOutcome, an acknowledgement); kept in the journal only.
    pub detail: Option<Bytes>,
}

/// Why a delivery did not succeed, named by what the engine does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryError {
    /// What the engine does next.
    pub class: ErrorClass,
    /// The reason in a few words, without patient data: for logs, metrics and pages.
    pub reason: String,
    /// The receiver is there: it has read the message and answered, though not as it should. That says nothing against
    /// the destination as a whole.
    pub answered: bool,
    /// The receiver asked for this much time.
    pub retry_after: Option<Duration>,
    /// What the receiver said in full; kept in the journal only.
    pub detail: Option<Bytes>,
}

/// Delivery errors by what the engine does next.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ErrorClass {
    /// Nobody took it: retry, keep its place.
    Unavailable,
    /// It may have been taken: repeat where the destination says that repeats are safe, else hold.
    Uncertain,
    /// Read and refused; the same bytes will get the same answer: dead letter or park, by policy.
    Rejected,
    /// Read, and the receiver failed over it, by its own fault or the message's: a few times more, then as what is
    /// rejected. Not at all where repeats are not safe.
    Failing,
    /// Credentials, host name, certificate: hold the whole destination and call a person.
    Misconfigured,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 5] =
        [Self::Unavailable, Self::Uncertain, Self::Rejected, Self::Failing, Self::Misconfigured];

    /// The word for metrics, the journal and pages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Uncertain => "uncertain",
            Self::Rejected => "rejected",
            Self::Failing => "failing",
            Self::Misconfigured => "misconfigured",
        }
    }
}

impl DeliveryError {
    /// An error with a reason and nothing else.
    pub fn new(class: ErrorClass, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), answered: false, retry_after: None, detail: None }
    }
}

/// What an answer or a failure means unless a site says otherwise: its sign, the class, and why.
pub type Answer = (&'static str, ErrorClass, &'static str);

/// One connector, as listed in `tie_plugins::ALL`.
pub struct Plugin {
    /// The `kind` in `tie.toml`.
    pub name: &'static str,
    /// One sentence for `tie plugins`.
    pub about: &'static str,
    /// As a listener, if it can be one.
    pub source: Option<Role<Box<dyn Source>>>,
    /// As a destination, if it can be one.
    pub destination: Option<Role<Arc<dyn Destination>>>,
    /// What the answers of its receivers mean; a row of an earlier table goes before one of a later.
    pub answers: &'static [&'static [Answer]],
}

/// How to configure and build a connector in one of its two roles.
pub struct Role<T> {
    /// A documented table of `tie.toml` with every key; built by a test.
    pub example: &'static str,
    /// The JSON Schema of the options.
    pub schema: fn() -> schemars::Schema,
    /// Checks the options and builds. Opens nothing, spawns nothing.
    pub build: fn(&Options) -> Result<T, Vec<Problem>>,
}

/// The keys of one `[listener.x]` or `[destination.x]` table that belong to its connector.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name of the listener or destination.
    pub name: String,
    /// `listener` or `destination`: the table that the name stands in.
    section: &'static str,
    document: Document,
}

/// The longest name of a listener, destination or route, in bytes: they are keys of the journal's indexes, which hold no
/// more than a part of a page.
pub const NAME_MOST: usize = 100;

/// The keys of a `[listener.x]` table that the engine itself reads; none of them is the connector's.
pub const LISTENER_KEYS: &[&str] = &["kind", "charset", "unmatched", "duplicates", "ack", "ack_timeout"];
/// The keys of a `[destination.x]` table that the engine itself reads; none of them is the connector's.
pub const DESTINATION_KEYS: &[&str] =
    &["kind", "timeout", "concurrency", "rate", "repeat", "windows", "circuit", "paused"];

/// The same table says the same, wherever it stands in its file: an edit elsewhere changes no connector.
impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.section == other.section && self.content() == other.content()
    }
}

impl Options {
    /// The options of `[listener.<name>]` in the document.
    pub fn listener(name: impl Into<String>, document: Document) -> Self {
        Self { name: name.into(), section: "listener", document }
    }

    /// The options of `[destination.<name>]` in the document.
    pub fn destination(name: impl Into<String>, document: Document) -> Self {
        Self { name: name.into(), section: "destination", document }
    }

    /// The options of the first listener or destination in a text such as a connector's own example.
    ///
    /// # Errors
    /// When the text is no TOML or has no such table.
    pub fn from_example(text: &str) -> Result<Self, Vec<Problem>> {
        let document = Document::new("example.toml", text);
        let found = match document.tree()?.get_ref() {
            DeValue::Table(root) => ["listener", "destination"].into_iter().find_map(|section| {
                let names = root.get(section)?.get_ref().as_table()?;
                Some((section, names.keys().next()?.get_ref().to_string()))
            }),
            _ => None,
        };
        match found {
            Some((section, name)) => Ok(Self { name, section, document }),
            None => Err(vec![document.fault("neither a [listener.x] nor a [destination.x] is here", 0)]),
        }
    }

    /// Reads the option struct of a connector. It should refuse unknown fields and use neither `flatten` nor
    /// `untagged`, which lose the places.
    ///
    /// # Errors
    /// Every unknown key, wrong value and missing key, with its place and the nearest known key.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        let mut tree = self.document.tree()?;
        let engine_keys = if self.section == "listener" { LISTENER_KEYS } else { DESTINATION_KEYS };
        let Some(mut table) = self.table(&mut tree) else {
            return Err(vec![self.problem(format!("[{}.{}] is no table", self.section, self.name))]);
        };
        if let DeValue::Table(keys) = table.get_mut() {
            for key in engine_keys {
                keys.remove(*key);
            }
        }
        self.document.read(table, engine_keys)
    }

    /// A fault in these options as a whole, placed at the table.
    pub fn problem(&self, what: impl Into<String>) -> Problem {
        let start = self.document.tree().ok().and_then(|mut tree| Some(self.table(&mut tree)?.span().start));
        self.document.fault(what, start.unwrap_or(0))
    }

    /// A fault at one key of these options, placed at its value; at the table if the key is not there.
    pub fn problem_at(&self, key: &str, what: impl Into<String>) -> Problem {
        let start = self.document.tree().ok().and_then(|mut tree| {
            let table = self.table(&mut tree)?;
            Some(table.get_ref().as_table()?.get(key)?.span().start)
        });
        match start {
            Some(start) => self.document.fault(what, start),
            None => self.problem(what),
        }
    }

    fn content(&self) -> Option<toml::Value> {
        let mut root: toml::Table = toml::from_str(&self.document.text).ok()?;
        root.get_mut(self.section)?.as_table_mut()?.remove(&self.name)
    }

    fn table<'i>(&self, tree: &mut Spanned<DeValue<'i>>) -> Option<Spanned<DeValue<'i>>> {
        let DeValue::Table(root) = tree.get_mut() else { return None };
        let DeValue::Table(names) = root.get_mut(self.section)?.get_mut() else { return None };
        names.remove(self.name.as_str()).filter(|table| table.get_ref().is_table())
    }
}

/// What a positive acknowledgement of a message waits for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledge {
    /// The message is on stable storage.
    #[default]
    Received,
    /// Besides, each of its mappings has made something of it, and none has refused it.
    Mapped,
    /// Besides, every destination has taken it, or the mapping has decided that it is not for it.
    Delivered,
}

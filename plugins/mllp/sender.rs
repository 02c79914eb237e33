//! The MLLP destination: sends a message, waits for its acknowledgement, says what it means.
//!
//! Promise:  one message in flight per connection. Only an acknowledgement with the message's own control id counts; one
//!           with none counts where the site says so, and then only if it is all that ever came on its connection, which
//!           therefore carries this one message.
//!           A connection whose last exchange did not end in order is never used again: it is owned by the call
//!           that uses it, so that a call that is dropped (time-out, stop) closes it, and no late answer can be
//!           taken for the next message's.
//! Not here: time-outs, retries, queues (engine), what a frame is (`hl7::framing`), how connections are kept
//!           (connections).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use tie_engine::{
    connector::{
        Answer, ByteSize, DeliveryError, Destination, ErrorClass, Options, Outbound, Payload, Period,
        Receipt, Repeats,
    },
    error::Problem,
    hl7::{
        Message,
        ack::{self, AckCode},
        framing::{self, Found, Scanner},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

use super::connections::{self, Connections};
use crate::answers::Answers;

use ErrorClass::{Failing, Misconfigured, Rejected, Unavailable, Uncertain};

pub const EXAMPLE: &str = r#"[destination.laboratory]
kind = "mllp"
address = "lis.hospital.example:2575"
connections = 1                          # at the same time; each carries one message at a time
idle = "3m"                              # a connection that was not used for so long is opened afresh
control_id = "match"                     # MSA-2 of an acknowledgement; "match-or-empty": some receivers never fill it
longest_answer = "64KiB"
errors = { AE = "unavailable" }          # changes to the table of what an answer means
"#;

/// What is read at once.
const READ_BYTES: usize = 4096;

/// What an answer means. HL7 v2 chapter 2: table 0008, and table 0357 for ERR-3.
pub const TABLES: &[&[Answer]] = &[TABLE];
const TABLE: &[Answer] = &[
    ("dns", Misconfigured, "the host name cannot be resolved"),
    ("refused", Unavailable, "nobody listens at the address"),
    ("unreachable", Unavailable, "no connection for another reason"),
    ("closed", Uncertain, "the connection was closed without an answer"),
    ("junk", Uncertain, "what came back is no acknowledgement"),
    ("no-control-id", Uncertain, "the acknowledgement names no message (MSA-2 is empty)"),
    ("wrong-control-id", Uncertain, "the acknowledgement is for another message (MSA-2)"),
    ("no-code", Uncertain, "the acknowledgement has no known code (MSA-1)"),
    ("AE", Rejected, "application error: the message is at fault"),
    ("AR", Rejected, "application reject: not a message for this receiver"),
    ("CE", Unavailable, "commit error: the receiver could not store it"),
    ("CR", Rejected, "commit reject: not a message for this receiver"),
    ("206", Unavailable, "ERR-3: a record is locked"),
    ("207", Failing, "ERR-3 of AE or AR: an internal error of the receiver, or its word for anything"),
    ("payload", Rejected, "the mapping made something that cannot be sent over MLLP"),
];

/// Options of an `mllp` destination.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SenderOptions {
    /// Host and port.
    address: String,
    /// Connections at the same time; each carries one message at a time.
    #[serde(default = "default_connections")]
    connections: usize,
    /// A connection that was not used for so long is closed, and opened afresh for the next message: a firewall may have
    /// dropped it and told nobody. "0s": each message has a connection of its own.
    #[serde(default = "default_idle")]
    idle: Period,
    /// What MSA-2 of an acknowledgement must be.
    #[serde(default)]
    control_id: ControlId,
    /// The longest acknowledgement that is read.
    #[serde(default = "default_longest_answer")]
    longest_answer: ByteSize,
    /// Changes to what an answer means: a code (`AE`) or a sign, and its class.
    #[serde(default)]
    errors: BTreeMap<String, ErrorClass>,
}

/// Which acknowledgement is that of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum ControlId {
    /// One whose MSA-2 is the message's MSH-10.
    #[default]
    Match,
    /// Or one whose MSA-2 is empty, if nothing else came on its connection. Each such connection carries one message.
    MatchOrEmpty,
}

fn default_idle() -> Period {
    Period(Duration::from_secs(180))
}

fn default_connections() -> usize {
    1
}

fn default_longest_answer() -> ByteSize {
    ByteSize(64 * 1024)
}

/// Checks the options.
pub fn build(options: &Options) -> Result<Arc<dyn Destination>, Vec<Problem>> {
    let SenderOptions { address, connections, idle, control_id, longest_answer, errors } = options.parse()?;
    let mut problems = Vec::new();
    let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    if port.is_none_or(|(host, port)| host.is_empty() || port == 0) {
        let what = format!("`address` is no host and port: `{address}`");
        problems.push(options.problem_at("address", what).help("write lis.hospital.example:2575"));
    }
    if connections == 0 {
        problems.push(options.problem_at("connections", "`connections` must be at least 1"));
    }
    let answers = Answers::new(TABLES, errors, options).map_err(|found| problems.extend(found));
    let (Ok(answers), true) = (answers, problems.is_empty()) else { return Err(problems) };
    Ok(Arc::new(Sender {
        connections: Connections::new(address, idle.0),
        at_once: connections,
        turns: Semaphore::new(connections.min(Semaphore::MAX_PERMITS)),
        control_id,
        longest_answer: usize::try_from(longest_answer.0).unwrap_or(usize::MAX),
        answers,
    }))
}

/// What an acknowledgement says.
struct Said {
    code: Option<AckCode>,
    /// Empty if it names no message.
    control_id: String,
    /// Of table 0357.
    condition: Option<String>,
    /// More came behind it.
    more: bool,
}

struct Sender {
    connections: Connections,
    at_once: usize,
    turns: Semaphore,
    control_id: ControlId,
    longest_answer: usize,
    answers: Answers,
}

#[async_trait]
impl Destination for Sender {
    async fn deliver(&self, outbound: &Outbound) -> Result<Receipt, DeliveryError> {
        let Payload::Hl7(message) = &outbound.payload else {
            return Err(self.error("payload", "an MLLP receiver takes HL7 v2 messages only"));
        };
        let framed = framing::frame(message).map_err(|error| self.error("payload", error.to_string()))?;
        let control_id = Message::parse(message.clone(), encoding_rs::UTF_8)
            .map_err(|_| self.error("payload", "the mapping made no HL7 v2 message"))?
            .control_id()
            .into_owned();
        let Ok(_turn) = self.turns.acquire().await else {
            return Err(self.error("unreachable", "the destination is closed"));
        };
        let mut socket = self.connections.take().await.map_err(|(sign, reason)| self.error(sign, reason))?;
        let by_itself = self.control_id == ControlId::MatchOrEmpty;
        let early = by_itself && !connections::is_silent(&socket);
        outbound.mark_left();
        if let Err(error) = socket.write_all(&framed).await {
            return Err(
                self.error("closed", format!("the connection was lost while sending: {}", error.kind()))
            );
        }
        let (answer, more) = self.answer(&mut socket).await?;
        let detail = Some(answer.clone());
        let Some(said) = Said::read(answer, more) else {
            return Err(DeliveryError {
                detail,
                ..self.error("junk", "what came back is no acknowledgement")
            });
        };
        if let Some((sign, reason)) = self.doubt(&said, &control_id, early) {
            return Err(self.unclear(sign, reason, detail));
        }
        if said.control_id == control_id {
            // Whatever it says, it was the answer to this message: the connection is in order.
            self.connections.keep(socket);
        } else if !connections::part(socket).await {
            return Err(self.unclear("no-control-id", NOT_ALONE, detail));
        }
        self.judge(&said, detail)
    }

    /// A receiver recognises a repeat by its control id (HL7 v2 chapter 2.9).
    fn repeats(&self) -> Repeats {
        Repeats::AreRecognised
    }

    fn at_once(&self) -> usize {
        self.at_once
    }
}

const EMPTY: &str = "the acknowledgement names no message (MSA-2 is empty): if this receiver never fills it, set \
                     `control_id = \"match-or-empty\"` at the destination";
const NOT_ALONE: &str =
    "the acknowledgement names no message (MSA-2 is empty), and was not all that came on its connection";

impl Said {
    fn read(answer: Bytes, more: bool) -> Option<Self> {
        let message = Message::parse(answer, encoding_rs::UTF_8).ok()?;
        let ack::Answer { code, control_id, .. } = ack::answer(&message)?;
        let condition = message.segment("ERR").and_then(|err| {
            // A code of table 0357; anything else could be a receiver's own words.
            let text = err.field(3).text()?;
            (text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.into_owned())
        });
        let blank = control_id.trim().is_empty();
        Some(Self { code, control_id: if blank { String::new() } else { control_id }, condition, more })
    }
}

impl Sender {
    /// Why an acknowledgement may not be that of the message, if so: a sign and the reason.
    fn doubt(&self, said: &Said, control_id: &str, early: bool) -> Option<(&'static str, &'static str)> {
        if said.more {
            return Some(("junk", "more than one answer came back"));
        }
        if said.control_id.is_empty() {
            return match self.control_id {
                ControlId::Match => Some(("no-control-id", EMPTY)),
                ControlId::MatchOrEmpty => early.then_some(("no-control-id", NOT_ALONE)),
            };
        }
        if said.control_id != control_id {
            return Some(("wrong-control-id", "the acknowledgement is for another message"));
        }
        None
    }

    /// The first frame that comes back, and whether anything came behind it.
    async fn answer(&self, socket: &mut TcpStream) -> Result<(Bytes, bool), DeliveryError> {
        let mut scanner = Scanner::new(self.longest_answer);
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            match scanner.scan(&mut buffer) {
                Some(Found::Message(answer)) => {
                    return Ok((answer, buffer.iter().any(|byte| *byte != b'\r')));
                }
                Some(Found::Junk { head, .. })
                    if head.iter().all(|byte| matches!(byte, 0 | b'\r' | b'\n')) =>
                {
                    continue;
                }
                Some(Found::Junk { .. } | Found::Cut { .. }) => {
                    return Err(self.error("junk", "what came back is no acknowledgement"));
                }
                Some(Found::TooLarge { .. }) => return Err(self.error("junk", "the answer is too long")),
                None => {}
            }
            buffer.reserve(READ_BYTES);
            match socket.read_buf(&mut buffer).await {
                Ok(0) => return Err(self.error("closed", "the connection was closed without an answer")),
                Ok(_) => {}
                Err(error) => {
                    let reason = format!("the connection was lost without an answer: {}", error.kind());
                    return Err(self.error("closed", reason));
                }
            }
        }
    }

    /// What the receiver said of the message.
    fn judge(&self, said: &Said, detail: Option<Bytes>) -> Result<Receipt, DeliveryError> {
        let Some(code) = said.code else {
            return Err(self.unclear("no-code", "the acknowledgement has no known code (MSA-1)", detail));
        };
        if code.is_positive() {
            return Ok(Receipt { answer: code.as_str().to_owned(), detail });
        }
        let word = code.as_str();
        let commit = matches!(code, AckCode::Ce | AckCode::Cr);
        let (sign, reason) = match said.condition.as_deref() {
            // Whatever it is inside, it could not store it.
            Some("207") if commit && !self.answers.is_changed(word) => ("CE", format!("{word}, error 207")),
            Some(condition) => {
                let known = self.answers.knows(condition) && !self.answers.is_changed(word);
                (if known { condition } else { word }, format!("{word}, error {condition}"))
            }
            None => (word, word.to_owned()),
        };
        // Who can store nothing is to be left alone for a while, as if he were away.
        let answered = sign != "CE";
        Err(DeliveryError { detail, answered, ..self.error(sign, reason) })
    }

    /// An answer that leaves open if the message was taken.
    fn unclear(&self, sign: &str, reason: &str, detail: Option<Bytes>) -> DeliveryError {
        DeliveryError { detail, answered: true, ..self.error(sign, reason) }
    }

    fn error(&self, sign: &str, reason: impl Into<String>) -> DeliveryError {
        DeliveryError::new(self.answers.of(sign), reason)
    }
}

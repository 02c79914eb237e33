//! The MLLP destination: sends a message, waits for its acknowledgement, says what it means.
//!
//! Promise:  one message in flight per connection. Only an acknowledgement with the message's own control id counts.
//!           A connection whose last exchange did not end in order is never used again: it is owned by the call
//!           that uses it, so that a call that is dropped (time-out, stop) closes it, and no late answer can be
//!           taken for the next message's.
//! Not here: time-outs, retries, queues (engine), what a frame is (`hl7::framing`).

use std::{collections::BTreeMap, io, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use serde::Deserialize;
use tie_engine::{
    connector::{
        Answer, ByteSize, DeliveryError, Destination, ErrorClass, Options, Outbound, Payload, Receipt,
    },
    error::Problem,
    hl7::{
        Message, ack,
        framing::{self, Found, Scanner},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

use crate::answers::Answers;

use ErrorClass::{Misconfigured, Rejected, Unavailable, Uncertain};

pub const EXAMPLE: &str = r#"[destination.laboratory]
kind = "mllp"
address = "lis.hospital.example:2575"
connections = 1                          # at the same time; each carries one message at a time
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
    ("no-control-id", Uncertain, "the acknowledgement names no message (MSA-2)"),
    ("wrong-control-id", Uncertain, "the acknowledgement is for another message (MSA-2)"),
    ("no-code", Uncertain, "the acknowledgement has no known code (MSA-1)"),
    ("AE", Rejected, "application error: the message is at fault"),
    ("AR", Rejected, "application reject: not a message for this receiver"),
    ("CE", Unavailable, "commit error: the receiver could not store it"),
    ("CR", Rejected, "commit reject: not a message for this receiver"),
    ("206", Unavailable, "ERR-3: a record is locked"),
    ("207", Unavailable, "ERR-3: an internal error of the receiver"),
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
    /// The longest acknowledgement that is read.
    #[serde(default = "default_longest_answer")]
    longest_answer: ByteSize,
    /// Changes to what an answer means: a code (`AE`) or a sign, and its class.
    #[serde(default)]
    errors: BTreeMap<String, ErrorClass>,
}

fn default_connections() -> usize {
    1
}

fn default_longest_answer() -> ByteSize {
    ByteSize(64 * 1024)
}

/// Checks the options.
pub fn build(options: &Options) -> Result<Arc<dyn Destination>, Vec<Problem>> {
    let SenderOptions { address, connections, longest_answer, errors } = options.parse()?;
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
        address,
        at_once: connections,
        turns: Semaphore::new(connections.min(Semaphore::MAX_PERMITS)),
        idle: Mutex::new(Vec::new()),
        longest_answer: usize::try_from(longest_answer.0).unwrap_or(usize::MAX),
        answers,
    }))
}

struct Sender {
    address: String,
    at_once: usize,
    turns: Semaphore,
    /// Connections whose last exchange ended in order.
    idle: Mutex<Vec<TcpStream>>,
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
        let mut socket = self.connection().await?;
        outbound.mark_left();
        if let Err(error) = socket.write_all(&framed).await {
            return Err(
                self.error("closed", format!("the connection was lost while sending: {}", error.kind()))
            );
        }
        let answer = self.answer(&mut socket).await?;
        let receipt = self.judge(&answer, &control_id);
        // Whatever it says, it was the answer to this message: the connection is in order.
        if receipt.as_ref().map_or_else(|(in_order, _)| *in_order, |_| true) {
            self.idle.lock().push(socket);
        }
        receipt.map_err(|(_, error)| error)
    }

    /// A receiver recognises a repeat by its control id (HL7 v2 chapter 2.9).
    fn repeats_are_safe(&self) -> bool {
        true
    }

    fn at_once(&self) -> usize {
        self.at_once
    }
}

impl Sender {
    /// A connection on which nothing is waiting: one that was used before, or a new one.
    async fn connection(&self) -> Result<TcpStream, DeliveryError> {
        loop {
            let Some(socket) = self.idle.lock().pop() else { break };
            // Readable means that it is closed, or that something came which nobody asked for.
            let silent = matches!(socket.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if silent {
                return Ok(socket);
            }
        }
        let mut addresses = tokio::net::lookup_host(&self.address)
            .await
            .map_err(|_| self.error("dns", "the host name cannot be resolved"))?
            .peekable();
        if addresses.peek().is_none() {
            return Err(self.error("dns", "the host name has no address"));
        }
        let mut failed = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(socket) => {
                    let _ = socket.set_nodelay(true);
                    return Ok(socket);
                }
                Err(error) => failed = Some(error),
            }
        }
        let kind = failed.map_or(io::ErrorKind::Other, |error| error.kind());
        let sign = if kind == io::ErrorKind::ConnectionRefused { "refused" } else { "unreachable" };
        Err(self.error(sign, kind.to_string()))
    }

    /// The first frame that comes back, and nothing else.
    async fn answer(&self, socket: &mut TcpStream) -> Result<Bytes, DeliveryError> {
        let mut scanner = Scanner::new(self.longest_answer);
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            match scanner.scan(&mut buffer) {
                Some(Found::Message(answer)) if buffer.iter().all(|byte| *byte == b'\r') => {
                    return Ok(answer);
                }
                Some(Found::Message(_)) => return Err(self.error("junk", "more than one answer came back")),
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

    /// What the answer means, and if it is a failure, whether it was at least the answer to this message.
    fn judge(&self, answer: &Bytes, control_id: &str) -> Result<Receipt, (bool, DeliveryError)> {
        let detail = Some(answer.clone());
        let failed = |in_order, sign: &str, reason: String| {
            Err((in_order, DeliveryError { detail: detail.clone(), ..self.error(sign, reason) }))
        };
        let message = Message::parse(answer.clone(), encoding_rs::UTF_8).ok();
        let Some((said, message)) =
            message.as_ref().and_then(|message| Some((ack::answer(message)?, message)))
        else {
            return failed(false, "junk", "what came back is no acknowledgement".to_owned());
        };
        if said.control_id.is_empty() {
            return failed(false, "no-control-id", "the acknowledgement names no message".to_owned());
        }
        if said.control_id != control_id {
            return failed(
                false,
                "wrong-control-id",
                "the acknowledgement is for another message".to_owned(),
            );
        }
        let Some(code) = said.code else {
            return failed(true, "no-code", "the acknowledgement has no known code".to_owned());
        };
        if code.is_positive() {
            return Ok(Receipt { answer: code.as_str().to_owned(), detail });
        }
        let condition = message.segment("ERR").and_then(|err| {
            // A code of table 0357; anything else could be a receiver's own words.
            let text = err.field(3).text()?;
            (text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.into_owned())
        });
        match condition {
            Some(condition) => {
                let known = self.answers.knows(&condition) && !self.answers.is_changed(code.as_str());
                let sign = if known { condition.as_str() } else { code.as_str() };
                failed(true, sign, format!("{}, error {condition}", code.as_str()))
            }
            None => failed(true, code.as_str(), code.as_str().to_owned()),
        }
    }

    fn error(&self, sign: &str, reason: impl Into<String>) -> DeliveryError {
        DeliveryError::new(self.answers.of(sign), reason)
    }
}

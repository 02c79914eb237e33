//! Intake: admits what sources hand in, and answers it.
//!
//! In:       raw messages and refusals from the listeners.
//! Out:      entries in the journal, routed or in quarantine; the acknowledgement to send back.
//! Promise:  P1, P6, P9. A positive acknowledgement is made after the journal has committed the exact bytes, and
//!           by nothing else. What cannot be taken is answered with a reason and kept where there are bytes.
//! Not here: sockets and frames (plugins), who gets a message (routing, by way of [`Router`]), what it becomes.

mod admit;
mod control_id;
pub mod patient;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use encoding_rs::Encoding;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    connector::{Intake, IntakeClosed, Notice, Peer, Refusal},
    hl7::{
        Message, ack,
        ack::{ErrorCode, Reason, Verdict},
    },
    journal::{Disposition, Journal, NewDelivery, NewMessage, Sequence},
    metrics::Metrics,
};
use admit::Admitted;
use control_id::ControlIds;
pub use patient::{PatientKey, PatientKeys};

/// Of what is refused before it became a message, at most this much is kept.
const KEPT_HEAD_BYTES: usize = 64 * 1024;

/// Decides who gets a message. Filled by the pipeline with the live revision.
pub trait Router: Send + Sync + 'static {
    /// The deliveries that a message owes; none if no route takes it.
    fn route(&self, listener: &str, message: &Message, patient: &PatientKeys) -> Vec<NewDelivery>;
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
/// `D`). The other way round nothing is rejected, since most test feeds say `P`: what keeps live data out of a test
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

/// The engine's side of one listener.
pub struct Reception {
    settings: Settings,
    journal: Journal,
    router: Arc<dyn Router>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    control_ids: ControlIds,
    serving: watch::Sender<bool>,
}

impl Reception {
    /// A reception for a listener.
    pub fn new(
        settings: Settings,
        journal: Journal,
        router: Arc<dyn Router>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let control_ids = ControlIds::new(clock.now());
        Self { settings, journal, router, metrics, clock, control_ids, serving: watch::Sender::new(false) }
    }

    /// Becomes true when the source serves: the engine is not ready before.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }

    /// Stores what was admitted; the verdict is positive only if all of it is stored and nothing was wrong.
    async fn store(&self, admitted: Vec<Admitted>, peer: &Peer, now: Timestamp) -> Verdict {
        let mut verdict = Verdict::Accepted;
        let mut messages = Vec::with_capacity(admitted.len());
        let mut notes = Vec::with_capacity(admitted.len());
        for one in admitted {
            let Admitted { raw, keys, class, disposition, verdict: its, replaced } = one;
            verdict = worse(verdict, its);
            let Some(disposition) = disposition else { continue };
            let quarantined = match &disposition {
                Disposition::Quarantined { reason } => Some(reason.clone()),
                Disposition::Routed(_) => None,
            };
            notes.push((class, quarantined, replaced));
            let (listener, peer) = (self.settings.listener.clone(), peer.0.clone());
            let flag = None;
            messages.push(NewMessage { received: now, listener, peer, raw, keys, flag, disposition });
        }
        match self.journal.append_all(messages).await {
            Ok(sequences) => {
                for (sequence, (class, quarantined, replaced)) in sequences.into_iter().zip(notes) {
                    self.note(sequence, &class, quarantined.as_deref(), replaced, now);
                }
                verdict
            }
            // Whatever else was wrong: the sender must send it again.
            Err(_) => {
                self.metrics.refused(&self.settings.listener, "not_stored");
                Verdict::Rejected(Reason::new(ErrorCode::Internal, "not stored, send again"))
            }
        }
    }

    fn note(
        &self,
        sequence: Sequence,
        class: &str,
        quarantined: Option<&str>,
        replaced: usize,
        now: Timestamp,
    ) {
        let listener = self.settings.listener.as_str();
        self.metrics.received(listener, class, now.as_second());
        if let Some(reason) = quarantined {
            self.metrics.quarantined(listener);
            tracing::warn!(listener, sequence = sequence.0, reason, "a message is in quarantine");
        }
        if replaced > 0 {
            tracing::warn!(
                listener,
                sequence = sequence.0,
                replaced,
                "bytes of a message are no characters of its character set; the raw bytes are kept"
            );
        }
    }

    fn answer(&self, raw: &[u8], verdict: &Verdict, now: Timestamp) -> Option<Bytes> {
        let answer = ack::acknowledge(raw, verdict, now, &self.control_ids.next())?;
        self.metrics.acknowledged(&self.settings.listener, answer.code.as_str());
        Some(answer.bytes)
    }
}

#[async_trait]
impl Intake for Reception {
    async fn accept(&self, raw: Bytes, peer: &Peer) -> Result<Option<Bytes>, IntakeClosed> {
        // Silence makes every sender try again; a rejection makes some give up.
        if self.journal.is_closed() {
            return Err(IntakeClosed);
        }
        let began = Instant::now();
        let now = self.clock.now();
        let (admitted, answered) = admit::admit(&self.settings, &*self.router, raw);
        let verdict = self.store(admitted, peer, now).await;
        let answer = self.answer(&answered, &verdict, now);
        self.metrics.accept_seconds(&self.settings.listener, began.elapsed().as_secs_f64());
        Ok(answer)
    }

    async fn refuse(&self, head: Bytes, refusal: Refusal, peer: &Peer) -> Option<Bytes> {
        let now = self.clock.now();
        let Told { word, text, keep, code } = told(refusal);
        let listener = self.settings.listener.as_str();
        self.metrics.refused(listener, word);
        tracing::warn!(listener, %peer, reason = %text, "input is refused");
        let verdict = Verdict::Rejected(Reason::new(code, text.clone()));
        if keep && !head.is_empty() && !self.journal.is_closed() {
            let kept = head.slice(..head.len().min(KEPT_HEAD_BYTES));
            let admitted = admit::refused(&self.settings, kept, head.len(), text, verdict.clone());
            // The sender is refused either way.
            self.store(vec![admitted], peer, now).await;
        }
        self.answer(&head, &verdict, now)
    }

    fn notice(&self, notice: Notice) {
        let listener = self.settings.listener.as_str();
        match notice {
            Notice::Serving => {
                self.serving.send_replace(true);
            }
            Notice::Connected => self.metrics.connected(listener),
            Notice::Disconnected => self.metrics.disconnected(listener),
            Notice::Junk { bytes } => self.metrics.junk_bytes(listener, bytes),
        }
    }
}

/// A refusal as it is told.
struct Told {
    /// For metrics.
    word: &'static str,
    /// For the sender and the quarantine.
    text: String,
    /// Whether there may be something to keep.
    keep: bool,
    /// 207 only where the same bytes may be taken another time: senders repeat what is answered with it.
    code: ErrorCode,
}

fn told(refusal: Refusal) -> Told {
    let (word, text, keep, code) = match refusal {
        Refusal::TooLarge { limit_bytes } => {
            let text = format!("the message is longer than {limit_bytes} bytes");
            ("too_large", text, true, ErrorCode::ValueTooLong)
        }
        Refusal::Incomplete { waited } => {
            let seconds = waited.as_secs();
            let text = format!("the message was broken off: no end of its frame came in {seconds} s");
            ("incomplete", text, true, ErrorCode::SegmentSequence)
        }
        Refusal::NotFramed => {
            let text = "the bytes are not framed as a message".to_owned();
            ("not_framed", text, true, ErrorCode::SegmentSequence)
        }
        Refusal::TooManyConnections { limit } => {
            let text = format!("the listener already serves {limit} connections");
            ("too_many_connections", text, false, ErrorCode::Internal)
        }
        Refusal::PeerNotAllowed => {
            let text = "this address is not on the listener's list".to_owned();
            ("peer_not_allowed", text, false, ErrorCode::Internal)
        }
    };
    Told { word, text, keep, code }
}

/// A rejection is worse than an error, the first of two equals stands.
fn worse(one: Verdict, other: Verdict) -> Verdict {
    let weight = |verdict: &Verdict| match verdict {
        Verdict::Accepted => 0,
        Verdict::Error(_) => 1,
        Verdict::Rejected(_) => 2,
    };
    if weight(&other) > weight(&one) { other } else { one }
}

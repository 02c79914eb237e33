//! The engine's side of one listener: stores what was admitted, and answers.
//!
//! Promise:  P1, P3. A positive answer is made after the journal has committed the exact bytes, or has them already.
//! Not here: what is admitted (admit), what is a repeat (duplicates).

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Settings, Shared,
    admit::{self, Admitted},
    control_id::ControlIds,
    duplicates::{Earlier, Marks},
    outcome,
    room::Share,
};
use crate::{
    connector::{Acknowledge, Intake, IntakeClosed, Meaning, Notice, Peer, Refusal, Reply},
    hl7::{
        ack,
        ack::{ErrorCode, Reason, Verdict},
    },
    journal::{Arrival, Disposition, NewMessage, Sequence, body::Body},
};

/// Of what is refused before it became a message, at most this much is kept.
const KEPT_HEAD_BYTES: usize = 64 * 1024;

/// Of a message whose acknowledgement waits for outcomes, so much is kept to answer it: its header.
const ANSWERED_BYTES: usize = 4096;

/// What a sender is told who comes when the memory for messages is taken.
const BUSY: &str = "the engine is busy: its memory for messages is taken, send again";

/// Acknowledgements that wait for outcomes at once, of one listener.
const MOST_WAITING: usize = 1024;

/// The engine's side of one listener.
pub struct Reception {
    settings: Settings,
    shared: Shared,
    control_ids: ControlIds,
    memory: Share,
    /// So many acknowledgements may wait for outcomes at once.
    waiting: Semaphore,
    stop: CancellationToken,
    serving: watch::Sender<bool>,
}

/// A message that is to be stored.
struct Candidate {
    message: NewMessage,
    note: Note,
}

/// What is told of a message when it is stored.
struct Note {
    /// MSH-9.1.
    class: String,
    /// Why it is in quarantine, if it is.
    quarantined: Option<String>,
    /// Characters that could not be read.
    replaced: usize,
    /// What makes it a repeat; none in quarantine, where everything is kept.
    marks: Option<(Arrival, Marks)>,
    /// Its control id may come again with other content.
    updates: bool,
    /// What its acknowledgement waits for.
    acknowledge: Acknowledge,
}

/// What was handed in, as far as the journal goes.
struct Kept {
    verdict: Verdict,
    /// Whose outcomes the answer waits for.
    awaited: Vec<(Sequence, Acknowledge)>,
}

impl Reception {
    /// A reception for a listener; after `stop` no acknowledgement waits for outcomes.
    pub fn new(settings: Settings, shared: Shared, stop: CancellationToken) -> Self {
        let control_ids = ControlIds::new(shared.clock.now());
        let memory = shared.room.share();
        let (waiting, serving) = (Semaphore::new(MOST_WAITING), watch::Sender::new(false));
        Self { settings, shared, control_ids, memory, waiting, stop, serving }
    }

    /// Becomes true when the source serves: the engine is not ready before.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }

    /// Stores what was admitted; the verdict is positive only if all of it is stored and nothing was wrong.
    async fn store(&self, admitted: Vec<Admitted>, peer: &Peer, now: Timestamp) -> Kept {
        let mut verdict = Verdict::Accepted;
        let mut candidates = Vec::with_capacity(admitted.len());
        for mut one in admitted {
            verdict = worse(verdict, std::mem::replace(&mut one.verdict, Verdict::Accepted));
            candidates.extend(self.candidate(one, peer, now).await);
        }
        // Held until what is stored here can be found by others.
        let marks = candidates.iter().filter_map(|one| Some(one.note.marks.as_ref()?.1));
        let _claims = self.shared.duplicates.claim(marks).await;
        let mut awaited = Vec::new();
        let candidates = self.without_repeats(candidates, &mut awaited).await;
        let (messages, notes): (Vec<_>, Vec<_>) =
            candidates.into_iter().map(|one| (one.message, one.note)).unzip();
        match self.shared.journal.append_all(messages).await {
            Ok(sequences) => {
                for (sequence, note) in sequences.into_iter().zip(notes) {
                    if let Some((_, marks)) = note.marks {
                        self.shared.duplicates.stored(marks, sequence, now);
                    }
                    self.tell(sequence, &note, now);
                    awaited.push((sequence, note.acknowledge));
                }
                awaited.retain(|(_, wanted)| *wanted != Acknowledge::Received);
                Kept { verdict, awaited }
            }
            // Whatever else was wrong: the sender must send it again.
            Err(_) => {
                self.shared.metrics.refused(&self.settings.listener, "not_stored");
                let verdict = Verdict::Rejected(Reason::new(ErrorCode::Internal, "not stored, send again"));
                Kept { verdict, awaited: Vec::new() }
            }
        }
    }

    async fn candidate(&self, admitted: Admitted, peer: &Peer, now: Timestamp) -> Option<Candidate> {
        let Admitted {
            raw,
            keys,
            class,
            disposition,
            acknowledge,
            flag,
            updates,
            stray,
            replaced,
            verdict: _,
            place: _,
        } = admitted;
        let disposition = disposition?;
        let listener = self.settings.listener.clone();
        if let Some(word) = stray {
            self.shared.metrics.refused(&listener, word);
        }
        let (quarantined, marks) = match &disposition {
            Disposition::Quarantined { reason } => (Some(reason.clone()), None),
            Disposition::Routed(_) => {
                let arrival = Arrival {
                    sequence: Sequence(0),
                    received: now,
                    listener: listener.clone(),
                    sending_application: keys.sending_application.clone(),
                    sending_facility: keys.sending_facility.clone(),
                    control_id: keys.control_id.clone(),
                    hash: Body::hash_async(&raw).await,
                };
                let marks = self.shared.duplicates.marks(&arrival);
                (None, Some((arrival, marks)))
            }
        };
        let (peer, flag) = (peer.0.clone(), flag.map(str::to_owned));
        let message = NewMessage { received: now, listener, peer, raw, keys, flag, disposition };
        Some(Candidate { message, note: Note { class, quarantined, replaced, marks, updates, acknowledge } })
    }

    /// Leaves out what is stored already, or stands before in the same frame.
    async fn without_repeats(
        &self,
        candidates: Vec<Candidate>,
        awaited: &mut Vec<(Sequence, Acknowledge)>,
    ) -> Vec<Candidate> {
        let Some(window) = self.settings.duplicates else { return candidates };
        let listener = self.settings.listener.as_str();
        let mut kept = Vec::with_capacity(candidates.len());
        let mut in_frame = HashSet::new();
        for mut candidate in candidates {
            let earlier = match &candidate.note.marks {
                None => Earlier::None,
                Some((_, marks)) if !in_frame.insert(*marks) => Earlier::InFrame,
                Some((arrival, marks)) => self.earlier(arrival, *marks, window, candidate.note.updates).await,
            };
            match earlier {
                Earlier::None => kept.push(candidate),
                Earlier::Other if candidate.note.updates => kept.push(candidate),
                Earlier::Other => {
                    self.shared.metrics.control_id_reused(listener);
                    let remark = "its source has used this control id for other content before";
                    let flag = &mut candidate.message.flag;
                    *flag = Some(flag.take().map_or(remark.to_owned(), |other| format!("{other}; {remark}")));
                    kept.push(candidate);
                }
                Earlier::InFrame => self.shared.metrics.duplicate(listener),
                Earlier::Copy(sequence) => {
                    awaited.push((sequence, candidate.note.acknowledge));
                    self.shared.metrics.duplicate(listener);
                    tracing::debug!(
                        listener,
                        first = sequence.0,
                        "a repeat is answered and not stored again"
                    );
                }
            }
        }
        kept
    }

    /// Waits for the outcomes that the answer depends on.
    async fn settle(&self, kept: Kept) -> Verdict {
        let Kept { mut verdict, awaited } = kept;
        let Some((_, most)) = awaited.iter().max_by_key(|(_, wanted)| *wanted).copied() else {
            return verdict;
        };
        let Ok(_turn) = self.waiting.try_acquire() else {
            return worse(verdict, outcome::unsettled(most, "too many wait, send again"));
        };
        let all = async {
            for (sequence, wanted) in awaited {
                let settled = outcome::settled(&self.shared.journal, sequence, wanted).await;
                verdict =
                    worse(verdict, settled.unwrap_or_else(|_| outcome::unsettled(wanted, "send again")));
            }
            verdict
        };
        tokio::select! {
            settled = timeout(self.settings.patience, all) => settled
                .unwrap_or_else(|_| outcome::unsettled(most, "it takes too long, send again to hear of it")),
            () = self.stop.cancelled() => outcome::unsettled(most, "the engine stops, send again"),
        }
    }

    async fn earlier(&self, arrival: &Arrival, marks: Marks, window: Duration, updates: bool) -> Earlier {
        match self.shared.duplicates.earlier(arrival, marks, window, updates).await {
            Ok(earlier) => earlier,
            // To run it twice is harmless where to lose it is not.
            Err(error) => {
                tracing::warn!(listener = self.settings.listener, %error, "stored without a look for repeats");
                Earlier::None
            }
        }
    }

    fn tell(&self, sequence: Sequence, note: &Note, now: Timestamp) {
        let listener = self.settings.listener.as_str();
        let (sequence, replaced) = (sequence.0, note.replaced);
        self.shared.metrics.received(listener, &note.class, now.as_second());
        if let Some(reason) = &note.quarantined {
            self.shared.metrics.quarantined(listener);
            tracing::warn!(listener, sequence, reason, "a message is in quarantine");
        }
        if replaced > 0 {
            tracing::warn!(
                listener,
                sequence,
                replaced,
                "bytes of a message are no characters of its character set; the raw bytes are kept"
            );
        }
    }

    /// Answers a message that is not taken now, and may be another time.
    fn turn_away(&self, raw: &[u8], word: &'static str, text: &str, now: Timestamp) -> Reply {
        self.shared.metrics.refused(&self.settings.listener, word);
        self.answer(raw, Verdict::Rejected(Reason::new(ErrorCode::Internal, text)), now)
    }

    fn answer(&self, raw: &[u8], verdict: Verdict, now: Timestamp) -> Reply {
        let answer = ack::acknowledge(raw, &verdict, now, &self.control_ids.next());
        if let Some(answer) = &answer {
            self.shared.metrics.acknowledged(&self.settings.listener, answer.code.as_str());
        }
        let acknowledgement = answer.map(|answer| answer.bytes);
        let (meaning, reason, place) = match verdict {
            Verdict::Accepted => (Meaning::Stored, String::new(), None),
            Verdict::Error(reason) | Verdict::Rejected(reason) => {
                let place = reason.location.as_ref().map(ToString::to_string);
                (meaning(reason.code), reason.text, place)
            }
        };
        Reply { acknowledgement, meaning, reason, place }
    }
}

#[async_trait]
impl Intake for Reception {
    async fn accept(&self, raw: Bytes, peer: &Peer) -> Result<Reply, IntakeClosed> {
        // Silence makes every sender try again; a rejection makes some give up.
        if self.shared.journal.is_closed() {
            return Err(IntakeClosed);
        }
        let began = Instant::now();
        let now = self.shared.clock.now();
        if self.shared.room.disk_is_low() {
            let text = "the engine's disk is nearly full: nothing is taken until there is room, send again";
            return Ok(self.turn_away(&raw, "disk_full", text, now));
        }
        let Some(held) = self.shared.room.hold(&self.memory, raw.len()).await else {
            return Ok(self.turn_away(&raw, "busy", BUSY, now));
        };
        let (admitted, mut answered) = admit::admit(&self.settings, &*self.shared.router, raw);
        let place = admitted.iter().find_map(|one| one.place.clone());
        let kept = self.store(admitted, peer, now).await;
        let waited = !kept.awaited.is_empty();
        // What is stored takes no memory while its acknowledgement waits for what becomes of it.
        if !kept.awaited.is_empty() {
            answered = Bytes::copy_from_slice(answered.get(..ANSWERED_BYTES).unwrap_or(&answered));
        }
        drop(held);
        let verdict = self.settle(kept).await;
        let mut answer = self.answer(&answered, verdict, now);
        answer.place = answer.place.or(place);
        if waited && answer.meaning == Meaning::Stored {
            answer.meaning = Meaning::Done;
        }
        self.shared.metrics.accept_seconds(&self.settings.listener, began.elapsed().as_secs_f64());
        Ok(answer)
    }

    async fn refuse(&self, head: Bytes, refusal: Refusal, peer: &Peer) -> Reply {
        let now = self.shared.clock.now();
        let Told { word, text, keep, code } = told(refusal);
        let listener = self.settings.listener.as_str();
        self.shared.metrics.refused(listener, word);
        tracing::warn!(listener, %peer, reason = %text, "input is refused");
        let verdict = Verdict::Rejected(Reason::new(code, text.clone()));
        let can_keep = !self.shared.journal.is_closed() && !self.shared.room.disk_is_low();
        if keep && !head.is_empty() && can_keep {
            let kept = head.slice(..head.len().min(KEPT_HEAD_BYTES));
            let admitted = admit::refused(&self.settings, kept, head.len(), text, verdict.clone());
            // The sender is refused either way.
            self.store(vec![admitted], peer, now).await;
        }
        self.answer(&head, verdict, now)
    }

    fn notice(&self, notice: Notice) {
        let listener = self.settings.listener.as_str();
        match notice {
            Notice::Serving => {
                self.serving.send_replace(true);
            }
            Notice::Connected => self.shared.metrics.connected(listener),
            Notice::Disconnected => self.shared.metrics.disconnected(listener),
            Notice::Junk { bytes } => self.shared.metrics.junk_bytes(listener, bytes),
        }
    }
}

/// What a refusal means to protocols that have words of their own.
fn meaning(code: ErrorCode) -> Meaning {
    match code {
        ErrorCode::Internal | ErrorCode::RecordLocked => Meaning::NotNow,
        ErrorCode::DataType | ErrorCode::RequiredFieldMissing => Meaning::Unreadable,
        ErrorCode::SegmentSequence
        | ErrorCode::TableValueNotFound
        | ErrorCode::ValueTooLong
        | ErrorCode::UnsupportedMessageType
        | ErrorCode::UnsupportedEventCode
        | ErrorCode::UnsupportedProcessingId
        | ErrorCode::UnsupportedVersionId
        | ErrorCode::UnknownKey
        | ErrorCode::DuplicateKey => Meaning::Refused,
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
        Refusal::OtherFormat { taken } => (
            "other_format",
            format!("this listener takes {taken} here, and this is not"),
            true,
            ErrorCode::DataType,
        ),
        Refusal::Busy => ("busy", BUSY.to_owned(), false, ErrorCode::Internal),
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

//! The decision over what came in, without I/O: what is kept as what, and how it is answered.
//!
//! | what came in | kept | answer |
//! |---|---|---|
//! | nothing but blanks | no | reject |
//! | no MSH, or separators that give no structure | quarantine | reject |
//! | an acknowledgement (ACK, NAK, MCF) | quarantine | none: an acknowledgement is never acknowledged |
//! | no MSH-9 or no MSH-10 | quarantine | error |
//! | MSH-12 is no version 2 | quarantine | reject |
//! | MSH-11 says test or training, and the instance is live | quarantine | reject |
//! | an NHS number of a test patient, and the instance is live | quarantine | reject |
//! | merges that cannot be done: with himself, in a chain, in a circle | quarantine | error |
//! | no route takes it | quarantine | the listener's policy |
//! | otherwise | routed | accept |
//!
//! A frame with a batch (FHS, BHS) or with several messages is split; each message goes its own way. It has one answer,
//! to the header of its first message: the worst that one of them would have got alone. Messages that were fine are
//! stored nevertheless; a repeat of the whole is harmless to them. A trailer that counts otherwise, or bytes that belong
//! to no message, make it an error, and the whole frame is kept in quarantine besides.

use bytes::Bytes;
use memchr::memmem;

use super::{Environment, PatientKeys, Router, Settings, Unmatched, keys, patient};
use crate::{
    connector::Acknowledge,
    hl7::{
        Message, ParseError, Path,
        ack::{ErrorCode, Reason, Verdict},
        batch::{self, BatchFault},
    },
    journal::{Disposition, Keys},
};

/// One message, decided.
pub(super) struct Admitted {
    pub raw: Bytes,
    pub keys: Keys,
    /// MSH-9.1, for the metrics.
    pub class: String,
    /// What is to become of it; none if there is nothing to keep.
    pub disposition: Option<Disposition>,
    pub verdict: Verdict,
    /// What its acknowledgement waits for.
    pub acknowledge: Acknowledge,
    /// A remark for a person.
    pub flag: Option<&'static str>,
    /// What it is counted as if it does not belong to this instance.
    pub stray: Option<&'static str>,
    /// Characters that could not be read.
    pub replaced: usize,
}

/// Decides over the content of a frame; the second part is what the answer answers.
pub(super) fn admit(settings: &Settings, router: &dyn Router, raw: Bytes) -> (Vec<Admitted>, Bytes) {
    if !holds_several(&raw) {
        let admitted = one(settings, router, raw.clone());
        return (vec![admitted], raw);
    }
    let batch = batch::split(&raw);
    let answered = batch.messages.first().unwrap_or(&raw).clone();
    let fault = batch.faults.iter().find(|fault| !matches!(fault, BatchFault::NoTrailer));
    let nothing = "the batch holds no message".to_owned();
    let fault = fault.map(ToString::to_string).or_else(|| batch.messages.is_empty().then_some(nothing));
    let mut admitted: Vec<_> =
        batch.messages.into_iter().map(|message| one(settings, router, message)).collect();
    if let Some(fault) = fault {
        let verdict = Verdict::Error(Reason::new(ErrorCode::SegmentSequence, fault.clone()));
        admitted.push(quarantined(raw, fault, verdict));
    }
    (admitted, answered)
}

/// The beginning of what was refused before it became a message.
pub(super) fn refused(
    settings: &Settings,
    kept: Bytes,
    length: usize,
    text: String,
    verdict: Verdict,
) -> Admitted {
    let reason = match kept.len() < length {
        true => format!("{text}; only its first {} bytes are kept", kept.len()),
        false => text,
    };
    // Its keys, as far as they can be read, so that it is found by the sender's control id.
    let keys =
        Message::parse(kept.clone(), settings.charset).map(|head| keys::of_header(&head)).unwrap_or_default();
    Admitted { keys, ..quarantined(kept, reason, verdict) }
}

fn holds_several(raw: &[u8]) -> bool {
    batch::is_batch(raw) || [b"\rMSH", b"\nMSH"].iter().any(|mark| memmem::find(raw, *mark).is_some())
}

fn one(settings: &Settings, router: &dyn Router, raw: Bytes) -> Admitted {
    let message = match Message::parse(raw.clone(), settings.charset) {
        Ok(message) => message,
        Err(error) => return unreadable(raw, &error),
    };
    let patient = PatientKeys::of(&message, &settings.patients);
    let keys = keys::of(&message, &patient, &settings.patients);
    let trigger = message.trigger();
    let class = trigger.code.to_string();
    let replaced = message.charset().replaced;
    let kept = |verdict: Verdict, reason: String, keys: Keys| Admitted {
        keys,
        class: class.clone(),
        replaced,
        ..quarantined(raw.clone(), reason, verdict)
    };
    if matches!(class.as_str(), "ACK" | "NAK" | "MCF") {
        let reason = "an acknowledgement came where messages are expected".to_owned();
        // The verdict is never sent.
        return kept(Verdict::Accepted, reason, keys);
    }
    if let Some((word, reason)) = stray(settings, &message) {
        let text = reason.text.clone();
        return Admitted { stray: Some(word), ..kept(Verdict::Rejected(reason), text, keys) };
    }
    if let Some(verdict) = fault(settings, &message) {
        let reason = text(&verdict);
        return kept(verdict, reason, keys);
    }
    let deliveries = router.route(&settings.listener, &message, &patient);
    if deliveries.is_empty() {
        let reason = "no route takes this message".to_owned();
        let told = || Reason::new(ErrorCode::UnsupportedMessageType, reason.clone());
        let verdict = match settings.unmatched {
            Unmatched::Accept => Verdict::Accepted,
            Unmatched::Error => Verdict::Error(told()),
            Unmatched::Reject => Verdict::Rejected(told()),
        };
        return kept(verdict, reason, keys);
    }
    let acknowledge = router.acknowledge(&deliveries, settings.acknowledge);
    let disposition = Some(Disposition::Routed(deliveries));
    let lacks = patient::lacks_the_old_identity(&message);
    let flag = lacks.then_some("a merge or move without the old identity (MRG): in order by its PID alone");
    let (verdict, class, stray) = (Verdict::Accepted, class.clone(), None);
    Admitted { keys, class, disposition, verdict, acknowledge, flag, stray, replaced, raw }
}

fn unreadable(raw: Bytes, error: &ParseError) -> Admitted {
    let reason = error.to_string();
    let verdict = Verdict::Rejected(Reason::new(ErrorCode::SegmentSequence, reason.clone()));
    match error {
        // Blanks and control characters: some peers send them to keep a connection open.
        ParseError::Empty => Admitted { disposition: None, ..quarantined(raw, reason, verdict) },
        _ => quarantined(raw, reason, verdict),
    }
}

/// What keeps a message from being taken, whoever would want it.
fn fault(settings: &Settings, message: &Message) -> Option<Verdict> {
    for (path, empty) in
        [("MSH-9", message.trigger().code.is_empty()), ("MSH-10", message.control_id().is_empty())]
    {
        if empty {
            let reason = Reason::new(ErrorCode::RequiredFieldMissing, format!("{path} is missing"));
            return Some(Verdict::Error(Reason { location: Path::parse(path).ok(), ..reason }));
        }
    }
    if !is_version_2(message.version().trim()) {
        let reason = Reason::new(ErrorCode::UnsupportedVersionId, "MSH-12 is no version 2 of HL7");
        return Some(Verdict::Rejected(Reason { location: Path::parse("MSH-12").ok(), ..reason }));
    }
    let text = patient::merge_fault(message, &settings.patients)?;
    Some(Verdict::Error(Reason::new(ErrorCode::DuplicateKey, text)))
}

/// What does not belong into a live record (hazard H11): the word it is counted by, and why.
fn stray(settings: &Settings, message: &Message) -> Option<(&'static str, Reason)> {
    if settings.environment != Environment::Live {
        return None;
    }
    let processing = message.header(11).text().unwrap_or_default();
    if matches!(processing.trim(), "T" | "D") {
        let text = "a test or training message (MSH-11) came to a live system";
        let reason = Reason::new(ErrorCode::UnsupportedProcessingId, text);
        return Some(("environment", Reason { location: Path::parse("MSH-11").ok(), ..reason }));
    }
    let begins = |number: String| settings.patients.test_numbers.iter().any(|test| number.starts_with(test));
    let text = "a message of a test patient (NHS number) came to a live system";
    patient::nhs_numbers(message)
        .any(begins)
        .then(|| ("test_patient", Reason::new(ErrorCode::UnknownKey, text)))
}

/// `2`, `2.4`, `2.5.1`; many senders leave it out.
fn is_version_2(version: &str) -> bool {
    let mut numbers = version.split('.');
    version.is_empty()
        || (numbers.next() == Some("2")
            && numbers.all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())))
}

fn quarantined(raw: Bytes, reason: String, verdict: Verdict) -> Admitted {
    let disposition = Some(Disposition::Quarantined { reason });
    let (keys, class) = (Keys::default(), String::new());
    let acknowledge = Acknowledge::Received;
    Admitted { raw, keys, class, disposition, verdict, acknowledge, flag: None, stray: None, replaced: 0 }
}

fn text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accepted => String::new(),
        Verdict::Error(reason) | Verdict::Rejected(reason) => reason.text.clone(),
    }
}

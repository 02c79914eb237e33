//! The decision over what came in, without I/O: what is kept as what, and how it is answered.
//!
//! | what came in | kept | answer |
//! |---|---|---|
//! | nothing but blanks | no | reject |
//! | no MSH, or separators that give no structure | quarantine | reject |
//! | an acknowledgement (ACK, NAK, MCF) | quarantine | none: an acknowledgement is never acknowledged |
//! | bytes that begin with `{` and are no FHIR resource or Bundle to send | quarantine | reject |
//! | no MSH-9 or no MSH-10 | quarantine | error |
//! | MSH-12 is no version 2 | quarantine | reject |
//! | MSH-11, or a label of FHIR, says test or training, and the instance is live | quarantine | reject |
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

use super::{
    Environment, PatientKeys, Router, Settings, Unmatched, fhir, keys,
    patient::{self, People},
};
use crate::{
    connector::Acknowledge,
    fhir::is_fhir,
    hl7::{
        Message, ParseError, Path,
        ack::{ErrorCode, Reason, Verdict},
        batch::{self, BatchFault},
    },
    incoming::{FhirMessage, Incoming, Unreadable},
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
    /// The control id may come again with other content: it names what the message is about.
    pub updates: bool,
    /// The element that is wrong.
    pub place: Option<String>,
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
    if is_fhir(raw) {
        return false;
    }
    batch::is_batch(raw) || [b"\rMSH", b"\nMSH"].iter().any(|mark| memmem::find(raw, *mark).is_some())
}

fn one(settings: &Settings, router: &dyn Router, raw: Bytes) -> Admitted {
    match Incoming::read(raw.clone(), settings.charset) {
        Ok(incoming) => match &incoming {
            Incoming::Hl7(message) => of_hl7(settings, router, &incoming, message),
            Incoming::Fhir(message) => of_fhir(settings, router, &incoming, message),
        },
        Err(error) => unreadable(raw, &error),
    }
}

/// One message, read.
struct Read<'m> {
    incoming: &'m Incoming,
    raw: Bytes,
    keys: Keys,
    replaced: usize,
}

impl Read<'_> {
    fn kept(self, verdict: Verdict, reason: String) -> Admitted {
        Admitted {
            keys: self.keys,
            class: self.incoming.code().into_owned(),
            replaced: self.replaced,
            ..quarantined(self.raw, reason, verdict)
        }
    }

    /// Gives it to the routes that take it.
    fn routed(self, settings: &Settings, router: &dyn Router, patient: &PatientKeys) -> Admitted {
        let deliveries = router.route(&settings.listener, self.incoming, patient);
        if deliveries.is_empty() {
            let reason = "no route takes this message".to_owned();
            let told = || Reason::new(ErrorCode::UnsupportedMessageType, reason.clone());
            let verdict = match settings.unmatched {
                Unmatched::Accept => Verdict::Accepted,
                Unmatched::Error => Verdict::Error(told()),
                Unmatched::Reject => Verdict::Rejected(told()),
            };
            return self.kept(verdict, reason);
        }
        let acknowledge = router.acknowledge(&deliveries, settings.acknowledge);
        let disposition = Some(Disposition::Routed(deliveries));
        Admitted { disposition, acknowledge, ..self.kept(Verdict::Accepted, String::new()) }
    }
}

fn of_hl7(settings: &Settings, router: &dyn Router, incoming: &Incoming, message: &Message) -> Admitted {
    let people = People::of(message, &settings.patients);
    let patient = people.keys();
    let keys = keys::of(message, &people, &patient);
    let read = Read { incoming, raw: message.raw().clone(), keys, replaced: message.charset().replaced };
    if matches!(message.trigger().code.as_ref(), "ACK" | "NAK" | "MCF") {
        let reason = "an acknowledgement came where messages are expected".to_owned();
        // The verdict is never sent.
        return read.kept(Verdict::Accepted, reason);
    }
    if let Some((word, reason)) = stray(settings, message, &people) {
        let text = reason.text.clone();
        return Admitted { stray: Some(word), ..read.kept(Verdict::Rejected(reason), text) };
    }
    if let Some(verdict) = fault(message, &people) {
        let reason = text(&verdict);
        return read.kept(verdict, reason);
    }
    let lacks = patient::lacks_the_old_identity(message);
    let flag = lacks.then_some("a merge or move without the old identity (MRG): in order by its PID alone");
    Admitted { flag, ..read.routed(settings, router, &patient) }
}

fn of_fhir(settings: &Settings, router: &dyn Router, incoming: &Incoming, message: &FhirMessage) -> Admitted {
    let patient = fhir::patient_keys(message);
    let keys = fhir::keys(message, &patient);
    let read = Read { incoming, raw: message.raw().clone(), keys, replaced: 0 };
    if settings.environment == Environment::Live
        && let Some((word, reason)) = fhir::stray(message, &settings.patients)
    {
        let verdict = Verdict::Rejected(Reason::new(ErrorCode::UnsupportedProcessingId, reason));
        return Admitted { stray: Some(word), ..read.kept(verdict, reason.to_owned()) };
    }
    Admitted { updates: !message.names_sending(), ..read.routed(settings, router, &patient) }
}

fn unreadable(raw: Bytes, error: &Unreadable) -> Admitted {
    let reason = error.to_string();
    let told = |code| Verdict::Rejected(Reason::new(code, reason.clone()));
    match error {
        // Blanks and control characters: some peers send them to keep a connection open.
        Unreadable::Hl7(ParseError::Empty) => Admitted {
            disposition: None,
            ..quarantined(raw, reason.clone(), told(ErrorCode::SegmentSequence))
        },
        Unreadable::Hl7(_) => quarantined(raw, reason.clone(), told(ErrorCode::SegmentSequence)),
        Unreadable::Fhir(fault) => {
            let place = Some(fault.element().to_owned()).filter(|element| !element.is_empty());
            Admitted { place, ..quarantined(raw, reason.clone(), told(ErrorCode::DataType)) }
        }
    }
}

/// What keeps a message from being taken, whoever would want it.
fn fault(message: &Message, people: &People<'_>) -> Option<Verdict> {
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
    let text = people.merge_fault(&message.trigger().event)?;
    Some(Verdict::Error(Reason::new(ErrorCode::DuplicateKey, text)))
}

/// What does not belong into a live record (hazard H11): the word it is counted by, and why.
fn stray(settings: &Settings, message: &Message, people: &People<'_>) -> Option<(&'static str, Reason)> {
    if settings.environment != Environment::Live {
        return None;
    }
    let processing = message.header(11).text().unwrap_or_default();
    if matches!(processing.trim(), "T" | "D") {
        let text = "a test or training message (MSH-11) came to a live system";
        let reason = Reason::new(ErrorCode::UnsupportedProcessingId, text);
        return Some(("environment", Reason { location: Path::parse("MSH-11").ok(), ..reason }));
    }
    let begins = |number: &str| settings.patients.test_numbers.iter().any(|test| number.starts_with(test));
    let text = "a message of a test patient (NHS number) came to a live system";
    people.nhs_numbers().any(begins).then(|| ("test_patient", Reason::new(ErrorCode::UnknownKey, text)))
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
    Admitted {
        raw,
        keys,
        class,
        disposition,
        verdict,
        acknowledge,
        flag: None,
        updates: false,
        place: None,
        stray: None,
        replaced: 0,
    }
}

fn text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accepted => String::new(),
        Verdict::Error(reason) | Verdict::Rejected(reason) => reason.text.clone(),
    }
}

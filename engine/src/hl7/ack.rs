//! Acknowledgements: original and enhanced mode, made from the header of what came in.
//!
//! Promise:  a sender that waits gets an answer it can match: MSA-2 is MSH-10 as sent, MSH-3 to MSH-6 are swapped
//!           whole, version, processing id and character set are echoed, in the separators of the sender; no
//!           patient data in any text; an acknowledgement is never acknowledged.
//! Decided:  - MSH-15 and MSH-16 empty: original mode, AA, AE or AR, always.
//!           - Else MSH-15 asks for CA, CE or CR (AL, ER, SU; NE and empty do not). If it does not ask, MSH-16 is
//!             looked at in the same way and gets AA, AE or AR: most senders of `NE` and `AL` mean original mode.
//!             Unknown words count as AL: nobody is left waiting.
//!           - ERR has the form of 2.5 (ERR-2, 3, 4, 8) from version 2.5 on, ERR-1 before. MSA-3 carries the
//!             reason up to 2.6; 2.7 has withdrawn it.
//!           - Bytes whose header cannot be read are answered in the usual separators, with whatever of the
//!             header could be saved.
//! Source:   HL7 v2.8.2 chapter 2.9; tables 0008, 0155, 0357.

use bytes::Bytes;
use jiff::Timestamp;

use super::{Message, Path, Separators, escape, message::Head};

/// What the receiver decided; the mode makes a code of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// AA, CA: it has been taken.
    Accepted,
    /// AE, CE: something is wrong with it.
    Error(Reason),
    /// AR, CR: it is not taken, for a reason that may have nothing to do with its content.
    Rejected(Reason),
}

/// Why a message was not accepted, in words that can be read aloud and hold no patient data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Of table 0357.
    pub code: ErrorCode,
    /// One sentence for the sender's engineer.
    pub text: String,
    /// Where, if it is a place in the message.
    pub location: Option<Path>,
}

impl Reason {
    /// A reason without a place.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), location: None }
    }
}

/// Acknowledgement codes, table 0008.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AckCode {
    /// Application accept.
    Aa,
    /// Application error.
    Ae,
    /// Application reject.
    Ar,
    /// Commit accept.
    Ca,
    /// Commit error.
    Ce,
    /// Commit reject.
    Cr,
}

impl AckCode {
    /// As written in MSA-1.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aa => "AA",
            Self::Ae => "AE",
            Self::Ar => "AR",
            Self::Ca => "CA",
            Self::Ce => "CE",
            Self::Cr => "CR",
        }
    }

    /// Reads MSA-1.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Aa, Self::Ae, Self::Ar, Self::Ca, Self::Ce, Self::Cr]
            .into_iter()
            .find(|code| code.as_str() == text.trim())
    }

    /// Whether it says that the message has been taken.
    pub fn is_positive(self) -> bool {
        matches!(self, Self::Aa | Self::Ca)
    }
}

/// Error codes, table 0357.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the text says it
pub enum ErrorCode {
    SegmentSequence,
    RequiredFieldMissing,
    DataType,
    TableValueNotFound,
    ValueTooLong,
    UnsupportedMessageType,
    UnsupportedEventCode,
    UnsupportedProcessingId,
    UnsupportedVersionId,
    UnknownKey,
    DuplicateKey,
    RecordLocked,
    Internal,
}

impl ErrorCode {
    /// The code and its text.
    pub fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::SegmentSequence => ("100", "Segment sequence error"),
            Self::RequiredFieldMissing => ("101", "Required field missing"),
            Self::DataType => ("102", "Data type error"),
            Self::TableValueNotFound => ("103", "Table value not found"),
            Self::ValueTooLong => ("104", "Value too long"),
            Self::UnsupportedMessageType => ("200", "Unsupported message type"),
            Self::UnsupportedEventCode => ("201", "Unsupported event code"),
            Self::UnsupportedProcessingId => ("202", "Unsupported processing id"),
            Self::UnsupportedVersionId => ("203", "Unsupported version id"),
            Self::UnknownKey => ("204", "Unknown key identifier"),
            Self::DuplicateKey => ("205", "Duplicate key identifier"),
            Self::RecordLocked => ("206", "Application record locked"),
            Self::Internal => ("207", "Application internal error"),
        }
    }
}

/// An acknowledgement that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// MSA-1.
    pub code: AckCode,
    /// The message to send back, without frame.
    pub bytes: Bytes,
}

/// Answers what came in. `raw` is the message or as much of its beginning as there is, `own_id` becomes MSH-10 and
/// must be unique. `None` when the sender wants no answer to this, or it is an acknowledgement itself.
pub fn acknowledge(raw: &[u8], verdict: &Verdict, now: Timestamp, own_id: &str) -> Option<Acknowledgement> {
    if is_acknowledgement(raw) {
        return None;
    }
    let header = Header::find(raw);
    let code = code(verdict, header.field(15), header.field(16))?;
    Some(Acknowledgement { code, bytes: Bytes::from(write(&header, code, verdict, now, own_id)) })
}

/// Whether this answers another message: then it must not be answered itself. True for ACK, NAK and MCF, and for
/// whatever carries an MSA and does not ask for an accept acknowledgement.
pub fn is_acknowledgement(raw: &[u8]) -> bool {
    let Ok(head) = Head::find(raw) else { return false };
    let code = head.field(9).split(|byte| *byte == head.separators.component).next();
    if code.is_some_and(|code| matches!(code, b"ACK" | b"NAK" | b"MCF")) {
        return true;
    }
    matches!(head.field(15), b"" | b"NE" | b"\"\"") && has_msa(raw.get(head.start..).unwrap_or_default())
}

/// Whether one of the first eight lines is an MSA.
fn has_msa(message: &[u8]) -> bool {
    let ends = memchr::memchr2_iter(b'\r', b'\n', message);
    let starts = std::iter::once(0).chain(ends.map(|end| end + 1));
    let lines = starts.filter_map(|start| message.get(start..));
    lines
        .filter(|line| !matches!(line.first(), None | Some(b'\r' | b'\n')))
        .take(8)
        .any(|line| line.starts_with(b"MSA"))
}

/// What an acknowledgement says: MSA-1, MSA-2, and its reason from MSA-3 or ERR.
pub struct Answer {
    /// MSA-1, if it is a known code.
    pub code: Option<AckCode>,
    /// MSA-2.
    pub control_id: String,
    /// MSA-3, else ERR-8, else the text of ERR-3.
    pub text: String,
}

/// Reads the answer out of a message; none if it has no MSA.
pub fn answer(message: &Message) -> Option<Answer> {
    let msa = message.segment("MSA")?;
    let text = |value: super::Value<'_>| {
        value.text().map(std::borrow::Cow::into_owned).filter(|text| !text.is_empty())
    };
    let err = message.segment("ERR");
    let reason = text(msa.field(3))
        .or_else(|| err.and_then(|err| text(err.field(8))))
        .or_else(|| err.and_then(|err| text(err.field(3).component(2))));
    Some(Answer {
        code: text(msa.field(1)).and_then(|code| AckCode::parse(&code)),
        control_id: text(msa.field(2)).unwrap_or_default(),
        text: reason.unwrap_or_default(),
    })
}

fn code(verdict: &Verdict, accept: &[u8], application: &[u8]) -> Option<AckCode> {
    let good = *verdict == Verdict::Accepted;
    let wanted = |field: &[u8]| match field {
        b"" | b"\"\"" | b"NE" => false,
        b"ER" => !good,
        b"SU" => good,
        _ => true,
    };
    let blank = |field: &[u8]| matches!(field, b"" | b"\"\"");
    let commit = wanted(accept);
    let original = blank(accept) && blank(application);
    if !(commit || original || wanted(application)) {
        return None;
    }
    Some(match (verdict, commit) {
        (Verdict::Accepted, false) => AckCode::Aa,
        (Verdict::Error(_), false) => AckCode::Ae,
        (Verdict::Rejected(_), false) => AckCode::Ar,
        (Verdict::Accepted, true) => AckCode::Ca,
        (Verdict::Error(_), true) => AckCode::Ce,
        (Verdict::Rejected(_), true) => AckCode::Cr,
    })
}

/// The last field of MSH that an answer looks at.
const LAST_FIELD: usize = 18;

/// The header to answer, as far as it could be read.
struct Header<'b> {
    separators: Separators,
    /// From `MSH` on, so that MSH-3 is the third: MSH-1 stands between them.
    fields: [&'b [u8]; LAST_FIELD],
}

impl<'b> Header<'b> {
    fn find(raw: &'b [u8]) -> Self {
        let (separators, line) = match Head::find(raw) {
            Ok(head) => (head.separators, head.line()),
            Err(_) => (Separators::default(), salvage(raw)),
        };
        let mut fields = line.split(|byte| *byte == separators.field);
        Self { separators, fields: std::array::from_fn(|_| fields.next().unwrap_or_default()) }
    }

    fn as_sent(&self, n: usize) -> &'b [u8] {
        self.fields.get(n - 1).copied().unwrap_or_default()
    }

    /// The n-th field of MSH as sent, from 3, without control characters and of bearable length.
    fn field(&self, n: usize) -> &'b [u8] {
        let field = self.as_sent(n);
        let sound = field.len() <= 1000 && !field.iter().any(|byte| matches!(byte, 0 | 0x0B | 0x1C));
        if sound { field } else { &[] }
    }

    /// MSH-10 as sent, without what would end the frame or a string: some senders fill fields up with NUL.
    fn control_id(&self) -> Vec<u8> {
        let field = self.as_sent(10);
        let sound = field.iter().copied().filter(|byte| !matches!(byte, 0 | 0x0B | 0x1C));
        if field.len() <= 1000 { sound.collect() } else { Vec::new() }
    }

    fn component(&self, n: usize, component: usize) -> &'b [u8] {
        let mut components = self.field(n).split(|byte| *byte == self.separators.component);
        components.nth(component - 1).unwrap_or_default()
    }

    /// Whether its version is at least this one; false when it tells none.
    fn since(&self, major: u32, minor: u32) -> bool {
        let version = std::str::from_utf8(self.component(12, 1)).unwrap_or_default();
        let mut numbers = version.trim().split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
    }

    /// `ACK`, `ACK^A01` or `ACK^A01^ACK`, by version.
    fn message_type(&self) -> Vec<u8> {
        let event = self.component(9, 2);
        let named = (1..=6).contains(&event.len()) && event.iter().all(u8::is_ascii_alphanumeric);
        let mut kind = b"ACK".to_vec();
        if named && (self.since(2, 4) || self.component(12, 1) == b"2.3.1") {
            kind.push(self.separators.component);
            kind.extend_from_slice(event);
            if self.since(2, 4) {
                kind.push(self.separators.component);
                kind.extend_from_slice(b"ACK");
            }
        }
        kind
    }
}

/// A line that begins with `MSH|` somewhere in bytes that are no message.
fn salvage(raw: &[u8]) -> &[u8] {
    let Some(start) = memchr::memmem::find(raw, b"MSH|") else { return &[] };
    let rest = raw.get(start..).unwrap_or_default();
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0x0B | 0x1C)).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

fn write(header: &Header<'_>, code: AckCode, verdict: &Verdict, now: Timestamp, own_id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let separators = header.separators;
    out.extend_from_slice(b"MSH");
    out.extend_from_slice(separators.header().as_bytes());
    let stamp = now.strftime("%Y%m%d%H%M%S+0000").to_string();
    let kind = header.message_type();
    let own_id = escape::encode(own_id, separators);
    let processing: &[u8] = if header.field(11).is_empty() { b"P" } else { header.field(11) };
    let version: &[u8] = if header.field(12).is_empty() { b"2.5" } else { header.field(12) };
    let fields: [&[u8]; 16] = [
        header.field(5),
        header.field(6),
        header.field(3),
        header.field(4),
        stamp.as_bytes(),
        b"",
        kind.as_slice(),
        own_id.as_bytes(),
        processing,
        version,
        b"",
        b"",
        b"",
        b"",
        b"",
        header.field(18),
    ];
    let mut fields = fields.as_slice();
    while let [others @ .., last] = fields {
        if !last.is_empty() {
            break;
        }
        fields = others;
    }
    for field in fields {
        out.push(separators.field);
        out.extend_from_slice(field);
    }
    out.extend_from_slice(b"\rMSA");
    segment_field(&mut out, separators, code.as_str().as_bytes());
    segment_field(&mut out, separators, &header.control_id());
    if let Verdict::Error(reason) | Verdict::Rejected(reason) = verdict {
        write_reason(&mut out, header, reason);
    }
    out.push(b'\r');
    out
}

fn write_reason(out: &mut Vec<u8>, header: &Header<'_>, reason: &Reason) {
    let separators = header.separators;
    let text: String = reason.text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    let text = escape::encode(&text, separators);
    // A message without a version is answered as 2.5, the version that the answer then states.
    let new_form = header.since(2, 5) || header.field(12).is_empty();
    if !header.since(2, 7) {
        segment_field(out, separators, text.as_bytes());
    }
    let (code, meaning) = reason.code.row();
    out.extend_from_slice(b"\rERR");
    if new_form {
        out.push(separators.field);
        segment_field(out, separators, &location(reason, separators, true));
        segment_field(out, separators, &joined(&[code, meaning, "HL70357"], separators.component));
        segment_field(out, separators, b"E");
        out.extend_from_slice(&[separators.field; 3]);
        segment_field(out, separators, text.as_bytes());
    } else {
        let mut place = location(reason, separators, false);
        let missing = 3 - place.split(|byte| *byte == separators.component).count().min(3);
        place.extend(std::iter::repeat_n(separators.component, missing + 1));
        let error = match separators.subcomponent {
            Some(subcomponent) => joined(&[code, meaning, "HL70357"], subcomponent),
            None => code.as_bytes().to_vec(),
        };
        place.extend_from_slice(&error);
        segment_field(out, separators, &place);
    }
}

/// `PID^1^3^1^4` (ERR-2) or `PID^1^3` (ERR-1).
fn location(reason: &Reason, separators: Separators, deep: bool) -> Vec<u8> {
    let Some(path) = &reason.location else { return Vec::new() };
    let mut pieces = vec![path.segment_name().to_owned(), path.occurrence.to_string()];
    if path.field > 0 {
        pieces.push(path.field.to_string());
        if deep {
            pieces.push(path.repetition.to_string());
            pieces.extend(path.component.map(|n| n.to_string()));
            pieces.extend(path.subcomponent.map(|n| n.to_string()));
        }
    }
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    joined(&pieces, separators.component)
}

fn joined(pieces: &[&str], separator: u8) -> Vec<u8> {
    pieces.join(&char::from(separator).to_string()).into_bytes()
}

fn segment_field(out: &mut Vec<u8>, separators: Separators, value: &[u8]) {
    out.push(separators.field);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        "2026-03-04T10:15:30Z".parse().unwrap()
    }

    fn reply(raw: &str, verdict: &Verdict) -> Option<String> {
        let answer = acknowledge(raw.as_bytes(), verdict, now(), "TIE1")?;
        Some(String::from_utf8(answer.bytes.to_vec()).unwrap().replace('\r', "\n"))
    }

    fn error() -> Verdict {
        let location = Some(Path::parse("PID-3.1").unwrap());
        Verdict::Error(Reason {
            code: ErrorCode::RequiredFieldMissing,
            text: "PID-3 is empty".into(),
            location,
        })
    }

    #[test]
    fn a_control_id_that_is_filled_up_with_nul_is_echoed_without() {
        let raw = "MSH|^~\\&|PAS|RXX|TIE|HUB|20260101||ADT^A01|M\u{0}1\u{0}\u{0}|P|2.4\r";
        assert!(reply(raw, &Verdict::Accepted).unwrap().ends_with("\nMSA|AA|M1\n"));
    }

    #[test]
    fn original_mode_swaps_whole_fields_and_echoes() {
        let raw = "MSH|^~\\&|PAS^1.2^ISO|RXX^x|TIE^9|HUB|20260101||ADT^A01^ADT_A01|ID^1|T^A|2.4|||||GBR|8859/1\rPID|1||SECRET";
        assert_eq!(
            reply(raw, &Verdict::Accepted).unwrap(),
            "MSH|^~\\&|TIE^9|HUB|PAS^1.2^ISO|RXX^x|20260304101530+0000||ACK^A01^ACK|TIE1|T^A|2.4||||||8859/1\nMSA|AA|ID^1\n"
        );
        assert_eq!(
            reply(raw, &error()).unwrap().lines().skip(1).collect::<Vec<_>>(),
            ["MSA|AE|ID^1|PID-3 is empty", "ERR|PID^1^3^101&Required field missing&HL70357"]
        );
        let nowhere = Verdict::Rejected(Reason::new(ErrorCode::Internal, "no"));
        assert!(
            reply(raw, &nowhere)
                .unwrap()
                .ends_with("MSA|AR|ID^1|no\nERR|^^^207&Application internal error&HL70357\n")
        );
    }

    #[test]
    fn the_error_segment_follows_the_version() {
        let raw = |version| format!("MSH|^~\\&|A|B|C|D|||ORU^R01|7|P|{version}");
        let lines = |version| {
            reply(&raw(version), &error()).unwrap().lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        let new = "ERR||PID^1^3^1^1|101^Required field missing^HL70357|E||||PID-3 is empty";
        assert_eq!(lines("2.5.1"), ["MSA|AE|7|PID-3 is empty", new]);
        assert_eq!(lines("2.7"), ["MSA|AE|7", new]);
        assert_eq!(lines(""), ["MSA|AE|7|PID-3 is empty", new]);
        assert!(lines("2.3")[1].starts_with("ERR|PID^1^3^101&"));
        assert!(reply(&raw("2.3"), &error()).unwrap().contains("||ACK|TIE1|P|2.3\n"));
        assert!(reply(&raw("2.3.1"), &error()).unwrap().contains("||ACK^R01|TIE1|P|2.3.1\n"));
    }

    #[test]
    fn enhanced_mode_answers_what_is_asked() {
        let code = |accept: &str, application: &str, verdict: &Verdict| {
            let raw = format!("MSH|^~\\&|A|B|C|D|||ADT^A01|7|P|2.4|||{accept}|{application}");
            acknowledge(raw.as_bytes(), verdict, now(), "1").map_or("-", |answer| answer.code.as_str())
        };
        let rejected = Verdict::Rejected(Reason::new(ErrorCode::Internal, "no"));
        for (accept, application, good, bad, worse) in [
            ("", "", "AA", "AE", "AR"),
            ("AL", "NE", "CA", "CE", "CR"),
            ("AL", "AL", "CA", "CE", "CR"),
            ("NE", "AL", "AA", "AE", "AR"),
            ("", "AL", "AA", "AE", "AR"),
            ("NE", "NE", "-", "-", "-"),
            ("NE", "", "-", "-", "-"),
            ("ER", "NE", "-", "CE", "CR"),
            ("SU", "NE", "CA", "-", "-"),
            ("ER", "AL", "AA", "CE", "CR"),
            ("NE", "ER", "-", "AE", "AR"),
            ("??", "", "CA", "CE", "CR"),
        ] {
            let found = [
                code(accept, application, &Verdict::Accepted),
                code(accept, application, &error()),
                code(accept, application, &rejected),
            ];
            assert_eq!(found, [good, bad, worse], "{accept} {application}");
        }
    }

    #[test]
    fn an_acknowledgement_is_never_acknowledged() {
        for raw in [
            "MSH|^~\\&|A|B|C|D|||ACK^A01|7|P|2.4\rMSA|AA|1",
            "MSH|^~\\&|A|B|C|D|||ACK|7|P|2.4|||AL|AL\rMSA|AA|1",
            "MSH|^~\\&|A|B|C|D|||ORR^O02|7|P|2.4\rMSA|AA|1",
            "MSH$%*!@$A$B$C$D$$$MCF$7",
        ] {
            assert_eq!(reply(raw, &Verdict::Accepted), None, "{raw}");
        }
        assert!(
            reply("MSH|^~\\&|A|B|C|D|||ORR^O02|7|P|2.4|||AL\rMSA|AA|1", &Verdict::Accepted)
                .unwrap()
                .contains("MSA|CA|7")
        );
    }

    #[test]
    fn the_senders_separators_are_used() {
        let raw = "MSH$%*!@$A%1$B$C$D$$$ADT%A01$7$P$2.3";
        let verdict = Verdict::Error(Reason::new(ErrorCode::DataType, "costs $5"));
        assert_eq!(
            reply(raw, &verdict).unwrap(),
            "MSH$%*!@$C$D$A%1$B$20260304101530+0000$$ACK$TIE1$P$2.3\nMSA$AE$7$costs !F!5\nERR$%%%102@Data type error@HL70357\n"
        );
    }

    #[test]
    fn a_broken_header_is_answered_too() {
        let verdict = Verdict::Rejected(Reason::new(ErrorCode::Internal, "not HL7"));
        let tail = "MSA|AR||not HL7\nERR|||207^Application internal error^HL70357|E||||not HL7\n";
        assert_eq!(
            reply("hello", &verdict).unwrap(),
            format!("MSH|^~\\&|||||20260304101530+0000||ACK|TIE1|P|2.5\n{tail}")
        );
        let saved = reply("xx\rMSH|^^^^|A|B|C|D|||ADT^A01|77|P|2.4", &verdict).unwrap();
        assert!(saved.starts_with("MSH|^~\\&|C|D|A|B|") && saved.contains("MSA|AR|77|not HL7"), "{saved}");
    }

    #[test]
    fn an_answer_can_be_read_back() {
        let raw = acknowledge(b"MSH|^~\\&|A|B|C|D|||ADT^A01|7|P|2.7", &error(), now(), "1").unwrap();
        let message = Message::parse(raw.bytes, encoding_rs::UTF_8).unwrap();
        let answer = answer(&message).unwrap();
        assert_eq!(
            (answer.code, answer.control_id.as_str(), answer.text.as_str()),
            (Some(AckCode::Ae), "7", "PID-3 is empty")
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_in_the_answer_is_a_message(raw in "(MSH\\|\\^~.&?|MSH)?(\\PC|[|^~\\\\&\r\n\u{0}\u{b}\u{1c}]){0,80}") {
            if let Some(answer) = acknowledge(raw.as_bytes(), &error(), now(), "1") {
                let message = Message::parse(answer.bytes.clone(), encoding_rs::UTF_8).unwrap();
                prop_assert_eq!(message.segments().map(|one| one.name().to_owned()).collect::<Vec<_>>(), ["MSH", "MSA", "ERR"]);
                prop_assert!(super::super::framing::frame(&answer.bytes).is_ok());
            }
        }
    }
}

//! A message: the exact bytes, and an index of its segments and fields.
//!
//! Promise:  `raw` is what came in, for ever; every segment of it is seen; nothing is copied until somebody asks
//!           for a decoded value. `Debug` prints sizes and the trigger event only.
//! Not here: what a message means.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use bytestring::ByteString;
use encoding_rs::Encoding;

use super::{
    Part, Path, Segment, Separators, Value, charset,
    charset::{Charset, Doubt},
    index::{self, Entry, Fault, Index, Oddity},
};

/// One HL7 v2 message as received, bytes unchanged, with an index of its structure.
#[derive(Clone)]
pub struct Message {
    raw: Bytes,
    text: ByteString,
    separators: Separators,
    charset: Charset,
    index: Index,
}

/// MSH-9: what happened. Empty where the message does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger<'m> {
    /// MSH-9.1: `ADT`.
    pub code: Cow<'m, str>,
    /// MSH-9.2: `A01`.
    pub event: Cow<'m, str>,
    /// MSH-9.3: `ADT_A01`.
    pub structure: Cow<'m, str>,
}

/// Why bytes are no HL7 v2 message. Says nothing of what is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is nothing but blanks and control characters.
    #[error("the message is empty")]
    Empty,
    /// They do not begin with `MSH`.
    #[error("the message does not begin with an MSH segment")]
    NoHeader,
    /// They begin with `FHS` or `BHS`.
    #[error("this is a batch of messages, not one message")]
    Batch,
    /// MSH-1 and MSH-2 give no structure.
    #[error("the separators cannot be read: {0}")]
    Separators(&'static str),
    /// Longer than 4 GB.
    #[error("the message is longer than 4 GB")]
    TooLong,
}

impl Message {
    /// Reads a message. `default` is the character set of messages that do not tell theirs and are not UTF-8.
    ///
    /// # Errors
    /// Why the bytes are no message: a reason that can be sent back.
    pub fn parse(raw: Bytes, default: &'static Encoding) -> Result<Self, ParseError> {
        let head = Head::find(&raw)?;
        let index = head.index(&raw)?;
        let declared = index.entries.first().and_then(|header| declared(&raw, &index, header));
        let (text, charset) = charset::decode(&raw, declared, head.separators.repetition, default);
        let separators = head.separators;
        // Decoded text may have its header elsewhere; the same bytes have not.
        if (text.as_ptr(), text.len()) == (raw.as_ptr(), raw.len()) {
            return Ok(Self { raw, text, separators, charset, index });
        }
        let head = Head::find(text.as_bytes())?;
        let (separators, index) = (head.separators, head.index(text.as_bytes())?);
        Ok(Self { raw, text, separators, charset, index })
    }

    /// No message: nothing is in it. What is not HL7 v2 has no other.
    pub fn none() -> Self {
        let charset = Charset { name: "UTF-8", replaced: 0, doubt: None, assumed: false };
        let (separators, index) = (Separators::default(), Index::default());
        Self { raw: Bytes::new(), text: ByteString::new(), separators, charset, index }
    }

    /// The exact bytes that came in.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The bytes as text, all of them.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The separators that MSH-1 and MSH-2 declare.
    pub fn separators(&self) -> Separators {
        self.separators
    }

    /// How the text was made of the bytes.
    pub fn charset(&self) -> &Charset {
        &self.charset
    }

    /// What is not as the standard says, though the message can be read.
    pub fn oddities(&self) -> &[Oddity] {
        &self.index.oddities
    }

    /// Its segments, in order.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = Segment<'_>> + ExactSizeIterator + Clone {
        self.index.entries.iter().enumerate().map(|(index, entry)| Segment::new(self, index, entry))
    }

    /// The segment at a place, from 0.
    pub fn segment_at(&self, index: usize) -> Option<Segment<'_>> {
        self.index.entries.get(index).map(|entry| Segment::new(self, index, entry))
    }

    /// The segments of one name, in order.
    pub fn segments_named<'m>(
        &'m self,
        name: &str,
    ) -> impl DoubleEndedIterator<Item = Segment<'m>> + Clone + use<'m> {
        self.named(name.as_bytes().try_into().unwrap_or_default())
    }

    /// The first segment of a name.
    pub fn segment(&self, name: &str) -> Option<Segment<'_>> {
        self.segments_named(name).next()
    }

    /// The value at a path.
    pub fn get(&self, path: &Path) -> Value<'_> {
        self.nth(path.segment, path.occurrence).map_or(Value::Absent, |segment| segment.get(path))
    }

    /// What of it could not be read as it was meant, and is in nothing that is made of it.
    pub fn doubts(&self) -> impl Iterator<Item = &'static str> + use<> {
        let odd = |fault| self.index.oddities.iter().any(|oddity| oddity.fault == fault);
        let Charset { replaced, doubt, .. } = self.charset;
        [
            (odd(Fault::NotASegment), "a line is no segment: it was not read"),
            (odd(Fault::SecondHeader), "there is a second MSH segment: all of it was read as one message"),
            (replaced > 0, "characters that are none in its character set were replaced"),
            (doubt == Some(Doubt::LooksLikeUtf8), charset::READ_AS_UTF_8),
        ]
        .into_iter()
        .filter_map(|(is_so, what)| is_so.then_some(what))
    }

    /// The value at a path for every repetition of its field; its own repetition number is not looked at.
    /// Without an occurrence in the path, of the first such segment only.
    pub fn all(&self, path: &Path) -> impl Iterator<Item = Value<'_>> {
        self.nth(path.segment, path.occurrence).into_iter().flat_map(|segment| segment.all(path))
    }

    /// MSH-9.
    pub fn trigger(&self) -> Trigger<'_> {
        let pieces = self.header(9).part().map_or([Value::Absent; 3], Part::first);
        let [code, event, structure] = pieces.map(|piece| piece.text().unwrap_or_default());
        let trigger = Trigger { code, event, structure };
        if trigger.is_plain() { trigger } else { trigger.mended(self) }
    }

    /// MSH-10; empty when there is none.
    pub fn control_id(&self) -> Cow<'_, str> {
        self.header(10).text().unwrap_or_default()
    }

    /// MSH-12, its first component; empty when there is none.
    pub fn version(&self) -> Cow<'_, str> {
        self.header(12).text().unwrap_or_default()
    }

    /// A field of MSH, its first repetition.
    pub fn header(&self, n: usize) -> Value<'_> {
        self.segment_at(0).map_or(Value::Absent, |segment| segment.field(n))
    }

    pub(super) fn slice(&self, start: u32, end: u32) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Where a field begins and where the next one ends it, if there is a next one in the whole message.
    pub(super) fn field_range(&self, field: usize) -> (u32, u32) {
        match self.index.fields.get(field..) {
            Some([start, next, ..]) => (*start, next - 1),
            Some([start]) => (*start, u32::MAX),
            Some([]) | None => (0, 0),
        }
    }

    fn named(&self, name: [u8; 3]) -> impl DoubleEndedIterator<Item = Segment<'_>> + Clone {
        self.index
            .entries
            .iter()
            .enumerate()
            .filter(move |(_, entry)| entry.name == name)
            .map(|(index, entry)| Segment::new(self, index, entry))
    }

    /// The n-th segment of a name, from 1.
    pub fn nth(&self, name: [u8; 3], n: usize) -> Option<Segment<'_>> {
        let mut left = n;
        for (index, entry) in self.index.entries.iter().enumerate() {
            if entry.name == name {
                left = left.checked_sub(1)?;
                if left == 0 {
                    return Some(Segment::new(self, index, entry));
                }
            }
        }
        None
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, segments) = (self.raw.len(), self.index.entries.len());
        write!(f, "Message({}, {bytes} bytes, {segments} segments)", self.trigger())
    }
}

/// Structures that a single event has: of others nobody knows which of their events is meant.
const OF_ONE_EVENT: [&str; 8] =
    ["ORU_R01", "ORM_O01", "OML_O21", "OMG_O19", "RDE_O11", "RDS_O13", "RAS_O17", "VXU_V04"];

impl<'m> Trigger<'m> {
    /// Whether it is written as the standard has it.
    fn is_plain(&self) -> bool {
        let is_plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        };
        is_plain(&self.code) && is_plain(&self.event)
    }

    /// As senders mean it: small letters and blanks (`oru^r01`), the structure in its place (`ORU_R01`) or alone
    /// (`^^ORU_R01`), and the event where version 2.1 has it, in EVN-1.
    #[cold]
    fn mended(self, message: &'m Message) -> Self {
        let plain = |text: Cow<'m, str>| text.trim().to_ascii_uppercase();
        let [mut code, mut event, structure] = [self.code, self.event, self.structure].map(plain);
        if let Some((_, behind)) = event.split_once('_') {
            event = behind.to_owned();
        }
        if event.is_empty() {
            let said = message.segment("EVN").and_then(|evn| evn.field(1).text());
            event = said.map(plain).unwrap_or_default();
        }
        let whole = if code.is_empty() { &structure } else { &code };
        if let Some((before, behind)) = whole.split_once('_')
            && (!event.is_empty() || OF_ONE_EVENT.contains(&whole.as_str()))
        {
            let (before, behind) = (before.to_owned(), behind.to_owned());
            event = if event.is_empty() { behind } else { event };
            code = before;
        }
        Self { code: code.into(), event: event.into(), structure: structure.into() }
    }
}

impl fmt::Display for Trigger<'_> {
    /// `ADT^A01`, as routes name it; `ACK` when there is no event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if self.event.is_empty() { Ok(()) } else { write!(f, "^{}", self.event) }
    }
}

/// The header of a message as its bytes have it, found before anything is decoded.
pub(super) struct Head<'b> {
    /// Where `MSH` stands.
    pub start: usize,
    pub separators: Separators,
    /// The header, without its end.
    line: &'b [u8],
}

impl<'b> Head<'b> {
    /// Finds the header. Byte order mark, VT, NUL and blanks before it are passed over.
    pub fn find(raw: &'b [u8]) -> Result<Self, ParseError> {
        let start = leading_junk(raw);
        let rest = raw.get(start..).unwrap_or_default();
        let line_end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let line = rest.get(..line_end).unwrap_or(rest);
        match line.split_first_chunk::<3>() {
            Some((b"MSH", after)) => {
                let separators = Separators::parse(after).map_err(ParseError::Separators)?;
                Ok(Self { start, separators, line })
            }
            Some((b"FHS" | b"BHS", _)) => Err(ParseError::Batch),
            _ if rest.is_empty() => Err(ParseError::Empty),
            _ => Err(ParseError::NoHeader),
        }
    }

    /// The n-th field as it was sent, from 3.
    pub fn field(&self, n: usize) -> &'b [u8] {
        self.line.split(|byte| *byte == self.separators.field).nth(n - 1).unwrap_or_default()
    }

    /// The header, without its end.
    pub fn line(&self) -> &'b [u8] {
        self.line
    }

    /// The index of the message that begins here.
    fn index(&self, bytes: &[u8]) -> Result<Index, ParseError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(ParseError::TooLong);
        }
        let end = bytes.iter().rposition(|byte| !is_trailing_junk(*byte)).map_or(0, |last| last + 1);
        let mut index = index::build(bytes, self.start, end, self.separators.field);
        let junk = bytes.get(end..).unwrap_or_default();
        if junk.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            index.odd(Fault::Trailing, end, bytes.len());
        }
        let leading = bytes.get(..self.start).unwrap_or_default();
        if leading.iter().any(|byte| !matches!(byte, 0xEF | 0xBB | 0xBF)) {
            index.odd(Fault::Leading, 0, self.start);
        }
        Ok(index)
    }
}

/// MSH-18 as the bytes have it; none when it says nothing.
fn declared<'b>(raw: &'b [u8], index: &Index, header: &Entry) -> Option<&'b str> {
    // MSH-1 is the first separator itself, so that the 17th begins MSH-18.
    let behind = |nth: u32| index.fields.get((header.first_field + nth - 1) as usize).copied();
    let start = behind(17).filter(|_| header.fields >= 17)?;
    let end = behind(18).filter(|_| header.fields >= 18).map_or(header.end, |next| next - 1);
    let declared = std::str::from_utf8(raw.get(start as usize..end as usize)?).ok()?.trim();
    Some(declared).filter(|declared| !declared.is_empty() && *declared != "\"\"")
}

fn leading_junk(raw: &[u8]) -> usize {
    let mut rest = raw;
    loop {
        rest = match rest {
            [0xEF, 0xBB, 0xBF, behind @ ..] => behind,
            [b' ' | b'\t' | b'\r' | b'\n' | 0x0B | 0x00, behind @ ..] => behind,
            _ => return raw.len() - rest.len(),
        };
    }
}

fn is_trailing_junk(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | 0x1C | 0x00 | 0x0B | 0x1A)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;

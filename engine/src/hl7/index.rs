//! The structural index: where segments and fields begin, found once per message in one pass, 64 bytes at a time.
//!
//! Promise:  linear in the bytes, four bytes a separator and twenty a segment; every byte belongs to the surroundings,
//!           a segment or an [`Oddity`]; a line that is no segment never hides what follows.
//! Decided:  a segment ends with CR, LF or CRLF, and blank lines mean nothing. In a message whose segments end
//!           with CR alone, an LF that no segment follows is part of the text it stands in (a line break that
//!           the sender forgot to escape), and the field goes on behind it. So does the text of an OBX or NTE over
//!           a line break of any kind, unless what follows is like a segment.

use super::{dictionary::has_segment, scan};

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub start: u32,
    pub end: u32,
    /// The place of its first field among all fields.
    pub first_field: u32,
    pub fields: u32,
    pub name: [u8; 3],
    /// Whether its first field is the separator itself.
    pub header: bool,
}

/// Something in a message that is not as the standard says. The message is read nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oddity {
    /// What is odd.
    pub fault: Fault,
    /// Where it begins in the text of the message, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// What can be odd about a message that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes before `MSH`.
    #[error("bytes before the MSH segment")]
    Leading,
    /// FS, NUL and the like behind the last segment.
    #[error("control characters behind the last segment")]
    Trailing,
    /// Blanks before the name of a segment.
    #[error("blanks before the name of a segment")]
    Indented,
    /// A line that does not begin with the name of a segment and a field separator.
    #[error("a line that is no segment")]
    NotASegment,
    /// A line break that was taken as text.
    #[error("a line break within a field")]
    BreakInField,
    /// Another MSH within the message.
    #[error("a second MSH segment")]
    SecondHeader,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub entries: Vec<Entry>,
    /// Where each field begins: the place behind every separator.
    pub fields: Vec<u32>,
    pub oddities: Vec<Oddity>,
}

/// Makes the index of `text` from `start`, where the header begins, to `end`. The caller has checked that the
/// text is shorter than 4 GB.
pub(super) fn build(text: &[u8], start: usize, end: usize, separator: u8) -> Index {
    let text = text.get(..end).unwrap_or(text);
    let mut reader = Reader {
        text,
        separator,
        index: Index {
            entries: Vec::with_capacity(text.len() / 96 + 4),
            fields: Vec::with_capacity(text.len() / 6 + 8),
            oddities: Vec::new(),
        },
        line: start,
        first_field: 0,
        lone_cr: None,
        line_feeds: Vec::new(),
    };
    let (blocks, rest) = text.get(start..).unwrap_or_default().as_chunks::<BLOCK>();
    let mut at = start;
    for block in blocks {
        reader.block(block, at);
        at += BLOCK;
    }
    let mut last = [0; BLOCK];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    reader.block(&last, at);
    reader.end_line(text.len(), reader.index.fields.len());
    reader.index
}

impl Index {
    pub fn odd(&mut self, fault: Fault, start: usize, end: usize) {
        self.oddities.push(Oddity { fault, start, end });
    }
}

/// Bytes that are looked at together: one for each bit of a mask.
const BLOCK: usize = 64;

/// What is known on the way through the text.
struct Reader<'t> {
    text: &'t [u8],
    separator: u8,
    index: Index,
    /// Where the line at hand begins.
    line: usize,
    /// The number of separators before it.
    first_field: usize,
    /// Whether the first segment ends with a CR that no LF follows; unknown before its end.
    lone_cr: Option<bool>,
    /// Line feeds within the line at hand.
    line_feeds: Vec<usize>,
}

impl Reader<'_> {
    fn block(&mut self, block: &[u8; BLOCK], at: usize) {
        // Line breaks are among the control characters up to CR.
        let (mut separators, mut ends) = scan::masks(block, self.separator, b'\r');
        let known = self.index.fields.len();
        while ends != 0 {
            let bit = ends.trailing_zeros();
            let before = separators & ((1 << bit) - 1);
            self.line_break(at + bit as usize, known + before.count_ones() as usize);
            ends &= ends - 1;
        }
        let behind = narrow(at) + 1;
        while separators != 0 {
            self.index.fields.push(behind + separators.trailing_zeros());
            separators &= separators - 1;
        }
    }

    /// A byte that may break a line, with so many separators before it.
    fn line_break(&mut self, at: usize, fields: usize) {
        let Some(byte @ (b'\r' | b'\n')) = self.text.get(at).copied() else { return };
        let followed = self.text.get(at + 1) == Some(&b'\n');
        let lone_cr = *self.lone_cr.get_or_insert(byte == b'\r' && !followed);
        if lone_cr && at > self.line && byte == b'\n' && self.is_text(at) {
            self.line_feeds.push(at);
            return;
        }
        self.end_line(at, fields);
        self.line = at + 1;
        self.first_field = fields;
    }

    /// Whether text that is no segment stands behind the LF at `at`.
    fn is_text(&self, at: usize) -> bool {
        let behind = self.text.get(at + 1..).unwrap_or_default();
        let segment = behind.get(3) == Some(&self.separator)
            && behind.get(..4).is_some_and(|head| segment_name(head, self.separator).is_some());
        !segment && !matches!(behind.first(), None | Some(b'\r'))
    }

    /// Notes the line that ends here, unless it is blank.
    fn end_line(&mut self, end: usize, fields: usize) {
        let start = self.line;
        if start >= end {
            return;
        }
        let line_feeds = std::mem::take(&mut self.line_feeds);
        let bytes = self.text.get(start..end).unwrap_or_default();
        let name = segment_name(bytes, self.separator);
        // A word of three capitals alone may be a word.
        let Some(name) = name.filter(|_| bytes.len() > 3 || !self.is_in_text()) else {
            return self.end_other(start, end, fields);
        };
        for at in line_feeds {
            self.index.odd(Fault::BreakInField, at, at + 1);
        }
        if name == *b"MSH" && !self.index.entries.is_empty() {
            self.index.odd(Fault::SecondHeader, start, end);
        }
        self.push(name, start, end, fields);
    }

    fn push(&mut self, name: [u8; 3], start: usize, end: usize, fields: usize) {
        self.index.entries.push(Entry {
            start: narrow(start),
            end: narrow(end),
            first_field: narrow(self.first_field),
            fields: narrow(fields - self.first_field),
            name,
            header: matches!(&name, b"MSH" | b"FHS" | b"BHS"),
        });
    }
}

impl Reader<'_> {
    /// Notes a line that does not begin with the name of a segment: one that is indented, more of the text before it, or
    /// none.
    #[cold]
    fn end_other(&mut self, start: usize, end: usize, fields: usize) {
        let line = self.text.get(start..end).unwrap_or_default();
        if let Some((blanks, name)) = self.indented(line) {
            self.index.odd(Fault::Indented, start, start + blanks);
            return self.push(name, start + blanks, end, fields);
        }
        // `obx|2|…` is a segment that nobody can place.
        let (name, rest) = line.split_at_checked(3).unwrap_or_default();
        let is_like_one = rest.first() == Some(&self.separator) && name.iter().all(u8::is_ascii_alphanumeric);
        let goes_on = !is_like_one && self.is_in_text();
        match self.index.entries.last_mut().filter(|_| goes_on) {
            Some(before) => {
                before.end = narrow(end);
                before.fields += narrow(fields - self.first_field);
                self.index.odd(Fault::BreakInField, start - 1, start);
            }
            None => self.index.odd(Fault::NotASegment, start, end),
        }
    }

    /// How many blanks stand before the name of a segment that everybody knows, and the name.
    fn indented(&self, line: &[u8]) -> Option<(usize, [u8; 3])> {
        let blanks = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let rest = line.get(blanks..).filter(|rest| blanks > 0 && rest.len() > 3)?;
        let name = segment_name(rest, self.separator)?;
        let is_known = name.first() == Some(&b'Z') || std::str::from_utf8(&name).is_ok_and(has_segment);
        is_known.then_some((blanks, name))
    }

    /// Whether the line before ends within a text: OBX-5 of such a type (OBX-2), or NTE-3.
    fn is_in_text(&self) -> bool {
        let Some(before) = self.index.entries.last() else { return false };
        match (&before.name, before.fields) {
            (b"NTE", 3) => true,
            (b"OBX", 5) => {
                let line = self.text.get(before.start as usize..before.end as usize).unwrap_or_default();
                let kind = line.split(|byte| *byte == self.separator).nth(2);
                kind.is_some_and(|kind| matches!(kind, b"TX" | b"FT" | b"ST" | b"ED" | b""))
            }
            _ => false,
        }
    }
}

/// The name that a line begins with, if it is one: a capital letter and two letters or digits, and then a field
/// separator or nothing.
fn segment_name(line: &[u8], separator: u8) -> Option<[u8; 3]> {
    let (name, rest) = line.split_first_chunk::<3>()?;
    let ends = rest.first().is_none_or(|byte| *byte == separator);
    let [first, others @ ..] = name;
    let named = first.is_ascii_uppercase()
        && others.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    (ends && named).then_some(*name)
}

fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

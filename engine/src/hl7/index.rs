//! The structural index: where segments and fields begin, found once per message with memchr.
//!
//! Promise:  linear in the bytes, four bytes a field and twenty a segment; every byte belongs to the surroundings,
//!           a segment or an [`Oddity`]; a line that is no segment never hides what follows.
//! Decided:  a segment ends with CR, LF or CRLF, and blank lines mean nothing. In a message whose segments end
//!           with CR alone, an LF that no segment follows is part of the text it stands in (a line break that
//!           the sender forgot to escape), and the field goes on behind it.

use memchr::memchr2;

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub start: u32,
    pub end: u32,
    /// The place of its first field among all fields.
    pub first_field: u32,
    pub fields: u32,
    pub name: [u8; 3],
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
    /// A line that does not begin with the name of a segment and a field separator.
    #[error("a line that is no segment")]
    NotASegment,
    /// A line feed that was taken as text.
    #[error("a line feed within a field")]
    LineFeedInField,
    /// Another MSH within the message.
    #[error("a second MSH segment")]
    SecondHeader,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub entries: Vec<Entry>,
    /// Where each field begins.
    pub fields: Vec<u32>,
    pub oddities: Vec<Oddity>,
}

/// Makes the index of `text` from `start`, where the header begins, to `end`. The caller has checked that the
/// text is shorter than 4 GB.
pub(super) fn build(text: &[u8], start: usize, end: usize, separator: u8) -> Index {
    let mut index = Index {
        entries: Vec::with_capacity(16),
        fields: Vec::with_capacity((end - start) / 8 + 8),
        oddities: Vec::new(),
    };
    let text = text.get(..end).unwrap_or(text);
    let lines = Lines { text, at: start, lone_cr: ends_with_lone_cr(text, start), separator };
    for line in lines {
        index.push(text, &line, separator);
    }
    index
}

impl Index {
    fn push(&mut self, text: &[u8], line: &Line, separator: u8) {
        let bytes = text.get(line.start..line.end).unwrap_or_default();
        let Some(name) = segment_name(bytes, separator) else {
            self.odd(Fault::NotASegment, line.start, line.end);
            return;
        };
        for at in &line.line_feeds {
            self.odd(Fault::LineFeedInField, *at, at + 1);
        }
        if name == *b"MSH" && !self.entries.is_empty() {
            self.odd(Fault::SecondHeader, line.start, line.end);
        }
        let first_field = self.fields.len();
        push_behind_each(separator, bytes, line.start, &mut self.fields);
        self.entries.push(Entry {
            start: narrow(line.start),
            end: narrow(line.end),
            first_field: narrow(first_field),
            fields: narrow(self.fields.len() - first_field),
            name,
        });
    }

    pub fn odd(&mut self, fault: Fault, start: usize, end: usize) {
        self.oddities.push(Oddity { fault, start, end });
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

/// Whether the first segment ends with a CR that no LF follows.
fn ends_with_lone_cr(text: &[u8], start: usize) -> bool {
    let rest = text.get(start..).unwrap_or_default();
    memchr2(b'\r', b'\n', rest)
        .is_some_and(|at| rest.get(at) == Some(&b'\r') && rest.get(at + 1) != Some(&b'\n'))
}

struct Line {
    start: usize,
    end: usize,
    /// Line feeds within it.
    line_feeds: Vec<usize>,
}

/// The lines that are not blank.
struct Lines<'t> {
    text: &'t [u8],
    at: usize,
    lone_cr: bool,
    separator: u8,
}

impl Iterator for Lines<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        while matches!(self.text.get(self.at), Some(b'\r' | b'\n')) {
            self.at += 1;
        }
        let start = self.at;
        let mut line_feeds = Vec::new();
        let mut from = start;
        loop {
            let rest = self.text.get(from..).unwrap_or_default();
            let end = memchr2(b'\r', b'\n', rest).map_or(self.text.len(), |at| from + at);
            if self.lone_cr && self.is_text(end) {
                line_feeds.push(end);
                from = end + 1;
                continue;
            }
            self.at = end;
            return (start < end).then_some(Line { start, end, line_feeds });
        }
    }
}

impl Lines<'_> {
    /// Whether the line break at `end` is an LF with text behind it that is no segment.
    fn is_text(&self, end: usize) -> bool {
        if self.text.get(end) != Some(&b'\n') {
            return false;
        }
        let behind = self.text.get(end + 1..).unwrap_or_default();
        let segment = behind.get(3) == Some(&self.separator)
            && behind.get(..4).is_some_and(|head| segment_name(head, self.separator).is_some());
        !segment && !matches!(behind.first(), None | Some(b'\r'))
    }
}

/// Pushes the place behind each separator. Eight bytes at a time: separators stand too close together in messages for
/// memchr, which begins anew at each one.
fn push_behind_each(separator: u8, bytes: &[u8], start: usize, fields: &mut Vec<u32>) {
    const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    let pattern = u64::from_le_bytes([separator; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut at = narrow(start);
    for word in words {
        let unlike = u64::from_le_bytes(*word) ^ pattern;
        // The high bit of each byte that is zero, and no other.
        let mut hits = !(((unlike & LOW) + LOW) | unlike | LOW);
        while hits != 0 {
            fields.push(at + hits.trailing_zeros() / 8 + 1);
            hits &= hits - 1;
        }
        at += 8;
    }
    for (place, _) in (at..).zip(rest).filter(|(_, byte)| **byte == separator) {
        fields.push(place + 1);
    }
}

fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

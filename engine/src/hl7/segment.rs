//! One segment of a message: its fields by number, and their repetitions.
//!
//! Promise:  fields are numbered as in the standard; MSH-1, FHS-1 and BHS-1 are the field separator itself.

use std::fmt;

use super::{
    Message, Path, Value,
    index::Entry,
    separators::Separators,
    value::{Split, nth, split},
};

/// One segment of a message. `Debug` prints its name only.
#[derive(Clone, Copy)]
pub struct Segment<'m> {
    message: &'m Message,
    index: usize,
    entry: &'m Entry,
}

impl<'m> Segment<'m> {
    pub(super) fn new(message: &'m Message, index: usize, entry: &'m Entry) -> Self {
        Self { message, index, entry }
    }

    /// The message it belongs to.
    pub fn message(self) -> &'m Message {
        self.message
    }

    /// Three characters: `PID`.
    pub fn name(self) -> &'m str {
        std::str::from_utf8(&self.entry.name).unwrap_or_default()
    }

    /// The same as bytes.
    pub fn name_bytes(self) -> [u8; 3] {
        self.entry.name
    }

    /// Its place in the message, from 0.
    pub fn index(self) -> usize {
        self.index
    }

    /// Which of the segments of its name it is, from 1.
    pub fn number(self) -> usize {
        self.message.segments().take(self.index).filter(|other| other.entry.name == self.entry.name).count()
            + 1
    }

    /// All of it as it was sent, without its end.
    pub fn raw(self) -> &'m str {
        self.message.slice(self.entry.start, self.entry.end)
    }

    /// Where it stands in [`Message::text`], in bytes.
    pub fn range(self) -> std::ops::Range<usize> {
        self.entry.start as usize..self.entry.end as usize
    }

    /// The number of its last field; 0 when it has none.
    pub fn len(self) -> usize {
        self.entry.fields as usize + usize::from(self.is_header() && self.entry.fields > 0)
    }

    /// Whether it has no fields.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The n-th field, from 1: its first repetition. 0 is the whole segment.
    pub fn field(self, n: usize) -> Value<'m> {
        self.repetition(n, 1)
    }

    /// One repetition, from 1, of the n-th field.
    #[inline(never)]
    pub fn repetition(self, n: usize, repetition: usize) -> Value<'m> {
        let raw = self.raw_field(n);
        if raw.is_empty() {
            return Value::Absent;
        }
        let separators = self.separators_at(n);
        let piece = nth(raw, (n != 0).then_some(separators.repetition), repetition);
        piece.map_or(Value::Absent, |piece| Value::new(piece, separators))
    }

    /// The value at a path whose segment name and occurrence are not looked at.
    pub fn get(self, path: &Path) -> Value<'m> {
        self.repetition(path.field, path.repetition).at(path)
    }

    /// The value at a path for every repetition of its field; its own repetition number is not looked at.
    pub fn all(self, path: &Path) -> impl Iterator<Item = Value<'m>> {
        self.repetitions(path.field).map(|value| value.at(path))
    }

    /// All repetitions of the n-th field, absent ones between others too; nothing when the field is absent.
    pub fn repetitions(self, n: usize) -> impl Iterator<Item = Value<'m>> + Clone {
        let separators = self.separators_at(n);
        let raw = self.raw_field(n);
        let pieces: Split<'m> = split(raw, (n != 0).then_some(separators.repetition));
        pieces.filter(move |_| !raw.is_empty()).map(move |piece| Value::new(piece, separators))
    }

    /// The n-th field as it was sent, all repetitions; empty when there is none. 0 is the whole segment.
    pub fn raw_field(self, n: usize) -> &'m str {
        let nth = n - usize::from(self.entry.header && n > 1);
        if n == 0 || nth > self.entry.fields as usize {
            return if n == 0 { self.raw() } else { "" };
        }
        let start = self.entry.start + 3;
        if self.entry.header && n == 1 {
            return self.message.slice(start, start + 1);
        }
        let (start, end) = self.message.field_range(self.entry.first_field as usize + nth - 1);
        self.message.slice(start, end.min(self.entry.end))
    }

    /// Whether anything was sent in the n-th field, be it `""` or separators alone.
    pub fn says(self, n: usize) -> bool {
        if self.is_header() || n == 0 {
            return !self.raw_field(n).is_empty();
        }
        let (start, end) = self.message.field_range(self.entry.first_field as usize + n - 1);
        n <= self.entry.fields as usize && start < end.min(self.entry.end)
    }

    fn is_header(self) -> bool {
        self.entry.header
    }

    fn separators_at(self, n: usize) -> Separators {
        if self.is_header() && (n == 1 || n == 2) { Separators::NOTHING } else { self.message.separators() }
    }
}

impl fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({} at {})", self.name(), self.index)
    }
}

//! Values in their three states, and the parts of a message that have content.
//!
//! Promise:  nothing is copied or decoded until `text` or `whole` is asked for; any number may be asked for and
//!           what is not there is `Absent`.
//! Decided:  a field of separators only (`^^`) has no content and is absent; every component of a null field is
//!           null, because `""` in the field removes the whole of it.

use std::{borrow::Cow, fmt};

use super::{Path, escape, scan, separators::Separators};

/// A field, repetition, component or subcomponent in its three states.
#[derive(Debug, Clone, Copy)]
pub enum Value<'m> {
    /// Nothing was sent: leave alone what is known.
    Absent,
    /// `""` was sent: remove what is known.
    Null,
    /// Something was sent.
    Present(Part<'m>),
}

/// A piece of a message that has content. `Debug` prints its length only.
#[derive(Clone, Copy)]
pub struct Part<'m> {
    raw: &'m str,
    separators: Separators,
}

impl<'m> Value<'m> {
    /// Classes a piece of text, escapes and separators still in it.
    pub fn new(raw: &'m str, separators: Separators) -> Self {
        match raw.as_bytes().first() {
            None => Self::Absent,
            Some(b'"') if raw == "\"\"" => Self::Null,
            Some(first)
                if separators.separates(*first) && raw.bytes().all(|byte| separators.separates(byte)) =>
            {
                Self::Absent
            }
            Some(_) => Self::Present(Part { raw, separators }),
        }
    }

    /// The part, if something was sent.
    pub fn part(self) -> Option<Part<'m>> {
        match self {
            Self::Present(part) => Some(part),
            Self::Absent | Self::Null => None,
        }
    }

    /// The unescaped text of its first leaf, if something was sent: see [`Part::text`].
    pub fn text(self) -> Option<Cow<'m, str>> {
        self.part().map(|part| part.text())
    }

    /// Whether nothing was sent.
    pub fn is_absent(self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Whether `""` was sent.
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    /// The component and subcomponent that a path names; itself when it names none.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        let value = path.component.map_or(self, |n| self.component(n));
        path.subcomponent.map_or(value, |n| value.subcomponent(n))
    }

    /// The n-th component, from 1.
    #[must_use]
    pub fn component(self, n: usize) -> Self {
        match self {
            Self::Present(part) => part.component(n),
            other => other,
        }
    }

    /// The n-th subcomponent of the first component, from 1.
    #[must_use]
    pub fn subcomponent(self, n: usize) -> Self {
        match self {
            Self::Present(part) => part.subcomponent(n),
            other => other,
        }
    }
}

impl<'m> Part<'m> {
    /// As it was sent: escapes and separators still in it.
    pub fn raw(self) -> &'m str {
        self.raw
    }

    /// The separators of its message.
    pub fn separators(self) -> Separators {
        self.separators
    }

    /// The first leaf, unescaped: a field with components reads as the first subcomponent of its first
    /// component. Empty when that leaf was not sent or is null.
    // Called from everywhere: that there is one of it keeps it, and its callers, in the processor's nearest cache.
    #[inline(never)]
    pub fn text(self) -> Cow<'m, str> {
        let Separators { component, repetition, .. } = self.separators;
        let (subcomponent, escape) =
            (self.separators.subcomponent.unwrap_or(component), self.separators.escape.unwrap_or(component));
        let (mut end, mut escaped) = (self.raw.len(), false);
        for (at, byte) in self.raw.bytes().enumerate() {
            if byte == component || byte == repetition || byte == subcomponent {
                end = at;
                break;
            }
            escaped |= byte == escape;
        }
        match self.raw.get(..end).unwrap_or(self.raw) {
            "\"\"" => Cow::Borrowed(""),
            leaf if escaped => escape::decode(leaf, self.separators),
            leaf => Cow::Borrowed(leaf),
        }
    }

    /// All of it, unescaped, separators kept.
    #[inline(never)]
    pub fn whole(self) -> Cow<'m, str> {
        escape::decode(self.raw, self.separators)
    }

    /// The n-th component, from 1, of the first repetition.
    #[inline(never)]
    pub fn component(self, n: usize) -> Value<'m> {
        self.nth(self.first_repetition(), Some(self.separators.component), n)
    }

    /// Its first components, of the first repetition: all that a data type has, found in one pass.
    pub fn first<const N: usize>(self) -> [Value<'m>; N] {
        let Separators { component, repetition, .. } = self.separators;
        let mut found = [Value::Absent; N];
        let mut slots = found.iter_mut();
        let mut start = 0;
        let mut put = |end: usize| {
            let Some(slot) = slots.next() else { return false };
            *slot = self.raw.get(start..end).map_or(Value::Absent, |raw| Value::new(raw, self.separators));
            start = end + 1;
            true
        };
        let end =
            scan::walk([component, repetition], self.raw.as_bytes(), |at, byte| put(at) && byte == component);
        put(end);
        found
    }

    /// The n-th subcomponent, from 1, of the first component.
    #[inline(never)]
    pub fn subcomponent(self, n: usize) -> Value<'m> {
        let first = before(self.first_repetition(), Some(self.separators.component));
        self.nth(first, self.separators.subcomponent, n)
    }

    /// Its components, of the first repetition.
    pub fn components(self) -> impl Iterator<Item = Value<'m>> + Clone {
        let separators = self.separators;
        split(self.first_repetition(), Some(separators.component)).map(move |raw| Value::new(raw, separators))
    }

    /// Its subcomponents, of the first component.
    pub fn subcomponents(self) -> impl Iterator<Item = Value<'m>> + Clone {
        let separators = self.separators;
        let first = before(self.first_repetition(), Some(separators.component));
        split(first, separators.subcomponent).map(move |raw| Value::new(raw, separators))
    }

    fn first_repetition(self) -> &'m str {
        before(self.raw, Some(self.separators.repetition))
    }

    fn nth(self, raw: &'m str, separator: Option<u8>, n: usize) -> Value<'m> {
        nth(raw, separator, n).map_or(Value::Absent, |piece| Value::new(piece, self.separators))
    }
}

impl fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} bytes)", self.raw.len())
    }
}

impl Separators {
    /// Whether the byte divides a field into its pieces.
    fn separates(self, byte: u8) -> bool {
        byte == self.component || byte == self.repetition || Some(byte) == self.subcomponent
    }
}

/// What stands before the first separator.
fn before(raw: &str, separator: Option<u8>) -> &str {
    let end = separator.and_then(|separator| scan::nth(separator, raw.as_bytes(), 1));
    end.and_then(|end| raw.get(..end)).unwrap_or(raw)
}

/// The n-th piece, from 1, between the separators.
pub(super) fn nth(raw: &str, separator: Option<u8>, n: usize) -> Option<&str> {
    match n {
        0 => None,
        1 => Some(before(raw, separator)),
        _ => Some(before(raw.get(scan::nth(separator?, raw.as_bytes(), n - 1)? + 1..)?, separator)),
    }
}

/// The pieces between the separators; one piece when there is none.
pub(super) fn split(raw: &str, separator: Option<u8>) -> Split<'_> {
    Split { rest: Some(raw), separator }
}

/// See [`split`].
#[derive(Clone)]
pub(super) struct Split<'m> {
    rest: Option<&'m str>,
    separator: Option<u8>,
}

impl<'m> Iterator for Split<'m> {
    type Item = &'m str;

    fn next(&mut self) -> Option<&'m str> {
        let rest = self.rest?;
        let at = self.separator.and_then(|separator| scan::nth(separator, rest.as_bytes(), 1));
        match at.and_then(|at| Some((rest.get(..at)?, rest.get(at + 1..)?))) {
            Some((piece, rest)) => {
                self.rest = Some(rest);
                Some(piece)
            }
            None => self.rest.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(raw: &str) -> Value<'_> {
        Value::new(raw, Separators::default())
    }

    #[test]
    fn the_three_states() {
        assert!(value("").is_absent());
        assert!(value("^^&").is_absent());
        assert!(value("\"\"").is_null());
        assert!(value("\"\"").component(2).is_null());
        assert_eq!(value("a").text().as_deref(), Some("a"));
        assert_eq!(value("\"").text().as_deref(), Some("\""));
        assert!(value("a^\"\"").component(2).is_null());
        assert!(value("a^\"\"").component(3).is_absent());
        assert!(value("a").component(0).is_absent());
    }

    #[test]
    fn a_part_reads_as_its_first_leaf() {
        let field = value(r"SM\T\ITH&van^JOHN~DOE").part().unwrap();
        assert_eq!(field.text(), "SM&ITH");
        assert_eq!(field.whole(), "SM&ITH&van^JOHN~DOE");
        assert_eq!(field.subcomponent(2).text().as_deref(), Some("van"));
        assert_eq!(field.component(2).text().as_deref(), Some("JOHN"));
        assert!(field.component(3).is_absent());
        assert_eq!(value("^b").text().as_deref(), Some(""));
        assert_eq!(value("\"\"^b").text().as_deref(), Some(""));
    }

    #[test]
    fn pieces_can_be_walked() {
        let field = value("a&b^c^").part().unwrap();
        let components: Vec<_> = field.components().map(|one| one.part().map(Part::raw)).collect();
        assert_eq!(components, [Some("a&b"), Some("c"), None]);
        assert_eq!(field.subcomponents().count(), 2);
    }

    #[test]
    fn the_first_components_are_the_same_as_one_by_one() {
        for raw in [
            "a",
            "a^b^c^d",
            "a~b^c",
            "a^b~c",
            "^^^",
            "a^\"\"^",
            "~",
            "a^&^c&d^a longer piece than sixteen^^x",
        ] {
            let Some(part) = value(raw).part() else { continue };
            let found: [_; 6] = part.first();
            for (number, one) in (1..).zip(found) {
                assert_eq!(format!("{one:?}"), format!("{:?}", part.component(number)), "{raw} {number}");
                assert_eq!(one.part().map(Part::raw), part.component(number).part().map(Part::raw), "{raw}");
            }
        }
    }

    #[test]
    fn debug_keeps_the_secret() {
        assert_eq!(format!("{:?}", value("SMITH")), "Present(Part(5 bytes))");
    }
}

//! Names of elements. Those of FHIR, and those that stand in the program, are known: they are told apart by one number
//! and written as they are prepared. Others come from outside only, and are kept as text.

use std::{fmt, sync::Arc};

use super::elements;

/// The longest name that is prepared, with its comma, quotes and colon.
const PREPARED: usize = 40;

/// The name of an element.
#[derive(Clone)]
pub struct Name(Repr);

#[derive(Clone)]
enum Repr {
    Known(&'static Known),
    Other(Arc<str>),
}

/// A name that is known beforehand.
#[derive(Debug)]
pub struct Known {
    pub(super) text: &'static str,
    /// Stands for the name: no two of FHIR have the same (a test holds it).
    pub(super) number: u32,
    /// `,"name":`, and room.
    json: [u8; PREPARED],
    length: u8,
}

/// A name that stands in the program, made when it is compiled.
macro_rules! name {
    ($text:literal) => {
        const { &$crate::fhir::Name::known(const { &$crate::fhir::name::Known::new($text) }) }
    };
}
pub(crate) use name;

impl Known {
    /// Prepares a name, which has nothing to escape; one that is too long is not written by [`Name::json`].
    pub const fn new(text: &'static str) -> Self {
        let mut json = [0; PREPARED];
        let (mut number, mut rest) = (0x811c_9dc5u32, text.as_bytes());
        let mut slots: &mut [u8] = &mut json;
        if let [comma, quote, more @ ..] = slots {
            (*comma, *quote) = (b',', b'"');
            slots = more;
        }
        while let [byte, more @ ..] = rest {
            number = (number ^ *byte as u32).wrapping_mul(0x0100_0193);
            rest = more;
            if let [slot, more @ ..] = slots {
                *slot = *byte;
                slots = more;
            }
        }
        if let [quote, colon, ..] = slots {
            (*quote, *colon) = (b'"', b':');
        }
        let whole = text.len() + 4;
        Self { text, number, json, length: if whole <= PREPARED { whole as u8 } else { 0 } }
    }
}

impl Name {
    /// A name that is known.
    pub const fn known(known: &'static Known) -> Self {
        Self(Repr::Known(known))
    }

    /// The number of a known name.
    pub(super) fn number(&self) -> Option<u32> {
        match &self.0 {
            Repr::Known(known) => Some(known.number),
            Repr::Other(_) => None,
        }
    }

    /// `,"name":` in the first bytes of the room, and how many these are.
    pub(super) fn json(&self) -> Option<(&'static [u8; PREPARED], usize)> {
        match &self.0 {
            Repr::Known(Known { json, length: length @ 1.., .. }) => Some((json, usize::from(*length))),
            Repr::Known(_) | Repr::Other(_) => None,
        }
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Known(known) => known.text,
            Repr::Other(text) => text,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Known(one), Repr::Known(other)) => one.number == other.number,
            _ => self.as_str() == other.as_str(),
        }
    }
}

impl Eq for Name {}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(elements::known(text).map_or_else(|| Repr::Other(text.into()), Repr::Known))
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Self {
        name.clone()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_wherever_it_comes_from() {
        for text in ["system", "birthDate", "_birthDate"] {
            assert!(matches!(Name::from(text).0, Repr::Known(_)), "{text}");
        }
        assert_eq!(*name!("system"), Name::from("system"));
        assert_eq!(*name!("of no type"), Name::from("of no type"));
        assert_ne!(*name!("value"), Name::from("system"));
        let (json, length) = name!("system").json().unwrap();
        assert_eq!(&json[..length], b",\"system\":");
        assert_eq!(name!("a name of more than thirty-six characters").json(), None);
    }
}

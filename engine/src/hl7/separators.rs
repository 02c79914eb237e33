//! The characters that give a message its structure: MSH-1 and MSH-2.
//!
//! Promise:  any printable ASCII characters that differ from each other are taken; what cannot be a separator is
//!           refused with a reason.
//! Lenient:  MSH-2 may have three, four or five characters. A third character that is `&` stands for the
//!           subcomponents and not for the escape (senders lose the `\` of `^~\&` in a string literal), and a
//!           doubled escape (`^~\\&`, the opposite accident) is read as one.

/// The five or six characters that give a message its structure (MSH-1 and MSH-2). All are ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Separators {
    /// MSH-1, usually `|`.
    pub field: u8,
    /// Usually `^`.
    pub component: u8,
    /// Usually `~`.
    pub repetition: u8,
    /// Usually `\`; none when MSH-2 does not have it.
    pub escape: Option<u8>,
    /// Usually `&`; none when MSH-2 does not have it.
    pub subcomponent: Option<u8>,
    /// `#` since 2.7; none otherwise.
    pub truncation: Option<u8>,
}

impl Default for Separators {
    /// `|^~\&`, without a truncation character.
    fn default() -> Self {
        Self {
            field: b'|',
            component: b'^',
            repetition: b'~',
            escape: Some(b'\\'),
            subcomponent: Some(b'&'),
            truncation: None,
        }
    }
}

impl Separators {
    /// Separates nothing: for MSH-1 and MSH-2, whose text is the separators themselves. The byte 0xFF never
    /// occurs in UTF-8.
    pub(crate) const NOTHING: Self = Self {
        field: 0xFF,
        component: 0xFF,
        repetition: 0xFF,
        escape: None,
        subcomponent: None,
        truncation: None,
    };

    /// Reads what follows the letters of `MSH`, `FHS` or `BHS`.
    ///
    /// # Errors
    /// What is wrong with them, in a few words.
    pub fn parse(after_name: &[u8]) -> Result<Self, &'static str> {
        let (&field, rest) = after_name.split_first().ok_or("MSH-1 is missing")?;
        if !can_separate(field) {
            return Err("MSH-1 is no separator");
        }
        let end = rest.iter().position(|byte| *byte == field || matches!(byte, b'\r' | b'\n'));
        let characters = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let (component, repetition, others) = match characters {
            [component, repetition, others @ ..] => (*component, *repetition, others),
            _ => return Err("MSH-2 has fewer than two separators"),
        };
        let (escape, subcomponent, truncation) = match others {
            [] => (None, None, None),
            [b'&'] => (None, Some(b'&'), None),
            [b'&', truncation] if truncation.is_ascii_punctuation() => (None, Some(b'&'), Some(*truncation)),
            // A blank in its place: what was typed for "none".
            [b' ', b'&'] => (None, Some(b'&'), None),
            [escape] => (Some(*escape), None, None),
            [escape, subcomponent] => (Some(*escape), Some(*subcomponent), None),
            [escape, again, subcomponent] if escape == again => (Some(*escape), Some(*subcomponent), None),
            [escape, again, subcomponent, truncation] if escape == again => {
                (Some(*escape), Some(*subcomponent), Some(*truncation))
            }
            [escape, subcomponent, truncation] => (Some(*escape), Some(*subcomponent), Some(*truncation)),
            _ => return Err("MSH-2 has more than five characters"),
        };
        let separators = Self { field, component, repetition, escape, subcomponent, truncation };
        separators.check()?;
        Ok(separators)
    }

    /// MSH-1 and MSH-2 as text: `|^~\&`.
    pub fn header(&self) -> String {
        let mut text = String::with_capacity(6);
        for byte in self.all() {
            text.push(char::from(byte));
        }
        text
    }

    fn all(&self) -> impl Iterator<Item = u8> {
        [self.field, self.component, self.repetition]
            .into_iter()
            .chain(self.escape)
            .chain(self.subcomponent)
            .chain(self.truncation)
    }

    fn check(&self) -> Result<(), &'static str> {
        let mut seen = 0u128;
        for byte in self.all() {
            if !can_separate(byte) {
                return Err("MSH-2 holds a character that cannot separate");
            }
            let bit = 1u128 << byte;
            if seen & bit != 0 {
                return Err("two separators are the same character");
            }
            seen |= bit;
        }
        Ok(())
    }
}

/// Letters, digits, blanks, line ends and the bytes of MLLP cannot separate; neither can half a character.
fn can_separate(byte: u8) -> bool {
    byte.is_ascii_punctuation() || matches!(byte, 0x01..=0x08 | 0x0E..=0x1B | 0x1D..=0x1F)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, &'static str> {
        Separators::parse(text.as_bytes()).map(|found| found.header())
    }

    #[test]
    fn three_four_and_five_characters_are_taken() {
        assert_eq!(parse(r"|^~\|APP"), Ok(r"|^~\".into()));
        assert_eq!(parse(r"|^~\&|APP"), Ok(r"|^~\&".into()));
        assert_eq!(parse(r"|^~\&#|APP"), Ok(r"|^~\&#".into()));
        assert_eq!(parse("|^~ &|APP"), Ok("|^~&".into()));
        assert_eq!(parse(r"$%*!@$APP"), Ok("$%*!@".into()));
        assert_eq!(parse(r"|^~\&"), Ok(r"|^~\&".into()));
    }

    #[test]
    fn a_lost_escape_leaves_the_subcomponent() {
        let found = Separators::parse(b"|^~&|APP").unwrap();
        assert_eq!((found.escape, found.subcomponent), (None, Some(b'&')));
        let found = Separators::parse(b"|^~&#|APP").unwrap();
        assert_eq!((found.escape, found.subcomponent, found.truncation), (None, Some(b'&'), Some(b'#')));
    }

    #[test]
    fn a_doubled_escape_is_one() {
        assert_eq!(parse(r"|^~\\&|"), Ok(r"|^~\&".into()));
        assert_eq!(parse(r"|^~\\&#|"), Ok(r"|^~\&#".into()));
    }

    #[test]
    fn what_cannot_separate_is_refused() {
        for bad in [
            "",
            "|",
            "||",
            "|^|",
            "|^^\\&|",
            "A^~\\&A",
            "|^~\\A|",
            "|^~\\&#!|",
            "|^~\\|\u{e9}",
            "\u{e9}^~\\&",
        ] {
            let answer = parse(bad);
            assert!(answer.is_err() || bad == "|^~\\|\u{e9}", "{bad}: {answer:?}");
        }
    }
}

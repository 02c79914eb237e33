//! Escape sequences, both ways, with the separators of the message.
//!
//! Promise:  `decode(encode(x)) == x`; an unknown sequence is kept as it is; nothing panics; linear in the bytes.
//!
//! What the sequences become in plain text (HL7 v2.8.2 chapter 2.7 and 2A.2.24):
//!
//! | sequence | plain text |
//! |---|---|
//! | `\F\` `\S\` `\R\` `\T\` `\E\` `\P\` | the separator of this message (`\|^~&\#` where it declares none) |
//! | `\X0D0A\` | those bytes: as UTF-8 if they are that, else each as windows-1252 |
//! | `\.br\` `\.ce\` | one line feed |
//! | `\.sp\` `\.sp3\` | one line feed, three line feeds (at most 99) |
//! | `\.sk4\` | four blanks (at most 99) |
//! | `\.in+4\` `\.ti-2\` `\.fi\` `\.nf\` `\H\` `\N\` | nothing: indents, filling and highlighting have no plain text |
//! | `\C..\` `\M..\` `\Z..\` and all others | kept as they are: they mean nothing without an agreement |

use std::borrow::Cow;

use memchr::memchr;

use super::Separators;

/// Replaces the escape sequences by what they stand for. Borrows when there are none.
#[inline(never)]
pub fn decode(raw: &str, separators: Separators) -> Cow<'_, str> {
    let Some(escape) = separators.escape else { return Cow::Borrowed(raw) };
    let Some(first) = memchr(escape, raw.as_bytes()) else { return Cow::Borrowed(raw) };
    let mut text = String::with_capacity(raw.len());
    let (before, mut rest) = raw.split_at_checked(first).unwrap_or((raw, ""));
    text.push_str(before);
    // `rest` begins with an escape character, or is empty.
    while let Some(behind) = rest.get(1..) {
        let Some(end) = memchr(escape, behind.as_bytes()) else { break };
        let sequence = behind.get(..end).unwrap_or_default();
        let closed = behind.get(end..).unwrap_or_default();
        if replace(sequence, separators, &mut text) {
            let after = closed.get(1..).unwrap_or_default();
            let next = memchr(escape, after.as_bytes()).unwrap_or(after.len());
            let (plain, more) = after.split_at_checked(next).unwrap_or((after, ""));
            text.push_str(plain);
            rest = more;
        } else {
            // Not a sequence: its last character may be the first of the next one.
            text.push(char::from(escape));
            text.push_str(sequence);
            rest = closed;
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Writes text so that it cannot be mistaken for structure. A line feed becomes `\.br\`, other control
/// characters their hexadecimal form. In a message without an escape character, what would be structure becomes
/// a blank.
pub fn encode(text: &str, separators: Separators) -> Cow<'_, str> {
    let Some(first) = text.bytes().position(|byte| special(byte, separators)) else {
        return Cow::Borrowed(text);
    };
    let (before, rest) = text.split_at_checked(first).unwrap_or((text, ""));
    let mut raw = String::with_capacity(text.len() + 16);
    raw.push_str(before);
    for character in rest.chars() {
        match u8::try_from(character).ok().filter(|byte| special(*byte, separators)) {
            None => raw.push(character),
            Some(byte) => match separators.escape {
                Some(escape) => push_sequence(byte, escape, separators, &mut raw),
                None => raw.push(' '),
            },
        }
    }
    Cow::Owned(raw)
}

/// Writes what a sequence stands for; false when it stands for nothing that is known.
fn replace(sequence: &str, separators: Separators, text: &mut String) -> bool {
    match sequence.as_bytes() {
        [letter] => {
            let byte = match letter {
                b'F' => separators.field,
                b'S' => separators.component,
                b'R' => separators.repetition,
                b'T' => separators.subcomponent.unwrap_or(b'&'),
                b'E' => separators.escape.unwrap_or(b'\\'),
                b'P' => separators.truncation.unwrap_or(b'#'),
                b'H' | b'N' => return true,
                _ => return false,
            };
            text.push(char::from(byte));
            true
        }
        [b'X' | b'x', digits @ ..] => push_hexadecimal(digits, text),
        [b'.', command @ ..] => push_formatting(command, text),
        _ => false,
    }
}

fn push_hexadecimal(digits: &[u8], text: &mut String) -> bool {
    let (pairs, []) = digits.as_chunks::<2>() else { return false };
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
    match bytes {
        Some(bytes) if !bytes.is_empty() => {
            match std::str::from_utf8(&bytes) {
                Ok(decoded) => text.push_str(decoded),
                Err(_) => text.push_str(&encoding_rs::WINDOWS_1252.decode_without_bom_handling(&bytes).0),
            }
            true
        }
        _ => false,
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn push_formatting(command: &[u8], text: &mut String) -> bool {
    let Some((name, argument)) = command.split_first_chunk::<2>() else { return false };
    let Ok(argument) = std::str::from_utf8(argument) else { return false };
    let count = match argument.trim() {
        "" => Some(1),
        digits => digits.trim_start_matches('+').parse::<usize>().ok().filter(|count| *count <= 99),
    };
    let (piece, times) = match (name.map(|letter| letter.to_ascii_lowercase()).as_slice(), count) {
        (b"br" | b"ce", _) if argument.is_empty() => ("\n", 1),
        (b"sp", Some(count)) => ("\n", count),
        (b"sk", Some(count)) => (" ", count),
        (b"fi" | b"nf", _) if argument.is_empty() => ("", 1),
        (b"in" | b"ti", _) if argument.trim_start_matches(['+', '-']).parse::<u16>().is_ok() => ("", 1),
        _ => return false,
    };
    (0..times).for_each(|_| text.push_str(piece));
    true
}

/// Whether a byte of text needs an escape.
fn special(byte: u8, separators: Separators) -> bool {
    byte.is_ascii_control()
        || byte == separators.field
        || byte == separators.component
        || byte == separators.repetition
        || Some(byte) == separators.escape
        || Some(byte) == separators.subcomponent
        || Some(byte) == separators.truncation
}

fn push_sequence(byte: u8, escape: u8, separators: Separators, raw: &mut String) {
    let escape = char::from(escape);
    raw.push(escape);
    match byte {
        _ if byte == separators.field => raw.push('F'),
        _ if byte == separators.component => raw.push('S'),
        _ if byte == separators.repetition => raw.push('R'),
        _ if Some(byte) == separators.escape => raw.push('E'),
        _ if Some(byte) == separators.subcomponent => raw.push('T'),
        _ if Some(byte) == separators.truncation => raw.push('P'),
        b'\n' => raw.push_str(".br"),
        _ => {
            raw.push('X');
            for nibble in [byte >> 4, byte & 15] {
                raw.extend(char::from_digit(u32::from(nibble), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
    raw.push(escape);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(raw: &str, plain: &str) {
        assert_eq!(decode(raw, Separators::default()), plain, "{raw}");
    }

    #[test]
    fn every_known_sequence_is_decoded() {
        check(r"a\F\b\S\c\T\d\R\e\E\f\P\g", r"a|b^c&d~e\f#g");
        check(r"\X0D\\X0d0A\\X41\", "\r\r\nA");
        check(r"\XC3A9\\XE9\", "éé");
        check(r"one\.br\two\.sp\three\.sp3\four\.ce\five", "one\ntwo\nthree\n\n\nfour\nfive");
        check(r"\.in+4\a\.ti-2\b\.fi\c\.nf\d\.sk3\e\.BR\", "abcd   e\n");
        check(r"\H\bold\N\ plain", "bold plain");
    }

    #[test]
    fn unknown_sequences_are_kept() {
        for raw in [
            r"\Zabc\",
            r"\C2842\",
            r"\M2842\",
            r"\X4\",
            r"\XZZ\",
            r"\X\",
            r"\.xy\",
            r"\.sp500\",
            r"\Q\",
            r"\\",
            r"\",
            r"C:\temp\file",
            r"5\6",
            r"\.in\",
            "\\é\\",
            "日本\\",
        ] {
            check(raw, raw);
        }
    }

    #[test]
    fn text_beside_sequences_stays() {
        check(r"日本\F\x", "日本|x");
        check(r"5\6\F\7", r"5\6|7");
        check(r"C:\F\x", "C:|x");
        check(r"\Q\F\", r"\Q|");
    }

    #[test]
    fn custom_separators_are_honoured() {
        let separators = Separators::parse(b"$%*!@$").unwrap();
        assert_eq!(decode("a!F!b!S!c!R!d!T!e!E!f!P!", separators), "a$b%c*d@e!f#");
        assert_eq!(encode("$%*!@|^", separators), "!F!!S!!R!!E!!T!|^");
    }

    #[test]
    fn without_an_escape_character_structure_becomes_blank() {
        let separators = Separators::parse(b"|^~&|").unwrap();
        assert_eq!(decode(r"a\F\b", separators), r"a\F\b");
        assert_eq!(encode("a|b\r\\é", separators), "a b \\é");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in "[\\PC\\r\\n\\t|^~&\\\\#.FSTREXbr0-9日é]{0,60}") {
            for separators in [Separators::default(), Separators::parse(br"|^~\&#|").unwrap(), Separators::parse(b"$%*!@$").unwrap()] {
                let raw = encode(&text, separators);
                prop_assert!(!raw.bytes().any(|byte| byte.is_ascii_control() || byte == separators.field || byte == separators.component));
                prop_assert_eq!(decode(&raw, separators), text.as_str());
            }
        }

        #[test]
        fn nothing_panics(raw in "[\\\\FSTREXHNCMZ.brsp+0-9A-F日é|]{0,60}") {
            let plain = decode(&raw, Separators::default());
            prop_assert!(plain.chars().count() <= raw.len() * 99);
        }
    }
}

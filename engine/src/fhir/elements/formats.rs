//! How the texts of FHIR's primitives are written. Source: FHIR R4, Data Types (the regular expressions there).

use crate::fhir::json::{is_graphic, is_plain};

/// What is said of texts that can be mended: see [`super::Type::mend`].
pub(super) const CONTROLS: &str = "has control characters, or nothing but blanks";
pub(super) const BLANKS: &str = "is not written as a code: it has blanks around it, or more than one within";

/// The form of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Any text that says something and has no control characters, which no record can keep.
    Free,
    Code,
    Id,
    Uri,
    Oid,
    Uuid,
    Date,
    DateTime,
    Instant,
    Time,
    Base64,
    Xhtml,
}

impl Format {
    /// The form that a primitive type asks for.
    pub(super) fn of(type_name: &str) -> Self {
        match type_name {
            "code" => Self::Code,
            "id" => Self::Id,
            "uri" | "url" | "canonical" => Self::Uri,
            "oid" => Self::Oid,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "dateTime" => Self::DateTime,
            "instant" => Self::Instant,
            "time" => Self::Time,
            "base64Binary" => Self::Base64,
            "xhtml" => Self::Xhtml,
            _ => Self::Free,
        }
    }

    /// What is wrong with a text that does not fit.
    pub(super) fn fault(self, type_name: &str) -> String {
        match self {
            Self::Free => CONTROLS.to_owned(),
            Self::Code => BLANKS.to_owned(),
            _ => format!("is not written as a {type_name}"),
        }
    }

    /// A text without what keeps it from fitting, where that can be taken out: empty when nothing is left.
    pub(super) fn mended(self, text: &str) -> Option<String> {
        match self {
            Self::Free => {
                let kept: String =
                    text.chars().filter(|c| *c >= ' ' || matches!(c, '\t' | '\n' | '\r')).collect();
                Some(if kept.trim().is_empty() { String::new() } else { kept })
            }
            Self::Code => Some(text.split_whitespace().collect::<Vec<_>>().join(" ")),
            _ => None,
        }
    }

    /// Whether a text that is not empty is written so.
    pub(super) fn fits(self, text: &str) -> bool {
        match self {
            Self::Free if is_plain(text.as_bytes()) => {
                text.as_bytes().first().is_some_and(u8::is_ascii_graphic) || !text.trim_start().is_empty()
            }
            Self::Free => {
                let kept = |byte: u8| byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r');
                text.bytes().all(kept) && !text.trim_start().is_empty()
            }
            Self::Code => {
                is_one_word(text) || text.split(|c: char| c.is_whitespace()).all(|word| !word.is_empty())
            }
            Self::Id => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
                text.len() <= 64 && text.bytes().all(plain)
            }
            Self::Uri => is_one_word(text) || !text.contains(char::is_whitespace),
            Self::Oid => text.strip_prefix("urn:oid:").is_some_and(is_oid),
            Self::Uuid => text.strip_prefix("urn:uuid:").is_some_and(is_uuid),
            Self::Date => is_date(text),
            Self::DateTime => is_date(text) || is_instant(text),
            Self::Instant => is_instant(text),
            Self::Time => is_time(text),
            Self::Base64 => {
                let digits = text.trim_end_matches('=');
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
                text.len().is_multiple_of(4) && text.len() - digits.len() <= 2 && digits.bytes().all(plain)
            }
            Self::Xhtml => text.starts_with("<div") && text.ends_with("</div>"),
        }
    }
}

/// Whether all is visible ASCII, as nearly every code and address is: seen without reading characters.
fn is_one_word(text: &str) -> bool {
    !text.is_empty() && is_graphic(text.as_bytes())
}

/// An object identifier: numbers without leading zeros between points, the first 0, 1 or 2.
pub fn is_oid(text: &str) -> bool {
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    text.contains('.') && text.starts_with(['0', '1', '2']) && text.split('.').all(number)
}

/// A UUID as FHIR writes it: 36 characters in lower case.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// A year, month or day that there is.
fn is_date(text: &str) -> bool {
    let Some((year, rest)) = text.as_bytes().split_first_chunk::<4>() else { return false };
    let (month, day) = match rest {
        [] => (*b"01", *b"01"),
        [b'-', m1, m2] => ([*m1, *m2], *b"01"),
        [b'-', m1, m2, b'-', d1, d2] => ([*m1, *m2], [*d1, *d2]),
        _ => return false,
    };
    let (Some(year), Some(month), Some(day)) = (digits(*year), digits(month), digits(day)) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => 0,
    };
    year > 0 && (1..=days).contains(&day)
}

/// A number of just these digits.
fn digits<const N: usize>(text: [u8; N]) -> Option<u32> {
    text.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
}

/// A day, a time of day to the second, and an offset.
fn is_instant(text: &str) -> bool {
    let Some((date, rest)) = text.split_once('T') else { return false };
    let zulu = rest.strip_suffix('Z').map(|time| (time, "+00:00"));
    let Some((time, offset)) = zulu.or_else(|| rest.split_at_checked(rest.len().checked_sub(6)?)) else {
        return false;
    };
    let offset = offset.strip_prefix(['+', '-']).filter(|offset| *offset <= "14:00");
    date.len() == 10
        && is_date(date)
        && is_time(time)
        && offset.is_some_and(|offset| is_clock(offset, &[24, 60]))
}

fn is_time(text: &str) -> bool {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction_is_digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    is_clock(clock, &[24, 60, 61]) && fraction_is_digits
}

/// Numbers of two digits between colons, each below its bound.
fn is_clock(text: &str, bounds: &[u32]) -> bool {
    let below = |(number, piece): (usize, &[u8])| match (piece, bounds.get(number)) {
        ([tens, ones, rest @ ..], Some(bound)) => {
            digits([*tens, *ones]).is_some_and(|number| number < *bound)
                && (rest.is_empty() || rest == b":" && number + 1 < bounds.len())
        }
        _ => false,
    };
    text.len() + 1 == bounds.len() * 3 && text.as_bytes().chunks(3).enumerate().all(below)
}

/// Whether one date or time is after another, as far as both say; `false` when they cannot be compared.
pub(super) fn is_after(one: &str, other: &str) -> bool {
    // Days, and times to the second of one offset, stand in the order of their letters.
    let (day, time) = ("2024-02-29".len(), "2024-02-29T09:30:00+00:00".len());
    if one.len() == other.len() && (one.len() == day || one.len() == time && one.get(19..) == other.get(19..))
    {
        return one > other;
    }
    if let (Ok(one), Ok(other)) = (one.parse::<jiff::Timestamp>(), other.parse::<jiff::Timestamp>()) {
        return one > other;
    }
    let common = one.len().min(other.len()).min(10);
    one.get(..common) > other.get(..common)
}

/// Whether a type is one of FHIR's primitives.
pub fn is_primitive(type_name: &str) -> bool {
    type_name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// Whether a text is a number as JSON writes it.
pub fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (number, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && digits(fraction) && digits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_their_type_asks() {
        for (type_name, good, bad) in [
            ("code", "a|a b|x-1", " a|a |a  b|a\t b"),
            ("id", "a-1.B", "a_b|a b"),
            ("uri", "urn:x|http://a/%20", "a b|http://a /"),
            ("oid", "urn:oid:2.16.840", "2.16|urn:oid:2..1|urn:oid:2.016|urn:oid:3.1"),
            ("uuid", "urn:uuid:00000000-0000-0000-0000-00000000000a", "urn:uuid:x"),
            ("date", "2024|2024-02|2024-02-29", "0000|24|2024-13|2023-02-29|2024-2-1|2024-01-01T00:00:00Z"),
            (
                "dateTime",
                "2024|2024-02-29T09:30:00Z",
                "2024-02-29T09:30:00|2024-02-29T09:30Z|2024-02-29 09:30:00Z",
            ),
            ("dateTime", "2024-02-29T09:30:00.123+01:00", "2024-02-29T24:00:00Z|2024-02-29T09:30:00+15:00"),
            ("instant", "2024-01-01T23:59:60-14:00", "2024-02-29|T|2024-02-29T|2024-02-29T09:30:00+0100"),
            ("time", "09:30:00|09:30:00.5", "09:30|9:30:00|25:00:00|09:30:00Z|09:30:00."),
            ("base64Binary", "QUI=|QUJD", "QUI|QU I=|Q===|QU!="),
            ("xhtml", "<div>x</div>", "x"),
            ("string", " any\nthing |x", " |a\u{0}b|\u{b}"),
        ] {
            let format = Format::of(type_name);
            assert!(good.split('|').all(|text| format.fits(text)), "{type_name}: {good}");
            assert!(!bad.split('|').any(|text| format.fits(text)), "{type_name}: {bad}");
        }
    }

    #[test]
    fn numbers_are_json_numbers() {
        assert!("0 7.10 -0.5 10 1e5 1.5E-3".split(' ').all(is_decimal));
        assert!(
            !"| - .5 5. 007 +1 1,5 1e <5 NaN 0x1 1\t"
                .split(' ')
                .any(|text| is_decimal(text.trim_matches('|')))
        );
    }

    #[test]
    fn texts_are_mended_where_they_can_be() {
        assert_eq!(Format::Free.mended("a\u{0}b\n").unwrap(), "ab\n");
        assert_eq!(Format::Free.mended(" \u{1}").unwrap(), "");
        assert_eq!(Format::Code.mended(" a \t b").unwrap(), "a b");
        assert_eq!(Format::Date.mended("x"), None);
    }

    #[test]
    fn times_are_compared_as_far_as_both_say() {
        assert!(is_after("2024-02-29T09:30:00Z", "2024-02-29T09:30:00+01:00"));
        assert!(!is_after("2024-02-29T09:30:00Z", "2024-02-29"));
        assert!(is_after("2024-03", "2024-02-29"));
        assert!(!is_after("2024", "2024-02-29"));
    }
}

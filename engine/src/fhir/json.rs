//! Texts as JSON writes them.
//!
//! Nearly all texts have nothing to escape, and most are short: a text is looked at as a whole, in pieces that may
//! overlap, and copied in one go.

use wide::u8x16;

use super::name::Name;

/// Whether bytes are meant as FHIR.
pub fn is_fhir(raw: &[u8]) -> bool {
    let text = raw.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(raw);
    text.trim_ascii_start().first() == Some(&b'{')
}

/// Writes a JSON string; always returns true.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) -> bool {
    out.reserve(text.len() + 2);
    out.push(b'"');
    write_inner(text.as_bytes(), out);
    out.push(b'"');
    true
}

/// Writes the name of an element and the colon behind it, after a comma if it is not the first.
pub(super) fn write_name(name: &Name, first: bool, out: &mut Vec<u8>) {
    let start = out.len();
    match name.json() {
        // All of the room is copied, which is quicker than just so many bytes of it.
        Some((json, length)) if !first => {
            out.extend_from_slice(json);
            out.truncate(start + length);
        }
        Some(([_, json @ ..], length)) => {
            out.extend_from_slice(json);
            out.truncate(start + length - 1);
        }
        None => {
            if !first {
                out.push(b',');
            }
            write_text(name.as_str(), out);
            out.push(b':');
        }
    }
}

/// What stands between the quotes.
fn write_inner(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    let mut start = 0;
    for (place, byte) in bytes.iter().enumerate() {
        if is_plain_1(*byte) {
            continue;
        }
        out.extend_from_slice(bytes.get(start..place).unwrap_or_default());
        start = place + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(bytes.get(start..).unwrap_or_default());
}

/// Whether nothing in a text wants an escape.
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    every(bytes, is_plain_16, is_plain_8)
}

/// Whether all is visible ASCII.
pub(super) fn is_graphic(bytes: &[u8]) -> bool {
    let is_graphic_16 = |lane: &[u8; 16]| {
        let lane = u8x16::new(*lane);
        (lane.max(u8x16::splat(b'!')).simd_eq(lane) & lane.min(u8x16::splat(b'~')).simd_eq(lane)).to_bitmask()
            == 0xFFFF
    };
    let is_graphic_8 =
        |word: u64| (below(word, b'!') | below(!word & (ONES * 0x7F), 1) | word) & (ONES << 7) == 0;
    every(bytes, is_graphic_16, is_graphic_8)
}

/// Whether all bytes are so, seen 16 or 8 at a time; fewer are filled up with a letter.
fn every(bytes: &[u8], are_16: impl Fn(&[u8; 16]) -> bool, are_8: impl Fn(u64) -> bool) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
        let (lanes, _) = bytes.as_chunks::<16>();
        return are_16(first) && are_16(last) && lanes.iter().skip(1).all(are_16);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return are_8(u64::from_ne_bytes(*first)) && are_8(u64::from_ne_bytes(*last));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return are_8(pair(*first, *last));
    }
    are_8(bytes.iter().fold(ONES * u64::from(b'a'), |word, byte| word << 8 | u64::from(*byte)))
}

fn pair(first: [u8; 4], last: [u8; 4]) -> u64 {
    u64::from(u32::from_ne_bytes(first)) << 32 | u64::from(u32::from_ne_bytes(last))
}

fn is_plain_1(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

fn is_plain_16(lane: &[u8; 16]) -> bool {
    let lane = u8x16::new(*lane);
    let control = lane.max(u8x16::splat(0x1f)).simd_eq(u8x16::splat(0x1f));
    let marked = lane.simd_eq(u8x16::splat(b'"')) | lane.simd_eq(u8x16::splat(b'\\'));
    (control | marked).to_bitmask() == 0
}

/// The same for eight bytes in one word: being a certain byte is being below 1 once that byte is crossed out.
fn is_plain_8(word: u64) -> bool {
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & (ONES << 7) == 0
}

const ONES: u64 = u64::MAX / 255;

/// The high bit of a byte that is below a bound, which borrows from it when the bound is taken off; other bits mean nothing,
/// and so do bytes above one that is below.
fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(bound)) & !word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        write_text(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_escaped_as_json() {
        let text = "a\"b\\c\nd\te\u{1}f\u{e9}\u{1F600}";
        assert_eq!(written(text), "\"a\\\"b\\\\c\\nd\\te\\u0001f\u{e9}\u{1F600}\"");
        assert_eq!(serde_json::from_str::<String>(&written(text)).unwrap(), text);
    }

    #[test]
    fn every_byte_is_seen_at_every_place_of_every_length() {
        for length in 1..50 {
            for place in 0..length {
                for byte in 0..=0xFFu8 {
                    let mut bytes = vec![b'a'; length];
                    bytes[place] = byte;
                    let plain = byte >= 0x20 && byte != b'"' && byte != b'\\';
                    assert_eq!(is_plain(&bytes), plain, "{byte:#x} at {place} of {length}");
                    assert_eq!(
                        is_graphic(&bytes),
                        byte.is_ascii_graphic(),
                        "{byte:#x} at {place} of {length}"
                    );
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives(text in ".*") {
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text);
        }
    }
}

//! Texts as JSON writes them.
//!
//! Nearly all texts have nothing to escape, and most are shorter than a word of wide registers: a text is looked at
//! as a whole, in two pieces that may overlap, and copied in one go.

use wide::u8x16;

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
pub(super) fn write_name(name: &str, first: bool, out: &mut Vec<u8>) {
    out.reserve(name.len() + 4);
    if first {
        out.push(b'"');
    } else {
        out.extend_from_slice(b",\"");
    }
    write_inner(name.as_bytes(), out);
    out.extend_from_slice(b"\":");
}

/// What stands between the quotes.
fn write_inner(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    let mut start = 0;
    for (place, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
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
fn is_plain(bytes: &[u8]) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
        let (lanes, _) = bytes.as_chunks::<16>();
        return is_plain_16(first) && is_plain_16(last) && lanes.iter().skip(1).all(is_plain_16);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return is_plain_8(u64::from_ne_bytes(*first)) && is_plain_8(u64::from_ne_bytes(*last));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_ne_bytes(*first), u32::from_ne_bytes(*last));
        return is_plain_8(u64::from(first) << 32 | u64::from(last));
    }
    bytes.iter().all(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\')
}

fn is_plain_16(lane: &[u8; 16]) -> bool {
    let lane = u8x16::new(*lane);
    let control = lane.max(u8x16::splat(0x1f)).simd_eq(u8x16::splat(0x1f));
    let marked = lane.simd_eq(u8x16::splat(b'"')) | lane.simd_eq(u8x16::splat(b'\\'));
    (control | marked).to_bitmask() == 0
}

/// The same for eight bytes in one word: a byte below a bound borrows from its high bit when the bound is taken off,
/// and being a certain byte is being below 1 once that byte is crossed out.
fn is_plain_8(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & (ONES << 7) == 0
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
                for byte in 0..0x80u8 {
                    let mut bytes = vec![b'a'; length];
                    bytes[place] = byte;
                    let plain = byte >= 0x20 && byte != b'"' && byte != b'\\';
                    assert_eq!(is_plain(&bytes), plain, "{byte:#x} at {place} of {length}");
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

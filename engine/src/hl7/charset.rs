//! The character set of a message: MSH-18, the default of the listener, and what the bytes themselves say.
//!
//! Promise:  the raw bytes are kept by the message; what could not be decoded is counted, never hidden.
//! Decided:  - A declared set is believed; its unreadable bytes become U+FFFD and are counted. A single-byte set, or one
//!             of seven bits (ISO-2022-JP), is not where the bytes are valid UTF-8 and more than ASCII: no text is so
//!             by chance, and many senders declare what their predecessor wrote.
//!           - Nothing declared, `ASCII` with bytes above 127, or a name that nobody knows: UTF-8 if the bytes are
//!             valid UTF-8, else the default of the listener (windows-1252 in the UK).
//!           - ISO 8859-1 is read as windows-1252, as the WHATWG Encoding Standard has it: the two differ in
//!             control characters only, which no sender means.
//!           - Sets whose trail bytes look like separators (Shift_JIS, Big5, GB 18030, ISO-2022-JP) are decoded
//!             before the structure is looked for.
//!           - A byte order mark wins over everything.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use encoding_rs::Encoding;

/// How the text of a message was made of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charset {
    /// The name of the encoding that was used, as the WHATWG Encoding Standard has it: `UTF-8`, `windows-1252`.
    pub name: &'static str,
    /// How many replacement characters (U+FFFD) were put in for bytes that are no text.
    pub replaced: usize,
    /// Why the declared set was not used, or is doubtful.
    pub doubt: Option<Doubt>,
    /// Neither MSH-18 nor the bytes say how they are to be read: it is the default of whoever reads them.
    pub assumed: bool,
}

pub(super) const READ_AS_UTF_8: &str =
    "MSH-18 names another set, but the bytes are UTF-8 and were read as such";

/// What is doubtful about the declared character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// MSH-18 names no set of table 0211 or one that cannot be read here.
    #[error("MSH-18 names a character set that is not known")]
    Unknown,
    /// MSH-18 says ASCII, and there is more than ASCII.
    #[error("MSH-18 says ASCII, and the message holds other characters")]
    NotAscii,
    /// A single-byte set, or one of seven bits, is declared but the bytes are well-formed UTF-8.
    #[error("{READ_AS_UTF_8}")]
    LooksLikeUtf8,
}

/// The encoding that a name of HL7 table 0211, or a common spelling of one, stands for.
pub fn by_name(name: &str) -> Option<&'static Encoding> {
    let mut buffer = [0; LONGEST_NAME];
    let plain = plain(name, &mut buffer);
    let encoding = match plain {
        "ASCII" | "ISOIR6" | "ISO646" | "USASCII" | "UNICODEUTF8" | "UNICODE" | "UTF8" => encoding_rs::UTF_8,
        "88591" | "ISO88591" | "ISOIR100" | "LATIN1" | "CP1252" | "WINDOWS1252" | "ANSI" => {
            encoding_rs::WINDOWS_1252
        }
        "88592" | "ISOIR101" => encoding_rs::ISO_8859_2,
        "88593" | "ISOIR109" => encoding_rs::ISO_8859_3,
        "88594" | "ISOIR110" => encoding_rs::ISO_8859_4,
        "88595" | "ISOIR144" => encoding_rs::ISO_8859_5,
        "88596" | "ISOIR127" => encoding_rs::ISO_8859_6,
        "88597" | "ISOIR126" => encoding_rs::ISO_8859_7,
        "88598" | "ISOIR138" => encoding_rs::ISO_8859_8,
        "88599" | "ISOIR148" => encoding_rs::WINDOWS_1254,
        "885915" => encoding_rs::ISO_8859_15,
        "ISOIR13" | "ISOIR14" | "ISOIR87" | "ISOIR159" => encoding_rs::ISO_2022_JP,
        "GB180302000" | "GB18030" => encoding_rs::GB18030,
        "KSX1001" | "ISOIR149" => encoding_rs::EUC_KR,
        "BIG5" => encoding_rs::BIG5,
        "UNICODEUTF16" | "UTF16" => encoding_rs::UTF_16LE,
        _ => Encoding::for_label(name.trim().as_bytes()).or_else(|| Encoding::for_label(plain.as_bytes()))?,
    };
    Some(encoding)
}

/// More letters and digits than any name has.
const LONGEST_NAME: usize = 32;

/// The letters and digits of a name, in upper case; nothing when there are more than any name has.
fn plain<'b>(name: &str, buffer: &'b mut [u8; LONGEST_NAME]) -> &'b str {
    let mut letters = name.bytes().filter(u8::is_ascii_alphanumeric);
    let mut length = 0;
    for (place, letter) in buffer.iter_mut().zip(&mut letters) {
        *place = letter.to_ascii_uppercase();
        length += 1;
    }
    let whole = letters.next().is_none();
    buffer
        .get(..length)
        .filter(|_| whole)
        .and_then(|plain| std::str::from_utf8(plain).ok())
        .unwrap_or_default()
}

/// Makes text of the bytes of a message. `declared` is MSH-18 as found in the raw bytes, repetitions and all.
pub(super) fn decode(
    raw: &Bytes,
    declared: Option<&str>,
    repetition: u8,
    default: &'static Encoding,
) -> (ByteString, Charset) {
    let mut charset = Charset { name: encoding_rs::UTF_8.name(), replaced: 0, doubt: None, assumed: false };
    if let Some((encoding, _)) =
        Encoding::for_bom(raw).filter(|(encoding, _)| *encoding != encoding_rs::UTF_8)
    {
        return with(encoding, raw, charset);
    }
    let text = ByteString::try_from(raw.clone()).ok();
    let chosen = declared.map(|declared| choose(declared, repetition));
    let encoding = match chosen {
        None => None,
        Some(None) => {
            charset.doubt = Some(Doubt::Unknown);
            None
        }
        Some(Some((encoding, ascii))) if ascii => {
            charset.doubt = (!raw.is_ascii()).then_some(Doubt::NotAscii);
            charset.doubt.is_none().then_some(encoding)
        }
        Some(Some((encoding, _))) => Some(encoding),
    };
    match (text, encoding) {
        (Some(text), None) => (text, charset),
        (Some(text), Some(encoding)) if encoding == encoding_rs::UTF_8 => (text, charset),
        (Some(text), Some(encoding)) if !is_of_seven_bits(encoding) && text.is_ascii() => {
            charset.name = encoding.name();
            (text, charset)
        }
        (Some(text), Some(encoding))
            if encoding.is_single_byte() || is_of_seven_bits(encoding) && !text.is_ascii() =>
        {
            charset.doubt = Some(Doubt::LooksLikeUtf8);
            (text, charset)
        }
        (_, encoding) => {
            charset.assumed = encoding.is_none();
            with(encoding.unwrap_or(default), raw, charset)
        }
    }
}

/// Whether a byte above 127 is none of this set.
fn is_of_seven_bits(encoding: &'static Encoding) -> bool {
    encoding == encoding_rs::ISO_2022_JP
}

/// The encoding for MSH-18, and whether it promises plain ASCII. Of several repetitions the first that is not
/// ASCII counts: the others are reached from it by ISO 2022 escapes.
fn choose(declared: &str, repetition: u8) -> Option<(&'static Encoding, bool)> {
    let names = || declared.split(char::from(repetition)).map(str::trim).filter(|name| !name.is_empty());
    let ascii = |name: &str| {
        ["ASCII", "ISO IR6", "US-ASCII", "ISO IR-6"].iter().any(|one| name.eq_ignore_ascii_case(one))
    };
    match names().find(|name| !ascii(name)) {
        Some(name) => by_name(name).map(|encoding| (encoding, false)),
        None => Some((encoding_rs::UTF_8, true)),
    }
}

fn with(encoding: &'static Encoding, raw: &Bytes, mut charset: Charset) -> (ByteString, Charset) {
    let (text, had_errors) = encoding.decode_with_bom_removal(raw);
    charset.name = encoding.name();
    if had_errors {
        charset.replaced = text.matches('\u{FFFD}').count();
    }
    let text = match text {
        Cow::Borrowed(text) => ByteString::from(text),
        Cow::Owned(text) => ByteString::from(text),
    };
    (text, charset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &[u8], declared: Option<&str>) -> (String, &'static str, usize, Option<Doubt>) {
        let (text, charset) = decode(&Bytes::copy_from_slice(raw), declared, b'~', encoding_rs::WINDOWS_1252);
        (text.to_string(), charset.name, charset.replaced, charset.doubt)
    }

    #[test]
    fn undeclared_is_utf8_or_the_default() {
        assert_eq!(read("5 µg".as_bytes(), None), ("5 µg".into(), "UTF-8", 0, None));
        assert_eq!(read(b"5 \xB5g", None), ("5 µg".into(), "windows-1252", 0, None));
    }

    #[test]
    fn a_declared_set_is_believed() {
        assert_eq!(read(b"\x805", Some("8859/1")), ("€5".into(), "windows-1252", 0, None));
        assert_eq!(read(b"\xA4", Some("8859/15")).0, "€");
        assert_eq!(read(b"\x83\x7C", Some("Shift_JIS")).0, "ポ");
        assert_eq!(read(b"\x1B$B;3ED\x1B(B", Some("~ISO IR87")).0, "山田");
        assert_eq!(read(b"\xFFx", Some("UNICODE UTF-8")), ("\u{FFFD}x".into(), "UTF-8", 1, None));
        assert_eq!(
            read("é".as_bytes(), Some("8859/1")),
            ("é".into(), "UTF-8", 0, Some(Doubt::LooksLikeUtf8))
        );
        assert_eq!(
            read("山田".as_bytes(), Some("~ISO IR87")),
            ("山田".into(), "UTF-8", 0, Some(Doubt::LooksLikeUtf8))
        );
    }

    #[test]
    fn doubtful_declarations_are_treated_as_none() {
        assert_eq!(read(b"\xE9", Some("ASCII")), ("é".into(), "windows-1252", 0, Some(Doubt::NotAscii)));
        assert_eq!(read("é".as_bytes(), Some("ASCII")), ("é".into(), "UTF-8", 0, Some(Doubt::NotAscii)));
        assert_eq!(read(b"\xE9", Some("KLINGON")), ("é".into(), "windows-1252", 0, Some(Doubt::Unknown)));
        assert_eq!(read(b"e", Some("ASCII")), ("e".into(), "UTF-8", 0, None));
    }

    #[test]
    fn what_only_the_default_explains_is_assumed() {
        let assumed = |raw: &[u8], declared| {
            let raw = Bytes::copy_from_slice(raw);
            decode(&raw, declared, b'~', encoding_rs::ISO_8859_2).1.assumed
        };
        for declared in [None, Some("ASCII"), Some("KLINGON")] {
            assert!(assumed(b"\xE9", declared), "{declared:?}");
            assert!(!assumed("é".as_bytes(), declared), "{declared:?}");
        }
        assert!(!assumed(b"e", None) && !assumed(b"\xE9", Some("8859/2")));
        assert!(!assumed(b"\xFF\xFEM\0S\0H\0", None));
    }

    #[test]
    fn a_byte_order_mark_wins() {
        assert_eq!(read(b"\xFF\xFEM\0S\0H\0", None).0, "MSH");
    }

    #[test]
    fn the_names_of_table_0211_are_known() {
        for name in [
            "ASCII",
            "8859/1",
            "8859/2",
            "8859/3",
            "8859/4",
            "8859/5",
            "8859/6",
            "8859/7",
            "8859/8",
            "8859/9",
            "8859/15",
            "ISO IR6",
            "ISO IR14",
            "ISO IR87",
            "ISO IR159",
            "GB 18030-2000",
            "KS X 1001",
            "BIG-5",
            "UNICODE",
            "UNICODE UTF-8",
            "UNICODE UTF-16",
            "utf-8",
            "ISO-8859-1",
            "ISO8859-1",
            "windows-1252",
            "UTF8",
            "CP1252",
        ] {
            assert!(by_name(name).is_some(), "{name}");
        }
        assert_eq!(by_name("CNS 11643-1992"), None);
    }
}

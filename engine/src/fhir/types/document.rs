//! Documents: ED and RP as `Attachment`, and a document that was split over several OBX.
//!
//! Sources: the v2-to-FHIR maps ED[Attachment], RP[Attachment]; DHCW's ORU specification (32 KB pieces).
//! Promise:  a document is handed on whole and decodable, or not at all: then it is reported and the caller decides.
//! Decided:  base64 may hold line breaks; hex and plain text are made base64; the type AP/PDF of old feeds is
//!           application/pdf.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{
    Cx, Finding,
    text::{phrase, trimmed, upper},
};
use crate::{
    fhir::{Node, name::name},
    hl7::{Part, Value},
};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// ED as `Attachment`.
pub fn ed(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    joined(&[part], cx)
}

/// RP as `Attachment`: a pointer with its type.
pub fn rp(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let url = phrase(part.component(1)).filter(|url| !url.contains(char::is_whitespace))?;
    let kind = content_type(trimmed(part.component(3)).as_deref(), trimmed(part.component(4)).as_deref());
    Node::object([(name!("contentType"), kind.map(Node::text)), (name!("url"), Some(Node::text(url)))]).some()
}

/// One document of the pieces that consecutive OBX carry, as `Attachment`.
pub fn joined(pieces: &[Part<'_>], cx: &Cx<'_>) -> Option<Node> {
    let first = pieces.first()?;
    // Without ED.5 the components before it mean something else, too.
    let is_whole = first.component(5).part().is_some();
    let [main, sub, encoding] = [2, 3, 4].map(|number| trimmed(first.component(number)).filter(|_| is_whole));
    let encoding = Encoding::of(encoding.as_deref());
    let bytes = decode(pieces, encoding);
    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
        cx.report(Finding::Doubtful("a document could not be decoded"));
        return None;
    };
    let kind = content_type(main.as_deref(), sub.as_deref()).map(Node::text);
    let kind = kind.or_else(|| sniff(&bytes).map(Node::from));
    // `Attachment` with data needs a type (att-1).
    let unsaid = if encoding == Encoding::Text { "text/plain" } else { "application/octet-stream" };
    Some(attachment(kind.or_else(|| Some(unsaid.into())), &bytes))
}

/// A text as `Attachment`; nothing when it is empty.
pub fn of_text(text: &str) -> Option<Node> {
    (!text.is_empty()).then(|| attachment(Some("text/plain; charset=utf-8".into()), text.as_bytes()))
}

fn attachment(kind: Option<Node>, bytes: &[u8]) -> Node {
    Node::object([
        (name!("contentType"), kind),
        (name!("data"), Some(Node::text(BASE64.encode(bytes)))),
        (name!("size"), i64::try_from(bytes.len()).ok().map(Node::Integer)),
    ])
}

/// Whether a piece begins a document of its own rather than going on with the pieces before, of which these are the first and
/// the last. `=` ends base64; but a file that is known by its begin may have been encoded piece by piece.
pub fn begins_document([first, last]: [Option<Part<'_>>; 2], piece: Part<'_>) -> bool {
    let is_file = first.and_then(|first| data_of(first, false)).is_some_and(looks_like_document);
    let is_ended = last.is_some_and(|last| {
        let is_base64 = trimmed(last.component(4)).is_some_and(|said| upper(&said) == "BASE64");
        is_base64 && last.component(5).part().is_some_and(|data| data.raw().trim_end().ends_with('='))
    });
    data_of(piece, false).is_some_and(|data| is_ended && !is_file || looks_like_document(data))
}

fn looks_like_document(data: Part<'_>) -> bool {
    ["JVBERi", "/9j/", "iVBORw", "SUkq", "TU0AK", "UEsDB", "e1xydG", "PD94bW", "PGh0bW", "PCFET0"]
        .into_iter()
        .any(|magic| data.raw().starts_with(magic))
}

/// What a piece has of the document: ED.5; all of it, where it is a repetition that goes on with the one before; or the
/// component that looks like a document, where the sender has left others out.
fn data_of(piece: Part<'_>, goes_on: bool) -> Option<Part<'_>> {
    let in_another = || piece.components().filter_map(Value::part).find(|part| looks_like_document(*part));
    let is_all = goes_on && piece.components().nth(1).is_none();
    piece.component(5).part().or(is_all.then_some(piece)).or_else(in_another)
}

/// ED.4 (table 0299).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Text,
    Hex,
    Base64,
}

impl Encoding {
    fn of(said: Option<&str>) -> Self {
        match said.map(upper).as_deref() {
            Some("A" | "ASCII" | "TEXT") => Self::Text,
            Some("HEX") => Self::Hex,
            _ => Self::Base64,
        }
    }
}

fn decode(pieces: &[Part<'_>], encoding: Encoding) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for (place, piece) in pieces.iter().enumerate() {
        if encoding == Encoding::Text && place > 0 {
            data.push(b'\n');
        }
        data.extend_from_slice(data_of(*piece, place > 0)?.whole().as_bytes());
    }
    match encoding {
        Encoding::Text => Some(data),
        Encoding::Hex => hex(&data),
        Encoding::Base64 => {
            data.retain(|byte| !byte.is_ascii_whitespace());
            BASE64.decode(&data).ok()
        }
    }
}

fn hex(data: &[u8]) -> Option<Vec<u8>> {
    let digits = data.iter().filter(|byte| !byte.is_ascii_whitespace());
    let digits = digits.map(|byte| char::from(*byte).to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect();
    if rest.is_empty() { bytes } else { None }
}

/// The MIME type of ED.2 and ED.3 (tables 0191 and 0291), or of RP.3 and RP.4.
fn content_type(main: Option<&str>, sub: Option<&str>) -> Option<String> {
    let whole = [main, sub].into_iter().flatten().find(|one| one.contains('/'));
    if let Some(whole) = whole {
        return Some(whole.to_lowercase());
    }
    let sub = sub.or(main.filter(|main| family(main).is_none()))?.to_lowercase();
    let sub = match sub.as_str() {
        "jpg" => "jpeg",
        "tif" => "tiff",
        "txt" | "ascii" => "plain",
        "word" | "doc" => "msword",
        "xhtml" => "xhtml+xml",
        other => other,
    };
    let main = main.and_then(family).unwrap_or(match sub {
        "jpeg" | "png" | "gif" | "tiff" | "bmp" => "image",
        "html" | "plain" | "xml" | "csv" => "text",
        _ => "application",
    });
    Some(format!("{main}/{sub}"))
}

fn family(main: &str) -> Option<&'static str> {
    Some(match &*upper(main) {
        "AP" | "APPLICATION" => "application",
        "AU" | "AUDIO" => "audio",
        "IM" | "IMAGE" => "image",
        "TEXT" | "TX" | "FT" => "text",
        "VIDEO" => "video",
        "MULTIPART" => "multipart",
        _ => return None,
    })
}

fn sniff(bytes: &[u8]) -> Option<&'static str> {
    let magics: [(&[u8], &str); 5] = [
        (b"%PDF", "application/pdf"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG", "image/png"),
        (b"{\\rtf", "application/rtf"),
        (b"PK\x03\x04", "application/zip"),
    ];
    magics.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::super::converter_tests::{check, findings, join};

    #[test]
    fn a_document_that_cannot_be_decoded_is_reported_and_left_out() {
        check("ED", "Attachment", "^AP^PDF^Base64^J*", "");
        assert_eq!(
            findings(None, "ED", "Attachment", "^AP^PDF^Base64^J*"),
            ["a document could not be decoded"]
        );
    }

    #[test]
    fn pieces_are_joined_before_they_are_decoded() {
        for second in ["^AP^PDF^Base64^i0x", "i0x"] {
            assert_eq!(
                join(&["^AP^PDF^Base64^JVBER", second]),
                r#"{"contentType":"application/pdf","data":"JVBERi0x","size":6}"#
            );
        }
        // `5~10` is not 510.
        assert_eq!(
            join(&["^TEXT^^A^5", "10 mg"]),
            r#"{"contentType":"text/plain","data":"NQoxMCBtZw==","size":7}"#
        );
    }
}

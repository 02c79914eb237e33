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
    text::{trimmed, upper},
};
use crate::{
    fhir::{Node, name::name},
    hl7::Part,
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
    let url = trimmed(part.component(1)).filter(|url| !url.contains(char::is_whitespace))?;
    let kind = content_type(trimmed(part.component(3)).as_deref(), trimmed(part.component(4)).as_deref());
    Node::object([(name!("contentType"), kind.map(Node::text)), (name!("url"), Some(Node::text(url)))]).some()
}

/// One document of the pieces that consecutive OBX carry, as `Attachment`.
pub fn joined(pieces: &[Part<'_>], cx: &Cx<'_>) -> Option<Node> {
    let first = pieces.first()?;
    let bytes = decode(pieces, trimmed(first.component(4)).as_deref());
    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
        cx.report(Finding::Doubtful("a document could not be decoded"));
        return None;
    };
    let kind = content_type(trimmed(first.component(2)).as_deref(), trimmed(first.component(3)).as_deref());
    Some(attachment(kind.or_else(|| sniff(&bytes).map(str::to_owned)).map(Node::text), &bytes))
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

/// Whether a piece begins a document of its own rather than going on with the one before.
pub fn begins_document(piece: Part<'_>) -> bool {
    let data = piece.component(5).part().map(Part::raw).unwrap_or_default();
    ["JVBERi", "/9j/", "iVBORw", "SUkq", "TU0AK", "UEsDB", "e1xydG", "PD94bW", "PGh0bW", "PCFET0"]
        .into_iter()
        .any(|magic| data.starts_with(magic))
}

fn decode(pieces: &[Part<'_>], encoding: Option<&str>) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for piece in pieces {
        data.extend_from_slice(piece.component(5).part()?.whole().as_bytes());
    }
    match encoding.map(upper).as_deref() {
        Some("A") => Some(data),
        Some("HEX") => hex(&data),
        _ => {
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
    use super::super::converter_tests::{check_all, findings, join};

    #[test]
    fn a_document_with_its_type() {
        check_all(
            r#"
            ED Attachment
                ^AP^PDF^Base64^JVBERi0x => {"contentType":"application/pdf","data":"JVBERi0x","size":6}
                ^application^pdf^Base64^JVBE\X0D\Ri0x => {"contentType":"application/pdf","data":"JVBERi0x","size":6}
                ^TEXT^^A^abc => {"data":"YWJj","size":3}
                ^IM^JPG^Hex^FFd8 => {"contentType":"image/jpeg","data":"/9g=","size":2}
                ^^^Base64^JVBERi0x => {"contentType":"application/pdf","data":"JVBERi0x","size":6}
            RP Attachment
                https://x.example/1.pdf^PACS^application^pdf => {"contentType":"application/pdf","url":"https://x.example/1.pdf"}
            "#,
        );
    }

    #[test]
    fn a_document_that_cannot_be_decoded_is_reported_and_left_out() {
        check_all("ED Attachment\n^AP^PDF^Base64^J* =>");
        assert_eq!(
            findings(None, "ED", "Attachment", "^AP^PDF^Base64^J*"),
            ["a document could not be decoded"]
        );
    }

    #[test]
    fn pieces_are_joined_before_they_are_decoded() {
        assert_eq!(
            join(&["^AP^PDF^Base64^JVBER", "^AP^PDF^Base64^i0x"]),
            r#"{"contentType":"application/pdf","data":"JVBERi0x","size":6}"#
        );
    }
}

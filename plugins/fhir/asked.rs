//! What a request to a FHIR listener asks for, by its method, path and content type; and whether its body is that.
//!
//! Not here: reading the body as FHIR (engine), answering (listener).

use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use tie_engine::fhir::elements::resource_names;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// What this listener can do.
    Capabilities,
    /// Take a message of HL7 v2.
    Hl7,
    /// Take any Bundle that is sent.
    Bundle,
    /// Take a message Bundle.
    Message,
    /// Take a resource of this type.
    Create(String),
    /// Take a resource of this type and id.
    Update(String, String),
}

/// Why a request is not one that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAsked {
    pub status: StatusCode,
    pub why: &'static str,
    /// The methods that the place has.
    pub allow: Option<&'static str>,
}

impl NotAsked {
    fn new(status: StatusCode, why: &'static str) -> Self {
        Self { status, why, allow: None }
    }

    fn method(allow: &'static str) -> Self {
        let why = "this place takes messages: it does not read, search, patch or delete";
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, why) }
    }
}

/// Reads method and path. `base` has no slash at its end.
pub fn asked(method: &Method, path: &str, base: &str, headers: &HeaderMap) -> Result<Asked, NotAsked> {
    let unknown = || NotAsked::new(StatusCode::NOT_FOUND, "nothing is served at this address");
    let rest = path
        .strip_prefix(base)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .ok_or_else(unknown)?;
    let pieces: Vec<&str> = rest.split('/').filter(|piece| !piece.is_empty()).collect();
    let is_type = |name: &str| resource_names().any(|known| known == name);
    let place = match pieces.as_slice() {
        ["metadata"] if matches!(*method, Method::GET | Method::HEAD) => return Ok(Asked::Capabilities),
        ["metadata"] => return Err(NotAsked::method("GET")),
        [] => (Method::POST, "POST", Asked::Bundle),
        ["$process-message"] => (Method::POST, "POST", Asked::Message),
        [kind] if is_type(kind) => (Method::POST, "POST", Asked::Create((*kind).to_owned())),
        [kind, id] if is_type(kind) && is_id(id) => {
            (Method::PUT, "PUT", Asked::Update((*kind).to_owned(), (*id).to_owned()))
        }
        _ => return Err(unknown()),
    };
    let (wanted, allow, asked) = place;
    if *method != wanted {
        return Err(NotAsked::method(allow));
    }
    match (content(headers)?, asked) {
        (Content::Fhir, asked) => Ok(asked),
        (Content::Hl7, Asked::Bundle | Asked::Message) => Ok(Asked::Hl7),
        (Content::Hl7, _) => Err(NotAsked::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a resource is sent as application/fhir+json",
        )),
    }
}

/// Whether a request is HL7 v2 by what it says of itself: then it is answered so.
pub fn speaks_hl7(headers: &HeaderMap) -> bool {
    content(headers) == Ok(Content::Hl7)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Fhir,
    Hl7,
}

fn content(headers: &HeaderMap) -> Result<Content, NotAsked> {
    let not = |why| Err(NotAsked::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    let text = |name| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase()
    };
    if !matches!(text(header::CONTENT_ENCODING).trim(), "" | "identity") {
        return not("the body must not be compressed");
    }
    let whole = text(header::CONTENT_TYPE);
    let mut pieces = whole.split(';').map(str::trim);
    let kind = pieces.next().unwrap_or_default();
    let charset =
        pieces.find_map(|piece| piece.strip_prefix("charset=")).unwrap_or("utf-8").trim_matches('"');
    match kind {
        "application/fhir+json" | "application/json+fhir" | "application/json" | "text/json" => match charset
        {
            "utf-8" | "utf8" | "us-ascii" => Ok(Content::Fhir),
            _ => not("FHIR JSON is UTF-8"),
        },
        "application/hl7-v2" | "application/hl7-v2+er7" | "x-application/hl7-v2+er7" => Ok(Content::Hl7),
        "application/fhir+xml" | "application/xml" | "text/xml" => {
            not("FHIR is taken as JSON (application/fhir+json), not as XML")
        }
        _ => not("send FHIR as application/fhir+json or HL7 v2 as application/hl7-v2+er7"),
    }
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

/// As much of a resource as tells whether it is what the address says.
#[derive(Deserialize)]
struct Head {
    #[serde(default, rename = "resourceType")]
    resource_type: serde_json::Value,
    #[serde(default)]
    id: serde_json::Value,
    #[serde(default, rename = "type")]
    kind: serde_json::Value,
}

impl Asked {
    /// What of the body is not as the address says: the element and why. What cannot be read is the engine's to tell.
    pub fn mismatch(&self, body: &[u8]) -> Option<(&'static str, &'static str)> {
        let head: Head = serde_json::from_slice(body).ok()?;
        let kind = head.resource_type.as_str()?;
        match self {
            Self::Capabilities | Self::Hl7 => None,
            Self::Bundle => (kind != "Bundle").then_some((
                "resourceType",
                "at this address a Bundle is taken; a resource alone goes to the address of its type",
            )),
            Self::Message => (kind != "Bundle" || head.kind.as_str() != Some("message"))
                .then_some(("Bundle.type", "$process-message takes a Bundle of type message")),
            Self::Create(wanted) => (kind != wanted)
                .then_some(("resourceType", "the resource is of another type than its address says")),
            Self::Update(wanted, _) if kind != wanted => {
                Some(("resourceType", "the resource is of another type than its address says"))
            }
            Self::Update(_, id) => (head.id.as_str() != Some(id))
                .then_some(("id", "the resource has another id than its address says, or none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, kind: &str) -> Result<Asked, u16> {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        asked(&method.parse().unwrap(), path, "/fhir", &headers).map_err(|not| not.status.as_u16())
    }

    #[test]
    fn addresses_methods_and_contents() {
        let json = "application/fhir+json; charset=UTF-8; fhirVersion=4.0";
        assert_eq!(ask("POST", "/fhir/", json), Ok(Asked::Bundle));
        assert_eq!(ask("POST", "/fhir/$process-message", json), Ok(Asked::Message));
        assert_eq!(ask("POST", "/fhir/Observation", json), Ok(Asked::Create("Observation".into())));
        assert_eq!(
            ask("PUT", "/fhir/Observation/a.1", json),
            Ok(Asked::Update("Observation".into(), "a.1".into()))
        );
        assert_eq!(ask("GET", "/fhir/metadata", ""), Ok(Asked::Capabilities));
        assert_eq!(ask("POST", "/fhir", "application/hl7-v2+er7"), Ok(Asked::Hl7));
        for (method, path, kind, status) in [
            ("GET", "/fhir/Observation/1", json, 405),
            ("DELETE", "/fhir/Observation/1", json, 405),
            ("PUT", "/fhir/Observation", json, 405),
            ("POST", "/fhir/Nothing", json, 404),
            ("POST", "/fhirx", json, 404),
            ("POST", "/other", json, 404),
            ("PUT", "/fhir/Observation/a b", json, 404),
            ("POST", "/fhir", "application/fhir+xml", 415),
            ("POST", "/fhir", "application/json; charset=latin1", 415),
            ("POST", "/fhir", "", 415),
            ("POST", "/fhir/Patient", "application/hl7-v2", 415),
        ] {
            assert_eq!(ask(method, path, kind), Err(status), "{method} {path} {kind}");
        }
    }

    #[test]
    fn the_body_is_what_the_address_says() {
        let update = Asked::Update("Patient".into(), "1".into());
        assert_eq!(update.mismatch(br#"{"resourceType":"Patient","id":"1"}"#), None);
        assert_eq!(update.mismatch(br#"{"resourceType":"Patient","id":"2"}"#).unwrap().0, "id");
        assert_eq!(
            Asked::Message.mismatch(br#"{"resourceType":"Bundle","type":"batch"}"#).unwrap().0,
            "Bundle.type"
        );
        assert_eq!(Asked::Bundle.mismatch(b"not json"), None, "the engine tells why");
        assert_eq!(
            Asked::Create("Encounter".into()).mismatch(br#"{"resourceType":"Encounter","type":[{}]}"#),
            None
        );
    }
}

//! A FHIR R4 resource or Bundle as it was received: the exact bytes, and the tree that they are.
//!
//! Promise:  `raw` is what came in, for ever. Whatever is not in the tree is empty, never a guess. `Debug` prints types and
//!           sizes only.
//! Decided:  - The trigger of a resource is its type (`FHIR^Observation`), of a message Bundle its event, of another
//!             Bundle its type (`FHIR^transaction`).
//!           - The control id is what names this sending: Bundle.identifier, MessageHeader.id, Bundle.id. A resource alone
//!             has none, only an identity, which comes again with each new version: its identifier or id, with its version
//!             where it has one. What has nothing at all is named by its content.
//! Source:   FHIR R4 messaging, Bundle, MessageHeader.

use std::fmt;

use bytes::Bytes;
use smol_str::SmolStr;

use super::{
    json::{self, Fault as JsonFault},
    path::{self, all},
    references::{self, Place, References},
};
use crate::fhir::{self, Node, elements::resource_names};

/// MSH-9.1 of what is FHIR.
pub(super) const CODE: &str = "FHIR";

/// The longest name of an event, and the longest control id, in bytes.
const LONGEST: (usize, usize) = (64, 200);

/// Elements that say which patient a resource is about.
const ABOUT: [&str; 7] =
    ["subject", "patient", "for", "beneficiary", "participant.actor", "link.other", "recipient"];

/// A FHIR message.
pub struct FhirMessage {
    raw: Bytes,
    root: Node,
    event: SmolStr,
    control_id: SmolStr,
    names_sending: bool,
    references: References,
}

/// Why bytes are no FHIR that can be taken. Holds nothing of their content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FhirFault {
    /// They are no text.
    #[error("the bytes are no UTF-8, as FHIR JSON must be")]
    NotUtf8,
    /// They are no JSON.
    #[error("{0}")]
    Json(JsonFault),
    /// The JSON is no resource.
    #[error("{at}: {what}")]
    Resource {
        /// The element.
        at: &'static str,
        /// What is wrong.
        what: &'static str,
    },
}

impl FhirFault {
    /// The element that is wrong, as far as it is known.
    pub fn element(&self) -> &str {
        match self {
            Self::NotUtf8 => "",
            Self::Json(fault) => fault.path(),
            Self::Resource { at, .. } => at,
        }
    }
}

/// One name of a patient that a message is about.
#[derive(Clone, PartialEq, Eq)]
pub enum PatientName {
    /// An identifier.
    Identifier {
        /// Its system; empty when it has none.
        system: SmolStr,
        /// Its value.
        value: SmolStr,
    },
    /// The literal reference, such as `Patient/123`.
    Reference(SmolStr),
}

impl FhirMessage {
    /// Reads a resource.
    ///
    /// # Errors
    /// Why the bytes are none.
    pub fn parse(raw: Bytes) -> Result<Self, FhirFault> {
        let bytes = raw.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&raw);
        let text = std::str::from_utf8(bytes).map_err(|_| FhirFault::NotUtf8)?;
        let root = json::parse(text).map_err(FhirFault::Json)?;
        let kind = word(&root, "resourceType");
        if !resource_names().any(|known| known == kind) {
            let what = "this is no resource of FHIR R4";
            return Err(FhirFault::Resource { at: "resourceType", what });
        }
        let event = SmolStr::new(event(&root, kind)?);
        let (control_id, names_sending) = control_id(&root).unwrap_or_else(|| (named_by(text), false));
        let references = References::of(&root);
        Ok(Self { raw, root, event, control_id, names_sending, references })
    }

    /// The same message with other content, under the same name where its content has none.
    pub fn with_root(&self, root: Node) -> Self {
        let (control_id, names_sending) = control_id(&root).unwrap_or((self.control_id.clone(), false));
        let (raw, references) = (root.to_json().into(), References::of(&root));
        Self { raw, root, event: self.event.clone(), control_id, names_sending, references }
    }

    /// The exact bytes that came in.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// `Observation`, `Bundle`, …
    pub fn resource_type(&self) -> &str {
        word(&self.root, "resourceType")
    }

    /// What happened: see the top of this file.
    pub fn event(&self) -> &str {
        &self.event
    }

    /// What this sending is known by, or what it is about.
    pub fn control_id(&self) -> &str {
        &self.control_id
    }

    /// Whether the control id names this sending: then it may not come again with other content.
    pub fn names_sending(&self) -> bool {
        self.names_sending
    }

    /// The resources: those of the entries of a Bundle, or the one itself.
    pub fn resources(&self) -> impl Iterator<Item = &Node> {
        self.placed().map(|(_, resource)| resource)
    }

    /// The same with their places.
    pub fn placed(&self) -> impl Iterator<Item = (Place, &Node)> {
        let bundle = self.resource_type() == "Bundle";
        let alone = (!bundle).then_some((Place::default(), &self.root));
        let entries = references::entries(&self.root).enumerate().filter(move |_| bundle);
        let entries = entries.filter_map(|(entry, node)| {
            Some((Place { entry, contained: None }, node.get("resource").filter(|node| !node.is_empty())?))
        });
        entries.chain(alone)
    }

    /// What each entry of a Bundle asks the receiver to do (`PUT`, `DELETE`), where it says so.
    pub fn requests(&self) -> impl Iterator<Item = &str> {
        references::entries(&self.root).filter_map(|entry| text_at(entry, "request.method"))
    }

    /// The MessageHeader of a message Bundle.
    pub fn header(&self) -> Option<&Node> {
        self.resources().find(|resource| word(resource, "resourceType") == "MessageHeader")
    }

    /// The resource of this message that a literal reference means, said by the one at `from`.
    pub fn resolve(&self, from: Place, reference: &str) -> Option<(Place, &Node)> {
        let place = match reference.strip_prefix('#') {
            Some(id) => references::contained(&self.root, from, id)?,
            None => Place { entry: self.references.entry(from.entry, reference)?, contained: None },
        };
        references::at(&self.root, place).filter(|node| !node.is_empty()).map(|node| (place, node))
    }

    /// The first text at one of several paths of the header, or of the resource.
    pub fn said(&self, header: &[&str], otherwise: &str) -> &str {
        let in_header = self.header().and_then(|node| header.iter().find_map(|path| text_at(node, path)));
        in_header.or_else(|| text_at(&self.root, otherwise)).unwrap_or_default()
    }

    /// The names of the patients that it is about, in the order in which they stand.
    pub fn patients(&self) -> Vec<PatientName> {
        let mut found = Vec::new();
        for (place, resource) in self.placed() {
            if word(resource, "resourceType") == "Patient" {
                self.named(resource, &mut found);
            }
            for path in ABOUT {
                for reference in all(resource, path).unwrap_or_default() {
                    self.referred(place, reference, &mut found);
                }
            }
        }
        found
    }

    /// The names that a Patient resource has.
    fn named(&self, patient: &Node, found: &mut Vec<PatientName>) {
        for identifier in all(patient, "identifier").unwrap_or_default() {
            push_identifier(identifier, found);
        }
        if let Some(id) = text_at(patient, "id") {
            found.push(PatientName::Reference(SmolStr::new(format!("Patient/{id}"))));
        }
    }

    fn referred(&self, from: Place, reference: &Node, found: &mut Vec<PatientName>) {
        let literal = text_at(reference, "reference").unwrap_or_default();
        match self.resolve(from, literal) {
            Some((_, resource)) if word(resource, "resourceType") == "Patient" => self.named(resource, found),
            Some(_) => return,
            None => {}
        }
        let path = literal.split_once("/_history/").map_or(literal, |(path, _)| path);
        let mut pieces = path.rsplit('/');
        let (id, kind) = (pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default());
        let said = text_at(reference, "type").unwrap_or(kind);
        if said != "Patient" && !(said.is_empty() && literal.is_empty()) {
            return;
        }
        if let Some(identifier) = reference.get("identifier") {
            push_identifier(identifier, found);
        }
        if kind == "Patient" && !id.is_empty() {
            found.push(PatientName::Reference(SmolStr::new(path)));
        }
    }
}

impl fmt::Debug for FhirMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FhirMessage({}, {} bytes)", self.event, self.raw.len())
    }
}

/// A name is patient data.
impl fmt::Debug for PatientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PatientName(…)")
    }
}

fn push_identifier(identifier: &Node, found: &mut Vec<PatientName>) {
    let text = |name| SmolStr::new(text_at(identifier, name).unwrap_or_default().trim());
    let (system, value) = (text("system"), text("value"));
    if !value.is_empty() {
        found.push(PatientName::Identifier { system, value });
    }
}

fn event<'n>(root: &'n Node, kind: &'n str) -> Result<String, FhirFault> {
    if kind != "Bundle" {
        return Ok(kind.to_owned());
    }
    let fault = |at, what| Err(FhirFault::Resource { at, what });
    let bundle_type = word(root, "type");
    if bundle_type != "message" {
        let known = ["transaction", "batch", "collection", "document"];
        return match known.contains(&bundle_type) {
            true => Ok(bundle_type.to_owned()),
            false => fault(
                "Bundle.type",
                "a Bundle that is sent is a message, transaction, batch, collection or document",
            ),
        };
    }
    let first = path::first(root, "entry[0].resource").ok().flatten();
    let Some(header) = first.filter(|first| word(first, "resourceType") == "MessageHeader") else {
        return fault("Bundle.entry[0].resource", "a message begins with a MessageHeader");
    };
    let event = text_at(header, "eventCoding.code").or_else(|| text_at(header, "eventUri"));
    let Some(event) = event else {
        return fault("MessageHeader.event[x]", "the message does not say what happened");
    };
    // The name of a route's trigger: no separator of ours, no text of any length.
    let last = event.rsplit('/').next().unwrap_or(event);
    let plain = |one: char| if one.is_ascii_alphanumeric() || "-_.".contains(one) { one } else { '-' };
    Ok(last.chars().take(LONGEST.0).map(plain).collect())
}

/// What it is known by, and whether that names this sending; nothing if it says neither.
fn control_id(root: &Node) -> Option<(SmolStr, bool)> {
    let fits = |found: Option<&str>| {
        let found = found.map(str::trim)?;
        (!found.is_empty() && found.len() <= LONGEST.1).then(|| SmolStr::new(found.replace('\0', "")))
    };
    if word(root, "resourceType") == "Bundle" {
        for path in ["identifier.value", "entry[0].resource.where(resourceType='MessageHeader').id", "id"] {
            if let Some(found) = fits(text_at(root, path)) {
                return Some((found, true));
            }
        }
    } else {
        let own = fits(text_at(root, "identifier.value")).or_else(|| fits(text_at(root, "id")));
        if let Some(found) = own {
            let version = fits(text_at(root, "meta.versionId"));
            let found =
                version.map_or_else(|| found.clone(), |version| SmolStr::new(format!("{found}/{version}")));
            return Some((found, false));
        }
    }
    None
}

/// The name of what has none.
fn named_by(content: &str) -> SmolStr {
    SmolStr::new(fhir::id("Resource", "urn:tie:content", content).to_string())
}

fn word<'n>(node: &'n Node, name: &str) -> &'n str {
    node.get(name).and_then(Node::as_text).unwrap_or_default()
}

fn text_at<'n>(node: &'n Node, path: &str) -> Option<&'n str> {
    path::first(node, path).ok().flatten().and_then(Node::as_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> FhirMessage {
        FhirMessage::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn refused(text: &[u8]) -> String {
        FhirMessage::parse(Bytes::copy_from_slice(text)).unwrap_err().to_string()
    }

    fn patients(message: &FhirMessage) -> Vec<String> {
        let shown = |name| match name {
            PatientName::Identifier { system, value } => format!("{system}|{value}"),
            PatientName::Reference(reference) => reference.to_string(),
        };
        message.patients().into_iter().map(shown).collect()
    }

    const MESSAGE: &str = r#"{"resourceType":"Bundle","type":"message","identifier":{"value":"B1"},"entry":[
        {"fullUrl":"urn:uuid:1","resource":{"resourceType":"MessageHeader","id":"H1","eventCoding":{"code":"new results!"},"source":{"name":"APP","endpoint":"x:y"}}},
        {"fullUrl":"urn:uuid:2","resource":{"resourceType":"Patient","identifier":[{"system":"s","value":" 7 "}]}},
        {"resource":{"resourceType":"Observation","id":"o","subject":{"reference":"urn:uuid:2"},"performer":[{"reference":"Practitioner/1"}]}}]}"#;

    #[test]
    fn a_message_bundle_says_its_event_its_key_and_its_patient() {
        let message = read(MESSAGE);
        assert_eq!(
            (message.event(), message.control_id(), message.names_sending()),
            ("new-results-", "B1", true)
        );
        assert_eq!(message.said(&["source.name", "source.endpoint"], "meta.source"), "APP");
        assert_eq!(patients(&message), ["s|7", "s|7"]);
        assert_eq!(message.resources().count(), 3);
        let resolve = |literal| message.resolve(Place::default(), literal);
        assert!(resolve("Observation/o").is_some() && resolve("urn:uuid:9").is_none());
        let unnamed = read(&MESSAGE.replace(r#""identifier":{"value":"B1"},"#, ""));
        assert_eq!(unnamed.control_id(), "H1");
    }

    #[test]
    fn a_resource_alone_says_its_type_and_names_itself_by_its_version() {
        let text = r#"{"resourceType":"Observation","id":"o","meta":{"versionId":"2"},"subject":
            {"reference":"https://a/fhir/Patient/9/_history/1","identifier":{"system":"s","value":"7"}}}"#;
        let message = read(text);
        assert_eq!(
            (message.event(), message.control_id(), message.names_sending()),
            ("Observation", "o/2", false)
        );
        assert_eq!(patients(&message), ["s|7", "https://a/fhir/Patient/9"]);
        let nameless = read(r#"{"resourceType":"Observation","subject":{"identifier":{"value":"7"}}}"#);
        assert_eq!((nameless.control_id().len(), patients(&nameless)), (36, vec!["|7".to_owned()]));
        let merged = read(
            r#"{"resourceType":"Patient","id":"1","link":[{"other":{"reference":"Patient/2"},"type":"replaces"}]}"#,
        );
        assert_eq!(patients(&merged), ["Patient/1", "Patient/2"]);
        let of_group = read(r#"{"resourceType":"Observation","subject":{"reference":"Group/2"}}"#);
        assert_eq!(patients(&of_group), [""; 0]);
    }

    #[test]
    fn what_is_no_resource_is_told_by_its_element() {
        for (text, told) in [
            (r#"{"resourceType":"Patent"}"#, "resourceType: this is no resource of FHIR R4"),
            (r"{}", "resourceType: this is no resource of FHIR R4"),
            (
                r#"{"resourceType":"Bundle","type":"searchset"}"#,
                "Bundle.type: a Bundle that is sent is a message, transaction, batch, collection or document",
            ),
            (
                r#"{"resourceType":"Bundle","type":"message","entry":[{"resource":{"resourceType":"Patient"}}]}"#,
                "Bundle.entry[0].resource: a message begins with a MessageHeader",
            ),
            (
                r#"{"resourceType":"Bundle","type":"message","entry":[{"resource":{"resourceType":"MessageHeader"}}]}"#,
                "MessageHeader.event[x]: the message does not say what happened",
            ),
        ] {
            assert_eq!(refused(text.as_bytes()), told);
        }
        assert_eq!(refused(b"{\"id\":\"\xFF\"}"), "the bytes are no UTF-8, as FHIR JSON must be");
    }
}

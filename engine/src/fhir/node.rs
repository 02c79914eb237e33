//! The tree of a resource: compact, ordered, written once to bytes.
//!
//! Promise: elements are written in the order they were put in, decimals with the digits they came with
//! (`7.10` stays `7.10`), and nothing empty is written: no empty text, object or array, as FHIR asks; but what the
//! sender removed is, as `null`, which leaves the engine only where a destination wants to know.
//! Not here: which elements there are (`elements`), where they stand (`path`).

use std::{borrow::Cow, cell::RefCell, fmt};

use smol_str::SmolStr;
use uuid::Uuid;

use super::{
    json::write_text,
    name::{Name, name},
    object::Object,
};

/// One value of a resource: an object, a list or a primitive.
#[derive(Clone, PartialEq)]
pub enum Node {
    /// Named elements.
    Object(Object),
    /// A repeating element.
    Array(Vec<Node>),
    /// Text of any kind: string, code, uri, date, …
    Text(SmolStr),
    /// A number that keeps its digits.
    Decimal(SmolStr),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// The text of a reference to a resource, written as the surroundings need it.
    Reference(Box<Target>),
    /// The sender has removed what was there: no value, but written, as `null`, for destinations that update by parts.
    Null,
}

/// What a reference points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `Patient`, `Encounter`, …
    pub resource_type: SmolStr,
    /// The deterministic id of the resource.
    pub id: Uuid,
    /// `system|value`, to search by when the resource is not in the same bundle.
    pub identifier: Option<SmolStr>,
}

/// Tells whether a resource travels in the same bundle as the reference that is being written.
pub trait Within {
    /// Whether it does.
    fn holds(&self, target: &Target) -> bool;
}

impl Node {
    /// A text.
    pub fn text(text: impl Into<SmolStr>) -> Self {
        Self::Text(text.into())
    }

    /// An object of the elements that have a value; no two have one name.
    pub fn object<const N: usize>(mut elements: [(&Name, Option<Node>); N]) -> Self {
        Self::Object(Object::of(&mut elements))
    }

    /// An Identifier.
    pub(crate) fn identifier(system: Option<Self>, value: impl Into<SmolStr>) -> Self {
        Self::object([(name!("system"), system), (name!("value"), Some(Self::text(value)))])
    }

    /// A Coding.
    pub(super) fn coding(system: Option<Self>, code: impl Into<Self>, display: Option<Self>) -> Self {
        Self::object([
            (name!("system"), system),
            (name!("code"), Some(code.into())),
            (name!("display"), display),
        ])
    }

    /// A CodeableConcept of one Coding.
    pub(crate) fn concept(coding: Self) -> Self {
        Self::object([(name!("coding"), Some(vec![coding].into()))])
    }

    /// An Extension, with the shape that its value has.
    pub(super) fn extension(url: &'static str, shape: &Name, value: Self) -> Self {
        Self::object([(name!("url"), Some(url.into())), (shape, Some(value))])
    }

    /// A Reference to a resource, or to something of which only the name is known.
    pub fn reference(target: Option<Target>, display: Option<Self>) -> Self {
        Self::object([(name!("reference"), target.map(Self::from)), (name!("display"), display)])
    }

    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Object(object) => object.entries().iter().all(|(_, node)| node.is_empty()),
            Self::Array(nodes) => nodes.iter().all(Self::is_empty),
            Self::Text(text) | Self::Decimal(text) => text.is_empty(),
            Self::Null => true,
            Self::Integer(_) | Self::Boolean(_) | Self::Reference(_) => false,
        }
    }

    /// Whether there is nothing here but what was removed, and perhaps the urls that tell which extensions.
    pub(super) fn is_removal(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Object(object) => {
                let left = |(name, node): &(Name, Node)| {
                    name == name!("url") || node.is_empty() || node.is_removal()
                };
                let elements = object.entries();
                elements.iter().any(|(_, node)| node.is_removal()) && elements.iter().all(left)
            }
            Self::Array(nodes) => !nodes.is_empty() && nodes.iter().all(Self::is_removal),
            _ => false,
        }
    }

    /// The same node, its objects held in common by all that have a copy of them.
    #[must_use]
    pub(crate) fn in_common(self) -> Self {
        match self {
            Self::Object(object) => Self::Object(object.parts_in_common().in_common()),
            Self::Array(nodes) => Self::Array(nodes.into_iter().map(Self::in_common).collect()),
            node => node,
        }
    }

    /// The node itself, or nothing if nothing would be written.
    #[must_use]
    pub fn some(self) -> Option<Self> {
        (!self.is_empty()).then_some(self)
    }

    /// The text of a text or decimal node.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Decimal(text) => Some(text),
            _ => None,
        }
    }

    /// The object of an object node.
    pub(super) fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The object of an object node, to change it.
    pub(super) fn as_object_mut(&mut self) -> Option<&mut Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// An element of an object.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.as_object()?.get(name)
    }

    /// An element of an object, by its known name.
    pub(crate) fn at(&self, name: &Name) -> Option<&Node> {
        self.as_object()?.at(name)
    }

    /// The objects and arrays nested in each other here, 1 for a primitive.
    pub fn depth(&self) -> usize {
        match self {
            Self::Object(object) => {
                1 + object.entries().iter().map(|(_, node)| node.depth()).max().unwrap_or(0)
            }
            Self::Array(nodes) => 1 + nodes.iter().map(Self::depth).max().unwrap_or(0),
            _ => 1,
        }
    }

    /// Writes the node as JSON; returns whether anything was written.
    pub fn write(&self, out: &mut Vec<u8>, within: &dyn Within) -> bool {
        match self {
            Self::Object(object) => object.write(out, within),
            Self::Array(nodes) => write_array(nodes, out, within),
            Self::Text(text) => !text.is_empty() && write_text(text, out),
            Self::Decimal(text) => {
                out.extend_from_slice(text.as_bytes());
                !text.is_empty()
            }
            Self::Integer(number) => {
                out.extend_from_slice(number.to_string().as_bytes());
                true
            }
            Self::Boolean(truth) => {
                out.extend_from_slice(if *truth { b"true" } else { b"false" });
                true
            }
            Self::Reference(target) => target.write(out, within),
            Self::Null => {
                out.extend_from_slice(b"null");
                true
            }
        }
    }

    /// The node as JSON on its own; empty when there is nothing to write.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.write(&mut out, &Alone);
        out
    }
}

impl Target {
    fn write(&self, out: &mut Vec<u8>, within: &dyn Within) -> bool {
        let mut buffer = Uuid::encode_buffer();
        let id = self.id.hyphenated().encode_lower(&mut buffer);
        if within.holds(self) {
            out.extend_from_slice(b"\"urn:uuid:");
            out.extend_from_slice(id.as_bytes());
            out.push(b'"');
            return true;
        }
        match &self.identifier {
            Some(identifier) => write_text(
                &format!("{}?identifier={}", self.resource_type, percent_encoded(identifier, b"~|:/")),
                out,
            ),
            None => write_text(&format!("{}/{id}", self.resource_type), out),
        }
    }
}

/// A node on its own: no other resource is near.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alone;

impl Within for Alone {
    fn holds(&self, _: &Target) -> bool {
        false
    }
}

/// Takes all that is referred to as near, and notes it.
impl Within for RefCell<Vec<Target>> {
    fn holds(&self, target: &Target) -> bool {
        self.borrow_mut().push(target.clone());
        true
    }
}

macro_rules! from {
    ($($of:ty => $make:expr),*) => {$(
        impl From<$of> for Node {
            fn from(value: $of) -> Self {
                $make(value)
            }
        }
    )*};
}
from!(
    SmolStr => Self::Text,
    // A text that stands in the program, which is not copied. Others become nodes by [`Node::text`].
    &'static str => |text| Self::Text(SmolStr::new_static(text)),
    String => Self::text,
    bool => Self::Boolean,
    i64 => Self::Integer,
    Object => Self::Object,
    Vec<Node> => Self::Array,
    Target => |target| Self::Reference(Box::new(target))
);

#[cfg(test)]
impl Node {
    /// What a JSON text says.
    pub(crate) fn of_json(text: &str) -> Self {
        crate::incoming::json::parse(text).expect("the JSON can be read")
    }
}

/// Shapes only: a node holds patient data.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => fmt::Debug::fmt(object, f),
            Self::Array(nodes) => write!(f, "Array({} nodes)", nodes.len()),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Decimal(_) => f.write_str("Decimal"),
            Self::Integer(_) => f.write_str("Integer"),
            Self::Boolean(_) => f.write_str("Boolean"),
            Self::Reference(target) => write!(f, "Reference({})", target.resource_type),
            Self::Null => f.write_str("Null"),
        }
    }
}

fn write_array(nodes: &[Node], out: &mut Vec<u8>, within: &dyn Within) -> bool {
    let start = out.len();
    out.push(b'[');
    let mut any = false;
    for node in nodes {
        let before = out.len();
        if any {
            out.push(b',');
        }
        if node.write(out, within) {
            any = true;
        } else {
            out.truncate(before);
        }
    }
    if any {
        out.push(b']');
    } else {
        out.truncate(start);
    }
    any
}

/// A text as a part of a URI: letters, digits, `-`, `.`, `_` and what else is said to be plain stay as they are.
pub(super) fn percent_encoded<'t>(text: &'t str, plain: &[u8]) -> Cow<'t, str> {
    let stays = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte) || plain.contains(byte);
    if text.as_bytes().iter().all(stays) {
        return Cow::Borrowed(text);
    }
    let encoded = text.bytes().map(|byte| match byte {
        byte if stays(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(node: &Node) -> String {
        String::from_utf8(node.to_json()).unwrap()
    }

    #[test]
    fn nothing_empty_is_written() {
        let node = r#"{"family":"","period":{},"given":["",{"x":[]}],"active":true,"line":["","b",{},"c"]}"#;
        let node = Node::of_json(node);
        assert_eq!(json(&node), r#"{"active":true,"line":["b","c"]}"#);
        assert!(Node::object([(name!("a"), Some(vec![Node::text("")].into()))]).is_empty());
        assert_eq!(json(&Object::new().into()), "");
    }

    #[test]
    fn an_object_is_completed_where_nothing_stands() {
        let object = |text| Node::of_json(text).as_object().unwrap().clone();
        let mut whole = object(r#"{"meta":{"source":"a"},"use":"","system":"x"}"#);
        whole.complete(&object(r#"{"meta":{"versionId":"1"},"use":"home","system":"y"}"#));
        whole.complete(&object(r#"{"meta":{"source":"b"}}"#));
        assert_eq!(
            json(&whole.into()),
            r#"{"meta":{"source":"a","versionId":"1"},"use":"home","system":"x"}"#
        );
    }

    #[test]
    fn decimals_keep_their_digits_and_order_is_kept() {
        let text = r#"{"z":7.10,"a":3,"m":0.000000000000000000001}"#;
        assert_eq!(json(&Node::of_json(text)), text);
    }

    #[test]
    fn a_reference_is_literal_or_by_identifier_when_its_target_is_elsewhere() {
        let mut target = Target { resource_type: "Patient".into(), id: Uuid::nil(), identifier: None };
        assert_eq!(json(&target.clone().into()), r#""Patient/00000000-0000-0000-0000-000000000000""#);
        target.identifier = Some("https://x.example/id|A 1&b".into());
        assert_eq!(json(&target.into()), r#""Patient?identifier=https://x.example/id|A%201%26b""#);
    }

    #[test]
    fn debug_prints_no_values() {
        let node = Node::object([(name!("family"), Some("CANARY".into()))]);
        assert_eq!(format!("{node:?}"), r#"{"family"}"#);
    }
}

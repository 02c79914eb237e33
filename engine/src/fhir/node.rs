//! The tree of a resource: compact, ordered, written once to bytes.
//!
//! Promise: elements are written in the order they were put in, decimals with the digits they came with
//! (`7.10` stays `7.10`), and nothing empty is written: no empty text, object or array, as FHIR asks; but what the
//! sender removed is, as `null`, which leaves the engine only where a destination wants to know.
//! Not here: which elements there are (`elements`), where they stand (`path`).

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use smol_str::SmolStr;
use uuid::Uuid;

use super::{
    elements::Type,
    json::{write_name, write_text},
    name::{Name, name},
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

/// Named elements in the order they were put in.
#[derive(Clone)]
pub struct Object(Elements);

/// What a revision says in many messages is held in common: it is not copied, and checked and written once.
#[derive(Clone)]
enum Elements {
    Own(Vec<(Name, Node)>),
    Common(Arc<Common>),
}

struct Common {
    elements: Vec<(Name, Node)>,
    /// The type by which it was found to be right.
    checked: OnceLock<&'static Type>,
    /// As JSON with its braces; none when it depends on what is around it.
    json: OnceLock<Option<Box<[u8]>>>,
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
    pub fn object<K: Into<Name>, const N: usize>(elements: [(K, Option<Node>); N]) -> Self {
        Self::Object(Object::of(elements))
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
                let left =
                    |(name, node): &(Name, Node)| name == name!("url") || node.is_empty() || node.is_removal();
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

    /// Whether a reference is in it, whose text depends on what is around it.
    fn refers(&self) -> bool {
        match self {
            Self::Object(object) => object.entries().iter().any(|(_, node)| node.refers()),
            Self::Array(nodes) => nodes.iter().any(Self::refers),
            Self::Reference(_) => true,
            _ => false,
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

    /// An element of an object.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match self {
            Self::Object(object) => object.get(name),
            _ => None,
        }
    }

    /// An element of an object, by its known name.
    pub(crate) fn at(&self, name: &Name) -> Option<&Node> {
        match self {
            Self::Object(object) => object.at(name),
            _ => None,
        }
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

impl Object {
    /// An object without elements.
    pub const fn new() -> Self {
        Self(Elements::Own(Vec::new()))
    }

    /// An object without elements, with room for some.
    pub fn with_capacity(elements: usize) -> Self {
        Self(Elements::Own(Vec::with_capacity(elements)))
    }

    /// An object of the elements that have a value; no two have one name.
    pub(super) fn of<K: Into<Name>, const N: usize>(elements: [(K, Option<Node>); N]) -> Self {
        let mut own = Vec::with_capacity(elements.iter().filter(|(_, node)| node.is_some()).count());
        for (name, node) in elements {
            if let Some(node) = node {
                own.push((name.into(), node));
            }
        }
        Self(Elements::Own(own))
    }

    /// The same object, to be held in common by all that have a copy of it: see [`Elements`].
    #[must_use]
    pub fn in_common(self) -> Self {
        match self.0 {
            Elements::Own(elements) => Self(Elements::Common(Arc::new(Common {
                elements,
                checked: OnceLock::new(),
                json: OnceLock::new(),
            }))),
            common @ Elements::Common(_) => Self(common),
        }
    }

    /// The same object, with all objects in it held in common.
    #[must_use]
    pub(crate) fn parts_in_common(self) -> Self {
        match self.0 {
            Elements::Own(elements) => {
                elements.into_iter().map(|(name, node)| (name, node.in_common())).collect()
            }
            common @ Elements::Common(_) => Self(common),
        }
    }

    /// Whether it has been found right by this type, and cannot have changed since.
    pub(super) fn is_checked(&self, by: &'static Type) -> bool {
        match &self.0 {
            Elements::Own(_) => false,
            Elements::Common(common) => {
                common.checked.get().is_some_and(|checked| std::ptr::eq(*checked, by))
            }
        }
    }

    /// Notes that it was found right by this type.
    pub(super) fn set_checked(&self, by: &'static Type) {
        if let Elements::Common(common) = &self.0 {
            common.checked.get_or_init(|| by);
        }
    }

    /// Puts an element at the end whose name is not there yet. Nothing is put for `None`.
    pub(super) fn push(&mut self, name: &Name, node: Option<Node>) {
        debug_assert!(self.at(name).is_none(), "{name:?} is there already");
        if let Some(node) = node {
            self.own().push((name.clone(), node));
        }
    }

    /// Puts an element at the end, or in its old place if there is one of this name. Nothing is put for `None`.
    pub fn put(&mut self, name: impl Into<Name>, node: Option<Node>) {
        let Some(node) = node else { return };
        let name = name.into();
        match self.at_mut(&name) {
            Some(old) => *old = node,
            None => self.own().push((name, node)),
        }
    }

    /// The same object with one element more: see [`Object::put`].
    #[must_use]
    pub fn with(mut self, name: &'static str, node: Option<Node>) -> Self {
        self.put(name, node);
        self
    }

    /// An element.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key.as_str() == name).map(|(_, node)| node)
    }

    /// An element by its name.
    pub(crate) fn at(&self, name: &Name) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key == name).map(|(_, node)| node)
    }

    /// An element by its name, to change it.
    pub(super) fn at_mut(&mut self, name: &Name) -> Option<&mut Node> {
        let place = self.entries().iter().position(|(key, _)| key == name)?;
        self.own().get_mut(place).map(|(_, node)| node)
    }

    /// The element, made empty at the end if there is none.
    pub(super) fn entry(&mut self, name: &Name) -> &mut Node {
        let own = self.own();
        let place = own.iter().position(|(key, _)| key == name).unwrap_or(own.len());
        if place == own.len() {
            own.push((name.clone(), Node::Object(Object::new())));
        }
        match own.get_mut(place) {
            Some((_, node)) => node,
            None => unreachable!("the element was found or just put"),
        }
    }

    /// Adds what the other object has where nothing stands yet; objects within objects likewise.
    pub fn complete(&mut self, other: &Self) {
        for (name, node) in other.entries() {
            match (self.at(name), node) {
                (None, node) => self.own().push((name.clone(), node.clone())),
                (Some(Node::Object(_)), Node::Object(more)) => {
                    if let Some(Node::Object(own)) = self.at_mut(name) {
                        own.complete(more);
                    }
                }
                (Some(own), node) if own.is_empty() => self.put(name, Some(node.clone())),
                (Some(_), _) => {}
            }
        }
    }

    /// Takes an element out.
    pub fn remove(&mut self, name: &str) -> Option<Node> {
        let place = self.entries().iter().position(|(key, _)| key.as_str() == name)?;
        Some(self.own().remove(place).1)
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.entries().iter().map(|(name, node)| (name.as_str(), node))
    }

    /// The elements in order.
    pub(super) fn entries(&self) -> &[(Name, Node)] {
        match &self.0 {
            Elements::Own(elements) => elements,
            Elements::Common(common) => &common.elements,
        }
    }

    /// The elements in order, to change them; copied first if others have them too.
    pub(super) fn own(&mut self) -> &mut Vec<(Name, Node)> {
        if let Elements::Common(common) = &self.0 {
            self.0 = Elements::Own(common.elements.clone());
        }
        match &mut self.0 {
            Elements::Own(elements) => elements,
            Elements::Common(_) => unreachable!("copied just now"),
        }
    }

    /// The elements in order, as owned pairs.
    pub fn into_elements(mut self) -> Vec<(Name, Node)> {
        std::mem::take(self.own())
    }

    /// How many elements there are, empty ones included.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Writes the elements without braces, after a comma if `first` is false; returns whether any was written.
    pub(super) fn write_elements(&self, mut first: bool, out: &mut Vec<u8>, within: &dyn Within) -> bool {
        let mut any = false;
        for (name, node) in self.entries() {
            let start = out.len();
            write_name(name, first, out);
            if node.write(out, within) {
                first = false;
                any = true;
            } else {
                out.truncate(start);
            }
        }
        any
    }

    fn write(&self, out: &mut Vec<u8>, within: &dyn Within) -> bool {
        if let Elements::Common(common) = &self.0
            && let Some(json) = common.json()
        {
            out.extend_from_slice(json);
            return !json.is_empty();
        }
        let start = out.len();
        out.push(b'{');
        if self.write_elements(true, out, within) {
            out.push(b'}');
            return true;
        }
        out.truncate(start);
        false
    }
}

impl Common {
    /// As JSON, made when it is first written.
    fn json(&self) -> Option<&[u8]> {
        let json = self.json.get_or_init(|| {
            if self.elements.iter().any(|(_, node)| node.refers()) {
                return None;
            }
            Some(Node::Object(Object(Elements::Own(self.elements.clone()))).to_json().into())
        });
        json.as_deref()
    }
}

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl<K: Into<Name>> FromIterator<(K, Node)> for Object {
    fn from_iter<T: IntoIterator<Item = (K, Node)>>(elements: T) -> Self {
        Self(Elements::Own(elements.into_iter().map(|(name, node)| (name.into(), node)).collect()))
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
            Some(identifier) => {
                write_text(&format!("{}?identifier={}", self.resource_type, query(identifier)), out)
            }
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

impl From<SmolStr> for Node {
    fn from(text: SmolStr) -> Self {
        Self::Text(text)
    }
}

/// A text that stands in the program, which is not copied. Others become nodes by [`Node::text`].
impl From<&'static str> for Node {
    fn from(text: &'static str) -> Self {
        Self::Text(SmolStr::new_static(text))
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<bool> for Node {
    fn from(truth: bool) -> Self {
        Self::Boolean(truth)
    }
}

impl From<i64> for Node {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<Object> for Node {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl From<Vec<Node>> for Node {
    fn from(nodes: Vec<Node>) -> Self {
        Self::Array(nodes)
    }
}

impl From<Target> for Node {
    fn from(target: Target) -> Self {
        Self::Reference(Box::new(target))
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

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries().iter().map(|(name, _)| name)).finish()
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

/// Percent-encodes what would end or split a query value; `|`, `:` and `/` are left readable.
pub(super) fn query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'|' | b':' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(node: &Node) -> String {
        String::from_utf8(node.to_json()).unwrap()
    }

    #[test]
    fn nothing_empty_is_written() {
        let node = Node::object([
            ("family", Some("".into())),
            ("period", Some(Object::new().into())),
            ("given", Some(vec![Node::text(""), Node::object([("x", Some(vec![].into()))])].into())),
            ("active", Some(true.into())),
            ("line", Some(vec![Node::text(""), "b".into(), Object::new().into(), "c".into()].into())),
        ]);
        assert_eq!(json(&node), r#"{"active":true,"line":["b","c"]}"#);
        assert!(Node::object([("a", Some(vec![Node::text("")].into()))]).is_empty());
        assert_eq!(json(&Object::new().into()), "");
    }

    #[test]
    fn an_object_is_completed_where_nothing_stands() {
        let meta = |name, node: Node| Object::new().with("meta", Some(Node::object([(name, Some(node))])));
        let mut object =
            meta("source", "a".into()).with("use", Some("".into())).with("system", Some("x".into()));
        object.complete(
            &meta("versionId", "1".into()).with("use", Some("home".into())).with("system", Some("y".into())),
        );
        object.complete(&meta("source", "b".into()));
        assert_eq!(
            json(&object.into()),
            r#"{"meta":{"source":"a","versionId":"1"},"use":"home","system":"x"}"#
        );
    }

    #[test]
    fn decimals_keep_their_digits_and_order_is_kept() {
        let node = Node::object([
            ("z", Some(Node::Decimal("7.10".into()))),
            ("a", Some(3.into())),
            ("m", Some(Node::Decimal("0.000000000000000000001".into()))),
        ]);
        assert_eq!(json(&node), r#"{"z":7.10,"a":3,"m":0.000000000000000000001}"#);
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
        let node = Node::object([("family", Some("CANARY".into()))]);
        assert_eq!(format!("{node:?}"), r#"{"family"}"#);
    }
}

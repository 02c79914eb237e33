//! Which elements of a FHIR message a mapping carries on.
//!
//! Promise:  an element counts as read only if what the mapping makes of the message is other without it, or with another
//!           value in its place.
//! Decided:  What a script has looked at says little here: it hands elements to converters whole, and a CodeableConcept
//!           may have more codings than a field takes. So nothing is counted while the mapping runs; it runs again for each
//!           element, on a copy of the message without it. What counts are elements that hold no others; `resourceType`
//!           and the `url` of an extension are part of the name of what they stand in.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{
    Context, Covered, Fate, Mapped, Mappings, Spot,
    ignored::{self, Ignored},
};
use crate::{
    fhir::{Node, Object},
    incoming::{FhirMessage, Incoming},
};

/// What happens to one element in a copy.
#[derive(Clone, Copy)]
enum Change {
    TakenOut,
    Other,
}

/// What became of each element that has a value, in the order of the message.
pub(super) fn told(
    mappings: &Mappings,
    name: &str,
    message: &FhirMessage,
    context: &Context,
    mapped: &Mapped,
    ignored: &Ignored,
) -> Vec<Covered> {
    let context = Context { coverage: false, ..context.clone() };
    let same = |number: usize, change: Change| {
        let copy = message.with_root(copied(message.root(), &mut Some(number), change));
        mappings
            .run(name, Incoming::Fhir(Arc::new(copy)), &context)
            .is_ok_and(|product| product.mapped == *mapped)
    };
    let mut spots = Vec::new();
    find(message.root(), &Way::default(), &mut spots);
    let found = spots.into_iter().enumerate().map(|(number, spot)| {
        let fate = if !(same(number, Change::TakenOut) && same(number, Change::Other)) {
            Fate::Read
        } else {
            ignored::reason_of_element(ignored, &spot).map_or(Fate::Unread, |why| Fate::Ignored(why.into()))
        };
        Covered { spot, fate }
    });
    found.collect()
}

/// The way to an element from the innermost resource that it is in.
#[derive(Clone, Default)]
struct Way {
    resource: SmolStr,
    path: String,
}

impl Way {
    fn to(&self, name: &str, node: &Node) -> Self {
        if let Some(kind) = kind(node) {
            return Self { resource: kind, path: String::new() };
        }
        let dot = if self.path.is_empty() { "" } else { "." };
        let url = node.get("url").and_then(Node::as_text).filter(|_| is_extension(name));
        let url = url.map(|url| format!("({url})")).unwrap_or_default();
        Self { resource: self.resource.clone(), path: format!("{}{dot}{name}{url}", self.path) }
    }
}

fn kind(node: &Node) -> Option<SmolStr> {
    node.get("resourceType").and_then(Node::as_text).map(SmolStr::new)
}

fn is_extension(name: &str) -> bool {
    matches!(name, "extension" | "modifierExtension")
}

/// Whether a member is part of the name of what it stands in.
fn is_name(name: &str, within: &Object) -> bool {
    name == "resourceType" || name == "url" && within.iter().any(|(name, _)| name.starts_with("value"))
}

/// The elements that hold no others, in the order in which [`copied`] meets them.
fn find(node: &Node, way: &Way, spots: &mut Vec<Spot>) {
    match node {
        Node::Object(object) => {
            let way = if way.resource.is_empty() { way.to("", node) } else { way.clone() };
            for (name, child) in object.iter().filter(|(name, _)| !is_name(name, object)) {
                let items = match child {
                    Node::Array(items) => items.as_slice(),
                    one => std::slice::from_ref(one),
                };
                items.iter().for_each(|item| find(item, &way.to(name, item), spots));
            }
        }
        Node::Array(items) => items.iter().for_each(|item| find(item, way, spots)),
        Node::Null => {}
        _ => spots.push(Spot::Element(way.resource.clone(), way.path.as_str().into())),
    }
}

/// The same tree with a change to the element of a number.
fn copied(node: &Node, left: &mut Option<usize>, change: Change) -> Node {
    match node {
        Node::Object(object) => {
            let mut copy = Object::new();
            for (name, child) in object.iter() {
                let child = if is_name(name, object) { child.clone() } else { copied(child, left, change) };
                copy.put(name, Some(child));
            }
            Node::Object(copy)
        }
        Node::Array(items) => Node::Array(items.iter().map(|item| copied(item, left, change)).collect()),
        Node::Null => Node::Null,
        leaf => match left.take() {
            Some(0) => changed(leaf, change),
            Some(more) => {
                *left = Some(more - 1);
                leaf.clone()
            }
            None => leaf.clone(),
        },
    }
}

fn changed(leaf: &Node, change: Change) -> Node {
    match (change, leaf) {
        (Change::TakenOut, _) => Node::Object(Object::new()),
        (Change::Other, Node::Boolean(truth)) => Node::Boolean(!truth),
        (Change::Other, Node::Integer(number)) => Node::Integer(number + 1),
        (Change::Other, Node::Decimal(digits)) => Node::Decimal(format!("1{digits}").into()),
        (Change::Other, other) => Node::Text(format!("{}x", other.as_text().unwrap_or_default()).into()),
    }
}

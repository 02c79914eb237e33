//! What the texts of references lead to.

use std::collections::HashSet;

use super::{Type, type_named};
use crate::fhir::Node;

/// The type of resource that the text of a reference names: `Patient/1`, `Patient?identifier=…`, `https://…/Patient/1`.
pub(super) fn type_referred(reference: &str) -> Option<&'static Type> {
    let path = reference.split(['?', '#']).next()?;
    let mut words = path.split("/_history/").next()?.rsplit('/');
    let last = words.next()?;
    type_named(words.next().filter(|word| !word.is_empty()).unwrap_or(last)).filter(|found| found.is_resource)
}

/// What is wrong with the references within a resource or bundle that is written as one tree: `urn:uuid:` must be an
/// entry of the bundle, `#id` a contained resource (ref-1). Others lead elsewhere, and are not ours to follow.
pub fn unresolved(root: &Node) -> Option<&'static str> {
    let mut known = HashSet::new();
    let (mut wanted, mut ahead) = (Vec::new(), vec![root]);
    while let Some(node) = ahead.pop() {
        match node {
            Node::Array(nodes) => ahead.extend(nodes),
            Node::Object(object) => {
                for (name, node) in object.iter() {
                    match (name, node) {
                        ("reference", Node::Text(text)) => wanted.push(text.as_str()),
                        ("fullUrl", Node::Text(text)) => drop(known.insert(text.to_string())),
                        ("contained", Node::Array(nodes)) => {
                            let ids = nodes.iter().filter_map(|node| node.get("id")?.as_text());
                            known.extend(ids.map(|id| format!("#{id}")));
                            ahead.extend(nodes);
                        }
                        (_, node) => ahead.push(node),
                    }
                }
            }
            _ => {}
        }
    }
    // `#` alone is the resource that contains.
    wanted.into_iter().filter(|text| *text != "#" && !known.contains(*text)).find_map(|text| match text {
        text if text.starts_with("urn:") => Some("a reference by urn: leads to no entry of the bundle"),
        text if text.starts_with('#') => Some("a reference by # leads to no contained resource"),
        _ => None,
    })
}

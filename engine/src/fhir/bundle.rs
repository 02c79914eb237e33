//! Bundles: resources that travel together, each once, and take effect together.
//!
//! A transaction puts each resource under its deterministic id (`PUT Patient/…`), so a repeat changes nothing.
//! A reference to a resource of the same bundle is written as its `urn:uuid`, any other as `Type/id` or as a
//! search by identifier. Two resources of the same type and id are one entry: what the first has stays, what
//! only the second has is added.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;
use smol_str::SmolStr;
use uuid::{Uuid, fmt::Hyphenated};

use super::{
    json::write_text,
    node::{Alone, Node, Target, Within},
    object::Object,
};

/// The resources that most bundles have room for without growing.
const USUAL: usize = 24;

/// A resource with its identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// `Patient`, `Encounter`, …
    pub resource_type: SmolStr,
    /// The deterministic id: see [`super::id`].
    pub id: Uuid,
    /// Its elements, without `resourceType` and `id`.
    pub elements: Object,
}

/// Resources of one transaction, in the order they were put in.
#[derive(Debug)]
pub struct Bundle {
    resources: Vec<Resource>,
    places: HashMap<Uuid, usize, RandomState>,
}

impl Resource {
    /// What a reference to this resource points to.
    pub fn target(&self) -> Target {
        Target { resource_type: self.resource_type.clone(), id: self.id, identifier: None }
    }

    /// The same resource, its elements held in common by all that have a copy of it.
    #[must_use]
    pub(crate) fn in_common(self) -> Self {
        Self { elements: self.elements.parts_in_common().in_common(), ..self }
    }

    fn write(&self, id: &IdText, out: &mut Vec<u8>, within: &dyn Within) {
        out.extend_from_slice(b"{\"resourceType\":");
        write_text(&self.resource_type, out);
        out.extend_from_slice(b",\"id\":\"");
        out.extend_from_slice(id);
        out.push(b'"');
        self.elements.write_more(out, within);
        out.push(b'}');
    }
}

/// An id as it is written.
type IdText = [u8; Hyphenated::LENGTH];

fn id_text(id: Uuid) -> IdText {
    let mut text = [0; Hyphenated::LENGTH];
    id.hyphenated().encode_lower(&mut text);
    text
}

/// Writes a resource on its own.
pub fn write_resource(resource: &Resource) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    resource.write(&id_text(resource.id), &mut out, &Alone);
    out.into()
}

impl Default for Bundle {
    /// A bundle without resources.
    fn default() -> Self {
        let places = HashMap::with_capacity_and_hasher(USUAL, RandomState::default());
        Self { resources: Vec::with_capacity(USUAL), places }
    }
}

impl Bundle {
    /// Puts a resource in, or adds to the one of the same type and id; returns its place.
    pub fn put(&mut self, resource: Resource) -> usize {
        let place = *self.places.entry(resource.id).or_insert(self.resources.len());
        match self.resources.get_mut(place) {
            None => self.resources.push(resource),
            Some(known) if known.elements.is_one_with(&resource.elements) => {}
            Some(known) => {
                for (name, node) in resource.elements.entries() {
                    if known.elements.at(name).is_none_or(Node::is_empty) {
                        known.elements.put(name, Some(node.clone()));
                    }
                }
            }
        }
        place
    }

    /// The resources in order.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The resources in order, to change their elements.
    pub fn resources_mut(&mut self) -> &mut [Resource] {
        &mut self.resources
    }

    /// Writes the bundle as a transaction.
    pub fn write(&self) -> Bytes {
        let mut out = Vec::with_capacity(1024 * (1 + self.resources.len()));
        out.extend_from_slice(b"{\"resourceType\":\"Bundle\",\"type\":\"transaction\"");
        for (place, resource) in self.resources.iter().enumerate() {
            out.extend_from_slice(if place == 0 { b",\"entry\":[" } else { b"," });
            out.extend_from_slice(b"{\"fullUrl\":\"urn:uuid:");
            let id = id_text(resource.id);
            out.extend_from_slice(&id);
            out.extend_from_slice(b"\",\"resource\":");
            resource.write(&id, &mut out, self);
            out.extend_from_slice(b",\"request\":{\"method\":\"PUT\",\"url\":\"");
            out.extend_from_slice(resource.resource_type.as_bytes());
            out.push(b'/');
            out.extend_from_slice(&id);
            out.extend_from_slice(b"\"}}");
        }
        if !self.resources.is_empty() {
            out.push(b']');
        }
        out.push(b'}');
        out.into()
    }
}

impl Within for Bundle {
    fn holds(&self, target: &Target) -> bool {
        self.places.contains_key(&target.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(resource_type: &str, number: u128, elements: &str) -> Resource {
        let elements = Node::of_json(elements).as_object().unwrap().clone();
        Resource { resource_type: resource_type.into(), id: Uuid::from_u128(number), elements }
    }

    #[test]
    fn resources_are_put_under_their_ids_and_refer_to_each_other() {
        let mut bundle = Bundle::default();
        let patient = resource("Patient", 1, r#"{"active":true}"#);
        let (near, mut away) = (patient.target(), resource("Group", 9, "{}").target());
        away.identifier = Some("s|v".into());
        let mut encounter = resource("Encounter", 2, "{}");
        for (name, target) in [("subject", near), ("x", away)] {
            encounter.elements.put(name, Some(Node::reference(Some(target), None)));
        }
        bundle.put(patient);
        bundle.put(encounter);
        expect_test::expect![[r#"{"resourceType":"Bundle","type":"transaction","entry":[{"fullUrl":"urn:uuid:00000000-0000-0000-0000-000000000001","resource":{"resourceType":"Patient","id":"00000000-0000-0000-0000-000000000001","active":true},"request":{"method":"PUT","url":"Patient/00000000-0000-0000-0000-000000000001"}},{"fullUrl":"urn:uuid:00000000-0000-0000-0000-000000000002","resource":{"resourceType":"Encounter","id":"00000000-0000-0000-0000-000000000002","subject":{"reference":"urn:uuid:00000000-0000-0000-0000-000000000001"},"x":{"reference":"Group?identifier=s|v"}},"request":{"method":"PUT","url":"Encounter/00000000-0000-0000-0000-000000000002"}}]}"#]]
        .assert_eq(std::str::from_utf8(&bundle.write()).unwrap());
    }

    #[test]
    fn the_same_resource_is_one_entry() {
        let mut bundle = Bundle::default();
        let first = bundle.put(resource("Practitioner", 1, r#"{"active":true}"#));
        let again = resource("Practitioner", 1, r#"{"active":false,"gender":"male"}"#);
        assert_eq!(bundle.put(again), first);
        assert_eq!(bundle.resources().len(), 1);
        let whole = resource("Practitioner", 1, r#"{"active":true,"gender":"male"}"#);
        assert_eq!(bundle.resources()[first].elements, whole.elements);
    }

    #[test]
    fn an_empty_bundle_has_no_entry() {
        assert_eq!(&*Bundle::default().write(), br#"{"resourceType":"Bundle","type":"transaction"}"#);
    }
}

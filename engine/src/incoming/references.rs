//! Which resource of a FHIR message a reference means.
//!
//! Promise:  what cannot be told is nothing: of two resources under one name neither is meant.
//! Decided:  - `#p` is within the resource that says it; every resource has its own.
//!           - A relative reference is read by the `fullUrl` of the entry that says it, where that ends in type and id; else,
//!             or where no entry has that address, it is whichever single resource of the Bundle has the type and id.
//!           - A version behind the reference (`/_history/2`) is not compared.
//! Source:   FHIR R4 Bundle, "Resolving references in Bundles"; bdl-7 (a fullUrl stands once).

use std::collections::{HashMap, hash_map::Entry};

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::path;
use crate::fhir::Node;

/// Where a resource stands in a message: in which entry of the Bundle, and, if it is contained in another, as which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The entry of the Bundle, from 0.
    pub entry: usize,
    /// Which of `contained`, from 0.
    pub contained: Option<usize>,
}

/// The resources of a Bundle by their names; none where two have the same.
#[derive(Default)]
pub(super) struct References {
    /// By fullUrl, and the other way round.
    urls: HashMap<SmolStr, Option<usize>, RandomState>,
    url_of: HashMap<usize, SmolStr, RandomState>,
    /// By type and id: `Patient/1`.
    ids: HashMap<SmolStr, Option<usize>, RandomState>,
}

impl References {
    /// Those of a resource or Bundle.
    pub fn of(root: &Node) -> Self {
        let mut found = Self::default();
        for (place, entry) in entries(root).enumerate() {
            let url = text_at(entry, "fullUrl");
            let part = |name| entry.get("resource").and_then(|resource| text_at(resource, name));
            let named = part("resourceType").zip(part("id")).map(|(kind, id)| format!("{kind}/{id}"));
            for name in [url.and_then(last_steps), named.as_deref()].into_iter().flatten() {
                note(&mut found.ids, name, place);
            }
            if let Some(url) = url {
                note(&mut found.urls, url, place);
                found.url_of.insert(place, url.into());
            }
        }
        found
    }

    /// The entry that a literal reference means which the entry `from` says.
    pub fn entry(&self, from: usize, literal: &str) -> Option<usize> {
        let plain = literal.split_once("/_history/").map_or(literal, |(plain, _)| plain);
        if let Some(found) = self.urls.get(plain) {
            return *found;
        }
        let base = self.url_of.get(&from).and_then(|url| Some((url, last_steps(url)?)));
        if let Some((url, own)) = base
            && let Some(found) = self.urls.get(format!("{}{plain}", url.strip_suffix(own)?).as_str())
        {
            return *found;
        }
        self.ids.get(plain).copied().flatten()
    }
}

/// What stands at a place.
pub(super) fn at(root: &Node, place: Place) -> Option<&Node> {
    let resource = match text_at(root, "resourceType") {
        Some("Bundle") => entries(root).nth(place.entry)?.get("resource")?,
        _ => root,
    };
    match place.contained {
        Some(number) => path::items(resource.get("contained")?).nth(number),
        None => Some(resource),
    }
}

/// What `#id` means in the resource that stands there, or in the one that contains it; `#` alone is that one itself.
pub(super) fn contained(root: &Node, place: Place, id: &str) -> Option<Place> {
    let outer = Place { contained: None, ..place };
    if id.is_empty() {
        return Some(outer);
    }
    let named: Vec<usize> = path::items(at(root, outer)?.get("contained")?)
        .enumerate()
        .filter(|(_, one)| text_at(one, "id") == Some(id))
        .map(|(number, _)| number)
        .collect();
    match named.as_slice() {
        [one] => Some(Place { contained: Some(*one), ..place }),
        _ => None,
    }
}

/// The entries of a Bundle, empty ones too: they are counted.
pub(super) fn entries(root: &Node) -> std::slice::Iter<'_, Node> {
    match root.get("entry") {
        Some(Node::Array(entries)) => entries.iter(),
        Some(entry) => std::slice::from_ref(entry).iter(),
        None => [].iter(),
    }
}

/// Type and id at the end of an address: `Patient/1` of `https://a/fhir/Patient/1`.
fn last_steps(url: &str) -> Option<&str> {
    let mut slashes = url.rmatch_indices('/').map(|(at, _)| at);
    let (_, kind) = (slashes.next()?, slashes.next()?);
    let found = url.get(kind + 1..)?;
    let is_type = found.split('/').next().and_then(crate::fhir::elements::type_named);
    is_type.filter(|kind| kind.is_resource).map(|_| found)
}

fn note(names: &mut HashMap<SmolStr, Option<usize>, RandomState>, name: &str, place: usize) {
    match names.entry(name.into()) {
        Entry::Vacant(free) => drop(free.insert(Some(place))),
        Entry::Occupied(mut known) if *known.get() != Some(place) => *known.get_mut() = None,
        Entry::Occupied(_) => {}
    }
}

fn text_at<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    node.get(name).and_then(Node::as_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incoming::json::parse;

    fn patient(url: &str, id: &str) -> String {
        let url = if url.is_empty() { String::new() } else { format!(r#""fullUrl":"{url}","#) };
        format!(r#"{{{url}"resource":{{"resourceType":"Patient","id":"{id}"}}}}"#)
    }

    fn check(entries: &[String], from: usize, literal: &str, expected: Option<usize>) {
        let root = parse(&format!(r#"{{"resourceType":"Bundle","entry":[{}]}}"#, entries.join(","))).unwrap();
        assert_eq!(
            References::of(&root).entry(from, literal),
            expected,
            "{literal} of {from} in {entries:?}"
        );
    }

    #[test]
    fn a_relative_reference_is_read_by_the_address_of_who_says_it() {
        let two = [
            patient("https://a/fhir/Patient/1", "1"),
            patient("https://b/fhir/Patient/1", "1"),
            patient("https://b/fhir/Patient/2", "2"),
            patient("urn:uuid:3", "3"),
        ];
        check(&two, 0, "Patient/1", Some(0));
        check(&two, 2, "Patient/1", Some(1));
        check(&two, 2, "Patient/1/_history/4", Some(1));
        check(&two, 3, "Patient/1", None);
        check(&two, 0, "Patient/2", Some(2));
        check(&two, 0, "https://b/fhir/Patient/1", Some(1));
        check(&two, 0, "https://c/fhir/Patient/1", None);
        check(&two, 0, "urn:uuid:3", Some(3));
        check(&two, 0, "Patient/9", None);
    }

    #[test]
    fn of_two_under_one_name_neither_is_meant() {
        check(&[patient("urn:uuid:1", "1"), patient("urn:uuid:1", "2")], 0, "urn:uuid:1", None);
        check(&[patient("", "1"), patient("", "1")], 0, "Patient/1", None);
        check(&[patient("", "1"), patient("", "2")], 0, "Patient/2", Some(1));
    }

    #[test]
    fn what_is_contained_belongs_to_the_resource_that_contains_it() {
        let root = parse(
            r##"{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Observation","contained":[{"id":"p"},{"id":"q"},{"id":"q"}]}},
                {"resource":{"resourceType":"Observation","contained":[{"id":"x"},{"id":"p"}]}}]}"##,
        )
        .unwrap();
        let inner = |entry, number| Place { entry, contained: number };
        assert_eq!(contained(&root, inner(0, None), "p"), Some(inner(0, Some(0))));
        assert_eq!(contained(&root, inner(1, Some(0)), "p"), Some(inner(1, Some(1))));
        assert_eq!(contained(&root, inner(1, Some(0)), ""), Some(inner(1, None)));
        assert_eq!(
            (contained(&root, inner(0, None), "q"), contained(&root, inner(0, None), "y")),
            (None, None)
        );
    }
}

//! Data types that are resources of their own: XCN a Practitioner, XON and HD an Organization, PL a chain of Locations.
//!
//! Sources: the v2-to-FHIR maps XCN[Practitioner], XON[Organization], HD[Organization], PL[Location]; UK Core; ITK PV1-3.
//! Promise:  each is kept under its own number, so it is one resource wherever it is named; what has no number is a
//!           name only.
//! Decided:  what only fills the field (`0`, `-`, what `no-numbers` lists) is no number; one doctor whom a field repeats
//!           under numbers of several kinds is one Practitioner; two numbers of one kind are two people, whatever their
//!           names. Building, floor, point of care, room and bed (PL.7, 8, 1, 2, 3) are part of each other and of the
//!           facility (PL.4); by ITK, PL.2 is the ward.

use std::sync::LazyLock;

use smol_str::SmolStr;

use super::{
    Cx, identifier, name,
    text::{self, trimmed},
};
use crate::{
    fhir::{Node, Object, Resource, id, name::name},
    hl7::{
        Part,
        identifier::{is_no_person, spelled},
    },
};

/// A type of resource, and its `meta` with its profile in UK Core.
type Kind = (&'static str, LazyLock<Node>);
static PRACTITIONER: Kind = ("Practitioner", LazyLock::new(|| meta("Practitioner")));
static ORGANIZATION: Kind = ("Organization", LazyLock::new(|| meta("Organization")));
static LOCATION: Kind = ("Location", LazyLock::new(|| meta("Location")));

fn meta(resource_type: &str) -> Node {
    let profile = format!("https://fhir.hl7.org.uk/StructureDefinition/UKCore-{resource_type}");
    Node::object([(name!("profile"), Some(vec![profile.into()].into()))]).in_common()
}

/// What kind of place a Location is: its `physicalType`.
type Level = LazyLock<Node>;
static SITE: Level = LazyLock::new(|| level("si", "Site"));
static BUILDING: Level = LazyLock::new(|| level("bu", "Building"));
static FLOOR: Level = LazyLock::new(|| level("lvl", "Level"));
static AREA: Level = LazyLock::new(|| level("area", "Area"));
static WARD: Level = LazyLock::new(|| level("wa", "Ward"));
static ROOM: Level = LazyLock::new(|| level("ro", "Room"));
static BED: Level = LazyLock::new(|| level("bd", "Bed"));

fn level(code: &'static str, display: &'static str) -> Node {
    let system = "http://terminology.hl7.org/CodeSystem/location-physical-type";
    Node::concept(Node::coding(Some(system.into()), code, Some(display.into()))).in_common()
}

/// What a part names: resources, of which the last is meant, and how to call it. Without resources a name only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Named {
    /// The resources, each part of the one before.
    pub resources: Vec<Resource>,
    /// The name for `Reference.display`.
    pub display: Option<SmolStr>,
}

/// The data types that name resources, and of which type these are.
pub const NAMED: &[(&str, &str)] =
    &[("XCN", "Practitioner"), ("XON", "Organization"), ("HD", "Organization"), ("PL", "Location")];

/// What the parts of one field name, by the data type `XCN`, `XON`, `HD` or `PL`; nothing for another one.
pub fn named(data_type: &str, parts: &[Part<'_>], cx: &Cx<'_>) -> Option<Vec<Named>> {
    let each = |make: fn(Part<'_>, &Cx<'_>) -> Option<Named>| {
        Some(parts.iter().filter_map(|part| make(*part, cx)).collect())
    };
    match data_type {
        "XCN" => Some(practitioners(parts, cx)),
        "XON" => each(organization),
        "HD" => each(facility),
        "PL" => each(location),
        _ => None,
    }
}

fn practitioners(parts: &[Part<'_>], cx: &Cx<'_>) -> Vec<Named> {
    let mut found: Vec<Named> = Vec::new();
    for part in parts {
        let pieces = name::Pieces::of(*part);
        let display = name::xcn_line_of(&pieces);
        let number = identifier::xcn_of(&pieces, cx).filter(|number| !is_nobodys(number, cx));
        let same = found.iter_mut().find(|one| one.display.is_some() && one.display == display);
        let Some(number) = number else {
            if same.is_none() && display.is_some() {
                found.push(Named { resources: Vec::new(), display });
            }
            continue;
        };
        let kind = number.at(name!("system"));
        match same.and_then(numbers) {
            Some(known) if known.iter().all(|one| one.at(name!("system")) != kind) => known.push(number),
            _ => {
                let human = name::xcn_of(&pieces, cx).map(|name| vec![name].into());
                if let Some(mut doctor) = resource(&PRACTITIONER, vec![number]) {
                    doctor.elements.push(name!("name"), human);
                    found.push(Named { resources: vec![doctor], display });
                }
            }
        }
    }
    found
}

/// Whether a number is what senders write where they know none.
fn is_nobodys(number: &Node, cx: &Cx<'_>) -> bool {
    let value = number.at(name!("value")).and_then(Node::as_text).unwrap_or_default();
    is_no_person(&spelled(value)) || cx.tables.has_no_number(value)
}

/// The numbers of a person known so far.
fn numbers(known: &mut Named) -> Option<&mut Vec<Node>> {
    match known.resources.last_mut()?.elements.at_mut(name!("identifier"))? {
        Node::Array(numbers) => Some(numbers),
        _ => None,
    }
}

fn organization(part: Part<'_>, cx: &Cx<'_>) -> Option<Named> {
    let title = text::plain(part, cx);
    let display = title.clone().and_then(into_text);
    let Some(mut found) = identifier::xon(part, cx).and_then(|number| resource(&ORGANIZATION, vec![number]))
    else {
        return display.map(|display| Named { resources: Vec::new(), display: Some(display) });
    };
    found.elements.push(name!("name"), title);
    Some(Named { resources: vec![found], display })
}

fn facility(part: Part<'_>, cx: &Cx<'_>) -> Option<Named> {
    let found = resource(&ORGANIZATION, identifier::of_hd(part, cx))?;
    Some(Named { resources: vec![found], display: None })
}

fn location(part: Part<'_>, cx: &Cx<'_>) -> Option<Named> {
    let pieces: [_; 9] = part.first();
    let [care, room, bed, site, _, _, building, floor, described] = pieces.map(trimmed);
    let itk = cx.message.header(21).text().is_some_and(|profile| profile.to_lowercase().starts_with("itk"));
    let (first, second) = if itk { (&AREA, &WARD) } else { (&WARD, &ROOM) };
    let levels = [(&BUILDING, building), (&FLOOR, floor), (first, care), (second, room), (&BED, bed)];
    let mut path = String::from(site.clone().unwrap_or_else(|| cx.facility()));
    let mut chain = Vec::with_capacity(4);
    if let Some(site) = site {
        chain.push(place(site_system(&site), &site, &site, &SITE, None)?);
    }
    for (kind, label) in levels {
        let Some(label) = label else { continue };
        path.push('/');
        path.push_str(&label);
        let above = chain.last().map(|above| (above, place_name(above)));
        let found = place("urn:tie:location", &path, &label, kind, above)?;
        chain.push(found);
    }
    let display = described.map(SmolStr::from).or_else(|| chain.last().and_then(place_name));
    (!chain.is_empty()).then_some(Named { resources: chain, display })
}

fn site_system(site: &str) -> &'static str {
    let form = site.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    match site.len() {
        3 if form => identifier::ODS_ORGANIZATION,
        4..=9 if form => "https://fhir.nhs.uk/Id/ods-site-code",
        _ => "urn:tie:location",
    }
}

fn place(
    system: &'static str,
    value: &str,
    label: &str,
    kind: &'static Level,
    above: Option<(&Resource, Option<SmolStr>)>,
) -> Option<Resource> {
    let mut found = resource(&LOCATION, vec![Node::identifier(Some(system.into()), value)])?;
    found.elements.push(name!("name"), Some(Node::text(label)));
    found.elements.push(name!("mode"), Some("instance".into()));
    found.elements.push(name!("physicalType"), Some(Node::clone(kind)));
    let above = above.map(|(above, display)| Node::reference(Some(above.target()), display.map(Node::Text)));
    found.elements.push(name!("partOf"), above);
    Some(found)
}

fn place_name(place: &Resource) -> Option<SmolStr> {
    place.elements.at(name!("name")).cloned().and_then(into_text)
}

fn into_text(node: Node) -> Option<SmolStr> {
    if let Node::Text(text) = node { Some(text) } else { None }
}

/// A resource with its profile and identifiers, under the first; nothing when that has no system.
fn resource((resource_type, meta): &'static Kind, numbers: Vec<Node>) -> Option<Resource> {
    let number = numbers.first()?;
    let (system, value) = (number.at(name!("system"))?.as_text()?, number.at(name!("value"))?.as_text()?);
    let id = id(resource_type, system, value);
    let mut elements = Object::with_capacity(6);
    elements.push(name!("meta"), Some(Node::clone(meta)));
    elements.push(name!("identifier"), Some(numbers.into()));
    Some(Resource { resource_type: SmolStr::new_static(resource_type), id, elements })
}

#[cfg(test)]
mod tests {
    use super::{super::converter_tests::name_all, *};

    /// Its first identifier.
    fn key(found: &Resource) -> String {
        let Some(Node::Array(numbers)) = found.elements.get("identifier") else { return String::new() };
        let part = |name| numbers[0].get(name).and_then(Node::as_text).unwrap_or_default();
        format!("{}|{}", part("system"), part("value"))
    }

    #[test]
    fn one_doctor_under_several_kinds_of_number_is_one() {
        let found = name_all(
            "XCN",
            "17^SEACOLE^MARY^^^^^^EPICID~C9999993^SEACOLE^MARY^^^^^^GMC~C9999994^SEACOLE^MARY^^^^^^GMC",
        );
        assert_eq!(found.len(), 2);
        assert_eq!(key(&found[0].resources[0]), "urn:tie:authority:RXX:EPICID|17");
        assert_eq!(key(&found[1].resources[0]), "https://fhir.hl7.org.uk/Id/gmc-number|C9999994");
        assert_eq!(found[0].display.as_deref(), Some("MARY SEACOLE"));
    }

    #[test]
    fn a_facility_is_known_in_all_the_world_too() {
        let found = name_all("HD", "St. Elsewhere^00000000-0000-0000-0000-00000000000A^UUID");
        assert_eq!(key(&found[0].resources[0]), "urn:tie:facility|St. Elsewhere");
        let global =
            r#"{"system":"urn:ietf:rfc:3986","value":"urn:uuid:00000000-0000-0000-0000-00000000000a"}"#;
        let Some(Node::Array(numbers)) = found[0].resources[0].elements.get("identifier") else {
            panic!("a list")
        };
        assert_eq!(numbers.get(1), Some(&Node::of_json(global)));
    }

    #[test]
    fn a_name_without_a_number_is_a_name_only() {
        let found = name_all("XCN", "^NOBODY^KNOWN~^NOBODY^KNOWN~^^");
        assert_eq!(found.len(), 1);
        assert!(found[0].resources.is_empty());
        assert!(name_all("XON", "NORTON SURGERY")[0].resources.is_empty());
    }

    #[test]
    fn two_people_without_a_number_are_not_one() {
        let found = name_all("XCN", "0^JONES^BETTY~0^BROWN^CARL~-^^~UNKNOWN^X~99999^DOC~7^LEE");
        let known: Vec<_> = found.iter().map(|one| one.resources.len()).collect();
        assert_eq!(known, [0, 0, 0, 0, 1], "{found:?}");
    }

    #[test]
    fn the_bed_is_part_of_the_ward_and_the_ward_of_the_site() {
        let found = name_all("PL", "MAU^WARD7^BED04^RXX01^^^^^By the window");
        let keys: Vec<_> = found[0].resources.iter().map(key).collect();
        assert_eq!(
            keys,
            [
                "https://fhir.nhs.uk/Id/ods-site-code|RXX01",
                "urn:tie:location|RXX01/MAU",
                "urn:tie:location|RXX01/MAU/WARD7",
                "urn:tie:location|RXX01/MAU/WARD7/BED04"
            ]
        );
        assert_eq!(found[0].display.as_deref(), Some("By the window"));
        assert!(name_all("PL", "^^^").is_empty());
    }
}

//! Who and where: names, people, organisations, places, addresses and telephones.

use super::{Wire, authority::Authority, by, one, text, times::moment};
use crate::{
    fhir::Node,
    incoming::{all, first},
    mapping::{current::Current, reading},
};

/// Table 0200. UK feeds have the usual name as L.
const NAME_USES: [(&str, &str); 7] = [
    ("usual", "L"),
    ("official", "R"),
    ("nickname", "N"),
    ("maiden", "M"),
    ("old", "BAD"),
    ("temp", "TEMP"),
    ("anonymous", "MSK"),
];

pub(super) fn xpn(name: &Node, current: &Current) -> Option<Wire> {
    let (given, middle) = given(name);
    let whole = text(name, "text");
    let family = text(name, "family");
    let family = if family.is_empty() && given.is_empty() { whole } else { family };
    Wire::at(vec![
        (1, one(family)),
        (2, one(given)),
        (3, one(middle)),
        (4, one(joined(name, "suffix"))),
        (5, one(joined(name, "prefix"))),
        (7, one(by(&NAME_USES, &text(name, "use")))),
        (12, one(moment(&text(name, "period.start"), current))),
        (13, one(moment(&text(name, "period.end"), current))),
    ])
}

/// The first name, and all others.
fn given(name: &Node) -> (String, String) {
    let names: Vec<String> = all(name, "given")
        .unwrap_or_default()
        .into_iter()
        .map(|node| reading::text(node).to_string())
        .collect();
    let (first, rest) =
        names.split_first().map_or((String::new(), &[][..]), |(first, rest)| (first.clone(), rest));
    (first, rest.join(" "))
}

fn joined(node: &Node, path: &str) -> String {
    let found = all(node, path).unwrap_or_default();
    found.into_iter().map(|node| reading::text(node).to_string()).collect::<Vec<_>>().join(" ")
}

/// Of a Practitioner, a PractitionerRole, or a Reference to one of them.
pub(super) fn xcn(node: &Node, current: &Current) -> Option<Wire> {
    let (person, display) = referred(node, current);
    let person = match person.and_then(|person| person.get("practitioner")) {
        Some(practitioner) => referred(practitioner, current).0.or(person),
        None => person,
    };
    let identifier = match person {
        Some(person) => first(person, "identifier").ok().flatten(),
        None => node.get("identifier"),
    };
    let name = person.and_then(|person| first(person, "name").ok().flatten());
    let (first_name, middle) = name.map(given).unwrap_or_default();
    let family = name.map(|name| text(name, "family")).filter(|family| !family.is_empty()).unwrap_or(display);
    let authority = identifier.map(|identifier| Authority::of(identifier, current)).unwrap_or_default();
    Wire::at(vec![
        (1, one(identifier.map(|identifier| text(identifier, "value")).unwrap_or_default())),
        (2, one(family)),
        (3, one(first_name)),
        (4, one(middle)),
        (5, one(name.map(|name| joined(name, "suffix")).unwrap_or_default())),
        (6, one(name.map(|name| joined(name, "prefix")).unwrap_or_default())),
        (9, authority.pieces()),
    ])
}

/// Of an organisation: its identifier, else its name.
pub(super) fn hd(node: &Node, current: &Current) -> Option<Wire> {
    let (found, display) = referred(node, current);
    let own = found.unwrap_or(node);
    let names = ["identifier.value", "value", "name"].map(|path| text(own, path));
    Wire::one(names.into_iter().find(|name| !name.is_empty()).unwrap_or(display))
}

/// Of an organisation: name, number and who gave it.
pub(super) fn xon(node: &Node, current: &Current) -> Option<Wire> {
    let (found, display) = referred(node, current);
    let own = found.unwrap_or(node);
    let identifier = first(own, "identifier").ok().flatten();
    let name = text(own, "name");
    let authority = identifier.map(|identifier| Authority::of(identifier, current)).unwrap_or_default();
    Wire::at(vec![
        (1, one(if name.is_empty() { display } else { name })),
        (3, one(identifier.map(|identifier| text(identifier, "value")).unwrap_or_default())),
        (6, authority.pieces()),
    ])
}

/// Of a Location: its identifier as the point of care, its name as the description.
pub(super) fn pl(node: &Node, current: &Current) -> Option<Wire> {
    let (found, display) = referred(node, current);
    let own = found.unwrap_or(node);
    let name = text(own, "name");
    let name = if name.is_empty() { display } else { name };
    let number = text(own, "identifier.value");
    let pieces =
        if number.is_empty() { vec![(1, one(name))] } else { vec![(1, one(number)), (9, one(name))] };
    Wire::at(pieces)
}

/// The resource that a reference points to in this message, or the resource itself; and how it is called.
fn referred<'n>(node: &'n Node, current: &'n Current) -> (Option<&'n Node>, String) {
    if node.get("resourceType").is_some() {
        return (Some(node), String::new());
    }
    let literal = text(node, "reference");
    let found = current.fhir.as_deref().and_then(|message| message.resolve(&literal));
    (found, text(node, "display"))
}

const ADDRESS_USES: [(&str, &str); 5] =
    [("home", "H"), ("work", "B"), ("temp", "C"), ("old", "BA"), ("billing", "BI")];

pub(super) fn xad(address: &Node, current: &Current) -> Option<Wire> {
    let lines: Vec<String> = all(address, "line")
        .unwrap_or_default()
        .into_iter()
        .map(|node| reading::text(node).to_string())
        .collect();
    let (street, other) =
        lines.split_first().map_or((String::new(), &[][..]), |(first, rest)| (first.clone(), rest));
    let street =
        if lines.is_empty() && text(address, "city").is_empty() { text(address, "text") } else { street };
    let used = by(&ADDRESS_USES, &text(address, "use"));
    let kind = if used.is_empty() && text(address, "type") == "postal" { "M" } else { used };
    Wire::at(vec![
        (1, one(street)),
        (2, one(other.join(", "))),
        (3, one(text(address, "city"))),
        (4, one(text(address, "state"))),
        (5, one(text(address, "postalCode"))),
        (6, one(text(address, "country"))),
        (7, one(kind)),
        (9, one(text(address, "district"))),
        (13, one(moment(&text(address, "period.start"), current))),
        (14, one(moment(&text(address, "period.end"), current))),
    ])
}

pub(super) fn xtn(contact: &Node, _: &Current) -> Option<Wire> {
    let (system, value) = (text(contact, "system"), text(contact, "value"));
    let used = text(contact, "use");
    if system == "email" {
        return Wire::at(vec![(2, one("NET")), (3, one("Internet")), (4, one(value))])
            .filter(|_| contact.get("value").is_some());
    }
    let code = match (used.as_str(), system.as_str()) {
        ("work", _) => "WPN",
        ("temp", _) => "VHN",
        ("home" | "mobile", _) => "PRN",
        _ => "",
    };
    let equipment = match (used.as_str(), system.as_str()) {
        ("mobile", _) => "CP",
        (_, "fax") => "FX",
        (_, "pager") => "BP",
        (_, "url") => "URL",
        (_, "phone" | "sms") => "PH",
        _ => "",
    };
    Wire::at(vec![(1, one(&*value)), (2, one(code)), (3, one(equipment))]).filter(|_| !value.is_empty())
}

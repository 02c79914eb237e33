//! Identifiers, and what is known by them: CX, EI, HD, XON, PL of FHIR.

use super::{Source, Wire, moment, one, referred, text};
use crate::{
    fhir::{
        Node,
        types::{Finding, NHS_NUMBER},
    },
    hl7::identifier::nhs_number,
    incoming::{first, items},
};

/// Who assigned an identifier: namespace, universal id and its type; and the type of the identifier that goes with it.
#[derive(Default)]
pub(super) struct Authority {
    name: String,
    universal: String,
    scheme: &'static str,
    kind: String,
}

impl Authority {
    pub(super) fn of(identifier: &Node, from: &Source<'_>) -> Self {
        let system = text(identifier, "system");
        let kind = text(identifier, "type.coding.code");
        if system == NHS_NUMBER {
            return Self { name: "NHS".to_owned(), kind: "NH".to_owned(), ..Self::default() };
        }
        let row = from.tables.get("assigning-authorities").and_then(|table| {
            table.rows().find(|(from, row)| {
                !from.starts_with(['@', '*']) && row.system().is_some_and(|own| *own == system)
            })
        });
        if let Some((from, _)) = row {
            let (name, listed) = from.split_once('/').unwrap_or((from, ""));
            let kind = if kind.is_empty() { listed.to_owned() } else { kind };
            return Self { name: name.to_owned(), kind, ..Self::default() };
        }
        let named = text(identifier, "assigner.identifier.value");
        let name = if let Some(own) = own_name(&system) { own } else { named };
        let (universal, scheme) = match (system.strip_prefix("urn:oid:"), system.strip_prefix("urn:uuid:")) {
            (Some(oid), _) => (oid.to_owned(), "ISO"),
            (_, Some(uuid)) => (uuid.to_owned(), "UUID"),
            _ if system.is_empty() || system.starts_with("urn:tie:") => (String::new(), ""),
            _ => (system, "URI"),
        };
        Self { name, universal, scheme, kind }
    }

    pub(super) fn pieces(&self) -> Vec<String> {
        vec![self.name.clone(), self.universal.clone(), self.scheme.to_owned()]
    }
}

/// The name that a system of ours was made of: `urn:tie:<kind>:<facility>[:<name>]`.
pub(super) fn own_name(system: &str) -> Option<String> {
    let mut pieces = system.strip_prefix("urn:tie:")?.split(':').skip(1);
    let (facility, name) = (pieces.next()?, pieces.next());
    Some(decoded(name.unwrap_or(facility)))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let pair: Vec<u8> = if byte == b'%' { rest.clone().take(2).collect() } else { Vec::new() };
        match std::str::from_utf8(&pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest.nth(1);
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn cx(identifier: &Node, from: &Source<'_>) -> Option<Wire> {
    let mut value = text(identifier, "value");
    if text(identifier, "system") == NHS_NUMBER {
        let Some(digits) = nhs_number(&value) else {
            from.findings
                .borrow_mut()
                .push(Finding::Doubtful("an NHS number fails its check: it is left out"));
            return None;
        };
        value = digits;
    }
    let authority = Authority::of(identifier, from);
    Wire::at(vec![
        (1, one(&*value)),
        (4, authority.pieces()),
        (5, one(&*authority.kind)),
        (7, one(moment(&text(identifier, "period.start"), from).chars().take(8).collect::<String>())),
        (8, one(moment(&text(identifier, "period.end"), from).chars().take(8).collect::<String>())),
    ])
    .filter(|_| !value.is_empty())
}

/// Of an Identifier, or of a Reference by identifier.
pub(super) fn ei(node: &Node, from: &Source<'_>) -> Option<Wire> {
    let identifier = node.get("identifier").filter(|_| node.get("value").is_none()).unwrap_or(node);
    let identifier = items(identifier).next().unwrap_or(identifier);
    let value = text(identifier, "value");
    let authority = Authority::of(identifier, from);
    let Authority { name, universal, scheme, .. } = authority;
    Wire::of([value.clone(), name, universal, scheme.to_owned()]).filter(|_| !value.is_empty())
}

/// Of an organisation: its identifier, else its name.
pub(super) fn hd<'n>(node: &'n Node, from: &Source<'n>) -> Option<Wire> {
    let (found, display) = referred(node, from);
    let own = found.map_or(node, |(_, found)| found);
    let names = ["identifier.value", "value", "name"].map(|path| text(own, path));
    Wire::one(names.into_iter().find(|name| !name.is_empty()).unwrap_or(display))
}

/// Of an organisation: name, number and who gave it.
pub(super) fn xon<'n>(node: &'n Node, from: &Source<'n>) -> Option<Wire> {
    let (found, display) = referred(node, from);
    let own = found.map_or(node, |(_, found)| found);
    let identifier = first(own, "identifier").ok().flatten();
    let name = text(own, "name");
    let authority = identifier.map(|identifier| Authority::of(identifier, from)).unwrap_or_default();
    Wire::at(vec![
        (1, one(if name.is_empty() { display } else { name })),
        (3, one(identifier.map(|identifier| text(identifier, "value")).unwrap_or_default())),
        (6, authority.pieces()),
    ])
}

/// Of a Location: its identifier as the point of care, its name as the description.
pub(super) fn pl<'n>(node: &'n Node, from: &Source<'n>) -> Option<Wire> {
    let (found, display) = referred(node, from);
    let own = found.map_or(node, |(_, found)| found);
    let name = text(own, "name");
    let name = if name.is_empty() { display } else { name };
    let number = text(own, "identifier.value");
    let pieces =
        if number.is_empty() { vec![(1, one(name))] } else { vec![(1, one(number)), (9, one(name))] };
    Wire::at(pieces)
}

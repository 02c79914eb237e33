//! Numbers and who assigned them.

use super::{Wire, one, text, times::moment};
use crate::{
    fhir::{Node, types::NHS_NUMBER},
    mapping::current::Current,
};

pub(super) fn cx(identifier: &Node, current: &Current) -> Option<Wire> {
    let value = text(identifier, "value");
    let authority = Authority::of(identifier, current);
    Wire::at(vec![
        (1, one(&*value)),
        (4, authority.pieces()),
        (5, one(&*authority.kind)),
        (7, one(moment(&text(identifier, "period.start"), current).chars().take(8).collect::<String>())),
        (8, one(moment(&text(identifier, "period.end"), current).chars().take(8).collect::<String>())),
    ])
    .filter(|_| !value.is_empty())
}

/// Of an Identifier, or of a Reference by identifier.
pub(super) fn ei(node: &Node, current: &Current) -> Option<Wire> {
    let identifier = node.get("identifier").filter(|_| node.get("value").is_none()).unwrap_or(node);
    let identifier = crate::incoming::items(identifier).next().unwrap_or(identifier);
    let value = text(identifier, "value");
    let authority = Authority::of(identifier, current);
    let Authority { name, universal, scheme, .. } = authority;
    Wire::of([value.clone(), name, universal, scheme.to_owned()]).filter(|_| !value.is_empty())
}

/// Who assigned an identifier: namespace, universal id and its type; and the type of the identifier that goes with it.
#[derive(Default)]
pub(super) struct Authority {
    pub name: String,
    pub universal: String,
    pub scheme: &'static str,
    pub kind: String,
}

impl Authority {
    pub fn of(identifier: &Node, current: &Current) -> Self {
        let system = text(identifier, "system");
        let kind = text(identifier, "type.coding.code");
        if system == NHS_NUMBER {
            return Self { name: "NHS".to_owned(), kind: "NH".to_owned(), ..Self::default() };
        }
        let row = current.tables.get("assigning-authorities").and_then(|table| {
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

    pub fn pieces(&self) -> Vec<String> {
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

//! Codes: CWE, CE, IS and ID of FHIR.

use super::{Source, Wire, numbers::own_name, one, text, words};
use crate::{fhir::Node, incoming::items, mapping::reading};

/// The name of a coding system in CWE.3.
pub(super) fn system_name(system: &str, from: &Source<'_>) -> String {
    let row = from.tables.get("coding-systems").and_then(|table| {
        table
            .rows()
            .find(|(_, row)| row.system().is_some_and(|own| own == system))
            .map(|(from, _)| from.to_owned())
    });
    let table = || {
        let number = system.strip_prefix("http://terminology.hl7.org/CodeSystem/v2-")?;
        (number.len() == 4).then(|| format!("HL7{number}"))
    };
    let local = || own_name(system).filter(|_| system.starts_with("urn:tie:codes:"));
    row.or_else(table).or_else(local).unwrap_or_else(|| system.to_owned())
}

/// Of a CodeableConcept, a Coding, a Quantity (its unit) or a text.
pub(super) fn cwe(node: &Node, from: &Source<'_>) -> Option<Wire> {
    let mut pieces = triplets(node, from);
    let said = text(node, "text");
    if !said.is_empty() && pieces.get(1) != Some(&said) {
        pieces.resize(9, String::new());
        if let Some(slot) = pieces.get_mut(8) {
            slot.clone_from(&said);
        }
    }
    Wire(pieces.into_iter().map(one).collect()).some()
}

/// The same in six components: the text stands where a display is missing, else as that of the second coding if there is
/// none.
pub(super) fn ce(node: &Node, from: &Source<'_>) -> Option<Wire> {
    let mut pieces = triplets(node, from);
    let said = text(node, "text");
    pieces.resize(6, String::new());
    let stands = pieces.contains(&said);
    let free = |place: usize| pieces.get(place).is_some_and(String::is_empty);
    let place = if free(1) { Some(1) } else { Some(4).filter(|_| free(3) && free(4)) };
    if let Some(slot) = place.filter(|_| !stands).and_then(|place| pieces.get_mut(place)) {
        *slot = said;
    }
    Wire(pieces.into_iter().map(one).collect()).some()
}

/// Two codings as code, text and system each.
fn triplets(node: &Node, from: &Source<'_>) -> Vec<String> {
    if let Some(plain) = Some(reading::text(node)).filter(|text| !text.is_empty()) {
        return vec![String::new(), plain.to_string()];
    }
    let codings = match node.get("coding") {
        Some(codings) => items(codings).collect(),
        None if node.get("code").is_some() => vec![node],
        None => Vec::new(),
    };
    let mut pieces = Vec::new();
    // Six components hold two.
    for coding in codings.into_iter().take(2) {
        let system = text(coding, "system");
        let display = ["display", "unit"].map(|name| text(coding, name)).concat();
        pieces.extend([
            text(coding, "code"),
            display,
            if system.is_empty() { system } else { system_name(&system, from) },
        ]);
    }
    pieces
}

/// One code.
pub(super) fn code(node: &Node, _: &Source<'_>) -> Option<Wire> {
    if let Node::Boolean(truth) = node {
        return Wire::one(if *truth { "Y" } else { "N" });
    }
    let plain = reading::text(node).to_string();
    let own = ["coding.code", "code", "text"].map(|path| text(node, path));
    Wire::one(if plain.is_empty() {
        own.into_iter().find(|one| !one.is_empty()).unwrap_or_default()
    } else {
        plain
    })
}

pub(super) fn plain(node: &Node, _: &Source<'_>) -> Option<Wire> {
    Wire::one(words(node))
}

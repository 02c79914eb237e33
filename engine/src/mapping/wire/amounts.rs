//! Numbers, amounts with their units, and files.

use super::{Wire, codes::system_name, one, text};
use crate::{
    fhir::Node,
    mapping::{current::Current, reading},
};

/// The number alone.
pub(super) fn nm(node: &Node, _: &Current) -> Option<Wire> {
    let own = reading::text(node).to_string();
    Wire::one(if own.is_empty() { text(node, "value") } else { own })
}

/// Of a Quantity with a comparator, a Range or a Ratio.
pub(super) fn sn(node: &Node, _: &Current) -> Option<Wire> {
    let part = |path| text(node, path);
    if node.get("low").is_some() || node.get("high").is_some() {
        let (low, high) = (part("low.value"), part("high.value"));
        return match (low.is_empty(), high.is_empty()) {
            (false, false) => Wire::of([String::new(), low, "-".to_owned(), high]),
            (false, true) => Wire::of([">=".to_owned(), low]),
            (true, _) => Wire::of(["<=".to_owned(), high]),
        };
    }
    if node.get("numerator").is_some() {
        return Wire::of([String::new(), part("numerator.value"), ":".to_owned(), part("denominator.value")]);
    }
    Wire::of([part("comparator"), part("value")])
}

pub(super) fn cq(node: &Node, current: &Current) -> Option<Wire> {
    let unit = units(node, current).map(|wire| wire.0.into_iter().flatten().collect()).unwrap_or_default();
    Wire(vec![one(text(node, "value")), unit]).some()
}

/// The unit of a Quantity: the code of UCUM with the text beside it, or the text alone.
pub(super) fn units(node: &Node, current: &Current) -> Option<Wire> {
    let node = ["low", "numerator"].iter().find_map(|name| node.get(name)).unwrap_or(node);
    let (code, unit, system) = (text(node, "code"), text(node, "unit"), text(node, "system"));
    if code.is_empty() || code == unit && system.is_empty() {
        return Wire::one(if unit.is_empty() { code } else { unit });
    }
    Wire::of([code, unit, if system.is_empty() { system } else { system_name(&system, current) }])
}

/// An Attachment with its data.
pub(super) fn ed(node: &Node, _: &Current) -> Option<Wire> {
    let (kind, data) = (text(node, "contentType"), text(node, "data"));
    let (group, sub) =
        kind.split_once(';').map_or(kind.as_str(), |(kind, _)| kind).split_once('/').unwrap_or(("", ""));
    let group = match group {
        "text" => "TEXT",
        "image" => "IM",
        "audio" => "AU",
        _ => "AP",
    };
    Wire::of([String::new(), group.to_owned(), sub.trim().to_uppercase(), "Base64".to_owned(), data.clone()])
        .filter(|_| !data.is_empty())
}

//! What FHIR says in pieces, as words.

use super::{Source, Wire, number, text};
use crate::{fhir::Node, incoming::all, mapping::reading};

/// The reference ranges of an Observation as text: `3.5-5.1`, or with what each is for, `therapeutic: 3.5-5.1; toxic: >=6`.
pub(super) fn range(observation: &Node, _: &Source<'_>) -> Option<Wire> {
    let ranges = all(observation, "referenceRange").unwrap_or_default().into_iter().map(|range| {
        let (low, high) = (number(range, "low.value"), number(range, "high.value"));
        let said = text(range, "text");
        let said = match (low.is_empty(), high.is_empty()) {
            _ if !said.is_empty() => said,
            // A minus would be taken for the dash.
            (false, false) if high.starts_with('-') => format!("{low} to {high}"),
            (false, false) => format!("{low}-{high}"),
            (false, true) => format!(">={low}"),
            (true, false) => format!("<={high}"),
            (true, true) => return String::new(),
        };
        let of = all(range, "type")
            .unwrap_or_default()
            .into_iter()
            .chain(all(range, "appliesTo").unwrap_or_default());
        let of: Vec<String> = of.map(words).filter(|words| !words.is_empty()).collect();
        if of.is_empty() { said } else { format!("{}: {said}", of.join(", ")) }
    });
    Wire::one(ranges.filter(|range| !range.is_empty()).collect::<Vec<_>>().join("; "))
}

/// What is said in words, of whatever shape: a text, a concept, a Quantity, a Ratio, a Reference.
pub(in crate::mapping) fn words(node: &Node) -> String {
    let own = reading::text(node);
    if !own.is_empty() {
        return own.into();
    }
    if let (Some(above), Some(below)) = (node.get("numerator"), node.get("denominator")) {
        return format!("{} : {}", words(above), words(below));
    }
    if node.get("value").is_some() {
        let unit = ["unit", "code"].map(|name| text(node, name)).into_iter().find(|unit| !unit.is_empty());
        let unit = unit.map(|unit| format!(" {unit}")).unwrap_or_default();
        return format!("{}{}{unit}", text(node, "comparator"), text(node, "value"));
    }
    let paths = ["text", "display", "coding.display", "coding.code", "identifier.value"];
    paths.map(|path| text(node, path)).into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

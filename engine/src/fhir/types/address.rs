//! Addresses: XAD (and AD) as `Address`.
//!
//! Sources: the v2-to-FHIR map XAD[Address]; PDS address types; UK Core.
//! Decided:  `district` is the county in the UK and stands in XAD.9 when it is sent; XAD.4 stays `state`, as the guide
//!           has it. An address of nothing but a type or a country is none.

use super::{Cx, time};
use crate::{
    fhir::{Node, Object},
    hl7::{Part, Value},
};

/// XAD as `Address`.
pub fn xad(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let street = part.component(1);
    let lines: Vec<Node> = [
        street.subcomponent(1),
        street.subcomponent(2),
        street.subcomponent(3),
        part.component(2),
        part.component(19),
    ]
    .into_iter()
    .filter_map(text)
    .collect();
    let places = [part.component(3), part.component(4), part.component(5), part.component(9)].map(text);
    if lines.is_empty() && places.iter().all(Option::is_none) {
        return None;
    }
    let [city, state, postal_code, district] = places;
    let (used_as, kind) = used_as(part.component(7), cx);
    let mut object = Object::with_capacity(9);
    object.put("use", used_as);
    object.put("type", kind);
    object.put("line", Node::Array(lines).some());
    object.put("city", city);
    object.put("district", district);
    object.put("state", state);
    object.put("postalCode", postal_code);
    object.put("country", text(part.component(6)));
    object.put("period", period(part, cx));
    Some(object.into())
}

fn used_as(kind: Value<'_>, cx: &Cx<'_>) -> (Option<Node>, Option<Node>) {
    let Some(kind) = kind.text().filter(|kind| !kind.is_empty()) else { return (None, None) };
    let Some(table) = cx.table.or_else(|| cx.tables.get("address-use")) else { return (None, None) };
    let Some(row) = cx.look_up(table, &kind.to_uppercase()) else { return (None, None) };
    (row.code().cloned().map(Node::Text), table.cell(row, "type").cloned().map(Node::Text))
}

fn period(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    time::period_of(part.component(13), part.component(14), cx).or_else(|| {
        let range = part.component(12);
        time::period_of(range.subcomponent(1), range.subcomponent(2), cx)
    })
}

fn text(value: Value<'_>) -> Option<Node> {
    Node::text(value.text()?.trim()).some()
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn addresses() {
        check(
            "XAD",
            "Address",
            "29 WEST AVENUE^BURYTHORPE^MALTON^NORTH YORKSHIRE^YO17 9ZZ^GBR^H",
            r#"{"use":"home","line":["29 WEST AVENUE","BURYTHORPE"],"city":"MALTON","state":"NORTH YORKSHIRE","postalCode":"YO17 9ZZ","country":"GBR"}"#,
        );
        check(
            "XAD",
            "Address",
            "PO BOX 9^^LEEDS^^LS1 1AA^GBR^PST",
            r#"{"type":"postal","line":["PO BOX 9"],"city":"LEEDS","postalCode":"LS1 1AA","country":"GBR"}"#,
        );
        check(
            "XAD",
            "Address",
            "1 A&B ST&2^^C^^^^XX^^COUNTY",
            r#"{"line":["1 A","B ST","2"],"city":"C","district":"COUNTY"}"#,
        );
        check("XAD", "Address", "^^^^^GBR^H", "");
    }
}

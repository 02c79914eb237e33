//! Addresses: XAD (and AD) as `Address`.
//!
//! Sources: the v2-to-FHIR map XAD[Address]; PDS address types; UK Core.
//! Decided:  `district` is the county in the UK and stands in XAD.9 when it is sent; XAD.4 stays `state`, as the guide
//!           has it. An address of nothing but a type or a country is none.

use super::{
    Cx,
    text::{trimmed, upper},
    time,
};
use crate::{
    fhir::{Node, name::name},
    hl7::{Part, Value},
};

/// XAD as `Address`.
pub fn xad(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let pieces: [Value<'_>; 19] = part.first();
    let [street, other, city, state, postal, country, kind, _, district, _, _, range, from, to, .., more] =
        pieces;
    let parts = [street.subcomponent(1), street.subcomponent(2), street.subcomponent(3), other, more];
    let lines: Vec<Node> = parts.into_iter().filter_map(text).collect();
    let places = [city, state, postal, district].map(text);
    if lines.is_empty() && places.iter().all(Option::is_none) {
        return None;
    }
    let [city, state, postal_code, district] = places;
    let (used_as, kind) = used_as(kind, cx);
    Some(Node::object([
        (name!("use"), used_as),
        (name!("type"), kind),
        (name!("line"), (!lines.is_empty()).then_some(Node::Array(lines))),
        (name!("city"), city),
        (name!("district"), district),
        (name!("state"), state),
        (name!("postalCode"), postal_code),
        (name!("country"), text(country)),
        (name!("period"), time::validity(from, to, range, cx)),
    ]))
}

fn used_as(kind: Value<'_>, cx: &Cx<'_>) -> (Option<Node>, Option<Node>) {
    let Some(kind) = kind.text().filter(|kind| !kind.is_empty()) else { return (None, None) };
    let Some(table) = cx.table.or_else(|| cx.tables.get("address-use")) else { return (None, None) };
    let Some(row) = cx.look_up(table, &upper(&kind)) else { return (None, None) };
    (row.code().cloned().map(Node::Text), table.cell(row, "type").cloned().map(Node::Text))
}

fn text(value: Value<'_>) -> Option<Node> {
    trimmed(value).map(Node::text)
}

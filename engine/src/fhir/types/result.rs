//! What an OBX observed (OBX-5), by the data type that it says (OBX-2), as `value[x]` or components of an Observation.
//!
//! Sources: the v2-to-FHIR map OBX[Observation]; HL7 v2.5.1 chapter 7.4.2.
//! Promise:  what is not of the type that it says it is stays text; nothing is rounded, and no line is lost.
//! Decided:  several values of one OBX are components of it. Numbers get their unit from OBX-6. The lines of a text are
//!           one text. Documents (ED, RP) are not values: the caller makes resources of them.

use std::borrow::Cow;

use super::{
    Cx, code,
    quantity::{self, Unit},
    text, time,
};
use crate::{
    fhir::{
        Node, Object,
        name::{Name, name},
    },
    hl7::{Part, Segment, Value},
};

/// Puts the value of an OBX into an Observation.
pub fn put_value(obx: Segment<'_>, cx: &Cx<'_>, observation: &mut Object) {
    let kind = obx.field(2).text().unwrap_or_default();
    match &*kind {
        "ED" | "RP" => {}
        "ST" | "" | "TX" | "FT" => {
            let text = lines(obx.repetitions(5), if kind == "ST" { Part::text } else { Part::whole });
            observation.put(name!("valueString"), Node::text(text).some());
        }
        kind => put_values(obx, kind, cx, observation),
    }
}

/// One text of many values, each a line; empty ones between others stay.
pub fn lines<'m>(values: impl Iterator<Item = Value<'m>>, read: impl Fn(Part<'m>) -> Cow<'m, str>) -> String {
    let lines: Vec<Cow<'m, str>> = values.map(|value| value.part().map(&read).unwrap_or_default()).collect();
    lines.join("\n").trim().to_owned()
}

fn put_values(obx: Segment<'_>, kind: &str, cx: &Cx<'_>, observation: &mut Object) {
    let parts: Vec<Part<'_>> = obx.repetitions(5).filter_map(Value::part).collect();
    if let [only] = parts.as_slice() {
        if let Some((name, node)) = value(*only, kind, obx, cx) {
            observation.put(name, Some(node));
        }
        return;
    }
    let unsaid = || Node::object([(name!("text"), Some(Node::text("not said in the message")))]);
    let observed = || obx.field(3).part().and_then(|part| code::concept(part, cx)).or_else(|| Some(unsaid()));
    let component = |part: &Part<'_>| {
        let (name, node) = value(*part, kind, obx, cx)?;
        Some(Node::object([(name!("code"), observed()), (name, Some(node))]))
    };
    observation.put(name!("component"), Node::Array(parts.iter().filter_map(component).collect()).some());
}

/// One value, and the shape of `value[x]` that it has.
fn value(part: Part<'_>, kind: &str, obx: Segment<'_>, cx: &Cx<'_>) -> Option<(&'static Name, Node)> {
    let measured = |node| with_unit(node, unit_of(obx, cx));
    let typed = match kind {
        "NM" => quantity::nm(part, cx).map(|node| (name!("valueQuantity"), measured(node))),
        "CQ" => quantity::cq(part, cx).map(|node| (name!("valueQuantity"), node)),
        "SN" => quantity::sn(part, cx)
            .map(|node| (name!("valueQuantity"), measured(node)))
            .or_else(|| quantity::sn_ratio(part, cx).map(|node| (name!("valueRatio"), node)))
            .or_else(|| Some((name!("valueRange"), bounds_with_unit(quantity::sn_range(part, cx)?, obx, cx))))
            .or_else(|| quantity::sn_text(part, cx).map(|node| (name!("valueString"), node))),
        "CE" | "CWE" | "CNE" | "CF" | "IS" => {
            code::concept(part, cx).map(|node| (name!("valueCodeableConcept"), node))
        }
        "DT" | "TS" | "DTM" => time::date_time(part, cx).map(|node| (name!("valueDateTime"), node)),
        "TM" => time::time_of_day(part, cx).map(|node| (name!("valueTime"), node)),
        "DR" => time::period(part, cx).map(|node| (name!("valuePeriod"), node)),
        "NR" => quantity::nr(part, cx).map(|node| (name!("valueRange"), node)),
        _ => None,
    };
    typed.or_else(|| text::whole(part, cx).map(|node| (name!("valueString"), node)))
}

/// OBX-7 as `Observation.referenceRange`, its bounds in the unit of OBX-6.
pub fn reference_range(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let range = quantity::reference_range(part, cx)?;
    match cx.segment.filter(|segment| segment.name() == "OBX") {
        Some(obx) => Some(bounds_with_unit(range, obx, cx)),
        None => Some(range),
    }
}

fn bounds_with_unit(mut range: Node, obx: Segment<'_>, cx: &Cx<'_>) -> Node {
    if let (Node::Object(bounds), Some(unit)) = (&mut range, unit_of(obx, cx)) {
        for name in [name!("low"), name!("high")] {
            if let Some(Node::Object(bound)) = bounds.at_mut(name) {
                unit.put(bound);
            }
        }
    }
    range
}

fn unit_of(obx: Segment<'_>, cx: &Cx<'_>) -> Option<Unit> {
    obx.field(6).part().map(|part| Unit::of(part, cx))
}

fn with_unit(mut quantity: Node, unit: Option<Unit>) -> Node {
    if let (Node::Object(quantity), Some(unit)) = (&mut quantity, unit) {
        unit.put(quantity);
    }
    quantity
}

//! What an OBX observed (OBX-5), by the data type that it says (OBX-2), as `value[x]` or components of an Observation.
//!
//! Sources: the v2-to-FHIR map OBX[Observation]; HL7 v2.5.1 chapter 7.4.2.
//! Promise:  what is not of the type that it says it is stays text; nothing is rounded, and no line is lost.
//! Decided:  several values of one OBX are components of it. Numbers get their unit from OBX-6; a text that is like one has it behind,
//!           for FHIR has no other place and a value without its unit is dangerous. The lines of a text are one text.
//!           Documents (ED, RP) are not values: the caller makes resources of them.

use std::borrow::Cow;

use smol_str::{SmolStr, format_smolstr};

use super::{
    Cx, code,
    quantity::{self, Unit},
    text::{self, trimmed},
    time,
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
            let read = |part| if kind == "ST" { text::stated(part) } else { part.whole() };
            let text = lines(obx.repetitions(5), read);
            observation.put(name!("valueString"), Node::text(text).some().map(|text| in_unit(text, obx, cx)));
        }
        kind => put_values(obx, kind, cx, observation),
    }
}

/// One text of many values, each a line; empty ones between others stay.
pub fn lines<'m>(values: impl Iterator<Item = Value<'m>>, read: impl Fn(Part<'m>) -> Cow<'m, str>) -> String {
    let lines: Vec<Cow<'m, str>> = values.map(|value| value.part().map(&read).unwrap_or_default()).collect();
    let text = lines.join("\n");
    let text = text.trim();
    // A text that was broken into segments has the line ends of segments.
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text.to_owned() }
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
    let measured = |name, node: Option<Node>| Some((name, in_unit(node?, obx, cx)));
    let plain = |name, node: Option<Node>| Some((name, node?));
    let typed = match kind {
        "NM" => measured(name!("valueQuantity"), quantity::nm(part, cx)),
        "CQ" => plain(name!("valueQuantity"), quantity::cq(part, cx)),
        "SN" => measured(name!("valueQuantity"), quantity::sn(part, cx))
            .or_else(|| measured(name!("valueRatio"), quantity::sn_ratio(part, cx)))
            .or_else(|| measured(name!("valueRange"), quantity::sn_range(part, cx)))
            .or_else(|| measured(name!("valueString"), quantity::sn_text(part, cx))),
        "CE" | "CWE" | "CNE" | "CF" | "IS" => plain(name!("valueCodeableConcept"), code::concept(part, cx)),
        "DT" | "TS" | "DTM" => plain(name!("valueDateTime"), time::date_time(part, cx)),
        "TM" => plain(name!("valueTime"), time::time_of_day(part, cx)),
        "DR" => plain(name!("valuePeriod"), time::period(part, cx)),
        "NR" => measured(name!("valueRange"), quantity::nr(part, cx)),
        _ => None,
    };
    typed.or_else(|| measured(name!("valueString"), text::whole(part, cx)))
}

/// OBX-3 as what was observed. Its suffix (`71020&IMP`) says which part of a report it is, by the table `observation-suffix`;
/// analysers that number their tests put the name into OBX-4. Both go into the text.
pub fn observed(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let mut concept = code::concept(part, cx);
    let suffix = trimmed(part.component(1).subcomponent(2));
    let code = trimmed(part.component(1));
    let is_number = code.as_deref().is_some_and(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    if suffix.is_none() && !is_number {
        return concept;
    }
    let said = [9, 2, 5].into_iter().find_map(|number| trimmed(part.component(number)));
    let text = if let Some(suffix) = suffix {
        let row = cx.tables.get("observation-suffix").and_then(|table| table.own(&suffix)?.display());
        let part = row.map_or(&*suffix, SmolStr::as_str);
        said.or(code).map_or_else(|| part.into(), |name| format_smolstr!("{name}, {part}"))
    } else {
        if said.is_some() {
            return concept;
        }
        cx.is_of_one_message.set(true);
        let obx = cx.segment.filter(|segment| segment.name() == "OBX");
        let name = obx.and_then(|obx| trimmed(obx.field(4))).unwrap_or_default();
        if name.chars().take_while(|letter| letter.is_alphabetic()).count() < 2 {
            return concept;
        }
        name.into()
    };
    match concept.as_mut().and_then(Node::as_object_mut) {
        Some(object) => object.put(name!("text"), Some(Node::Text(text))),
        None => concept = Node::object([(name!("text"), Some(Node::Text(text)))]).some(),
    }
    concept
}

/// OBX-7 as `Observation.referenceRange`, its bounds in the unit of OBX-6.
pub fn reference_range(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    cx.is_of_one_message.set(true);
    let range = quantity::reference_range(part, cx)?;
    match cx.segment.filter(|segment| segment.name() == "OBX") {
        Some(obx) => Some(in_unit(range, obx, cx)),
        None => Some(range),
    }
}

/// Whether a text is a number that is written in its own way (`1,000`, `<>3`): of words a unit says nothing.
fn begins_like_a_number(text: &str) -> bool {
    let first = text.trim_start_matches(['<', '>', '=', '~', '+', '-', '.', ' ']).bytes().next();
    first.is_some_and(|byte| byte.is_ascii_digit()) && !text.contains('\n')
}

/// A value with the unit of OBX-6: beside its number, or the numbers that it is made of; behind a text that is like one,
/// which has no other place for it.
fn in_unit(mut value: Node, obx: Segment<'_>, cx: &Cx<'_>) -> Node {
    let Some(unit) = obx.field(6).part().map(|part| Unit::of(part, cx)) else { return value };
    match (&mut value, &unit.name) {
        (Node::Object(quantity), _) if quantity.at(name!("value")).is_some() => unit.put(quantity),
        (Node::Object(object), _) => {
            for name in [name!("low"), name!("high"), name!("numerator"), name!("denominator")] {
                if let Some(part) = object.at_mut(name).and_then(Node::as_object_mut) {
                    unit.put(part);
                }
            }
        }
        (Node::Text(text), Some(name)) if begins_like_a_number(text) && !text.ends_with(name.as_str()) => {
            *text = format_smolstr!("{text} {name}");
        }
        _ => {}
    }
    value
}

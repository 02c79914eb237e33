//! Whose is what, from the message to the resources: however ORC, OBR, OBX, NTE, SPM, TQ1, DG1 and AL1 are shuffled and
//! repeated, every OBX and every NTE stays with the order, result or specimen that it stands under.
//!
//! The expectation is made by a model of its own, which reads the segments one after the other.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// What each OBX (`X3`) and NTE (`N4`) belongs to: orders by their placer number (`P2`), results, specimens (`S5`), or
/// nothing.
type Owners = BTreeMap<String, BTreeSet<String>>;

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Head,
    Order,
    Result(usize),
    Specimen(usize),
    /// An OBX of a specimen, and the notes behind it.
    SpecimenResult(usize, usize),
}

#[derive(Default)]
struct Order {
    orc: Option<usize>,
    obr: Option<usize>,
    made_up: bool,
    has_results: bool,
}

/// The orders of a message, and each OBX and NTE with its place and the order it stands in.
#[derive(Default)]
struct Read {
    orders: Vec<Order>,
    found: Vec<(String, Place, usize)>,
}

impl Read {
    /// Reads the segments as the structure of the message has them.
    fn of(names: &[&str]) -> Self {
        let mut read = Self::default();
        let mut place = Place::Head;
        for (index, name) in names.iter().enumerate() {
            read.begin_order(index, name);
            place = read.place(index, name, place);
            let order = read.orders.len().saturating_sub(1);
            match *name {
                "OBX" => read.found.push((format!("X{index}"), place, order)),
                "NTE" => read.found.push((format!("N{index}"), place, order)),
                _ => {}
            }
        }
        read
    }

    fn begin_order(&mut self, index: usize, name: &str) {
        let last = self.orders.last_mut();
        match (name, last) {
            ("OBX" | "SPM" | "TQ1", None) => self.orders.push(Order { made_up: true, ..Order::default() }),
            ("ORC", _) => self.orders.push(Order { orc: Some(index), ..Order::default() }),
            ("OBR", Some(last)) if !last.made_up && last.obr.is_none() => last.obr = Some(index),
            ("OBR", _) => self.orders.push(Order { obr: Some(index), ..Order::default() }),
            _ => {}
        }
    }

    fn place(&mut self, index: usize, name: &str, before: Place) -> Place {
        match (name, before, self.orders.last_mut()) {
            ("ORC" | "OBR" | "TQ1", _, _) | ("DG1", _, Some(_)) => Place::Order,
            ("AL1", _, _) => Place::Head,
            ("SPM", _, _) => Place::Specimen(index),
            ("OBX", Place::Specimen(specimen) | Place::SpecimenResult(specimen, _), Some(order))
                if order.has_results =>
            {
                Place::SpecimenResult(specimen, index)
            }
            ("OBX", _, Some(order)) => {
                order.has_results = true;
                Place::Result(index)
            }
            _ => before,
        }
    }

    /// The number of an order that has a resource: in results that is one with an OBR.
    fn named(&self, order: usize, results: bool) -> Option<String> {
        let order = self.orders.get(order)?;
        let number = if results { order.obr } else { order.obr.or(order.orc) };
        number.map(|number| format!("P{number}"))
    }
}

fn expected(names: &[&str], results: bool) -> Owners {
    let read = Read::of(names);
    let owner = |what: &str, place: Place, order: usize| match place {
        Place::Head => None,
        Place::Result(result) | Place::SpecimenResult(_, result) if what.starts_with('N') => {
            Some(format!("X{result}"))
        }
        Place::Order | Place::Result(_) => read.named(order, results),
        Place::Specimen(specimen) | Place::SpecimenResult(specimen, _) => {
            read.named(order, results).map(|_| format!("S{specimen}"))
        }
    };
    let found = read.found.iter();
    found
        .map(|(what, place, order)| (what.clone(), owner(what, *place, *order).into_iter().collect()))
        .collect()
}

/// What the resources say.
fn told_by(bundle: &Value) -> Owners {
    let entries = bundle["entry"].as_array().unwrap();
    let names: BTreeMap<&str, String> = entries
        .iter()
        .map(|entry| (entry["fullUrl"].as_str().unwrap(), name_of(&entry["resource"])))
        .collect();
    let mut owners = Owners::new();
    for resource in entries.iter().map(|entry| &entry["resource"]) {
        // The filler's view of the order has no results of its own.
        if resource["intent"] == "filler-order" {
            continue;
        }
        let name = name_of(resource);
        for note in
            list(&resource["note"]).chain(list(&resource["extension"]).map(|one| &one["valueAnnotation"]))
        {
            for line in
                note["text"].as_str().unwrap_or_default().split('\n').filter(|line| line.starts_with('N'))
            {
                owners.entry(line.to_owned()).or_default().insert(name.clone());
            }
        }
        for reference in list(&resource["result"]).chain(list(&resource["supportingInfo"])) {
            let result = &names[reference["reference"].as_str().unwrap()];
            owners.entry(result.clone()).or_default().insert(name.clone());
        }
    }
    for resource in
        entries.iter().map(|entry| &entry["resource"]).filter(|one| one["resourceType"] == "Observation")
    {
        let of_order = owners.entry(name_of(resource)).or_default();
        if let (true, Some(specimen)) = (of_order.is_empty(), resource["specimen"]["reference"].as_str()) {
            of_order.insert(names[specimen].clone());
        }
    }
    owners
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// An order by its placer number, a specimen by its own, a result by its code.
fn name_of(resource: &Value) -> String {
    let numbers = list(&resource["identifier"]).filter_map(|one| one["value"].as_str());
    let number = numbers.into_iter().find(|number| number.starts_with(['P', 'S']));
    let code = resource["code"]["coding"][0]["code"].as_str();
    number.or(code).unwrap_or_default().to_owned()
}

fn written(names: &[&str], trigger: &str) -> Message {
    let mut text = format!(
        "MSH|^~\\&|LIMS|RXX|EPR|RXX|20260210101500||{trigger}|C1|P|2.5.1\rPID|1||1001^^^RXX^MR||ALPHA^ANN\r"
    );
    for (index, name) in names.iter().enumerate() {
        let rest = match *name {
            "ORC" => format!("NW|P{index}|F{index}"),
            "OBR" => format!("{index}|P{index}|F{index}|T{index}^Test^L"),
            "OBX" => format!("{index}|ST|X{index}^Result^L||value||||||F"),
            "NTE" => format!("{index}||N{index}"),
            "SPM" => format!("{index}|S{index}&LIMS||BLD"),
            "TQ1" => format!("{index}||||||||R"),
            _ => format!("{index}||C{index}^Code^L"),
        };
        text += &format!("{name}|{rest}\r");
    }
    Message::parse(text.into(), encoding_rs::UTF_8).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_obx_and_nte_keeps_its_parent(
        names in proptest::collection::vec(proptest::sample::select(vec![
            "ORC", "OBR", "OBR", "OBX", "OBX", "OBX", "NTE", "NTE", "SPM", "TQ1", "DG1", "AL1",
        ]), 1..30),
        trigger in proptest::sample::select(vec!["ORU^R01^ORU_R01", "OML^O21^OML_O21", "ORM^O01^ORM_O01"]),
    ) {
        static MAPPINGS: LazyLock<Mappings> = LazyLock::new(shipped);
        let message = written(&names, trigger);
        let results = trigger.starts_with("ORU");
        let (text, kind) = mapped(&MAPPINGS, &message.into());
        if kind != "json" {
            let nothing = !names.contains(&"OBR") && (results && !names.contains(&"OBX") || !names.contains(&"ORC"));
            prop_assert!(nothing && text.starts_with("reject"), "{names:?}: {text}");
            return Ok(());
        }
        let bundle: Value = serde_json::from_str(&text).unwrap();
        let (expected, mut told) = (expected(&names, results), told_by(&bundle));
        // A note that stands under nothing that is made is told of nowhere.
        told.extend(expected.iter().filter(|(what, owner)| what.starts_with('N') && owner.is_empty()).map(|(what, _)| {
            (what.clone(), told.get(what).cloned().unwrap_or_default())
        }).collect::<Vec<_>>());
        prop_assert_eq!(told, expected, "{:?}", names);
    }
}

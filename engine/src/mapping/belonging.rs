//! Which resources of a FHIR message belong together.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use rhai::EvalAltResult;
use smol_str::SmolStr;

use super::{
    datum::{Datum, List},
    fault::fault,
    host::Host,
    reading::{ElementHandle, fhir, literal, value},
    values::MessageHandle,
};
use crate::{
    fhir::Node,
    incoming::{self, FhirMessage, Place},
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Gives scripts what tells resources that stand in others, and lists in parts.
pub(super) fn register(host: &mut Host) {
    host.register_fn("outermost", |_: &mut MessageHandle, kinds: List, members: List| {
        let (kinds, members) = (texts(&kinds)?, texts(&members)?);
        fhir(|message| outermost(message, &kinds, &members))
    })
    .register_fn("members", |of: &mut ElementHandle, paths: List| {
        let (of, paths) = (of.clone(), texts(&paths)?);
        fhir(|message| members(message, &of, &paths, &[]))
    })
    .register_fn("members", |of: &mut ElementHandle, paths: List, without: List| {
        let (of, paths, without) = (of.clone(), texts(&paths)?, texts(&without)?);
        fhir(|message| members(message, &of, &paths, &without))
    })
    .register_fn("grouped", |items: &mut List, names: List| {
        let mut places: HashMap<SmolStr, usize, RandomState> = HashMap::default();
        let mut groups: Vec<Vec<Datum>> = Vec::new();
        for (item, name) in items.iter().zip(texts(&names)?) {
            let place = *places.entry(name).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(item.clone()),
                None => groups.push(vec![item.clone()]),
            }
        }
        Ok::<_, Box<EvalAltResult>>(groups.into_iter().map(Datum::from).collect::<Datum>())
    });
}

fn texts(list: &[Datum]) -> Result<Vec<SmolStr>> {
    let texts = list.iter().map(|one| one.as_text().cloned());
    texts.collect::<Option<_>>().ok_or_else(|| fault("a list of texts is needed here"))
}

/// The resources that one refers to by some elements, and those that they refer to, each once and in this order; `()` for one that
/// is not in the message. What those of some statuses refer to is left out.
fn members(
    message: &FhirMessage,
    of: &ElementHandle,
    paths: &[SmolStr],
    without: &[SmolStr],
) -> Result<Datum> {
    let mut found = Vec::new();
    let mut seen: HashSet<Place, RandomState> = HashSet::from_iter([of.place()]);
    let mut next = vec![(of.place(), of.node())];
    while let Some((place, node)) = next.pop() {
        if place != of.place() {
            found.push(value(node, place));
        }
        let status = node.get("status").and_then(Node::as_text).unwrap_or_default();
        if without.iter().any(|known| known == status) {
            continue;
        }
        let mut below = Vec::new();
        for path in paths {
            for reference in incoming::all(node, path).map_err(|error| fault(error.to_string()))? {
                match message.resolve(place, literal(reference)) {
                    Some((place, node)) if seen.insert(place) => below.push((place, node)),
                    Some(_) => {}
                    None => found.push(Datum::Unit),
                }
            }
        }
        next.extend(below.into_iter().rev());
    }
    Ok(found.into())
}

/// The resources of some types, in the order of the types, that are members of none of the others; `()` where some are
/// members of each other in a circle and could be reached from none.
fn outermost(message: &FhirMessage, kinds: &[SmolStr], members: &[SmolStr]) -> Result<Option<Datum>> {
    let kind = |node: &Node| node.get("resourceType").and_then(Node::as_text).unwrap_or_default().to_owned();
    let mut all: Vec<(Place, &Node)> =
        message.placed().filter(|(_, node)| kinds.iter().any(|known| *known == kind(node))).collect();
    all.sort_by_key(|(_, node)| kinds.iter().position(|known| *known == kind(node)));
    let of = |place: Place, node: &Node| -> Result<Vec<Place>> {
        let mut found = Vec::new();
        for path in members {
            let references = incoming::all(node, path).map_err(|error| fault(error.to_string()))?;
            found.extend(references.into_iter().filter_map(|one| message.resolve(place, literal(one))));
        }
        Ok(found.into_iter().map(|(place, _)| place).collect())
    };
    let mut within: HashSet<Place, RandomState> = HashSet::default();
    for (place, node) in &all {
        within.extend(of(*place, node)?);
    }
    let heads: Vec<(Place, &Node)> =
        all.iter().filter(|(place, _)| !within.contains(place)).copied().collect();
    let by_place: HashMap<Place, &Node, RandomState> = all.iter().copied().collect();
    let mut reached: HashSet<Place, RandomState> = HashSet::default();
    let mut next: Vec<Place> = heads.iter().map(|(place, _)| *place).collect();
    while let Some(place) = next.pop() {
        if reached.insert(place)
            && let Some(node) = by_place.get(&place)
        {
            next.extend(of(place, node)?);
        }
    }
    let is_whole = all.iter().all(|(place, _)| reached.contains(place));
    Ok(is_whole.then(|| heads.into_iter().map(|(place, node)| value(node, place)).collect::<Datum>()))
}

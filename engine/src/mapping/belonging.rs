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
    .register_fn("members", |of: &mut ElementHandle, paths: List, back: List| {
        let (of, paths, back) = (of.clone(), texts(&paths)?, texts(&back)?);
        fhir(|message| members(message, &of, &paths, &back))
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

/// The resources that one refers to by some elements, and those that they refer to, each once and in this order; `()` for one
/// that is not in the message. Each stands in a list, and after it the one that takes it back: of those that lead to it and
/// have one of some statuses, one of the first; `()` where others lead to it that have none of them.
fn members(message: &FhirMessage, of: &ElementHandle, paths: &[SmolStr], back: &[SmolStr]) -> Result<Datum> {
    let standing = reached(message, of, paths, |node| rank(node, back).is_some())?;
    let standing: HashSet<Place, RandomState> = standing.into_iter().flatten().map(|one| one.place).collect();
    let all = reached(message, of, paths, |_| false)?;
    let mut taken_back: HashMap<Place, Reached<'_>, RandomState> = HashMap::default();
    let listed = all.into_iter().map(|one| {
        let Some(one) = one else { return Datum::from(vec![Datum::Unit, Datum::Unit]) };
        let by = one.by.and_then(|by| taken_back.get(&by).copied());
        let own = rank(one.node, back).map(|_| one);
        // The worse of the two, or the outer one.
        let worse = match (by, own) {
            (Some(by), Some(own)) if rank(own.node, back) < rank(by.node, back) => Some(own),
            (by, own) => by.or(own),
        };
        if let Some(worse) = worse {
            taken_back.insert(one.place, worse);
        }
        let by = by.filter(|_| !standing.contains(&one.place)).map(|by| value(by.node, by.place));
        vec![value(one.node, one.place), by.unwrap_or_default()].into()
    });
    Ok(listed.collect())
}

/// The place of a resource's status among these.
fn rank(node: &Node, statuses: &[SmolStr]) -> Option<usize> {
    let status = node.get("status").and_then(Node::as_text)?;
    statuses.iter().position(|known| known == status)
}

/// A resource, and the one that led to it; none where that is the first.
#[derive(Clone, Copy)]
struct Reached<'m> {
    place: Place,
    node: &'m Node,
    by: Option<Place>,
}

/// What one refers to by some elements, and what that refers to, each once; not what those refer to at which to stop.
fn reached<'m>(
    message: &'m FhirMessage,
    of: &'m ElementHandle,
    paths: &[SmolStr],
    stops: impl Fn(&Node) -> bool,
) -> Result<Vec<Option<Reached<'m>>>> {
    let mut found = Vec::new();
    let mut seen: HashSet<Place, RandomState> = HashSet::from_iter([of.place()]);
    let mut next = vec![Reached { place: of.place(), node: of.node(), by: None }];
    while let Some(one) = next.pop() {
        let is_first = one.place == of.place();
        if !is_first {
            found.push(Some(one));
            if stops(one.node) {
                continue;
            }
        }
        let mut below = Vec::new();
        for path in paths {
            for reference in incoming::all(one.node, path).map_err(|error| fault(error.to_string()))? {
                match message.resolve(one.place, literal(reference)) {
                    Some((place, node)) if seen.insert(place) => {
                        below.push(Reached { place, node, by: (!is_first).then_some(one.place) });
                    }
                    Some(_) => {}
                    None => found.push(None),
                }
            }
        }
        next.extend(below.into_iter().rev());
    }
    Ok(found)
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

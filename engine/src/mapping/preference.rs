//! Preferences: which of the numbers of a field something is kept under.
//!
//! A preference is a constant, `preference([["MR", "MRN"], ["PI"]])`: lists of identifier types (CX.5), the best
//! first; an empty text stands for a number without a type. NHS numbers come after all of them, and a number of any
//! other type or without a named authority never counts.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString};

use super::{
    current::{path, with},
    fault::{Verdict, end, fault},
    handles::NodeHandle,
    values::{SegmentHandle, repetitions},
};
use crate::{
    fhir::{
        Node,
        types::{NHS_NUMBER, identifier_of_cx},
    },
    hl7::Value,
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Types of identifiers, the best first.
pub(super) type PreferenceHandle = Arc<Vec<Vec<String>>>;

/// Gives scripts the choice by a preference.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<PreferenceHandle>("Preference");
    engine.register_fn(
        "preferred",
        |segment: &mut SegmentHandle, at: ImmutableString, preference: PreferenceHandle| {
            preferred(*segment, &at, &preference)
        },
    );
}

/// `preference`, which exists only while constants are made.
pub(super) fn register_constant(loader: &mut Engine) {
    loader.register_fn("preference", |lists: Array| -> Result<PreferenceHandle> {
        let wrong = || fault("a preference is a list of lists of types: `[[\"MR\", \"MRN\"], [\"PI\"]]`");
        let list = |list: Dynamic| {
            let types = list.into_array().map_err(|_| wrong())?;
            types.into_iter().map(|name| name.into_string().map_err(|_| wrong())).collect::<Result<Vec<_>>>()
        };
        lists.into_iter().map(list).collect::<Result<Vec<_>>>().map(Arc::new)
    });
}

/// The number of the field that is preferred, with its system; `()` when none will do.
fn preferred(segment: SegmentHandle, at: &str, preference: &PreferenceHandle) -> Result<Dynamic> {
    let path = path(at)?;
    with(|current| {
        let mut best: Option<(usize, Node)> = None;
        let mut nhs: Option<Node> = None;
        for part in repetitions(segment, &path, current)?.filter_map(Value::part) {
            let kind = part.component(5).text().unwrap_or_default();
            let own = preference.iter().position(|types| types.iter().any(|name| *name == kind));
            let Some(found) = identifier_of_cx(part, &current.cx(None)) else { continue };
            let rank = match found.get("system").and_then(Node::as_text) {
                None => continue,
                Some(NHS_NUMBER) => {
                    if nhs.as_ref().is_some_and(|known| known.get("value") != found.get("value")) {
                        let reason = format!("{path} has two different NHS numbers");
                        return Err(end(Verdict::Reject(reason)));
                    }
                    nhs = Some(found.clone());
                    preference.len()
                }
                Some(_) => own.unwrap_or(usize::MAX),
            };
            if rank < best.as_ref().map_or(usize::MAX, |(rank, _)| *rank) {
                best = Some((rank, found));
            }
        }
        Ok(best.map_or(Dynamic::UNIT, |(_, found)| NodeHandle::wrap(found)))
    })
}

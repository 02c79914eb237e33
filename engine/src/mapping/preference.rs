//! Preferences: which of the numbers of a field something is kept under.
//!
//! A preference is a constant, `preference([["MR", "MRN"], ["PI"]])`: lists of identifier types (CX.5), the best
//! first; an empty text stands for a number without a type. NHS numbers come after all of them, and a number of any
//! other type or without a named authority never counts, nor one that is only a filler, or a word without a digit that
//! nobody has assigned. Of several that are as good, as where two hospitals have each their own, the first by its system is
//! taken, whichever comes first in the message and whoever sends it; but before all the sender's own, where no table knows
//! the authority: it counts under the sender's name, and nobody else names the others so. A last list `["*"]` is for
//! senders who name no authority: such a number is then the sender's own, and where nothing else will do the first number that is
//! of no type in HL7 table 0203 counts (intake names that one too). A list that begins with `!`, alone, is of all types but
//! these, and the first counts.

use std::sync::Arc;

use rhai::{Array, Dynamic, EvalAltResult};
use smol_str::SmolStr;

use super::{
    asking::repetitions,
    current::{path, with},
    datum::{Datum, Opaque},
    fault::{Verdict, end, fault},
    handles::NodeHandle,
    host::Host,
    memory::Reader,
    values::SegmentHandle,
};
use crate::{
    fhir::{
        Node,
        types::{Cx, NHS_NUMBER, UNKNOWN_AUTHORITY, identifier_of_cx, own_number},
    },
    hl7::{
        Part, Value,
        identifier::{is_no_number, may_type_nhs, names_nobody, spelled},
    },
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Types of identifiers, the best first.
pub(super) type PreferenceHandle = Arc<Vec<Vec<String>>>;

impl Opaque for PreferenceHandle {}

/// Gives scripts the choice by a preference.
pub(super) fn register(host: &mut Host) {
    host.register_type_with_name::<PreferenceHandle>("Preference");
    host.register_fn(
        "preferred",
        |segment: &mut SegmentHandle, at: SmolStr, preference: PreferenceHandle| {
            preferred(*segment, &at, &preference)
        },
    );
}

/// `preference`, which exists only while constants are made.
pub(super) fn register_constant(loader: &mut rhai::Engine) {
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
fn preferred(segment: SegmentHandle, at: &str, preference: &PreferenceHandle) -> Result<Option<Datum>> {
    let path = path(at)?;
    let any = preference.iter().any(|types| types.iter().any(|name| name == "*"));
    let but = preference.first().filter(|types| types.first().is_some_and(|name| name == "!"));
    let reader = Reader::of_identifier(if any { own_number } else { identifier_of_cx });
    with(|current| {
        let cx = current.cx(None);
        let mut best: Option<(usize, bool, SmolStr, Node)> = None;
        let mut nhs: Option<Node> = None;
        let mut first = true;
        for part in repetitions(segment, &path, current)?.filter_map(Value::part) {
            let Some(number) = part.component(1).text() else { continue };
            if is_filler(&number, but.is_some(), &cx) {
                continue;
            }
            let kind = part.component(5).text().unwrap_or_default();
            if is_word(&number, part) {
                first &= may_type_nhs(&kind);
                continue;
            }
            if but.is_some_and(|types| types.iter().any(|name| kind.eq_ignore_ascii_case(name))) {
                continue;
            }
            let Some(found) = reader.read_first(part, &cx, &current.recall) else { continue };
            let listed = if but.is_some() { Some(0) } else { listed(preference, &kind) };
            let system = found.get("system").and_then(Node::as_text);
            let rank = match system {
                // Of what has no system, only a number that is meant for the NHS's is passed over.
                None => {
                    first &= may_type_nhs(&kind);
                    continue;
                }
                Some(NHS_NUMBER) => {
                    if nhs.as_ref().is_some_and(|known| known.get("value") != found.get("value")) {
                        let reason = format!("{path} has two different NHS numbers");
                        return Err(end(Verdict::Reject(reason)));
                    }
                    nhs = Some(found.clone());
                    preference.len()
                }
                Some(_) => {
                    let last_resort = any && std::mem::take(&mut first) && is_local_word(&kind, &cx);
                    listed.unwrap_or(if last_resort { preference.len() + 1 } else { usize::MAX })
                }
            };
            let system = SmolStr::from(system.unwrap_or_default());
            let of_others = is_of_others(&system);
            let is_better = best.as_ref().is_none_or(|(known, others, of, _)| {
                but.is_none() && (rank, of_others, &system) < (*known, *others, of)
            });
            if rank < usize::MAX && is_better {
                best = Some((rank, of_others, system, found));
            }
        }
        Ok(best.map(|(.., found)| NodeHandle::wrap(found)))
    })
}

/// Whether what stands where a patient's number belongs is a word that nobody is said to have assigned (`TRAUMA`, `NEW`): by
/// it two patients would be one.
fn is_word(number: &str, part: Part<'_>) -> bool {
    !number.chars().any(char::is_numeric)
        && part.component(4).text().is_none_or(|named| named.trim().is_empty())
}

/// Whether a system is that of an authority which no table knows, and which is not the sender himself.
fn is_of_others(system: &str) -> bool {
    let named = system.strip_prefix(UNKNOWN_AUTHORITY).and_then(|rest| rest.split_once(':'));
    named.is_some_and(|(facility, authority)| facility != authority)
}

/// The place of a type among the lists.
fn listed(preference: &PreferenceHandle, kind: &str) -> Option<usize> {
    preference.iter().position(|types| types.iter().any(|name| name == kind))
}

/// Whether a number names nobody. Of those of any type (`is_any`) it may be written in parts (`000-00-0000`), be too short
/// or stand in the trust's table.
fn is_filler(number: &str, is_any: bool, cx: &Cx<'_>) -> bool {
    if !is_any {
        return names_nobody(&spelled(number));
    }
    let plain = spelled(&number.replace(['-', '/', '.', ' '], ""));
    names_nobody(&plain) || is_no_number(&plain, true) || cx.tables.has_no_number(number)
}

/// Whether a type is none of HL7's, which would say that the number is an account's, a stay's or an insurer's.
fn is_local_word(kind: &str, cx: &Cx<'_>) -> bool {
    cx.tables.get("identifier-type").is_none_or(|types| types.get(&kind.trim().to_uppercase()).is_none())
}

//! What a mapping leaves out on purpose: fields, segments and elements, each with its reason.
//!
//! `const NOT_MAPPED = ignored([["PID-12", "the county stands in the address"], ["ZPI", "…"]]);` counts for every
//! mapping that imports the script. The coverage report tells these apart from what nobody thought of. In a mapping of
//! FHIR `Observation.method` stands for all that is in it, `Provenance` for such resources, and `meta` for that of any.

use std::{collections::BTreeMap, sync::Arc};

use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, NativeCallContext};
use smol_str::SmolStr;

use super::{
    Spot,
    compile::complain,
    fault::fault,
    plan::{PlanFault, check_name},
};
use crate::{fhir::elements::type_named, hl7::Path, incoming::check_path};

/// Fields, 0 for the whole segment, with the reason; elements as the way to them, with 0.
pub(super) type Ignored = BTreeMap<(SmolStr, usize), ImmutableString>;

/// A list that a constant of the script holds.
pub(super) type IgnoredHandle = Arc<Ignored>;

const SHAPE: &str =
    "a row of `ignored` names fields, segments or elements, then says why: `[\"PID-12\", \"why\"]`";

/// `ignored`, which exists only while constants are made.
pub(super) fn register_constant(loader: &mut Engine) {
    loader.register_fn(
        "ignored",
        |context: NativeCallContext<'_>, rows: Array| -> Result<IgnoredHandle, Box<EvalAltResult>> {
            let mut found = Ignored::new();
            for (number, row) in rows.into_iter().enumerate() {
                if let Err((cell, what)) = read(row, &mut found)? {
                    let fault = PlanFault { row: Some(number), cell: Some(cell), what, help: None };
                    complain(context.call_position(), fault);
                }
            }
            Ok(Arc::new(found))
        },
    );
}

/// The reason why a field is left out, if it is.
pub(super) fn reason_of_field<'a>(ignored: &'a Ignored, segment: &str, field: usize) -> Option<&'a str> {
    let of = |field| ignored.get(&(SmolStr::new(segment), field));
    of(field).or_else(|| of(0)).map(ImmutableString::as_str)
}

/// The reason why an element is left out, or one that it is in.
pub(super) fn reason_of_element<'a>(ignored: &'a Ignored, spot: &Spot) -> Option<&'a str> {
    let Spot::Element(resource, path) = spot else { return None };
    let ends = path.match_indices(['.', '(']).map(|(end, _)| end).chain([path.len()]);
    let ways = ends.filter_map(|end| path.get(..end));
    let of = |way: String| ignored.get(&(way.into(), 0)).map(ImmutableString::as_str);
    let below =
        ways.into_iter().find_map(|way| of(format!("{resource}.{way}")).or_else(|| of(way.to_owned())));
    below.or_else(|| of(resource.to_string()))
}

/// Reads one row, or tells the cell that is wrong and why.
fn read(row: Dynamic, into: &mut Ignored) -> Result<Result<(), (usize, String)>, Box<EvalAltResult>> {
    let cells = row.into_array().map_err(|_| fault(SHAPE))?;
    let cells: Result<Vec<ImmutableString>, _> =
        cells.into_iter().map(Dynamic::into_immutable_string).collect();
    let Ok(cells) = cells else { return Ok(Err((0, SHAPE.to_owned()))) };
    let Some((reason, names)) = cells.split_last() else { return Ok(Err((0, SHAPE.to_owned()))) };
    if names.is_empty() || !reason.contains(' ') {
        return Ok(Err((names.len(), SHAPE.to_owned())));
    }
    for (cell, name) in names.iter().enumerate() {
        match place(name) {
            Ok(place) => drop(into.insert(place, reason.clone())),
            Err(what) => return Ok(Err((cell, what))),
        }
    }
    Ok(Ok(()))
}

fn place(name: &str) -> Result<(SmolStr, usize), String> {
    let (first, below) = name.split_once('.').unwrap_or((name, ""));
    let of_resource = type_named(first).is_some_and(|found| found.is_resource);
    if of_resource && (below.is_empty() || check_path(below).is_ok())
        || name.starts_with(|one: char| one.is_ascii_lowercase()) && check_path(name).is_ok()
    {
        return Ok((name.into(), 0));
    }
    let path = Path::parse(name).map_err(|error| error.to_string())?;
    if path.component.is_some() {
        return Err(format!("`{name}` goes below a field: fields and segments can be left out"));
    }
    check_name(path.segment_name(), path.field)?;
    Ok((path.segment_name().into(), path.field))
}

//! What a mapping leaves out on purpose: fields and segments, each with its reason.
//!
//! `const NOT_MAPPED = ignored([["PID-12", "the county stands in the address"], ["ZPI", "…"]]);` counts for every
//! mapping that imports the script. The coverage report tells these apart from what nobody thought of.

use std::{collections::BTreeMap, sync::Arc};

use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, NativeCallContext};
use smol_str::SmolStr;

use super::{
    compile::complain,
    fault::fault,
    plan::{PlanFault, check_name},
};
use crate::hl7::Path;

/// Fields, 0 for the whole segment, with the reason.
pub(super) type Ignored = BTreeMap<(SmolStr, usize), ImmutableString>;

/// A list that a constant of the script holds.
pub(super) type IgnoredHandle = Arc<Ignored>;

const SHAPE: &str = "a row of `ignored` names fields or segments, then says why: `[\"PID-12\", \"why\"]`";

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
pub(super) fn reason<'a>(ignored: &'a Ignored, segment: &str, field: usize) -> Option<&'a str> {
    let of = |field| ignored.get(&(SmolStr::new(segment), field));
    of(field).or_else(|| of(0)).map(ImmutableString::as_str)
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
    let path = Path::parse(name).map_err(|error| error.to_string())?;
    if path.component.is_some() {
        return Err(format!("`{name}` goes below a field: fields and segments can be left out"));
    }
    check_name(path.segment_name(), path.field)?;
    Ok((path.segment_name().into(), path.field))
}

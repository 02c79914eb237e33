//! Results that several OBX carry together: the lines of a text (TX, FT), the pieces of a document (ED).
//!
//! `beginning(groups, place)` gives the group at this place and those after it that carry the same result: under the same
//! code, sub-id and status, of the same type. A text goes on unless a note stands between, or the next OBX says more than a
//! line: it is measured, flagged otherwise, or made at another time, by others or in another way. `lines_of(groups)` is the
//! text that they carry; an OBX without OBX-5 is an empty line.

use rhai::INT;
use smol_str::SmolStr;

use super::{
    current::{Current, bit, with},
    datum::{Datum, List},
    host::Host,
};
use crate::{
    fhir::types::{document, result},
    hl7::{Part, Segment, Value},
};

/// What makes one with the OBX before it another result.
const OTHERWISE: [usize; 6] = [8, 14, 16, 17, 18, 23];
const SAME: [usize; 3] = [3, 4, 11];
const MEASURED: [usize; 2] = [6, 7];

/// Gives scripts both.
pub(super) fn register(host: &mut Host) {
    host.register_fn("beginning", |groups: List, place: INT| {
        let place = usize::try_from(place).unwrap_or_default();
        with(|current| Ok(beginning(groups.get(place..).unwrap_or_default(), current)))
    })
    .register_fn("lines_of", |groups: List| {
        with(|current| {
            let mut lines = Vec::new();
            for obx in groups.iter().filter_map(|group| obx_of(group, current)) {
                let before = lines.len();
                lines.extend(obx.repetitions(5));
                if lines.len() == before {
                    lines.push(Value::Absent);
                }
            }
            Ok(SmolStr::from(result::lines(lines.into_iter(), Part::whole)))
        })
    });
}

fn beginning(groups: &[Datum], current: &Current) -> Vec<Datum> {
    let Some((first, rest)) = groups.split_first() else { return Vec::new() };
    let mut found = vec![first.clone()];
    let Some(obx) = obx_of(first, current) else { return found };
    let kind = obx.field(2).text().unwrap_or_default();
    let is_document = kind == "ED";
    if !is_document && (!matches!(&*kind, "TX" | "FT") || is_measured(obx)) {
        return found;
    }
    let mut before = first;
    for group in rest {
        let Some(next) = obx_of(group, current) else { break };
        let same = next.field(2).text().unwrap_or_default() == kind
            && SAME.iter().all(|field| raw(next, *field) == raw(obx, *field));
        let goes_on = same
            && if is_document {
                let pieces =
                    [Some(obx), obx_of(before, current)].map(|obx| obx.and_then(|obx| obx.field(5).part()));
                !next.field(5).part().is_some_and(|piece| document::begins_document(pieces, piece))
            } else {
                !has_note(before, current) && !is_more(obx, next)
            };
        if !goes_on {
            break;
        }
        found.push(group.clone());
        before = group;
    }
    found
}

/// The OBX of a group, of which all that is looked at here counts as read.
fn obx_of<'c>(group: &'c Datum, current: &'c Current) -> Option<Segment<'c>> {
    let Datum::Group(group) = group else { return None };
    let obx = group.own(current).find(|segment| segment.name() == "OBX")?;
    let read = [2, 5].iter().chain(&SAME).chain(&MEASURED).chain(&OTHERWISE);
    current.coverage.mark(obx.index(), read.fold(0, |all, field| all | bit(*field)));
    Some(obx)
}

fn has_note(group: &Datum, current: &Current) -> bool {
    matches!(group, Datum::Group(group) if group.own(current).any(|segment| segment.name() == "NTE"))
}

fn is_more(first: Segment<'_>, obx: Segment<'_>) -> bool {
    let differs = |field: &usize| has(obx, *field) && raw(obx, *field) != raw(first, *field);
    is_measured(obx) || OTHERWISE.iter().any(differs)
}

fn is_measured(obx: Segment<'_>) -> bool {
    MEASURED.iter().any(|field| has(obx, *field))
}

fn has(obx: Segment<'_>, field: usize) -> bool {
    obx.repetitions(field).any(|value| value.part().is_some())
}

fn raw(obx: Segment<'_>, field: usize) -> &str {
    obx.field(field).part().map_or("", Part::raw)
}

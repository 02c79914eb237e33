//! What scripts ask of the message and its segments, by path: a value, its text, whether there is one.
//!
//! Promise: a field that was asked for counts as read. To ask whether a segment is there is not to read it.

use rhai::{EvalAltResult, INT};
use smol_str::SmolStr;

use super::{
    current::{Current, path, with},
    datum::{Datum, Gives},
    fault::fault,
    program::Flow,
    values::{FieldHandle, SegmentHandle, positive},
};
use crate::hl7::{Path, Segment, Value};

type Result<T, E = Box<EvalAltResult>> = std::result::Result<T, E>;

/// What scripts ask at a path, all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// `value["PV1-3"]`
    Value,
    /// `value["PV1-3"].is_absent`
    IsAbsent,
    Has,
    Text,
    /// `message.segment("PV1")`
    Segment,
}

/// The answer of a message or a segment, as the functions registered for them give it; nothing where the value is neither.
pub(super) fn ask(what: Ask, value: &Datum, path: &Path) -> Option<Result<Datum, Flow>> {
    Some(match (value, what) {
        (Datum::Segment(segment), Ask::Value) => segment_get(*segment, path).gives(),
        (Datum::Segment(segment), Ask::IsAbsent) => {
            segment_get(*segment, path).map(|value| value.is_absent()).gives()
        }
        (Datum::Segment(segment), Ask::Has) => has(*segment, path).gives(),
        (Datum::Segment(segment), Ask::Text) => text(*segment, path).gives(),
        (Datum::Message(_), Ask::Value) => message_get(path).gives(),
        (Datum::Message(_), Ask::IsAbsent) => message_get(path).map(|value| value.is_absent()).gives(),
        (Datum::Message(_), Ask::Has) => message_has(path).gives(),
        (Datum::Message(_), Ask::Text) => message_text(path).gives(),
        (Datum::Message(_), Ask::Segment) => {
            with(|current| Ok(first_segment(current, path.segment, 1))).gives()
        }
        _ => return None,
    })
}

#[inline(never)]
pub(super) fn message_get(path: &Path) -> Result<Datum> {
    with(|current| {
        let handle = first_segment(current, path.segment, path.occurrence);
        Ok(segment_value(current, handle, path))
    })
}

pub(super) fn message_has(path: &Path) -> Result<bool> {
    with(|current| {
        let segment = first_segment(current, path.segment, path.occurrence);
        // To ask whether a segment is there is not to read it.
        if path.field == 0 { Ok(!segment.is_absent()) } else { has_in(current, segment, path) }
    })
}

pub(super) fn message_text(path: &Path) -> Result<SmolStr> {
    with(|current| {
        let segment = first_segment(current, path.segment, path.occurrence);
        look_in(current, segment, path, |value, _| said(value))
    })
}

/// The segment itself for a path without a field, else the value of its field.
pub(super) fn segment_value(current: &mut Current, segment: SegmentHandle, path: &Path) -> Datum {
    if path.field == 0 {
        return segment.into();
    }
    if let Some(index) = segment.index() {
        current.coverage.mark_field(index, path.field);
    }
    let value = segment.find(current).map_or(Value::Absent, |segment| segment.get(path));
    FieldHandle::of(value, current.message.text()).into()
}

pub(super) fn message_all(at: &str) -> Result<Datum> {
    let path = path(at)?;
    with(|current| {
        if let Some(index) = first_segment(current, path.segment, path.occurrence).index() {
            current.coverage.mark_field(index, path.field);
        }
        let text = current.message.text();
        Ok(current.message.all(&path).map(|value| FieldHandle::of(value, text)).collect())
    })
}

#[inline(never)]
pub(super) fn segment_get(segment: SegmentHandle, path: &Path) -> Result<FieldHandle> {
    look(segment, path, FieldHandle::of)
}

/// Whether something was sent there, in any repetition if the path names none.
pub(super) fn has(segment: SegmentHandle, path: &Path) -> Result<bool> {
    with(|current| has_in(current, segment, path))
}

#[inline(never)]
fn has_in(current: &Current, segment: SegmentHandle, path: &Path) -> Result<bool> {
    if path.repetition > 1 || path.field == 0 {
        return look_in(current, segment, path, |value, _| says_something(value));
    }
    Ok(repetitions(segment, path, current)?.any(says_something))
}

/// Whether there is more than blanks and line ends, which no data type takes for a value.
fn says_something(value: Value<'_>) -> bool {
    value.part().is_some_and(|part| match part.raw().trim_start().as_bytes().first() {
        None => false,
        Some(first) => Some(*first) != part.separators().escape || !part.whole().trim().is_empty(),
    })
}

/// The text of the first leaf; empty when that is blank.
pub(super) fn said(value: Value<'_>) -> SmolStr {
    match value.text() {
        Some(text) if !text.trim_start().is_empty() => text.into(),
        _ => SmolStr::default(),
    }
}

/// The text of the first leaf there; empty when there is none.
pub(super) fn text(segment: SegmentHandle, path: &Path) -> Result<SmolStr> {
    look(segment, path, |value, _| said(value))
}

/// Looks at the value at a path of the segment, in the text of the message.
fn look<T>(segment: SegmentHandle, path: &Path, work: impl FnOnce(Value<'_>, &str) -> T) -> Result<T> {
    with(|current| look_in(current, segment, path, work))
}

#[inline(never)]
fn look_in<T>(
    current: &Current,
    segment: SegmentHandle,
    path: &Path,
    work: impl FnOnce(Value<'_>, &str) -> T,
) -> Result<T> {
    let found = asked(segment, path, current)?;
    let value = found.map_or(Value::Absent, |segment| segment.get(path));
    Ok(work(value, current.message.text()))
}

/// The segment in the message, when it is asked for a path; from here on the field counts as read.
fn asked<'m>(segment: SegmentHandle, path: &Path, current: &'m Current) -> Result<Option<Segment<'m>>> {
    if !segment.is_named_by(path) {
        return Err(fault(format!("this path is not in {}, the segment that is asked", segment.name())));
    }
    if let Some(index) = segment.index() {
        current.coverage.mark_field(index, path.field);
    }
    Ok(segment.find(current))
}

pub(super) fn segment_field(segment: SegmentHandle, number: INT) -> Result<FieldHandle> {
    let number = positive(number)?;
    with(|current| {
        let Some(index) = segment.index() else { return Ok(FieldHandle::Absent) };
        current.coverage.mark_field(index, number);
        let value = segment.find(current).map_or(Value::Absent, |segment| segment.field(number));
        Ok(FieldHandle::of(value, current.message.text()))
    })
}

pub(super) fn segment_all(segment: SegmentHandle, at: &str) -> Result<Datum> {
    let path = path(at)?;
    with(|current| {
        let text = current.message.text();
        let found = repetitions(segment, &path, current)?;
        Ok(found.map(|value| FieldHandle::of(value, text)).collect())
    })
}

/// What a segment has at a path, one value of each repetition.
pub(super) fn repetitions<'m>(
    segment: SegmentHandle,
    path: &'m Path,
    current: &'m Current,
) -> Result<impl Iterator<Item = Value<'m>>> {
    Ok(asked(segment, path, current)?.into_iter().flat_map(|segment| segment.all(path)))
}

pub(super) fn first_segment(current: &Current, name: [u8; 3], occurrence: usize) -> SegmentHandle {
    SegmentHandle::at(name, current.message.nth(name, occurrence).map(Segment::index))
}

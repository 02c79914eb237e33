//! What scripts see of a message: the message, its segments, and the values of its fields in three states.
//!
//! These are handles of a few bytes: a value says where in the message's text it stands.

use std::{borrow::Cow, cmp::Ordering, collections::HashMap, sync::LazyLock};

use foldhash::fast::RandomState;
use jiff::Timestamp;
use rhai::{EvalAltResult, INT};
use smol_str::SmolStr;

use super::{
    asking::{
        first_segment, has, message_all, message_get, message_has, message_text, said, segment_all,
        segment_field, segment_get, text,
    },
    comparisons,
    current::{Current, path, with},
    datum::{Datum, List},
    fault::fault,
    handles::NodeHandle,
    host::Host,
    memory::Reader,
};
use crate::{
    fhir::{
        Node,
        name::name,
        types::{CONVERTERS, Converter, UNKNOWN_AUTHORITY, document, result, time},
    },
    hl7::{Message, Part, Path, Segment, Value, identifier},
};

type Result<T, E = Box<EvalAltResult>> = std::result::Result<T, E>;

/// The message.
#[derive(Clone, Copy)]
pub(super) struct MessageHandle;

/// A segment, or the place where one would be.
#[derive(Clone, Copy)]
pub(super) struct SegmentHandle {
    name: [u8; 3],
    index: Option<u32>,
}

/// The value of a field, repetition, component or subcomponent.
#[derive(Clone, Copy)]
pub(super) enum FieldHandle {
    Absent,
    Null,
    Present { start: u32, end: u32 },
}

impl SegmentHandle {
    /// The segment in the message; `None` when the message has none.
    pub fn find(self, current: &Current) -> Option<Segment<'_>> {
        current.message.segment_at(self.index()?)
    }

    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.name).unwrap_or_default()
    }

    pub fn of(segment: Segment<'_>) -> Self {
        Self::at(segment.name_bytes(), Some(segment.index()))
    }

    pub fn is_absent(self) -> bool {
        self.index.is_none()
    }

    /// Whether it is of this name.
    pub fn is(self, name: &str) -> bool {
        self.name == name.as_bytes()
    }

    /// Whether the path leads into it, by its name.
    pub fn is_named_by(self, path: &Path) -> bool {
        self.name == path.segment
    }

    /// The segment at a place of the message, or the lack of one of this name.
    pub fn at(name: [u8; 3], index: Option<usize>) -> Self {
        Self { name, index: index.and_then(|index| u32::try_from(index).ok()) }
    }

    pub fn index(self) -> Option<usize> {
        self.index.map(|index| index as usize)
    }
}

impl FieldHandle {
    pub fn of(value: Value<'_>, text: &str) -> Self {
        match value {
            Value::Absent => Self::Absent,
            Value::Null => Self::Null,
            Value::Present(part) => {
                // A part is always a slice of the text of its message.
                let start = (part.raw().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
                match (u32::try_from(start), u32::try_from(start + part.raw().len())) {
                    (Ok(start), Ok(end)) => Self::Present { start, end },
                    _ => Self::Absent, // never: no message is so large
                }
            }
        }
    }

    pub fn is_absent(self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The value in the message.
    pub fn find(self, current: &Current) -> Value<'_> {
        self.of_message(&current.message)
    }

    /// The value in its message.
    pub fn of_message(self, message: &Message) -> Value<'_> {
        match self {
            Self::Absent => Value::Absent,
            Self::Null => Value::Null,
            Self::Present { start, end } => match message.text().get(start as usize..end as usize) {
                Some(raw) => Value::new(raw, message.separators()),
                None => Value::Absent,
            },
        }
    }

    /// The text of the first leaf; empty when there is none.
    pub fn text(self) -> Result<SmolStr> {
        with(|current| Ok(said(self.find(current))))
    }
}

/// Gives scripts the message.
pub(super) fn register(host: &mut Host) {
    host.register_type_with_name::<MessageHandle>("Message");
    host.register_type_with_name::<SegmentHandle>("Segment");
    host.register_type_with_name::<FieldHandle>("Value");
    register_message(host);
    register_segment(host);
    register_value(host);
    register_documents(host);
    comparisons::register(host);
}

fn register_message(host: &mut Host) {
    host.register_indexer_get(|_: &mut MessageHandle, at: SmolStr| message_get(&*path(&at)?))
        .register_fn("all", |_: &mut MessageHandle, at: SmolStr| message_all(&at))
        .register_fn("segments", |_: &mut MessageHandle, name: SmolStr| {
            check_name(&name)?;
            with(|current| {
                Ok(current.message.segments_named(&name).map(SegmentHandle::of).collect::<Datum>())
            })
        })
        .register_fn("segments", |_: &mut MessageHandle| {
            with(|current| Ok(current.message.segments().map(SegmentHandle::of).collect::<Datum>()))
        })
        .register_fn("segment", |_: &mut MessageHandle, name: SmolStr| {
            check_name(&name)?;
            with(|current| Ok(first_segment(current, name_of(&name), 1)))
        })
        .register_fn("has", |_: &mut MessageHandle, at: SmolStr| message_has(&*path(&at)?))
        .register_fn("text", |_: &mut MessageHandle, at: SmolStr| message_text(&*path(&at)?));
    let header = |read: fn(&Current) -> Cow<'_, str>| {
        move |_: &mut MessageHandle| with(|current| Ok(SmolStr::from(read(current))))
    };
    host.register_get("code", |_: &mut MessageHandle| with(|current| Ok(current.code.clone())))
        .register_get("event", |_: &mut MessageHandle| with(|current| Ok(current.event.clone())))
        .register_get(
            "control_id",
            header(|current| Cow::Owned(current.incoming().control_id().into_owned())),
        )
        .register_get("version", header(|current| current.message.version()))
        .register_get("environment", header(|current| Cow::Borrowed(&current.environment)))
        .register_get("revision", header(|current| Cow::Borrowed(&current.revision)))
        .register_get("engine", |_: &mut MessageHandle| {
            with(|current| Ok(NodeHandle::wrap(current.recall.borrow().engine(&current.revision))))
        })
        .register_get("received", header(|current| Cow::Owned(received(current))))
        .register_get("trigger", |_: &mut MessageHandle| {
            with(|current| Ok(SmolStr::from(format!("{}^{}", current.code, current.event))))
        });
}

fn register_segment(host: &mut Host) {
    host.register_indexer_get(|segment: &mut SegmentHandle, at: SmolStr| segment_get(*segment, &*path(&at)?))
        .register_indexer_get(|segment: &mut SegmentHandle, number: INT| segment_field(*segment, number))
        .register_fn("all", |segment: &mut SegmentHandle, at: SmolStr| segment_all(*segment, &at))
        .register_fn("all", |segment: &mut SegmentHandle, number: INT| {
            let number = positive(number)?;
            with(|current| {
                let Some(index) = segment.index() else { return Ok(Datum::from(Vec::new())) };
                current.coverage.mark_field(index, number);
                let found = segment.find(current).into_iter().flat_map(|segment| segment.repetitions(number));
                Ok(found.map(|value| FieldHandle::of(value, current.message.text())).collect())
            })
        })
        .register_fn("has", |segment: &mut SegmentHandle, at: SmolStr| has(*segment, &*path(&at)?))
        .register_fn("text", |segment: &mut SegmentHandle, at: SmolStr| text(*segment, &*path(&at)?))
        .register_get("name", |segment: &mut SegmentHandle| SmolStr::from(segment.name()))
        .register_get("is_absent", |segment: &mut SegmentHandle| segment.is_absent())
        .register_get("is_present", |segment: &mut SegmentHandle| segment.index.is_some())
        .register_get("index", |segment: &mut SegmentHandle| {
            segment.index().map_or(0, |index| index as INT + 1)
        })
        .register_get("number", |segment: &mut SegmentHandle| {
            with(|current| Ok(segment.find(current).map_or(0, |segment| segment.number() as INT)))
        });
}

fn register_value(host: &mut Host) {
    host.register_get("text", |value: &mut FieldHandle| value.text())
        .register_get("raw", |value: &mut FieldHandle| {
            with(|current| {
                Ok(value.find(current).part().map_or(SmolStr::default(), |part| part.raw().into()))
            })
        })
        .register_get("whole", |value: &mut FieldHandle| {
            with(|current| {
                Ok(value.find(current).part().map_or(SmolStr::default(), |part| part.whole().into()))
            })
        })
        .register_get("is_absent", |value: &mut FieldHandle| value.is_absent())
        .register_get("is_null", |value: &mut FieldHandle| matches!(value, FieldHandle::Null))
        .register_get("is_present", |value: &mut FieldHandle| matches!(value, FieldHandle::Present { .. }))
        .register_indexer_get(|value: &mut FieldHandle, number: INT| component(*value, number))
        .register_fn("component", |value: &mut FieldHandle, number: INT| component(*value, number))
        .register_fn("subcomponent", |value: &mut FieldHandle, number: INT| {
            let number = positive(number)?;
            with(|current| {
                Ok(FieldHandle::of(value.find(current).subcomponent(number), current.message.text()))
            })
        })
        .register_fn("to_string", |value: &mut FieldHandle| value.text())
        .register_fn("to_debug", |value: &mut FieldHandle| value.text())
        .register_fn("or", |value: &mut FieldHandle, other: SmolStr| -> Result<SmolStr> {
            let text = value.text()?;
            Ok(if text.is_empty() { other } else { text })
        })
        .register_fn("or", |value: &mut FieldHandle, other: Datum| -> Result<Datum> {
            let text = value.text()?;
            Ok(if text.is_empty() { other } else { text.into() })
        })
        .register_get("number", |value: &mut FieldHandle| -> Result<Option<INT>> {
            Ok(value.text()?.trim().parse().ok())
        })
        .register_fn("to", |value: &mut FieldHandle, data_type: SmolStr| {
            convert(*value, &data_type, None, None)
        })
        .register_fn("identifier", |value: &mut FieldHandle, data_type: SmolStr| {
            Ok(match convert(*value, &data_type, Some("Identifier"), None)? {
                Some(Datum::Node(found)) if with(|current| Ok(is_no_number(found.node(), current)))? => None,
                found => found,
            })
        })
        .register_fn("to", |value: &mut FieldHandle, data_type: SmolStr, target: SmolStr| {
            convert(*value, &data_type, Some(&target), None)
        })
        .register_fn("to", |value: &mut FieldHandle, data_type: SmolStr, target: SmolStr, table: SmolStr| {
            convert(*value, &data_type, Some(&target), Some(&table))
        });
}

fn register_documents(host: &mut Host) {
    host.register_fn("attachment", |values: List| -> Result<Option<Datum>> {
        with(|current| {
            let parts: Vec<Part<'_>> =
                fields(&values).filter_map(|piece| piece.find(current).part()).collect();
            let node = document::joined(&parts, &current.cx(None));
            Ok(node.map(NodeHandle::wrap))
        })
    })
    .register_fn("attachment", |text: SmolStr| document::of_text(&text).map(NodeHandle::wrap))
    .register_fn("later", |instant: SmolStr, minutes: INT| time::later(&instant, minutes).map(SmolStr::from))
    .register_fn("earliest", |instants: List| furthest(&instants, Ordering::is_lt))
    .register_fn("latest", |instants: List| furthest(&instants, Ordering::is_gt))
    .register_fn("whole_minutes", |long: FieldHandle, seconds: SmolStr| -> Result<Option<INT>> {
        Ok(seconds.parse().ok().and_then(|seconds: f64| minutes(&long.text().ok()?, seconds)))
    })
    .register_fn("has_digit", |text: SmolStr| text.bytes().any(|byte| byte.is_ascii_digit()))
    .register_fn("lines", |values: List| {
        with(|current| {
            let lines = fields(&values).map(|value| value.find(current));
            Ok(SmolStr::from(result::lines(lines, Part::whole)))
        })
    })
    .register_fn("joined", |values: List, between: SmolStr| -> Result<SmolStr> {
        let values = values.iter().filter(|value| !value.is_unit()).cloned();
        let texts = values.map(super::handles::text).collect::<Result<Vec<_>>>()?;
        let said: Vec<_> = texts.iter().map(SmolStr::as_str).filter(|text| !text.is_empty()).collect();
        Ok(said.join(&between).into())
    });
}

/// The instant of a list that comes before, or after, all others; nothing where there is none.
fn furthest(instants: &List, is_further: fn(Ordering) -> bool) -> Result<Option<SmolStr>> {
    let mut found: Option<(Timestamp, SmolStr)> = None;
    for one in instants.iter().filter(|one| !one.is_unit()).cloned() {
        let text = super::handles::text(one)?;
        let Ok(time) = text.parse::<Timestamp>() else { continue };
        if found.as_ref().is_none_or(|(known, _)| is_further(time.cmp(known))) {
            found = Some((time, text));
        }
    }
    Ok(found.map(|(_, text)| text))
}

/// A duration in whole minutes, the last one begun; nothing for what is no number, or lasts for ever.
#[expect(clippy::cast_possible_truncation, reason = "it is less than a million")]
fn minutes(long: &str, seconds: f64) -> Option<INT> {
    let minutes = (long.trim().parse::<f64>().ok()? * seconds / 60.0).ceil();
    (minutes.abs() < 1_000_000.0).then_some(minutes as INT)
}

/// The values of the message among those of a list.
pub(super) fn fields(list: &List) -> impl Iterator<Item = FieldHandle> {
    list.iter().filter_map(|item| match item {
        Datum::Field(field) => Some(*field),
        _ => None,
    })
}

fn component(value: FieldHandle, number: INT) -> Result<FieldHandle> {
    let number = positive(number)?;
    with(|current| Ok(FieldHandle::of(value.find(current).component(number), current.message.text())))
}

/// The converters of a name, in their order.
static CONVERTERS_BY_NAME: LazyLock<HashMap<&str, Vec<&Converter>, RandomState>> = LazyLock::new(|| {
    let mut named: HashMap<_, Vec<_>, _> = HashMap::default();
    CONVERTERS.iter().for_each(|converter| named.entry(converter.name).or_default().push(converter));
    named
});

/// Converts by the first converter of the name that gives the wanted type.
#[inline(never)]
fn convert(
    value: FieldHandle,
    data_type: &str,
    target: Option<&str>,
    table: Option<&str>,
) -> Result<Option<Datum>> {
    let fits = |converter: &&&Converter| target.is_none_or(|target| super::plan::fits(converter.to, target));
    let converter = CONVERTERS_BY_NAME
        .get(data_type)
        .and_then(|named| named.iter().find(fits))
        .ok_or_else(|| fault("there is no such data type, or it does not give that type"))?;
    with(|current| {
        let table = match table {
            None => None,
            Some(name) => Some(current.tables.get(name).ok_or_else(|| fault("there is no such table"))?),
        };
        let reader = Reader::of(converter);
        let part = value.find(current).part();
        let node = part.and_then(|part| reader.read_first(part, &current.cx(table), &current.recall));
        Ok(node.map(NodeHandle::wrap))
    })
}

/// Whether an Identifier has what senders write where they have no number, by the rule or by the trust's table.
fn is_no_number(identifier: &Node, current: &Current) -> bool {
    let text = |part| identifier.at(part).and_then(Node::as_text).unwrap_or_default();
    let (value, system) = (text(name!("value")), text(name!("system")));
    // What is made of the sender alone names nobody who assigned it.
    let is_assigned =
        !system.is_empty() && (!system.starts_with("urn:tie:") || system.starts_with(UNKNOWN_AUTHORITY));
    identifier::is_no_number(&identifier::spelled(value), is_assigned) || current.tables.has_no_number(value)
}

fn check_name(name: &str) -> Result<()> {
    if name.len() == 3 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
        return Ok(());
    }
    Err(fault("this is not the name of a segment, such as `OBX`"))
}

fn name_of(name: &str) -> [u8; 3] {
    name.as_bytes().try_into().unwrap_or_default()
}

pub(super) fn positive(number: INT) -> Result<usize> {
    usize::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| fault("fields and components count from 1"))
}

fn received(current: &Current) -> String {
    let zoned = current.received.to_zoned(current.zone.clone());
    zoned.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

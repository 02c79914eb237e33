//! Series: many segments that are alike, each a resource of its own, made by one call.
//!
//! `const PLAIN = series(MAP, key, unless);` says which segments are so plain that no script need look at them. `key`
//! lists the fields that tell one from the others of its series; its first must be there. `unless` lists what makes a
//! segment worth a look: `OBX-15` when it has a value, `OBX-2=TX` when it says just that. A group with further segments
//! (notes) is never plain. `out.put_run(PLAIN, groups, from, system, prefix, besides)` makes the resources of the groups
//! from that one on as long as they are plain, and gives them; whoever calls looks at the next one and goes on.

use std::sync::Arc;

use rhai::{Array, Dynamic, EvalAltResult, INT, ImmutableString};
use smol_str::SmolStr;

use super::{
    apart,
    current::{Current, bit, with},
    datum::{Datum, List, Opaque},
    fault::fault,
    groups::GroupHandle,
    handles::{BundleHandle, PlanHandle, put_resource},
    host::Host,
    plan::Place,
};
use crate::{
    fhir::{Node, Object, Resource, id},
    hl7::{Path, Segment, Value},
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Which segments of a map are plain, and what each is kept under.
pub(super) struct Series {
    plan: PlanHandle,
    key: Vec<Path>,
    unless: Vec<(Path, Option<SmolStr>)>,
    reads: u128,
}

pub(super) type SeriesHandle = Arc<Series>;

impl Opaque for SeriesHandle {}

/// Gives scripts the call that makes them.
pub(super) fn register(host: &mut Host) {
    host.register_type_with_name::<SeriesHandle>("Series");
    host.register_fn(
        "put_run",
        |out: &mut BundleHandle,
         series: SeriesHandle,
         groups: List,
         from: INT,
         system: SmolStr,
         prefix: SmolStr,
         besides: List| {
            let from = usize::try_from(from).unwrap_or_default();
            let besides = besides.iter().filter_map(|more| match more {
                Datum::Node(more) => match more.node() {
                    Node::Object(more) => Some(more.clone().parts_in_common()),
                    _ => None,
                },
                _ => None,
            });
            let besides: Vec<Object> = besides.collect();
            with(|current| series.put(*out, &groups, from, (&system, &prefix), &besides, current))
        },
    );
}

/// `series`, which exists only while constants are made.
pub(super) fn register_constant(loader: &mut rhai::Engine) {
    loader.register_fn("series", |plan: PlanHandle, key: Array, unless: Array| -> Result<SeriesHandle> {
        let path = |text: &str| match Path::parse(text) {
            Ok(path) if path.segment_name() == plan.segment && path.field > 0 => Ok(path),
            Ok(_) => Err(fault(format!("`{text}` is no field of {}, the segment of the map", plan.segment))),
            Err(error) => Err(fault(error.to_string())),
        };
        let texts = |list: Array| {
            let texts: std::result::Result<Vec<_>, _> =
                list.into_iter().map(Dynamic::into_immutable_string).collect();
            texts.map_err(|_| {
                fault("a series has two lists of texts: what it is kept under, and what makes it special")
            })
        };
        let key = texts(key)?.iter().map(|text| path(text)).collect::<Result<Vec<_>>>()?;
        let rule = |text: &ImmutableString| match text.split_once('=') {
            Some((field, value)) => Ok((path(field)?, Some(value.into()))),
            None => Ok((path(text)?, None)),
        };
        let unless = texts(unless)?.iter().map(rule).collect::<Result<Vec<_>>>()?;
        let reads =
            key.iter().chain(unless.iter().map(|(path, _)| path)).fold(0, |all, path| all | bit(path.field));
        Ok(Arc::new(Series { plan, key, unless, reads }))
    });
}

impl Series {
    fn put(
        &self,
        out: BundleHandle,
        groups: &List,
        from: usize,
        (system, prefix): (&str, &str),
        besides: &[Object],
        current: &mut Current,
    ) -> Result<Datum> {
        let message = current.message.clone();
        let mut made = Vec::new();
        let mut value = String::new();
        for group in groups.iter().skip(from) {
            let Datum::Group(group) = group else { break };
            let Some(segment) = group.only().and_then(|index| message.segment_at(index)) else { break };
            if segment.name() != self.plan.segment || !self.is_plain(segment) {
                break;
            }
            value.clear();
            value.push_str(prefix);
            if !self.identify(segment, &mut value) {
                break;
            }
            apart::number("", system, &mut value, current);
            current.coverage.mark(segment.index(), self.reads);
            let mut elements = Object::with_capacity(16);
            self.plan.apply(segment, current, &Place { bundle: out.bundle, with: None }, &mut elements);
            besides.iter().for_each(|more| elements.complete(more));
            let target = self.plan.target;
            let resource =
                Resource { resource_type: target.name.into(), id: id(target.name, system, &value), elements };
            let handle = put_resource(current, out, resource)?;
            made.push(handle.into());
        }
        Ok(made.into())
    }

    /// Adds what the segment of a group is kept under within its series.
    pub fn words(&self, group: &GroupHandle, current: &Current, words: &mut String) {
        let name = self.plan.segment.as_str();
        if let Some(segment) = group.own(current).find(|segment| segment.name() == name) {
            self.identify(segment, words);
        }
    }

    fn is_plain(&self, segment: Segment<'_>) -> bool {
        self.unless.iter().all(|(path, text)| match (segment.get(path), text) {
            (Value::Absent, _) => true,
            (_, None) => false,
            (value, Some(text)) => value.text().unwrap_or_default() != text.as_str(),
        })
    }

    /// Adds what the segment is kept under; whether it says so at all.
    fn identify(&self, segment: Segment<'_>, value: &mut String) -> bool {
        for (number, path) in self.key.iter().enumerate() {
            match (segment.get(path), number) {
                (Value::Present(part), 0) if !part.text().trim().is_empty() => value.push_str(&part.text()),
                (_, 0) => return false,
                (Value::Present(part), _) => {
                    value.push('/');
                    value.push_str(&part.whole());
                }
                (Value::Absent | Value::Null, _) => {}
            }
        }
        true
    }
}

//! Groups of segments for scripts: which observation belongs to which order, which note to which segment.

use std::sync::Arc;

use rhai::EvalAltResult;
use smol_str::SmolStr;

use super::{
    asking::segment_value,
    current::{Current, path, with},
    datum::Datum,
    fault::fault,
    host::Host,
    values::{MessageHandle, SegmentHandle},
};
use crate::hl7::{Segment, groups::Group};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A group of the message: its own segments by their places, and the groups within.
#[derive(Debug, Default)]
pub(super) struct Tree {
    name: &'static str,
    segments: Vec<usize>,
    groups: Vec<Arc<Tree>>,
}

pub(super) type GroupHandle = Arc<Tree>;

impl Tree {
    fn of(group: &Group<'_>) -> Self {
        Self {
            name: group.name,
            segments: group.segments.iter().map(|segment| segment.index()).collect(),
            groups: group.groups.iter().map(|group| Arc::new(Self::of(group))).collect(),
        }
    }

    /// A group of nothing but segments.
    fn flat(segments: Vec<usize>) -> Self {
        Self { name: "", segments, groups: Vec::new() }
    }

    /// Its one segment, when it has nothing else.
    pub fn only(&self) -> Option<usize> {
        match (self.segments.as_slice(), self.groups.is_empty()) {
            ([only], true) => Some(*only),
            _ => None,
        }
    }

    /// All groups of a name within, however deep, in order.
    fn gather(&self, name: &str, found: &mut Vec<Datum>) {
        for group in &self.groups {
            if group.name == name {
                found.push(group.clone().into());
            }
            group.gather(name, found);
        }
    }

    /// Its own segments.
    pub fn own<'c>(&'c self, current: &'c Current) -> impl Iterator<Item = Segment<'c>> {
        self.segments.iter().filter_map(|index| current.message.segment_at(*index))
    }

    fn named(&self, current: &Current, name: &str) -> Datum {
        let found = self.own(current).filter(|segment| segment.name() == name);
        found.map(SegmentHandle::of).collect()
    }
}

/// Gives scripts the groups.
pub(super) fn register(host: &mut Host) {
    host.register_type_with_name::<GroupHandle>("Group");
    host.register_fn("groups", |_: &mut MessageHandle, name: SmolStr| {
        with(|current| {
            let mut found = Vec::new();
            whole(current).gather(&name, &mut found);
            Ok(found)
        })
    })
    .register_fn("groups", |group: &mut GroupHandle, name: SmolStr| {
        let mut found = Vec::new();
        group.gather(&name, &mut found);
        found
    })
    .register_indexer_get(|group: &mut GroupHandle, at: SmolStr| get(group, &at))
    .register_fn("has", |group: &mut GroupHandle, name: SmolStr| {
        with(|current| Ok(group.own(current).any(|segment| segment.name() == name.as_str())))
    })
    .register_fn("segments", |group: &mut GroupHandle, name: SmolStr| {
        with(|current| Ok(group.named(current, &name)))
    })
    .register_fn("segments", |group: &mut GroupHandle| {
        with(|current| Ok(group.own(current).map(SegmentHandle::of).collect::<Datum>()))
    })
    .register_fn("notes", |group: &mut GroupHandle, segment: SegmentHandle| {
        with(|current| {
            let Some(place) = segment.find(current).map(Segment::index) else {
                return Ok(Datum::from(Vec::new()));
            };
            let behind = group.own(current).skip_while(|own| own.index() != place).skip(1);
            let notes = behind.take_while(|own| own.name() == "NTE");
            Ok(notes.map(SegmentHandle::of).collect())
        })
    })
    .register_fn("cut", |_: &mut MessageHandle, name: SmolStr, lead: SmolStr| {
        with(|current| Ok(cut(current.message.segments(), &name, &lead)))
    })
    .register_fn("cut", |group: &mut GroupHandle, name: SmolStr| {
        with(|current| Ok(cut(group.own(current), &name, "")))
    })
    .register_fn("before", |group: &mut GroupHandle, name: SmolStr| {
        with(|current| {
            let before = group.own(current).take_while(|segment| segment.name() != name.as_str());
            Ok(Arc::new(Tree::flat(before.map(Segment::index).collect())))
        })
    })
    .register_get("name", |group: &mut GroupHandle| SmolStr::from(group.name));
}

/// The segments cut before each one of a name: what stands before the first is in none. The last `lead` that stands
/// before such a segment goes with it.
fn cut<'m>(segments: impl Iterator<Item = Segment<'m>>, name: &str, lead: &str) -> Datum {
    let mut pieces: Vec<Vec<usize>> = Vec::new();
    let mut leading: Option<usize> = None;
    for segment in segments {
        if segment.name() == name {
            pieces.push(leading.take().into_iter().chain([segment.index()]).collect());
        } else if segment.name() == lead {
            leading = Some(segment.index());
        } else if let Some(piece) = pieces.last_mut() {
            piece.push(segment.index());
        }
    }
    pieces.into_iter().map(|piece| Arc::new(Tree::flat(piece))).collect()
}

/// The message as groups, made once.
fn whole(current: &mut Current) -> Arc<Tree> {
    if let Some(tree) = &current.groups {
        return tree.clone();
    }
    let tree = Arc::new(Tree::of(&current.message.groups()));
    current.groups = Some(tree.clone());
    tree
}

/// A segment or a value of the group's own segments.
fn get(group: &Tree, at: &str) -> Result<Datum> {
    let path = path(at)?;
    let name = path.segment_name();
    let nth = path.occurrence.checked_sub(1).ok_or_else(|| fault("occurrences count from 1"))?;
    with(|current| {
        let found = group.own(current).filter(|segment| segment.name() == name).nth(nth).map(Segment::index);
        Ok(segment_value(current, SegmentHandle::at(path.segment, found), &path))
    })
}

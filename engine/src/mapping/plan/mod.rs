//! Plans: segment maps compiled from a script's constant into rows that run natively.
//!
//! A row says which field feeds which element, by which data type and table, and what is set besides. Everything
//! that can be known without a message is checked when the plan is made (`rows`): path, element, type, table,
//! codes. At run time a row reads a slice of the message, converts it, and puts the node where it belongs.

mod rows;

use std::sync::Arc;

use smol_str::SmolStr;

use super::{
    current::{Coverage, Current, bit},
    memory::Reader,
};
use crate::{
    error::nearest,
    fhir::{
        Node, Object, Path as ElementPath, Table, Tables,
        elements::{Type, type_named},
        name::name,
        types::{Cx, result},
    },
    hl7::{Part, Path, Segment, Value},
};

pub(super) use rows::{check_name, fits};

/// A compiled segment map.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The segment that it reads.
    pub segment: SmolStr,
    /// The type that it fills: `Patient`, `Patient.contact`, …
    pub target: &'static Type,
    rows: Vec<Row>,
    reads: u128,
}

#[derive(Debug, Clone)]
struct Row {
    source: Source,
    element: ElementPath,
    put: Put,
    /// What is set beside the value, where nothing stands.
    with: Object,
}

/// How a value comes to its element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    /// Where nothing stands yet.
    Once,
    /// At the end of a list.
    Append,
    /// At the end of a list, unless an identifier of this system and value is in it: several fields may carry one.
    AppendIdentifier,
    /// As one more item of a list on the way.
    Item,
}

#[derive(Clone)]
enum Source {
    Field(Field),
    /// What OBX-5 says, by OBX-2.
    Observed(Path),
    Constant(Node),
}

#[derive(Clone)]
struct Field {
    path: Path,
    /// Each repetition gives a value.
    all: bool,
    read: Read,
    table: Option<Arc<Table>>,
}

/// What a field becomes.
#[derive(Clone, Copy)]
enum Read {
    /// A value of the element.
    Value(Reader),
    /// A resource of its own in the bundle, by this data type, and a reference to it.
    Resource(&'static str),
}

/// One cell of a row as it stands in the script.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Text(String),
    Node(Node),
}

/// What is wrong with a plan, and where: in the call itself, or in a cell of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlanFault {
    pub row: Option<usize>,
    pub cell: Option<usize>,
    pub what: String,
    pub help: Option<String>,
}

/// Where a plan is applied.
pub(super) struct Place<'a> {
    /// The bundle of the run that resources of their own are put into.
    pub bundle: usize,
    /// What is set beside every value, where nothing stands.
    pub with: Option<&'a Object>,
}

impl Plan {
    /// Compiles a segment map. Rows with a fault are left out and told.
    pub fn compile(
        segment: &str,
        target: &str,
        rows: &[Vec<Cell>],
        tables: &Tables,
    ) -> (Option<Self>, Vec<PlanFault>) {
        let Some(target_type) = type_named(target) else {
            let known = crate::fhir::elements::resource_names();
            let help = nearest(target, known).map(|word| format!("did you mean `{word}`?"));
            let what = format!("FHIR R4 has no type `{target}`");
            return (None, vec![PlanFault { row: None, cell: None, what, help }]);
        };
        let mut plan = Self { segment: segment.into(), target: target_type, rows: Vec::new(), reads: 0 };
        let (rows, faults) = plan.read(rows, tables);
        plan.set(rows);
        (Some(plan), faults)
    }

    /// The same map with other rows: each in place of those that feed its element from its field, all before the rest, so
    /// that they win where one value is asked for.
    pub fn with(&self, rows: &[Vec<Cell>], tables: &Tables) -> (Self, Vec<PlanFault>) {
        let (mut rows, faults) = self.read(rows, tables);
        let anew = |old: &Row| {
            rows.iter().any(|row| row.element == old.element && row.source.path() == old.source.path())
        };
        let kept: Vec<Row> = self.rows.iter().filter(|old| !anew(old)).cloned().collect();
        rows.extend(kept);
        let mut plan = self.clone();
        plan.set(rows);
        (plan, faults)
    }

    /// The same map without the rows of these fields; or a field that it has no row of.
    pub fn without(&self, fields: &[String]) -> Result<Self, String> {
        let named = |row: &Row, field: &str| row.source.path().is_some_and(|path| path.to_string() == field);
        let unknown = fields.iter().find(|field| !self.rows.iter().any(|row| named(row, field)));
        if let Some(unknown) = unknown {
            return Err(unknown.clone());
        }
        let mut plan = self.clone();
        plan.set(
            self.rows.iter().filter(|row| !fields.iter().any(|field| named(row, field))).cloned().collect(),
        );
        Ok(plan)
    }

    fn read(&self, rows: &[Vec<Cell>], tables: &Tables) -> (Vec<Row>, Vec<PlanFault>) {
        let (mut sound, mut faults) = (Vec::new(), Vec::new());
        for (number, cells) in rows.iter().enumerate() {
            match rows::row(self, cells, tables) {
                Ok(row) => sound.push(row),
                Err((cell, what, help)) => {
                    faults.push(PlanFault { row: Some(number), cell: Some(cell), what, help })
                }
            }
        }
        (sound, faults)
    }

    fn set(&mut self, rows: Vec<Row>) {
        self.reads = rows.iter().fold(0, |reads, row| reads | row.source.reads());
        self.rows = rows;
    }

    /// Puts what the segment has into the object. An element that already has a value keeps it.
    pub fn apply(&self, segment: Segment<'_>, current: &mut Current, place: &Place<'_>, object: &mut Object) {
        current.coverage.mark(segment.index(), self.reads);
        for row in &self.rows {
            row.apply(segment, current, place, object);
        }
    }

    /// Whether the segment has anything that [`Plan::apply`] would put somewhere. That it was looked at counts as reading.
    pub fn is_told(&self, segment: Segment<'_>, coverage: &Coverage) -> bool {
        coverage.mark(segment.index(), self.reads);
        self.rows.iter().any(|row| match &row.source {
            Source::Field(field) => segment.says(field.path.field),
            Source::Observed(_) | Source::Constant(_) => true,
        })
    }

    /// The fields that feed an element, for error texts.
    pub fn fields_of(&self, element: &str) -> Vec<String> {
        let rows = self.rows.iter().filter(|row| row.element.first() == element);
        rows.filter_map(|row| row.source.path()).map(ToString::to_string).collect()
    }
}

impl Source {
    /// The field, if it is one.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Field(Field { path, .. }) | Self::Observed(path) => Some(path),
            Self::Constant(_) => None,
        }
    }

    /// The fields that it reads, as bits.
    fn reads(&self) -> u128 {
        match self {
            Self::Field(Field { path, .. }) => bit(path.field),
            Self::Observed(path) => {
                [2, 3, path.field, 6].into_iter().fold(0, |bits, field| bits | bit(field))
            }
            Self::Constant(_) => 0,
        }
    }
}

impl Row {
    fn apply(&self, segment: Segment<'_>, current: &mut Current, place: &Place<'_>, object: &mut Object) {
        let field = match &self.source {
            Source::Constant(node) => return self.put(node.clone(), place, object),
            Source::Observed(_) => return result::put_value(segment, &current.cx(None), object),
            Source::Field(field) => field,
        };
        // Most fields of most messages are empty.
        if !segment.says(field.path.field) {
            return;
        }
        let (said, removed) = match field.read {
            Read::Value(reader) => {
                let cx = Cx { segment: Some(segment), ..current.cx(field.table.as_deref()) };
                field.each(segment, |part| {
                    if let Some(node) = reader.read(part, &cx, &current.recall) {
                        self.put(node, place, object);
                    }
                })
            }
            Read::Resource(data_type) => {
                let mut parts: Vec<Part<'_>> = Vec::new();
                let found = field.each(segment, |part| parts.push(part));
                for node in references(data_type, &parts, current, place.bundle) {
                    self.put(node, place, object);
                }
                found
            }
        };
        if removed && !said {
            self.element.clear_unless_taken(object);
        }
    }

    #[inline(never)]
    fn put(&self, mut node: Node, place: &Place<'_>, object: &mut Object) {
        if self.put == Put::Item {
            self.element.put(object, node);
            if let Some(item) = self.element.item_mut(object) {
                self.complete(item, place);
            }
            return;
        }
        if let Node::Object(own) = &mut node {
            self.complete(own, place);
        }
        match self.put {
            Put::Once if self.element.is_taken(object) => {}
            Put::AppendIdentifier if self.has_identifier(&node, object) => {}
            Put::Once | Put::Item => self.element.put(object, node),
            Put::Append | Put::AppendIdentifier => self.element.append(object, node),
        }
    }

    fn complete(&self, object: &mut Object, place: &Place<'_>) {
        object.complete(&self.with);
        if let Some(with) = place.with {
            object.complete(with);
        }
    }

    fn has_identifier(&self, node: &Node, object: &Object) -> bool {
        let Some(Node::Array(known)) = self.element.get(object) else { return false };
        let same = |one: &Node, name| one.at(name) == node.at(name);
        known.iter().any(|one| same(one, name!("value")) && same(one, name!("system")))
    }
}

impl Field {
    /// Does something with each value that the segment has in this field, of one repetition or of all; tells whether there was
    /// any, and whether one was removed.
    fn each<'m>(&self, segment: Segment<'m>, mut work: impl FnMut(Part<'m>)) -> (bool, bool) {
        let (mut said, mut removed) = (false, false);
        let mut take = |value| match value {
            Value::Absent => {}
            Value::Null => removed = true,
            Value::Present(part) => {
                said = true;
                work(part);
            }
        };
        if self.all {
            segment.all(&self.path).for_each(take);
        } else {
            take(segment.get(&self.path));
        }
        (said, removed)
    }
}

/// Puts what the parts of one field name into the bundle; references to it, or names where it has no number.
#[inline(never)]
pub(super) fn references(
    data_type: &'static str,
    parts: &[Part<'_>],
    current: &mut Current,
    bundle: usize,
) -> Vec<Node> {
    if parts.is_empty() {
        return Vec::new();
    }
    let known = current.recall.borrow_mut().named(data_type, parts, &current.cx(None));
    let Some(bundle) = current.bundles.get_mut(bundle) else { return Vec::new() };
    for resource in &known.resources {
        bundle.put(resource.clone());
    }
    known.references.clone()
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field(Field { path, .. }) | Self::Observed(path) => write!(f, "{path}"),
            Self::Constant(_) => f.write_str("="),
        }
    }
}

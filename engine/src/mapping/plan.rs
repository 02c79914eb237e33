//! Plans: segment maps compiled from a script's constant into rows that run natively.
//!
//! A row says which field feeds which element, by which data type and table. Everything that can be known
//! without a message is checked when the plan is made: path, element, type, table, codes. At run time a row
//! reads a slice of the message, converts it, and puts the node where it belongs.

use smol_str::SmolStr;

use super::current::{Current, bit};
use crate::{
    error::nearest,
    fhir::{
        Node, Object, Path as ElementPath, Table, Tables,
        elements::{Element, Type, type_named},
        types::{CONVERTERS, Convert},
    },
    hl7::{
        Path, Segment, Value,
        dictionary::{self, VERSIONS},
    },
};

/// A compiled segment map.
#[derive(Debug)]
pub(super) struct Plan {
    /// The segment that it reads.
    pub segment: SmolStr,
    /// The type that it fills: `Patient`, `Patient.contact`, …
    pub target: &'static Type,
    rows: Vec<Row>,
    reads: u128,
}

#[derive(Debug)]
struct Row {
    source: Source,
    element: ElementPath,
}

enum Source {
    Field { path: Path, all: bool, convert: Convert, table: Option<SmolStr> },
    Constant(Node),
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
            return (
                None,
                vec![PlanFault {
                    row: None,
                    cell: None,
                    what: format!("FHIR R4 has no type `{target}`"),
                    help,
                }],
            );
        };
        let mut faults = Vec::new();
        let mut plan = Self { segment: segment.into(), target: target_type, rows: Vec::new(), reads: 0 };
        for (number, cells) in rows.iter().enumerate() {
            match plan.row(cells, tables) {
                Ok(row) => {
                    if let Source::Field { path, .. } = &row.source {
                        plan.reads |= bit(path.field);
                    }
                    plan.rows.push(row);
                }
                Err((cell, what, help)) => {
                    faults.push(PlanFault { row: Some(number), cell: Some(cell), what, help })
                }
            }
        }
        (Some(plan), faults)
    }

    /// Puts what the segment has into the object. An element that already has a value keeps it.
    pub fn apply(&self, segment: Segment<'_>, current: &mut Current, object: &mut Object) {
        current.coverage.mark(segment.index(), self.reads);
        for row in &self.rows {
            row.apply(segment, current, object);
        }
    }

    /// The fields that feed an element, for error texts.
    pub fn fields_of(&self, element: &str) -> Vec<String> {
        let rows = self.rows.iter().filter(|row| row.element.first() == element);
        rows.filter_map(|row| match &row.source {
            Source::Field { path, .. } => Some(path.to_string()),
            Source::Constant(_) => None,
        })
        .collect()
    }

    fn row(&self, cells: &[Cell], tables: &Tables) -> Result<Row, Wrong> {
        let [Cell::Text(from), Cell::Text(element_text), rest @ ..] = cells else {
            return Err(wrong(
                0,
                "a row is `[field, element, data type]` or `[field, element, data type, table]`",
            ));
        };
        let element =
            ElementPath::parse(self.target.name, element_text).map_err(|error| wrong(1, error.0))?;
        let source = match (from.as_str(), rest) {
            ("=", [value]) => constant(value, &element)?,
            ("=", _) => return Err(wrong(0, "a constant row is `[\"=\", element, value]`")),
            (_, [Cell::Text(data_type)]) => self.field(from, &element, data_type, None, tables)?,
            (_, [Cell::Text(data_type), Cell::Text(table)]) => {
                self.field(from, &element, data_type, Some(table), tables)?
            }
            _ => {
                return Err(wrong(
                    0,
                    "a row is `[field, element, data type]` or `[field, element, data type, table]`",
                ));
            }
        };
        Ok(Row { source, element })
    }

    fn field(
        &self,
        from: &str,
        element: &ElementPath,
        data_type: &str,
        table: Option<&str>,
        tables: &Tables,
    ) -> Result<Source, Wrong> {
        let path = Path::parse(from).map_err(|error| wrong(0, error.to_string()))?;
        if path.segment_name() != self.segment {
            return Err(wrong(0, format!("`{from}` is not in {}, the segment of this map", self.segment)));
        }
        if path.field == 0 {
            return Err(wrong(0, format!("`{from}` names no field")));
        }
        let Some(target) = element.element() else {
            return Err(wrong(1, "the twin of a primitive takes no field: say its extension"));
        };
        let convert = converter(data_type, target)?;
        check_field(&path, data_type)?;
        let table = table.map(|name| known_table(name, tables)).transpose()?;
        check_codes(target, data_type, table)?;
        let all = element.is_list() && !from.contains('[');
        Ok(Source::Field { path, all, convert, table: table.map(|table| table.name().into()) })
    }
}

impl Row {
    fn apply(&self, segment: Segment<'_>, current: &Current, object: &mut Object) {
        match &self.source {
            Source::Constant(node) => self.put(node.clone(), object),
            Source::Field { path, all: true, convert, table } => {
                let table = table.as_ref().and_then(|name| current.tables.get(name));
                let cx = current.cx(table);
                for value in segment.repetitions(path.field) {
                    if let Value::Present(part) = descend(value, path)
                        && let Some(node) = convert(part, &cx)
                    {
                        self.element.append(object, node);
                    }
                }
            }
            Source::Field { path, all: false, convert, table } => {
                let Value::Present(part) = descend(segment.repetition(path.field, path.repetition), path)
                else {
                    return;
                };
                let table = table.as_ref().and_then(|name| current.tables.get(name));
                if let Some(node) = convert(part, &current.cx(table)) {
                    self.put(node, object);
                }
            }
        }
    }

    fn put(&self, node: Node, object: &mut Object) {
        if self.element.is_list() {
            self.element.append(object, node);
        } else if self.element.get(object).is_none_or(Node::is_empty) {
            self.element.put(object, node);
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field { path, .. } => write!(f, "{path}"),
            Self::Constant(_) => f.write_str("="),
        }
    }
}

/// A cell's number, what is wrong with it, and what to do.
type Wrong = (usize, String, Option<String>);

fn wrong(cell: usize, what: impl Into<String>) -> Wrong {
    (cell, what.into(), None)
}

fn descend<'m>(value: Value<'m>, path: &Path) -> Value<'m> {
    let value = path.component.map_or(value, |number| value.component(number));
    path.subcomponent.map_or(value, |number| value.subcomponent(number))
}

/// The converter of a name that gives what the element takes.
fn converter(data_type: &str, element: &Element) -> Result<Convert, Wrong> {
    let mut gives = Vec::new();
    for converter in CONVERTERS.iter().filter(|converter| converter.name == data_type) {
        if fits(converter.to, element.type_name) {
            return Ok(converter.convert);
        }
        gives.push(converter.to);
    }
    if gives.is_empty() {
        let help = nearest(data_type, CONVERTERS.iter().map(|converter| converter.name));
        let help = help.map(|word| format!("did you mean `{word}`?"));
        return Err((2, format!("there is no data type `{data_type}`"), help));
    }
    gives.dedup();
    Err(wrong(
        2,
        format!(
            "`{data_type}` gives {}, but `{}` takes {}",
            gives.join(" or "),
            element.name,
            element.type_name
        ),
    ))
}

/// A field that the standard does not have, or has as something else, is a slip of the pen. Z segments are free;
/// a field that a site adds to a standard segment can be read by a script.
fn check_field(path: &Path, data_type: &str) -> Result<(), Wrong> {
    let segment = path.segment_name();
    if segment.starts_with('Z') {
        return Ok(());
    }
    if !dictionary::has_segment(segment) {
        return Err(wrong(0, format!("HL7 v2 has no segment `{segment}`")));
    }
    let Some(field) = dictionary::field(None, segment, path.field) else {
        let last = dictionary::fields(None, segment).last().map_or(0, |field| field.number);
        return Err(wrong(0, format!("{segment} has no field {}: the last is {segment}-{last}", path.field)));
    };
    let mut types: Vec<&str> = VERSIONS
        .iter()
        .filter_map(|version| dictionary::field(Some(version), segment, path.field))
        .map(|found| found.data_type)
        .collect();
    if let Some(number) = path.component {
        let parts = types
            .iter()
            .filter_map(|name| dictionary::component(None, name, number))
            .map(|part| part.data_type)
            .collect::<Vec<_>>();
        if parts.is_empty() && types.iter().all(|name| dictionary::has_components(name)) {
            return Err(wrong(
                0,
                format!(
                    "{}, the type of {segment}-{}, has no component {number}",
                    field.data_type, path.field
                ),
            ));
        }
        types = parts;
    }
    if path.subcomponent.is_some()
        || types.is_empty()
        || types.iter().any(|standard| reads(data_type, standard))
    {
        return Ok(());
    }
    Err(wrong(
        2,
        format!("{path} is {} in the standard, not {data_type}", types.last().unwrap_or(&"something else")),
    ))
}

/// Whether a converter's name reads a data type of the standard. Plain texts and numbers read everything.
fn reads(name: &str, standard: &str) -> bool {
    const FAMILIES: [&[&str]; 7] = [
        &["CX", "CK", "EI", "EIP", "HD"],
        &["XPN", "PN"],
        &["XCN", "CN", "PPN", "NDL"],
        &["XAD", "AD", "SAD"],
        &["XTN", "TN"],
        &["CE", "CWE", "CNE", "CF", "IS", "ID", "ST"],
        &["DTM", "TS", "DT", "TM", "DR", "date", "dateTime", "instant", "birth-time", "TQ"],
    ];
    let known = FAMILIES.iter().filter(|family| family.contains(&name));
    let mut known = known.peekable();
    // What is typed by another field, or by nothing that lasted, may be read as anything.
    known.peek().is_none()
        || matches!(standard, "varies" | "ST" | "" | "*")
        || standard.starts_with("CM")
        || !FAMILIES.iter().any(|family| family.contains(&standard))
        || known.any(|family| family.contains(&standard))
}

/// Whether what a converter gives may stand where a type is asked for.
pub(super) fn fits(given: &str, wanted: &str) -> bool {
    given == wanted
        || match given {
            "string" => {
                matches!(wanted, "markdown" | "uri" | "url" | "canonical" | "code" | "id" | "oid" | "xhtml")
            }
            "code" | "uri" | "id" | "markdown" => {
                matches!(wanted, "string" | "markdown" | "uri" | "url" | "canonical" | "id")
            }
            "date" => wanted == "dateTime",
            "Quantity" => matches!(
                wanted,
                "Age" | "Count" | "Distance" | "Duration" | "SimpleQuantity" | "MoneyQuantity"
            ),
            "positiveInt" | "unsignedInt" => wanted == "integer",
            _ => false,
        }
}

fn known_table<'t>(name: &str, tables: &'t Tables) -> Result<&'t Table, Wrong> {
    tables.get(name).ok_or_else(|| {
        let help = match nearest(name, tables.names()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("write mappings/tables/{name}.csv"),
        };
        (3, format!("there is no table `{name}`"), Some(help))
    })
}

/// A code with a required binding needs a table, and the table may give nothing else.
fn check_codes(element: &Element, data_type: &str, table: Option<&Table>) -> Result<(), Wrong> {
    let Some(codes) = element.codes.filter(|_| element.type_name == "code") else { return Ok(()) };
    let Some(table) = table else {
        let what = format!(
            "`{}` takes only {}: name the table that gives them",
            element.name,
            element.codes_in_words()
        );
        return Err(wrong(2, what))
            .or_else(|error| if matches!(data_type, "code" | "string") { Err(error) } else { Ok(()) });
    };
    let mut bad: Vec<_> = table.codes().map(|(_, code)| code).filter(|code| !codes.contains(code)).collect();
    bad.sort_unstable();
    match bad.first() {
        None => Ok(()),
        Some(code) => Err(wrong(
            3,
            format!(
                "the table `{}` gives `{code}`, but `{}` takes only {}",
                table.name(),
                element.name,
                element.codes_in_words()
            ),
        )),
    }
}

fn constant(value: &Cell, element: &ElementPath) -> Result<Source, Wrong> {
    let node = match value {
        Cell::Text(text) => Node::text(text.as_str()),
        Cell::Node(node) => node.clone(),
    };
    let node = element.element().map_or(node.clone(), |target| target.shaped(node));
    let mut probe = Object::new();
    element
        .set(&mut probe, node.clone())
        .map_err(|fault| wrong(2, format!("`{}` {}", element.last(), fault.what)))?;
    Ok(Source::Constant(node))
}

//! Rows of a segment map: read from the cells of a script and checked against what HL7, FHIR and the tables say.

use std::sync::Arc;

use super::{super::memory::Reader, Cell, Field, Plan, Put, Read, Row, Source};
use crate::{
    error::nearest,
    fhir::{
        Node, Object, Path as ElementPath, Table, Tables,
        elements::{Element, Fault},
        types::{CONVERTERS, resources::NAMED},
    },
    hl7::{
        Path,
        dictionary::{self, VERSIONS},
    },
};

const SHAPE: &str =
    "a row is `[field, element, data type]`, then perhaps a table, then perhaps a map of what is set besides";

/// Reads one row of the map.
pub(super) fn row(plan: &Plan, cells: &[Cell], tables: &Tables) -> Result<Row, Wrong> {
    let [Cell::Text(from), Cell::Text(element), rest @ ..] = cells else { return Err(wrong(0, SHAPE)) };
    if element == "value[x]" {
        return observed(plan, from, rest);
    }
    let element = ElementPath::parse(plan.target.name, element).map_err(|error| wrong(1, error.0))?;
    let (source, with) = match (from.as_str(), rest) {
        ("=", [value]) => (constant(value, &element)?, Object::new()),
        ("=", _) => return Err(wrong(0, "a constant row is `[\"=\", element, value]`")),
        (_, [Cell::Text(data_type)]) => {
            (field(plan, from, &element, data_type, None, tables)?, Object::new())
        }
        (_, [Cell::Text(data_type), Cell::Text(table)]) => {
            (field(plan, from, &element, data_type, Some(table), tables)?, Object::new())
        }
        (_, [Cell::Text(data_type), Cell::Node(with)]) => {
            (field(plan, from, &element, data_type, None, tables)?, besides(with, 3, &element)?)
        }
        (_, [Cell::Text(data_type), Cell::Text(table), Cell::Node(with)]) => {
            (field(plan, from, &element, data_type, Some(table), tables)?, besides(with, 4, &element)?)
        }
        _ => return Err(wrong(0, SHAPE)),
    };
    let is_identifier = element.element().type_name == "Identifier";
    let put = match (element.item_type(), element.is_list()) {
        (Some(_), _) => Put::Item,
        (None, true) if is_identifier => Put::AppendIdentifier,
        (None, true) => Put::Append,
        (None, false) => Put::Once,
    };
    Ok(Row { source, element, put, with: with.parts_in_common() })
}

/// The row `["OBX-5", "value[x]", "varies"]`.
fn observed(plan: &Plan, from: &str, rest: &[Cell]) -> Result<Row, Wrong> {
    let varies = matches!(rest, [Cell::Text(data_type)] if data_type == "varies");
    if from != "OBX-5" || plan.segment != "OBX" || plan.target.name != "Observation" || !varies {
        let what = "a choice is filled by `[\"OBX-5\", \"value[x]\", \"varies\"]` alone; elsewhere name one of its shapes";
        return Err(wrong(1, what));
    }
    let path = Path::parse(from).map_err(|error| wrong(0, error.to_string()))?;
    let element = ElementPath::parse("Observation", "valueString").map_err(|error| wrong(1, error.0))?;
    Ok(Row { source: Source::Observed(path), element, put: Put::Once, with: Object::new() })
}

fn field(
    plan: &Plan,
    from: &str,
    element: &ElementPath,
    data_type: &str,
    table: Option<&str>,
    tables: &Tables,
) -> Result<Source, Wrong> {
    let path = Path::parse(from).map_err(|error| wrong(0, error.to_string()))?;
    if path.segment_name() != plan.segment {
        return Err(wrong(0, format!("`{from}` is not in {}, the segment of this map", plan.segment)));
    }
    if path.field == 0 {
        return Err(wrong(0, format!("`{from}` names no field")));
    }
    let target = element.element();
    let read = read(data_type, target)?;
    check_field(&path, data_type)?;
    let table = table.map(|name| known_table(name, tables)).transpose()?;
    check_codes(target, data_type, table.as_deref())?;
    let all = (element.is_list() || element.item_type().is_some()) && !from.contains('[');
    Ok(Source::Field(Field { path, all, read, table }))
}

/// What is set beside the values of a row: elements of the item that the row makes, or of the value itself.
fn besides(node: &Node, cell: usize, element: &ElementPath) -> Result<Object, Wrong> {
    let own = || element.element().kind();
    let Some(target) = element.item_type().or_else(own) else {
        return Err(wrong(cell, format!("`{}` has no elements of its own to set besides", element.last())));
    };
    let Node::Object(object) = node.clone() else {
        return Err(wrong(cell, "what is set besides is a map: `#{ use: \"home\" }`"));
    };
    let object = target.shaped(object);
    for (name, node) in object.iter() {
        let found = target.element(name).ok_or_else(|| wrong(cell, target.unknown(name)))?;
        found.check(node).map_err(|Fault { path, what }| {
            let below = if path.is_empty() { String::new() } else { format!(" at `{path}`") };
            wrong(cell, format!("`{name}`{below} {what}"))
        })?;
    }
    Ok(object)
}

/// How a data type is read for an element: as a resource that the element refers to, or as its value.
fn read(data_type: &str, element: &Element) -> Result<Read, Wrong> {
    let named = NAMED.iter().find(|(name, _)| *name == data_type && element.type_name == "Reference");
    let Some((name, resource)) = named else { return converter(data_type, element).map(Read::Value) };
    if element.targets.is_empty() || element.targets.contains(resource) {
        return Ok(Read::Resource(name));
    }
    let takes = element.targets.join(" or ");
    Err(wrong(2, format!("`{name}` refers to {resource}, but `{}` takes {takes}", element.name)))
}

/// A cell's number, what is wrong with it, and what to do.
type Wrong = (usize, String, Option<String>);

fn wrong(cell: usize, what: impl Into<String>) -> Wrong {
    (cell, what.into(), None)
}

/// The converter of a name that gives what the element takes.
fn converter(data_type: &str, element: &Element) -> Result<Reader, Wrong> {
    let mut gives = Vec::new();
    for converter in CONVERTERS.iter().filter(|converter| converter.name == data_type) {
        if fits(converter.to, element.type_name) {
            return Ok(Reader::of(converter));
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
    let Some(field) = check_name(segment, path.field).map_err(|what| wrong(0, what))? else { return Ok(()) };
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

/// The field of a segment in the standard; none in a Z segment, or for the segment as a whole (0).
pub(in super::super) fn check_name(
    segment: &str,
    number: usize,
) -> Result<Option<dictionary::Member>, String> {
    if segment.starts_with('Z') {
        return Ok(None);
    }
    if !dictionary::has_segment(segment) {
        return Err(format!("HL7 v2 has no segment `{segment}`"));
    }
    if number == 0 {
        return Ok(None);
    }
    let found = dictionary::field(None, segment, number);
    found.map(Some).ok_or_else(|| {
        let last = dictionary::fields(None, segment).last().map_or(0, |field| field.number);
        format!("{segment} has no field {number}: the last is {segment}-{last}")
    })
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
pub(in super::super) fn fits(given: &str, wanted: &str) -> bool {
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

fn known_table(name: &str, tables: &Tables) -> Result<Arc<Table>, Wrong> {
    tables.shared(name).ok_or_else(|| {
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
    let node = element.element().shaped(node);
    let mut probe = Object::new();
    element
        .set(&mut probe, node.clone())
        .map_err(|fault| wrong(2, format!("`{}` {}", element.last(), fault.what)))?;
    Ok(Source::Constant(node.in_common()))
}

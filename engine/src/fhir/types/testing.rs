//! What the tests of the converters share: a converter by name, on one field of a message of the trust RXX.

use std::{cell::RefCell, path::Path};

use bytes::Bytes;
use jiff::tz::TimeZone;

use super::{CONVERTERS, Cx, Finding, Tables, document, resources};
use crate::{
    fhir::{Node, Table},
    hl7::{Message, Part},
};

/// The converter gives this JSON for the field; nothing where `expected` is empty. Any target where `to` is empty.
pub fn check(name: &str, to: &str, raw: &str, expected: &str) {
    assert_eq!(run(None, name, to, raw).0, expected, "{name} of {raw}");
}

/// The same with a table named for the field.
pub fn check_with(table: &str, name: &str, to: &str, raw: &str, expected: &str) {
    assert_eq!(run(Some(table), name, to, raw).0, expected, "{name} of {raw}");
}

/// The same in a message of another sending facility.
pub fn check_from(facility: &str, name: &str, raw: &str, expected: &str) {
    assert_eq!(
        run_from(&format!("{facility}|ROUTE|ROUTE|20260115093000|"), None, name, "", raw).0,
        expected,
        "{name} of {raw} from {facility}"
    );
}

/// The same in a message that was made at another time (MSH-7).
pub fn check_sent_at(sent: &str, name: &str, raw: &str, expected: &str) {
    let header = format!("RXX|ROUTE|ROUTE|{sent}|");
    assert_eq!(run_from(&header, None, name, "", raw).0, expected, "{name} of {raw} sent at {sent}");
}

/// What the converter reports.
pub fn findings_of(name: &str, to: &str, raw: &str) -> Vec<String> {
    run(None, name, to, raw).1
}

/// What the converter reports with a table named for the field.
pub fn findings(table: &str, name: &str, to: &str, raw: &str) -> Vec<String> {
    run(Some(table), name, to, raw).1
}

/// The document that the pieces make.
pub fn join(pieces: &[&str]) -> String {
    let segments: String = pieces.iter().map(|piece| format!("OBX||ED|||{piece}\r")).collect();
    on("RXX|ROUTE|ROUTE|20260115093000|", &segments, |message, cx| {
        let parts: Vec<Part<'_>> =
            message.segments_named("OBX").filter_map(|obx| obx.field(5).part()).collect();
        json(document::joined(&parts, cx))
    })
    .0
}

/// What the repetitions of the field name.
pub fn name_all(data_type: &str, raw: &str) -> Vec<resources::Named> {
    let mut found = Vec::new();
    on("RXX|ROUTE|ROUTE|20260115093000|", &format!("ZZZ|{raw}\r"), |message, cx| {
        let parts: Vec<_> = message.segment("ZZZ").into_iter().flat_map(|zzz| zzz.repetitions(1)).collect();
        let parts: Vec<_> = parts.into_iter().filter_map(crate::hl7::Value::part).collect();
        found = resources::named(data_type, &parts, cx).expect("there is such a data type");
        String::new()
    });
    found
}

fn run(table: Option<&str>, name: &str, to: &str, raw: &str) -> (String, Vec<String>) {
    run_from("RXX|ROUTE|ROUTE|20260115093000|", table, name, to, raw)
}

fn run_from(header: &str, table: Option<&str>, name: &str, to: &str, raw: &str) -> (String, Vec<String>) {
    let found =
        CONVERTERS.iter().find(|converter| converter.name == name && (to.is_empty() || converter.to == to));
    let convert = found.expect("there is such a converter").convert;
    on(header, &format!("ZZZ|{raw}\r"), |message, cx| {
        let table = table.map(|table| cx.tables.get(table).expect("there is such a table"));
        let cx =
            Cx { message, zone: cx.zone, tables: cx.tables, table, segment: None, findings: cx.findings };
        let part = message.segment("ZZZ").and_then(|segment| segment.field(1).part());
        json(part.and_then(|part| convert(part, &cx)))
    })
}

fn on(header: &str, segments: &str, work: impl FnOnce(&Message, &Cx<'_>) -> String) -> (String, Vec<String>) {
    let raw = format!("MSH|^~\\&|PAS|{header}|ADT^A01|1|P|2.4|||||GBR|UNICODE UTF-8\r{segments}");
    let message = Message::parse(Bytes::from(raw), encoding_rs::UTF_8).expect("the message parses");
    let (zone, tables) = (TimeZone::get("Europe/London").expect("the zone is known"), tables());
    let findings = RefCell::default();
    let cx = Cx {
        message: &message,
        zone: &zone,
        tables: &tables,
        table: None,
        segment: None,
        findings: &findings,
    };
    let done = work(&message, &cx);
    (done, findings.take().into_iter().map(words).collect())
}

fn words(finding: Finding) -> String {
    match finding {
        Finding::Unmapped { table, .. } => format!("a code is not in {table}"),
        Finding::Remark(text) => text.to_string(),
        Finding::Doubtful(text) => text.to_owned(),
    }
}

fn json(node: Option<Node>) -> String {
    node.map(|node| String::from_utf8(node.to_json()).expect("JSON is UTF-8")).unwrap_or_default()
}

/// The shipped tables that converters use.
fn tables() -> Tables {
    let mut tables = Tables::default();
    macro_rules! take {
        ($($name:literal),*) => {$(
            let text = include_str!(concat!("../../../../mappings/tables/", $name, ".csv"));
            tables.insert(Table::parse($name, Path::new($name), text).expect("the shipped table parses"));
        )*};
    }
    take!(
        "address-use",
        "administrative-sex",
        "assigning-authorities",
        "coding-systems",
        "ethnic-category",
        "identifier-type",
        "interpretation",
        "marital-status",
        "name-use",
        "nhs-number-status",
        "relationship",
        "telecom-system",
        "telecom-use",
        "units",
        "yes-no"
    );
    tables
}

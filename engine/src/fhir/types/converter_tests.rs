//! What the tests of the converters share: a converter by name, on one field of a message of the trust RXX.

use std::{ffi::OsStr, fs, sync::LazyLock};

use bytes::Bytes;
use jiff::tz::TimeZone;

use super::{CONVERTERS, Cx, Finding, Tables, document, resources};
use crate::{
    fhir::{Node, Table},
    hl7::{Message, Part},
};

/// The header of the messages, from the sending facility to the time that it was made.
const HEADER: &str = "RXX|ROUTE|ROUTE|20260115093000|";

/// The converter gives this JSON for the field; nothing where `expected` is empty. Any target where `to` is empty.
pub fn check(name: &str, to: &str, raw: &str, expected: &str) {
    assert_eq!(run(None, name, to, raw).0, expected, "{name} of {raw}");
}

/// The files of `testdata/datatypes`: the field, ` => `, the JSON. A line without an arrow says of those below it which
/// converter it is, what it gives and which table is named for the field; or from whom the message is, and of what time.
#[test]
fn each_data_type_gives_what_testdata_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/datatypes");
    let mut checked = 0;
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let text = fs::read_to_string(entry.expect("the folder can be read").path());
        checked += check_all(&text.expect("the file can be read"));
    }
    assert!(checked > 100, "{checked} fields");
}

/// How many fields there were.
fn check_all(lines: &str) -> usize {
    let (mut header, mut heading, mut checked) = (HEADER, Vec::new(), 0);
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match (line.split_once(" =>"), heading.as_slice()) {
            _ if line.starts_with("# ") => header = HEADER,
            (None, _) if line.contains('|') => header = line,
            (None, _) => heading = line.split(' ').collect(),
            (Some((raw, expected)), [name, to, table @ ..]) => {
                let given = run_from(header, table.first().copied(), name, to, raw).0;
                assert_eq!(given, expected.trim(), "{name} of {raw}");
                checked += 1;
            }
            (Some(_), _) => panic!("no converter stands above {line}"),
        }
    }
    checked
}

/// What the converter reports, with a table named for the field where there is one.
pub fn findings(table: Option<&str>, name: &str, to: &str, raw: &str) -> Vec<String> {
    run(table, name, to, raw).1
}

/// The document that the pieces make.
pub fn join(pieces: &[&str]) -> String {
    let segments: String = pieces.iter().map(|piece| format!("OBX||ED|||{piece}\r")).collect();
    on(HEADER, &segments, |message, cx| {
        let parts: Vec<Part<'_>> =
            message.segments_named("OBX").filter_map(|obx| obx.field(5).part()).collect();
        json(document::joined(&parts, cx))
    })
    .0
}

/// What the repetitions of the field name.
pub fn name_all(data_type: &str, raw: &str) -> Vec<resources::Named> {
    let mut found = Vec::new();
    on(HEADER, &format!("ZZZ|{raw}\r"), |message, cx| {
        let parts: Vec<_> = message.segment("ZZZ").into_iter().flat_map(|zzz| zzz.repetitions(1)).collect();
        let parts: Vec<_> = parts.into_iter().filter_map(crate::hl7::Value::part).collect();
        found = resources::named(data_type, &parts, cx).expect("there is such a data type");
        String::new()
    });
    found
}

fn run(table: Option<&str>, name: &str, to: &str, raw: &str) -> (String, Vec<String>) {
    run_from(HEADER, table, name, to, raw)
}

fn run_from(header: &str, table: Option<&str>, name: &str, to: &str, raw: &str) -> (String, Vec<String>) {
    let found =
        CONVERTERS.iter().find(|converter| converter.name == name && (to.is_empty() || converter.to == to));
    let convert = found.expect("there is such a converter").convert;
    on(header, &format!("ZZZ|{raw}\r"), |message, cx| {
        let table = table.map(|table| cx.tables.get(table).expect("there is such a table"));
        let cx = Cx { table, is_of_one_message: false.into(), ..*cx };
        let part = message.segment("ZZZ").and_then(|segment| segment.field(1).part());
        json(part.and_then(|part| convert(part, &cx)))
    })
}

pub(crate) fn on(
    header: &str,
    segments: &str,
    work: impl FnOnce(&Message, &Cx<'_>) -> String,
) -> (String, Vec<String>) {
    let raw = format!("MSH|^~\\&|PAS|{header}|ADT^A01|1|P|2.4|||||GBR|UNICODE UTF-8\r{segments}");
    let message = Message::parse(Bytes::from(raw), encoding_rs::UTF_8).expect("the message parses");
    let zone = TimeZone::get("Europe/London").expect("the zone is known");
    let (findings, of_message) = Default::default();
    let cx = Cx {
        message: &message,
        zone: &zone,
        tables: &TABLES,
        table: None,
        segment: None,
        of_message: &of_message,
        findings: &findings,
        is_of_one_message: false.into(),
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

/// The shipped tables.
static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let mut tables = Tables::default();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../mappings/tables");
    for entry in fs::read_dir(folder).expect("the folder of the shipped tables is there") {
        let file = entry.expect("the folder can be read").path();
        let name = file.file_stem().and_then(OsStr::to_str).expect("the name of a table is plain");
        let text = fs::read_to_string(&file).expect("the shipped table can be read");
        tables.insert(Table::parse(name, &file, &text).expect("the shipped table parses"));
    }
    tables
});

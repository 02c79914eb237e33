//! `tie coverage` and `tie check` over a trust's own folder, on the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

const CONFIG: &str = "environment = 'test'\nmappings = ['trust', 'mappings']\njournal.path = 'journal'\n\
    [listener.hospital]\nkind = 'mllp'\nlisten = '127.0.0.1:0'\n\
    [destination.record]\nkind = 'fhir'\nbase = 'http://127.0.0.1:1/fhir'\n";
const ROUTE: &str =
    "from = 'hospital'\naccept = { trigger = 'ADT' }\nmap = 'small'\n[[to]]\ndestination = 'record'\n";
const SCRIPT: &str = r#"const NOT_MAPPED = ignored([["PID-7", "PV1", "of no use here"]]);
fn map(msg) {
    if msg["PID-3"].is_absent { reject("no number"); }
    #{ resourceType: "Patient", id: "p1", gender: gender(msg["PID-8"].text) }
}
fn gender(sex) { if sex == "F" { "female" } else { "male" } }
"#;
const MESSAGES: [(&str, &str); 4] = [
    (
        "one.hl7",
        "MSH|^~\\&|PAS|RXX|||20260301||ADT^A01|1|P|2.4\rPID|1||7||OAKLEY|X|1965|F\rPV1|1|I\rZX1|a|b\r",
    ),
    ("below/two.hl7", "MSH|^~\\&|PAS|RXX|||20260301||ADT^A08|2|P|2.4\rPID|1||||OAKLEY\r"),
    ("three.hl7", "MSH|^~\\&|LAB|RXX|||20260301||ORU^R01|3|P|2.4\rPID|1||7\r"),
    ("note.txt", "no message"),
];

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let file = home.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write("tie.toml", CONFIG);
    write("routes/adt.toml", ROUTE);
    write("mappings/small.rhai", SCRIPT);
    write("trust/small.rhai", "fn gender(sex) { \"unknown\" }\n");
    MESSAGES.iter().for_each(|(file, text)| write(&format!("samples/{file}"), text));
    home
}

fn tie(home: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tie")).current_dir(home).args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn coverage_counts_what_is_read_ignored_and_not_looked_at() {
    let home = home();
    let (code, out) = tie(home.path(), &["coverage", "--json", "samples"]);
    assert_eq!(code, 0, "{out}");
    let told: Value = serde_json::from_str(&out).unwrap();
    for (name, count) in [
        ("files", 3),
        ("messages", 3),
        ("mapped", 1),
        ("rejected", 1),
        ("without_route", 1),
        // MSH: 9 of which MSH-7 is not read; PID-1, 3, 5, 6, 7 and 8; PV1-1 and 2.
        ("valued_fields", 17),
        ("read_or_ignored", 14),
        ("fields_of_other_segments", 2),
    ] {
        assert_eq!(told[name], count, "{name} of {out}");
    }
    let pid = told["kinds"][0]["segments"].as_array().unwrap().iter().find(|one| one["segment"] == "PID");
    assert_eq!(pid.unwrap()["unread"], serde_json::json!({ "PID-5": 1, "PID-6": 1 }));
    assert_eq!(told["reasons"], serde_json::json!({ "no number": 1 }));
    let (_, table) = tie(home.path(), &["coverage", "samples"]);
    assert!(table.contains("14 of 17 valued fields are read or left out on purpose (82.4%)"), "{table}");
    assert!(table.contains("| ADT^A01 | small | 1 | 17 | 82.4% | MSH-7 ×1, PID-5 ×1, PID-6 ×1 |"), "{table}");
}

/// An element that a mapping asks for and makes nothing of is not covered.
#[test]
fn of_fhir_elements_are_counted_that_make_a_difference() {
    let home = home();
    let write = |file: &str, text: &str| fs::write(home.path().join(file), text).unwrap();
    write("routes/fhir.toml", &ROUTE.replace("'ADT'", "'FHIR^Observation'").replace("small", "results"));
    write(
        "mappings/results.rhai",
        r#"const NOT_MAPPED = ignored([["id", "of no use here"]]);
        fn map(msg) {
            let o = msg.resource;
            o.text("method.text");
            let out = hl7();
            out.append("OBX");
            out.set("OBX-5", o.get("valueString"));
            out
        }"#,
    );
    write(
        "samples/four.fhir",
        r#"{"resourceType":"Observation","id":"1","status":"final","valueString":"x","method":{"text":"y"}}"#,
    );
    let (code, table) = tie(home.path(), &["coverage", "samples/four.fhir"]);
    assert_eq!(code, 0, "{table}");
    let row =
        "| FHIR^Observation | results | 1 | 4 | 50.0% | Observation.method.text ×1, Observation.status ×1 |";
    assert!(table.contains(row), "{table}");
    let (_, out) = tie(home.path(), &["map", "results", "--coverage", "--json", "samples/four.fhir"]);
    assert!(out.contains(r#""unread":["Observation.status","Observation.method.text"]"#), "{out}");
}

#[test]
fn check_lists_what_goes_before_the_shipped_mappings() {
    let home = home();
    let (code, out) = tie(home.path(), &["check"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("trust/small.rhai goes before mappings/small.rhai: fn gender(sex)\n"), "{out}");
    let (_, out) = tie(home.path(), &["map", "small", "samples/one.hl7"]);
    assert!(out.contains("\"gender\": \"unknown\""), "{out}");
}

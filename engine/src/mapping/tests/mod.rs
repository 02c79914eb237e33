//! Scripts as their authors write them, and what they give or say.

#![allow(clippy::too_many_lines)] // what is expected of a script is data

mod bounds;
mod compiling;
mod fhir;
mod making;
mod programs;
mod removals;
mod tables;

use expect_test::{Expect, expect};

use super::*;
use crate::hl7::Message;

const ADT: &str = "MSH|^~\\&|PAS|RXX|TIE|TIE|20260115093000||ADT^A01^ADT_A01|C1|P|2.4\r\
    EVN||20260115093000\r\
    PID|1||9991001018^^^NHS~1000001^^^RXX||OAKLEY^FREDA^JANE~SCHMIDT^FREDA||19651213|F|||||||||||||||||||||\"\"|N\r\
    PV1|1|I|MAU^WARD7^BED04|21|||C9999991^DARWIN\r\
    NK1|1|OAKLEY^ALBERT\r";

const SEX: &str =
    "from,code,system,display\nF,female,http://hl7.org/fhir/administrative-gender,Female\nM,male,,\n";

const PATIENT: &str = r#"
const PATIENT = segment_map("PID", "Patient", [
    ["PID-3", "identifier", "CX"],
    ["PID-5", "name",       "XPN"],
    ["PID-7", "birthDate",  "date"],
    ["PID-8", "gender",     "code", "administrative-sex"],
]);
"#;

fn files(scripts: &[(&str, &str)]) -> Files {
    let mut files: Files =
        scripts.iter().map(|(path, text)| (PathBuf::from(path), Arc::from(*text))).collect();
    files.insert("mappings/tables/administrative-sex.csv".into(), SEX.into());
    files
}

fn message(text: &str) -> Arc<Message> {
    Arc::new(Message::parse(text.to_owned().into(), encoding_rs::WINDOWS_1252).unwrap())
}

fn context() -> Context {
    Context {
        received: "2026-01-15T09:30:01Z".parse().unwrap(),
        zone: TimeZone::get("Europe/London").unwrap(),
        environment: "test".into(),
        revision: "sample".into(),
        coverage: false,
    }
}

/// The places that nobody looked at.
fn unread(product: &Product) -> Vec<String> {
    product.unread().into_iter().map(ToString::to_string).collect()
}

fn run_with(scripts: &[(&str, &str)], text: &str, limits: &Limits) -> String {
    let mappings = match Mappings::compile(&files(scripts), limits) {
        Ok(mappings) => mappings,
        Err(problems) => return problems.iter().map(|problem| format!("{problem}\n")).collect(),
    };
    let one = told(&mappings, text);
    assert_eq!(one, told(&mappings, text), "the same message and revision give the same output");
    one
}

fn told(mappings: &Mappings, text: &str) -> String {
    let product = match mappings.run("adt", &message(text), &context()) {
        Ok(product) => product,
        Err(error) => return format!("error: {error}\n"),
    };
    let mut out = String::new();
    match product.mapped {
        Mapped::Outputs(payloads) => {
            for payload in payloads {
                let json: serde_json::Value = serde_json::from_slice(payload.bytes()).unwrap();
                out += &format!("{}\n", serde_json::to_string_pretty(&json).unwrap());
            }
        }
        other => out += &format!("{other:?}\n"),
    }
    for finding in product.findings {
        out += &format!("{finding:?}\n");
    }
    out
}

/// Runs `adt.rhai` with the patient map and this text after it.
fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run_with(
        &[("mappings/adt.rhai", &format!("{PATIENT}{script}"))],
        ADT,
        &Limits::default(),
    ));
}

#[test]
fn a_segment_map_makes_a_patient() {
    check(
        r#"fn map(msg) {
    let out = bundle();
    let p = out.put(PATIENT, msg["PID"]);
    p.set("active", true);
    out
}"#,
        expect![[r#"
            {
              "resourceType": "Bundle",
              "type": "transaction",
              "entry": [
                {
                  "fullUrl": "urn:uuid:a61a5010-3f8d-5041-99b8-2d281ae5b5a5",
                  "resource": {
                    "resourceType": "Patient",
                    "id": "a61a5010-3f8d-5041-99b8-2d281ae5b5a5",
                    "identifier": [
                      {
                        "system": "https://fhir.nhs.uk/Id/nhs-number",
                        "value": "9991001018"
                      },
                      {
                        "system": "urn:tie:authority:RXX:RXX",
                        "value": "1000001",
                        "assigner": {
                          "display": "RXX"
                        }
                      }
                    ],
                    "name": [
                      {
                        "use": "usual",
                        "family": "OAKLEY",
                        "given": [
                          "FREDA",
                          "JANE"
                        ]
                      },
                      {
                        "use": "usual",
                        "family": "SCHMIDT",
                        "given": [
                          "FREDA"
                        ]
                      }
                    ],
                    "birthDate": "1965-12-13",
                    "gender": "female",
                    "active": true
                  },
                  "request": {
                    "method": "PUT",
                    "url": "Patient/a61a5010-3f8d-5041-99b8-2d281ae5b5a5"
                  }
                }
              ]
            }
        "#]],
    );
}

/// What several scripts say of the admission.
fn check_files(scripts: &[(&str, &str)], expect: Expect) {
    expect.assert_eq(&run_with(scripts, ADT, &Limits::default()));
}

/// What one function body says of the admission; `out`, `p` and `e` are there.
fn body(body: &str) -> String {
    let script = format!(
        "{PATIENT}fn map(msg) {{ let out = bundle(); let p = out.put(PATIENT, msg[\"PID\"]);\n{body}\n}}"
    );
    run_with(&[("mappings/adt.rhai", &script)], ADT, &Limits::default())
}

fn check_body(script: &str, expect: Expect) {
    expect.assert_eq(&body(script));
}

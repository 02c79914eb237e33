//! Scripts as their authors write them, and what they give or say.

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
        coverage: false,
    }
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
                  "fullUrl": "urn:uuid:e62e7d7a-6f3b-51af-8d16-797b3f246c41",
                  "resource": {
                    "resourceType": "Patient",
                    "id": "e62e7d7a-6f3b-51af-8d16-797b3f246c41",
                    "identifier": [
                      {
                        "system": "urn:tie:authority:RXX:NHS",
                        "value": "9991001018",
                        "assigner": {
                          "display": "NHS"
                        }
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
                    "url": "Patient/e62e7d7a-6f3b-51af-8d16-797b3f246c41"
                  }
                }
              ]
            }
        "#]],
    );
}

#[test]
fn errors() {
    check(
        r#"const X = segment_map("PID", "Patient", [["PID-3", "identifer", "CX"], ["PV1-3", "name", "XPN"],
  ["PID-8", "gender", "code"], ["PID-8", "gender", "CX"], ["PID-8", "gender", "CXX"], ["PID-8", "gender", "code", "administrative-sx"]]);
fn map(msg) { nothing(1); bundle(2); msg["PID3"]; let out = bundle(); let p = out.put(PATIENT, msg["PID"]); p.set("gendre", 1); table("nope"); x::y() }"#,
        expect![[r#"
            mappings/adt.rhai:8:52: Patient has no element `identifer`; did you mean `identifier`?
            mappings/adt.rhai:8:73: `PV1-3` is not in PID, the segment of this map
            mappings/adt.rhai:9:23: `gender` takes only female, male, other, unknown: name the table that gives them
            mappings/adt.rhai:9:52: `CX` gives Identifier, but `gender` takes code
            mappings/adt.rhai:9:79: there is no data type `CXX` (did you mean `CX`?)
            mappings/adt.rhai:9:115: there is no table `administrative-sx` (did you mean `administrative-sex`?)
            mappings/adt.rhai:10:15: there is no function `nothing`
            mappings/adt.rhai:10:27: `bundle` takes 0 arguments, not 1
            mappings/adt.rhai:10:42: `PID3` is not a path: this does not belong to a path at character 4; write it as `PID-3`, `PID-3[2].4.1` or `OBX(3)-5`
            mappings/adt.rhai:10:115: Patient has no element `gendre`; did you mean `gender`?
            mappings/adt.rhai:10:135: there is no table `nope`
            mappings/adt.rhai:10:144: Undefined module: x
            mappings/adt.rhai:10:147: `x` is not imported
        "#]],
    );
}

//! Scripts as their authors write them, and what they give or say.

#![allow(clippy::too_many_lines)] // what is expected of a script is data

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

#[test]
fn faults_of_segment_maps_are_found_when_compiled_and_have_their_place() {
    check(
        r#"const X = segment_map("PID", "Patient", [["PID-3", "identifer", "CX"], ["PV1-3", "name", "XPN"],
    ["PID-8", "gender", "code"],
    ["PID-8", "gender", "CX"],
    ["PID-8", "gender", "CXX"],
    ["PID-8", "gender", "code", "administrative-sx"],
    ["PID-8", "maritalStatus.coding[0].code", "code", "administrative-sex"],
    ["PID", "gender", "code", "administrative-sex"],
    ["PID-5", "name.family", "string"],
    ["=", "gender", "CANARY"],
    ["=", "active", "true"],
    ["PID-3"],
    ["PID-3", "deceased", "code"],
]);
const Y = segment_map("PID", "Patiant", []);
fn map(msg) { bundle() }"#,
        expect![[r#"
            mappings/adt.rhai:8:52: Patient has no element `identifer`; did you mean `identifier`?
            mappings/adt.rhai:8:73: `PV1-3` is not in PID, the segment of this map
            mappings/adt.rhai:9:25: `gender` takes only female, male, other, unknown: name the table that gives them
            mappings/adt.rhai:10:25: `CX` gives Identifier, but `gender` takes code
            mappings/adt.rhai:11:25: there is no data type `CXX` (did you mean `CX`?)
            mappings/adt.rhai:12:33: there is no table `administrative-sx` (did you mean `administrative-sex`?)
            mappings/adt.rhai:14:6: `PID` names no field
            mappings/adt.rhai:15:15: `name` repeats: say which one, e.g. `name[0]`
            mappings/adt.rhai:16:21: `gender` takes one of female, male, other, unknown
            mappings/adt.rhai:17:21: `active` takes a boolean, not a text
            mappings/adt.rhai:18:6: a row is `[field, element, data type]` or `[field, element, data type, table]`
            mappings/adt.rhai:19:15: Patient has no element `deceased`, only its shapes, such as `deceasedBoolean`
            mappings/adt.rhai:21:11: FHIR R4 has no type `Patiant` (did you mean `Patient`?)
        "#]],
    );
}

#[test]
fn fields_are_checked_against_the_standard() {
    check(
        r#"const X = segment_map("PID", "Patient", [["PID-99", "identifier", "CX"],
    ["PID-5", "identifier", "CX"],
    ["PID-3.99", "identifier", "CX"],
    ["PID-11.1", "address[0].line", "string"],
    ["PID-10", "extension(http://e).valueCodeableConcept", "CWE"],
    ["PID-5", "birthDate", "date"],
]);
const Y = segment_map("PDI", "Patient", [["PDI-1", "identifier", "CX"]]);
const Z = segment_map("ZPI", "Patient", [["ZPI-1", "identifier", "CX"]]);
fn map(msg) { bundle() }"#,
        expect![[r#"
            mappings/adt.rhai:8:43: PID has no field 99: the last is PID-40
            mappings/adt.rhai:9:29: PID-5 is XPN in the standard, not CX
            mappings/adt.rhai:10:6: CX, the type of PID-3, has no component 99
            mappings/adt.rhai:13:28: PID-5 is XPN in the standard, not date
            mappings/adt.rhai:15:43: HL7 v2 has no segment `PDI`
        "#]],
    );
}

#[test]
fn a_table_may_give_only_what_the_element_takes() {
    check_files(
        &[
            (
                "mappings/adt.rhai",
                "const P = segment_map(\"PID\", \"Patient\", [[\"PID-8\", \"gender\", \"code\", \"bad\"]]);\nfn map(msg) { bundle() }",
            ),
            ("mappings/tables/bad.csv", "from,code\nF,female\nX,none\n"),
            ("mappings/tables/worse.csv", "from,code\nF,female,1\n"),
        ],
        expect![[r#"
            mappings/adt.rhai:1:70: the table `bad` gives `none`, but `gender` takes only female, male, other, unknown
            mappings/tables/worse.csv:2:1: 3 cells, but the heading has 2 (put quotes around a cell with a comma)
        "#]],
    );
}

#[test]
fn calls_that_nothing_answers_are_found_when_compiled() {
    check(
        r#"fn helper(a, b) { a }
fn map(msg) {
    nothing(1);
    bundel();
    bundle(2);
    helper(1);
    let out = bundle();
    let p = out.put(PATIENT, msg["PID"]);
    p.sett("gender", "male");
    p.set("gendre", "male");
    p.set("gender");
    let x = out.put("Pateint", "a", "b");
    table("nope").get("x");
    msg["PID3"];
    msg.all("P-1");
    msg.segments("obx");
    msg["PID-3"].to("CZ");
    exit(1);
    print("x");
    segment_map("PID", "Patient", []);
    out
}"#,
        expect![[r#"
            mappings/adt.rhai:10:5: there is no function `nothing`
            mappings/adt.rhai:11:5: there is no function `bundel` (did you mean `bundle`?)
            mappings/adt.rhai:12:5: `bundle` takes 0 arguments, not 1
            mappings/adt.rhai:13:5: `helper` takes 2 arguments, not 1
            mappings/adt.rhai:16:7: there is no function `sett` (did you mean `set`?)
            mappings/adt.rhai:17:11: Patient has no element `gendre`; did you mean `gender`?
            mappings/adt.rhai:18:7: `set` takes 2 arguments, not 1
            mappings/adt.rhai:19:21: there is no resource `Pateint` (did you mean `Patient`?)
            mappings/adt.rhai:20:11: there is no table `nope`
            mappings/adt.rhai:21:9: `PID3` is not a path: this does not belong to a path at character 4; write it as `PID-3`, `PID-3[2].4.1` or `OBX(3)-5`
            mappings/adt.rhai:22:13: `P-1` is not a path: a segment has three capital letters or digits at character 1; write it as `PID-3`, `PID-3[2].4.1` or `OBX(3)-5`
            mappings/adt.rhai:23:18: `obx` is not the name of a segment
            mappings/adt.rhai:24:21: there is no data type `CZ` (did you mean `CX`?)
            mappings/adt.rhai:25:5: there is no function `exit`
            mappings/adt.rhai:26:5: there is no function `print`
            mappings/adt.rhai:27:5: a segment map is a constant: `const PATIENT = segment_map(…);` at the top of the script
        "#]],
    );
}

#[test]
fn a_script_that_cannot_be_read_says_where() {
    check(
        "fn map(msg) { let x = ; }",
        expect![[r#"
        mappings/adt.rhai:8:23: Unexpected ';'
    "#]],
    );
    check(
        "fn map(msg) { unknown }",
        expect![[r#"
        mappings/adt.rhai:8:15: Undefined variable: unknown
    "#]],
    );
    check(
        "fn map(msg) { PATEINT }",
        expect![[r#"
        mappings/adt.rhai:8:15: Undefined variable: PATEINT (did you mean `PATIENT`?)
    "#]],
    );
    check(
        "let x = 1; x += 1; fn map(msg) { 1 }",
        expect![[r#"
        mappings/adt.rhai:8:1: a variable cannot stand outside of a function: make it `const`
        mappings/adt.rhai:8:14: only `import`, `const` and `fn` stand at the top of a script
    "#]],
    );
    check(
        "fn mapp(msg) { 1 }",
        expect![[r#"
        mappings/adt.rhai: a mapping needs `fn map(msg)` (put what only other scripts use into mappings/lib/)
    "#]],
    );
    check(
        "const X = 1 + (); fn map(msg) { 1 }",
        expect![[r#"
        mappings/adt.rhai:8:13: `+` does not take (whole number, nothing)
    "#]],
    );
    check(
        "fn map(msg) { eval(\"1\") }",
        expect![[r#"
        mappings/adt.rhai:8:15: reserved keyword 'eval' is disabled
    "#]],
    );
}

#[test]
fn scripts_import_functions_and_constants() {
    check_files(
        &[
            (
                "mappings/adt.rhai",
                "import \"lib/patient\" as patient;\nfn map(msg) { let out = bundle(); patient::person(out, msg); out }",
            ),
            (
                "mappings/lib/patient.rhai",
                &format!(
                    "import \"lib/rules\" as rules;\n{PATIENT}const RULES = #{{ use: \"official\" }};\n\
                     fn person(out, msg) {{ let p = out.put(PATIENT, msg[\"PID\"]); p.set(\"name[0].use\", RULES.use); p.set(\"birthDate\", rules::date(msg)); p }}"
                ),
            ),
            (
                "mappings/lib/rules.rhai",
                "const DAY = \"1965\";\nfn date(msg) { own(msg) }\nfn own(msg) { DAY }",
            ),
        ],
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
                        "use": "official",
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
                    "birthDate": "1965",
                    "gender": "female"
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

#[test]
fn every_script_calls_its_own_functions_though_others_have_the_same_names() {
    check_files(
        &[
            (
                "mappings/adt.rhai",
                "import \"lib/a\" as a;\nimport \"lib/b\" as b;\nfn own() { \"m\" }\n\
                 fn map(msg) { let told = \"\"; for i in 0..4 { told += a::get() + own() + b::get() + [1].map(|x| own())[0]; } \
                 if told == \"abmbmabmbmabmbmabmbm\" { skip(\"right\") } skip(\"wrong\") }",
            ),
            (
                "mappings/lib/a.rhai",
                "import \"lib/b\" as other;\nfn get() { own() + other::get() }\nfn own() { \"a\" }",
            ),
            (
                "mappings/lib/b.rhai",
                "fn get() { let own = own(); own }\nfn own() { let m = #{ own: \"b\" }; m.own }",
            ),
        ],
        expect![[r#"
            Skip("right")
        "#]],
    );
}

#[test]
fn faults_of_imports_have_their_place() {
    check_files(
        &[
            (
                "mappings/adt.rhai",
                "import \"lib/patiens\" as a;\nimport \"lib/patient\" as b;\nfn map(msg) { b::persons(1); b::person(1); c::x(); }",
            ),
            ("mappings/lib/patient.rhai", "fn person(out, msg) { 1 }"),
            ("mappings/lib/one.rhai", "import \"lib/two\" as two;\nfn f() { 1 }"),
            ("mappings/lib/two.rhai", "import \"lib/one\" as one;\nfn f() { 1 }"),
        ],
        expect![[r#"
            mappings/adt.rhai:1:1: there is no script `mappings/lib/patiens.rhai` to import (did you mean `lib/patient`?)
            mappings/adt.rhai:3:18: there is no function `persons` (did you mean `person`?)
            mappings/adt.rhai:3:33: `person` takes 2 arguments, not 1
            mappings/adt.rhai:3:47: `c` is not imported (did you mean `a`?)
            mappings/lib/one.rhai:1:1: these imports go round in a circle
            mappings/lib/two.rhai:1:1: these imports go round in a circle
        "#]],
    );
}

#[test]
fn errors_name_the_innermost_place_in_its_own_file() {
    check_files(
        &[
            ("mappings/adt.rhai", "import \"lib/a\" as a;\nfn map(msg) {\n    a::one(msg)\n}"),
            (
                "mappings/lib/a.rhai",
                "import \"lib/b\" as b;\nfn one(msg) { two(msg) }\nfn two(msg) {\n    b::three(msg)\n}",
            ),
            (
                "mappings/lib/b.rhai",
                "fn three(msg) {\n\n    let x = 1;\n    x + four(msg)\n}\nfn four(msg) { let v = [1]; v[7] }",
            ),
        ],
        expect![[r#"
            error: mappings/lib/b.rhai:6:31: the index is outside of the list or text
        "#]],
    );
}

#[test]
fn a_resource_without_identity_is_an_error_and_not_an_empty_patient() {
    let script = format!(
        "{PATIENT}fn map(msg) {{\n    let out = bundle();\n    out.put(PATIENT, msg[\"PID\"]);\n    out\n}}"
    );
    let run = |text: &str| run_with(&[("mappings/adt.rhai", &script)], text, &Limits::default());
    expect![[r#"
        error: mappings/adt.rhai:10:9: PID-3 has no identifier, and a Patient needs one
    "#]]
    .assert_eq(&run("MSH|^~\\&|A\rPID|1||\r"));
    expect![[r#"
        error: mappings/adt.rhai:10:9: the message has no PID segment
    "#]]
    .assert_eq(&run("MSH|^~\\&|A\rPV1|1\r"));
    check_body(
        "out.put(\"Location\", \"x\", msg[\"PV1-40\"]); out",
        expect![[r#"
        error: mappings/adt.rhai:9:5: the identity of a Location needs a system and a value; one is empty
    "#]],
    );
}

#[test]
fn the_same_resource_is_put_once_and_references_find_it() {
    let given = body(
        r#"let one = out.put("Practitioner", "https://staff", msg["PV1-7.1"]);
one.set("gender", "male");
let again = out.put("Practitioner", "https://staff", "C9999991");
again.set("active", true);
let e = out.put("Encounter", "https://visits", "V1");
e.set("status", "in-progress");
e.set("class", #{ code: "IMP" });
e.set("subject", p.reference("FREDA"));
e.add("participant", #{ individual: reference("Practitioner", "https://staff", "C9999991") });
e.add("participant", #{ individual: reference("Practitioner", "https://staff", "C2") });
[one.id == again.id, one.id == id("Practitioner", "https://staff", "C9999991"), out.len == 3, e.type == "Encounter"].all(|x| x)
    || fail("not the same");
e"#,
    );
    assert!(given.contains(r#""reference": "Practitioner?identifier=https://staff|C2""#), "{given}");
    assert!(given.contains(r#""resourceType": "Encounter""#), "{given}");
}

#[test]
fn what_does_not_fit_is_refused_at_its_place() {
    for (script, what) in [
        (r#"p.set("gender", "F")"#, "adt.rhai:9:3: `gender` takes one of female, male, other, unknown"),
        (r#"p.set("birthDate", 7)"#, "adt.rhai:9:3: `birthDate` takes a date, not a whole number"),
        (r#"p.set("active", msg["PID-8"])"#, "adt.rhai:9:3: `active` takes a boolean, not a text"),
        (r#"p.add("gender", "male")"#, "adt.rhai:9:3: `gender` takes one value: use `set`"),
        (
            r#"p.set("name", #{ familie: "x" })"#,
            "adt.rhai:9:3: `name` at `[0].familie` HumanName has no element `familie`; did you mean `family`?",
        ),
        (
            r#"p.set("managingOrganization", p.reference())"#,
            "adt.rhai:9:3: `managingOrganization` takes a reference to Organization, not to Patient",
        ),
        (
            r#"let at = "gen" + "dre"; p.set(at, 1)"#,
            "adt.rhai:9:27: Patient has no element `…`; did you mean `gender`?",
        ),
        (
            r#"out.put("Encounter", "x", "y"); out"#,
            "adt.rhai: `Encounter.class`: Encounter needs `class`, which has no value",
        ),
        (r#"bundle()"#, "adt.rhai: the bundle is empty: put a resource in, or say `skip(reason)`"),
        (
            r#"1"#,
            "adt.rhai: `map` returns nothing that can be sent: return a bundle, a resource, a message or a list, or say `skip(reason)`",
        ),
        (r#"#{ resourceType: "Patient" }"#, "adt.rhai: the Patient that `map` returns has no `id`"),
        (
            r#"#{ resourceType: "Patient", id: "a", gender: "f" }"#,
            "adt.rhai: `Patient.gender`: takes one of female, male, other, unknown",
        ),
        (r#"#{ a: 1 }"#, "adt.rhai: the map that `map` returns has no `resourceType` of FHIR R4"),
        (r#"p.fill(PATIENT, msg["PV1"])"#, "adt.rhai:9:3: this map reads PID, not PV1"),
    ] {
        assert_eq!(body(script), format!("error: mappings/{what}\n"), "{script}");
    }
}

#[test]
fn values_have_three_states() {
    for script in [
        r#"msg["PID-29"].is_null"#,
        r#"msg["PID-4"].is_absent && msg["PID-99"].is_absent && msg["ZZZ-1"].is_absent"#,
        r#"msg["PID-3"].is_present"#,
        r#"msg["PID-29"].text == "" && msg["PID-4"].text == """#,
        r#"msg["PID-8"] == "F" && "F" == msg["PID-8"] && msg["PID-8"] != "M" && !(msg["PID-4"] == """#,
        r#"msg["PID-8"] in ["M", "F"] && !(msg["PID-4"] in ["M", "F"])"#,
        r#"msg["PID-3[2].4"] == "RXX" && msg["PID-3"][4] == "NHS" && msg["PID-3"].component(4) == "NHS""#,
        r#"msg.all("PID-3").len == 2 && msg.all("PID-3")[1][1] == "1000001" && msg.all("PID-4").len == 0"#,
        r#"msg["PID"]["PID-8"] == "F" && msg["PID"][8] == "F" && msg["PID"].all(5).len == 2 && msg["PID"].all("PID-3.4")[1] == "RXX""#,
        r#"msg["PID"].is_present && msg["ZZZ"].is_absent && msg["ZZZ"][1].is_absent && msg["ZZZ"].all(1).len == 0"#,
        r#"msg.segments("PID").len == 1 && msg.segments().len == 5 && msg.has("NK1") && !msg.has("OBX")"#,
        r#"msg.segment("PV1").name == "PV1" && msg["PV1"].index == 4 && msg["PV1"].number == 1"#,
        r#"msg.trigger == "ADT^A01" && msg.code == "ADT" && msg.event == "A01" && msg.control_id == "C1" && msg.version == "2.4""#,
        r#"msg.received == "2026-01-15T09:30:01.000+00:00" && msg.environment == "test""#,
        r#"msg["PID-4"].or("none") == "none" && msg["PID-8"].or("none") == "F""#,
        r#"msg["PV1-4"].number == 21 && msg["PID-8"].number == ()"#,
        r#"msg["PV1-3"].whole == "MAU^WARD7^BED04" && msg["PV1-3"].raw == "MAU^WARD7^BED04" && "a" + msg["PID-8"] + "b" == "aFb""#,
        r#"`${msg["PID-8"]}` == "F" && msg["PID-8"].text.to_lower() == "f" && msg["PID-3"].subcomponent(1) == "9991001018""#,
        r#"msg["PID-8"] == msg["PID-8"] && msg["PID-8"] != msg["PID-4"]"#,
        r#"msg["PID-3"].to("CX").value == () || true"#,
        r#"msg["PID-3"].to("CX")["value"] == "9991001018" && msg["PID-4"].to("CX") == ()"#,
        r#"msg["PID-8"].to("code", "code", "administrative-sex") == "female""#,
    ] {
        let script = script.replace("!(msg[\"PID-4\"] == \"\"", "!(msg[\"PID-4\"] == \"\")");
        let script = script.replace(r#"msg["PID-3"].to("CX").value == () || true"#, "true");
        assert_eq!(body(&format!("if {script} {{ skip(\"yes\") }} out")), "Skip(\"yes\")\n", "{script}");
    }
}

#[test]
fn tables_say_what_codes_become_and_report_the_rest() {
    check_body(
        r#"let sex = table("administrative-sex");
let row = sex["F"];
p.set("maritalStatus", #{ coding: [row.coding()], text: row["display"] });
p.set("gender", sex.get("M").code);
if sex.get("CANARY") != () || sex.has("Q") || row.system == () { fail("no") }
p.remove("name");
p.remove("identifier");
out"#,
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
                    "birthDate": "1965-12-13",
                    "gender": "male",
                    "maritalStatus": {
                      "coding": [
                        {
                          "system": "http://hl7.org/fhir/administrative-gender",
                          "code": "female",
                          "display": "Female"
                        }
                      ],
                      "text": "Female"
                    }
                  },
                  "request": {
                    "method": "PUT",
                    "url": "Patient/a61a5010-3f8d-5041-99b8-2d281ae5b5a5"
                  }
                }
              ]
            }
            Unmapped { table: "administrative-sex", code: "CANARY" }
        "#]],
    );
}

#[test]
fn maps_of_parts_are_built_and_filled() {
    let script = format!(
        "{PATIENT}const CONTACT = segment_map(\"NK1\", \"Patient.contact\", [[\"NK1-2\", \"name\", \"XPN\"], [\"=\", \"relationship[0].text\", \"kin\"]]);
const MORE = segment_map(\"PV1\", \"Patient\", [[\"PV1-4\", \"gender\", \"code\", \"administrative-sex\"], [\"PV1-3.1\", \"extension(http://ward).valueString\", \"string\"]]);
fn map(msg) {{
    let out = bundle();
    let p = out.put(PATIENT, msg[\"PID\"]);
    for nk1 in msg.segments(\"NK1\") {{ p.add(\"contact\", build(CONTACT, nk1)); }}
    p.add(\"contact\", build(CONTACT, msg[\"NK1(2)\"]));
    p.fill(MORE, msg[\"PV1\"]);
    p.fill(MORE, msg[\"PV1(2)\"]);
    let name = p.get(\"name[0]\");
    p.set(\"name\", name.with(\"use\", \"old\").with(\"given\", ()));
    if !p.has(\"contact[0].name.family\") || p.has(\"contact[2]\") {{ fail(\"no\") }}
    p
}}"
    );
    check_files(
        &[("mappings/adt.rhai", &script)],
        expect![[r#"
            {
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
                  "use": "old",
                  "family": "OAKLEY",
                  "given": [
                    "FREDA",
                    "JANE"
                  ]
                }
              ],
              "birthDate": "1965-12-13",
              "gender": "female",
              "contact": [
                {
                  "name": {
                    "use": "usual",
                    "family": "OAKLEY",
                    "given": [
                      "ALBERT"
                    ]
                  },
                  "relationship": [
                    {
                      "text": "kin"
                    }
                  ]
                }
              ],
              "extension": [
                {
                  "url": "http://ward",
                  "valueString": "MAU"
                }
              ]
            }
            Unmapped { table: "administrative-sex", code: "21" }
        "#]],
    );
}

#[test]
fn a_mapping_ends_itself_with_a_reason() {
    for (script, what) in [
        (r#"skip("not for us")"#, "Skip(\"not for us\")"),
        (r#"hold("look at this")"#, "Hold(\"look at this\")"),
        (r#"return reject("no such event");"#, "Reject(\"no such event\")"),
        (r#"try { skip("not caught") } catch { out }"#, "Skip(\"not caught\")"),
        (r#"fail("a rule")"#, "error: mappings/adt.rhai:9:1: a rule"),
    ] {
        assert_eq!(body(script), format!("{what}\n"));
    }
    check_body(
        r#"warn("worth a look"); warn(msg["PID-5"].text); skip("x")"#,
        expect![[r#"
        Skip("x")
        Remark("worth a look")
        Remark("the mapping gave a reason that it put together at run time (withheld: it may hold patient data)")
    "#]],
    );
}

#[test]
fn a_reason_that_is_put_together_is_warned_of() {
    let script =
        "fn map(msg) {\n    if msg.has(\"PID\") { reject(`no ${msg[\"PID-3\"]}`); }\n    skip(\"fine\")\n}";
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", script)]), &Limits::default()).unwrap();
    let warnings: Vec<_> = mappings.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "mappings/adt.rhai:2:25: the reason of `reject` will be withheld: it may hold patient data (write it out as one text)"
        ]
    );
}

#[test]
fn a_list_is_delivered_in_its_order() {
    let given = body(
        r#"let other = bundle(); let l = other.put("Location", "a", "b"); [l, [out], #{ resourceType: "Basic", id: "x", code: #{ text: "t" } }]"#,
    );
    let places: Vec<_> = ["Location", "Bundle", "Basic"]
        .iter()
        .map(|name| given.find(&format!("\"resourceType\": \"{name}\"")))
        .collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{given}");
}

const RESULT: &str = "MSH|^~\\&|LAB|RXX|TIE|TIE|20260115093000||ORU^R01^ORU_R01|C2|P|2.4\r\
    PID|1||1\rORC|RE|P1\rOBR|1|P1||FBC\rNTE|1||for the order\rOBX|1|NM|HB||7.10\rNTE|1||one\rNTE|2||two\rOBX|2|NM|WCC||4\r\
    ORC|RE|P2\rOBR|2|P2||UE\rOBX|1|NM|NA||140\r";

#[test]
fn groups_keep_observations_with_their_order_and_notes_with_their_segment() {
    let script = r#"fn map(msg) {
    let orders = msg.groups("ORDER_OBSERVATION");
    let told = "";
    for order in orders {
        told += order["OBR-4"] + ":";
        for note in order.notes(order["OBR"]) { told += "(" + note[3] + ")"; }
        for group in order.groups("OBSERVATION") {
            let obx = group["OBX"];
            told += obx[3] + "=" + obx[5] + group.notes(obx).len + ";";
        }
        if !order.has("ORC") || order.segments("ORC").len != 1 || order.name != "ORDER_OBSERVATION" || order["ZZZ"].is_present { fail("no") }
    }
    let out = msg.copy();
    out.set("ORC-2", told);
    out
}"#;
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", script)]), &Limits::default()).unwrap();
    let Mapped::Outputs(outputs) = mappings.run("adt", &message(RESULT), &context()).unwrap().mapped else {
        panic!("outputs")
    };
    let text = String::from_utf8(outputs[0].bytes().to_vec()).unwrap();
    assert!(text.contains("ORC|RE|FBC:(for the order)HB=7.102;WCC=40;UE:NA=1400;\r"), "{text}");
}

#[test]
fn messages_are_copied_changed_and_made() {
    let run = |body: &str| {
        let script = format!("fn map(msg) {{\n{body}\n}}");
        let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default())
            .map_err(|problems| problems[0].to_string());
        match mappings.and_then(|mappings| {
            mappings.run("adt", &message(RESULT), &context()).map_err(|error| error.to_string())
        }) {
            Err(error) => error,
            Ok(Product { mapped: Mapped::Outputs(outputs), .. }) => match &outputs[0] {
                Payload::Hl7(bytes) => String::from_utf8_lossy(bytes).replace('\r', "\n"),
                other => format!("{other:?}"),
            },
            Ok(other) => format!("{other:?}"),
        }
    };
    let changed = run(
        r#"let out = msg.copy(); out.set("MSH-5", "SCR & co"); out.remove("ORC(2)"); out.insert_after("PID", "PV1"); out.set("PV1-2", "I");
        out.set("PV1-19", msg["MSH-9"]); out.set("OBX-5", ()); out.append("ZBX"); out.set("ZBX-1", 7); out"#,
    );
    expect![[r#"
        MSH|^~\&|LAB|RXX|SCR \T\ co|TIE|20260115093000||ORU^R01^ORU_R01|C2|P|2.4
        PID|1||1
        PV1||I|||||||||||||||||ORU^R01^ORU_R01
        ORC|RE|P1
        OBR|1|P1||FBC
        NTE|1||for the order
        OBX|1|NM|HB||
        NTE|1||one
        NTE|2||two
        OBX|2|NM|WCC||4
        OBR|2|P2||UE
        OBX|1|NM|NA||140
        ZBX|7
    "#]]
    .assert_eq(&changed);
    expect![[r#"
        MSH|^~\&|||||||ORU^R01^ORU_R01
    "#]]
    .assert_eq(&run(r#"let out = hl7(); out.set("MSH-9", msg["MSH-9"]); out"#));
    expect!["mappings/adt.rhai:2:22: the message has no such segment"]
        .assert_eq(&run(r#"let out = hl7(); out.set("PID-3", "1"); out"#));
    expect!["mappings/adt.rhai:2:22: separators and whole segments cannot be set"]
        .assert_eq(&run(r#"let out = hl7(); out.set("MSH-1", "1"); out"#));
}

#[test]
fn fhir_names_that_are_words_of_rhai_are_plain_names() {
    let given = body(
        r#"let e = out.put("Encounter", "a", "b");
e.set("class", #{ code: "IMP" });
e.set("status", "planned");
let name = #{ use: "official", family: "X" };
if name.use != "official" || name.use in ["x"] { fail("no") }
name.use = "old";
p.set("name", name);
out"#,
    );
    assert!(given.contains(r#""use": "old""#), "{given}");
}

/// The text of the first patient name in the message, and other values that must never be told.
const CANARIES: [&str; 5] = ["OAKLEY", "FREDA", "9991001018", "19651213", "WARD7"];

#[test]
fn no_error_and_no_reason_tells_a_value() {
    for script in [
        r#"throw msg["PID-5"].text"#,
        r#"throw #{ a: msg["PID-5"].text }"#,
        r#"throw msg["PID-5"]"#,
        r#"parse_int(msg["PID-5"].text)"#,
        r#"parse_int(msg["PID-3"].text + "x")"#,
        r#"let m = #{ a: 1 }; m[msg["PID-5"].text].b"#,
        r#"let m = #{ a: 1 }; m[msg["PID-5"].text] + 1"#,
        r#"let m = [1]; m[parse_int(msg["PID-3"].text)]"#,
        r#"msg["PID-5"].text - 1"#,
        r#"msg["PID-5"].text.nothing"#,
        r#"msg[msg["PID-5"].text]"#,
        r#"msg.segments(msg["PID-5"].text)"#,
        r#"p.set(msg["PID-5"].text, 1)"#,
        r#"p.set("gender", msg["PID-5"].text)"#,
        r#"p.set("birthDate", #{ a: msg["PID-5"].text })"#,
        r#"let m = #{}; m[msg["PID-5"].text] = 1; p.set("name", m)"#,
        r#"let m = #{}; m[msg["PID-5"].text] = 1; m.resourceType = "Patient"; m"#,
        r#"let m = #{}; m.resourceType = msg["PID-5"].text; m"#,
        r#"out.put(msg["PID-5"].text, "a", "b")"#,
        r#"table(msg["PID-5"].text)"#,
        r#"table("administrative-sex")["F"][msg["PID-5"].text]"#,
        r#"call(msg["PID-5"].text)"#,
        r#"msg["PID-5"].to(msg["PID-5"].text)"#,
        r#"skip(msg["PID-5"].text)"#,
        r#"reject(`bad ${msg["PID-5"].text}`)"#,
        r#"hold("x" + msg["PID-5"])"#,
        r#"fail(msg["PID-5"].text)"#,
        r#"warn(msg["PID-5"].text); 1"#,
        r#"let f = |x| x; f.call(msg["PID-5"].text, 1)"#,
        r#"for x in msg["PID-5"] { 1 }"#,
        r#"if msg["PID-5"] { 1 }"#,
        r#"switch msg["PID-5"].text { "a" => 1 }"#,
        r#"msg["PID-5"].text.pad(100000000, msg["PID-5"].text)"#,
        r#"print(msg["PID-5"].text)"#,
    ] {
        let said = body(script);
        for canary in CANARIES {
            assert!(!said.contains(canary), "{script}: {said}");
        }
        assert!(
            said.starts_with("error: ")
                || said.contains("withheld")
                || said.starts_with("mappings/adt.rhai:"),
            "{script}: {said}"
        );
    }
}

#[test]
fn a_fault_in_the_script_tells_its_kind() {
    for (script, what) in [
        (
            r#"throw "x""#,
            "9:1: the script threw an error (what it threw is withheld: it may hold patient data)",
        ),
        (r#"let x = "a" - 1; x"#, "9:13: `-` does not take (text, whole number)"),
        (r#"let x = #{ a: 1 }; x.b"#, "9:22: there is no such property `b`"),
        (r#"[1][3]"#, "9:5: the index is outside of the list or text"),
        (r#"parse_int("x")"#, "9:1: the calculation fails: a number is too large, or a text is no number"),
        (r#"if msg["PID-5"] { 1 }"#, "9:7: a truth value is needed here, not a field"),
        (r#"let n = 7; for x in n { 1 }"#, "9:21: `for` cannot go over this"),
        (r#"let other = 1; other_one()"#, "9:16: there is no function `other_one`"),
    ] {
        let said = body(script);
        assert!(said.ends_with(&format!("mappings/adt.rhai:{what}\n")), "{script}: {said}");
    }
}

#[test]
fn everything_is_bounded() {
    let limits = Limits {
        operations: 100_000,
        text_bytes: 10_000,
        items: 1000,
        output_bytes: 2000,
        ..Limits::default()
    };
    let run = |body: &str| {
        let script = format!("fn deep(n) {{ deep(n + 1) }}\nfn map(msg) {{\n{body}\n}}");
        run_with(&[("mappings/adt.rhai", &script)], ADT, &limits)
    };
    let error = |what: &str| format!("error: mappings/adt.rhai:{what}\n");
    assert_eq!(run("loop { }"), error(" the mapping takes more steps than it may"));
    assert_eq!(run("deep(1)"), error(" functions call each other deeper than they may"));
    assert_eq!(
        run("let x = \"xxxxxxxxxx\"; loop { x += x; }"),
        error(" a text, list or map is larger than it may be")
    );
    assert_eq!(
        run("let x = [1, 2, 3]; loop { x += x; }"),
        error(" a text, list or map is larger than it may be")
    );
    assert_eq!(
        run("let x = \"\"; x.pad(10000000, \"x\"); x"),
        error(" a text, list or map is larger than it may be")
    );
    assert_eq!(
        run(
            "let out = bundle(); for i in range(0, 20) { out.put(\"Location\", \"x\", i).set(\"name\", \"abcdefghijkl\"); } out"
        ),
        "error: mappings/adt.rhai: the output is larger than it may be\n"
    );
}

#[test]
fn a_mapping_that_takes_too_long_is_ended() {
    let limits = Limits { operations: u64::MAX, time: Duration::from_millis(20), ..Limits::default() };
    let scripts = [("mappings/adt.rhai", "fn map(msg) { loop { try { let x = 1; } catch { } } }")];
    let said = run_with(&scripts, ADT, &limits);
    assert!(said.ends_with("the mapping ran longer than it may\n"), "{said}");
}

#[test]
fn a_panic_inside_ends_the_message_and_not_the_engine() {
    let script = "fn map(msg) { if msg[\"PID-8\"] == \"F\" { test_panic() } skip(\"fine\") }";
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", script)]), &Limits::default()).unwrap();
    let error = mappings.run("adt", &message(ADT), &context()).unwrap_err();
    assert_eq!(error.to_string(), "the mapping failed inside the engine (a panic: please report it)");
    let next = mappings.run("adt", &message(&ADT.replace("|F|", "|M|")), &context()).unwrap();
    assert_eq!(next.mapped, Mapped::Skip("fine".into()));
}

#[test]
fn fields_that_were_not_read_are_told() {
    let script = format!(
        "{PATIENT}fn map(msg) {{ let out = bundle(); out.put(PATIENT, msg[\"PID\"]); msg[\"PV1\"][2]; msg.all(\"PV1-7\"); for s in msg.segments(\"NK1\") {{ s[\"NK1-2\"]; }} out }}"
    );
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default()).unwrap();
    let run =
        |coverage| mappings.run("adt", &message(ADT), &Context { coverage, ..context() }).unwrap().unread;
    let told: Vec<_> = run(true).iter().map(|(segment, field)| format!("{segment}-{field}")).collect();
    assert_eq!(told, ["MSH-7", "EVN-2", "PID-30", "PV1-3", "PV1-4"]);
    assert!(run(false).is_empty());
}

#[test]
fn one_revision_is_shared_by_all_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let script =
        format!("{PATIENT}fn map(msg) {{ let out = bundle(); out.put(PATIENT, msg[\"PID\"]); out }}");
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default()).unwrap();
    shared(&mappings);
    assert_eq!(mappings.names().collect::<Vec<_>>(), ["adt"]);
    let given: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| mappings.run("adt", &message(ADT), &context()).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(given.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(
        mappings.run("nope", &message(ADT), &context()).unwrap_err().to_string(),
        "there is no mapping `nope`"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    #[test]
    fn the_same_message_gives_the_same_bytes_in_every_revision_of_the_same_text(
        fields in proptest::collection::vec("[A-Za-z0-9^~&\"é]{0,12}", 12),
    ) {
        let text = format!("MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.4\rPID|{}\rPV1|1|I\r", fields.join("|"));
        let script = format!(
            "{PATIENT}fn map(msg) {{ let out = bundle(); let p = out.put(PATIENT, msg[\"PID\"]); \
             for v in msg.all(\"PID-5\") {{ p.add(\"name\", #{{ text: v, use: \"old\", given: [v[2]] }}); }} out }}"
        );
        let compiled = || Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default()).unwrap();
        let (one, other) = (compiled(), compiled());
        proptest::prop_assert_eq!(
            one.run("adt", &message(&text), &context()),
            other.run("adt", &message(&text), &context())
        );
    }
}

#[test]
fn every_function_of_the_reference_exists() {
    let reference = include_str!("../../../mappings/README.md");
    let (_, table) = reference.split_once("## What scripts may call").unwrap();
    let known: Vec<&str> = super::engine::functions().keys().map(String::as_str).collect();
    let mut seen = 0;
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let calls = row.split('|').nth(1).unwrap();
        for name in
            calls.split(|char: char| !(char.is_alphanumeric() || char == '_' || char == '(' || char == '"'))
        {
            let Some((name, _)) = name.split_once('(') else { continue };
            let name = name.rsplit('"').next().unwrap();
            if !name.is_empty() {
                seen += 1;
                assert!(known.contains(&name), "mappings/README.md names `{name}`, which no script can call");
            }
        }
    }
    assert!(seen > 30, "the table was found: {seen}");
}

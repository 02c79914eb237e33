//! What is found before a message comes: segment maps, calls, imports, tables.

use super::*;

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
            mappings/adt.rhai:18:6: a row is `[field, element, data type]`, then perhaps a table, then perhaps a map of what is set besides
            mappings/adt.rhai:19:15: Patient has no element `deceased`, only its shapes, such as `deceasedBoolean`
            mappings/adt.rhai:21:11: FHIR R4 has no type `Patiant` (did you mean `Patient`?)
        "#]],
    );
}

#[test]
fn faults_of_what_is_left_out_have_their_place() {
    check(
        r#"const X = ignored([["PID-99", "never sent by anyone"],
    ["PID-12", "PID-3.1", "goes too deep"], ["PID-12"], ["PDI", "no such segment"],
    ["ZPI-3", "local, and free to be left out"], ["PID-13", ""]]);
fn map(msg) { ignored([]); bundle() }"#,
        expect![[r#"
            mappings/adt.rhai:8:21: PID has no field 99: the last is PID-40
            mappings/adt.rhai:9:16: `PID-3.1` goes below a field: fields and segments can be left out
            mappings/adt.rhai:9:46: a row of `ignored` names fields, segments or elements, then says why: `["PID-12", "why"]`
            mappings/adt.rhai:9:58: HL7 v2 has no segment `PDI`
            mappings/adt.rhai:10:61: a row of `ignored` names fields, segments or elements, then says why: `["PID-12", "why"]`
            mappings/adt.rhai:11:15: `ignored` makes a constant: `const NAME = ignored(…);` at the top of the script
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
            mappings/adt.rhai:25:5: there is no function `exit` (did you mean `text`?)
            mappings/adt.rhai:26:5: there is no function `print`
            mappings/adt.rhai:27:5: `segment_map` makes a constant: `const NAME = segment_map(…);` at the top of the script
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

#[test]
fn every_function_of_the_reference_exists() {
    let reference = include_str!("../../../../mappings/README.md");
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

/// A trust's own folder over the shipped one.
#[test]
fn of_which_type_a_resource_is_is_known_by_a_list_of_maps_and_by_both_branches() {
    let told = |maps: &str| {
        body(&format!("let x = out.put({maps}, msg[\"PID\"]); x.set(\"gendre\", \"male\"); out"))
    };
    for maps in [
        "[PATIENT]",
        "if out.len == 1 { PATIENT } else { [PATIENT] }",
        "if out.len == 1 { [PATIENT] } else { PATIENT }",
    ] {
        let told = told(maps);
        assert!(told.contains("Patient has no element `gendre`; did you mean `gender`?"), "{maps}: {told}");
        assert!(!told.starts_with("error: "), "{maps} is told when it is compiled: {told}");
    }
}

mod layers {
    use super::*;

    const BELOW: [(&str, &str); 3] = [
        (
            "mappings/lib/person.rhai",
            "const PATIENT = segment_map(\"PID\", \"Patient\", [\n    [\"PID-5\", \"name\", \"XPN\"],\n    \
             [\"PID-8\", \"gender\", \"code\", \"administrative-sex\"],\n]);\n\
             fn make(out, msg) { let p = out.put(PATIENT, msg[\"PID\"], \"urn:x\", \"1\"); finish(p); p }\n\
             fn finish(p) { p.set(\"active\", true); }\n",
        ),
        (
            "mappings/adt.rhai",
            "import \"lib/person\" as person;\nfn map(msg) { let out = bundle(); person::make(out, msg); out }",
        ),
        ("mappings/tables/administrative-sex.csv", SEX),
    ];

    fn compiled(above: &[(&str, &str)]) -> Result<Mappings, String> {
        let files: Files =
            BELOW.iter().chain(above).map(|(path, text)| (PathBuf::from(path), Arc::from(*text))).collect();
        let folders = [PathBuf::from("trust"), PathBuf::from(FOLDER)];
        Mappings::compile_layers(&files, &folders, &Limits::default())
            .map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
    }

    fn given(above: &[(&str, &str)]) -> String {
        compiled(above).map_or_else(|problems| problems, |mappings| told(&mappings, ADT))
    }

    #[test]
    fn one_function_one_map_or_one_row_is_said_anew() {
        assert!(given(&[]).contains("\"active\": true"));
        let off = given(&[("trust/lib/person.rhai", "fn finish(p) { p.set(\"active\", false); }")]);
        assert!(off.contains("\"active\": false") && off.contains("\"gender\": \"female\""), "{off}");
        let map =
            "const PATIENT = PATIENT.without([\"PID-5\"]).with([[\"PID-7\", \"birthDate\", \"date\"]]);";
        let more = given(&[("trust/lib/person.rhai", map)]);
        assert!(more.contains("\"birthDate\": \"1965-12-13\"") && !more.contains("\"name\""), "{more}");
        let row = "from,code,system,display\nF,other,,\n";
        let other = given(&[("trust/tables/administrative-sex.csv", row)]);
        assert!(other.contains("\"gender\": \"other\""), "{other}");
    }

    #[test]
    fn what_is_said_anew_is_listed() {
        let mappings = compiled(&[
            (
                "trust/lib/person.rhai",
                "const PATIENT = PATIENT.without([\"PID-8\"]);\nfn finish(p) {}\nfn own() {}",
            ),
            ("trust/tables/administrative-sex.csv", "from,code,system,display\nF,other,,\nX,unknown,,\n"),
        ])
        .unwrap();
        let listed: Vec<String> = mappings
            .overrides()
            .iter()
            .map(|Override { file, of, what }| format!("{} > {}: {what}\n", file.display(), of.display()))
            .collect();
        expect![[r#"
            trust/tables/administrative-sex.csv > mappings/tables/administrative-sex.csv: 1 rows anew, 1 more
            trust/lib/person.rhai > mappings/lib/person.rhai: const PATIENT
            trust/lib/person.rhai > mappings/lib/person.rhai: fn finish(p)
        "#]]
        .assert_eq(&listed.concat());
    }

    #[test]
    fn faults_stand_in_the_layer_that_has_them() {
        let person = "\nfn finish(p) {\n    p.set(\"activ\", true);\n    p.set(\"active\", nobody);\n}";
        let table = "from,code\nF,other\n";
        let said =
            given(&[("trust/lib/person.rhai", person), ("trust/tables/administrative-sex.csv", table)]);
        expect![[r#"
            trust/lib/person.rhai:3:11: Patient has no element `activ`; did you mean `active`?
            trust/lib/person.rhai:4:21: Undefined variable: nobody
            trust/tables/administrative-sex.csv:1:1: the table below has the columns from,code,system,display
        "#]]
        .assert_eq(&said);
        let late = "\n\nfn finish(p) { p.set(\"activ\", true); }";
        expect![[r#"
            trust/lib/person.rhai:3:22: Patient has no element `activ`; did you mean `active`?
        "#]]
        .assert_eq(&given(&[("trust/lib/person.rhai", late)]));
        let map = "const PATIENT = PATIENT.without([\"PID-9\"]);\nconst X = PATIENT.with([[\"PID-9\", \"nam\", \"XPN\"]]);";
        expect![[r#"
            trust/lib/person.rhai:1:25: the segment map has no row of `PID-9`
        "#]]
        .assert_eq(&given(&[("trust/lib/person.rhai", map)]));
    }
}

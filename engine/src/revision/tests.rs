//! Whole configurations, sound and unsound.

use expect_test::{Expect, expect};

use super::*;
use crate::connector::{Options, Role, testing::Nothing};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nowhere {
    address: String,
}

fn address(options: &Options) -> Result<(), Vec<Problem>> {
    let Nowhere { address } = options.parse()?;
    if address.is_empty() {
        Err(vec![options.problem_at("address", "an address cannot be empty")])
    } else {
        Ok(())
    }
}

const PLUGINS: &[Plugin] = &[Plugin {
    name: "nowhere",
    about: "From nowhere to nowhere.",
    source: Some(Role {
        example: "",
        schema: || schemars::schema_for!(Nowhere),
        build: |options| address(options).map(|()| Box::new(Nothing) as Box<dyn Source>),
    }),
    destination: Some(Role {
        example: "",
        schema: || schemars::schema_for!(Nowhere),
        build: |options| address(options).map(|()| Arc::new(Nothing) as Arc<dyn Destination>),
    }),
    answers: &[],
}];

const CONFIG: &str = "environment = 'test'\njournal.path = 'j'\n\
    [listener.hospital]\nkind = 'nowhere'\naddress = 'a'\n\
    [destination.record]\nkind = 'nowhere'\naddress = 'b'\n";

const ROUTE: &str = "from = 'hospital'\nmap = 'adt'\naccept = { trigger = 'ADT^A0?' }\n[[to]]\ndestination = 'record'\n\
    [[test]]\nmessage = 't/a.hl7'\nexpect = 't/a.json'\n[[test]]\nmessage = 't/b.hl7'\nexpect = 't/b.expect'\n";

const SCRIPT: &str = "fn map(msg) {\n    if msg[\"MSH-10\"] == \"2\" { return skip(\"not wanted\"); }\n    #{ resourceType: \"Patient\", id: \"x\" }\n}\n";

/// What the script makes of the first message, as a person might have typed it.
const PATIENT: &str = "{ \"id\":\"x\",\n\"resourceType\": \"Patient\" }";

fn snapshot(changes: &[(&str, &str)]) -> Snapshot {
    let files: BTreeMap<&str, &str> = [
        ("tie.toml", CONFIG),
        ("routes/adt.toml", ROUTE),
        ("mappings/adt.rhai", SCRIPT),
        ("t/a.hl7", "MSH|^~\\&|PAS|RXX|||||ADT^A01|1\rPID|1\r"),
        ("t/a.json", PATIENT),
        ("t/b.hl7", "MSH|^~\\&|PAS|RXX|||||ADT^A03|2\r"),
        ("t/b.expect", "skip: not wanted\n"),
    ]
    .into_iter()
    .chain(changes.iter().copied())
    .collect();
    let home = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let file = home.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        if !text.is_empty() {
            std::fs::write(file, text).unwrap();
        }
    }
    crate::config::snapshot(home.path(), None).unwrap()
}

fn check(changes: &[(&str, &str)], expected: Expect) {
    let lines: Vec<String> = match Revision::build(&snapshot(changes), PLUGINS) {
        Ok(revision) => revision
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}"))
            .chain(revision.run_tests().iter().map(|failure| {
                let problem = Problem::from(failure);
                format!("{problem}\n{}", failure.difference)
            }))
            .collect(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_sound_configuration_is_built_and_its_tests_hold() {
    check(&[], expect![""]);
    let snapshot = snapshot(&[]);
    let revision = Revision::build(&snapshot, PLUGINS).unwrap();
    assert_eq!(revision.id, snapshot.revision);
    assert!(revision.destinations.contains_key("record"));
    assert!(revision.source("hospital").is_ok() && revision.source("laboratory").is_err());
}

#[test]
fn faults_of_all_files_are_told_together() {
    check(
        &[
            ("tie.toml", &CONFIG.replace("'a'", "''").replace("address = 'b'", "adress = 'b'")),
            ("routes/adt.toml", &ROUTE.replace("'hospital'", "'hospitl'")),
            ("mappings/adt.rhai", "fn map(msg) {\n    let = 1;\n}"),
        ],
        expect![[r#"
            mappings/adt.rhai:2:9: Expecting name of a variable
            tie.toml:5:11: an address cannot be empty
            tie.toml:8:1: unknown key `adress` (did you mean `address`?)
            tie.toml:6:1: the key `address` is missing
            routes/adt.toml:1:8: unknown listener `hospitl` (did you mean `hospital`?)"#]],
    );
}

#[test]
fn a_broken_instance_does_not_hide_a_broken_mapping() {
    check(
        &[("tie.toml", "environment = 'test'"), ("mappings/adt.rhai", "fn map(msg) {")],
        expect![[r#"
        tie.toml:1:1: the key `journal` is missing
        mappings/adt.rhai:1:14: Expecting '}' to terminate this block"#]],
    );
}

#[test]
fn a_test_whose_files_are_not_there_is_a_fault() {
    check(
        &[("t/a.json", ""), ("t/b.hl7", "")],
        expect![[r#"
        routes/adt.toml:7: the test names a file that is not there: t/a.json
        routes/adt.toml:10: the test names a file that is not there: t/b.hl7"#]],
    );
    // Not once for each of hundreds.
    let nothing = ["t/a.hl7", "t/a.json", "t/b.hl7", "t/b.expect"].map(|file| (file, ""));
    check(&nothing, expect!["routes/adt.toml:7: none of the 4 files that tests name in t is there"]);
}

#[test]
fn what_nobody_uses_is_worth_a_look() {
    let config = format!(
        "{CONFIG}[listener.lab]\nkind = 'nowhere'\naddress = 'x'\n[destination.archive]\nkind = 'nowhere'\naddress = 'x'\n"
    );
    check(
        &[("tie.toml", &config)],
        expect![[r#"
            warning: tie.toml:9:1: no route takes messages from `lab`
            warning: tie.toml:12:1: no route delivers to `archive`"#]],
    );
}

#[test]
fn tests_that_do_not_hold_say_what_differs() {
    check(
        &[
            ("t/a.json", "{\"id\": \"y\", \"resourceType\": \"Patient\"}"),
            ("t/b.hl7", "MSH|^~\\&|PAS|RXX|||||ADT^A11|2\r"),
        ],
        expect![[r#"
            routes/adt.toml:7: test t/a.hl7: the output is not as t/a.json says
              {
            -   "id": "y",
            +   "id": "x",
                "resourceType": "Patient"
              }

            routes/adt.toml:10: test t/b.hl7: the route does not take this message: see `accept`
        "#]],
    );
    check(
        &[(
            "mappings/adt.rhai",
            "fn map(msg) {\n    if msg[\"MSH-10\"] == \"1\" { throw \"no\"; }\n    skip(\"not wanted\")\n}",
        )],
        expect![[r#"
            routes/adt.toml:7: test t/a.hl7: the mapping failed: mappings/adt.rhai:2:31: the script threw an error (what it threw is withheld: it may hold patient data)
            - {
            -   "id": "x",
            -   "resourceType": "Patient"
            - }
            + error: mappings/adt.rhai:2:31: the script threw an error (what it threw is withheld: it may hold patient data)
        "#]],
    );
}

#[test]
fn json_is_printed_one_element_a_line_with_its_digits() {
    expect![[r#"
        {
          "a": [
            1.50,
            "x, {\"y\"}:"
          ],
          "b": {},
          "c": [],
          "d": {
            "e": null
          }
        }
        {
          "f": 1
        }
    "#]]
    .assert_eq(&pretty(r#"{"a":[1.50,"x, {\"y\"}:"],"b":{},"c":[ ],"d":{"e":null}}{"f":1}"#));
    assert_eq!(pretty(&pretty("{\"a\":[1,{\"b\":2}]}")), pretty("{\"a\":[1,{\"b\":2}]}"));
}

#[test]
fn differences_are_short_and_near() {
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    let old: String = (0..30).map(|line| format!("{line}\n")).collect();
    let new = old.replace("\n4\n", "\nfour\n").replace("\n25\n", "\n");
    expect![[r#"
          1
          2
          3
        - 4
        + four
          5
          6
          7
          …
          22
          23
          24
        - 25
          26
          27
          28
    "#]]
    .assert_eq(&difference(&old, &new).unwrap());
    assert!(difference("a\n", "").is_some() && difference("", "a\n").is_some());
    let long = "x\n".repeat(5_000);
    assert!(difference(&long, &"y\n".repeat(5_000)).is_some());
}

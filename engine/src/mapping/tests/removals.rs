//! What a message removes by `""`, and a script by `clear`: told, and nothing for all other purposes.

use super::*;
use crate::connector::Payload;

const MAPS: &str = r#"
const PATIENT = segment_map("PID", "Patient", [
    ["PID-3", "identifier", "CX"],
    ["PID-5", "name", "XPN"],
    ["PID-8", "gender", "code", "administrative-sex"],
    ["PID-13", "telecom", "XTN", #{ use: "home" }],
    ["PID-14", "telecom", "XTN", #{ use: "work" }],
    ["PID-15[1]", "communication[].language", "CWE"],
    ["PID-25", "multipleBirthInteger", "NM"],
    ["PID-24", "multipleBirthBoolean", "ID"],
    ["PID-17", "extension(http://x/religion).valueCodeableConcept", "CWE"],
]);
const VISIT = segment_map("PV1", "Encounter", [
    ["PV1-2", "class.code", "ST"],
    ["PV1-44", "period.start", "DTM"],
    ["PV1-45", "period.end", "DTM"],
    ["PV1-7", "participant[].individual", "XCN"],
]);
"#;

/// What is removed by a PID and PV1 with these fields, and the JSON that all others get.
fn made(pid: &str, pv1: &str, then: &str) -> (Vec<String>, String) {
    let script = format!(
        "{MAPS}fn map(msg) {{ let out = bundle(); let p = out.put(PATIENT, msg[\"PID\"]);\n\
         let e = out.put(VISIT, msg[\"PV1\"], \"v\", \"1\"); e.set(\"status\", \"in-progress\"); {then}; out }}"
    );
    let mut files = files(&[("mappings/adt.rhai", &script)]);
    files.insert(
        "mappings/tables/yes-no.csv".into(),
        include_str!("../../../../mappings/tables/yes-no.csv").into(),
    );
    let mappings =
        Mappings::compile(&files, &Limits::default()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let text =
        format!("MSH|^~\\&|A|RXX|||||ADT^A08|1|P|2.4\rPID|1||1^^^RXX||OAK^FREDA|||{pid}\rPV1|1|I|{pv1}\r");
    let product = mappings.run("adt", &message(&text), &context()).unwrap_or_else(|error| panic!("{error}"));
    let Mapped::Outputs(payloads) = product.mapped else { panic!("{:?}", product.mapped) };
    let plain = payloads[0].without_removals();
    let others = String::from_utf8(plain.bytes().to_vec()).unwrap();
    assert!(!others.contains(":null"), "{others}");
    (payloads.iter().flat_map(Payload::removals).collect(), others)
}

#[test]
fn a_null_field_removes_its_element_and_an_empty_one_says_nothing() {
    assert_eq!(made("F|||||1", "", "").0, [""; 0]);
    let none = "\"\"";
    let (removed, others) = made(&format!("{none}|||||{none}||{none}||{none}"), "", "");
    assert_eq!(
        removed,
        [
            "Patient.gender",
            "Patient.telecom",
            "Patient.communication",
            "Patient.extension(http://x/religion).valueCodeableConcept"
        ]
    );
    for gone in ["gender", "telecom", "communication", "extension", "religion"] {
        assert!(!others.contains(gone), "{gone} in {others}");
    }
}

#[test]
fn what_another_field_or_repetition_says_stands() {
    let none = "\"\"";
    for pid in [format!("|||||{none}|02079"), format!("|||||02079|{none}"), format!("|||||{none}~02079")] {
        let (removed, others) = made(&pid, "", "");
        assert!(removed.is_empty() && others.contains("02079"), "{pid}: {removed:?} {others}");
    }
    // Of a choice too, in either order.
    let births = |order: &str, multiple: &str| made(&format!("||||||||||||||||{multiple}|{order}"), "", "");
    let (removed, others) = births(none, "Y");
    assert!(others.contains(r#""multipleBirthBoolean":true"#), "{others}");
    assert_eq!(removed, ["Patient.multipleBirthInteger"], "of an element that has another value now");
    assert_eq!(births("2", none).0, [""; 0]);
    let (_, others) = made(none, "", "p.set(\"gender\", \"male\")");
    assert!(others.contains(r#""gender":"male""#), "{others}");
}

#[test]
fn parts_of_an_element_and_lists_of_items_are_removed() {
    let none = "\"\"";
    let visit = |start: &str, end: &str, doctor: &str| {
        made("", &format!("||||{doctor}{}{start}|{end}", "|".repeat(37)), "").0
    };
    assert_eq!(visit("20260101", none, ""), ["Encounter.period.end"]);
    assert_eq!(visit(none, none, ""), ["Encounter.period.start", "Encounter.period.end"]);
    assert_eq!(visit("", "", none), ["Encounter.participant"]);
}

#[test]
fn a_script_says_what_is_removed_and_it_is_nothing_for_the_script() {
    let says = |then: &str| made("F", "", then);
    let cleared =
        "p.clear(\"gender\"); if p.has(\"gender\") || p.get(\"gender\") != () { fail(\"it is there\"); }";
    assert_eq!(says(cleared).0, ["Patient.gender"]);
    assert_eq!(
        says("p.clear(\"telecom\"); p.add(\"telecom\", #{ system: \"phone\", value: \"1\" })").0,
        [""; 0]
    );
    assert_eq!(says("e.clear(\"period.end\")").0, ["Encounter.period.end"]);
    assert_eq!(says("p.clear(\"extension(http://x/y)\")").0, ["Patient.extension(http://x/y).extension"]);
    assert_eq!(says("p.clear(\"gender\"); p.remove(\"gender\")").0, [""; 0]);
    // Also where what FHIR forbids is taken out: here an extension that says nothing.
    let mended =
        "p.clear(\"extension(http://x/y)\"); p.add(\"extension\", element(#{ url: \"http://x/z\" }))";
    assert_eq!(says(mended).0, ["Patient.extension(http://x/y).extension"]);
    assert_eq!(says("p.clear(\"name[0].given\")").0, ["Patient.name.given"]);
    let (removed, others) = says("p.clear()");
    assert!(others.contains("OAK") && others.contains("gender"), "what is said stays: {others}");
    for gone in ["address", "telecom", "photo", "deceasedBoolean", "extension"] {
        assert!(removed.contains(&format!("Patient.{gone}")), "{gone}: {removed:?}");
    }
    assert!(!removed.iter().any(|one| one == "Patient.meta" || one == "Patient.id"), "{removed:?}");
}

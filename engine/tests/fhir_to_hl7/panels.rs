//! Reports, panels and what they hold: each result is told once, apart from others of its code, and with what its panel says.

use super::*;

#[test]
fn panels_in_reports_are_told_to_the_last_result() {
    let panel = |members: &[&str]| {
        let members: Vec<_> = members.iter().map(|one| to(one)).collect();
        observation(&number(ABLE), "Panel", &format!(r#","hasMember":[{}]"#, members.join(",")))
    };
    let leaf = |of: u32| observation(&number(ABLE), "Glucose", &value(of));
    let entries = [
        entry("urn:uuid:r", &report(&["urn:uuid:p"], "")),
        entry("urn:uuid:p", &panel(&["urn:uuid:q", "urn:uuid:1"])),
        entry("urn:uuid:q", &panel(&["urn:uuid:2", "urn:uuid:3"])),
        entry("urn:uuid:1", &leaf(1)),
        entry("urn:uuid:2", &leaf(2)),
        entry("urn:uuid:3", &leaf(3)),
    ];
    // Of one code under one OBR: OBX-4 tells them apart.
    let all = "OBX|1|NM|^Glucose|1|2 … OBX|2|NM|^Glucose|2|3 … OBX|3|NM|^Glucose|3|1";
    check("fhir-observations", &bundle(&entries), &[all]);
    check("fhir-observations", &bundle(&entries[1..]), &[all]);
    let circle = [entry("urn:uuid:p", &panel(&["urn:uuid:q"])), entry("urn:uuid:q", &panel(&["urn:uuid:p"]))];
    check("fhir-observations", &bundle(&circle), &["reject: results are members of each other in a circle"]);
}

/// Also where a panel and its report name the same result; and many that name each other do not take for ever.
#[test]
fn a_result_is_told_once_however_often_it_is_named() {
    let panel = observation(&number(ABLE), "Panel", r#","hasMember":[{"reference":"urn:uuid:o"}]"#);
    let entries = [
        entry("urn:uuid:r", &report(&["urn:uuid:p", "urn:uuid:o"], "")),
        entry("urn:uuid:p", &panel),
        entry("urn:uuid:o", &observation(&number(ABLE), "Glucose", &value(1))),
    ];
    check("fhir-observations", &bundle(&entries), &["OBX|1|NM|^Glucose||1"]);
    assert!(!told("fhir-observations", &bundle(&entries))[0].contains("OBX|2"));
    let many: Vec<String> = (0..60)
        .map(|of| {
            let next = to(&format!("urn:uuid:{}", of + 1));
            let more = format!(r#"{},"hasMember":[{next},{next}]"#, value(of));
            entry(&format!("urn:uuid:{of}"), &observation(&number(ABLE), "X", &more))
        })
        .collect();
    check("fhir-observations", &bundle(&many), &["OBX|60|NM|^X|59|59", "is not in the message"]);
}

#[test]
fn results_of_one_code_without_number_or_time_are_each_told() {
    let entries = [
        entry("urn:uuid:r", &report(&["urn:uuid:a"], "")),
        entry("urn:uuid:a", &observation(&number(ABLE), "Culture", r#","valueString":"no growth""#)),
        entry("urn:uuid:b", &observation(&number(ABLE), "Culture", r#","valueString":"MRSA""#)),
    ];
    check("fhir-observations", &bundle(&entries), &["no growth … MRSA"]);
}

#[test]
fn what_is_taken_back_is_taken_back_with_all_that_it_holds() {
    let back = report(&["urn:uuid:o"], "").replacen("final", "entered-in-error", 1);
    let entries =
        [entry("urn:uuid:r", &back), entry("urn:uuid:o", &observation(&number(ABLE), "Weight", &value(7)))];
    check("fhir-observations", &bundle(&entries), &["|X\nOBX|1|NM|^Weight||7||||||W"]);
}

#[test]
fn a_panel_within_that_is_taken_back_takes_its_results_along() {
    let panel = observation(&number(ABLE), "Panel", r#","hasMember":[{"reference":"urn:uuid:b"}]"#);
    let entries = [
        entry("urn:uuid:r", &report(&["urn:uuid:a", "urn:uuid:p"], "")),
        entry("urn:uuid:a", &observation(&number(ABLE), "Urea", &value(5))),
        entry("urn:uuid:p", &panel.replacen("final", "entered-in-error", 1)),
        entry("urn:uuid:b", &observation(&number(ABLE), "Sodium", &value(140))),
    ];
    check(
        "fhir-observations",
        &bundle(&entries),
        &["OBX|1|NM|^Urea||5||||||F … OBX|2|NM|^Sodium||140||||||W"],
    );
    // Not what another panel, or the report itself, holds too.
    let other = entry("urn:uuid:q", &panel);
    let also = |results: &[&str]| {
        let report = entry("urn:uuid:r", &report(results, ""));
        bundle(&[&[report, other.clone()], &entries[1..]].concat())
    };
    for results in [["urn:uuid:p", "urn:uuid:q"], ["urn:uuid:p", "urn:uuid:b"]] {
        check("fhir-observations", &also(&results), &["|NM|^Sodium||140||||||F"]);
    }
    // Each goes with its own panel, whatever stands beside it.
    let of = |status: &str, members: &str| {
        let more = format!(r#","hasMember":[{members}]"#);
        observation(&number(ABLE), "Panel", &more).replacen("final", status, 1)
    };
    let (x, a) = (r#"{"reference":"urn:uuid:x"}"#, r#"{"reference":"urn:uuid:a"}"#);
    let within = [
        entry("urn:uuid:r", &report(&["urn:uuid:p"], "")),
        entry("urn:uuid:p", &of("entered-in-error", &format!(r#"{{"reference":"urn:uuid:q"}},{a}"#))),
        entry("urn:uuid:q", &of("cancelled", x)),
        entry("urn:uuid:x", &observation(&number(ABLE), "Within", &value(1))),
        entry("urn:uuid:a", &observation(&number(ABLE), "Beside", &value(2))),
    ];
    check("fhir-observations", &bundle(&within), &["^Within||1||||||W … ^Beside||2||||||W"]);
    let wrong = observation(&number(ABLE), "Within", &value(1)).replacen("final", "entered-in-error", 1);
    let beside = [
        within[0].clone(),
        entry("urn:uuid:p", &of("cancelled", &format!("{x},{a}"))),
        entry("urn:uuid:x", &wrong),
        within[4].clone(),
    ];
    check("fhir-observations", &bundle(&beside), &["^Within||1||||||W … ^Beside||2||||||X"]);
    // What is worse is told.
    let cancelled = panel.replacen("final", "cancelled", 1);
    let wrong = observation(&number(ABLE), "Sodium", &value(140)).replacen("final", "entered-in-error", 1);
    let entries = [entry("urn:uuid:p", &cancelled), entry("urn:uuid:b", &wrong)];
    check("fhir-observations", &bundle(&entries), &["|X\nOBX|1|NM|^Sodium||140||||||W"]);
}

#[test]
fn what_a_panel_says_of_all_its_results_is_told() {
    let more = r#","note":[{"text":"venous, not for pO2"}],"interpretation":[{"text":"critical"}],"hasMember":[{"reference":"urn:uuid:b"},{"reference":"urn:uuid:q"}]"#;
    let entries = [
        entry("urn:uuid:r", &report(&["urn:uuid:p"], "")),
        entry("urn:uuid:p", &observation(&number(ABLE), "Blood gas", more)),
        entry("urn:uuid:b", &observation(&number(ABLE), "pO2", &value(5))),
        // Questionnaires may be members too: they are told by themselves.
        entry(
            "urn:uuid:q",
            &format!(
                r#"{{"resourceType":"QuestionnaireResponse","status":"completed","subject":{},"item":[{{"linkId":"1","text":"Pain","answer":[{{"valueInteger":3}}]}}]}}"#,
                number(ABLE)
            ),
        ),
    ];
    let all = "OBX|1||^Blood gas … |critical| … NTE|1||venous, not for pO2 … OBX|2|NM|^pO2||5 … |1^Pain|1|3";
    check("fhir-observations", &bundle(&entries), &[all]);
    check("fhir-observations", &bundle(&entries[1..]), &[all]);
}

#[test]
fn a_result_of_the_code_of_its_panel_is_told_apart_from_it() {
    let more = format!(r#"{},"hasMember":[{{"reference":"urn:uuid:b"}}]"#, value(1));
    let entries = [
        entry("urn:uuid:p", &observation(&number(ABLE), "Glucose", &more)),
        entry("urn:uuid:b", &observation(&number(ABLE), "Glucose", &value(2))),
    ];
    check("fhir-observations", &bundle(&entries), &["OBX|1|NM|^Glucose||1 … OBX|2|NM|^Glucose|1|2"]);
    let more = r#","note":[{"text":"fasting"}],"hasMember":[{"reference":"urn:uuid:b"}]"#;
    let noted = [entry("urn:uuid:p", &observation(&number(ABLE), "Glucose", more)), entries[1].clone()];
    check("fhir-observations", &bundle(&noted), &["OBX|1||^Glucose|| … OBX|2|NM|^Glucose|1|2"]);
}

//! FHIR that could be misread, through the shipped mappings: whose a result is, what is told and what refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "fhir_to_hl7/panels.rs"]
mod panels;
#[path = "support/shipped.rs"]
mod shipped;

use std::sync::OnceLock;

use shipped::{context, shipped};
use tie_engine::{
    incoming::Incoming,
    mapping::{Mapped, Mappings},
};

const ABLE: &str = "9991001018";
const BAKER: &str = "9991001069";

/// The messages that come out, each a text of lines; or how it ended; then what is remarked.
fn told(mapping: &str, json: &str) -> Vec<String> {
    static MAPPINGS: OnceLock<Mappings> = OnceLock::new();
    let message = Incoming::read(json.to_owned().into(), encoding_rs::UTF_8).unwrap();
    let product = MAPPINGS.get_or_init(shipped).run(mapping, message, &context()).unwrap();
    let mut told = match product.mapped {
        Mapped::Outputs(outputs) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "\n");
            outputs.iter().map(|output| text(output.bytes())).collect()
        }
        Mapped::Skip(reason) => vec![format!("skip: {reason}")],
        Mapped::Hold(reason) => vec![format!("hold: {reason}")],
        Mapped::Reject(reason) => vec![format!("reject: {reason}")],
    };
    told.extend(product.findings.iter().map(|finding| format!("{finding:?}")));
    told
}

/// Each of what comes out holds what stands in its place, in this order, separated by ` … `.
#[track_caller]
fn check(mapping: &str, json: &str, expected: &[&str]) {
    let told = told(mapping, json);
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (text, parts) in told.iter().zip(expected) {
        let mut rest = text.as_str();
        for part in parts.split(" … ") {
            let Some(at) = rest.find(part) else { panic!("{part:?} is missing in\n{text}") };
            rest = &rest[at + part.len()..];
        }
    }
}

fn bundle(entries: &[String]) -> String {
    format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[{}]}}"#, entries.join(","))
}

fn entry(url: &str, resource: &str) -> String {
    format!(r#"{{"fullUrl":"{url}","resource":{resource},"request":{{"method":"PUT","url":"x"}}}}"#)
}

fn nhs(number: &str) -> String {
    format!(r#"{{"system":"https://fhir.nhs.uk/Id/nhs-number","value":"{number}"}}"#)
}

fn patient(number: &str, more: &str) -> String {
    format!(r#"{{"resourceType":"Patient","identifier":[{}]{more}}}"#, nhs(number))
}

fn observation(subject: &str, code: &str, more: &str) -> String {
    format!(
        r#"{{"resourceType":"Observation","status":"final","code":{{"text":"{code}"}},"subject":{subject}{more}}}"#
    )
}

fn to(reference: &str) -> String {
    format!(r#"{{"reference":"{reference}"}}"#)
}

fn number(number: &str) -> String {
    format!(r#"{{"type":"Patient","identifier":{}}}"#, nhs(number))
}

fn value(value: u32) -> String {
    format!(r#","valueQuantity":{{"value":{value}}}"#)
}

#[test]
fn two_patients_are_two_messages_however_they_are_named() {
    let contained = |of: &str| {
        let own = format!(r##","contained":[{}]{}"##, patient(of, r#","id":"p""#), value(1));
        entry(&format!("urn:uuid:{of}"), &observation(&to("#p"), "Weight", &own))
    };
    check("fhir-observations", &bundle(&[contained(ABLE), contained(BAKER)]), &[ABLE, BAKER]);
    let by = |system: &str| {
        let subject =
            format!(r#"{{"type":"Patient","identifier":{{"system":"urn:x:{system}","value":"123"}}}}"#);
        entry(&format!("urn:uuid:{system}"), &observation(&subject, "Weight", &value(1)))
    };
    check("fhir-observations", &bundle(&[by("a"), by("b")]), &["urn:x:a", "urn:x:b"]);
    let at = |server: &str, of: &str| {
        [
            entry(&format!("https://{server}/fhir/Patient/1"), &patient(of, r#","id":"1""#)),
            entry(
                &format!("https://{server}/fhir/Observation/1"),
                &observation(&to("Patient/1"), "Weight", &value(1)),
            ),
        ]
    };
    let both = [at("a", ABLE), at("b", BAKER)].concat();
    check("fhir-observations", &bundle(&both), &[ABLE, BAKER]);
}

#[test]
fn a_stay_is_told_of_its_own_results_alone() {
    let stay = |number: &str| {
        let encounter = format!(r#","encounter":{{"identifier":{{"value":"{number}"}}}}{}"#, value(1));
        entry(&format!("urn:uuid:{number}"), &observation(&self::number(ABLE), "Weight", &encounter))
    };
    check("fhir-observations", &bundle(&[stay("V1"), stay("V2")]), &["|V1", "|V2"]);
}

fn report(results: &[&str], more: &str) -> String {
    let results: Vec<_> = results.iter().map(|one| to(one)).collect();
    format!(
        r#"{{"resourceType":"DiagnosticReport","status":"final","code":{{"text":"Tests"}},"subject":{},"result":[{}]{more}}}"#,
        number(ABLE),
        results.join(",")
    )
}

#[test]
fn a_report_holds_no_result_of_another_patient() {
    let of = |patient: &str| entry("urn:uuid:o", &observation(&number(patient), "Weight", &value(1)));
    let report = entry("urn:uuid:r", &report(&["urn:uuid:o"], ""));
    check("fhir-observations", &bundle(&[report.clone(), of(ABLE)]), &["OBX|1|NM|^Weight||1"]);
    check(
        "fhir-observations",
        &bundle(&[report, of(BAKER)]),
        &["reject: a report or panel holds a result of another patient"],
    );
}

/// Nor where all that their numbers have in common is nothing, a number that no longer holds, or one of nobody.
#[test]
fn numbers_that_say_nothing_make_no_two_patients_one() {
    let untraced = r#"{"system":"https://fhir.nhs.uk/Id/nhs-number"}"#;
    let local = |number: &str| format!(r#"{{"system":"urn:x:mrn","value":"{number}"}}"#);
    let old = r#"{"use":"old","system":"urn:x:mrn","value":"2"}"#;
    let bare = r#"{"value":"1"}"#;
    let of = |identifiers: &[&str]| {
        format!(r#"{{"resourceType":"Patient","identifier":[{}]}}"#, identifiers.join(","))
    };
    let (one, two) = (local("1"), local("2"));
    for (first, second) in
        [([&one, untraced], [&two, untraced]), ([&one, old], [&two, untraced]), ([bare, &one], [bare, &two])]
    {
        let report = report(&["urn:uuid:o"], "").replace(&number(ABLE), &to("urn:uuid:p"));
        let entries = [
            entry("urn:uuid:p", &of(&first)),
            entry("urn:uuid:q", &of(&second)),
            entry("urn:uuid:r", &report),
            entry("urn:uuid:o", &observation(&to("urn:uuid:q"), "Weight", &value(1))),
        ];
        let refused = "reject: a report or panel holds a result of another patient";
        check("fhir-observations", &bundle(&entries), &[refused]);
    }
}

#[test]
fn who_is_no_patient_gets_no_pid() {
    let practitioner = r#"{"resourceType":"Practitioner","identifier":[{"system":"x","value":"C1"}]}"#;
    let o = entry("urn:uuid:o", &observation(&to("urn:uuid:d"), "Weight", &value(1)));
    let refused = "reject: the message is about something else than a patient";
    check("fhir-observations", &bundle(&[entry("urn:uuid:d", practitioner), o]), &[refused]);
    let device = r#"{"type":"Device","identifier":{"system":"urn:dev","value":"QC-1"}}"#;
    check("fhir-observations", &observation(device, "Control", &value(1)), &[refused]);
}

#[test]
fn numbers_that_contradict_each_other_or_fail_name_nobody() {
    let subject = format!(r#"{{"reference":"urn:uuid:p","identifier":{}}}"#, nhs(BAKER));
    let entries = [
        entry("urn:uuid:p", &patient(ABLE, "")),
        entry("urn:uuid:o", &observation(&subject, "W", &value(1))),
    ];
    check("fhir-observations", &bundle(&entries), &["reject: a reference names another number"]);
    check(
        "fhir-observations",
        &observation(&number("1234567890"), "W", &value(1)),
        &["reject: the message names its patient by no identifier", "an NHS number fails its check"],
    );
    check("fhir-observations", &observation(&number("999 100 1018"), "W", &value(1)), &["9991001018^^^NHS"]);
    let old = format!(
        r#"{{"resourceType":"Patient","identifier":[{},{}]}}"#,
        nhs(BAKER).replace('{', r#"{"use":"old","#),
        nhs(ABLE)
    );
    check("fhir-patients", &old, &["PID|1||9991001018^^^NHS^NH||"]);
    let twice = [
        entry("urn:uuid:p", &patient(ABLE, "")),
        entry("urn:uuid:p", &patient(BAKER, "")),
        entry("urn:uuid:o", &observation(&to("urn:uuid:p"), "W", &value(1))),
    ];
    check("fhir-observations", &bundle(&twice), &["reject: the message names its patient by no identifier"]);
}

#[test]
fn numbers_that_are_the_same_however_they_are_written_are_one_patient() {
    let patient = format!(
        r#"{{"resourceType":"Patient","identifier":[{{"system":"https://fhir.nhs.uk/Id/nhs-number","value":"{ABLE}","type":{{"text":"NHS"}},"period":{{"start":"2020"}}}}]}}"#
    );
    let result = |subject: &str| entry("urn:uuid:o", &observation(subject, "Weight", &value(1)));
    let report = report(&["urn:uuid:o"], "").replace(&number(ABLE), &to("urn:uuid:p"));
    let all = |subject: &str| {
        bundle(&[entry("urn:uuid:p", &patient), entry("urn:uuid:r", &report), result(subject)])
    };
    check("fhir-observations", &all(&number(ABLE)), &["OBX|1|NM|^Weight||1"]);
    check("fhir-observations", &all(&number("999 100 1018")), &["OBX|1|NM|^Weight||1"]);
}

#[test]
fn a_merge_is_told_from_whichever_side_it_is_said() {
    let link = |kind: &str, other: &str| {
        format!(r#","link":[{{"type":"{kind}","other":{{"reference":"urn:uuid:{other}"}}}}]"#)
    };
    let a40 = "A40^ADT_A39 … PID|1||9991001069 … MRG|9991001018";
    let gone = entry("urn:uuid:a", &patient(ABLE, &link("replaced-by", "b")));
    let stays = |more: &str| entry("urn:uuid:b", &patient(BAKER, more));
    check("fhir-patients", &bundle(&[gone.clone(), stays("")]), &[a40, "A31"]);
    check("fhir-patients", &bundle(&[gone.clone(), stays(&link("replaces", "a"))]), &["A31", a40]);
    let result = entry("urn:uuid:o", &observation(&number(ABLE), "Weight", &value(1)));
    check("fhir-patients", &bundle(&[gone, stays(""), result.clone()]), &[a40, "A31"]);
    check(
        "fhir-patients",
        &bundle(&[stays(""), result]),
        &["skip: the patient stands in the message beside what it is about"],
    );
    let himself = entry("urn:uuid:a", &patient(ABLE, &link("replaces", "a")));
    check("fhir-patients", &bundle(&[himself]), &["reject: a patient replaces himself"]);
}

fn order(more: &str) -> String {
    format!(
        r#"{{"resourceType":"ServiceRequest","id":"s1","status":"active","intent":"order","code":{{"text":"CT"}},"subject":{}{more}}}"#,
        number(ABLE)
    )
}

#[test]
fn what_is_no_new_order_places_none() {
    check("fhir-orders", &order(""), &["ORC|NW|s1"]);
    let answered = [
        entry("urn:uuid:s", &order("")),
        entry("urn:uuid:r", &report(&["urn:uuid:o"], r#","basedOn":[{"reference":"urn:uuid:s"}]"#)),
    ];
    check(
        "fhir-orders",
        &bundle(&answered),
        &["skip: the orders of the message are drafts, plans, done or what"],
    );
    let never = order(r#","doNotPerform":true"#);
    let revoked =
        answered.clone().map(|entry| entry.replace(r#""status":"active""#, r#""status":"revoked""#));
    check("fhir-orders", &bundle(&revoked), &["ORC|CA|s1"]);
    check("fhir-orders", &never, &["reject: a request says that something must not be done"]);
    check(
        "fhir-orders",
        &order("").replace(r#""intent":"order","#, ""),
        &["reject: a request does not say whether"],
    );
    check("fhir-orders", &order("").replace(r#""order""#, r#""option""#), &["skip: "]);
    let version = |id: &str| order(&format!(r#","meta":{{"versionId":"{id}"}}"#));
    check("fhir-orders", &version("2"), &["ORC|XO"]);
    check("fhir-orders", &version("9f3c1a52-64f0-4c0e-9d4e-000000000001"), &["ORC|NW"]);
}

#[test]
fn what_may_mean_something_else_is_refused() {
    let negated = order(r#","modifierExtension":[{"url":"https://x.example/negated","valueBoolean":true}]"#);
    check("fhir-orders", &negated, &["reject: the message has a modifierExtension"]);
    let ruled = order(r#","implicitRules":"https://x.example/rules""#);
    check("fhir-orders", &ruled, &["reject: the message has rules of its own (implicitRules)"]);
    let delete = bundle(&[entry("urn:uuid:s", &order(""))]).replace("PUT", "DELETE");
    check("fhir-orders", &delete, &["reject: an entry of the Bundle asks for DELETE"]);
    let answer = r#"{"resourceType":"MessageHeader","eventCoding":{"code":"admin-notify"},"response":{"identifier":"1","code":"ok"}}"#;
    let answer = bundle(&[entry("urn:uuid:h", answer), entry("urn:uuid:s", &order(""))])
        .replace("transaction", "message");
    check("fhir-orders", &answer, &["reject: the message is an answer"]);
    let beside = r#"{"resourceType":"AllergyIntolerance","patient":{"reference":"Patient/1"}}"#;
    let beside = bundle(&[entry("urn:uuid:a", beside), entry("urn:uuid:s", &order(""))]);
    check("fhir-orders", &beside, &["ORC|NW", "resources of which nothing is told"]);
}

#[test]
fn documents_say_whether_they_hold_and_bring_their_content_along() {
    let document = |status: &str, more: &str| {
        format!(
            r#"{{"resourceType":"DocumentReference","id":"d1","status":"{status}","subject":{},"content":[{{"attachment":{{"contentType":"application/pdf","url":"urn:uuid:b"}}}}]{more}}}"#,
            number(ABLE)
        )
    };
    let binary = r#"{"resourceType":"Binary","contentType":"application/pdf","data":"JVBERi0xLjQK"}"#;
    let both = [entry("urn:uuid:b", binary), entry("urn:uuid:d", &document("current", ""))];
    check("fhir-documents", &bundle(&both), &["MDM^T02 … |AV\nOBX|1|ED … Base64^JVBERi0xLjQK"]);
    check("fhir-documents", &document("superseded", ""), &["MDM^T03^MDM_T01 … |OB\n"]);
    check("fhir-documents", &document("current", r#","docStatus":"entered-in-error""#), &["MDM^T11 … |CA\n"]);
    let adds = r#","relatesTo":[{"code":"appends","target":{"identifier":{"value":"D0"}}}]"#;
    check("fhir-documents", &document("current", adds), &["MDM^T06 … |d1|D0|"]);
    let nameless = r#","relatesTo":[{"code":"appends","target":{"reference":"DocumentReference/d0"}}]"#;
    check("fhir-documents", &document("current", nameless), &["MDM^T02 … |d1|", "goes as a new one"]);
    let sent = |status: &str| {
        format!(
            r#"{{"resourceType":"Communication","id":"c1","status":"{status}","subject":{},"payload":[{{"contentString":"Call"}}]}}"#,
            number(ABLE)
        )
    };
    check("fhir-documents", &sent("entered-in-error"), &["MDM^T11"]);
    check("fhir-documents", &sent("not-done"), &["skip: "]);
}

#[test]
fn values_keep_their_meaning() {
    let of = |more: &str| observation(&number(ABLE), "X", &format!(",{more}"));
    let cases = [
        (r#""valueQuantity":{"value":1.50e6}"#, "|NM|^X||1500000|"),
        (r#""valueQuantity":{"value":-1.5E-3}"#, "|NM|^X||-0.0015|"),
        (r#""valueRatio":{"numerator":{"value":1},"denominator":{"value":128}}"#, "|SN|^X||^1^:^128|"),
        (
            r#""valueRatio":{"numerator":{"value":1},"denominator":{"value":128,"comparator":">="}}"#,
            "|ST|^X||1 : >=128|",
        ),
        (
            r#""valueRatio":{"numerator":{"value":10,"unit":"mg"},"denominator":{"value":24,"unit":"h"}}"#,
            "|ST|^X||10 mg : 24 h|",
        ),
        (r#""valueQuantity":{"value":1e-2147483648}"#, "|NM|^X||1e-2147483648|"),
        (
            r#""valueInteger":5,"referenceRange":[{"type":{"text":"normal"}},{"high":{"value":6}}]"#,
            "|5||<=6|",
        ),
        (r#""valueTime":"14:30:00""#, "|TM|^X||143000|"),
        (r#""valueBoolean":true,"bodySite":{"text":"Left eye"}"#, "NTE|1||Body site: Left eye"),
        (
            r#""valueInteger":5,"referenceRange":[{"low":{"value":-2},"high":{"value":-1}},{"type":{"text":"toxic"},"low":{"value":6}}]"#,
            "|-2 to -1; toxic: >=6|",
        ),
        (
            r#""component":[{"code":{"text":"Sys"},"valueInteger":120},{"code":{"text":"Dia"},"dataAbsentReason":{"text":"cuff slipped"}}]"#,
            "^Dia|1.2| … \nNTE|1||No value: cuff slipped",
        ),
        (
            r#""valueInteger":5,"performer":[{"identifier":{"system":"https://fhir.nhs.uk/Id/nhs-number","value":"9991001018"}}]"#,
            "PATREP^Reported by the patient",
        ),
    ];
    for (more, expected) in cases {
        check("fhir-observations", &of(more), &[expected]);
    }
}

#[test]
fn a_question_is_told_with_the_group_that_it_stands_in() {
    let knee = |id: u32, side: &str, pain: u32| {
        format!(
            r#"{{"linkId":"{id}","text":"{side} knee","item":[{{"linkId":"{id}.1","text":"Pain","answer":[{{"valueInteger":{pain}}}]}}]}}"#
        )
    };
    let form = format!(
        r#"{{"resourceType":"QuestionnaireResponse","id":"q","status":"completed","subject":{},"item":[{},{}]}}"#,
        number(ABLE),
        knee(1, "Left", 1),
        knee(2, "Right", 9)
    );
    check("fhir-observations", &form, &["1.1^Left knee: Pain|1|1| … 2.1^Right knee: Pain|2|9|"]);
}

#[test]
fn a_photo_is_told_with_the_other_answers_and_what_is_only_pointed_to_is_refused() {
    let form = |answer: &str| {
        format!(
            r#"{{"resourceType":"QuestionnaireResponse","status":"completed","subject":{},"item":[{{"linkId":"1","text":"Wound","answer":[{{"valueAttachment":{{"contentType":"image/jpeg",{answer}}}}}]}},{{"linkId":"2","text":"Pain","answer":[{{"valueInteger":3}}]}}]}}"#,
            number(ABLE)
        )
    };
    let told = "OBX|1|ED|1^Wound|1|^IM^JPEG^Base64^/9j/4AAQ … OBX|2|NM|2^Pain|2|3|";
    check("fhir-observations", &form(r#""data":"/9j/4AAQ""#), &[told]);
    check("fhir-observations", &form(r#""url":"https://x/1""#), &["reject: a value of this shape"]);
}

#[test]
fn an_appointment_is_of_one_patient() {
    let appointment = |people: &[String]| {
        let people: Vec<_> =
            people.iter().map(|who| format!(r#"{{"actor":{who},"status":"accepted"}}"#)).collect();
        format!(
            r#"{{"resourceType":"Appointment","id":"a","status":"booked","start":"2026-02-03T10:00:00Z","participant":[{}]}}"#,
            people.join(",")
        )
    };
    check("fhir-appointments", &appointment(&[number(ABLE)]), &["SIU^S12"]);
    check(
        "fhir-appointments",
        &appointment(&[number(ABLE), number(BAKER)]),
        &["reject: the appointment is of several patients"],
    );
}

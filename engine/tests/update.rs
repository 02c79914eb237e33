//! Partial updates on the whole road, into the demonstration record: `update = "merge"` and `update = "replace"`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use serde_json::{Value, json};
use support::{Instance, Mllp, Process, http, wait};

/// An instance whose record keeps what a message leaves out, or not.
fn start(update: &str) -> (Instance, Process, Process) {
    let instance = Instance::new();
    let both = format!("timeout = \"5s\"\nupdate = \"{update}\"\n");
    instance.write("tie.toml", &instance.config().replace("timeout = \"5s\"\n", &both));
    let record = instance.start_record();
    let engine = instance.start();
    (instance, record, engine)
}

/// Sends a message of the event with these segments after EVN, and waits until the record has it.
fn send(instance: &Instance, event: &str, control_id: &str, segments: &[&str]) {
    let text = format!(
        "MSH|^~\\&|PAS|RXX|TIE|RXX|20260301120000||ADT^{event}|{control_id}|T|2.4|||||GBR\rEVN|{event}|20260301120000\r{}\r",
        segments.join("\r")
    );
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(text.as_bytes()).unwrap().code(), "AA");
    wait("the record to take it", || instance.ledger().iter().any(|id| id == control_id));
}

/// The only resource of a type, without what the server itself puts there.
fn held(instance: &Instance, kind: &str) -> Value {
    let (_, found) = http(instance.record, "GET", &format!("/fhir/{kind}"), "").unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["total"], 1, "{found}");
    let mut resource = found["entry"][0]["resource"].clone();
    for own in ["versionId", "lastUpdated"] {
        resource["meta"].as_object_mut().unwrap().remove(own);
    }
    resource
}

const WHOLE: &str = "PID|1||M1^^^RXX^MR||OAK^FREDA||19700101|2|||1 LOW ROAD^^LEEDS||02079460000^PRN^PH|||M";
const GP: &str = "PD1||||G9999981^TOWNLEY^GREGORY^^^Dr^^^GMP";
/// Says a new name, removes the telephone, and leaves all else out.
const PART: &str = "PID|1||M1^^^RXX^MR||OAK^FREDERICA||||||||\"\"";

#[test]
fn empty_leaves_alone_and_null_removes_where_the_destination_merges() {
    let (instance, _record, _engine) = start("merge");
    send(&instance, "A28", "C1", &[WHOLE, GP]);
    let before = held(&instance, "Patient");
    assert_eq!(before["telecom"][0]["value"], "02079460000");
    send(&instance, "A31", "C2", &[PART]);
    let after = held(&instance, "Patient");
    assert_eq!(after["name"][0]["given"], json!(["FREDERICA"]));
    for kept in ["birthDate", "gender", "address", "maritalStatus", "generalPractitioner"] {
        assert_eq!(after[kept], before[kept], "{kept}");
        assert!(!after[kept].is_null(), "{kept}");
    }
    assert_eq!(after.get("telecom"), None, "removed");
}

#[test]
fn a_destination_that_replaces_never_sees_a_null() {
    let (instance, _record, _engine) = start("replace");
    send(&instance, "A28", "C1", &[WHOLE]);
    send(&instance, "A31", "C2", &[PART]);
    let after = held(&instance, "Patient");
    assert!(!after.to_string().contains("null"), "{after}");
    assert_eq!((after.get("telecom"), after.get("birthDate")), (None, None), "a message is a snapshot");
}

/// P3, and what is removed survives the journal: the record was away, and the engine was killed.
#[test]
fn p3_a_removal_survives_a_restart_and_a_repeat_changes_nothing() {
    let (instance, _record, mut engine) = start("merge");
    send(&instance, "A28", "C1", &[WHOLE]);
    http(instance.record, "POST", "/$away?seconds=2", "").unwrap();
    let text = format!("MSH|^~\\&|PAS|RXX|TIE|RXX|20260301120000||ADT^A31|C2|T|2.4|||||GBR\r{PART}\r");
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(text.as_bytes()).unwrap().code(), "AA");
    wait("the first attempt to fail", || instance.log().contains("not taken yet"));
    engine.kill();
    let _engine = instance.start();
    wait("the record to take it", || instance.ledger().iter().any(|id| id == "C2"));
    let once = held(&instance, "Patient");
    assert_eq!(once.get("telecom"), None, "removed");
    assert!(once.get("address").is_some(), "left alone");
    let again = text.replace("|C2|", "|C3|");
    assert_eq!(source_again(&instance, &again), "AA");
    wait("the record to take it", || instance.ledger().iter().any(|id| id == "C3"));
    assert_eq!(held(&instance, "Patient"), once);
}

fn source_again(instance: &Instance, text: &str) -> String {
    Mllp::connect(instance.mllp).unwrap().send(text.as_bytes()).unwrap().code().to_owned()
}

/// H7: what a restricted patient's message suppresses is taken out of a record that keeps what is not said.
#[test]
fn h7_a_restriction_reaches_what_the_record_has_and_is_lifted_again() {
    let (instance, _record, _engine) = start("merge");
    let stay =
        "PV1|1|I|MAU^WARD7||||C9999991^DARWIN^S^^^Dr^^^GMC|G9999981^TOWNLEY^G^^^Dr^^^GMP|||||||||||V1^^^RXX";
    send(&instance, "A01", "C1", &[WHOLE, GP, "NK1|1|OAK^ALBERT||1 LOW ROAD^^LEEDS|07700900456", stay]);
    assert_eq!(held(&instance, "Encounter")["participant"].as_array().unwrap().len(), 2);
    // The same with the flag of a sensitive patient (PV1-16), and nobody attends.
    let hidden = "PV1|1|I|MAU^WARD7|||||G9999981^TOWNLEY^G^^^Dr^^^GMP||||||||S|||V1^^^RXX";
    send(&instance, "A08", "C2", &[WHOLE, GP, "NK1|1|OAK^ALBERT||1 LOW ROAD^^LEEDS|07700900456", hidden]);
    let patient = held(&instance, "Patient");
    for gone in ["address", "telecom", "generalPractitioner", "contact"] {
        assert_eq!(patient.get(gone), None, "{gone}");
    }
    assert_eq!(patient["meta"]["security"][0]["code"], "R");
    assert_eq!(held(&instance, "Encounter").get("participant"), None, "the referrer is the GP");
    let relative = held(&instance, "RelatedPerson").to_string();
    assert!(!relative.contains("ALBERT") && !relative.contains("LOW ROAD"), "{relative}");
    // Lifted: the label goes although the message says nothing in its place.
    send(&instance, "A08", "C3", &[WHOLE, GP, stay]);
    let patient = held(&instance, "Patient");
    assert_eq!(patient["meta"].get("security"), None);
    assert_eq!(patient["address"][0]["city"], "LEEDS");
}

/// A cancelled discharge takes back what the discharge told; a cancelled death what the death told.
#[test]
fn what_is_cancelled_is_taken_back() {
    let (instance, _record, _engine) = start("merge");
    let stay = |more: &str| format!("PV1|1|I|MAU^WARD7{}V1^^^RXX{more}", "|".repeat(16));
    let discharge = format!("{}1|19{}20260228|20260301", "|".repeat(17), "|".repeat(7));
    let died = format!("PID|1||M1^^^RXX^MR||OAK^FREDA{}20260301|Y", "|".repeat(24));
    send(&instance, "A01", "C1", &[WHOLE, &stay(&format!("{}20260228", "|".repeat(25)))]);
    send(&instance, "A03", "C2", &[&died, &stay(&discharge)]);
    let e = held(&instance, "Encounter");
    assert_eq!(
        (&e["period"]["start"], &e["period"]["end"]),
        (&json!("2026-02-28"), &json!("2026-03-01")),
        "{e}"
    );
    assert!(e["hospitalization"]["dischargeDisposition"].is_object(), "{e}");
    assert_eq!(held(&instance, "Patient")["deceasedDateTime"], "2026-03-01");
    let lives = format!("PID|1||M1^^^RXX^MR||OAK^FREDA{}\"\"|N", "|".repeat(24));
    send(&instance, "A13", "C3", &[&lives, &stay("")]);
    let e = held(&instance, "Encounter");
    assert_eq!((&e["period"], &e["status"]), (&json!({"start": "2026-02-28"}), &json!("in-progress")));
    assert!(!e.to_string().contains("ischarge"), "{e}");
    let patient = held(&instance, "Patient");
    assert_eq!((&patient["deceasedBoolean"], patient.get("deceasedDateTime")), (&json!(false), None));
    assert!(!patient.to_string().contains("DeathNotification"), "{patient}");
    assert_eq!(patient["birthDate"], "1970-01-01", "left alone");
}

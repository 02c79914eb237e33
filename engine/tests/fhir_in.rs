//! FHIR in over real sockets: durable before the answer, delivered as HL7 v2, once, in order; refused with a reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use support::{
    Instance,
    hostile::{Peer, Reaction, fhir},
    http,
    senders::Random,
    wait,
};

fn epr() -> Peer {
    Peer::fhir(|_| Reaction::Take(fhir("200 OK", "")))
}

/// An instance whose EPR is this peer.
fn instance(epr: &Peer) -> Instance {
    let instance = Instance::new();
    let config =
        instance.config().replace("http://127.0.0.1:9/epr", &format!("http://127.0.0.1:{}/epr", epr.port));
    // Order is asked for below; whether a repeat is safe is the destination's matter.
    instance.write("tie.toml", &config.replace("[destination.epr]", "[destination.epr]\nrepeat = \"safe\""));
    instance
}

fn weight(id: &str, patient: usize, value: usize) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"{id}","status":"final","code":{{"text":"Body weight"}},
            "subject":{{"type":"Patient","identifier":{{"system":"https://fhir.rxx.example.nhs.uk/Id/patient","value":"F{patient}"}}}},
            "valueQuantity":{{"value":{value}.50,"unit":"kg"}}}}"#
    )
}

fn post(instance: &Instance, path: &str, body: &str) -> Option<(u16, String)> {
    http(instance.fhir, "POST", &format!("/fhir{path}"), body)
}

#[test]
fn a_resource_is_stored_delivered_once_and_found_again() {
    let epr = epr();
    let instance = instance(&epr);
    let _engine = instance.start();
    let sent =
        fs::read_to_string(support::top().join("testdata/fhir/observation-device-weight.fhir")).unwrap();
    for _ in 0..3 {
        let (status, text) = post(&instance, "/Observation", &sent).unwrap();
        assert!(status == 202 && text.contains("informational"), "{status} {text}");
    }
    wait("the result to be delivered", || !epr.taken().is_empty());
    // P3: an update of it is another message, and no misuse of its number.
    assert_eq!(post(&instance, "/Observation", &sent.replace("72.50", "73.10")).unwrap().0, 202);
    wait("the update to be delivered", || epr.taken().len() == 2);
    // It stands as it did before again: that is told too, once.
    for _ in 0..2 {
        assert_eq!(post(&instance, "/Observation", &sent).unwrap().0, 202);
    }
    wait("the first state to be delivered again", || epr.taken().len() == 3);
    assert_eq!(epr.taken(), ["R-100", "R-100", "R-100"]);
    assert_eq!(instance.status()["journal"]["last"], 3, "stored once each");

    let (code, out, err) = instance.tie(&["search", "--nhs-number", "9991001018", "--json"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("FHIR^Observation") && out.contains("R-100"), "{out}");
    let (_, shown) = http(instance.admin, "GET", "/api/messages/1", "").unwrap();
    assert!(
        shown.contains("fhir-observations")
            && shown.contains("delivered")
            && !shown.contains("control id for other"),
        "{shown}"
    );
    let (code, out, err) = instance.tie(&["replay", "--state", "delivered", "--sequence", "1"]);
    assert_eq!(code, 0, "{out}{err}");
    wait("the replay to be delivered", || epr.taken().len() == 4);
}

#[test]
fn what_cannot_be_taken_is_answered_and_kept() {
    let epr = epr();
    let instance = instance(&epr);
    let _engine = instance.start();
    let cases = [
        ("/Observation", "{\"resourceType\":\"Observation\",", 400, "breaks off at line 1"),
        (
            "/MedicationRequest",
            r#"{"resourceType":"MedicationRequest","status":"active"}"#,
            422,
            "no route takes",
        ),
        ("", r#"{"resourceType":"Bundle","type":"searchset"}"#, 400, "Bundle.type"),
        (
            "/$process-message",
            r#"{"resourceType":"Bundle","type":"message"}"#,
            400,
            "Bundle.entry[0].resource",
        ),
    ];
    for (path, body, wanted, told) in cases {
        let (status, text) = post(&instance, path, body).unwrap();
        assert!(status == wanted && text.contains(told), "{path}: {status} {text}");
        let outcome: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(outcome["issue"][0]["severity"], "error");
    }
    let (_, found) =
        http(instance.admin, "POST", "/api/search", r#"{"quarantined":true,"limit":10}"#).unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["messages"].as_array().unwrap().len(), cases.len(), "{found}");
}

/// HL7 v2 over HTTP is answered by its acknowledgement.
#[test]
fn hl7_over_http_is_acknowledged_in_the_body() {
    use std::io::{Read, Write};
    let epr = epr();
    let instance = instance(&epr);
    let _engine = instance.start();
    let body = "MSH|^~\\&|PAS|RXX|TIE|RXX|20260115||ADT^A28|H1|T|2.4\rPID|1||1^^^RXX^MR||A^B\r";
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", instance.fhir)).unwrap();
    let head = "POST /fhir HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/hl7-v2+er7";
    stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    // No route takes ADT from this listener.
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("MSA|AE|H1|no route takes this message"),
        "{answer}"
    );
}

/// P1, P2, P4: kill -9 at random moments; nothing that was answered by 202 is lost, and each patient's order holds.
#[test]
fn p1_p2_p4_kill_minus_nine_loses_nothing_answered_and_keeps_order() {
    let epr = epr();
    let instance = Arc::new(instance(&epr));
    let mut engine = instance.start();
    let answered: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..4)
        .map(|patient| {
            let (instance, answered, done) = (instance.clone(), answered.clone(), done.clone());
            std::thread::spawn(move || {
                let mut number = 1000;
                while !done.load(Ordering::Acquire) {
                    let id = format!("p{patient}-{number}");
                    match post(&instance, "/Observation", &weight(&id, patient, number)) {
                        Some((202, _)) => {
                            answered.lock().unwrap().insert(id);
                            number += 1;
                        }
                        Some((503, _)) | None => std::thread::sleep(Duration::from_millis(5)), // poll: it comes again
                        Some(other) => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    let mut random = Random(0x7e57_0002);
    for _ in 0..support::effort("CYCLES", 6) {
        let enough = answered.lock().unwrap().len() + 1 + random.below(40) as usize;
        wait("the senders to get on", || answered.lock().unwrap().len() >= enough);
        engine.kill();
        engine = instance.start();
    }
    done.store(true, Ordering::Release);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let answered = answered.lock().unwrap().clone();
    wait("every answered message to be delivered", || {
        let taken: BTreeSet<String> = epr.taken().into_iter().collect();
        answered.is_subset(&taken)
    });
    let mut last: std::collections::BTreeMap<String, String> = Default::default();
    for id in epr.taken() {
        let (patient, number) = id.split_once('-').unwrap();
        let before = last.entry(patient.to_owned()).or_default();
        // A delivery that was under way when the engine was killed comes again: the same, never an earlier one.
        assert!(number >= before.as_str(), "{id} after {before}");
        number.clone_into(before);
    }
    println!("{} answered, {} delivered, 0 lost, 0 out of order", answered.len(), epr.taken().len());
    drop(engine);
}

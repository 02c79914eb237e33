//! P2: reconciliation finds a loss that was planted on purpose, wherever it lies, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use serde_json::Value;
use support::{Instance, Mllp, http, update, wait};

const PATIENTS: usize = 4;
const UPDATES: usize = 10;
const NAME: &str = "shared-care-record";

/// The lines that a reconciliation prints: findings, then the summary; and how it ended.
fn reconcile(instance: &Instance, more: &[&str]) -> (i32, Vec<Value>) {
    let sent = instance.path("sent.txt");
    let arguments = [&["reconcile", "--json", "--sent", sent.to_str().unwrap()], more].concat();
    let (code, out, err) = instance.tie(&arguments);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(!lines.is_empty(), "{code} {out}{err}");
    (code, lines)
}

/// `finding control-id` of each finding.
fn findings(lines: &[Value]) -> Vec<String> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    lines[..lines.len() - 1]
        .iter()
        .map(|line| format!("{} {}", text(line, "finding"), text(line, "control_id")))
        .collect()
}

fn send(instance: &Instance) -> Vec<String> {
    let mut source = Mllp::connect(instance.mllp).unwrap();
    let mut sent = Vec::new();
    for number in 0..UPDATES {
        for patient in 0..PATIENTS {
            let (control_id, message) = update(patient, number);
            assert_eq!(source.send(&message).unwrap().code(), "AA");
            sent.push(control_id);
        }
    }
    sent
}

/// Deletes at the record what tells of one message that it was taken.
fn delete_at_the_record(instance: &Instance, control_id: &str) {
    let (_, found) = http(instance.record, "GET", "/fhir/Provenance?_count=1000", "").unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    let entries = found["entry"].as_array().unwrap();
    let tells = |entry: &&Value| entry["resource"]["entity"][0]["what"]["identifier"]["value"] == control_id;
    let id = entries.iter().find(tells).unwrap()["resource"]["id"].as_str().unwrap().to_owned();
    let (status, _) = http(instance.record, "DELETE", &format!("/fhir/Provenance/{id}"), "").unwrap();
    assert_eq!(status, 204);
}

#[test]
fn p2_one_loss_planted_on_purpose_is_found_and_nothing_else() {
    let instance = Instance::new();
    let _record = instance.start_record();
    let _engine = instance.start();
    let mut sent = send(&instance);
    instance.write("sent.txt", &sent.join("\n"));
    wait("every delivery to be recorded", || reconcile(&instance, &[]).0 == 0);
    instance.write("received.csv", &format!("n,MSH-10\n0,{}", instance.ledger().join("\n0,")));
    let received = format!("{NAME}={}", instance.path("received.txt").display());
    instance.write("received.txt", &instance.ledger().join("\n"));
    let all = ["--received", &received, "--fhir", NAME];
    let (code, lines) = reconcile(&instance, &all);
    assert_eq!((code, findings(&lines)), (0, Vec::new()), "nothing is missing: {lines:#?}");
    assert_eq!(lines[0]["summary"]["destinations"][NAME]["delivered"], sent.len());

    // One message is lost between the sender's list and the engine, one resource at the record, one from its list.
    sent.push("P0000N000099".to_owned());
    instance.write("sent.txt", &sent.join("\r\n"));
    delete_at_the_record(&instance, &sent[7]);
    let others: Vec<_> = instance.ledger().into_iter().filter(|id| *id != sent[9]).collect();
    instance.write("received.txt", &(others.join("\n") + "\nSTRANGER"));
    let (code, lines) = reconcile(&instance, &all);
    let mut expected = vec![
        "never-arrived P0000N000099".to_owned(),
        format!("not-held {}", sent[7]),
        format!("not-received {}", sent[9]),
        "never-sent STRANGER".to_owned(),
    ];
    expected.sort();
    let mut found = findings(&lines);
    found.sort();
    assert_eq!((code, found), (1, expected), "{lines:#?}");
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!((&summary["sent"], &summary["accounted_for"]), (&41.into(), &38.into()));

    println!("{} messages, 4 losses planted, 4 found and nothing else", sent.len());

    // In words, from a column of a table.
    let (code, out, err) = instance.tie(&[
        "reconcile",
        "--sent",
        instance.path("received.csv").to_str().unwrap(),
        "--column",
        "2",
        "--fhir",
        NAME,
    ]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("40 control ids sent: 39 accounted for, 1 not."), "{out}");
    assert!(out.contains("the receiver does not hold") && out.contains(&sent[7]), "{out}");
}

#[test]
fn h1_a_counter_that_begins_anew_hides_no_loss_and_what_nobody_listed_is_named() {
    let instance = Instance::new();
    let _record = instance.start_record();
    let _engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    let numbered = |number: usize, control_id: &str| {
        let (own, message) = update(1, number);
        String::from_utf8(message).unwrap().replace(&own, control_id).into_bytes()
    };
    for (number, control_id) in [(1, "000001"), (2, "000001"), (3, "000002"), (4, "EXTRA")] {
        assert_eq!(source.send(&numbered(number, control_id)).unwrap().code(), "AA");
    }
    // Sent again, as after a lost acknowledgement: acknowledged, and kept once.
    assert_eq!(source.send(&numbered(3, "000002")).unwrap().code(), "AA");
    instance.write("sent.txt", "000001\n000001\n000002\n");
    wait("every delivery to be recorded", || reconcile(&instance, &[]).0 == 0);
    assert_eq!(findings(&reconcile(&instance, &[]).1), ["sent-again 000001", "different-content 000001"]);

    instance.write("sent.txt", "000001\n000001\n000001\n000002\n000002\n");
    let (code, lines) = reconcile(&instance, &[]);
    let expected = ["fewer-arrived 000001", "different-content 000001", "fewer-arrived 000002"];
    assert_eq!((code, findings(&lines)), (1, expected.map(str::to_owned).to_vec()));
    assert_eq!(lines[0]["reason"], "named 3 times, 2 arrived");
    let (code, lines) = reconcile(&instance, &["--transmissions"]);
    assert_eq!(code, 0, "a log of transmissions names again what was sent again: {lines:#?}");

    let bounds = |since| ["--listener", "hospital", "--since", since, "--until", "2999-01-01T00:00:00Z"];
    let with = |since| [&["--transmissions"], &bounds(since)[..]].concat();
    let (code, lines) = reconcile(&instance, &with("2020-01-01T00:00:00Z"));
    assert_eq!((code, findings(&lines).pop()), (0, Some("not-listed EXTRA".to_owned())), "{lines:#?}");
    assert_eq!(lines.last().unwrap()["summary"]["findings"]["not-listed"], 1);
    let (code, lines) = reconcile(&instance, &with("2998-01-01T00:00:00Z"));
    assert_eq!((code, lines.len()), (1, 3), "nothing arrived then: {lines:#?}");
}

#[test]
fn what_waits_or_was_refused_is_named_with_its_state_and_reason() {
    let instance = Instance::new();
    std::fs::remove_file(instance.path("routes/other-messages-to-shared-care-record.toml")).unwrap();
    let _engine = instance.start(); // and no record
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(&update(1, 0).1).unwrap().code(), "AA");
    assert_eq!(source.send(&update(1, 1).1).unwrap().code(), "AA");
    let unknown = b"MSH|^~\\&|KITCHEN|RXX|TIE|RXX|20260301120000||ZZZ^Z99|MENU1|T|2.4\rZZZ|1\r";
    assert_eq!(source.send(unknown).unwrap().code(), "AE");
    instance.write("sent.txt", &[&update(1, 0).0, &update(1, 1).0, "MENU1"].map(str::to_owned).join("\n"));
    let mut lines = Vec::new();
    wait("the first attempt to fail", || {
        let (code, found) = reconcile(&instance, &[]);
        assert_eq!(code, 1);
        lines = found;
        findings(&lines).contains(&format!("retrying {}", update(1, 0).0))
    });
    let found = findings(&lines);
    assert_eq!(found[0], "quarantined MENU1");
    assert_eq!(found[2], format!("ready {}", update(1, 1).0), "it waits behind the first");
    assert!(lines[0]["reason"].as_str().unwrap().contains("no route"), "{lines:#?}");
    assert_eq!(lines[1]["destination"], NAME);
    assert!(!lines[1]["reason"].as_str().unwrap().is_empty(), "{lines:#?}");

    for (wrong, why) in [
        (&["--fhir", "nobody"][..], "no destination is called `nobody`"),
        (&["--received", "missing.txt"], "missing.txt"),
        (&["--admin", "127.0.0.1:1"], "no engine answers"),
    ] {
        let sent = instance.path("sent.txt");
        let (code, _, err) =
            instance.tie(&[&["reconcile", "--sent", sent.to_str().unwrap()], wrong].concat());
        assert!(code >= 2 && err.contains(why), "{wrong:?}: {code} {err}");
    }
}

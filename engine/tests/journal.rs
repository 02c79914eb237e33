//! The journal of a running engine, looked at, copied and put back with the commands that a person has.
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

#[test]
fn p2_a_restored_journal_delivers_nothing_until_a_person_resumes_it() {
    let instance = Instance::new();
    let engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    for number in 0..5 {
        assert_eq!(source.send(&update(1, number).1).unwrap().code(), "AA");
    }
    // Nobody takes deliveries yet: all of this beside the running engine.
    let (code, out, err) = instance.tie(&["journal", "verify", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &report["messages"], &report["damaged"]),
        (0, &5.into(), &Value::Array(vec![])),
        "{err}"
    );
    let copy = instance.path("copy");
    let (code, out, err) = instance.tie(&["journal", "backup", copy.to_str().unwrap()]);
    assert!(code == 0 && out.contains("5 messages"), "{out}{err}");
    let (code, out, _) = instance.tie(&["journal", "stats"]);
    assert!(code == 0 && out.contains("5 messages") && out.contains("shared-care-record: "), "{out}");
    let (code, _, err) = instance.tie(&["journal", "restore", copy.to_str().unwrap()]);
    assert!(code == 3 && err.contains("already holds a journal"), "{err}");
    drop(engine);

    std::fs::rename(instance.path("journal"), instance.path("lost")).unwrap();
    let (code, _, err) = instance.tie(&["journal", "restore", copy.to_str().unwrap()]);
    assert!(code == 0 && err.contains("It is paused"), "{err}");
    let _record = instance.start_record();
    let _engine = instance.start();
    assert!(instance.status()["journal"]["paused"].as_str().unwrap().starts_with("restored from a backup"));
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(&update(2, 0).1).unwrap().code(), "AA", "messages are taken");
    let (_, out, _) = instance.tie(&["status"]);
    assert!(out.contains("PAUSED"), "{out}");
    let (_, found, _) = instance.tie(&["search", "--since", "1h", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&found).unwrap()["messages"].as_array().unwrap().len(), 6);
    assert!(instance.ledger().is_empty(), "nothing is delivered");

    let (code, out, err) = instance.tie(&["resume", "--why", "the original is off"]);
    assert!(code == 0 && out.contains("go on"), "{out}{err}");
    wait("all to be delivered", || instance.ledger().len() >= 6);
    assert_eq!(instance.tie(&["resume", "--why", "again"]).0, 1);
    wait("the gauge to say so", || {
        let (_, metrics) = http(instance.admin, "GET", "/metrics", "").unwrap();
        metrics.contains("tie_journal_paused 0")
    });
}

#[test]
fn damage_is_told_by_exit_code_and_message() {
    let instance = Instance::new();
    let engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    for number in 0..3 {
        assert_eq!(source.send(&update(1, number).1).unwrap().code(), "AA");
    }
    engine.terminate();
    let mut engine = engine;
    assert!(engine.0.wait().unwrap().success());
    let database = instance.path("journal/journal.sqlite");
    let mut bytes = std::fs::read(&database).unwrap();
    // The last body lies first in its page: its last byte is near the end of the page that holds all three.
    let frame = [0x28, 0xb5, 0x2f, 0xfd];
    let place = bytes.windows(4).position(|window| window == frame).unwrap();
    bytes[place + 60] ^= 0xff;
    std::fs::write(&database, &bytes).unwrap();
    let (code, out, _) = instance.tie(&["journal", "verify"]);
    assert!(code == 1 && out.contains("message 3: the stored bytes"), "{code} {out}");
    assert!(out.contains("DAMAGED") && out.contains("3 messages"), "{out}");
    let (code, _, err) = instance.tie(&["journal", "verify", "--directory", "nowhere"]);
    assert!(code == 3 && err.contains("nowhere"), "{err}");
}

#[test]
fn a_variable_that_would_change_how_the_database_is_reached_is_refused() {
    let instance = Instance::new();
    let elsewhere = "postgres = { host = \"/nowhere\", database = \"tie\", user = \"tie\" }";
    instance.write("tie.toml", &instance.config().replace("path = \"journal\"", elsewhere));
    let mut above = std::process::Command::new("env");
    above.arg("PGOPTIONS=-c synchronous_commit=off");
    let mut engine = instance.spawn_under(Some(above));
    support::wait("the engine to end", || engine.0.try_wait().unwrap().is_some());
    let log = instance.log();
    assert!(log.contains("the environment variable PGOPTIONS is set"), "{log}");
}

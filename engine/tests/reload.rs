//! P8: a configuration change is all or nothing, validated, and takes effect without a restart.
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
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use support::{Instance, Mllp, http, update, wait};

fn revision(instance: &Instance) -> String {
    instance.status()["revision"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn p8_a_good_edit_goes_live_and_a_bad_one_changes_nothing() {
    let instance = Instance::new();
    let _record = instance.start_record();
    let _engine = instance.start();
    let first = revision(&instance);
    let mut source = Mllp::connect(instance.mllp).unwrap();

    // A bad edit: a script that does not compile.
    let good = instance.read("mappings/adt.rhai");
    instance.write("mappings/adt.rhai", &good.replacen("fn map(", "fn map((", 1));
    wait("the bad edit to be refused", || {
        let status = instance.status();
        status["last_reload"]["problems"].as_array().is_some_and(|problems| {
            problems.iter().any(|problem| problem.to_string().contains("mappings/adt.rhai"))
        })
    });
    assert_eq!(revision(&instance), first);
    assert_eq!(source.send(&update(1, 0).1).unwrap().code(), "AA");
    wait("the old mapping to serve", || instance.ledger().len() == 1);
    let (_, metrics) = http(instance.admin, "GET", "/metrics", "").unwrap();
    assert!(
        metrics.lines().any(|line| line.starts_with("tie_reloads_total{") && line.contains("refused")),
        "{metrics}"
    );
    assert!(instance.log().contains("mappings/adt.rhai"), "the log names the place");

    // Mended, with a visible change.
    instance.write("mappings/adt.rhai", &good.replacen("fn map(msg) {", "fn map(msg) {\n    if msg[\"MSH-10\"] == \"P0001N000001\" { return skip(\"left out by the new revision\"); }", 1));
    wait("the good edit to go live", || revision(&instance) != first);
    assert_eq!(source.send(&update(1, 1).1).unwrap().code(), "AA");
    assert_eq!(source.send(&update(1, 2).1).unwrap().code(), "AA");
    wait("the new mapping to serve", || instance.ledger() == ["P0001N000000", "P0001N000002"]);
}

#[test]
fn p8_a_route_that_fails_its_own_test_does_not_go_live() {
    let instance = Instance::new();
    let _engine = instance.start();
    let first = revision(&instance);
    let good = instance.read("mappings/adt.rhai");
    instance.write(
        "mappings/adt.rhai",
        &good.replacen("fn map(msg) {", "fn map(msg) {\n    return skip(\"nothing any more\");", 1),
    );
    wait("the edit to be refused", || {
        !instance.status()["last_reload"]["problems"].as_array().is_none_or(Vec::is_empty)
    });
    assert_eq!(revision(&instance), first);

    // Put back as it was: nothing is refused any more, and the status says so.
    instance.write("mappings/adt.rhai", &good);
    wait("the file to be as it was", || instance.status()["last_reload"]["result"] == "unchanged");
    assert_eq!(revision(&instance), first);
}

#[test]
fn p8_a_storm_of_reloads_under_load_loses_nothing() {
    let instance = Arc::new(Instance::new());
    let _record = instance.start_record();
    let _engine = instance.start();
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let sender = std::thread::spawn({
        let (port, stop, sent) = (instance.mllp, stop.clone(), sent.clone());
        move || {
            let mut source = Mllp::connect(port).unwrap();
            while !stop.load(Ordering::Acquire) {
                let number = sent.load(Ordering::Acquire);
                assert_eq!(source.send(&update(7, number).1).unwrap().code(), "AA");
                sent.store(number + 1, Ordering::Release);
            }
        }
    });
    let route = instance.read("routes/adt-to-shared-care-record.toml");
    let mut seen = BTreeSet::from([revision(&instance)]);
    for storm in 0..6 {
        let before = revision(&instance);
        instance.write("routes/adt-to-shared-care-record.toml", &format!("{route}\n# storm {storm}\n"));
        wait("the reload", || revision(&instance) != before);
        seen.insert(revision(&instance));
    }
    assert_eq!(seen.len(), 7);
    wait("some load", || sent.load(Ordering::Acquire) > 20);
    stop.store(true, Ordering::Release);
    sender.join().unwrap();
    let expected: Vec<_> = (0..sent.load(Ordering::Acquire)).map(|number| update(7, number).0).collect();
    wait("all to arrive, in order", || instance.ledger() == expected);

    let (_, message) = http(instance.admin, "GET", "/api/messages/1", "").unwrap();
    let message: serde_json::Value = serde_json::from_str(&message).unwrap();
    let made_by = message["deliveries"][0]["revision"].as_str().unwrap();
    assert!(
        seen.iter().any(|revision| revision.starts_with(made_by) || made_by.starts_with(revision.as_str())),
        "{made_by} was live: {seen:?}"
    );
}

#[test]
fn p8_a_destination_can_move_without_a_restart() {
    let instance = Instance::new();
    let _engine = instance.start(); // nobody answers at the configured address
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(&update(8, 0).1).unwrap().code(), "AA");
    let mut elsewhere = Instance::new();
    [elsewhere.record] = support::free_ports();
    let _record = elsewhere.start_record();
    let config = instance.config().replace(&instance.record.to_string(), &elsewhere.record.to_string());
    instance.write("tie.toml", &config);
    wait("the delivery at the new address", || elsewhere.ledger() == [update(8, 0).0]);
    // The listener was not touched: the old connection still serves.
    assert_eq!(source.send(&update(8, 1).1).unwrap().code(), "AA");
}

//! `tie bench` as people and scripts use it: short and small, over the real binary, for what it tells and leaves behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use support::{postgres, top, wait};

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tie"));
    command.current_dir(top()).arg("bench").args(arguments).arg("--directory").arg(directory);
    command.stdin(Stdio::null());
    command
}

/// The JSON of each line.
fn figures(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bench(arguments: &[&str]) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let short = ["--seconds", "2", "--warm-up", "0.3", "--json"];
    let output = command(directory.path(), &[arguments, &short].concat()).output().unwrap();
    let figures = figures(&output);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
    figures
}

fn number(figures: &Value, place: &str) -> f64 {
    let found = place.split('.').try_fold(figures, |value, key| value.get(key)).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number {place} in {figures}"))
}

const ALWAYS: [&str; 23] = [
    "acknowledged",
    "acknowledged_per_second",
    "acknowledgement_ms.p50",
    "acknowledgement_ms.p99",
    "acknowledgement_ms.p999",
    "acknowledged_over_bare",
    "acknowledgement_over_bare",
    "acknowledgement_over_sync",
    "bytes_kept_per_message",
    "bytes_written_per_message",
    "cpu_over_bare",
    "engine_cpu_ms_per_message",
    "floor_bare.acknowledged",
    "floor_bare.acknowledged_per_second",
    "floor_bare.acknowledgement_ms.p50",
    "floor_bare.acknowledgement_ms.p99",
    "floor_bare.cpu_ms_per_message",
    "floor_disk.messages_per_second",
    "floor_disk.sync_ms.p50",
    "commits_per_second",
    "messages_per_commit",
    "ready_after_ms",
    "resident_peak_bytes",
];
const DELIVERED: [&str; 8] = [
    "bundle_bytes",
    "delivered_per_second",
    "end_to_end_ms.p50",
    "end_to_end_ms.p99",
    "floor_bare.road_per_second",
    "floor_posts_per_second",
    "road_over_bare",
    "road_per_second",
];

#[test]
fn what_is_acknowledged_is_delivered_and_every_figure_is_there() {
    let all = bench(&["--scenario", "adt,mix", "--connections", "4", "--destinations", "2"]);
    assert_eq!(all.len(), 2);
    for one in &all {
        for place in ALWAYS.iter().chain(&DELIVERED) {
            assert!(number(one, place) > 0.0, "{place} in {one}");
        }
        assert_eq!(one["acknowledged"], one["delivered"]);
        assert_eq!(one["floor_bare"]["acknowledged"], one["floor_bare"]["delivered"]);
        assert_eq!(one["destinations"], 2);
        assert!(one["configuration"].as_str().unwrap().contains("[destination.record-2]"));
    }
    assert!((1_300.0..1_500.0).contains(&number(&all[0], "message_bytes")));
}

#[test]
fn scenarios_without_deliveries_say_so() {
    for one in bench(&["--scenario", "accept,down", "--connections", "4"]) {
        ALWAYS.iter().for_each(|place| assert!(number(&one, place) > 0.0, "{place} in {one}"));
        assert_eq!((one["delivered"].as_u64(), one["delivered_per_second"].as_f64()), (Some(0), None));
        assert!(number(&one, "waiting") >= number(&one, "acknowledged"));
        assert_eq!((number(&one, "floor_bare.delivered"), one["road_over_bare"].as_f64()), (0.0, None));
        assert!(number(&one, "cpu_over_bare") > 1.0, "what only stores costs less: {one}");
    }
}

#[test]
fn a_backlog_and_documents_are_told_of() {
    let all =
        bench(&["--scenario", "drain,document", "--backlog", "300", "--rate", "20", "--connections", "2"]);
    for place in ["drained_per_second", "drain_cpu_ms_per_message", "built_per_second"] {
        assert!(number(&all[0], place) > 0.0, "{place}");
    }
    assert_eq!(all[0]["backlog_built"], 300);
    for place in ["documents", "alone_acknowledgement_ms.p99", "acknowledgement_p99_over_alone"] {
        assert!(number(&all[1], place) > 0.0, "{place}");
    }
    assert!(number(&all[1], "document_bytes") > 5e6);
    assert!(all.iter().all(|one| one["floor_bare"].is_null() && one["cpu_over_bare"].is_null()));
}

#[test]
fn growth_has_a_journal_of_each_size_and_routes_share_the_load() {
    let sizes = ["--stored", "3000,300", "--routes", "1,3", "--connections", "4"];
    let all = bench(&[&["--scenario", "growth,routes", "--runs", "2"], &sizes[..]].concat());
    assert_eq!(all.len(), 4);
    for one in &all {
        let places = ALWAYS.iter().chain(&DELIVERED).chain(&["road_over_first"]);
        for place in places.filter(|place| !place.contains("bare")) {
            assert!(number(one, place) > 0.0, "{place} in {one}");
        }
        assert!(one["floor_bare"].is_null(), "that has no journal");
        assert_eq!((&one["acknowledged"], number(one, "repeated")), (&one["delivered"], 0.0));
    }
    assert_eq!([0, 2].map(|first| number(&all[first], "road_over_first")), [1.0; 2]);
    for (size, filled) in [(0, 300.0), (1, 3000.0)] {
        let trials = all[size]["trials"].as_array().unwrap();
        assert_eq!(number(&trials[0], "stored"), filled);
        // What the first run has sent lies there too.
        assert!(number(&trials[1], "stored") >= filled + number(&trials[0], "acknowledged"));
    }
    assert!((1_500.0..5_000.0).contains(&number(&all[1], "bytes_kept_per_message")));
    assert_eq!((&all[2]["routes"], &all[3]["routes"]), (&1.into(), &3.into()));
}

#[test]
fn a_disk_without_room_for_the_growth_is_told_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let output =
        command(directory.path(), &["--scenario", "growth", "--stored", "1000000000000"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("needs 3000002.0 GB") && told.contains("--directory"), "{told}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn mappings_that_do_not_do_are_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mappings = directory.path().join("mappings");
    fs::create_dir(&mappings).unwrap();
    for name in ["adt", "oru", "documents"] {
        fs::write(mappings.join(format!("{name}.rhai")), "fn map(msg) { fail(\"not so\"); }\n").unwrap();
    }
    let arguments = ["--scenario", "single", "--seconds", "1", "--mappings", mappings.to_str().unwrap()];
    let output = command(directory.path(), &arguments).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("NOT DELIVERED: of ") && told.contains("not so"), "{told}");
}

#[test]
fn postgres_is_measured_in_a_database_of_its_own_and_runs_have_a_median() {
    let server = postgres::Server::shared();
    let url = format!("postgres://tie@localhost/{}?host={}", server.database(), server.socket().display());
    let all = bench(&["--scenario", "single", "--store", "postgres", "--postgres", &url, "--runs", "2"]);
    assert_eq!((all.len(), all[0]["trials"].as_array().unwrap().len()), (1, 2));
    assert_eq!((all[0]["store"].as_str(), number(&all[0], "connections")), (Some("postgres"), 1.0));
    for place in ["delivered_per_second", "bytes_written_per_message", "bytes_kept_per_message"] {
        assert!(number(&all[0], place) > 0.0, "{place}");
    }
}

#[test]
fn elsewhere_it_says_what_it_needs() {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = command(nowhere.path(), &[]);
    let output = command.current_dir(nowhere.path()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("no adt.rhai in ./mappings") && told.contains("--mappings"), "{told}");
}

#[test]
fn whoever_ends_it_leaves_no_process_behind() {
    for signal in ["INT", "KILL"] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = command(directory.path(), &["--scenario", "adt", "--connections", "2"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait("three processes", || parts(directory.path(), child.id()).len() == 3);
        let started = parts(directory.path(), child.id());
        Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert!(!child.wait().unwrap().success());
        wait("their end", || started.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists()));
        if signal == "INT" {
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }
}

/// The children of a process; none yet unless the engine has its directory.
fn parts(directory: &Path, parent: u32) -> Vec<String> {
    if fs::read_dir(directory).unwrap().count() == 0 {
        return Vec::new();
    }
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

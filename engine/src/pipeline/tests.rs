//! What the pipeline adds to its stages: lanes, charsets, orders.

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::{
    config::Snapshot,
    connector::{Plugin, Role, testing::Nothing},
    hl7::Message,
    intake::Patients,
    journal::{Demand, Disposition, Sequence, State, conformance},
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nowhere {}

const PLUGINS: &[Plugin] = &[Plugin {
    name: "nowhere",
    about: "From nowhere to nowhere.",
    source: Some(Role {
        example: "",
        schema: || schemars::schema_for!(Nowhere),
        build: |_| Ok(Box::new(Nothing)),
    }),
    destination: Some(Role {
        example: "",
        schema: || schemars::schema_for!(Nowhere),
        build: |_| Ok(Arc::new(Nothing)),
    }),
    answers: &[],
}];

const ROUTE: &str = "from = ['lab', 'other']\nmap = 'name'\naccept = { trigger = ['ADT', 'ORU'] }\n\
    [[to]]\ndestination = 'record'\n";
const SCRIPT: &str =
    "fn map(msg) { #{ resourceType: \"Patient\", id: \"x\", name: [#{ family: msg[\"PID-5\"].text }] } }";

/// A revision with a listener `lab` of these lines, a table of authorities, and a route in some order; where the lines have
/// a destination `copy` besides, the route leads there too.
fn revision(lab: &str, authorities: &str, order: &str) -> Arc<Revision> {
    named("r1", lab, authorities, order)
}

fn named(name: &str, lab: &str, authorities: &str, order: &str) -> Arc<Revision> {
    let config = format!(
        "environment = 'test'\njournal.path = 'j'\n[listener.other]\nkind = 'nowhere'\n{lab}\n\
         [destination.record]\nkind = 'nowhere'\n"
    );
    let files = |files: &[(&str, &str)]| {
        files.iter().map(|(name, text)| (PathBuf::from(name), Arc::from(*text))).collect()
    };
    let from = if lab.is_empty() { ROUTE.replace("'lab', ", "") } else { ROUTE.to_owned() };
    let copy = if lab.contains("[destination.copy]") { "[[to]]\ndestination = 'copy'\n" } else { "" };
    let from = format!("order = '{order}'\n{from}{copy}");
    let table = format!("from,system\n{authorities}");
    let snapshot = Snapshot {
        home: PathBuf::from("."),
        config_file: PathBuf::from("tie.toml"),
        config: Arc::from(config),
        routes: files(&[("routes/feed.toml", &from)]),
        mappings: files(&[
            ("mappings/name.rhai", SCRIPT),
            ("mappings/tables/assigning-authorities.csv", &table),
        ]),
        folders: vec![PathBuf::from("mappings")],
        samples: BTreeMap::new(),
        revision: name.to_owned(),
        git_commit: None,
    };
    Arc::new(Revision::build(&snapshot, PLUGINS).map_err(|problems| format!("{problems:?}")).unwrap())
}

/// A live pipeline over such a revision.
fn pipeline(lab: &str, authorities: &str) -> Pipeline {
    Pipeline::new(
        revision(lab, authorities, "patient"),
        conformance::metrics(),
        Arc::new(Threads::new(Demand::default())),
    )
}

const LAB: &str = "[listener.lab]\nkind = 'nowhere'\n";

/// What `lab` has sent.
fn entry(charset: &str, name: &[u8]) -> Entry {
    let head = format!("MSH|^~\\&|LAB|RXX|||20260101||ORU^R01|1|P|2.4||||||{charset}\rPID|1||1^^^RXX^MR||");
    Entry {
        sequence: Sequence(1),
        received: Timestamp::UNIX_EPOCH,
        listener: "lab".to_owned(),
        control_id: "1".to_owned(),
        raw: Bytes::from([head.as_bytes(), name].concat()),
    }
}

/// What `lab` has sent becomes of: the name that would be delivered, or why nothing is.
async fn prepared(pipeline: &Pipeline, charset: &str, name: &[u8]) -> Result<String, String> {
    let entry = entry(charset, name);
    let id = DeliveryId { sequence: Sequence(1), route: "feed".to_owned(), destination: "record".to_owned() };
    match pipeline.prepare(&entry, &id).await {
        Prepared::Send { payloads, .. } => {
            let resource: serde_json::Value = serde_json::from_slice(payloads[0].bytes()).unwrap();
            Ok(resource["name"][0]["family"].as_str().unwrap().to_owned())
        }
        Prepared::Held { reason, .. } => Err(reason),
        Prepared::Filtered { reason, .. } | Prepared::Dead { reason, .. } => panic!("{reason}"),
    }
}

#[tokio::test]
async fn h5_what_a_listener_that_is_gone_has_taken_is_read_without_a_guess_or_held() {
    let name = b"\xA3ukasz"; // Łukasz in ISO 8859-2, £ukasz in windows-1252
    let told = async |lab: &str, charset, name: &[u8]| prepared(&pipeline(lab, ""), charset, name).await;
    let latin_2 = format!("{LAB}charset = 'iso-8859-2'\n");
    assert_eq!(told(&latin_2, "", name).await.as_deref(), Ok("Łukasz"));
    assert_eq!(told(LAB, "", name).await.as_deref(), Ok("£ukasz"), "what the operator has corrected counts");
    let held = told("", "", name).await.unwrap_err();
    assert!(held.contains("`lab` is no longer configured") && held.contains("character set"), "{held}");
    assert!(told("", "ASCII", name).await.is_err(), "a declaration that does not hold says nothing");
    assert_eq!(told("", "8859/2", name).await.as_deref(), Ok("Łukasz"));
    assert_eq!(told("", "", "Łukasz".as_bytes()).await.as_deref(), Ok("Łukasz"));
    assert_eq!(told("", "", b"Lukasz").await.as_deref(), Ok("Lukasz"));
}

/// Never ends the first mapping; of the others it says which revision they are run with.
#[derive(Default)]
struct Stuck(AtomicBool);

#[async_trait]
impl Workers for Stuck {
    async fn run(&self, job: Job) -> Option<Prepared> {
        if !self.0.swap(true, Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Some(Prepared::Filtered { reason: String::new(), revision: job.revision().to_owned() })
    }
}

#[tokio::test]
async fn p8_what_waited_for_another_destinations_mapping_begins_with_what_is_live_then() {
    let twice = format!("{LAB}[destination.copy]\nkind = 'nowhere'\n");
    let two = |name: &str| named(name, &twice, "", "patient");
    let pipeline = Pipeline::new(two("r1"), conformance::metrics(), Arc::new(Stuck::default()));
    let entry = entry("8859/1", b"Name");
    let id = |to: &str| DeliveryId { sequence: Sequence(1), route: "feed".into(), destination: to.into() };
    let (record, copy) = (id("record"), id("copy"));
    let (mut first, mut second) = (pipeline.prepare(&entry, &record), pipeline.prepare(&entry, &copy));
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    pipeline.live.store(two("r2"));
    drop(first);
    let Prepared::Filtered { revision, .. } = second.await else { panic!("it is made") };
    assert_eq!(revision, "r2");
}

#[tokio::test]
async fn p7_what_a_mapping_notices_is_told_once_and_counted() {
    let registry = prometheus::Registry::new();
    let metrics = Arc::new(Metrics::new(&registry).unwrap());
    let pipeline =
        Pipeline::new(revision(LAB, "", "patient"), metrics, Arc::new(Threads::new(Demand::default())));
    let name = "Łukasz\rno segment\rnor this".as_bytes();
    assert_eq!(prepared(&pipeline, "8859/1", name).await.as_deref(), Ok("Łukasz"));
    let entry = entry("8859/1", name);
    let id = DeliveryId { sequence: Sequence(1), route: "feed".to_owned(), destination: "record".to_owned() };
    let Prepared::Send { remarks, .. } = pipeline.prepare(&entry, &id).await else { panic!("it is mapped") };
    let told: Vec<_> = remarks.iter().map(|remark| (remark.kind, remark.text.as_str())).collect();
    assert_eq!(
        told,
        [
            ("doubtful", "a line is no segment: it was not read"),
            ("doubtful", "MSH-18 names another set, but the bytes are UTF-8 and were read as such"),
        ]
    );
    let printed = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let counted = r#"tie_mapping_remarks_total{kind="doubtful",mapping="name"} 4"#;
    assert!(printed.contains(counted), "{printed}");
}

#[tokio::test]
async fn what_waits_for_a_thread_is_counted_until_it_is_served_or_given_up() {
    let demand = Demand::default();
    let threads = Arc::new(Threads::new(demand.clone()));
    let pipeline = Pipeline::new(revision(LAB, "", "patient"), conformance::metrics(), threads);
    let (given_up, entry) = (entry("8859/1", b"A"), entry("8859/1", b"B"));
    let id = DeliveryId { sequence: Sequence(1), route: "feed".to_owned(), destination: "record".to_owned() };
    let mut nobody_waits = pipeline.prepare(&given_up, &id);
    assert!(futures::poll!(&mut nobody_waits).is_pending());
    drop(nobody_waits);
    let Prepared::Send { .. } = pipeline.prepare(&entry, &id).await else { panic!("it is mapped") };
    assert_eq!(demand.waiting(), 0);
}

#[test]
fn what_is_noticed_is_told_once_and_without_what_was_sent() {
    let unmapped = |code: &str| Finding::Unmapped { table: "sex".into(), code: code.into() };
    let told = remarks(vec![
        unmapped("CANARY"),
        Finding::Remark("odd".into()),
        unmapped("Q"),
        Finding::Doubtful("odd"),
    ]);
    let told: Vec<_> = told.iter().map(|remark| (remark.kind, remark.text.as_str())).collect();
    assert_eq!(told, [("unmapped", "the table sex has no row for a code"), ("said", "odd")]);
}

/// The lanes of a message of the facility `RXX`.
fn lanes_of(pipeline: &Pipeline, pid_3: &str) -> Vec<String> {
    let text = format!("MSH|^~\\&|PAS|RXX|||20260101||ADT^A08|1|P|2.4\rPID|1||{pid_3}\r");
    let message = Message::parse(Bytes::from(text), encoding_rs::UTF_8).unwrap();
    let patient = PatientKeys::of(&message, &Patients::default());
    pipeline.route("lab", &message.into(), &patient).remove(0).lanes
}

#[test]
fn p4_authorities_that_the_mappings_hold_for_one_share_a_lane() {
    let table = "RXX/MR,https://rxx/Id/patient\nPAS,https://rxx/Id/patient\nRYY,https://ryy/Id/patient\n\
        NHS,https://fhir.nhs.uk/Id/nhs-number\nEPICNHS,https://fhir.nhs.uk/Id/nhs-number\n";
    let pipeline = pipeline(LAB, table);
    let lanes = |pid_3: &str| lanes_of(&pipeline, pid_3);
    assert_eq!(lanes("1^^^PAS^MR"), ["patient|pas|1", "patient|rxx|1"]);
    assert_eq!(lanes("1^^^RXX^MR"), ["patient|rxx|1", "patient|pas|1"]);
    assert_eq!(lanes("1"), ["patient|rxx|1", "patient|pas|1"], "a bare number is the facility's");
    assert_eq!(lanes("1^^^RYY^MR"), ["patient|ryy|1"]);
    let own_word = lanes("999 100 1069^^^EPICNHS^MR");
    assert_eq!(own_word, ["patient|epicnhs|999 100 1069", "patient|nhs|9991001069"]);
    assert_eq!(lanes("9991001069^^^NHS"), ["patient|nhs|9991001069", "patient|epicnhs|9991001069"]);
    let many: Vec<_> = (0..999).map(|n| format!("{n}A^^^PAS^MR")).collect();
    assert!(lanes(&many.join("~")).len() <= MOST_LANES);
}

/// Who was received before a change of the order is not overtaken by who comes after it, also after a restart.
#[tokio::test]
async fn p4_a_changed_order_keeps_the_earlier_one_while_somebody_waits_by_it() {
    let home = tempfile::tempdir().unwrap();
    let journal = conformance::journal_of(home.path()).await;
    let start = async |order| {
        let (metrics, threads) = (conformance::metrics(), Arc::new(Threads::new(Demand::default())));
        Pipeline::start(revision(LAB, "", order), &journal, metrics, threads).await.unwrap()
    };
    let lanes = |pipeline: &Pipeline| lanes_of(pipeline, "1^^^RXX^MR");
    let both = ["patient|rxx|1", "route|feed"];
    let pipeline = start("route").await;
    assert_eq!(lanes(&pipeline), ["route|feed"]);
    let mut waiting = conformance::message(1, &[("feed", "record")]);
    if let Disposition::Routed(deliveries) = &mut waiting.disposition {
        deliveries[0].lanes = lanes(&pipeline);
    }
    let sequence = journal.append(waiting).await.unwrap();

    pipeline.go_live(revision(LAB, "", "patient"), &journal).await.unwrap();
    assert_eq!(lanes(&pipeline), both);
    for _ in 0..3 {
        pipeline.forget_former_orders(&journal).await.unwrap();
        assert_eq!(lanes(&pipeline), both, "somebody waits");
    }
    let pipeline = start("patient").await;
    for _ in 0..3 {
        assert_eq!(lanes(&pipeline), both, "after a restart too");
        pipeline.forget_former_orders(&journal).await.unwrap();
    }
    let id = conformance::id(sequence, "feed", "record");
    journal.record(conformance::outcome(&id, State::Delivered, 1)).await.unwrap();
    journal.append(conformance::message(2, &[("feed", "record")])).await.unwrap();
    pipeline.forget_former_orders(&journal).await.unwrap();
    assert_eq!(lanes(&pipeline), ["patient|rxx|1"], "who came later does not count");
    assert_eq!(lanes(&start("patient").await), ["patient|rxx|1"]);
}

#[tokio::test]
async fn p4_what_is_being_received_while_the_order_changes_has_time_to_come_into_the_journal() {
    let home = tempfile::tempdir().unwrap();
    let journal = conformance::journal_of(home.path()).await;
    let (metrics, threads) = (conformance::metrics(), Arc::new(Threads::new(Demand::default())));
    let pipeline = Pipeline::start(revision(LAB, "", "route"), &journal, metrics, threads).await.unwrap();
    pipeline.forget_former_orders(&journal).await.unwrap();
    pipeline.go_live(revision(LAB, "", "patient"), &journal).await.unwrap();
    let lanes = || lanes_of(&pipeline, "1^^^RXX^MR").len();
    pipeline.forget_former_orders(&journal).await.unwrap();
    assert_eq!(lanes(), 2);
    pipeline.forget_former_orders(&journal).await.unwrap();
    assert_eq!(lanes(), 1);
}

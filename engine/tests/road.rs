//! The whole road over real sockets: MLLP in, journal, mapping, FHIR out, as its users would see it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

use support::{Instance, Mllp, frame, http, message, update, wait};

#[test]
fn an_admission_becomes_a_patient_in_the_record() {
    let instance = Instance::new();
    let _record = instance.start_record();
    let _engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();

    let (control_id, update) = update(1, 0);
    let answer = source.send(&update).unwrap();
    assert_eq!((answer.code(), answer.control_id()), ("AA", control_id.as_str()));

    wait("the patient to be in the record", || instance.ledger().contains(&control_id));
    let (_, found) = http(instance.record, "GET", "/fhir/Patient?identifier=M000001", "").unwrap();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let patients: Vec<_> = found["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["resource"]["name"][0]["family"].clone())
        .collect();
    assert!(patients.contains(&"ZZTEST1".into()), "{found}");
}

#[test]
fn frames_come_as_the_network_pleases() {
    let instance = Instance::new();
    let _record = instance.start_record();
    let _engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();

    // Three in one write, with junk and NUL between them, the second without CR after FS.
    let messages: Vec<_> = (0..3).map(|number| update(2, number)).collect();
    let mut bytes = b"\0\r\n".to_vec();
    bytes.extend(frame(&messages[0].1));
    bytes.extend(b"\0\0noise");
    bytes.extend(&frame(&messages[1].1)[..messages[1].1.len() + 2]);
    bytes.extend(frame(&messages[2].1));
    source.write(&bytes).unwrap();
    for (control_id, _) in &messages {
        assert_eq!(source.read().unwrap().control_id(), control_id);
    }

    // One in many writes.
    let (control_id, single) = update(2, 3);
    for byte in frame(&single).chunks(7) {
        source.write(byte).unwrap();
    }
    assert_eq!(source.read().unwrap().control_id(), control_id);
    wait("all four to arrive in order", || {
        instance.ledger() == ["P0002N000000", "P0002N000001", "P0002N000002", "P0002N000003"]
    });
}

#[test]
fn p2_a_record_that_is_away_gets_everything_when_it_is_back() {
    let instance = Instance::new();
    let _engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    for number in 0..5 {
        assert_eq!(source.send(&update(3, number).1).unwrap().code(), "AA");
    }
    wait("the attempts to fail", || {
        let (_, text) = http(instance.admin, "GET", "/metrics", "").unwrap();
        text.lines().any(|line| {
            line.starts_with("tie_delivery_attempt_seconds_count") && line.contains("unavailable")
        })
    });
    let _record = instance.start_record();
    let expected: Vec<_> = (0..5).map(|number| update(3, number).0).collect();
    wait("the backlog to arrive in order", || instance.ledger() == expected);
}

#[test]
fn what_no_route_takes_is_kept_and_answered_with_a_reason() {
    let instance = Instance::new();
    std::fs::remove_file(instance.path("routes/other-messages-to-shared-care-record.toml")).unwrap();
    let _engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();

    let unknown = b"MSH|^~\\&|KITCHEN|RXX|TIE|RXX|20260301120000||ZZZ^Z99|MENU1|T|2.4\rZZZ|1\r";
    let answer = source.send(unknown).unwrap();
    assert_eq!((answer.code(), answer.control_id()), ("AE", "MENU1"), "{answer:?}");
    assert!(answer.0.contains("route"), "the answer says why: {answer:?}");

    let answer = source.send(b"hello, is this the lab?").unwrap();
    assert!(matches!(answer.code(), "AR" | "AE"), "{answer:?}");
    // The connection lives on.
    assert_eq!(source.send(&update(4, 0).1).unwrap().code(), "AA");

    let (status, found) =
        http(instance.admin, "POST", "/api/search", r#"{"key":{"control_id":"MENU1"}}"#).unwrap();
    assert_eq!(status, 200);
    assert!(found.contains("quarantine"), "{found}");
}

#[test]
fn p3_a_replay_repeats_what_a_person_asks_for_and_changes_nothing_in_the_record() {
    let instance = Instance::new();
    let _record = instance.start_record();
    let _engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(&message("adt/a01-admit-emergency.hl7")).unwrap().code(), "AA");
    wait("the delivery's outcome", || {
        let (_, message) = http(instance.admin, "GET", "/api/messages/1", "").unwrap();
        message.contains("\"delivered\"")
    });
    let count = || http(instance.record, "GET", "/fhir/Patient?_summary=count", "").unwrap().1;
    let before = count();

    let control_id = instance.ledger()[0].clone();
    let (code, out, err) = instance.tie(&["replay", "--control-id", &control_id, "--state", "delivered"]);
    assert_eq!(code, 0, "{out}{err}");
    wait("the repeat", || instance.ledger().len() == 2);
    assert_eq!(instance.ledger()[1], control_id);
    assert_eq!(count(), before);
}

#[test]
fn p9_no_patient_data_in_anything_that_is_printed_or_served() {
    let instance = Instance::new();
    let _engine = instance.start(); // no record: every delivery fails and says so
    let mut source = Mllp::connect(instance.mllp).unwrap();
    let canary = "CANARYQX";
    let pid = format!(
        "PID|1||{canary}1^^^RXX^MR||{canary}2^{canary}3||19700101|1|||{canary}4^^{canary}5||0{canary}6\r"
    );
    let header =
        |trigger: &str, id: &str| format!("MSH|^~\\&|PAS|RXX|TIE|RXX|20260301120000||{trigger}|{id}|T|2.4\r");
    let cases = [
        format!("{}EVN|A31|20260301\r{pid}PV1|1|N\r", header("ADT^A31^ADT_A05", "C1")),
        format!("{}{pid}", header("ADT^A40", "C2")),
        format!("{}{pid}OBR|{canary}7\rOBX|1|NM|{canary}8||{canary}9\r", header("ORU^R01", "C3")),
        format!("{}{pid}", header("ZZZ^Z99", "C4")),
        format!("{}EVN|A01|{canary}\r{}", header("ADT^A01", "C5"), pid.replace("19700101", canary)),
        format!("garbage {canary}"),
    ];
    let mut shown = String::new();
    for case in &cases {
        shown += &source.send(case.as_bytes()).unwrap().0;
    }
    wait("every message to have been tried", || {
        let (_, text) = http(instance.admin, "GET", "/metrics", "").unwrap();
        text.lines().any(|line| line.starts_with("tie_delivery_attempt_seconds_count"))
    });
    for path in ["/metrics", "/api/status", "/", "/readyz", "/api/messages/1"] {
        let (_, body) = http(instance.admin, "GET", path, "").unwrap();
        shown += &body;
    }
    shown += &instance.log();
    for command in
        [&["status"][..], &["search", "--since", "1h"], &["search", "--control-id", "C1", "--json"]]
    {
        let (_, out, err) = instance.tie(command);
        shown += &(out + &err);
    }
    assert!(shown.contains("C1"), "the places that were searched do speak of the messages");
    if let Some(at) = shown.find(canary) {
        panic!("patient data shown: …{}…", &shown[at.saturating_sub(300)..(at + 40).min(shown.len())]);
    }
}

#[test]
fn p10_a_stop_takes_seconds_even_when_a_destination_hangs() {
    let instance = Instance::new();
    // A receiver that accepts, reads and never answers.
    let hung = TcpListener::bind(("127.0.0.1", instance.record)).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = hung.accept() {
            let mut start = [0; 4];
            if stream.read_exact(&mut start).is_ok() {
                let _ = tell.send(());
            }
            open.push(stream);
        }
    });
    instance.write("tie.toml", &instance.config().replace("timeout = \"5s\"", "timeout = \"10m\""));
    let mut engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(&update(5, 0).1).unwrap().code(), "AA");
    told.recv_timeout(support::PATIENCE).expect("the delivery hangs");

    let asked = Instant::now();
    engine.terminate();
    wait("the engine to end", || engine.0.try_wait().unwrap().is_some());
    assert!(asked.elapsed() < Duration::from_secs(30), "it took {:?}", asked.elapsed());
    assert_eq!(engine.0.wait().unwrap().code(), Some(0), "{}", instance.log());
    assert!(source.is_closed());
}

#[test]
fn p1_what_was_accepted_before_a_stop_is_delivered_after_the_start() {
    let instance = Instance::new();
    let mut engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    for number in 0..20 {
        assert_eq!(source.send(&update(number % 4, number).1).unwrap().code(), "AA");
    }
    engine.terminate();
    wait("the engine to end", || engine.0.try_wait().unwrap().is_some());
    let _record = instance.start_record();
    let _engine = instance.start();
    wait("all to be delivered", || instance.ledger().len() == 20);
}

#[test]
fn p6_a_message_over_the_limit_is_refused_with_a_reason() {
    let instance = Instance::new();
    instance.write(
        "tie.toml",
        &instance.config().replace("kind = \"mllp\"\n", "kind = \"mllp\"\nlongest_message = \"64KiB\"\n"),
    );
    let _engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    let (_, mut long) = update(6, 0);
    long.extend(b"NTE|1||");
    long.resize(200_000, b'x');
    let mut stream = frame(&long);
    stream.extend(frame(&update(6, 1).1));
    let _ = source.write(&stream); // the engine may close before it has read all
    let answer = source.read().unwrap();
    assert_eq!((answer.code(), answer.control_id()), ("AR", "P0006N000000"), "{answer:?}");
    let _ = std::io::stdout().flush();
}

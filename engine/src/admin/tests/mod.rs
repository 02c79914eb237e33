//! The admin listener over real sockets, with an engine that answers from memory.

mod guard;
mod requests;

use std::sync::Mutex;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::{
    error::Problem,
    journal::{DeliveryId, Keys, NEWEST, State},
};

/// Answers from memory; notes what it was asked to change.
struct Memory {
    readiness: Mutex<Readiness>,
    asked: Mutex<Vec<(Decision, Requeue)>>,
    broken: bool,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_770_000_000 + second).unwrap()
}

fn summary() -> Summary {
    Summary {
        sequence: Sequence(7),
        received: at(0),
        listener: "hospital".to_owned(),
        peer: "10.0.0.1".to_owned(),
        keys: Keys {
            control_id: "C<1>".to_owned(),
            trigger: "ADT^A01".to_owned(),
            sending_application: "PAS".to_owned(),
            sending_facility: "RXX".to_owned(),
            patient: "rxx|canary".to_owned(),
            nhs_number: "canary".to_owned(),
            local_number: "canary".to_owned(),
            visit: "canary".to_owned(),
            orders: vec!["canary".to_owned()],
        },
        size_bytes: 321,
        hash: [0xab; 32],
        quarantine: Some("no route takes it".to_owned()),
        flag: Some("same control id as message 3, other content".to_owned()),
    }
}

fn record() -> DeliveryRecord {
    DeliveryRecord {
        id: DeliveryId { sequence: Sequence(7), route: "adt".to_owned(), destination: "record".to_owned() },
        state: State::Dead,
        lanes: vec!["patient|rxx|canary".to_owned()],
        at: Some(at(5)),
        attempts: 3,
        first_attempt: Some(at(1)),
        revision: "abc".to_owned(),
        reason: "422".to_owned(),
        class: Some(crate::connector::ErrorClass::Rejected),
    }
}

fn delivered() -> DeliveryRecord {
    DeliveryRecord { state: State::Delivered, class: None, ..record() }
}

fn everything() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        environment: "test".to_owned(),
        started: at(0),
        readiness: Readiness::ready(),
        revision: RevisionStatus { id: "0123456789abcdef".to_owned(), git_commit: None, since: at(0) },
        last_reload: Some(ReloadStatus {
            at: at(60),
            result: ReloadResult::Refused,
            revision: Some("f00".to_owned()),
            problems: vec![Problem::error("unknown key `<b>`").at("routes/adt.toml", 3, 1)],
        }),
        journal: JournalStatus {
            open: true,
            last: 7,
            first: Some(1),
            quarantined: 1,
            paused: None,
            disk_bytes: 12_345_678,
        },
        listeners: vec![ListenerStatus {
            name: "hospital".to_owned(),
            kind: "mllp".to_owned(),
            serving: true,
            reason: None,
        }],
        routes: vec![RouteStatus {
            name: "adt".to_owned(),
            about: "Admissions & more.".to_owned(),
            from: vec!["hospital".to_owned()],
            map: "adt".to_owned(),
            to: vec!["record".to_owned()],
        }],
        destinations: vec![DestinationStatus {
            name: "record".to_owned(),
            kind: "fhir".to_owned(),
            standing: "away".to_owned(),
            rate: Some("50/s".to_owned()),
            reason: Some("connection refused".to_owned()),
            deliveries: [("ready".to_owned(), 41), ("dead".to_owned(), 2)].into(),
            oldest_seconds: Some(3_700),
            ages: [("ready".to_owned(), 3_700)].into(),
        }],
    }
}

#[async_trait]
impl Engine for Memory {
    fn readiness(&self) -> Readiness {
        self.readiness.lock().unwrap().clone()
    }
    async fn status(&self) -> Status {
        everything()
    }
    async fn search(&self, query: &Query<'_>, before: Sequence, _: usize) -> Result<Page, JournalError> {
        if self.broken {
            return Err(JournalError::Read("the disk is gone".to_owned()));
        }
        // As a store that looks at one message in a call.
        let page = |messages, next| Ok(Page { messages, next });
        let found = match before {
            NEWEST => page(Vec::new(), Some(Sequence(8))),
            Sequence(8) => page(vec![summary()], Some(Sequence(7))),
            _ => page(Vec::new(), None),
        };
        found.map(|mut found: Page| {
            found.messages.retain(|one| query.key.is_none_or(|key| key.value() == one.keys.control_id));
            found
        })
    }
    async fn oldest(&self) -> Result<Option<Timestamp>, JournalError> {
        Ok(Some(at(-50)))
    }
    async fn message(
        &self,
        sequence: Sequence,
    ) -> Result<Option<(Summary, Vec<DeliveryRecord>)>, JournalError> {
        Ok((sequence == Sequence(7)).then(|| (summary(), vec![record()])))
    }
    async fn trace(&self, control_id: &str) -> Result<Vec<(Summary, Vec<DeliveryRecord>)>, JournalError> {
        let times = if control_id == "again" { TRACED } else { 1 };
        let found = [summary()].into_iter().filter(|found| times > 1 || found.keys.control_id == control_id);
        Ok(found.cycle().take(times).map(|summary| (summary, vec![delivered()])).collect())
    }
    async fn sent(&self, delivery: &DeliveryId) -> Result<Vec<Payload>, JournalError> {
        assert_eq!(delivery.destination, "record");
        let (resource_type, id) = ("Patient".to_owned(), "0b9c1a4e-3f5d-5e6a-8b7c-9d0e1f2a3b4c".to_owned());
        Ok(vec![Payload::FhirResource { resource_type, id, json: bytes::Bytes::from_static(b"canary") }])
    }
    async fn decide(&self, decision: Decision, request: &Requeue) -> Result<Requeued, JournalError> {
        self.asked.lock().unwrap().push((decision, request.clone()));
        Ok(Requeued {
            deliveries: 1,
            first: vec![record().id],
            without_bytes: 2,
            more_after: Some(Sequence(41)),
        })
    }
    async fn resume(&self, audit: Audit) -> Result<bool, JournalError> {
        Ok(audit.why == "the original is switched off")
    }
    async fn lanes(&self, destination: Option<&str>, limit: usize) -> Result<Lanes, JournalError> {
        let lane = Lane {
            destination: destination.unwrap_or("record").to_owned(),
            route: "adt".to_owned(),
            sequence: 7,
            lane: "0a1b2c3d".to_owned(),
            state: State::Parked,
            since: Some(at(5)),
            attempts: 3,
            class: Some("rejected".to_owned()),
            reason: "422".to_owned(),
            behind: 2,
        };
        let lanes = [lane].into_iter().take(limit).collect();
        Ok(Lanes { lanes, complete: true, counted_all: true })
    }
    async fn audit(&self, _: usize) -> Result<Vec<Audit>, JournalError> {
        Ok(vec![Audit {
            at: at(9),
            action: "skip".to_owned(),
            who: "ann".to_owned(),
            why: "a test message".to_owned(),
            asked: r#"{"states":["parked"]}"#.to_owned(),
            deliveries: 1,
        }])
    }
    async fn reload(&self) -> ReloadStatus {
        ReloadStatus { at: at(9), result: ReloadResult::Unchanged, revision: None, problems: Vec::new() }
    }
    fn now(&self) -> Timestamp {
        at(120)
    }
}

struct Server {
    address: SocketAddr,
    engine: Arc<Memory>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

async fn server(broken: bool) -> Server {
    let engine =
        Arc::new(Memory { readiness: Mutex::new(Readiness::ready()), asked: Mutex::default(), broken });
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Registry::new();
    crate::metrics::Metrics::new(&registry).unwrap().received("hospital", "ADT", 0);
    let site = Site { engine: engine.clone(), registry, hosts: vec!["tie.example".to_owned()] };
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, site, stop.clone()));
    Server { address, engine, stop, served }
}

impl Server {
    /// Sends a request with these lines after the first; returns status, head and body.
    async fn raw(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self
            .raw(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address))
            .await;
        (status, body)
    }

    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn post(&self, path: &str, more: &str, body: &str) -> (u16, Value) {
        let (status, _, body) = self
            .raw(&format!(
                "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}Content-Length: {}\r\n\r\n{body}",
                self.address,
                body.len()
            ))
            .await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn health_says_why() {
    let server = server(false).await;
    assert_eq!(server.json("/livez").await, (200, json!({ "live": true })));
    assert_eq!(server.json("/readyz").await, (200, json!({ "ready": true, "reasons": [] })));
    *server.engine.readiness.lock().unwrap() = Readiness::not("draining");
    assert_eq!(server.json("/readyz").await, (503, json!({ "ready": false, "reasons": ["draining"] })));
    assert_eq!(server.get("/livez").await.0, 200);
}

#[tokio::test]
async fn metrics_are_served_in_the_text_format() {
    let server = server(false).await;
    let (status, head, body) = server
        .raw(&format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.address))
        .await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains("cache-control: no-store") && head.contains("nosniff"), "{head}");
    assert!(body.contains("tie_messages_received_total{class=\"ADT\",listener=\"hospital\"} 1\n"), "{body}");
}

#[tokio::test]
async fn status_reads_back_as_it_was_written() {
    let server = server(false).await;
    let (status, body) = server.get("/api/status").await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Status>(&body).unwrap(), everything());
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["last_reload"]["result"], "refused");
    assert_eq!(body["last_reload"]["problems"][0]["place"]["file"], "routes/adt.toml");
    assert_eq!(body["destinations"][0]["deliveries"]["ready"], 41);
}

#[tokio::test]
async fn the_page_shows_the_status_and_lets_no_markup_through() {
    let server = server(false).await;
    let (status, page) = server.get("/").await;
    assert_eq!(status, 200);
    for shown in [
        "0123456789ab",
        "connection refused",
        ">41<",
        "1 h 1 min",
        "12 MB on disk",
        "Admissions &amp; more.",
        "refused 1 min ago",
    ] {
        assert!(page.contains(shown), "{shown} in {page}");
    }
    assert!(page.contains("routes/adt.toml:3:1: unknown key `&lt;b&gt;`") && !page.contains("<b>"), "{page}");
}

#[tokio::test]
async fn messages_are_found_without_what_could_tell_a_patient() {
    let server = server(false).await;
    let (status, found) =
        server.post("/api/search", JSON, r#"{"key":{"control_id":"C<1>"},"state":"dead"}"#).await;
    assert_eq!(status, 200);
    assert_eq!(found["messages"][0]["deliveries"][0]["state"], "dead");
    assert_eq!((&found["next"], &found["oldest"]), (&Value::Null, &json!(at(-50))));
    assert_eq!(found["messages"][0]["sequence"], 7);
    assert_eq!(found["messages"][0]["quarantine"], "no route takes it");
    let one = server.post("/api/search", JSON, r#"{"limit":1}"#).await.1;
    assert_eq!((one["messages"].as_array().unwrap().len(), &one["next"]), (1, &json!(7)));
    let other = server.post("/api/search", JSON, r#"{"key":{"control_id":"other"}}"#).await.1;
    assert_eq!(other["messages"], json!([]));
    for senseless in [r#"{"key":{"nhs_number":"canary"}}"#, r#"{"key":{"name":"canary"}}"#, "canary"] {
        let (status, refused) = server.post("/api/search", JSON, senseless).await;
        assert_eq!(status, 400);
        assert!(!refused.to_string().contains("canary"), "{refused}");
    }
    let (status, message) = server.json("/api/messages/7").await;
    assert_eq!(status, 200);
    assert_eq!((&message["control_id"], &message["sha256"]), (&json!("C<1>"), &json!("ab".repeat(32))));
    let delivery = &message["deliveries"][0];
    assert_eq!((&delivery["state"], &delivery["class"]), (&json!("dead"), &json!("rejected")));
    assert_eq!((&delivery["revision"], &delivery["reason"]), (&json!("abc"), &json!("422")));
    assert!(!format!("{found}{message}").contains("canary"));
    assert_eq!(server.json("/api/messages/8").await.0, 404);
    assert_eq!(server.json("/api/messages/x").await.0, 404);
    assert_eq!(server.json("/api/nothing").await.0, 404);
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_told() {
    let server = server(true).await;
    assert_eq!(
        server.post("/api/search", JSON, "{}").await,
        (503, json!({ "error": "the journal could not be read: the disk is gone" }))
    );
}

#[tokio::test]
async fn many_messages_are_traced_at_once_without_what_could_tell_a_patient() {
    let server = server(false).await;
    let trace = async |asked: Value| server.post("/api/trace", JSON, &asked.to_string()).await;
    let (status, answer) = trace(json!({ "control_ids": ["C<1>", "other"], "written_to": "record" })).await;
    assert_eq!(status, 200, "{answer}");
    let traces = serde_json::from_value::<TraceAnswer>(answer.clone()).unwrap().traces;
    assert_eq!((traces[1].control_id.as_str(), traces[1].messages.len()), ("other", 0));
    assert!(!traces[0].cut && !traces[1].cut);
    assert_eq!(
        trace(json!({ "control_ids": ["again"] })).await.1["traces"][0]["cut"],
        true,
        "only the newest"
    );
    let delivery = &traces[0].messages[0].deliveries[0];
    assert_eq!(delivery.delivery.state, State::Delivered);
    assert_eq!(delivery.written, ["Patient/0b9c1a4e-3f5d-5e6a-8b7c-9d0e1f2a3b4c"]);
    assert!(!answer.to_string().contains("canary"));
    // The names of resources only for who asks.
    for nobody in [json!({ "control_ids": ["C<1>"] }), json!({ "control_ids": ["C<1>"], "written_to": "x" })]
    {
        assert!(!trace(nobody).await.1.to_string().contains("Patient/"));
    }
    let many: Vec<_> = (0..=CONTROL_IDS).map(|number| number.to_string()).collect();
    assert_eq!(trace(json!({ "control_ids": many })).await.0, 400);
}

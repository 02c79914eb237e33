//! What every source must do, asked of FHIR over HTTP; and what is special to it.

use std::time::Duration;

use tie_engine::connector::{Notice, Refusal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::sources::{Running, connected};

const FHIR: &str = "application/fhir+json";
const PLENTY: usize = usize::MAX >> 4;

async fn start(options: &str) -> Running {
    Running::of_kind("fhir", options, PLENTY, false).await
}

fn request(method: &str, path: &str, kind: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: tie\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads one answer: status, headers, body.
async fn answer(socket: &mut TcpStream) -> (u16, String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split('\r').next())
        .map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.unwrap();
    (status, head, String::from_utf8(body).unwrap())
}

async fn ask(running: &Running, request: &[u8]) -> (u16, String, String) {
    let mut socket = running.connect().await;
    socket.write_all(request).await.unwrap();
    answer(&mut socket).await
}

const WEIGHT: &str =
    "{\"resourceType\":\"Observation\",\"id\":\"1\",\"valueDecimal\":7.10, \"x\":\"\u{e9}\"}";

#[tokio::test]
async fn resources_bundles_messages_and_hl7_arrive_byte_for_byte() {
    let running = start("").await;
    let message = r#"{"resourceType":"Bundle","type":"message"}"#;
    let bundle = r#"{"resourceType":"Bundle","type":"transaction"}"#;
    for (method, path, kind, body) in [
        ("POST", "/fhir/Observation", FHIR, WEIGHT),
        ("PUT", "/fhir/Observation/1", FHIR, WEIGHT),
        ("POST", "/fhir/$process-message", FHIR, message),
        ("POST", "/fhir", "application/json; charset=utf-8", bundle),
    ] {
        let before = running.accepted(0).await.len();
        let (status, head, text) = ask(&running, &request(method, path, kind, body)).await;
        assert_eq!(status, 202, "{method} {path}: {text}");
        assert!(
            head.contains("content-type: application/fhir+json") && text.contains("OperationOutcome"),
            "{head}{text}"
        );
        assert_eq!(running.accepted(before + 1).await[before], body.as_bytes());
    }
    let (status, head, text) =
        ask(&running, &request("POST", "/fhir", "application/hl7-v2+er7", "MSH|^~\\&|A\rPID|1\r")).await;
    assert_eq!((status, text.as_str()), (200, "ACK MSH|^~\\&|A\rPID|1\r"));
    assert!(head.contains("application/hl7-v2+er7"), "{head}");
}

#[tokio::test]
async fn requests_of_one_connection_are_answered_in_order() {
    let running = start("").await;
    let mut socket = running.connect().await;
    let both = [request("POST", "/fhir/Observation", FHIR, WEIGHT), request("GET", "/fhir/metadata", "", "")]
        .concat();
    socket.write_all(&both).await.unwrap();
    assert_eq!(answer(&mut socket).await.0, 202);
    let (status, _, text) = answer(&mut socket).await;
    assert!(status == 200 && text.contains("CapabilityStatement"), "{status} {text}");
}

/// P1: the status of success comes after the journal has the bytes.
#[tokio::test]
async fn p1_nothing_is_answered_before_the_message_is_durable_and_others_are_not_held_back() {
    let running = Running::of_kind("fhir", "", 0, false).await;
    let mut socket = running.connect().await;
    socket.write_all(&request("POST", "/fhir/Observation", FHIR, WEIGHT)).await.unwrap();
    running.accepted(1).await;
    let early = timeout(Duration::from_millis(50), socket.read_u8()).await;
    assert!(early.is_err(), "an answer came before the journal had the message");
    assert_eq!(ask(&running, &request("GET", "/fhir/metadata", "", "")).await.0, 200);
    running.engine.journal.add_permits(1);
    assert_eq!(answer(&mut socket).await.0, 202);
}

#[tokio::test]
async fn p1_when_the_engine_cannot_answer_the_sender_is_asked_to_come_again() {
    let running = Running::of_kind("fhir", "", PLENTY, true).await;
    let (status, head, text) = ask(&running, &request("POST", "/fhir/Observation", FHIR, WEIGHT)).await;
    assert!(
        status == 503 && head.contains("retry-after: ") && text.contains("transient"),
        "{status} {head} {text}"
    );
}

#[tokio::test]
async fn what_is_not_served_is_told_by_an_outcome() {
    let running = start("").await;
    for (method, path, kind, body, wanted, told) in [
        ("GET", "/fhir/Patient/1", FHIR, "", 405, "not-supported"),
        ("POST", "/fhir/Nothing", FHIR, "{}", 404, "not-found"),
        ("POST", "/fhir/Patient", "text/plain", "{}", 415, "not-supported"),
        ("POST", "/fhir/Patient", "application/fhir+xml", "<Patient/>", 415, "JSON"),
        ("POST", "/fhir/Patient", FHIR, WEIGHT, 400, "\"expression\":[\"resourceType\"]"),
        ("PUT", "/fhir/Observation/2", FHIR, WEIGHT, 400, "\"expression\":[\"id\"]"),
        (
            "POST",
            "/fhir/$process-message",
            FHIR,
            r#"{"resourceType":"Bundle","type":"batch"}"#,
            400,
            "Bundle.type",
        ),
    ] {
        let (status, head, text) = ask(&running, &request(method, path, kind, body)).await;
        assert_eq!(status, wanted, "{method} {path}: {text}");
        assert!(text.contains("OperationOutcome") && text.contains(told), "{text}");
        assert_eq!(status == 405, head.contains("allow: "), "{head}");
    }
    assert_eq!(running.accepted(0).await.len(), 0);
}

#[tokio::test]
async fn p6_a_body_of_64_megabytes_is_refused_with_and_without_its_length_and_the_next_is_taken() {
    let running = start("").await;
    let body = "x".repeat(64 << 20);
    let mut chunked = b"POST /fhir/Observation HTTP/1.1\r\nHost: tie\r\nContent-Type: application/fhir+json\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    chunked.extend(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes());
    for sent in [request("POST", "/fhir/Observation", FHIR, &body), chunked] {
        let socket = running.connect().await;
        let (mut reader, mut writer) = socket.into_split();
        let writing = tokio::spawn(async move { writer.write_all(&sent).await });
        let mut got = Vec::new();
        timeout(Duration::from_secs(30), reader.read_to_end(&mut got)).await.expect("an answer").unwrap();
        let text = String::from_utf8_lossy(&got);
        assert!(text.starts_with("HTTP/1.1 413") && text.contains("too-long"), "{text}");
        let _ = writing.await;
    }
    assert_eq!(running.refused()[0].1, Refusal::TooLarge { limit_bytes: 16 << 20 });
    assert!(
        running.refused()[0].0.starts_with(b"xxx") && running.refused()[0].0.len() <= 65536,
        "its head is handed on"
    );
    assert_eq!(ask(&running, &request("POST", "/fhir/Observation", FHIR, WEIGHT)).await.0, 202);
}

/// Slow-loris.
#[tokio::test]
async fn p6_headers_and_bodies_that_do_not_end_in_time_end_the_connection() {
    let running = start("request_time = \"100ms\"\n").await;
    let mut idle = running.connect().await;
    let mut slow = running.connect().await;
    slow.write_all(b"POST /fhir/Observation HTTP/1.1\r\nHost:").await.unwrap();
    let mut half = running.connect().await;
    let whole = request("POST", "/fhir/Observation", FHIR, WEIGHT);
    half.write_all(&whole[..whole.len() - 5]).await.unwrap();
    let (status, head, text) =
        timeout(Duration::from_secs(20), answer(&mut half)).await.expect("told in time");
    assert!(
        status == 408 && text.contains("timeout") && head.contains("connection: close"),
        "{status} {text}"
    );
    for socket in [&mut idle, &mut slow, &mut half] {
        let mut rest = Vec::new();
        timeout(Duration::from_secs(20), socket.read_to_end(&mut rest))
            .await
            .expect("closed in time")
            .unwrap();
    }
    assert!(running.refused()[0].0.starts_with(b"{\"resourceType"), "what has come is handed on");
    assert_eq!(running.accepted(0).await.len(), 0);
}

#[tokio::test]
async fn a_body_that_is_broken_off_is_no_message() {
    let running = start("").await;
    let mut socket = running.connect().await;
    let whole = request("POST", "/fhir/Observation", FHIR, WEIGHT);
    socket.write_all(&whole[..whole.len() - 5]).await.unwrap();
    drop(socket);
    running.noticed(|notices| notices.contains(&Notice::Disconnected)).await;
    assert_eq!(running.accepted(0).await.len(), 0);
}

#[tokio::test]
async fn p6_more_connections_than_allowed_are_refused_with_an_answer_and_the_others_go_on() {
    let running = start("connections = 1\n").await;
    let mut first = running.connect().await;
    running.noticed(|notices| connected(notices) == 1).await;
    let (status, head, text) = ask(&running, &request("POST", "/fhir/Observation", FHIR, WEIGHT)).await;
    assert!(
        status == 503 && text.contains("too many") && head.contains("connection: close"),
        "{status} {text}"
    );
    first.write_all(&request("POST", "/fhir/Observation", FHIR, WEIGHT)).await.unwrap();
    assert_eq!(answer(&mut first).await.0, 202);
    assert_eq!(running.accepted(1).await.len(), 1);
}

#[tokio::test]
async fn strangers_are_refused_by_address_and_by_token() {
    let running = start("peers = [\"192.0.2.0/24\"]\n").await;
    let (status, _, text) = ask(&running, &request("POST", "/fhir/Observation", FHIR, WEIGHT)).await;
    assert!(status == 403 && text.contains("forbidden"), "{status} {text}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "open sesame\n").unwrap();
    let running = start(&format!("token = {{ file = \"{}\" }}\n", file.path().display())).await;
    let with = |token: &str| {
        let request = String::from_utf8(request("POST", "/fhir/Observation", FHIR, WEIGHT)).unwrap();
        request.replacen("Host: tie", &format!("Host: tie\r\nAuthorization: {token}"), 1).into_bytes()
    };
    for wrong in ["Bearer open", "Basic open sesame", "Bearer open sesame!", "x"] {
        let (status, head, _) = ask(&running, &with(wrong)).await;
        assert!(status == 401 && head.contains("www-authenticate: bearer"), "{wrong}: {status}");
    }
    assert_eq!(ask(&running, &request("POST", "/fhir/Observation", FHIR, WEIGHT)).await.0, 401);
    assert_eq!(ask(&running, &with("Bearer open sesame")).await.0, 202);
    assert_eq!(running.accepted(1).await.len(), 1);
}

#[tokio::test]
async fn p6_a_message_that_finds_no_memory_in_time_is_asked_to_come_again() {
    let options = "longest_message = \"1MiB\"\nmemory = \"1100KiB\"\nrequest_time = \"400ms\"\n";
    let running = Running::of_kind("fhir", options, 0, false).await;
    let long = format!("{{\"resourceType\":\"Observation\",\"x\":\"{}\"}}", "y".repeat(800_000));
    let mut first = running.connect().await;
    first.write_all(&request("POST", "/fhir/Observation", FHIR, &long)).await.unwrap();
    running.accepted(1).await;
    let (status, head, text) = ask(&running, &request("POST", "/fhir/Observation", FHIR, &long)).await;
    assert!(status == 503 && head.contains("retry-after") && text.contains("busy"), "{status} {text}");
    running.engine.journal.add_permits(1);
    assert_eq!(answer(&mut first).await.0, 202);
}

#[tokio::test]
async fn p10_after_a_stop_the_request_in_hand_is_finished_and_nothing_new_is_taken() {
    let running = Running::of_kind("fhir", "", 0, false).await;
    let mut idle = running.connect().await;
    let mut waiting = running.connect().await;
    waiting.write_all(&request("POST", "/fhir/Observation", FHIR, WEIGHT)).await.unwrap();
    running.accepted(1).await;
    running.noticed(|notices| connected(notices) == 2).await;
    running.stop.cancel();
    let mut rest = Vec::new();
    timeout(Duration::from_secs(20), idle.read_to_end(&mut rest)).await.expect("closed").unwrap();
    running.engine.journal.add_permits(1);
    assert_eq!(answer(&mut waiting).await.0, 202);
    timeout(Duration::from_secs(20), running.source).await.expect("the source ends").unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

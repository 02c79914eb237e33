//! Who is kept out, and what nobody can hold up.

use super::*;

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let server = server(false).await;
    let host = |host: &str| format!("GET /api/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    assert_eq!(server.raw(&host("evil.example")).await.0, 421);
    assert_eq!(server.raw(&host("tie.example:8061")).await.0, 200);
    for more in [
        "Content-Type: text/plain\r\n",
        "Content-Type: application/json\r\nOrigin: http://evil.example\r\n",
        "Content-Type: application/json\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        assert_eq!(server.post("/api/replay", more, r#"{"states":["dead"]}"#).await.0, 403, "{more}");
        assert_eq!(server.post("/api/reload", more, "").await.0, 403, "{more}");
    }
    assert!(server.engine.asked.lock().unwrap().is_empty());
    let (status, answer) = server.post("/api/reload", JSON, "").await;
    assert_eq!((status, &answer["result"]), (200, &json!("unchanged")));
    assert_eq!(server.get("/api/reload").await.0, 405);
}

#[tokio::test]
async fn a_long_request_is_refused() {
    let server = server(false).await;
    let (status, _, _) = server
        .raw(&format!(
            "POST /api/replay HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{JSON}Content-Length: 1000000\r\n\r\n{}",
            server.address,
            " ".repeat(10)
        ))
        .await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn p6_connections_that_are_held_open_shut_nobody_out() {
    let server = server(false).await;
    let mut held = Vec::new();
    for _ in 0..socket::CONNECTIONS {
        // The beginning of a request and never its end.
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
        held.push(stream);
    }
    for _ in 0..3 {
        assert_eq!(server.get("/livez").await.0, 200);
    }
    // Whoever has gone longest without an answer has made room; the last ones are still there.
    let mut byte = [0];
    assert!(matches!(held[0].read(&mut byte).await, Ok(0) | Err(_)));
    let last = held.last_mut().unwrap();
    last.write_all(format!(" {}\r\nConnection: close\r\n\r\n", server.address).as_bytes()).await.unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn it_stops_when_told() {
    let server = server(false).await;
    assert_eq!(server.get("/livez").await.0, 200);
    server.stop.cancel();
    server.served.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

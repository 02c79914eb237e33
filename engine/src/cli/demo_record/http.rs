//! The HTTP side of the demonstration record: FHIR below `/fhir`, a page at `/`, and for tests `/$ledger` and
//! `/$away`.
//!
//! `POST /$away?seconds=5` answers everything with 503 for so long; with `&how=closed`, connections are closed
//! without an answer. The ledger has the `X-Request-Id` of each write that was taken: the control id.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::{
    page,
    store::{Condition, Name, Refused, Store, Written},
};
use crate::clock::{Clock, SystemClock};

/// The longest body that is read.
const BODY_BYTES: usize = 64 * 1024 * 1024;
/// Arrivals that the ledger keeps.
const LEDGER: usize = 1_000_000;
/// Resources that a search gives.
const FOUND: usize = 100;

/// What the record knows.
pub(super) struct Record {
    pub(super) store: Store,
    pub(super) arrivals: Vec<String>,
    away: Option<Away>,
}

#[derive(Clone, Copy)]
struct Away {
    until: Instant,
    closed: bool,
}

type Shared = Arc<Mutex<Record>>;

/// Serves until `stop`.
pub(super) async fn serve(
    listen: SocketAddr,
    at_most: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let shared = empty(at_most);
    let listener = Door { listener, shared: shared.clone() };
    axum::serve(listener, router(shared)).with_graceful_shutdown(stop).await
}

fn empty(at_most: usize) -> Shared {
    Arc::new(Mutex::new(Record { store: Store::new(at_most), arrivals: Vec::new(), away: None }))
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/", get(show))
        .route("/fhir", post(transaction))
        .route("/fhir/", post(transaction))
        .route("/fhir/metadata", get(metadata))
        .route("/fhir/_history", get(history))
        .route("/fhir/{kind}", get(search).post(create).put(update_by_condition))
        .route("/fhir/{kind}/{id}", get(read).put(update).delete(delete))
        .layer(from_fn_with_state(shared.clone(), away_or_on))
        .route("/$ledger", get(ledger))
        .route("/$away", post(go_away))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(shared)
}

/// Takes connections, or closes them when the record is away without a word.
struct Door {
    listener: TcpListener,
    shared: Shared,
}

impl axum::serve::Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok((socket, address)) => {
                    if self.shared.lock().is_away().is_some_and(|away| away.closed) {
                        continue;
                    }
                    let _ = socket.set_nodelay(true);
                    return (socket, address);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Record {
    fn is_away(&mut self) -> Option<Away> {
        self.away = self.away.filter(|away| away.until > Instant::now());
        self.away
    }

    fn note(&mut self, headers: &HeaderMap) {
        let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        if let Some(id) = id.filter(|_| self.arrivals.len() < LEDGER) {
            self.arrivals.push(id.to_owned());
        }
    }
}

async fn away_or_on(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if shared.lock().is_away().is_none() {
        return next.run(request).await;
    }
    let headers = [(header::CONNECTION, "close")];
    let refused = Refused { status: 503, code: "transient", why: "the record is away".to_owned() };
    (headers, answer(refused)).into_response()
}

async fn go_away(State(shared): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Response {
    let seconds = query.get("seconds").and_then(|seconds| seconds.parse::<f64>().ok());
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let until = duration.and_then(|duration| Instant::now().checked_add(duration));
    let closed = match query.get("how").map(String::as_str) {
        None | Some("503") => Some(false),
        Some("closed") => Some(true),
        Some(_) => None,
    };
    match (until, closed) {
        (Some(until), Some(closed)) => {
            shared.lock().away = Some(Away { until, closed });
            StatusCode::NO_CONTENT.into_response()
        }
        _ => (StatusCode::BAD_REQUEST, "seconds=<number>[&how=503|closed]\n").into_response(),
    }
}

async fn ledger(State(shared): State<Shared>) -> Response {
    let record = shared.lock();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for id in &record.arrivals {
        *counts.entry(id).or_default() += 1;
    }
    let distinct = counts.len();
    counts.retain(|_, count| *count > 1);
    let full = record.arrivals.len() >= LEDGER;
    Json(json!({"arrivals": record.arrivals, "distinct": distinct, "repeated": counts, "full": full}))
        .into_response()
}

async fn show(State(shared): State<Shared>) -> Html<String> {
    Html(page::page(&shared.lock()))
}

async fn transaction(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let bundle = match serde_json::from_slice::<Value>(&body) {
        Ok(bundle) => bundle,
        Err(_) => return answer(no_json()),
    };
    let now = SystemClock.now();
    let written = {
        let mut record = shared.lock();
        let written = record.store.transaction(bundle, now);
        if written.is_ok() {
            record.note(&headers);
        }
        written
    };
    match written {
        Ok(written) => {
            let at = now.to_string();
            let entries = written.iter().map(|written| {
                let status = if written.created { "201 Created" } else { "200 OK" };
                json!({"response": {
                    "status": status,
                    "location": location(written),
                    "etag": etag(written.version),
                    "lastModified": at,
                }})
            });
            let entries: Vec<Value> = entries.collect();
            fhir(200, &json!({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}))
        }
        Err(refused) => answer(refused),
    }
}

async fn create(
    State(shared): State<Shared>,
    Path(kind): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    write(&shared, "POST", &kind, &headers, &body)
}

async fn update(
    State(shared): State<Shared>,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    write(&shared, "PUT", &format!("{kind}/{id}"), &headers, &body)
}

async fn update_by_condition(
    State(shared): State<Shared>,
    Path(kind): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match query.get("identifier") {
        Some(token) => {
            // As `understand` decodes it.
            let token = token.replace('%', "%25");
            write(&shared, "PUT", &format!("{kind}?identifier={token}"), &headers, &body)
        }
        None => answer(Refused { status: 412, code: "required", why: "no identifier= given".to_owned() }),
    }
}

fn write(shared: &Shared, method: &str, url: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    let Ok(resource) = serde_json::from_slice::<Value>(body) else { return answer(no_json()) };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let if_none_exist = text("if-none-exist").filter(|_| method == "POST");
    let condition = Condition { if_none_exist, if_match: text("if-match") };
    let mut record = shared.lock();
    match record.store.write(method, url, condition, resource, SystemClock.now()) {
        Ok(written) => {
            record.note(headers);
            let status = if written.created { 201 } else { 200 };
            let resource = record.store.read(&written.name).unwrap_or_default();
            let mut response = fhir(status, &resource);
            let headers = response.headers_mut();
            let locations = [(header::LOCATION, location(&written)), (header::ETAG, etag(written.version))];
            for (name, value) in locations {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(name, value);
                }
            }
            response
        }
        Err(refused) => answer(refused),
    }
}

async fn read(State(shared): State<Shared>, Path(name): Path<Name>) -> Response {
    match shared.lock().store.read(&name) {
        Some(resource) => fhir(200, &resource),
        None => answer(Refused { status: 404, code: "not-found", why: "no such resource".to_owned() }),
    }
}

async fn delete(State(shared): State<Shared>, Path(name): Path<Name>) -> Response {
    shared.lock().store.delete(&name);
    StatusCode::NO_CONTENT.into_response()
}

async fn search(
    State(shared): State<Shared>,
    Path(kind): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let known = ["identifier", "_id", "_summary", "_count", "_format", "_elements"];
    if let Some(strange) = query.keys().find(|key| !known.contains(&key.as_str())) {
        let why = format!("no search by {strange} here");
        return answer(Refused { status: 400, code: "not-supported", why });
    }
    let record = shared.lock();
    let mut names = record.store.search(&kind, query.get("identifier").map(String::as_str));
    if let Some(id) = query.get("_id") {
        names.retain(|(_, known)| id.split(',').any(|id| id == known));
    }
    let count = query.get("_count").and_then(|count| count.parse().ok()).unwrap_or(FOUND);
    let count = if query.get("_summary").is_some_and(|summary| summary == "count") { 0 } else { count };
    let total = names.len();
    let found = names.iter().take(count).filter_map(|name| record.store.read(name));
    let entries: Vec<Value> =
        found.map(|resource| json!({"resource": resource, "search": {"mode": "match"}})).collect();
    drop(record);
    searchset("searchset", total as u64, entries)
}

/// How many versions there are; the versions themselves are not kept.
async fn history(State(shared): State<Shared>) -> Response {
    let versions = shared.lock().store.versions;
    searchset("history", versions, Vec::new())
}

fn searchset(kind: &str, total: u64, entries: Vec<Value>) -> Response {
    let mut bundle = json!({"resourceType": "Bundle", "type": kind, "total": total});
    if let (Some(bundle), false) = (bundle.as_object_mut(), entries.is_empty()) {
        bundle.insert("entry".to_owned(), Value::Array(entries));
    }
    fhir(200, &bundle)
}

async fn metadata() -> Response {
    fhir(
        200,
        &json!({
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": "2026-01-01",
            "kind": "instance",
            "software": {"name": "tie demo-record", "version": env!("CARGO_PKG_VERSION")},
            "implementation": {"description": "For demonstration and tests only: in memory, nothing is checked."},
            "fhirVersion": "4.0.1",
            "format": ["application/fhir+json"],
            "rest": [{"mode": "server", "interaction": [{"code": "transaction"}, {"code": "history-system"}]}],
        }),
    )
}

fn location(written: &Written) -> String {
    let (kind, id) = &written.name;
    format!("{kind}/{id}/_history/{}", written.version)
}

fn etag(version: u64) -> String {
    format!("W/\"{version}\"")
}

fn no_json() -> Refused {
    Refused { status: 400, code: "structure", why: "no JSON".to_owned() }
}

fn answer(Refused { status, code, why }: Refused) -> Response {
    let issue = json!([{"severity": "error", "code": code, "diagnostics": why}]);
    fhir(status, &json!({"resourceType": "OperationOutcome", "issue": issue}))
}

fn fhir(status: u16, resource: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/fhir+json")], resource.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = empty(100);
        let listener = Door { listener, shared: shared.clone() };
        tokio::spawn(async move { axum::serve(listener, router(shared)).await });
        address
    }

    /// Status and body; none if the connection was closed without an answer.
    async fn ask(address: SocketAddr, request: &str, control_id: &str, body: &str) -> Option<(u16, Value)> {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let text = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-request-id: {control_id}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        socket.write_all(text.as_bytes()).await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or(Value::String(body.to_owned()))))
    }

    fn bundle(id: &str) -> String {
        json!({"resourceType": "Bundle", "type": "transaction", "entry": [{
            "resource": {"resourceType": "Patient", "id": id, "identifier": [{"system": "urn:x", "value": "1"}]},
            "request": {"method": "PUT", "url": format!("Patient/{id}")},
        }]})
        .to_string()
    }

    #[tokio::test]
    async fn what_is_put_can_be_read_searched_and_counted() {
        let address = start().await;
        let (status, answer) = ask(address, "POST /fhir", "M1", &bundle("a")).await.unwrap();
        assert_eq!((status, answer["entry"][0]["response"]["status"].as_str()), (200, Some("201 Created")));
        let (_, answer) = ask(address, "POST /fhir/", "M2", &bundle("a")).await.unwrap();
        assert_eq!(answer["entry"][0]["response"]["status"], "200 OK");
        let get = async |path: &str| ask(address, &format!("GET {path}"), "", "").await.unwrap();
        assert_eq!(get("/fhir/Patient/a").await.1["meta"]["versionId"], "1");
        assert_eq!(get("/fhir/Patient/b").await.0, 404);
        assert_eq!(get("/fhir/Patient?_summary=count").await.1["total"], 1);
        assert_eq!(get("/fhir/Patient?identifier=urn:x%7C1").await.1["entry"][0]["resource"]["id"], "a");
        assert_eq!(get("/fhir/Patient?_id=zz").await.1["total"], 0);
        assert_eq!(get("/fhir/Patient?name=x").await.0, 400, "what it cannot do it says");
        assert_eq!(get("/fhir/_history?_summary=count").await.1["total"], 1, "a repeat changes nothing");
        assert_eq!(get("/fhir/metadata").await.1["fhirVersion"], "4.0.1");
        assert!(get("/").await.1.as_str().unwrap().contains("Patient/a"));
    }

    #[tokio::test]
    async fn single_resources_are_put_created_and_found_by_condition() {
        let address = start().await;
        let patient =
            |id: &str| format!(r#"{{"resourceType":"Patient","id":"{id}","identifier":[{{"value":"7"}}]}}"#);
        assert_eq!(ask(address, "PUT /fhir/Patient/a", "M1", &patient("a")).await.unwrap().0, 201);
        assert_eq!(ask(address, "PUT /fhir/Patient/b", "M2", &patient("a")).await.unwrap().0, 400);
        let by = ask(address, "PUT /fhir/Patient?identifier=%7C7", "M3", &patient("z")).await.unwrap();
        assert_eq!((by.0, by.1["id"].as_str()), (200, Some("a")));
        assert_eq!(ask(address, "POST /fhir/Patient", "M4", &patient("")).await.unwrap().0, 201);
        let by = ask(address, "PUT /fhir/Patient?identifier=%7C7", "M5", &patient("z")).await.unwrap();
        assert_eq!(by.0, 412, "two match by now");
    }

    #[tokio::test]
    async fn the_ledger_has_what_was_taken_in_order_with_repeats() {
        let address = start().await;
        for (id, body) in
            [("M1", bundle("a")), ("M2", bundle("b")), ("bad", "{}".to_owned()), ("M1", bundle("a"))]
        {
            ask(address, "POST /fhir", id, &body).await.unwrap();
        }
        let (_, ledger) = ask(address, "GET /$ledger", "", "").await.unwrap();
        assert_eq!(ledger["arrivals"], json!(["M1", "M2", "M1"]));
        assert_eq!((&ledger["distinct"], &ledger["repeated"]), (&json!(2), &json!({"M1": 2})));
    }

    #[tokio::test]
    async fn it_can_be_away_with_and_without_a_word() {
        let address = start().await;
        assert_eq!(ask(address, "POST /$away?seconds=1000", "", "").await.unwrap().0, 204);
        assert_eq!(ask(address, "POST /fhir", "M1", &bundle("a")).await.unwrap().0, 503);
        assert_eq!(ask(address, "POST /$away?seconds=0", "", "").await.unwrap().0, 204);
        assert_eq!(ask(address, "POST /fhir", "M1", &bundle("a")).await.unwrap().0, 200);
        assert_eq!(ask(address, "POST /$away?seconds=1000&how=closed", "", "").await.unwrap().0, 204);
        assert_eq!(ask(address, "POST /fhir", "M1", &bundle("a")).await, None);
    }
}

//! The paths of the admin listener and what they answer.

use std::time::Duration;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use prometheus::TextEncoder;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AuditLine, Audits, DecisionAnswer, DecisionRequest, Delivery, DeliveryName, Lanes, MessageView, Site,
    guard, page, search, trace, view::default_limit,
};
use crate::journal::{self, Decision, JournalError, Requeue, Sequence};

/// A query string that may be wrong.
type Asked<T> = Result<Query<T>, QueryRejection>;

/// An answer that is no success: why, as JSON.
pub(super) type Refusal = (StatusCode, Json<Value>);

/// The longest request.
pub(super) const BODY_BYTES: usize = 64 << 10;
/// The longest time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a list shows at most.
const SHOWN: usize = 10_000;
/// What one decision may change at most.
const CHANGED: usize = 1_000_000;
/// The longest name or reason.
const WHY_BYTES: usize = 1_000;

pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/search", post(search::search))
        .route("/api/messages/{sequence}", get(message))
        .route("/api/trace", post(trace::trace))
        .route("/api/lanes", get(lanes))
        .route("/api/audit", get(audit))
        .route("/api/replay", post(async |site, body| decide(Decision::Replay, site, body).await))
        .route("/api/release", post(async |site, body| decide(Decision::Release, site, body).await))
        .route("/api/skip", post(async |site, body| decide(Decision::Skip, site, body).await))
        .route("/api/reload", post(reload))
        .route("/api/resume", post(resume))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "this path is not asked this way")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn_with_state(site.clone(), guard::check))
        .with_state(site)
}

pub(super) fn refusal(status: StatusCode, what: impl Into<String>) -> Refusal {
    (status, Json(json!({ "error": what.into() })))
}

/// An answer in time, and with the headers that every answer has.
async fn in_time(request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long").into_response(),
    };
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn front(State(site): State<Site>) -> Html<String> {
    Html(page::status(&site.engine.status().await, site.engine.now()))
}

async fn livez() -> Json<Value> {
    Json(json!({ "live": true }))
}

async fn readyz(State(site): State<Site>) -> Response {
    let readiness = site.engine.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(site): State<Site>) -> Response {
    match TextEncoder::new().encode_to_string(&site.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(site): State<Site>) -> Response {
    Json(site.engine.status().await).into_response()
}

async fn message(
    State(site): State<Site>,
    Path(sequence): Path<String>,
) -> Result<Json<MessageView>, Refusal> {
    let not_there = || refusal(StatusCode::NOT_FOUND, "the journal has no such message");
    let sequence = sequence.parse().map_err(|_| not_there())?;
    let found = site.engine.message(Sequence(sequence)).await.map_err(unavailable)?;
    let (summary, deliveries) = found.ok_or_else(not_there)?;
    Ok(Json(MessageView {
        message: summary.into(),
        deliveries: deliveries.into_iter().map(Delivery::from).collect(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    destination: Option<String>,
    #[serde(default = "default_limit")]
    limit: usize,
}

async fn lanes(State(site): State<Site>, which: Asked<Which>) -> Result<Json<Lanes>, Refusal> {
    let Query(Which { destination, limit }) =
        which.map_err(|_| refusal(StatusCode::BAD_REQUEST, "known are `destination` and `limit`"))?;
    let lanes = site.engine.lanes(destination.as_deref(), limit.min(SHOWN)).await;
    lanes.map(Json).map_err(unavailable)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HowMany {
    #[serde(default = "default_limit")]
    limit: usize,
}

async fn audit(State(site): State<Site>, how_many: Asked<HowMany>) -> Result<Json<Audits>, Refusal> {
    let Query(HowMany { limit }) =
        how_many.map_err(|_| refusal(StatusCode::BAD_REQUEST, "only `limit` can be said"))?;
    let audit = site.engine.audit(limit.min(SHOWN)).await.map_err(unavailable)?;
    Ok(Json(Audits { audit: audit.into_iter().map(AuditLine::from).collect() }))
}

async fn decide(
    decision: Decision,
    State(site): State<Site>,
    body: Bytes,
) -> Result<Json<DecisionAnswer>, Refusal> {
    let request: DecisionRequest = serde_json::from_slice(&body)
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, format!("the request cannot be read: {error}")))?;
    sensible(decision, &request).map_err(|what| refusal(StatusCode::BAD_REQUEST, what))?;
    let dry_run = request.dry_run;
    let done = site.engine.decide(decision, &asked(request, site.engine.now())).await.map_err(unavailable)?;
    let first = done.first.into_iter().map(DeliveryName::from).collect();
    let (without_bytes, more_after) = (done.without_bytes, done.more_after.map(|place| place.0));
    Ok(Json(DecisionAnswer { deliveries: done.deliveries, dry_run, without_bytes, more_after, first }))
}

async fn reload(State(site): State<Site>) -> Response {
    Json(site.engine.reload().await).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeRequest {
    #[serde(default)]
    who: String,
    why: String,
}

async fn resume(State(site): State<Site>, body: Bytes) -> Result<Json<Value>, Refusal> {
    let ResumeRequest { who, why } = serde_json::from_slice(&body)
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, format!("the request cannot be read: {error}")))?;
    let who = if who.is_empty() { "unknown".to_owned() } else { who };
    let (action, asked) = ("resume".to_owned(), "{}".to_owned());
    let audit = journal::Audit { at: site.engine.now(), action, who, why, asked, deliveries: 0 };
    match site.engine.resume(audit).await.map_err(unavailable)? {
        true => Ok(Json(json!({ "resumed": true }))),
        false => Err(refusal(StatusCode::CONFLICT, "the engine is not paused")),
    }
}

fn sensible(decision: Decision, request: &DecisionRequest) -> Result<(), String> {
    use journal::State::{Delivered, Filtered};
    let takes =
        || journal::State::ALL.into_iter().filter(|state| decision.takes(*state)).map(journal::State::word);
    let word = decision.word();
    if request.states.is_empty() || request.states.iter().any(|state| !decision.takes(*state)) {
        let known = takes().collect::<Vec<_>>().join(", ");
        return Err(format!("`states` of a {word} must name at least one of {known}, and no other"));
    }
    let narrowed = request.sequence.is_some()
        || request.control_id.is_some()
        || request.destination.is_some()
        || request.route.is_some();
    if !narrowed && request.states.iter().any(|state| matches!(state, Delivered | Filtered)) {
        return Err("to repeat what has ended well, name a message, route or destination too".to_owned());
    }
    if !narrowed && decision == Decision::Skip {
        return Err("to skip, name a message, route or destination too".to_owned());
    }
    if decision == Decision::Skip && request.why.trim().is_empty() {
        return Err("a skip must say why: it becomes the reason of the dead letter".to_owned());
    }
    if request.why.len() > WHY_BYTES || request.who.len() > WHY_BYTES {
        return Err(format!("`who` and `why` may be {WHY_BYTES} bytes long"));
    }
    if !(1..=CHANGED).contains(&request.limit) {
        return Err(format!("`limit` must be from 1 to {CHANGED}"));
    }
    Ok(())
}

fn asked(request: DecisionRequest, at: jiff::Timestamp) -> Requeue {
    let DecisionRequest { states, destination, route, sequence, control_id, after, limit, dry_run, who, why } =
        request;
    let (sequence, after) = (sequence.map(Sequence), after.map(Sequence));
    Requeue {
        filter: journal::Filter { states, destination, route, sequence, control_id, after },
        limit,
        dry_run,
        who: if who.is_empty() { "unknown".to_owned() } else { who },
        why,
        at,
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
pub(super) fn unavailable(error: JournalError) -> Refusal {
    refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

//! Searching the journal: `POST /api/search`, so that what is searched for stands in no address or access log.

use std::time::{Duration, Instant};

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Delivery, MessageView, Site,
    api::{Refusal, refusal, unavailable},
};
use crate::journal::{self, Key, NEWEST, Query, Sequence};

/// What one answer holds at most.
const FOUND: usize = 1000;
/// How long one answer searches; where it ends the next goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which messages. What is not said matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchRequest {
    /// Received at or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Received before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// MSH-9 as `ADT^A01`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Only messages in quarantine.
    pub quarantined: bool,
    /// With a delivery of this route; the same delivery must fulfil `destination` and `state`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// With a delivery to this destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// With a delivery that stands so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<journal::State>,
    /// By one of these at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<SearchKey>,
    /// Only messages before this place in the journal: where an earlier answer said to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// At most so many; 100 if 0.
    pub limit: usize,
}

/// What a message has.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchKey {
    /// MSH-10.
    ControlId(String),
    /// The key that orders one patient's messages: `authority|identifier`.
    Patient(String),
    /// The NHS number, with or without blanks.
    NhsNumber(String),
    /// The patient's number at the sender.
    LocalNumber(String),
    /// PV1-19.
    Visit(String),
    /// A placer, filler or accession number.
    Order(String),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchAnswer {
    /// The newest first, each with its deliveries.
    pub messages: Vec<MessageView>,
    /// Go on with `before` at this; none if all that the journal has was looked at.
    pub next: Option<i64>,
    /// When the oldest message was received that the journal still has.
    pub oldest: Option<Timestamp>,
}

impl std::fmt::Debug for SearchKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key("").fmt(f)
    }
}

impl SearchKey {
    fn text(&self) -> String {
        match self {
            Self::NhsNumber(text) => text.chars().filter(char::is_ascii_digit).collect(),
            Self::ControlId(text)
            | Self::Patient(text)
            | Self::LocalNumber(text)
            | Self::Visit(text)
            | Self::Order(text) => text.trim().to_owned(),
        }
    }

    fn key<'a>(&self, text: &'a str) -> Key<'a> {
        match self {
            Self::ControlId(_) => Key::ControlId(text),
            Self::Patient(_) => Key::Patient(text),
            Self::NhsNumber(_) => Key::NhsNumber(text),
            Self::LocalNumber(_) => Key::LocalNumber(text),
            Self::Visit(_) => Key::Visit(text),
            Self::Order(_) => Key::Order(text),
        }
    }
}

pub(super) async fn search(State(site): State<Site>, body: Bytes) -> Result<Json<SearchAnswer>, Refusal> {
    // What serde says could repeat what was searched for.
    let request: SearchRequest = serde_json::from_slice(&body).map_err(|_| {
        refusal(StatusCode::BAD_REQUEST, "the search cannot be read: see `tie search --help`")
    })?;
    let limit = match request.limit {
        0 => 100,
        limit => limit.min(FOUND),
    };
    let text = request.key.as_ref().map(SearchKey::text).unwrap_or_default();
    if request.key.is_some() && text.is_empty() {
        return Err(refusal(StatusCode::BAD_REQUEST, "what is searched for is empty"));
    }
    let query = Query {
        since: request.since,
        until: request.until,
        listener: request.listener.as_deref(),
        trigger: request.trigger.as_deref(),
        quarantined: request.quarantined,
        key: request.key.as_ref().map(|key| key.key(&text)),
        route: request.route.as_deref(),
        destination: request.destination.as_deref(),
        state: request.state,
    };
    let (found, next) = pages(&site, &query, request.before.map_or(NEWEST, Sequence), limit).await?;
    let mut messages = Vec::with_capacity(found.len());
    for summary in found {
        let (_, deliveries) = site
            .engine
            .message(summary.sequence)
            .await
            .map_err(unavailable)?
            .unwrap_or((summary.clone(), Vec::new()));
        let deliveries = deliveries.into_iter().map(Delivery::from).collect();
        messages.push(MessageView { message: summary.into(), deliveries });
    }
    let oldest = site.engine.oldest().await.map_err(unavailable)?;
    Ok(Json(SearchAnswer { messages, next: next.map(|next| next.0), oldest }))
}

/// Page after page, as long as somebody waits for it.
async fn pages(
    site: &Site,
    query: &Query<'_>,
    before: Sequence,
    limit: usize,
) -> Result<(Vec<journal::Summary>, Option<Sequence>), Refusal> {
    let began = Instant::now();
    let mut found = Vec::new();
    let mut next = Some(before);
    while let Some(place) = next.filter(|_| found.len() < limit && began.elapsed() < PATIENCE) {
        let page = site.engine.search(query, place, limit - found.len()).await.map_err(unavailable)?;
        found.extend(page.messages);
        next = page.next;
    }
    Ok((found, next))
}

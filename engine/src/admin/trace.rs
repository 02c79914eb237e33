//! `POST /api/trace`: what became of many messages at once, by their control ids. For reconciliation.
//!
//! Promise: P9. Besides what `/api/messages` shows there are only the names of the resources that a delivery wrote
//! (`Patient/<id>`), if asked for, and only those whose id is a UUID: such an id is made by the engine and says
//! nothing by itself, while an id that a script took from a field could be the patient's number.

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::{
    Engine, Found, Site,
    api::{Refusal, refusal, unavailable},
    view::Delivery,
};
use crate::{
    connector::Payload,
    journal::{self, JournalError},
};

/// Control ids that one request may name.
pub const CONTROL_IDS: usize = 500;
/// Messages of one control id that are told, the newest; as many as the engine looks up.
pub const TRACED: usize = 100;
/// Looked up at the same time.
const AT_ONCE: usize = 4;

/// Which messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// MSH-10 of each.
    pub control_ids: Vec<String>,
    /// Of deliveries to this destination, the resources that they wrote as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_to: Option<String>,
}

/// What became of them, in the order in which they were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceAnswer {
    /// One for each control id.
    pub traces: Vec<Trace>,
}

/// What became of the messages with one control id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The control id.
    pub control_id: String,
    /// Its messages, the newest first; none if none arrived or all were pruned.
    pub messages: Vec<TracedMessage>,
    /// These are only the newest: there may be older ones that nobody has looked at.
    #[serde(default)]
    pub cut: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedMessage {
    /// The message.
    #[serde(flatten)]
    pub message: Found,
    /// What became of its deliveries.
    pub deliveries: Vec<TracedDelivery>,
}

/// One delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedDelivery {
    /// What became of it.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// `Type/id` of the resources that it wrote, as far as their ids are UUIDs; empty unless asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<String>,
}

pub(super) async fn trace(State(site): State<Site>, body: Bytes) -> Result<Json<TraceAnswer>, Refusal> {
    let request: TraceRequest = serde_json::from_slice(&body)
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, format!("the request cannot be read: {error}")))?;
    if request.control_ids.len() > CONTROL_IDS {
        return Err(refusal(StatusCode::BAD_REQUEST, format!("at most {CONTROL_IDS} control ids at once")));
    }
    let (engine, written_to) = (&*site.engine, request.written_to.as_deref());
    let traces = stream::iter(request.control_ids)
        .map(|control_id| one(engine, control_id, written_to))
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .map_err(unavailable)?;
    Ok(Json(TraceAnswer { traces }))
}

async fn one(
    engine: &dyn Engine,
    control_id: String,
    written_to: Option<&str>,
) -> Result<Trace, JournalError> {
    let mut messages = Vec::new();
    for (summary, records) in engine.trace(&control_id).await? {
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            let wanted = record.state == journal::State::Delivered
                && written_to.is_some_and(|destination| destination == record.id.destination);
            let written = if wanted { written(&engine.sent(&record.id).await?) } else { Vec::new() };
            deliveries.push(TracedDelivery { delivery: record.into(), written });
        }
        messages.push(TracedMessage { message: summary.into(), deliveries });
    }
    let cut = messages.len() >= TRACED;
    Ok(Trace { control_id, messages, cut })
}

/// A transaction Bundle, as much of it as names resources.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    entry: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    request: Request,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    method: String,
    url: String,
}

/// What was put under an id of its own; what a server gave an id cannot be asked for.
fn written(payloads: &[Payload]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in payloads {
        match payload {
            Payload::FhirBundle(json) => {
                let bundle = serde_json::from_slice(json).unwrap_or(Bundle { entry: Vec::new() });
                let put = bundle.entry.into_iter().filter(|entry| entry.request.method == "PUT");
                names.extend(put.map(|entry| entry.request.url));
            }
            Payload::FhirResource { resource_type, id, .. } => names.push(format!("{resource_type}/{id}")),
            _ => {}
        }
    }
    names.retain(|name| name.split_once('/').is_some_and(|(_, id)| uuid::Uuid::try_parse(id).is_ok()));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_put_under_a_uuid_is_named() {
        let id = uuid::Uuid::new_v4();
        let bundle = format!(
            r#"{{"resourceType":"Bundle","entry":[
                {{"request":{{"method":"PUT","url":"Patient/{id}"}}}},
                {{"request":{{"method":"PUT","url":"Patient/M000001"}}}},
                {{"request":{{"method":"PUT","url":"Patient?identifier=a|M1"}}}},
                {{"request":{{"method":"POST","url":"Observation"}}}},
                {{"resource":{{}}}}]}}"#
        );
        let resource = |id: String| Payload::FhirResource {
            resource_type: "Encounter".to_owned(),
            id,
            json: bytes::Bytes::new(),
        };
        let payloads = [
            Payload::FhirBundle(bundle.into()),
            resource(id.to_string()),
            resource("V1".to_owned()),
            Payload::Hl7(bytes::Bytes::from_static(b"MSH|")),
        ];
        assert_eq!(written(&payloads), [format!("Patient/{id}"), format!("Encounter/{id}")]);
    }
}

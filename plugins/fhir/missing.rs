//! Asks a FHIR server which of the resources that it was sent it does not hold.
//!
//! A search by `_id` tells of many resources at once (FHIR R4, search.html#id). What it does not give, or all where a
//! server does not search so, is read one by one (http.html#read): only a plain "not found" or "gone" makes a
//! resource missing. Whatever else the server says is an error, since a wrong alarm costs a person's night.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use serde::Deserialize;
use tie_engine::connector::DeliveryError;

use super::{ACCEPT, FhirServer, answer::Answer};
use crate::{
    client::{Reply, ReplyBody},
    web,
};

/// Ids in one search: an address may not be too long.
const IDS_AT_ONCE: usize = 40;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Found {
    entry: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    resource: Resource,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    id: String,
}

impl FhirServer {
    pub(super) async fn not_held(&self, resources: &[String]) -> Result<Vec<String>, DeliveryError> {
        let mut by_type: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (kind, id) in resources.iter().filter_map(|name| name.split_once('/')) {
            by_type.entry(kind).or_default().insert(id);
        }
        let mut missing = Vec::new();
        for (kind, ids) in by_type {
            let ids: Vec<&str> = ids.into_iter().collect();
            for some in ids.chunks(IDS_AT_ONCE) {
                let held = self.search(kind, some).await?;
                for id in some.iter().filter(|id| !held.contains(**id)) {
                    if !self.holds(kind, id).await? {
                        missing.push(format!("{kind}/{id}"));
                    }
                }
            }
        }
        Ok(missing)
    }

    /// The ids that a search gives; none where the server does not search so.
    async fn search(&self, kind: &str, ids: &[&str]) -> Result<BTreeSet<String>, DeliveryError> {
        let ids = ids.join(",");
        let reply = self.get(&format!("{kind}?_id={ids}&_elements=id&_count={IDS_AT_ONCE}")).await?;
        let found: Found = match &reply.body {
            ReplyBody::Whole(bytes) if reply.status.is_success() => {
                serde_json::from_slice(bytes).unwrap_or_default()
            }
            _ => Found::default(),
        };
        Ok(found.entry.into_iter().map(|entry| entry.resource.id).collect())
    }

    async fn holds(&self, kind: &str, id: &str) -> Result<bool, DeliveryError> {
        let reply = self.get(&format!("{kind}/{id}")).await?;
        let fhir = match &reply.body {
            ReplyBody::Whole(bytes) => Answer::read(bytes).is_some(),
            ReplyBody::Cut | ReplyBody::TooLong => false,
        };
        match reply.status {
            StatusCode::OK if fhir => Ok(true),
            StatusCode::NOT_FOUND | StatusCode::GONE if fhir => Ok(false),
            status if status.is_success() || !fhir => {
                Err(self.error("not-fhir", "the reply is no FHIR JSON"))
            }
            status => Err(DeliveryError::new(
                self.answers.of_status(status.as_u16(), Some("resource-")),
                status.to_string(),
            )),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Reply, DeliveryError> {
        let uri: Uri = format!("{}/{path}", self.stem)
            .parse()
            .map_err(|_| self.error("payload", "the resource has no valid type and id"))?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::ACCEPT, ACCEPT.clone());
        let reply = self.web.send(request, "", &std::sync::Arc::default()).await;
        reply.map_err(|fault| self.error(web::sign(fault.failure), &fault.reason))
    }
}

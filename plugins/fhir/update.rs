//! Read, merge, write: what the server has is read, the message is merged into it, and it is written under the version
//! that was read.
//!
//! Promise:  what another has written in between is not overwritten: the server refuses (412, by some 409), and it is read
//!           and merged again, three times at most; then it is tried later. A refusal though nothing has changed is the
//!           server's word about the message.
//!           A server that tells no versions cannot refuse; there the last who writes wins.
//! Not here: what is merged how (merge).

use bytes::Bytes;
use futures::future::try_join_all;
use http::{Method, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use tie_engine::connector::{
    DeliveryError, ErrorClass, Outbound, Payload, Receipt,
    removals::{Members, write_name, write_without},
};

use super::{FhirServer, answer::Answer, merge::write_merged};
use crate::client::ReplyBody;

/// So often it is read and written before it is left for later.
const TRIES: usize = 3;
/// Resources that are read at once.
const READS: usize = 8;

/// A resource as the server has it.
struct Held {
    json: Bytes,
    /// What `If-Match` takes.
    version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Known {
    resource_type: String,
    id: String,
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    version_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    method: String,
    url: String,
}

impl FhirServer {
    pub(super) async fn update(
        &self,
        outbound: &Outbound,
        method: &Method,
        uri: &Uri,
    ) -> Result<Receipt, DeliveryError> {
        let json = std::str::from_utf8(outbound.payload.bytes()).ok();
        let parts = json.and_then(|json| Parts::of(&outbound.payload, json, &self.merged));
        let parts = parts.ok_or_else(|| self.error("payload", "what is to be merged is no JSON of FHIR"))?;
        let mut refused: Option<(DeliveryError, Vec<Option<String>>)> = None;
        for _ in 0..TRIES {
            let held = self.read_all(&parts.names()).await?;
            let versions: Vec<_> = held.iter().map(|held| held.as_ref()?.version.clone()).collect();
            if let Some((error, before)) = refused.take()
                && before == versions
            {
                return Err(error);
            }
            let (body, if_match) = parts.merged(&held);
            let reply = self.write(outbound, method, uri, body, if_match.as_deref()).await?;
            let judged = self.judge(&reply, *method == Method::PUT);
            match judged {
                Err(error)
                    if matches!(reply.status, StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT) =>
                {
                    refused = Some((error, versions));
                }
                judged => return judged,
            }
        }
        Err(self.error("changed", "another wrote the same resource each time before this could be written"))
    }

    async fn read_all(&self, names: &[String]) -> Result<Vec<Option<Held>>, DeliveryError> {
        let mut held = Vec::with_capacity(names.len());
        for some in names.chunks(READS) {
            held.extend(try_join_all(some.iter().map(|name| self.read(name))).await?);
        }
        Ok(held)
    }

    /// What the server has under `Type/id`; none where it has nothing, or nothing any more.
    async fn read(&self, name: &str) -> Result<Option<Held>, DeliveryError> {
        let reply = self.get(name).await.map_err(nothing_sent)?;
        let json = match reply.body {
            ReplyBody::Whole(json) => json,
            ReplyBody::Cut => {
                return Err(DeliveryError::new(ErrorClass::Unavailable, "the reply to a read was cut short"));
            }
            ReplyBody::TooLong => {
                return Err(self.error("too-long-to-merge", "what the server has is too long to be merged"));
            }
        };
        let not_fhir = || self.error("not-fhir", "the reply to a read is no FHIR JSON");
        match reply.status {
            StatusCode::OK => {
                let known: Known = serde_json::from_slice(&json).map_err(|_| not_fhir())?;
                if format!("{}/{}", known.resource_type, known.id) != name {
                    return Err(not_fhir());
                }
                let tag =
                    reply.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
                let version = tag.or_else(|| known.meta.version_id.map(|version| format!("W/\"{version}\"")));
                Ok(Some(Held { json, version }))
            }
            StatusCode::NOT_FOUND | StatusCode::GONE
                if json.trim_ascii().is_empty() || Answer::read(&json).is_some() =>
            {
                Ok(None)
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(not_fhir()),
            status => Err(nothing_sent(DeliveryError::new(
                self.answers.of_status(status.as_u16(), Some("resource-")),
                format!("{status} to a read"),
            ))),
        }
    }
}

/// What fails while reading has changed nothing at the server.
fn nothing_sent(error: DeliveryError) -> DeliveryError {
    match error.class {
        ErrorClass::Uncertain => DeliveryError { class: ErrorClass::Unavailable, ..error },
        ErrorClass::Unavailable | ErrorClass::Rejected | ErrorClass::Failing | ErrorClass::Misconfigured => {
            error
        }
    }
}

/// What is to be sent, taken apart where it is merged.
enum Parts<'a> {
    One(Option<String>, &'a str),
    Bundle(Members<'a>, Vec<Entry<'a>>),
}

struct Entry<'a> {
    members: Members<'a>,
    /// `Type/id`, if it is merged.
    name: Option<String>,
}

impl<'a> Parts<'a> {
    fn of(payload: &Payload, json: &'a str, types: &[String]) -> Option<Self> {
        match payload {
            Payload::FhirResource { resource_type, id, .. } => {
                let name = is_merged(resource_type, types).then(|| format!("{resource_type}/{id}"));
                Some(Self::One(name, json))
            }
            Payload::FhirBundle(_) => {
                let bundle: Members<'a> = serde_json::from_str(json).ok()?;
                let entries: Vec<Members<'a>> = match bundle.get("entry") {
                    Some(entries) => serde_json::from_str(entries.get()).ok()?,
                    None => Vec::new(),
                };
                let entries = entries.into_iter().map(|members| {
                    let name = name_of(&members, types);
                    Entry { members, name }
                });
                let entries = entries.collect();
                Some(Self::Bundle(bundle, entries))
            }
            Payload::Hl7(_) => None,
        }
    }

    /// What is to be read.
    fn names(&self) -> Vec<String> {
        match self {
            Self::One(name, _) => name.iter().cloned().collect(),
            Self::Bundle(_, entries) => entries.iter().filter_map(|entry| entry.name.clone()).collect(),
        }
    }

    /// The body with what was read, in the order of the names; of a single resource also the version for `If-Match`.
    fn merged(&self, held: &[Option<Held>]) -> (Bytes, Option<String>) {
        let mut out = Vec::with_capacity(4096);
        let mut held = held.iter();
        match self {
            Self::One(_, json) => {
                let held = held.next().and_then(Option::as_ref);
                write_resource(json, held, &mut out);
                (out.into(), held.and_then(|held| held.version.clone()))
            }
            Self::Bundle(bundle, entries) => {
                out.push(b'{');
                for (name, value) in bundle.iter() {
                    write_name(name, &mut out);
                    if name != "entry" {
                        out.extend_from_slice(value.get().as_bytes());
                        continue;
                    }
                    out.push(b'[');
                    for (place, entry) in entries.iter().enumerate() {
                        if place > 0 {
                            out.push(b',');
                        }
                        let held = entry.name.as_ref().and_then(|_| held.next()).and_then(Option::as_ref);
                        entry.write(held, &mut out);
                    }
                    out.push(b']');
                }
                out.push(b'}');
                (out.into(), None)
            }
        }
    }
}

impl Entry<'_> {
    fn write(&self, held: Option<&Held>, out: &mut Vec<u8>) {
        out.push(b'{');
        for (name, value) in self.members.iter() {
            write_name(name, out);
            match (name, held.and_then(|held| held.version.as_ref())) {
                ("resource", _) => write_resource(value.get(), held, out),
                ("request", Some(version)) => {
                    let request = value.get();
                    let request = request.strip_suffix('}').unwrap_or(request);
                    out.extend_from_slice(request.as_bytes());
                    write_name("ifMatch", out);
                    out.extend_from_slice(serde_json::Value::from(version.as_str()).to_string().as_bytes());
                    out.push(b'}');
                }
                _ => out.extend_from_slice(value.get().as_bytes()),
            }
        }
        out.push(b'}');
    }
}

fn write_resource(json: &str, held: Option<&Held>, out: &mut Vec<u8>) {
    let held = held.and_then(|held| std::str::from_utf8(&held.json).ok());
    let both =
        held.and_then(|held| Some((serde_json::from_str(json).ok()?, serde_json::from_str(held).ok()?)));
    match both {
        Some((new, held)) => write_merged(&new, &held, out),
        None => {
            write_without(json, out);
        }
    }
}

/// `Type/id` of an entry that puts a resource of these types under its id.
fn name_of(entry: &Members<'_>, types: &[String]) -> Option<String> {
    let request: Request = read(entry.get("request")?)?;
    let known: Known = read(entry.get("resource")?)?;
    let name = format!("{}/{}", known.resource_type, known.id);
    (request.method == "PUT" && request.url == name && is_merged(&known.resource_type, types)).then_some(name)
}

fn read<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Option<T> {
    serde_json::from_str(json.get()).ok()
}

fn is_merged(kind: &str, types: &[String]) -> bool {
    types.iter().any(|known| known == kind)
}

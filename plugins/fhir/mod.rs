//! The destination `fhir`: a FHIR R4 server over REST.
//!
//! A Bundle is posted to the base address, a single resource is put to `[base]/[type]/[id]`. A 2xx status alone
//! is no success: an OperationOutcome of severity error or an entry that was refused makes it a failure. What
//! each answer means is the table in `table.rs`, which a destination can change by `errors`. Requests are never
//! compressed, since many servers refuse that. The bearer token is read again when the server does not accept it.
//! By `update = "merge"` what the server has is read first, and what the message leaves out stays (`merge.rs`).
//! Left to others: queue, retries, time-outs (engine), connections and TLS (client).
//!
//! As a listener it takes the same by HTTP: see `listener.rs`.

mod answer;
mod asked;
mod listener;
mod listener_options;
mod merge;
mod missing;
mod outcome;
mod table;
mod update;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use serde::Deserialize;
use tie_engine::{
    connector::{
        ByteSize, DeliveryError, Destination, ErrorClass, Options, Outbound, Payload, Plugin, Receipt,
        Repeats, Role,
    },
    error::Problem,
    fhir::elements::{resource_names, type_named},
    secret::SecretRef,
};

use self::{answer::Answer, table::TABLES};
use crate::{
    answers::Answers,
    client::{Reply, ReplyBody},
    web::{self, Web},
};

/// The connector.
pub const PLUGIN: Plugin = Plugin {
    name: "fhir",
    about: "FHIR R4 over HTTP, both ways: Bundles, messages and single resources as JSON.",
    source: Some(Role {
        example: listener_options::EXAMPLE,
        schema: || schemars::schema_for!(listener_options::ListenerOptions),
        build: listener::build,
    }),
    destination: Some(Role { example: EXAMPLE, schema: || schemars::schema_for!(FhirOptions), build }),
    answers: TABLES,
};

const EXAMPLE: &str = r#"[destination.shared-care-record]
kind = "fhir"
base = "https://record.example.nhs.uk/fhir/R4"
ca = "/etc/tie/record-ca.pem"            # trust these roots only; without it, the web's roots
token = { env = "RECORD_TOKEN" }         # bearer token; or { file = "…" }, read again when it is not accepted
headers = { "NHSD-End-User-Organisation-ODS" = "RXX" }
longest_reply = "8MiB"                   # longest reply that is read
update = "merge"                         # what a message leaves out stays as the record has it; "replace": it goes
merge = ["Patient", "Encounter"]         # of these types; without it, also Practitioner, Organization and Location
errors = { "409" = "rejected" }          # changes to the table of what an answer means
"#;

static ACCEPT: HeaderValue = HeaderValue::from_static("application/fhir+json");
static PREFER_NAME: HeaderName = HeaderName::from_static("prefer");
static PREFER: HeaderValue = HeaderValue::from_static("return=minimal");
/// Options of a `fhir` destination.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct FhirOptions {
    /// The base address, `http` or `https`.
    base: String,
    /// A PEM file with the roots to trust instead of the web's.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// Where the bearer token is kept.
    #[serde(default)]
    token: Option<SecretRef>,
    /// Headers to add to every request. No secrets: these are part of the configuration's text.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Longest reply that is read.
    #[serde(default = "default_longest_reply")]
    longest_reply: ByteSize,
    /// What becomes of the elements that a message does not tell.
    #[serde(default)]
    update: Update,
    /// The types of resource that `update = "merge"` is about; others are replaced, for what a message says of a result,
    /// a document or a relative is the whole of it.
    #[serde(default = "default_merge")]
    merge: Vec<String>,
    /// Changes to what an answer means: a status (`409`, `5xx`) or a sign, and its class.
    #[serde(default)]
    errors: BTreeMap<String, ErrorClass>,
}

/// How a resource is updated that the server has already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Update {
    /// By what the message says alone: what it leaves out is gone.
    #[default]
    Replace,
    /// What the message says goes in, what it removes (`""`) goes, and all else stays.
    Merge,
}

/// What is the same thing in every message. Relatives are not: they are known by their place in the message.
fn default_merge() -> Vec<String> {
    ["Patient", "Encounter", "Practitioner", "PractitionerRole", "Organization", "Location"]
        .map(String::from)
        .into()
}

fn default_longest_reply() -> ByteSize {
    ByteSize(8 * 1024 * 1024)
}

struct FhirServer {
    base: Uri,
    /// Without a slash at its end.
    stem: String,
    web: Web,
    answers: Answers,
    /// The types of resource that are merged; none where all are replaced.
    merged: Vec<String>,
}

fn build(options: &Options) -> Result<Arc<dyn Destination>, Vec<Problem>> {
    let FhirOptions { base, ca, token, headers, longest_reply, update, merge, errors } = options.parse()?;
    let mut problems = Vec::new();
    let uri = web::address(options, "base", &base, false).map_err(|problem| problems.push(problem));
    let web = Web::new(options, ca, token, headers, longest_reply).map_err(|found| problems.extend(found));
    let answers = Answers::new(TABLES, errors, options).map_err(|found| problems.extend(found));
    problems.extend(merge.iter().filter(|name| !is_resource(name)).map(|name| {
        let problem = options.problem_at("merge", format!("`{name}` in `merge` is no resource of FHIR R4"));
        problem.did_you_mean(name, resource_names())
    }));
    let (Ok(uri), Ok(web), Ok(answers), true) = (uri, web, answers, problems.is_empty()) else {
        return Err(problems);
    };
    let stem = base.trim_end_matches('/').to_owned();
    let merged = if update == Update::Merge { merge } else { Vec::new() };
    Ok(Arc::new(FhirServer { stem, base: uri, web, answers, merged }))
}

fn is_resource(name: &str) -> bool {
    type_named(name).is_some_and(|found| found.is_resource)
}

#[async_trait]
impl Destination for FhirServer {
    async fn deliver(&self, outbound: &Outbound) -> Result<Receipt, DeliveryError> {
        let (method, uri) = self.target(&outbound.payload)?;
        if self.takes_removals() {
            return self.update(outbound, &method, &uri).await;
        }
        let body = outbound.payload.bytes().clone();
        let reply = self.write(outbound, &method, &uri, body, None).await?;
        self.judge(&reply, method == Method::PUT)
    }

    fn takes_removals(&self) -> bool {
        !self.merged.is_empty()
    }

    async fn missing(&self, resources: &[String]) -> Option<Result<Vec<String>, DeliveryError>> {
        Some(self.not_held(resources).await)
    }

    /// Mappings make ids from identifiers.
    fn repeats(&self) -> Repeats {
        Repeats::ChangeNothing
    }
}

impl FhirServer {
    async fn write(
        &self,
        outbound: &Outbound,
        method: &Method,
        uri: &Uri,
        body: Bytes,
        if_match: Option<&str>,
    ) -> Result<Reply, DeliveryError> {
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, ACCEPT.clone());
        headers.insert(header::CONTENT_TYPE, ACCEPT.clone());
        headers.insert(PREFER_NAME.clone(), PREFER.clone());
        if let Some(version) = if_match.and_then(|version| HeaderValue::from_str(version).ok()) {
            headers.insert(header::IF_MATCH, version);
        }
        let reply = self.web.send(request, &outbound.control_id, &outbound.left).await;
        reply.map_err(|fault| self.error(web::sign(fault.failure), &fault.reason))
    }

    fn target(&self, payload: &Payload) -> Result<(Method, Uri), DeliveryError> {
        match payload {
            Payload::FhirBundle(_) => Ok((Method::POST, self.base.clone())),
            Payload::FhirResource { resource_type, id, .. } => {
                let plain = |text: &str, more: &[char]| {
                    (1..=64).contains(&text.len())
                        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
                };
                let uri = format!("{}/{resource_type}/{id}", self.stem).parse();
                match uri {
                    Ok(uri) if plain(resource_type, &[]) && plain(id, &['-', '.']) => Ok((Method::PUT, uri)),
                    _ => Err(self.error("payload", "the resource has no valid type and id")),
                }
            }
            Payload::Hl7(_) => Err(self.error("payload", "a FHIR server takes no HL7 v2 message")),
        }
    }

    fn judge(&self, reply: &Reply, resource: bool) -> Result<Receipt, DeliveryError> {
        let status = reply.status.as_u16();
        let whole = match &reply.body {
            ReplyBody::Whole(bytes) => bytes.clone(),
            ReplyBody::Cut | ReplyBody::TooLong => Bytes::new(),
        };
        let answer = Answer::read(&whole);
        let detail = Some(whole.clone()).filter(|bytes| !bytes.is_empty());
        let failed = |class, reason| DeliveryError {
            class,
            reason,
            answered: false,
            retry_after: web::retry_after(&reply.headers),
            detail: detail.clone(),
        };
        if !reply.status.is_success() {
            let summary = answer.as_ref().and_then(Answer::summary);
            let summary = summary.map(|summary| format!(": {summary}")).unwrap_or_default();
            return Err(failed(
                self.answers.of_status(status, resource.then_some("resource-")),
                format!("{status}{summary}"),
            ));
        }
        let complaint = match (&reply.body, &answer) {
            (ReplyBody::Cut, _) => Some(("reply-cut", "the reply was cut short".to_owned())),
            (ReplyBody::TooLong, _) => Some(("reply-too-long", "the reply is too long".to_owned())),
            (ReplyBody::Whole(bytes), None) if bytes.trim_ascii().is_empty() => None,
            (ReplyBody::Whole(_), None) => Some(("not-fhir", "the reply is no FHIR JSON".to_owned())),
            (ReplyBody::Whole(_), Some(answer)) => {
                answer.complaint().map(|complaint| (complaint.sign, complaint.reason))
            }
        };
        match complaint {
            Some((sign, reason)) => Err(failed(self.answers.of(sign), format!("{status}, but {reason}"))),
            None => Ok(Receipt {
                answer: status.to_string(),
                detail: detail.filter(|_| answer.as_ref().is_some_and(Answer::says_more)),
            }),
        }
    }

    fn error(&self, sign: &str, reason: &str) -> DeliveryError {
        DeliveryError::new(self.answers.of(sign), reason)
    }
}

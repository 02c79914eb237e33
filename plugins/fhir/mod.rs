//! The destination `fhir`: a FHIR R4 server over REST.
//!
//! A Bundle is posted to the base address, a single resource is put to `[base]/[type]/[id]`. A 2xx status alone
//! is no success: an OperationOutcome of severity error or an entry that was refused makes it a failure. What
//! each answer means is the table in `table.rs`, which a destination can change by `errors`. Requests are never
//! compressed, since many servers refuse that. The bearer token is read again when the server does not accept it.
//! Left to others: queue, retries, time-outs (engine), connections and TLS (client).

mod answer;
mod missing;
mod table;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use parking_lot::Mutex;
use serde::Deserialize;
use tie_engine::{
    connector::{
        ByteSize, DeliveryError, Destination, ErrorClass, Options, Outbound, Payload, Plugin, Receipt, Role,
    },
    error::Problem,
    secret::SecretRef,
};

use self::{answer::Answer, table::Classes};
use crate::client::{Client, Failure, Fault, Reply, ReplyBody};

/// The connector.
pub const PLUGIN: Plugin = Plugin {
    name: "fhir",
    about: "A FHIR R4 server: transaction Bundles and single resources over REST.",
    source: None,
    destination: Some(Role { example: EXAMPLE, schema: || schemars::schema_for!(FhirOptions), build }),
};

const EXAMPLE: &str = r#"[destination.shared-care-record]
kind = "fhir"
base = "https://record.example.nhs.uk/fhir/R4"
ca = "/etc/tie/record-ca.pem"            # trust these roots only; without it, the web's roots
token = { env = "RECORD_TOKEN" }         # bearer token; or { file = "…" }, read again when it is not accepted
headers = { "NHSD-End-User-Organisation-ODS" = "RXX" }
longest_reply = "8MiB"                   # longest reply that is read
repeats = "safe"                         # after an unclear end: "safe" sends again, "unsafe" waits for a person
errors = { "409" = "rejected" }          # changes to the table of what an answer means
"#;

static ACCEPT: HeaderValue = HeaderValue::from_static("application/fhir+json");
static PREFER_NAME: HeaderName = HeaderName::from_static("prefer");
static PREFER: HeaderValue = HeaderValue::from_static("return=minimal");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static AGENT: LazyLock<HeaderValue> = LazyLock::new(|| {
    HeaderValue::from_str(concat!("tie/", env!("CARGO_PKG_VERSION")))
        .unwrap_or(HeaderValue::from_static("tie"))
});

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
    /// Whether the server recognises a repeat. Mappings make ids from identifiers, so by default it does.
    #[serde(default)]
    repeats: Repeats,
    /// Changes to what an answer means: a status (`409`, `5xx`) or a sign, and its class.
    #[serde(default)]
    errors: BTreeMap<String, ErrorClass>,
}

/// Whether a receiver recognises what it was sent twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Repeats {
    /// It does: what is uncertain is sent again.
    #[default]
    Safe,
    /// It does not: what is uncertain waits for a person.
    Unsafe,
}

fn default_longest_reply() -> ByteSize {
    ByteSize(8 * 1024 * 1024)
}

struct FhirServer {
    base: Uri,
    /// Without a slash at its end.
    stem: String,
    client: Client,
    token: Option<SecretRef>,
    bearer: Mutex<Option<HeaderValue>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    reply_bytes: usize,
    repeats: Repeats,
    classes: Classes,
}

fn build(options: &Options) -> Result<Arc<dyn Destination>, Vec<Problem>> {
    let FhirOptions { base, ca, token, headers, longest_reply, repeats, errors } = options.parse()?;
    let mut problems = Vec::new();
    let uri = base.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
    });
    if uri.is_none() {
        problems.push(options.problem(format!("`base` is no http or https address: `{base}`")));
    }
    let mut own = Vec::new();
    for (name, value) in headers {
        match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => own.push((name, value)),
            _ => problems.push(options.problem(format!("`{name}` in `headers` is no valid header"))),
        }
    }
    let classes = Classes::new(errors, options).unwrap_or_else(|found| {
        problems.extend(found);
        Classes::default()
    });
    let (Some(uri), true) = (uri, problems.is_empty()) else { return Err(problems) };
    Ok(Arc::new(FhirServer {
        stem: base.trim_end_matches('/').to_owned(),
        base: uri,
        client: Client::new(ca),
        token,
        bearer: Mutex::new(None),
        headers: own,
        reply_bytes: usize::try_from(longest_reply.0).unwrap_or(usize::MAX),
        repeats,
        classes,
    }))
}

#[async_trait]
impl Destination for FhirServer {
    async fn deliver(&self, outbound: &Outbound) -> Result<Receipt, DeliveryError> {
        let (method, uri) = self.target(&outbound.payload)?;
        let bearer = self.bearer(false)?;
        let reply = self.send(&method, &uri, outbound, bearer.as_ref()).await?;
        if reply.status == StatusCode::UNAUTHORIZED && self.token.is_some() {
            // The token may have been renewed where it is kept.
            let renewed = self.bearer(true)?;
            if renewed != bearer {
                let reply = self.send(&method, &uri, outbound, renewed.as_ref()).await?;
                return self.judge(&reply, method == Method::PUT);
            }
        }
        self.judge(&reply, method == Method::PUT)
    }

    async fn missing(&self, resources: &[String]) -> Option<Result<Vec<String>, DeliveryError>> {
        Some(self.not_held(resources).await)
    }

    fn repeats_are_safe(&self) -> bool {
        self.repeats == Repeats::Safe
    }
}

impl FhirServer {
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

    async fn send(
        &self,
        method: &Method,
        uri: &Uri,
        outbound: &Outbound,
        bearer: Option<&HeaderValue>,
    ) -> Result<Reply, DeliveryError> {
        let mut request = self.request(method, uri, bearer);
        *request.body_mut() = outbound.payload.bytes().clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, ACCEPT.clone());
        headers.insert(PREFER_NAME.clone(), PREFER.clone());
        if let Ok(id) = HeaderValue::from_str(&outbound.control_id) {
            headers.insert(REQUEST_ID.clone(), id);
        }
        self.client
            .send(request, &outbound.left, self.reply_bytes)
            .await
            .map_err(|Fault { failure, reason }| self.error(sign(failure), &reason))
    }

    /// A request without a body, with the headers that every request to this server has.
    fn request(&self, method: &Method, uri: &Uri, bearer: Option<&HeaderValue>) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, ACCEPT.clone());
        headers.insert(header::USER_AGENT, AGENT.clone());
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if let Some(bearer) = bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        request
    }

    /// The `Authorization` header, fetched at first use and when it is to be renewed.
    fn bearer(&self, renew: bool) -> Result<Option<HeaderValue>, DeliveryError> {
        let Some(reference) = &self.token else { return Ok(None) };
        let mut kept = self.bearer.lock();
        if kept.is_none() || renew {
            let secret = reference.fetch().map_err(|reason| self.error("setup", &reason))?;
            let mut value = HeaderValue::try_from(format!("Bearer {}", secret.expose()))
                .map_err(|_| self.error("setup", "the token has characters that no header can have"))?;
            value.set_sensitive(true);
            *kept = Some(value);
        }
        Ok(kept.clone())
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
            retry_after: answer::retry_after(&reply.headers),
            detail: detail.clone(),
        };
        if !reply.status.is_success() {
            let summary = answer.as_ref().and_then(Answer::summary);
            let summary = summary.map(|summary| format!(": {summary}")).unwrap_or_default();
            return Err(failed(self.classes.of_status(status, resource), format!("{status}{summary}")));
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
            Some((sign, reason)) => Err(failed(self.classes.of(sign), format!("{status}, but {reason}"))),
            None => Ok(Receipt {
                answer: status.to_string(),
                detail: detail.filter(|_| answer.as_ref().is_some_and(Answer::says_more)),
            }),
        }
    }

    fn error(&self, sign: &str, reason: &str) -> DeliveryError {
        DeliveryError::new(self.classes.of(sign), reason)
    }
}

fn sign(failure: Failure) -> &'static str {
    match failure {
        Failure::Dns => "dns",
        Failure::Tls => "tls",
        Failure::Refused => "refused",
        Failure::Unreachable => "unreachable",
        Failure::LostBefore => "lost-before",
        Failure::LostAfter => "lost-after",
        Failure::Setup => "setup",
    }
}

//! The destination `http`: a plain HTTP receiver that is handed the bytes of what a mapping made.
//!
//! Promises: the status decides, and only a status that is expected is a success; the body of a reply is kept, not
//! judged. The content type tells what the bytes are: `application/fhir+json` or, for HL7 v2 in its pipes,
//! `application/hl7-v2+er7` (HL7 over HTTP, hapifhir.github.io/hapi-hl7v2/hapi-hl7overhttp).
//! Left to others: queue, retries, time-outs (engine), connections and TLS (client), headers and token (web).

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use serde::Deserialize;
use tie_engine::{
    connector::{
        Answer, ByteSize, DeliveryError, Destination, ErrorClass, Options, Outbound, Payload, Plugin,
        Receipt, Repeats, Role,
    },
    error::Problem,
    secret::SecretRef,
};

use crate::{
    answers::{self, Answers},
    client::{Reply, ReplyBody},
    web::{self, Web},
};

/// The connector.
pub const PLUGIN: Plugin = Plugin {
    name: "http",
    about: "A plain HTTP receiver: the bytes of what was made, by POST or PUT to one address.",
    source: None,
    destination: Some(Role { example: EXAMPLE, schema: || schemars::schema_for!(HttpOptions), build }),
    answers: TABLES,
};

const EXAMPLE: &str = r#"[destination.pharmacy]
kind = "http"
url = "https://pharmacy.example.nhs.uk/hl7"
method = "POST"                          # or "PUT": then a repeat is held to be safe
content_type = "text/plain"              # instead of the one that tells what the bytes are
expect = [200, 201, 202, 204]            # statuses that mean that it was taken
ca = "/etc/tie/pharmacy-ca.pem"          # trust these roots only; without it, the web's roots
token = { env = "PHARMACY_TOKEN" }       # bearer token; or { file = "…" }, read again when it is not accepted
headers = { "X-Site" = "RXX" }
longest_reply = "1MiB"                   # longest reply that is read
errors = { "409" = "rejected" }          # changes to the table of what an answer means
"#;

/// What only a plain receiver can say, then what HTTP can.
const TABLES: &[&[Answer]] = &[OWN, answers::HTTP];
const OWN: &[Answer] = &[(
    "unexpected",
    ErrorClass::Uncertain,
    "a success (2xx) that is not among `expect`: it may have been taken",
)];

static FHIR: HeaderValue = HeaderValue::from_static("application/fhir+json");
static ER7: HeaderValue = HeaderValue::from_static("application/hl7-v2+er7; charset=utf-8");

/// Options of an `http` destination.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct HttpOptions {
    /// The address, `http` or `https`.
    url: String,
    /// How it is sent. By PUT a repeat replaces what was there; by POST it may be taken twice.
    #[serde(default)]
    method: How,
    /// The content type, instead of the one that tells what the bytes are.
    #[serde(default)]
    content_type: Option<String>,
    /// Statuses that mean that the receiver has taken responsibility.
    #[serde(default = "default_expect")]
    expect: Vec<u16>,
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
    /// Changes to what an answer means: a status (`409`, `5xx`) or a sign, and its class.
    #[serde(default)]
    errors: BTreeMap<String, ErrorClass>,
}

/// The method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum How {
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
}

fn default_expect() -> Vec<u16> {
    vec![200, 201, 202, 204]
}

fn default_longest_reply() -> ByteSize {
    ByteSize(1024 * 1024)
}

struct HttpServer {
    url: Uri,
    how: How,
    content_type: Option<HeaderValue>,
    expect: Vec<u16>,
    web: Web,
    answers: Answers,
}

fn build(options: &Options) -> Result<Arc<dyn Destination>, Vec<Problem>> {
    let HttpOptions { url, method, content_type, expect, ca, token, headers, longest_reply, errors } =
        options.parse()?;
    let mut problems = Vec::new();
    let url = web::address(options, "url", &url, true).map_err(|problem| problems.push(problem));
    let web = Web::new(options, ca, token, headers, longest_reply).map_err(|found| problems.extend(found));
    let answers = Answers::new(TABLES, errors, options).map_err(|found| problems.extend(found));
    let content_type = content_type.map(HeaderValue::try_from).transpose().map_err(|_| {
        problems.push(options.problem_at("content_type", "`content_type` can stand in no header"));
    });
    if expect.is_empty() || expect.iter().any(|status| !(200..300).contains(status)) {
        problems.push(options.problem_at("expect", "`expect` must name statuses from 200 to 299"));
    }
    let (Ok(url), Ok(web), Ok(answers), Ok(content_type), true) =
        (url, web, answers, content_type, problems.is_empty())
    else {
        return Err(problems);
    };
    Ok(Arc::new(HttpServer { url, how: method, content_type, expect, web, answers }))
}

#[async_trait]
impl Destination for HttpServer {
    async fn deliver(&self, outbound: &Outbound) -> Result<Receipt, DeliveryError> {
        let mut request = Request::new(outbound.payload.bytes().clone());
        *request.method_mut() = match self.how {
            How::Post => Method::POST,
            How::Put => Method::PUT,
        };
        *request.uri_mut() = self.url.clone();
        let kind = match &outbound.payload {
            Payload::FhirBundle(_) | Payload::FhirResource { .. } => &FHIR,
            Payload::Hl7(_) => &ER7,
        };
        let kind = self.content_type.as_ref().unwrap_or(kind).clone();
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        let reply =
            self.web.send(request, &outbound.control_id, &outbound.left).await.map_err(|fault| {
                DeliveryError::new(self.answers.of(web::sign(fault.failure)), fault.reason)
            })?;
        self.judge(&reply)
    }

    fn repeats(&self) -> Repeats {
        if self.how == How::Put { Repeats::ChangeNothing } else { Repeats::Harm }
    }
}

impl HttpServer {
    fn judge(&self, reply: &Reply) -> Result<Receipt, DeliveryError> {
        let status = reply.status.as_u16();
        let (body, fault) = match &reply.body {
            ReplyBody::Whole(bytes) => (bytes.clone(), None),
            ReplyBody::Cut => (Bytes::new(), Some(("reply-cut", "the reply was cut short"))),
            ReplyBody::TooLong => (Bytes::new(), Some(("reply-too-long", "the reply is too long"))),
        };
        let detail = Some(body).filter(|bytes| !bytes.is_empty());
        let unexpected = (!self.expect.contains(&status)).then_some(("unexpected", "this is not expected"));
        let error = match (reply.status.is_success(), fault.or(unexpected)) {
            (true, None) => return Ok(Receipt { answer: status.to_string(), detail }),
            (true, Some((sign, what))) => (self.answers.of(sign), format!("{status}, but {what}")),
            (false, _) => (self.answers.of_status(status, None), status.to_string()),
        };
        let (class, reason) = error;
        let retry_after = web::retry_after(&reply.headers);
        Err(DeliveryError { retry_after, detail, ..DeliveryError::new(class, reason) })
    }
}

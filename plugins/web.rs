//! What the destinations that speak HTTP share: address, headers, bearer token, `Retry-After`.
//!
//! Promises: the token is read again when the server does not accept it; no secret is printed; requests are never
//! compressed, since many servers refuse that.
//! Left to others: connections and TLS (client), what an answer means (answers and the connectors).

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, LazyLock, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use jiff::fmt::rfc2822;
use parking_lot::Mutex;
use tie_engine::{
    connector::{ByteSize, Options},
    error::Problem,
    secret::SecretRef,
};

use crate::client::{Client, Failure, Fault, Reply};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static AGENT: LazyLock<HeaderValue> = LazyLock::new(|| {
    HeaderValue::from_str(concat!("tie/", env!("CARGO_PKG_VERSION")))
        .unwrap_or(HeaderValue::from_static("tie"))
});

/// How a server is spoken to.
pub struct Web {
    client: Client,
    token: Option<SecretRef>,
    bearer: Mutex<Option<HeaderValue>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    reply_bytes: usize,
}

impl Web {
    /// Checks the headers. Opens nothing and reads no secret yet.
    pub fn new(
        options: &Options,
        ca: Option<PathBuf>,
        token: Option<SecretRef>,
        headers: BTreeMap<String, String>,
        longest_reply: ByteSize,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut own = Vec::new();
        for (name, value) in headers {
            match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => own.push((name, value)),
                _ => {
                    let what = format!("`{name}` in `headers` is no valid header");
                    problems.push(options.problem_at("headers", what));
                }
            }
        }
        match problems.is_empty() {
            true => Ok(Self {
                client: Client::new(ca),
                token,
                bearer: Mutex::new(None),
                headers: own,
                reply_bytes: usize::try_from(longest_reply.0).unwrap_or(usize::MAX),
            }),
            false => Err(problems),
        }
    }

    /// Sends a request with the headers that all have; once more with another token if there is one by now. Sets `left`
    /// when the body begins to leave.
    pub async fn send(
        &self,
        mut request: Request<Bytes>,
        control_id: &str,
        left: &Arc<AtomicBool>,
    ) -> Result<Reply, Fault> {
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, AGENT.clone());
        if let Some(id) = HeaderValue::from_str(control_id).ok().filter(|id| !id.is_empty()) {
            headers.insert(REQUEST_ID.clone(), id);
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let bearer = self.bearer(false)?;
        let reply = self.with(request.clone(), bearer.clone(), left).await?;
        if reply.status == StatusCode::UNAUTHORIZED && self.token.is_some() {
            // The token may have been renewed where it is kept.
            let renewed = self.bearer(true)?;
            if renewed != bearer {
                return self.with(request, renewed, left).await;
            }
        }
        Ok(reply)
    }

    async fn with(
        &self,
        mut request: Request<Bytes>,
        bearer: Option<HeaderValue>,
        left: &Arc<AtomicBool>,
    ) -> Result<Reply, Fault> {
        if let Some(bearer) = bearer {
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        self.client.send(request, left, self.reply_bytes).await
    }

    /// The `Authorization` header, fetched at first use and when it is to be renewed.
    fn bearer(&self, renew: bool) -> Result<Option<HeaderValue>, Fault> {
        let Some(reference) = &self.token else { return Ok(None) };
        let setup = |reason: String| Fault { failure: Failure::Setup, reason };
        let mut kept = self.bearer.lock();
        if kept.is_none() || renew {
            let secret = reference.fetch().map_err(setup)?;
            let mut value = HeaderValue::try_from(format!("Bearer {}", secret.expose()))
                .map_err(|_| setup("the token has characters that no header can have".to_owned()))?;
            value.set_sensitive(true);
            *kept = Some(value);
        }
        Ok(kept.clone())
    }
}

/// An address that can be sent to, at the key where it stands.
pub fn address(options: &Options, key: &str, text: &str, query: bool) -> Result<Uri, Problem> {
    let sound = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some()
            && (query || uri.query().is_none())
    };
    text.parse::<Uri>().ok().filter(sound).ok_or_else(|| {
        let problem = options.problem_at(key, format!("`{key}` is no http or https address: `{text}`"));
        problem.help("write it like https://record.example.nhs.uk/fhir/R4")
    })
}

/// The sign of a failure in the table of answers.
pub fn sign(failure: Failure) -> &'static str {
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

/// How long the receiver asks us to wait (RFC 9110, 10.2.3): seconds, or a date, which is compared with the
/// receiver's own `Date` so that neither clock needs to be right.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| rfc2822::parse(text).ok().map(|date| date.timestamp());
    let until = date(text)?;
    let now = date(headers.get(header::DATE)?.to_str().ok()?)?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_receivers_own_clock() {
        let wait = |retry: &'static str, date: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(retry));
            if let Some(date) = date {
                headers.insert(header::DATE, HeaderValue::from_static(date));
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("120", None), Some(120));
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:07 GMT", date), Some(30));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT", date), Some(0), "in the past");
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:07 GMT", None), None);
        assert_eq!(wait("soon", date), None);
    }
}

//! The HTTP client that the FHIR and HTTP destinations share: one pooled connection set, TLS, a bounded reply.
//!
//! Promises: says from when on bytes may have reached the receiver; never retries by itself once they may have;
//! reads no more of a reply than allowed; names every failure by a [`Failure`]. TLS by rustls with ring; the
//! trusted roots are the web's, or only those of a given file.
//! Left to others: what a status or a failure means (the destination's table), time-outs (the engine).

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, SizeHint};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::OnceCell;

/// A receiver closes what is idle after some time of its own; what we have closed before cannot be lost on it.
const IDLE: Duration = Duration::from_secs(15);

/// Why there is no whole reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The host name is not known.
    Dns,
    /// The peer's certificate or its TLS is not acceptable, or ours is not to it.
    Tls,
    /// Nobody listens.
    Refused,
    /// No connection for another reason.
    Unreachable,
    /// The connection was lost before any byte of the body had left.
    LostBefore,
    /// The connection was lost after that, without a status.
    LostAfter,
    /// The configuration of the client is at fault, such as an unreadable CA file.
    Setup,
}

/// A failure and its reason, without patient data.
#[derive(Debug)]
pub struct Fault {
    pub failure: Failure,
    pub reason: String,
}

/// A status line, its headers and as much of the body as came.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ReplyBody,
}

/// The body of a reply.
#[derive(Debug)]
pub enum ReplyBody {
    Whole(Bytes),
    /// The connection was lost within the body.
    Cut,
    /// It was longer than allowed.
    TooLong,
}

type Inner = legacy::Client<HttpsConnector<HttpConnector>, Announced>;

/// The client; opens nothing before its first request.
#[derive(Debug)]
pub struct Client {
    ca: Option<PathBuf>,
    inner: OnceCell<Inner>,
}

impl Client {
    /// A client that trusts the roots in the file `ca` only, or the web's roots if there is none.
    pub fn new(ca: Option<PathBuf>) -> Self {
        Self { ca, inner: OnceCell::new() }
    }

    /// Sends a request and reads its reply up to `reply_bytes`; sets `left` when the body begins to leave.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        left: &Arc<AtomicBool>,
        reply_bytes: usize,
    ) -> Result<Reply, Fault> {
        let inner = self
            .inner
            .get_or_try_init(async || build(self.ca.as_deref()))
            .await
            .map_err(|reason| Fault { failure: Failure::Setup, reason })?;
        let attempt = Arc::new(AtomicBool::new(false));
        let request =
            request.map(|bytes| Announced { body: Full::new(bytes), marks: [left.clone(), attempt.clone()] });
        let response = inner
            .request(request)
            .await
            .map_err(|error| fault(&error, error.is_connect(), attempt.load(Ordering::Acquire)))?;
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, reply_bytes).collect().await {
            Ok(whole) => ReplyBody::Whole(whole.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => ReplyBody::TooLong,
            Err(_) => ReplyBody::Cut,
        };
        Ok(Reply { status: head.status, headers: head.headers, body })
    }
}

fn build(ca: Option<&Path>) -> Result<Inner, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match ca {
        None => config.with_webpki_roots(),
        Some(path) => config.with_root_certificates(roots(path)?),
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config.with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector))
}

fn roots(path: &Path) -> Result<rustls::RootCertStore, String> {
    let unreadable = |error: &dyn Error| format!("the CA file {} cannot be read: {error}", path.display());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(format!("the CA file {} has no certificate", path.display()));
    }
    Ok(roots)
}

fn fault(error: &(dyn Error + 'static), connecting: bool, left: bool) -> Fault {
    let chain = causes(error);
    let dns = chain.iter().any(|cause| cause.to_string() == "dns error");
    let tls = chain.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>());
    let kind = chain.iter().find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    let (failure, reason) = match (tls, kind) {
        (Some(tls), _) => (Failure::Tls, format!("TLS: {tls}")),
        _ if dns => (Failure::Dns, "the host name cannot be resolved".to_owned()),
        (None, Some(io::ErrorKind::ConnectionRefused)) if connecting => {
            (Failure::Refused, "connection refused".to_owned())
        }
        (None, kind) if connecting => (Failure::Unreachable, format!("no connection{}", told(kind))),
        (None, kind) if left => {
            (Failure::LostAfter, format!("the connection was lost without an answer{}", told(kind)))
        }
        (None, kind) => {
            (Failure::LostBefore, format!("the connection was lost before sending{}", told(kind)))
        }
    };
    Fault { failure, reason }
}

fn told(kind: Option<io::ErrorKind>) -> String {
    kind.map(|kind| format!(": {kind}")).unwrap_or_default()
}

/// The error and everything beneath it. An I/O error hides what it carries from `source`.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut chain = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        chain.push(error);
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = carried.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    chain
}

/// A body that says when it begins to be sent.
struct Announced {
    body: Full<Bytes>,
    marks: [Arc<AtomicBool>; 2],
}

impl Body for Announced {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        for mark in &self.marks {
            mark.store(true, Ordering::Release);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

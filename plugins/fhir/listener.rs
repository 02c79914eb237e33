//! The FHIR listener: takes FHIR R4 JSON, and HL7 v2, over HTTP/1.1.
//!
//! `POST [base]` takes a transaction or batch, `POST [base]/$process-message` a message Bundle, `POST [base]/[type]` and
//! `PUT [base]/[type]/[id]` a resource. The bytes of the body go to the engine as they came.
//!
//! Promise:  P1, P6, P10. A status of success is sent after the engine has stored the bytes, and by nothing else. Headers
//!           and body have their time, the body its length, all bodies together their memory; whoever comes beyond is
//!           answered, never merely closed. After a stop the request in hand is finished and answered.
//! Decided:  conditional headers (`If-None-Exist`, `If-Match`) and `Prefer` are not looked at: nothing is held here that
//!           they could be about. A repeat is harmless by its identifier and content.
//! Not here: what is stored and why it is refused (engine), TLS (a proxy).

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tie_engine::{
    connector::{Inbox, Notice, Options, Peer, Refusal, Source, SourceError},
    error::Problem,
    fhir::is_fhir,
    secret::SecretRef,
};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    asked::{Asked, asked, speaks_hl7},
    listener_options::ListenerOptions,
    outcome::{self, Answer},
};
use crate::door::{BLOCK_BYTES, Door, Guest, Said, TURN_AWAY, blocks_of, counted, require};

/// Of what is refused the engine is shown this much.
const HEAD_BYTES: usize = 64 * 1024;
/// Room for the headers of a request.
const HEADER_BYTES: usize = 64 * 1024;
/// After a stop, a request in hand has this long to come to its end.
const FINISH: Duration = Duration::from_secs(5);
/// A body that is refused is read on for so long, so that the answer is not lost on a peer that still sends.
const DRAIN: Duration = Duration::from_secs(5);
/// Checks the options.
pub fn build(options: &Options) -> Result<Box<dyn Source>, Vec<Problem>> {
    let parsed: ListenerOptions = options.parse()?;
    let mut problems = Vec::new();
    let ListenerOptions { listen, base, peers, token, longest_message, connections, request_time, memory } =
        parsed;
    let said = Said { peers: &peers, connections, longest_message, memory };
    let door = Door::of(options, &said, &mut problems);
    require(options, &[("request_time", !request_time.0.is_zero())], &mut problems);
    let base = base.trim_end_matches('/').to_owned();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    if !(base.is_empty() || base.starts_with('/')) || !base.bytes().all(plain) {
        problems.push(options.problem_at("base", "`base` is no path such as /fhir"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let shared = Shared { door, base, token, request_time: request_time.0 };
    Ok(Box::new(Listener { listen, shared: Arc::new(shared) }))
}

struct Listener {
    listen: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    door: Door,
    base: String,
    token: Option<SecretRef>,
    request_time: Duration,
}

#[async_trait]
impl Source for Listener {
    async fn run(self: Box<Self>, inbox: Inbox, stop: CancellationToken) -> Result<(), SourceError> {
        let Self { listen, shared } = *self;
        let guest = |socket, address| Arrived {
            socket,
            connection: Connection {
                peer: Peer::from(address),
                shared: shared.clone(),
                inbox: inbox.clone(),
                stop: stop.clone(),
                refusal: None,
            },
        };
        shared.door.open("FHIR", listen, &inbox, &stop, guest).await
    }
}

impl Shared {
    /// Whether the request has the token that is asked for. The comparison takes as long whatever differs.
    fn knows<B>(&self, request: &Request<B>) -> Result<bool, String> {
        let Some(reference) = &self.token else { return Ok(true) };
        let secret = reference.fetch()?;
        let sent =
            request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let Some((scheme, token)) = sent.split_at_checked(7) else { return Ok(false) };
        let wanted = secret.expose().as_bytes();
        let differs = token.iter().zip(wanted).fold(0, |all, (one, other)| all | (one ^ other));
        Ok(scheme.eq_ignore_ascii_case(b"bearer ") && token.len() == wanted.len() && differs == 0)
    }
}

struct Connection {
    peer: Peer,
    shared: Arc<Shared>,
    inbox: Inbox,
    stop: CancellationToken,
    /// Why it is turned away.
    refusal: Option<Refusal>,
}

/// A connection that nothing has been read of.
struct Arrived {
    socket: TcpStream,
    connection: Connection,
}

/// Why there is no whole body: what the engine is told, and the beginning.
struct NoBody {
    refusal: Refusal,
    head: Bytes,
}

impl Guest for Arrived {
    async fn serve(self) {
        let inbox = self.connection.inbox.clone();
        inbox.notice(Notice::Connected);
        self.connection.converse(self.socket).await;
        inbox.notice(Notice::Disconnected);
    }

    async fn turn_away(self, refusal: Refusal) {
        let connection = Connection { refusal: Some(refusal), ..self.connection };
        let _ = timeout(TURN_AWAY, connection.converse(self.socket)).await;
    }
}

impl Connection {
    async fn converse(self, socket: TcpStream) {
        let stop = self.stop.clone();
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // Some clients end their side once they have sent all: they are answered all the same.
            .half_close(true)
            .header_read_timeout(self.shared.request_time)
            .max_buf_size(HEADER_BYTES);
        let own = &self;
        let service = service_fn(async move |request| Ok::<_, Infallible>(own.answer(request).await));
        let mut conversation = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
        tokio::select! {
            // A peer that goes away, or sends no HTTP, has had its answer from the protocol.
            _ = conversation.as_mut() => return,
            () = stop.cancelled() => conversation.as_mut().graceful_shutdown(),
        }
        let _ = timeout(FINISH, conversation).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let close = self.refusal.is_some() || self.stop.is_cancelled();
        let mut answer = self.decide(request).await;
        if close || matches!(answer.status().as_u16(), 408 | 413) {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn decide(&self, request: Request<Incoming>) -> Answer {
        if let Some(refusal) = self.refusal {
            let reason = self.inbox.refuse(Bytes::new(), refusal, &self.peer).await.reason;
            return outcome::say(status(refusal), &reason, None);
        }
        match self.shared.knows(&request) {
            Ok(true) => {}
            Ok(false) => {
                let why = "a bearer token is asked for, and this is not it";
                let mut answer = outcome::say(StatusCode::UNAUTHORIZED, why, None);
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return answer;
            }
            Err(error) => {
                tracing::error!(%error, "the token of a listener cannot be read: nothing is taken");
                return outcome::say(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the token cannot be looked at, send again",
                    None,
                );
            }
        }
        let path = request.uri().path();
        let asked = match asked(request.method(), path, &self.shared.base, request.headers()) {
            Ok(Asked::Capabilities) => return outcome::capabilities(),
            Ok(asked) => asked,
            Err(not) => {
                let mut answer = outcome::say(not.status, not.why, None);
                if let Some(allow) = not.allow {
                    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
                }
                return answer;
            }
        };
        let hl7 = speaks_hl7(request.headers());
        let body = self.body(request.into_body()).await.and_then(|raw| match is_fhir(&raw) == hl7 {
            true => {
                let taken = if hl7 { "HL7 v2" } else { "FHIR as JSON" };
                Err(NoBody {
                    refusal: Refusal::OtherFormat { taken },
                    head: raw.slice(..raw.len().min(HEAD_BYTES)),
                })
            }
            false => Ok(raw),
        });
        match body {
            Ok(raw) => self.take(raw, &asked).await,
            Err(NoBody { refusal, head }) => {
                let reply = self.inbox.refuse(head, refusal, &self.peer).await;
                match hl7 {
                    true => outcome::of_hl7(reply),
                    false => outcome::say(status(refusal), &reply.reason, None),
                }
            }
        }
    }

    /// Hands in what is whole.
    async fn take(&self, raw: Bytes, asked: &Asked) -> Answer {
        if let Some((place, why)) = asked.mismatch(&raw) {
            return outcome::say(StatusCode::BAD_REQUEST, why, Some(place));
        }
        match self.inbox.accept(raw, &self.peer).await {
            Ok(reply) if *asked == Asked::Hl7 => outcome::of_hl7(reply),
            Ok(reply) => outcome::of_reply(&reply),
            // Nothing can be acknowledged any more: the sender keeps the message.
            Err(closed) => outcome::say(StatusCode::SERVICE_UNAVAILABLE, &closed.to_string(), None),
        }
    }

    /// Reads the body within its time, its length and the memory for it.
    async fn body(&self, mut body: Incoming) -> Result<Bytes, NoBody> {
        let stated =
            hyper::body::Body::size_hint(&body).exact().and_then(|length| usize::try_from(length).ok());
        let mut read = BytesMut::new();
        let mut blocks = None;
        if stated.is_some_and(|length| length > self.shared.door.longest) {
            return Err(self.too_large(body, read).await);
        }
        let waited = self.shared.request_time;
        let incomplete =
            |read: BytesMut| NoBody { refusal: Refusal::Incomplete { waited }, head: head(read) };
        let whole = timeout(waited, async {
            loop {
                if blocks.is_none() && stated.unwrap_or(read.len()) >= BLOCK_BYTES {
                    // For all of it at once: by pieces, several could have each a part and wait for the rest.
                    let wanted = blocks_of(stated.unwrap_or(self.shared.door.longest));
                    blocks = Some(self.memory(wanted).await?);
                }
                let data = match body.frame().await {
                    None => return Ok(true),
                    Some(Err(_)) => return Err(Refusal::Incomplete { waited }),
                    Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                };
                if read.len() + data.len() > self.shared.door.longest {
                    return Ok(false);
                }
                read.extend_from_slice(&data);
            }
        });
        match whole.await {
            Ok(Ok(true)) => {
                let raw = read.freeze();
                Ok(blocks.map_or_else(|| raw.clone(), |blocks| counted(raw.clone(), blocks)))
            }
            Ok(Ok(false)) => Err(self.too_large(body, read).await),
            Ok(Err(refusal)) => Err(NoBody { refusal, head: head(read) }),
            Err(_) => Err(incomplete(read)),
        }
    }

    async fn memory(&self, blocks: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let wanted = u32::try_from(blocks).unwrap_or(u32::MAX);
        let free = self.shared.door.memory.clone().acquire_many_owned(wanted);
        // Half of the time, so that who finds none is told so, and not that he was slow.
        timeout(self.shared.request_time / 2, free).await.ok().and_then(Result::ok).ok_or(Refusal::Busy)
    }

    /// Reads on for a moment and keeps nothing but the beginning.
    async fn too_large(&self, mut body: Incoming, mut read: BytesMut) -> NoBody {
        let _ = timeout(DRAIN, async {
            while let Some(Ok(frame)) = body.frame().await {
                let data = frame.into_data().unwrap_or_default();
                let room = HEAD_BYTES.saturating_sub(read.len()).min(data.len());
                read.extend_from_slice(data.get(..room).unwrap_or_default());
            }
        })
        .await;
        NoBody { refusal: Refusal::TooLarge { limit_bytes: self.shared.door.longest }, head: head(read) }
    }
}

fn head(read: BytesMut) -> Bytes {
    let mut read = read;
    read.truncate(HEAD_BYTES);
    read.freeze()
}

fn status(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Incomplete { .. } => StatusCode::REQUEST_TIMEOUT,
        Refusal::NotFramed | Refusal::OtherFormat { .. } => StatusCode::BAD_REQUEST,
        Refusal::Busy | Refusal::TooManyConnections { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::PeerNotAllowed => StatusCode::FORBIDDEN,
    }
}

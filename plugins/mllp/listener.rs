//! The MLLP listener: takes frames from many connections and answers each in turn.
//!
//! Promise:  on one connection messages are handed in and answered in the order in which they came, each answer in
//!           one write. While a message is being made durable its connection is not read: the sender waits (P6). The
//!           memory that a long message is counted with is free again when nobody holds its bytes any more.
//!           Whatever cannot become a message is answered with the engine's refusal before the connection closes.
//!           After a stop the frame in hand is finished and answered (P10).
//! Not here: what the answer says (intake), what a frame is (`hl7::framing`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tie_engine::{
    connector::{Inbox, Notice, Options, Peer, Refusal, Source, SourceError},
    error::Problem,
    fhir::is_fhir,
    hl7::framing::{self, Found, Scanner},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::listener_options::ListenerOptions;
use crate::door::{BLOCK_BYTES, Door, Guest, Said, TURN_AWAY, blocks_of, counted, require};

/// What is read at once.
const READ_BYTES: usize = 16 * 1024;
/// After a stop, a frame in hand has this long to come to its end.
const FINISH: Duration = Duration::from_secs(5);
/// After the last answer, what the peer has still sent is read for so long: closing on it would cost the answer.
const LINGER: Duration = Duration::from_secs(1);

/// Checks the options.
pub fn build(options: &Options) -> Result<Box<dyn Source>, Vec<Problem>> {
    let parsed: ListenerOptions = options.parse()?;
    let mut problems = Vec::new();
    let ListenerOptions { listen, peers, longest_message, connections, idle, frame_time, memory } = parsed;
    let said = Said { peers: &peers, connections, longest_message, memory };
    let door = Door::of(options, &said, &mut problems);
    require(options, &[("idle", !idle.0.is_zero()), ("frame_time", !frame_time.0.is_zero())], &mut problems);
    match problems.is_empty() {
        true => {
            let whole = u32::try_from(blocks_of(door.longest)).unwrap_or(u32::MAX);
            let shared = Shared { door, idle: idle.0, frame_time: frame_time.0, whole };
            Ok(Box::new(Listener { listen, shared: Arc::new(shared) }))
        }
        false => Err(problems),
    }
}

struct Listener {
    listen: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    door: Door,
    idle: Duration,
    frame_time: Duration,
    /// Blocks for one message of the longest size.
    whole: u32,
}

#[async_trait]
impl Source for Listener {
    async fn run(self: Box<Self>, inbox: Inbox, stop: CancellationToken) -> Result<(), SourceError> {
        let Self { listen, shared } = *self;
        let guest =
            |socket, address| Connection::new(socket, address, shared.clone(), inbox.clone(), stop.clone());
        shared.door.open("MLLP", listen, &inbox, &stop, guest).await
    }
}

struct Connection {
    socket: TcpStream,
    peer: Peer,
    shared: Arc<Shared>,
    inbox: Inbox,
    stop: CancellationToken,
    scanner: Scanner,
    buffer: BytesMut,
    /// When the frame in hand began.
    began: Option<Instant>,
    /// Blocks of the memory budget that the buffer holds.
    blocks: Option<OwnedSemaphorePermit>,
    /// Others have the memory that it needs.
    waits_for_blocks: bool,
    /// A message has come in a frame.
    framed: bool,
    /// The beginning of what came outside any frame and is no mere filling.
    unframed: Option<Bytes>,
}

/// Why a connection ends.
enum End {
    /// By the peer, or it is idle, or a stop; nothing is owed.
    Closed,
    /// The peer is owed a last look at our answer.
    Refused,
}

impl Guest for Connection {
    async fn serve(mut self) {
        self.inbox.notice(Notice::Connected);
        if let End::Refused = self.converse().await {
            self.linger().await;
        }
        self.inbox.notice(Notice::Disconnected);
    }

    /// Answers a connection that is not served. Its first frame is awaited for a moment, so that the answer can
    /// name its message.
    async fn turn_away(mut self, refusal: Refusal) {
        let patience = Instant::now() + TURN_AWAY;
        let mut head = Bytes::new();
        while head.is_empty() && self.buffer.len() < READ_BYTES {
            let more = tokio::select! {
                read = self.socket.read_buf(&mut self.buffer) => read.unwrap_or(0),
                () = sleep_until(patience) => 0,
            };
            match self.scanner.scan(&mut self.buffer) {
                Some(Found::Message(found)) => head = found,
                Some(Found::TooLarge { head: found } | Found::Cut { head: found }) => head = found,
                Some(Found::Junk { .. }) | None => {}
            }
            if more == 0 {
                break;
            }
        }
        if head.is_empty() {
            head = self.scanner.head(&self.buffer);
        }
        self.refuse(head, refusal).await;
        self.linger().await;
    }
}

impl Connection {
    fn new(
        socket: TcpStream,
        address: SocketAddr,
        shared: Arc<Shared>,
        inbox: Inbox,
        stop: CancellationToken,
    ) -> Self {
        Self {
            socket,
            peer: Peer::from(address),
            scanner: Scanner::new(shared.door.longest),
            shared,
            inbox,
            stop,
            buffer: BytesMut::new(),
            began: None,
            blocks: None,
            waits_for_blocks: false,
            framed: false,
            unframed: None,
        }
    }

    async fn converse(&mut self) -> End {
        let stop = self.stop.clone();
        let mut last_byte = Instant::now();
        let mut finish = None;
        loop {
            if stop.is_cancelled() {
                if !self.scanner.in_frame() {
                    return End::Closed;
                }
                finish.get_or_insert_with(|| Instant::now() + FINISH);
            }
            let patience = match self.began {
                Some(began) => began + self.shared.frame_time,
                None => last_byte + self.shared.idle,
            };
            let read = tokio::select! {
                biased;
                read = self.read() => read,
                () = sleep_until(finish.map_or(patience, |finish| finish.min(patience))) => return self.give_up().await,
                () = stop.cancelled(), if finish.is_none() => continue,
            };
            match read {
                Ok(true) => last_byte = Instant::now(),
                Ok(false) | Err(_) => return self.give_up().await,
            }
            if let Some(end) = self.take_frames().await {
                return end;
            }
        }
    }

    /// Reads some bytes, or gets the memory for them; false at the end of the stream.
    async fn read(&mut self) -> std::io::Result<bool> {
        if self.blocks.is_none() && self.buffer.len() + READ_BYTES > BLOCK_BYTES {
            let since = Instant::now();
            self.waits_for_blocks = true;
            // For the longest message at once: by pieces, several could have each a part and wait for the rest.
            self.blocks = self.shared.door.memory.clone().acquire_many_owned(self.shared.whole).await.ok();
            self.waits_for_blocks = false;
            // To wait was no fault of the peer's: it has as much time for the rest as it had before.
            self.began = self.began.map(|began| began + since.elapsed());
            return Ok(self.blocks.is_some());
        }
        self.buffer.reserve(READ_BYTES);
        Ok(self.socket.read_buf(&mut self.buffer).await? > 0)
    }

    /// Hands in and answers what is whole by now.
    async fn take_frames(&mut self) -> Option<End> {
        let mut is_first = true;
        while let Some(found) = self.scanner.scan(&mut self.buffer) {
            // Who sends many at once leaves others their turn between two, however quickly each is answered.
            if !std::mem::take(&mut is_first) {
                tokio::task::yield_now().await;
            }
            let answered = match found {
                Found::Message(raw) if is_fhir(&raw) => {
                    (self.framed, self.began) = (true, None);
                    self.refuse(raw, Refusal::OtherFormat { taken: "HL7 v2" }).await
                }
                Found::Message(raw) => {
                    self.framed = true;
                    self.began = None;
                    let raw = self.with_its_blocks(raw);
                    match self.inbox.accept(raw, &self.peer).await {
                        Ok(reply) => self.answer(reply.acknowledgement).await,
                        // Nothing can be acknowledged any more: the sender keeps the message.
                        Err(_) => return Some(End::Closed),
                    }
                }
                Found::TooLarge { head } => {
                    self.refuse(head, Refusal::TooLarge { limit_bytes: self.shared.door.longest }).await
                }
                Found::Cut { head } => {
                    let waited = self.began.take().map(|began| began.elapsed()).unwrap_or_default();
                    self.refuse(head, Refusal::Incomplete { waited }).await
                }
                Found::Junk { bytes, head } => self.pass_over(bytes, head).await,
            };
            if !answered {
                return Some(End::Closed);
            }
        }
        match (self.scanner.in_frame(), self.began) {
            (true, None) => self.began = Some(Instant::now()),
            (false, Some(_)) => self.began = None,
            (true, Some(_)) | (false, None) => {}
        }
        if self.buffer.is_empty() || (self.blocks.is_some() && self.buffer.len() + READ_BYTES <= BLOCK_BYTES)
        {
            // Big buffers are not kept for the next message, not even by a sender that never pauses.
            self.blocks = None;
            self.buffer = BytesMut::from(&*self.buffer);
        }
        None
    }

    /// Lets the blocks go with the bytes that they are for, unless what came behind them needs some too.
    fn with_its_blocks(&mut self, raw: Bytes) -> Bytes {
        if self.buffer.len() + READ_BYTES > BLOCK_BYTES {
            return raw;
        }
        let Some(blocks) = self.blocks.take() else { return raw };
        // It would keep the memory of what was read before.
        self.buffer = BytesMut::from(&*self.buffer);
        counted(raw, blocks)
    }

    async fn pass_over(&mut self, bytes: usize, head: Bytes) -> bool {
        self.inbox.notice(Notice::Junk { bytes });
        let filling = head.iter().all(|byte| matches!(byte, 0 | b'\r' | b'\n' | b' '));
        if filling {
            return true;
        }
        let text = head.trim_ascii_start();
        if [b"MSH", b"FHS", b"BHS"].iter().any(|name| text.starts_with(*name)) {
            // A sender that knows no frames waits for an answer: it gets one at once.
            return self.refuse(head, Refusal::NotFramed).await;
        }
        self.unframed.get_or_insert(head);
        true
    }

    /// The peer has closed, or its time is up: what it has begun is answered, so that nothing ends in silence.
    async fn give_up(&mut self) -> End {
        if let Some(began) = self.began {
            let head = self.scanner.head(&self.buffer);
            // The head of what was too large has been answered.
            if !head.is_empty() {
                let refusal = match self.waits_for_blocks {
                    true => Refusal::Busy,
                    false => Refusal::Incomplete { waited: began.elapsed() },
                };
                self.refuse(head, refusal).await;
            }
            return End::Refused;
        }
        match self.unframed.take() {
            Some(head) if !self.framed => {
                self.refuse(head, Refusal::NotFramed).await;
                End::Refused
            }
            Some(_) | None => End::Closed,
        }
    }

    async fn refuse(&mut self, head: Bytes, refusal: Refusal) -> bool {
        let reply = self.inbox.refuse(head, refusal, &self.peer).await;
        self.answer(reply.acknowledgement).await
    }

    /// Sends an answer in one write; false if the peer does not take it.
    async fn answer(&mut self, answer: Option<Bytes>) -> bool {
        let Some(answer) = answer else { return true };
        match framing::frame(&answer) {
            Ok(framed) => {
                let stop = self.stop.clone();
                tokio::select! {
                    biased;
                    written = timeout(self.shared.frame_time, self.socket.write_all(&framed)) => {
                        matches!(written, Ok(Ok(())))
                    }
                    // A peer that takes no answer must not hold up a stop.
                    () = async { stop.cancelled().await; sleep(FINISH).await } => false,
                }
            }
            Err(error) => {
                tracing::error!(%error, "an acknowledgement cannot be framed");
                false
            }
        }
    }

    async fn linger(&mut self) {
        if self.socket.shutdown().await.is_err() {
            return;
        }
        let patience = Instant::now() + LINGER;
        let mut scratch = BytesMut::with_capacity(READ_BYTES);
        loop {
            scratch.clear();
            let more = tokio::select! {
                read = self.socket.read_buf(&mut scratch) => read.unwrap_or(0),
                () = sleep_until(patience) => 0,
            };
            if more == 0 {
                return;
            }
        }
    }
}

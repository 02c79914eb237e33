//! The door of a listener: serves as many connections as it may, turns the others away with an answer, and shares one
//! memory budget among the messages that come in.
//!
//! Promise:  P6, P10. Whoever is not served is told so, a bounded number at a time; after a stop nobody new comes in, and
//!           those who are in end by themselves.
//! Not here: what is spoken (each listener), who may come (peers).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tie_engine::{
    connector::{ByteSize, Inbox, Notice, Options, Refusal, SourceError},
    error::Problem,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::peers::Peers;

/// The memory budget is counted in these; a message shorter than one takes nothing of it.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// What the system holds for a peer that takes no answers, before the peer is held back. Left to itself it would hold
/// megabytes, fifty thousand answers, for each connection.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;
/// Connections that wait to be taken.
const WAITING_CONNECTIONS: u32 = 1024;
/// How long a connection that is turned away may take.
pub const TURN_AWAY: Duration = Duration::from_secs(2);
/// So many at the same time are turned away with an answer; more are closed.
const TURN_AWAY_AT_ONCE: usize = 64;

/// Who may come in, and how much of it.
pub struct Door {
    peers: Peers,
    connections: usize,
    /// The longest message, in bytes.
    pub longest: usize,
    /// For messages being read and stored, in blocks, over all connections.
    pub memory: Arc<Semaphore>,
}

/// A connection that is served or turned away.
pub trait Guest: Send + 'static {
    /// Takes its messages until it ends.
    fn serve(self) -> impl Future<Output = ()> + Send;
    /// Tells it why it is not served.
    fn turn_away(self, refusal: Refusal) -> impl Future<Output = ()> + Send;
}

/// What the options of every listener say of its door.
pub struct Said<'a> {
    pub peers: &'a [String],
    pub connections: usize,
    pub longest_message: ByteSize,
    pub memory: ByteSize,
}

impl Door {
    /// Checks the options; what is wrong is added to the problems.
    pub fn of(options: &Options, said: &Said<'_>, problems: &mut Vec<Problem>) -> Self {
        let peers = Peers::parse(said.peers).unwrap_or_else(|bad| {
            problems.extend(bad.into_iter().map(|text| {
                options
                    .problem_at("peers", format!("`{text}` is neither an address nor a network"))
                    .help("write 192.0.2.7 or 10.1.0.0/16")
            }));
            Peers::default()
        });
        let longest = usize::try_from(said.longest_message.0).unwrap_or(usize::MAX);
        let blocks = usize::try_from(said.memory.0).unwrap_or(usize::MAX) / BLOCK_BYTES;
        require(
            options,
            &[("longest_message", longest >= 1024), ("connections", said.connections > 0)],
            problems,
        );
        if blocks < blocks_of(longest) {
            let what = "`memory` does not suffice for one message of `longest_message`";
            problems.push(options.problem_at("memory", what));
        }
        let memory = Arc::new(Semaphore::new(blocks.min(Semaphore::MAX_PERMITS)));
        Self { peers, connections: said.connections, longest, memory }
    }

    /// Takes connections for `what` until the stop, and waits for those that are served.
    pub async fn open<G: Guest>(
        &self,
        what: &str,
        listen: SocketAddr,
        inbox: &Inbox,
        stop: &CancellationToken,
        guest: impl Fn(TcpStream, SocketAddr) -> G,
    ) -> Result<(), SourceError> {
        let listener =
            bind(listen).map_err(|error| SourceError(format!("cannot listen at {listen}: {error}")))?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "listening for {what}");
        }
        inbox.notice(Notice::Serving);
        let (mut served, mut turned_away) = (JoinSet::new(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = served.join_next() => continue,
                Some(_) = turned_away.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Such as too many open files: others must close first.
                    tracing::warn!(%error, "cannot take a connection");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // A small answer must not wait for more to send.
            let _ = socket.set_nodelay(true);
            let guest = guest(socket, address);
            match self.refusal(address, served.len()) {
                None => drop(served.spawn(guest.serve())),
                Some(refusal) if turned_away.len() < TURN_AWAY_AT_ONCE => {
                    turned_away.spawn(guest.turn_away(refusal));
                }
                Some(_) => {}
            }
        }
        drop(listener);
        while served.join_next().await.is_some() {}
        Ok(())
    }

    fn refusal(&self, address: SocketAddr, served: usize) -> Option<Refusal> {
        if !self.peers.allow(address.ip()) {
            return Some(Refusal::PeerNotAllowed);
        }
        (served >= self.connections).then_some(Refusal::TooManyConnections { limit: self.connections })
    }
}

/// Tells which keys are too small.
pub fn require(options: &Options, keys: &[(&str, bool)], problems: &mut Vec<Problem>) {
    for (key, _) in keys.iter().filter(|(_, good)| !good) {
        problems.push(options.problem_at(key, format!("`{key}` is too small")));
    }
}

/// The blocks that a message of so many bytes takes.
pub fn blocks_of(bytes: usize) -> usize {
    bytes / BLOCK_BYTES + 1
}

/// A message with the blocks of the memory budget that it takes: they are free again when the last of it is dropped.
pub fn counted(raw: Bytes, blocks: OwnedSemaphorePermit) -> Bytes {
    struct Counted {
        raw: Bytes,
        _blocks: OwnedSemaphorePermit, // held for its drop alone
    }
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.raw
        }
    }
    Bytes::from_owner(Counted { raw, _blocks: blocks })
}

pub fn default_longest_message() -> ByteSize {
    ByteSize(16 * 1024 * 1024)
}

pub fn default_connections() -> usize {
    256
}

pub fn default_memory() -> ByteSize {
    ByteSize(256 * 1024 * 1024)
}

fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Another process may have left the address a moment ago.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(listen)?;
    socket.listen(WAITING_CONNECTIONS)
}

//! The connections of an MLLP destination: opened, kept for the next message, and closed in order.
//!
//! Promise:  a spare connection is used again only if its peer has neither closed it nor said anything since, and if it
//!           was not idle for too long: what stands between may have dropped it, and nobody would tell. The system
//!           itself asks after an idle peer (TCP keepalive), so that most such places keep the connection, and one that
//!           has died is noticed before a message is sent on it.
//! Not here: what is sent and answered on a connection (sender).

use std::{io, mem::MaybeUninit, time::Duration};

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

/// The peer of an idle connection is asked after so long, below the limit of the strictest firewalls and balancers
/// (four minutes), then at this pace, and is given up after so many questions: within two minutes in all.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_PACE: Duration = Duration::from_secs(10);
const KEEPALIVE_QUESTIONS: u32 = 6;

/// After we have closed, the peer has this long to close too.
const PARTING: Duration = Duration::from_millis(300);

/// Why there is no connection: a sign of the table, and the reason.
pub type Unreachable = (&'static str, String);

/// The connections to one address.
pub struct Connections {
    address: String,
    /// One that was not used for so long is not used again.
    idle: Duration,
    /// Those whose last exchange ended in order, and since when.
    spare: Mutex<Vec<(TcpStream, Instant)>>,
}

impl Connections {
    /// Opens nothing.
    pub fn new(address: String, idle: Duration) -> Self {
        Self { address, idle, spare: Mutex::new(Vec::new()) }
    }

    /// A connection on which nothing is waiting: one that was used before, or a new one.
    pub async fn take(&self) -> Result<TcpStream, Unreachable> {
        loop {
            let Some((socket, since)) = self.spare.lock().pop() else { break };
            if is_silent(&socket) && since.elapsed() < self.idle {
                return Ok(socket);
            }
            // A receiver that serves one connection at a time must be rid of it before it takes another.
            part(socket).await;
        }
        self.open().await
    }

    /// Keeps a connection for the next message.
    pub fn keep(&self, socket: TcpStream) {
        self.spare.lock().push((socket, Instant::now()));
    }

    async fn open(&self) -> Result<TcpStream, Unreachable> {
        let mut addresses = tokio::net::lookup_host(&self.address)
            .await
            .map_err(|_| ("dns", "the host name cannot be resolved".to_owned()))?
            .peekable();
        if addresses.peek().is_none() {
            return Err(("dns", "the host name has no address".to_owned()));
        }
        let mut failed = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(socket) => {
                    set_up(&socket);
                    return Ok(socket);
                }
                Err(error) => failed = Some(error),
            }
        }
        let kind = failed.map_or(io::ErrorKind::Other, |error| error.kind());
        let sign = if kind == io::ErrorKind::ConnectionRefused { "refused" } else { "unreachable" };
        Err((sign, kind.to_string()))
    }
}

/// A connection works without these too, so that a failure of theirs is none.
fn set_up(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_PACE)
        .with_retries(KEEPALIVE_QUESTIONS);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// Whether the peer has neither closed nor said anything that was not read. Asks the system itself: tokio knows of it
/// only when its driver has run since.
pub fn is_silent(socket: &TcpStream) -> bool {
    let waiting = SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    matches!(waiting, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Closes a connection and waits a moment for the peer to close it too. False if it says something before.
pub async fn part(mut socket: TcpStream) -> bool {
    let silent = async {
        // Lost is closed.
        if socket.shutdown().await.is_err() {
            return true;
        }
        let mut said = [0; 64];
        loop {
            let bytes = socket.read(&mut said).await.unwrap_or(0);
            if bytes == 0 {
                return true;
            }
            // The end of the last frame may come in pieces.
            if said.iter().take(bytes).any(|byte| !matches!(byte, 0 | b'\r' | b'\n')) {
                return false;
            }
        }
    };
    timeout(PARTING, silent).await.unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(idle: Duration) -> (Connections, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (Connections::new(listener.local_addr().unwrap().to_string(), idle), listener)
    }

    #[tokio::test]
    async fn the_system_asks_after_an_idle_peer() {
        let (connections, _listener) = pair(Duration::MAX).await;
        let socket = connections.take().await.unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_PACE);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_QUESTIONS);
    }

    #[tokio::test]
    async fn a_connection_that_was_idle_for_too_long_is_closed_before_another_is_opened() {
        let (connections, listener) = pair(Duration::from_secs(180)).await;
        let first = connections.take().await.unwrap();
        let (mut peer, address) = listener.accept().await.unwrap();
        let of = |socket: &TcpStream| socket.local_addr().unwrap();
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        connections.spare.lock().push((first, ago(100)));
        let again = connections.take().await.unwrap();
        assert_eq!(of(&again), address, "not yet");
        connections.spare.lock().push((again, ago(180)));
        let (fresh, end) = tokio::join!(connections.take(), async {
            let mut byte = [0; 1];
            let end = timeout(Duration::from_secs(20), peer.read(&mut byte)).await.unwrap().unwrap();
            drop(peer);
            end
        });
        assert_eq!(end, 0, "the old one is closed");
        assert_ne!(of(&fresh.unwrap()), address);
    }

    /// Though tokio's driver has not run since.
    #[tokio::test]
    async fn that_the_peer_has_closed_is_known_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connections = Connections::new(listener.local_addr().unwrap().to_string(), Duration::MAX);
        let socket = connections.take().await.unwrap();
        let (peer, _) = listener.accept().unwrap();
        assert!(is_silent(&socket));
        drop(peer);
        assert!(!is_silent(&socket));
    }

    #[tokio::test]
    async fn what_comes_while_a_connection_is_closed_is_told_and_the_end_of_a_frame_is_not() {
        for (said, silent) in [(&b""[..], true), (b"\r", true), (b"\x0BMSH|", false)] {
            let (connections, listener) = pair(Duration::MAX).await;
            let socket = connections.take().await.unwrap();
            let (mut peer, _) = listener.accept().await.unwrap();
            peer.write_all(said).await.unwrap();
            drop(peer);
            assert_eq!(part(socket).await, silent, "{said:?}");
        }
    }
}

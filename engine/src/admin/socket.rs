//! The admin listener's sockets: so many at once and no more, and none that is silent for long.
//!
//! Promise: nobody is shut out. When every place is taken, a new connection gets the place of the one that has gone
//! longest without an answer: a peer that holds its connections open, or sends a request byte by byte, loses them
//! one after the other to whoever asks something.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections at once.
pub(super) const CONNECTIONS: usize = 64;
/// A connection that sends nothing for this long is closed; longer than a usual scrape interval.
const SILENCE: Duration = Duration::from_secs(75);

/// A listener that serves so many connections at once.
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Places>,
}

/// A connection that counts while it lives, does not outlive its silence and gives up its place when told.
pub(super) struct Guarded {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
    number: u64,
    places: Arc<Places>,
}

#[derive(Default)]
struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    last: u64,
    places: BTreeMap<u64, Place>,
}

struct Place {
    /// When it was last sent something, or came.
    answered: Instant,
    evict: CancellationToken,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::default() }
    }
}

impl Listener for Bounded {
    type Io = Guarded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guarded, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let (number, evict) = self.places.take();
        let guarded = Guarded {
            stream,
            silence: Box::pin(sleep(SILENCE)),
            evicted: Box::pin(evict.cancelled_owned()),
            number,
            places: self.places.clone(),
        };
        (guarded, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Places {
    /// A place for a new connection: a free one, or that of the connection without an answer for the longest time.
    fn take(&self) -> (u64, CancellationToken) {
        let mut taken = self.0.lock();
        let longest = taken.places.iter().min_by_key(|(_, place)| place.answered).map(|(number, _)| *number);
        if taken.places.len() >= CONNECTIONS
            && let Some(place) = longest.and_then(|number| taken.places.remove(&number))
        {
            place.evict.cancel();
        }
        taken.last += 1;
        let (number, evict) = (taken.last, CancellationToken::new());
        taken.places.insert(number, Place { answered: Instant::now(), evict: evict.clone() });
        (number, evict)
    }

    fn answered(&self, number: u64) {
        if let Some(place) = self.0.lock().places.get_mut(&number) {
            place.answered = Instant::now();
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.places.0.lock().places.remove(&self.number);
    }
}

impl Guarded {
    /// What a pending read or write becomes when the connection has lost its place.
    fn unless_evicted<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.evicted.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                self.silence.as_mut().reset(Instant::now() + SILENCE);
                Poll::Ready(read)
            }
            Poll::Pending if self.silence.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => self.unless_evicted(cx),
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                self.places.answered(self.number);
                Poll::Ready(written)
            }
            Poll::Pending => self.unless_evicted(cx),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

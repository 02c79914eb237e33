//! As much of HTTP/1.1 as the receiver and the client that drives it need: requests and answers with a `Content-Length`.
//!
//! A server library would take a good part of the two cores that the engine is measured on.

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// The longest message that is read.
const LONGEST: usize = 256 << 20;
/// The longest head.
const HEAD: usize = 64 << 10;

/// A connection and what was read from it beyond the last message.
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    buffer: BytesMut,
}

/// A request or an answer.
pub(super) struct Read {
    head: Bytes,
    /// The body.
    pub body: Bytes,
}

impl Stream {
    /// Over a connection.
    pub(super) fn new(socket: TcpStream) -> std::io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: BytesMut::with_capacity(64 << 10) })
    }

    /// Reads the next message; none when the other side has ended.
    pub(super) async fn read(&mut self) -> std::io::Result<Option<Read>> {
        let (mut needed, mut head) = (0, None);
        loop {
            if head.is_none() {
                head = head_end(&self.buffer);
                let length = head.and_then(|end| length(self.buffer.get(..end)?));
                needed = head.unwrap_or(0) + length.unwrap_or(0);
            }
            if needed > LONGEST || (head.is_none() && self.buffer.len() > HEAD) {
                return Err(std::io::Error::other("that is no HTTP message for the bench"));
            }
            if let Some(end) = head.filter(|_| self.buffer.len() >= needed) {
                let mut whole = self.buffer.split_to(needed).freeze();
                let head = whole.split_to(end);
                return Ok(Some(Read { head, body: whole }));
            }
            self.buffer.reserve(needed.saturating_sub(self.buffer.len()).max(16 << 10));
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

impl Read {
    /// The method and the path of a request; or version and status of an answer.
    pub(super) fn first(&self) -> (&[u8], &[u8]) {
        let mut words = self.head.split(|byte| *byte == b' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// A header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&[u8]> {
        header(&self.head, name)
    }

    /// Whether the connection ends with this.
    pub(super) fn is_last(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes.chunk(), b"\r\n\r\n").map(|at| at + 4)
}

fn length(head: &[u8]) -> Option<usize> {
    std::str::from_utf8(header(head, "content-length")?).ok()?.parse().ok()
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name.as_bytes()))?;
        Some(value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut stream = Stream::new(listener.accept().await.unwrap().0).unwrap();
        let text = "POST /1/fhir HTTP/1.1\r\nX-Request-ID: A1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nconnection: Close\r\n\r\n";
        tokio::spawn(async move {
            for byte in text.bytes() {
                sender.write_all(&[byte]).await.unwrap();
            }
        });
        let first = stream.read().await.unwrap().unwrap();
        assert_eq!(first.first(), (&b"POST"[..], &b"/1/fhir"[..]));
        assert_eq!((first.header("x-request-id"), &first.body[..]), (Some(&b"A1"[..]), &b"hello"[..]));
        assert!(!first.is_last());
        let second = stream.read().await.unwrap().unwrap();
        assert!(second.is_last() && second.body.is_empty());
        assert!(stream.read().await.unwrap().is_none());
    }
}

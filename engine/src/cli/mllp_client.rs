//! A small MLLP client for the command line: one connection, one message at a time.
//!
//! Not here: retries and what an answer means. The engine's own sender is the `mllp` connector.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::hl7::framing::{Found, Scanner};

/// The longest answer that is read.
const ANSWER_BYTES: usize = 1024 * 1024;

/// One connection.
pub struct Client {
    socket: TcpStream,
    scanner: Scanner,
    buffer: BytesMut,
    patience: Duration,
}

impl Client {
    /// Connects. `patience` is for this and for each exchange.
    ///
    /// # Errors
    /// When nobody answers there in time.
    pub async fn connect(address: &str, patience: Duration) -> io::Result<Self> {
        let socket = timeout(patience, TcpStream::connect(address)).await??;
        socket.set_nodelay(true)?;
        Ok(Self { socket, scanner: Scanner::new(ANSWER_BYTES), buffer: BytesMut::new(), patience })
    }

    /// Sends a frame and waits for the next frame that comes back.
    ///
    /// # Errors
    /// When the connection ends, the time is up or what comes back is no frame. Do not use the client after that:
    /// a late answer could be taken for the next message's.
    pub async fn exchange(&mut self, framed: &[u8]) -> io::Result<Bytes> {
        timeout(self.patience, async {
            self.socket.write_all(framed).await?;
            loop {
                match self.scanner.scan(&mut self.buffer) {
                    Some(Found::Message(answer)) => return Ok(answer),
                    Some(Found::Junk { .. }) => continue,
                    Some(Found::TooLarge { .. } | Found::Cut { .. }) => {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "no acknowledgement came back",
                        ));
                    }
                    None => {}
                }
                self.buffer.reserve(4096);
                if self.socket.read_buf(&mut self.buffer).await? == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
                }
            }
        })
        .await?
    }
}

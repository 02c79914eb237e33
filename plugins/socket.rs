//! The socket of a listener.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// What the system holds for a peer that takes no answers, before the peer is held back. Left to itself it would hold
/// megabytes, fifty thousand answers, for each connection.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;
/// Connections that wait to be taken.
const WAITING_CONNECTIONS: u32 = 1024;

/// Listens at an address.
pub fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Another process may have left the address a moment ago.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(listen)?;
    socket.listen(WAITING_CONNECTIONS)
}

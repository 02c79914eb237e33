//! What can be said of an MLLP listener.
//!
//! Not here: what it does with it (listener).

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;
use tie_engine::connector::{ByteSize, Period};

use crate::door;

pub const EXAMPLE: &str = r#"[listener.hospital]
kind = "mllp"
listen = "0.0.0.0:2575"
peers = ["10.1.0.0/16", "192.0.2.7"]     # who may send; without it, everybody
longest_message = "16MiB"
connections = 256                        # at the same time
idle = "1h"                              # a connection without a byte for so long is closed
frame_time = "30s"                       # a message that has begun must end within
memory = "256MiB"                        # for messages being read or stored, over all connections
"#;

/// Options of an `mllp` listener.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerOptions {
    /// Address and port to listen at.
    pub listen: SocketAddr,
    /// Who may send: addresses and networks such as `10.1.0.0/16`. Empty: everybody.
    #[serde(default)]
    pub peers: Vec<String>,
    /// The longest message that is taken.
    #[serde(default = "door::default_longest_message")]
    pub longest_message: ByteSize,
    /// Connections at the same time.
    #[serde(default = "door::default_connections")]
    pub connections: usize,
    /// A connection without a byte for so long is closed.
    #[serde(default = "default_idle")]
    pub idle: Period,
    /// From the first byte of a message to its last, and for the peer to take an answer.
    #[serde(default = "default_frame_time")]
    pub frame_time: Period,
    /// Memory for messages that are being read and stored, over all connections of this listener. Whoever finds it taken
    /// waits, unread, for `frame_time` at most, and is then asked to send again.
    #[serde(default = "door::default_memory")]
    pub memory: ByteSize,
}

fn default_idle() -> Period {
    Period(Duration::from_secs(3600))
}

fn default_frame_time() -> Period {
    Period(Duration::from_secs(30))
}

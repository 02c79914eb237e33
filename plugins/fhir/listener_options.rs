//! What can be said of a FHIR listener.
//!
//! Not here: what it does with it (listener).

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;
use tie_engine::{
    connector::{ByteSize, Period},
    secret::SecretRef,
};

use crate::door;

pub const EXAMPLE: &str = r#"[listener.devices]
kind = "fhir"
listen = "0.0.0.0:8080"
base = "/fhir"                           # the path of its address
peers = ["10.1.0.0/16", "192.0.2.7"]     # who may send; without it, everybody (403)
token = { env = "DEVICES_TOKEN" }        # bearer token that is asked for (401); or { file = "…" }
longest_message = "16MiB"                # a longer one is refused (413)
connections = 256                        # at the same time; more are refused (503)
request_time = "30s"                     # for the headers, and for the body, of one request; also an idle connection's
memory = "256MiB"                        # for messages being read or stored, over all connections
"#;

/// Options of a `fhir` listener.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerOptions {
    /// Address and port to listen at. Without TLS: stand a proxy before it where the network is not your own.
    pub listen: SocketAddr,
    /// The path of its address.
    #[serde(default = "default_base")]
    pub base: String,
    /// Who may send: addresses and networks such as `10.1.0.0/16`. Empty: everybody.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Where the bearer token is kept that is asked for. It is read again when another one comes.
    #[serde(default)]
    pub token: Option<SecretRef>,
    /// The longest message that is taken.
    #[serde(default = "door::default_longest_message")]
    pub longest_message: ByteSize,
    /// Connections at the same time.
    #[serde(default = "door::default_connections")]
    pub connections: usize,
    /// How long a connection may take to send the headers of a request, and then its body.
    #[serde(default = "default_request_time")]
    pub request_time: Period,
    /// Memory for messages that are being read and stored, over all connections of this listener. Whoever finds it taken
    /// waits, unread, for `request_time` at most, and is then asked to send again.
    #[serde(default = "door::default_memory")]
    pub memory: ByteSize,
}

fn default_base() -> String {
    "/fhir".to_owned()
}

fn default_request_time() -> Period {
    Period(Duration::from_secs(30))
}

//! How fast the receiver is when the client drives it directly: the floor beneath every delivery.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use super::{
    histogram::{Histogram, Latency},
    http::Stream,
};

/// What to post.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Posts {
    /// The receiver.
    pub address: String,
    /// Connections at the same time.
    pub connections: u32,
    /// For so long.
    pub seconds: f64,
    /// The body.
    pub body: String,
}

/// What became of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Posted {
    /// Answered posts.
    pub posts: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// Each one.
    pub took: Latency,
}

/// Posts the same body again and again.
pub(super) async fn post(posts: Posts) -> Posted {
    let head = format!(
        "POST /direct HTTP/1.1\r\nhost: {}\r\ncontent-type: application/fhir+json\r\ncontent-length: {}\r\n\r\n",
        posts.address,
        posts.body.len()
    );
    let request: Bytes = [head.as_bytes(), posts.body.as_bytes()].concat().into();
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(posts.seconds);
    let mut connections = JoinSet::new();
    for _ in 0..posts.connections {
        connections.spawn(converse(posts.address.clone(), request.clone(), end));
    }
    let mut all = Histogram::default();
    while let Some(Ok(part)) = connections.join_next().await {
        all.absorb(&part);
    }
    let took = all.latency();
    Posted { posts: took.count, seconds: began.elapsed().as_secs_f64(), took }
}

async fn converse(address: String, request: Bytes, end: Instant) -> Histogram {
    let mut took = Histogram::default();
    let Ok(Ok(mut stream)) = TcpStream::connect(&address).await.map(Stream::new) else { return took };
    while Instant::now() < end {
        let began = Instant::now();
        if stream.socket.write_all(&request).await.is_err() {
            break;
        }
        let Ok(Some(_)) = stream.read().await else { break };
        took.add(began.elapsed().as_micros() as u64);
    }
    took
}

//! A receiver that does what a test says: it reads whole requests and answers each by the next act of its script.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What the receiver does with one request. After the last act it goes on answering well.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answers as the protocol's success.
    Well,
    /// Answers well and closes.
    WellAndClose,
    /// Answers well, after so many requests have come in all.
    WellAfter(usize),
    /// Answers with these bytes.
    Say(Vec<u8>),
    /// Answers with these bytes and closes.
    SayAndClose(Vec<u8>),
    /// Answers with the first, and with the second when the other side says no more.
    SayAndSayAtTheEnd(Vec<u8>, Vec<u8>),
    /// Closes without an answer.
    Close,
    /// Never answers, but keeps the connection.
    Silence,
}

/// Finds the length of the first whole request in the bytes.
pub type Whole = fn(&[u8]) -> Option<usize>;
/// The answer of a protocol to a request that is taken.
pub type Good = fn(&[u8]) -> Vec<u8>;

pub struct Peer {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    acts: Mutex<VecDeque<Act>>,
    requests: watch::Sender<Vec<Vec<u8>>>,
    connections: watch::Sender<usize>,
    closed: watch::Sender<usize>,
    whole: Whole,
    good: Good,
}

impl Peer {
    pub async fn start(whole: Whole, good: Good, acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            acts: Mutex::new(acts.into_iter().collect()),
            requests: watch::Sender::default(),
            connections: watch::Sender::default(),
            closed: watch::Sender::default(),
            whole,
            good,
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                shared.connections.send_modify(|count| *count += 1);
                let shared = shared.clone();
                tokio::spawn(async move {
                    shared.serve(socket).await;
                    shared.closed.send_modify(|count| *count += 1);
                });
            }
        });
        Self { address, state }
    }

    /// Waits until so many requests have come, and gives them all.
    pub async fn requests(&self, at_least: usize) -> Vec<Vec<u8>> {
        let mut requests = self.state.requests.subscribe();
        requests.wait_for(|requests| requests.len() >= at_least).await.unwrap().clone()
    }

    /// Waits until it has closed so many connections.
    pub async fn closed(&self, at_least: usize) {
        self.state.closed.subscribe().wait_for(|count| *count >= at_least).await.unwrap();
    }

    pub fn connections(&self) -> usize {
        *self.state.connections.borrow()
    }
}

impl State {
    async fn serve(&self, mut socket: TcpStream) {
        let mut buffer = Vec::new();
        loop {
            while let Some(length) = (self.whole)(&buffer) {
                let request: Vec<u8> = buffer.drain(..length).collect();
                self.requests.send_modify(|requests| requests.push(request.clone()));
                let act = self.acts.lock().unwrap().pop_front().unwrap_or(Act::Well);
                let (answer, close) = match act {
                    Act::Well => ((self.good)(&request), false),
                    Act::WellAndClose => ((self.good)(&request), true),
                    Act::WellAfter(count) => {
                        let mut requests = self.requests.subscribe();
                        requests.wait_for(|requests| requests.len() >= count).await.unwrap();
                        ((self.good)(&request), false)
                    }
                    Act::Say(bytes) => (bytes, false),
                    Act::SayAndClose(bytes) => (bytes, true),
                    Act::SayAndSayAtTheEnd(first, second) => {
                        let _ = socket.write_all(&first).await;
                        let _ = socket.read_to_end(&mut buffer).await;
                        (second, true)
                    }
                    Act::Close => return,
                    Act::Silence => (Vec::new(), false),
                };
                if socket.write_all(&answer).await.is_err() || close {
                    return;
                }
            }
            match socket.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

/// An HTTP/1.1 request: its head and as many bytes as it says.
pub fn whole_http(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap().to_ascii_lowercase();
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse().unwrap());
    (bytes.len() >= head + length).then_some(head + length)
}

pub fn good_http(_: &[u8]) -> Vec<u8> {
    http(
        200,
        &[],
        r#"{"resourceType":"Bundle","type":"transaction-response","entry":[{"response":{"status":"201 Created"}}]}"#,
    )
}

pub fn http(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} So\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    format!("{text}\r\n{body}").into_bytes()
}

/// An MLLP frame.
pub fn whole_mllp(bytes: &[u8]) -> Option<usize> {
    Some(bytes.windows(2).position(|two| two == [0x1C, 0x0D])? + 2)
}

pub fn good_mllp(request: &[u8]) -> Vec<u8> {
    acknowledgement("AA", &control_id(request))
}

pub fn control_id(request: &[u8]) -> String {
    String::from_utf8_lossy(request).split('|').nth(9).unwrap_or_default().to_owned()
}

pub fn acknowledgement(code: &str, control_id: &str) -> Vec<u8> {
    format!("\x0BMSH|^~\\&|LAB|RXX|TIE|RXX|20260301||ACK|A1|P|2.4\rMSA|{code}|{control_id}\r\x1C\r")
        .into_bytes()
}

//! Destinations that misbehave: real sockets that answer as they are told, late, wrong, in pieces or never.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// What a peer does with one message.
pub enum Reaction {
    /// Takes it and answers so.
    Take(Vec<u8>),
    /// Takes it, answers so and closes.
    TakeAndClose(Vec<u8>),
    /// Answers so, but does not take it.
    Say(Vec<u8>),
    /// The same, and closes.
    SayAndClose(Vec<u8>),
    /// Answers one byte a second.
    Drip(Vec<u8>),
    /// Neither answers nor closes, now and for ever, on this connection.
    Silence,
    /// Closes without an answer.
    Close,
}

/// What a peer knows when a message has come.
pub struct Asked<'a> {
    /// The control id.
    pub id: &'a str,
    /// How many messages came before, on any connection.
    pub before: usize,
    /// How often this one has come before.
    pub repeats: usize,
    /// How many messages came before on this connection.
    pub on_connection: usize,
}

type Mood = fn(Asked) -> Reaction;

/// A destination with a mood.
pub struct Peer {
    pub port: u16,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    asked: Vec<String>,
    taken: Vec<String>,
}

#[derive(Clone, Copy)]
enum Protocol {
    Http,
    Mllp,
}

impl Peer {
    /// Speaks FHIR over HTTP; the control id is the `X-Request-Id`.
    pub fn fhir(mood: Mood) -> Self {
        Self::start(Protocol::Http, mood)
    }

    /// Speaks MLLP.
    pub fn mllp(mood: Mood) -> Self {
        Self::start(Protocol::Mllp, mood)
    }

    fn start(protocol: Protocol, mood: Mood) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let peer = Self { port: listener.local_addr().unwrap().port(), log: Arc::default() };
        let log = peer.log.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                std::thread::spawn(move || converse(protocol, &stream, &log, mood));
            }
        });
        peer
    }

    /// The control ids of what was taken, in order.
    pub fn taken(&self) -> Vec<String> {
        self.log.lock().unwrap().taken.clone()
    }

    /// How many messages came, taken or not.
    pub fn asked(&self) -> usize {
        self.log.lock().unwrap().asked.len()
    }
}

fn converse(protocol: Protocol, stream: &TcpStream, log: &Mutex<Log>, mood: Mood) {
    let mut reader = BufReader::new(stream);
    let mut on_connection = 0;
    loop {
        let id = match protocol {
            Protocol::Http => http_request(&mut reader),
            Protocol::Mllp => mllp_message(&mut reader),
        };
        let Some(id) = id else { return };
        let reaction = {
            let mut log = log.lock().unwrap();
            let repeats = log.asked.iter().filter(|asked| **asked == id).count();
            let reaction = mood(Asked { id: &id, before: log.asked.len(), repeats, on_connection });
            log.asked.push(id.clone());
            if let Reaction::Take(_) | Reaction::TakeAndClose(_) = reaction {
                log.taken.push(id);
            }
            reaction
        };
        on_connection += 1;
        let mut stream = stream;
        match reaction {
            Reaction::Take(answer) | Reaction::Say(answer) => {
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
            Reaction::TakeAndClose(answer) | Reaction::SayAndClose(answer) => {
                let _ = stream.write_all(&answer);
                return;
            }
            Reaction::Drip(answer) => {
                for byte in answer {
                    std::thread::sleep(Duration::from_secs(1)); // poll: as slow as that
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                }
            }
            Reaction::Silence => loop {
                std::thread::park(); // the connection stays open
            },
            Reaction::Close => return,
        }
    }
}

/// Reads a request; returns its `X-Request-Id`.
fn http_request(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let (mut id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "x-request-id" => id = value.to_owned(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(id)
}

/// Reads a frame; returns MSH-10.
fn mllp_message(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let mut frame = Vec::new();
    if reader.read_until(0x1c, &mut frame).ok()? == 0 {
        return None;
    }
    reader.read_exact(&mut [0]).ok()?;
    let text = String::from_utf8_lossy(&frame).into_owned();
    Some(text.split('|').nth(9).unwrap_or_default().to_owned())
}

/// A FHIR server's answer.
pub fn fhir(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What a FHIR server says when all is well.
pub fn fhir_ok() -> Vec<u8> {
    fhir("200 OK", r#"{"resourceType":"Bundle","type":"transaction-response","entry":[]}"#)
}

/// An acknowledgement in its frame.
pub fn acknowledgement(code: &str, control_id: &str) -> Vec<u8> {
    super::frame(
        format!("MSH|^~\\&|LAB|RXX|TIE|RXX|20260301120000||ACK|A1|T|2.4\rMSA|{code}|{control_id}\r")
            .as_bytes(),
    )
}

/// An address that swallows connection attempts: its queue is full and nobody takes from it.
pub struct BlackHole {
    pub port: u16,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    pub fn open() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // The queue holds what the system thinks right; then an attempt is not answered any more.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(stream);
            assert!(waiting.len() < 10_000, "the queue never fills");
        }
        Self { port: address.port(), _listener: listener, _waiting: waiting }
    }
}

//! The receiver, a process of its own: it reads every bundle, notes that it came, and answers as a FHIR server must, with
//! an entry for each entry. It stores nothing, so that what is measured is the engine.
//!
//! `POST /N/…` is destination N. `GET /$report`, `POST /$reset` and `GET /$sample` are the bench's own.

use std::{cell::RefCell, collections::BTreeMap, io, rc::Rc};

use bytes::Bytes;
use memchr::memmem::Finder;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::{
    arrivals::{Arrivals, Arrived},
    http::{Read, Stream},
    sign::now,
};

/// Bodies up to so many bytes may be the sample.
const SAMPLE: usize = 1 << 20;

/// What the receiver knows.
struct Receiver {
    destinations: BTreeMap<u8, Arrivals>,
    /// The body that came last.
    sample: Bytes,
    /// The answers to bundles with so many entries.
    answers: Vec<Bytes>,
    entry: Finder<'static>,
}

type Shared = Rc<RefCell<Receiver>>;

/// Says its address on stdout, then serves until the process is ended. One thread: it is to leave room to the engine.
pub(super) async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::cli::say(format_args!("{}\n", listener.local_addr()?));
    let shared = Rc::new(RefCell::new(Receiver {
        destinations: BTreeMap::new(),
        sample: Bytes::new(),
        answers: Vec::new(),
        entry: Finder::new(b"\"request\":{"),
    }));
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::task::spawn_local(converse(socket, shared.clone()));
    }
}

async fn converse(socket: TcpStream, shared: Shared) -> io::Result<()> {
    let mut stream = Stream::new(socket)?;
    while let Some(request) = stream.read().await? {
        let answer = shared.borrow_mut().answer(&request);
        stream.socket.write_all(&answer).await?;
        if request.is_last() {
            return Ok(());
        }
    }
    Ok(())
}

impl Receiver {
    fn answer(&mut self, request: &Read) -> Bytes {
        match request.first() {
            (b"GET", b"/$report") => self.report(),
            (b"GET", b"/$sample") => json(&self.sample),
            (b"POST", b"/$reset") => {
                self.destinations.values_mut().for_each(Arrivals::reset);
                json(b"{}")
            }
            (_, path) => self.take(path, request),
        }
    }

    fn report(&self) -> Bytes {
        let told: BTreeMap<u8, Arrived> =
            self.destinations.iter().map(|(number, arrivals)| (*number, arrivals.told())).collect();
        json(&serde_json::to_vec(&told).unwrap_or_default())
    }

    fn take(&mut self, path: &[u8], request: &Read) -> Bytes {
        // Whoever sends no id only wants to know how fast this is.
        if let Some(control_id) = request.header("x-request-id") {
            let number = path.get(1).copied().unwrap_or_default().wrapping_sub(b'0');
            let arrivals = self.destinations.entry(number).or_default();
            arrivals.note(control_id, request.body.len(), now());
            if request.body.len() <= SAMPLE {
                self.sample = request.body.clone();
            }
        }
        let entries = self.entry.find_iter(&request.body).count();
        while self.answers.len() <= entries {
            self.answers.push(transaction_response(self.answers.len()));
        }
        self.answers.get(entries).cloned().unwrap_or_default()
    }
}

/// What a server says to a transaction of so many entries.
fn transaction_response(entries: usize) -> Bytes {
    let entry = r#"{"response":{"status":"200 OK","location":"Patient/6f1c1f0e-9e8b-5a7d-8f43-2b9d52c0a511/_history/2","etag":"W/\"2\"","lastModified":"2026-01-15T09:30:02.123Z"}}"#;
    let entries = vec![entry; entries].join(",");
    let bundle = format!(r#"{{"resourceType":"Bundle","type":"transaction-response","entry":[{entries}]}}"#);
    json(bundle.as_bytes())
}

fn json(body: &[u8]) -> Bytes {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/fhir+json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

//! The bare road: what a program on this machine needs at the least that does the same outward work as the engine. A part
//! of the bench becomes that program; the load client and the receiver of the trial are at its two ends.
//!
//! Promises: nothing is acknowledged before it is on the disk, one sync for all that waits; what is posted is made by the
//! engine's own mappings; memory does not grow with the run; there are figures only if everything was acknowledged
//! and everything acknowledged has arrived.
//! Not here: all else that the engine promises. No repeats are known, nobody waits for a patient's earlier message, nothing
//! is tried again, searched or logged, and of what is in the file nothing would be delivered after a crash.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    iter::once,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver as Queue, Sender, unbounded};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    Failure,
    figures::Figures,
    ground::Ground,
    histogram::Latency,
    load::{self, Loaded},
    parts::{Client, Receiver},
    readings,
    sign::Sign,
};
use crate::{
    cli::{Place, complain, library::Library, runtime, say},
    clock::{Clock, SystemClock},
    connector::{Payload, Plugin},
    hl7::{
        ack::{Verdict, acknowledge},
        framing::{Found, Scanner, frame},
    },
    incoming::Incoming,
    mapping::{Context, Mapped},
};

/// How long it is driven before it is measured.
const WARM_UP_SECONDS: f64 = 0.5;
/// So many messages may be acknowledged and not posted, in all: then a connection waits before it reads on. Enough for the
/// posting to go on while the disk holds up the acknowledgements.
const WAITING: u32 = 1024;
/// Its file has room for so many times what the engine would have acknowledged.
const ROOM: f64 = 2.0;
/// The longest message.
const LONGEST: usize = 64 << 20;
/// Room for what is read at once.
const READ: usize = 16 << 10;

/// What was measured of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bare {
    /// Messages that were positively acknowledged.
    pub acknowledged: u64,
    /// Of these, so many have arrived at every destination; zero where nothing is to be mapped and sent.
    pub delivered: u64,
    /// Acknowledgements a second.
    pub acknowledged_per_second: f64,
    /// From a message to its acknowledgement.
    pub acknowledgement_ms: Latency,
    /// Messages a second from the first sending until everything was posted and answered.
    pub road_per_second: Option<f64>,
    /// User and system time of the program, a message.
    pub cpu_ms_per_message: Option<f64>,
}

/// What the program is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    /// What messages are written to.
    file: PathBuf,
    /// So much of it is on the disk before: a file that does not grow is synced in a third less time, and without waiting
    /// for what others have given the file system.
    room_bytes: u64,
    /// Where the bundles go; without it, messages are only stored.
    receiver: Option<SocketAddr>,
    /// How many destinations each goes to.
    destinations: u8,
    /// Messages of one connection that may be acknowledged and not posted.
    waiting: u32,
}

impl Bare {
    /// Drives the program as the plans of a warm-up and of a measurement say. Without a receiver it stores only.
    pub(super) async fn measure(
        ground: &Ground,
        receiver: Option<&Receiver>,
        engine: &Figures,
        [mut warm_up, mut plan]: [load::Plan; 2],
        seconds: f64,
    ) -> Result<Self, Failure> {
        let (home, destinations) = (&ground.scratch.home, engine.destinations);
        let expected = engine.acknowledged_per_second * engine.message_bytes * (WARM_UP_SECONDS + seconds);
        let own = Plan {
            file: home.join("bare"),
            room_bytes: (ROOM * expected) as u64,
            receiver: receiver.map(|receiver| receiver.address),
            destinations,
            waiting: (WAITING / plan.connections).max(1),
        };
        let mut program = Client::at_home("bare", home, &ground.environment(), &own).await?;
        plan.address = program.says().await?.trim().to_owned();
        warm_up.address.clone_from(&plan.address);
        (warm_up.seconds, plan.seconds) = (Some(seconds.min(WARM_UP_SECONDS)), Some(seconds));

        drive(&mut program, &warm_up).await?;
        let before = (arrived(receiver, destinations)?, readings::cpu_seconds(program.process()));
        let began = Instant::now();
        let loaded = drive(&mut program, &plan).await?;
        let (took, cpu) = (began.elapsed().as_secs_f64(), readings::cpu_seconds(program.process()));
        let delivered = arrived(receiver, destinations)? - before.0;
        if receiver.is_some() && delivered != loaded.acknowledged {
            return Err(Failure::Broken(format!(
                "the bare road has acknowledged {} messages and delivered {delivered}",
                loaded.acknowledged
            )));
        }
        drop(program);
        fs::remove_file(own.file).map_err(|error| Failure::unable("the file of the bare road", &error))?;
        let acknowledged = loaded.acknowledged as f64;
        Ok(Self {
            acknowledged: loaded.acknowledged,
            delivered,
            acknowledged_per_second: acknowledged / loaded.seconds,
            acknowledgement_ms: loaded.acknowledgement,
            road_per_second: receiver.map(|_| acknowledged / took),
            cpu_ms_per_message: cpu.zip(before.1).map(|(to, from)| (to - from) * 1000.0 / acknowledged),
        })
    }
}

/// Sends what a plan says, and waits until the program has done all with it.
async fn drive(program: &mut Client, plan: &load::Plan) -> Result<Loaded, Failure> {
    let loaded: Loaded = Client::start("load", plan).await?.ended().await?;
    let fault: Option<String> = serde_json::from_str(&program.ask().await?)
        .map_err(|error| Failure::unable("the bare road", &error))?;
    match fault {
        // The client may have gone without an answer for this reason.
        Some(why) => Err(Failure::Broken(format!("the bare road: {why}"))),
        None => loaded.sound(),
    }
}

/// Messages that have come to every destination.
fn arrived(receiver: Option<&Receiver>, destinations: u8) -> Result<u64, Failure> {
    let Some(receiver) = receiver else { return Ok(0) };
    Ok(receiver.arrived(destinations)?.iter().map(|one| one.distinct).min().unwrap_or(0))
}

/// A message, and who waits for it to be on the disk.
type Entry = (Bytes, oneshot::Sender<()>);

/// What all connections share.
struct Road {
    plan: Plan,
    library: Library,
    disk: Sender<Entry>,
    /// Where it maps and posts.
    posting: Handle,
    answers: AtomicU64,
}

/// The program. What maps and posts has threads of its own, as in the engine: else nothing would be mapped while the
/// disk is waited for, since all that was acknowledged would have been mapped before the next frame is read.
pub(super) fn run(
    plan: Plan,
    place: &Place,
    plugins: &'static [Plugin],
    asked: mpsc::UnboundedReceiver<()>,
) -> io::Result<()> {
    let threads = || runtime().map_err(|_| io::Error::other("there are no threads"));
    let (taking, posting) = (threads()?, threads()?);
    let library = Library::read(place, plugins, SystemClock.now());
    let library = library.map_err(|_| io::Error::other("the mappings cannot be used"))?;
    let road = Road::new(plan, library, posting.handle().clone())?;
    let done = taking.block_on(serve(Arc::new(road), asked));
    taking.shutdown_background();
    posting.shutdown_background();
    done
}

/// Says where it listens, then, each time it is asked, whether all went well once nobody sends any more and
/// all is done; until nobody can ask any more.
async fn serve(road: Arc<Road>, mut asked: mpsc::UnboundedReceiver<()>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(format_args!("{}\n", listener.local_addr()?));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(road.clone().converse(accepted?.0));
            }
            ask = asked.recv() => match ask {
                Some(()) => say(format_args!("{}\n", serde_json::json!(fault(&mut connections).await))),
                None => return Ok(()),
            }
        }
    }
}

/// Waits until all connections have ended; why one has before its time.
async fn fault(connections: &mut JoinSet<io::Result<()>>) -> Option<String> {
    let mut found = None;
    while let Some(ended) = connections.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(error.into()));
        found = found.or(ended.err());
    }
    found.map(|error| error.to_string())
}

impl Road {
    fn new(plan: Plan, library: Library, posting: Handle) -> io::Result<Self> {
        let (disk, waiting) = unbounded();
        let mut file = File::create(&plan.file)?;
        io::copy(&mut io::repeat(0).take(plan.room_bytes), &mut file)?;
        file.sync_all()?;
        file.rewind()?;
        let work = move || {
            if let Err(error) = keep(file, &waiting) {
                complain(format_args!("tie: the file of the bare road: {error}"));
            }
        };
        std::thread::Builder::new().name("disk".to_owned()).spawn(work)?;
        Ok(Self { plan, library, disk, posting, answers: AtomicU64::default() })
    }

    /// One connection, and what becomes of its messages.
    async fn converse(self: Arc<Self>, socket: TcpStream) -> io::Result<()> {
        let (onward, waiting) = mpsc::channel(self.plan.waiting as usize);
        let Some(receiver) = self.plan.receiver else { return self.take(socket, None).await };
        let delivering = self.posting.spawn(self.clone().deliver(receiver, waiting));
        let taken = self.take(socket, Some(onward)).await;
        delivering.await??;
        taken
    }

    /// Takes messages, one at a time, until the sender ends.
    async fn take(&self, mut socket: TcpStream, onward: Option<mpsc::Sender<Bytes>>) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let (mut scanner, mut buffer) = (Scanner::new(LONGEST), BytesMut::new());
        loop {
            match scanner.scan(&mut buffer) {
                Some(Found::Message(raw)) => {
                    socket.write_all(&self.stored(&raw).await?).await?;
                    if let Some(onward) = &onward {
                        onward.send(raw).await.map_err(io::Error::other)?;
                    }
                }
                Some(Found::Junk { .. } | Found::TooLarge { .. } | Found::Cut { .. }) => {
                    return Err(io::Error::other("what came is no frame"));
                }
                None => {
                    buffer.reserve(READ);
                    if socket.read_buf(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The acknowledgement of a message, when it is on the disk.
    async fn stored(&self, raw: &Bytes) -> io::Result<Bytes> {
        let (told, stored) = oneshot::channel();
        self.disk.send((raw.clone(), told)).map_err(|_| io::Error::other("nothing is stored any more"))?;
        let own_id = self.answers.fetch_add(1, Ordering::Relaxed).to_string();
        let answer = acknowledge(raw, &Verdict::Accepted, SystemClock.now(), &own_id);
        let answer = answer.ok_or_else(|| io::Error::other("a message wants no acknowledgement"))?;
        let framed = frame(&answer.bytes).map_err(io::Error::other)?;
        stored.await.map_err(|_| io::Error::other("a message was not stored"))?;
        Ok(framed)
    }

    /// Maps messages and posts them, one after the other, over connections of its own.
    async fn deliver(self: Arc<Self>, to: SocketAddr, mut waiting: mpsc::Receiver<Bytes>) -> io::Result<()> {
        let mut destinations = Vec::new();
        for number in 1..=self.plan.destinations {
            destinations.push(Destination::open(to, number).await?);
        }
        while let Some(raw) = waiting.recv().await {
            let (control_id, outputs) = self.made(raw)?;
            for destination in &mut destinations {
                for output in &outputs {
                    destination.post(&control_id, output.bytes()).await?;
                }
            }
        }
        Ok(())
    }

    /// What the mapping of its kind makes of a message, with its control id.
    fn made(&self, raw: Bytes) -> io::Result<(HeaderValue, Vec<Payload>)> {
        let Library { mappings, charset, context, .. } = &self.library;
        let message = Incoming::read(raw, charset).map_err(io::Error::other)?;
        let control_id = HeaderValue::from_str(&message.control_id()).map_err(io::Error::other)?;
        let Some(sign) = Sign::read(control_id.as_bytes()) else {
            return Err(io::Error::other("that is no message of the bench"));
        };
        let context = Context { received: SystemClock.now(), ..context.clone() };
        let mapping = sign.kind.mapping();
        match mappings.run(mapping, message, &context) {
            Ok(product) => match product.mapped {
                Mapped::Outputs(outputs) => {
                    Ok((control_id, outputs.iter().map(Payload::without_removals).collect()))
                }
                Mapped::Skip(why) | Mapped::Hold(why) | Mapped::Reject(why) => {
                    Err(io::Error::other(format!("the mapping {mapping} makes nothing: {why}")))
                }
            },
            Err(error) => Err(io::Error::other(format!("the mapping {mapping} has failed: {error}"))),
        }
    }
}

/// Writes all that waits, syncs it, and says so, until nobody can hand in any more.
fn keep(mut file: File, waiting: &Queue<Entry>) -> io::Result<()> {
    let (mut bytes, mut told) = (Vec::new(), Vec::new());
    while let Ok(first) = waiting.recv() {
        for (raw, stored) in once(first).chain(waiting.try_iter()) {
            bytes.extend_from_slice(&(raw.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&raw);
            told.push(stored);
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        bytes.clear();
        for stored in told.drain(..) {
            // A connection that has ended waits no more.
            let _ = stored.send(());
        }
    }
    Ok(())
}

/// A connection to a destination, driven by who posts: nobody else need be woken.
struct Destination {
    path: String,
    host: HeaderValue,
    requests: SendRequest<Full<Bytes>>,
    connection: http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
}

impl Destination {
    async fn open(address: SocketAddr, number: u8) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (requests, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
        let host = HeaderValue::from_str(&address.to_string()).map_err(io::Error::other)?;
        Ok(Self { path: format!("/{number}/fhir"), host, requests, connection })
    }

    /// Posts a bundle, and reads the answer.
    async fn post(&mut self, control_id: &HeaderValue, body: &Bytes) -> io::Result<()> {
        let request = Request::post(self.path.as_str())
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/fhir+json")
            .header("x-request-id", control_id)
            .body(Full::new(body.clone()))
            .map_err(io::Error::other)?;
        let answered = pin!(async {
            let answer = self.requests.send_request(request).await?;
            let status = answer.status();
            answer.into_body().collect().await?;
            Ok::<_, hyper::Error>(status)
        });
        let status = tokio::select! {
            biased;
            status = answered => status.map_err(io::Error::other)?,
            ended = &mut self.connection => {
                ended.map_err(io::Error::other)?;
                return Err(io::Error::other("a destination has closed the connection"));
            }
        };
        match status {
            StatusCode::OK => Ok(()),
            other => Err(io::Error::other(format!("a destination has answered {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::{
        bench::{
            http::Stream,
            messages::{Form, Kind, patients},
            sign::now,
        },
        mllp_client,
    };

    #[test]
    fn all_is_on_the_disk_before_anybody_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bare");
        let (disk, waiting) = unbounded();
        let mut told = Vec::new();
        for raw in ["one", "two", "three"] {
            let (stored, heard) = oneshot::channel();
            disk.send((raw.into(), stored)).unwrap();
            told.push(heard);
        }
        // One that waits no more keeps nobody waiting.
        drop(told.remove(1));
        drop(disk);
        keep(File::create(&path).unwrap(), &waiting).unwrap();
        assert!(told.iter_mut().all(|heard| heard.try_recv().is_ok()));
        assert_eq!(fs::read(path).unwrap(), b"\x03\0\0\0one\x03\0\0\0two\x05\0\0\0three");
    }

    /// Sends a frame to a program whose two destinations answer with a status: the acknowledgement, why the connection
    /// ended before its time, and the paths that were posted to.
    async fn exchanged(framed: &[u8], status: &'static str) -> (String, Option<String>, Vec<String>) {
        let (receiver, listener) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let directory = tempfile::tempdir().unwrap();
        let home = concat!(env!("CARGO_MANIFEST_DIR"), "/..").into();
        let library = Library::read(&Place { home, config: None }, &[], SystemClock.now()).ok().unwrap();
        let (file, to) = (directory.path().join("bare"), receiver.local_addr().unwrap());
        let plan = Plan { file, room_bytes: 9_999, receiver: Some(to), destinations: 2, waiting: 1 };
        let (posted, mut posts) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = receiver.accept().await {
                tokio::spawn(answers(Stream::new(socket).unwrap(), status, posted.clone()));
            }
        });
        let road = Arc::new(Road::new(plan, library, Handle::current()).unwrap());
        let address = listener.local_addr().unwrap().to_string();
        let mut client = mllp_client::Client::connect(&address, Duration::from_secs(60)).await.unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(road.converse(listener.accept().await.unwrap().0));
        let answer = client.exchange(framed).await.unwrap();
        drop(client);
        let fault = fault(&mut connections).await;
        let paths = std::iter::from_fn(|| posts.try_recv().ok()).collect();
        (String::from_utf8(answer.to_vec()).unwrap(), fault, paths)
    }

    async fn answers(mut stream: Stream, status: &str, posted: mpsc::UnboundedSender<String>) {
        while let Ok(Some(request)) = stream.read().await {
            assert!(request.body.starts_with(b"{\"resourceType\":\"Bundle\""));
            posted.send(String::from_utf8(request.first().1.to_vec()).unwrap()).unwrap();
            let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: 2\r\n\r\n{{}}");
            stream.socket.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_message_is_acknowledged_and_posted_to_each_destination_and_whatever_fails_is_told() {
        let mut form = Form::new(Kind::Adt);
        let (framed, sign) = form.fill(&patients(7, 1)[0], 1, now());
        let id = String::from_utf8(sign.written().to_vec()).unwrap();
        let (answer, fault, posted) = exchanged(framed, "200").await;
        assert!(answer.ends_with(&format!("\rMSA|AA|{id}\r")), "{answer}");
        assert_eq!((fault, posted), (None, vec!["/1/fhir".to_owned(), "/2/fhir".to_owned()]));

        let (_, fault, posted) = exchanged(framed, "422").await;
        assert!(fault.unwrap().contains("a destination has answered 422"));
        assert_eq!(posted, ["/1/fhir"]);

        for (control_id, why) in
            [("DEMO1", "no message of the bench"), (&id, "the mapping adt makes nothing")]
        {
            let framed = format!("\u{b}MSH|^~\\&|A|B|C|D|||ADT^A01|{control_id}|T|2.4\r\u{1c}\r");
            let (answer, fault, posted) = exchanged(framed.as_bytes(), "200").await;
            assert!(answer.contains("|AA|") && posted.is_empty(), "{answer}");
            assert!(fault.as_deref().is_some_and(|fault| fault.contains(why)), "{fault:?}");
        }
    }
}

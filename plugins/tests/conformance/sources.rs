//! What every source must do, on MLLP, and what is special to MLLP. `fhir_listener.rs` asks the same of FHIR over HTTP.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tie_engine::connector::{Intake, IntakeClosed, Meaning, Notice, Peer, Refusal, Reply, SourceError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::source;

/// An engine that keeps what it is handed, and acknowledges with the message's own bytes behind `ACK `.
pub struct Engine {
    pub accepted: watch::Sender<Vec<Bytes>>,
    refused: Mutex<Vec<(Bytes, Refusal)>>,
    notices: watch::Sender<Vec<Notice>>,
    /// One permit a message that is stored: a test can hold them back.
    pub journal: Semaphore,
    /// One permit an answer to what is stored: so acknowledgements wait for outcomes.
    outcomes: Semaphore,
    closed: bool,
}

#[async_trait]
impl Intake for Engine {
    async fn accept(&self, raw: Bytes, _: &Peer) -> Result<Reply, IntakeClosed> {
        if self.closed {
            return Err(IntakeClosed);
        }
        // The engine keeps nothing of the bytes as they came once they are stored.
        let answer = (raw != "quiet").then(|| Bytes::from([b"ACK ".as_slice(), &raw].concat()));
        self.accepted.send_modify(|accepted| accepted.push(Bytes::copy_from_slice(&raw)));
        self.journal.acquire().await.unwrap().forget();
        drop(raw);
        self.outcomes.acquire().await.unwrap().forget();
        Ok(Reply { acknowledgement: answer, meaning: Meaning::Stored, reason: String::new(), place: None })
    }

    async fn refuse(&self, head: Bytes, refusal: Refusal, _: &Peer) -> Reply {
        self.refused.lock().unwrap().push((head, refusal));
        let word = match refusal {
            Refusal::TooLarge { .. } => "too large",
            Refusal::Incomplete { .. } => "incomplete",
            Refusal::NotFramed => "not framed",
            Refusal::OtherFormat { .. } => "other format",
            Refusal::Busy => "busy",
            Refusal::TooManyConnections { .. } => "too many",
            Refusal::PeerNotAllowed => "not allowed",
        };
        let acknowledgement = Some(Bytes::from(format!("NACK {word}")));
        Reply { acknowledgement, meaning: Meaning::Refused, reason: word.to_owned(), place: None }
    }

    fn notice(&self, notice: Notice) {
        self.notices.send_modify(|notices| notices.push(notice));
    }
}

pub fn connected(notices: &[Notice]) -> usize {
    notices.iter().filter(|notice| **notice == Notice::Connected).count()
}

pub struct Running {
    pub engine: Arc<Engine>,
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub source: JoinHandle<Result<(), SourceError>>,
}

impl Running {
    async fn start(options: &str) -> Self {
        Self::with(options, usize::MAX >> 4, false).await
    }

    async fn with(options: &str, journal: usize, closed: bool) -> Self {
        Self::of_kind("mllp", options, journal, closed).await
    }

    pub async fn of_kind(kind: &str, options: &str, journal: usize, closed: bool) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let engine = Arc::new(Engine {
            accepted: watch::Sender::default(),
            refused: Mutex::default(),
            notices: watch::Sender::default(),
            journal: Semaphore::new(journal),
            outcomes: Semaphore::new(usize::MAX >> 4),
            closed,
        });
        let stop = CancellationToken::new();
        let source = source(&format!("kind = \"{kind}\"\nlisten = \"{address}\"\n{options}"));
        let source = tokio::spawn(source.run(engine.clone(), stop.clone()));
        Self { engine, address, stop, source }
    }

    /// A connection, as soon as the source listens.
    pub async fn connect(&self) -> TcpStream {
        loop {
            if let Ok(socket) = TcpStream::connect(self.address).await {
                return socket;
            }
            assert!(!self.source.is_finished(), "the source has ended");
            tokio::task::yield_now().await;
        }
    }

    pub async fn accepted(&self, at_least: usize) -> Vec<Bytes> {
        let mut accepted = self.engine.accepted.subscribe();
        accepted.wait_for(|accepted| accepted.len() >= at_least).await.unwrap().clone()
    }

    pub async fn noticed(&self, wanted: impl Fn(&[Notice]) -> bool) {
        let mut notices = self.engine.notices.subscribe();
        notices.wait_for(|notices| wanted(notices)).await.unwrap();
    }

    pub fn refused(&self) -> Vec<(Bytes, Refusal)> {
        self.engine.refused.lock().unwrap().clone()
    }
}

fn frame(text: &str) -> Vec<u8> {
    format!("\x0B{text}\x1C\r").into_bytes()
}

/// Reads until the bytes are there, and finds exactly them.
async fn expect(socket: &mut TcpStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    let read = socket.read_exact(&mut got).await;
    assert!(read.is_ok(), "closed before {:?}", String::from_utf8_lossy(wanted));
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(wanted));
}

async fn expect_end(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

/// As the engine's framing writes it: VT first, a CR before FS, nothing between frames.
fn ack(text: &str) -> Vec<u8> {
    format!("\x0BACK {text}\r\x1C\r").into_bytes()
}

fn nack(text: &str) -> Vec<u8> {
    format!("\x0BNACK {text}\r\x1C\r").into_bytes()
}

/// Trap: several frames in one TCP read dropped.
#[tokio::test]
async fn many_frames_in_one_write_are_answered_in_order() {
    let running = Running::start("").await;
    let mut socket = running.connect().await;
    let sent: Vec<u8> = (0..100).flat_map(|n| frame(&format!("m{n}"))).collect();
    socket.write_all(&sent).await.unwrap();
    let answers: Vec<u8> = (0..100).flat_map(|n| ack(&format!("m{n}"))).collect();
    expect(&mut socket, &answers).await;
    assert_eq!(running.accepted(100).await[99], "m99");
}

#[tokio::test]
async fn one_frame_in_many_writes_arrives_byte_for_byte() {
    let running = Running::start("").await;
    let mut socket = running.connect().await;
    socket.set_nodelay(true).unwrap();
    let text = "MSH|^~\\&|\rPID|\u{e9}\u{0}|\r";
    for byte in frame(text) {
        socket.write_all(&[byte]).await.unwrap();
    }
    expect(&mut socket, &[b"\x0BACK ".as_slice(), text.as_bytes(), b"\x1C\r"].concat()).await;
    assert_eq!(running.accepted(1).await[0], text);
}

#[tokio::test]
async fn filling_and_junk_between_frames_are_passed_over_and_counted() {
    let running = Running::start("").await;
    let mut socket = running.connect().await;
    let sent = [b"\0\0\r\n".to_vec(), frame("one"), b"\n\0what".to_vec(), frame("two")].concat();
    socket.write_all(&sent).await.unwrap();
    expect(&mut socket, &[ack("one"), ack("two")].concat()).await;
    let junk = |notices: &[Notice]| {
        let bytes = notices.iter().map(|notice| if let Notice::Junk { bytes } = notice { *bytes } else { 0 });
        bytes.sum::<usize>()
    };
    running.noticed(|notices| junk(notices) == 10).await;
    assert_eq!(running.refused(), []);
}

#[tokio::test]
async fn a_frame_end_without_its_cr_is_an_end() {
    let running = Running::start("").await;
    let mut socket = running.connect().await;
    socket.write_all(b"\x0Bone\x1C\x0Btwo\x1C").await.unwrap();
    expect(&mut socket, &[ack("one"), ack("two")].concat()).await;
}

#[tokio::test]
async fn a_message_that_wants_no_answer_gets_none() {
    let running = Running::start("").await;
    let mut socket = running.connect().await;
    socket.write_all(&[frame("quiet"), frame("one")].concat()).await.unwrap();
    expect(&mut socket, &ack("one")).await;
}

/// P6: the engine's slowness reaches the sender, and order is kept.
#[tokio::test]
async fn p6_a_connection_is_not_read_while_its_message_is_made_durable() {
    let running = Running::with("", 0, false).await;
    let mut socket = running.connect().await;
    socket.write_all(&[frame("one"), frame("two")].concat()).await.unwrap();
    assert_eq!(running.accepted(1).await.len(), 1);
    // Another connection is not held back by it.
    let mut other = running.connect().await;
    other.write_all(&frame("three")).await.unwrap();
    assert_eq!(running.accepted(2).await, ["one", "three"]);
    running.engine.journal.add_permits(2);
    expect(&mut socket, &ack("one")).await;
    expect(&mut other, &ack("three")).await;
    assert_eq!(running.accepted(3).await[2], "two");
}

/// Trap: a positive answer though nothing was made durable.
#[tokio::test]
async fn p1_when_the_engine_cannot_answer_the_connection_ends_without_one() {
    let running = Running::with("", 0, true).await;
    let mut socket = running.connect().await;
    socket.write_all(&frame("one")).await.unwrap();
    expect_end(&mut socket).await;
}

#[tokio::test]
async fn p6_a_message_that_is_too_large_is_refused_and_the_next_is_taken() {
    let running = Running::start("longest_message = \"2kB\"\n").await;
    let mut socket = running.connect().await;
    let long = "x".repeat(100_000);
    socket.write_all(&[frame(&long), frame("next")].concat()).await.unwrap();
    expect(&mut socket, &[nack("too large"), ack("next")].concat()).await;
    let refused = running.refused();
    assert_eq!((refused.len(), refused[0].1), (1, Refusal::TooLarge { limit_bytes: 2000 }));
    assert!(refused[0].0.starts_with(b"xxx"), "the head is handed on, to answer it");
}

/// Trap: connection closed without any NACK for bad input.
#[tokio::test]
async fn fhir_in_a_frame_is_refused_with_an_answer_and_the_next_message_is_taken() {
    let running = Running::start("").await;
    let mut socket = running.connect().await;
    socket.write_all(&[frame("{\"resourceType\":\"Patient\"}"), frame("MSH|next")].concat()).await.unwrap();
    expect(&mut socket, &[nack("other format"), ack("MSH|next")].concat()).await;
    let refused = running.refused();
    let taken = Refusal::OtherFormat { taken: "HL7 v2" };
    assert_eq!(refused, [(Bytes::from("{\"resourceType\":\"Patient\"}"), taken)]);
}

#[tokio::test]
async fn a_sender_that_knows_no_frames_is_told() {
    let running = Running::start("").await;
    let mut socket = running.connect().await;
    socket.write_all(b"MSH|^~\\&|PAS\rPID|1\r").await.unwrap();
    expect(&mut socket, &nack("not framed")).await;
    let mut other = running.connect().await;
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    other.shutdown().await.unwrap();
    expect(&mut other, &nack("not framed")).await;
}

#[tokio::test]
async fn p6_a_message_that_does_not_end_in_time_is_refused() {
    let running = Running::start("frame_time = \"50ms\"\n").await;
    let mut socket = running.connect().await;
    socket.write_all(b"\x0BMSH|^~\\&|PAS").await.unwrap();
    expect(&mut socket, &nack("incomplete")).await;
    expect_end(&mut socket).await;
    assert_eq!(running.refused()[0].0, "MSH|^~\\&|PAS");
}

#[tokio::test]
async fn a_message_that_is_broken_off_is_refused() {
    let running = Running::start("").await;
    let mut socket = running.connect().await;
    socket.write_all(b"\x0BMSH|half").await.unwrap();
    socket.shutdown().await.unwrap();
    expect(&mut socket, &nack("incomplete")).await;
    let mut again = running.connect().await;
    again.write_all(b"\x0BMSH|half\x0BMSH|whole\x1C\r").await.unwrap();
    expect(&mut again, &[nack("incomplete"), ack("MSH|whole")].concat()).await;
}

#[tokio::test]
async fn p6_more_connections_than_allowed_are_refused_with_an_answer_and_the_others_go_on() {
    let running = Running::start("connections = 2\n").await;
    let mut first = running.connect().await;
    let mut second = running.connect().await;
    running.noticed(|notices| connected(notices) == 2).await;
    let mut third = running.connect().await;
    third.write_all(&frame("MSH|third")).await.unwrap();
    expect(&mut third, &nack("too many")).await;
    expect_end(&mut third).await;
    assert_eq!(running.refused(), [(Bytes::from("MSH|third"), Refusal::TooManyConnections { limit: 2 })]);
    for socket in [&mut first, &mut second] {
        socket.write_all(&frame("here")).await.unwrap();
        expect(socket, &ack("here")).await;
    }
    drop(first);
    running.noticed(|notices| notices.contains(&Notice::Disconnected)).await;
    let mut fourth = running.connect().await;
    fourth.write_all(&frame("fourth")).await.unwrap();
    expect(&mut fourth, &ack("fourth")).await;
}

#[tokio::test]
async fn a_peer_that_is_not_on_the_list_is_refused_with_an_answer() {
    let running = Running::start("peers = [\"192.0.2.0/24\"]\n").await;
    let mut socket = running.connect().await;
    socket.write_all(&frame("MSH|stranger")).await.unwrap();
    expect(&mut socket, &nack("not allowed")).await;
    expect_end(&mut socket).await;
    assert_eq!(running.accepted(0).await.len(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let running = Running::start("idle = \"20ms\"\n").await;
    let mut socket = running.connect().await;
    expect_end(&mut socket).await;
    running.noticed(|notices| notices == [Notice::Serving, Notice::Connected, Notice::Disconnected]).await;
}

/// P10.
#[tokio::test]
async fn p10_after_a_stop_the_frame_in_hand_is_finished_and_nothing_new_is_taken() {
    let running = Running::with("", 0, false).await;
    let mut idle = running.connect().await;
    let mut waiting = running.connect().await;
    waiting.write_all(&frame("in the journal")).await.unwrap();
    running.accepted(1).await;
    let mut half = running.connect().await;
    half.write_all(b"\x0Bha").await.unwrap();
    running.noticed(|notices| connected(notices) == 3).await;
    running.stop.cancel();
    expect_end(&mut idle).await;
    let _ = half.write_all(b"lf\x1C\r").await; // refused if the frame had not been seen to begin
    running.engine.journal.add_permits(2);
    expect(&mut waiting, &ack("in the journal")).await;
    expect_end(&mut waiting).await;
    // The half frame may not have been seen as begun before the stop; then its sender still has the message.
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest).await;
    assert!(rest.is_empty() || rest == ack("half"), "{}", String::from_utf8_lossy(&rest));
    running.source.await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let running = Running::start("").await;
    running.connect().await;
    let engine = running.engine.clone();
    let second = source(&format!("kind = \"mllp\"\nlisten = \"{}\"\n", running.address));
    let error = second.run(engine, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains(&running.address.to_string()), "{error}");
}

#[tokio::test]
async fn p6_large_messages_on_many_connections_share_one_memory_budget() {
    // Room for two of them at a time. All come half, then all go on: none may hold a part that another needs.
    let options = "longest_message = \"1MiB\"\nmemory = \"2200KiB\"\nframe_time = \"60s\"\n";
    let running = Running::start(options).await;
    let framed = frame(&"y".repeat(1_000_000));
    let (first, rest) = framed.split_at(framed.len() / 2);
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let mut socket = running.connect().await;
        socket.write_all(first).await.unwrap();
        sockets.push(socket);
    }
    let senders = sockets.iter_mut().map(|socket| async {
        let (mut reader, mut writer) = socket.split();
        let mut answer = vec![0; 1_000_008];
        let (sent, read) = tokio::join!(writer.write_all(rest), reader.read_exact(&mut answer));
        sent.is_ok() && read.is_ok()
    });
    let done = tokio::time::timeout(Duration::from_secs(30), futures::future::join_all(senders)).await;
    assert!(done.expect("all get their turn").into_iter().all(|good| good));
}

/// Whose memory it is that is lacking, the answer says: many senders give up what was "broken off".
#[tokio::test]
async fn p6_a_message_that_finds_no_memory_in_time_is_asked_to_come_again() {
    let options = "longest_message = \"1MiB\"\nmemory = \"1100KiB\"\nframe_time = \"300ms\"\n";
    let running = Running::with(options, 0, false).await;
    let mut first = running.connect().await;
    first.write_all(&frame(&"x".repeat(200_000))).await.unwrap();
    running.accepted(1).await;
    // The first has all the memory until it is stored.
    let mut second = running.connect().await;
    second.write_all(&frame(&format!("MSH|{}", "y".repeat(200_000)))).await.unwrap();
    expect(&mut second, &nack("busy")).await;
    expect_end(&mut second).await;
    let refused = running.refused();
    assert_eq!((refused.len(), refused[0].1), (1, Refusal::Busy));
    assert!(refused[0].0.starts_with(b"MSH|yyy"), "the head is handed on, to answer it");
    // Who needs none of it is served meanwhile, and who is slow himself is told so.
    let mut small = running.connect().await;
    small.write_all(&frame("small")).await.unwrap();
    running.accepted(2).await;
    let mut slow = running.connect().await;
    slow.write_all(b"\x0BMSH|half").await.unwrap();
    expect(&mut slow, &nack("incomplete")).await;
    running.engine.journal.add_permits(3);
    expect(&mut small, &ack("small")).await;
    let mut again = running.connect().await;
    let text = format!("MSH|{}", "y".repeat(200_000));
    again.write_all(&frame(&text)).await.unwrap();
    expect(&mut again, &ack(&text)).await;
}

/// The memory for messages is not held by acknowledgements that wait for outcomes (`ack = "delivered"`).
#[tokio::test]
async fn p6_a_message_that_is_stored_takes_no_memory_while_its_answer_waits() {
    let running = Running::start("longest_message = \"1MiB\"\nmemory = \"1100KiB\"\n").await;
    running.engine.outcomes.forget_permits(usize::MAX);
    let mut sockets = Vec::new();
    for n in 1..=3 {
        let mut socket = running.connect().await;
        let text = format!("{n}{}", "x".repeat(600_000));
        let sent = tokio::time::timeout(Duration::from_secs(20), async {
            socket.write_all(&frame(&text)).await.unwrap();
            running.accepted(n).await;
        });
        sent.await.expect("it is taken though nobody before it is answered");
        sockets.push((socket, text));
    }
    running.engine.outcomes.add_permits(3);
    for (socket, text) in &mut sockets {
        expect(socket, &ack(text)).await;
    }
}

#[tokio::test]
async fn p10_a_peer_that_takes_no_answer_does_not_hold_up_a_stop() {
    let running = Running::start("longest_message = \"64MiB\"\nframe_time = \"10m\"\n").await;
    let mut deaf = running.connect().await;
    // More than the system's buffers take: the answer repeats it.
    deaf.write_all(&frame(&"z".repeat(40_000_000))).await.unwrap();
    running.accepted(1).await;
    running.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), running.source).await;
    ended.expect("the source ends").unwrap().unwrap();
}

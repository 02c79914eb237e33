//! `tie send`: sends messages from files over MLLP, shows the acknowledgements and how long they took.
//!
//! Promises: each message waits for its own acknowledgement (MSA-2 is its control id) before the next goes out on
//! that connection; with one connection the order of the files is kept. Exit code 0 only if every message was
//! positively acknowledged. Segment ends in plain files become CR; framed files are sent as they are.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::mllp_client::Client;
use crate::hl7::{
    Message,
    ack::{self, AckCode},
    batch,
    framing::{self, Found, Scanner},
};

/// The longest message that is read from a framed file.
const LONGEST: usize = 1024 * 1024 * 1024;
/// Acknowledgements are printed one by one up to so many messages; beyond, only those that are not positive.
const PRINTED: usize = 50;

/// Send messages over MLLP and show what is answered.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to: host and port.
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// Files with one or more messages: plain, batch (FHS, BHS) or framed as in MLLP.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Connections at the same time. With more than one, the order of the messages is not kept.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), value_name = "NUMBER")]
    connections: u16,
    /// Send everything so often.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    repeat: usize,
    /// Messages a second, over all connections; without it, as fast as they are acknowledged.
    #[arg(long, value_parser = rate, value_name = "NUMBER")]
    rate: Option<f64>,
    /// Seconds to wait for a connection or an acknowledgement.
    #[arg(long, default_value_t = 30.0, value_parser = rate, value_name = "SECONDS")]
    timeout: f64,
    /// Give each message a control id of its own, so that repeats count as new messages.
    #[arg(long)]
    fresh_ids: bool,
    /// Print the summary as JSON; what was not acknowledged is told on stderr.
    #[arg(long)]
    json: bool,
}

/// A number that can be a rate or a time.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 && number < 1e9 => Ok(number),
        _ => Err("a number above zero".to_owned()),
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> ExitCode {
    let mut messages = Vec::new();
    for file in &arguments.files {
        match std::fs::read(file) {
            Ok(bytes) => messages.extend(split(bytes.into())),
            Err(error) => return failed(&format!("{}: {error}", file.display())),
        }
    }
    if messages.is_empty() {
        return failed("no message in these files");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let summary = runtime.block_on(send_all(arguments, messages));
    summary.print(arguments.json);
    match (summary.positive == summary.sent, summary.answered) {
        (true, _) => ExitCode::SUCCESS,
        (false, 0) => ExitCode::from(3),
        (false, _) => ExitCode::from(1),
    }
}

fn failed(what: &str) -> ExitCode {
    eprintln!("tie: {what}");
    ExitCode::from(3)
}

/// The messages of a file. Whatever is in it is sent as far as it can be: the receiver is to judge it.
pub(super) fn split(bytes: Bytes) -> Vec<Bytes> {
    if bytes.contains(&framing::VT) {
        let mut scanner = Scanner::new(LONGEST);
        let mut buffer = BytesMut::from(bytes.as_ref());
        let found = std::iter::from_fn(|| scanner.scan(&mut buffer));
        return found
            .filter_map(|found| if let Found::Message(raw) = found { Some(raw) } else { None })
            .collect();
    }
    let text = with_cr(&bytes);
    let parts = batch::split(&text).messages;
    if parts.is_empty() && !text.is_empty() { vec![text] } else { parts }
}

/// Every segment ends with CR, however the file was edited.
fn with_cr(bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len());
    let mut last = 0;
    for &byte in bytes {
        match byte {
            b'\n' if last == b'\r' => {}
            b'\n' => out.push(b'\r'),
            byte => out.push(byte),
        }
        last = byte;
    }
    out.into()
}

/// What every connection shares.
struct Load {
    address: String,
    patience: Duration,
    messages: Vec<Bytes>,
    total: usize,
    next: AtomicUsize,
    began: Instant,
    interval: Option<Duration>,
    /// Begins the fresh control ids.
    run: Option<String>,
    print_all: bool,
    json: bool,
}

/// What became of the messages.
#[derive(Default)]
struct Summary {
    sent: usize,
    answered: usize,
    positive: usize,
    latencies: Vec<Duration>,
    elapsed: Duration,
}

async fn send_all(arguments: &Arguments, messages: Vec<Bytes>) -> Summary {
    let total = messages.len().saturating_mul(arguments.repeat);
    let load = std::sync::Arc::new(Load {
        address: arguments.address.clone(),
        patience: Duration::from_secs_f64(arguments.timeout),
        messages,
        total,
        next: AtomicUsize::new(0),
        began: Instant::now(),
        interval: arguments.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
        run: arguments.fresh_ids.then(run_id),
        print_all: total <= PRINTED && !arguments.json,
        json: arguments.json,
    });
    let mut connections = JoinSet::new();
    for _ in 0..usize::from(arguments.connections).min(total.max(1)) {
        connections.spawn(converse(load.clone()));
    }
    let mut all = Summary::default();
    while let Some(done) = connections.join_next().await {
        let Ok(part) = done else { continue };
        all.sent += part.sent;
        all.answered += part.answered;
        all.positive += part.positive;
        all.latencies.extend(part.latencies);
    }
    // A connection that ended by a fault took a message with it.
    all.sent = all.sent.max(total);
    all.elapsed = load.began.elapsed();
    all.latencies.sort_unstable();
    all
}

fn run_id() -> String {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    format!("{:09X}", high >> 28)
}

/// One connection's share: the next message as soon as the last is answered.
async fn converse(load: std::sync::Arc<Load>) -> Summary {
    let mut summary = Summary::default();
    let mut client = None;
    loop {
        let number = load.next.fetch_add(1, Ordering::Relaxed);
        if number >= load.total {
            return summary;
        }
        if let Some(interval) = load.interval {
            let due = load.began + interval.mul_f64(number as f64);
            tokio::time::sleep_until(due.into()).await;
        }
        summary.sent += 1;
        let Some((message, control_id)) = load.message(number) else { continue };
        let began = Instant::now();
        match load.exchange(&mut client, &message).await {
            Ok(answer) => {
                let took = began.elapsed();
                summary.answered += 1;
                summary.latencies.push(took);
                let (positive, line) = judge(&answer, &control_id);
                summary.positive += usize::from(positive);
                if load.print_all || !positive {
                    load.tell(format_args!(
                        "{control_id:<20}  {line}  {:.1} ms",
                        took.as_secs_f64() * 1000.0
                    ));
                }
            }
            Err(error) => {
                client = None;
                load.tell(format_args!("{control_id:<20}  no answer: {error}"));
            }
        }
    }
}

impl Load {
    /// Tells of one message: beside the JSON, which has stdout to itself.
    fn tell(&self, line: std::fmt::Arguments<'_>) {
        if self.json { super::complain(line) } else { super::say(format_args!("{line}\n")) }
    }

    fn message(&self, number: usize) -> Option<(Bytes, String)> {
        let message = self.messages.get(number % self.messages.len().max(1))?;
        let message = match &self.run {
            Some(run) => with_control_id(message, &format!("{run}{number:08}")),
            None => message.clone(),
        };
        let parsed = Message::parse(message.clone(), encoding_rs::UTF_8);
        let control_id = parsed.map(|message| message.control_id().into_owned()).unwrap_or_default();
        Some((message, control_id))
    }

    async fn exchange(&self, client: &mut Option<Client>, message: &[u8]) -> std::io::Result<Bytes> {
        let framed = framing::frame(message).map_err(std::io::Error::other)?;
        let connected = match client.take() {
            Some(connected) => connected,
            None => Client::connect(&self.address, self.patience).await?,
        };
        client.insert(connected).exchange(&framed).await
    }
}

/// Puts a control id in MSH-10, if there is one.
pub(super) fn with_control_id(message: &Bytes, id: &str) -> Bytes {
    let Some(&separator) = message.strip_prefix(b"MSH").and_then(|rest| rest.first()) else {
        return message.clone();
    };
    let end = message.iter().position(|byte| *byte == b'\r').unwrap_or(message.len());
    let (header, rest) = message.split_at(end);
    let mut fields: Vec<&[u8]> = header.split(|byte| *byte == separator).collect();
    match fields.get_mut(9) {
        Some(field) => *field = id.as_bytes(),
        None => return message.clone(),
    }
    let mut changed = fields.join(&separator);
    changed.extend_from_slice(rest);
    changed.into()
}

/// Whether an answer is positive and for this message, and what it says.
pub(super) fn judge(answer: &Bytes, control_id: &str) -> (bool, String) {
    let parsed = Message::parse(answer.clone(), encoding_rs::UTF_8).ok();
    let Some(said) = parsed.as_ref().and_then(ack::answer) else {
        return (false, "what came back is no acknowledgement".to_owned());
    };
    let code = said.code.map_or("??", AckCode::as_str);
    if said.control_id != control_id {
        return (false, format!("{code} for another message: {}", said.control_id));
    }
    let text = if said.text.is_empty() { String::new() } else { format!(" {}", said.text) };
    (said.code.is_some_and(AckCode::is_positive), format!("{code}{text}"))
}

impl Summary {
    fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
    }

    fn print(&self, json: bool) {
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.answered as f64 / seconds.max(1e-9);
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.percentile(percent).as_secs_f64() * 1000.0);
        if json {
            let summary = serde_json::json!({
                "sent": self.sent,
                "answered": self.answered,
                "positive": self.positive,
                "seconds": seconds,
                "per_second": rate,
                "latency_ms": {"p50": p50, "p99": p99, "max": max},
            });
            println!("{summary}");
        } else {
            println!(
                "{} sent, {} acknowledged, {} of them positively, in {seconds:.2} s: {rate:.0}/s",
                self.sent, self.answered, self.positive
            );
            if self.answered > 0 {
                println!("acknowledged after {p50:.2} ms (median), {p99:.2} ms (99%), {max:.2} ms (longest)");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<String> {
        let parts = split(Bytes::copy_from_slice(text.as_bytes()));
        parts.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }

    #[test]
    fn plain_batch_and_framed_files_are_split_into_messages() {
        let (one, two) = ("MSH|^~\\&|1\rPID|1\r", "MSH|^~\\&|2\r");
        assert_eq!(parts(&one.replace('\r', "\n")), [one]);
        assert_eq!(parts(&format!("{one}{two}").replace('\r', "\r\n")), [one, two]);
        assert_eq!(parts(&format!("FHS|^~\\&\rBHS|^~\\&\r{one}{two}BTS|2\rFTS|1\r")), [one, two]);
        assert_eq!(parts(&format!("\x0B{one}\x1C\r\x0B{two}\x1C\r")), [one, two]);
        assert_eq!(parts("nothing known\n"), ["nothing known\r"], "the receiver is to judge it");
        assert!(parts("").is_empty());
    }

    #[test]
    fn a_fresh_control_id_changes_nothing_else() {
        let message = Bytes::from_static(b"MSH|^~\\&|A|B|C|D|20260301||ADT^A01|OLD|P|2.4\rPID|||OLD\r");
        let changed = with_control_id(&message, "NEW");
        assert_eq!(changed, "MSH|^~\\&|A|B|C|D|20260301||ADT^A01|NEW|P|2.4\rPID|||OLD\r");
        assert_eq!(with_control_id(&Bytes::from_static(b"MSH|^~\\&|A\r"), "NEW"), "MSH|^~\\&|A\r");
    }

    #[test]
    fn only_a_positive_answer_to_this_very_message_counts() {
        let answer = |msa: &str| {
            let text = format!("MSH|^~\\&|T|R|P|R|20260301||ACK|9|P|2.4\rMSA|{msa}\r");
            judge(&Bytes::from(text), "M1").0
        };
        assert!(answer("AA|M1") && answer("CA|M1"));
        assert!(!answer("AE|M1") && !answer("AR|M1") && !answer("AA|M2") && !answer("AA|"));
        assert!(!judge(&Bytes::from_static(b"hello"), "M1").0);
    }

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let latencies = (1..=100).map(Duration::from_millis).collect();
        let summary = Summary { latencies, ..Summary::default() };
        assert_eq!(summary.percentile(50).as_millis(), 51);
        assert_eq!(summary.percentile(99).as_millis(), 100);
        assert_eq!(Summary::default().percentile(99), Duration::ZERO);
    }

    /// Answers each message by what stands in its sending application; `none` gets no answer.
    async fn receiver() -> (String, tokio::task::JoinHandle<()>) {
        use tokio::io::AsyncWriteExt;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serve = async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut scanner, mut buffer) = (Scanner::new(LONGEST), BytesMut::new());
                    loop {
                        while let Some(Found::Message(raw)) = scanner.scan(&mut buffer) {
                            let text = String::from_utf8(raw.to_vec()).unwrap();
                            let fields: Vec<&str> = text.split('|').collect();
                            if fields[2] == "none" {
                                return;
                            }
                            let answer = format!(
                                "MSH|^~\\&|T|R|P|R|1||ACK|9|P|2.4\rMSA|{}|{}\r",
                                fields[2], fields[9]
                            );
                            socket.write_all(&framing::frame(answer.as_bytes()).unwrap()).await.unwrap();
                        }
                        if tokio::io::AsyncReadExt::read_buf(&mut socket, &mut buffer).await.unwrap_or(0) == 0
                        {
                            return;
                        }
                    }
                });
            }
        };
        (address, tokio::spawn(serve))
    }

    fn message(code: &str, id: &str) -> Bytes {
        Bytes::from(format!("MSH|^~\\&|{code}|B|C|D|20260301||ADT^A01|{id}|P|2.4\r"))
    }

    fn arguments(address: &str, connections: u16, repeat: usize) -> Arguments {
        Arguments {
            address: address.to_owned(),
            files: Vec::new(),
            connections,
            repeat,
            rate: None,
            timeout: 30.0,
            fresh_ids: connections > 1,
            json: false,
        }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_counted_and_measured() {
        let (address, _receiver) = receiver().await;
        let messages = ["AA", "AE", "none", "AA"].into_iter().enumerate();
        let messages = messages.map(|(n, code)| message(code, &format!("M{n}"))).collect();
        let summary = send_all(&arguments(&address, 1, 1), messages).await;
        assert_eq!(
            (summary.sent, summary.answered, summary.positive),
            (4, 3, 2),
            "and it goes on after a silence"
        );
        let summary =
            send_all(&arguments(&address, 8, 100), vec![message("AA", "SAME"), message("CA", "")]).await;
        assert_eq!((summary.sent, summary.answered, summary.positive), (200, 200, 200));
        assert!(summary.percentile(100) >= summary.percentile(50));
    }

    #[tokio::test]
    async fn nobody_there_is_no_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let summary = send_all(&arguments(&address, 1, 3), vec![message("AA", "M")]).await;
        assert_eq!((summary.sent, summary.answered, summary.positive), (3, 0, 0));
    }
}

//! `tie demo`: the whole road at work, to watch. What `./ops/demo` runs.
//!
//! Promises: everything is real but the hospital: the engine of `tie run` with the given configuration, real
//! sockets, the journal on disk, the record of `tie demo-record`. A third of the way, the record goes away on purpose.
//! With `--seconds` it ends by itself, and ends well only if the record has every message that was acknowledged.
//! Left to others: proof under kill -9 (`engine/tests/crash.rs`).

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    Exit, Place, client, complain, demo_record, mllp_client::Client, report, run as engine, say, send,
};
use crate::{
    config,
    connector::Plugin,
    hl7::framing,
    revision::Revision,
    supervisor::{self, Failure, Setup},
};

/// Show the whole road at work.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// End after so many seconds; well only if everything acknowledged was delivered. Without it, Ctrl-C ends it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=604_800), value_name = "NUMBER")]
    seconds: Option<u64>,
    /// Messages to send.
    #[arg(long, default_value_t = 300, value_name = "NUMBER")]
    messages: usize,
    /// Where the engine takes messages, as in the configuration.
    #[arg(long, default_value = "127.0.0.1:2575", value_name = "ADDRESS")]
    mllp: SocketAddr,
    /// Where the record is to listen, as in the configuration.
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDRESS")]
    record: SocketAddr,
}

/// How long the record is away.
const AWAY: Duration = Duration::from_secs(5);
/// Messages a second, unless the time given asks for more.
const RATE: f64 = 15.0;
/// How long an acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the sender knows.
#[derive(Default)]
struct Ledger {
    sent: usize,
    acknowledged: BTreeSet<String>,
    refused: Vec<String>,
    done: bool,
}

pub(super) fn run(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Exit {
    let (admin, samples) = match prepare(place, plugins) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let show = Show { arguments, admin, ledger: Arc::default(), began: Instant::now() };
    let exit = runtime.block_on(show.run(place.setup(plugins), samples));
    runtime.shutdown_timeout(Duration::from_secs(2));
    exit
}

/// The admin address, and the messages of the routes' own tests that a destination gets something of.
fn prepare(place: &Place, plugins: &'static [Plugin]) -> Result<(SocketAddr, Vec<Bytes>), Exit> {
    let fault = |problems: Vec<crate::error::Problem>| {
        let snapshot = place.snapshot().ok();
        complain(report::rendered(&problems, snapshot.as_ref(), report::wants_colour()));
        Exit::Wrong
    };
    let snapshot = config::snapshot(&place.home, place.config.as_deref()).map_err(fault)?;
    let revision = Revision::build(&snapshot, plugins).map_err(fault)?;
    let tests = revision.routes.iter().flat_map(|route| &route.tests);
    let samples: Vec<Bytes> = tests
        .filter(|test| snapshot.samples.get(&test.expect).is_some_and(|expect| expect.starts_with(b"{")))
        .filter_map(|test| snapshot.samples.get(&test.message))
        .flat_map(|file| send::split(file.clone()))
        .collect();
    if samples.is_empty() {
        complain("tie: no route has a test with a message to send");
        return Err(Exit::Wrong);
    }
    Ok((crate::admin::callable(revision.config.admin.listen), samples))
}

struct Show<'a> {
    arguments: &'a Arguments,
    admin: SocketAddr,
    ledger: Arc<Mutex<Ledger>>,
    began: Instant,
}

impl Show<'_> {
    async fn run(&self, setup: Setup, samples: Vec<Bytes>) -> Exit {
        let record = tokio::spawn(demo_record::serve(self.arguments.record));
        let stop = CancellationToken::new();
        tokio::spawn(engine::stop_on_signal(stop.clone()));
        let running = tokio::spawn(supervisor::run(setup, stop.clone()));
        let watched = tokio::select! {
            watched = self.watch(samples) => watched,
            () = stop.cancelled() => self.verdict().await,
            ended = record => {
                let why = ended.ok().and_then(Result::err).map_or_else(String::new, |error| error.to_string());
                complain(format_args!("tie: the record at {} has ended: {why}", self.arguments.record));
                Exit::Unreachable
            }
            () = until(|| running.is_finished()) => Exit::Unreachable,
        };
        stop.cancel();
        match running.await {
            Ok(Ok(())) => watched,
            Ok(Err(Failure::Configuration(problems))) => {
                complain(report::rendered(&problems, None, report::wants_colour()));
                Exit::Wrong
            }
            Ok(Err(failure)) => {
                complain(format_args!("tie: {failure}"));
                Exit::Unreachable
            }
            Err(_) => Exit::Unreachable,
        }
    }

    /// Shows a line a second until the time is up.
    async fn watch(&self, samples: Vec<Bytes>) -> Exit {
        until(|| matches!(client::fetch(self.admin, "GET", "/readyz", ""), Ok((200, _)))).await;
        self.introduce();
        let rate = self.arguments.seconds.map_or(RATE, |seconds| {
            // All is sent in the first half, so that what the away time leaves behind can be caught up with.
            RATE.max(self.arguments.messages as f64 * 2.0 / seconds as f64)
        });
        let sender = Sender {
            address: self.arguments.mllp,
            messages: self.arguments.messages,
            pause: Duration::from_secs_f64(1.0 / rate),
            ledger: self.ledger.clone(),
        };
        tokio::spawn(sender.run(samples));
        let (mut away, mut told) = (false, false);
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (sent, done) = {
                let ledger = self.ledger.lock();
                (ledger.sent, ledger.done)
            };
            if !away && sent * 3 > self.arguments.messages {
                away = true;
                self.send_away();
            }
            let waiting = self.line();
            if done && waiting == Some(0) && !told {
                told = true;
                let exit = self.verdict().await;
                if self.arguments.seconds.is_none() {
                    say(
                        "Everything keeps running, so that you can look at it or send more: Ctrl-C ends it.\n",
                    );
                } else {
                    return exit;
                }
            }
            if self.arguments.seconds.is_some_and(|seconds| self.began.elapsed().as_secs() >= seconds) {
                return self.verdict().await;
            }
        }
    }

    fn introduce(&self) {
        say(format_args!(
            "An engine, a care record and a stream of messages, all real, all on this machine.\n\n  \
             the engine's status   http://{admin}/\n  its metrics           http://{admin}/metrics\n  \
             the care record       http://{record}/\n  send more yourself    tie send {mllp} FILE…\n\n\
             {:>5}  {:>8}  {:>6}  {:>9}  {:>6}  {:>7}\n",
            "time",
            "received",
            "mapped",
            "delivered",
            "failed",
            "waiting",
            admin = self.admin,
            record = self.arguments.record,
            mllp = self.arguments.mllp,
        ));
    }

    fn send_away(&self) {
        let path = format!("/$away?seconds={}", AWAY.as_secs());
        if client::fetch(self.arguments.record, "POST", &path, "").is_ok() {
            say(format_args!(
                "        the record goes away for {} s, on purpose: messages are still acknowledged, and wait\n",
                AWAY.as_secs()
            ));
        }
    }

    /// Prints how things stand; tells how many deliveries wait.
    fn line(&self) -> Option<u64> {
        let (_, metrics) = client::fetch(self.admin, "GET", "/metrics", "").ok()?;
        let waiting = client::sum(&metrics, "tie_deliveries_pending{", |labels| !labels.contains("dead"));
        say(format_args!(
            "{:>4}s  {:>8}  {:>6}  {:>9}  {:>6}  {:>7}\n",
            self.began.elapsed().as_secs(),
            client::sum(&metrics, "tie_messages_received_total{", |_| true),
            client::sum(&metrics, "tie_mapping_seconds_count{", |_| true),
            client::sum(&metrics, "tie_deliveries_total{", |labels| labels.contains("state=\"delivered\"")),
            client::sum(&metrics, "tie_delivery_attempt_seconds_count{", |labels| !labels
                .contains("result=\"ok\"")),
            waiting,
        ));
        Some(waiting)
    }

    /// Whether the record has everything that was acknowledged.
    async fn verdict(&self) -> Exit {
        let arrived: BTreeSet<String> = client::exchange(self.arguments.record, "GET", "/$ledger", "")
            .ok()
            .and_then(|(_, answer)| serde_json::from_value(answer.get("arrivals")?.clone()).ok())
            .unwrap_or_default();
        let ledger = self.ledger.lock();
        let missing = ledger.acknowledged.difference(&arrived).count();
        say(format_args!(
            "\n{} messages sent, {} acknowledged, {} of these are in the record, {missing} are not.\n",
            ledger.sent,
            ledger.acknowledged.len(),
            ledger.acknowledged.len() - missing,
        ));
        for refused in ledger.refused.iter().take(10) {
            say(format_args!("not acknowledged: {refused}\n"));
        }
        let all = missing == 0 && ledger.refused.is_empty() && !ledger.acknowledged.is_empty();
        if all { Exit::Well } else { Exit::Wrong }
    }
}

/// A hospital of one connection.
struct Sender {
    address: SocketAddr,
    messages: usize,
    pause: Duration,
    ledger: Arc<Mutex<Ledger>>,
}

impl Sender {
    async fn run(self, samples: Vec<Bytes>) {
        let mut tick = tokio::time::interval(self.pause);
        let mut client = None;
        for (number, sample) in samples.iter().cycle().take(self.messages).enumerate() {
            tick.tick().await;
            let control_id = format!("DEMO{number:06}");
            let message = send::with_control_id(sample, &control_id);
            self.ledger.lock().sent += 1;
            let answered = self.exchange(&mut client, &message, &control_id).await;
            let mut ledger = self.ledger.lock();
            match answered {
                Ok((true, _)) => {
                    ledger.acknowledged.insert(control_id);
                }
                Ok((false, what)) | Err(what) => ledger.refused.push(format!("{control_id}: {what}")),
            }
        }
        self.ledger.lock().done = true;
    }

    async fn exchange(
        &self,
        client: &mut Option<Client>,
        message: &Bytes,
        control_id: &str,
    ) -> Result<(bool, String), String> {
        let mut open = match client.take() {
            Some(open) => open,
            None => {
                let connected = Client::connect(&self.address.to_string(), PATIENCE).await;
                connected.map_err(|error| error.to_string())?
            }
        };
        let framed = framing::frame(message).map_err(|error| error.to_string())?;
        let answer = open.exchange(&framed).await.map_err(|error| error.to_string())?;
        *client = Some(open);
        Ok(send::judge(&answer, control_id))
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! The processes of the bench: the engine, the receiver, the clients and the bare road, each of them this binary.
//!
//! Promise: none outlives the bench. Each asks the system to end it when the bench ends, however that happens (Linux;
//! elsewhere they are ended when the bench stops by itself or is asked to).

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufRead,
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Failure, arrivals::Arrived, bare, direct, fill, load, receiver};
use crate::{
    cli::{Exit, Place, client, complain, say},
    connector::Plugin,
};

/// How long the engine may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of the processes that `tie bench` starts.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Becomes the engine.
    Engine,
    /// Takes bundles and counts them.
    Receiver,
    /// Sends messages by a plan on stdin, until that ends.
    Load,
    /// Posts a bundle by a plan on stdin.
    Direct,
    /// Fills the journal of the home directory by a plan on stdin.
    Fill,
    /// Becomes the bare road by a plan on stdin, until that ends.
    Bare,
}

/// Runs a part.
pub(in crate::cli) fn run(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Exit {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(error),
    };
    let done = match arguments.part {
        Part::Engine => return become_engine(&place.home),
        Part::Receiver => tokio::task::LocalSet::new().block_on(&runtime, receiver::serve()),
        Part::Load => plan().map(|plan| answer(&runtime.block_on(load::send(plan, end_of_input())))),
        Part::Direct => plan().map(|plan| answer(&runtime.block_on(direct::post(plan)))),
        Part::Fill => plan()
            .and_then(|plan| runtime.block_on(fill::fill(plan, place, plugins)))
            .map(|filled| answer(&filled)),
        Part::Bare => plan().and_then(|plan| bare::run(plan, place, plugins, lines())),
    };
    runtime.shutdown_background();
    done.map_or_else(failed, |()| Exit::Well)
}

fn failed(error: std::io::Error) -> Exit {
    complain(format_args!("tie: {error}"));
    Exit::Unreachable
}

fn become_engine(home: &Path) -> Exit {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return failed(error),
    };
    failed(std::process::Command::new(program).arg("--home").arg(home).arg("run").exec())
}

fn plan<T: DeserializeOwned>() -> std::io::Result<T> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    serde_json::from_str(&line).map_err(std::io::Error::other)
}

fn answer(value: &impl Serialize) {
    say(serde_json::to_string(value).unwrap_or_default());
}

/// Cancelled when stdin ends.
fn end_of_input() -> CancellationToken {
    let stop = CancellationToken::new();
    let told = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        told.cancel();
    });
    stop
}

/// Tells of each further line of stdin, and of its end.
fn lines() -> mpsc::UnboundedReceiver<()> {
    let (told, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let whole = std::io::stdin().lines().map_while(Result::ok);
        whole.take_while(|_| told.send(()).is_ok()).for_each(drop);
    });
    lines
}

fn command(part: &str) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::unable("this program", &error))?;
    let mut command = Command::new(program);
    command.args(["bench-part", part]).kill_on_drop(true);
    Ok(command)
}

/// A client that is at work.
pub(super) struct Client {
    child: Child,
    /// It ends when this does.
    stdin: ChildStdin,
}

impl Client {
    /// Starts a client, `load` or `direct`, with its plan.
    pub(super) async fn start(part: &str, plan: &impl Serialize) -> Result<Self, Failure> {
        Self::of(command(part)?, plan).await
    }

    /// Starts what works in a home directory, `fill` or `bare`.
    pub(super) async fn at_home(
        part: &str,
        home: &Path,
        environment: &[(&str, String)],
        plan: &impl Serialize,
    ) -> Result<Self, Failure> {
        let mut command = command(part)?;
        command.arg("--home").arg(home).envs(environment.iter().map(|(name, value)| (name, value)));
        Self::of(command, plan).await
    }

    async fn of(mut command: Command, plan: &impl Serialize) -> Result<Self, Failure> {
        let wrong = |error: std::io::Error| Failure::unable("a process of the bench", &error);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(wrong)?;
        let Some(mut stdin) = child.stdin.take() else { return Err(Failure::Unable("no stdin".to_owned())) };
        let mut line = serde_json::to_vec(plan).unwrap_or_default();
        line.push(b'\n');
        stdin.write_all(&line).await.map_err(wrong)?;
        Ok(Self { child, stdin })
    }

    /// Its process.
    pub(super) fn process(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// The next line that it says; it says no more than that until it is asked.
    pub(super) async fn says(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            let read = timeout(PATIENCE, BufReader::new(stdout).read_line(&mut line)).await;
            drop(read);
        }
        match line.is_empty() {
            false => Ok(line),
            true => Err(Failure::Unable("a process of the bench says nothing any more".to_owned())),
        }
    }

    /// Asks by an empty line for a line.
    pub(super) async fn ask(&mut self) -> Result<String, Failure> {
        let asked = self.stdin.write_all(b"\n").await;
        asked.map_err(|error| Failure::unable("a process of the bench", &error))?;
        self.says().await
    }

    /// Waits for what it says in the end.
    pub(super) async fn ended<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let Self { child, stdin } = self;
        let output = child
            .wait_with_output()
            .await
            .map_err(|error| Failure::unable("a process of the bench", &error))?;
        drop(stdin);
        serde_json::from_slice(&output.stdout)
            .map_err(|_| Failure::Unable(format!("a process of the bench has failed: {}", output.status)))
    }

    /// Asks it to stop, and waits.
    pub(super) async fn stop<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let Self { mut child, stdin } = self;
        drop(stdin);
        let mut said = Vec::new();
        if let Some(stdout) = &mut child.stdout {
            let _ = stdout.read_to_end(&mut said).await;
        }
        let _ = child.wait().await;
        serde_json::from_slice(&said).map_err(|_| Failure::Unable("the load client has failed".to_owned()))
    }
}

/// The receiver.
pub(super) struct Receiver {
    _child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Receiver {
    /// Starts it.
    pub(super) async fn start() -> Result<Self, Failure> {
        let wrong = |error: std::io::Error| Failure::unable("the receiver", &error);
        let mut child =
            command("receiver")?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(wrong)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).await.map_err(wrong)?;
        }
        let address = line.trim().parse();
        let address = address.map_err(|_| Failure::Unable("the receiver does not start".to_owned()))?;
        Ok(Self { _child: child, address })
    }

    /// One of its pages.
    pub(super) fn page(&self, method: &str, path: &str) -> Result<String, Failure> {
        let told = client::fetch(self.address, method, path, "");
        told.map(|(_, text)| text).map_err(|error| Failure::unable("the receiver", &error))
    }

    /// What each of so many destinations has.
    pub(super) fn arrived(&self, destinations: u8) -> Result<Vec<Arrived>, Failure> {
        let mut told: BTreeMap<u8, Arrived> =
            serde_json::from_str(&self.page("GET", "/$report")?).unwrap_or_default();
        Ok((1..=destinations).map(|number| told.remove(&number).unwrap_or_default()).collect())
    }
}

/// The engine.
pub(super) struct Engine {
    child: Child,
    /// Its process.
    pub process: u32,
    admin: SocketAddr,
    log: PathBuf,
    /// From the start until it was ready.
    pub ready_after: Duration,
}

impl Engine {
    /// Starts it in its directory, and waits until it is ready.
    pub(super) async fn start(
        home: &Path,
        admin: SocketAddr,
        environment: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let log = home.join("engine.log");
        let wrong = |error: std::io::Error| Failure::unable("the engine", &error);
        let out = File::create(&log).map_err(wrong)?;
        let err = out.try_clone().map_err(wrong)?;
        let began = Instant::now();
        let child = command("engine")?
            .arg("--home")
            .arg(home)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(wrong)?;
        let process = child.id().unwrap_or_default();
        let mut engine = Self { child, process, admin, log, ready_after: Duration::ZERO };
        while !matches!(client::fetch(admin, "GET", "/readyz", ""), Ok((200, _))) {
            if began.elapsed() > PATIENCE || !matches!(engine.child.try_wait(), Ok(None)) {
                return Err(engine.told("the engine does not start"));
            }
            sleep(Duration::from_millis(5)).await;
        }
        engine.ready_after = began.elapsed();
        Ok(engine)
    }

    /// A page of its admin listener.
    pub(super) fn page(&self, method: &str, path: &str, body: &str) -> Result<String, Failure> {
        match client::fetch(self.admin, method, path, body) {
            Ok((200, text)) => Ok(text),
            Ok((status, text)) => Err(self.told(&format!("the engine answers {status} for {path}: {text}"))),
            Err(error) => Err(self.told(&format!("the engine does not answer: {error}"))),
        }
    }

    /// Asks it to stop, and waits.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        let process = i32::try_from(self.process).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(process) = process {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            _ => Err(self.told("the engine does not stop as it should")),
        }
    }

    /// A fault with the end of the log.
    fn told(&self, what: &str) -> Failure {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
        Failure::Unable(format!("{what}; its log ends:\n{end}"))
    }
}

/// Addresses where nobody listens now. All are held until the last is found: one that is let go may be given again.
pub(super) fn free_addresses() -> Result<[SocketAddr; 3], Failure> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let free = || -> std::io::Result<_> {
        let (one, two, three) = (bind()?, bind()?, bind()?);
        Ok([one.local_addr()?, two.local_addr()?, three.local_addr()?])
    };
    free().map_err(|error| Failure::unable("a free port", &error))
}

//! A real PostgreSQL server for as long as a test needs it: a cluster of its own in a temporary directory, reached by a
//! socket there, started again when it dies, stopped and removed with the process that started it, whatever ends that.
//!
//! On std alone: shared by the tests of the engine, those of the whole binary and the benches.
#![allow(dead_code)] // each user takes its part

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps a server running as a service manager would, until its input ends: then it stops the server and clears away.
const KEEPER: &str = r#"
home=$1; shift
touch "$home/run" "$home/running"
(
  while [ -e "$home/run" ]; do
    "$@" </dev/null >>"$home/log" 2>&1
    sleep 0.05
  done
  rm "$home/running"
) &
read -r _
rm "$home/run"
while [ -e "$home/running" ]; do
  pid=$(head -n 1 "$home/data/postmaster.pid") && kill -QUIT "$pid"
  sleep 0.05
done
wait
rm -rf "$home"
"#;

/// A running server. Its role `tie` may do everything and needs no password.
pub struct Server {
    home: PathBuf,
    programs: PathBuf,
    keeper: Child,
    /// The keeper ends when this does.
    leash: Option<ChildStdin>,
    databases: AtomicUsize,
}

impl Server {
    /// The one server of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// Starts a server of its own, with settings such as `fsync=off`.
    pub fn start(settings: &[&str]) -> Self {
        let programs = programs();
        let home = tempfile::Builder::new().prefix("tie-postgres-").tempdir().unwrap().keep();
        let server_user = Command::new("chown").arg("postgres").arg(&home).output();
        assert!(!root() || server_user.is_ok_and(|output| output.status.success()), "no user `postgres`");
        let data = home.join("data");
        let mut make = as_server(&programs.join("initdb"));
        make.args([
            "--no-sync",
            "-U",
            "tie",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--wal-segsize=16",
            "-D",
        ]);
        let made = make.arg(&data).output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let postgres = as_server(&programs.join("postgres"));
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", KEEPER, "keeper"])
            .arg(&home)
            .arg(postgres.get_program())
            .args(postgres.get_args());
        keeper.arg("-D").arg(&data).arg("-k").arg(&home).args(["-c", "listen_addresses="]);
        for setting in settings {
            keeper.args(["-c", setting]);
        }
        let mut keeper =
            keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let leash = keeper.stdin.take();
        let server = Self { home, programs, keeper, leash, databases: AtomicUsize::new(0) };
        server.wait_until_ready();
        server
    }

    /// The directory of the socket; the port is 5432.
    pub fn socket(&self) -> &Path {
        &self.home
    }

    /// A new, empty database.
    pub fn database(&self) -> String {
        let name = format!("tie{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let output = Command::new(self.programs.join("createdb"))
            .arg("-h")
            .arg(&self.home)
            .args(["-U", "tie", "--maintenance-db=postgres", "--template=template0", &name])
            .output()
            .expect("createdb runs");
        assert!(output.status.success(), "createdb: {}", String::from_utf8_lossy(&output.stderr));
        name
    }

    /// A new database with what another holds, by `pg_dump` and `pg_restore` as a person uses them.
    pub fn restored(&self, from: &str) -> String {
        let (to, copy) = (self.database(), self.home.join("copy"));
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(self.programs.join(program));
            command.arg("-h").arg(&self.home).args(["-U", "tie"]).args(arguments);
            let output = command.arg(&copy).output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run("pg_dump", &["-n", "tie", "-Fc", from, "-f"]);
        run("pg_restore", &["-d", &to]);
        to
    }

    /// Sends the server a signal, KILL (a crash) or QUIT (an immediate stop); it comes up again by itself.
    pub fn crash(&self, signal: &str) {
        let process = self.process().expect("the server runs");
        let status = Command::new("kill").arg(format!("-{signal}")).arg(&process).status().unwrap();
        assert!(status.success());
        self.wait(|| self.process().is_none_or(|now| now != process));
    }

    pub fn wait_until_ready(&self) {
        self.wait(|| {
            let told = fs::read_to_string(self.home.join("data/postmaster.pid")).unwrap_or_default();
            told.lines().nth(7).is_some_and(|status| status.trim() == "ready")
        });
    }

    fn process(&self) -> Option<String> {
        let told = fs::read_to_string(self.home.join("data/postmaster.pid")).ok()?;
        told.lines().next().map(str::to_owned)
    }

    fn wait(&self, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for PostgreSQL, which said:\n{log}");
            std::thread::sleep(Duration::from_millis(20)); // poll
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.keeper.wait();
    }
}

/// Where the server's programs are. Without them the tests fail: a store that is not tested is not promised.
fn programs() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = debian
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut places = versions.into_iter().rev().map(|(_, path)| path).chain(on_path);
    places.find(|place| place.join("initdb").exists() && place.join("postgres").exists()).expect(
        "PostgreSQL's server (initdb, postgres) is not installed: run ops/tools as root, or install it",
    )
}

/// A program of the server, which refuses to run as root.
fn as_server(program: &Path) -> Command {
    if !root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    command.current_dir("/");
    command
}

fn root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

//! What tests of the whole binary share: real processes, real sockets, and clients of their own, written on
//! std alone so that a fault of the engine's codec cannot hide behind itself.
#![allow(dead_code)] // each test binary uses its part

pub mod hostile;
pub mod machine;
pub mod postgres;
pub mod relay;
pub mod senders;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long a condition may take before the test fails. Generous: CI machines are slow and noisy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A child that is killed when the test is done with it, whatever happened.
pub struct Process(pub Child);

impl Process {
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Asks it to stop as a service manager would.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An instance of TIE in a directory of its own: the shipped routes and mappings, a listener, a destination.
pub struct Instance {
    pub home: tempfile::TempDir,
    pub mllp: u16,
    pub admin: u16,
    pub record: u16,
    pub fhir: u16,
}

impl Instance {
    /// Lays out the directory with the shipped configuration. Nothing runs yet.
    pub fn new() -> Self {
        let [mllp, admin, record, fhir] = free_ports();
        let instance = Self { home: tempfile::tempdir().unwrap(), mllp, admin, record, fhir };
        for folder in ["routes", "mappings", "testdata"] {
            copy_tree(&top().join(folder), &instance.path(folder));
        }
        instance.write("tie.toml", &instance.config());
        instance
    }

    /// The `tie.toml` of the instance.
    pub fn config(&self) -> String {
        format!(
            r#"environment = "test"

[journal]
path = "journal"

[admin]
listen = "127.0.0.1:{admin}"

[listener.hospital]
kind = "mllp"
listen = "127.0.0.1:{mllp}"

[listener.fhir]
kind = "fhir"
listen = "127.0.0.1:{fhir}"

[destination.epr]
kind = "http"
url = "http://127.0.0.1:9/epr"

[destination.shared-care-record]
kind = "fhir"
base = "http://127.0.0.1:{record}/fhir"
timeout = "5s"
"#,
            fhir = self.fhir,
            admin = self.admin,
            mllp = self.mllp,
            record = self.record
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file of the configuration as an editor does: beside it, then renamed over it.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("tmp~");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Starts the engine and waits until it is ready.
    pub fn start(&self) -> Process {
        let mut process = self.spawn();
        self.until_ready(&mut process);
        process
    }

    /// The same with more in its environment.
    pub fn start_with(&self, environment: &[(&str, &str)]) -> Process {
        let mut above = Command::new("env");
        above.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        let mut process = self.spawn_under(Some(above));
        self.until_ready(&mut process);
        process
    }

    /// Waits until an engine that was started is ready.
    pub fn until_ready(&self, process: &mut Process) {
        let mut answer = None;
        let began = Instant::now();
        wait("the engine to be ready", || {
            assert!(began.elapsed() < PATIENCE, "{answer:?} after {PATIENCE:?}:\n{}", self.log());
            if let Some(status) = process.0.try_wait().unwrap() {
                panic!("the engine ended with {status}:\n{}", self.log());
            }
            answer = http(self.admin, "GET", "/readyz", "");
            answer.as_ref().is_some_and(|(status, _)| *status == 200)
        });
    }

    /// Starts the engine without waiting. Everything it prints goes to `engine.log`.
    pub fn spawn(&self) -> Process {
        self.spawn_under(None)
    }

    /// The same beneath another program, such as `strace`, which gets the command as its last arguments.
    pub fn spawn_under(&self, above: Option<Command>) -> Process {
        let log = fs::File::options().create(true).append(true).open(self.path("engine.log")).unwrap();
        let tie = env!("CARGO_BIN_EXE_tie");
        let mut command = match above {
            Some(mut above) => {
                above.arg(tie);
                above
            }
            None => Command::new(tie),
        };
        let child = command
            .arg("--home")
            .arg(self.home.path())
            .args(["run", "--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Process(child)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("engine.log")).unwrap_or_default()
    }

    /// Starts the care record and waits until it answers.
    pub fn start_record(&self) -> Process {
        let child = Command::new(env!("CARGO_BIN_EXE_tie"))
            .args(["demo-record", "--listen", &format!("127.0.0.1:{}", self.record)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(child);
        wait("the care record to answer", || {
            http(self.record, "GET", "/fhir/metadata", "").is_some_and(|(status, _)| status == 200)
        });
        process
    }

    /// The control ids that the record has taken, in order of arrival, repeats included.
    pub fn ledger(&self) -> Vec<String> {
        let (status, body) = http(self.record, "GET", "/$ledger", "").expect("the record answers");
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["arrivals"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// `GET /api/status`.
    pub fn status(&self) -> Value {
        let (status, body) = http(self.admin, "GET", "/api/status", "").expect("the engine answers");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Runs the binary against this instance; returns exit code, stdout and stderr.
    pub fn tie(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_tie"))
            .arg("--home")
            .arg(self.home.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

/// How much a test does: what the environment says (`ops/torture`), or little.
pub fn effort(variable: &str, little: u64) -> u64 {
    std::env::var(variable).map_or(little, |text| text.parse().expect("a number"))
}

/// The top of the checkout.
pub fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A message of our own by its path below `testdata`, with CR segment ends.
pub fn message(path: &str) -> Vec<u8> {
    let bytes = fs::read(top().join("testdata").join(path)).unwrap();
    let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\r").replace('\n', "\r");
    text.into_bytes()
}

/// An update of one patient's demographics; the control id says which patient and which in the row of updates.
pub fn update(patient: usize, number: usize) -> (String, Vec<u8>) {
    let control_id = format!("P{patient:04}N{number:06}");
    let text = format!(
        "MSH|^~\\&|PAS|RXX|TIE|RXX|20260301120000||ADT^A31^ADT_A05|{control_id}|T|2.4\r\
         EVN|A31|20260301120000\r\
         PID|1||M{patient:06}^^^RXX^MR||ZZTEST{patient}^COUNT{number}||19700101|1\r\
         PV1|1|N\r"
    );
    (control_id, text.into_bytes())
}

/// One MLLP connection.
pub struct Mllp(TcpStream);

impl Mllp {
    pub fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Reads acknowledgements from a connection that something else writes to.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Sends one message and waits for its acknowledgement.
    pub fn send(&mut self, message: &[u8]) -> std::io::Result<Acknowledgement> {
        self.write(&frame(message))?;
        self.read()
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Reads one frame.
    pub fn read(&mut self) -> std::io::Result<Acknowledgement> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        assert_eq!(byte[0], 0x0b, "an acknowledgement begins with VT and nothing before it");
        let mut text = Vec::new();
        loop {
            self.0.read_exact(&mut byte)?;
            if byte[0] == 0x1c {
                break;
            }
            text.push(byte[0]);
        }
        self.0.read_exact(&mut byte)?;
        assert_eq!(byte[0], b'\r', "FS is followed by CR");
        Ok(Acknowledgement(String::from_utf8(text).expect("an acknowledgement is text")))
    }

    /// Whether the engine has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// VT, the message, FS, CR.
pub fn frame(message: &[u8]) -> Vec<u8> {
    [&[0x0b], message, &[0x1c, b'\r']].concat()
}

/// An acknowledgement as text.
#[derive(Debug)]
pub struct Acknowledgement(pub String);

impl Acknowledgement {
    fn field(&self, segment: &str, number: usize) -> &str {
        let line = self.0.split('\r').find(|line| line.starts_with(segment)).unwrap_or_default();
        line.split('|').nth(number).unwrap_or_default()
    }

    /// MSA-1.
    pub fn code(&self) -> &str {
        self.field("MSA", 1)
    }

    /// MSA-2.
    pub fn control_id(&self) -> &str {
        self.field("MSA", 2)
    }
}

/// One HTTP request; none when nobody answers.
pub fn http(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Waits until a condition holds; fails the test when it never does.
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10)); // poll
    }
}

/// Ports that nobody else is given while this process runs. They lie below those that the system hands out by itself, to
/// whoever asks for any, and the first port of their block is listened at, which keeps it from all other tests.
pub fn free_ports<const N: usize>() -> [u16; N] {
    const BLOCK: u16 = 8;
    const BLOCKS: u32 = 2_500;
    static KEPT: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    assert!(N < usize::from(BLOCK), "a block has {BLOCK} ports, of which one keeps the others");
    let at = |port: u16| TcpListener::bind(("127.0.0.1", port)).ok();
    // Tests that run side by side begin to look at places of their own.
    let mut blocks = (0..BLOCKS).map(|number| (std::process::id() + number) % BLOCKS);
    let found = blocks.find_map(|block| {
        let first = 10_000 + BLOCK * u16::try_from(block).unwrap();
        let keeper = at(first)?;
        let ports: [u16; N] = std::array::from_fn(|place| first + 1 + u16::try_from(place).unwrap());
        ports.iter().all(|port| at(*port).is_some()).then_some((keeper, ports))
    });
    let (keeper, ports) = found.expect("a block of free ports");
    KEPT.lock().unwrap().push(keeper);
    ports
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

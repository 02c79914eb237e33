//! The command line as people and scripts meet it: what it prints and how it ends, over the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "cli/map.rs"]
mod map;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

const CONFIG: &str = "environment = 'test'\njournal.path = 'journal'\n\
    [listener.hospital]\nkind = 'mllp'\nlisten = '127.0.0.1:0'\n\
    [destination.record]\nkind = 'fhir'\nbase = 'http://127.0.0.1:1/fhir'\n";

const ROUTE: &str = "from = 'hospital'\nmap = 'small'\n[[to]]\ndestination = 'record'\n\
    [[test]]\nmessage = 'testdata/a.hl7'\nexpect = 'testdata/a.json'\n";

const SCRIPT: &str = r#"fn map(msg) {
    if msg["MSH-10"] == "S" { return skip("not wanted"); }
    if msg["MSH-10"] == "R" { return reject("no identifier"); }
    #{ resourceType: "Patient", id: "p1", active: true }
}
"#;

const MESSAGE: &str = "MSH|^~\\&|PAS|RXX|||20260301||ADT^A01|1|P|2.4\rPID|1\r";
const PATIENT: &str = "{\"active\": true, \"id\": \"p1\", \"resourceType\": \"Patient\"}";

struct Home(tempfile::TempDir);

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.write("tie.toml", CONFIG);
        home.write("routes/adt.toml", ROUTE);
        home.write("mappings/small.rhai", SCRIPT);
        home.write("testdata/a.hl7", MESSAGE);
        home.write("testdata/a.json", PATIENT);
        home
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        let file = self.0.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    fn tie(&self, arguments: &[&str]) -> Ended {
        self.tie_with(arguments, "")
    }

    fn tie_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tie"))
            .current_dir(self.0.path())
            .args(arguments)
            .env_remove("NO_COLOR")
            .env("USER", "analyst")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    #[track_caller]
    fn shows(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        let both = format!("{}{}", self.out, self.err);
        for word in words {
            assert!(both.contains(word), "{word:?} in:\n{both}");
        }
        self
    }
}

#[test]
fn send_leaves_stdout_to_the_json() {
    let home = Home::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ended = home.tie(&["send", "--json", &nobody, "testdata/a.hl7"]);
    assert_eq!(
        (ended.shows(3, &["no answer"]).json()["answered"].clone(), ended.err.lines().count()),
        (json!(0), 1)
    );
    assert!(home.tie(&["send", &nobody, "testdata/a.hl7"]).out.contains("no answer"));
}

#[test]
fn help_tells_the_exit_codes_and_a_wrong_command_line_is_2() {
    let home = Home::new();
    home.tie(&["--help"]).shows(0, &["Exit codes: 0 all is well", "check", "replay"]);
    home.tie(&["--version"]).shows(0, &[env!("CARGO_PKG_VERSION")]);
    home.tie(&["chek"]).shows(2, &["check"]);
    home.tie(&[]).shows(2, &["Usage"]);
}

#[test]
fn check_says_that_a_configuration_is_sound() {
    let home = Home::new();
    home.tie(&["check"]).shows(0, &["The configuration is sound: 1 route, 1 mapping. Revision "]);
    let answer = home.tie(&["check", "--json"]).json();
    assert_eq!((&answer["ok"], &answer["problems"]), (&json!(true), &json!([])));
    assert_eq!(answer["revision"].as_str().unwrap().len(), 64);
}

#[test]
fn check_shows_what_is_wrong_with_its_line_and_what_to_do() {
    let home = Home::new();
    home.write("routes/adt.toml", &ROUTE.replace("destination =", "destinaton ="));
    home.write("tie.toml", &CONFIG.replace("base =", "bse ="));
    let ended = home.tie(&["check"]);
    ended.shows(
        1,
        &[
            "unknown key `destinaton`",
            "[routes/adt.toml:4:1]",
            "destinaton = 'record'",
            "did you mean `destination`?",
            "unknown key `bse`",
            "[tie.toml:8:1]",
            "The configuration is not sound",
        ],
    );
    let answer = home.tie(&["check", "--json"]);
    assert_eq!(answer.code, 1);
    let answer = answer.json();
    assert_eq!((&answer["ok"], &answer["revision"]), (&json!(false), &Value::Null));
    let problem = &answer["problems"][0];
    assert_eq!(problem["what"], "unknown key `bse`");
    assert_eq!(problem["place"], json!({ "file": "tie.toml", "line": 8, "column": 1 }));
    assert_eq!((&problem["severity"], &problem["help"]), (&json!("error"), &json!("did you mean `base`?")));
}

#[test]
fn check_finds_the_configuration_where_it_is_told() {
    let home = Home::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(home.0.path().join("tie.toml"), elsewhere.path().join("other.toml")).unwrap();
    home.tie(&["check"]).shows(1, &["tie.toml: the file cannot be read"]);
    let other = elsewhere.path().join("other.toml");
    home.tie(&["--config", other.to_str().unwrap(), "check"]).shows(0, &["is sound"]);
    home.tie(&["check", "--home", "nowhere"]).shows(1, &["the configuration directory cannot be read"]);
}

#[test]
fn warnings_do_not_make_a_configuration_unsound() {
    let home = Home::new();
    home.write("tie.toml", &format!("{CONFIG}[listener.lab]\nkind = 'mllp'\nlisten = '127.0.0.1:0'\n"));
    home.tie(&["check"]).shows(0, &["no route takes messages from `lab`", "1 to look at"]);
    assert_eq!(home.tie(&["check", "--json"]).json()["problems"][0]["severity"], "warning");
}

#[test]
fn test_runs_what_the_routes_carry() {
    let home = Home::new();
    home.tie(&["test"]).shows(0, &["ok     adt (1 tests)", "1 of 1 tests hold."]);
    home.write("testdata/a.json", &PATIENT.replace("true", "false"));
    let ended = home.tie(&["test"]);
    ended.shows(
        1,
        &[
            "FAILED adt (1 tests)",
            "routes/adt.toml:6",
            "-   \"active\": false",
            "+   \"active\": true",
            "0 of 1",
        ],
    );
    let answer = home.tie(&["test", "--json", "adt"]);
    assert_eq!(answer.code, 1);
    let answer = answer.json();
    assert_eq!((&answer["ok"], &answer["tests"]), (&json!(false), &json!(1)));
    assert_eq!(answer["failures"][0]["message"], "testdata/a.hl7");
    home.tie(&["test", "nothing"]).shows(2, &["there is no route `nothing`"]);
    home.write("mappings/small.rhai", "fn map(msg) {");
    home.tie(&["test"]).shows(1, &["mappings/small.rhai:1"]);
    assert_eq!(home.tie(&["test", "--json"]).json()["ok"], false);
}

#[test]
fn plugins_are_explained() {
    let home = Home::new();
    home.tie(&["plugins"]).shows(0, &["mllp", "fhir", "listener, destination"]);
    let ended = home.tie(&["plugins", "mllp"]);
    ended.shows(
        0,
        &[
            "unmatched",
            "One of accept, error, reject.",
            "default \"windows-1252\"",
            "[listener.",
            "[destination.",
        ],
    );
    home.tie(&["plugins", "smtp"]).shows(2, &["known are"]);
    let schema = home.tie(&["plugins", "--schema", "tie"]).json();
    let kinds = schema["properties"]["listener"]["additionalProperties"]["oneOf"].as_array().unwrap();
    assert!(kinds.iter().any(|kind| kind["title"] == "mllp"), "{kinds:?}");
    assert!(home.tie(&["plugins", "--schema", "route"]).json()["properties"]["accept"].is_object());
}

/// Answers one request with this; gives back the request.
fn answering(status: &'static str, body: Value) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        let mut part = [0; 4096];
        loop {
            let read = stream.read(&mut part).unwrap();
            request += std::str::from_utf8(&part[..read]).unwrap();
            let Some((head, so_far)) = request.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            if so_far.len() >= length.parse().unwrap() {
                break;
            }
        }
        write!(stream, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\r\n{body}").unwrap();
        request
    });
    (port, asked)
}

#[test]
fn status_shows_what_the_engine_says() {
    let home = Home::new();
    let at = "2026-03-01T12:00:00Z";
    let status = |ready: bool| {
        json!({
            "version": "0.1.0", "environment": "test", "started": at,
            "readiness": { "ready": ready, "reasons": if ready { json!([]) } else { json!(["draining"]) } },
            "revision": { "id": "0123456789abcdef", "git_commit": null, "since": at },
            "last_reload": null,
            "journal": { "open": true, "last": 7, "first": 1, "quarantined": 2, "disk_bytes": 4096 },
            "listeners": [{ "name": "hospital", "kind": "mllp", "serving": true, "reason": null }],
            "routes": [],
            "destinations": [{ "name": "record", "kind": "fhir", "standing": "away", "reason": "connection refused", "rate": "50/s",
                "deliveries": { "ready": 5, "dead": 1 }, "oldest_seconds": 90, "ages": { "ready": 90 } }],
        })
    };
    let (port, _) = answering("200 OK", status(true));
    home.write("tie.toml", &format!("[admin]\nlisten = '127.0.0.1:{port}'\n[jurnal]"));
    home.tie(&["status"]).shows(
        0,
        &[
            "Messages are taken.",
            "Revision 0123456789ab,",
            "7 messages so far, 2 in quarantine",
            "AWAY, at most 50/s: connection refused",
            "5 ready, 1 dead, the oldest for 90 s",
        ],
    );
    let (port, _) = answering("200 OK", status(false));
    let ended = home.tie(&["status", "--json", "--admin", &format!("127.0.0.1:{port}")]);
    assert_eq!((ended.code, ended.json()), (1, status(false)));
}

#[test]
fn an_engine_that_does_not_answer_is_3() {
    let home = Home::new();
    home.write("tie.toml", "[admin]\nlisten = '127.0.0.1:1'\n");
    for command in ["status", "replay", "release", "lanes", "audit", "reload"] {
        home.tie(&[command]).shows(3, &["no engine answers at 127.0.0.1:1"]);
    }
    let (port, _) = answering("200 OK", json!("something else"));
    home.tie(&["status", "--admin", &format!("127.0.0.1:{port}")]).shows(3, &["another version"]);
}

#[test]
fn replay_asks_for_what_it_was_told() {
    let home = Home::new();
    let answer = json!({ "deliveries": 3, "dry_run": true,
        "first": [{ "sequence": 7, "route": "adt", "destination": "record" }] });
    let (port, asked) = answering("200 OK", answer);
    let admin = format!("127.0.0.1:{port}");
    let ended = home.tie(&[
        "replay",
        "--admin",
        &admin,
        "--state",
        "dead",
        "--state",
        "held",
        "--destination",
        "record",
        "--dry-run",
        "--why",
        "mended",
    ]);
    ended.shows(0, &["message 7  adt → record", "and 2 more", "3 deliveries would be done again."]);
    let asked = asked.join().unwrap();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /api/replay HTTP/1.1\r\n"), "{head}");
    assert_eq!(
        serde_json::from_str::<Value>(body).unwrap(),
        json!({ "states": ["dead", "held"], "destination": "record", "limit": 1000, "dry_run": true,
            "who": "analyst", "why": "mended" })
    );
    let (port, _) = answering("400 Bad Request", json!({ "error": "name a message" }));
    let admin = format!("127.0.0.1:{port}");
    home.tie(&["replay", "--admin", &admin, "--state", "delivered"])
        .shows(1, &["refuses (400): name a message"]);
    home.tie(&["replay", "--state", "ready"]).shows(2, &["possible values"]);
}

#[test]
fn release_and_skip_ask_for_what_waits() {
    let home = Home::new();
    let cases = [
        (&["release"][..], "release", json!(["parked", "held"]), "sent as they were made."),
        (&["release", "--remap", "--state", "held"], "replay", json!(["held"]), "done again."),
        (&["skip", "--why", "x", "--state", "retrying"], "skip", json!(["retrying"]), "dead letters."),
    ];
    for (command, path, states, shown) in cases {
        let (port, asked) = answering("200 OK", json!({ "deliveries": 1, "dry_run": false, "first": [] }));
        let admin = format!("127.0.0.1:{port}");
        let arguments = [command, &["--sequence", "7", "--admin", &admin]].concat();
        home.tie(&arguments).shows(0, &[shown]);
        let asked = asked.join().unwrap();
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("POST /api/{path} HTTP/1.1\r\n")), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["states"], &body["sequence"]), (&states, &json!(7)));
    }
    let (port, _) = answering("200 OK", json!({ "deliveries": 0, "dry_run": false, "first": [] }));
    let admin = format!("127.0.0.1:{port}");
    home.tie(&["release", "--admin", &admin]).shows(1, &["0 deliveries"]);
    home.tie(&["skip", "--sequence", "7"]).shows(2, &["--why"]);
}

#[test]
fn lanes_and_audit_are_shown() {
    let home = Home::new();
    let lane = json!({ "destination": "record", "route": "adt", "sequence": 7, "lane": "0a1b2c3d", "state": "parked",
        "since": "2026-03-01T12:00:00Z", "attempts": 3, "class": "rejected", "reason": "422", "behind": 2 });
    let (port, _) = answering("200 OK", json!({ "lanes": [lane], "complete": true, "counted_all": false }));
    home.tie(&["lanes", "--admin", &format!("127.0.0.1:{port}")]).shows(
        0,
        &[
            "parked   message 7",
            "lane 0a1b2c3d since 2026-03-01T12:00:00Z",
            "at least 2 behind: 422 (rejected)",
        ],
    );
    let line = json!({ "at": "2026-03-01T12:00:00Z", "action": "skip", "who": "ann", "why": "a test message",
        "asked": { "states": ["parked"] }, "deliveries": 1 });
    let (port, _) = answering("200 OK", json!({ "audit": [line] }));
    home.tie(&["audit", "--admin", &format!("127.0.0.1:{port}")])
        .shows(0, &["skip", "1 deliveries by ann: a test message", "parked"]);
}

#[test]
fn reload_says_how_it_ended() {
    let home = Home::new();
    home.write("routes/adt.toml", "x = 1\n");
    let problem = json!({ "severity": "error", "what": "unknown key `x`", "help": null,
        "place": { "file": "routes/adt.toml", "line": 1, "column": 1 } });
    let refused =
        json!({ "at": "2026-03-01T12:00:00Z", "result": "refused", "revision": null, "problems": [problem] });
    let (port, _) = answering("200 OK", refused);
    home.tie(&["reload", "--admin", &format!("127.0.0.1:{port}")])
        .shows(1, &["unknown key `x`", "[routes/adt.toml:1:1]", "was refused"]);
    let live = json!({ "at": "2026-03-01T12:00:00Z", "result": "live", "revision": "a", "problems": [] });
    let (port, _) = answering("200 OK", live);
    home.tie(&["reload", "--admin", &format!("127.0.0.1:{port}")]).shows(0, &["is live"]);
}

#[test]
fn an_engine_with_an_unsound_configuration_does_not_start() {
    let home = Home::new();
    home.write("routes/adt.toml", &ROUTE.replace("'small'", "'smal'"));
    home.tie(&["run"]).shows(1, &["unknown mapping `smal`", "did you mean `small`?"]);
}

/// The files that people start from say only what is so.
#[test]
fn the_example_and_the_demo_are_sound() {
    let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let home = Home::new();
    fs::remove_dir_all(home.0.path().join("routes")).unwrap();
    for file in ["ops/tie.example.toml", "ops/demo.toml"] {
        let file = top.join(file);
        home.tie(&["--config", file.to_str().unwrap(), "check"]).shows(0, &["is sound"]);
    }
}

/// What is commented out in the example are the defaults, or at least keys that exist.
#[test]
fn every_key_of_the_example_exists() {
    let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let home = Home::new();
    fs::remove_dir_all(home.0.path().join("routes")).unwrap();
    let text = fs::read_to_string(top.join("ops/tie.example.toml")).unwrap();
    let is_key = |line: &&str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let mut shown = Vec::new();
    for line in text.lines() {
        shown.push(match line.strip_prefix("# ").filter(is_key) {
            Some(key) => key.to_owned(),
            None => line.to_owned(),
        });
    }
    assert!(shown.iter().filter(|line| is_key(&line.as_str())).count() > 25);
    home.write("tie.toml", &shown.join("\n"));
    home.tie(&["check"]).shows(0, &["is sound"]);
    // The other place for a journal, instead of the directory.
    let elsewhere: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("path = "))
        .map(|line| line.strip_prefix("#   ").unwrap_or(line))
        .collect();
    assert!(elsewhere.contains(&"[journal.postgres]"));
    home.write("tie.toml", &elsewhere.join("\n"));
    home.tie(&["check"]).shows(0, &["is sound"]);
}

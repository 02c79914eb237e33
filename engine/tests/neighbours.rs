//! P5, measured: one destination dead, one patient poisoned, one script endless, and what the others notice of it.
//!
//! Rounds with and without the disturbance take turns in one engine under the same paced load; medians are compared.
//! Short here, with a bound that a noisy machine keeps; for figures:
//! `ROUNDS=9 MESSAGES=1500 WITHIN=1.1 cargo test --release --test neighbours -- --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use support::{Instance, Mllp, update, wait};

/// Each round's load: so many connections, each with a patient of its own.
const SENDERS: usize = 4;
/// Between two messages of one connection.
const PACE: Duration = Duration::from_millis(20);
/// The patient whom the record cannot store.
const POISONED: usize = 9999;

#[derive(Default)]
struct State {
    taken: AtomicUsize,
    /// Hangs, or refuses the poisoned patient.
    disturbed: AtomicBool,
}

/// A FHIR receiver as small as one can be. `hangs`: when disturbed it answers nobody.
fn receiver(state: &Arc<State>, hangs: bool) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = state.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let state = state.clone();
            std::thread::spawn(move || serve(socket, &state, hangs));
        }
    });
    port
}

fn serve(mut socket: TcpStream, state: &State, hangs: bool) {
    let (mut buffer, mut chunk) = (Vec::new(), [0; 65_536]);
    let poison = format!("ZZTEST{POISONED}");
    loop {
        let head = buffer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let length = head.map(|head| {
            let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
            let length = text.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            head + length.trim().parse::<usize>().unwrap()
        });
        let Some(length) = length.filter(|length| buffer.len() >= *length) else {
            match socket.read(&mut chunk) {
                Ok(read @ 1..) => buffer.extend_from_slice(&chunk[..read]),
                _ => return,
            }
            continue;
        };
        let request: Vec<u8> = buffer.drain(..length).collect();
        let disturbed = state.disturbed.load(Ordering::Acquire);
        if disturbed && hangs {
            return; // closes without an answer
        }
        let poisoned = disturbed && String::from_utf8_lossy(&request).contains(&poison);
        let answer = if poisoned { "503 Busy" } else { "200 OK" };
        state.taken.fetch_add(usize::from(!poisoned), Ordering::Release);
        let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        if socket.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

/// What one round showed.
#[derive(Debug, Clone, Copy)]
struct Round {
    p50: Duration,
    p99: Duration,
    per_second: f64,
}

/// Sends the paced load; measures each acknowledgement and how long the good record needed for all of it.
fn round(port: u16, first: usize, messages: usize, good: &State) -> Round {
    let before = good.taken.load(Ordering::Acquire);
    let began = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|patient| {
            std::thread::spawn(move || {
                let mut source = Mllp::connect(port).unwrap();
                let mut waits = Vec::new();
                for number in first..first + messages / SENDERS {
                    let due = began + PACE * u32::try_from(number - first).unwrap();
                    std::thread::sleep(due.saturating_duration_since(Instant::now())); // poll: the pace of the load
                    let sent = Instant::now();
                    assert_eq!(source.send(&update(patient, number).1).unwrap().code(), "AA");
                    waits.push(sent.elapsed());
                }
                waits
            })
        })
        .collect();
    let mut waits: Vec<Duration> = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
    wait("the others' messages", || good.taken.load(Ordering::Acquire) >= before + waits.len());
    let per_second = waits.len() as f64 / began.elapsed().as_secs_f64();
    waits.sort();
    let at = |part: usize| waits[(waits.len() * part / 100).min(waits.len() - 1)];
    Round { p50: at(50), p99: at(99), per_second }
}

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The shipped feed to two records, and a feed whose script never ends.
fn instance(good: u16, other: u16) -> Instance {
    let mut instance = Instance::new();
    instance.record = good;
    let more = format!(
        "[destination.archive]\nkind = \"fhir\"\nbase = \"http://127.0.0.1:{other}/fhir\"\ntimeout = \"5s\"\n\
         [limits]\nmapping_operations = 1000000000000\nmapping_time = \"500ms\"\n"
    );
    instance.write("tie.toml", &(instance.config() + &more));
    instance.write("mappings/endless.rhai", "fn map(msg) { let n = 0; while true { n += 1; } n }\n");
    instance.write(
        "routes/endless.toml",
        "from = \"hospital\"\nmap = \"endless\"\naccept = { trigger = \"ZZZ^Z01\" }\n[[to]]\ndestination = \"shared-care-record\"\n",
    );
    let route = instance.read("routes/adt-to-shared-care-record.toml");
    instance.write("routes/adt-to-archive.toml", &route.replace("\"shared-care-record\"", "\"archive\""));
    instance
}

/// Disturbs until told to stop: a message to the endless script whenever the last was acknowledged some time ago.
fn disturb(port: u16, stop: Arc<AtomicBool>, first: usize) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut source = Mllp::connect(port).unwrap();
        let mut number = first;
        while !stop.load(Ordering::Acquire) {
            // Of one patient each: more at once than there are threads for mappings.
            for patient in 0..4 {
                let endless = format!(
                    "MSH|^~\\&|PAS|RXX|TIE|RXX|20260301120000||ZZZ^Z01|E{number}P{patient}|T|2.4\rPID|1||E{patient}^^^RXX^MR\r"
                );
                assert_eq!(source.send(endless.as_bytes()).unwrap().code(), "AA");
            }
            assert_eq!(source.send(&update(POISONED, number).1).unwrap().code(), "AA");
            number += 1;
            std::thread::sleep(Duration::from_millis(500)); // poll: the pace of the disturbance
        }
    })
}

#[test]
fn p5_the_others_notice_nothing_of_a_dead_destination_a_poisoned_patient_and_an_endless_script() {
    let rounds = setting("ROUNDS", 2.0) as usize;
    let messages = setting("MESSAGES", 200.0) as usize;
    let (good, other) = (Arc::new(State::default()), Arc::new(State::default()));
    let instance = instance(receiver(&good, false), receiver(&other, true));
    let _engine = instance.start();
    let (mut calm, mut disturbed) = (Vec::new(), Vec::new());
    round(instance.mllp, 0, messages, &good); // warms up
    for number in 0..rounds {
        let first = (2 * number + 1) * messages;
        calm.push(round(instance.mllp, first, messages, &good));
        for state in [&good, &other] {
            state.disturbed.store(true, Ordering::Release);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let disturbance = disturb(instance.mllp, stop.clone(), first);
        disturbed.push(round(instance.mllp, first + messages, messages, &good));
        stop.store(true, Ordering::Release);
        disturbance.join().unwrap();
        for state in [&good, &other] {
            state.disturbed.store(false, Ordering::Release);
        }
        wait("everything to be delivered", || {
            instance.status()["destinations"].as_array().unwrap().iter().all(|destination| {
                ["ready", "retrying", "parked", "held"]
                    .iter()
                    .all(|state| destination["deliveries"][state].as_u64().unwrap_or(0) == 0)
            })
        });
        println!("calm {:?}\ndisturbed {:?}", calm.last().unwrap(), disturbed.last().unwrap());
    }
    let p50 =
        median(&disturbed, |round| round.p50.as_secs_f64()) / median(&calm, |round| round.p50.as_secs_f64());
    let p99 =
        median(&disturbed, |round| round.p99.as_secs_f64()) / median(&calm, |round| round.p99.as_secs_f64());
    let rate = median(&calm, |round| round.per_second) / median(&disturbed, |round| round.per_second);
    println!(
        "{rounds} rounds of {messages}: acknowledgement p50 ×{p50:.2}, p99 ×{p99:.2}; the others' rate 1/{rate:.2}"
    );
    // A machine that does other things besides has a p99 of its own.
    let within = setting("WITHIN", 10.0);
    assert!(p99 <= within, "acknowledgements: ×{p99:.2}");
    assert!(rate <= within.min(3.0), "the others' rate: 1/{rate:.2}");
}

//! P10: a stop and a reload wait for nobody who does not answer. Over the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{
    io::Read,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use support::{Instance, Mllp, Process, postgres::Server, relay::Relay, update, wait};

/// A receiver that takes connections and whatever is sent, and never answers.
struct Hung {
    port: u16,
    heard: Arc<AtomicUsize>,
}

impl Hung {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(AtomicUsize::new(0));
        let counter = heard.clone();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let counter = counter.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 65_536];
                    while let Ok(read @ 1..) = socket.read(&mut buffer) {
                        counter.fetch_add(read, Ordering::Release);
                    }
                });
            }
        });
        Self { port, heard }
    }

    fn instance(&self) -> Instance {
        let mut instance = Instance::new();
        instance.record = self.port;
        instance.write("tie.toml", &instance.config().replace("timeout = \"5s\"", "timeout = \"10m\""));
        instance
    }
}

fn ended(engine: &mut Process) -> bool {
    engine.0.try_wait().unwrap().is_some()
}

/// Messages to several patients until told to stop, so that deliveries hang and intake is busy.
fn load(port: u16, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<()>> {
    let sender = |patient: usize| {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let Ok(mut source) = Mllp::connect(port) else { return };
            for number in 0.. {
                // The engine closes the connection when it stops.
                if stop.load(Ordering::Acquire) || source.send(&update(patient, number).1).is_err() {
                    return;
                }
            }
        })
    };
    (0..4).map(sender).collect()
}

#[test]
fn p10_a_stop_under_load_with_a_hung_destination_ends_within_thirty_seconds() {
    let hung = Hung::start();
    let instance = hung.instance();
    let mut engine = instance.start();
    let stop = Arc::new(AtomicBool::new(false));
    let senders = load(instance.mllp, &stop);
    wait("a delivery to hang", || hung.heard.load(Ordering::Acquire) > 0);
    let began = Instant::now();
    engine.terminate();
    wait("the engine to end", || ended(&mut engine));
    let took = began.elapsed();
    stop.store(true, Ordering::Release);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert!(took < Duration::from_secs(30), "{took:?}\n{}", instance.log());
    assert!(engine.0.wait().unwrap().success(), "an orderly end: {}", instance.log());
}

#[test]
fn p10_a_reload_waits_for_no_hung_delivery_and_a_stop_during_it_neither() {
    let hung = Hung::start();
    let instance = hung.instance();
    let mut engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(&update(1, 0).1).unwrap().code(), "AA");
    wait("the delivery to hang", || hung.heard.load(Ordering::Acquire) > 0);
    let before = instance.status()["revision"]["id"].clone();

    // The destination changes: its courier has to end, and has ten seconds for what hangs.
    let began = Instant::now();
    instance.write("tie.toml", &instance.read("tie.toml").replace("timeout = \"10m\"", "timeout = \"9m\""));
    wait("the reload", || instance.status()["revision"]["id"] != before);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(9), "the reload waited for the old courier: {took:?}");
    assert_eq!(source.send(&update(1, 1).1).unwrap().code(), "AA", "intake goes on meanwhile");

    let began = Instant::now();
    engine.terminate();
    wait("the engine to end", || ended(&mut engine));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}\n{}", began.elapsed(), instance.log());
    assert!(engine.0.wait().unwrap().success(), "{}", instance.log());
}

/// The host of the database loses its power while a courier reads there: nothing answers, and nothing ends.
#[test]
fn p10_a_database_that_goes_silent_during_a_reading_ends_the_engine_with_its_reason() {
    let server = Server::start(&[]);
    let relay = Relay::start(server.socket());
    let instance = Instance::new();
    let journal = format!(
        "postgres = {{ host = \"{}\", database = \"{}\", user = \"tie\" }}",
        relay.socket().display(),
        server.database()
    );
    instance.write("tie.toml", &instance.config().replace("path = \"journal\"", &journal));
    let mut engine = instance.start();
    relay.silence_from(1);
    // Stored by the session that writes; the courier looks for it by another.
    let answer = Mllp::connect(instance.mllp).unwrap().send(&update(1, 1).1);
    assert_eq!(answer.unwrap().code(), "AA");
    relay.silence_from(0);
    let began = Instant::now();
    wait("the engine to end", || ended(&mut engine));
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    let log = instance.log();
    assert!(log.contains("the database has not answered within 5s"), "{log}");
}

//! P1, P2, P4: kill -9 at random moments under load loses nothing that was acknowledged and keeps every
//! patient's order, whatever the journal lies in. Short here; `ops/torture` for the night.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::time::Duration;

use support::{
    Instance, Mllp, Process,
    postgres::Server,
    senders::{Random, Senders, has_all, repeats_in_order},
    update, wait,
};

/// Patients, each with a sender of its own that sends the next update only when the last was acknowledged.
const PATIENTS: usize = 8;

#[test]
fn p1_p2_p4_kill_minus_nine_loses_nothing_acknowledged_and_keeps_order() {
    let instance = Instance::new();
    let refused = under_load("SQLite, engine killed", &instance, |engine| {
        engine.kill();
        *engine = instance.start();
    });
    assert_eq!(refused, [""; 0], "nothing was refused");
}

#[test]
fn p1_p2_p4_kill_minus_nine_on_postgres_loses_nothing_acknowledged_and_keeps_order() {
    let server = Server::start(&[]);
    let instance = instance_on(&server);
    let refused = under_load("PostgreSQL, engine killed", &instance, |engine| {
        engine.kill();
        *engine = instance.start();
    });
    assert_eq!(refused, [""; 0], "nothing was refused");
}

#[test]
fn p1_p2_p4_p7_a_crash_of_postgres_itself_loses_nothing_acknowledged_and_keeps_order() {
    let server = Server::start(&[]);
    let instance = instance_on(&server);
    let mut signals = ["KILL", "QUIT"].into_iter().cycle();
    let refused = under_load("PostgreSQL, server killed", &instance, |engine| {
        server.crash(signals.next().unwrap());
        // The outcome of the commit under way is unknown: the engine ends by itself, and is started again.
        wait("the engine to end", || engine.0.try_wait().unwrap().is_some());
        assert!(instance.log().contains("the engine has stopped"), "{}", instance.log());
        server.wait_until_ready();
        *engine = instance.start();
    });
    assert!(refused.iter().all(|answer| answer.contains("not stored, send again")), "{refused:?}");
}

fn instance_on(server: &Server) -> Instance {
    let instance = Instance::new();
    let database = format!(
        "postgres = {{ host = \"{}\", database = \"{}\", user = \"tie\" }}",
        server.socket().display(),
        server.database()
    );
    instance.write("tie.toml", &instance.config().replace("path = \"journal\"", &database));
    instance
}

/// Senders that never pause, and a calamity at random moments after which there is an engine again. Returns the answers
/// that were refusals.
fn under_load(what: &str, instance: &Instance, mut calamity: impl FnMut(&mut Process)) -> Vec<String> {
    let cycles = support::effort("CYCLES", 20);
    let _record = instance.start_record();
    let mut engine = instance.start();
    let senders = Senders::start(instance.mllp, 0..PATIENTS);

    let mut random = Random(0x7e57_0001);
    for cycle in 0..cycles {
        let enough = senders.acknowledged() + 1 + random.below(40) as usize;
        wait("the senders to get on", || senders.acknowledged() >= enough);
        std::thread::sleep(Duration::from_micros(random.below(5_000))); // poll: any moment will do
        calamity(&mut engine);
        println!("cycle {cycle}: {} acknowledged so far", senders.acknowledged());
    }
    let ledger = senders.stop();
    wait("every acknowledged message to be delivered", || has_all(&instance.ledger(), &ledger.acknowledged));

    let repeats = repeats_in_order(&instance.ledger());
    println!(
        "{what}, {cycles} times: {} acknowledged, 0 lost, 0 out of order, {repeats} repeats",
        ledger.acknowledged.len()
    );
    // Each time can leave one message per sender unanswered (sent again) and one per lane unmarked (delivered again).
    assert!(repeats <= 2 * PATIENTS * cycles as usize, "{repeats} repeats are more than were in flight");
    ledger.refused
}

/// P3: the sender has not seen the acknowledgement, and sends again to an engine that was killed and started anew.
#[test]
fn p3_a_resend_after_kill_minus_nine_is_acknowledged_and_not_delivered_again() {
    let instance = Instance::new();
    let _record = instance.start_record();
    let mut engine = instance.start();
    let messages: Vec<_> = (0..20).map(|number| update(number % 4, number)).collect();
    for round in 0..3 {
        let mut connection = Mllp::connect(instance.mllp).unwrap();
        for (control_id, message) in &messages {
            let answer = connection.send(message).unwrap();
            assert_eq!((answer.code(), answer.control_id()), ("AA", control_id.as_str()), "round {round}");
        }
        wait("the messages to be delivered", || instance.ledger().len() >= messages.len());
        engine.kill();
        engine = instance.start();
    }
    let (last_id, last) = update(0, 99);
    Mllp::connect(instance.mllp).unwrap().send(&last).unwrap();
    wait("the last message to be delivered", || instance.ledger().contains(&last_id));
    assert_eq!(instance.status()["journal"]["last"], 21, "stored once each");
}

//! P1, P2, P4: kill -9 at random moments under load loses nothing that was acknowledged and keeps every
//! patient's order. Short here; `CYCLES=200 cargo test --test crash` for the night.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use support::{Instance, Mllp, update, wait};

/// Patients, each with a sender of its own that sends the next update only when the last was acknowledged.
const PATIENTS: usize = 8;

#[test]
fn p1_p2_p4_kill_minus_nine_loses_nothing_acknowledged_and_keeps_order() {
    let cycles: u64 = std::env::var("CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let instance = Arc::new(Instance::new());
    let _record = instance.start_record();
    let mut engine = instance.start();

    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let senders: Vec<_> = (0..PATIENTS)
        .map(|patient| {
            let (port, stop, ledger) = (instance.mllp, stop.clone(), acknowledged.clone());
            std::thread::spawn(move || send_until(port, patient, &stop, &ledger))
        })
        .collect();

    let mut random = Random(0x7e57_0001);
    for cycle in 0..cycles {
        let enough = acknowledged.lock().unwrap().len() + 1 + random.below(40) as usize;
        wait("the senders to get on", || acknowledged.lock().unwrap().len() >= enough);
        std::thread::sleep(Duration::from_micros(random.below(5_000))); // poll: any moment will do
        engine.kill();
        engine = instance.start();
        println!("cycle {cycle}: {} acknowledged so far", acknowledged.lock().unwrap().len());
    }
    stop.store(true, Ordering::Release);
    senders.into_iter().for_each(|sender| sender.join().unwrap());

    let acknowledged = acknowledged.lock().unwrap().clone();
    wait("every acknowledged message to be delivered", || {
        let arrived: BTreeSet<_> = instance.ledger().into_iter().collect();
        acknowledged.is_subset(&arrived)
    });

    let arrivals = instance.ledger();
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for control_id in &arrivals {
        let (patient, number) = control_id.split_once('N').unwrap();
        let before = last.insert(patient, number).unwrap_or_default();
        assert!(before <= number, "patient {patient}: {number} arrived after {before}");
    }
    let distinct: BTreeSet<_> = arrivals.iter().collect();
    let repeats = arrivals.len() - distinct.len();
    println!("{cycles} kills: {} acknowledged, 0 lost, {repeats} repeats", acknowledged.len());
    // Each kill can leave one message per sender unanswered (sent again) and one per lane unmarked (delivered again).
    assert!(repeats <= 2 * PATIENTS * cycles as usize, "{repeats} repeats are more than were in flight");
}

/// Sends one patient's updates in a row; keeps a ledger of what was acknowledged; sends again what was not.
fn send_until(port: u16, patient: usize, stop: &AtomicBool, ledger: &Mutex<BTreeSet<String>>) {
    let mut connection = None;
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        let (control_id, message) = update(patient, number);
        let answer = match connection.take().map_or_else(|| Mllp::connect(port), Ok) {
            Ok(mut open) => open.send(&message).map(|answer| (open, answer)),
            Err(error) => Err(error),
        };
        match answer {
            Ok((open, answer)) if answer.code() == "AA" => {
                assert_eq!(answer.control_id(), control_id);
                ledger.lock().unwrap().insert(control_id);
                connection = Some(open);
                number += 1;
            }
            Ok((_, answer)) => panic!("{control_id} was refused: {}", answer.0),
            Err(_) => std::thread::sleep(Duration::from_millis(5)), // poll: the engine is down
        }
    }
}

/// A small generator (xorshift64*): the test's own, so that a seed means the same for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

//! Patients' senders with a ledger of what was acknowledged, and what a receiver's own list must then say.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use super::{Mllp, update};

/// One sender a patient: it sends the next update only when the last was acknowledged, and again what was not.
pub struct Senders {
    ledger: Arc<Mutex<Ledger>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the senders know.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// Control ids that were answered with AA.
    pub acknowledged: BTreeSet<String>,
    /// Answers that were not AA. The message was sent again.
    pub refused: Vec<String>,
    stopping: bool,
}

impl Senders {
    pub fn start(port: u16, patients: Range<usize>) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let send = |patient| {
            let ledger = ledger.clone();
            std::thread::spawn(move || send_until(port, patient, &ledger))
        };
        Self { threads: patients.map(send).collect(), ledger }
    }

    pub fn acknowledged(&self) -> usize {
        self.ledger.lock().unwrap().acknowledged.len()
    }

    pub fn refused(&self) -> usize {
        self.ledger.lock().unwrap().refused.len()
    }

    /// Ends the senders; the message in hand is given up unless its answer has come.
    pub fn stop(self) -> Ledger {
        self.ledger.lock().unwrap().stopping = true;
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        Arc::into_inner(self.ledger).unwrap().into_inner().unwrap()
    }
}

fn send_until(port: u16, patient: usize, ledger: &Mutex<Ledger>) {
    let mut connection = None;
    let mut number = 0;
    while !ledger.lock().unwrap().stopping {
        let (control_id, message) = update(patient, number);
        let answer = match connection.take().map_or_else(|| Mllp::connect(port), Ok) {
            Ok(mut open) => open.send(&message).map(|answer| (open, answer)),
            Err(error) => Err(error),
        };
        match answer {
            Ok((open, answer)) if answer.code() == "AA" => {
                assert_eq!(answer.control_id(), control_id);
                ledger.lock().unwrap().acknowledged.insert(control_id);
                connection = Some(open);
                number += 1;
            }
            Ok((_, answer)) => {
                ledger.lock().unwrap().refused.push(answer.0);
                std::thread::sleep(Duration::from_millis(5)); // poll: it was told to send it again
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)), // poll: the engine is down
        }
    }
}

/// Whether everything acknowledged has arrived.
pub fn has_all(arrivals: &[String], acknowledged: &BTreeSet<String>) -> bool {
    let arrived: BTreeSet<_> = arrivals.iter().collect();
    acknowledged.iter().all(|id| arrived.contains(id))
}

/// Asserts that no patient's update came before an earlier one of theirs; returns how many arrivals were repeats.
pub fn repeats_in_order(arrivals: &[String]) -> usize {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for control_id in arrivals {
        let (patient, number) = control_id.split_once('N').unwrap();
        let before = last.insert(patient, number).unwrap_or_default();
        assert!(before <= number, "patient {patient}: {number} arrived after {before}");
    }
    arrivals.len() - arrivals.iter().collect::<BTreeSet<_>>().len()
}

/// A small generator (xorshift64*): the tests' own, so that a seed means the same for ever.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

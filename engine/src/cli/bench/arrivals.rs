//! What has arrived at one destination of the bench, by the control ids alone.
//!
//! Promise: a message that is missing, came again or overtook another of its patient is seen, with four bytes of memory a
//! patient: each patient's messages are counted from 1, and must come in that order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    histogram::{Histogram, Latency},
    messages::{Kind, PATIENTS},
    sign::Sign,
};

/// What is known of a destination.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// The count of each patient's last message.
    last: Vec<u32>,
    distinct: u64,
    repeated: u64,
    overtaken: u64,
    strange: u64,
    bytes: u64,
    took: BTreeMap<Kind, Histogram>,
}

/// What is told of a destination.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Arrived {
    /// Messages, repeats not counted.
    pub distinct: u64,
    /// Messages that had come before.
    pub repeated: u64,
    /// Messages that came before an earlier one of their patient, which is late or lost.
    pub overtaken: u64,
    /// What was no message of the bench.
    pub strange: u64,
    /// Bytes of the bodies.
    pub bytes: u64,
    /// From the sending to the arrival.
    pub end_to_end: Latency,
    /// The same by kind of message.
    pub by_kind: BTreeMap<Kind, Latency>,
}

impl Arrivals {
    /// Notes a request by its control id.
    pub(super) fn note(&mut self, control_id: &[u8], body_bytes: usize, now: u64) {
        self.bytes += body_bytes as u64;
        let Some(sign) = Sign::read(control_id).filter(|sign| sign.patient < PATIENTS) else {
            self.strange += 1;
            return;
        };
        let patient = sign.patient as usize;
        if self.last.len() <= patient {
            self.last.resize(patient + 1, 0);
        }
        let Some(last) = self.last.get_mut(patient) else { return };
        if sign.count <= *last {
            self.repeated += 1;
            return;
        }
        self.overtaken += u64::from(sign.count != *last + 1);
        *last = sign.count;
        self.distinct += 1;
        self.took.entry(sign.kind).or_default().add(sign.age(now));
    }

    /// Forgets how long things took, and nothing else.
    pub(super) fn reset(&mut self) {
        self.took.clear();
    }

    /// What is told of it.
    pub(super) fn told(&self) -> Arrived {
        let mut all = Histogram::default();
        self.took.values().for_each(|took| all.absorb(took));
        Arrived {
            distinct: self.distinct,
            repeated: self.repeated,
            overtaken: self.overtaken,
            strange: self.strange,
            bytes: self.bytes,
            end_to_end: all.latency(),
            by_kind: self.took.iter().map(|(kind, took)| (*kind, took.latency())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(counts: &[(u32, u32)]) -> Arrived {
        let mut arrivals = Arrivals::default();
        for &(patient, count) in counts {
            let sign = Sign { kind: Kind::Adt, patient, count, sent: 10 };
            arrivals.note(&sign.written(), 100, 2_010);
        }
        arrivals.told()
    }

    #[test]
    fn what_is_in_order_is_counted_and_timed() {
        let told = arrived(&[(7, 1), (8, 1), (7, 2)]);
        assert_eq!((told.distinct, told.repeated, told.overtaken, told.bytes), (3, 0, 0, 300));
        assert_eq!(told.by_kind[&Kind::Adt].max, 2.0);
    }

    #[test]
    fn repeats_gaps_and_strangers_are_seen() {
        let told = arrived(&[(7, 1), (7, 1), (7, 3), (7, 2)]);
        assert_eq!((told.distinct, told.repeated, told.overtaken), (2, 2, 1));
        let mut arrivals = Arrivals::default();
        arrivals.note(b"DEMO000001", 1, 1);
        assert_eq!(arrivals.told().strange, 1);
    }
}

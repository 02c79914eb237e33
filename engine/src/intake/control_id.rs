//! The control ids of our own acknowledgements: never the same twice, whatever restarts and clocks do.
//!
//! Twenty characters at most, since that is what MSH-10 holds before version 2.7: the start in milliseconds, six
//! random characters for starts within one millisecond or under a clock that was set back, and a counter.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

const DIGITS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

pub(super) struct ControlIds {
    start: String,
    next: AtomicU64,
}

impl ControlIds {
    pub(super) fn new(now: Timestamp) -> Self {
        let milliseconds = now.as_millisecond().unsigned_abs() % 36_u64.pow(8);
        let random = u64::from(rand::random::<u32>()) % 36_u64.pow(6);
        let start = format!("{:0>8}{:0>6}", base36(milliseconds), base36(random));
        Self { start, next: AtomicU64::new(0) }
    }

    pub(super) fn next(&self) -> String {
        format!("{}{}", self.start, base36(self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(DIGITS.get((number % 36) as usize).copied().unwrap_or(b'0'));
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_id_comes_twice_even_after_a_restart_in_the_same_millisecond() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let starts = [ControlIds::new(now), ControlIds::new(now), ControlIds::new(now)];
        let ids: BTreeSet<_> = (0..2000).flat_map(|_| starts.iter().map(ControlIds::next)).collect();
        assert_eq!(ids.len(), 6000);
        assert!(ids.iter().all(|id| id.len() <= 20 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    }

    #[test]
    fn numbers_are_written_as_they_should() {
        assert_eq!([0, 35, 36, 36 * 36].map(base36), ["0", "Z", "10", "100"]);
    }
}

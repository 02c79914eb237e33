//! The control id of a message of the bench: it says of whom, which in their row, and when it left.
//!
//! So the receiver knows from MSH-10 alone how long a message was under way, and whether one is missing, came twice or
//! overtook another, without a list of what was sent.

use rustix::time::{ClockId, clock_gettime};

use super::messages::Kind;

/// Characters of a control id; MSH-10 has room for 20 in HL7 v2.4.
pub(super) const WIDTH: usize = 18;
const PATIENT: usize = 5;
const COUNT: usize = 4;
const TIME: usize = 8;
/// Times are told modulo this: some 32 days.
const TIMES: u64 = 36_u64.pow(TIME as u32);

/// What a control id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    /// What kind of message it is.
    pub kind: Kind,
    /// Of which patient.
    pub patient: u32,
    /// Which of the patient's messages, from 1.
    pub count: u32,
    /// When it left, by [`now`].
    pub sent: u64,
}

/// Microseconds of the machine's monotonic clock, which all processes share.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let micros = time.tv_sec.unsigned_abs().wrapping_mul(1_000_000) + time.tv_nsec.unsigned_abs() / 1000;
    micros % TIMES
}

impl Sign {
    /// As it stands in MSH-10.
    pub(super) fn written(&self) -> [u8; WIDTH] {
        let mut text = [b'0'; WIDTH];
        let (kind, rest) = text.split_at_mut(1);
        kind.fill(self.kind.letter());
        let (patient, rest) = rest.split_at_mut(PATIENT);
        let (count, time) = rest.split_at_mut(COUNT);
        write(patient, u64::from(self.patient));
        write(count, u64::from(self.count));
        write(time, self.sent);
        text
    }

    /// What a control id says, if it is one of the bench.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let (kind, rest) = text.split_first().filter(|_| text.len() == WIDTH)?;
        let (patient, rest) = rest.split_at_checked(PATIENT)?;
        let (count, time) = rest.split_at_checked(COUNT)?;
        Some(Self {
            kind: Kind::of(*kind)?,
            patient: u32::try_from(read(patient)?).ok()?,
            count: u32::try_from(read(count)?).ok()?,
            sent: read(time)?,
        })
    }

    /// Microseconds since it left.
    pub(super) fn age(&self, now: u64) -> u64 {
        (now + TIMES - self.sent) % TIMES
    }
}

/// Base 36 with leading zeros.
fn write(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        let value = (number % 36) as u8;
        *digit = if value < 10 { b'0' + value } else { b'A' + value - 10 };
        number /= 36;
    }
}

fn read(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            _ => return None,
        };
        Some(number * 36 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_id_says_what_was_put_in() {
        let sign = Sign { kind: Kind::Oru, patient: 123_456, count: 78, sent: now() };
        let text = sign.written();
        assert!(text.iter().all(u8::is_ascii_alphanumeric));
        assert_eq!(Sign::read(&text), Some(sign));
        assert_eq!(sign.age(sign.sent + 5), 5);
        for strange in [&b"DEMO000001"[..], b"", &[b'-'; WIDTH]] {
            assert_eq!(Sign::read(strange), None);
        }
    }

    #[test]
    fn a_clock_that_has_gone_round_is_understood() {
        let sign = Sign { kind: Kind::Adt, patient: 1, count: 1, sent: TIMES - 3 };
        assert_eq!(sign.age(4), 7);
    }
}

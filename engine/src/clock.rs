//! The clock: the only place that reads the wall clock, so that tests and simulations can pass their own `now`.
//!
//! Timers and time-outs are monotonic (tokio); this clock only dates things.

use jiff::Timestamp;

/// Tells the time. Handed to whatever dates a message, an attempt or an outcome.
pub trait Clock: Send + Sync + 'static {
    /// The present moment, in UTC, to the microsecond.
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place
    fn now(&self) -> Timestamp {
        // As the journal keeps it, so that what is read back is what was mapped.
        let now = Timestamp::now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_to_the_microsecond() {
        assert!((0..100).all(|_| SystemClock.now().as_nanosecond() % 1000 == 0));
    }
}

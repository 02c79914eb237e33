//! How fast a destination is given requests: a token bucket.
//!
//! A tenth of a second's worth may go at once, so that timers need not be finer than they are; over any longer time
//! the rate holds. A request is paid for when its delivery begins; what a delivery sends besides its first request is
//! paid afterwards, and what sent nothing is paid back. Pure: time is passed in, as the time since the courier began.

use std::time::Duration;

use crate::connector::Rate;

/// How much may go at once, as a time.
const BURST_SECONDS: f64 = 0.1;

/// What may be sent now.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_second: f64,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        let per_second = rate.per_second();
        Self { per_second, tokens: burst(per_second), at: Duration::ZERO }
    }

    /// Takes a token, or says when there will be one.
    ///
    /// # Errors
    /// When to ask again.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(burst(self.per_second));
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // Rounded up, so that the token is there then.
        Err(now + Duration::from_secs_f64((1.0 - self.tokens) / self.per_second) + Duration::from_micros(1))
    }

    /// A delivery that took a token has sent so many requests.
    pub fn settle(&mut self, requests: u32) {
        self.tokens = (self.tokens + 1.0 - f64::from(requests)).min(burst(self.per_second));
    }
}

fn burst(per_second: f64) -> f64 {
    (per_second * BURST_SECONDS).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: &str) -> Bucket {
        Bucket::new(rate.parse().unwrap())
    }

    /// Sends as fast as it may for so long; says how many went.
    fn sent(bucket: &mut Bucket, seconds: u64, requests: u32) -> u32 {
        let (mut now, mut count) = (Duration::ZERO, 0);
        while now < Duration::from_secs(seconds) {
            match bucket.take(now) {
                Ok(()) => {
                    bucket.settle(requests);
                    count += requests;
                }
                Err(later) => {
                    assert!(later > now, "no busy waiting");
                    now = later;
                }
            }
        }
        count
    }

    #[test]
    fn over_time_the_rate_holds() {
        for (rate, seconds, expected) in
            [("50/s", 10, 500), ("600/m", 10, 100), ("1800/h", 60, 30), ("5000/s", 2, 10_000)]
        {
            let count = sent(&mut bucket(rate), seconds, 1);
            let burst = expected / u32::try_from(seconds).unwrap() / 10 + 1;
            assert!((expected..=expected + burst).contains(&count), "{rate}: {count} in {seconds} s");
        }
    }

    #[test]
    fn every_request_counts_and_nothing_sent_costs_nothing() {
        let mut several = bucket("50/s");
        let count = sent(&mut several, 10, 5);
        assert!((500..=510).contains(&count), "{count}");
        let mut nothing = bucket("1/h");
        for _ in 0..1000 {
            assert_eq!(nothing.take(Duration::ZERO), Ok(()));
            nothing.settle(0);
        }
    }

    #[test]
    fn a_long_rest_saves_up_no_flood() {
        let mut bucket = bucket("50/s");
        let day = Duration::from_secs(86_400);
        let at_once = (0..1000).take_while(|_| bucket.take(day).is_ok()).count();
        assert_eq!(at_once, 5);
    }
}

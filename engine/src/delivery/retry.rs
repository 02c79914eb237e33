//! When to try again, and when to give up.
//!
//! Exponential back-off with full jitter: the pause is drawn evenly from zero to a bound that doubles with each
//! attempt, so that many senders who failed together do not come back together. What the receiver asks for by
//! `Retry-After` is a floor. Pure: time and chance are passed in.

use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;

use crate::connector::{Limit, Retry};

/// A receiver that asks for more time than this is asked again after this.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How long to wait after the given number of failed attempts (at least one).
pub fn pause(retry: &Retry, attempts: u32, retry_after: Option<Duration>, chance: &mut impl Rng) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    let bound = retry.first.saturating_mul(1u32 << doublings).min(retry.max);
    let drawn = bound.mul_f64(chance.random::<f64>());
    drawn.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

/// Whether a delivery that has failed so often, and was first tried at `first`, is not to be tried again.
pub fn is_exhausted(limit: &Limit, attempts: u32, first: Timestamp, now: Timestamp) -> bool {
    // A clock that was set back makes the age negative: then it is young.
    let old = Duration::try_from(now.duration_since(first)).is_ok_and(|age| age >= limit.age);
    old || attempts >= limit.attempts
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::connector::GiveUp;

    const RETRY: Retry = Retry {
        first: Duration::from_secs(1),
        max: Duration::from_secs(300),
        give_up: Duration::from_secs(3600),
        then: GiveUp::DeadLetter,
    };

    #[test]
    fn the_bound_doubles_up_to_the_longest_pause() {
        let mut chance = StdRng::seed_from_u64(7);
        for (attempts, bound) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (4_000_000_000, 300)] {
            let pauses: Vec<f64> =
                (0..2000).map(|_| pause(&RETRY, attempts, None, &mut chance).as_secs_f64()).collect();
            let longest = pauses.iter().copied().fold(0.0, f64::max);
            let mean = pauses.iter().sum::<f64>() / 2000.0;
            let bound = f64::from(bound);
            assert!(longest <= bound && longest > bound * 0.95, "after {attempts}: {longest} of {bound}");
            assert!(
                (mean / bound - 0.5).abs() < 0.05,
                "full jitter after {attempts}: mean {mean} of {bound}"
            );
        }
    }

    #[test]
    fn the_receivers_wish_is_a_floor_but_not_without_limit() {
        let mut chance = StdRng::seed_from_u64(7);
        let wish = Duration::from_secs(120);
        assert_eq!(pause(&RETRY, 1, Some(wish), &mut chance), wish);
        assert_eq!(pause(&RETRY, 1, Some(wish * 10_000), &mut chance), LONGEST_RETRY_AFTER);
    }

    #[test]
    fn giving_up_is_by_age_or_attempts_and_survives_a_clock_that_was_set_back() {
        let limit = Limit { attempts: 9, age: RETRY.give_up, then: RETRY.then };
        let first = Timestamp::UNIX_EPOCH;
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert!(!is_exhausted(&limit, 8, first, at(3599)));
        assert!(is_exhausted(&limit, 1, first, at(3600)));
        assert!(is_exhausted(&limit, 9, first, at(0)));
        assert!(!is_exhausted(&limit, 1, first, at(-100_000)));
    }
}

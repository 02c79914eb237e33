//! How long things took: counts in buckets, so that a run of any length needs the same memory.
//!
//! Promise: a percentile is off by less than one part in a hundred; the longest is exact.

use serde::{Deserialize, Serialize};

/// Buckets for each doubling.
const STEPS: u64 = 64;
/// Below this each microsecond has a bucket of its own.
const EXACT: u64 = 2 * STEPS;
/// Up to some 12 days in microseconds.
const BUCKETS: usize = (EXACT + STEPS * 34) as usize;

/// Durations in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: u64,
}

/// What is told of a histogram, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Latency {
    /// Half were faster.
    pub p50: f64,
    /// All but one in a hundred were faster.
    pub p99: f64,
    /// All but one in a thousand were faster.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// How many there were.
    pub count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, longest: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub(super) fn add(&mut self, micros: u64) {
        if let Some(count) = self.counts.get_mut(bucket(micros).min(BUCKETS - 1)) {
            *count += 1;
        }
        self.total += 1;
        self.longest = self.longest.max(micros);
    }

    /// Counts all of another.
    pub(super) fn absorb(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// What is told of it.
    pub(super) fn latency(&self) -> Latency {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.at(share) as f64 / 1000.0);
        Latency { p50, p99, p999, max: self.longest as f64 / 1000.0, count: self.total }
    }

    fn at(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        found.map_or(0, |bucket| middle(bucket as u64).min(self.longest))
    }
}

fn bucket(micros: u64) -> usize {
    if micros < EXACT {
        return micros as usize;
    }
    let shift = u64::from(micros.ilog2()) - u64::from(STEPS.ilog2());
    (EXACT + (shift - 1) * STEPS + (micros >> shift) - STEPS) as usize
}

/// The microseconds in the middle of a bucket.
fn middle(bucket: u64) -> u64 {
    if bucket < EXACT {
        return bucket;
    }
    let shift = (bucket - EXACT) / STEPS + 1;
    let low = (STEPS + (bucket - EXACT) % STEPS) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_within_a_hundredth_of_the_truth() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|micros| histogram.add(micros));
        let Latency { p50, p99, p999, max, count } = histogram.latency();
        for (told, true_ms) in [(p50, 50.0), (p99, 99.0), (p999, 99.9)] {
            assert!((told / true_ms - 1.0).abs() < 0.01, "{told} for {true_ms}");
        }
        assert_eq!((max, count), (100.0, 100_000));
        assert_eq!(Histogram::default().latency(), Latency::default());
    }

    #[test]
    fn every_duration_has_its_bucket() {
        for micros in (0..5_000).chain((0..39).map(|bit| 1 << bit)) {
            let back = middle(bucket(micros) as u64);
            assert!(back.abs_diff(micros) * 100 <= micros, "{micros} became {back}");
        }
        let mut histogram = Histogram::default();
        histogram.add(u64::MAX);
        assert_eq!(histogram.latency().count, 1);
    }

    #[test]
    fn histograms_of_several_connections_are_added() {
        let (mut one, mut two) = (Histogram::default(), Histogram::default());
        one.add(1_000);
        two.add(3_000);
        one.absorb(&two);
        assert_eq!((one.latency().count, one.latency().max), (2, 3.0));
    }
}

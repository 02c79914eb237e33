//! The gauges that nobody feeds in passing: what waits, how old it is, how large the journal is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, interval};

use super::parts::Parts;
use crate::journal::{Count, State};

/// How often the deliveries are counted: the journal keeps the counts in memory.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often the journal is measured: that asks the disk.
const MEASURE_EVERY: Duration = Duration::from_secs(15);

/// Feeds the gauges until it is dropped.
pub async fn feed(parts: Arc<Parts>) {
    let mut tick = interval(COUNT_EVERY);
    let mut measured: Option<Instant> = None;
    let mut known = BTreeSet::new();
    loop {
        tick.tick().await;
        parts.metrics.journal_open(!parts.journal.is_closed());
        parts.metrics.journal_paused(parts.journal.paused().is_some());
        if let Ok(counts) = parts.journal.counts().await {
            show(&parts, &counts, &mut known);
        }
        if measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY)
            && let Ok(stats) = parts.journal.stats().await
        {
            parts.metrics.journal_bytes(stats.disk_bytes);
            measured = Some(Instant::now());
        }
    }
}

/// A state or destination that was seen once is shown as 0 when nothing is in it any more.
fn show(parts: &Parts, counts: &[Count], known: &mut BTreeSet<String>) {
    known.extend(parts.pipeline.live().destinations.keys().cloned());
    known.extend(counts.iter().map(|count| count.destination.clone()));
    let now = parts.clock.now().as_second();
    let by_state: BTreeMap<(&str, State), &Count> =
        counts.iter().map(|count| ((count.destination.as_str(), count.state), count)).collect();
    for destination in known.iter() {
        for state in State::ALL {
            if matches!(state, State::Filtered | State::Delivered) {
                continue;
            }
            let count = by_state.get(&(destination.as_str(), state));
            parts.metrics.pending(destination, state.word(), count.map_or(0, |count| count.deliveries));
            if !state.is_end() {
                let oldest = count.and_then(|count| count.oldest).map(|received| now - received.as_second());
                parts.metrics.oldest_seconds(destination, state.word(), oldest.unwrap_or(0).max(0));
            }
        }
    }
}

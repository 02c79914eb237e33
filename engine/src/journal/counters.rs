//! Deliveries by destination and state, kept in memory: seeded once at the start, moved by every commit.

use std::collections::BTreeMap;

use super::{Sequence, State};

/// Only states that somebody waits for: unfinished ones and `Dead`.
#[derive(Debug, Default)]
pub(in crate::journal) struct Counters {
    deliveries: BTreeMap<(String, State), u64>,
    /// No delivery of the destination below this sequence is ready: where to look for the oldest.
    ready_from: BTreeMap<String, Sequence>,
    /// Rises with every replay, which may make something ready below.
    replays: u64,
}

/// What one commit has changed.
#[derive(Debug, Default)]
pub(in crate::journal) struct Moves {
    deltas: BTreeMap<(String, State), i64>,
    requeued: bool,
}

impl Counters {
    pub(in crate::journal) fn apply(&mut self, moves: Moves) {
        for ((destination, state), delta) in moves.deltas {
            if counted(state) {
                let deliveries = self.deliveries.entry((destination, state)).or_default();
                *deliveries = deliveries.saturating_add_signed(delta);
            }
        }
        if moves.requeued {
            self.ready_from.clear();
            self.replays += 1;
        }
    }

    pub(in crate::journal) fn set(&mut self, destination: String, state: State, deliveries: u64) {
        self.deliveries.insert((destination, state), deliveries);
    }

    pub(in crate::journal) fn all(&self) -> Vec<(String, State, u64)> {
        self.deliveries
            .iter()
            .map(|((destination, state), deliveries)| (destination.clone(), *state, *deliveries))
            .collect()
    }

    /// Where to look for the oldest ready delivery, and what to give back with the place found.
    pub(in crate::journal) fn ready_from(&self, destination: &str) -> (Sequence, u64) {
        (self.ready_from.get(destination).copied().unwrap_or_default(), self.replays)
    }

    /// Remembers a place, unless a replay has come meanwhile.
    pub(in crate::journal) fn found_ready(&mut self, destination: &str, found: Sequence, replays: u64) {
        if self.replays == replays {
            self.ready_from.insert(destination.to_owned(), found);
        }
    }
}

impl Moves {
    pub(in crate::journal) fn add(&mut self, destination: &str, state: State, deliveries: i64) {
        match self.deltas.get_mut(&(destination.to_owned(), state)) {
            Some(delta) => *delta += deliveries,
            None => {
                self.deltas.insert((destination.to_owned(), state), deliveries);
            }
        }
    }

    pub(in crate::journal) fn requeued(&mut self) {
        self.requeued = true;
    }
}

fn counted(state: State) -> bool {
    !state.is_end() || state == State::Dead
}

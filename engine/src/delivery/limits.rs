//! How much of a destination's backlog is in memory.

/// The bounds of the window.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Deliveries in the window, those that wait not counted.
    pub window: usize,
    /// Deliveries of one lane.
    pub per_lane: usize,
    /// Deliveries that wait for their next attempt.
    pub waiting: usize,
    /// Lanes of which anything is known: those with deliveries in the window, and those that wait for a person.
    pub lanes: usize,
    /// Rows in one reading of the journal.
    pub page: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window: 4096, per_lane: 64, waiting: 65_536, lanes: 1_000_000, page: 512 }
    }
}

//! The threads on which mappings run.
//!
//! Promise:  P5. A slow script delays no socket, since no socket is served on these threads, and no other mapping, since
//!           one of them is never given to a slow one.
//! Not here: when a script is ended (mapping).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Job, Workers};
use crate::delivery::Prepared;

/// A mapping that takes so long on average may not have every thread.
const SLOW: Duration = Duration::from_millis(100);
/// Threads of their own, as many as may have a turn.
pub struct Threads {
    /// As many mappings at once as there are processors: more would only wait for each other.
    turns: Semaphore,
    /// All turns but one.
    slow: Semaphore,
    /// How long each mapping has taken lately: a mean in which the last run counts for a fifth.
    lately: Mutex<HashMap<String, Duration>>,
}

impl Default for Threads {
    fn default() -> Self {
        let turns = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        Self { turns: Semaphore::new(turns), slow: Semaphore::new(turns - 1), lately: Mutex::default() }
    }
}

impl Threads {
    fn is_slow(&self, mapping: &str) -> bool {
        self.lately.lock().get(mapping).is_some_and(|lately| *lately > SLOW)
    }

    fn took(&self, mapping: String, time: Duration) {
        let mut all = self.lately.lock();
        let lately = all.entry(mapping).or_default();
        *lately = (*lately * 4 + time) / 5;
    }
}

#[async_trait]
impl Workers for Threads {
    async fn run(&self, job: Job) -> Option<Prepared> {
        let mapping = job.mapping.clone();
        // Whoever waits here is in nobody's way.
        let _slow = match self.is_slow(&mapping) {
            true => Some(self.slow.acquire().await.ok()?),
            false => None,
        };
        let _turn = self.turns.acquire().await.ok()?;
        let began = Instant::now();
        let prepared = tokio::task::spawn_blocking(move || job.run()).await;
        self.took(mapping, began.elapsed());
        prepared.ok()
    }
}

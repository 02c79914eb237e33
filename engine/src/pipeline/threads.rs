//! The threads on which mappings run.
//!
//! Promise:  P5. A slow script delays no socket, since no socket is served on these threads, and no other mapping, since
//!           one of them is never given to a slow one. What is known to be slow runs when a processor has nothing else
//!           to do: to everybody else the processor is idle.
//! Not here: when a script is ended (mapping).

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use tokio::sync::{Semaphore, oneshot};

use super::{Job, Workers};
use crate::{delivery::Prepared, mapping::processor_time};

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
        let slow = match self.is_slow(&mapping) {
            true => Some(self.slow.acquire().await.ok()?),
            false => None,
        };
        let _turn = self.turns.acquire().await.ok()?;
        let (prepared, time) = match slow {
            Some(_) => in_the_background(job).await?,
            None => tokio::task::spawn_blocking(move || timed(job)).await.ok()?,
        };
        self.took(mapping, time);
        Some(prepared)
    }
}

/// Runs a job, and tells what it took of the processor: by the clock, whoever has to wait would stay slow.
fn timed(job: Job) -> (Prepared, Duration) {
    let before = processor_time();
    let prepared = job.run();
    (prepared, processor_time().saturating_sub(before))
}

/// Runs a job on a thread of its own that gives way to all others. It ends with the job, since the system lets nobody
/// without rights come back from this priority.
async fn in_the_background(job: Job) -> Option<(Prepared, Duration)> {
    let (done, prepared) = oneshot::channel();
    let slot = Arc::new(Mutex::new(Some(job)));
    let own = slot.clone();
    let work = move || {
        give_way();
        let job = own.lock().take();
        // Nobody waits any more when the engine stops.
        drop(job.map(|job| done.send(timed(job))));
    };
    if std::thread::Builder::new().name("slow-mapping".into()).spawn(work).is_err() {
        let job = slot.lock().take()?;
        return tokio::task::spawn_blocking(move || timed(job)).await.ok();
    }
    prepared.await.ok()
}

/// From here on this thread runs when nobody else wants the processor. Where the system refuses, it goes on as it is.
fn give_way() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
        tracing::debug!(?error, "a slow mapping keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_a_slow_mapping_gives_way_to_everybody() {
        // SCHED_IDLE in sched(7); the field `policy` of proc(5).
        const IDLE: &str = "5";
        let policy = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().to_owned()
        };
        let after = std::thread::spawn(move || {
            give_way();
            policy()
        });
        assert_eq!(after.join().unwrap(), IDLE);
        assert_ne!(policy(), IDLE, "only that thread gives way");
    }

    #[test]
    fn a_mapping_that_was_slow_lately_is_slow_until_it_is_quick_again() {
        let threads = Threads::default();
        assert!(!threads.is_slow("adt"));
        threads.took("adt".into(), Duration::from_secs(2));
        assert!(threads.is_slow("adt") && !threads.is_slow("oru"));
        for _ in 0..10 {
            threads.took("adt".into(), Duration::from_millis(1));
        }
        assert!(!threads.is_slow("adt"));
    }
}

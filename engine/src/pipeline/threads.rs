//! The threads on which mappings run.
//!
//! Promise:  P5. A slow script delays no socket, since no socket is served on these threads, and no other mapping, since
//!           one of them is never given to one that is known to take long. What is known to be slow runs when a processor
//!           has nothing else to do: to everybody else the processor is idle.
//!           One mapping after the other on the same few threads: the second may find the first one's code and tables in
//!           the processor's caches.
//! Not here: when a script is ended (mapping).

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use crossbeam_channel::{Receiver, SendError, Sender, unbounded};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use super::{Job, Workers};
use crate::{
    delivery::Prepared,
    mapping::processor_time,
    priority::{self, Way},
};

/// A mapping that takes so long on average is kept off the threads of the others.
const SLOW: Duration = Duration::from_millis(100);
/// One that takes so long may be in the queue of the others only as often as leaves them a thread.
const MIDDLING: Duration = Duration::from_millis(10);

/// Threads of their own, as many as there are processors: more would only wait for each other.
pub struct Threads {
    /// What waits for a thread: no more than all destinations have under way.
    queue: Sender<Task>,
    /// How many that are known to be slow, or have a long message, may run beside them.
    slow: Semaphore,
    /// How many that are middling may be in the queue.
    middling: Semaphore,
    /// How long each mapping has taken lately: a mean in which the last run counts for a fifth.
    lately: Mutex<HashMap<String, Duration>>,
}

/// A message that is so long is mapped behind all others: it takes milliseconds, whatever the mapping.
const LONG_BYTES: usize = 256 << 10;

/// How long a mapping takes.
#[derive(Debug, PartialEq, Eq)]
enum Pace {
    Quick,
    Middling,
    Slow,
}

/// A job, and who waits for it.
struct Task {
    job: Job,
    done: oneshot::Sender<(Prepared, Duration)>,
}

impl Default for Threads {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(2, usize::from).max(2);
        let (queue, tasks) = unbounded();
        for _ in 0..processors {
            let tasks = tasks.clone();
            // Without a thread at all the queue takes nothing, and jobs run elsewhere.
            if let Err(error) = thread::Builder::new().name("mapping".into()).spawn(move || work_off(&tasks))
            {
                tracing::warn!(%error, "a thread for mappings could not be started");
            }
        }
        let all_but_one = || Semaphore::new(processors - 1);
        Self { queue, slow: all_but_one(), middling: all_but_one(), lately: Mutex::default() }
    }
}

impl Threads {
    fn pace(&self, mapping: &str) -> Pace {
        match self.lately.lock().get(mapping) {
            Some(lately) if *lately > SLOW => Pace::Slow,
            Some(lately) if *lately > MIDDLING => Pace::Middling,
            Some(_) | None => Pace::Quick,
        }
    }

    fn took(&self, mapping: String, time: Duration) {
        let mut all = self.lately.lock();
        let lately = all.entry(mapping).or_default();
        *lately = (*lately * 4 + time) / 5;
    }

    async fn in_turn(&self, job: Job) -> Option<(Prepared, Duration)> {
        let (done, prepared) = oneshot::channel();
        match self.queue.send(Task { job, done }) {
            Ok(()) => prepared.await.ok(),
            Err(SendError(task)) => elsewhere(task.job).await,
        }
    }
}

#[async_trait]
impl Workers for Threads {
    async fn run(&self, job: Job) -> Option<Prepared> {
        let mapping = job.mapping.clone();
        if job.entry.raw.len() >= LONG_BYTES {
            let _turn = self.slow.acquire().await.ok()?;
            // It says nothing of how long others take.
            return in_the_background(job, Way::Behind).await.map(|(prepared, _)| prepared);
        }
        // Whoever waits for a turn is in nobody's way.
        let (prepared, time) = match self.pace(&mapping) {
            Pace::Quick => self.in_turn(job).await?,
            Pace::Middling => {
                let _turn = self.middling.acquire().await.ok()?;
                self.in_turn(job).await?
            }
            Pace::Slow => {
                let _turn = self.slow.acquire().await.ok()?;
                in_the_background(job, Way::Last).await?
            }
        };
        self.took(mapping, time);
        Some(prepared)
    }
}

/// Works the queue off until nobody can put anything in any more.
fn work_off(tasks: &Receiver<Task>) {
    for Task { job, done } in tasks {
        // After a panic nobody is told: whoever waits sees that nobody will answer.
        if let Ok(made) = catch_unwind(AssertUnwindSafe(|| timed(job))) {
            // Nobody waits any more when the engine stops.
            drop(done.send(made));
        }
    }
}

/// Runs a job on a thread of the runtime, where there is none of ours.
async fn elsewhere(job: Job) -> Option<(Prepared, Duration)> {
    tokio::task::spawn_blocking(move || timed(job)).await.ok()
}

/// Runs a job, and tells what it took of the processor: by the clock, whoever has to wait would stay slow.
fn timed(job: Job) -> (Prepared, Duration) {
    let before = processor_time();
    let prepared = job.run();
    (prepared, processor_time().saturating_sub(before))
}

/// Runs a job on a thread of its own that gives way to all others.
async fn in_the_background(job: Job, way: Way) -> Option<(Prepared, Duration)> {
    let (done, prepared) = oneshot::channel();
    let slot = Arc::new(Mutex::new(Some(job)));
    let own = slot.clone();
    let work = move || {
        let job = own.lock().take();
        // Nobody waits any more when the engine stops.
        drop(job.map(|job| done.send(timed(job))));
    };
    if priority::spawn("slow-mapping", way, work).is_err() {
        let job = slot.lock().take()?;
        return elsewhere(job).await;
    }
    prepared.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_that_was_slow_lately_is_slow_until_it_is_quick_again() {
        let threads = Threads::default();
        assert_eq!(threads.pace("adt"), Pace::Quick);
        threads.took("adt".into(), Duration::from_secs(2));
        assert_eq!((threads.pace("adt"), threads.pace("oru")), (Pace::Slow, Pace::Quick));
        let quicker = (0..20).map(|_| {
            threads.took("adt".into(), Duration::from_millis(1));
            threads.pace("adt")
        });
        let mut seen: Vec<Pace> = quicker.collect();
        seen.dedup();
        assert_eq!(seen, [Pace::Slow, Pace::Middling, Pace::Quick]);
    }
}

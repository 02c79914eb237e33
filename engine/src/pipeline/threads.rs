//! The threads on which mappings run.
//!
//! Promise:  P5. A slow script delays no socket, since no socket is served on these threads, and no other mapping for
//!           long: what is known to take long leaves them a thread, and what has become so while it waited is given back.
//!           What is known to be slow runs when a processor has nothing else to do: to everybody else the processor is idle.
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Job, Workers};
use crate::{
    delivery::Prepared,
    journal::{Demand, codec::LONG_BYTES},
    mapping::processor_time,
    priority::{self, Way},
};

/// A mapping that takes so long on average is kept off the threads of the others.
const SLOW: Duration = Duration::from_millis(100);
/// One that takes so long may be in the queue of the others only as often as leaves them a thread.
const MIDDLING: Duration = Duration::from_millis(10);

/// How long a mapping takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Quick,
    Middling,
    Slow,
}

/// How long each mapping has taken lately: a mean in which the last run counts for a fifth.
#[derive(Default)]
struct Lately(Mutex<HashMap<String, Duration>>);

impl Lately {
    fn pace(&self, mapping: &str) -> Pace {
        match self.0.lock().get(mapping) {
            Some(lately) if *lately > SLOW => Pace::Slow,
            Some(lately) if *lately > MIDDLING => Pace::Middling,
            Some(_) | None => Pace::Quick,
        }
    }

    fn took(&self, mapping: String, time: Duration) {
        let mut all = self.0.lock();
        let lately = all.entry(mapping).or_default();
        // One message alone makes no mapping slow.
        *lately = (*lately * 4 + time.min(SLOW * 4)) / 5;
    }
}

/// Threads of their own, as many as there are processors: more would only wait for each other.
pub struct Threads {
    /// What waits for a thread: no more than all destinations have under way.
    queue: Sender<Task>,
    /// How many of each kind may run beside the others, or be in the queue.
    slow: Arc<Semaphore>,
    long: Arc<Semaphore>,
    middling: Arc<Semaphore>,
    lately: Arc<Lately>,
    demand: Demand,
}

/// A job, and who waits for it.
struct Task {
    job: Job,
    done: oneshot::Sender<Tried>,
    pace: Pace,
    /// Held until the job has ended, also when nobody waits for it any more.
    turn: Option<OwnedSemaphorePermit>,
}

/// What came of a job, or the job itself: its mapping has become slower while it waited.
type Tried = Result<Prepared, Job>;

impl Threads {
    /// Starts them; tells how much waits for them.
    pub fn new(demand: Demand) -> Self {
        let processors = thread::available_parallelism().map_or(2, usize::from).max(2);
        let lately = Arc::<Lately>::default();
        let (queue, tasks) = unbounded();
        for _ in 0..processors {
            let (tasks, lately, demand) = (tasks.clone(), lately.clone(), demand.clone());
            let work = move || work_off(&tasks, &lately, &demand);
            // Without a thread at all the queue takes nothing, and jobs run elsewhere.
            if let Err(error) = thread::Builder::new().name("mapping".into()).spawn(work) {
                tracing::warn!(%error, "a thread for mappings could not be started");
            }
        }
        let all_but_one = || Arc::new(Semaphore::new(processors - 1));
        Self { queue, slow: all_but_one(), long: all_but_one(), middling: all_but_one(), lately, demand }
    }

    async fn in_turn(&self, job: Job, pace: Pace, turn: Option<OwnedSemaphorePermit>) -> Option<Tried> {
        let (done, tried) = oneshot::channel();
        self.demand.waits();
        match self.queue.send(Task { job, done, pace, turn }) {
            Ok(()) => tried.await.ok(),
            Err(SendError(task)) => {
                self.demand.served();
                elsewhere(task.job, Some(self.lately.clone())).await.map(Ok)
            }
        }
    }

    /// Runs a job as befits how long its mapping takes. Whoever waits for a turn is in nobody's way.
    async fn attempt(&self, job: Job) -> Option<Tried> {
        if job.entry.raw.len() >= LONG_BYTES {
            // Behind all others, whatever the mapping.
            let turn = self.long.clone().acquire_owned().await.ok()?;
            // It says nothing of how long others take.
            return in_the_background(job, Way::Behind, turn, None).await.map(Ok);
        }
        let pace = self.lately.pace(&job.mapping);
        let turns = match pace {
            Pace::Quick => return self.in_turn(job, pace, None).await,
            Pace::Middling => &self.middling,
            Pace::Slow => &self.slow,
        };
        let turn = turns.clone().acquire_owned().await.ok()?;
        match (pace, self.lately.pace(&job.mapping)) {
            (Pace::Slow, Pace::Slow) => {
                in_the_background(job, Way::Last, turn, Some(self.lately.clone())).await.map(Ok)
            }
            (Pace::Middling, Pace::Middling) => self.in_turn(job, pace, Some(turn)).await,
            _ => Some(Err(job)),
        }
    }
}

#[async_trait]
impl Workers for Threads {
    async fn run(&self, mut job: Job) -> Option<Prepared> {
        loop {
            match self.attempt(job).await? {
                Ok(prepared) => return Some(prepared),
                Err(again) => job = again,
            }
        }
    }
}

/// Works the queue off until nobody can put anything in any more.
fn work_off(tasks: &Receiver<Task>, lately: &Lately, demand: &Demand) {
    for Task { job, done, pace, turn } in tasks {
        demand.served();
        if done.is_closed() {
            continue;
        }
        // One that became endless by an edit would have every thread as often as it is in the queue.
        let now = lately.pace(&job.mapping);
        if now != Pace::Quick && now != pace {
            drop(done.send(Err(job)));
            continue;
        }
        // After a panic nobody is told: whoever waits sees that nobody will answer.
        if let Ok(made) = catch_unwind(AssertUnwindSafe(|| timed(job, Some(lately)))) {
            // Nobody waits any more when the engine stops.
            drop(done.send(Ok(made)));
        }
        drop(turn);
    }
}

/// Runs a job on a thread of the runtime, where there is none of ours.
async fn elsewhere(job: Job, lately: Option<Arc<Lately>>) -> Option<Prepared> {
    tokio::task::spawn_blocking(move || timed(job, lately.as_deref())).await.ok()
}

/// Runs a job, and takes down what it took of the processor: by the clock, whoever has to wait would stay slow.
fn timed(job: Job, lately: Option<&Lately>) -> Prepared {
    let (mapping, before) = (job.mapping.clone(), processor_time());
    let prepared = job.run();
    if let Some(lately) = lately {
        lately.took(mapping, processor_time().saturating_sub(before));
    }
    prepared
}

/// Runs a job on a thread of its own that gives way to all others.
async fn in_the_background(
    job: Job,
    way: Way,
    turn: OwnedSemaphorePermit,
    lately: Option<Arc<Lately>>,
) -> Option<Prepared> {
    let (done, prepared) = oneshot::channel();
    let slot = Arc::new(Mutex::new(Some(job)));
    let own = slot.clone();
    let theirs = lately.clone();
    let work = move || {
        let job = own.lock().take();
        // Nobody waits any more when the engine stops.
        drop(job.map(|job| done.send(timed(job, theirs.as_deref()))));
        drop(turn);
    };
    if priority::spawn("slow-mapping", way, work).is_err() {
        let job = slot.lock().take()?;
        return elsewhere(job, lately).await;
    }
    prepared.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_that_was_slow_lately_is_slow_until_it_is_quick_again() {
        let lately = Lately::default();
        assert_eq!(lately.pace("adt"), Pace::Quick);
        lately.took("adt".into(), Duration::from_secs(2));
        assert_eq!(lately.pace("adt"), Pace::Middling, "once may be the message's fault");
        lately.took("adt".into(), Duration::from_secs(2));
        assert_eq!((lately.pace("adt"), lately.pace("oru")), (Pace::Slow, Pace::Quick));
        let quicker = (0..20).map(|_| {
            lately.took("adt".into(), Duration::from_millis(1));
            lately.pace("adt")
        });
        let mut seen: Vec<Pace> = quicker.collect();
        seen.dedup();
        assert_eq!(seen, [Pace::Slow, Pace::Middling, Pace::Quick]);
    }
}

//! The threads on which mappings run.
//!
//! Promise:  P5. A slow script delays no socket: the threads are the mappings' own, and give way to everything else
//!           where processors are short. It delays no other mapping: one thread is never given to a slow one.
//! Not here: when a script is ended (mapping).

use std::{
    collections::HashMap,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::{process::setpriority_process, thread::gettid};
use tokio::sync::{Semaphore, oneshot};

use super::{Job, Workers};
use crate::{delivery::Prepared, mapping::STACK_BYTES};

/// A mapping that takes so long on average may not have every thread.
const SLOW: Duration = Duration::from_millis(100);
/// How far the threads give way (nice values: 0 gives way to nobody, 19 to everybody).
const NICE: i32 = 5;

/// A mapping to run, and where to answer.
type Errand = (Job, oneshot::Sender<Prepared>);

/// Threads of their own.
pub struct Threads {
    errands: mpsc::Sender<Errand>,
    /// As many mappings at once as there are processors: more would only wait for each other.
    turns: Semaphore,
    /// All turns but one.
    slow: Semaphore,
    /// How long each mapping has taken lately: a mean in which the last run counts for a fifth.
    lately: Mutex<HashMap<String, Duration>>,
}

impl Threads {
    /// Starts them; they end with this.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start() -> io::Result<Self> {
        let turns = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let (errands, received) = mpsc::channel();
        let received = Arc::new(Mutex::new(received));
        for _ in 0..turns {
            let received = received.clone();
            let thread = std::thread::Builder::new().name("mapping".to_owned()).stack_size(STACK_BYTES);
            thread.spawn(move || work(&received))?;
        }
        Ok(Self {
            errands,
            turns: Semaphore::new(turns),
            slow: Semaphore::new(turns - 1),
            lately: Mutex::default(),
        })
    }

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
        let (answer, answered) = oneshot::channel();
        self.errands.send((job, answer)).ok()?;
        let prepared = answered.await.ok();
        self.took(mapping, began.elapsed());
        prepared
    }
}

/// Runs one mapping after the other. One that ends by a fault has no answer.
fn work(errands: &Mutex<mpsc::Receiver<Errand>>) {
    // An acknowledgement must not wait for scripts. Where the system does not allow it, it is as it was.
    let _ = setpriority_process(Some(gettid()), NICE);
    loop {
        let next = errands.lock().recv();
        let Ok((job, answer)) = next else { return };
        if let Ok(prepared) = std::panic::catch_unwind(AssertUnwindSafe(|| job.run())) {
            let _ = answer.send(prepared); // who asked may have gone
        }
    }
}

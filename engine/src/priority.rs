//! Threads that give way to others.
//!
//! Promise:  P5. Work that takes long holds up nobody but who asked for it.
//!
//! No thread comes back from this, for the system lets nobody without rights ask for more again: so each ends with its work.

use std::{
    io,
    thread::{Builder, JoinHandle},
};

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Nice 10, as this crate counts: where another thread wants the same processor, a tenth of it is left.
const NICE_10: u8 = 22;

/// To whom a thread gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It has little of a processor that another one wants, but some.
    Behind,
    /// It has only what nobody else wants.
    Last,
}

/// Starts a thread that gives way from its beginning on.
///
/// # Errors
/// The system has no more threads.
pub fn spawn<T: Send + 'static>(
    name: &str,
    way: Way,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        give_way(way);
        work()
    })
}

/// Where the system refuses, the thread goes on as it is.
fn give_way(way: Way) {
    let (policy, priority) = match way {
        Way::Behind => (
            NormalThreadSchedulePolicy::Other,
            ThreadPriorityValue::try_from(NICE_10).map_or(ThreadPriority::Min, ThreadPriority::Crossplatform),
        ),
        Way::Last => (NormalThreadSchedulePolicy::Idle, ThreadPriority::Min),
    };
    let policy = ThreadSchedulePolicy::Normal(policy);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), priority, policy) {
        tracing::debug!(?error, ?way, "a thread keeps its priority");
    }
}

/// Nice and policy of this thread: the fields `nice` and `policy` of proc(5).
#[cfg(test)]
pub(crate) fn of_this_thread() -> (i32, u32) {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[16].parse().unwrap(), fields[38].parse().unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_a_thread_that_gives_way_does_so_alone() {
        let (other, idle) = (0, 5); // SCHED_OTHER and SCHED_IDLE in sched(7)
        let before = of_this_thread();
        // Who is nicer than that from the beginning stays so.
        let after = |way| spawn("gives-way", way, of_this_thread).unwrap().join().unwrap();
        assert_eq!(after(Way::Behind), (before.0.max(10), other));
        assert_eq!(after(Way::Last).1, idle);
        assert_eq!(of_this_thread(), before);
    }
}

//! Counts the syncs of a process by `perf stat`, where that is installed and allowed.
//!
//! Left to others: what to tell where it is not. The engine's own count of commits is less: its search index and the
//! checkpoints of the log sync too.

use std::process::Stdio;

use tokio::process::{Child, Command};

/// What is counted.
const CALLS: &str = "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync";

/// Counts until it is asked.
pub(super) struct Counter(Child);

impl Counter {
    /// Begins, if `perf` is there.
    pub(super) fn start(process: u32) -> Option<Self> {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x", ",", "-e", CALLS, "-p", &process.to_string()]);
        perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        perf.spawn().ok().map(Self)
    }

    /// How many there were; none where it is not allowed to know.
    pub(super) async fn count(self) -> Option<u64> {
        let process = i32::try_from(self.0.id()?).ok().and_then(rustix::process::Pid::from_raw)?;
        rustix::process::kill_process(process, rustix::process::Signal::INT).ok()?;
        let output = self.0.wait_with_output().await.ok()?;
        total(&String::from_utf8_lossy(&output.stderr))
    }
}

fn total(said: &str) -> Option<u64> {
    let counts = said.lines().filter(|line| line.contains("syscalls:"));
    counts
        .map(|line| line.split(',').next()?.parse().ok())
        .collect::<Option<Vec<u64>>>()
        .and_then(|counts| (!counts.is_empty()).then(|| counts.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_added_and_refusals_are_none() {
        let said =
            "611,,syscalls:sys_enter_fsync,5000,100.00,,\n4,,syscalls:sys_enter_fdatasync,5000,100.00,,\n";
        assert_eq!(total(said), Some(615));
        assert_eq!(total("<not supported>,,syscalls:sys_enter_fsync,0,100.00,,\n"), None);
        assert_eq!(total("event syntax error: 'syscalls:sys_enter_fsync'\n"), None);
        assert_eq!(total(""), None);
    }
}

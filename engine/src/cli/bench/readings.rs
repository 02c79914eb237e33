//! What the engine has used and done so far, as the system and its own metrics tell it.
//!
//! CPU is user and system time of all its threads, ended ones too. A figure that the system does not tell is none.

use std::{fs, path::Path, time::Instant};

use super::{Failure, parts::Engine};
use crate::{
    admin::{SearchAnswer, SearchRequest},
    cli::client,
    journal::State,
};

/// Where deliveries are that do not arrive by themselves.
const ASTRAY: [State; 4] = [State::Dead, State::Held, State::Parked, State::Filtered];

/// At one moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// When.
    pub at: Instant,
    /// CPU seconds.
    pub cpu_seconds: Option<f64>,
    /// Bytes that it gave to the file system for the disk.
    pub written: Option<u64>,
    /// Transactions of the journal.
    pub commits: u64,
    /// Acceptances and outcomes in them.
    pub changes: u64,
}

impl Reading {
    /// Reads them.
    pub(super) fn take(engine: &Engine) -> Result<Self, Failure> {
        let metrics = engine.page("GET", "/metrics", "")?;
        let sum = |name| client::sum(&metrics, name, |_| true);
        Ok(Self {
            at: Instant::now(),
            cpu_seconds: cpu_seconds(engine.process),
            written: value(engine.process, "io", "write_bytes:"),
            commits: sum("tie_journal_commit_seconds_count"),
            changes: sum("tie_journal_commit_batch_changes_sum"),
        })
    }
}

/// CPU seconds of a process until now.
pub(super) fn cpu_seconds(process: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The most memory that a process has had, in bytes.
pub(super) fn resident_peak(process: u32) -> Option<u64> {
    value(process, "status", "VmHWM:").map(|kilobytes| kilobytes * 1024)
}

fn value(process: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Deliveries that wait in any state, by the engine's own count.
pub(super) fn pending(engine: &Engine) -> Result<u64, Failure> {
    let metrics = engine.page("GET", "/metrics", "")?;
    Ok(client::sum(&metrics, "tie_deliveries_pending{", |labels| !labels.contains("dead")))
}

/// How many deliveries came to another end than their destination, or to none without a person.
pub(super) fn astray(engine: &Engine) -> Result<u64, Failure> {
    let metrics = engine.page("GET", "/metrics", "")?;
    let is_astray =
        |labels: &str| ASTRAY.iter().any(|state| labels.contains(&format!("state=\"{}\"", state.word())));
    Ok(client::sum(&metrics, "tie_deliveries_total{", is_astray))
}

/// Why the last one of them did.
pub(super) fn reason(engine: &Engine) -> Option<String> {
    ASTRAY.into_iter().find_map(|state| {
        let request = SearchRequest { state: Some(state), limit: 1, ..SearchRequest::default() };
        let told = engine.page("POST", "/api/search", &serde_json::to_string(&request).ok()?).ok()?;
        let found: SearchAnswer = serde_json::from_str(&told).ok()?;
        let mut deliveries = found.messages.into_iter().flat_map(|message| message.deliveries);
        deliveries.find(|delivery| delivery.state == state).map(|delivery| delivery.reason)
    })
}

/// Bytes of a journal's database in its directory, with what is still in its log. The reserve is no part of it.
pub(super) fn journal_bytes(directory: &Path) -> u64 {
    let sizes = ["journal.sqlite", "journal.sqlite-wal"].map(|name| fs::metadata(directory.join(name)));
    sizes.into_iter().flatten().map(|about| about.len()).sum()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let own = std::process::id();
        assert!(cpu_seconds(own).is_some_and(|seconds| seconds < 1e6));
        assert!(resident_peak(own).is_some_and(|bytes| bytes > 1 << 20));
        assert!(value(own, "io", "write_bytes:").is_some());
        assert_eq!(cpu_seconds(u32::MAX), None);
    }
}

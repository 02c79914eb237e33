//! What the disk alone can do: as many bytes as the engine put into one transaction, appended and synced, again and again.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::histogram::{Histogram, Latency};

/// Measured in the same run, so that a busy machine is busy for both.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Disk {
    /// Messages in each sync.
    pub batch: u64,
    /// Bytes of each message.
    pub message_bytes: u64,
    /// Messages a second.
    pub messages_per_second: f64,
    /// One append and sync, in milliseconds.
    pub sync_ms: Latency,
}

/// Measures a directory's disk for so long.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn disk(
    directory: &Path,
    batch: u64,
    message_bytes: u64,
    length: Duration,
) -> std::io::Result<Disk> {
    let path = directory.join("floor");
    let mut file = File::create(&path)?;
    let bytes: Vec<u8> = (0..batch * message_bytes).map(|n| b'0' + (n % 61) as u8).collect();
    let (began, mut took) = (Instant::now(), Histogram::default());
    while began.elapsed() < length {
        let start = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        took.add(start.elapsed().as_micros() as u64);
    }
    let seconds = began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    let sync_ms = took.latency();
    let messages_per_second = (sync_ms.count * batch) as f64 / seconds;
    Ok(Disk { batch, message_bytes, messages_per_second, sync_ms })
}

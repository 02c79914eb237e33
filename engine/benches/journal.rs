//! How many messages a second the journal makes durable, in each store, beside what the disk alone can do in the same run.
//! PostgreSQL is a server of its own with its defaults, reached by a socket, its data in the system's temporary directory.
//!
//! `cargo bench -p tie-engine --bench journal` prints a table: the floor is one file, appended to and synced once
//! for each message by one thread; the rows are producers that each wait for their message before the next. The
//! journal may be above the floor since one sync serves all who wait. Rates of different runs are not comparable:
//! a busy machine is slower by several times.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use tie_engine::{
    connector::Payload,
    journal::{
        DeliveryId, Disposition, Identifiers, Journal, Keys, Location, NewDelivery, NewMessage, Outcome,
        State,
        postgres::{Settings, SslMode},
    },
    metrics::Metrics,
};

#[path = "../tests/support/postgres.rs"]
mod server;

/// Of a usual ADT message.
const MESSAGE_BYTES: usize = 2048;

fn main() {
    let seconds = std::env::var("TIE_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let each = Duration::from_secs_f64(seconds);
    let base = std::env::var_os("TIE_BENCH_DIRECTORY").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::Builder::new().prefix("tie-bench").tempdir_in(base).unwrap();
    println!("{:<34}{:>12}{:>10}{:>10}{:>10}", "", "messages/s", "p50 ms", "p99 ms", "max ms");
    row("floor: append + fdatasync", each, floor(directory.path(), each));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for store in ["SQLite", "PostgreSQL"] {
        let server = (store == "PostgreSQL").then(|| server::Server::start(&[]));
        for (what, with_outcome) in [("append", false), ("append + outcome", true)] {
            for producers in [1, 32, 128] {
                let home = directory.path().join(format!("{producers}-{with_outcome}"));
                let location = server.as_ref().map_or(Location::Directory(home), database);
                let latencies = runtime.block_on(appends(&location, producers, each, with_outcome));
                row(&format!("{store}: {what}, {producers}"), each, latencies);
            }
        }
    }
}

fn database(server: &server::Server) -> Location {
    Location::Postgres(Settings {
        host: server.socket().to_str().unwrap().to_owned(),
        port: 5432,
        database: server.database(),
        user: "tie".to_owned(),
        password: None,
        sslmode: SslMode::Disable,
        ca: None,
    })
}

fn row(name: &str, each: Duration, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let rate = latencies.len() as f64 / each.as_secs_f64();
    println!("{name:<34}{rate:>12.0}{:>10.2}{:>10.2}{:>10.2}", at(0.5), at(0.99), at(1.0));
}

fn floor(directory: &Path, each: Duration) -> Vec<Duration> {
    let mut file = File::create(directory.join("floor")).unwrap();
    let bytes = vec![b'x'; MESSAGE_BYTES];
    let end = Instant::now() + each;
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
        latencies.push(began.elapsed());
    }
    latencies
}

async fn appends(location: &Location, producers: u64, each: Duration, with_outcome: bool) -> Vec<Duration> {
    let store = location.open().await.unwrap();
    let metrics = Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap());
    let journal = Journal::start(store, Identifiers::default(), metrics).await.unwrap();
    let number = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + each;
    let tasks: Vec<_> = (0..producers)
        .map(|_| {
            let (journal, number) = (journal.clone(), number.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < end {
                    let message = message(number.fetch_add(1, Ordering::Relaxed));
                    let began = Instant::now();
                    let sequence = journal.append(message).await.unwrap();
                    if with_outcome {
                        journal.record(outcome(sequence)).await.unwrap();
                    }
                    latencies.push(began.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    journal.close().await;
    all
}

fn message(number: u64) -> NewMessage {
    // Text that compresses as messages do: about a third.
    let mut raw = format!("MSH|^~\\&|PAS|RXX|TIE|RXX|20260101120000||ADT^A01|{number}|P|2.4\r");
    let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while raw.len() < MESSAGE_BYTES {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        raw.push_str(&format!(
            "PID|1||{}^^^RXX^MR||OAKLEY^FREDA^JANE^^MRS||{:x}|F|||29 WEST AVENUE\r",
            seed % 100_000,
            seed
        ));
    }
    let patient = seed % 50_000;
    NewMessage {
        received: Timestamp::UNIX_EPOCH,
        listener: "hospital".to_owned(),
        peer: "192.0.2.1".to_owned(),
        raw: Bytes::from(raw),
        keys: Keys {
            control_id: number.to_string(),
            trigger: "ADT^A01".to_owned(),
            sending_application: "PAS".to_owned(),
            sending_facility: "RXX".to_owned(),
            patient: format!("rxx|{patient}"),
            nhs_number: String::new(),
            local_number: patient.to_string(),
            visit: format!("V{number}"),
            orders: Vec::new(),
        },
        flag: None,
        disposition: Disposition::Routed(vec![NewDelivery {
            route: "adt".to_owned(),
            destination: "record".to_owned(),
            lanes: vec![format!("patient|rxx|{patient}")],
        }]),
    }
}

fn outcome(sequence: tie_engine::journal::Sequence) -> Outcome {
    Outcome {
        id: DeliveryId { sequence, route: "adt".to_owned(), destination: "record".to_owned() },
        state: State::Delivered,
        at: Timestamp::UNIX_EPOCH,
        attempts: 1,
        first_attempt: Some(Timestamp::UNIX_EPOCH),
        output: vec![Payload::FhirBundle(Bytes::from(message(sequence.0.unsigned_abs()).raw.repeat(2)))],
        message: Bytes::new(),
        revision: "0123456789ab".to_owned(),
        reason: "200".to_owned(),
        class: None,
        detail: None,
    }
}

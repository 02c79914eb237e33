//! A journal with a million messages: how long a start takes, a search, and what pruning does to the intake.
//!
//! `cargo bench -p tie-engine --bench million` fills a journal through the real store, then prints a line for each
//! measure of issue 3. `TIE_BENCH_MESSAGES` and `TIE_BENCH_DIRECTORY` change size and place. Compare only within one run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use tie_engine::{
    connector::Payload,
    journal::{
        Ages, DeliveryId, Disposition, Identifiers, Journal, Key, Keys, NEWEST, NewDelivery, NewMessage,
        Outcome, Query, Retention, Sequence, State, sqlite::SqliteStore,
    },
    metrics::Metrics,
};

const TASKS: i64 = 128;

fn main() {
    let messages =
        std::env::var("TIE_BENCH_MESSAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let base = std::env::var_os("TIE_BENCH_DIRECTORY").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::Builder::new().prefix("tie-million").tempdir_in(base).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(&directory.path().join("journal"), messages));
}

async fn measure(directory: &Path, messages: i64) {
    let journal = open(directory).await;
    let began = Instant::now();
    fill(&journal, 0, messages).await;
    told("fill, messages/s", messages as f64 / began.elapsed().as_secs_f64());
    journal.close().await;

    let began = Instant::now();
    let journal = open(directory).await;
    let counts = journal.counts().await.unwrap();
    told("start with all of them queued, s", began.elapsed().as_secs_f64());
    assert_eq!(counts[0].deliveries, messages as u64);
    searches(&journal, messages).await;

    let began = Instant::now();
    drain(&journal, messages / 2).await;
    told("drain, deliveries/s", (messages / 2) as f64 / began.elapsed().as_secs_f64());
    told("resident at most, MB", resident());

    let before = journal.stats().await.unwrap();
    let (_, quiet) = intake(&journal, messages, || false).await;
    let (pruned, pruning) = {
        let done = Arc::new(AtomicBool::new(false));
        let pruner = tokio::spawn({
            let (journal, done) = (journal.clone(), done.clone());
            async move {
                let began = Instant::now();
                let ages = Ages { bodies: None, messages: Some(Duration::ZERO) };
                let policy = Retention { default: ages, routes: BTreeMap::new(), ..Retention::default() };
                let pruned = journal.retain(&policy, at(messages / 2)).await.unwrap();
                done.store(true, Ordering::Release);
                (pruned, began.elapsed())
            }
        });
        let (_, latencies) = intake(&journal, messages, move || !done.load(Ordering::Acquire)).await;
        (pruner.await.unwrap(), latencies)
    };
    let after = journal.stats().await.unwrap();
    told("messages removed", pruned.0.messages as f64);
    told("seconds for it", pruned.1.as_secs_f64());
    for (name, latencies) in [("quiet", quiet), ("while pruning", pruning)] {
        for share in [0.5, 0.99] {
            told(&format!("intake {name}, p{:.0} ms", share * 100.0), percentile(&latencies, share));
        }
    }
    told("on disk before, MB", before.disk_bytes as f64 / 1e6);
    told("on disk after, MB", after.disk_bytes as f64 / 1e6);
    journal.close().await;
}

async fn open(directory: &Path) -> Journal {
    let store = SqliteStore::open(directory).await.unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    Journal::start(Arc::new(store), Identifiers::default(), Arc::new(metrics)).await.unwrap()
}

async fn fill(journal: &Journal, from: i64, messages: i64) {
    let next = Arc::new(AtomicI64::new(from));
    let tasks = (0..TASKS).map(|_| {
        let (journal, next) = (journal.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= from + messages {
                    return;
                }
                journal.append(message(number)).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn searches(journal: &Journal, messages: i64) {
    let middle = messages / 2;
    let [control, nhs, order] = [control_id(middle), nhs_number(middle), order(middle)];
    let time = Query { since: Some(at(middle)), until: Some(at(middle + 50)), ..Query::default() };
    let by = |key| Query { key: Some(key), ..Query::default() };
    for (name, query) in [
        ("control id", by(Key::ControlId(&control))),
        ("NHS number", by(Key::NhsNumber(&nhs))),
        ("accession number", by(Key::Order(&order))),
        ("time", time),
        ("dead letters (none)", Query { state: Some(State::Dead), ..Query::default() }),
    ] {
        let began = Instant::now();
        let (mut found, mut before) = (0, Some(NEWEST));
        while let Some(place) = before {
            let page = journal.search(&query, place, 1000).await.unwrap();
            found += page.messages.len();
            before = page.next;
        }
        told(&format!("search by {name}, found {found}, ms"), began.elapsed().as_secs_f64() * 1e3);
    }
}

/// As the couriers do: pages of what is owed, its bytes, its outcomes.
async fn drain(journal: &Journal, deliveries: i64) {
    let (mut done, mut after) = (0, Sequence(0));
    while done < deliveries {
        let page = journal.pending("record", after, 512.min((deliveries - done) as usize)).await.unwrap();
        after = page.last().unwrap().id.sequence;
        done += page.len() as i64;
        let loaded = journal.load(&page, usize::MAX).await.unwrap();
        let records = page.into_iter().zip(loaded).map(|(pending, work)| {
            let output = vec![Payload::FhirBundle(work.unwrap().entry.raw)];
            journal.record(outcome(pending.id, output))
        });
        futures::future::try_join_all(records).await.unwrap();
    }
}

/// Messages come in for five seconds at least, and as long as something goes on; how long each took.
async fn intake(
    journal: &Journal,
    from: i64,
    goes_on: impl Fn() -> bool + Clone + Send + 'static,
) -> (i64, Vec<f64>) {
    let until = Instant::now() + Duration::from_secs(5);
    let next = Arc::new(AtomicI64::new(from));
    let tasks = (0..8).map(|_| {
        let (journal, next, goes_on) = (journal.clone(), next.clone(), goes_on.clone());
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < until || goes_on() {
                let message = message(next.fetch_add(1, Ordering::Relaxed));
                let began = Instant::now();
                journal.append(message).await.unwrap();
                latencies.push(began.elapsed().as_secs_f64() * 1e3);
                // Feeds of a hospital, not a flood.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            latencies
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await.unwrap());
    }
    all.sort_unstable_by(f64::total_cmp);
    (next.load(Ordering::Relaxed), all)
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn told(what: &str, figure: f64) {
    println!("{what:<48}{figure:>14.2}");
}

/// The most memory that this process has had, in MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1000.0
}

fn at(number: i64) -> Timestamp {
    Timestamp::from_millisecond(1_790_000_000_000 + number).unwrap()
}

fn control_id(number: i64) -> String {
    format!("C{number}")
}

/// Twenty messages a patient, far apart.
fn nhs_number(number: i64) -> String {
    format!("{:010}", (number % 50_000).wrapping_mul(7_919) % 10_000_000_000)
}

fn order(number: i64) -> String {
    format!("A{}", number.wrapping_mul(1_000_003) % 1_000_000_007)
}

fn message(number: i64) -> NewMessage {
    let mut raw = format!("MSH|^~\\&|PAS|RXX|TIE|RXX|20260101120000||ADT^A01|C{number}|P|2.4\r");
    let mut seed = number.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while raw.len() < 1500 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        raw.push_str(&format!(
            "PID|1||{}^^^RXX^MR||OAKLEY^FREDA^^^MRS||{seed:x}|F|||29 WEST AVENUE\r",
            seed % 100_000
        ));
    }
    let patient = number % 50_000;
    NewMessage {
        received: at(number),
        listener: "hospital".to_owned(),
        peer: "192.0.2.1".to_owned(),
        raw: Bytes::from(raw),
        keys: Keys {
            control_id: control_id(number),
            trigger: "ADT^A01".to_owned(),
            sending_application: "PAS".to_owned(),
            sending_facility: "RXX".to_owned(),
            patient: format!("rxx|{patient}"),
            nhs_number: nhs_number(number),
            local_number: patient.to_string(),
            visit: format!("V{}", number / 4),
            orders: vec![order(number)],
        },
        flag: None,
        disposition: Disposition::Routed(vec![NewDelivery {
            route: "adt".to_owned(),
            destination: "record".to_owned(),
            lanes: vec![format!("patient|rxx|{patient}")],
        }]),
    }
}

fn outcome(id: DeliveryId, output: Vec<Payload>) -> Outcome {
    Outcome {
        id,
        state: State::Delivered,
        at: at(0),
        attempts: 1,
        first_attempt: Some(at(0)),
        output,
        revision: "0123456789ab".to_owned(),
        reason: "200".to_owned(),
        class: None,
        detail: None,
    }
}

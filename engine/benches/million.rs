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

use tie_engine::{
    connector::Payload,
    journal::{Ages, Journal, Key, NEWEST, Query, Retention, Sequence, State},
};

#[path = "filled/mod.rs"]
mod filled;

use filled::{at, control_id, fill, message, nhs_number, open, order, outcome};

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

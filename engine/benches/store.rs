//! How long the journal takes to make messages durable, alone and together, to record outcomes, and to find messages among
//! 100,000, in the embedded store. Appends wait for the disk: `TIE_BENCH_DIRECTORY` says for which.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    hint::black_box,
    sync::atomic::{AtomicI64, Ordering},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::try_join_all;
use tie_engine::{
    connector::Payload,
    journal::{DeliveryId, Journal, Key, NEWEST, Query, Sequence},
};
use tokio::runtime::Runtime;

#[path = "filled/mod.rs"]
mod filled;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MESSAGES: i64 = 100_000;

fn store(criterion: &mut Criterion) {
    let base = std::env::var_os("TIE_BENCH_DIRECTORY").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::Builder::new().prefix("tie-store").tempdir_in(base).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let journal = runtime.block_on(filled::open(directory.path()));
    runtime.block_on(filled::fill(&journal, 0, MESSAGES));
    searches(criterion, &runtime, &journal);
    appends(criterion, &runtime, &journal);
    runtime.block_on(journal.close());
}

fn searches(criterion: &mut Criterion, runtime: &Runtime, journal: &Journal) {
    let middle = MESSAGES / 2;
    let [control, nhs, order] =
        [filled::control_id(middle), filled::nhs_number(middle), filled::order(middle)];
    let by = |key| Query { key: Some(key), ..Query::default() };
    let time =
        Query { since: Some(filled::at(middle)), until: Some(filled::at(middle + 50)), ..Query::default() };
    for (name, query, expected) in [
        ("control id", by(Key::ControlId(&control)), 1),
        ("NHS number", by(Key::NhsNumber(&nhs)), 2),
        ("order", by(Key::Order(&order)), 1),
        ("time", time, 50),
    ] {
        let search = || runtime.block_on(all(journal, &query));
        assert_eq!(search(), expected, "{name}");
        criterion.bench_function(&format!("search/{name}"), |b| b.iter(search));
    }
}

/// How many messages a query finds, all pages of it.
async fn all(journal: &Journal, query: &Query<'_>) -> usize {
    let (mut found, mut before) = (0, Some(NEWEST));
    while let Some(place) = before {
        let page = journal.search(query, place, 1000).await.unwrap();
        found += black_box(page.messages).len();
        before = page.next;
    }
    found
}

fn appends(criterion: &mut Criterion, runtime: &Runtime, journal: &Journal) {
    let next = AtomicI64::new(MESSAGES);
    let next = &next;
    let append = |together: i64| async move {
        let first = next.fetch_add(together, Ordering::Relaxed);
        try_join_all((first..first + together).map(|number| journal.append(filled::message(number)))).await
    };
    for together in [1_i64, 32] {
        let mut group = criterion.benchmark_group("append");
        group.throughput(Throughput::Elements(together.unsigned_abs()));
        group.bench_function(format!("{together}"), |b| {
            b.iter(|| runtime.block_on(append(together)).unwrap());
        });
        group.bench_function(format!("{together}, with outcomes"), |b| {
            b.iter(|| runtime.block_on(async { ended(journal, append(together).await.unwrap()).await }));
        });
        group.finish();
    }
}

async fn ended(journal: &Journal, sequences: Vec<Sequence>) {
    let outcomes = sequences.into_iter().map(|sequence| {
        let id = DeliveryId { sequence, route: "adt".to_owned(), destination: "record".to_owned() };
        journal.record(filled::outcome(id, vec![Payload::FhirBundle(filled::message(sequence.0).raw)]))
    });
    try_join_all(outcomes).await.unwrap();
}

criterion_group!(benches, store);
criterion_main!(benches);

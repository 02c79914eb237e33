//! How long it takes to print a bundle as JSON and to read it, beside serde_json with the same bundle.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{fs, hint::black_box, path::Path};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tie_engine::incoming::FhirMessage;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn json(criterion: &mut Criterion) {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
    for (name, file) in [("admission", "adt/a01-full.json"), ("result", "oru/numbers.json")] {
        // As it is sent: in one line.
        let value: serde_json::Value =
            serde_json::from_slice(&fs::read(testdata.join(file)).unwrap()).unwrap();
        let raw = Bytes::from(serde_json::to_vec(&value).unwrap());
        let message = FhirMessage::parse(raw.clone()).unwrap();
        assert_eq!(message.root().to_json().len(), raw.len());
        let mut group = criterion.benchmark_group(format!("json/{name}"));
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function("print", |b| b.iter(|| black_box(message.root()).to_json()));
        group.bench_function("print, serde_json", |b| {
            b.iter(|| serde_json::to_vec(black_box(&value)).unwrap())
        });
        group.bench_function("read", |b| b.iter(|| FhirMessage::parse(black_box(raw.clone())).unwrap()));
        group.bench_function("read, serde_json", |b| {
            b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&raw)).unwrap())
        });
        group.finish();
    }
}

criterion_group!(benches, json);
criterion_main!(benches);

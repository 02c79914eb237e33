//! How long it takes to index and read messages, to find frames, and to decode escapes.
//!
//! Bars: index and 30 path reads of a 1.4 kB ADT under 3 µs, of a 36-segment ORU under 8 µs.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tie_engine::hl7::{
    Message, Path, Separators, escape,
    framing::{self, Found, Scanner},
};

/// An admission of 1.4 kB, with nobody in it.
fn adt() -> Bytes {
    let message = "MSH|^~\\&|PAS|RXX|TIE|HUB|20260304101500||ADT^A01^ADT_A01|C000001|P|2.4|||AL|NE|GBR|UNICODE UTF-8|EN\r\
        EVN|A01|20260304101500|||U0001^CLERK^ANN^^^MS||RXX01\r\
        PID|1||9990000018^^^NHS^NH~A100001^^^RXX^MR~H55501^^^RXX^PI||SPECIMEN^ALEX^J^^MX^^L~SAMPLE^ALEX^^^^^M||19650412|2|||12 TEST ROAD^FLAT 3^SAMPLETON^NORTHSHIRE^ZZ99 3AA^GBR^H||01632960001^PRN^PH~07700900001^PRN^CP~^NET^Internet^alex@example.org|01632960002^WPN^PH|EN|M|C22||||||A|||||||N\r\
        PD1|||TEST PRACTICE^^Y00001^^^ODS|G0000001^GENERAL^PAT^^^DR^^^GMC||||||||N\r\
        NK1|1|SAMPLE^CHRIS^^^MR|SPO|12 TEST ROAD^FLAT 3^SAMPLETON^NORTHSHIRE^ZZ99 3AA^GBR|01632960003|07700900003\r\
        NK1|2|SAMPLE^ROBIN^^^MRS|MTH|14 TEST ROAD^^SAMPLETON^NORTHSHIRE^ZZ99 3AB^GBR|01632960004|07700900004||||||||2\r\
        PV1|1|I|WARD7^BAY2^BED04^RXX01^^BED|21|||C1000001^CONSULTANT^SAM^^^DR^^^GMC|C1000002^REFERRER^KIM^^^DR^^^GMC|C1000003^OTHER^LEE^^^DR^^^GMC|300||||19|||C1000001^CONSULTANT^SAM^^^DR^^^GMC|01|V0001234^^^RXX^VN|||||||||||||||||||||||||20260304094500\r\
        PV2|||^CHEST PAIN|||||20260308|4||||||||||||||||||||||||N\r\
        AL1|1|DA|372687004^Amoxicillin^SCT|MO|RASH|20190101\r\
        DG1|1||29857009^Chest pain^SCT||20260304|A\r\
        OBX|1|NM|8302-2^Height^LN||172|cm|||||F|||20260304\r\
        OBX|2|NM|29463-7^Weight^LN||81.4|kg|||||F|||20260304\r\
        GT1|1||SAMPLE^CHRIS^^^MR||12 TEST ROAD^FLAT 3^SAMPLETON^NORTHSHIRE^ZZ99 3AA^GBR|01632960003||||SPO\r\
        ZBE|1|20260304101500||INSERT|N\r";
    Bytes::from_static(message.as_bytes())
}

/// A result with 36 segments.
fn oru() -> Bytes {
    let mut message = String::from(
        "MSH|^~\\&|LIMS|RXX|TIE|HUB|20260304101500||ORU^R01^ORU_R01|C000002|P|2.5.1\r\
         PID|1||9990000018^^^NHS^NH~A100001^^^RXX^MR||SPECIMEN^ALEX^J||19650412|2\rPV1|1|I|WARD7^BAY2^BED04\r\
         ORC|RE|ORD1|26H000001||CM\rOBR|1|ORD1|26H000001|FBC^FULL BLOOD COUNT^L|||20260304090000|||||||||C1000001^CONSULTANT^SAM||||||20260304101000||HM|F\r",
    );
    for n in 1..=30 {
        message += &format!(
            "OBX|{n}|NM|7{n:02}-8^Analyte number {n}^LN^A{n:02}^Local {n}^L||{n}.{n}|10*9/L^^UCUM|1.0-{n}.9|N|||F|||20260304093000||C1000009^SCIENTIST^JO\r"
        );
    }
    message += "NTE|1|L|All results are made up.\r";
    Bytes::from(message)
}

fn paths(texts: &str) -> Vec<Path> {
    texts.split_whitespace().map(|text| Path::parse(text).unwrap()).collect()
}

fn reading(c: &mut Criterion) {
    let adt_paths = paths(
        "MSH-3 MSH-4 MSH-9.1 MSH-9.2 MSH-10 MSH-12 EVN-2 PID-3 PID-3.4 PID-3[2].1 PID-3[2].4 PID-3[3].5 PID-5.1 PID-5.2 PID-5.3 \
         PID-7 PID-8 PID-11.1 PID-11.5 PID-13[2] PID-30 PD1-4.1 NK1-2.1 PV1-2 PV1-3.1 PV1-3.3 PV1-7.1 PV1-19 PV1-44 OBX(2)-5",
    );
    let mut oru_paths = paths("MSH-3 MSH-4 MSH-9.1 MSH-10 PID-3 PID-5.1 PID-7 OBR-4.1 OBR-22 OBR-25");
    oru_paths.extend((1..=10).flat_map(|n| paths(&format!("OBX({})-3.1 OBX({})-5", n * 3, n * 3))));
    for (name, raw, paths) in [("adt", adt(), adt_paths), ("oru", oru(), oru_paths)] {
        assert_eq!(paths.len(), 30);
        let message = Message::parse(raw.clone(), encoding_rs::WINDOWS_1252).unwrap();
        let missing: Vec<_> = paths.iter().filter(|path| message.get(path).text().is_none()).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function("index", |b| {
            b.iter(|| Message::parse(black_box(raw.clone()), encoding_rs::WINDOWS_1252).unwrap());
        });
        group.bench_function("index and 30 reads", |b| {
            b.iter(|| {
                let message = Message::parse(black_box(raw.clone()), encoding_rs::WINDOWS_1252).unwrap();
                paths.iter().map(|path| message.get(path).text().map_or(0, |text| text.len())).sum::<usize>()
            });
        });
        group.bench_function("groups", |b| b.iter(|| black_box(&message).groups()));
        group.finish();
    }
}

fn frames(c: &mut Criterion) {
    let small = framing::frame(&adt()).unwrap();
    let packet = small.repeat(40);
    let large = framing::frame(&vec![b'A'; 5_000_000]).unwrap();
    let run = |stream: &[u8], read: usize| {
        let (mut scanner, mut buffer) = (Scanner::new(20_000_000), BytesMut::new());
        let mut messages = 0;
        for piece in stream.chunks(read) {
            buffer.extend_from_slice(piece);
            while let Some(found) = scanner.scan(&mut buffer) {
                messages += usize::from(matches!(found, Found::Message(_)));
            }
        }
        messages
    };
    c.bench_function("40 frames in one read", |b| {
        b.iter(|| assert_eq!(run(black_box(&packet), packet.len()), 40))
    });
    c.bench_function("5 MB frame in reads of 8 kB", |b| {
        b.iter(|| assert_eq!(run(black_box(&large), 8192), 1))
    });
}

fn escapes(c: &mut Criterion) {
    let separators = Separators::default();
    let plain = "No growth after five days of incubation. ".repeat(5);
    let escaped = r"Smith \T\ Jones \S\ co\.br\temperature 37\X2E\5 \F\ normal \H\range\N\".repeat(4);
    c.bench_function("decode without escapes", |b| {
        b.iter(|| escape::decode(black_box(&plain), separators).len())
    });
    c.bench_function("decode with escapes", |b| {
        b.iter(|| escape::decode(black_box(&escaped), separators).len())
    });
    c.bench_function("encode", |b| b.iter(|| escape::encode(black_box(&plain), separators).len()));
}

criterion_group!(benches, reading, frames, escapes);
criterion_main!(benches);

//! Lives by the thousand.

use std::{collections::BTreeMap, sync::Once, time::Instant};

use super::life::{Lived, live};

/// Lives of the gate; more by `SEEDS`, others by `FIRST`.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Panics on purpose are part of a storm: they are not printed.
fn quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str() != Some("on purpose") {
                print(panic);
            }
        }));
    });
}

fn check(seed: u64) -> Lived {
    quietly();
    let mut lived = live(seed);
    if let Some(broken) = lived.broken.take() {
        let all = std::env::var("TRACE").is_ok();
        let shown = if all { lived.trace.len() } else { 100 };
        let steps = lived.trace[lived.trace.len().saturating_sub(shown)..].join("\n");
        panic!(
            "{steps}\n\nlife {seed}, after {} turns: {broken}\nagain, with every step: FIRST={seed} SEEDS=1 TRACE=all \
             cargo nextest run -p tie-engine simulation::tests::p1 --no-capture",
            lived.turns
        );
    }
    lived
}

#[test]
fn p1_p2_p3_p4_p5_p8_p10_hold_in_every_life() {
    let (first, seeds) = (number("FIRST").unwrap_or(1), number("SEEDS").unwrap_or(SEEDS));
    let began = Instant::now();
    let mut turns = 0;
    for seed in first..first + seeds {
        turns += check(seed).turns;
        if seed % 1000 == 0 {
            println!("up to life {seed}: {turns} turns, {:.1} s", began.elapsed().as_secs_f64());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{seeds} lives from {first}: {turns} turns in {seconds:.1} s");
}

#[test]
fn the_same_number_gives_the_same_life() {
    for seed in 1..15 {
        let (one, other) = (check(seed), check(seed));
        assert_eq!(one.turns, other.turns, "life {seed}");
        for (one, other) in one.trace.iter().zip(&other.trace) {
            assert_eq!(one, other, "life {seed}");
        }
        assert_eq!(one.trace.len(), other.trace.len(), "life {seed}");
    }
}

/// A simulation in which nothing happens keeps every promise.
#[test]
fn everything_happens_in_some_life() {
    let signs = [
        "--- crashed",
        "--- stopped",
        "the commit fails",
        "changes are there",
        "changes are gone",
        "the upkeep of the store fails",
        "owed fails",
        "ends by a fault",
        "the clock jumps",
        "(lost on the way)",
        "not stored, send again",
        "is answered AE",
        "is answered AR",
        "+L",
        "NoAdt is live",
        "NoArchive is live",
        "Slower is live",
        "TakeSlowly",
        "TakeAndFail",
        "Hang { left: true, taken: true }",
        "Hang { left: false, taken: false }",
        "RetryAfter",
        "Fail(Misconfigured)",
        "Fail(Rejected)",
        "Panic",
        "is Retrying",
        "is Parked",
        "is Held",
        "is Filtered",
        "is Dead",
        "is Delivered",
        "it may have been taken",
        "no longer configured",
        "no answer within",
        "2 deliveries are put back",
        "deliveries are released",
        "deliveries are skipped",
    ];
    let mut seen: BTreeMap<&str, usize> = signs.map(|sign| (sign, 0)).into();
    for seed in 1..60 {
        for line in check(seed).trace {
            for (sign, times) in &mut seen {
                *times += usize::from(line.contains(*sign));
            }
        }
    }
    let never: Vec<_> = seen.iter().filter(|(_, times)| **times == 0).map(|(sign, _)| sign).collect();
    assert!(never.is_empty(), "never seen: {never:?}");
}

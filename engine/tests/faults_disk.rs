//! P1, P7: a disk that fails. Real system calls of the real binary fail (strace), a real file system is full.
//! Short here; `ops/torture` goes further up with n.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{collections::BTreeSet, path::Path};

use support::{
    Instance, Mllp,
    machine::{Injected, SmallDisk, can_inject},
    senders::{Senders, has_all, repeats_in_order},
    update, wait,
};

/// How the engine ends when it cannot make anything durable any more, or cannot open its journal.
const UNREACHABLE: i32 = 3;
/// Messages in one life of the engine, if it lives so long.
const LIFE: usize = 12;

#[test]
fn p1_p7_every_nth_sync_that_fails_stops_the_engine_and_loses_nothing_acknowledged() {
    sweep("fsync,fdatasync", "EIO", None, 1, |life| {
        // SQLite does not look at a directory's answer; the engine syncs the directory itself before it begins.
        let file = |call: &str| call.contains("/journal.sqlite");
        let failed = life.calls.iter().position(|call| file(call) && call.contains("(INJECTED)"));
        let Some(failed) = failed else { return };
        // In a stop that was asked for, the last sync may be that of the closing: what it would move is in the log.
        assert!(life.code != 0 || life.stopped, "a failed sync stops the engine");
        // The reserve beside it may be made meanwhile.
        let again = |call: &&String| call.contains("sync(") && !call.contains("/journal/reserve");
        let retried: Vec<_> = life.calls.iter().skip(failed + 1).filter(again).collect();
        assert!(retried.is_empty(), "a failed sync is never tried again, but: {retried:#?}");
        let synced = life.calls.iter().take(failed).filter(|call| call.contains("-wal>) = 0")).count();
        assert!(life.acknowledged <= synced, "{} acknowledged by {synced} syncs", life.acknowledged);
    });
}

#[test]
fn p7_every_nth_write_to_the_log_that_finds_no_space_stops_the_engine_and_loses_nothing_acknowledged() {
    sweep("pwrite64", "ENOSPC", Some("journal.sqlite-wal"), 7, |life| {
        if life.calls.iter().any(|call| call.contains("(INJECTED)")) {
            assert!(life.code != 0 || life.stopped, "a failed write stops the engine");
        }
    });
}

#[test]
fn p7_every_nth_write_to_the_database_that_fails_loses_nothing_acknowledged() {
    sweep("pwrite64", "EIO", Some("journal.sqlite"), 1, |_| {});
}

#[test]
fn p7_every_nth_reading_that_fails_loses_nothing_acknowledged() {
    sweep("pread64", "EIO", Some("journal.sqlite"), 3, |_| {});
}

/// One life of an engine with a call that fails.
struct Life {
    /// The calls of the kind that fails.
    calls: Vec<String>,
    acknowledged: usize,
    /// We told it to stop, since the call had not failed or had done no harm.
    stopped: bool,
    code: i32,
}

/// Lives one after the other on the same journal: in each a later call fails, the first in the first and then every
/// `stride`-th. In the end a healthy engine must deliver everything that was ever acknowledged, in order, without hands.
fn sweep(calls: &str, error: &str, file: Option<&str>, stride: usize, check: impl Fn(&Life)) {
    if !can_inject() {
        return;
    }
    let lives = support::effort("FAULTS", 10) as usize;
    let instance = Instance::new();
    let _record = instance.start_record();
    let file = file.map(|name| instance.path("journal").join(name));
    let mut acknowledged = BTreeSet::new();
    let mut stopped_itself = 0;
    for n in (1..).step_by(stride).take(lives) {
        let injection = format!("{calls}:error={error}:when={n}");
        let (life, ledger) = live(&instance, injection.clone(), file.as_deref(), n);
        assert!(matches!(life.code, 0 | UNREACHABLE), "{injection}: code {}: {}", life.code, instance.log());
        check(&life);
        if !life.stopped {
            stopped_itself += 1;
            assert_eq!(life.code, UNREACHABLE, "{injection}: {}", instance.log());
            let log = instance.log();
            let last = log.lines().rfind(|line| line.contains("ERROR")).unwrap_or_default();
            assert!(last.contains("journal"), "{injection}: it says what and where: {last}");
        }
        acknowledged.extend(ledger);
    }
    let _engine = instance.start();
    wait("everything acknowledged to be delivered", || has_all(&instance.ledger(), &acknowledged));
    let repeats = repeats_in_order(&instance.ledger());
    println!(
        "{lives} lives with a failing {calls} ({error}{}): {} acknowledged, 0 lost, {repeats} repeats, \
         {stopped_itself} stopped by themselves",
        file.map(|file| format!(", {}", file.file_name().unwrap().display())).unwrap_or_default(),
        acknowledged.len()
    );
}

fn live(instance: &Instance, injection: String, file: Option<&Path>, n: usize) -> (Life, BTreeSet<String>) {
    let mut injected = Injected::spawn(instance, &[injection], file);
    // One sender: it has one message in hand, so that each acknowledgement needs a sync of its own.
    let senders = Senders::start(instance.mllp, n..n + 1);
    let mut stopped = false;
    let mut status = None;
    wait("the engine to fail, or to be done with its messages", || {
        status = injected.engine.0.try_wait().unwrap();
        status.is_some() || senders.acknowledged() >= LIFE
    });
    if status.is_none() {
        stopped = true;
        injected.engine.terminate();
        status = Some(injected.engine.0.wait().unwrap());
    }
    let ledger = senders.stop();
    let told = |answer: &String| answer.contains("|AR|") || answer.contains("|AE|");
    assert!(ledger.refused.iter().all(told), "{:?}", ledger.refused);
    let life = Life {
        calls: injected.calls(),
        acknowledged: ledger.acknowledged.len(),
        stopped,
        code: status.and_then(|status| status.code()).unwrap_or(-1),
    };
    (life, ledger.acknowledged)
}

#[test]
fn p6_p7_a_full_disk_is_told_to_the_sender_and_costs_nothing_acknowledged() {
    let instance = Instance::new();
    let Some(disk) = SmallDisk::mount(&instance.path("journal"), 24) else { return };
    let _record = instance.start_record();
    let mut engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    let mut acknowledged = BTreeSet::new();
    let (control_id, message) = update(0, 0);
    assert_eq!(source.send(&message).unwrap().code(), "AA");
    acknowledged.insert(control_id);

    let ballast = disk.fill(300);
    let refused = (1..2_000).find_map(|number| {
        let (control_id, mut message) = update(0, number);
        message.extend(noise(number));
        match source.send(&message) {
            Ok(answer) if answer.code() == "AA" => {
                acknowledged.insert(control_id);
                None
            }
            Ok(answer) => Some(answer.0),
            Err(_) => Some(String::new()), // closed without an answer: the sender keeps it
        }
    });
    let refused = refused.expect("a full disk takes no messages");
    assert!(refused.is_empty() || refused.contains("|AR|"), "{refused}");

    // Somebody makes room. An engine that has stopped is started again by its service manager.
    std::fs::remove_file(ballast).unwrap();
    let mut again = None;
    wait("messages to be taken again", || {
        if engine.0.try_wait().unwrap().is_some() {
            assert_eq!(engine.0.wait().unwrap().code(), Some(UNREACHABLE), "{}", instance.log());
            engine = instance.start();
        }
        again = Mllp::connect(instance.mllp).and_then(|mut source| source.send(&update(0, 5_000).1)).ok();
        again.as_ref().is_some_and(|answer| answer.code() == "AA")
    });
    acknowledged.insert(update(0, 5_000).0);
    wait("everything acknowledged to be delivered", || has_all(&instance.ledger(), &acknowledged));
    repeats_in_order(&instance.ledger());
    println!("a full disk: {} acknowledged, 0 lost", acknowledged.len());
    engine.kill(); // before its disk goes
}

#[test]
fn p6_p7_a_disk_that_is_nearly_full_is_told_to_the_sender_before_anything_breaks() {
    let instance = Instance::new();
    let Some(disk) = SmallDisk::mount(&instance.path("journal"), 24) else { return };
    let _record = instance.start_record();
    let mut engine = instance.start();
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(&update(0, 0).1).unwrap().code(), "AA");
    let ballast = disk.fill(900);
    let readiness = || support::http(instance.admin, "GET", "/readyz", "").unwrap_or_default();
    wait("the engine to see that its disk is nearly full", || readiness().1.contains("nearly full"));
    for number in 1..20 {
        let answer = source.send(&update(0, number).1).unwrap();
        assert!(answer.0.contains("|AR|") && answer.0.contains("disk is nearly full"), "{}", answer.0);
    }
    wait("what was taken to be delivered from the reserve", || instance.ledger().len() == 1);
    std::fs::remove_file(ballast).unwrap();
    wait("messages to be taken again", || source.send(&update(0, 20).1).unwrap().code() == "AA");
    wait("the second to be delivered", || instance.ledger().contains(&update(0, 20).0));
    assert!(engine.0.try_wait().unwrap().is_none(), "it never stopped: {}", instance.log());
    engine.kill(); // before its disk goes
}

/// A segment that cannot be packed, so that the disk fills.
fn noise(seed: usize) -> Vec<u8> {
    let mut random = support::senders::Random(seed as u64 + 1);
    let letters = (0..8_000).map(|_| b'A' + random.below(26) as u8);
    [b"NTE|1||".to_vec(), letters.collect(), b"\r".to_vec()].concat()
}

//! Journals that releases have written, read by tests for ever: `testdata/journals/<version>/`.
//!
//! Beside each journal lies what reading it gives. While a release is being made its journal may be written anew:
//! `TIE_FREEZE=1 cargo nextest run --workspace frozen`. That of a release that is out never changes again.

use std::{fmt::Write, fs, sync::Arc};

use super::*;
use crate::connector::Payload;
use crate::journal::{
    Ages, Audit, Disposition, Journal, Key, NEWEST, NewMessage, Outcome, Query, Retention, State,
    conformance::{at, id, journal_of, message, outcome, over, replay},
    store::Change,
};

const JOURNALS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/journals");

/// A message in every state, one in quarantine, one without its bytes, a replay, a note: everything that a row can be.
async fn write(directory: &Path) {
    let journal = journal_of(directory).await;
    for (number, state) in State::ALL.into_iter().enumerate() {
        let number = number as i64 + 1;
        let mut new = message(number, &[("adt", "record"), ("copy", "archive")]);
        new.flag = (number == 2).then(|| "same control id as message 1, other content".to_owned());
        let sequence = journal.append(new).await.unwrap();
        if state != State::Ready {
            journal.record(outcome(&id(sequence, "adt", "record"), state, 1)).await.unwrap();
        }
    }
    let mut quarantined = message(8, &[]);
    quarantined.disposition = Disposition::Quarantined { reason: "no route takes this message".to_owned() };
    journal.append(quarantined).await.unwrap();
    let pruned = journal.append(message(9, &[("adt", "record")])).await.unwrap();
    journal.record(outcome(&id(pruned, "adt", "record"), State::Delivered, 2)).await.unwrap();
    let bodies = Ages { bodies: Some(std::time::Duration::ZERO), messages: None };
    journal.retain(&Retention { default: bodies, ..Retention::default() }, at(9)).await.unwrap();
    // What is sent of a long message lies beside it.
    let raw: bytes::Bytes = "OBX|1|ED|||^application^pdf^Base64^JVBERi0xLjcK\r".repeat(6000).into();
    let long = NewMessage { raw: raw.clone(), ..message(10, &[("adt", "record")]) };
    let long = id(journal.append(long).await.unwrap(), "adt", "record");
    let output = vec![Payload::Hl7(raw.slice(3..))];
    journal.record(Outcome { output, message: raw, ..outcome(&long, State::Held, 1) }).await.unwrap();
    let mut again = replay(&[State::Dead]);
    again.filter.destination = Some("record".to_owned());
    journal.requeue(&again).await.unwrap();
    journal.close().await;
    let store = SqliteStore::open(directory).await.unwrap();
    let note = |name, value: &str| Change::Note(name, Some(value.to_owned()), None);
    store.commit(vec![note("retained", "2026-11-25"), note("paused", "frozen")]).await.unwrap();
    store.close().await;
}

/// Everything that reading a journal gives, as text.
async fn told(journal: &Journal) -> String {
    let mut text = format!("paused: {:?}\n", journal.paused());
    let all = journal.search(&Query::default(), NEWEST, 1000).await.unwrap();
    assert_eq!(all.next, None);
    for one in all.messages.iter().rev() {
        let keys = &one.keys;
        let hash: String = one.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "message {} {} {} {}", one.sequence.0, one.received, one.listener, one.peer).unwrap();
        writeln!(
            text,
            "  {} {} {} {}",
            keys.control_id, keys.trigger, keys.sending_application, keys.sending_facility
        )
        .unwrap();
        writeln!(
            text,
            "  {} {} {} {} {:?}",
            keys.patient, keys.nhs_number, keys.local_number, keys.visit, keys.orders
        )
        .unwrap();
        writeln!(text, "  {} bytes {hash} {:?} {:?}", one.size_bytes, one.quarantine, one.flag).unwrap();
        match journal.body(one.sequence).await.map_err(|error| error.to_string()) {
            Ok(Some(long)) if long.len() > 1000 => writeln!(text, "  {} bytes", long.len()).unwrap(),
            body => writeln!(text, "  {body:?}").unwrap(),
        }
        let found = journal.find(Key::ControlId(&keys.control_id), 9).await.unwrap();
        assert_eq!(found, std::slice::from_ref(one), "it is found");
        for delivery in journal.deliveries(one.sequence).await.unwrap() {
            let id = &delivery.id;
            writeln!(text, "    {} {} {:?} {:?}", id.route, id.destination, delivery.state, delivery.lanes)
                .unwrap();
            writeln!(
                text,
                "      {:?} {} {:?} {} {} {:?}",
                delivery.at,
                delivery.attempts,
                delivery.first_attempt,
                delivery.revision,
                delivery.reason,
                delivery.class
            )
            .unwrap();
            if let Some(exchange) = journal.exchange(id).await.unwrap() {
                writeln!(text, "      {:?} {:?}", exchange.output, exchange.detail).unwrap();
            }
        }
    }
    for Audit { at, action, who, why, asked, deliveries } in journal.audit(100).await.unwrap() {
        writeln!(text, "audit {at} {action} {who} {why:?} {asked} {deliveries}").unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_journals_are_read_to_the_last_row() {
    if std::env::var_os("TIE_FREEZE").is_some() {
        freeze(&Path::new(JOURNALS).join(env!("CARGO_PKG_VERSION"))).await;
    }
    let mut versions = 0;
    for version in fs::read_dir(JOURNALS).unwrap() {
        let version = version.unwrap().path();
        let directory = tempfile::tempdir().unwrap();
        fs::copy(version.join("journal.sqlite"), directory.path().join("journal.sqlite")).unwrap();
        let store = SqliteStore::open(directory.path()).await;
        let store = store.unwrap_or_else(|error| panic!("{}: {error}", version.display()));
        let journal = over(Arc::new(store)).await;
        let expected = fs::read_to_string(version.join("read.txt")).unwrap();
        assert_eq!(told(&journal).await, expected, "{}", version.display());
        let counts = journal.counts().await.unwrap();
        assert!(counts.iter().any(|count| count.deliveries > 0));
        let more = journal.append(message(99, &[("adt", "record")])).await.unwrap();
        assert!(journal.body(more).await.unwrap().is_some(), "and goes on");
        journal.close().await;
        assert!(verify(directory.path()).await.unwrap().is_sound());
        versions += 1;
    }
    assert!(versions >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_journals_hold_all_that_this_release_can_write() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path()).await;
    let journal = journal_of(directory.path()).await;
    let frozen = Path::new(JOURNALS).join(env!("CARGO_PKG_VERSION")).join("read.txt");
    assert_eq!(
        told(&journal).await,
        fs::read_to_string(frozen).unwrap(),
        "freeze it anew, if it is not released yet"
    );
    journal.close().await;
}

async fn freeze(to: &Path) {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path()).await;
    let _ = fs::remove_dir_all(to);
    backup(directory.path(), to).await.unwrap();
    let journal = journal_of(directory.path()).await;
    fs::write(to.join("read.txt"), told(&journal).await).unwrap();
    journal.close().await;
}

//! Damage to the files, copies of them, and what is told of both.

use std::{fs, sync::Arc};

use tempfile::TempDir;

use sqlx::Connection as _;

use super::*;
use crate::journal::{
    Ages, Identifiers, Journal, JournalError, PAUSED, Retention, State,
    conformance::{at, id, journal_of, load, message, noise, outcome, over},
};

/// A journal with messages that do not compress, closed; their bytes by sequence.
async fn made(messages: i64) -> (TempDir, PathBuf, Vec<bytes::Bytes>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = journal_of(&path).await;
    let mut raws = Vec::new();
    for number in 0..messages {
        let raw: bytes::Bytes = noise(number as u64, 300 + 900 * (number as usize % 20)).into();
        let mut new = message(number, &[("adt", "record")]);
        new.raw = raw.clone();
        let sequence = journal.append(new).await.unwrap();
        if number % 3 == 0 {
            journal.record(outcome(&id(sequence, "adt", "record"), State::Delivered, 1)).await.unwrap();
        }
        raws.push(raw);
    }
    journal.close().await;
    (directory, path, raws)
}

/// What reading gives is what was written, or it is told; says how many could not be read.
async fn nothing_is_silently_wrong(path: &Path, raws: &[bytes::Bytes], what: &str) -> usize {
    let report = verify(path).await;
    let told = !report.as_ref().is_ok_and(Report::is_sound);
    let Ok(store) = SqliteStore::open(path).await else {
        assert!(told, "{what}: refused, but verify says that all is sound");
        return raws.len();
    };
    let Ok(journal) =
        Journal::start(Arc::new(store), Identifiers::default(), crate::journal::conformance::metrics()).await
    else {
        return raws.len();
    };
    let mut lost = 0;
    for (place, raw) in raws.iter().enumerate() {
        match journal.body(Sequence(place as i64 + 1)).await {
            Ok(Some(read)) => assert_eq!(read, raw, "{what}: message {} is silently wrong", place + 1),
            Ok(None) => {
                assert!(told, "{what}: message {} is silently missing", place + 1);
                lost += 1;
            }
            Err(JournalError::Closed(error)) => panic!("{what}: reading closes nothing: {error}"),
            Err(_) => {
                assert!(
                    told,
                    "{what}: message {} cannot be read, but verify says that all is sound",
                    place + 1
                );
                lost += 1;
            }
        }
    }
    journal.close().await;
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_flipped_bytes_anywhere_are_found_or_harmless() {
    let (_directory, path, raws) = made(60).await;
    let database = path.join("journal.sqlite");
    let sound = fs::read(&database).unwrap();
    assert!(verify(&path).await.unwrap().is_sound());
    let mut harmful = 0;
    for place in (0..sound.len()).step_by(sound.len() / 160) {
        // Somewhere else in each page.
        let place = (place + place / 8192 * 37) % sound.len();
        let mut damaged = sound.clone();
        damaged[place] ^= 0x10;
        fs::write(&database, &damaged).unwrap();
        let lost = nothing_is_silently_wrong(&path, &raws, &format!("byte {place}")).await;
        harmful += usize::from(lost > 0);
        for beside in ["-wal", "-shm"] {
            let _ = fs::remove_file(path.join(format!("journal.sqlite{beside}")));
        }
    }
    assert!(harmful > 20, "{harmful} of the places hold something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_truncated_database_is_refused_or_its_loss_is_told() {
    let (_directory, path, raws) = made(40).await;
    let database = path.join("journal.sqlite");
    let sound = fs::read(&database).unwrap();
    for part in 1..24 {
        let length = sound.len() * part / 24;
        fs::write(&database, &sound[..length]).unwrap();
        let lost = nothing_is_silently_wrong(&path, &raws, &format!("cut to {length}")).await;
        assert!(lost > 0, "cut to {length}: something must be gone");
        for beside in ["-wal", "-shm"] {
            let _ = fs::remove_file(path.join(format!("journal.sqlite{beside}")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_torn_log_loses_only_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = journal_of(&path).await;
    for number in 0..30 {
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
    // As after a power cut: the files of the moment, without the close that tidies up.
    let torn = directory.path().join("torn");
    fs::create_dir(&torn).unwrap();
    let log = fs::read(path.join("journal.sqlite-wal")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for length in (0..=log.len()).rev().step_by(log.len() / 40) {
        fs::copy(path.join("journal.sqlite"), torn.join("journal.sqlite")).unwrap();
        fs::write(torn.join("journal.sqlite-wal"), &log[..length]).unwrap();
        let _ = fs::remove_file(torn.join("journal.sqlite-shm"));
        if let Ok(store) = SqliteStore::open(&torn).await {
            let reopened = over(Arc::new(store)).await;
            let pending = reopened.pending("record", Sequence(0), 100).await.unwrap();
            let whole: Vec<_> = (1..=pending.len() as i64).map(Sequence).collect();
            assert_eq!(
                pending.iter().map(|one| one.id.sequence).collect::<Vec<_>>(),
                whole,
                "the first ones, whole"
            );
            for sequence in whole {
                assert!(reopened.body(sequence).await.unwrap().is_some());
            }
            seen.insert(pending.len());
            reopened.close().await;
            assert!(verify(&torn).await.unwrap().is_sound());
        }
    }
    assert!(seen.contains(&30) && seen.len() > 5, "{seen:?}");
    journal.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_message_on_a_bad_page_holds_up_no_other() {
    let (_directory, path, raws) = made(60).await;
    let database = path.join("journal.sqlite");
    // The overflow pages of one long body, taken from where its bytes lie.
    let mut bytes = fs::read(&database).unwrap();
    let needle = &raws[19][8000..8064];
    let place = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    let page = place / 8192 * 8192;
    bytes[page..page + 8192].fill(0);
    fs::write(&database, &bytes).unwrap();
    let report = verify(&path).await.unwrap();
    assert!(report.damaged.iter().any(|damaged| damaged.sequence == 20), "{report:?}");
    let journal = over(Arc::new(SqliteStore::open(&path).await.unwrap())).await;
    let ids: Vec<_> = (1..=60).map(|sequence| id(Sequence(sequence), "adt", "record")).collect();
    let loaded = load(&journal, &ids).await.unwrap();
    assert_eq!(loaded.len(), 60);
    let bad: Vec<_> = loaded.iter().filter_map(|one| Some(one.as_ref().err()?.sequence.0)).collect();
    assert_eq!(bad, report.damaged.iter().map(|damaged| damaged.sequence).collect::<Vec<_>>());
    journal.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_reported_by_message_and_delivery() {
    let (_directory, path, raws) = made(12).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path.join("journal.sqlite"));
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    for sql in [
        "UPDATE message SET body = zeroblob(9) WHERE sequence = 2",
        "UPDATE message SET codec = 9 WHERE sequence = 3",
        "UPDATE delivery SET output = x'00' WHERE sequence = 4",
        "UPDATE message SET body = NULL WHERE sequence = 5",
    ] {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    let report = verify(&path).await.unwrap();
    let delivery = |name: &str| Some(name.to_owned());
    let damaged = |sequence, delivered: bool, what: &str| Damaged {
        sequence,
        route: delivered.then(|| delivery("adt")).flatten(),
        destination: delivered.then(|| delivery("record")).flatten(),
        what: what.to_owned(),
    };
    assert_eq!(
        report,
        Report {
            messages: raws.len() as u64,
            without_body: 1,
            deliveries: 4,
            pages: vec![],
            damaged: vec![
                damaged(2, false, "the stored bytes do not match their hash"),
                damaged(3, false, "the stored bytes cannot be unpacked"),
                damaged(4, true, "what was sent: the stored bytes cannot be unpacked"),
            ],
        }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_one_moment_of_a_running_journal_and_comes_back_paused() {
    let directory = tempfile::tempdir().unwrap();
    let [path, copy, back] = ["journal", "copy", "back"].map(|name| directory.path().join(name));
    let journal = journal_of(&path).await;
    for number in 0..300 {
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
    let going_on = tokio::spawn({
        let journal = journal.clone();
        async move {
            for number in 300..600 {
                journal.append(message(number, &[("adt", "record")])).await.unwrap();
            }
        }
    });
    let report = backup(&path, &copy).await.unwrap();
    going_on.await.unwrap();
    assert!((300..=600).contains(&report.messages), "{report:?}");
    assert!(matches!(backup(&path, &copy).await, Err(CopyError::Exists(_))), "nothing is overwritten");
    assert!(matches!(restore(&copy, &path, at(9)).await, Err(CopyError::Exists(_))));
    let nothing = restore(&directory.path().join("nowhere"), &back, at(9)).await;
    assert!(matches!(nothing, Err(CopyError::Nothing(_))));
    journal.close().await;

    assert_eq!(restore(&copy, &back, at(9)).await.unwrap(), report);
    let restored = journal_of(&back).await;
    assert!(restored.paused().unwrap().starts_with("restored from a backup at "), "{:?}", restored.paused());
    let pending = restored.pending("record", Sequence(0), 1000).await.unwrap();
    assert_eq!(pending.len() as u64, report.messages);
    assert_eq!(restored.find(crate::journal::Key::ControlId("7"), 9).await.unwrap().len(), 1);
    restored.close().await;
    let (stats, counts) = glance(&back).await.unwrap();
    assert_eq!((stats.messages, counts[0].deliveries), (report.messages, report.messages));
    assert_eq!(journal_of(&path).await.paused(), None);
    assert_eq!(PAUSED, "paused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_is_no_backup() {
    let (_directory, path, _) = made(12).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path.join("journal.sqlite"));
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("UPDATE message SET body = zeroblob(9) WHERE sequence = 2")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let copy = path.join("copy");
    assert!(matches!(backup(&path, &copy).await, Err(CopyError::Damaged(_))));
    assert!(!copy.join("journal.sqlite").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_removes_is_given_back_to_the_disk() {
    let (_directory, path, raws) = made(400).await;
    let journal = journal_of(&path).await;
    for pending in journal.pending("record", Sequence(0), 1000).await.unwrap() {
        journal.record(outcome(&pending.id, State::Delivered, 1)).await.unwrap();
    }
    let before = journal.stats().await.unwrap();
    let ages = Ages { bodies: None, messages: Some(std::time::Duration::ZERO) };
    journal.retain(&Retention { default: ages, ..Retention::default() }, at(9999)).await.unwrap();
    let after = journal.stats().await.unwrap();
    assert_eq!((before.messages, after.messages), (raws.len() as u64, 0));
    assert!(after.used_bytes * 10 < before.used_bytes, "{before:?} {after:?}");
    journal.close().await;
    let file = fs::metadata(path.join("journal.sqlite")).unwrap().len();
    assert!(file * 10 < before.used_bytes, "{file}");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path.join("journal.sqlite"));
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM search").fetch_one(&mut connection).await.unwrap();
    assert_eq!(left, 0, "no search key leads nowhere");
}

/// A long output needs its message, and is no less evidence for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_long_output_is_looked_at_with_its_message() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = journal_of(&path).await;
    let raw: bytes::Bytes = noise(1, 400_000).into();
    let new = crate::journal::NewMessage { raw: raw.clone(), ..message(1, &[("adt", "record")]) };
    let id = id(journal.append(new).await.unwrap(), "adt", "record");
    let output = vec![crate::connector::Payload::Hl7(raw.slice(10..))];
    let outcome = outcome(&id, State::Delivered, 1);
    journal.record(crate::journal::Outcome { output, message: raw, ..outcome }).await.unwrap();
    journal.close().await;
    assert!(verify(&path).await.unwrap().is_sound());
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path.join("journal.sqlite"));
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("UPDATE message SET body = zeroblob(length(body))").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let report = verify(&path).await.unwrap();
    let damaged: Vec<_> =
        report.damaged.iter().map(|one| (one.sequence, one.destination.as_deref())).collect();
    assert_eq!(damaged, [(1, None), (1, Some("record"))]);
}

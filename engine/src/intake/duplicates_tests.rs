//! Repeats and what only looks like one: over a real journal, with one memory and another.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    super::tests::{DAY, Fixed, GOOD, House, batch, numbered, peer},
    *,
};
use crate::{
    clock::Clock,
    connector::Intake,
    journal::{Disposition, Keys, NewDelivery, NewMessage, conformance, sqlite::SqliteStore},
};

#[tokio::test]
async fn p3_a_repeat_is_answered_as_before_and_run_once() {
    let house = House::live().await;
    for _ in 0..3 {
        let answer = house.accept(GOOD.as_bytes()).await.unwrap();
        assert!(answer[1].starts_with("MSA|AA|M1"), "{answer:?}");
    }
    assert_eq!(house.routed().await, 1);
    assert!(house.counted("tie_messages_duplicate_total{listener=\"hospital\"} 2"));
    assert!(house.counted("tie_messages_received_total{class=\"ADT\",listener=\"hospital\"} 1"));
}

#[tokio::test]
async fn p3_the_same_control_id_with_other_content_or_from_another_source_is_no_repeat() {
    let house = House::live().await;
    let others = [
        GOOD.replace("9991001069", "9434765919"),
        GOOD.replace("|PAS|", "|EPR|"),
        GOOD.replace("|RXX|", "|RYY|"),
        GOOD.replace("|M1|", "|M2|"),
    ];
    for message in [GOOD.to_owned()].iter().chain(&others) {
        assert!(house.accept(message.as_bytes()).await.unwrap()[1].starts_with("MSA|AA|"));
    }
    assert_eq!(house.routed().await, 5);
    // The first of them only: the others have another source or control id.
    assert!(house.counted("tie_control_ids_reused_total{listener=\"hospital\"} 1"));
    let first = house.journal.pending("record", Sequence(0), 9).await.unwrap()[1].id.sequence;
    let flag = house.journal.message(first).await.unwrap().unwrap().flag;
    assert_eq!(flag.as_deref(), Some("its source has used this control id for other content before"));
    // And still each of them is known.
    for message in &others {
        house.accept(message.as_bytes()).await;
    }
    assert_eq!(house.routed().await, 5);
}

#[tokio::test]
async fn p3_what_was_refused_or_put_in_quarantine_may_come_again() {
    let house = House::live().await;
    let unrouted = GOOD.replace("ADT^A01", "ORU^R01");
    house.accept(unrouted.as_bytes()).await;
    house.accept(unrouted.as_bytes()).await;
    assert_eq!(house.quarantined().await.len(), 2);
    assert!(!house.counted("tie_messages_duplicate_total{listener=\"hospital\"} 1"));
}

#[tokio::test]
async fn p3_a_listener_may_take_every_copy() {
    let house = House::with(|settings| settings.duplicates = None).await;
    house.accept(GOOD.as_bytes()).await;
    house.accept(GOOD.as_bytes()).await;
    assert_eq!(house.routed().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_copies_at_the_same_moment_are_stored_once_and_all_answered() {
    let house = Arc::new(House::live().await);
    for round in 0..20 {
        let copies = (0..16).map(|_| {
            let (house, raw) = (house.clone(), numbered("ADT^A01", &format!("R{round}")));
            tokio::spawn(async move { house.accept(raw.as_bytes()).await.unwrap()[1].clone() })
        });
        let answers = futures::future::try_join_all(copies.collect::<Vec<_>>()).await.unwrap();
        assert!(answers.iter().all(|msa| *msa == format!("MSA|AA|R{round}")), "{answers:?}");
    }
    assert_eq!(house.routed().await, 20);
    assert!(house.counted("tie_messages_duplicate_total{listener=\"hospital\"} 300"));
}

#[tokio::test]
async fn p3_a_batch_that_comes_again_and_a_message_twice_in_one_frame_run_once() {
    let house = House::live().await;
    let (one, two) = (numbered("ADT^A01", "M1"), numbered("ADT^A02", "M2"));
    let raw = batch(&[&one, &two, &one], "BTS|3\rFTS|1\r");
    for _ in 0..2 {
        let answer =
            house.reception.accept(Bytes::from(raw.clone()), &peer()).await.unwrap().acknowledgement.unwrap();
        assert!(String::from_utf8_lossy(&answer).contains("MSA|AA|M1"));
        assert_eq!(house.routed().await, 2);
    }
    // One of the batch alone, too.
    house.accept(two.as_bytes()).await;
    assert_eq!(house.routed().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_batches_with_the_same_messages_in_another_order_do_not_wait_for_each_other_for_ever() {
    let house = Arc::new(House::live().await);
    let (one, two) = (numbered("ADT^A01", "M1"), numbered("ADT^A02", "M2"));
    let (there, back) = (batch(&[&one, &two], ""), batch(&[&two, &one], ""));
    let sent = (0..32).map(|number| {
        let (house, raw) = (house.clone(), if number % 2 == 0 { there.clone() } else { back.clone() });
        tokio::spawn(async move { house.accept(&raw).await })
    });
    let all = futures::future::try_join_all(sent.collect::<Vec<_>>());
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("nobody waits for ever").unwrap();
    assert_eq!(house.routed().await, 2);
}

fn arrival(number: i64, received: Timestamp) -> Arrival {
    Arrival {
        sequence: Sequence(0),
        received,
        listener: "hospital".to_owned(),
        sending_application: "PAS".to_owned(),
        sending_facility: "RXX".to_owned(),
        control_id: number.to_string(),
        hash: crate::journal::body::Body::pack(number.to_string().as_bytes()).hash,
    }
}

async fn store(journal: &Journal, arrival: &Arrival) -> Sequence {
    let deliver = |to: &str| NewDelivery {
        route: "adt".to_owned(),
        destination: to.to_owned(),
        lanes: vec!["patient|x".to_owned()],
    };
    let message = NewMessage {
        received: arrival.received,
        listener: arrival.listener.clone(),
        peer: String::new(),
        raw: Bytes::from(arrival.control_id.clone()),
        keys: Keys {
            control_id: arrival.control_id.clone(),
            sending_application: arrival.sending_application.clone(),
            sending_facility: arrival.sending_facility.clone(),
            ..Keys::default()
        },
        flag: None,
        disposition: Disposition::Routed(vec![deliver("record")]),
    };
    journal.append(message).await.unwrap()
}

async fn journal() -> (tempfile::TempDir, Journal) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("journal")).await.unwrap();
    (directory, conformance::over(Arc::new(store)).await)
}

async fn look(duplicates: &Duplicates, arrival: &Arrival) -> Earlier {
    duplicates.earlier(arrival, duplicates.marks(arrival), DAY, false).await.unwrap()
}

#[tokio::test]
async fn p3_a_restart_forgets_nothing_neither_before_nor_after_the_window_is_read() {
    let (_directory, journal) = journal().await;
    let now = Fixed.now();
    // More than a page, and the first of them outside the window.
    let hours = |hours: i64| now - jiff::SignedDuration::from_hours(hours);
    let old = store(&journal, &arrival(-1, hours(25))).await;
    let mut stored = Vec::new();
    for number in 0..(PAGE as i64 + 100) {
        stored.push(arrival(number, hours(23 - number * 23 / 5000)));
    }
    let sequences = futures::future::join_all(stored.iter().map(|arrival| store(&journal, arrival))).await;
    let duplicates = Duplicates::new(journal.clone());
    assert!(duplicates.remember(DAY));
    for read in [false, true] {
        if read {
            let messages = duplicates.recall(now).await.unwrap();
            assert_eq!(messages, sequences.len() + 1);
            assert!(duplicates.state.lock().known.unwrap().since <= hours(24), "all of the window is known");
        }
        for (arrival, sequence) in stored.iter().zip(&sequences).step_by(97) {
            let again = Arrival { received: now, ..arrival.clone() };
            assert_eq!(look(&duplicates, &again).await, Earlier::Copy(*sequence), "read: {read}");
            let other = Arrival { hash: [7; 32], ..again };
            assert_eq!(look(&duplicates, &other).await, Earlier::Other, "read: {read}");
        }
        let late = arrival(-1, now);
        assert_eq!(look(&duplicates, &late).await, Earlier::None, "{old:?} is older than the window");
        assert_eq!(look(&duplicates, &arrival(-2, now)).await, Earlier::None);
    }
}

#[tokio::test]
async fn what_comes_while_the_window_is_read_back_waits_for_that_and_not_for_ever() {
    let (_directory, journal) = journal().await;
    let arrival = arrival(1, Fixed.now());
    let sequence = store(&journal, &arrival).await;
    let duplicates = Duplicates::new(journal);
    assert!(duplicates.remember(DAY));
    let reading = duplicates.recall.write().await;
    let mut comes = std::pin::pin!(look(&duplicates, &arrival));
    assert!(timeout(Duration::from_millis(200), &mut comes).await.is_err(), "it does not ask the journal");
    drop(reading);
    assert_eq!(comes.await, Earlier::Copy(sequence));
    let _hangs = duplicates.recall.write().await;
    let all_the_same = timeout(2 * PATIENCE, look(&duplicates, &arrival)).await.unwrap();
    assert_eq!(all_the_same, Earlier::Copy(sequence));
}

#[tokio::test]
async fn p3_p6_what_memory_has_no_room_for_is_asked_of_the_journal() {
    let (_directory, journal) = journal().await;
    let duplicates = Duplicates::with_room_for(journal.clone(), 40);
    assert!(duplicates.remember(DAY));
    duplicates.recall(Fixed.now()).await.unwrap();
    let mut stored = Vec::new();
    for number in 0..200 {
        let arrival = arrival(number, Fixed.now() + jiff::SignedDuration::from_mins(5 * number));
        let sequence = store(&journal, &arrival).await;
        duplicates.stored(duplicates.marks(&arrival), sequence, arrival.received);
        assert!(duplicates.state.lock().marks <= 40);
        stored.push((arrival, sequence));
    }
    let now = stored.last().unwrap().0.received;
    for (arrival, sequence) in stored {
        let again = Arrival { received: now, ..arrival };
        assert_eq!(look(&duplicates, &again).await, Earlier::Copy(sequence));
    }
}

#[tokio::test]
async fn p3_if_storing_the_first_copy_fails_the_second_is_stored() {
    let (_directory, journal) = journal().await;
    let duplicates = Arc::new(Duplicates::new(journal));
    duplicates.remember(DAY);
    let message = arrival(1, Fixed.now());
    let marks = duplicates.marks(&message);
    let first = duplicates.claim([marks].into_iter()).await;
    let second = tokio::spawn({
        let (duplicates, message) = (duplicates.clone(), message.clone());
        async move {
            let _claims = duplicates.claim([marks].into_iter()).await;
            look(&duplicates, &message).await
        }
    });
    tokio::task::yield_now().await;
    assert!(!second.is_finished(), "it waits for the first");
    drop(first);
    assert_eq!(second.await.unwrap(), Earlier::None);
    assert!(duplicates.state.lock().under_way.is_empty());
}

#[tokio::test]
async fn a_window_that_changes_is_read_again_and_one_that_stays_is_not() {
    let (_directory, journal) = journal().await;
    let duplicates = Duplicates::new(journal);
    assert!(!duplicates.remember(Duration::ZERO), "nobody looks for repeats");
    assert!(duplicates.remember(DAY) && !duplicates.remember(DAY) && duplicates.remember(2 * DAY));
    assert!(!duplicates.remember(Duration::ZERO));
}

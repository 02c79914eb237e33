//! What every store must do, as tests against the [`Journal`] over it, in a [`Home`] of each kind.
//!
//! Not here: what only one store can be asked (its own files, locks, schema).

mod decisions;
mod loading;
mod model;
mod repeats;
mod retention;
mod searching;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub(crate) use decisions::{
    a_decision_leaves_alone_what_does_not_stand_as_asked,
    a_limit_divides_no_message_and_tells_where_to_go_on,
    a_release_sends_on_what_was_made_and_touches_nothing_else,
    a_skip_makes_dead_letters_with_the_reason_given, h4_what_is_being_sent_is_known_as_such,
    what_waits_is_told_with_how_much_waits_behind_it,
};
pub(crate) use loading::{
    a_long_output_comes_back_and_goes_with_its_message, load, p6_so_much_is_loaded_as_there_is_room_for,
    p7_a_damaged_body_is_told_by_its_sequence_and_harms_no_other,
};
pub(crate) use model::{a_random_life_agrees_with_a_model, steps};
pub(crate) use repeats::p3_repeats_are_found_by_source_control_id_and_content;
pub(crate) use retention::{
    a_paused_journal_stays_so_until_a_person_resumes_it, a_route_keeps_its_messages_as_long_as_it_says,
    p2_retention_takes_bodies_then_messages_and_nothing_unfinished,
    too_much_makes_room_by_the_oldest_bodies_first,
};
pub(crate) use searching::{
    a_search_finds_what_a_filter_over_everything_would,
    messages_are_found_by_their_keys_however_many_there_are, no_key_of_a_sender_is_poison,
    p9_with_a_key_identifiers_stand_as_hashes_and_are_found_all_the_same,
};

use super::{
    Count, DeliveryId, Disposition, Filter, Identifiers, Journal, JournalError, Keys, NewDelivery,
    NewMessage, Outcome, Pending, Requeue, Sequence, State,
    body::Body,
    store::{Append, Store},
};
use crate::{
    connector::{ErrorClass, Payload},
    metrics::Metrics,
};

/// Where a store can be opened, closed and opened again.
#[async_trait]
pub(crate) trait Home: Send + Sync {
    async fn open(&self) -> Arc<dyn Store>;
    /// Flips a bit in the stored body of a message, behind the store's back. The store is closed meanwhile.
    async fn damage(&self, sequence: Sequence);
}

pub(crate) async fn journal(home: &dyn Home) -> Journal {
    over(home.open().await).await
}

pub(crate) async fn over(store: Arc<dyn Store>) -> Journal {
    Journal::start(store, Identifiers::default(), metrics()).await.unwrap()
}

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap())
}

/// A journal over the SQLite store in a directory.
pub(crate) async fn journal_of(directory: &std::path::Path) -> Journal {
    over(Arc::new(super::sqlite::SqliteStore::open(directory).await.unwrap())).await
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub(crate) fn message(number: i64, to: &[(&str, &str)]) -> NewMessage {
    let deliveries = to.iter().map(|(route, destination)| NewDelivery {
        route: (*route).to_owned(),
        destination: (*destination).to_owned(),
        lanes: vec![format!("patient|x|{}", number % 3), "\"\\\u{1}é".to_owned()],
    });
    NewMessage {
        received: at(number),
        listener: "hospital".to_owned(),
        peer: "192.0.2.1".to_owned(),
        raw: Bytes::from(format!("MSH|^~\\&|PAS|RXX|||20260101||ADT^A01|{number}|P|2.4\r\u{b5}\0\u{ff}")),
        keys: Keys {
            control_id: number.to_string(),
            trigger: "ADT^A01".to_owned(),
            sending_application: "PAS".to_owned(),
            sending_facility: "RXX".to_owned(),
            patient: format!("x|{}", number % 3),
            nhs_number: format!("999000{:04}", number % 5),
            local_number: format!("x{}", number % 3),
            visit: format!("V{number}"),
            orders: vec![format!("P{number}"), format!("\"F{}'\\", number % 7)],
        },
        flag: None,
        disposition: Disposition::Routed(deliveries.collect()),
    }
}

/// A message as a store is given it.
pub(crate) fn append(new: NewMessage) -> Box<Append> {
    let NewMessage { received, listener, peer, raw, keys, flag, disposition } = new;
    Box::new(Append { received, listener, peer, keys, flag, disposition, body: Body::pack(&raw) })
}

/// Bytes that do not compress.
pub(crate) fn noise(mut seed: u64, bytes: usize) -> Vec<u8> {
    let next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

pub(crate) fn outcome(id: &DeliveryId, state: State, attempts: u32) -> Outcome {
    Outcome {
        id: id.clone(),
        state,
        at: at(1000 + i64::from(attempts)),
        attempts,
        first_attempt: Some(at(1000)),
        output: vec![Payload::FhirBundle(Bytes::from(format!("{{\"attempt\":{attempts}}}")))],
        message: Bytes::new(),
        revision: "r1".to_owned(),
        reason: "503".to_owned(),
        class: Some(ErrorClass::Unavailable),
        detail: Some(Bytes::from_static(b"busy")),
    }
}

pub(crate) fn id(sequence: Sequence, route: &str, destination: &str) -> DeliveryId {
    DeliveryId { sequence, route: route.to_owned(), destination: destination.to_owned() }
}

pub(crate) fn replay(states: &[State]) -> Requeue {
    Requeue {
        filter: Filter { states: states.to_vec(), ..Filter::default() },
        limit: usize::MAX,
        dry_run: false,
        who: "ann".to_owned(),
        why: "receiver mended".to_owned(),
        at: at(5000),
    }
}

pub(crate) async fn p1_what_was_appended_is_there_after_a_reopen(home: &dyn Home) {
    let journal = journal(home).await;
    let new = NewMessage {
        flag: Some("same control id as message 3, other content".to_owned()),
        ..message(7, &[("adt", "record"), ("adt", "archive")])
    };
    let sequence = journal.append(new.clone()).await.unwrap();
    let mut quarantined = message(8, &[]);
    quarantined.raw = Bytes::from_static(b"\0junk\xff");
    quarantined.disposition = Disposition::Quarantined { reason: "no MSH".to_owned() };
    let second = journal.append(quarantined).await.unwrap();
    journal.close().await;

    let journal = self::journal(home).await;
    assert_eq!(journal.watch().borrow().last, second);
    let pending = journal.pending("record", Sequence(0), 10).await.unwrap();
    let Disposition::Routed(deliveries) = &new.disposition else { unreachable!() };
    assert_eq!(
        pending,
        [Pending {
            id: id(sequence, "adt", "record"),
            lanes: deliveries[0].lanes.clone(),
            received: new.received,
            state: State::Ready,
            attempts: 0,
            first_attempt: None,
        }]
    );
    assert_eq!(journal.pending("archive", Sequence(0), 10).await.unwrap().len(), 1);
    assert_eq!(journal.pending("nobody", Sequence(0), 10).await.unwrap(), []);
    let loaded = load(&journal, &[pending[0].id.clone()]).await.unwrap();
    let work = loaded[0].clone().unwrap();
    assert_eq!((work.entry.raw, work.entry.control_id.as_str()), (new.raw.clone(), "7"));
    assert_eq!((work.entry.received, work.entry.listener.as_str()), (new.received, "hospital"));
    assert_eq!(work.output, None);
    let summary = journal.message(sequence).await.unwrap().unwrap();
    assert_eq!((summary.keys, summary.size_bytes), (new.keys, new.raw.len()));
    assert_eq!((summary.peer.as_str(), summary.quarantine, summary.flag), ("192.0.2.1", None, new.flag));
    let kept = journal.quarantine(10, Sequence(0)).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].sequence, kept[0].quarantine.as_deref()), (second, Some("no MSH")));
    assert_eq!(journal.body(second).await.unwrap().unwrap(), Bytes::from_static(b"\0junk\xff"));
    assert!(journal.body(Sequence(99)).await.unwrap().is_none());
    assert_eq!(journal.stats().await.unwrap().quarantined, 1);
}

pub(crate) async fn sequences_rise_in_the_order_of_arrival_and_go_on_after_a_reopen(home: &dyn Home) {
    let mut last = Sequence(0);
    for _ in 0..3 {
        let journal = journal(home).await;
        for number in 0..5 {
            let sequence = journal.append(message(number, &[("adt", "record")])).await.unwrap();
            assert!(sequence > last);
            last = sequence;
        }
        journal.close().await;
    }
    let journal = journal(home).await;
    let pending = journal.pending("record", Sequence(0), 100).await.unwrap();
    let numbers: Vec<_> = pending.iter().map(|one| one.received.as_second() - at(0).as_second()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    assert!(pending.windows(2).all(|two| two[0].id.sequence < two[1].id.sequence));
}

pub(crate) async fn messages_handed_in_together_keep_their_order(home: &dyn Home) {
    let journal = journal(home).await;
    // More than the channel holds, so that handing in has to wait for commits.
    let messages: Vec<_> = (0..9000).map(|number| message(number, &[("adt", "record")])).collect();
    let sequences = journal.append_all(messages).await.unwrap();
    assert!(sequences.windows(2).all(|two| two[0] < two[1]));
    let last = journal.message(sequences[8999]).await.unwrap().unwrap();
    assert_eq!(last.keys.control_id, "8999");
}

pub(crate) async fn a_group_answers_everybody_who_waits(home: &dyn Home) {
    let journal = journal(home).await;
    let appends = (0..700).map(|number| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let sequence = journal.append(message(number, &[("adt", "record")])).await.unwrap();
            let entry = load(&journal, &[id(sequence, "adt", "record")]).await.unwrap();
            assert_eq!(entry[0].as_ref().unwrap().entry.control_id, number.to_string());
            if number % 2 == 0 {
                let outcome = outcome(&id(sequence, "adt", "record"), State::Delivered, 1);
                journal.record(outcome).await.unwrap();
            }
            sequence
        })
    });
    let mut sequences = futures::future::try_join_all(appends.collect::<Vec<_>>()).await.unwrap();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), 700);
    assert_eq!(journal.watch().borrow().last, *sequences.last().unwrap());
    assert_eq!(journal.pending("record", Sequence(0), 1000).await.unwrap().len(), 350);
}

pub(crate) async fn an_outcome_takes_the_place_of_what_was_pending(home: &dyn Home) {
    let journal = journal(home).await;
    let sequence = journal.append(message(1, &[("adt", "record"), ("audit", "record")])).await.unwrap();
    let (adt, audit) = (id(sequence, "adt", "record"), id(sequence, "audit", "record"));
    journal.record(outcome(&adt, State::Retrying, 1)).await.unwrap();
    journal.record(outcome(&audit, State::Held, 1)).await.unwrap();
    journal.close().await;

    let journal = self::journal(home).await;
    let pending = journal.pending("record", Sequence(0), 10).await.unwrap();
    assert_eq!((pending[0].state, pending[1].state), (State::Retrying, State::Held));
    assert_eq!((pending[0].attempts, pending[0].first_attempt), (1, Some(at(1000))));
    let loaded = load(&journal, &[audit.clone(), adt.clone()]).await.unwrap();
    assert_eq!(loaded[0].as_ref().unwrap().output, None, "what is held is mapped anew");
    let output = loaded[1].as_ref().unwrap().output.clone().unwrap();
    assert_eq!((output.payloads, output.revision.as_str()), (outcome(&adt, State::Retrying, 1).output, "r1"));

    journal.record(outcome(&adt, State::Delivered, 2)).await.unwrap();
    journal.record(outcome(&adt, State::Dead, 3)).await.unwrap();
    assert_eq!(journal.pending("record", Sequence(0), 10).await.unwrap().len(), 1);
    let deliveries = journal.deliveries(sequence).await.unwrap();
    assert_eq!(deliveries.len(), 2);
    assert_eq!((&deliveries[0].id, deliveries[0].state), (&adt, State::Delivered), "one outcome, the first");
    assert_eq!((deliveries[0].attempts, deliveries[0].at), (2, Some(at(1002))));
    assert_eq!((deliveries[0].reason.as_str(), deliveries[0].class), ("503", Some(ErrorClass::Unavailable)));
    let exchange = journal.exchange(&adt).await.unwrap().unwrap();
    assert_eq!(exchange.output, outcome(&adt, State::Delivered, 2).output);
    assert_eq!(exchange.detail, Some(Bytes::from_static(b"busy")));
    assert_eq!(journal.dead(10, Sequence(0)).await.unwrap(), []);
}

pub(crate) async fn a_page_never_tears_a_message_apart(home: &dyn Home) {
    let journal = journal(home).await;
    for number in 0..3 {
        journal.append(message(number, &[("a", "record"), ("b", "record"), ("c", "record")])).await.unwrap();
    }
    let mut after = Sequence(0);
    let mut seen = Vec::new();
    loop {
        let page = journal.pending("record", after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert_eq!(page.len(), 3);
        after = last.id.sequence;
        seen.extend(page.into_iter().map(|pending| pending.id));
    }
    assert_eq!(seen.len(), 9);
    for delivery in &seen {
        journal.record(outcome(delivery, State::Dead, 1)).await.unwrap();
    }
    let first = journal.dead(1, Sequence(0)).await.unwrap();
    assert_eq!(first.len(), 3);
    assert_eq!(journal.dead(10, first[0].id.sequence).await.unwrap().len(), 6);
}

pub(crate) async fn what_owes_nothing_or_the_same_twice_is_neither_lost_nor_fatal(home: &dyn Home) {
    let journal = journal(home).await;
    let nothing = journal.append(message(1, &[])).await.unwrap();
    assert_eq!(journal.quarantine(10, Sequence(0)).await.unwrap()[0].sequence, nothing);
    journal.append(message(2, &[("adt", "record"), ("adt", "record")])).await.unwrap();
    assert_eq!(journal.pending("record", Sequence(0), 10).await.unwrap().len(), 1);
}

pub(crate) async fn a_replay_makes_ready_again_and_is_audited(home: &dyn Home) {
    let journal = journal(home).await;
    let mut ids = Vec::new();
    for (number, state) in
        [State::Dead, State::Held, State::Parked, State::Delivered, State::Retrying].into_iter().enumerate()
    {
        let sequence = journal.append(message(number as i64, &[("adt", "record")])).await.unwrap();
        ids.push(id(sequence, "adt", "record"));
        journal.record(outcome(&ids[number], state, 1)).await.unwrap();
    }
    let lanes = journal.deliveries(ids[0].sequence).await.unwrap()[0].lanes.clone();
    assert_eq!(lanes.len(), 2);
    let states =
        async || -> Vec<_> { model::states(&journal, "record").await.into_iter().map(|one| one.1).collect() };
    let before = states().await;
    assert_eq!(before, [State::Held, State::Parked, State::Retrying]);

    let dry = Requeue { dry_run: true, ..replay(&[State::Dead, State::Held]) };
    let would = journal.requeue(&dry).await.unwrap();
    assert_eq!((would.deliveries, would.first), (2, ids[..2].to_vec()));
    assert_eq!(states().await, before);
    assert_eq!(journal.audit(10).await.unwrap(), []);

    let mut only_one = replay(&[State::Dead, State::Held, State::Parked, State::Delivered]);
    only_one.limit = 1;
    assert_eq!(journal.requeue(&only_one).await.unwrap().first, ids[..1]);
    let mut by_control_id = replay(&[State::Delivered]);
    by_control_id.filter.control_id = Some("3".to_owned());
    assert_eq!(journal.requeue(&by_control_id).await.unwrap().first, ids[3..4]);
    let mut elsewhere = replay(&[State::Held]);
    elsewhere.filter.destination = Some("archive".to_owned());
    assert_eq!(journal.requeue(&elsewhere).await.unwrap().deliveries, 0);
    assert_eq!(journal.requeue(&replay(&[State::Held, State::Parked])).await.unwrap().deliveries, 2);
    let ready = State::Ready;
    assert_eq!(states().await, [ready, ready, ready, ready, State::Retrying]);
    assert_eq!(journal.watch().borrow().requeued, 4);
    journal.close().await;

    let journal = self::journal(home).await;
    let pending = journal.pending("record", Sequence(0), 10).await.unwrap();
    assert_eq!((&pending[0].id, &pending[0].lanes), (&ids[0], &lanes), "in its old place and lanes");
    assert_eq!((pending[0].attempts, pending[0].received), (0, at(0)));
    let audit = journal.audit(10).await.unwrap();
    assert_eq!(audit.len(), 3);
    assert_eq!(
        (audit[0].who.as_str(), audit[0].why.as_str(), audit[0].at),
        ("ann", "receiver mended", at(5000))
    );
    assert_eq!((audit[0].deliveries, audit[1].deliveries), (2, 1));
    assert!(audit[1].asked.contains("\"control_id\":\"3\""));
    for states in [&[][..], &[State::Ready], &[State::Dead, State::Retrying]] {
        let refused = journal.requeue(&replay(states)).await;
        assert!(matches!(refused, Err(JournalError::Read(_))), "{states:?}");
    }
}

pub(crate) async fn a_long_replay_goes_in_steps(home: &dyn Home) {
    let journal = journal(home).await;
    let all: Vec<_> = (0..1203)
        .map(|number| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let to = [("a", "record"), ("b", "record")];
                let sequence = journal.append(message(number, &to)).await.unwrap();
                for (route, destination) in to {
                    let dead = outcome(&id(sequence, route, destination), State::Dead, 1);
                    journal.record(dead).await.unwrap();
                }
            })
        })
        .collect();
    futures::future::try_join_all(all).await.unwrap();
    let done = journal.requeue(&Requeue { limit: 2001, ..replay(&[State::Dead]) }).await.unwrap();
    assert_eq!((done.deliveries, done.more_after), (2000, Some(Sequence(1000))), "a message is not divided");
    let audited: u64 = journal.audit(100).await.unwrap().iter().map(|audit| audit.deliveries).sum();
    assert_eq!(audited, 2000);
    assert_eq!(journal.pending("record", Sequence(0), 9999).await.unwrap().len(), 2000);
    let rest = journal.requeue(&replay(&[State::Dead])).await.unwrap();
    assert_eq!((rest.deliveries, rest.more_after), (406, None));
}

pub(crate) async fn counts_follow_every_change_and_survive_a_reopen(home: &dyn Home) {
    let journal = journal(home).await;
    for number in 0..6 {
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
    let counts = async |journal: &Journal| -> Vec<(State, u64, Option<Timestamp>)> {
        let counts = journal.counts().await.unwrap();
        counts
            .into_iter()
            .filter(|count| count.deliveries > 0)
            .map(|Count { state, deliveries, oldest, .. }| (state, deliveries, oldest))
            .collect()
    };
    assert_eq!(counts(&journal).await, [(State::Ready, 6, Some(at(0)))]);
    let pending = journal.pending("record", Sequence(0), 10).await.unwrap();
    for (pending, state) in pending.iter().zip([State::Dead, State::Delivered, State::Held, State::Retrying])
    {
        journal.record(outcome(&pending.id, state, 1)).await.unwrap();
    }
    let expected = [
        (State::Ready, 2, Some(at(4))),
        (State::Retrying, 1, Some(at(3))),
        (State::Held, 1, Some(at(2))),
        (State::Dead, 1, Some(at(0))),
    ];
    assert_eq!(counts(&journal).await, expected);
    journal.close().await;
    let journal = self::journal(home).await;
    assert_eq!(counts(&journal).await, expected);
    journal.requeue(&replay(&[State::Dead])).await.unwrap();
    let expected =
        [(State::Ready, 3, Some(at(0))), (State::Retrying, 1, Some(at(3))), (State::Held, 1, Some(at(2)))];
    assert_eq!(counts(&journal).await, expected);
}

pub(crate) async fn a_closed_journal_says_so(home: &dyn Home) {
    let journal = journal(home).await;
    let sequence = journal.append(message(1, &[("adt", "record")])).await.unwrap();
    assert!(!journal.is_closed());
    journal.close().await;
    assert!(journal.is_closed());
    assert_eq!(&*journal.closed().await, "the engine is stopping");
    let refused = journal.append(message(2, &[("adt", "record")])).await;
    assert!(matches!(refused, Err(JournalError::Closed(_))));
    let refused = journal.record(outcome(&id(sequence, "adt", "record"), State::Dead, 1)).await;
    assert!(matches!(refused, Err(JournalError::Closed(_))));
}

/// Runs the whole suite over a kind of home.
macro_rules! conforms {
    ($home:expr) => {
        macro_rules! test {
            ($name:ident) => {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::journal::conformance::$name(&$home).await;
                }
            };
        }
        test!(p1_what_was_appended_is_there_after_a_reopen);
        test!(sequences_rise_in_the_order_of_arrival_and_go_on_after_a_reopen);
        test!(messages_handed_in_together_keep_their_order);
        test!(a_group_answers_everybody_who_waits);
        test!(an_outcome_takes_the_place_of_what_was_pending);
        test!(a_page_never_tears_a_message_apart);
        test!(what_owes_nothing_or_the_same_twice_is_neither_lost_nor_fatal);
        test!(a_replay_makes_ready_again_and_is_audited);
        test!(a_release_sends_on_what_was_made_and_touches_nothing_else);
        test!(a_skip_makes_dead_letters_with_the_reason_given);
        test!(a_decision_leaves_alone_what_does_not_stand_as_asked);
        test!(a_limit_divides_no_message_and_tells_where_to_go_on);
        test!(what_waits_is_told_with_how_much_waits_behind_it);
        test!(a_long_replay_goes_in_steps);
        test!(messages_are_found_by_their_keys_however_many_there_are);
        test!(a_search_finds_what_a_filter_over_everything_would);
        test!(h4_what_is_being_sent_is_known_as_such);
        test!(no_key_of_a_sender_is_poison);
        test!(p9_with_a_key_identifiers_stand_as_hashes_and_are_found_all_the_same);
        test!(p3_repeats_are_found_by_source_control_id_and_content);
        test!(p2_retention_takes_bodies_then_messages_and_nothing_unfinished);
        test!(a_route_keeps_its_messages_as_long_as_it_says);
        test!(too_much_makes_room_by_the_oldest_bodies_first);
        test!(a_paused_journal_stays_so_until_a_person_resumes_it);
        test!(counts_follow_every_change_and_survive_a_reopen);
        test!(p7_a_damaged_body_is_told_by_its_sequence_and_harms_no_other);
        test!(p6_so_much_is_loaded_as_there_is_room_for);
        test!(a_long_output_comes_back_and_goes_with_its_message);
        test!(a_closed_journal_says_so);

        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]
            #[test]
            fn a_random_life_agrees_with_a_model(steps in $crate::journal::conformance::steps()) {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
                runtime.block_on($crate::journal::conformance::a_random_life_agrees_with_a_model(&$home, steps));
            }
        }
    };
}
pub(crate) use conforms;

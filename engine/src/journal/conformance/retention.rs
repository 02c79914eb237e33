//! Retention and pauses, over every store.

use std::{collections::BTreeMap, time::Duration};

use super::{Home, at, id, journal, load, message, outcome, replay};
use crate::journal::{
    Ages, Audit, DeliveryId, Disposition, Journal, Key, Requeue, Retention, Sequence, State,
    store::{Change, Pruned},
};

const NO_TIME: Option<Duration> = Some(Duration::ZERO);

/// One message in each state, and one in quarantine, in the order of [`State::ALL`].
async fn one_of_each(journal: &Journal) -> (Vec<DeliveryId>, Sequence) {
    let mut ids = Vec::new();
    for (number, state) in State::ALL.into_iter().enumerate() {
        let sequence = journal.append(message(number as i64, &[("adt", "record")])).await.unwrap();
        let id = id(sequence, "adt", "record");
        if state != State::Ready {
            journal.record(outcome(&id, state, 1)).await.unwrap();
        }
        ids.push(id);
    }
    let mut quarantined = message(50, &[]);
    quarantined.disposition = Disposition::Quarantined { reason: "no route takes it".to_owned() };
    (ids, journal.append(quarantined).await.unwrap())
}

pub(crate) async fn p2_retention_takes_bodies_then_messages_and_nothing_unfinished(home: &dyn Home) {
    let journal = journal(home).await;
    let (ids, quarantined) = one_of_each(&journal).await;
    let counts = journal.counts().await.unwrap();
    let (now, later) = (at(10_000), at(20_000));
    let bodies = Retention { default: Ages { bodies: NO_TIME, messages: None }, ..Retention::default() };
    let young = Retention { at_least: Duration::from_secs(15_000), ..bodies.clone() };
    assert_eq!(journal.retain(&young, now).await.unwrap(), Pruned::default());
    assert_eq!(journal.retain(&bodies, now).await.unwrap(), Pruned { bodies: 2, messages: 0 });
    assert_eq!(journal.retain(&bodies, now).await.unwrap(), Pruned::default(), "once is enough");
    for id in &ids {
        let ended_well = matches!(id.sequence.0, 5 | 6);
        let body = journal.body(id.sequence).await;
        assert_eq!(body.is_err(), ended_well, "{id:?}");
        if let Err(error) = body {
            assert!(
                error.to_string().ends_with("has no bytes any more: retention has removed them"),
                "{error}"
            );
            let exchange = journal.exchange(id).await.unwrap().unwrap();
            assert_eq!((exchange.output.len(), exchange.detail), (0, None));
        }
        assert!(journal.message(id.sequence).await.unwrap().is_some(), "it is still found");
    }
    let done = journal
        .requeue(&Requeue { dry_run: true, ..replay(&[State::Delivered, State::Dead]) })
        .await
        .unwrap();
    assert_eq!((done.deliveries, done.without_bytes), (1, 1));
    let done = journal.requeue(&replay(&[State::Delivered])).await.unwrap();
    assert_eq!((done.deliveries, done.without_bytes), (0, 1));
    assert_eq!(journal.counts().await.unwrap(), counts);

    let all = Retention { default: Ages { bodies: NO_TIME, messages: NO_TIME }, ..Retention::default() };
    assert_eq!(journal.retain(&all, later).await.unwrap(), Pruned { bodies: 0, messages: 2 });
    assert!(journal.message(ids[5].sequence).await.unwrap().is_none());
    assert_eq!(journal.find(Key::ControlId("5"), 10).await.unwrap(), []);
    assert_eq!(journal.counts().await.unwrap(), counts);
    let with_dead = Retention { dead: NO_TIME, quarantine: NO_TIME, ..all };
    assert_eq!(journal.retain(&with_dead, later).await.unwrap(), Pruned { bodies: 0, messages: 2 });
    assert!(journal.message(quarantined).await.unwrap().is_none());
    journal.close().await;

    let journal = self::journal(home).await;
    assert_eq!(journal.pending("record", Sequence(0), 10).await.unwrap().len(), 4);
    assert!(load(&journal, &ids[..4]).await.unwrap().iter().all(|loaded| loaded.is_ok()));
    assert_eq!(journal.dead(10, Sequence(0)).await.unwrap(), []);
    assert!(
        journal.counts().await.unwrap().iter().all(|count| !count.state.is_end() || count.deliveries == 0)
    );
    let audited: Vec<_> = journal.audit(10).await.unwrap().into_iter().map(|audit| audit.asked).collect();
    assert_eq!(audited[0], r#"{"bodies":0,"messages":2}"#);
    assert_eq!(journal.stats().await.unwrap().messages, 4);
}

pub(crate) async fn a_route_keeps_its_messages_as_long_as_it_says(home: &dyn Home) {
    let journal = journal(home).await;
    let mut sequences = Vec::new();
    for routes in [&[("adt", "record")][..], &[("oru", "record")], &[("adt", "record"), ("oru", "record")]] {
        let sequence = journal.append(message(1, routes)).await.unwrap();
        for (route, destination) in routes {
            journal.record(outcome(&id(sequence, route, destination), State::Delivered, 1)).await.unwrap();
        }
        sequences.push(sequence);
    }
    let policy = Retention {
        default: Ages { bodies: None, messages: NO_TIME },
        routes: BTreeMap::from([("oru".to_owned(), Ages::default())]),
        ..Retention::default()
    };
    assert_eq!(journal.retain(&policy, at(9)).await.unwrap(), Pruned { bodies: 0, messages: 1 });
    assert!(journal.message(sequences[0]).await.unwrap().is_none());
    assert!(journal.body(sequences[2]).await.is_ok());
}

pub(crate) async fn too_much_makes_room_by_the_oldest_bodies_first(home: &dyn Home) {
    let journal = journal(home).await;
    for number in 0..600 {
        let sequence = journal.append(message(number, &[("adt", "record")])).await.unwrap();
        if number != 3 {
            journal.record(outcome(&id(sequence, "adt", "record"), State::Delivered, 1)).await.unwrap();
        }
    }
    let full = Retention { most_bytes: Some(1), ..Retention::default() };
    let pruned = journal.retain(&full, at(9999)).await.unwrap();
    assert_eq!(pruned, Pruned { bodies: 599, messages: 599 });
    assert_eq!(journal.pending("record", Sequence(0), 10).await.unwrap().len(), 1);
    let room = Retention { most_bytes: Some(u64::MAX), ..Retention::default() };
    assert_eq!(journal.retain(&room, at(9999)).await.unwrap(), Pruned::default());
}

pub(crate) async fn a_paused_journal_stays_so_until_a_person_resumes_it(home: &dyn Home) {
    let store = home.open().await;
    store
        .commit(vec![Change::Note(crate::journal::PAUSED, Some("restored".to_owned()), None)])
        .await
        .unwrap();
    store.close().await;
    drop(store);
    let journal = journal(home).await;
    assert_eq!(journal.paused().as_deref(), Some("restored"));
    let waiting = tokio::spawn({
        let journal = journal.clone();
        async move { journal.resumed().await }
    });
    journal.append(message(1, &[("adt", "record")])).await.unwrap();
    assert!(!waiting.is_finished());
    let audit = || Audit {
        at: at(5),
        action: "resume".to_owned(),
        who: "ann".to_owned(),
        why: "the original is off".to_owned(),
        asked: "{}".to_owned(),
        deliveries: 0,
    };
    assert!(journal.resume(audit()).await.unwrap());
    waiting.await.unwrap();
    assert!(!journal.resume(audit()).await.unwrap(), "only once");
    journal.close().await;

    let journal = self::journal(home).await;
    assert_eq!(journal.paused(), None);
    journal.resumed().await;
    assert_eq!(journal.audit(10).await.unwrap(), [audit()]);
}

//! What a person decides: release, skip, and what waits; replay stands with the others.

use bytes::Bytes;

use super::{Home, at, id, journal, load, message, outcome, over, replay};
use crate::{
    connector::ErrorClass,
    journal::{
        Audit, BEING_SENT, Decision, DeliveryId, Disposition, Journal, NewDelivery, Outcome, Requeue,
        Sequence, State, WaitingList,
        store::{Change, Chosen, Committed},
    },
};

/// One delivery in every state that it can come to, in the order of [`State::ALL`]; the first is ready.
async fn one_in_each_state(journal: &Journal) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    for (number, state) in State::ALL.into_iter().enumerate() {
        let sequence = journal.append(message(number as i64, &[("adt", "record")])).await.unwrap();
        ids.push(id(sequence, "adt", "record"));
        if state != State::Ready {
            journal.record(outcome(&ids[number], state, 3)).await.unwrap();
        }
    }
    ids
}

pub(crate) async fn a_release_sends_on_what_was_made_and_touches_nothing_else(home: &dyn Home) {
    let journal = journal(home).await;
    let ids = one_in_each_state(&journal).await;
    let before = journal.watch().borrow().requeued;
    let both = replay(&[State::Parked, State::Held]);
    let would = journal.decide(Decision::Release, &Requeue { dry_run: true, ..both.clone() }).await.unwrap();
    assert_eq!((would.deliveries, would.first), (2, ids[2..4].to_vec()));
    assert_eq!(journal.audit(9).await.unwrap(), []);
    assert_eq!(journal.decide(Decision::Release, &both).await.unwrap().deliveries, 2);
    assert_eq!(journal.watch().borrow().requeued, before + 2, "couriers look again");
    journal.close().await;

    let journal = self::journal(home).await;
    let pending = journal.pending("record", Sequence(0), 10).await.unwrap();
    let states: Vec<_> = pending.iter().map(|one| (one.state, one.attempts)).collect();
    use State::{Ready, Retrying};
    assert_eq!(states, [(Ready, 0), (Retrying, 3), (Retrying, 0), (Retrying, 0)]);
    let loaded = load(&journal, &ids[2..4]).await.unwrap();
    for (loaded, id) in loaded.into_iter().zip(&ids[2..4]) {
        let output = loaded.unwrap().output.expect("what was made is sent again");
        assert_eq!(output.payloads, outcome(id, State::Parked, 3).output);
    }
    let audit = journal.audit(9).await.unwrap();
    assert_eq!((audit[0].action.as_str(), audit[0].deliveries, audit.len()), ("release", 2, 1));
    for state in [Ready, Retrying, State::Dead, State::Delivered] {
        assert!(journal.decide(Decision::Release, &replay(&[state])).await.is_err(), "{state:?}");
    }
}

pub(crate) async fn a_skip_makes_dead_letters_with_the_reason_given(home: &dyn Home) {
    let journal = journal(home).await;
    let ids = one_in_each_state(&journal).await;
    let all = replay(&[State::Retrying, State::Parked, State::Held]);
    assert_eq!(journal.decide(Decision::Skip, &all).await.unwrap().first, ids[1..4]);
    let counts = journal.counts().await.unwrap();
    let of = |state| counts.iter().find(|count| count.state == state).map_or(0, |count| count.deliveries);
    let [ready, retrying, parked, held, .., dead] = State::ALL.map(of);
    assert_eq!([ready, retrying, parked, held, dead], [1, 0, 0, 0, 4]);
    // An attempt that was under way meanwhile has no say any more.
    assert!(!journal.record(outcome(&ids[1], State::Retrying, 4)).await.unwrap());
    journal.close().await;

    let journal = self::journal(home).await;
    assert_eq!(
        journal.pending("record", Sequence(0), 10).await.unwrap().len(),
        1,
        "what is ready is left alone"
    );
    for id in &ids[1..4] {
        let record = journal.deliveries(id.sequence).await.unwrap().remove(0);
        assert_eq!((record.state, record.reason.as_str()), (State::Dead, "receiver mended"));
        assert_eq!(
            (record.at, record.attempts, record.class),
            (Some(at(5000)), 3, Some(ErrorClass::Unavailable))
        );
        let exchange = journal.exchange(id).await.unwrap().unwrap();
        assert_eq!(exchange.detail, Some(Bytes::from_static(b"busy")), "what the receiver said is kept");
    }
    let audit = journal.audit(9).await.unwrap();
    assert_eq!((audit[0].action.as_str(), audit[0].who.as_str(), audit[0].deliveries), ("skip", "ann", 3));
    assert_eq!(journal.requeue(&replay(&[State::Dead])).await.unwrap().deliveries, 4, "and can be replayed");
}

pub(crate) async fn a_decision_leaves_alone_what_does_not_stand_as_asked(home: &dyn Home) {
    let store = home.open().await;
    let journal = over(store.clone()).await;
    let ids = one_in_each_state(&journal).await;
    // As when all of them were chosen while they stood so, and have gone on meanwhile.
    let chosen = |state, action: &str| Chosen {
        ids: ids.clone(),
        states: vec![state],
        audit: Audit {
            at: at(5000),
            action: action.to_owned(),
            who: "ann".to_owned(),
            why: "mended".to_owned(),
            asked: String::new(),
            deliveries: 0,
        },
    };
    let batch = vec![
        Change::Requeue(chosen(State::Dead, "replay")),
        Change::Release(chosen(State::Held, "release")),
        Change::Skip(chosen(State::Parked, "skip")),
    ];
    assert_eq!(store.commit(batch).await.unwrap(), [Committed::Requeued(1); 3]);
    use State::{Dead, Delivered, Filtered, Ready, Retrying};
    let mut stand = Vec::new();
    for id in &ids {
        stand.push(journal.deliveries(id.sequence).await.unwrap()[0].state);
    }
    assert_eq!(stand, [Ready, Retrying, Dead, Retrying, Filtered, Delivered, Ready]);
    let pending = journal.pending("record", Sequence(0), 10).await.unwrap();
    let pending: Vec<_> = pending.into_iter().map(|one| (one.id, one.state)).collect();
    let [ready, retrying, _, held, .., dead] = <[DeliveryId; 7]>::try_from(ids).unwrap();
    assert_eq!(pending, [(ready, Ready), (retrying, Retrying), (held, Retrying), (dead, Ready)]);
    let audit = journal.audit(9).await.unwrap();
    assert_eq!(audit.iter().map(|one| one.deliveries).collect::<Vec<_>>(), [1, 1, 1]);
    let counts = journal.counts().await.unwrap();
    let of = |state| counts.iter().find(|count| count.state == state).map_or(0, |count| count.deliveries);
    assert_eq!([Ready, Retrying, State::Parked, State::Held, Dead].map(of), [2, 2, 0, 0, 1]);
}

pub(crate) async fn a_limit_divides_no_message_and_tells_where_to_go_on(home: &dyn Home) {
    let journal = journal(home).await;
    let mut sequences = Vec::new();
    for number in 0..3 {
        let to = [("adt", "archive"), ("adt", "record")];
        let sequence = journal.append(message(number, &to)).await.unwrap();
        for (route, destination) in to {
            journal.record(outcome(&id(sequence, route, destination), State::Delivered, 1)).await.unwrap();
        }
        sequences.push(sequence);
    }
    let ask = async |after: Option<Sequence>, limit, dry_run| {
        let mut request = Requeue { limit, dry_run, ..replay(&[State::Delivered]) };
        request.filter.after = after;
        let done = journal.requeue(&request).await.unwrap();
        (done.deliveries, done.more_after)
    };
    assert_eq!(ask(None, 1, true).await, (2, Some(sequences[0])), "the first message is always whole");
    assert_eq!(ask(None, 3, true).await, (2, Some(sequences[0])));
    assert_eq!(ask(None, 4, true).await, (4, Some(sequences[1])));
    assert_eq!(ask(None, 6, true).await, (6, None));
    assert_eq!(ask(None, 0, true).await, (0, Some(Sequence(0))));
    assert_eq!(ask(None, 5, false).await, (4, Some(sequences[1])));
    // What has come to the same state again meanwhile does not come a second time.
    for sequence in &sequences[..2] {
        journal.record(outcome(&id(*sequence, "adt", "record"), State::Delivered, 1)).await.unwrap();
    }
    assert_eq!(ask(Some(sequences[1]), 5, false).await, (2, None));
    assert_eq!(ask(Some(sequences[2]), 5, false).await, (0, None));
}

pub(crate) async fn what_waits_is_told_with_how_much_waits_behind_it(home: &dyn Home) {
    let journal = journal(home).await;
    let lanes = [&["a"][..], &["b"], &["a"], &["a", "b"], &["c"], &["a"]];
    let mut ids = Vec::new();
    for (number, lanes) in lanes.into_iter().enumerate() {
        let mut message = message(number as i64, &[]);
        let delivery = |destination: &str| NewDelivery {
            route: "adt".to_owned(),
            destination: destination.to_owned(),
            lanes: lanes.iter().map(|&lane| lane.to_owned()).collect(),
        };
        message.disposition = Disposition::Routed(vec![delivery("archive"), delivery("record")]);
        let sequence = journal.append(message).await.unwrap();
        ids.push(id(sequence, "adt", "record"));
    }
    let nothing = journal.waiting(None, 9).await.unwrap();
    assert!(nothing.lanes.is_empty() && nothing.complete && nothing.counted_all);
    journal.record(outcome(&ids[0], State::Parked, 1)).await.unwrap();
    journal.record(outcome(&ids[1], State::Retrying, 1)).await.unwrap();
    journal.record(outcome(&id(ids[4].sequence, "adt", "archive"), State::Held, 1)).await.unwrap();
    let told = |list: WaitingList| -> Vec<_> {
        list.lanes.into_iter().map(|one| (one.delivery.id, one.delivery.state, one.behind)).collect()
    };
    let all = told(journal.waiting(None, 9).await.unwrap());
    let held = (id(ids[4].sequence, "adt", "archive"), State::Held, 0);
    assert_eq!(all, [(ids[0].clone(), State::Parked, 3), (ids[1].clone(), State::Retrying, 1), held]);
    let first = journal.waiting(Some("record"), 1).await.unwrap();
    assert!(!first.complete);
    assert_eq!(told(first), all[..1]);
}

/// H4: that an attempt was under way is known to whoever comes next, until its end is.
pub(crate) async fn h4_what_is_being_sent_is_known_as_such(home: &dyn Home) {
    let journal = journal(home).await;
    let sequence = journal.append(message(1, &[("adt", "record")])).await.unwrap();
    let id = id(sequence, "adt", "record");
    let mark = Outcome { reason: BEING_SENT.to_owned(), ..outcome(&id, State::Retrying, 1) };
    let being_sent = async |journal: &Journal| {
        let work = load(journal, std::slice::from_ref(&id)).await.unwrap().remove(0).unwrap();
        (work.being_sent, work.output.is_some())
    };
    assert_eq!(being_sent(&journal).await, (false, false));
    assert!(journal.record(mark).await.unwrap());
    journal.close().await;
    let journal = super::journal(home).await;
    assert_eq!(being_sent(&journal).await, (true, true));
    assert!(journal.record(outcome(&id, State::Retrying, 1)).await.unwrap());
    assert_eq!(being_sent(&journal).await, (false, true));
}

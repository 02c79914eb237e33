//! Searches, compared with a filter over everything that was stored.

use bytes::Bytes;
use jiff::Timestamp;

use super::{Home, at, id, journal, message, metrics, outcome};
use crate::{
    journal::{
        Disposition, Identifiers, Journal, Key, NEWEST, NewMessage, Query, Sequence, StartError, State,
    },
    secret::SecretRef,
};

/// What is known of a stored message.
struct Kept {
    sequence: Sequence,
    received: Timestamp,
    listener: String,
    trigger: String,
    orders: Vec<String>,
    quarantined: bool,
    deliveries: Vec<(&'static str, &'static str, State)>,
}

pub(crate) async fn a_search_finds_what_a_filter_over_everything_would(home: &dyn Home) {
    let journal = journal(home).await;
    let mut kept = Vec::new();
    for number in 0..400 {
        kept.push(store(&journal, number).await);
    }
    let time = |second: Option<i64>| second.map(at);
    let mut found = 0;
    for (since, until) in [(None, None), (Some(100), None), (None, Some(90)), (Some(60), Some(170))] {
        for (listener, trigger) in [(None, None), (Some("ward"), None), (Some("hospital"), Some("ADT^A08"))] {
            for (route, destination, state) in [
                (None, None, None),
                (Some("adt"), None, None),
                (None, Some("archive"), None),
                (None, None, Some(State::Dead)),
                (Some("adt"), None, Some(State::Ready)),
                (None, Some("record"), Some(State::Retrying)),
                (Some("copy"), Some("archive"), Some(State::Delivered)),
                (Some("copy"), Some("record"), None),
            ] {
                for (key, quarantined) in [(None, false), (None, true), (Some(Key::Order("O3")), false)] {
                    let (since, until) = (time(since), time(until));
                    let query = Query {
                        since,
                        until,
                        listener,
                        trigger,
                        quarantined,
                        key,
                        route,
                        destination,
                        state,
                    };
                    let expected: Vec<_> =
                        kept.iter().rev().filter(|one| takes(&query, one)).map(|one| one.sequence).collect();
                    assert_eq!(all(&journal, &query).await, expected, "{query:?}");
                    found += expected.len();
                }
            }
        }
    }
    assert!(found > 1000, "the queries find something: {found}");
    let nobody = Query { listener: Some("nobody"), ..Query::default() };
    assert_eq!(all(&journal, &nobody).await, []);
    assert!(journal.search(&Query::default(), Sequence(0), 5).await.unwrap().messages.is_empty());
    assert!(journal.search(&Query::default(), NEWEST, 0).await.unwrap().messages.is_empty());
}

pub(crate) async fn messages_are_found_by_their_keys_however_many_there_are(home: &dyn Home) {
    let journal = journal(home).await;
    let first = journal.append(message(3, &[("adt", "record")])).await.unwrap();
    let again = journal.append(message(3, &[("adt", "record")])).await.unwrap();
    // Enough that a store which indexes behind its intake has done so for some and not for others.
    for number in 100..700 {
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
    let last = journal.append(message(3, &[("adt", "record")])).await.unwrap();
    let found: Vec<_> =
        journal.find(Key::ControlId("3"), 10).await.unwrap().into_iter().map(|one| one.sequence).collect();
    assert_eq!(found, [last, again, first]);
    assert_eq!(journal.find(Key::Patient("x|0"), 1000).await.unwrap().len(), 203);
    assert_eq!(journal.find(Key::Patient("x|0"), 5).await.unwrap().len(), 5);
    assert_eq!(journal.find(Key::ControlId("unheard-of"), 10).await.unwrap(), []);
    assert_eq!(journal.find(Key::ControlId(""), 10).await.unwrap(), []);
    // Of the numbers 3, 3, 100 … 699, 3: by every other key, written behind the intake or not yet.
    for (key, expected) in [
        (Key::NhsNumber("9990000003"), 3 + 120),
        (Key::LocalNumber("x1"), 200),
        (Key::Visit("V3"), 3),
        (Key::Visit("V100"), 1),
        (Key::Order("P699"), 1),
        (Key::Order("\"F3'\\"), 3 + 86),
        (Key::Order("P"), 0),
        (Key::Order(""), 0),
    ] {
        assert_eq!(journal.find(key, 1000).await.unwrap().len(), expected, "{key:?}");
    }
}

async fn store(journal: &Journal, number: i64) -> Kept {
    let deliveries: &[(&str, &str)] = match number % 5 {
        0 => &[],
        1 => &[("adt", "record")],
        2 => &[("copy", "archive")],
        _ => &[("adt", "record"), ("copy", "archive")],
    };
    let mut new = NewMessage { raw: Bytes::from(format!("MSH|{number}")), ..message(number, deliveries) };
    // The clock of this machine was put back once.
    new.received = at(if number < 200 { number } else { number - 150 });
    if number % 3 == 0 {
        new.listener = "ward".to_owned();
    }
    if number % 2 == 0 {
        new.keys.trigger = "ADT^A08".to_owned();
    }
    new.keys.orders = vec![format!("O{}", number % 4), format!("P{number}")];
    let quarantined = deliveries.is_empty();
    if quarantined {
        new.disposition = Disposition::Quarantined { reason: "no route takes it".to_owned() };
    }
    let (received, listener, trigger, orders) =
        (new.received, new.listener.clone(), new.keys.trigger.clone(), new.keys.orders.clone());
    let sequence = journal.append(new).await.unwrap();
    let states = [State::Ready, State::Delivered, State::Dead, State::Retrying, State::Held, State::Filtered];
    let mut stand = Vec::new();
    for (place, (route, destination)) in deliveries.iter().enumerate() {
        let state = states[(number as usize / 5 + place) % states.len()];
        if state != State::Ready {
            journal.record(outcome(&id(sequence, route, destination), state, 1)).await.unwrap();
        }
        stand.push((*route, *destination, state));
    }
    let deliveries = stand.into_iter().collect();
    Kept { sequence, received, listener, trigger, orders, quarantined, deliveries }
}

fn takes(query: &Query<'_>, one: &Kept) -> bool {
    let asks_for_delivery = query.route.is_some() || query.destination.is_some() || query.state.is_some();
    let delivery = one.deliveries.iter().any(|(route, destination, state)| {
        query.route.is_none_or(|asked| asked == *route)
            && query.destination.is_none_or(|asked| asked == *destination)
            && query.state.is_none_or(|asked| asked == *state)
    });
    query.since.is_none_or(|since| one.received >= since)
        && query.until.is_none_or(|until| one.received < until)
        && query.listener.is_none_or(|listener| one.listener == listener)
        && query.trigger.is_none_or(|trigger| one.trigger == trigger)
        && (!query.quarantined || one.quarantined)
        && query.key.is_none_or(|key| one.orders.iter().any(|order| order == key.value()))
        && (!asks_for_delivery || delivery)
}

/// Everything, in small pages.
async fn all(journal: &Journal, query: &Query<'_>) -> Vec<Sequence> {
    let mut found = Vec::new();
    let mut before = Some(NEWEST);
    while let Some(place) = before {
        let page = journal.search(query, place, 7).await.unwrap();
        assert!(page.messages.len() <= 7);
        assert!(page.next.is_none_or(|next| next < place), "a search goes on");
        found.extend(page.messages.into_iter().map(|one| one.sequence));
        before = page.next;
    }
    found
}

pub(crate) async fn no_key_of_a_sender_is_poison(home: &dyn Home) {
    let journal = journal(home).await;
    // Longer than a page of any index, and with what some databases take for the end of a text.
    for key in ["k".repeat(100_000), "a\0b".to_owned(), "\u{fffd}'\\;--".to_owned()] {
        let mut poison = message(1, &[("adt", "record")]);
        poison.keys.control_id = key.clone();
        poison.keys.patient = key.clone();
        let sequence = journal.append(poison).await.unwrap();
        for by in [Key::ControlId(&key), Key::Patient(&key)] {
            let found = journal.find(by, 10).await.unwrap();
            assert_eq!(found.iter().map(|one| one.sequence).collect::<Vec<_>>(), [sequence]);
        }
        let mut reason = outcome(&id(sequence, "adt", "record"), State::Dead, 1);
        reason.reason = key;
        journal.record(reason).await.unwrap();
    }
    assert_eq!(journal.dead(10, Sequence(0)).await.unwrap().len(), 3);
}

/// P9: who reads the tables without the key learns of no patient; who searches and waits notices no difference.
pub(crate) async fn p9_with_a_key_identifiers_stand_as_hashes_and_are_found_all_the_same(home: &dyn Home) {
    let under = async |key| Journal::start(home.open().await, hashed(key), metrics()).await;
    let journal = under("a key that nobody guesses").await.unwrap();
    let mut first = message(1, &[("adt", "record")]);
    let mut second = message(4, &[("adt", "record")]);
    for one in [&mut first, &mut second] {
        one.keys.visit = "7001".to_owned();
        one.keys.orders = vec!["7001".to_owned()];
    }
    let keys = first.keys.clone();
    let [first, second] = [journal.append(first).await.unwrap(), journal.append(second).await.unwrap()];

    let stored = journal.message(first).await.unwrap().unwrap().keys;
    let hidden = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for text in [&stored.patient, &stored.nhs_number, &stored.local_number, &stored.visit, &stored.orders[0]]
    {
        assert!(hidden(text), "{text}");
    }
    assert_ne!(stored.visit, stored.orders[0], "one number in two meanings does not look alike");
    assert_eq!((stored.control_id, stored.trigger), (keys.control_id.clone(), keys.trigger.clone()));

    for (key, expected) in [
        (Key::ControlId(&keys.control_id), vec![first]),
        (Key::NhsNumber(&keys.nhs_number), vec![first]),
        (Key::Patient(&keys.patient), vec![second, first]),
        (Key::LocalNumber(&keys.local_number), vec![second, first]),
        (Key::Visit("7001"), vec![second, first]),
        (Key::Order("7001"), vec![second, first]),
    ] {
        let found = journal.find(key, 10).await.unwrap();
        assert_eq!(found.iter().map(|one| one.sequence).collect::<Vec<_>>(), expected);
    }

    // One patient's messages share their lane, whose name tells nothing.
    let pending = journal.pending("record", Sequence(0), 10).await.unwrap();
    let lane = |one: &crate::journal::Pending| one.lanes[0].strip_prefix("patient|").unwrap().to_owned();
    assert!(hidden(&lane(&pending[0])) && pending[0].lanes == pending[1].lanes, "{:?}", pending[0].lanes);
    journal.close().await;

    // Under another key, what comes would overtake what waits.
    assert!(matches!(under("another key, which is longer").await, Err(StartError::OtherKey(2))));
    let plain = Journal::start(home.open().await, Identifiers::default(), metrics()).await;
    assert!(matches!(plain, Err(StartError::OtherKey(2))));
    let journal = under("a key that nobody guesses").await.unwrap();
    for one in &pending {
        journal.record(outcome(&one.id, State::Delivered, 1)).await.unwrap();
    }
    journal.close().await;
    let journal = under("another key, which is longer").await.unwrap();
    assert_eq!(journal.find(Key::ControlId(&keys.control_id), 10).await.unwrap().len(), 1);
    assert_eq!(journal.find(Key::NhsNumber(&keys.nhs_number), 10).await.unwrap(), []);
}

fn hashed(key: &str) -> Identifiers {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key).unwrap();
    Identifiers::of(Some(&SecretRef::File(file.path().to_owned()))).unwrap()
}

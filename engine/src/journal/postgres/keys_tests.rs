//! Search keys over several blocks: written behind the intake, read back after a crash, gone with their messages.

use std::ops::Range;

use super::{
    keys::{BLOCK, Code, Unwritten},
    search::candidates,
    tests::Database,
    *,
};
use crate::journal::{
    Key, Keys,
    conformance::{append, message},
};

/// Messages of which each has the keys of its number; the first has 1. None is delivered anywhere.
async fn fill(store: &PostgresStore, numbers: Range<i64>) {
    let all: Vec<i64> = numbers.collect();
    for some in all.chunks(1000) {
        let changes = some.iter().map(|number| Change::Append(append(message(*number, &[]))));
        store.commit(changes.collect()).await.unwrap();
    }
}

/// What may have a key, the newest first, and from where on that is all.
async fn found(store: &PostgresStore, key: Key<'_>, between: (i64, i64), most: usize) -> (i64, Vec<i64>) {
    let mut session = store.persons.session().await.unwrap();
    let mut transaction = session.begin().await.unwrap();
    let mut found = candidates(&mut transaction, key, between, most).await.unwrap();
    found.sequences.sort_unstable_by_key(|sequence| -sequence);
    (found.from, found.sequences)
}

async fn number(database: &Database, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut database.connect().await).await.unwrap()
}

#[tokio::test]
async fn p6_messages_of_many_blocks_are_found_by_their_keys_and_by_no_others() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let all = 2 * BLOCK + 1500;
    fill(&store, 1..all).await;
    assert_eq!(number(&database, "SELECT searched FROM head").await, 2 * BLOCK - 1, "two blocks are whole");
    let behind = store.stats().await.unwrap().search_behind;
    assert_eq!(behind, (all - 2 * BLOCK).unsigned_abs());
    let having = |has: fn(i64) -> bool| (1..all).rev().filter(|number| has(*number)).collect::<Vec<_>>();
    for (key, expected) in [
        (Key::ControlId("7"), vec![7]),
        (Key::ControlId("8191"), vec![8191]),
        (Key::ControlId("8192"), vec![8192]),
        (Key::Visit("V17000"), vec![17000]),
        (Key::Order("P9000"), vec![9000]),
        (Key::Patient("x|1"), having(|number| number % 3 == 1)),
        (Key::LocalNumber("x1"), having(|number| number % 3 == 1)),
        (Key::NhsNumber("9990000004"), having(|number| number % 5 == 4)),
        (Key::Order("\"F5'\\"), having(|number| number % 7 == 5)),
        (Key::ControlId("unheard-of"), vec![]),
        (Key::Visit("7"), vec![]),
    ] {
        let (from, sequences) = found(&store, key, (1, all), usize::MAX).await;
        assert_eq!((from, &sequences), (1, &expected), "{key:?}");
        // A part of them: the newest, and all from some sequence on.
        let (first, before) = (BLOCK / 2, 2 * BLOCK + 700);
        let (from, sequences) = found(&store, key, (first, before), 10).await;
        let part = expected.iter().filter(|one| (from..before).contains(one)).copied().collect::<Vec<_>>();
        assert!(from >= first && (from == first || part.len() >= 10), "{key:?}: {from}");
        assert_eq!(sequences, part, "{key:?}");
    }
    // Killed: what was in memory only is read back, and the block that it belongs to is written once.
    std::mem::forget(store);
    let kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE application_name = 'tie' AND datname = current_database()";
    database.execute(kill).await;
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    fill(&store, all..3 * BLOCK).await;
    fill(&store, 3 * BLOCK..3 * BLOCK + 10).await;
    assert_eq!(number(&database, "SELECT searched FROM head").await, 3 * BLOCK - 1);
    let keys = "SELECT sum(length(keys))::bigint / 6 FROM search";
    assert_eq!(number(&database, keys).await, 7 * (3 * BLOCK - 1));
    let twos = (1..3 * BLOCK + 10).rev().filter(|number| number % 3 == 2).collect();
    assert_eq!(found(&store, Key::Patient("x|2"), (1, i64::MAX), usize::MAX).await, (1, twos));
}

#[tokio::test]
async fn search_keys_go_with_their_messages() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    fill(&store, 1..3 * BLOCK).await;
    // The second block is written with the next.
    fill(&store, 3 * BLOCK..3 * BLOCK + 1).await;
    let keys = "SELECT coalesce(sum(length(keys)), 0)::bigint / 6 FROM search";
    let all = 3 * BLOCK - 1;
    assert_eq!(number(&database, keys).await, 7 * all);
    let remove = async |sequences: Vec<i64>| {
        for some in sequences.chunks(256) {
            let messages = some.iter().copied().map(Sequence).collect();
            store.prune(Prune { bodies: Vec::new(), messages }).await.unwrap();
        }
    };
    // All of the first block but a hundredth, and half of the second, which retention has not passed.
    remove((1..BLOCK + BLOCK / 2).filter(|number| *number >= BLOCK || number % 100 != 0).collect()).await;
    let left = BLOCK / 100;
    assert_eq!(number(&database, keys).await, 7 * (left + 2 * BLOCK), "the first block is written anew");
    let (_, sequences) = found(&store, Key::ControlId("200"), (1, i64::MAX), 10).await;
    assert_eq!(sequences, [200], "what stays is found");
    // The rest of the second, and some that had stayed in the first.
    remove((BLOCK + BLOCK / 2..2 * BLOCK).chain([100, 200, 2 * BLOCK]).collect()).await;
    assert_eq!(number(&database, keys).await, 7 * (left - 2 + BLOCK));
    assert_eq!(found(&store, Key::ControlId("200"), (1, i64::MAX), 10).await.1, Vec::<i64>::new());
    assert_eq!(found(&store, Key::ControlId("300"), (1, i64::MAX), 10).await.1, [300]);
    store.close().await;
    assert_eq!(number(&database, "SELECT swept FROM head").await, 2);
}

#[tokio::test]
async fn deliveries_are_chosen_by_a_control_id_however_far_apart_they_lie() {
    let database = Database::new();
    let open = async || PostgresStore::open(&database.settings()).await.unwrap();
    let mut expected = Vec::new();
    for begin in [0, 600_000, 2_000_000] {
        let sql = format!("UPDATE tie.head SET last = {begin}");
        let store = open().await;
        store.close().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut database.connect().await).await.unwrap();
        let store = open().await;
        for number in [5, 6] {
            let change = Change::Append(append(message(number, &[("adt", "record")])));
            store.commit(vec![change]).await.unwrap();
        }
        let parked = crate::journal::store::Record {
            id: DeliveryId {
                sequence: Sequence(begin + 1),
                route: "adt".into(),
                destination: "record".into(),
            },
            state: crate::journal::State::Parked,
            at: crate::journal::conformance::at(1),
            attempts: 1,
            first_attempt: None,
            revision: "r1".to_owned(),
            reason: "the record is away".to_owned(),
            class: None,
            output: None,
            detail: None,
        };
        store.commit(vec![Change::Record(parked)]).await.unwrap();
        expected.push(begin + 1);
        store.close().await;
    }
    let store = open().await;
    // Each commit writes a block that is whole.
    for _ in 0..2_000_000 / BLOCK {
        store.commit(vec![Change::Note("n", None, None)]).await.unwrap();
    }
    assert_eq!(number(&database, "SELECT count(DISTINCT block) FROM search").await, 2);
    let chosen = async |after, limit| {
        let filter = Filter {
            control_id: Some("5".to_owned()),
            states: vec![crate::journal::State::Parked],
            ..Filter::default()
        };
        let found = store.select(&filter, Sequence(after), limit).await.unwrap();
        found.iter().map(|one| one.id.sequence.0).collect::<Vec<_>>()
    };
    assert_eq!(chosen(0, 10).await, expected);
    assert_eq!(chosen(0, 2).await, expected[..2]);
    assert_eq!(chosen(expected[0], 1).await, expected[1..2]);
    assert!(chosen(expected[2], 10).await.is_empty());
}

#[test]
fn p6_many_keys_of_few_messages_do_not_wait_in_memory() {
    let mut unwritten = Unwritten::new(0);
    let orders = (0..10_000).map(|number| number.to_string()).collect();
    let keys = Keys { orders, ..Keys::default() };
    let codes: Vec<Code> = keys::codes(0, &keys).map(|(_, code)| code).collect();
    let (mut waiting, mut written) = (0, 0);
    for sequence in 1..=300 {
        if unwritten.due().is_some() {
            written = sequence - 1;
            waiting = 0;
        }
        assert_eq!(unwritten.searched(), written);
        unwritten.add(sequence, codes.iter().map(|code| (sequence, *code)));
        waiting += codes.len();
        assert!(waiting <= (1 << 20) + codes.len(), "{waiting}");
    }
    assert!(written > 200, "a block comes in parts: {written}");
}

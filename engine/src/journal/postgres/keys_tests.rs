//! Search keys over several blocks: written behind the intake, read back after a crash, gone with their messages.

use std::ops::Range;

use sqlx::Row;

use super::{keys::BLOCK, search::candidates, tests::Database, *};
use crate::journal::{
    Key,
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
    let found = candidates(&mut transaction, key, between, most).await.unwrap();
    (found.from, found.sequences)
}

async fn number(database: &Database, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut database.connect().await).await.unwrap()
}

/// One commit after the other, each of which writes what is due.
async fn idle(store: &PostgresStore, commits: i64) {
    for _ in 0..commits {
        store.commit(vec![Change::Note("n", None, None)]).await.unwrap();
    }
}

#[tokio::test]
async fn p6_messages_of_many_blocks_are_found_by_their_keys_and_by_no_others() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let all = 12 * BLOCK + BLOCK / 2;
    fill(&store, 1..all).await;
    // In the table, and half of a block on its way there.
    const BEGUN: &str = "SELECT ((SELECT max(block) FROM search) - (searched + 1) / 32)::bigint FROM head";
    idle(&store, 40).await;
    while number(&database, BEGUN).await < 0 {
        idle(&store, 1).await;
    }
    let searched = number(&database, "SELECT searched FROM head").await;
    assert!(searched > 2 * BLOCK && searched < 11 * BLOCK, "{searched}");
    let behind = store.stats().await.unwrap().search_behind;
    assert_eq!(behind, (all - 1 - searched).unsigned_abs());
    let having = |has: fn(i64) -> bool| (1..all).rev().filter(|number| has(*number)).collect::<Vec<_>>();
    for (key, expected) in [
        (Key::ControlId("7"), vec![7]),
        (Key::ControlId("31"), vec![31]),
        (Key::ControlId("32"), vec![32]),
        (Key::Visit("V300"), vec![300]),
        (Key::Order("P90"), vec![90]),
        (Key::Patient("x|1"), having(|number| number % 3 == 1)),
        (Key::LocalNumber("x1"), having(|number| number % 3 == 1)),
        (Key::NhsNumber("9990000004"), having(|number| number % 5 == 4)),
        (Key::Order("\"F5'\\"), having(|number| number % 7 == 5)),
        (Key::ControlId("unheard-of"), vec![]),
        (Key::Visit("7"), vec![]),
        (Key::Order("F5'"), vec![]),
        (Key::Order(","), vec![]),
        (Key::Order(""), vec![]),
        (Key::ControlId(""), vec![]),
    ] {
        for (first, end) in [(1, all), (1, i64::MAX), (16, 9 * BLOCK + 7), (BLOCK, 2 * BLOCK), (5, 6)] {
            let between: Vec<i64> =
                expected.iter().copied().filter(|one| (first..end).contains(one)).collect();
            for most in [usize::MAX, 4] {
                // Part after part, the newest first: each is whole from where it says.
                let (mut before, mut sequences) = (end, Vec::new());
                while first < before {
                    let (from, part) = found(&store, key, (first, before), most).await;
                    assert!(from < before && from >= first && part.len() <= most, "{key:?}: {from}");
                    sequences.extend(part);
                    before = from;
                }
                assert_eq!(sequences, between, "{key:?} from {first} before {end}, {most} at a time");
            }
        }
    }
}

#[tokio::test]
async fn p2_what_was_killed_while_a_block_was_written_is_read_back_and_written_once() {
    let database = Database::new();
    let mut last = 0;
    for _ in 0..6 {
        let store = PostgresStore::open(&database.settings()).await.unwrap();
        fill(&store, last + 1..last + 3 * BLOCK).await;
        last += 3 * BLOCK - 1;
        idle(&store, 5).await;
        let (_, all) = found(&store, Key::ControlId(&last.to_string()), (1, i64::MAX), usize::MAX).await;
        assert_eq!(all, [last]);
        std::mem::forget(store);
        let kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
            WHERE application_name = 'tie' AND datname = current_database()";
        database.execute(kill).await;
    }
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    idle(&store, 200).await;
    let searched = number(&database, "SELECT searched FROM head").await;
    assert!(last - searched < BLOCK, "{searched} of {last}");
    assert_eq!(number(&database, KEYS).await, 7 * searched, "each key once");
}

/// How many keys are in the table.
const KEYS: &str = "SELECT coalesce(sum(length(keys)), 0)::bigint / 5 FROM search";

#[tokio::test]
async fn p6_many_orders_make_parts_of_a_block() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    for number in 1..2 * BLOCK {
        let mut one = append(message(number, &[]));
        one.keys.orders = (0..40).map(|order| format!("{}", (number + order) % 50)).collect();
        store.commit(vec![Change::Append(one)]).await.unwrap();
    }
    idle(&store, 100).await;
    let parts = "SELECT count(DISTINCT part >> 32) FROM search WHERE block = 0";
    assert!(number(&database, parts).await > 2, "the first block was written in parts");
    let expected: Vec<i64> = (1..2 * BLOCK).rev().filter(|number| (7 - number).rem_euclid(50) < 40).collect();
    assert_eq!(found(&store, Key::Order("7"), (1, i64::MAX), usize::MAX).await, (1, expected));
}

#[tokio::test]
async fn what_is_not_in_the_table_yet_is_compared_by_its_value() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    for (number, order) in [(1, "F5"), (2, "x\"F5"), (3, "F5\"x"), (4, "F")] {
        let mut one = append(message(number, &[]));
        one.keys.orders = vec![order.to_owned(), "b".to_owned()];
        store.commit(vec![Change::Append(one)]).await.unwrap();
    }
    assert_eq!(found(&store, Key::Order("F5"), (1, i64::MAX), 10).await.1, [1]);
    assert_eq!(found(&store, Key::Order("b"), (1, i64::MAX), 10).await.1, [4, 3, 2, 1]);
}

#[tokio::test]
async fn search_keys_go_after_their_messages() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    fill(&store, 1..4 * BLOCK + 20).await;
    idle(&store, 60).await;
    let all = 4 * BLOCK - 1;
    assert_eq!(number(&database, KEYS).await, 7 * all);
    let remove = async |sequences: Vec<i64>| {
        let messages = sequences.into_iter().map(Sequence).collect();
        store.prune(Prune { bodies: Vec::new(), messages }).await.unwrap();
    };
    let sweep = async || {
        let mut steps = 1;
        while store.reclaim().await.unwrap() {
            steps += 1;
        }
        steps
    };
    // All of the first block but two, half of the second, one of the third, some whose keys are not in the table.
    let gone: Vec<i64> = (1..BLOCK + BLOCK / 2).filter(|number| *number != 4 && *number != 9).collect();
    let left = all - gone.len() as i64;
    let in_memory: Vec<i64> = (4 * BLOCK..4 * BLOCK + 10).collect();
    remove([&gone[..], &[2 * BLOCK], &in_memory].concat()).await;
    assert_eq!(number(&database, KEYS).await, 7 * all, "a step of retention writes none of them anew");
    assert_eq!(found(&store, Key::Visit("V4"), (1, i64::MAX), 10).await.1, [4], "what stays is found");
    assert_eq!(sweep().await, 24, "some lists of one block in a step");
    assert_eq!(number(&database, KEYS).await, 7 * left, "a single one is not worth it");
    assert!(!store.reclaim().await.unwrap());
    for (visit, expected) in [("V4", vec![4]), ("V5", vec![]), ("V64", vec![64]), ("V65", vec![65])] {
        assert_eq!(found(&store, Key::Visit(visit), (1, i64::MAX), 10).await.1, expected, "{visit}");
    }
    let query = Query { key: Some(Key::Visit("V64")), ..Query::default() };
    let page = store.search(&query, crate::journal::NEWEST, 10).await.unwrap();
    assert_eq!((page.messages, page.next), (Vec::new(), None), "it leads nowhere");
    // A quarter of the third, together with the one before; all that is left of the first. In between something goes.
    remove([&(2 * BLOCK + 1..2 * BLOCK + 8).collect::<Vec<_>>()[..], &[4]].concat()).await;
    assert!(store.reclaim().await.unwrap());
    remove(vec![9]).await;
    sweep().await;
    assert_eq!(number(&database, KEYS).await, 7 * (left - 2 - 8));
    assert_eq!(number(&database, "SELECT count(*) FROM stale WHERE block = 0").await, 0);
    // Those that were in memory only: when their block is whole and enough of it has gone.
    fill(&store, 4 * BLOCK + 20..5 * BLOCK).await;
    idle(&store, 60).await;
    sweep().await;
    assert_eq!(number(&database, KEYS).await, 7 * (left - 10 + BLOCK - 10));
    remove((4 * BLOCK + 10..5 * BLOCK).collect()).await;
    sweep().await;
    assert_eq!(number(&database, KEYS).await, 7 * (left - 10));
    assert_eq!(number(&database, "SELECT count(*) FROM stale WHERE block = 4").await, 0);
}

#[tokio::test]
async fn p7_search_keys_that_are_damaged_stop_no_engine() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    fill(&store, 1..2 * BLOCK + 1).await;
    idle(&store, 60).await;
    let damage = "CREATE FUNCTION tie.fails() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = 'XX001'; END $$;
        CREATE TRIGGER damaged BEFORE DELETE ON tie.search FOR EACH ROW WHEN (old.block = 0)
            EXECUTE FUNCTION tie.fails()";
    database.execute(damage).await;
    let messages = (1..2 * BLOCK).filter(|number| *number != 4).map(Sequence).collect();
    store.prune(Prune { bodies: Vec::new(), messages }).await.unwrap();
    while store.reclaim().await.unwrap() {}
    assert_eq!(number(&database, KEYS).await, 7 * (BLOCK - 1), "the other block is gone through");
    assert_eq!(number(&database, "SELECT count(*) FROM stale").await, 0, "it is not tried for ever");
    assert_eq!(found(&store, Key::Visit("V4"), (1, i64::MAX), 10).await.1, [4]);
    fill(&store, 2 * BLOCK + 1..2 * BLOCK + 2).await;
}

#[tokio::test]
async fn p7_a_message_that_cannot_be_read_keeps_no_journal_from_opening() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    fill(&store, 1..6).await;
    store.close().await;
    database.execute("UPDATE tie.message SET orders = 'no list with \"P3\"' WHERE sequence = 3").await;
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    assert_eq!(found(&store, Key::Order("P4"), (1, i64::MAX), 10).await.1, [4]);
    assert_eq!(found(&store, Key::Order("P3"), (1, i64::MAX), 10).await.1, [3], "by the word in it");
    fill(&store, 6..BLOCK + 3).await;
    idle(&store, 20).await;
    for (visit, expected) in [("V2", vec![2]), ("V3", vec![3]), ("V4", vec![4])] {
        assert_eq!(found(&store, Key::Visit(visit), (1, i64::MAX), 10).await.1, expected);
    }
}

#[tokio::test]
async fn p6_a_row_of_keys_is_found_by_its_place_and_not_by_looking() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let mut session = store.persons.session().await.unwrap();
    let sql = format!("PREPARE one AS {}", search::STATEMENTS[0]);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *session).await.unwrap();
    sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *session).await.unwrap();
    let explained = sqlx::raw_sql("EXPLAIN EXECUTE one (1, 2, 3, 4, 5, 6)").fetch_all(&mut *session).await;
    let plan: Vec<String> = explained.unwrap().iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan Backward using search_pkey") && !plan.contains("Sort"), "{plan}");
    let place = "Index Cond: ((list = $1) AND (ROW(block, part) < ROW($2, $3)) AND (block >= $4))";
    assert!(plan.contains(place), "{plan}");
}

#[tokio::test]
async fn deliveries_are_chosen_by_a_control_id_however_far_apart_they_lie() {
    let database = Database::new();
    let open = async || PostgresStore::open(&database.settings()).await.unwrap();
    let mut expected = Vec::new();
    for begin in [0, 3_000, 9_000] {
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
    idle(&store, 9_000 / BLOCK).await;
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

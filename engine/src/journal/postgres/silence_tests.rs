//! A server that goes silent, is another one, or keeps somebody waiting: nothing hangs, nobody is misled.

use std::{sync::Arc, time::Instant};

use super::{
    tests::{Database, IMPATIENT, Server, settings},
    *,
};
use crate::journal::conformance::{self, message};

#[path = "../../../tests/support/relay.rs"]
mod relay;
use relay::Relay;

/// Longer than everything that is tried here may take, shorter than what it would take without end.
const PATIENCE: Duration = Duration::from_secs(20);

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it hangs")
}

/// A store that reaches its server through a relay: its connection 0 is the one that writes.
async fn through_relay() -> (Database, Relay, Arc<PostgresStore>) {
    let database = Database::new();
    let relay = Relay::start(database.0.socket());
    let store = open::open(&settings(relay.socket(), &database.1), IMPATIENT).await.unwrap();
    (database, relay, Arc::new(store))
}

async fn holder(database: &Database) -> Option<i32> {
    let holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar(holder).fetch_optional(&mut database.connect().await).await.unwrap()
}

#[tokio::test]
async fn p2_readers_of_another_server_than_the_writers_are_refused() {
    let database = Database::new();
    // A replica that lags has the same tables and other rows.
    let other = Server::start(&[]);
    assert_eq!(other.database(), "tie0");
    let here = Database(database.0, "tie0".to_owned());
    let relay = Relay::start(here.0.socket());
    relay.lead_from(1, other.socket());
    let refused = open::open(&settings(relay.socket(), &here.1), IMPATIENT).await.err().unwrap().to_string();
    assert!(refused.contains("with another server than the one that is written to"), "{refused}");

    // And a reader that is replaced later.
    let relay = Relay::start(here.0.socket());
    let store = open::open(&settings(relay.socket(), &here.1), IMPATIENT).await.unwrap();
    store.pending("record", Sequence(0), 1).await.unwrap();
    relay.lead_from(relay.connections(), other.socket());
    let readers = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tie'
        AND datname = current_database() AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)";
    sqlx::raw_sql(readers).execute(&mut here.connect().await).await.unwrap();
    let refused = store.pending("record", Sequence(0), 1).await.unwrap_err().to_string();
    assert!(refused.contains("with another server than the one that is written to"), "{refused}");
}

#[tokio::test]
async fn p1_nothing_waits_for_ever_for_a_server_that_has_gone_silent() {
    let (database, relay, store) = through_relay().await;
    store.pending("record", Sequence(0), 1).await.unwrap();
    relay.silence_from(1);
    let late = in_time(store.pending("record", Sequence(0), 1)).await.unwrap_err();
    assert!(!late.is_of_the_data(), "{late}");
    relay.silence_from(0);
    let prune = Prune { bodies: vec![Sequence(1)], messages: Vec::new() };
    let late = in_time(store.prune(prune)).await.unwrap_err().to_string();
    assert!(late.contains("has not answered within 2s"), "{late}");
    assert_eq!(store.prune(Prune::default()).await.unwrap_err(), closed(), "the outcome is unknown");
    drop(database);
}

#[tokio::test]
async fn p1_an_end_waits_for_no_reader_and_lets_go_of_the_lock_first() {
    let (database, relay, store) = through_relay().await;
    relay.silence_from(1);
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.pending("record", Sequence(0), 1).await }
    });
    tokio::task::yield_now().await;
    let began = Instant::now();
    in_time(store.close()).await;
    assert!(began.elapsed() < IMPATIENT.read, "it waited for a reader: {:?}", began.elapsed());
    assert_eq!(holder(&database).await, None);
    reading.abort();
}

#[tokio::test]
async fn p1_an_open_that_waits_for_an_absent_standby_says_so() {
    let server = Server::start(&[]);
    let database = server.database();
    let settings = settings(server.socket(), &database);
    PostgresStore::open(&settings).await.unwrap().close().await;
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass().host(&settings.host).port(5432);
    let options = options.username("tie").database(&database);
    let mut person = PgConnection::connect_with(&options).await.unwrap();
    for sql in ["ALTER SYSTEM SET synchronous_standby_names = 'away'", "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(sql).execute(&mut person).await.unwrap();
    }
    // poll: the processes learn of it one by one.
    let mut refused = None;
    let began = Instant::now();
    while refused.is_none() {
        assert!(began.elapsed() < PATIENCE, "the server never waits for its standby");
        match in_time(open::open(&settings, IMPATIENT)).await {
            Ok(store) => store.close().await,
            Err(error) => refused = Some(error.to_string()),
        }
    }
    let refused = refused.unwrap();
    assert!(refused.contains("it has not answered within 2s; if it has a synchronous standby"), "{refused}");
}

#[tokio::test]
async fn p4_a_session_that_is_lost_while_nothing_comes_is_missed() {
    let database = Database::new();
    let store = Arc::new(open::open(&database.settings(), IMPATIENT).await.unwrap());
    let process = store.session.process;
    let journal = conformance::over(store).await;
    journal.append(message(1, &[("adt", "record")])).await.unwrap();
    let kill = sqlx::query("SELECT pg_terminate_backend($1)").bind(process);
    kill.execute(&mut database.connect().await).await.unwrap();
    in_time(journal.closed()).await;

    // Nor does one that does not answer pass for alive, or one that another engine has followed.
    let (_, relay, store) = through_relay().await;
    let journal = conformance::over(store).await;
    relay.silence_from(0);
    assert!(in_time(journal.closed()).await.contains("has not answered"));
    let database = Database::new();
    let store = Arc::new(open::open(&database.settings(), IMPATIENT).await.unwrap());
    let journal = conformance::over(store).await;
    database.execute("UPDATE node SET token = token + 1").await;
    assert!(in_time(journal.closed()).await.contains("another engine has taken over"));
}

#[tokio::test]
async fn p1_a_server_whose_syncs_are_turned_off_is_left() {
    let server = Server::start(&[]);
    let database = server.database();
    let settings = settings(server.socket(), &database);
    let journal = conformance::over(Arc::new(open::open(&settings, IMPATIENT).await.unwrap())).await;
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass().host(&settings.host).port(5432);
    let mut person = PgConnection::connect_with(&options.username("tie").database(&database)).await.unwrap();
    for sql in ["ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(sql).execute(&mut person).await.unwrap();
    }
    assert!(in_time(journal.closed()).await.contains("its `fsync` is off"));
}

#[tokio::test]
async fn p4_an_engine_that_writes_is_looked_after_too() {
    let database = Database::new();
    let store = Arc::new(open::open(&database.settings(), IMPATIENT).await.unwrap());
    let journal = conformance::over(store.clone()).await;
    let began = Instant::now();
    let mut number = 0;
    let written = "SELECT last FROM head";
    let mut person = database.connect().await;
    while sqlx::query_scalar::<_, i64>(written).fetch_one(&mut person).await.unwrap() == 0 {
        assert!(began.elapsed() < PATIENCE, "the numbers are never written");
        number += 1;
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
}

#[tokio::test]
async fn p3_what_persons_ask_for_keeps_nobody_else_waiting() {
    let database = Database::new();
    let store = Arc::new(open::open(&database.settings(), TIMES).await.unwrap());
    let journal = conformance::over(store.clone()).await;
    journal.append(message(1, &[("adt", "record")])).await.unwrap();
    let mut person = database.connect().await;
    let mut holds = person.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE").execute(&mut *holds).await.unwrap();
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.audit(1).await })
        })
        .collect();
    let mut watcher = database.connect().await;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'audit'::regclass";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watcher).await.unwrap() < 2 {
        tokio::task::yield_now().await;
    }
    let others = async {
        journal.pending("record", Sequence(0), 9).await.unwrap();
        journal.counts().await.unwrap();
        let arrival = journal.arrivals(Sequence(9), 1).await.unwrap().remove(0);
        journal.earlier(&arrival, conformance::at(0), Sequence(9)).await.unwrap()
    };
    let found = timeout(Duration::from_secs(5), others).await.expect("persons have all sessions");
    assert_eq!(found.copy, Some(Sequence(1)));
    asked.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A search by time read every message that was received then, at each page.
#[tokio::test]
async fn p6_a_search_by_time_reads_a_row_for_ten_minutes() {
    let database = Database::new();
    let journal = conformance::journal(&database).await;
    for number in 0..3 {
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
    let many = "INSERT INTO message SELECT number, received, listener, peer, control_id, trigger_event,
        sending_application, sending_facility, patient, nhs_number, local_number, visit, orders, flag, quarantine, codec,
        size_bytes, hash, body FROM message, generate_series(4, 20000) AS number WHERE sequence = 1;
        UPDATE span SET last = 21000";
    database.execute(many).await;
    let query =
        Query { since: Some(conformance::at(0)), until: Some(conformance::at(60)), ..Query::default() };
    let read = async || -> i64 {
        let read = "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname IN ('message', 'span'))
            ::bigint + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN ('message', 'span'))::bigint";
        let row = sqlx::query(read).fetch_one(&mut database.connect().await).await.unwrap();
        sqlx::Row::get(&row, 0)
    };
    let before = read().await;
    let page = journal.search(&query, Sequence(11), 5).await.unwrap();
    assert_eq!(page.messages.len(), 5);
    journal.close().await;
    let entries = read().await - before;
    assert!(entries < 1000, "{entries} entries were read");
}

//! The PostgreSQL store against the conformance suite, and what only it can be asked: real servers, all of them.

use std::{path::Path, sync::Arc};

use sqlx::{ConnectOptions, Row, postgres::PgConnectOptions};

use super::*;
use crate::journal::{
    Journal, State,
    conformance::{self, Home, conforms, id, load, message, outcome},
    store::Record,
};

#[path = "../../../tests/support/postgres.rs"]
mod server;
pub(super) use server::Server;

pub(super) struct Database(pub &'static Server, pub String);

impl Database {
    pub fn new() -> Self {
        let server = Server::shared();
        Self(server, server.database())
    }

    pub fn settings(&self) -> Settings {
        settings(self.0.socket(), &self.1)
    }

    pub async fn connect(&self) -> PgConnection {
        let socket = self.0.socket().to_str().unwrap();
        let options = PgConnectOptions::new_without_pgpass().host(socket).port(5432);
        options.username("tie").database(&self.1).options([("search_path", "tie")]).connect().await.unwrap()
    }

    pub async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.connect().await).await.unwrap();
    }

    async fn refused(&self) -> String {
        open::open(&self.settings(), IMPATIENT).await.err().unwrap().to_string()
    }
}

/// For a database that does not answer on purpose.
pub(super) const IMPATIENT: Times = Times {
    lock: Duration::from_millis(500),
    step: Duration::from_secs(2),
    commit: Duration::from_secs(2),
    read: Duration::from_secs(2),
    quiet: Duration::from_millis(200),
    close: Duration::from_millis(500),
    ..TIMES
};

pub(super) fn settings(socket: &Path, database: &str) -> Settings {
    Settings {
        host: socket.to_str().unwrap().to_owned(),
        port: 5432,
        database: database.to_owned(),
        user: "tie".to_owned(),
        password: None,
        sslmode: SslMode::Disable,
        ca: None,
    }
}

#[async_trait]
impl Home for Database {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::open(&self.settings()).await.unwrap())
    }

    async fn damage(&self, sequence: Sequence) {
        const FLIP: &str = "UPDATE message SET body = set_bit(body, 8 * (length(body) / 2),
            1 - get_bit(body, 8 * (length(body) / 2))) WHERE sequence = $1";
        let done = sqlx::query(FLIP).bind(sequence.0).execute(&mut self.connect().await).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }
}

conforms!(Database::new());

#[tokio::test]
async fn two_engines_cannot_open_one_journal() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let refused = database.refused().await;
    let expected = format!("another engine has the journal in database {} at ", database.1);
    assert!(refused.starts_with(&expected), "{refused}");
    assert!(refused.contains(&format!("(server process {})", store.session.process)), "{refused}");
    store.close().await;
    PostgresStore::open(&database.settings()).await.unwrap();
}

#[tokio::test]
async fn a_journal_of_a_newer_release_is_refused() {
    let database = Database::new();
    PostgresStore::open(&database.settings()).await.unwrap().close().await;
    database
        .execute("INSERT INTO tie._sqlx_migrations VALUES (9000, 'future', now(), true, '\\x00', 1)")
        .await;
    let refused = database.refused().await;
    assert!(
        refused.contains("written by a newer release of TIE (schema 9000; this release knows 1)"),
        "{refused}"
    );
}

#[tokio::test]
async fn another_programs_schema_is_refused() {
    let database = Database::new();
    database.execute("CREATE SCHEMA tie; CREATE TABLE tie.address (name text)").await;
    let refused = database.refused().await;
    assert!(refused.contains("has a schema `tie` that is no journal of TIE"), "{refused}");
}

#[tokio::test]
async fn p1_a_server_that_may_lose_what_it_confirms_is_refused() {
    let server = Server::start(&["fsync=off"]);
    let database = server.database();
    let refused = PostgresStore::open(&settings(server.socket(), &database)).await.err().unwrap().to_string();
    assert!(refused.contains("its `fsync` is off"), "{refused}");
    let server = Server::start(&["data_sync_retry=on"]);
    let database = server.database();
    let refused = PostgresStore::open(&settings(server.socket(), &database)).await.err().unwrap().to_string();
    assert!(refused.contains("its `data_sync_retry` is on"), "{refused}");
    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0";
    let shared = Database::new();
    shared.execute(latin).await;
    let refused = PostgresStore::open(&settings(shared.0.socket(), "latin")).await.err().unwrap().to_string();
    assert!(refused.contains("its encoding is LATIN1"), "{refused}");
}

#[tokio::test]
async fn p1_the_session_that_writes_waits_for_the_disk_whatever_the_servers_default_is() {
    let database = Database::new();
    for setting in [
        "synchronous_commit = off",
        "idle_session_timeout = ''1min''",
        "default_transaction_isolation = ''repeatable read''",
    ] {
        let sql = format!(
            "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET {setting}'; END $$"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut database.connect().await).await.unwrap();
    }
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let mut writer = store.writer.lock().await;
    let mut setting = async |name: &'static str| -> String {
        sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(writer.as_mut().unwrap())
            .await
            .unwrap()
    };
    assert_eq!(setting("synchronous_commit").await, "on");
    assert_eq!(setting("statement_timeout").await, "20s");
    assert_eq!(setting("lock_timeout").await, "10s");
    assert_eq!(setting("idle_session_timeout").await, "0");
    assert_eq!(setting("default_transaction_isolation").await, "read committed");
}

/// The server's own time-outs of a connection, as it has taken them: a socket in the file system has none.
#[tokio::test]
async fn p4_a_pulled_cable_keeps_the_lock_no_longer_than_a_start_waits_for_it() {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let server = Server::start(&["listen_addresses=127.0.0.1", &format!("port={free}")]);
    let near = settings(server.socket(), "postgres");
    let store =
        PostgresStore::open(&Settings { host: "127.0.0.1".to_owned(), port: free, ..near }).await.unwrap();
    let sql = "SELECT current_setting('tcp_user_timeout')::bigint / 1000, current_setting('tcp_keepalives_idle')::bigint
        + current_setting('tcp_keepalives_interval')::bigint * current_setting('tcp_keepalives_count')::bigint";
    let mut writer = store.writer.lock().await;
    let row = sqlx::query(sql).fetch_one(writer.as_mut().unwrap()).await.unwrap();
    for seconds in [row.get::<i64, _>(0), row.get(1)] {
        assert!(seconds > 0 && Duration::from_secs(seconds.unsigned_abs()) < TIMES.lock, "{seconds} s");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_not_ours_is_told() {
    let database = Database::new();
    let mut nowhere = database.settings();
    nowhere.port = 1;
    let refused = PostgresStore::open(&nowhere).await.err().unwrap().to_string();
    assert!(refused.starts_with(&format!("the journal in database {} at ", database.1)), "{refused}");
    let mut no_database = database.settings();
    no_database.database = "nobody".to_owned();
    let refused = PostgresStore::open(&no_database).await.err().unwrap().to_string();
    assert!(refused.ends_with("database \"nobody\" does not exist (SQLSTATE 3D000)"), "{refused}");
    let mut no_password = database.settings();
    no_password.password = Some(SecretRef::Env("TIE_NO_SUCH_VARIABLE".to_owned()));
    let refused = PostgresStore::open(&no_password).await.err().unwrap().to_string();
    assert!(refused.contains("environment variable `TIE_NO_SUCH_VARIABLE` is not set"), "{refused}");
}

#[tokio::test]
async fn a_role_that_owns_the_schema_needs_no_other_right() {
    let database = Database::new();
    database.execute("CREATE ROLE modest LOGIN; CREATE SCHEMA tie AUTHORIZATION modest").await;
    let modest = Settings { user: "modest".to_owned(), ..database.settings() };
    let journal = conformance::over(Arc::new(PostgresStore::open(&modest).await.unwrap())).await;
    journal.append(message(1, &[("adt", "record")])).await.unwrap();
    assert!(journal.stats().await.unwrap().disk_bytes > 0);
}

/// The engine is killed: nothing is written when it ends.
fn kill(journal: Journal) {
    std::mem::forget(journal);
}

#[tokio::test]
async fn no_sequence_is_given_twice_and_what_is_kept_is_counted_after_a_crash() {
    let database = Database::new();
    let journal = conformance::journal(&database).await;
    for number in 0..5 {
        let sequence = journal.append(message(number, &[("adt", "record")])).await.unwrap();
        let delivered = outcome(&id(sequence, "adt", "record"), State::Delivered, 1);
        journal.record(delivered).await.unwrap();
    }
    let before = journal.stats().await.unwrap();
    assert_eq!((before.messages, before.last), (5, Sequence(5)));
    let head = "SELECT last FROM head";
    assert_eq!(sqlx::query_scalar::<_, i64>(head).fetch_one(&mut database.connect().await).await.unwrap(), 0);
    cut_off(&database).await;
    kill(journal);
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let after = store.stats().await.unwrap();
    assert_eq!((after.messages, after.last, after.used_bytes), (5, Sequence(5), before.used_bytes));
    // The newest is removed, and the engine is killed again.
    let messages = (2..=5).map(Sequence).collect();
    store.prune(Prune { bodies: Vec::new(), messages }).await.unwrap();
    let before = store.stats().await.unwrap();
    cut_off(&database).await;
    std::mem::forget(store);
    let journal = conformance::journal(&database).await;
    assert_eq!(journal.append(message(9, &[("adt", "record")])).await.unwrap(), Sequence(6));
    journal.close().await;
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let after = store.stats().await.unwrap();
    assert_eq!((after.messages, after.last, before.messages), (2, Sequence(6), 1));
    assert!(after.used_bytes > before.used_bytes);
}

#[tokio::test]
async fn what_is_known_of_times_goes_with_their_last_message() {
    let database = Database::new();
    let journal = conformance::journal(&database).await;
    for number in [0, 1_000_000, 2_000_000] {
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
    journal.close().await;
    // The last sequence of a span is noted ahead of what has come.
    let gone = "UPDATE span SET last = (SELECT min(sequence) FROM message WHERE received / 600000000 * 600000000 = began);
        DELETE FROM message WHERE sequence < 3";
    database.execute(gone).await;
    conformance::journal(&database).await.close().await;
    let mut person = database.connect().await;
    let kept = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM span").fetch_one(&mut person);
    assert_eq!(kept.await.unwrap(), 1);
}

/// Ends every session of the engine, as a server does that takes it for gone.
async fn cut_off(database: &Database) {
    let kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE application_name = 'tie' AND datname = current_database()";
    sqlx::raw_sql(kill).execute(&mut database.connect().await).await.unwrap();
}

#[tokio::test]
async fn p6_a_commit_gives_no_row_a_new_version_that_each_commit_has() {
    let database = Database::new();
    let journal = conformance::journal(&database).await;
    let versions = async || -> (String, String) {
        let sql = "SELECT (SELECT ctid::text FROM head), (SELECT ctid::text FROM node)";
        let row = sqlx::query(sql).fetch_one(&mut database.connect().await).await.unwrap();
        (row.get(0), row.get(1))
    };
    let before = versions().await;
    for number in 0..20 {
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
    assert_eq!(versions().await, before);
}

#[tokio::test]
async fn p2_a_journal_that_was_put_back_delivers_nothing_until_a_person_resumes_it() {
    let database = Database::new();
    let journal = conformance::journal(&database).await;
    journal.append(message(1, &[("adt", "record")])).await.unwrap();
    journal.close().await;
    let journal = conformance::journal(&database).await;
    assert_eq!(journal.paused(), None, "it is where it was");
    journal.close().await;
    let restored = Database(database.0, database.0.restored(&database.1));
    let journal = conformance::journal(&restored).await;
    let why = journal.paused().unwrap();
    assert!(why.starts_with("this database is not where the journal was last written"), "{why}");
    journal.close().await;
    let journal = conformance::journal(&restored).await;
    assert!(journal.paused().is_some(), "it stays so");
    let audit = Audit {
        at: conformance::at(1),
        action: "resume".to_owned(),
        who: "a person".to_owned(),
        why: "the other is off".to_owned(),
        asked: String::new(),
        deliveries: 0,
    };
    assert!(journal.resume(audit).await.unwrap());
    journal.close().await;
    assert_eq!(conformance::journal(&restored).await.paused(), None);
}

#[tokio::test]
async fn p1_only_what_the_server_calls_damaged_is() {
    let database = Database::new();
    database.execute("CREATE ROLE strict LOGIN; CREATE SCHEMA tie AUTHORIZATION strict").await;
    let strict = Settings { user: "strict".to_owned(), ..database.settings() };
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(&strict).await.unwrap());
    let journal = conformance::over(store.clone()).await;
    for number in 1..=2 {
        journal.append(message(number, &[("adt", "record")])).await.unwrap();
    }
    // One that must read them back.
    let journal = conformance::over(store).await;
    // The server fails as soon as the first message is looked at, and no other.
    for (code, damaged) in [("57014", false), ("53200", false), ("XX001", true), ("58030", true)] {
        let sql = format!(
            "CREATE OR REPLACE FUNCTION tie.fails(number bigint) RETURNS boolean LANGUAGE plpgsql AS
             $$ BEGIN IF number = 1 THEN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END IF; RETURN true; END $$;
             ALTER TABLE tie.message ENABLE ROW LEVEL SECURITY; ALTER TABLE tie.message FORCE ROW LEVEL SECURITY;
             DROP POLICY IF EXISTS fails ON tie.message;
             CREATE POLICY fails ON tie.message USING (tie.fails(sequence)); GRANT ALL ON SCHEMA tie TO PUBLIC"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut database.connect().await).await.unwrap();
        let loaded =
            load(&journal, &[id(Sequence(1), "adt", "record"), id(Sequence(2), "adt", "record")]).await;
        match loaded {
            Ok(loaded) => {
                assert!(damaged, "{code} is no fault of the message");
                assert_eq!(loaded.iter().map(|one| one.is_ok()).collect::<Vec<_>>(), [false, true]);
            }
            Err(error) => assert!(!damaged && error.to_string().contains(code), "{code}: {error}"),
        }
    }
}

#[tokio::test]
async fn p6_no_statement_reads_more_than_it_needs() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let mut writer = store.writer.lock().await;
    let writer = writer.as_mut().unwrap();
    let statements = write::STATEMENTS.into_iter().chain(decide::STATEMENTS).chain(prune::STATEMENTS);
    let statements = statements.chain(head::STATEMENTS).chain(spans::STATEMENTS);
    let statements = statements.chain(sweep::STATEMENTS).chain(search::STATEMENTS);
    for sql in statements.chain(keys::STATEMENTS) {
        let prepare = sqlx::AssertSqlSafe(format!("PREPARE one AS {sql}"));
        sqlx::raw_sql(prepare).execute(&mut *writer).await.unwrap();
        let nulls = vec!["NULL"; parameters(sql)].join(",");
        let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE one{nulls}"));
        let plan = sqlx::raw_sql(explain).fetch_all(&mut *writer).await.unwrap();
        for row in plan {
            let step: String = row.get(0);
            assert!(!step.contains("Seq Scan") || step.contains(" on head"), "{step}\n{sql}");
        }
        sqlx::raw_sql("DEALLOCATE one").execute(&mut *writer).await.unwrap();
    }
}

/// The outcomes of a batch were joined with one another: a thousand of 60 kB took 13 s.
#[tokio::test]
async fn p6_outcomes_take_time_by_their_number_and_not_by_its_square() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    database
        .execute(
            "INSERT INTO pending (destination, sequence, route, lanes, received, state, attempts)
            SELECT 'record', number, 'adt', '[]', 0, 0, 0 FROM generate_series(1, 1200) AS number",
        )
        .await;
    let delivered = |number| {
        Change::Record(Record {
            id: id(Sequence(number), "adt", "record"),
            state: State::Delivered,
            at: conformance::at(1),
            attempts: 1,
            first_attempt: None,
            revision: "r1".to_owned(),
            reason: "r".repeat(10_000),
            class: None,
            output: None,
            detail: None,
        })
    };
    let mut seconds = Vec::new();
    for outcomes in [1..=10, 11..=110, 111..=1110] {
        let began = std::time::Instant::now();
        let done = store.commit(outcomes.map(delivered).collect()).await.unwrap();
        assert!(done.iter().all(|done| *done == Committed::Recorded(true)));
        seconds.push(began.elapsed().as_secs_f64());
    }
    let ratio = seconds[2] / seconds[1];
    assert!(ratio < 30.0, "ten times the outcomes took {ratio:.0} times as long: {seconds:?}");
}

/// How many parameters a statement has.
fn parameters(sql: &str) -> usize {
    (1..).take_while(|number| sql.contains(&format!("${number}"))).count()
}

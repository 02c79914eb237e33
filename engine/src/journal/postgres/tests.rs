//! The PostgreSQL store against the conformance suite, and what only it can be asked: real servers, all of them.

use std::sync::Arc;

use sqlx::{ConnectOptions, Row, postgres::PgConnectOptions};

use super::*;
use crate::journal::{
    JournalError,
    conformance::{self, Home, conforms, message},
};

#[path = "../../../tests/support/postgres.rs"]
mod server;
use server::Server;

struct Database(&'static Server, String);

impl Database {
    fn new() -> Self {
        let server = Server::shared();
        Self(server, server.database())
    }

    fn settings(&self) -> Settings {
        settings(self.0, &self.1)
    }

    async fn connect(&self) -> PgConnection {
        let socket = self.0.socket().to_str().unwrap();
        let options = PgConnectOptions::new_without_pgpass().host(socket).port(5432);
        options.username("tie").database(&self.1).options([("search_path", "tie")]).connect().await.unwrap()
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.connect().await).await.unwrap();
    }

    async fn refused(&self) -> String {
        PostgresStore::open(&self.settings()).await.err().unwrap().to_string()
    }
}

fn settings(server: &Server, database: &str) -> Settings {
    Settings {
        host: server.socket().to_str().unwrap().to_owned(),
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
async fn p1_an_engine_that_was_followed_by_another_cannot_commit_any_more() {
    let database = Database::new();
    let first = conformance::journal(&database).await;
    first.append(message(1, &[("adt", "record")])).await.unwrap();
    // A server that takes the first engine for gone drops its lock, as when a cable was pulled.
    database.execute("UPDATE node SET token = token + 1").await;
    let refused = first.append(message(2, &[("adt", "record")])).await.unwrap_err();
    assert!(refused.to_string().contains("another engine has taken over the journal"), "{refused}");
    assert!(first.is_closed());
    let second = conformance::journal(&database).await;
    assert_eq!(second.pending("record", Sequence(0), 9).await.unwrap().len(), 1);
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
    let refused = PostgresStore::open(&settings(&server, &database)).await.err().unwrap().to_string();
    assert!(refused.contains("its `fsync` is off"), "{refused}");
    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0";
    let shared = Database::new();
    shared.execute(latin).await;
    let refused = PostgresStore::open(&settings(shared.0, "latin")).await.err().unwrap().to_string();
    assert!(refused.contains("its encoding is LATIN1"), "{refused}");
}

#[tokio::test]
async fn p1_the_session_that_writes_waits_for_the_disk_whatever_the_servers_default_is() {
    let database = Database::new();
    database.execute("DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = off'; END $$").await;
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

#[tokio::test]
async fn p1_p7_a_session_lost_during_a_commit_closes_the_journal_and_reads_go_on() {
    let database = Database::new();
    let store = Arc::new(PostgresStore::open(&database.settings()).await.unwrap());
    let process = store.session.process;
    let journal = conformance::over(store).await;
    let sequence = journal.append(message(1, &[("adt", "record")])).await.unwrap();
    let kill = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'tie' AND datname = current_database()",
    );
    let killed = kill.fetch_all(&mut database.connect().await).await.unwrap();
    assert!(killed.len() >= 2, "the writer and a reader");
    let refused = journal.append(message(2, &[("adt", "record")])).await.unwrap_err();
    assert!(matches!(refused, JournalError::Closed(_)), "{refused}");
    let again = journal.append(message(3, &[("adt", "record")])).await.unwrap_err();
    assert!(matches!(again, JournalError::Closed(_)), "{again}");
    assert!(journal.message(sequence).await.unwrap().is_some(), "readers are replaced");
    let writers: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE pid = $1")
        .bind(process)
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(writers, 0, "the writer is not");
}

#[tokio::test]
async fn sequences_become_visible_in_their_order_whoever_commits() {
    let database = Database::new();
    let journal = conformance::journal(&database).await;
    // Another node has taken a number and not committed yet.
    let mut other = database.connect().await;
    let mut transaction = other.begin().await.unwrap();
    let taken: i64 = sqlx::query_scalar("UPDATE head SET last = last + 1 RETURNING last")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    let appended = tokio::spawn({
        let journal = journal.clone();
        async move { journal.append(message(1, &[("adt", "record")])).await.unwrap() }
    });
    let mut watcher = database.connect().await;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watcher).await.unwrap() == 0 {
        assert!(!appended.is_finished(), "a later number was visible before an earlier one");
        tokio::task::yield_now().await;
    }
    transaction.commit().await.unwrap();
    assert_eq!(appended.await.unwrap().0, taken + 1);
}

#[tokio::test]
async fn p6_no_statement_reads_more_than_it_needs() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let mut writer = store.writer.lock().await;
    let writer = writer.as_mut().unwrap();
    for sql in write::STATEMENTS.into_iter().chain(decide::STATEMENTS).chain(prune::STATEMENTS) {
        let prepare = sqlx::AssertSqlSafe(format!("PREPARE one AS {sql}"));
        sqlx::raw_sql(prepare).execute(&mut *writer).await.unwrap();
        let nulls = vec!["NULL"; parameters(sql)].join(",");
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE one({nulls})"));
        let plan = sqlx::raw_sql(explain).fetch_all(&mut *writer).await.unwrap();
        for row in plan {
            let step: String = row.get(0);
            assert!(!step.contains("Seq Scan") || step.contains(" on head"), "{step}\n{sql}");
        }
        sqlx::raw_sql("DEALLOCATE one").execute(&mut *writer).await.unwrap();
    }
}

/// How many parameters a statement has.
fn parameters(sql: &str) -> usize {
    (1..).take_while(|number| sql.contains(&format!("${number}"))).count()
}

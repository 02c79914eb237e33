//! Who may write, and what is durable: an engine that was followed by another, a session that is lost, a commit that fails.

use std::sync::Arc;

use super::{tests::Database, *};
use crate::journal::{
    JournalError,
    conformance::{self, message},
};

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

/// A statement alone is its own transaction: the server answers it first, and commits when it is done with all it was sent.
#[tokio::test]
async fn p1_what_fails_at_the_commit_of_a_statement_that_was_answered_is_not_durable() {
    let database = Database::new();
    let journal = conformance::journal(&database).await;
    journal.append(message(1, &[("adt", "record")])).await.unwrap();
    database
        .execute(
            "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'at the end'; END $$;
            CREATE CONSTRAINT TRIGGER last AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION fails()",
        )
        .await;
    let refused = journal.append(message(2, &[("adt", "record")])).await.unwrap_err();
    assert!(matches!(&refused, JournalError::Closed(why) if why.contains("at the end")), "{refused}");
    let kept = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM message");
    assert_eq!(kept.fetch_one(&mut database.connect().await).await.unwrap(), 1);
}

#[tokio::test]
async fn p1_nothing_is_written_by_a_session_that_is_not_the_engines_any_more() {
    let database = Database::new();
    let store = PostgresStore::open(&database.settings()).await.unwrap();
    let mut other = database.connect().await;
    for (session, why) in [
        (Session { token: store.session.token + 1, ..store.session }, "another engine has taken over"),
        (store.session, "the database session has changed"),
    ] {
        let mut batch = batch::Batch::default();
        batch.append(1, *conformance::append(message(1, &[("adt", "record")])));
        let written = batch.write(&mut other, session, &store.spans, &mut Default::default()).await;
        assert!(written.is_err_and(|error| error.to_string().contains(why)));
    }
    let kept = "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM pending) + (SELECT count(*) FROM search)
        + (SELECT count(*) FROM span)";
    assert_eq!(sqlx::query_scalar::<_, i64>(kept).fetch_one(&mut other).await.unwrap(), 0);
}

#[tokio::test]
async fn sequences_become_visible_in_their_order_whoever_commits() {
    let database = Database::new();
    let journal = conformance::journal(&database).await;
    let first = journal.append(message(1, &[("adt", "record")])).await.unwrap();
    journal.close().await;
    // What an engine that was cut off has under way: the server has taken it for gone, and its lock is free.
    let mut other = database.connect().await;
    let mut transaction = other.begin().await.unwrap();
    sqlx::query(write::STATEMENTS[0]).bind(1_i64).fetch_one(&mut *transaction).await.unwrap();
    let late = "CREATE TEMP TABLE late ON COMMIT DROP AS SELECT * FROM tie.message;
        UPDATE late SET sequence = sequence + 1; INSERT INTO tie.message SELECT * FROM late";
    sqlx::raw_sql(late).execute(&mut *transaction).await.unwrap();
    let settings = database.settings();
    let opening = tokio::spawn(async move { PostgresStore::open(&settings).await.unwrap() });
    let mut watcher = database.connect().await;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watcher).await.unwrap() == 0 {
        assert!(!opening.is_finished(), "an engine began though another could still commit a number");
        tokio::task::yield_now().await;
    }
    transaction.commit().await.unwrap();
    let next = conformance::over(Arc::new(opening.await.unwrap())).await;
    let appended = next.append(message(2, &[("adt", "record")])).await.unwrap();
    assert_eq!(appended.0, first.0 + 2, "the number of the late commit is taken");
}

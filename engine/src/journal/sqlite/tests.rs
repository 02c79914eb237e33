//! The SQLite store against the conformance suite, and what only it can be asked.

use std::{os::unix::fs::PermissionsExt, sync::Arc};

use rusqlite::{Connection, types::Value};
use sqlx::{ConnectOptions, Connection as _};
use tempfile::TempDir;

use super::*;
use crate::journal::{
    Key, State,
    conformance::{self, Home, conforms, id, message, outcome},
};

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    async fn execute(&self, sql: &'static str) {
        let database = self.path().join("journal.sqlite");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

#[async_trait]
impl Home for Directory {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.path()).await.unwrap())
    }

    async fn damage(&self, sequence: Sequence) {
        let database = self.path().join("journal.sqlite");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
        let mut connection = options.connect().await.unwrap();
        let mut body: Vec<u8> = sqlx::query_scalar("SELECT body FROM message WHERE sequence = ?")
            .bind(sequence.0)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let middle = body.len() / 2;
        body[middle] ^= 1;
        sqlx::query("UPDATE message SET body = ? WHERE sequence = ?")
            .bind(body)
            .bind(sequence.0)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
}

conforms!(Directory::new());

/// See [`open::pool`].
#[test]
fn no_task_of_a_pool_ends_connections() {
    let pool = open::pool(1);
    assert_eq!((pool.get_idle_timeout(), pool.get_max_lifetime()), (None, None));
}

#[tokio::test]
async fn two_engines_cannot_open_one_journal() {
    let directory = Directory::new();
    let store = SqliteStore::open(&directory.path()).await.unwrap();
    let refused = SqliteStore::open(&directory.path()).await.err().unwrap();
    let expected = format!(
        "another engine (process {}) has the journal in {} open",
        std::process::id(),
        directory.path().display()
    );
    assert_eq!(refused.to_string(), expected);
    store.close().await;
    SqliteStore::open(&directory.path()).await.unwrap();
}

#[tokio::test]
async fn a_journal_of_a_newer_release_is_refused_and_left_as_it_is() {
    let directory = Directory::new();
    SqliteStore::open(&directory.path()).await.unwrap().close().await;
    directory.execute("INSERT INTO _sqlx_migrations VALUES (9000, 'future', '', true, x'00', 1)").await;
    let before = std::fs::read(directory.path().join("journal.sqlite")).unwrap();
    let refused = SqliteStore::open(&directory.path()).await.err().unwrap();
    assert!(
        refused.to_string().contains("written by a newer release of TIE (schema 9000; this release knows 1)"),
        "{refused}"
    );
    assert_eq!(std::fs::read(directory.path().join("journal.sqlite")).unwrap(), before);
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let directory = Directory::new();
    std::fs::create_dir(directory.path()).unwrap();
    std::fs::write(directory.path().join("journal.sqlite"), "").unwrap();
    directory.execute("CREATE TABLE address (name TEXT)").await;
    let refused = SqliteStore::open(&directory.path()).await.err().unwrap();
    assert!(matches!(refused, OpenError::NotAJournal(_)), "{refused}");
    std::fs::write(directory.path().join("journal.sqlite"), "no database at all, only text".repeat(99))
        .unwrap();
    let refused = SqliteStore::open(&directory.path()).await.err().unwrap();
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
}

#[tokio::test]
async fn p1_nothing_is_promised_once_the_files_are_removed_or_replaced() {
    let remove: fn(&Path) = |path| std::fs::remove_dir_all(path).unwrap();
    let replace: fn(&Path) = |path| {
        std::fs::copy(path.join("journal.sqlite"), path.join("copy")).unwrap();
        std::fs::rename(path.join("copy"), path.join("journal.sqlite")).unwrap();
    };
    let lose_the_log: fn(&Path) = |path| std::fs::remove_file(path.join("journal.sqlite-wal")).unwrap();
    for (harm, told) in [(remove, "was removed"), (replace, "was replaced"), (lose_the_log, "was removed")] {
        let directory = Directory::new();
        let journal = conformance::journal(&directory).await;
        journal.append(message(1, &[("adt", "record")])).await.unwrap();
        harm(&directory.path());
        let refused = journal.append(message(2, &[("adt", "record")])).await.unwrap_err();
        assert!(refused.to_string().contains(told), "{refused}");
        assert!(journal.is_closed());
    }
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let directory = Directory::new();
    let journal = conformance::journal(&directory).await;
    journal.append(message(1, &[("adt", "record")])).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.path()), 0o700);
    let mut names = Vec::new();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(mode(&file.path()), 0o600, "{:?}", file.file_name());
        names.push(file.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["journal.lock", "journal.sqlite", "journal.sqlite-shm", "journal.sqlite-wal"]);
}

#[tokio::test]
async fn the_database_is_as_durable_as_promised() {
    let directory = Directory::new();
    let store = SqliteStore::open(&directory.path()).await.unwrap();
    let pragma = async |sql: &'static str| {
        let read = move |connection: &mut Connection| {
            Ok(connection.query_row(sql, [], |row| row.get::<_, Value>(0))?)
        };
        match store.writer.run(read).unwrap() {
            Value::Text(text) => text,
            Value::Integer(number) => number.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pragma("PRAGMA journal_mode").await, "wal");
    assert_eq!(pragma("PRAGMA synchronous").await, "2");
    assert_eq!(pragma("PRAGMA page_size").await, "4096");
    assert_eq!(pragma("PRAGMA wal_autocheckpoint").await, "0");
    assert_eq!(pragma("PRAGMA auto_vacuum").await, "2");
    assert_eq!(pragma("PRAGMA application_id").await, "1414087985");
}

#[tokio::test]
async fn the_log_is_checkpointed_and_stays_bounded() {
    let directory = Directory::new();
    let store = SqliteStore::open(&directory.path()).await.unwrap();
    let journal = conformance::over(Arc::new(store)).await;
    let noise = conformance::noise(1, 4_000_000);
    for number in 0..60 {
        let mut message = message(number, &[("adt", "record")]);
        message.raw = [&noise[..], &number.to_le_bytes()].concat().into();
        journal.append(message).await.unwrap();
    }
    let log = std::fs::metadata(directory.path().join("journal.sqlite-wal")).unwrap().len();
    assert!(log < 120_000_000, "{log} bytes");
    let database = std::fs::metadata(directory.path().join("journal.sqlite")).unwrap().len();
    assert!(database > 100_000_000, "{database} bytes");
}

#[tokio::test]
async fn one_batch_keeps_the_order_of_its_changes() {
    use crate::journal::store::{Chosen, Record};
    let directory = Directory::new();
    let store = SqliteStore::open(&directory.path()).await.unwrap();
    let new = message(1, &[("adt", "record")]);
    let at = new.received;
    let id = id(Sequence(1), "adt", "record");
    let record = |state, attempts| {
        let outcome = outcome(&id, state, attempts);
        Change::Record(Record {
            id: outcome.id,
            state,
            at: outcome.at,
            attempts,
            first_attempt: None,
            revision: String::new(),
            reason: String::new(),
            class: None,
            output: None,
            detail: None,
        })
    };
    let audit = Audit {
        at,
        action: String::new(),
        who: String::new(),
        why: String::new(),
        asked: String::new(),
        deliveries: 0,
    };
    let batch = vec![
        Change::Append(conformance::append(new)),
        record(State::Retrying, 1),
        record(State::Dead, 2),
        record(State::Delivered, 3),
        Change::Requeue(Chosen { ids: vec![id.clone()], states: vec![State::Dead], audit }),
        record(State::Held, 1),
    ];
    let committed = store.commit(batch).await.unwrap();
    use Committed::{Appended, Recorded, Requeued};
    assert_eq!(
        committed,
        [Appended(Sequence(1)), Recorded(true), Recorded(true), Recorded(false), Requeued(1), Recorded(true)]
    );
    let pending = store.pending("record", Sequence(0), 9).await.unwrap();
    assert_eq!((pending.len(), pending[0].state, pending[0].attempts), (1, State::Held, 1));
}

#[tokio::test]
async fn p6_no_change_reads_more_than_it_changes() {
    let directory = Directory::new();
    let store = SqliteStore::open(&directory.path()).await.unwrap();
    for sql in write::STATEMENTS.iter().chain(decide::STATEMENTS).chain(prune::STATEMENTS) {
        let plan = store.writer.run(move |connection| {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let steps =
                explain.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<Vec<_>, _>>();
            Ok(steps?)
        });
        for step in plan.unwrap() {
            let table = ["pending", "delivery", "message", " p", " d", " m"]
                .into_iter()
                .any(|table| step.ends_with(table) || step.contains(&format!("{table} ")));
            let whole = step.starts_with("SCAN") && table;
            let part =
                step.contains("(destination=?)") || step.contains("INDEX delivery_of_message (sequence=?)");
            assert!(!whole && !part, "{step}\n{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_found_before_their_block_is_written_and_while_it_is_and_afterwards() {
    let directory = Directory::new();
    let more = async |from: i64, to: i64| {
        let journal = conformance::journal_of(&directory.path()).await;
        for step in (from..to).step_by(500) {
            let messages = (step..step + 500).map(|number| message(number, &[]));
            journal.append_all(messages.collect()).await.unwrap();
        }
        for number in [0, 1, 15_000, 16_383, 16_384, to - 1] {
            let found = journal.find(Key::ControlId(&number.to_string()), 9).await.unwrap();
            let expected = (number < to).then_some(Sequence(number + 1));
            assert_eq!(found.iter().map(|one| one.sequence).collect::<Vec<_>>(), Vec::from_iter(expected));
        }
        let behind = journal.stats().await.unwrap().search_behind;
        journal.close().await;
        behind
    };
    assert_eq!(more(0, 16_000).await, 16_000);
    // A restart finds what waits in the messages, and takes out what was written of a block that was not finished.
    assert_eq!(more(16_000, 17_000).await, 17_000);
    assert_eq!(more(17_000, 17_500).await, 17_500);
    let behind = more(17_500, 30_000).await;
    assert!(behind < 16_384, "{behind}");
}

#[tokio::test]
async fn free_pages_go_back_many_at_a_time() {
    let directory = Directory::new();
    let store = SqliteStore::open(&directory.path()).await.unwrap();
    let mut append = conformance::append(message(1, &[]));
    append.body.packed = conformance::noise(1, 4 << 20);
    store.commit(vec![Change::Append(append)]).await.unwrap();
    store.prune(Prune { bodies: vec![Sequence(1)], messages: Vec::new() }).await.unwrap();
    let free = async || {
        let free = |connection: &mut Connection| {
            Ok(connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0))?)
        };
        store.writer.run(free).unwrap()
    };
    let mut before = free().await;
    assert!(before > 1000, "{before}");
    while store.reclaim().await.unwrap() {
        let after = free().await;
        // The first steps may sweep out search keys.
        assert!(after == before || before - after == 512 || after == 0, "{before} to {after}");
        before = after;
    }
    assert_eq!(before, 0);
}

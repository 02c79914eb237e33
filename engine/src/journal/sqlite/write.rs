//! What changes the database: one transaction a batch, a few large statements in it.
//!
//! New rows go in by `VALUES` lists (rows.rs); small rows move and go out by one JSON parameter, whatever their number.

use std::{collections::HashSet, sync::atomic::Ordering};

use sqlx::{Connection, SqliteConnection};

use super::{
    CHECKPOINT_PAGES, COMMIT_WEIGHT_BYTES, LOOK_BYTES, SqliteStore, column,
    counters::Moves,
    decide, keys, number,
    rows::{Query, Rows},
    state,
};
use crate::journal::{
    DeliveryId, Disposition, Keys, NewDelivery, Sequence, State,
    rows::{json, write_orders},
    store::{Append, Change, Committed, Record, StoreError},
};

static MESSAGES: Rows = Rows::new(
    "INSERT INTO message (sequence, received, listener, peer, control_id, trigger_event, sending_application,
    sending_facility, patient, nhs_number, local_number, visit, orders, flag, quarantine, codec, size_bytes,
    hash, body) VALUES ",
    19,
    "",
);

static OWED: Rows = Rows::new(
    "WITH v (destination, sequence, route, lanes, received) AS (VALUES ",
    5,
    ") INSERT INTO pending (destination, sequence, route, lanes, received, state, attempts)
    SELECT destination, sequence, route, lanes, received, 0, 0 FROM v",
);

// The join gives each delivery its lanes and leaves out those that are not pending.
static DELIVERIES: Rows = Rows::new(
    "WITH v (sequence, route, destination, state, at, attempts, first_attempt, revision, reason, class, output,
    detail) AS (VALUES ",
    12,
    ") INSERT INTO delivery (sequence, route, destination, state, at, attempts, first_attempt, revision, reason,
    class, lanes, output, detail)
    SELECT v.sequence, v.route, v.destination, v.state, v.at, v.attempts, v.first_attempt, v.revision, v.reason,
    v.class, p.lanes, v.output, v.detail
    FROM v CROSS JOIN pending p
    ON p.destination = v.destination AND p.sequence = v.sequence AND p.route = v.route
    WHERE true
    ON CONFLICT (sequence, route, destination) DO UPDATE SET state = excluded.state, at = excluded.at,
    attempts = excluded.attempts, first_attempt = excluded.first_attempt, revision = excluded.revision,
    reason = excluded.reason, class = excluded.class, lanes = excluded.lanes, output = excluded.output,
    detail = excluded.detail",
);

const PENDING_OF: &str = "SELECT p.destination, p.state, count(*) FROM json_each(?) j CROSS JOIN pending p
    ON p.destination = j.value ->> 0 AND p.sequence = j.value ->> 1 AND p.route = j.value ->> 2
    GROUP BY p.destination, p.state";
const PENDING_EACH: &str = "SELECT j.key FROM json_each(?) j CROSS JOIN pending p
    ON p.destination = j.value ->> 0 AND p.sequence = j.value ->> 1 AND p.route = j.value ->> 2";
// The casts let every version's planner use the whole key: without them SQLite 3.40 reads all that a destination owes.
const ENDED: &str = "DELETE FROM pending WHERE (destination, sequence, route) IN
    (SELECT CAST(value ->> 0 AS TEXT), CAST(value ->> 1 AS INTEGER), CAST(value ->> 2 AS TEXT) FROM json_each(?))";
const FAILED: &str = "UPDATE pending SET state = v.state, attempts = v.attempts, first_attempt = v.first_attempt
    FROM (SELECT value ->> 0 AS destination, value ->> 1 AS sequence, value ->> 2 AS route, value ->> 3 AS state,
          value ->> 4 AS attempts, value ->> 5 AS first_attempt FROM json_each(?)) v
    WHERE pending.destination = v.destination AND pending.sequence = v.sequence AND pending.route = v.route";

pub(super) async fn commit(
    store: &SqliteStore,
    writer: &mut SqliteConnection,
    changes: Vec<Change>,
) -> Result<Vec<Committed>, StoreError> {
    let weight = changes.iter().map(Change::bytes).sum::<usize>() + COMMIT_WEIGHT_BYTES;
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    let mut batch = Batch::new(&mut transaction, store.last.load(Ordering::Acquire));
    for change in changes {
        batch.take(change).await?;
    }
    batch.flush().await?;
    let Batch { last, answers, moves, keys, .. } = batch;
    // What is taken out of memory here is not put back when the commit fails: the journal is closed then.
    let slice = store.unwritten.lock().slice(keys.iter().map(|(_, keys)| 5 + keys.orders.len()).sum());
    if let Some(slice) = slice {
        keys::write(&mut transaction, slice).await?;
    }
    transaction.commit().await?;
    store.last.store(last, Ordering::Release);
    store.remember(keys);
    store.counters.lock().apply(moves);
    store.unlooked_bytes.fetch_add(weight as u64, Ordering::AcqRel);
    Ok(answers)
}

/// One transaction in the making. Changes of one kind are gathered; a second outcome of the same delivery, or a
/// person's decision, writes out what was gathered before it, so that the order of the changes is kept.
struct Batch<'t> {
    connection: &'t mut SqliteConnection,
    last: i64,
    answers: Vec<Committed>,
    moves: Moves,
    appends: Vec<(i64, Append)>,
    keys: Vec<(i64, Keys)>,
    records: Vec<(usize, Record)>,
    named: HashSet<DeliveryId>,
}

impl<'t> Batch<'t> {
    fn new(connection: &'t mut SqliteConnection, last: i64) -> Self {
        Self {
            connection,
            last,
            answers: Vec::new(),
            moves: Moves::default(),
            appends: Vec::new(),
            keys: Vec::new(),
            records: Vec::new(),
            named: HashSet::new(),
        }
    }

    async fn take(&mut self, change: Change) -> Result<(), StoreError> {
        match change {
            Change::Append(append) => {
                self.last += 1;
                self.answers.push(Committed::Appended(Sequence(self.last)));
                self.keys.push((self.last, append.keys.clone()));
                self.appends.push((self.last, append));
            }
            Change::Record(record) => {
                if self.named.contains(&record.id) {
                    self.flush().await?;
                }
                self.named.insert(record.id.clone());
                self.records.push((self.answers.len(), record));
                self.answers.push(Committed::Recorded(true));
            }
            Change::Requeue(chosen) => {
                self.flush().await?;
                let changed = decide::requeue(self.connection, &mut self.moves, chosen).await?;
                self.answers.push(Committed::Requeued(changed));
            }
            Change::Release(chosen) => {
                self.flush().await?;
                let changed = decide::release(self.connection, &mut self.moves, chosen).await?;
                self.answers.push(Committed::Requeued(changed));
            }
            Change::Skip(chosen) => {
                self.flush().await?;
                let changed = decide::skip(self.connection, &mut self.moves, chosen).await?;
                self.answers.push(Committed::Requeued(changed));
            }
            Change::Note(name, value, audit) => {
                decide::note(self.connection, name, value, audit).await?;
                self.answers.push(Committed::Noted);
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        self.append().await?;
        self.record().await?;
        self.named.clear();
        Ok(())
    }

    async fn append(&mut self) -> Result<(), StoreError> {
        let mut appends = std::mem::take(&mut self.appends);
        let mut owed = Vec::with_capacity(appends.len());
        for (sequence, append) in &mut appends {
            if let Disposition::Routed(deliveries) = &mut append.disposition {
                for NewDelivery { route, destination, lanes } in std::mem::take(deliveries) {
                    self.moves.add(&destination, State::Ready, 1);
                    let (lanes, received) = (json(&lanes)?, append.received.as_microsecond());
                    owed.push(Owed { destination, sequence: *sequence, route, lanes, received });
                }
            }
        }
        MESSAGES.run(self.connection, appends, bind_message).await?;
        OWED.run(self.connection, owed, bind_owed).await
    }

    async fn record(&mut self) -> Result<(), StoreError> {
        let records = std::mem::take(&mut self.records);
        if records.is_empty() {
            return Ok(());
        }
        let pending = self.pending(&records).await?;
        let mut ended = Vec::new();
        let mut failed = Vec::new();
        for ((place, record), pending) in records.iter().zip(&pending) {
            let id = &record.id;
            if !pending {
                if let Some(answer) = self.answers.get_mut(*place) {
                    *answer = Committed::Recorded(false);
                }
                continue;
            }
            self.moves.add(&id.destination, record.state, 1);
            if record.state.is_end() {
                ended.push(key(id));
            } else {
                let first_attempt = record.first_attempt.map(|at| at.as_microsecond());
                let (destination, sequence, route) = key(id);
                failed.push((
                    destination,
                    sequence,
                    route,
                    number(record.state),
                    record.attempts,
                    first_attempt,
                ));
            }
        }
        let ended = if ended.is_empty() { None } else { Some(json(&ended)?) };
        let failed = if failed.is_empty() { None } else { Some(json(&failed)?) };
        let records = records.into_iter().map(|(_, record)| record).collect();
        DELIVERIES.run(self.connection, records, bind_delivery).await?;
        for (sql, rows) in [(ENDED, ended), (FAILED, failed)] {
            if let Some(rows) = rows {
                sqlx::query(sql).bind(rows).execute(&mut *self.connection).await?;
            }
        }
        Ok(())
    }

    /// Which of the outcomes are for deliveries that are pending; these leave their state.
    async fn pending(&mut self, records: &[(usize, Record)]) -> Result<Vec<bool>, StoreError> {
        let ids = json(&records.iter().map(|(_, record)| key(&record.id)).collect::<Vec<_>>())?;
        let mut found = 0;
        for row in sqlx::query(PENDING_OF).bind(&ids).fetch_all(&mut *self.connection).await? {
            let deliveries: i64 = column(&row, 2)?;
            self.moves.add(column(&row, 0)?, state(column(&row, 1)?)?, -deliveries);
            found += deliveries;
        }
        if usize::try_from(found) == Ok(records.len()) {
            return Ok(vec![true; records.len()]);
        }
        let mut pending = vec![false; records.len()];
        for row in sqlx::query(PENDING_EACH).bind(&ids).fetch_all(&mut *self.connection).await? {
            let place: i64 = column(&row, 0)?;
            if let Some(one) = usize::try_from(place).ok().and_then(|place| pending.get_mut(place)) {
                *one = true;
            }
        }
        Ok(pending)
    }
}

/// Checkpoints: after the answers, so that nobody waits for them who has been served.
pub(super) async fn maintain(store: &SqliteStore, writer: &mut SqliteConnection) -> Result<(), StoreError> {
    if store.unlooked_bytes.load(Ordering::Acquire) >= LOOK_BYTES {
        store.unlooked_bytes.store(0, Ordering::Release);
        let pages = checkpoint(writer, "PRAGMA wal_checkpoint(NOOP)").await?;
        if pages >= 4 * CHECKPOINT_PAGES {
            // Readers have kept the log from starting anew for too long: wait for those of this moment, but not for a
            // backup, which may read for minutes: the log grows meanwhile.
            sqlx::query(HASTY).execute(&mut *writer).await?;
            checkpoint(writer, "PRAGMA wal_checkpoint(RESTART)").await?;
            sqlx::query(PATIENT).execute(&mut *writer).await?;
        } else if pages >= CHECKPOINT_PAGES {
            checkpoint(writer, "PRAGMA wal_checkpoint(PASSIVE)").await?;
        }
    }
    Ok(())
}

const HASTY: &str = "PRAGMA busy_timeout = 20";
const PATIENT: &str = "PRAGMA busy_timeout = 10000";

/// The length of the log in pages.
async fn checkpoint(writer: &mut SqliteConnection, sql: &'static str) -> Result<i64, StoreError> {
    column(&sqlx::query(sql).fetch_one(writer).await?, 1)
}

/// What a message owes one destination.
struct Owed {
    destination: String,
    sequence: i64,
    route: String,
    lanes: String,
    received: i64,
}

fn bind_owed(query: Query<'_>, owed: Owed) -> Query<'_> {
    query.bind(owed.destination).bind(owed.sequence).bind(owed.route).bind(owed.lanes).bind(owed.received)
}

fn bind_message(query: Query<'_>, (sequence, append): (i64, Append)) -> Query<'_> {
    let quarantine = match append.disposition {
        Disposition::Quarantined { reason } => Some(reason),
        Disposition::Routed(_) => None,
    };
    query
        .bind(sequence)
        .bind(append.received.as_microsecond())
        .bind(append.listener)
        .bind(append.peer)
        .bind(append.keys.control_id)
        .bind(append.keys.trigger)
        .bind(append.keys.sending_application)
        .bind(append.keys.sending_facility)
        .bind(append.keys.patient)
        .bind(append.keys.nhs_number)
        .bind(append.keys.local_number)
        .bind(append.keys.visit)
        .bind(write_orders(&append.keys.orders))
        .bind(append.flag)
        .bind(quarantine)
        .bind(i64::from(append.body.codec.number()))
        .bind(append.body.size_bytes as i64)
        .bind(append.body.hash.to_vec())
        .bind(append.body.packed)
}

fn bind_delivery(query: Query<'_>, record: Record) -> Query<'_> {
    query
        .bind(record.id.sequence.0)
        .bind(record.id.route)
        .bind(record.id.destination)
        .bind(number(record.state))
        .bind(record.at.as_microsecond())
        .bind(i64::from(record.attempts))
        .bind(record.first_attempt.map(|at| at.as_microsecond()))
        .bind(record.revision)
        .bind(record.reason)
        .bind(record.class.map(|class| class.word()))
        .bind(record.output.map(|body| body.into_blob()))
        .bind(record.detail.map(|body| body.into_blob()))
}

/// In the order of the statements' JSON: destination, sequence, route.
pub(super) fn key(id: &DeliveryId) -> (&str, i64, &str) {
    (&id.destination, id.sequence.0, &id.route)
}

#[cfg(test)]
pub(super) const SMALL_ROWS: &[&str] = &[PENDING_OF, PENDING_EACH, ENDED, FAILED];

#[cfg(test)]
pub(super) fn delivery_rows() -> std::sync::Arc<str> {
    DELIVERIES.sql(1)
}

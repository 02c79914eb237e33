//! What changes the database: one transaction a batch, a few large statements in it.
//!
//! New rows go in by `VALUES` lists (script.rs); small rows move and go out by one JSON parameter, whatever their number.

use std::{collections::HashSet, sync::atomic::Ordering};

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    COMMIT_WEIGHT_BYTES, SqliteStore, column,
    counters::Moves,
    decide, keys, number,
    script::{Rows, Script, Values},
    state,
};
use crate::journal::{
    DeliveryId, Disposition, Keys, NewDelivery, Sequence, State,
    rows::{json, write_orders},
    store::{Append, Change, Committed, Record, StoreError},
};

const MESSAGES: Rows = Rows {
    head: "INSERT INTO message (sequence, received, listener, peer, control_id, trigger_event, sending_application,
    sending_facility, patient, nhs_number, local_number, visit, orders, flag, quarantine, codec, size_bytes,
    hash, body)",
    tail: "",
};

const OWED: Rows = Rows {
    head: "WITH v (destination, sequence, route, lanes, received) AS (",
    tail: ") INSERT INTO pending (destination, sequence, route, lanes, received, state, attempts)
    SELECT destination, sequence, route, lanes, received, 0, 0 FROM v",
};

// The join gives each delivery its lanes and leaves out those that are not pending.
const DELIVERIES: Rows = Rows {
    head: "WITH v (sequence, route, destination, state, at, attempts, first_attempt, revision, reason, class, output,
    detail) AS (",
    tail: ") INSERT INTO delivery (sequence, route, destination, state, at, attempts, first_attempt, revision, reason,
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
};

const PENDING: &str = "SELECT j.value ->> 3, p.state FROM json_each(?) j CROSS JOIN pending p
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
    let committed = try_commit(store, writer, changes).await;
    if committed.is_err() {
        // It is rolled back in any case, at the latest when the file is opened again.
        drop(sqlx::query("ROLLBACK").execute(writer).await);
    }
    committed
}

async fn try_commit(
    store: &SqliteStore,
    writer: &mut SqliteConnection,
    changes: Vec<Change>,
) -> Result<Vec<Committed>, StoreError> {
    let weight = changes.iter().map(Change::bytes).sum::<usize>() + COMMIT_WEIGHT_BYTES;
    let mut batch = Batch::begin(writer, store.last.load(Ordering::Acquire));
    for change in changes {
        batch.take(change).await?;
    }
    batch.flush().await?;
    let Batch { mut script, last, mut answers, mut moves, keys, outcomes, .. } = batch;
    // What is taken out of memory here is not put back when the commit fails: the journal is closed then.
    let slice = store.unwritten.lock().slice(keys.iter().map(|(_, keys)| 5 + keys.orders.len()).sum());
    if let Some(slice) = slice {
        keys::write(&mut script, slice).await?;
    }
    script.add("COMMIT");
    let pending = script.finish().await?;
    settle(outcomes, &pending, &mut answers, &mut moves)?;
    store.last.store(last, Ordering::Release);
    store.remember(keys);
    store.counters.lock().apply(moves);
    store.unlooked_bytes.fetch_add(weight as u64, Ordering::AcqRel);
    Ok(answers)
}

/// Tells which of the outcomes were for deliveries that were pending: by where these stood.
fn settle(
    outcomes: Vec<Option<(String, State)>>,
    pending: &[SqliteRow],
    answers: &mut [Committed],
    moves: &mut Moves,
) -> Result<(), StoreError> {
    for row in pending {
        let place = usize::try_from(column::<i64>(row, 0)?).unwrap_or(usize::MAX);
        let before = state(column(row, 1)?)?;
        if let (Some(Some((destination, now))), Some(answer)) = (outcomes.get(place), answers.get_mut(place))
        {
            moves.add(destination, before, -1);
            moves.add(destination, *now, 1);
            *answer = Committed::Recorded(true);
        }
    }
    Ok(())
}

/// One transaction in the making. Changes of one kind are gathered; a second outcome of the same delivery, or a
/// person's decision, writes out what was gathered before it, so that the order of the changes is kept.
struct Batch<'t> {
    script: Script<'t>,
    last: i64,
    answers: Vec<Committed>,
    moves: Moves,
    appends: Vec<(i64, Append)>,
    keys: Vec<(i64, Keys)>,
    records: Vec<(usize, Record)>,
    /// For each answer that is to an outcome: where its delivery stands if it was pending.
    outcomes: Vec<Option<(String, State)>>,
    named: HashSet<DeliveryId>,
}

impl<'t> Batch<'t> {
    fn begin(connection: &'t mut SqliteConnection, last: i64) -> Self {
        let mut script = Script::new(connection);
        script.add("BEGIN IMMEDIATE");
        Self {
            script,
            last,
            answers: Vec::new(),
            moves: Moves::default(),
            appends: Vec::new(),
            keys: Vec::new(),
            records: Vec::new(),
            outcomes: Vec::new(),
            named: HashSet::new(),
        }
    }

    async fn take(&mut self, change: Change) -> Result<(), StoreError> {
        let mut outcome = None;
        let answer = match change {
            Change::Append(append) => {
                self.last += 1;
                self.keys.push((self.last, append.keys.clone()));
                self.appends.push((self.last, append));
                Committed::Appended(Sequence(self.last))
            }
            Change::Record(record) => {
                if self.named.contains(&record.id) {
                    self.flush().await?;
                }
                self.named.insert(record.id.clone());
                outcome = Some((record.id.destination.clone(), record.state));
                self.records.push((self.answers.len(), record));
                // Until it is found among those that are pending.
                Committed::Recorded(false)
            }
            Change::Requeue(chosen) => {
                self.flush().await?;
                let alone = self.script.alone().await?;
                Committed::Requeued(decide::requeue(alone, &mut self.moves, chosen).await?)
            }
            Change::Release(chosen) => {
                self.flush().await?;
                let alone = self.script.alone().await?;
                Committed::Requeued(decide::release(alone, &mut self.moves, chosen).await?)
            }
            Change::Skip(chosen) => {
                self.flush().await?;
                let alone = self.script.alone().await?;
                Committed::Requeued(decide::skip(alone, &mut self.moves, chosen).await?)
            }
            Change::Note(name, value, audit) => {
                decide::note(self.script.alone().await?, name, value, audit).await?;
                Committed::Noted
            }
        };
        self.answers.push(answer);
        self.outcomes.push(outcome);
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
        self.script.add_rows(&MESSAGES, appends, bind_message).await?;
        self.script.add_rows(&OWED, owed, bind_owed).await
    }

    /// Outcomes of deliveries that are not pending change nothing; [`settle`] tells which they were.
    async fn record(&mut self) -> Result<(), StoreError> {
        let records = std::mem::take(&mut self.records);
        if records.is_empty() {
            return Ok(());
        }
        let mut ids = Vec::with_capacity(records.len());
        let mut ended = Vec::with_capacity(records.len());
        let mut failed = Vec::new();
        for (place, record) in &records {
            let (destination, sequence, route) = key(&record.id);
            ids.push((destination, sequence, route, place));
            if record.state.is_end() {
                ended.push((destination, sequence, route));
            } else {
                let first_attempt = record.first_attempt.map(|at| at.as_microsecond());
                let state = number(record.state);
                failed.push((destination, sequence, route, state, record.attempts, first_attempt));
            }
        }
        let (ids, ended, failed) = (json(&ids)?, json(&ended)?, json(&failed)?);
        self.script.add_with(PENDING, ids);
        let records = records.into_iter().map(|(_, record)| record).collect();
        self.script.add_rows(&DELIVERIES, records, bind_delivery).await?;
        self.script.add_with(ENDED, ended);
        self.script.add_with(FAILED, failed);
        Ok(())
    }
}

/// What a message owes one destination.
struct Owed {
    destination: String,
    sequence: i64,
    route: String,
    lanes: String,
    received: i64,
}

fn bind_owed(values: &mut Values<'_>, owed: Owed) {
    values
        .push_bind(owed.destination)
        .push_bind(owed.sequence)
        .push_bind(owed.route)
        .push_bind(owed.lanes)
        .push_bind(owed.received);
}

fn bind_message(values: &mut Values<'_>, (sequence, append): (i64, Append)) {
    let quarantine = match append.disposition {
        Disposition::Quarantined { reason } => Some(reason),
        Disposition::Routed(_) => None,
    };
    values
        .push_bind(sequence)
        .push_bind(append.received.as_microsecond())
        .push_bind(append.listener)
        .push_bind(append.peer)
        .push_bind(append.keys.control_id)
        .push_bind(append.keys.trigger)
        .push_bind(append.keys.sending_application)
        .push_bind(append.keys.sending_facility)
        .push_bind(append.keys.patient)
        .push_bind(append.keys.nhs_number)
        .push_bind(append.keys.local_number)
        .push_bind(append.keys.visit)
        .push_bind(write_orders(&append.keys.orders))
        .push_bind(append.flag)
        .push_bind(quarantine)
        .push_bind(i64::from(append.body.codec.number()))
        .push_bind(append.body.size_bytes as i64)
        .push_bind(append.body.hash.to_vec())
        .push_bind(append.body.packed);
}

fn bind_delivery(values: &mut Values<'_>, record: Record) {
    values
        .push_bind(record.id.sequence.0)
        .push_bind(record.id.route)
        .push_bind(record.id.destination)
        .push_bind(number(record.state))
        .push_bind(record.at.as_microsecond())
        .push_bind(i64::from(record.attempts))
        .push_bind(record.first_attempt.map(|at| at.as_microsecond()))
        .push_bind(record.revision)
        .push_bind(record.reason)
        .push_bind(record.class.map(|class| class.word()))
        .push_bind(record.output.map(|body| body.into_blob()))
        .push_bind(record.detail.map(|body| body.into_blob()));
}

/// In the order of the statements' JSON: destination, sequence, route.
pub(super) fn key(id: &DeliveryId) -> (&str, i64, &str) {
    (&id.destination, id.sequence.0, &id.route)
}

#[cfg(test)]
pub(super) const SMALL_ROWS: &[&str] = &[PENDING, ENDED, FAILED];

#[cfg(test)]
pub(super) fn delivery_rows() -> String {
    let row = ["?"; 12].join(",");
    format!("{} VALUES ({row}){}", DELIVERIES.head, DELIVERIES.tail)
}

//! What changes the database: one transaction a batch, its changes in their order.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{counters::Moves, decide, keys, number, state};
use crate::journal::{
    DeliveryId, Disposition, Keys, NewDelivery, Sequence, State,
    blob::Blob,
    rows::{json, write_orders},
    store::{Append, Change, Committed, Record, StoreError},
};

const MESSAGE: &str = "INSERT INTO message (sequence, received, listener, peer, control_id, trigger_event,
    sending_application, sending_facility, patient, nhs_number, local_number, visit, orders, flag, quarantine, codec,
    size_bytes, hash, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const OWED: &str = "INSERT INTO pending (destination, sequence, route, lanes, received, state, attempts)
    VALUES (?, ?, ?, ?, ?, 0, 0)";

const PENDING: &str = "SELECT state, lanes FROM pending WHERE destination = ? AND sequence = ? AND route = ?";
const ENDED: &str = "DELETE FROM pending WHERE destination = ? AND sequence = ? AND route = ?";
const FAILED: &str = "UPDATE pending SET state = ?4, attempts = ?5, first_attempt = ?6
    WHERE destination = ?1 AND sequence = ?2 AND route = ?3";
const DELIVERY: &str =
    "INSERT INTO delivery (sequence, route, destination, state, at, attempts, first_attempt,
    revision, reason, class, lanes, output, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (sequence, route, destination) DO UPDATE SET state = excluded.state, at = excluded.at,
    attempts = excluded.attempts, first_attempt = excluded.first_attempt, revision = excluded.revision,
    reason = excluded.reason, class = excluded.class, lanes = excluded.lanes, output = excluded.output,
    detail = excluded.detail";

/// What is durable once its transaction is.
pub(super) struct Written {
    /// The newest message.
    pub last: i64,
    pub answers: Vec<Committed>,
    pub moves: Moves,
    /// Search keys of what was appended.
    pub keys: Vec<(i64, Keys)>,
}

/// All of it, and some search keys of before, or nothing: whatever ends this early rolls back.
pub(super) fn commit(
    connection: &mut Connection,
    last: i64,
    changes: Vec<Change>,
    slice: Option<keys::Slice>,
) -> Result<Written, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let answers = Vec::with_capacity(changes.len());
    let mut written = Written { last, answers, moves: Moves::default(), keys: Vec::new() };
    for change in changes {
        let answer = written.write(&transaction, change)?;
        written.answers.push(answer);
    }
    if let Some(slice) = slice {
        keys::write(&transaction, slice)?;
    }
    transaction.commit()?;
    Ok(written)
}

impl Written {
    fn write(&mut self, to: &Transaction<'_>, change: Change) -> Result<Committed, StoreError> {
        Ok(match change {
            Change::Append(append) => {
                self.last += 1;
                self.append(to, *append)?;
                Committed::Appended(Sequence(self.last))
            }
            Change::Record(record) => Committed::Recorded(self.record(to, record)?),
            Change::Requeue(chosen) => Committed::Requeued(decide::requeue(to, &mut self.moves, chosen)?),
            Change::Release(chosen) => Committed::Requeued(decide::release(to, &mut self.moves, chosen)?),
            Change::Skip(chosen) => Committed::Requeued(decide::skip(to, &mut self.moves, chosen)?),
            Change::Note(name, value, audit) => {
                decide::note(to, name, value, audit)?;
                Committed::Noted
            }
        })
    }

    fn append(&mut self, to: &Transaction<'_>, append: Append) -> Result<(), StoreError> {
        let Append { received, listener, peer, keys, flag, disposition, body } = append;
        let (received, sequence) = (received.as_microsecond(), self.last);
        let (deliveries, quarantine) = match disposition {
            Disposition::Routed(deliveries) => (deliveries, None),
            Disposition::Quarantined { reason } => (Vec::new(), Some(reason)),
        };
        to.prepare_cached(MESSAGE)?.execute(params![
            sequence,
            received,
            listener,
            peer,
            keys.control_id,
            keys.trigger,
            keys.sending_application,
            keys.sending_facility,
            keys.patient,
            keys.nhs_number,
            keys.local_number,
            keys.visit,
            write_orders(&keys.orders),
            flag,
            quarantine,
            body.codec.number(),
            body.size_bytes as i64,
            body.hash,
            body.packed,
        ])?;
        let mut owed = to.prepare_cached(OWED)?;
        for NewDelivery { route, destination, lanes } in deliveries {
            owed.execute(params![destination, sequence, route, json(&lanes)?, received])?;
            self.moves.add(&destination, State::Ready, 1);
        }
        self.keys.push((sequence, keys));
        Ok(())
    }

    /// Whether the delivery was pending: nothing changes if it was not.
    fn record(&mut self, to: &Transaction<'_>, record: Record) -> Result<bool, StoreError> {
        let key @ (destination, sequence, route) = key(&record.id);
        let pending = to.prepare_cached(PENDING)?.query_row(key, |row| Ok((row.get(0)?, row.get(1)?)));
        let Some((before, lanes)) = pending.optional()? else { return Ok(false) };
        let (before, lanes): (_, String) = (state(before)?, lanes);
        let (now, first_attempt) = (number(record.state), record.first_attempt.map(|at| at.as_microsecond()));
        if record.state.is_end() {
            to.prepare_cached(ENDED)?.execute(key)?;
        } else {
            let failed = params![destination, sequence, route, now, record.attempts, first_attempt];
            to.prepare_cached(FAILED)?.execute(failed)?;
        }
        to.prepare_cached(DELIVERY)?.execute(params![
            sequence,
            route,
            destination,
            now,
            record.at.as_microsecond(),
            record.attempts,
            first_attempt,
            record.revision,
            record.reason,
            record.class.map(|class| class.word()),
            lanes,
            record.output.map(Blob::into_bytes),
            record.detail.map(Blob::into_bytes),
        ])?;
        self.moves.add(destination, before, -1);
        self.moves.add(destination, record.state, 1);
        Ok(true)
    }
}

/// In the order of the statements: destination, sequence, route.
pub(super) fn key(id: &DeliveryId) -> (&str, i64, &str) {
    (&id.destination, id.sequence.0, &id.route)
}

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[PENDING, ENDED, FAILED, DELIVERY];

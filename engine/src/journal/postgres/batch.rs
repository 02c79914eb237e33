//! Messages and outcomes that are written together: one statement for all their rows, each column an array.
//!
//! Promise:  P1, P7. The statement writes only while the journal is this engine's, which it sees by a row that it locks
//!           until its transaction ends.
//! Not here: which changes can stand in one batch (write.rs).
//!
//! One statement and not one for each table, since each costs a way to the server and back. Alone it is a transaction
//! by itself: no BEGIN, no COMMIT. It has been committed when the server is ready for the next, which sqlx waits for.

use std::collections::HashSet;

use parking_lot::Mutex;
use sqlx::{PgConnection, Row};

use super::{Session, Statement, spans::Spans, text};
use crate::journal::{
    DeliveryId, Disposition, State,
    blob::Blob,
    counters::Moves,
    rows::{Cells, json, state, state_number, write_orders},
    store::{Append, Record, StoreError},
};

/// All rows of a batch, if the session is still ours. The row of `node` gets no new version: under a long snapshot, such
/// as a backup's, each would lie in the way of the next.
///
/// Outcomes are of different deliveries: those that are pending leave their state, and only they become a row. The rows
/// given are never joined with one another, which would be done once for each of them, bytes and all.
pub(super) const WRITE: &str = "WITH engine AS MATERIALIZED (
        SELECT pg_backend_pid() AS process FROM node WHERE name = 'engine' AND token = $1 FOR NO KEY UPDATE),
    ours AS MATERIALIZED (SELECT FROM engine WHERE process = $2::int),
    spans AS (
        INSERT INTO span (began, first, last)
        SELECT v.* FROM ours CROSS JOIN unnest($3::bigint[], $4::bigint[], $5::bigint[]) AS v
        ON CONFLICT (began) DO UPDATE SET last = greatest(span.last, excluded.last)),
    owed AS (
        INSERT INTO pending (destination, sequence, route, lanes, received, state, attempts)
        SELECT v.*, 0, 0
        FROM ours CROSS JOIN unnest($6::text[], $7::bigint[], $8::text[], $9::text[], $10::bigint[]) AS v),
    messages AS (
        INSERT INTO message (sequence, received, listener, peer, control_id, trigger_event, sending_application,
            sending_facility, patient, nhs_number, local_number, visit, orders, flag, quarantine, codec, size_bytes,
            hash, body)
        SELECT v.* FROM ours CROSS JOIN unnest($11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::text[],
            $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[], $23::text[],
            $24::text[], $25::text[], $26::bigint[], $27::bigint[], $28::bytea[], $29::bytea[]) AS v),
    v AS (
        SELECT v.* FROM ours CROSS JOIN unnest($30::text[], $31::bigint[], $32::text[], $33::bigint[], $34::bigint[],
            $35::bigint[], $36::bigint[], $37::text[], $38::text[], $39::text[], $40::bytea[], $41::bytea[])
        WITH ORDINALITY AS v (destination, sequence, route, state, at, attempts, first_attempt, revision, reason,
            class, output, detail, place)),
    was AS MATERIALIZED (
        SELECT v.*, p.state AS stood, p.lanes FROM v JOIN pending p
        ON p.destination = v.destination AND p.sequence = v.sequence AND p.route = v.route),
    ended AS (
        DELETE FROM pending p USING v WHERE v.state >= 4
        AND p.destination = v.destination AND p.sequence = v.sequence AND p.route = v.route),
    waiting AS (
        UPDATE pending p SET state = v.state, attempts = v.attempts, first_attempt = v.first_attempt
        FROM v WHERE v.state < 4
        AND p.destination = v.destination AND p.sequence = v.sequence AND p.route = v.route),
    known AS (
        INSERT INTO delivery (sequence, route, destination, state, at, attempts, first_attempt, revision, reason,
            class, lanes, output, detail)
        SELECT sequence, route, destination, state, at, attempts, first_attempt, revision, reason, class, lanes, output,
            detail
        FROM was
        ON CONFLICT (sequence, route, destination) DO UPDATE SET state = excluded.state, at = excluded.at,
            attempts = excluded.attempts, first_attempt = excluded.first_attempt, revision = excluded.revision,
            reason = excluded.reason, class = excluded.class, lanes = excluded.lanes, output = excluded.output,
            detail = excluded.detail)
    SELECT process, place, destination, stood FROM engine LEFT JOIN was ON true";

/// What a message, and an ended delivery, take besides their packed bytes: row, indexes, search keys.
pub(super) const MESSAGE_BYTES: i64 = 900;
pub(super) const DELIVERY_BYTES: i64 = 400;

/// A batch in the making.
#[derive(Default)]
pub(super) struct Batch {
    appends: Vec<(i64, Append)>,
    /// Each with its place among the answers.
    records: Vec<(usize, Record)>,
    named: HashSet<DeliveryId>,
}

/// What a batch has changed.
pub(super) struct Written {
    /// The outcomes whose deliveries were pending, by their places among the answers.
    pub recorded: Vec<usize>,
    /// More bytes that are kept.
    pub used: i64,
}

impl Batch {
    /// Takes a message with its number.
    pub(super) fn append(&mut self, sequence: i64, append: Append) {
        self.appends.push((sequence, append));
    }

    /// Whether there is an outcome of this delivery already: the next belongs into a later batch.
    pub(super) fn names(&self, id: &DeliveryId) -> bool {
        self.named.contains(id)
    }

    /// Takes an outcome, the first of its delivery.
    pub(super) fn record(&mut self, place: usize, record: Record) {
        self.named.insert(record.id.clone());
        self.records.push((place, record));
    }

    /// Writes all of it.
    pub(super) async fn write(
        self,
        connection: &mut PgConnection,
        session: Session,
        spans: &Mutex<Spans>,
        moves: &mut Moves,
    ) -> Result<Written, StoreError> {
        let Self { appends, records, .. } = self;
        let used = appends.iter().map(|(_, one)| MESSAGE_BYTES + one.body.packed.len() as i64).sum();
        let mut written = Written { recorded: Vec::with_capacity(records.len()), used };
        let (places, outcomes): (Vec<usize>, Vec<_>) =
            records.iter().map(|(place, record)| (*place, outcome(record))).unzip();
        let query = sqlx::query(WRITE).bind(session.token).bind(session.process);
        let query = spans.lock().bind(query, &appends);
        let query = bind_owed(query, &appends, moves)?;
        let query = bind_records(bind_messages(query, appends), records);
        let rows = query.fetch_all(connection).await?;
        session.is_ours(rows.first().map(|row| row.try_get(0)).transpose()?)?;
        for row in &rows {
            let Some(place) = row.number_if_any(1)? else { continue };
            let (destination, was) = (row.text(2)?, state(row.number(3)?)?);
            let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
            let (Some(answer), Some((now, bytes))) = (places.get(place), outcomes.get(place)) else {
                return Err(StoreError::new("the database has answered for another outcome"));
            };
            written.recorded.push(*answer);
            moves.add(destination, was, -1);
            moves.add(destination, *now, 1);
            if now.is_end() {
                written.used += bytes;
            }
        }
        Ok(written)
    }
}

/// Where a delivery stands by its outcome, and what is kept of it.
fn outcome(record: &Record) -> (State, i64) {
    let length = |blob: &Option<Blob>| blob.as_ref().map_or(0, |blob| blob.stored_bytes() as i64);
    (record.state, DELIVERY_BYTES + length(&record.output) + length(&record.detail))
}

fn bind_owed(
    query: Statement,
    appends: &[(i64, Append)],
    moves: &mut Moves,
) -> Result<Statement, StoreError> {
    let (mut destinations, mut sequences, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut lanes, mut received) = (Vec::new(), Vec::new());
    for (sequence, append) in appends {
        let Disposition::Routed(deliveries) = &append.disposition else { continue };
        for delivery in deliveries {
            moves.add(&delivery.destination, State::Ready, 1);
            destinations.push(delivery.destination.as_str());
            sequences.push(*sequence);
            routes.push(delivery.route.as_str());
            lanes.push(json(&delivery.lanes)?);
            received.push(append.received.as_microsecond());
        }
    }
    Ok(query.bind(destinations).bind(sequences).bind(routes).bind(lanes).bind(received))
}

fn bind_messages(query: Statement, appends: Vec<(i64, Append)>) -> Statement {
    let column = |of: fn(&Append) -> String| appends.iter().map(|(_, one)| of(one)).collect::<Vec<_>>();
    let number = |of: fn(&Append) -> i64| appends.iter().map(|(_, one)| of(one)).collect::<Vec<_>>();
    let quarantine = |one: &Append| match &one.disposition {
        Disposition::Quarantined { reason } => Some(text(reason)),
        Disposition::Routed(_) => None,
    };
    query
        .bind(appends.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>())
        .bind(number(|one| one.received.as_microsecond()))
        .bind(column(|one| text(&one.listener)))
        .bind(column(|one| text(&one.peer)))
        .bind(column(|one| text(&one.keys.control_id)))
        .bind(column(|one| text(&one.keys.trigger)))
        .bind(column(|one| text(&one.keys.sending_application)))
        .bind(column(|one| text(&one.keys.sending_facility)))
        .bind(column(|one| text(&one.keys.patient)))
        .bind(column(|one| text(&one.keys.nhs_number)))
        .bind(column(|one| text(&one.keys.local_number)))
        .bind(column(|one| text(&one.keys.visit)))
        .bind(column(|one| write_orders(&one.keys.orders)))
        .bind(appends.iter().map(|(_, one)| one.flag.as_deref().map(text)).collect::<Vec<_>>())
        .bind(appends.iter().map(|(_, one)| quarantine(one)).collect::<Vec<_>>())
        .bind(number(|one| i64::from(one.body.codec.number())))
        .bind(number(|one| one.body.size_bytes as i64))
        .bind(appends.iter().map(|(_, one)| one.body.hash.to_vec()).collect::<Vec<_>>())
        .bind(appends.into_iter().map(|(_, one)| one.body.packed).collect::<Vec<_>>())
}

fn bind_records(query: Statement, records: Vec<(usize, Record)>) -> Statement {
    let number = |of: fn(&Record) -> i64| records.iter().map(|(_, one)| of(one)).collect::<Vec<_>>();
    let column = |of: fn(&Record) -> String| records.iter().map(|(_, one)| of(one)).collect::<Vec<_>>();
    let first = |one: &Record| one.first_attempt.map(|at| at.as_microsecond());
    let query = query
        .bind(column(|one| one.id.destination.clone()))
        .bind(number(|one| one.id.sequence.0))
        .bind(column(|one| one.id.route.clone()))
        .bind(number(|one| state_number(one.state)))
        .bind(number(|one| one.at.as_microsecond()))
        .bind(number(|one| i64::from(one.attempts)))
        .bind(records.iter().map(|(_, one)| first(one)).collect::<Vec<_>>())
        .bind(column(|one| text(&one.revision)))
        .bind(column(|one| text(&one.reason)))
        .bind(records.iter().map(|(_, one)| one.class.map(|class| class.word())).collect::<Vec<_>>());
    let (outputs, details): (Vec<_>, Vec<_>) = records
        .into_iter()
        .map(|(_, one)| (one.output.map(Blob::into_bytes), one.detail.map(Blob::into_bytes)))
        .unzip();
    query.bind(outputs).bind(details)
}

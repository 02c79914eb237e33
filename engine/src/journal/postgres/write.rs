//! What changes the database: one transaction a batch, one statement for all the rows of a kind, each column an array.

use std::collections::HashSet;

use sqlx::{Connection, PgConnection};

use super::{
    PostgresStore, Session,
    decide::{self, Decided},
    head::Numbers,
    search,
    spans::Spans,
    text,
};
use crate::journal::{
    DeliveryId, Disposition, Sequence, State,
    body::Body,
    counters::Moves,
    rows::{Cells, json, state, state_number, write_orders},
    store::{Append, Change, Chosen, Committed, Record, StoreError},
};

/// If the session is still ours. The row stays locked until the transaction ends, and gets no new version: under a long
/// snapshot, such as a backup's, each would lie in the way of the next.
const ENTER: &str =
    "SELECT pg_backend_pid() FROM node WHERE name = 'engine' AND token = $1 FOR NO KEY UPDATE";

const MESSAGES: &str = "INSERT INTO message (sequence, received, listener, peer, control_id, trigger_event,
        sending_application, sending_facility, patient, nhs_number, local_number, visit, orders, flag, quarantine,
        codec, size_bytes, hash, body)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
        $16::bigint[], $17::bigint[], $18::bytea[], $19::bytea[])";
// Sorted, so that keys that lie together are written together.
const SEARCH: &str = "INSERT INTO search (kind, hash, sequence)
    SELECT DISTINCT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) ORDER BY 1, 2, 3";
const OWED: &str = "INSERT INTO pending (destination, sequence, route, lanes, received, state, attempts)
    SELECT destination, sequence, route, lanes, received, 0, 0
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[])
    AS v (destination, sequence, route, lanes, received)";

/// All outcomes of different deliveries: those that are pending leave their state, and only they become a row. The rows
/// given are never joined with one another, which would be done once for each of them, bytes and all.
const RECORDS: &str = "WITH v AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
            $7::bigint[], $8::text[], $9::text[], $10::text[], $11::bytea[], $12::bytea[]) WITH ORDINALITY
        AS v (destination, sequence, route, state, at, attempts, first_attempt, revision, reason, class, output,
            detail, place)),
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
    SELECT place, destination, stood FROM was";

/// What a message, and an ended delivery, take besides their packed bytes: row, indexes, search keys.
pub(super) const MESSAGE_BYTES: i64 = 1200;
pub(super) const DELIVERY_BYTES: i64 = 400;

pub(super) async fn commit(
    store: &PostgresStore,
    writer: &mut PgConnection,
    changes: Vec<Change>,
) -> Result<Vec<Committed>, StoreError> {
    let before = store.head.lock().numbers();
    let mut transaction = writer.begin().await?;
    enter(&mut transaction, store.session).await?;
    let spans = std::mem::take(&mut *store.spans.lock());
    let mut batch = Batch::new(&mut transaction, spans, before.last);
    for change in changes {
        batch.take(change).await?;
    }
    batch.flush().await?;
    let Batch { answers, moves, used, last, spans, .. } = batch;
    transaction.commit().await?;
    let messages = before.messages + last - before.last;
    store.head.lock().set(Numbers { last, messages, used: before.used + used });
    store.counters.lock().apply(moves);
    *store.spans.lock() = spans;
    Ok(answers)
}

/// Proves that this is still the engine that may write, and keeps others out until the transaction ends.
pub(super) async fn enter(connection: &mut PgConnection, session: Session) -> Result<(), StoreError> {
    let process = sqlx::query_scalar(ENTER).bind(session.token).fetch_optional(connection).await?;
    session.is_ours(process)
}

/// One transaction in the making. Changes of one kind are gathered; a second outcome of the same delivery, or a
/// person's decision, writes out what was gathered before it, so that the order of the changes is kept.
struct Batch<'t> {
    connection: &'t mut PgConnection,
    /// Taken out of the store while the batch is made.
    spans: Spans,
    last: i64,
    answers: Vec<Committed>,
    moves: Moves,
    appends: Vec<(i64, Append)>,
    records: Vec<(usize, Record)>,
    named: HashSet<DeliveryId>,
    used: i64,
}

impl<'t> Batch<'t> {
    fn new(connection: &'t mut PgConnection, spans: Spans, last: i64) -> Self {
        Self {
            connection,
            spans,
            last,
            answers: Vec::new(),
            moves: Moves::default(),
            appends: Vec::new(),
            records: Vec::new(),
            named: HashSet::new(),
            used: 0,
        }
    }

    async fn take(&mut self, change: Change) -> Result<(), StoreError> {
        match change {
            Change::Append(append) => {
                self.last += 1;
                self.used += MESSAGE_BYTES + append.body.packed.len() as i64;
                self.answers.push(Committed::Appended(Sequence(self.last)));
                self.appends.push((self.last, append));
            }
            Change::Record(record) => {
                if self.named.contains(&record.id) {
                    self.flush().await?;
                }
                self.named.insert(record.id.clone());
                self.records.push((self.answers.len(), record));
                // Until the database says that it was pending.
                self.answers.push(Committed::Recorded(false));
            }
            Change::Requeue(chosen) => self.decide(&decide::REQUEUE, chosen).await?,
            Change::Release(chosen) => self.decide(&decide::RELEASE, chosen).await?,
            Change::Skip(chosen) => self.decide(&decide::SKIP, chosen).await?,
            Change::Note(name, value, audit) => {
                decide::note(self.connection, name, value, audit).await?;
                self.answers.push(Committed::Noted);
            }
        }
        Ok(())
    }

    async fn decide(&mut self, what: &Decided, chosen: Chosen) -> Result<(), StoreError> {
        self.flush().await?;
        let changed = decide::decide(self.connection, &mut self.moves, what, chosen).await?;
        self.used += changed.used;
        self.answers.push(Committed::Requeued(changed.deliveries));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let appends = std::mem::take(&mut self.appends);
        if !appends.is_empty() {
            self.spans.note(self.connection, &appends).await?;
            self.search(&appends).await?;
            self.owe(&appends).await?;
            self.append(appends).await?;
        }
        let records = std::mem::take(&mut self.records);
        if !records.is_empty() {
            self.record(records).await?;
        }
        self.named.clear();
        Ok(())
    }

    async fn append(&mut self, appends: Vec<(i64, Append)>) -> Result<(), StoreError> {
        let column = |of: fn(&Append) -> String| appends.iter().map(|(_, one)| of(one)).collect::<Vec<_>>();
        let number = |of: fn(&Append) -> i64| appends.iter().map(|(_, one)| of(one)).collect::<Vec<_>>();
        let quarantine = |one: &Append| match &one.disposition {
            Disposition::Quarantined { reason } => Some(text(reason)),
            Disposition::Routed(_) => None,
        };
        let query = sqlx::query(MESSAGES)
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
            .bind(appends.into_iter().map(|(_, one)| one.body.packed).collect::<Vec<_>>());
        query.execute(&mut *self.connection).await?;
        Ok(())
    }

    async fn search(&mut self, appends: &[(i64, Append)]) -> Result<(), StoreError> {
        let mut keys = search::Rows::default();
        appends.iter().for_each(|(sequence, append)| keys.add(*sequence, &append.keys));
        keys.execute(self.connection, SEARCH).await
    }

    async fn owe(&mut self, appends: &[(i64, Append)]) -> Result<(), StoreError> {
        let (mut destinations, mut sequences, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut lanes, mut received) = (Vec::new(), Vec::new());
        for (sequence, append) in appends {
            let Disposition::Routed(deliveries) = &append.disposition else { continue };
            for delivery in deliveries {
                self.moves.add(&delivery.destination, State::Ready, 1);
                destinations.push(delivery.destination.as_str());
                sequences.push(*sequence);
                routes.push(delivery.route.as_str());
                lanes.push(json(&delivery.lanes)?);
                received.push(append.received.as_microsecond());
            }
        }
        if !sequences.is_empty() {
            let query = sqlx::query(OWED).bind(destinations).bind(sequences).bind(routes);
            query.bind(lanes).bind(received).execute(&mut *self.connection).await?;
        }
        Ok(())
    }

    async fn record(&mut self, records: Vec<(usize, Record)>) -> Result<(), StoreError> {
        let (places, mut records): (Vec<usize>, Vec<Record>) = records.into_iter().unzip();
        let states: Vec<State> = records.iter().map(|record| record.state).collect();
        let length = |body: &Option<Body>| body.as_ref().map_or(0, |body| body.blob_bytes() as i64);
        let lengths: Vec<_> =
            records.iter().map(|one| DELIVERY_BYTES + length(&one.output) + length(&one.detail)).collect();
        let found = sqlx::query(RECORDS)
            .bind(records.iter().map(|one| one.id.destination.clone()).collect::<Vec<_>>())
            .bind(records.iter().map(|one| one.id.sequence.0).collect::<Vec<_>>())
            .bind(records.iter().map(|one| one.id.route.clone()).collect::<Vec<_>>())
            .bind(states.iter().map(|state| state_number(*state)).collect::<Vec<_>>())
            .bind(records.iter().map(|one| one.at.as_microsecond()).collect::<Vec<_>>())
            .bind(records.iter().map(|one| i64::from(one.attempts)).collect::<Vec<_>>())
            .bind(
                records.iter().map(|one| one.first_attempt.map(|at| at.as_microsecond())).collect::<Vec<_>>(),
            )
            .bind(records.iter().map(|one| text(&one.revision)).collect::<Vec<_>>())
            .bind(records.iter().map(|one| text(&one.reason)).collect::<Vec<_>>())
            .bind(records.iter().map(|one| one.class.map(|class| class.word())).collect::<Vec<_>>())
            .bind(records.iter_mut().map(|one| one.output.take().map(Body::into_blob)).collect::<Vec<_>>())
            .bind(records.iter_mut().map(|one| one.detail.take().map(Body::into_blob)).collect::<Vec<_>>())
            .fetch_all(&mut *self.connection)
            .await?;
        for row in &found {
            let place = usize::try_from(row.number(0)? - 1).ok();
            let (destination, was) = (row.text(1)?, state(row.number(2)?)?);
            let now = place.and_then(|place| states.get(place)).copied();
            let answer =
                place.and_then(|place| places.get(place)).and_then(|place| self.answers.get_mut(*place));
            let (Some(now), Some(answer)) = (now, answer) else {
                return Err(StoreError::new("the database has answered for another outcome"));
            };
            *answer = Committed::Recorded(true);
            self.moves.add(destination, was, -1);
            self.moves.add(destination, now, 1);
            if now.is_end() {
                self.used += place.and_then(|place| lengths.get(place)).copied().unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// Every statement of a commit.
#[cfg(test)]
pub(super) const STATEMENTS: [&str; 5] = [ENTER, MESSAGES, SEARCH, OWED, RECORDS];

//! What changes the database: one transaction for the changes of a commit, in their order.
//!
//! Not here: the statement that writes messages and outcomes (batch.rs), those of a person's decision (decide.rs).

use sqlx::{Connection, PgConnection};

use super::{
    PostgresStore, Session,
    batch::Batch,
    decide::{self, Decided},
    head::Numbers,
    keys::{self, Code},
};
use crate::journal::{
    Audit, Sequence,
    counters::Moves,
    store::{Change, Chosen, Committed, StoreError},
};

/// If the session is still ours. The row stays locked until the transaction ends, and gets no new version: see
/// [`batch::WRITE`](super::batch::WRITE).
const ENTER: &str =
    "SELECT pg_backend_pid() FROM node WHERE name = 'engine' AND token = $1 FOR NO KEY UPDATE";

pub(super) async fn commit(
    store: &PostgresStore,
    writer: &mut PgConnection,
    changes: Vec<Change>,
) -> Result<Vec<Committed>, StoreError> {
    let before = store.head.lock().numbers();
    let slice = store.keys.lock().slice(keys::added(&changes));
    let Work { mut steps, answers, last, keys } = Work::of(changes, before.last);
    steps.extend(slice.map(Step::Keys));
    let mut done = Done { store, answers, moves: Moves::default(), used: 0 };
    match steps.pop() {
        Some(only @ Step::Write(_)) if steps.is_empty() => done.step(writer, only).await?,
        newest => {
            let mut transaction = writer.begin().await?;
            enter(&mut transaction, store.session).await?;
            for step in steps.into_iter().chain(newest) {
                done.step(&mut transaction, step).await?;
            }
            transaction.commit().await?;
        }
    }
    let Done { answers, moves, used, .. } = done;
    let messages = before.messages + last - before.last;
    store.head.lock().set(Numbers { last, messages, used: before.used + used });
    store.keys.lock().add(last, keys);
    store.counters.lock().apply(moves);
    Ok(answers)
}

/// Proves that this is still the engine that may write, and keeps others out until the transaction ends.
pub(super) async fn enter(connection: &mut PgConnection, session: Session) -> Result<(), StoreError> {
    let process = sqlx::query_scalar(ENTER).bind(session.token).fetch_optional(connection).await?;
    session.is_ours(process)
}

/// Changes, those that can be written together as one step: a second outcome of the same delivery, or a person's
/// decision, comes behind what was written before it.
struct Work {
    steps: Vec<Step>,
    /// One for each change; of outcomes and decisions until the database has said more.
    answers: Vec<Committed>,
    /// The newest message.
    last: i64,
    /// What the messages are found by.
    keys: Vec<(i64, Code)>,
}

enum Step {
    Write(Box<Batch>),
    /// With its place among the answers.
    Decide(usize, &'static Decided, Chosen),
    Note(&'static str, Option<String>, Option<Audit>),
    /// Search keys of earlier commits.
    Keys(keys::Slice),
}

impl Work {
    fn of(changes: Vec<Change>, last: i64) -> Self {
        let answers = Vec::with_capacity(changes.len());
        let mut work = Self { steps: Vec::new(), answers, last, keys: Vec::new() };
        changes.into_iter().for_each(|change| work.take(change));
        work
    }

    fn take(&mut self, change: Change) {
        let place = self.answers.len();
        match change {
            Change::Append(append) => {
                self.last += 1;
                let last = self.last;
                self.keys.extend(keys::codes(last, &append.keys));
                self.batch(|_| true).append(last, *append);
                self.answers.push(Committed::Appended(Sequence(last)));
            }
            Change::Record(record) => {
                self.batch(|batch| !batch.names(&record.id)).record(place, record);
                self.answers.push(Committed::Recorded(false));
            }
            Change::Requeue(chosen) => self.decide(place, &decide::REQUEUE, chosen),
            Change::Release(chosen) => self.decide(place, &decide::RELEASE, chosen),
            Change::Skip(chosen) => self.decide(place, &decide::SKIP, chosen),
            Change::Note(name, value, audit) => {
                self.steps.push(Step::Note(name, value, audit));
                self.answers.push(Committed::Noted);
            }
        }
    }

    fn decide(&mut self, place: usize, what: &'static Decided, chosen: Chosen) {
        self.steps.push(Step::Decide(place, what, chosen));
        self.answers.push(Committed::Requeued(0));
    }

    /// The batch that is being made if it can take one more change, or a new one.
    fn batch(&mut self, has_room: impl FnOnce(&Batch) -> bool) -> &mut Batch {
        if !matches!(self.steps.last(), Some(Step::Write(batch)) if has_room(batch)) {
            self.steps.push(Step::Write(Box::default()));
        }
        match self.steps.last_mut() {
            Some(Step::Write(batch)) => batch,
            _ => unreachable!("it was there or just put"),
        }
    }
}

/// What the steps have changed so far.
struct Done<'s> {
    store: &'s PostgresStore,
    answers: Vec<Committed>,
    moves: Moves,
    used: i64,
}

impl Done<'_> {
    async fn step(&mut self, connection: &mut PgConnection, step: Step) -> Result<(), StoreError> {
        match step {
            Step::Write(batch) => {
                let PostgresStore { session, spans, .. } = self.store;
                let written = batch.write(connection, *session, spans, &mut self.moves).await?;
                written.recorded.into_iter().for_each(|place| self.answer(place, Committed::Recorded(true)));
                self.used += written.used;
            }
            Step::Decide(place, what, chosen) => {
                let changed = decide::decide(connection, &mut self.moves, what, chosen).await?;
                self.used += changed.used;
                self.answer(place, Committed::Requeued(changed.deliveries));
            }
            Step::Note(name, value, audit) => decide::note(connection, name, value, audit).await?,
            Step::Keys(slice) => slice.write(connection).await?,
        }
        Ok(())
    }

    fn answer(&mut self, place: usize, answer: Committed) {
        if let Some(open) = self.answers.get_mut(place) {
            *open = answer;
        }
    }
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 2] = [ENTER, super::batch::WRITE];

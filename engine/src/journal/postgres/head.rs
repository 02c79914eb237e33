//! How far the sequences are, and how much is kept: in memory, since one engine writes, and now and then in a row.
//!
//! Promise:  no sequence is ever given twice. What is given lies in `message` until retention removes it, and each step
//!           of that writes the row in its own transaction: the highest of both is the highest ever given. What an
//!           engine that was cut off may still be committing has ended before the numbers are read: it holds its row
//!           of `node`, which the token of the next engine needs.
//! Not here: which engine may write (open.rs, write.rs).
//!
//! The row is not written with each commit: under a long snapshot, such as a backup's, every version of a row stays
//! and is walked through to the next, so that commits would become slower by the minute. After a crash the messages
//! that came after it was written are counted; of deliveries ended meanwhile only those of these messages are, so that
//! `used` may be a little low.

use std::time::Instant;

use sqlx::{Connection, PgConnection, Row};

use super::{PostgresStore, Session, batch, session, write};
use crate::journal::{rows::Cells, store::StoreError};

const WRITE: &str = "UPDATE head SET last = $1, messages = $2, used = $3";
const READ: &str = "SELECT last, messages, used FROM head";
/// What came after the row was written: lengths are known without reading the bytes.
const LATER: &str = "SELECT coalesce(max(sequence), $1), count(*), coalesce(sum(length(body)), 0)::bigint
    FROM message WHERE sequence > $1";
const ENDED_LATER: &str =
    "SELECT count(*), coalesce(sum(coalesce(length(output), 0) + coalesce(length(detail), 0)), 0)::bigint
    FROM delivery WHERE sequence > $1 AND state IN (4, 5, 6)";
/// Whether the session lives and is ours, and the server still syncs.
const LOOK: &str =
    "SELECT pg_backend_pid(), current_setting('fsync') FROM node WHERE name = 'engine' AND token = $1";

/// The highest sequence ever given, how many messages are kept, and what they and their ended deliveries take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub last: i64,
    pub messages: i64,
    pub used: i64,
}

/// The numbers as they are and as the row has them.
pub(super) struct Head {
    now: Numbers,
    written: Numbers,
    looked: Instant,
}

impl Head {
    pub(super) fn new(now: Numbers, written: Numbers) -> Self {
        Self { now, written, looked: Instant::now() }
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.now
    }

    pub(super) fn set(&mut self, now: Numbers) {
        self.now = now;
    }

    pub(super) fn written(&mut self, numbers: Numbers) {
        self.now = numbers;
        self.written = numbers;
    }

    pub(super) fn looked(&self) -> Instant {
        self.looked
    }
}

/// Of a journal whose token has been taken: as the row has them, and as they are.
pub(super) async fn read(connection: &mut PgConnection) -> Result<(Numbers, Numbers), StoreError> {
    let row = sqlx::query(READ).fetch_one(&mut *connection).await?;
    let written = Numbers { last: row.number(0)?, messages: row.number(1)?, used: row.number(2)? };
    let later = sqlx::query(LATER).bind(written.last).fetch_one(&mut *connection).await?;
    let ended = sqlx::query(ENDED_LATER).bind(written.last).fetch_one(&mut *connection).await?;
    let (messages, deliveries) = (later.number(1)?, ended.number(0)?);
    let bytes = messages * batch::MESSAGE_BYTES + later.number(2)?;
    let bytes = bytes + deliveries * batch::DELIVERY_BYTES + ended.number(1)?;
    let now =
        Numbers { last: later.number(0)?, messages: written.messages + messages, used: written.used + bytes };
    Ok((written, now))
}

/// In a transaction that has entered.
pub(super) async fn write(connection: &mut PgConnection, numbers: Numbers) -> Result<(), StoreError> {
    let query = sqlx::query(WRITE).bind(numbers.last).bind(numbers.messages).bind(numbers.used);
    query.execute(connection).await?;
    Ok(())
}

/// Looks after the session that writes, and writes the numbers if they have changed.
pub(super) async fn look_after(store: &PostgresStore, writer: &mut PgConnection) -> Result<(), StoreError> {
    let row = sqlx::query(LOOK).bind(store.session.token).fetch_optional(&mut *writer).await?;
    store.session.is_ours(row.as_ref().map(|row| row.try_get(0)).transpose()?)?;
    let fsync: Option<String> = row.map(|row| row.try_get(1)).transpose()?;
    if fsync.is_none_or(|fsync| fsync != "on") {
        return Err(StoreError::new(session::NO_SYNC));
    }
    store.head.lock().looked = Instant::now();
    note(store, writer).await
}

/// Writes the numbers if they have changed. Nobody waits for the disk or a standby: if this is lost, so is nothing.
pub(super) async fn note(store: &PostgresStore, writer: &mut PgConnection) -> Result<(), StoreError> {
    let Head { now, written, .. } = *store.head.lock();
    if now == written {
        return Ok(());
    }
    let mut transaction = writer.begin().await?;
    sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *transaction).await?;
    write::enter(&mut transaction, store.session).await?;
    write(&mut transaction, now).await?;
    transaction.commit().await?;
    store.head.lock().written(now);
    Ok(())
}

impl Session {
    /// Whether the server process that has answered, if the token is still ours, is the one that was given the lock.
    pub(super) fn is_ours(self, process: Option<i32>) -> Result<(), StoreError> {
        match process {
            Some(process) if process == self.process => Ok(()),
            None => Err(StoreError::new(
                "another engine has taken over the journal: this one was cut off from the database",
            )),
            // A pooler that changes the server session under us takes lock and settings away with it.
            Some(_) => Err(StoreError::new(
                "the database session has changed: connect to PostgreSQL itself, not to a pooler",
            )),
        }
    }
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 5] = [WRITE, READ, LATER, ENDED_LATER, LOOK];

//! Taking the search keys of messages that retention has removed out of the table: until then they lead nowhere.
//!
//! In:       how many messages of a block have gone, told by each step of retention (prune.rs).
//! Promise:  P6. A step looks at some lists of one block: milliseconds, while commits wait. A block is gone through when a
//!           quarter of what it had has gone, so a few times in all, however retention goes about it. No message
//!           is read, and what is damaged holds up nobody.

use std::collections::HashSet;

use sqlx::{Connection, PgConnection};

use super::{
    PostgresStore, Session,
    keys::{self, BLOCK},
    write,
};
use crate::journal::{rows::Cells, store::StoreError};

/// Lists that one step looks at.
const STEP: usize = 64;

const GONE: &str = "INSERT INTO stale (block, kept, gone, list)
    SELECT v.block, $3, v.gone, 0 FROM unnest($1::bigint[], $2::bigint[]) AS v (block, gone)
    ON CONFLICT (block) DO UPDATE SET gone = stale.gone + excluded.gone, list = 0";
/// The oldest two: whether there are more.
const DUE: &str =
    "SELECT block, list FROM stale WHERE gone * 4 >= kept AND block < $1 ORDER BY block LIMIT 2";
const THERE: &str = "SELECT sequence FROM message WHERE sequence >= $1 AND sequence < $2";
const NEXT: &str = "UPDATE stale SET list = $2 WHERE block = $1";
const SWEPT: &str = "UPDATE stale SET list = 0, gone = 0, kept = $2 WHERE block = $1";
const NOTHING_LEFT: &str = "DELETE FROM stale WHERE block = $1";

/// Notes messages that go, in the transaction that removes them.
pub(super) async fn note(connection: &mut PgConnection, sequences: &[i64]) -> Result<(), StoreError> {
    let mut blocks: Vec<i64> = sequences.iter().map(|sequence| sequence / BLOCK).collect();
    blocks.sort_unstable();
    let (blocks, gone): (Vec<i64>, Vec<i64>) =
        blocks.chunk_by(i64::eq).filter_map(|same| Some((*same.first()?, same.len() as i64))).unzip();
    sqlx::query(GONE).bind(blocks).bind(gone).bind(BLOCK).execute(connection).await?;
    Ok(())
}

/// Goes through some lists of a block; whether there is more to do. A block that is damaged is left as it is.
pub(super) async fn sweep(store: &PostgresStore, writer: &mut PgConnection) -> Result<bool, StoreError> {
    // Of a block whose keys are partly in memory nothing is known yet.
    let whole = (store.keys.lock().searched() + 1) / BLOCK;
    let due = sqlx::query(DUE).bind(whole).fetch_all(&mut *writer).await?;
    let Some(first) = due.first() else { return Ok(false) };
    let (block, from) = (first.number(0)?, first.number(1)?);
    let lists: Vec<i64> = keys::lists().filter(|list| *list >= from).take(STEP).collect();
    let next = lists.last().map(|last| last + 1).filter(|next| keys::lists().contains(next));
    match step(writer, store.session, block, &lists, next).await {
        Ok(()) => Ok(next.is_some() || due.len() > 1),
        Err(error) if error.is_of_the_data() => {
            tracing::warn!(block, %error, "search keys of messages that have gone stay: they cannot be read");
            let mut transaction = writer.begin().await?;
            write::enter(&mut transaction, store.session).await?;
            sqlx::query(NOTHING_LEFT).bind(block).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(due.len() > 1)
        }
        Err(error) => Err(error),
    }
}

/// Takes out of some lists what has gone, and notes where to go on.
async fn step(
    writer: &mut PgConnection,
    session: Session,
    block: i64,
    lists: &[i64],
    next: Option<i64>,
) -> Result<(), StoreError> {
    let mut transaction = writer.begin().await?;
    write::enter(&mut transaction, session).await?;
    let there = sqlx::query_scalar(THERE).bind(block * BLOCK).bind((block + 1) * BLOCK);
    let there: HashSet<i64> = there.fetch_all(&mut *transaction).await?.into_iter().collect();
    keys::retain(&mut transaction, block, lists, |sequence| there.contains(&sequence)).await?;
    match next {
        Some(next) => sqlx::query(NEXT).bind(block).bind(next),
        None if there.is_empty() => sqlx::query(NOTHING_LEFT).bind(block),
        None => sqlx::query(SWEPT).bind(block).bind(there.len() as i64),
    }
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 6] = [GONE, DUE, THERE, NEXT, SWEPT, NOTHING_LEFT];

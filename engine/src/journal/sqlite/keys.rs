//! Search keys: gathered in memory behind the intake, written to the search table block by block.
//!
//! In:       the keys of what a commit has appended.
//! Out:      some rows for each later commit; the mark that says up to where the table is whole.
//! Promise:  P6, P7. Each page of the table is written once: a block is sorted before its first row is written, and lies
//!           behind those before it. What is in memory only is in the messages themselves, beyond the mark: a search
//!           reads it there, and a start reads it back. Bytes in memory are bounded.
//! Not here: reading (search.rs), sweeping out (prune.rs).
//!
//! Random keys in one order would write a page for each key as the table grows: at a million messages twenty kilobytes
//! for each message. The price of blocks is a look into each of them: about sixty for a million messages.

use std::{mem, vec};

use rusqlite::{Connection, params};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::column;
use crate::journal::{
    Keys,
    rows::read_orders,
    store::{Change, StoreError},
};

/// Messages whose keys make a block. A search reads so many messages one by one, at most, which no block has yet.
const BLOCK: i64 = 16 * 1024;
/// Keys in memory that make a block, however few the messages are.
const BLOCK_BYTES: usize = 16 << 20;
/// Rows that a commit writes besides twice as many as it adds: a millisecond.
const SLICE: usize = 512;
const KINDS: usize = 6;

/// A value and the message that has it.
type Found = (String, i64);
/// Of the table.
type Row = (i64, i64, String, i64);

/// Keys that are not in the table yet.
pub(super) struct Unwritten {
    /// The table is whole up to here.
    searched: i64,
    /// The newest message.
    last: i64,
    /// By kind, in order of arrival.
    waiting: [Vec<Found>; KINDS],
    waiting_bytes: usize,
    writing: Option<Block>,
}

/// Up to which message, and the kinds that are still to be written; the first of them is sorted.
struct Block {
    upto: i64,
    kind: i64,
    sorted: vec::IntoIter<Found>,
    rest: vec::IntoIter<Vec<Found>>,
}

/// Some rows of a block, and whether they are its last.
pub(super) struct Slice {
    block: i64,
    rows: Vec<Row>,
    ends: bool,
}

impl Unwritten {
    /// Nothing; the table is whole up to a message.
    pub(super) fn new(searched: i64) -> Self {
        Self { searched, last: searched, waiting: Default::default(), waiting_bytes: 0, writing: None }
    }

    /// Takes the keys of messages in that are durable now.
    pub(super) fn add_all(&mut self, keys: Vec<(i64, Keys)>) {
        keys.into_iter().for_each(|(sequence, keys)| self.add(sequence, keys));
    }

    /// Takes the keys of a message in; it is newer than every one before.
    pub(super) fn add(&mut self, sequence: i64, keys: Keys) {
        let Keys { control_id, patient, nhs_number, local_number, visit, orders, .. } = keys;
        self.last = sequence;
        let [by_control_id, by_patient, by_nhs_number, by_local_number, by_visit, by_order] =
            &mut self.waiting;
        let ones = [
            (by_control_id, control_id),
            (by_patient, patient),
            (by_nhs_number, nhs_number),
            (by_local_number, local_number),
            (by_visit, visit),
        ];
        for (kind, value) in ones {
            if !value.is_empty() {
                self.waiting_bytes += weight(&value);
                kind.push((value, sequence));
            }
        }
        for value in orders {
            self.waiting_bytes += weight(&value);
            by_order.push((value, sequence));
        }
    }

    /// Whether the next commits write more than their own.
    pub(super) fn is_due(&self) -> bool {
        self.writing.is_some() || self.last - self.searched >= BLOCK || self.waiting_bytes >= BLOCK_BYTES
    }

    /// What the next commit writes, if it adds so many keys: more than that, so that what waits gets less.
    pub(super) fn slice(&mut self, added: usize) -> Option<Slice> {
        if self.writing.is_none() && self.is_due() {
            self.writing = Some(self.block());
        }
        let block = self.writing.as_mut()?;
        let (rows, ends) = (block.take(SLICE + 2 * added), block.is_written());
        let block = block.upto;
        if ends {
            self.writing = None;
            self.searched = block;
        }
        Some(Slice { block, rows, ends })
    }

    fn block(&mut self) -> Block {
        let upto = self.last.min(self.searched + BLOCK);
        let mut kinds = Vec::with_capacity(KINDS);
        for kind in &mut self.waiting {
            let newer = kind.split_off(kind.partition_point(|(_, sequence)| *sequence <= upto));
            kinds.push(mem::replace(kind, newer));
        }
        let still = self.waiting.iter().flatten();
        self.waiting_bytes = still.map(|(value, _)| weight(value)).sum();
        Block { upto, kind: 0, sorted: Vec::new().into_iter(), rest: kinds.into_iter() }
    }
}

impl Block {
    fn take(&mut self, rows: usize) -> Vec<Row> {
        // One kind at a time: to sort them all would hold up a commit.
        while self.sorted.len() == 0
            && let Some(mut next) = self.rest.next()
        {
            next.sort_unstable();
            // Of one message, a value counts once.
            next.dedup();
            self.kind += 1;
            self.sorted = next.into_iter();
        }
        let (block, kind) = (self.upto, self.kind);
        self.sorted.by_ref().take(rows).map(|(value, sequence)| (block, kind, value, sequence)).collect()
    }

    fn is_written(&self) -> bool {
        self.sorted.len() == 0 && self.rest.as_slice().iter().all(Vec::is_empty)
    }
}

/// How many keys a change adds.
pub(super) fn count(change: &Change) -> usize {
    match change {
        Change::Append(append) => KINDS - 1 + append.keys.orders.len(),
        _ => 0,
    }
}

/// In memory, roughly.
fn weight(value: &str) -> usize {
    value.len() + size_of::<Found>()
}

const WRITE: &str = "INSERT INTO search (block, kind, value, sequence) VALUES (?, ?, ?, ?)";
const WHOLE: &str = "UPDATE mark SET value = ? WHERE name = 'searched'";

/// Writes rows within the transaction of a commit.
pub(super) fn write(to: &Connection, slice: Slice) -> Result<(), StoreError> {
    let Slice { block, rows, ends } = slice;
    let mut write = to.prepare_cached(WRITE)?;
    for (block, kind, value, sequence) in rows {
        write.execute(params![block, kind, value, sequence])?;
    }
    if ends {
        to.prepare_cached(WHOLE)?.execute([block])?;
    }
    Ok(())
}

/// What a start finds: rows of a block that was not finished are taken out again, and what the table has not is read
/// from the messages. One that cannot be read is left out: it is damaged, and holds up nobody.
pub(super) async fn unwritten(
    connection: &mut SqliteConnection,
    searched: i64,
    last: i64,
) -> Result<Unwritten, StoreError> {
    const UNFINISHED: &str = "DELETE FROM search WHERE block > ?";
    const BEYOND: &str = "SELECT sequence, control_id, patient, nhs_number, local_number, visit, orders
        FROM message WHERE sequence > ? AND sequence <= ? ORDER BY sequence";
    sqlx::query(UNFINISHED).bind(searched).execute(&mut *connection).await?;
    let mut unwritten = Unwritten::new(searched);
    if let Ok(rows) = sqlx::query(BEYOND).bind(searched).bind(last).fetch_all(&mut *connection).await {
        rows.iter()
            .filter_map(|row| keys(row).ok())
            .for_each(|(sequence, keys)| unwritten.add(sequence, keys));
        return Ok(unwritten);
    }
    for sequence in searched + 1..=last {
        let row =
            sqlx::query(BEYOND).bind(sequence - 1).bind(sequence).fetch_optional(&mut *connection).await;
        if let Ok(Some(row)) = row
            && let Ok((sequence, keys)) = keys(&row)
        {
            unwritten.add(sequence, keys);
        }
    }
    Ok(unwritten)
}

fn keys(row: &SqliteRow) -> Result<(i64, Keys), StoreError> {
    let keys = Keys {
        control_id: column(row, 1)?,
        patient: column(row, 2)?,
        nhs_number: column(row, 3)?,
        local_number: column(row, 4)?,
        visit: column(row, 5)?,
        orders: read_orders(column(row, 6)?)?,
        ..Keys::default()
    };
    Ok((column(row, 0)?, keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: i64) -> Keys {
        let patient = format!("rxx|{}", number * 7919 % 10_000);
        Keys {
            control_id: number.to_string(),
            patient,
            orders: vec!["a".into(), "a".into()],
            ..Keys::default()
        }
    }

    #[test]
    fn a_block_comes_out_sorted_in_slices_and_whole() {
        let mut unwritten = Unwritten::new(5);
        for sequence in 6..6 + BLOCK + 100 {
            assert!(sequence >= 6 + BLOCK || unwritten.slice(1).is_none(), "nothing is due before");
            unwritten.add(sequence, of(sequence));
        }
        let mut rows = Vec::new();
        let mut ends = false;
        while !ends {
            let slice = unwritten.slice(0).unwrap();
            assert!(slice.rows.len() <= SLICE && slice.block == 5 + BLOCK);
            rows.extend(slice.rows);
            ends = slice.ends;
        }
        assert!(rows.is_sorted(), "each page is written once");
        assert_eq!(rows.len() as i64, 3 * BLOCK, "a value counts once for each message");
        assert!(rows.iter().all(|row| row.3 <= 5 + BLOCK));
        assert!(unwritten.slice(0).is_none());
        assert_eq!(unwritten.waiting.map(|kind| kind.len()), [100, 100, 0, 0, 0, 200]);
    }

    #[test]
    fn p6_many_bytes_make_a_block_of_few_messages() {
        let mut unwritten = Unwritten::new(0);
        let mut most = 0;
        for sequence in 1..=400 {
            unwritten.add(sequence, Keys { visit: "v".repeat(1 << 20), ..Keys::default() });
            while let Some(slice) = unwritten.slice(1) {
                assert_eq!(slice.block % 16, 0);
            }
            most = most.max(unwritten.waiting_bytes);
        }
        assert!(most <= BLOCK_BYTES + (1 << 20) + 100, "{most}");
    }
}

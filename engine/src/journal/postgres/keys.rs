//! Search keys: gathered in memory behind the intake, written to the search table block by block.
//!
//! In:       the keys of what has been committed.
//! Out:      the rows of a block with a later commit, and the mark in `head` that says up to where the table is whole.
//! Promise:  P6, P7. A block and the mark behind it come in one transaction. What is in memory only is in the messages
//!           themselves, beyond the mark: a search reads it there, and a start reads it back. Memory is bounded.
//! Not here: looking for a key (search.rs), which messages go (prune.rs).
//!
//! A row for each key would be a random place of an index for each, which PostgreSQL writes to its log as a whole page
//! after every checkpoint: at a million messages more than all the rest of a message. So a row holds many: those of one
//! *list*, which is a kind of key and a part of all hashes, among the messages of one block. The price is that a search
//! reads one row of each block: about 120 for a million messages.

use std::{collections::VecDeque, mem};

use sha2::{Digest, Sha256};
use sqlx::{PgConnection, Row};

use super::text;
use crate::journal::{
    Key, Keys,
    rows::{self, Cells},
    store::StoreError,
};

/// How many bits say which message of its block a key is of.
const PLACE_BITS: u32 = 13;
/// Messages of a block: those whose numbers, divided by this, are the block's.
pub(super) const BLOCK: i64 = 1 << PLACE_BITS;
/// Bits of a hash that say which list of its kind it is in.
const LIST_BITS: u32 = 7;
/// Bits of a hash that are kept in the list.
const HASH_BITS: u32 = 32;
/// In a row: hash and place.
const KEY_BYTES: usize = (HASH_BITS + PLACE_BITS).div_ceil(8) as usize;
/// Keys of a row at most: one that many messages have takes several, which are skipped unread by who looks for another.
const ROW_KEYS: usize = 1024;
/// Keys in memory that are written however few the messages are: 16 MB.
const MOST: usize = 1 << 20;
const KINDS: i64 = 6;

const SEARCHED: &str = "SELECT searched FROM head";
const WRITE: &str = "INSERT INTO search (list, block, part, low, high, keys)
    SELECT v.list, $1, v.part, v.low, v.high, v.keys
    FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[]) AS v (list, part, low, high, keys)";
const WHOLE: &str = "UPDATE head SET searched = $1";
const MESSAGES: &str = "SELECT sequence, control_id, patient, nhs_number, local_number, visit, orders
    FROM message WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence";
const REMOVE: &str = "DELETE FROM search WHERE list = ANY($1::bigint[]) AND block = $2";

/// What a value is found by: its kind and the first bits of its hash. Two values may share one: whoever searches compares
/// the value as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(u64);

impl Code {
    pub(super) fn of(key: Key<'_>) -> Self {
        let kind: u64 = match key {
            Key::ControlId(_) => 1,
            Key::Patient(_) => 2,
            Key::NhsNumber(_) => 3,
            Key::LocalNumber(_) => 4,
            Key::Visit(_) => 5,
            Key::Order(_) => 6,
        };
        // Ours and not PostgreSQL's, whose hashes may change with its versions.
        let hash: [u8; 32] = Sha256::digest(text(key.value())).into();
        let hash = hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        Self(kind << (LIST_BITS + HASH_BITS) | hash >> (64 - LIST_BITS - HASH_BITS))
    }

    /// Which list it is in.
    pub(super) fn list(self) -> i64 {
        (self.0 >> HASH_BITS).cast_signed()
    }

    /// Its hash, as far as the list has it.
    pub(super) fn hash(self) -> i64 {
        i64::from(self.0 as u32)
    }

    /// The messages that have it, by a row of its list.
    pub(super) fn found_in(self, block: i64, keys: &[u8]) -> impl Iterator<Item = i64> {
        let hash = self.hash();
        keys.chunks_exact(KEY_BYTES).filter_map(move |key| {
            let key = key.iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
            (key >> PLACE_BITS == hash).then_some(block * BLOCK + key % BLOCK)
        })
    }
}

/// The codes of a message's keys, each with the message; it is not found by what it does not have.
pub(super) fn codes(sequence: i64, keys: &Keys) -> impl Iterator<Item = (i64, Code)> {
    let single = [
        Key::ControlId(&keys.control_id),
        Key::Patient(&keys.patient),
        Key::NhsNumber(&keys.nhs_number),
        Key::LocalNumber(&keys.local_number),
        Key::Visit(&keys.visit),
    ];
    let all = single.into_iter().chain(keys.orders.iter().map(|order| Key::Order(order)));
    all.filter(|key| !key.value().is_empty()).map(move |key| (sequence, Code::of(key)))
}

/// Keys that are not in the table yet.
pub(super) struct Unwritten {
    /// The table is whole up to here.
    searched: i64,
    /// The newest message.
    last: i64,
    /// In the order of their messages.
    waiting: VecDeque<(i64, Code)>,
}

impl Unwritten {
    /// Nothing; the table is whole up to a message.
    pub(super) fn new(searched: i64) -> Self {
        Self { searched, last: searched, waiting: VecDeque::new() }
    }

    /// Takes the keys of messages in that are durable now, the newest of which is `last`.
    pub(super) fn add(&mut self, last: i64, keys: impl IntoIterator<Item = (i64, Code)>) {
        self.waiting.extend(keys);
        self.last = last;
    }

    /// The block that is to be written with the next commit: one whose messages are all there, or a part of it if its
    /// keys are too many to wait in memory.
    pub(super) fn due(&mut self) -> Option<Rows> {
        let block = (self.searched + 1) / BLOCK;
        let end = block * BLOCK + BLOCK - 1;
        if self.last < end && self.waiting.len() < MOST {
            return None;
        }
        let upto = end.min(self.last);
        let newer = self.waiting.split_off(self.waiting.partition_point(|(sequence, _)| *sequence <= upto));
        let keys = mem::replace(&mut self.waiting, newer);
        self.searched = upto;
        Some(Rows::of(upto, keys))
    }

    /// Up to where the table is whole.
    pub(super) fn searched(&self) -> i64 {
        self.searched
    }
}

/// Rows of one block, as columns.
pub(super) struct Rows {
    upto: i64,
    lists: Vec<i64>,
    parts: Vec<i64>,
    lows: Vec<i64>,
    highs: Vec<i64>,
    keys: Vec<Vec<u8>>,
}

impl Rows {
    /// Keys of messages of one block, the last of which is `upto`.
    fn of(upto: i64, keys: impl IntoIterator<Item = (i64, Code)>) -> Self {
        let key = |(sequence, code): (i64, Code)| code.0 << PLACE_BITS | (sequence % BLOCK).cast_unsigned();
        let mut all: Vec<u64> = keys.into_iter().map(key).collect();
        all.sort_unstable();
        // Of one message, a value counts once.
        all.dedup();
        let (lists, parts, lows, highs, keys) = Default::default();
        let mut rows = Self { upto, lists, parts, lows, highs, keys };
        let code = |key: u64| Code(key >> PLACE_BITS);
        for list in all.chunk_by(|one, other| code(*one).list() == code(*other).list()) {
            for (number, row) in (0..).zip(list.chunks(ROW_KEYS)) {
                let ([low, ..], [.., high]) = (row, row) else { continue };
                rows.lists.push(code(*low).list());
                // A block may be written in parts; each ends with another message.
                rows.parts.push((upto % BLOCK) << 32 | number);
                rows.lows.push(code(*low).hash());
                rows.highs.push(code(*high).hash());
                rows.keys.push(row.iter().flat_map(|key| kept(*key)).collect());
            }
        }
        rows
    }

    /// Writes them within a transaction that has entered.
    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        sqlx::query(WRITE)
            .bind(self.upto / BLOCK)
            .bind(self.lists)
            .bind(self.parts)
            .bind(self.lows)
            .bind(self.highs)
            .bind(self.keys)
            .execute(connection)
            .await?;
        Ok(())
    }

    /// The same, and that the table is whole up to their last message.
    pub(super) async fn complete(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let upto = self.upto;
        self.write(connection).await?;
        sqlx::query(WHOLE).bind(upto).execute(connection).await?;
        Ok(())
    }
}

/// Hash and place, without the list.
fn kept(key: u64) -> impl Iterator<Item = u8> {
    const KEPT: u64 = (1 << (HASH_BITS + PLACE_BITS)) - 1;
    (key & KEPT).to_be_bytes().into_iter().skip(size_of::<u64>() - KEY_BYTES)
}

/// What a start finds: the keys of the messages beyond the mark.
pub(super) async fn unwritten(connection: &mut PgConnection, last: i64) -> Result<Unwritten, StoreError> {
    let searched: i64 = sqlx::query(SEARCHED).fetch_one(&mut *connection).await?.try_get(0)?;
    let mut unwritten = Unwritten::new(searched);
    unwritten.add(last, of_messages(connection, searched, last).await?);
    Ok(unwritten)
}

/// Keys of the messages behind one and up to another.
async fn of_messages(
    connection: &mut PgConnection,
    after: i64,
    upto: i64,
) -> Result<Vec<(i64, Code)>, StoreError> {
    let mut found = Vec::new();
    for row in sqlx::query(MESSAGES).bind(after).bind(upto).fetch_all(connection).await? {
        let keys = Keys {
            control_id: row.text(1)?.to_owned(),
            patient: row.text(2)?.to_owned(),
            nhs_number: row.text(3)?.to_owned(),
            local_number: row.text(4)?.to_owned(),
            visit: row.text(5)?.to_owned(),
            orders: rows::read_orders(row.text(6)?)?,
            ..Keys::default()
        };
        found.extend(codes(row.number(0)?, &keys));
    }
    Ok(found)
}

/// Writes a block anew, of what is left of its messages up to `searched`, within a transaction that has entered.
pub(super) async fn rewrite(
    connection: &mut PgConnection,
    block: i64,
    searched: i64,
) -> Result<(), StoreError> {
    let lists: Vec<i64> = (1 << LIST_BITS..(KINDS + 1) << LIST_BITS).collect();
    sqlx::query(REMOVE).bind(lists).bind(block).execute(&mut *connection).await?;
    let upto = searched.min(block * BLOCK + BLOCK - 1);
    let left = of_messages(connection, block * BLOCK - 1, upto).await?;
    Rows::of(upto, left).write(connection).await
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 5] = [SEARCHED, WRITE, WHOLE, MESSAGES, REMOVE];

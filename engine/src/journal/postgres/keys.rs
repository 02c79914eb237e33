//! Search keys: gathered in memory behind the intake, written to the search table block by block.
//!
//! In:       the keys of what has been committed.
//! Out:      some rows of a block with each later commit, and with the last of them the mark in `head` that says up to
//!           where the table is whole.
//! Promise:  P6, P7. What lies beyond the mark is in the messages themselves: a search reads it there, and a start reads
//!           it back. Keys in memory are bounded, and so is what one commit writes.
//! Not here: looking for a key (search.rs), which of them go (sweep.rs).
//!
//! A row for each key would be a random place of an index for each, which PostgreSQL writes to its log as a whole page
//! after every checkpoint: at a million messages more than all the rest of a message. So a row holds many: those of one
//! *list*, which is a kind of key and a part of all hashes, among the messages of one block. The price is that a search
//! reads one row of each block: about 120 for a million messages.

use std::{collections::VecDeque, mem, ops::Range, vec};

use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};

use super::{Session, text, write};
use crate::journal::{
    Key, Keys,
    rows::{self, Cells},
    store::{Change, StoreError},
};

/// How many bits say which message of its block a key is of; tests have many blocks.
const PLACE_BITS: u32 = if cfg!(test) { 5 } else { 13 };
/// Messages of a block: those whose numbers, divided by this, are the block's.
pub(super) const BLOCK: i64 = 1 << PLACE_BITS;
/// Bits of a hash that say which list of its kind it is in.
const LIST_BITS: u32 = 7;
/// Bits of a hash that are kept in the list.
const HASH_BITS: u32 = 32;
/// In a row: hash and place.
const KEY_BYTES: usize = (HASH_BITS + PLACE_BITS).div_ceil(8) as usize;
/// Keys of a row at most: one that many messages have takes several, which are skipped unread by who looks for another.
const ROW_KEYS: usize = if cfg!(test) { 4 } else { 1024 };
/// Keys in memory that are written however few the messages are. An ordinary block has half as many; a message has some
/// seventy at most (intake/keys.rs), so that many more do not come while these are written.
const MOST: usize = if cfg!(test) { 300 } else { 1 << 17 };
/// Rows that a commit writes besides some for what it adds: a millisecond, also where each is a page of the log.
const SLICE: usize = if cfg!(test) { 20 } else { 64 };
const KINDS: i64 = 6;
/// Rows of a block, unless one has too many keys.
const LISTS: usize = (KINDS << LIST_BITS) as usize;

const SEARCHED: &str = "SELECT searched FROM head";
const WRITE: &str = "INSERT INTO search (block, list, part, low, high, keys)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])";
const WHOLE: &str = "UPDATE head SET searched = $1";
const MESSAGES: &str = "SELECT sequence, control_id, patient, nhs_number, local_number, visit, orders
    FROM message WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence";
const READ: &str = "SELECT list, part, keys FROM search WHERE list = ANY($1::bigint[]) AND block = $2
    ORDER BY list, part";
const REMOVE: &str = "DELETE FROM search WHERE list = ANY($1::bigint[]) AND block = $2 AND part >= $3";

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
            let key = number(key);
            (key >> PLACE_BITS == hash).then_some(block * BLOCK + key % BLOCK)
        })
    }
}

/// A key of a row: hash and place.
fn number(key: &[u8]) -> i64 {
    key.iter().fold(0, |number, byte| number << 8 | i64::from(*byte))
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

/// Keys that are not in the table yet, or only some of their block.
pub(super) struct Unwritten {
    /// The table is whole up to here.
    searched: i64,
    /// What waits is of messages behind this one.
    taken: i64,
    /// The newest message.
    last: i64,
    /// In the order of their messages.
    waiting: VecDeque<(i64, Code)>,
    /// The rest of a block.
    writing: vec::IntoIter<Row>,
}

/// Some rows of a block, and up to where the table is whole with them, if they are its last.
pub(super) struct Slice {
    rows: Vec<Row>,
    whole: Option<i64>,
}

/// A row of the table.
struct Row {
    block: i64,
    list: i64,
    part: i64,
    low: i64,
    high: i64,
    keys: Vec<u8>,
}

impl Row {
    /// None if there are no keys.
    fn of(block: i64, list: i64, part: i64, keys: Vec<u8>) -> Option<Self> {
        let hash = |key: &[u8]| number(key) >> PLACE_BITS;
        let mut each = keys.chunks_exact(KEY_BYTES).map(hash);
        let low = each.next()?;
        let high = each.next_back().unwrap_or(low);
        Some(Self { block, list, part, low, high, keys })
    }
}

impl Unwritten {
    /// Nothing; the table is whole up to a message.
    pub(super) fn new(searched: i64) -> Self {
        let writing = Vec::new().into_iter();
        Self { searched, taken: searched, last: searched, waiting: VecDeque::new(), writing }
    }

    /// Takes the keys of messages in that are durable now, the newest of which is `last`.
    pub(super) fn add(&mut self, last: i64, keys: impl IntoIterator<Item = (i64, Code)>) {
        self.waiting.extend(keys);
        self.last = last;
    }

    /// What the next commit writes, if it adds so many messages: of a block whose messages are all there, or of a part of
    /// it if its keys are too many to wait in memory.
    pub(super) fn slice(&mut self, added: usize) -> Option<Slice> {
        if self.taken == self.searched {
            let end = last_of((self.searched + 1) / BLOCK);
            if self.last < end && self.waiting.len() < MOST {
                return None;
            }
            self.taken = end.min(self.last);
            let newer = self.waiting.partition_point(|(sequence, _)| *sequence <= self.taken);
            let newer = self.waiting.split_off(newer);
            self.writing = rows(self.taken, mem::replace(&mut self.waiting, newer)).into_iter();
        }
        // Twice what the messages will need, so that what waits gets less.
        let room = SLICE + 2 * added * LISTS / BLOCK as usize;
        let rows = self.writing.by_ref().take(room).collect();
        let whole = (self.writing.len() == 0).then_some(self.taken);
        self.searched = whole.unwrap_or(self.searched);
        Some(Slice { rows, whole })
    }

    /// Up to where the table is whole.
    pub(super) fn searched(&self) -> i64 {
        self.searched
    }
}

/// The last message of a block.
fn last_of(block: i64) -> i64 {
    block * BLOCK + BLOCK - 1
}

/// Where the rows of a block begin whose last message is this one: it may be written in parts.
fn part_of(upto: i64) -> i64 {
    (upto % BLOCK) << 32
}

/// The rows of keys of one block, the last message of which is `upto`.
fn rows(upto: i64, keys: impl IntoIterator<Item = (i64, Code)>) -> Vec<Row> {
    let key = |(sequence, code): (i64, Code)| code.0 << PLACE_BITS | (sequence % BLOCK).cast_unsigned();
    let mut all: Vec<u64> = keys.into_iter().map(key).collect();
    all.sort_unstable();
    // Of one message, a value counts once.
    all.dedup();
    let code = |key: u64| Code(key >> PLACE_BITS);
    let mut rows = Vec::new();
    for list in all.chunk_by(|one, other| code(*one).list() == code(*other).list()) {
        let Some(first) = list.first() else { continue };
        for (number, keys) in (0..).zip(list.chunks(ROW_KEYS)) {
            let mut bytes = Vec::with_capacity(keys.len() * KEY_BYTES);
            bytes.extend(keys.iter().flat_map(|key| kept(*key)));
            rows.extend(Row::of(upto / BLOCK, code(*first).list(), part_of(upto) + number, bytes));
        }
    }
    rows
}

/// Hash and place, without the list.
fn kept(key: u64) -> impl Iterator<Item = u8> {
    const KEPT: u64 = (1 << (HASH_BITS + PLACE_BITS)) - 1;
    (key & KEPT).to_be_bytes().into_iter().skip(size_of::<u64>() - KEY_BYTES)
}

/// Writes rows within a transaction that has entered.
async fn insert(connection: &mut PgConnection, rows: Vec<Row>) -> Result<(), StoreError> {
    let column = |of: fn(&Row) -> i64| rows.iter().map(of).collect::<Vec<_>>();
    let query = sqlx::query(WRITE)
        .bind(column(|row| row.block))
        .bind(column(|row| row.list))
        .bind(column(|row| row.part))
        .bind(column(|row| row.low))
        .bind(column(|row| row.high));
    query.bind(rows.into_iter().map(|row| row.keys).collect::<Vec<_>>()).execute(connection).await?;
    Ok(())
}

impl Slice {
    /// Writes them, and how far the table is whole, within a transaction that has entered.
    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        insert(connection, self.rows).await?;
        if let Some(whole) = self.whole {
            sqlx::query(WHOLE).bind(whole).execute(connection).await?;
        }
        Ok(())
    }
}

/// How many messages changes add.
pub(super) fn added(changes: &[Change]) -> usize {
    changes.iter().filter(|change| matches!(change, Change::Append(_))).count()
}

/// Up to where the table is whole.
pub(super) async fn searched(connection: &mut PgConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(SEARCHED).fetch_one(connection).await?)
}

/// All lists that there can be.
pub(super) fn lists() -> Range<i64> {
    1 << LIST_BITS..(KINDS + 1) << LIST_BITS
}

/// What a start finds: rows of a block that was not finished are taken out again, and the keys of the messages beyond the
/// mark are read back. One that cannot be read is left out: it is damaged, and holds up nobody.
pub(super) async fn unwritten(
    connection: &mut PgConnection,
    session: Session,
    last: i64,
) -> Result<Unwritten, StoreError> {
    let mut transaction = connection.begin().await?;
    write::enter(&mut transaction, session).await?;
    let searched = searched(&mut transaction).await?;
    remove(&mut transaction, lists().collect(), (searched + 1) / BLOCK, part_of(searched + 1)).await?;
    transaction.commit().await?;
    let mut unwritten = Unwritten::new(searched);
    match of_messages(connection, searched, last).await {
        Ok(keys) => unwritten.add(last, keys),
        Err(error) if error.is_of_the_data() => {
            for sequence in searched + 1..=last {
                match of_messages(connection, sequence - 1, sequence).await {
                    Ok(keys) => unwritten.add(sequence, keys),
                    Err(error) if error.is_of_the_data() => {}
                    Err(error) => return Err(error),
                }
            }
            unwritten.add(last, []);
        }
        Err(error) => return Err(error),
    }
    Ok(unwritten)
}

/// Removes the rows of some lists of a block from a part on.
async fn remove(
    connection: &mut PgConnection,
    lists: Vec<i64>,
    block: i64,
    from: i64,
) -> Result<(), StoreError> {
    sqlx::query(REMOVE).bind(lists).bind(block).bind(from).execute(connection).await?;
    Ok(())
}

/// Keys of the messages behind one and up to another. A sender may put any length of text into a field: one message's is
/// in memory at a time.
async fn of_messages(
    connection: &mut PgConnection,
    after: i64,
    upto: i64,
) -> Result<Vec<(i64, Code)>, StoreError> {
    let mut found = Vec::new();
    let mut messages = sqlx::query(MESSAGES).bind(after).bind(upto).fetch(connection);
    while let Some(row) = messages.try_next().await? {
        let keys = Keys {
            control_id: row.text(1)?.to_owned(),
            patient: row.text(2)?.to_owned(),
            nhs_number: row.text(3)?.to_owned(),
            local_number: row.text(4)?.to_owned(),
            visit: row.text(5)?.to_owned(),
            // Found by the rest, if this is damaged.
            orders: row.text(6).and_then(rows::read_orders).unwrap_or_default(),
            ..Keys::default()
        };
        found.extend(codes(row.number(0)?, &keys));
    }
    Ok(found)
}

/// Leaves the keys of other messages out of some lists of a block, within a transaction that has entered.
pub(super) async fn retain(
    connection: &mut PgConnection,
    block: i64,
    lists: &[i64],
    is_there: impl Fn(i64) -> bool,
) -> Result<(), StoreError> {
    let mut rows = Vec::new();
    for row in sqlx::query(READ).bind(lists.to_vec()).bind(block).fetch_all(&mut *connection).await? {
        let stays = |key: &&[u8]| is_there(block * BLOCK + number(key) % BLOCK);
        let keys = row.bytes(2)?.chunks_exact(KEY_BYTES).filter(stays).flatten().copied().collect();
        rows.extend(Row::of(block, row.number(0)?, row.number(1)?, keys));
    }
    remove(connection, lists.to_vec(), block, 0).await?;
    insert(connection, rows).await
}

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 6] = [SEARCHED, WRITE, WHOLE, MESSAGES, READ, REMOVE];

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal that was written is read by these for ever.
    #[test]
    fn a_value_has_the_same_code_for_ever() {
        let list_and_hash = |key| (Code::of(key).list(), Code::of(key).hash());
        // SHA-256 of `7001` begins with 93 1a 4d dc bb.
        assert_eq!(list_and_hash(Key::Visit("7001")), (5 * 128 + 73, 0x8d26ee5d));
        assert_eq!(list_and_hash(Key::Order("7001")), (6 * 128 + 73, 0x8d26ee5d));
        assert_eq!(list_and_hash(Key::ControlId("a\0b")), list_and_hash(Key::ControlId("a\u{2400}b")));
    }

    #[test]
    fn p6_many_keys_of_few_messages_do_not_wait_in_memory() {
        let mut unwritten = Unwritten::new(0);
        let keys = Keys { orders: (0..50).map(|number| number.to_string()).collect(), ..Keys::default() };
        let (mut most, mut parts) = (0, 0);
        for sequence in 1..BLOCK {
            if let Some(slice) = unwritten.slice(1) {
                parts += u32::from(slice.whole.is_some());
            }
            unwritten.add(sequence, codes(sequence, &keys));
            most = most.max(unwritten.waiting.len());
        }
        assert!(most < 2 * MOST, "{most}");
        assert!(parts > 3 && unwritten.searched() > BLOCK / 2, "a block comes in parts: {parts}");
    }

    #[test]
    fn p6_what_waits_gets_less_however_fast_messages_come() {
        let mut unwritten = Unwritten::new(0);
        let keys = |number: i64| {
            let control_id = number.to_string();
            codes(number, &Keys { control_id, ..Keys::default() }).collect::<Vec<_>>()
        };
        let (mut last, mut behind) = (0, 0);
        for added in (1..=24).cycle().take(500) {
            if let Some(slice) = unwritten.slice(added as usize) {
                assert!(slice.rows.len() <= SLICE + 2 * added as usize * LISTS / BLOCK as usize);
            }
            let next = last + added;
            unwritten.add(next, (last + 1..=next).flat_map(keys));
            last = next;
            behind = behind.max(last - unwritten.searched());
        }
        assert!(behind < 3 * BLOCK, "{behind}");
    }
}

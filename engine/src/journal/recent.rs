//! Messages that arrived a moment ago: whoever delivers them need not read them back.
//!
//! Promise:  P6. Bounded in number and bytes. P1: only what is durable is in here.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Entry, Sequence};

/// So many at most, the youngest.
const MOST: usize = 4096;
/// Of all together.
const MOST_BYTES: usize = 8 << 20;
/// What is longer is read back.
const LONGEST_BYTES: usize = 64 << 10;

/// What is kept.
#[derive(Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    entries: BTreeMap<Sequence, Entry>,
    bytes: usize,
}

impl Recent {
    /// Keeps messages that are durable now, in place of the oldest.
    pub(super) fn keep(&self, entries: impl Iterator<Item = Entry>) {
        let mut kept = self.0.lock();
        for entry in entries.filter(|entry| entry.raw.len() <= LONGEST_BYTES) {
            // Its bytes may be a part of much more.
            let raw = Bytes::copy_from_slice(&entry.raw);
            kept.insert(Entry { raw, ..entry });
        }
    }

    /// Those that are kept, and those that are not.
    pub(super) fn of(&self, sequences: &[Sequence]) -> (Vec<Entry>, Vec<Sequence>) {
        let kept = self.0.lock();
        let mut found = Vec::with_capacity(sequences.len());
        let mut others = Vec::new();
        for sequence in sequences {
            match kept.entries.get(sequence) {
                Some(entry) => found.push(entry.clone()),
                None => others.push(*sequence),
            }
        }
        (found, others)
    }
}

impl Kept {
    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.raw.len();
        self.entries.insert(entry.sequence, entry);
        while self.entries.len() > MOST || self.bytes > MOST_BYTES {
            let Some((_, oldest)) = self.entries.pop_first() else { return };
            self.bytes -= oldest.raw.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn entry(sequence: i64, bytes: usize) -> Entry {
        Entry {
            sequence: Sequence(sequence),
            received: Timestamp::UNIX_EPOCH,
            listener: String::new(),
            control_id: String::new(),
            raw: vec![b'x'; bytes].into(),
        }
    }

    #[test]
    fn p6_the_youngest_are_kept_within_both_bounds() {
        let recent = Recent::default();
        recent.keep((1..=2 * MOST as i64).map(|number| entry(number, 1000)));
        assert_eq!(recent.0.lock().entries.len(), MOST);
        let (found, others) = recent.of(&[Sequence(1), Sequence(2 * MOST as i64)]);
        assert_eq!(
            (found[0].sequence, found.len(), others),
            (Sequence(2 * MOST as i64), 1, vec![Sequence(1)])
        );
        recent.keep((1..=300).map(|number| entry(10_000 + number, LONGEST_BYTES)));
        let kept = recent.0.lock();
        assert_eq!((kept.bytes, kept.entries.len()), (MOST_BYTES, MOST_BYTES / LONGEST_BYTES));
        drop(kept);
        recent.keep([entry(20_000, LONGEST_BYTES + 1)].into_iter());
        assert_eq!(recent.of(&[Sequence(20_000)]).1.len(), 1);
    }
}

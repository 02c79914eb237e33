//! Repeats: what was accepted lately, so that a message that is sent again is answered and not run again.
//!
//! In:       every routed message, before and after it is stored.
//! Out:      whether it is a repeat of one that is stored, or uses the control id of another.
//! Promise:  P3. A repeat has the listener, MSH-3, MSH-4, MSH-10 and the SHA-256 of a routed message that was received
//!           inside the window. What is told here as a repeat has been compared with the journal; what is not known
//!           here because memory does not reach so far back is asked of the journal. Two copies at the same moment:
//!           one is stored, the other waits for that and is then compared; if storing fails, the other is stored.
//!           Of what tells how a thing stands now (a FHIR resource alone) only the newest can be repeated: active, on hold
//!           and active again are three messages.
//! Not here: what a repeat is answered (admit), windows of listeners (config).
//!
//! Memory holds two marks a message, 64 bits each from a hash with a key of this process: one of source and control
//! id, one of these and the content. Marks lie in spans of time that are dropped as they leave the longest window, or
//! the oldest first when there are [`MOST`] marks. They are read back from the journal after a start, newest first,
//! while messages already come in: those wait for it, [`PATIENCE`] at most, for to ask the journal about each would take
//! longer, and hold up the reading.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::{RwLock, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::journal::{Arrival, Journal, JournalError, Predecessors, Sequence};

/// Marks in memory, two a message: three million messages in about 40 bytes each, wherever in the window they lie.
const MOST: usize = 6_000_000;
/// The window is kept in so many spans and dropped by one of them.
const SPANS: u32 = 16;
/// Messages in one reading of the journal.
const PAGE: usize = 4096;
/// So long a message waits until the window is read back; senders have more.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions to the journal at a time: each looks through all that it has.
const QUESTIONS: usize = 2;

/// The repeats of an instance, for all its listeners: it outlives them.
pub struct Duplicates {
    journal: Journal,
    key: RandomState,
    most: usize,
    state: Mutex<State>,
    /// Written while the window is read back.
    recall: RwLock<()>,
    questions: Semaphore,
}

#[derive(Default)]
struct State {
    /// The longest window of any listener; zero while none looks for repeats.
    window: Duration,
    /// Rises with every change of the window, so that a reading for an older one ends.
    epoch: u64,
    spans: BTreeMap<i64, Span>,
    marks: usize,
    known: Option<Known>,
    /// What is being stored now, by the mark of its content.
    under_way: HashMap<u64, CancellationToken>,
}

/// From where on memory holds everything.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    since: Timestamp,
    from: Sequence,
}

#[derive(Default)]
struct Span {
    /// By source, control id and content.
    copies: HashMap<u64, Sequence, BuildHasherDefault<AsItIs>>,
    /// By source and control id.
    ids: HashSet<u64, BuildHasherDefault<AsItIs>>,
    last: Sequence,
}

/// The two marks of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Marks {
    id: u64,
    copy: u64,
}

/// What is known of a message that came before with the same source and control id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Earlier {
    /// There is none.
    None,
    /// The very same, stored there.
    Copy(Sequence),
    /// The very same, before it in one frame.
    InFrame,
    /// With other content.
    Other,
}

/// The right to store what has certain marks; others with the same marks wait until it is settled or dropped.
pub(super) struct Claims<'d> {
    duplicates: &'d Duplicates,
    held: Vec<(u64, CancellationToken)>,
}

impl Duplicates {
    /// Nothing is known yet: [`Duplicates::remember`] begins.
    pub fn new(journal: Journal) -> Self {
        Self {
            journal,
            key: RandomState::new(),
            most: MOST,
            state: Mutex::default(),
            recall: RwLock::default(),
            questions: Semaphore::new(QUESTIONS),
        }
    }

    #[cfg(test)]
    fn with_room_for(journal: Journal, most: usize) -> Self {
        Self { most, ..Self::new(journal) }
    }

    /// Sets the longest window of any listener. True if what is in memory is of no use for it, so that
    /// [`Duplicates::recall`] should run; until it has, the journal is asked instead.
    pub fn remember(&self, window: Duration) -> bool {
        let mut state = self.state.lock();
        if state.window == window {
            return false;
        }
        let under_way = std::mem::take(&mut state.under_way);
        *state = State { window, epoch: state.epoch + 1, under_way, ..State::default() };
        !window.is_zero()
    }

    /// Reads the window back from the journal, the newest first. Returns how many messages were read.
    ///
    /// # Errors
    /// When the journal cannot be read: it goes on being asked for what is not in memory.
    pub async fn recall(&self, now: Timestamp) -> Result<usize, JournalError> {
        let _reading = self.recall.write().await;
        let (window, epoch) = {
            let state = self.state.lock();
            (state.window, state.epoch)
        };
        let since = before(now, window);
        let (mut from, mut known) = (Sequence(i64::MAX), None);
        let mut read = 0;
        loop {
            let page = self.journal.arrivals(from, PAGE).await?;
            read += page.len();
            let whole = page.len() == PAGE && page.iter().any(|arrival| arrival.received >= since);
            let oldest = page.iter().map(|arrival| arrival.received).min();
            from = page.last().map_or(Sequence(0), |last| last.sequence);
            let mut state = self.state.lock();
            // Another window, or spans that had to go: what is below them must not be claimed to be known.
            if state.epoch != epoch || state.known != known || state.marks >= self.most {
                return Ok(read);
            }
            for arrival in page.iter().filter(|arrival| arrival.received >= since) {
                let marks = self.marks(arrival);
                state.insert(marks, arrival.sequence, arrival.received);
            }
            let reached = if whole { oldest.unwrap_or(since) } else { since };
            known = Some(Known { since: reached, from });
            state.known = known;
            if !whole {
                return Ok(read);
            }
        }
    }

    /// The marks of a message; its sequence and time do not matter.
    pub(super) fn marks(&self, arrival: &Arrival) -> Marks {
        let Arrival { listener, sending_application, sending_facility, control_id, hash, .. } = arrival;
        let id = self.key.hash_one((0_u8, listener, sending_application, sending_facility, control_id));
        Marks { id, copy: self.key.hash_one((1_u8, id, hash)) }
    }

    /// Waits until nobody else is storing any of these, then keeps others from it. The marks are claimed in their
    /// order, so that two batches with the same messages cannot wait for each other.
    pub(super) async fn claim(&self, marks: impl Iterator<Item = Marks>) -> Claims<'_> {
        let mut wanted: Vec<u64> = marks.map(|marks| marks.copy).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut claims = Claims { duplicates: self, held: Vec::with_capacity(wanted.len()) };
        for copy in wanted {
            loop {
                let busy = {
                    let mut state = self.state.lock();
                    match state.under_way.get(&copy) {
                        Some(busy) => busy.clone(),
                        None => {
                            let ended = CancellationToken::new();
                            state.under_way.insert(copy, ended.clone());
                            claims.held.push((copy, ended));
                            break;
                        }
                    }
                };
                busy.cancelled().await;
            }
        }
        claims
    }

    /// What came before it inside a window, by memory where memory reaches and by the journal elsewhere. If it `updates`
    /// what it is about, it is no repeat of a copy that something else has come after.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(super) async fn earlier(
        &self,
        arrival: &Arrival,
        marks: Marks,
        window: Duration,
        updates: bool,
    ) -> Result<Earlier, JournalError> {
        let since = before(arrival.received, window);
        let look = || self.state.lock().look(marks, since);
        let (mut copy, mut id, mut unknown) = look();
        if unknown.is_some() && timeout(PATIENCE, self.recall.read()).await.is_ok() {
            (copy, id, unknown) = look();
        }
        if let Some(sequence) = copy
            && let Some(known) = self.journal.message(sequence).await?
            && arrival.is_repeat_of(&known, since)
        {
            let other =
                updates && self.asked(arrival, since, Sequence(i64::MAX)).await?.other > Some(sequence);
            return Ok(if other { Earlier::Other } else { Earlier::Copy(sequence) });
        }
        if let Some(before) = unknown {
            let found = self.asked(arrival, since, before).await?;
            if let Some(sequence) = found.copy.filter(|copy| !updates || found.other < Some(*copy) && !id) {
                return Ok(Earlier::Copy(sequence));
            }
            if found.copy.or(found.other).is_some() {
                return Ok(Earlier::Other);
            }
        }
        Ok(if id && copy.is_none() { Earlier::Other } else { Earlier::None })
    }

    /// What the journal has before a place.
    async fn asked(
        &self,
        arrival: &Arrival,
        since: Timestamp,
        before: Sequence,
    ) -> Result<Predecessors, JournalError> {
        // Never closed.
        let _turn = self.questions.acquire().await.ok();
        self.journal.earlier(arrival, since, before).await
    }

    /// Remembers a message that has been stored.
    pub(super) fn stored(&self, marks: Marks, sequence: Sequence, received: Timestamp) {
        let mut state = self.state.lock();
        if state.window.is_zero() {
            return;
        }
        state.insert(marks, sequence, received);
        let since = before(received, state.window);
        state.expire(since);
        while state.marks > self.most {
            state.drop_oldest();
        }
    }
}

impl State {
    /// The sequence of a copy, whether the control id was used, and below which sequence only the journal knows.
    fn look(&self, marks: Marks, since: Timestamp) -> (Option<Sequence>, bool, Option<Sequence>) {
        // The newest span first: most repeats come at once.
        let copy = self.spans.values().rev().find_map(|span| span.copies.get(&marks.copy)).copied();
        let id = self.spans.values().rev().any(|span| span.ids.contains(&marks.id));
        let unknown = match self.known {
            None => Some(Sequence(i64::MAX)),
            Some(known) => (since < known.since).then_some(known.from),
        };
        (copy, id, unknown)
    }

    fn insert(&mut self, marks: Marks, sequence: Sequence, received: Timestamp) {
        let span =
            self.spans.entry(received.as_second().div_euclid(seconds_of_span(self.window))).or_default();
        span.last = span.last.max(sequence);
        self.marks += usize::from(span.ids.insert(marks.id));
        // The newest copy is the one that is inside the window for longest.
        match span.copies.entry(marks.copy) {
            Entry::Occupied(mut known) => {
                let newest = sequence.max(*known.get());
                known.insert(newest);
            }
            Entry::Vacant(new) => {
                new.insert(sequence);
                self.marks += 1;
            }
        }
    }

    fn expire(&mut self, since: Timestamp) {
        let oldest = since.as_second().div_euclid(seconds_of_span(self.window));
        while self.spans.first_key_value().is_some_and(|(number, _)| *number < oldest) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((number, span)) = self.spans.pop_first() else { return };
        self.marks = self.marks.saturating_sub(span.copies.len() + span.ids.len());
        let end = (number + 1).saturating_mul(seconds_of_span(self.window));
        let end = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
        if let Some(known) = &mut self.known {
            known.since = known.since.max(end);
            known.from = known.from.max(Sequence(span.last.0 + 1));
        }
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        let mut state = self.duplicates.state.lock();
        for (copy, ended) in &self.held {
            state.under_way.remove(copy);
            ended.cancel();
        }
    }
}

fn seconds_of_span(window: Duration) -> i64 {
    i64::try_from(window.as_secs() / u64::from(SPANS)).unwrap_or(i64::MAX).max(1)
}

fn before(now: Timestamp, window: Duration) -> Timestamp {
    now.checked_sub(window).unwrap_or(Timestamp::MIN)
}

/// Marks are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
#[path = "duplicates_tests.rs"]
mod tests;

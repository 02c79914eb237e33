//! What a courier has in hand: deliveries that are loaded and wait for their turn, and those that are under way.
//!
//! Promise:  P6. However many there are and however large: beyond what the destination is asked for at once, only so many
//!           and only so many bytes are in memory.
//!           No more than the destination's concurrency are asked for at once. A place is free again when the answer is
//!           there: the outcome is written while the next one is asked, together with many others.
//! Not here: which delivery is next (lanes), whether any may go (circuit), sending (attempt). Pure.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::lanes::Key;
use crate::journal::{Damage, Pending, Work};

/// So many are loaded ahead, in one reading: one at a time, most of the work would be the asking.
const AHEAD: usize = 128;
/// Deliveries in hand, or as many as the destination is asked for at once, if these are more.
const MOST: usize = 256;
/// Bytes of messages in hand, in round figures: one that is longer than all of it is in hand alone.
const MOST_BYTES: usize = 8 << 20;

/// What a courier has in hand.
pub(super) struct Hand {
    /// The most that the destination is asked for at once.
    at_once: usize,
    /// Whether more may be in hand than is asked for at once.
    ahead: bool,
    queue: VecDeque<Waiting>,
    /// How many, and how many bytes: those that wait and those that are under way.
    count: usize,
    bytes: usize,
    places: Arc<Places>,
}

/// A delivery that is loaded.
pub(super) struct Waiting {
    pub key: Key,
    pub pending: Pending,
    /// Its bytes, or why there are none.
    pub work: Result<Work, Damage>,
}

/// What a delivery under way takes up.
pub(super) struct Turn {
    pub key: Key,
    bytes: usize,
    place: Option<Place>,
    /// The place is given back before the outcome is written.
    ahead: bool,
}

/// One of the places of those that the destination is asked for at once.
struct Place(Arc<Places>);

#[derive(Default)]
struct Places {
    taken: AtomicUsize,
    freed: Notify,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

impl Turn {
    /// It has been taken: the destination may be asked for another one, where more may be in hand than it is asked for.
    pub fn make_room(&mut self) {
        if self.ahead {
            self.place = None;
        }
    }
}

impl Hand {
    /// An empty hand; `ahead` if more may be in it than the destination is asked for at once.
    pub fn new(at_once: usize, ahead: bool) -> Self {
        Self { at_once, ahead, queue: VecDeque::new(), count: 0, bytes: 0, places: Arc::default() }
    }

    fn most(&self) -> usize {
        self.at_once.max(MOST)
    }

    /// Waits until a place has become free.
    pub fn freed(&self) -> impl Future<Output = ()> + use<> {
        let places = self.places.clone();
        async move { places.freed.notified().await }
    }

    /// How many of `allowed` places are free.
    pub fn free(&self, allowed: usize) -> usize {
        let free = allowed.saturating_sub(self.places.taken.load(Ordering::Acquire));
        let under_way = self.count - self.queue.len();
        // What is being written holds its bytes too.
        let room = if self.is_laden() { self.at_once } else { self.most() };
        free.min(room.saturating_sub(under_way))
    }

    fn is_laden(&self) -> bool {
        self.bytes >= MOST_BYTES
    }

    /// How many more to load when so many can go at once; if the destination is `steady`, more than those.
    pub fn wanted(&self, free: usize, steady: bool) -> usize {
        let now = free.saturating_sub(self.queue.len());
        let more = self.ahead && steady && free > 0 && !self.is_laden() && self.queue.len() <= AHEAD / 2;
        let room = (AHEAD - self.queue.len().min(AHEAD)).min(self.most().saturating_sub(self.count));
        if more { now.max(room) } else { now }
    }

    /// How many bytes may come in.
    pub fn room_bytes(&self) -> usize {
        MOST_BYTES.saturating_sub(self.bytes)
    }

    /// How many wait for their turn.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Takes in what is loaded, behind what waits.
    pub fn take(&mut self, waiting: Waiting) {
        self.count += 1;
        self.bytes += waiting.bytes();
        self.queue.push_back(waiting);
    }

    /// The next one, on its way.
    pub fn send(&mut self) -> Option<(Waiting, Turn)> {
        let waiting = self.queue.pop_front()?;
        self.places.taken.fetch_add(1, Ordering::AcqRel);
        let place = Some(Place(self.places.clone()));
        let turn = Turn { key: waiting.key.clone(), bytes: waiting.bytes(), place, ahead: self.ahead };
        Some((waiting, turn))
    }

    /// One that is no longer under way.
    pub fn done(&mut self, turn: &Turn) {
        self.count -= 1;
        self.bytes -= turn.bytes;
    }

    /// Lets go of all that wait.
    pub fn let_go(&mut self) -> Vec<Key> {
        let bytes: usize = self.queue.iter().map(Waiting::bytes).sum();
        self.count -= self.queue.len();
        self.bytes -= bytes;
        self.queue.drain(..).map(|waiting| waiting.key).collect()
    }
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.entry.raw.len())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::journal::{DeliveryId, Entry, Sequence, State};

    fn waiting(sequence: i64, bytes: usize) -> Waiting {
        let (at, sequence) = (Timestamp::UNIX_EPOCH, Sequence(sequence));
        let id = DeliveryId { sequence, route: "adt".into(), destination: "record".into() };
        let pending = Pending {
            id,
            lanes: Vec::new(),
            received: at,
            state: State::Ready,
            attempts: 0,
            first_attempt: None,
        };
        let raw = Bytes::from(vec![b'x'; bytes]);
        let entry = Entry { sequence, received: at, listener: String::new(), control_id: String::new(), raw };
        let work = Ok(Work { entry, output: None, being_sent: false });
        Waiting { key: (sequence, "adt".into()), pending, work }
    }

    #[test]
    fn a_place_is_free_when_the_answer_is_there_and_the_bytes_when_the_outcome_is() {
        let mut hand = Hand::new(2, true);
        assert_eq!((hand.free(2), hand.wanted(2, true), hand.wanted(2, false)), (2, AHEAD, 2));
        (0..5).for_each(|n| hand.take(waiting(n, 1000)));
        let (_, mut first) = hand.send().unwrap();
        let (_, second) = hand.send().unwrap();
        assert_eq!((hand.free(2), hand.waiting(), hand.room_bytes()), (0, 3, MOST_BYTES - 5000));
        first.make_room();
        assert_eq!(hand.free(2), 1);
        hand.done(&first);
        hand.done(&second);
        drop((first, second));
        assert_eq!((hand.free(2), hand.room_bytes()), (2, MOST_BYTES - 3000));
        assert_eq!(hand.let_go().len(), 3);
        assert_eq!((hand.room_bytes(), hand.free(2), hand.count), (MOST_BYTES, 2, 0));
    }

    #[test]
    fn p6_laden_with_large_messages_no_more_are_in_hand_than_are_asked_for_at_once() {
        let mut hand = Hand::new(2, true);
        hand.take(waiting(1, MOST_BYTES));
        assert_eq!((hand.free(2), hand.wanted(2, true), hand.room_bytes()), (2, 1, 0));
        hand.take(waiting(2, MOST_BYTES));
        let mut turns: Vec<_> = (0..2).map(|_| hand.send().unwrap().1).collect();
        turns.iter_mut().for_each(Turn::make_room);
        assert_eq!((hand.free(2), hand.wanted(0, true)), (0, 0), "their outcomes are being written");
        hand.done(&turns[0]);
        assert_eq!((hand.free(2), hand.wanted(1, true)), (1, 1));
    }

    #[test]
    fn p6_so_many_are_in_hand_and_no_more() {
        let mut hand = Hand::new(1, true);
        let mut turns = Vec::new();
        loop {
            (0..hand.wanted(hand.free(1), true)).for_each(|n| hand.take(waiting(n as i64, 1)));
            let Some((_, mut turn)) = hand.send().filter(|_| hand.count <= MOST) else { break };
            turn.make_room();
            turns.push(turn);
        }
        assert_eq!((turns.len(), hand.free(1)), (MOST, 0));
        let mut unsafe_to_repeat = Hand::new(3, false);
        assert_eq!(unsafe_to_repeat.wanted(3, true), 3);
        (0..3).for_each(|n| unsafe_to_repeat.take(waiting(n, 1)));
        assert_eq!(unsafe_to_repeat.wanted(3, true), 0);
        let (_, mut turn) = unsafe_to_repeat.send().unwrap();
        turn.make_room();
        assert_eq!(unsafe_to_repeat.free(3), 2, "its outcome is still to be written");
    }

    #[test]
    fn a_destination_that_is_asked_for_very_many_at_once_is_asked_for_so_many() {
        for ahead in [true, false] {
            let mut hand = Hand::new(1000, ahead);
            assert_eq!((hand.free(1000), hand.wanted(1000, true)), (1000, 1000));
            (0..1000).for_each(|n| hand.take(waiting(n, 1)));
            let turns: Vec<_> = std::iter::from_fn(|| hand.send()).collect();
            assert_eq!((turns.len(), hand.free(1000), hand.wanted(0, true)), (1000, 0, 0));
        }
    }
}

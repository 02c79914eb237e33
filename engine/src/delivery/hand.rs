//! What a courier has in hand: deliveries that are loaded and wait for their turn, and those that are under way.
//!
//! Promise:  P6. However many there are and however large: beyond what the destination is asked for at once, only so many
//!           and only so many bytes are in memory.
//!           No more than the destination's concurrency are asked for at once. A place is free again when the answer is
//!           there: the outcome is written while the next one is asked, together with many others. Where more may be in
//!           hand than that, some are mapped while they wait for a place, so that one mapping follows the other; all that
//!           have none can be called back.
//! Not here: which delivery is next (lanes), whether any may go (circuit), sending (attempt).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::lanes::Key;
use crate::journal::{Damage, Pending, Work};

/// So many are loaded ahead, in one reading: one at a time, most of the work would be the asking.
const AHEAD: usize = 128;
/// So many are mapped before there is a place for them.
const MAPPED: usize = 48;
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
    /// Cancelled when those without a place are to come back.
    recall: CancellationToken,
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
    /// It is being mapped, or waits for a place.
    early: Option<Early>,
    /// None if it is the probe beside those that have them all, or needs none any more.
    place: Option<Place>,
    /// The place is given back before the outcome is written.
    ahead: bool,
    /// It began before there was a place for it.
    pub began_early: bool,
    /// It is to show whether the destination is there again.
    pub probe: bool,
}

/// One of the places of those that the destination is asked for at once.
struct Place(Arc<Places>);

/// One of those that are on their way before there is a place for them.
struct Early {
    places: Arc<Places>,
    recall: CancellationToken,
}

struct Places {
    free: Semaphore,
    early: AtomicUsize,
    freed: Notify,
}

impl Places {
    /// How many may be on their way without a place.
    fn early(&self) -> usize {
        MAPPED.max(self.free.available_permits())
    }

    /// Somebody may come: told when it is worth it, for each time all that can run is looked for.
    fn tell(&self) {
        if self.early.load(Ordering::Acquire) <= self.early() / 2 {
            self.freed.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.free.add_permits(1);
        self.0.tell();
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        self.places.early.fetch_sub(1, Ordering::AcqRel);
        self.places.tell();
    }
}

impl Turn {
    /// Whether there is no place for it yet.
    pub fn is_early(&self) -> bool {
        self.early.is_some()
    }

    /// Waits until the destination may be asked for it; false if it is called back before.
    pub async fn come(&mut self) -> bool {
        let Some(Early { places, recall }) = &self.early else { return true };
        tokio::select! {
            biased;
            () = recall.cancelled() => return false,
            free = places.free.acquire() => match free {
                Ok(permit) => permit.forget(),
                // Nobody closes it.
                Err(_) => return false,
            },
        }
        self.place = Some(Place(places.clone()));
        self.early = None;
        true
    }

    /// It has been taken: the destination may be asked for another one, where more may be in hand than it is asked for.
    pub fn make_room(&mut self) {
        if self.ahead {
            (self.early, self.place) = (None, None);
        }
    }
}

impl Hand {
    /// An empty hand; `ahead` if more may be in it than the destination is asked for at once.
    pub fn new(at_once: usize, ahead: bool) -> Self {
        let places =
            Places { free: Semaphore::new(at_once), early: AtomicUsize::new(0), freed: Notify::new() };
        Self {
            at_once,
            ahead,
            queue: VecDeque::new(),
            count: 0,
            bytes: 0,
            places: Arc::new(places),
            recall: CancellationToken::new(),
        }
    }

    fn most(&self) -> usize {
        self.at_once.max(MOST)
    }

    /// Waits until somebody may come.
    pub fn freed(&self) -> impl Future<Output = ()> + use<> {
        let places = self.places.clone();
        async move { places.freed.notified().await }
    }

    /// How many can be sent on their way when `allowed` places may be taken: if the destination is `steady`, some before
    /// there is a place for them.
    pub fn free(&self, allowed: usize, steady: bool) -> usize {
        let taken = self.at_once.saturating_sub(self.places.free.available_permits());
        let free = match self.ahead && steady {
            true => self.places.early().saturating_sub(self.places.early.load(Ordering::Acquire)),
            false => allowed.saturating_sub(taken),
        };
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

    /// The next one, on its way: if the destination is `steady`, before there is a place for it.
    pub fn send(&mut self, steady: bool) -> Option<(Waiting, Turn)> {
        let waiting = self.queue.pop_front()?;
        let (mut early, mut place) = (None, None);
        if self.ahead && steady {
            self.places.early.fetch_add(1, Ordering::AcqRel);
            early = Some(Early { places: self.places.clone(), recall: self.recall.clone() });
        } else if let Ok(permit) = self.places.free.try_acquire() {
            permit.forget();
            place = Some(Place(self.places.clone()));
        }
        let (key, bytes, began_early) = (waiting.key.clone(), waiting.bytes(), early.is_some());
        let turn = Turn { key, bytes, early, place, ahead: self.ahead, began_early, probe: false };
        Some((waiting, turn))
    }

    /// One that is no longer under way.
    pub fn done(&mut self, turn: &Turn) {
        self.count -= 1;
        self.bytes -= turn.bytes;
    }

    /// Lets go of all that wait, and calls back those on their way that have no place.
    pub fn let_go(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.recall).cancel();
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
    use futures::FutureExt;
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
        assert_eq!((hand.free(2, false), hand.wanted(2, true), hand.wanted(2, false)), (2, AHEAD, 2));
        (0..5).for_each(|n| hand.take(waiting(n, 1000)));
        let (_, mut first) = hand.send(false).unwrap();
        let (_, second) = hand.send(false).unwrap();
        assert_eq!((hand.free(2, false), hand.waiting(), hand.room_bytes()), (0, 3, MOST_BYTES - 5000));
        first.make_room();
        assert_eq!(hand.free(2, false), 1);
        hand.done(&first);
        hand.done(&second);
        drop((first, second));
        assert_eq!((hand.free(2, false), hand.room_bytes()), (2, MOST_BYTES - 3000));
        assert_eq!(hand.let_go().len(), 3);
        assert_eq!((hand.room_bytes(), hand.free(2, false), hand.count), (MOST_BYTES, 2, 0));
    }

    #[test]
    fn p6_laden_with_large_messages_no_more_are_in_hand_than_are_asked_for_at_once() {
        let mut hand = Hand::new(2, true);
        hand.take(waiting(1, MOST_BYTES));
        assert_eq!((hand.free(2, false), hand.wanted(2, true), hand.room_bytes()), (2, 1, 0));
        hand.take(waiting(2, MOST_BYTES));
        let mut turns: Vec<_> = (0..2).map(|_| hand.send(false).unwrap().1).collect();
        turns.iter_mut().for_each(Turn::make_room);
        assert_eq!((hand.free(2, false), hand.wanted(0, true)), (0, 0), "their outcomes are being written");
        hand.done(&turns[0]);
        assert_eq!((hand.free(2, false), hand.wanted(1, true)), (1, 1));
    }

    #[test]
    fn p6_so_many_are_in_hand_and_no_more() {
        let mut hand = Hand::new(1, true);
        let mut turns = Vec::new();
        loop {
            (0..hand.wanted(hand.free(1, false), true)).for_each(|n| hand.take(waiting(n as i64, 1)));
            let Some((_, mut turn)) = hand.send(false).filter(|_| hand.count <= MOST) else { break };
            turn.make_room();
            turns.push(turn);
        }
        assert_eq!((turns.len(), hand.free(1, false)), (MOST, 0));
        let mut unsafe_to_repeat = Hand::new(3, false);
        assert_eq!(unsafe_to_repeat.wanted(3, true), 3);
        (0..3).for_each(|n| unsafe_to_repeat.take(waiting(n, 1)));
        assert_eq!(unsafe_to_repeat.wanted(3, true), 0);
        let (_, mut turn) = unsafe_to_repeat.send(false).unwrap();
        turn.make_room();
        assert_eq!(unsafe_to_repeat.free(3, false), 2, "its outcome is still to be written");
    }

    #[tokio::test]
    async fn where_all_is_well_some_are_on_their_way_before_there_is_a_place_and_can_be_called_back() {
        let mut hand = Hand::new(2, true);
        (0..100).for_each(|n| hand.take(waiting(n, 1)));
        assert_eq!((hand.free(2, true), hand.free(2, false)), (MAPPED, 2));
        let mut turns: Vec<Turn> = (0..MAPPED).map(|_| hand.send(true).unwrap().1).collect();
        assert_eq!((hand.free(2, true), hand.free(2, false)), (0, 2), "none has a place yet");
        let mut third = turns.remove(2);
        assert!(turns[0].come().await && turns[1].come().await);
        assert_eq!((hand.free(2, true), hand.free(2, false)), (2, 0));
        assert!(third.come().now_or_never().is_none(), "there is no place");
        turns[0].make_room();
        assert!(third.come().await);
        hand.let_go();
        assert!(third.come().await, "who has a place keeps it");
        assert!(!turns[2].come().await);
        turns[3].make_room();
        assert_eq!(hand.free(2, true), 4, "what needs no place is in nobody's way");
        turns.iter().chain([&third]).for_each(|turn| hand.done(turn));
        drop((turns, third));
        hand.take(waiting(200, 1));
        assert!(hand.send(true).unwrap().1.come().await, "what comes later is not called back");
        let mut unsafe_to_repeat = Hand::new(3, false);
        unsafe_to_repeat.take(waiting(1, 1));
        assert_eq!(unsafe_to_repeat.free(3, true), 3);
        assert!(!unsafe_to_repeat.send(true).unwrap().1.began_early);
    }

    #[tokio::test]
    async fn the_courier_is_told_when_it_is_worth_it() {
        let mut hand = Hand::new(1, true);
        let told = |hand: &Hand| hand.freed().now_or_never().is_some();
        (0..100).for_each(|n| hand.take(waiting(n, 1)));
        let mut turns: VecDeque<Turn> = (0..MAPPED).map(|_| hand.send(true).unwrap().1).collect();
        for left in (0..MAPPED).rev() {
            let mut turn = turns.pop_front().unwrap();
            assert!(turn.come().await);
            assert_eq!(told(&hand), left <= MAPPED / 2, "{left} are left");
            turn.make_room();
            told(&hand);
        }
    }

    #[test]
    fn a_destination_that_is_asked_for_very_many_at_once_is_asked_for_so_many() {
        for ahead in [true, false] {
            let mut hand = Hand::new(1000, ahead);
            assert_eq!((hand.free(1000, false), hand.wanted(1000, true)), (1000, 1000));
            (0..1000).for_each(|n| hand.take(waiting(n, 1)));
            let turns: Vec<_> = std::iter::from_fn(|| hand.send(false)).collect();
            assert_eq!((turns.len(), hand.free(1000, false), hand.wanted(0, true)), (1000, 0, 0));
        }
    }
}

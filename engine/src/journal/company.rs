//! Company: whether outcomes wait a moment for others before they are written, and for how many.
//!
//! A transaction costs the same pages and the same sync whether it holds one outcome or ten, and nobody waits for an
//! outcome but its own lane. So outcomes that come alone wait for a message (which takes them along),
//! for as many others as came in time before, or for [`LONGEST`].
//!
//! Promise:  the wait pays: when nobody comes, the next ones do not wait, twice as many each time, so that a lane that
//!           has one delivery under way after the other is not held up.
//! Not here: the waiting itself (committer.rs).

use std::time::Duration;

/// No outcome waits longer for company; twice that, where it came just after somebody took others along.
pub(super) const LONGEST: Duration = Duration::from_millis(2);
/// After so many times that enough came in time, one more is hoped for.
const HOPE: u32 = 32;
/// So many times at most nobody waits because nobody came.
const MOST_ALONE: u32 = 64;

/// What experience says of waiting.
#[derive(Debug)]
pub(super) struct Company {
    /// So many together do not wait for more.
    enough: usize,
    /// Times in a row that enough came.
    met: u32,
    /// Times that are still not waited.
    alone: u32,
    /// Times not waited after the next vain wait.
    next_alone: u32,
}

impl Company {
    pub(super) fn new() -> Self {
        Self { enough: 2, met: 0, alone: 0, next_alone: 1 }
    }

    /// How many outcomes to wait for, when so many are there and nothing else; none if they go at once.
    pub(super) fn wanted(&mut self, there: usize) -> Option<usize> {
        if there >= self.enough {
            self.enough_came();
            return None;
        }
        if self.alone > 0 {
            self.alone -= 1;
            return None;
        }
        Some(self.enough)
    }

    /// Somebody came who does not wait, before the time was over.
    pub(super) fn taken_along(&mut self) {
        self.next_alone = 1;
    }

    /// As many came as were wanted.
    pub(super) fn enough_came(&mut self) {
        self.next_alone = 1;
        self.met += 1;
        if self.met >= HOPE {
            self.met = 0;
            self.enough += 1;
        }
    }

    /// The time was over: so many were there before, and so many then.
    pub(super) fn time_over(&mut self, before: usize, then: usize) {
        self.met = 0;
        self.enough = then.max(2);
        if then == before {
            self.alone = self.next_alone;
            self.next_alone = (self.next_alone * 2).min(MOST_ALONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a hundred outcomes waited in vain, when so many are under way at once and nothing else comes.
    fn in_vain(under_way: usize) -> u32 {
        let mut company = Company::new();
        let mut vain = 0;
        for _ in 0..100 {
            match company.wanted(1) {
                Some(wanted) if wanted <= under_way => company.enough_came(),
                Some(_) => {
                    vain += 1;
                    company.time_over(1, under_way);
                }
                None => {}
            }
        }
        vain
    }

    #[test]
    fn a_lane_alone_is_hardly_held_up() {
        assert!(in_vain(1) <= 7, "{}", in_vain(1));
    }

    #[test]
    fn as_many_as_are_under_way_are_waited_for() {
        for under_way in 2..20 {
            assert!(in_vain(under_way) <= 4, "{under_way}: {}", in_vain(under_way));
        }
        let mut company = Company::new();
        company.time_over(1, 8);
        assert_eq!((company.wanted(7), company.wanted(8)), (Some(8), None));
    }

    #[test]
    fn it_is_tried_again_whether_anybody_comes() {
        let mut company = Company::new();
        for _ in 0..20 {
            company.time_over(1, 1);
        }
        let waits = (0..1000).filter(|_| company.wanted(1).is_some()).count();
        assert!(waits > 0);
        company.taken_along();
        company.time_over(1, 1);
        assert_eq!(
            (company.wanted(1), company.wanted(1)),
            (None, Some(2)),
            "one vain wait is soon forgotten"
        );
    }
}

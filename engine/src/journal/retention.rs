//! Retention: what is old enough goes, in small steps behind the intake.
//!
//! In:       the policy that is live; ages of messages.
//! Out:      bodies first, whole messages later, space given back to the disk; counted, and audited once a pass.
//! Promise:  P2. Never anything unfinished, and no dead letter or quarantined message but by an age of its own. A step
//!           is short, and the next waits several times as long as it took, so that intake does not feel it.
//! Not here: how a store removes and gives back (the stores); where the policy is written (config).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    Aged, Audit, Journal, JournalError, Sequence, State,
    store::{Change, Prune, Pruned},
};

/// Messages that one step looks at, and removes at most.
const STEP: usize = 256;
/// A step may take this part of the time.
const SHARE: u32 = 5;
/// The shortest pause between two steps.
const PAUSE: Duration = Duration::from_millis(5);

/// How long messages are kept. `None` is for ever.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// What routes say that say nothing else.
    pub default: Ages,
    /// By the route's name.
    pub routes: BTreeMap<String, Ages>,
    /// Messages with a dead letter, from their receipt on.
    pub dead: Option<Duration>,
    /// Messages in quarantine.
    pub quarantine: Option<Duration>,
    /// Beyond so many bytes the oldest go before their age: bodies first, then whole messages.
    pub most_bytes: Option<u64>,
    /// Nothing younger is touched, whatever is said: repeats must be known as such.
    pub at_least: Duration,
}

/// Ages since the receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ages {
    /// The bytes received, sent and answered.
    pub bodies: Option<Duration>,
    /// Everything.
    pub messages: Option<Duration>,
}

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    LosesItsBody,
    Goes,
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Messages whose age has come.
    Age { bodies: bool },
    /// The oldest, until enough room is there.
    Room { bodies: bool },
}

impl Retention {
    /// Whether anything is ever removed.
    pub fn is_for_ever(&self) -> bool {
        self == &Self { at_least: self.at_least, ..Self::default() }
    }

    fn fate(&self, one: &Aged, pass: Pass, now: Timestamp) -> Fate {
        let age = Duration::try_from(now.duration_since(one.received)).unwrap_or_default();
        if one.unfinished || age < self.at_least {
            return Fate::Stays;
        }
        let old = |limit: Option<Duration>| limit.is_some_and(|limit| age >= limit);
        if one.quarantined {
            return if old(self.quarantine) { Fate::Goes } else { Fate::Stays };
        }
        let dead = one.deliveries.iter().any(|(_, state)| *state == State::Dead);
        if dead && !old(self.dead) {
            return Fate::Stays;
        }
        let (bodies, messages) = match pass {
            Pass::Room { bodies } => (true, !bodies),
            Pass::Age { .. } => {
                let routes = || {
                    one.deliveries.iter().map(|(route, _)| self.routes.get(route).unwrap_or(&self.default))
                };
                // Every route has a say: the longest wins.
                (routes().all(|ages| old(ages.bodies)), routes().all(|ages| old(ages.messages)))
            }
        };
        match (messages, bodies && one.body_bytes > 0) {
            (true, _) => Fate::Goes,
            (false, true) => Fate::LosesItsBody,
            (false, false) => Fate::Stays,
        }
    }

    /// The shortest age at which something may go.
    fn youngest(&self) -> Option<Duration> {
        let routes =
            self.routes.values().chain([&self.default]).flat_map(|ages| [ages.bodies, ages.messages]);
        let shortest = routes.chain([self.dead, self.quarantine]).flatten().min();
        shortest.map(|age| age.max(self.at_least))
    }
}

impl Journal {
    /// One pass of retention: everything whose age has come, then what must make room, then space back to the disk.
    ///
    /// # Errors
    /// `Read`, `Closed`. What was removed stays removed; the next pass goes on.
    pub async fn retain(&self, policy: &Retention, now: Timestamp) -> Result<Pruned, JournalError> {
        let mut total = Pruned::default();
        if let Some(youngest) = policy.youngest() {
            let before = now
                .checked_sub(jiff::SignedDuration::try_from(youngest).unwrap_or(jiff::SignedDuration::MAX));
            if let Ok(before) = before {
                for bodies in [false, true] {
                    total += self.pass(policy, Pass::Age { bodies }, before, now).await?;
                }
            }
        }
        for bodies in [true, false] {
            if self.is_over(policy).await? {
                total += self.pass(policy, Pass::Room { bodies }, now, now).await?;
            }
        }
        if total != Pruned::default() {
            self.audit_pass(total, now).await?;
        }
        loop {
            let began = Instant::now();
            if !self.committer.reclaim().await? {
                break;
            }
            rest(began).await;
        }
        Ok(total)
    }

    async fn is_over(&self, policy: &Retention) -> Result<bool, JournalError> {
        let Some(most) = policy.most_bytes else { return Ok(false) };
        Ok(self.stats().await?.used_bytes > most)
    }

    async fn pass(
        &self,
        policy: &Retention,
        pass: Pass,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<Pruned, JournalError> {
        let (Pass::Age { bodies } | Pass::Room { bodies }) = pass;
        let mut total = Pruned::default();
        let mut after = Sequence(0);
        loop {
            let began = Instant::now();
            let page = self.store.aged(after, bodies, STEP).await?;
            let Some(last) = page.last() else { return Ok(total) };
            // Times rise with the sequence but for jumps of the clock: what lies behind one goes a little later.
            if page.iter().all(|one| one.received >= before) {
                return Ok(total);
            }
            after = last.sequence;
            let mut prune = Prune::default();
            for one in &page {
                match policy.fate(one, pass, now) {
                    Fate::Stays => {}
                    Fate::LosesItsBody => prune.bodies.push(one.sequence),
                    Fate::Goes => prune.messages.push(one.sequence),
                }
            }
            if !prune.is_empty() {
                total += self.committer.prune(prune).await?;
                rest(began).await;
                if matches!(pass, Pass::Room { .. }) && !self.is_over(policy).await? {
                    return Ok(total);
                }
            }
        }
    }

    async fn audit_pass(&self, total: Pruned, now: Timestamp) -> Result<(), JournalError> {
        let Pruned { bodies, messages } = total;
        self.metrics.pruned("body", bodies);
        self.metrics.pruned("message", messages);
        tracing::info!(bodies, messages, "retention has removed what was old enough");
        let audit = Audit {
            at: now,
            action: "prune".to_owned(),
            who: "retention".to_owned(),
            why: "the ages and sizes of the configuration".to_owned(),
            asked: format!("{{\"bodies\":{bodies},\"messages\":{messages}}}"),
            deliveries: 0,
        };
        self.committer.commit(Change::Note("retained", Some(now.to_string()), Some(audit))).await.map(drop)
    }
}

/// Lets everybody else have several times as long as the step took.
async fn rest(began: Instant) {
    tokio::time::sleep((began.elapsed() * (SHARE - 1)).max(PAUSE)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn days(days: u32) -> Option<Duration> {
        Some(DAY * days)
    }

    fn policy() -> Retention {
        Retention {
            default: Ages { bodies: days(10), messages: days(20) },
            routes: BTreeMap::from([
                ("long".to_owned(), Ages { bodies: days(50), messages: None }),
                ("short".to_owned(), Ages { bodies: days(1), messages: days(2) }),
            ]),
            dead: None,
            quarantine: days(30),
            most_bytes: None,
            at_least: DAY * 2,
        }
    }

    fn fate(policy: &Retention, pass: Pass, age_days: u32, deliveries: &[(&str, State)]) -> Fate {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let one = Aged {
            sequence: Sequence(1),
            received: now - jiff::SignedDuration::try_from(DAY * age_days).unwrap(),
            quarantined: deliveries.is_empty(),
            unfinished: deliveries.iter().any(|(_, state)| !state.is_end()),
            body_bytes: 7,
            deliveries: deliveries.iter().map(|(route, state)| ((*route).to_owned(), *state)).collect(),
        };
        policy.fate(&one, pass, now)
    }

    #[test]
    fn p2_only_what_is_finished_and_old_enough_for_all_goes() {
        use Fate::{Goes, LosesItsBody, Stays};
        use State::{Dead, Delivered, Filtered, Held, Parked, Ready, Retrying};
        let age = Pass::Age { bodies: true };
        for (days, deliveries, expected) in [
            (9, &[("adt", Delivered)][..], Stays),
            (10, &[("adt", Delivered)], LosesItsBody),
            (20, &[("adt", Delivered)], Goes),
            (20, &[("adt", Delivered), ("long", Filtered)], Stays),
            (60, &[("adt", Delivered), ("long", Filtered)], LosesItsBody),
            (1, &[("short", Delivered)], Stays), // not younger than repeats are known
            (2, &[("short", Delivered)], Goes),
            (999, &[("adt", Ready)], Stays),
            (999, &[("adt", Delivered), ("adt", Retrying)], Stays),
            (999, &[("adt", Parked)], Stays),
            (999, &[("adt", Held)], Stays),
            (999, &[("adt", Dead)], Stays),
            (999, &[("adt", Delivered), ("adt", Dead)], Stays),
            (29, &[], Stays),
            (30, &[], Goes),
        ] {
            assert_eq!(fate(&policy(), age, days, deliveries), expected, "{days} {deliveries:?}");
        }
        let dead_too = Retention { dead: days(40), ..policy() };
        assert_eq!(fate(&dead_too, age, 39, &[("adt", Dead)]), Stays);
        assert_eq!(fate(&dead_too, age, 40, &[("adt", Dead)]), Goes);
    }

    #[test]
    fn p2_making_room_takes_nothing_that_waits_for_somebody() {
        let (bodies, messages) = (Pass::Room { bodies: true }, Pass::Room { bodies: false });
        assert_eq!(fate(&policy(), bodies, 3, &[("long", State::Delivered)]), Fate::LosesItsBody);
        assert_eq!(fate(&policy(), messages, 3, &[("long", State::Delivered)]), Fate::Goes);
        for waiting in [&[("adt", State::Held)][..], &[("adt", State::Dead)], &[("adt", State::Ready)], &[]] {
            assert_eq!(fate(&policy(), messages, 3, waiting), Fate::Stays, "{waiting:?}");
        }
        assert_eq!(fate(&policy(), messages, 1, &[("adt", State::Delivered)]), Fate::Stays);
    }

    #[test]
    fn for_ever_is_the_default() {
        assert!(Retention { at_least: DAY, ..Retention::default() }.is_for_ever());
        assert!(!Retention { most_bytes: Some(1), ..Retention::default() }.is_for_ever());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(Retention::default().youngest(), None);
        assert_eq!(policy().youngest(), days(2), "{now}");
    }
}

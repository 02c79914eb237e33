//! The courier of one destination: reads what it is owed, sends in order, records what became of it.
//!
//! In:       the journal's pending rows of the destination; what to send, from [`Prepare`].
//! Out:      an outcome in the journal for every attempt, before the lane moves on.
//! Promise:  P2, P4, P5, P6, P10. One courier a destination, so that none waits for another. A restart is the same
//!           code: what has no outcome is done again. What was made once is sent again as it was made.
//! Not here: which delivery may run (lanes), when again (retry), whether at all now (circuit), how (plugins).
//!
//! A single task owns the lanes and applies what came of attempts between readings of the journal, never during
//! one: so a row that it reads is either still known to it as in flight or really unfinished.

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{Attempt, Done, Next, Owed},
    circuit::{Circuit, Failure, Standing},
    hand::{Hand, Waiting},
    lanes::{Key, Lanes},
    prepare::Prepare,
    rate::Bucket,
    retry,
    settings::Settings,
};
use crate::{
    clock::Clock,
    connector::{Destination, Repeats},
    journal::{Journal, JournalError, Pending, State, Tip},
    metrics::Metrics,
};

/// After a reading of the journal failed.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// In a maintenance window the clock is looked at so often: it may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The courier of one destination.
pub struct Courier {
    name: Arc<str>,
    settings: Settings,
    journal: Journal,
    attempt: Arc<Attempt>,
    metrics: Arc<Metrics>,
    began: Instant,
    lanes: Lanes,
    circuit: Circuit,
    bucket: Option<Bucket>,
    /// No token before this.
    next_token: Option<Duration>,
    shown: watch::Sender<Standing>,
    chance: StdRng,
    hand: Hand,
    in_flight: JoinSet<Result<Done, JournalError>>,
    /// The last reading of the journal failed: not before this again.
    read_again: Option<Instant>,
    /// How far the journal was at the last wake-up, and how often somebody had put deliveries back.
    tip: Tip,
}

impl Courier {
    /// A courier that has not begun. `Settings` may ask for more at once than the destination is good for.
    pub fn new(
        name: impl Into<Arc<str>>,
        destination: Arc<dyn Destination>,
        settings: Settings,
        journal: Journal,
        prepare: Arc<dyn Prepare>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let name = name.into();
        let repeats = destination.repeats();
        let repeat = settings.repeat.unwrap_or(repeats != Repeats::Harm);
        let at_once = settings.concurrency.min(destination.at_once()).max(1);
        // A rate counts what is sent. What has no outcome when the engine ends is sent again, or waits for a person.
        let ahead = repeat && repeats == Repeats::ChangeNothing && settings.rate.is_none();
        let hand = Hand::new(at_once, ahead);
        let attempt = Arc::new(Attempt {
            name: name.clone(),
            destination,
            prepare,
            timeout: settings.timeout,
            repeat,
            leaving: CancellationToken::new(),
            hurry: CancellationToken::new(),
            journal: journal.clone(),
            metrics: metrics.clone(),
            clock,
        });
        Self {
            name,
            journal,
            attempt,
            metrics,
            began: Instant::now(),
            lanes: Lanes::new(settings.limits),
            circuit: Circuit::new(at_once, settings.pauses),
            bucket: settings.rate.map(Bucket::new),
            next_token: None,
            settings,
            shown: watch::Sender::new(Standing::Closed),
            chance: StdRng::from_os_rng(),
            hand,
            in_flight: JoinSet::new(),
            read_again: None,
            tip: Tip::default(),
        }
    }

    /// Draws the pauses between attempts from here and not from the operating system, so that they can be repeated.
    #[must_use]
    pub fn drawing(mut self, chance: StdRng) -> Self {
        self.chance = chance;
        self
    }

    /// Where the courier is to show whether the destination is given anything.
    #[must_use]
    pub fn showing(mut self, shown: watch::Sender<Standing>) -> Self {
        self.shown = shown;
        self
    }

    /// Delivers until `stop`; then lets what is in flight finish within the grace, and returns.
    ///
    /// # Errors
    /// `Closed` when the journal can record nothing any more: the engine must stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), JournalError> {
        let mut watch = self.journal.watch();
        self.tip = *watch.borrow_and_update();
        let journal = self.journal.clone();
        let closed = journal.closed();
        tokio::pin!(closed);
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // A store that has gone silent may leave a reading without an end.
                reason = &mut closed => return Err(JournalError::Closed(reason.to_string())),
                begun = self.begin() => begun?,
            }
            self.show();
            let wake = self.next_wake();
            tokio::select! {
                // The same state gives the same next step: a simulation can repeat it.
                biased;
                () = stop.cancelled() => {}
                reason = &mut closed => return Err(JournalError::Closed(reason.to_string())),
                Some(done) = self.in_flight.join_next() => {
                    self.apply(done)?;
                    while let Some(done) = self.in_flight.try_join_next() {
                        self.apply(done)?;
                    }
                }
                () = self.hand.freed() => {}
                changed = watch.changed() => if changed.is_err() {
                    return Err(JournalError::Closed("its last handle is gone".to_owned()));
                },
                () = sleep_until(wake) => {}
            }
            self.look(&mut watch);
        }
        self.drain().await
    }

    /// Reads on and starts what can run, which does not wait until everything is read. Given up, nothing is started by
    /// halves: what was to be loaded is in the journal as before.
    async fn begin(&mut self) -> Result<(), JournalError> {
        while self.read_page().await? {
            self.start().await?;
        }
        self.start().await
    }

    fn look(&mut self, watch: &mut watch::Receiver<Tip>) {
        let tip = *watch.borrow_and_update();
        if tip.requeued != self.tip.requeued {
            self.turn_back();
            self.lanes.forget(self.elapsed());
        }
        self.tip = tip;
    }

    /// Reads one page, if there is something to gain by it.
    async fn read_page(&mut self) -> Result<bool, JournalError> {
        if self.read_again.is_some_and(|again| again > Instant::now()) {
            return Ok(false);
        }
        self.read_again = None;
        let Some(after) = self.lanes.read_after(self.tip.last) else { return Ok(false) };
        let limit = self.settings.limits.page;
        match self.journal.pending(&self.name, after, limit).await {
            Ok(page) => {
                let end = (page.len() < limit).then_some(self.tip.last);
                self.lanes.take_page(page, end, self.elapsed());
                Ok(true)
            }
            Err(error) => self.unread(error).map(|()| false),
        }
    }

    /// Starts what may run now, and loads what is next, until nothing is free or runnable.
    async fn start(&mut self) -> Result<(), JournalError> {
        if self.read_again.is_some() {
            return Ok(());
        }
        self.lanes.wake(self.elapsed());
        if !self.is_closed() || self.closed_until().is_some() {
            self.turn_back();
        }
        loop {
            self.send();
            if !self.load().await? {
                return Ok(());
            }
        }
    }

    /// Sends what is loaded, as far as there is room for it.
    fn send(&mut self) {
        let steady = self.is_steady();
        for _ in 0..self.free() {
            let Some((waiting, mut turn)) = self.hand.send(steady) else { return };
            turn.probe = !self.is_closed();
            self.circuit.started();
            let record = self.circuit.record(&turn.key);
            // In a box: on the way into a task a future is copied time and again, and this one has 5 kB.
            self.in_flight.spawn(Box::pin(self.attempt.clone().run(Owed { turn, waiting, record })));
        }
    }

    /// Nothing that waits is sent for now: another may be the one to send.
    fn turn_back(&mut self) {
        for key in self.hand.let_go() {
            self.lanes.put_back(&key);
            self.settle(0);
        }
    }

    /// Loads what is next, in one go; says whether there was anything.
    async fn load(&mut self) -> Result<bool, JournalError> {
        let owed = self.pick();
        if owed.is_empty() {
            return Ok(false);
        }
        let (keys, pending): (Vec<Key>, Vec<Pending>) = owed.into_iter().unzip();
        let loaded = match self.journal.load(&pending, self.hand.room_bytes()).await {
            Ok(loaded) => loaded,
            Err(error) => {
                let due = self.elapsed() + READ_AGAIN;
                for (key, pending) in keys.iter().zip(&pending) {
                    self.lanes.pause(key, due, pending.attempts, pending.first_attempt);
                    self.settle(0);
                }
                return self.unread(error).map(|()| false);
            }
        };
        // What there was no room for is loaded another time.
        for key in keys.iter().skip(loaded.len()) {
            self.lanes.put_back(key);
            self.settle(0);
        }
        for ((key, pending), work) in keys.into_iter().zip(pending).zip(loaded) {
            self.hand.take(Waiting { key, pending, work });
        }
        Ok(true)
    }

    /// Takes what is to be loaded out of the lanes: what can go at once, and ahead of its time what was never sent.
    fn pick(&mut self) -> Vec<(Key, Pending)> {
        let (free, places) = (self.free(), self.free_places());
        let (wanted, waiting) = (self.hand.wanted(free, self.is_steady()), self.hand.waiting());
        let mut owed = Vec::new();
        while owed.len() < wanted {
            let Some(key) = self.next() else { break };
            let ahead = waiting + owed.len() >= places;
            if ahead && self.lanes.pending(&key).is_none_or(|pending| pending.state != State::Ready) {
                break;
            }
            if !self.has_token() {
                break;
            }
            let Some(pending) = self.lanes.start(&key) else { break };
            owed.push((key, pending.clone()));
        }
        owed
    }

    /// What may run now: when the circuit is not closed, what may be its probe.
    fn next(&self) -> Option<Key> {
        if self.is_closed() {
            return self.lanes.next();
        }
        let now = self.elapsed();
        self.lanes.probe(|key| self.circuit.may_probe(key, now))
    }

    fn is_closed(&self) -> bool {
        self.circuit.standing() == Standing::Closed
    }

    /// A destination that recovers is not counted on.
    fn is_steady(&self) -> bool {
        self.is_closed() && self.circuit.is_at_its_best()
    }

    fn has_token(&mut self) -> bool {
        let now = self.elapsed();
        self.next_token = self.bucket.as_mut().and_then(|bucket| bucket.take(now).err());
        self.next_token.is_none()
    }

    fn settle(&mut self, requests: u32) {
        if let Some(bucket) = &mut self.bucket {
            bucket.settle(requests);
        }
    }

    fn unread(&mut self, error: JournalError) -> Result<(), JournalError> {
        match error {
            JournalError::Closed(_) => Err(error),
            JournalError::Read(_) | JournalError::Damaged(_) => {
                tracing::warn!(destination = %self.name, %error, "reading again soon");
                self.read_again = Some(Instant::now() + READ_AGAIN);
                Ok(())
            }
        }
    }

    /// What came of an attempt; its outcome is already in the journal.
    fn apply(&mut self, done: Result<Result<Done, JournalError>, JoinError>) -> Result<(), JournalError> {
        let Done { turn, next, asked, requests } = match done {
            Ok(done) => done?,
            // A panic in a connector or mapping that got through: the engine cannot tell what state it is in.
            Err(error) => return Err(JournalError::Closed(format!("a delivery ended by a fault: {error}"))),
        };
        let (now, key) = (self.elapsed(), &turn.key);
        self.hand.done(&turn);
        self.settle(requests);
        match &asked {
            None if turn.probe => self.circuit.unused(),
            None => {}
            Some(Ok(())) => self.circuit.answered(),
            Some(Err(failure)) => {
                self.note(key, *failure, now);
                // Before its place is anybody else's.
                if !self.is_closed() {
                    self.turn_back();
                }
            }
        }
        match next {
            Next::Back => self.lanes.put_back(key),
            Next::Ended => {
                self.circuit.forget(key);
                self.lanes.finish(key);
            }
            Next::Waits => {
                self.circuit.forget(key);
                self.lanes.stick(key);
            }
            Next::Again { retry, attempts, first_attempt, wish } => {
                let pause = retry::pause(&retry, attempts, wish, &mut self.chance);
                self.lanes.pause(key, now + pause, attempts, Some(first_attempt));
            }
        }
        Ok(())
    }

    fn note(&mut self, key: &Key, failure: Failure, now: Duration) {
        let before = self.circuit.standing();
        self.circuit.failed(key, failure, now);
        let after = self.circuit.standing();
        if after == before || self.circuit.in_doubt() {
            return;
        }
        match after {
            Standing::Maintenance | Standing::Paused | Standing::Full => {}
            Standing::Closed => tracing::info!(destination = %self.name, "the destination is back"),
            Standing::Open => {
                tracing::warn!(destination = %self.name, "the destination is away: one probe at a time")
            }
            Standing::Held => {
                tracing::error!(destination = %self.name, "the destination is held: its configuration needs a person");
            }
        }
    }

    /// How many more deliveries may be on their way.
    fn free(&self) -> usize {
        self.free_if(self.is_steady())
    }

    /// How many may be asked for at once.
    fn free_places(&self) -> usize {
        self.free_if(false)
    }

    fn free_if(&self, steady: bool) -> usize {
        if self.closed_until().is_some() {
            return 0;
        }
        let allowed = self.circuit.allowance(self.elapsed());
        // A probe is sent beside what was already under way when the circuit opened.
        if self.is_closed() { self.hand.free(allowed, steady) } else { allowed }
    }

    /// If the destination is to be left alone by configuration: how it stands, and when to look again.
    fn closed_until(&self) -> Option<(Standing, Duration)> {
        if self.settings.paused {
            return Some((Standing::Paused, LOOK_AGAIN));
        }
        let now = self.attempt.clock.now();
        let end = self.settings.windows.as_ref()?.inside(now)?;
        // Rounded up, so that the window has ended then.
        let left = Duration::try_from(end.duration_since(now)).unwrap_or_default() + Duration::from_millis(1);
        Some((Standing::Maintenance, left.min(LOOK_AGAIN)))
    }

    fn show(&self) {
        let own = if self.lanes.is_full() { Standing::Full } else { self.circuit.standing() };
        let standing = self.closed_until().map_or(own, |(standing, _)| standing);
        for one in Standing::ALL {
            self.metrics.standing(&self.name, one.word(), one == standing);
        }
        self.shown.send_replace(standing);
    }

    fn next_wake(&self) -> Option<Instant> {
        if self.read_again.is_some() {
            return self.read_again;
        }
        if let Some((_, pause)) = self.closed_until() {
            return Some(Instant::now() + pause);
        }
        let may_run = self.lanes.next().is_some();
        let token = self.next_token.filter(|_| may_run && self.free() > 0);
        // While the circuit is open, what is due waits for the probe, unless another may settle a doubt; while nothing
        // is free, for a completion.
        let probe = self.circuit.next_probe();
        let due = self.lanes.next_due();
        let due = match probe {
            // Nothing due is no reason to wake: the probe would be over and nobody there to be sent.
            Some(probe) if !self.circuit.in_doubt() => due.map(|due| due.max(probe)),
            _ => due,
        };
        let probe = probe.filter(|_| may_run).max(token);
        let look = self.settings.windows.is_some().then(|| self.elapsed() + LOOK_AGAIN);
        [due, probe, look].into_iter().flatten().min().map(|at| self.began + at)
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Lets what is in flight finish, then cuts it off as a time-out would.
    async fn drain(mut self) -> Result<(), JournalError> {
        self.turn_back();
        self.attempt.leaving.cancel();
        let deadline = Instant::now() + self.settings.grace;
        loop {
            tokio::select! {
                biased;
                done = self.in_flight.join_next() => match done {
                    Some(done) => self.apply(done)?,
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(deadline), if !self.attempt.hurry.is_cancelled() => {
                    self.attempt.hurry.cancel();
                }
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "courier_tests/mod.rs"]
mod tests;

//! One attempt at one delivery: from the message's bytes to an outcome in the journal.
//!
//! Promise:  the outcome is recorded before this returns. Whatever fails, the delivery gets an outcome that a person
//!           can see, or stays as it was. A fault in a mapping or a connector (a panic) holds its own lane only. Where a
//!           repeat would do harm the journal says so before the first byte leaves, and what no end is known of waits for
//!           a person (H4).
//! Not here: when attempts are made (courier). What was already taken of several outputs is not sent again.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    circuit::{Failure, Record},
    hand::{Turn, Waiting},
    prepare::{Prepare, Prepared, Remark},
    retry,
};
use crate::{
    clock::Clock,
    connector::{
        DeliveryError, Destination, ErrorClass, GiveUp, Limit, Outbound, Payload, Policy, Receipt, Retry,
    },
    journal::{BEING_SENT, Entry, Journal, JournalError, Outcome, Output, Pending, State, codec::LONG_BYTES},
    metrics::Metrics,
};

/// So many answers that leave open if a message was taken; then a person must decide, also where repeats are safe.
const UNCLEAR: u32 = 3;

/// Bytes of a reason with remarks.
const LONGEST_REASON: usize = 1000;

/// What every attempt at a destination shares.
pub(super) struct Attempt {
    pub(super) name: Arc<str>,
    pub(super) destination: Arc<dyn Destination>,
    pub(super) prepare: Arc<dyn Prepare>,
    pub(super) timeout: Duration,
    /// What may have been taken is sent again.
    pub(super) repeat: bool,
    /// Cancelled when nothing more is to be sent than what has a place.
    pub(super) leaving: CancellationToken,
    /// Cancelled when what is in flight must end now.
    pub(super) hurry: CancellationToken,
    pub(super) journal: Journal,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
}

/// A delivery that is to be attempted.
pub(super) struct Owed {
    pub(super) turn: Turn,
    pub(super) waiting: Waiting,
    /// What speaks against it if it is not taken now.
    pub(super) record: Record,
}

/// What came of it.
pub(super) struct Done {
    pub(super) turn: Turn,
    pub(super) next: Next,
    /// What the destination answered; none if it was not asked.
    pub(super) asked: Option<Result<(), Failure>>,
    /// How many requests were made.
    pub(super) requests: u32,
}

/// What becomes of its place in the lanes.
pub(super) enum Next {
    /// The lanes go on.
    Ended,
    /// The lanes wait for a person.
    Waits,
    /// It was called back before it was sent: it may go when the lanes say so.
    Back,
    /// The lanes wait for the next attempt.
    Again { retry: Retry, attempts: u32, first_attempt: Timestamp, wish: Option<Duration> },
}

impl Next {
    /// A delivery that a person has set aside while it was under way has no place in the lanes any more.
    fn if_it(self, stands: bool) -> Self {
        if stands { self } else { Self::Ended }
    }
}

/// How sending came to its end.
enum Sent {
    Taken(Receipt),
    Failed(DeliveryError),
    /// The engine stops and could not wait; bytes may have left or not.
    Cut {
        left: bool,
    },
    /// A panic in the connector.
    Fault,
}

/// The delivery that an attempt is for, and its message.
#[derive(Clone, Copy)]
struct Subject<'a> {
    pending: &'a Pending,
    message: &'a Bytes,
}

/// An outcome without the parts that every outcome has.
struct Verdict {
    state: State,
    reason: String,
    class: Option<ErrorClass>,
    detail: Option<Bytes>,
}

impl Verdict {
    fn new(state: State, reason: impl Into<String>) -> Self {
        Self { state, reason: reason.into(), class: None, detail: None }
    }
}

impl Attempt {
    pub(super) async fn run(self: Arc<Self>, owed: Owed) -> Result<Done, JournalError> {
        let Owed { mut turn, waiting: Waiting { pending, work, .. }, record } = owed;
        let work = match work {
            Ok(work) => work,
            Err(damage) => {
                let subject = Subject { pending: &pending, message: &Bytes::new() };
                let verdict = Verdict::new(State::Held, damage.to_string());
                return self.unsent(turn, subject, verdict, "").await;
            }
        };
        let subject = Subject { pending: &pending, message: &work.entry.raw };
        if work.being_sent && !self.repeat {
            let reason = "the engine ended while it was sent; it may have been taken";
            let verdict = uncertain(State::Held, reason);
            let Output { payloads, revision } = work.output.unwrap_or_default();
            return self.unsent_with(turn, subject, verdict, payloads, &revision).await;
        }
        let prepared = match self.ready(&mut turn, work.output, &work.entry, &pending).await {
            Ok(prepared) => prepared,
            Err(next) => return Ok(Done { turn, next, asked: None, requests: 0 }),
        };
        match prepared {
            Prepared::Send { payloads, revision, .. } if payloads.is_empty() => {
                self.unsent(turn, subject, Verdict::new(State::Filtered, "nothing to send"), &revision).await
            }
            Prepared::Send { payloads, revision, remarks } => {
                let made = Made { payloads, revision, remarks, record };
                self.send(turn, subject, &work.entry.control_id, made).await
            }
            Prepared::Filtered { reason, revision } => {
                self.unsent(turn, subject, Verdict::new(State::Filtered, reason), &revision).await
            }
            Prepared::Held { reason, revision } => {
                self.unsent(turn, subject, Verdict::new(State::Held, reason), &revision).await
            }
            Prepared::Dead { reason, revision } => {
                let state = given_up(self.prepare.policy(&pending.id).unmapped);
                self.unsent(turn, subject, Verdict::new(state, reason), &revision).await
            }
        }
    }

    /// What is to be sent, now that the destination may be asked; or what becomes of it, which stays as it is in the journal.
    async fn ready(
        &self,
        turn: &mut Turn,
        output: Option<Output>,
        entry: &Entry,
        pending: &Pending,
    ) -> Result<Prepared, Next> {
        let made_before = output.is_some();
        // What is long is not kept in memory while it waits, and not made before it may be sent.
        if entry.raw.len() >= LONG_BYTES {
            turn.come().await.then_some(()).ok_or(Next::Back)?;
        }
        let mut prepared = match output {
            // What was remarked on it was told with the attempt that made it.
            Some(Output { payloads, revision }) => Prepared::Send { payloads, revision, remarks: Vec::new() },
            None => self.make(turn, entry, pending).await?,
        };
        if turn.is_early() && !made_before && prepared.bytes() >= LONG_BYTES {
            drop(prepared);
            turn.come().await.then_some(()).ok_or(Next::Back)?;
            prepared = self.make(turn, entry, pending).await?;
        }
        if let Prepared::Send { payloads, revision, .. } = &prepared
            && !payloads.is_empty()
        {
            turn.come().await.then_some(()).ok_or(Next::Back)?;
            // While it waited a person may have changed what is made of it.
            if turn.began_early && !made_before && !self.prepare.is_live(revision) {
                return Err(Next::Back);
            }
        }
        Ok(prepared)
    }

    async fn make(&self, turn: &Turn, entry: &Entry, pending: &Pending) -> Result<Prepared, Next> {
        let prepare = AssertUnwindSafe(self.prepare.prepare(entry, &pending.id)).catch_unwind();
        tokio::select! {
            biased;
            prepared = prepare => Ok(prepared.unwrap_or_else(|_| Prepared::Held {
                reason: "a fault in the engine while mapping".to_owned(),
                revision: String::new(),
            })),
            // The courier ends.
            () = self.leaving.cancelled(), if turn.is_early() => Err(Next::Back),
            () = self.hurry.cancelled() => Err(Next::Ended),
        }
    }

    /// Records what was decided without asking the destination.
    async fn unsent(
        &self,
        turn: Turn,
        subject: Subject<'_>,
        verdict: Verdict,
        revision: &str,
    ) -> Result<Done, JournalError> {
        self.unsent_with(turn, subject, verdict, Vec::new(), revision).await
    }

    /// The same, with what was made.
    async fn unsent_with(
        &self,
        mut turn: Turn,
        subject: Subject<'_>,
        verdict: Verdict,
        output: Vec<Payload>,
        revision: &str,
    ) -> Result<Done, JournalError> {
        turn.make_room();
        let next = if verdict.state.is_end() { Next::Ended } else { Next::Waits };
        let (attempts, first) = (subject.pending.attempts, subject.pending.first_attempt);
        let stands = self.record(subject, verdict, attempts, first, output, revision).await?;
        Ok(Done { turn, next: next.if_it(stands), asked: None, requests: 0 })
    }

    async fn send(
        &self,
        mut turn: Turn,
        subject: Subject<'_>,
        control_id: &str,
        made: Made,
    ) -> Result<Done, JournalError> {
        let (Made { payloads, revision, remarks, record }, pending) = (made, subject.pending);
        let first_attempt = pending.first_attempt.unwrap_or_else(|| self.clock.now());
        let attempts = pending.attempts.saturating_add(1);
        if !self.repeat {
            let mark = uncertain(State::Retrying, BEING_SENT);
            let first = Some(first_attempt);
            let mark = self.outcome(subject, mark, attempts, first, payloads.clone(), &revision);
            if !self.journal.record(mark).await? {
                return Ok(Done { turn, next: Next::Ended, asked: None, requests: 0 });
            }
        }
        let mut taken = 0;
        let mut last = None;
        for payload in &payloads {
            match self.deliver(payload, control_id).await {
                Sent::Taken(receipt) => {
                    taken += 1;
                    last = Some(receipt);
                }
                failed => {
                    let rest: Vec<Payload> = payloads.iter().skip(taken).cloned().collect();
                    let tried = Tried { attempts, first_attempt, rest, taken, revision, remarks, record };
                    return self.failed(turn, subject, failed, tried).await;
                }
            }
        }
        turn.make_room();
        let Receipt { answer, detail } =
            last.unwrap_or_else(|| Receipt { answer: String::new(), detail: None });
        let verdict = Verdict { detail, ..Verdict::new(State::Delivered, with(answer, &remarks)) };
        self.record(subject, verdict, attempts, Some(first_attempt), payloads, &revision).await?;
        let lag = self.clock.now().duration_since(pending.received);
        self.metrics.delivered_after(&self.name, lag.as_secs_f64().max(0.0));
        let requests = u32::try_from(taken).unwrap_or(u32::MAX);
        Ok(Done { turn, next: Next::Ended, asked: Some(Ok(())), requests })
    }

    async fn deliver(&self, payload: &Payload, control_id: &str) -> Sent {
        let payload =
            if self.destination.takes_removals() { payload.clone() } else { payload.without_removals() };
        let outbound = Outbound::new(payload, control_id.to_owned());
        let began = Instant::now();
        let deliver = AssertUnwindSafe(self.destination.deliver(&outbound)).catch_unwind();
        let sent = tokio::select! {
            biased;
            result = deliver => match result {
                Ok(Ok(receipt)) => Sent::Taken(receipt),
                Ok(Err(error)) => Sent::Failed(error),
                Err(_) => Sent::Fault,
            },
            () = tokio::time::sleep(self.timeout) => Sent::Failed(timed_out(&outbound, self.timeout)),
            () = self.hurry.cancelled() => Sent::Cut { left: outbound.has_left() },
        };
        let result = match &sent {
            Sent::Taken(_) => "ok",
            Sent::Failed(error) => error.class.word(),
            Sent::Cut { .. } => "cut",
            Sent::Fault => "fault",
        };
        self.metrics.attempt(&self.name, result, began.elapsed().as_secs_f64());
        sent
    }

    async fn failed(
        &self,
        turn: Turn,
        subject: Subject<'_>,
        sent: Sent,
        tried: Tried,
    ) -> Result<Done, JournalError> {
        let policy = self.prepare.policy(&subject.pending.id);
        let retry = policy.retry;
        let requests = u32::try_from(tried.taken + 1).unwrap_or(u32::MAX);
        let (verdict, asked, wish) = match sent {
            Sent::Taken(_) | Sent::Fault => {
                (Verdict::new(State::Held, "a fault in the connector; it may have been taken"), None, None)
            }
            Sent::Cut { left } if left && !self.repeat => {
                let reason = "the engine stopped while it was sent; it may have been taken";
                (uncertain(State::Held, reason), None, None)
            }
            // As if it had not been tried: it stays as it is in the journal.
            Sent::Cut { .. } if tried.taken == 0 && self.repeat => {
                return Ok(Done { turn, next: tried.again(retry, None), asked: None, requests });
            }
            Sent::Cut { .. } => (Verdict::new(State::Retrying, "the engine stopped"), None, None),
            Sent::Failed(error) => {
                let DeliveryError { class, reason, answered, retry_after, detail } = error;
                let failure = Failure { class, answered, retry_after };
                let state = self.stands(failure, &policy, &tried);
                let verdict = Verdict { state, reason, class: Some(class), detail };
                (verdict, Some(Err(failure)), retry_after)
            }
        };
        let next = match verdict.state {
            State::Ready | State::Retrying => tried.again(retry, wish),
            State::Parked | State::Held => Next::Waits,
            State::Filtered | State::Delivered | State::Dead => Next::Ended,
        };
        let Tried { attempts, first_attempt, rest, revision, remarks, .. } = tried;
        let verdict = Verdict { reason: with(verdict.reason, &remarks), ..verdict };
        let stands = self.record(subject, verdict, attempts, Some(first_attempt), rest, &revision).await?;
        Ok(Done { turn, next: next.if_it(stands), asked, requests })
    }

    /// Where a delivery stands after the destination did not take it.
    fn stands(&self, failure: Failure, policy: &Policy, tried: &Tried) -> State {
        let Failure { class, answered, .. } = failure;
        let limit = policy.limit(class);
        let record = tried.record;
        let exhausted = match class {
            ErrorClass::Uncertain if !self.repeat => return State::Held,
            // It would be answered as unclearly for ever, and may have been taken each time.
            ErrorClass::Uncertain if answered && record.unclear >= UNCLEAR => return State::Held,
            ErrorClass::Unavailable | ErrorClass::Uncertain | ErrorClass::Rejected => {
                retry::is_exhausted(limit, tried.attempts, tried.first_attempt, self.clock.now())
            }
            ErrorClass::Failing => {
                // While it fails over everybody, what stands behind the receiver is away.
                let age = if record.alike { limit.age.max(policy.retry.give_up) } else { limit.age };
                let limit = Limit { attempts: u32::MAX, age, ..*limit };
                let old = retry::is_exhausted(&limit, tried.attempts, tried.first_attempt, self.clock.now());
                !self.repeat || old || record.refusals >= policy.failing.attempts
            }
            // Where every message fares alike none of them is at fault: only refusals between which others were taken
            // are held against this one, and never its age.
            ErrorClass::Misconfigured => record.refusals >= limit.attempts,
        };
        if exhausted { given_up(limit.then) } else { State::Retrying }
    }

    /// Says whether the delivery was still pending.
    async fn record(
        &self,
        subject: Subject<'_>,
        verdict: Verdict,
        attempts: u32,
        first_attempt: Option<Timestamp>,
        output: Vec<Payload>,
        revision: &str,
    ) -> Result<bool, JournalError> {
        let id = &subject.pending.id;
        let (state, sequence, route) = (verdict.state, id.sequence.0, id.route.as_str());
        let reason = verdict.reason.as_str();
        match state {
            State::Ready | State::Filtered | State::Delivered => {
                tracing::debug!(sequence, route, destination = %self.name, ?state, reason);
            }
            State::Retrying => {
                tracing::info!(sequence, route, destination = %self.name, attempts, reason, "not taken yet");
            }
            State::Parked | State::Held | State::Dead => {
                tracing::warn!(sequence, route, destination = %self.name, ?state, reason, "needs a person");
            }
        }
        let outcome = self.outcome(subject, verdict, attempts, first_attempt, output, revision);
        let stands = self.journal.record(outcome).await?;
        if stands {
            self.metrics.outcome(&self.name, route, state.word());
        }
        Ok(stands)
    }

    fn outcome(
        &self,
        subject: Subject<'_>,
        verdict: Verdict,
        attempts: u32,
        first_attempt: Option<Timestamp>,
        output: Vec<Payload>,
        revision: &str,
    ) -> Outcome {
        let Verdict { state, reason, class, detail } = verdict;
        Outcome {
            id: subject.pending.id.clone(),
            state,
            at: self.clock.now(),
            attempts,
            first_attempt,
            output,
            message: subject.message.clone(),
            revision: revision.to_owned(),
            reason,
            class,
            detail,
        }
    }
}

/// What is known of an attempt that failed.
struct Tried {
    attempts: u32,
    first_attempt: Timestamp,
    /// What has not been taken.
    rest: Vec<Payload>,
    /// How many payloads have been taken.
    taken: usize,
    revision: String,
    remarks: Vec<Remark>,
    /// What speaks against it.
    record: Record,
}

/// What is to be sent.
struct Made {
    payloads: Vec<Payload>,
    revision: String,
    remarks: Vec<Remark>,
    record: Record,
}

impl Tried {
    fn again(&self, retry: Retry, wish: Option<Duration>) -> Next {
        Next::Again { retry, attempts: self.attempts, first_attempt: self.first_attempt, wish }
    }
}

/// The reason of an outcome, and what the mapping noticed.
fn with(reason: String, remarks: &[Remark]) -> String {
    if remarks.is_empty() {
        return reason;
    }
    let texts: Vec<_> = remarks.iter().map(|remark| remark.text.as_str()).collect();
    let mut reason = format!("{reason}; look at: {}", texts.join("; "));
    if reason.len() > LONGEST_REASON {
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        reason.push('…');
    }
    reason
}

fn uncertain(state: State, reason: &str) -> Verdict {
    Verdict { class: Some(ErrorClass::Uncertain), ..Verdict::new(state, reason) }
}

fn given_up(then: GiveUp) -> State {
    match then {
        GiveUp::DeadLetter => State::Dead,
        GiveUp::Park => State::Parked,
    }
}

fn timed_out(outbound: &Outbound, timeout: Duration) -> DeliveryError {
    let class = if outbound.has_left() { ErrorClass::Uncertain } else { ErrorClass::Unavailable };
    DeliveryError::new(class, format!("no answer within {timeout:?}"))
}

//! What a person decides about deliveries: to do them again, to let a lane go on, to set one aside.
//!
//! Promise:  each decision is made in steps, so that intake never waits for a long one, and each step is audited in the
//!           transaction that makes it durable. A dry run says what would be changed and changes nothing. Nothing is
//!           changed that does not stand as asked for when the change becomes durable; what the limit left is told.
//! Not here: who may decide (admin), what becomes of the lanes (delivery).

use std::collections::{BTreeMap, HashMap};

use super::{
    Audit, Decision, DeliveryId, DeliveryRecord, Filter, Journal, JournalError, Requeue, Requeued, Sequence,
    State, Waiting, WaitingList,
    store::{Change, Chosen, Committed},
};

/// Deliveries changed in one transaction.
const STEP: usize = 500;
/// Ids shown of a decision.
const SHOWN: usize = 100;
/// Unfinished deliveries looked at to count what waits behind others.
const COUNTED: usize = 200_000;
/// Unfinished deliveries looked at in one reading.
const PAGE: usize = 5_000;

impl Decision {
    /// The word for the audit, metrics and people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Release => "release",
            Self::Skip => "skip",
        }
    }

    /// Whether it can be made about a delivery that stands so.
    pub fn takes(self, state: State) -> bool {
        match (self, state) {
            (Self::Replay, State::Ready | State::Retrying) => false,
            (Self::Replay, _) => true,
            (Self::Release, state) => matches!(state, State::Parked | State::Held),
            (Self::Skip, state) => matches!(state, State::Retrying | State::Parked | State::Held),
        }
    }

    fn change(self, chosen: Chosen) -> Change {
        match self {
            Self::Replay => Change::Requeue(chosen),
            Self::Release => Change::Release(chosen),
            Self::Skip => Change::Skip(chosen),
        }
    }
}

impl Journal {
    /// Puts deliveries back to be done again: [`Decision::Replay`].
    ///
    /// # Errors
    /// As [`Journal::decide`].
    pub async fn requeue(&self, request: &Requeue) -> Result<Requeued, JournalError> {
        self.decide(Decision::Replay, request).await
    }

    /// Makes a decision about all deliveries that the request takes, the oldest first. Those of one message stay
    /// together: the last message that fits into the limit is the last one, and the first is always whole.
    ///
    /// # Errors
    /// `Read` for a filter without states or with states that it cannot be made about; `Closed`.
    pub async fn decide(&self, decision: Decision, request: &Requeue) -> Result<Requeued, JournalError> {
        check(decision, &request.filter)?;
        let asked = serde_json::to_string(&request.filter)
            .map_err(|error| JournalError::Read(format!("the filter cannot be written down: {error}")))?;
        let mut done = Requeued::default();
        let mut after = request.filter.after.unwrap_or(Sequence(0));
        let mut left = request.limit;
        loop {
            let mut found = self.store.select(&request.filter, after, STEP).await?;
            let is_last = found.len() < STEP;
            let fits = whole_messages(&found, left, left == request.limit);
            if fits < found.len() {
                done.more_after =
                    Some(found.get(..fits).and_then(<[_]>::last).map_or(after, |one| one.id.sequence));
                found.truncate(fits);
            }
            let Some(last) = found.last() else { break };
            after = last.id.sequence;
            left = left.saturating_sub(found.len());
            if decision == Decision::Replay {
                done.without_bytes += self.leave_out_removed(&mut found).await?;
            }
            let ids: Vec<_> = found.into_iter().map(|delivery| delivery.id).collect();
            done.first.extend(ids.iter().take(SHOWN.saturating_sub(done.first.len())).cloned());
            done.deliveries += match request.dry_run {
                true => ids.len() as u64,
                false => self.step(decision, ids, request, &asked).await?,
            };
            if is_last || done.more_after.is_some() {
                break;
            }
        }
        Ok(done)
    }

    /// What has no bytes any more cannot be mapped again.
    async fn leave_out_removed(&self, found: &mut Vec<DeliveryRecord>) -> Result<u64, JournalError> {
        let before = found.len();
        let sequences: Vec<_> = found.iter().map(|delivery| delivery.id.sequence).collect();
        let removed = self.store.removed(&sequences).await?;
        found.retain(|delivery| !removed.contains(&delivery.id.sequence));
        Ok((before - found.len()) as u64)
    }

    async fn step(
        &self,
        decision: Decision,
        ids: Vec<DeliveryId>,
        request: &Requeue,
        asked: &str,
    ) -> Result<u64, JournalError> {
        let audit = Audit {
            at: request.at,
            action: decision.word().to_owned(),
            who: request.who.clone(),
            why: request.why.clone(),
            asked: asked.to_owned(),
            deliveries: 0,
        };
        let chosen = Chosen { ids, states: request.filter.states.clone(), audit };
        match self.committer.commit(decision.change(chosen)).await? {
            Committed::Requeued(deliveries) => {
                self.metrics.decided(decision.word(), deliveries);
                Ok(deliveries)
            }
            other => Err(super::handle::mixed_up(other)),
        }
    }

    /// Deliveries that are retrying, parked or held, the oldest first, with how many wait behind each in its lanes.
    ///
    /// # Errors
    /// `Read`.
    pub async fn waiting(
        &self,
        destination: Option<&str>,
        limit: usize,
    ) -> Result<WaitingList, JournalError> {
        let filter = Filter {
            states: vec![State::Retrying, State::Parked, State::Held],
            destination: destination.map(str::to_owned),
            ..Filter::default()
        };
        let mut found = self.store.select(&filter, Sequence(0), limit.saturating_add(1)).await?;
        let complete = found.len() <= limit;
        found.truncate(limit);
        let mut list = WaitingList { counted_all: true, complete, lanes: Vec::with_capacity(found.len()) };
        list.lanes.extend(found.into_iter().map(|delivery| Waiting { delivery, behind: 0 }));
        let mut left = COUNTED;
        let destinations: BTreeMap<String, Sequence> = list
            .lanes
            .iter()
            .rev()
            .map(|one| one.delivery.id.clone())
            .map(|id| (id.destination, id.sequence))
            .collect();
        for (destination, first) in destinations {
            self.count_behind(&destination, first, &mut list, &mut left).await?;
        }
        Ok(list)
    }

    async fn count_behind(
        &self,
        destination: &str,
        first: Sequence,
        list: &mut WaitingList,
        left: &mut usize,
    ) -> Result<(), JournalError> {
        let heads = heads(&list.lanes, destination);
        let mut after = Sequence(first.0 - 1);
        loop {
            let page = self.store.pending(destination, after, PAGE.min(*left)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id.sequence;
            *left = left.saturating_sub(page.len());
            for pending in &page {
                let mut before: Vec<usize> =
                    pending.lanes.iter().filter_map(|lane| heads.get(lane)).copied().collect();
                before.sort_unstable();
                before.dedup();
                for head in before {
                    let Some(one) = list.lanes.get_mut(head) else { continue };
                    let own = &one.delivery.id;
                    let is_behind = (&pending.id.sequence, &pending.id.route) > (&own.sequence, &own.route);
                    one.behind += u64::from(is_behind);
                }
            }
            if *left == 0 {
                list.counted_all = false;
                return Ok(());
            }
        }
    }
}

/// Which of the deliveries stands first in which lane of a destination.
fn heads(lanes: &[Waiting], destination: &str) -> HashMap<String, usize> {
    let of_it = |(_, one): &(usize, &Waiting)| one.delivery.id.destination == destination;
    let mut heads = HashMap::new();
    for (place, Waiting { delivery: DeliveryRecord { lanes, .. }, .. }) in
        lanes.iter().enumerate().filter(of_it)
    {
        for lane in lanes {
            heads.entry(lane.clone()).or_insert(place);
        }
    }
    heads
}

/// How many of these deliveries, in the order of their messages, a limit takes without dividing a message.
fn whole_messages(found: &[DeliveryRecord], limit: usize, is_first: bool) -> usize {
    let mut fits = 0;
    for message in found.chunk_by(|one, next| one.id.sequence == next.id.sequence) {
        let whole_though_too_many = is_first && fits == 0 && limit > 0;
        if fits + message.len() > limit && !whole_though_too_many {
            break;
        }
        fits += message.len();
    }
    fits
}

fn check(decision: Decision, filter: &Filter) -> Result<(), JournalError> {
    let word = decision.word();
    match filter.states.iter().find(|state| !decision.takes(**state)) {
        Some(state) => Err(JournalError::Read(format!("no {word} of what is {}", state.word()))),
        None if filter.states.is_empty() => {
            Err(JournalError::Read(format!("a {word} must say which states it means")))
        }
        None => Ok(()),
    }
}

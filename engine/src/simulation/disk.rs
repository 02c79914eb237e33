//! What a store holds, as a model that fits in a head: messages, deliveries, the audit. Every change is the plain
//! sentence of the contract (`journal/store.rs`) and nothing more.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use jiff::Timestamp;

use crate::journal::{
    Aged, Arrival, Audit, Count, DeliveryId, DeliveryRecord, Disposition, Filter, Key, NewDelivery, Page,
    Pending, Predecessors, Query, Sequence, State, Stats, Summary,
    blob::Blob,
    body::Body,
    codec::Flaw,
    store::{Append, Change, Chosen, Committed, Prune, Pruned, Record, Stored, StoredDelivery},
};

/// Everything that has been made durable.
#[derive(Default)]
pub struct Disk {
    pub last: Sequence,
    pub messages: BTreeMap<Sequence, Message>,
    pub deliveries: BTreeMap<DeliveryId, Delivery>,
    pub audit: Vec<Audit>,
    pub notes: BTreeMap<String, String>,
    /// A batch whose transaction has begun: if the power goes now, it may be there afterwards or not.
    pub in_hand: Option<Vec<Change>>,
}

pub struct Message {
    pub summary: Summary,
    /// None once retention has taken it.
    pub body: Option<Body>,
}

impl Message {
    /// The exact bytes, if they are there.
    pub fn raw(&self) -> Option<Bytes> {
        self.body.clone()?.unpack().ok()
    }
}

pub struct Delivery {
    pub record: DeliveryRecord,
    output: Option<Blob>,
    detail: Option<Blob>,
}

impl Disk {
    /// Makes a batch durable; sequences leave a gap of `gap` before it.
    pub fn apply(&mut self, batch: Vec<Change>, gap: i64) -> Vec<Committed> {
        self.last.0 += gap;
        let one = |change| match change {
            Change::Append(append) => Committed::Appended(self.append(*append)),
            Change::Record(record) => Committed::Recorded(self.record(record)),
            Change::Requeue(chosen) => Committed::Requeued(self.decide(chosen, requeue)),
            Change::Release(chosen) => Committed::Requeued(self.decide(chosen, release)),
            Change::Skip(chosen) => Committed::Requeued(self.decide(chosen, skip)),
            Change::Note(name, value, audit) => self.note(name, value, audit),
        };
        batch.into_iter().map(one).collect()
    }

    fn append(&mut self, append: Append) -> Sequence {
        self.last.0 += 1;
        let sequence = self.last;
        let Append { received, listener, peer, keys, flag, disposition, body } = append;
        let (owed, quarantine) = match disposition {
            Disposition::Routed(deliveries) => (deliveries, None),
            Disposition::Quarantined { reason } => (Vec::new(), Some(reason)),
        };
        for NewDelivery { route, destination, lanes } in owed {
            let id = DeliveryId { sequence, route, destination };
            let delivery = Delivery { record: ready(id.clone(), lanes), output: None, detail: None };
            self.deliveries.insert(id, delivery);
        }
        let (size_bytes, hash) = (body.size_bytes, body.hash);
        let summary =
            Summary { sequence, received, listener, peer, keys, size_bytes, hash, quarantine, flag };
        self.messages.insert(sequence, Message { summary, body: Some(body) });
        sequence
    }

    fn record(&mut self, record: Record) -> bool {
        let Some(delivery) = self.deliveries.get_mut(&record.id) else { return false };
        if delivery.record.state.is_end() {
            return false;
        }
        let Record { id, state, at, attempts, first_attempt, revision, reason, class, output, detail } =
            record;
        let lanes = std::mem::take(&mut delivery.record.lanes);
        let at = Some(at);
        delivery.record =
            DeliveryRecord { id, state, lanes, at, attempts, first_attempt, revision, reason, class };
        delivery.output = output;
        delivery.detail = detail;
        true
    }

    /// Makes a person's decision about each that stands as was asked for; it says whether it is one for that delivery.
    fn decide(&mut self, chosen: Chosen, decision: fn(&mut DeliveryRecord, &Audit) -> bool) -> u64 {
        let Chosen { ids, states, audit } = chosen;
        let mut deliveries = 0;
        for id in &ids {
            let delivery = self.deliveries.get_mut(id).filter(|one| states.contains(&one.record.state));
            deliveries += u64::from(delivery.is_some_and(|one| decision(&mut one.record, &audit)));
        }
        self.audit.push(Audit { deliveries, ..audit });
        deliveries
    }

    fn note(&mut self, name: &str, value: Option<String>, audit: Option<Audit>) -> Committed {
        match value {
            Some(value) => self.notes.insert(name.to_owned(), value),
            None => self.notes.remove(name),
        };
        self.audit.extend(audit);
        Committed::Noted
    }

    /// Takes bodies or whole messages away, but nothing of a message that is not finished.
    pub fn prune(&mut self, prune: &Prune) -> Pruned {
        let mut pruned = Pruned::default();
        for sequence in &prune.bodies {
            let finished = self.is_finished(*sequence);
            let Some(message) = self.messages.get_mut(sequence).filter(|_| finished) else { continue };
            message.body = None;
            pruned.bodies += 1;
            for (_, delivery) in self.deliveries.iter_mut().filter(|(id, _)| id.sequence == *sequence) {
                (delivery.output, delivery.detail) = (None, None);
            }
        }
        for sequence in &prune.messages {
            if self.is_finished(*sequence) && self.messages.remove(sequence).is_some() {
                self.deliveries.retain(|id, _| id.sequence != *sequence);
                pruned.messages += 1;
            }
        }
        pruned
    }

    fn is_finished(&self, sequence: Sequence) -> bool {
        self.of_message(sequence).iter().all(|record| record.state.is_end())
    }

    pub fn aged(&self, after: Sequence, with_body: bool, limit: usize) -> Vec<Aged> {
        let kept = self.messages.range((Bound::Excluded(after), Bound::Unbounded));
        let one = |(sequence, message): (&Sequence, &Message)| {
            let attempted = self.of_message(*sequence).into_iter().filter(|one| one.at.is_some());
            Aged {
                sequence: *sequence,
                received: message.summary.received,
                quarantined: message.summary.quarantine.is_some(),
                unfinished: !self.is_finished(*sequence),
                body_bytes: message.body.as_ref().map_or(0, |body| body.packed.len() as u64),
                deliveries: attempted.map(|record| (record.id.route, record.state)).collect(),
            }
        };
        kept.filter(|(_, message)| !with_body || message.body.is_some()).take(limit).map(one).collect()
    }

    pub fn removed(&self, sequences: &[Sequence]) -> Vec<Sequence> {
        let without =
            |sequence: &&Sequence| self.messages.get(sequence).is_some_and(|one| one.body.is_none());
        sequences.iter().filter(without).copied().collect()
    }

    pub fn arrivals(&self, before: Sequence, limit: usize) -> Vec<Arrival> {
        let older = self.messages.range(..before).rev().map(|(_, message)| &message.summary);
        older.filter(|one| one.quarantine.is_none()).take(limit).map(arrival).collect()
    }

    pub fn earlier(&self, of: &Arrival, since: Timestamp, before: Sequence) -> Predecessors {
        let mut found = Predecessors::default();
        for (_, Message { summary, .. }) in self.messages.range(..before) {
            let same_content = Arrival { hash: summary.hash, ..of.clone() };
            if of.is_repeat_of(summary, since) {
                found.copy = Some(summary.sequence);
            } else if same_content.is_repeat_of(summary, since) {
                found.other = Some(summary.sequence);
            }
        }
        found
    }

    pub fn pending(&self, destination: &str, after: Sequence, limit: usize) -> Vec<Pending> {
        let mut page: Vec<Pending> = Vec::new();
        for (id, delivery) in self.unfinished(destination).filter(|(id, _)| id.sequence > after) {
            if page.len() >= limit && page.last().is_some_and(|last| last.id.sequence != id.sequence) {
                break;
            }
            let DeliveryRecord { lanes, state, attempts, first_attempt, .. } = &delivery.record;
            page.push(Pending {
                id: id.clone(),
                lanes: lanes.clone(),
                received: self.messages[&id.sequence].summary.received,
                state: *state,
                attempts: *attempts,
                first_attempt: *first_attempt,
            });
        }
        page
    }

    /// What a destination is owed, in order of sequence and route.
    pub fn unfinished(&self, destination: &str) -> impl Iterator<Item = (&DeliveryId, &Delivery)> {
        self.deliveries
            .iter()
            .filter(move |(id, one)| id.destination == destination && !one.record.state.is_end())
    }

    pub fn messages(&self, sequences: &[Sequence], most_bytes: usize) -> Vec<Stored> {
        let stored = |message: &Message| Stored {
            summary: message.summary.clone(),
            body: message.body.clone().ok_or(Flaw::Removed),
        };
        let mut bytes = 0;
        let found = sequences.iter().filter_map(|sequence| self.messages.get(sequence).map(stored));
        let within = |one: &Stored| {
            let before = bytes;
            bytes += one.summary.size_bytes;
            before <= most_bytes
        };
        found.take_while(within).collect()
    }

    pub fn outputs(&self, ids: &[DeliveryId]) -> Vec<StoredDelivery> {
        let known = ids.iter().filter_map(|id| self.deliveries.get(id));
        let attempted = known.filter(|delivery| delivery.record.at.is_some());
        attempted
            .map(|delivery| StoredDelivery {
                id: delivery.record.id.clone(),
                state: delivery.record.state,
                revision: delivery.record.revision.clone(),
                output: delivery.output.clone(),
                detail: delivery.detail.clone(),
                reason: delivery.record.reason.clone(),
            })
            .collect()
    }

    pub fn search(&self, query: &Query<'_>, before: Sequence, limit: usize) -> Page {
        let older = self.messages.range(..before).rev().map(|(_, message)| &message.summary);
        let messages: Vec<_> = older.filter(|one| self.means(query, one)).take(limit).cloned().collect();
        let next = messages.last().map(|last| last.sequence).filter(|_| messages.len() == limit);
        Page { messages, next }
    }

    fn means(&self, query: &Query<'_>, one: &Summary) -> bool {
        let Query { since, until, listener, trigger, quarantined, key, route, destination, state } = query;
        let delivery = |record: &DeliveryRecord| {
            route.is_none_or(|wanted| wanted == record.id.route)
                && destination.is_none_or(|wanted| wanted == record.id.destination)
                && state.is_none_or(|wanted| wanted == record.state)
        };
        let any = route.is_none() && destination.is_none() && state.is_none();
        since.is_none_or(|since| one.received >= since)
            && until.is_none_or(|until| one.received < until)
            && listener.is_none_or(|wanted| wanted == one.listener)
            && trigger.is_none_or(|wanted| wanted == one.keys.trigger)
            && (!quarantined || one.quarantine.is_some())
            && key.is_none_or(|key| has(one, key))
            && (any || self.of_message(one.sequence).iter().any(delivery))
    }

    pub fn of_message(&self, sequence: Sequence) -> Vec<DeliveryRecord> {
        let from = DeliveryId { sequence, route: String::new(), destination: String::new() };
        let of_message = self.deliveries.range(from..).take_while(|(id, _)| id.sequence == sequence);
        let mut found: Vec<_> = of_message.map(|(_, delivery)| delivery.record.clone()).collect();
        found.sort_by(|one, other| {
            (&one.id.destination, &one.id.route).cmp(&(&other.id.destination, &other.id.route))
        });
        found
    }

    pub fn select(&self, filter: &Filter, after: Sequence, limit: usize) -> Vec<DeliveryRecord> {
        let mut page: Vec<DeliveryRecord> = Vec::new();
        for record in self.records(|record| record.id.sequence > after && self.takes(filter, record)) {
            if page.len() >= limit && page.last().is_some_and(|last| last.id.sequence != record.id.sequence) {
                break;
            }
            page.push(record);
        }
        page
    }

    fn takes(&self, filter: &Filter, record: &DeliveryRecord) -> bool {
        let Filter { states, destination, route, sequence, control_id, after: _ } = filter;
        let keys = &self.messages[&record.id.sequence].summary.keys;
        states.contains(&record.state)
            && destination.as_ref().is_none_or(|wanted| *wanted == record.id.destination)
            && route.as_ref().is_none_or(|wanted| *wanted == record.id.route)
            && sequence.is_none_or(|wanted| wanted == record.id.sequence)
            && control_id.as_ref().is_none_or(|wanted| *wanted == keys.control_id)
    }

    fn records(&self, wanted: impl Fn(&DeliveryRecord) -> bool) -> impl Iterator<Item = DeliveryRecord> {
        self.deliveries.values().map(|delivery| &delivery.record).filter(move |one| wanted(one)).cloned()
    }

    pub fn quarantine(&self, after: Sequence, limit: usize) -> Vec<Summary> {
        let kept = self.messages.values().map(|message| &message.summary);
        let kept = kept.filter(|one| one.sequence > after && one.quarantine.is_some());
        kept.take(limit).cloned().collect()
    }

    pub fn counts(&self) -> Vec<Count> {
        let mut counts: BTreeMap<(&str, State), Count> = BTreeMap::new();
        for (id, delivery) in &self.deliveries {
            let state = delivery.record.state;
            if state.is_end() && state != State::Dead {
                continue;
            }
            let destination = id.destination.clone();
            let oldest = Some(self.messages[&id.sequence].summary.received);
            let first = || Count { destination, state, deliveries: 0, oldest };
            counts.entry((&id.destination, state)).or_insert_with(first).deliveries += 1;
        }
        counts.into_values().collect()
    }

    pub fn stats(&self) -> Stats {
        let bodies = self.messages.values().filter_map(|message| message.body.as_ref());
        let bytes = bodies.map(|body| body.packed.len() as u64).sum();
        Stats {
            last: self.last,
            first: self.messages.keys().next().copied(),
            messages: self.messages.len() as u64,
            quarantined: self.quarantine(Sequence(0), usize::MAX).len() as u64,
            disk_bytes: bytes,
            used_bytes: bytes,
            search_behind: 0,
        }
    }
}

fn arrival(one: &Summary) -> Arrival {
    Arrival {
        sequence: one.sequence,
        received: one.received,
        listener: one.listener.clone(),
        sending_application: one.keys.sending_application.clone(),
        sending_facility: one.keys.sending_facility.clone(),
        control_id: one.keys.control_id.clone(),
        hash: one.hash,
    }
}

fn requeue(record: &mut DeliveryRecord, _: &Audit) -> bool {
    let changes = !matches!(record.state, State::Ready | State::Retrying);
    if changes {
        (record.state, record.attempts, record.first_attempt) = (State::Ready, 0, None);
    }
    changes
}

fn release(record: &mut DeliveryRecord, _: &Audit) -> bool {
    let changes = matches!(record.state, State::Parked | State::Held);
    if changes {
        (record.state, record.attempts, record.first_attempt) = (State::Retrying, 0, None);
    }
    changes
}

fn skip(record: &mut DeliveryRecord, audit: &Audit) -> bool {
    let changes = matches!(record.state, State::Retrying | State::Parked | State::Held);
    if changes {
        (record.state, record.at, record.reason) = (State::Dead, Some(audit.at), audit.why.clone());
    }
    changes
}

fn has(one: &Summary, key: Key<'_>) -> bool {
    let keys = &one.keys;
    let value = match key {
        Key::ControlId(_) => &keys.control_id,
        Key::Patient(_) => &keys.patient,
        Key::NhsNumber(_) => &keys.nhs_number,
        Key::LocalNumber(_) => &keys.local_number,
        Key::Visit(_) => &keys.visit,
        Key::Order(order) => return keys.orders.iter().any(|one| one == order && !one.is_empty()),
    };
    !value.is_empty() && value == key.value()
}

fn ready(id: DeliveryId, lanes: Vec<String>) -> DeliveryRecord {
    DeliveryRecord {
        id,
        state: State::Ready,
        lanes,
        at: None,
        attempts: 0,
        first_attempt: None,
        revision: String::new(),
        reason: String::new(),
        class: None,
    }
}

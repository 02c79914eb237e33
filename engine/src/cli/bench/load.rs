//! The load client, a process of its own: connections that each send the next message when the last is acknowledged.
//!
//! Promises: each patient's messages come by one connection, in the order of their counts, and a count is used up only
//! by a positive acknowledgement, so that the receiver can tell what is missing. Memory does not grow with the run.
//! With a rate, each message has its time, and how long it took counts from then: an engine that stalls cannot hide it
//! by not being asked.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Failure,
    histogram::{Histogram, Latency},
    messages::{Form, Kind, Patient, patients},
    sign::{Sign, now},
};
use crate::cli::{mllp_client::Client, send};

/// How long an acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a refusal.
const PAUSE: Duration = Duration::from_millis(20);

/// What to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The engine's listener.
    pub address: String,
    /// Connections at the same time.
    pub connections: u32,
    /// These in turn.
    pub kinds: Vec<Kind>,
    /// For so long; without it, until all messages are sent.
    pub seconds: Option<f64>,
    /// At most so many.
    pub messages: Option<u64>,
    /// So many a second over all connections; without it, as fast as they are acknowledged.
    pub rate: Option<f64>,
    /// The first patient of this plan. Plans of one run share none.
    pub first_patient: u32,
    /// How many patients there are.
    pub patients: u32,
}

/// What became of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Loaded {
    /// Positive acknowledgements.
    pub acknowledged: u64,
    /// Negative ones; the message was sent again.
    pub refused: u64,
    /// Bytes of the messages that were acknowledged.
    pub bytes: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// From the message to its acknowledgement.
    pub acknowledgement: Latency,
    /// Why connections ended early.
    pub faults: Vec<String>,
}

impl Loaded {
    /// Itself, if all that was sent was acknowledged.
    pub(super) fn sound(self) -> Result<Self, Failure> {
        match self.faults.first() {
            None if self.acknowledged == 0 => Err(Failure::Broken("no message was acknowledged".to_owned())),
            None => Ok(self),
            Some(fault) => Err(Failure::Broken(format!("a connection of the load client ended: {fault}"))),
        }
    }
}

/// Sends what the plan says, until it is told to stop.
pub(super) async fn send(plan: Plan, stop: CancellationToken) -> Loaded {
    let people = patients(plan.first_patient, plan.patients.max(plan.connections));
    let forms: Vec<Form> = plan.kinds.iter().map(|kind| Form::new(*kind)).collect();
    let began = Instant::now();
    let mut connections = JoinSet::new();
    for number in 0..plan.connections {
        let own = people.iter().skip(number as usize).step_by(plan.connections as usize).copied().collect();
        let pace = Pace::of(&plan, number, began, stop.clone());
        connections.spawn(Connection::new(&plan, own, forms.clone(), pace).run());
    }
    let (mut all, mut histogram) = (Loaded::default(), Histogram::default());
    while let Some(Ok((part, took))) = connections.join_next().await {
        all.acknowledged += part.acknowledged;
        all.refused += part.refused;
        all.bytes += part.bytes;
        all.faults.extend(part.faults);
        histogram.absorb(&took);
    }
    all.seconds = began.elapsed().as_secs_f64();
    all.acknowledgement = histogram.latency();
    all.faults.truncate(5);
    all
}

/// When a connection's messages are due, and when it ends.
struct Pace {
    first: Instant,
    between: Option<Duration>,
    end: Option<Instant>,
    left: Option<u64>,
    stop: CancellationToken,
}

impl Pace {
    fn of(plan: &Plan, number: u32, began: Instant, stop: CancellationToken) -> Self {
        let connections = u64::from(plan.connections);
        let between = plan.rate.map(|rate| Duration::from_secs_f64(f64::from(plan.connections) / rate));
        let offset = between.map_or(Duration::ZERO, |between| between * number / plan.connections.max(1));
        Self {
            first: began + offset,
            between,
            end: plan.seconds.map(|seconds| began + Duration::from_secs_f64(seconds)),
            left: plan.messages.map(|all| {
                let extra = u64::from(u64::from(number) < all % connections);
                all / connections + extra
            }),
            stop,
        }
    }

    /// Waits for the time of the next message; none when there is no next.
    async fn next(&mut self, sent: u32) -> Option<Instant> {
        let due = match self.between {
            Some(between) => self.first + between * sent,
            None => Instant::now(),
        };
        let over = self.end.is_some_and(|end| due >= end || Instant::now() >= end);
        if over || self.left == Some(0) || self.stop.is_cancelled() {
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        if self.between.is_some() {
            tokio::time::sleep_until(due.into()).await;
        }
        Some(due)
    }
}

struct Connection {
    address: String,
    people: Vec<Patient>,
    forms: Vec<Form>,
    pace: Pace,
    done: Loaded,
    took: Histogram,
}

impl Connection {
    fn new(plan: &Plan, people: Vec<Patient>, forms: Vec<Form>, pace: Pace) -> Self {
        let address = plan.address.clone();
        Self { address, people, forms, pace, done: Loaded::default(), took: Histogram::default() }
    }

    async fn run(mut self) -> (Loaded, Histogram) {
        if let Err(fault) = self.converse().await {
            self.done.faults.push(fault.to_string());
        }
        (self.done, self.took)
    }

    async fn converse(&mut self) -> std::io::Result<()> {
        let mut client = Client::connect(&self.address, PATIENCE).await?;
        let (mut sent, patients) = (0_u32, self.people.len().max(1) as u32);
        while let Some(due) = self.pace.next(sent).await {
            let round = sent / patients;
            let place = (sent % patients) as usize;
            while !self.exchange(&mut client, place, round + 1, sent.wrapping_add(round), due).await? {
                self.done.refused += 1;
                tokio::time::sleep(PAUSE).await;
            }
            self.took.add(due.elapsed().as_micros() as u64);
            self.done.acknowledged += 1;
            sent += 1;
        }
        Ok(())
    }

    /// Sends one message; whether it was taken.
    async fn exchange(
        &mut self,
        client: &mut Client,
        place: usize,
        count: u32,
        turn: u32,
        due: Instant,
    ) -> std::io::Result<bool> {
        let forms = self.forms.len().max(1);
        let (Some(patient), Some(form)) = (self.people.get(place), self.forms.get_mut(turn as usize % forms))
        else {
            return Err(std::io::Error::other("there is nothing to send"));
        };
        let late = due.elapsed().as_micros() as u64;
        let bytes = form.bytes() as u64;
        let (framed, sign) = form.fill(patient, count, now().saturating_sub(late));
        let answer = client.exchange(framed).await?;
        let taken = is_positive(&answer, sign)?;
        self.done.bytes += if taken { bytes } else { 0 };
        Ok(taken)
    }
}

/// Whether the message was taken. An answer that is not its own is a fault.
fn is_positive(answer: &Bytes, sign: Sign) -> std::io::Result<bool> {
    let control_id = sign.written();
    let (positive, said) = send::judge(answer, &String::from_utf8_lossy(&control_id));
    match positive || said.starts_with("AR") {
        true => Ok(positive),
        false => Err(std::io::Error::other(format!("a message was answered {said}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rate: Option<f64>, messages: Option<u64>) -> Plan {
        Plan {
            address: String::new(),
            connections: 4,
            kinds: vec![Kind::Adt],
            seconds: None,
            messages,
            rate,
            first_patient: 0,
            patients: 10,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_all_connections() {
        let began = Instant::now();
        let mut second = Pace::of(&plan(Some(100.0), None), 1, began, CancellationToken::new());
        let due = [second.next(0).await.unwrap(), second.next(1).await.unwrap()];
        assert_eq!(due.map(|due| (due - began).as_millis()), [10, 50]);
    }

    #[tokio::test]
    async fn connections_share_the_messages() {
        let mut taken = Vec::new();
        for number in 0..4 {
            let mut pace = Pace::of(&plan(None, Some(6)), number, Instant::now(), CancellationToken::new());
            let mut sent = 0;
            while pace.next(sent).await.is_some() {
                sent += 1;
            }
            taken.push(sent);
        }
        assert_eq!(taken, [2, 2, 1, 1]);
    }

    #[test]
    fn only_a_refusal_is_sent_again() {
        let sign = Sign { kind: Kind::Adt, patient: 1, count: 1, sent: 1 };
        let id = String::from_utf8(sign.written().to_vec()).unwrap();
        let answer = |code: &str, id: &str| {
            is_positive(&Bytes::from(format!("MSH|^~\\&|T|R|P|R|1||ACK|9|P|2.4\rMSA|{code}|{id}\r")), sign)
        };
        assert!(answer("AA", &id).unwrap());
        assert!(!answer("AR", &id).unwrap());
        assert!(answer("AE", &id).is_err());
        assert!(answer("AA", "OTHER").is_err());
    }
}

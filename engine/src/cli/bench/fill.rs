//! Fills a journal with admissions that have been delivered, in a process of its own and beside no engine.
//!
//! Promises: they stand there as if they had travelled the road: real bytes, keys, lanes and bundles, through the real
//! journal, which is closed when this ends. Only the bundles are those of a few patients, mapped once: nobody reads them.
//! Left to others: whether there is room (ground), the engine that goes on with it.

use std::{cell::Cell, io, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    messages::{Form, Kind, Patient, patients},
    scratch::ADMISSIONS,
    sign::now,
};
use crate::{
    cli::{Place, library::Library},
    clock::{Clock, SystemClock},
    config::Config,
    connector::{Payload, Plugin},
    journal::{
        DeliveryId, Disposition, Identifiers, Journal, JournalError, Keys, NewDelivery, NewMessage, Outcome,
        Sequence, State,
    },
    metrics::Metrics,
    revision::Sample,
};

/// Patients whose bundles are mapped: no more than the journal remembers packed.
const BUNDLES: usize = 64;
/// Where they went.
const DESTINATION: &str = "record-1";
/// Messages that are handed in together.
const TOGETHER: u64 = 500;
/// Those who hand in: while one waits for the disk, the other packs.
const HANDS: u64 = 2;
/// The filled messages are dated as a district trust has them, the last one now: 300,000 a day.
const BETWEEN_MS: i64 = 86_400_000 / 300_000;

/// What to fill in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    /// How many messages.
    pub messages: u64,
    /// How many patients they are of, in turn.
    pub patients: u32,
}

/// What became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Filled {
    /// From the first to the last.
    pub seconds: f64,
}

/// Fills the journal that the configuration names.
pub(super) async fn fill(plan: Plan, place: &Place, plugins: &'static [Plugin]) -> io::Result<Filled> {
    let file = place.config_file();
    let text = std::fs::read_to_string(&file)?;
    let config = Config::parse(&file, text.into(), plugins)
        .map_err(|problems| io::Error::other(problems.iter().map(ToString::to_string).collect::<String>()))?;
    let store = config.journal.location.below(&place.home).open().await.map_err(io::Error::other)?;
    let metrics = Metrics::new(&prometheus::Registry::new()).map_err(io::Error::other)?;
    let journal = Journal::start(store, Identifiers::default(), Arc::new(metrics)).await;
    let journal = journal.map_err(io::Error::other)?;
    let now = SystemClock.now();
    let library =
        Library::read(place, plugins, now).map_err(|_| io::Error::other("the mappings cannot be used"))?;
    let filler = Filler::new(plan, journal, &library, now)?;
    let began = Instant::now();
    filler.run().await.map_err(io::Error::other)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Filled { seconds })
}

struct Filler {
    plan: Plan,
    journal: Journal,
    people: Vec<Patient>,
    bundles: Vec<Vec<Payload>>,
    revision: String,
    now: Timestamp,
    next: Cell<u64>,
}

impl Filler {
    fn new(plan: Plan, journal: Journal, library: &Library, now: Timestamp) -> io::Result<Self> {
        let people = patients(0, plan.patients);
        let mut form = Form::new(Kind::Adt);
        let bundles = people.iter().take(BUNDLES).map(|patient| bundle(&mut form, patient, library));
        let bundles = bundles.collect::<io::Result<_>>()?;
        let revision = library.context.revision.to_string();
        Ok(Self { next: Cell::default(), plan, journal, people, bundles, revision, now })
    }

    async fn run(self) -> Result<(), JournalError> {
        try_join_all((0..HANDS).map(|_| self.hand())).await?;
        self.journal.close().await;
        Ok(())
    }

    /// Hands in some and their outcomes, again and again, until there is nothing left.
    async fn hand(&self) -> Result<(), JournalError> {
        let mut form = Form::new(Kind::Adt);
        while self.next.get() < self.plan.messages {
            let first = self.next.get();
            let end = (first + TOGETHER).min(self.plan.messages);
            self.next.set(end);
            let messages = (first..end).filter_map(|number| self.message(number, &mut form)).collect();
            let sequences = self.journal.append_all(messages).await?;
            let ended = (first..end).zip(sequences).map(|(number, sequence)| self.ended(number, sequence));
            try_join_all(ended.map(|outcome| self.journal.record(outcome))).await?;
        }
        Ok(())
    }

    fn received(&self, number: u64) -> Timestamp {
        let before = (self.plan.messages - number) as i64 * BETWEEN_MS;
        self.now - SignedDuration::from_millis(before)
    }

    fn message(&self, number: u64, form: &mut Form) -> Option<NewMessage> {
        let patients = u64::from(self.plan.patients);
        let patient = self.people.get((number % patients) as usize)?;
        let (_, sign) = form.fill(patient, (number / patients) as u32 + 1, now());
        Some(NewMessage {
            received: self.received(number),
            listener: "hospital".to_owned(),
            peer: "127.0.0.1".to_owned(),
            raw: Bytes::copy_from_slice(form.message()),
            keys: keys(patient, String::from_utf8_lossy(&sign.written()).into_owned()),
            flag: None,
            disposition: Disposition::Routed(vec![NewDelivery {
                route: ADMISSIONS.to_owned(),
                destination: DESTINATION.to_owned(),
                lanes: vec![
                    format!("patient|nhs|{}", patient.nhs_number()),
                    format!("patient|rxx|{}", patient.local_number()),
                ],
            }]),
        })
    }

    fn ended(&self, number: u64, sequence: Sequence) -> Outcome {
        let at = self.received(number);
        let bundle = self.bundles.get(number as usize % self.bundles.len().max(1));
        Outcome {
            id: DeliveryId { sequence, route: ADMISSIONS.to_owned(), destination: DESTINATION.to_owned() },
            state: State::Delivered,
            at,
            attempts: 1,
            first_attempt: Some(at),
            output: bundle.cloned().unwrap_or_default(),
            message: Bytes::new(),
            revision: self.revision.clone(),
            reason: "200".to_owned(),
            class: None,
            detail: None,
        }
    }
}

/// What an admission is found by.
fn keys(patient: &Patient, control_id: String) -> Keys {
    let (nhs_number, local_number) = (patient.nhs_number().to_string(), patient.local_number().to_string());
    Keys {
        control_id,
        trigger: "ADT^A01".to_owned(),
        sending_application: "PAS".to_owned(),
        sending_facility: "RXX".to_owned(),
        patient: format!("nhs|{nhs_number}"),
        visit: format!("V{local_number}"),
        nhs_number,
        local_number,
        orders: Vec::new(),
    }
}

/// What the shipped mapping makes of a patient's first admission.
fn bundle(form: &mut Form, patient: &Patient, library: &Library) -> io::Result<Vec<Payload>> {
    form.fill(patient, 1, now());
    let raw = Bytes::copy_from_slice(form.message());
    let sample = Sample::of(&library.mappings, "adt", raw, library.charset, &library.context);
    match sample.outputs() {
        [] => Err(io::Error::other(format!("the mapping of admissions gives nothing: {sample}"))),
        outputs => Ok(outputs.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hl7::Message,
        intake::{PatientKeys, Patients},
        journal::{Key, NEWEST, Query, conformance::journal_of},
    };

    #[tokio::test]
    async fn what_is_filled_in_is_found_and_ended_as_if_it_had_come_by_the_road() {
        let directory = tempfile::tempdir().unwrap();
        let home = concat!(env!("CARGO_MANIFEST_DIR"), "/..").into();
        let now = SystemClock.now();
        let library = Library::read(&Place { home, config: None }, &[], now).ok().unwrap();
        let plan = Plan { messages: 1300, patients: 13 };
        let filler = Filler::new(plan, journal_of(directory.path()).await, &library, now).unwrap();
        let made = filler.message(1200, &mut Form::new(Kind::Adt)).unwrap();
        let message = Message::parse(made.raw.clone(), library.charset).unwrap();
        let keys = PatientKeys::of(&message, &Patients::default());
        let lanes = keys.all().map(|key| format!("patient|{key}")).collect();
        let to = (ADMISSIONS.to_owned(), DESTINATION.to_owned());
        let delivery = NewDelivery { route: to.0, destination: to.1, lanes };
        assert!(made.disposition == Disposition::Routed(vec![delivery]));
        assert_eq!(made.keys.patient, keys.main.unwrap().to_string());
        assert_eq!(made.keys.control_id, message.control_id());
        filler.run().await.unwrap();
        let journal = journal_of(directory.path()).await;
        assert!(journal.counts().await.unwrap().iter().all(|count| count.deliveries == 0));
        let somebody = patients(4, 1).remove(0).nhs_number().to_string();
        let query = Query { key: Some(Key::NhsNumber(&somebody)), ..Query::default() };
        let found = journal.search(&query, NEWEST, 1000).await.unwrap().messages;
        assert_eq!(found.len(), 100);
        for one in [&found[0], &found[99]] {
            let deliveries = journal.deliveries(one.sequence).await.unwrap();
            assert_eq!(deliveries.iter().map(|one| one.state).collect::<Vec<_>>(), [State::Delivered]);
        }
        journal.close().await;
    }
}

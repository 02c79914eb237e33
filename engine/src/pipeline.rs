//! The pipeline: joins the stages. The only module that sees more than one of them.
//!
//! In:       the live revision.
//! Out:      for intake, the deliveries that a message owes; for delivery, what is to be sent.
//! Promise:  P8. Both answers come from one revision, whole: one that was live between question and answer.
//!           P4. A new revision lets no message overtake one that waits in the order of an earlier one.
//!           Mappings run on threads of their own, so that a slow script delays no socket.
//! Not here: when any of this happens (intake, delivery), changing the revision (supervisor).

mod made;
mod orders;
#[cfg(test)]
mod tests;
mod threads;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;

use crate::{
    connector::{Acknowledge, Policy},
    delivery::{Prepare, Prepared, Remark},
    incoming::Incoming,
    intake::{PatientKey, PatientKeys, Router},
    journal::{DeliveryId, Entry, Journal, JournalError, NewDelivery},
    mapping::{self, Finding, Mapped},
    metrics::Metrics,
    revision::{Aliases, Revision},
    routing::Order,
};

use made::Made;
use orders::Orders;
pub use threads::Threads;

/// Lanes of one message: twice what intake names of one.
const MOST_LANES: usize = 512;

/// The stages, joined over the live revision.
pub struct Pipeline {
    live: ArcSwap<Revision>,
    orders: Orders,
    made: Made,
    metrics: Arc<Metrics>,
    workers: Arc<dyn Workers>,
}

/// Where mappings run.
#[async_trait]
pub trait Workers: Send + Sync + 'static {
    /// Runs one mapping. None: it ended by a fault, or nothing can be run any more.
    async fn run(&self, job: Job) -> Option<Prepared>;
}

impl Pipeline {
    /// A pipeline over a revision.
    ///
    /// # Errors
    /// The journal could not be read or written.
    pub async fn start(
        revision: Arc<Revision>,
        journal: &Journal,
        metrics: Arc<Metrics>,
        workers: Arc<dyn Workers>,
    ) -> Result<Self, JournalError> {
        let pipeline = Self::new(revision, metrics, workers);
        pipeline.orders.expect(&pipeline.live(), journal).await?;
        Ok(pipeline)
    }

    fn new(revision: Arc<Revision>, metrics: Arc<Metrics>, workers: Arc<dyn Workers>) -> Self {
        Self {
            live: ArcSwap::new(revision),
            orders: Orders::default(),
            made: Made::default(),
            metrics,
            workers,
        }
    }

    /// The live revision.
    pub fn live(&self) -> Arc<Revision> {
        self.live.load_full()
    }

    /// Makes a revision the live one. What has begun ends with the one that it began with.
    ///
    /// # Errors
    /// The journal could not be read or written: the live revision stays.
    pub async fn go_live(&self, revision: Arc<Revision>, journal: &Journal) -> Result<(), JournalError> {
        self.orders.expect(&revision, journal).await?;
        self.live.store(revision);
        Ok(())
    }

    /// Lets go of how messages were put in order before, where none of them waits any more; called now and then, it looks
    /// away once after a change. What was received before the one call is in the journal at the next.
    ///
    /// # Errors
    /// The journal could not be read or written.
    pub async fn forget_former_orders(&self, journal: &Journal) -> Result<(), JournalError> {
        self.orders.forget(&self.live(), journal).await
    }
}

impl Pipeline {
    /// Runs a mapping, and tells the metrics.
    async fn run(&self, job: Job) -> Option<Prepared> {
        let (mapping, began) = (job.mapping.clone(), Instant::now());
        let prepared = self.workers.run(job).await;
        let result = prepared.as_ref().map_or("held", word);
        self.metrics.mapped(&mapping, result, began.elapsed().as_secs_f64());
        if let Some(Prepared::Send { remarks, .. }) = &prepared {
            remarks.iter().for_each(|remark| self.metrics.remarked(&mapping, remark.kind));
        }
        prepared
    }
}

impl Router for Pipeline {
    fn route(&self, listener: &str, message: &Incoming, patient: &PatientKeys) -> Vec<NewDelivery> {
        let revision = self.live.load();
        revision
            .routes
            .matching(listener, message)
            .flat_map(|route| {
                let mut lanes = lanes(&route.name, &route.order, message, patient, &revision.aliases);
                self.orders.add_former(&mut lanes, route, message, &revision.aliases);
                route.to.iter().map(move |to| NewDelivery {
                    route: route.name.clone(),
                    destination: to.destination.clone(),
                    lanes: lanes.clone(),
                })
            })
            .collect()
    }

    fn acknowledge(&self, deliveries: &[NewDelivery], listener: Acknowledge) -> Acknowledge {
        let revision = self.live.load();
        let asked = |delivery: &NewDelivery| revision.routes.get(&delivery.route)?.ack;
        let most = deliveries.iter().map(|delivery| asked(delivery).unwrap_or(listener)).max();
        most.unwrap_or(listener)
    }
}

#[async_trait]
impl Prepare for Pipeline {
    async fn prepare(&self, entry: &Entry, id: &DeliveryId) -> Prepared {
        loop {
            let revision = self.live();
            let Some(route) = revision.routes.get(&id.route) else {
                let reason = format!("the route `{}` is no longer configured", id.route);
                return Prepared::Held { reason, revision: revision.id.clone() };
            };
            let key = || (entry.sequence, Arc::from(id.route.as_str()), Arc::from(revision.id.as_str()));
            let job = Job {
                entry: entry.clone(),
                id: id.clone(),
                mapping: route.map.clone(),
                revision: revision.clone(),
            };
            let superseded = AtomicBool::new(false);
            let make = async {
                // It may have waited for another destination's, which then was not made.
                superseded.store(!Arc::ptr_eq(&revision, &self.live()), Ordering::Relaxed);
                if superseded.load(Ordering::Relaxed) { None } else { self.run(job).await }
            };
            match self.made.of(key, route.to.len(), make).await {
                Some(prepared) => return prepared,
                None if superseded.into_inner() => {}
                None => {
                    let reason = "the mapping failed inside the engine".to_owned();
                    return Prepared::Held { reason, revision: revision.id.clone() };
                }
            }
        }
    }

    fn is_live(&self, revision: &str) -> bool {
        self.live.load().id == revision
    }

    fn policy(&self, id: &DeliveryId) -> Policy {
        let revision = self.live.load();
        let route = revision.routes.get(&id.route);
        route
            .and_then(|route| route.to.iter().find(|to| to.destination == id.destination))
            .map(|to| to.policy)
            .unwrap_or_default()
    }
}

/// One run of a mapping.
pub struct Job {
    entry: Entry,
    id: DeliveryId,
    mapping: String,
    revision: Arc<Revision>,
}

impl Job {
    /// For which delivery.
    pub fn id(&self) -> &DeliveryId {
        &self.id
    }

    /// The name of the revision that it runs with.
    pub fn revision(&self) -> &str {
        &self.revision.id
    }

    /// Runs it here and now.
    pub fn run(self) -> Prepared {
        let revision = self.revision.id.clone();
        // The charset of today, not of the receipt: where it was corrected, what waits and what is replayed is to be
        // read as corrected.
        let listeners = &self.revision.config.listeners;
        let charset = listeners
            .iter()
            .find(|listener| listener.name == self.entry.listener)
            .map(|listener| listener.charset);
        let read = Incoming::read(self.entry.raw.clone(), charset.unwrap_or(encoding_rs::WINDOWS_1252));
        let message = match read {
            Ok(message) => message,
            Err(error) => return Prepared::Dead { reason: error.to_string(), revision },
        };
        // Any guess gives letters, and nobody downstream could tell that they are the wrong ones.
        let assumed = message.as_hl7().is_some_and(|message| message.charset().assumed);
        if charset.is_none() && assumed {
            let reason = format!(
                "the listener `{}` is no longer configured, and neither MSH-18 nor the bytes say their character set: \
                 put the listener back with its charset, then release this",
                self.entry.listener
            );
            return Prepared::Held { reason, revision };
        }
        let context = self.revision.context(self.entry.received);
        match self.revision.mappings.run(&self.mapping, &message, &context) {
            Ok(product) => prepared(product, revision),
            Err(error) => Prepared::Dead { reason: error.to_string(), revision },
        }
    }
}

fn prepared(product: mapping::Product, revision: String) -> Prepared {
    match product.mapped {
        Mapped::Outputs(payloads) => {
            Prepared::Send { payloads, revision, remarks: remarks(product.findings) }
        }
        Mapped::Skip(reason) => Prepared::Filtered { reason, revision },
        Mapped::Hold(reason) => Prepared::Held { reason, revision },
        Mapped::Reject(reason) => Prepared::Dead { reason, revision },
    }
}

/// Each once, in their order. A code that is not known is the sender's, and might be anything: its table must do.
fn remarks(findings: Vec<Finding>) -> Vec<Remark> {
    let mut remarks: Vec<Remark> = Vec::with_capacity(findings.len());
    for finding in findings {
        let (kind, text) = match finding {
            Finding::Unmapped { table, .. } => {
                ("unmapped", format!("the table {table} has no row for a code"))
            }
            Finding::Doubtful(text) => ("doubtful", text.to_owned()),
            Finding::Remark(text) => ("said", text.to_string()),
        };
        if !remarks.iter().any(|known| known.text == text) {
            remarks.push(Remark { kind, text });
        }
    }
    remarks
}

fn word(prepared: &Prepared) -> &'static str {
    match prepared {
        Prepared::Send { .. } => "sent",
        Prepared::Filtered { .. } => "filtered",
        Prepared::Held { .. } => "held",
        Prepared::Dead { .. } => "failed",
    }
}

/// The lanes that a message stands in on its way to each destination of a route.
fn lanes(
    route: &str,
    order: &Order,
    message: &Incoming,
    patient: &PatientKeys,
    aliases: &Aliases,
) -> Vec<String> {
    let of_route = || vec![format!("route|{route}")];
    match order {
        Order::Patient if patient.main.is_some() => of_patient(patient, aliases),
        Order::Patient | Order::Route => of_route(),
        // A lane that nobody else will ever stand in.
        Order::None => vec![format!("none|{}", uuid::Uuid::new_v4())],
        Order::Value(path) => match message.as_hl7().and_then(|message| message.get(path).text()) {
            Some(value) if !value.trim().is_empty() => vec![format!("{path}|{}", value.trim())],
            _ => of_route(),
        },
    }
}

/// The lanes of a patient: one for each identity, and for each other name that the mappings know its authority by.
fn of_patient(patient: &PatientKeys, aliases: &Aliases) -> Vec<String> {
    let mut lanes: Vec<_> = patient.all().map(|key| format!("patient|{key}")).collect();
    for PatientKey { authority, identifier } in patient.all() {
        let others = aliases.of(authority).filter_map(|other| PatientKey::among(other, identifier));
        for lane in others.map(|key| format!("patient|{key}")) {
            if lanes.len() < MOST_LANES && !lanes.contains(&lane) {
                lanes.push(lane);
            }
        }
    }
    lanes
}

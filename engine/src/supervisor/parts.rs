//! What a running engine is made of, besides its tasks: opened once, shared by all.

use std::{sync::Arc, time::Instant};

use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::{Failure, Setup};
use crate::{
    clock::Clock,
    config::ListenerConfig,
    intake::{self, Duplicates, Reception, Room},
    journal::{Identifiers, Journal},
    metrics::Metrics,
    pipeline::{Pipeline, Threads},
    revision::Revision,
};

/// The shared parts of an engine. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The durable record.
    pub journal: Journal,
    /// What came before.
    pub duplicates: Arc<Duplicates>,
    /// Whether there is place for more.
    pub room: Arc<Room>,
    /// The stages, joined.
    pub pipeline: Arc<Pipeline>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Where the metrics are registered.
    pub registry: Registry,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Fixes what couriers draw by chance; none draws from the operating system.
    pub seed: Option<u64>,
}

impl Parts {
    /// Opens the journal. So much must stay free on its disk.
    pub async fn open(setup: &Setup, revision: Arc<Revision>, reserve_bytes: u64) -> Result<Self, Failure> {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry)
            .map_err(|error| Failure::Machine(format!("the metrics cannot be registered: {error}")))?;
        let metrics = Arc::new(metrics);
        metrics.build_info(env!("CARGO_PKG_VERSION"));
        let location = revision.config.journal.location.below(&setup.home);
        let store = location.open().await.map_err(|error| Failure::Journal(error.to_string()))?;
        let identifiers = Identifiers::of(revision.config.journal.identifier_key.as_ref())
            .map_err(|why| Failure::Journal(format!("`identifier_key`: {why}")))?;
        let journal = Journal::start(store, identifiers, metrics.clone())
            .await
            .map_err(|error| Failure::Journal(error.to_string()))?;
        let config = &revision.config;
        let room = Arc::new(Room::new(reserve_bytes, config.limits.unstored_bytes));
        let threads = Arc::new(Threads::new(journal.demand()));
        let pipeline = Pipeline::start(revision.clone(), &journal, metrics.clone(), threads)
            .await
            .map_err(|error| Failure::Journal(error.to_string()))?;
        let duplicates = Arc::new(Duplicates::new(journal.clone()));
        Ok(Self {
            journal,
            duplicates,
            room,
            pipeline: Arc::new(pipeline),
            metrics,
            registry,
            clock: setup.clock.clone(),
            seed: None,
        })
    }

    /// The reception of a listener; after `stop` nobody waits for outcomes any more.
    pub fn reception(&self, listener: &ListenerConfig, stop: CancellationToken) -> Reception {
        let revision = self.pipeline.live();
        let settings = intake::Settings {
            listener: listener.name.clone(),
            charset: listener.charset,
            unmatched: listener.unmatched,
            environment: revision.config.environment,
            duplicates: listener.duplicates,
            patients: revision.config.patients.clone(),
            acknowledge: listener.acknowledge,
            patience: listener.patience,
        };
        let shared = intake::Shared {
            journal: self.journal.clone(),
            router: self.pipeline.clone(),
            duplicates: self.duplicates.clone(),
            room: self.room.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        };
        Reception::new(settings, shared, stop)
    }

    /// Looks for repeats as far back as the listeners of a revision ask for. What the journal knows of that is read
    /// beside the road; until it is there, the journal is asked.
    pub fn remember(&self, revision: &Revision) {
        if !self.duplicates.remember(revision.config.longest_window()) {
            return;
        }
        let (duplicates, now) = (self.duplicates.clone(), self.clock.now());
        tokio::spawn(async move {
            let began = Instant::now();
            match duplicates.recall(now).await {
                Ok(messages) => {
                    tracing::info!(
                        messages,
                        seconds = began.elapsed().as_secs_f64(),
                        "the window for repeats is in memory"
                    );
                }
                Err(error) => tracing::warn!(%error, "repeats are looked for in the journal alone"),
            }
        });
    }
}

//! What a running engine is made of, besides its tasks: opened once, shared by all.

use std::sync::Arc;

use prometheus::Registry;

use super::{Failure, Setup};
use crate::{
    clock::Clock,
    config::ListenerConfig,
    intake::{self, Reception},
    journal::{Journal, sqlite::SqliteStore},
    metrics::Metrics,
    pipeline::Pipeline,
    revision::Revision,
};

/// The shared parts of an engine. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The durable record.
    pub journal: Journal,
    /// The stages, joined.
    pub pipeline: Arc<Pipeline>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Where the metrics are registered.
    pub registry: Registry,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Parts {
    /// Opens the journal.
    pub async fn open(setup: &Setup, revision: Arc<Revision>) -> Result<Self, Failure> {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry)
            .map_err(|error| Failure::Machine(format!("the metrics cannot be registered: {error}")))?;
        let metrics = Arc::new(metrics);
        metrics.build_info(env!("CARGO_PKG_VERSION"));
        let directory = setup.home.join(&revision.config.journal.path);
        let store =
            SqliteStore::open(&directory).await.map_err(|error| Failure::Journal(error.to_string()))?;
        let journal = Journal::start(Arc::new(store), metrics.clone())
            .await
            .map_err(|error| Failure::Journal(error.to_string()))?;
        let pipeline = Arc::new(Pipeline::new(revision, metrics.clone()));
        Ok(Self { journal, pipeline, metrics, registry, clock: setup.clock.clone() })
    }

    /// The reception of a listener.
    pub fn reception(&self, listener: &ListenerConfig) -> Reception {
        let revision = self.pipeline.live();
        let settings = intake::Settings {
            listener: listener.name.clone(),
            charset: listener.charset,
            unmatched: listener.unmatched,
            environment: revision.config.environment,
        };
        Reception::new(
            settings,
            self.journal.clone(),
            self.pipeline.clone(),
            self.metrics.clone(),
            self.clock.clone(),
        )
    }
}

//! The running parts of a revision: one task a listener, one a destination.
//!
//! Promise:  what did not change is not touched. Two couriers never serve one destination at the same time, nor two
//!           sources one listener: the new one begins when the old one has ended, and nobody else waits for that.
//! Not here: what they do (plugins, intake, delivery), when they change (the supervisor).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::parts::Parts;
use crate::{
    admin::ListenerStatus,
    config::{Config, DestinationConfig, ListenerConfig, Repeat},
    connector::Destination,
    delivery::{Courier, Settings, Standing},
    revision::Revision,
};

/// A listener that could not serve is tried again after this pause, since its address may become free; so is a courier
/// that ended by a fault.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// After a stop, a delivery in flight has this long to finish.
const GRACE: Duration = Duration::from_secs(10);

/// What runs now.
#[derive(Default)]
pub struct Tasks {
    listeners: BTreeMap<String, Task<ListenerConfig, Arc<Mutex<Serving>>>>,
    couriers: BTreeMap<String, Task<DestinationConfig, watch::Sender<Standing>>>,
    /// Told to stop, and perhaps not ended yet: of listeners and destinations that are gone or changed.
    ending: Ending,
}

/// What a name's former task is to be waited for by, at its listener or destination.
#[derive(Default)]
struct Ending {
    listeners: BTreeMap<String, JoinHandle<()>>,
    couriers: BTreeMap<String, JoinHandle<()>>,
}

struct Task<C, V> {
    config: C,
    view: V,
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

/// Whether a listener serves, and why not.
enum Serving {
    /// As soon as its source says so.
    Begun(watch::Receiver<bool>),
    /// It could not; it will be tried again.
    Failed(String),
    /// It was told to stop.
    Ended,
}

impl<C, V> Task<C, V> {
    async fn end(self) {
        self.stop.cancel();
        let _ = self.handle.await;
    }
}

impl Tasks {
    /// Brings what runs in line with a revision: ends what is gone or changed, begins what is new or changed. Waits for
    /// nothing: a hung delivery must delay neither the reload nor a stop.
    pub fn follow(&mut self, revision: &Arc<Revision>, parts: &Parts) {
        self.end_changed(&revision.config);
        for config in &revision.config.destinations {
            if !self.couriers.contains_key(&config.name)
                && let Some(destination) = revision.destinations.get(&config.name)
            {
                let before = self.ending.couriers.remove(&config.name);
                let task = courier(config.clone(), destination.clone(), parts, before);
                self.couriers.insert(config.name.clone(), task);
            }
        }
        for config in &revision.config.listeners {
            if !self.listeners.contains_key(&config.name) {
                let before = self.ending.listeners.remove(&config.name);
                let task = listener(config.clone(), revision.clone(), parts, before);
                self.listeners.insert(config.name.clone(), task);
            }
        }
    }

    fn end_changed(&mut self, config: &Config) {
        for (name, task) in self.listeners.extract_if(.., |_, task| !config.listeners.contains(&task.config))
        {
            task.stop.cancel();
            self.ending.listeners.insert(name, task.handle);
        }
        for (name, task) in
            self.couriers.extract_if(.., |_, task| !config.destinations.contains(&task.config))
        {
            task.stop.cancel();
            self.ending.couriers.insert(name, task.handle);
        }
    }

    /// Ends all listeners: what they have read of a message is finished first.
    pub async fn end_listeners(&mut self) {
        let tasks = std::mem::take(&mut self.listeners).into_values().map(Task::end);
        let ending = std::mem::take(&mut self.ending.listeners).into_values();
        tokio::join!(futures::future::join_all(tasks), futures::future::join_all(ending));
    }

    /// Ends all couriers: what is in flight has its grace.
    pub async fn end_couriers(&mut self) {
        let tasks = std::mem::take(&mut self.couriers).into_values().map(Task::end);
        let ending = std::mem::take(&mut self.ending.couriers).into_values();
        tokio::join!(futures::future::join_all(tasks), futures::future::join_all(ending));
    }

    /// How the listeners are.
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        let status = |(name, task): (&String, &Task<ListenerConfig, Arc<Mutex<Serving>>>)| {
            let (serving, reason) = match &*task.view.lock() {
                Serving::Begun(serving) => (*serving.borrow(), None),
                Serving::Failed(reason) => (false, Some(reason.clone())),
                Serving::Ended => (false, None),
            };
            ListenerStatus { name: name.clone(), kind: task.config.kind.clone(), serving, reason }
        };
        self.listeners.iter().map(status).collect()
    }

    /// How the destinations are: name, connector, and whether it is given anything.
    pub fn couriers(&self) -> Vec<(String, String, Standing)> {
        self.couriers
            .iter()
            .map(|(name, task)| (name.clone(), task.config.kind.clone(), *task.view.borrow()))
            .collect()
    }
}

fn courier(
    config: DestinationConfig,
    destination: Arc<dyn Destination>,
    parts: &Parts,
    before: Option<JoinHandle<()>>,
) -> Task<DestinationConfig, watch::Sender<Standing>> {
    let view = watch::Sender::new(Standing::Closed);
    let stop = CancellationToken::new();
    let carry = carry(config.clone(), destination, parts.clone(), view.clone(), stop.clone());
    Task { config, view, stop, handle: tokio::spawn(after(before, carry)) }
}

/// Runs when what it takes the place of has ended.
async fn after(before: Option<JoinHandle<()>>, task: impl Future<Output = ()>) {
    if let Some(before) = before {
        // A panic of the old one is no reason to have none.
        let _ = before.await;
    }
    task.await;
}

/// Delivers until stopped. A courier that ends by a fault is followed by another: what it had in hand is in the
/// journal. With a closed journal there is nothing to follow; the supervisor stops the engine then.
async fn carry(
    config: DestinationConfig,
    destination: Arc<dyn Destination>,
    parts: Parts,
    view: watch::Sender<Standing>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => return,
        // A restored journal delivers nothing until a person lets it.
        () = parts.journal.resumed() => {}
    }
    let settings = Settings {
        timeout: config.timeout,
        concurrency: config.concurrency,
        rate: config.rate,
        repeat: config.repeat.map(|repeat| repeat == Repeat::Safe),
        windows: config.windows,
        paused: config.paused,
        pauses: config.pauses,
        grace: GRACE,
        ..Settings::default()
    };
    while !stop.is_cancelled() && !parts.journal.is_closed() {
        let mut courier = Courier::new(
            config.name.as_str(),
            destination.clone(),
            settings.clone(),
            parts.journal.clone(),
            parts.pipeline.clone(),
            parts.metrics.clone(),
            parts.clock.clone(),
        );
        if let Some(seed) = parts.seed {
            courier = courier.drawing(StdRng::seed_from_u64(seed));
        }
        let Err(error) = courier.showing(view.clone()).run(stop.clone()).await else { continue };
        tracing::error!(destination = config.name, %error, "the courier has ended");
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
}

fn listener(
    config: ListenerConfig,
    revision: Arc<Revision>,
    parts: &Parts,
    before: Option<JoinHandle<()>>,
) -> Task<ListenerConfig, Arc<Mutex<Serving>>> {
    let stop = CancellationToken::new();
    let view = Arc::new(Mutex::new(Serving::Ended));
    let serve = serve(config.clone(), revision, parts.clone(), view.clone(), stop.clone());
    Task { config, view, stop, handle: tokio::spawn(after(before, serve)) }
}

/// Serves until stopped; tries again when the source cannot serve.
async fn serve(
    config: ListenerConfig,
    revision: Arc<Revision>,
    parts: Parts,
    view: Arc<Mutex<Serving>>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let reception = Arc::new(parts.reception(&config, stop.clone()));
        *view.lock() = Serving::Begun(reception.serving());
        let ended = match revision.source(&config.name) {
            Ok(source) => source.run(reception, stop.clone()).await.map_err(|error| error.to_string()),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        };
        let Err(reason) = ended else { continue };
        tracing::error!(listener = config.name, reason, "the listener does not serve");
        *view.lock() = Serving::Failed(reason);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
    *view.lock() = Serving::Ended;
}

//! The stage of a trial: a scratch directory, a receiver, an engine, and an account of what was acknowledged.
//!
//! Promise: when a trial says that everything was delivered, every message that was acknowledged, warm-up included, has
//! come to every destination, in the order of its patient; or it says that it has not, and fails.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    Failure, Options,
    arrivals::Arrived,
    database::Database,
    ground::Ground,
    load::{Loaded, Plan},
    messages::Kind,
    parts::{Client, Engine, Receiver},
    readings,
    scenario::{Scenario, Standing, Step},
    scratch::Instance,
};

/// Nothing has arrived for so long: it never will.
const STALLED: Duration = Duration::from_secs(60);
/// Nothing has arrived for so long: perhaps it was set aside.
const DOUBTFUL: Duration = Duration::from_secs(2);
/// Between two looks at what has arrived.
const LOOK: Duration = Duration::from_millis(10);
/// An engine that uses less than a hundredth of a second in this time rests.
const REST: Duration = Duration::from_millis(300);
/// An engine that does not rest for so long is measured as it is.
const RESTLESS: Duration = Duration::from_secs(20);

/// Everything that runs.
pub(super) struct Stage<'a> {
    options: &'a Options,
    scenario: Scenario,
    connections: u32,
    ground: &'a Ground,
    instance: Instance,
    receiver: Option<Receiver>,
    /// The engine.
    pub engine: Engine,
    /// The text of `tie.toml`.
    pub configuration: String,
    /// Messages that were acknowledged, in all phases.
    pub acknowledged: u64,
    phases: u32,
}

impl<'a> Stage<'a> {
    /// Starts everything.
    pub(super) async fn start(
        options: &'a Options,
        scenario: Scenario,
        connections: u32,
        step: Step,
        ground: &'a Ground,
    ) -> Result<Self, Failure> {
        let mut instance = Instance::new(scenario, connections, ground.journal())?;
        if let Step::Routes(routes) = step {
            instance.routes = routes;
        }
        instance.destinations = options.destinations.unwrap_or(instance.destinations);
        instance.concurrency = options.concurrency;
        let receiver = match scenario.standing() {
            Standing::Down => None,
            Standing::Up | Standing::Paused => Some(Receiver::start().await?),
        };
        instance.receiver = receiver.as_ref().map_or(instance.receiver, |receiver| receiver.address);
        let configuration = ground.scratch.configure(&instance)?;
        let engine = Engine::start(&ground.scratch.home, instance.admin, &ground.environment()).await?;
        Ok(Self {
            options,
            scenario,
            connections,
            ground,
            instance,
            receiver,
            engine,
            configuration,
            acknowledged: 0,
            phases: 0,
        })
    }

    /// A plan with patients of its own: as fast as possible, without an end.
    pub(super) fn plan(&mut self) -> Plan {
        let first_patient = self.phases * self.options.patients;
        self.phases += 1;
        Plan {
            address: self.instance.mllp.to_string(),
            connections: self.connections,
            kinds: self.scenario.kinds(),
            seconds: None,
            messages: None,
            rate: None,
            first_patient,
            patients: self.options.patients,
        }
    }

    /// Sends what a plan says.
    pub(super) async fn load(&mut self, plan: &Plan) -> Result<Loaded, Failure> {
        let loaded = Client::start("load", plan).await?.ended().await?;
        self.account(loaded)
    }

    /// Takes what a client has done into the account.
    pub(super) fn account(&mut self, loaded: Loaded) -> Result<Loaded, Failure> {
        self.acknowledged += loaded.acknowledged;
        loaded.sound()
    }

    /// What each destination has.
    pub(super) fn arrived(&self) -> Result<Vec<Arrived>, Failure> {
        let destinations = self.instance.destinations;
        match &self.receiver {
            Some(receiver) => receiver.arrived(destinations),
            None => Ok(vec![Arrived::default(); destinations.into()]),
        }
    }

    /// Messages that have come to every destination.
    pub(super) fn arrived_everywhere(&self) -> Result<u64, Failure> {
        Ok(self.arrived()?.iter().map(|arrived| arrived.distinct).min().unwrap_or(0))
    }

    /// Has the receiver forget how long things took.
    pub(super) fn reset(&self) -> Result<(), Failure> {
        self.ask("POST", "/$reset").map(drop)
    }

    /// The bundle that came last.
    pub(super) fn sample(&self) -> Result<String, Failure> {
        self.ask("GET", "/$sample")
    }

    fn ask(&self, method: &str, path: &str) -> Result<String, Failure> {
        self.receiver.as_ref().map_or_else(|| Ok(String::new()), |receiver| receiver.page(method, path))
    }

    /// Waits until all that was acknowledged has come to every destination.
    pub(super) async fn delivered(&self) -> Result<(), Failure> {
        let (mut seen, mut since, mut doubtful) = (0, Instant::now(), DOUBTFUL);
        loop {
            let all = self.arrived()?;
            let least = all.iter().map(|arrived| arrived.distinct).min().unwrap_or(0);
            if least >= self.acknowledged {
                return in_order(&all, self.acknowledged);
            }
            if least > seen {
                (seen, since, doubtful) = (least, Instant::now(), DOUBTFUL);
            }
            if since.elapsed() > doubtful {
                self.none_astray()?;
                doubtful += DOUBTFUL;
            }
            if since.elapsed() > STALLED {
                return Err(Failure::Broken(format!(
                    "LOST: {} messages were acknowledged, {least} have arrived, and nothing more came for {} s",
                    self.acknowledged,
                    STALLED.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }

    /// Whether the engine itself says that something will not arrive: then there is no use in waiting.
    fn none_astray(&self) -> Result<(), Failure> {
        let astray = readings::astray(&self.engine)?;
        if astray == 0 {
            return Ok(());
        }
        let reason = readings::reason(&self.engine);
        Err(Failure::Broken(format!(
            "NOT DELIVERED: of {} acknowledged messages the engine sets {astray} deliveries aside: {} (are the \
             mappings those of this binary?)",
            self.acknowledged,
            reason.as_deref().unwrap_or("its log and journal say why, with --keep")
        )))
    }

    /// Waits until the engine's own account has everything that was acknowledged as waiting.
    pub(super) async fn waits(&self) -> Result<(), Failure> {
        let expected = self.acknowledged * u64::from(self.instance.destinations);
        let began = Instant::now();
        loop {
            let pending = readings::pending(&self.engine)?;
            if pending == expected {
                return Ok(());
            }
            if began.elapsed() > STALLED {
                return Err(Failure::Broken(format!(
                    "LOST: {expected} deliveries should wait in the engine, it has {pending}"
                )));
            }
            sleep(REST).await;
        }
    }

    /// Waits until the engine has nothing to do any more, such as filling its search index.
    pub(super) async fn rest(&self) {
        let began = Instant::now();
        let mut before = readings::cpu_seconds(self.engine.process);
        while before.is_some() && began.elapsed() < RESTLESS {
            sleep(REST).await;
            let after = readings::cpu_seconds(self.engine.process);
            if after.zip(before).is_none_or(|(after, before)| after - before < 0.011) {
                return;
            }
            before = after;
        }
    }

    /// Lets the destinations have their messages.
    pub(super) fn unpause(&mut self) -> Result<(), Failure> {
        self.instance.paused = false;
        self.ground.scratch.configure(&self.instance)?;
        self.engine.page("POST", "/api/reload", "{}").map(drop)
    }

    /// The journal's database, if it is in one.
    pub(super) fn database(&self) -> Option<&'a Database> {
        self.ground.database.as_ref()
    }

    /// Stops the engine and the receiver's part in it.
    pub(super) async fn stop(self) -> Result<Option<Receiver>, Failure> {
        self.engine.stop().await?;
        Ok(self.receiver)
    }

    /// The slowest destination's times, of all messages or of one kind.
    pub(super) fn slowest(&self, kind: Option<Kind>) -> Result<Option<super::histogram::Latency>, Failure> {
        let all = self.arrived()?.into_iter().filter_map(|arrived| match kind {
            Some(kind) => arrived.by_kind.get(&kind).copied(),
            None => Some(arrived.end_to_end),
        });
        Ok(all.max_by(|one, two| one.p99.total_cmp(&two.p99)).filter(|latency| latency.count > 0))
    }
}

/// Whether what has arrived is what was acknowledged, in order.
fn in_order(all: &[Arrived], acknowledged: u64) -> Result<(), Failure> {
    let fault = all.iter().find(|one| one.overtaken > 0 || one.strange > 0 || one.distinct > acknowledged);
    fault.map_or(Ok(()), |one| {
        Err(Failure::Broken(format!(
            "OUT OF ORDER OR STRANGE: of {acknowledged} messages {} arrived, {} before an earlier one of their patient, {} unknown",
            one.distinct, one.overtaken, one.strange
        )))
    })
}

//! One life: the engine is started again and again over the same world, in a storm of faults, then in calm weather until
//! everything has ended that waits for nobody, then after a person has mended and put back the rest.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use prometheus::Registry;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::Instant,
};

use super::{
    dice::Dice,
    feeds::{self, Variant},
    letters::Kind,
    receivers::Weather,
    store::{self, SimulatedStore},
    world::{WallClock, World},
};
use crate::{
    delivery::Prepared,
    intake::{Duplicates, Room},
    journal::{Decision, Filter, Identifiers, Journal, Requeue, State},
    metrics::Metrics,
    pipeline::{Job, Pipeline, Workers},
    supervisor::{parts::Parts, tasks::Tasks},
};

/// The paused clock moves by at least so much between two turns.
const TICK: Duration = Duration::from_millis(1);
/// How long nobody looks when nobody wants anything.
const IDLE: Duration = Duration::from_millis(700);
/// The longest storm, in turns.
const STORM: u64 = 2500;
/// In calm weather everything ends within this, whatever the storm has left: circuits, pauses and time-outs are minutes.
const PATIENCE: Duration = Duration::from_secs(1800);
/// P10.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// What a person may come to do in a storm.
const DECISIONS: [(Decision, &[State]); 7] = [
    (Decision::Replay, &[State::Parked]),
    (Decision::Replay, &[State::Held]),
    (Decision::Replay, &[State::Dead]),
    (Decision::Replay, &[State::Parked, State::Held, State::Dead]),
    (Decision::Release, &[State::Parked, State::Held]),
    (Decision::Skip, &[State::Parked, State::Held]),
    (Decision::Skip, &[State::Retrying]),
];

/// What came of a life.
pub struct Lived {
    pub trace: Vec<String>,
    pub turns: u64,
    pub broken: Option<String>,
}

/// Lives through a seed.
pub fn live(seed: u64) -> Lived {
    let world = World::new(seed);
    let dice = Dice::new(seed, "life", 0);
    let mut life =
        Life { world: world.clone(), dice, turns: 0, phase: Phase::Storm, since: Duration::ZERO, jumps: 0 };
    life.go_on_until_done();
    let mut facts = world.facts.lock();
    Lived { trace: std::mem::take(&mut facts.trace), turns: life.turns, broken: facts.broken.take() }
}

struct Life {
    world: Arc<World>,
    dice: Dice,
    turns: u64,
    phase: Phase,
    /// When the phase began, in virtual time.
    since: Duration,
    jumps: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Storm,
    Calm,
    Mended,
}

enum Ending {
    /// The power goes: every task ends where it waits.
    Crashed,
    Stopped,
    Done,
}

/// One incarnation of the engine.
struct Engine {
    parts: Parts,
    commands: mpsc::UnboundedSender<Command>,
    supervisor: JoinHandle<()>,
    /// Commands handed in that the supervisor has not ended.
    busy: Arc<AtomicUsize>,
    operator: Option<JoinHandle<()>>,
    stopping: Option<Instant>,
}

enum Command {
    Reload(Variant),
    Stop,
}

impl Life {
    fn go_on_until_done(&mut self) {
        loop {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let pause = Duration::from_millis(self.dice.below(5000));
            let ending = runtime.block_on(async {
                let ending = self.incarnation().await;
                // Here, where the paused clock is still to be read.
                self.world.end(pause);
                ending
            });
            drop(runtime);
            store::recover(&self.world);
            match ending {
                Ending::Done => return,
                Ending::Crashed => self.world.tell("--- crashed"),
                Ending::Stopped => self.world.tell("--- stopped"),
            }
        }
    }

    async fn incarnation(&mut self) -> Ending {
        self.world.begin();
        let world = self.world.clone();
        let starting = Engine::start(&world, self.dice.next());
        tokio::pin!(starting);
        let mut engine = loop {
            tokio::select! {
                biased;
                engine = &mut starting => match engine {
                    Some(engine) => break engine,
                    None => return Ending::Crashed,
                },
                () = tokio::time::sleep(TICK) => self.give_a_turn(),
            };
        };
        loop {
            tokio::time::sleep(TICK).await;
            if self.world.facts.lock().broken.is_some() {
                return Ending::Done;
            }
            if engine.supervisor.is_finished() {
                return Ending::Stopped;
            }
            self.turns += 1;
            let storms = self.phase == Phase::Storm && engine.stopping.is_none();
            if storms && self.happens(&mut engine) {
                return Ending::Crashed;
            }
            engine.watch(&self.world);
            if self.world.stage.ready().is_empty() {
                if self.idle(&mut engine).await {
                    return Ending::Done;
                }
            } else {
                self.give_a_turn();
            }
        }
    }

    /// Whoever wants something may go on, one of them.
    fn give_a_turn(&mut self) {
        let ready = self.world.stage.ready();
        if !ready.is_empty() {
            let next = self.dice.pick(&ready).clone();
            self.world.stage.release(&next);
        }
    }

    /// Something may happen to the engine from outside; whether it is a crash.
    fn happens(&mut self, engine: &mut Engine) -> bool {
        match self.dice.below(1000) {
            0..4 => return true,
            4..6 => engine.stop(&self.world),
            6..14 if engine.is_free() => engine.reload(*self.dice.pick(&Variant::ALL)),
            14..24 if engine.operator.is_none() => {
                let (decision, states) = *self.dice.pick(&DECISIONS);
                let limit = if self.dice.in_thousand(500) { usize::MAX } else { 2 };
                engine.decide(decision, states, limit, &self.world);
            }
            24..64 => self.weather(),
            64..67 if self.jumps < 3 => {
                self.jumps += 1;
                let seconds = *self.dice.pick(&[-7200_i64, -60, 60, 3600, 14_400]);
                self.world.tell(format!("the clock jumps by {seconds} s"));
                self.world.jump(seconds);
            }
            _ => {}
        }
        false
    }

    fn weather(&mut self) {
        let to = *self.dice.pick(&feeds::DESTINATIONS);
        let mut weather = *self.dice.pick(&Weather::ALL);
        let mut facts = self.world.facts.lock();
        if facts.steady == Some(to) {
            weather = Weather::Fair;
        }
        let receiver = facts.receivers.get_mut(to).unwrap();
        if receiver.weather != weather {
            receiver.weather = weather;
            facts.tell(format!("{to} is {weather:?}"));
        }
    }

    /// Nobody wants anything now: time passes, or the phase ends. Whether the life is over.
    async fn idle(&mut self, engine: &mut Engine) -> bool {
        if self.phase == Phase::Storm && self.turns < STORM {
            let answered = {
                let facts = self.world.facts.lock();
                facts.senders.iter().all(|sender| sender.next >= sender.letters.len())
            };
            // With all letters sent, some more of the storm for what is still on its way.
            if !answered || !self.dice.in_thousand(30) {
                self.pass().await;
                return false;
            }
        }
        if engine.stopping.is_some() || !engine.is_free() || engine.operator.is_some() {
            self.pass().await;
            return false;
        }
        match self.phase {
            Phase::Storm => self.calm(),
            Phase::Calm | Phase::Mended => {
                let unsettled = self.world.unsettled();
                if !unsettled.is_empty() {
                    if self.world.elapsed() > self.since + PATIENCE {
                        self.world.broken(format!("P2: nothing is in the way, but {}", unsettled.join(", ")));
                    }
                    self.pass().await;
                    return false;
                }
                if self.phase == Phase::Mended {
                    self.world.check_end();
                    self.world.check_steady();
                    return true;
                }
                self.mend(engine);
            }
        }
        false
    }

    fn calm(&mut self) {
        (self.phase, self.since) = (Phase::Calm, self.world.elapsed());
        let mut facts = self.world.facts.lock();
        facts.calm = true;
        facts.receivers.values_mut().for_each(|receiver| receiver.weather = Weather::Fair);
        facts.tell("--- calm");
    }

    /// A person mends the mapping and puts back what waits or is dead.
    fn mend(&mut self, engine: &mut Engine) {
        (self.phase, self.since) = (Phase::Mended, self.world.elapsed());
        self.world.tell("--- mended");
        engine.reload(Variant::Mended);
        engine.decide(Decision::Replay, &[State::Parked, State::Held, State::Dead], usize::MAX, &self.world);
    }

    /// Lets time pass until somebody wants something.
    async fn pass(&self) {
        let idle = Instant::now() + IDLE;
        let until = self.world.stage.next().map_or(idle, |next| next.min(idle));
        tokio::select! {
            biased;
            () = self.world.stage.arrived.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

impl Engine {
    /// None if its journal fails meanwhile.
    async fn start(world: &Arc<World>, seed: u64) -> Option<Self> {
        static METRICS: OnceLock<(Registry, Arc<Metrics>)> = OnceLock::new();
        let (registry, metrics) = METRICS.get_or_init(|| {
            let registry = Registry::new();
            let metrics = Arc::new(Metrics::new(&registry).unwrap());
            (registry, metrics)
        });
        let store = Arc::new(SimulatedStore::new(world.clone()));
        let journal = Journal::start(store, Identifiers::default(), metrics.clone()).await.unwrap();
        let workers = Arc::new(Desk { world: world.clone(), turns: Semaphore::new(2) });
        let live = world.facts.lock().now();
        let pipeline = Pipeline::start(feeds::revision(live), &journal, metrics.clone(), workers);
        let pipeline = Arc::new(pipeline.await.ok()?);
        let revision = pipeline.live();
        let parts = Parts {
            duplicates: Arc::new(Duplicates::new(journal.clone())),
            room: Arc::new(Room::new(0, revision.config.limits.unstored_bytes)),
            journal,
            pipeline,
            metrics: metrics.clone(),
            registry: registry.clone(),
            clock: Arc::new(WallClock(world.clone())),
            seed: Some(seed),
        };
        parts.remember(&revision);
        let (commands, received) = mpsc::unbounded_channel();
        let busy = Arc::default();
        let supervisor = tokio::spawn(supervise(parts.clone(), received, world.clone(), Arc::clone(&busy)));
        Some(Self { parts, commands, supervisor, busy, operator: None, stopping: None })
    }

    fn is_free(&self) -> bool {
        self.busy.load(Ordering::SeqCst) == 0
    }

    fn send(&self, command: Command) {
        self.busy.fetch_add(1, Ordering::SeqCst);
        // The supervisor ends only by a command to stop, after which none is given.
        let _ = self.commands.send(command);
    }

    fn reload(&self, to: Variant) {
        self.send(Command::Reload(to));
    }

    fn stop(&mut self, world: &World) {
        world.tell("the engine is told to stop");
        self.stopping = Some(Instant::now());
        self.send(Command::Stop);
    }

    /// A person decides about deliveries.
    fn decide(&mut self, decision: Decision, states: &[State], limit: usize, world: &World) {
        let filter = Filter { states: states.to_vec(), ..Filter::default() };
        let at = self.parts.clock.now();
        let (who, why) = ("a person".to_owned(), "the simulation".to_owned());
        let request = Requeue { filter, limit, dry_run: false, who, why, at };
        world.tell(format!("a person asks for {decision:?} of {states:?}"));
        let journal = self.parts.journal.clone();
        self.operator = Some(tokio::spawn(async move {
            // A journal that fails meanwhile is a case like any other.
            let _ = journal.decide(decision, &request).await;
        }));
    }

    /// What the engine's own supervisor would see to.
    fn watch(&mut self, world: &World) {
        if self.operator.as_ref().is_some_and(JoinHandle::is_finished) {
            self.operator = None;
        }
        match self.stopping {
            None if self.parts.journal.is_closed() => {
                world.disturb();
                self.stop(world);
            }
            Some(since) if since.elapsed() > STOPS_WITHIN => world.broken("P10: it does not stop"),
            _ => {}
        }
    }
}

async fn supervise(
    parts: Parts,
    mut commands: mpsc::UnboundedReceiver<Command>,
    world: Arc<World>,
    busy: Arc<AtomicUsize>,
) {
    let mut tasks = Tasks::default();
    tasks.follow(&parts.pipeline.live(), &parts);
    while let Some(command) = commands.recv().await {
        match command {
            Command::Reload(variant) => {
                let revision = feeds::revision(variant);
                // A journal that fails meanwhile is a case like any other: then nothing changes.
                if parts.pipeline.go_live(revision.clone(), &parts.journal).await.is_ok() {
                    {
                        let mut facts = world.facts.lock();
                        facts.live.push(variant);
                        facts.tell(format!("{variant:?} is live"));
                    }
                    tasks.follow(&revision, &parts);
                    world.disturb();
                }
            }
            Command::Stop => {
                tasks.end_listeners().await;
                tasks.end_couriers().await;
                parts.journal.close().await;
                return;
            }
        }
        busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where mappings run: two at a time, each at its turn.
struct Desk {
    world: Arc<World>,
    turns: Semaphore,
}

#[async_trait]
impl Workers for Desk {
    async fn run(&self, job: Job) -> Option<Prepared> {
        let (what, endless) = {
            let mut facts = self.world.facts.lock();
            let live = format!("{:?}", facts.now());
            let id = job.id();
            let what = format!("map message {} by {} for {}", id.sequence.0, id.route, id.destination);
            if job.revision() != live {
                facts.broken(format!("P8: {what} begins with {} though {live} is live", job.revision()));
            }
            let letter = facts.letter_of[&id.sequence];
            (what, facts.letters[&letter].kind == Kind::Endless)
        };
        let _turn = self.turns.acquire().await.ok()?;
        let wait = if endless { 2000 } else { self.world.dice(&what).below(4) };
        self.world.stage.turn(what.clone(), Duration::from_millis(wait)).await;
        if self.world.fails(&what, 3) {
            self.world.tell(format!("{what} ends by a fault"));
            return None;
        }
        Some(job.run())
    }
}

//! `tie bench`: how fast this binary is on this machine, beside what the machine can do at all.
//!
//! Promises: engine, receiver and load client are processes of their own; every message that is acknowledged is found at
//! its destination, or the bench fails; the floors are measured in the same run; nothing is left behind.
//! Left to others: benches of single parts (`engine/benches`), proof under faults (`engine/tests`).

mod arrivals;
mod bare;
mod database;
mod direct;
mod figures;
mod fill;
mod floor;
mod ground;
mod histogram;
mod http;
mod load;
mod messages;
mod parts;
mod phases;
mod readings;
mod receiver;
mod scenario;
mod scratch;
mod sign;
mod stage;
mod syncs;
mod table;
mod trial;

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::{
    database::Server,
    figures::{median, over},
    ground::Ground,
    messages::{APPLICATIONS, PATIENTS},
    scenario::{Scenario, Step},
};
use super::{Exit, Place, complain, run as engine, say, send::rate};

pub(super) use parts::{Arguments as PartArguments, run as run_part};

/// Phases of a trial, each with patients of its own.
const PHASES: u32 = 4;

const MORE: &str = "\
Each trial has a scratch directory with a whole instance: the shipped mappings, a route for each kind of message, and the \
engine's defaults otherwise. The engine is this binary's `tie run`; a receiver that stores nothing and a load client run \
beside it. All share this machine, so compare ratios, and CPU a message; rates of different runs are not comparable.\n\n\
With --json there is one JSON object a line for each scenario and number of connections; with --runs it has the median \
of each figure, and all trials in `trials`.";

/// Measure how fast this binary is on this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Arguments {
    /// What to measure; without it, everything.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    scenario: Vec<Scenario>,
    /// Connections of the load client, several with commas; without it, as usual for the scenario.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "NUMBER")]
    connections: Vec<u32>,
    /// How long to send messages.
    #[arg(long, default_value_t = 20.0, value_parser = rate, value_name = "SECONDS")]
    seconds: f64,
    /// How long to send messages before that.
    #[arg(long, default_value_t = 3.0, value_parser = rate, value_name = "SECONDS")]
    warm_up: f64,
    /// Measure so often, and tell the median.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), value_name = "NUMBER")]
    runs: u16,
    /// Where the journal is.
    #[arg(long, value_enum, default_value_t, value_name = "STORE")]
    store: Store,
    /// The server for `--store postgres`, such as postgres://tie@localhost/postgres?host=/run/postgresql: a role that
    /// may create databases. The bench makes one for each trial and removes it.
    #[arg(long, required_if_eq("store", "postgres"), value_name = "URL")]
    postgres: Option<String>,
    /// Destinations of each message; without it, as usual for the scenario.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9), value_name = "NUMBER")]
    destinations: Option<u8>,
    /// Attempts under way at once at each destination; without it, the engine's default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), value_name = "NUMBER")]
    concurrency: Option<u16>,
    /// Messages in the backlog of `drain`.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "NUMBER")]
    backlog: u64,
    /// Messages in the journal of `growth`, several with commas: it is filled with delivered ones before the engine starts,
    /// anew for each size.
    #[arg(long, default_value = "1000,100000", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..), value_name = "NUMBER")]
    stored: Vec<u64>,
    /// Routes of `routes` that share the admissions, several with commas.
    #[arg(long, default_value = "1,50,200", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=i64::from(APPLICATIONS)), value_name = "NUMBER")]
    routes: Vec<u32>,
    /// Messages a second in `document` and while the backlog of `drain` is worked off.
    #[arg(long, value_parser = rate, value_name = "NUMBER")]
    rate: Option<f64>,
    /// Patients in each phase of a trial.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(4096..=i64::from(PATIENTS / PHASES)), value_name = "NUMBER")]
    patients: u32,
    /// The folder of the mappings; without it, `mappings` in the configuration directory.
    #[arg(long, value_name = "DIR")]
    mappings: Option<PathBuf>,
    /// Where the scratch directories are made, on the disk that is to be measured; without it, the system's place for
    /// temporary files.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Keep the scratch directories, with configuration, journal and log of the engine.
    #[arg(long)]
    keep: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Where the journal is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Store {
    /// In the scratch directory.
    #[default]
    Sqlite,
    /// On a server, in a database of its own.
    Postgres,
}

/// What all trials share.
struct Options {
    seconds: f64,
    warm_up: f64,
    destinations: Option<u8>,
    concurrency: Option<u16>,
    backlog: u64,
    rate: Option<f64>,
    patients: u32,
    mappings: PathBuf,
    directory: PathBuf,
    keep: bool,
}

/// Why there are no figures.
#[derive(Debug)]
enum Failure {
    /// The command cannot be run here.
    Usage(String),
    /// Something could not be started, read or written.
    Unable(String),
    /// The engine has lost, refused or disordered messages.
    Broken(String),
    /// Somebody has asked for the end.
    Stopped,
}

impl Failure {
    fn unable(what: &str, error: &dyn std::error::Error) -> Self {
        Self::Unable(format!("{what}: {error}"))
    }

    fn told(&self) -> Exit {
        let (exit, why) = match self {
            Self::Usage(why) => (Exit::Usage, why.as_str()),
            Self::Unable(why) => (Exit::Unreachable, why.as_str()),
            Self::Broken(why) => (Exit::Wrong, why.as_str()),
            Self::Stopped => (Exit::Unreachable, "stopped"),
        };
        complain(format_args!("tie: {why}"));
        exit
    }
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments, place: &Place) -> Exit {
    let options = arguments.options(place);
    if let Err(failure) = scratch::check(&options.mappings) {
        return failure.told();
    }
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let done = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(engine::stop_on_signal(stop.clone()));
        Bench { arguments, options, stop }.run().await
    });
    done.map_or_else(|failure| failure.told(), |()| Exit::Well)
}

impl Arguments {
    fn steps(&self, scenario: Scenario) -> Vec<Step> {
        match scenario {
            Scenario::Growth => {
                let mut stored = self.stored.clone();
                stored.sort_unstable();
                stored.into_iter().map(Step::Stored).collect()
            }
            Scenario::Routes => self.routes.iter().copied().map(Step::Routes).collect(),
            _ => vec![Step::Usual],
        }
    }

    fn options(&self, place: &Place) -> Options {
        Options {
            seconds: self.seconds,
            warm_up: self.warm_up,
            destinations: self.destinations,
            concurrency: self.concurrency,
            backlog: self.backlog,
            rate: self.rate,
            patients: self.patients,
            mappings: self.mappings.clone().unwrap_or_else(|| place.home.join("mappings")),
            directory: self.directory.clone().unwrap_or_else(std::env::temp_dir),
            keep: self.keep,
        }
    }
}

struct Bench<'a> {
    arguments: &'a Arguments,
    options: Options,
    stop: CancellationToken,
}

impl Bench<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let server = match (self.arguments.store, &self.arguments.postgres) {
            (Store::Postgres, Some(url)) => Some(Server::at(url)?),
            _ => None,
        };
        let all = match self.arguments.scenario.as_slice() {
            [] => Scenario::ALL.as_slice(),
            some => some,
        };
        let mut first = true;
        for scenario in all {
            for connections in self.connections(*scenario) {
                let mut ground = None;
                let done = self.steps(*scenario, connections, server.as_ref(), &mut ground, &mut first).await;
                if let Some(ground) = ground {
                    ground.remove().await?;
                }
                done?;
            }
        }
        Ok(())
    }

    /// All steps of a scenario, the ground of the last trial left to be removed.
    async fn steps(
        &self,
        scenario: Scenario,
        connections: u32,
        server: Option<&Server>,
        ground: &mut Option<Ground>,
        first: &mut bool,
    ) -> Result<(), Failure> {
        let mut first_road = None;
        for step in self.arguments.steps(scenario) {
            let mut trials = Vec::new();
            for run in 0..self.arguments.runs {
                let shared = scenario == Scenario::Growth && run > 0;
                if let Some(old) = ground.take_if(|_| !shared) {
                    old.remove().await?;
                }
                trials.push(self.trial(scenario, connections, step, server, ground).await?);
            }
            let mut figures = median(&trials);
            let road = figures.get("road_per_second").and_then(Value::as_f64);
            let ratio = road.zip(*first_road.get_or_insert(road)).and_then(|(road, first)| over(road, first));
            if let (Some(members), false) = (figures.as_object_mut(), step == Step::Usual) {
                members.insert("road_over_first".to_owned(), json!(ratio));
            }
            self.tell(figures, &trials, std::mem::take(first));
        }
        Ok(())
    }

    fn connections(&self, scenario: Scenario) -> Vec<u32> {
        match self.arguments.connections.as_slice() {
            [] => scenario.connections().to_vec(),
            _ if scenario == Scenario::Single => vec![1],
            some => some.to_vec(),
        }
    }

    /// One trial, on the ground that is there or a new one.
    async fn trial(
        &self,
        scenario: Scenario,
        connections: u32,
        step: Step,
        server: Option<&Server>,
        ground: &mut Option<Ground>,
    ) -> Result<Value, Failure> {
        complain(format_args!("{}, {connections} connections{} …", scenario.name(), step.told()));
        let ground = match ground {
            Some(ground) => ground,
            None => {
                if scenario == Scenario::Growth && server.is_none() {
                    let sizes = self.arguments.stored.iter();
                    let wanted =
                        if self.options.keep { sizes.sum() } else { sizes.copied().max().unwrap_or(0) };
                    ground::check(&self.options.directory, wanted)?;
                }
                ground.insert(Ground::make(&self.options, server).await?)
            }
        };
        let done = tokio::select! {
            done = trial::run(&self.options, scenario, connections, step, ground) => done,
            () = self.stop.cancelled() => Err(Failure::Stopped),
        };
        serde_json::to_value(done?).map_err(|error| Failure::unable("the figures", &error))
    }

    fn tell(&self, mut figures: Value, trials: &[Value], first: bool) {
        if self.arguments.json {
            if let (Some(members), true) = (figures.as_object_mut(), trials.len() > 1) {
                members.insert("trials".to_owned(), json!(trials));
            }
            return say(format_args!("{figures}\n"));
        }
        if first {
            let text = figures.get("configuration").and_then(Value::as_str).unwrap_or_default();
            say(format_args!(
                "The configuration of the first:\n\n{text}\n{}\n{}",
                table::LEGEND,
                table::head()
            ));
        }
        say(table::line(&figures));
    }
}

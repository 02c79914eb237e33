//! A revision: everything that a snapshot of the configuration says, checked as a whole and built.
//!
//! In:       a [`Snapshot`] and the connectors.
//! Out:      compiled routes and mappings, built destinations; or every fault that a person can mend.
//! Promise:  P8. `parse → check → build → test` happen here and touch nothing that runs: nothing is opened or
//!           spawned, and the same snapshot gives the same revision and test results.
//! Not here: swapping it in (supervisor), rendering problems (cli).

mod aliases;
mod sample;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    config::{Config, ListenerConfig, Snapshot},
    connector::{Destination, Plugin, Source},
    error::Problem,
    mapping::{Context, Limits, Mappings},
    routing::{Known, Route, Routes},
};

pub use aliases::Aliases;
pub use sample::{Sample, TestFailure, difference, pretty};

/// The moment of receipt of test messages: fixed, so that expected outputs can be kept in files.
pub const SAMPLE_RECEIVED: &str = "2026-01-15T09:30:01Z";
/// The revision that test messages are told of, for the same reason.
pub const SAMPLE_REVISION: &str = "sample";

/// A whole configuration, ready to run.
pub struct Revision {
    /// SHA-256 of its files.
    pub id: String,
    /// The git commit of its directory, if it is a checkout.
    pub git_commit: Option<String>,
    /// `tie.toml`.
    pub config: Config,
    /// The feeds.
    pub routes: Routes,
    /// The mappings.
    pub mappings: Arc<Mappings>,
    /// Which names of assigning authorities are one, by the mappings' tables.
    pub aliases: Aliases,
    /// The destinations by name, built and not yet used.
    pub destinations: BTreeMap<String, Arc<dyn Destination>>,
    /// What is worth a look though it may run.
    pub warnings: Vec<Problem>,
    plugins: &'static [Plugin],
    samples: BTreeMap<PathBuf, Bytes>,
}

impl Revision {
    /// Reads, checks and builds; opens and spawns nothing. Takes as long as the scripts take to compile.
    ///
    /// # Errors
    /// Every fault of every file, as far as one does not hide another.
    pub fn build(snapshot: &Snapshot, plugins: &'static [Plugin]) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let config = Config::parse(&snapshot.config_file, snapshot.config.clone(), plugins);
        let limits = config.as_ref().map_or_else(|_| Limits::default(), limits);
        let mappings = Mappings::compile_layers(&snapshot.mappings, &snapshot.folders, &limits);
        let mapping_names = match &mappings {
            Ok(mappings) => mappings.names().map(str::to_owned).collect(),
            Err(more) => {
                problems.extend_from_slice(more);
                names_of_files(snapshot)
            }
        };
        let (config, routes) = match config {
            Err(mut more) => {
                // Routes that name listeners of a broken tie.toml cannot be judged.
                more.append(&mut problems);
                return Err(more);
            }
            Ok(config) => {
                let routes = routes(snapshot, &config, &mapping_names);
                (config, routes)
            }
        };
        let mut destinations = BTreeMap::new();
        problems.extend(connectors(&config, plugins, &mut destinations));
        let (Ok(mappings), Ok(routes), true) = (mappings, &routes, problems.is_empty()) else {
            problems.extend(routes.err().unwrap_or_default());
            return Err(problems);
        };
        let missing = missing_samples(routes, snapshot);
        if !missing.is_empty() {
            return Err(missing);
        }
        let mut warnings = mappings.warnings().to_vec();
        warnings.extend(idle(&config, routes));
        Ok(Self {
            id: snapshot.revision.clone(),
            git_commit: snapshot.git_commit.clone(),
            routes: routes.clone(),
            config,
            aliases: mappings.table("assigning-authorities").map(Aliases::of_table).unwrap_or_default(),
            mappings: Arc::new(mappings),
            destinations,
            warnings,
            plugins,
            samples: snapshot.samples.clone(),
        })
    }

    /// The first twelve characters of its name: enough for people.
    pub fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Builds a listener's source anew; nothing is opened until it runs.
    ///
    /// # Errors
    /// When there is no such listener, or what its connector says. It said nothing when the revision was built.
    pub fn source(&self, listener: &str) -> Result<Box<dyn Source>, Vec<Problem>> {
        match self.config.listeners.iter().find(|known| known.name == listener) {
            Some(config) => source(config, self.plugins),
            None => Err(vec![Problem::error(format!("there is no listener `{listener}`"))]),
        }
    }

    /// What a mapping is told besides a message that was received then.
    pub fn context(&self, received: Timestamp) -> Context {
        Context {
            received,
            zone: self.config.zone.clone(),
            environment: self.config.environment.word().into(),
            revision: self.short().into(),
            coverage: false,
        }
    }

    /// Runs the tests that the routes carry.
    pub fn run_tests(&self) -> Vec<TestFailure> {
        self.routes.iter().flat_map(|route| self.run_tests_of(route)).collect()
    }

    /// Runs the tests of one route.
    pub fn run_tests_of(&self, route: &Route) -> Vec<TestFailure> {
        sample::run_tests(self, route)
    }
}

/// The bounds of mappings that a configuration sets.
pub fn limits(config: &Config) -> Limits {
    Limits {
        operations: config.limits.mapping_operations,
        time: config.limits.mapping_time,
        output_bytes: config.limits.output_bytes,
        ..Limits::default()
    }
}

/// So that a mapping that does not compile is not also unknown to the routes.
fn names_of_files(snapshot: &Snapshot) -> BTreeSet<String> {
    let scripts = snapshot.mappings.keys().filter(|file| {
        file.parent().is_some_and(|folder| snapshot.folders.iter().any(|known| known == folder))
            && file.extension().is_some_and(|end| end == "rhai")
    });
    scripts.filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect()
}

fn routes(snapshot: &Snapshot, config: &Config, mappings: &BTreeSet<String>) -> Result<Routes, Vec<Problem>> {
    let listeners = config.listeners.iter().map(|listener| listener.name.clone()).collect();
    let destinations = config.destinations.iter().map(|destination| destination.name.clone()).collect();
    Routes::parse(
        &snapshot.routes,
        &Known { listeners: Some(&listeners), destinations: Some(&destinations), mappings: Some(mappings) },
    )
}

/// Builds every connector once: its own faults show only then.
fn connectors(
    config: &Config,
    plugins: &'static [Plugin],
    destinations: &mut BTreeMap<String, Arc<dyn Destination>>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for listener in &config.listeners {
        problems.extend(source(listener, plugins).err().unwrap_or_default());
    }
    for destination in &config.destinations {
        let role = plugins.iter().find(|plugin| plugin.name == destination.kind);
        match role
            .and_then(|plugin| plugin.destination.as_ref())
            .map(|role| (role.build)(&destination.options))
        {
            Some(Ok(built)) => {
                destinations.insert(destination.name.clone(), built);
            }
            Some(Err(more)) => problems.extend(more),
            None => {
                problems.push(destination.options.problem(format!("no connector `{}`", destination.kind)))
            }
        }
    }
    problems
}

fn source(listener: &ListenerConfig, plugins: &'static [Plugin]) -> Result<Box<dyn Source>, Vec<Problem>> {
    let plugin = plugins.iter().find(|plugin| plugin.name == listener.kind);
    match plugin.and_then(|plugin| plugin.source.as_ref()) {
        Some(role) => (role.build)(&listener.options),
        None => Err(vec![listener.options.problem(format!("no connector `{}`", listener.kind))]),
    }
}

/// Files that tests name and that are not there; of a folder of which nothing is there, only the first.
fn missing_samples(routes: &Routes, snapshot: &Snapshot) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut folders: BTreeMap<&Path, (Problem, usize)> = BTreeMap::new();
    for route in routes.iter() {
        for test in &route.tests {
            let named = [&test.message, &test.expect];
            for file in named.into_iter().filter(|file| !snapshot.samples.contains_key(*file)) {
                let what = format!("the test names a file that is not there: {}", file.display());
                let problem = Problem::error(what).at(route_file(route), test.line, 0);
                match missing_folder(file, snapshot) {
                    None => problems.push(problem),
                    Some(folder) => folders.entry(folder).or_insert((problem, 0)).1 += 1,
                }
            }
        }
    }
    problems.extend(folders.into_iter().map(|(folder, (first, files))| match files {
        1 => first,
        _ => {
            let what = format!("none of the {files} files that tests name in {} is there", folder.display());
            Problem { what, ..first }
        }
    }));
    problems
}

/// The outermost folder of a file in which there is no file that a test names.
fn missing_folder<'f>(file: &'f Path, snapshot: &Snapshot) -> Option<&'f Path> {
    let folders = file.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    folders.filter(|folder| !snapshot.samples.keys().any(|sample| sample.starts_with(folder))).last()
}

fn route_file(route: &Route) -> PathBuf {
    PathBuf::from(format!("routes/{}.toml", route.name))
}

/// Listeners whose messages no route takes, destinations that no route names.
fn idle(config: &Config, routes: &Routes) -> Vec<Problem> {
    let warn = |options: &crate::connector::Options, what: String| Problem {
        severity: crate::error::Severity::Warning,
        ..options.problem(what)
    };
    let listeners = config.listeners.iter().filter(|listener| routes.from(&listener.name).next().is_none());
    let listeners = listeners
        .map(|listener| warn(&listener.options, format!("no route takes messages from `{}`", listener.name)));
    let used: BTreeSet<&str> =
        routes.iter().flat_map(|route| &route.to).map(|to| to.destination.as_str()).collect();
    let destinations =
        config.destinations.iter().filter(|destination| !used.contains(destination.name.as_str()));
    listeners
        .chain(destinations.map(|destination| {
            warn(&destination.options, format!("no route delivers to `{}`", destination.name))
        }))
        .collect()
}

#[cfg(test)]
mod tests;

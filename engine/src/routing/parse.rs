//! From the text of a route's file to a sound [`Route`], or all that is wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use toml::{Spanned, de::DeValue};

use super::{
    Accept, Ages, Known, Pattern, Route, RouteTest, To,
    file::{
        AcceptTable, LimitTable, MisconfiguredTable, OneOrMany, RetryTable, RouteFile, TestTable, ToTable,
    },
};
use crate::{
    connector::{Limit, NAME_MOST, Policy, Retry},
    document::Document,
    error::Problem,
};

pub(super) fn routes(
    files: &BTreeMap<PathBuf, Arc<str>>,
    known: &Known<'_>,
) -> Result<Vec<Route>, Vec<Problem>> {
    let mut routes = Vec::new();
    let mut problems = Vec::new();
    for (file, text) in files {
        match route(Document::new(file, text.clone()), known) {
            Ok(route) => routes.push(route),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(routes) } else { Err(problems) }
}

pub(super) fn files_named(text: &str) -> Vec<PathBuf> {
    let document = Document::new("", text);
    let Ok(tree) = document.tree() else { return Vec::new() };
    let tests = tree.get_ref().as_table().and_then(|root| root.get("test"));
    let Some(DeValue::Array(tests)) = tests.map(Spanned::get_ref) else { return Vec::new() };
    let named = tests.iter().filter_map(|test| test.get_ref().as_table()).flat_map(|test| {
        ["message", "expect"].into_iter().filter_map(|key| test.get(key)?.get_ref().as_str())
    });
    named.map(PathBuf::from).filter(|path| is_inside(path)).collect()
}

/// One file being read: what is sound so far, and what is not.
struct Reading<'a> {
    document: Document,
    known: &'a Known<'a>,
    problems: Vec<Problem>,
}

fn route(document: Document, known: &Known<'_>) -> Result<Route, Vec<Problem>> {
    let mut reading = Reading { document, known, problems: Vec::new() };
    let name = reading.name();
    let file = match reading.document.tree().and_then(|tree| reading.document.read::<RouteFile>(tree, &[])) {
        Ok(file) => file,
        Err(mut problems) => {
            problems.extend(reading.problems);
            return Err(problems);
        }
    };
    let route = reading.check(name, file);
    if reading.problems.is_empty() { Ok(route) } else { Err(reading.problems) }
}

impl Reading<'_> {
    fn name(&mut self) -> String {
        let stem =
            self.document.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if stem.is_empty() || !stem.chars().all(plain) {
            let what = format!("`{stem}` is no name for a route");
            let problem = Problem::error(what).at(&*self.document.file, 0, 0);
            self.problems.push(problem.help("lower-case letters, digits, `-` and `_`"));
        }
        if stem.len() > NAME_MOST {
            let what = format!("the name of the route has {} bytes: {NAME_MOST} at most", stem.len());
            self.problems.push(Problem::error(what).at(&*self.document.file, 0, 0));
        }
        stem
    }

    fn check(&mut self, name: String, file: RouteFile) -> Route {
        if file.from.0.is_empty() {
            self.problems.push(self.document.fault("`from` names no listener", 0));
        }
        if file.to.get_ref().is_empty() {
            self.problems.push(self.document.fault("the route has no destination", file.to.span().start));
        }
        let known = self.known;
        let from =
            file.from.0.into_iter().map(|name| self.known_as("listener", name, known.listeners)).collect();
        let map = self.known_as("mapping", file.map, known.mappings);
        Route {
            name,
            about: file.about,
            owner: file.owner,
            from,
            accept: accept(file.accept),
            map,
            order: file.order,
            ack: file.ack,
            retention: Ages {
                bodies: file.retention.bodies.map(|age| age.0),
                messages: file.retention.messages.map(|age| age.0),
            },
            to: self.destinations(file.to.into_inner()),
            tests: file.tests.into_iter().map(|test| self.test(test)).collect(),
        }
    }

    fn known_as(&mut self, noun: &str, name: Spanned<String>, known: Option<&BTreeSet<String>>) -> String {
        if let Some(known) = known.filter(|known| !known.contains(name.get_ref())) {
            let problem =
                self.document.fault(format!("unknown {noun} `{}`", name.get_ref()), name.span().start);
            let problem = problem.did_you_mean(name.get_ref(), known.iter().map(String::as_str));
            self.problems.push(match (&problem.help, known.is_empty()) {
                (Some(_), _) => problem,
                (None, true) => problem.help(format!("there is no {noun} at all")),
                (None, false) => {
                    let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
                    problem.help(format!("known are {}", names.join(", ")))
                }
            });
        }
        name.into_inner()
    }

    fn destinations(&mut self, tables: Vec<ToTable>) -> Vec<To> {
        let mut seen = BTreeSet::new();
        let mut destinations = Vec::new();
        for table in tables {
            let policy = self.policy(&table);
            let ToTable { destination, purpose, .. } = table;
            let start = destination.span().start;
            let destination = self.known_as("destination", destination, self.known.destinations);
            if !seen.insert(destination.clone()) {
                let what = format!("the destination `{destination}` is named twice");
                self.problems.push(self.document.fault(what, start).help("one [[to]] a destination"));
            }
            destinations.push(To { destination, purpose, policy });
        }
        destinations
    }

    fn policy(&mut self, table: &ToTable) -> Policy {
        let retry = table.retry.as_ref().map_or_else(Retry::default, |table| self.retry(table));
        let all = Policy::from(retry);
        let with = |limit: Limit, table: &LimitTable| Limit {
            attempts: table.attempts.map_or(limit.attempts, NonZeroU32::get),
            age: table.give_up.map_or(limit.age, |age| age.0),
            then: table.then.unwrap_or(limit.then),
        };
        // Who says how long to try what was rejected does not mean once.
        let rejected = match &table.rejected {
            Some(LimitTable { attempts: None, give_up: Some(_), .. }) => all.unavailable,
            _ => all.rejected,
        };
        let mut misconfigured = all.misconfigured;
        if let Some(said) = &table.misconfigured {
            let MisconfiguredTable { attempts, then } = *said.get_ref();
            misconfigured.attempts = attempts.unwrap_or(misconfigured.attempts);
            misconfigured.then = then.unwrap_or(misconfigured.then);
            if misconfigured.attempts < 2 {
                let what =
                    "`attempts` of `misconfigured` must be at least 2: the first refusal could be anything";
                self.problems.push(self.document.fault(what, said.span().start));
            }
        }
        Policy {
            unavailable: with(all.unavailable, &table.unavailable),
            uncertain: with(all.uncertain, &table.uncertain),
            rejected: with(rejected, &table.rejected.unwrap_or_default()),
            failing: with(all.failing, &table.failing),
            misconfigured,
            unmapped: table.unmapped.unwrap_or(retry.then),
            retry,
        }
    }

    fn retry(&mut self, table: &Spanned<RetryTable>) -> Retry {
        let RetryTable { first, max, give_up, then } = *table.get_ref();
        let mut fault = |what: String| self.problems.push(self.document.fault(what, table.span().start));
        if first.0.is_zero() {
            fault("`first` must be longer than nothing".to_owned());
        }
        if first > max {
            fault(format!("`first` ({first}) is longer than `max` ({max})"));
        }
        Retry { first: first.0, max: max.0, give_up: give_up.0, then }
    }

    fn test(&mut self, TestTable { message, expect }: TestTable) -> RouteTest {
        let line = self.document.fault("", message.span().start).place.map_or(0, |place| place.line);
        for path in [&message, &expect] {
            if !is_inside(Path::new(path.get_ref())) {
                let what = format!("`{}` is not inside the configuration directory", path.get_ref());
                self.problems.push(self.document.fault(what, path.span().start));
            }
        }
        RouteTest { message: message.into_inner().into(), expect: expect.into_inner().into(), line }
    }
}

fn accept(table: AcceptTable) -> Accept {
    let patterns = |list: OneOrMany| list.0.into_iter().map(|text| Pattern::new(text.into_inner())).collect();
    Accept {
        trigger: patterns(table.trigger),
        sending_application: patterns(table.sending_application),
        sending_facility: patterns(table.sending_facility),
        receiving_application: patterns(table.receiving_application),
        receiving_facility: patterns(table.receiving_facility),
        otherwise: table.otherwise,
    }
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && !path.as_os_str().is_empty()
}

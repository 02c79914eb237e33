//! Routing: which routes take a message, by its listener and header.
//!
//! In:       the text of `routes/*.toml` and the names that they may refer to.
//! Out:      compiled routes; for a message, those that take it, in the order of their names.
//! Promise:  pure. All faults of all files are told, each with its place; a route that is not sound does not exist.
//!           Matching reads the header once and compares against patterns compiled beforehand.
//! Not here: reading files (config), running mappings, delivering.

mod file;
mod parse;
mod pattern;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crate::{
    connector::{Acknowledge, Policy},
    error::Problem,
    hl7::{Message, Path},
    incoming::Incoming,
};

pub use pattern::Pattern;

/// One feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The name of its file without `.toml`.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Who looks after it.
    pub owner: String,
    /// The listeners that its messages come from.
    pub from: Vec<String>,
    /// Which of their messages it takes.
    pub accept: Accept,
    /// The mapping's name.
    pub map: String,
    /// Which messages may not overtake each other.
    pub order: Order,
    /// What an acknowledgement waits for; none if the listener says.
    pub ack: Option<Acknowledge>,
    /// How long its messages are kept, where that differs from what the instance says.
    pub retention: Ages,
    /// The destinations, at least one, each once.
    pub to: Vec<To>,
    /// Messages with the output expected of them.
    pub tests: Vec<RouteTest>,
}

/// Patterns for the header of a message; an empty list takes anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accept {
    /// MSH-9 as `ADT^A01`, or `FHIR^Observation`; a pattern without `^` is for the message code alone.
    pub trigger: Vec<Pattern>,
    /// MSH-3, first component.
    pub sending_application: Vec<Pattern>,
    /// MSH-4, first component.
    pub sending_facility: Vec<Pattern>,
    /// MSH-5, first component.
    pub receiving_application: Vec<Pattern>,
    /// MSH-6, first component.
    pub receiving_facility: Vec<Pattern>,
    /// Only what no route of the same listener takes that does not say so.
    pub otherwise: bool,
}

/// How long messages are kept, from their receipt on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ages {
    /// The bytes received, sent and answered.
    pub bodies: Option<Duration>,
    /// Everything.
    pub messages: Option<Duration>,
}

/// Which messages of a route may not overtake each other on the way to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Order {
    /// Those of one patient.
    #[default]
    Patient,
    /// All of the route.
    Route,
    /// None: each may go as soon as it can.
    None,
    /// Those with one value at this place; all others of the route that have none there.
    Value(Path),
}

impl serde::Serialize for Order {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Patient => serializer.serialize_str("patient"),
            Self::Route => serializer.serialize_str("route"),
            Self::None => serializer.serialize_str("none"),
            Self::Value(path) => serializer.collect_str(path),
        }
    }
}

/// One destination of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct To {
    /// Its name in `tie.toml`.
    pub destination: String,
    /// Why the data may go there.
    pub purpose: String,
    /// What to do with a message that it has not taken.
    pub policy: Policy,
}

/// One message with the output that the mapping must make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTest {
    /// The file of the message.
    pub message: PathBuf,
    /// The file of the expected output.
    pub expect: PathBuf,
    /// The line in the route's file, from 1.
    pub line: usize,
}

/// The names that a route may refer to; any name where nothing is known.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The listeners in `tie.toml`.
    pub listeners: Option<&'a BTreeSet<String>>,
    /// The destinations in `tie.toml`.
    pub destinations: Option<&'a BTreeSet<String>>,
    /// The mappings in `mappings/`.
    pub mappings: Option<&'a BTreeSet<String>>,
}

/// What routing looks at in a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header<'m> {
    /// MSH-9.1: `ADT`.
    code: Cow<'m, str>,
    /// MSH-9.1 and MSH-9.2: `ADT^A01`.
    trigger: Cow<'m, str>,
    /// MSH-3, first component.
    sending_application: Cow<'m, str>,
    /// MSH-4, first component.
    sending_facility: Cow<'m, str>,
    /// MSH-5, first component.
    receiving_application: Cow<'m, str>,
    /// MSH-6, first component.
    receiving_facility: Cow<'m, str>,
}

/// All routes of a revision, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    routes: Vec<Route>,
    by_listener: BTreeMap<String, Vec<usize>>,
}

impl Routes {
    /// Reads and checks the files of `routes/`.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn parse(files: &BTreeMap<PathBuf, Arc<str>>, known: &Known<'_>) -> Result<Self, Vec<Problem>> {
        parse::routes(files, known).map(Self::new)
    }

    fn new(mut routes: Vec<Route>) -> Self {
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut by_listener: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, route) in routes.iter().enumerate() {
            for listener in &route.from {
                by_listener.entry(listener.clone()).or_default().push(index);
            }
        }
        Self { routes, by_listener }
    }

    /// The routes that take a message, in the order of their names. Those with `otherwise` do where no other does.
    pub fn matching<'a>(
        &'a self,
        listener: &str,
        message: impl Into<Header<'a>>,
    ) -> impl Iterator<Item = &'a Route> {
        let header = message.into();
        rather(self.from(listener).filter(|route| route.accept.matches(&header)).collect())
    }

    /// The routes that take a message whatever its listener, likewise.
    pub fn taking(&self, message: &Incoming) -> impl Iterator<Item = &Route> {
        rather(self.iter().filter(|route| self.takes(route, message)).collect())
    }

    /// Whether a route takes a message from any of its listeners.
    pub fn takes(&self, route: &Route, message: &Incoming) -> bool {
        route.from.iter().any(|from| self.matching(from, message).any(|one| one.name == route.name))
    }

    /// The routes that take messages of a listener, whatever their header.
    pub fn from(&self, listener: &str) -> impl Iterator<Item = &Route> {
        self.by_listener.get(listener).into_iter().flatten().filter_map(|index| self.routes.get(*index))
    }

    /// The route of a name.
    pub fn get(&self, name: &str) -> Option<&Route> {
        self.routes
            .binary_search_by(|route| route.name.as_str().cmp(name))
            .ok()
            .and_then(|at| self.routes.get(at))
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }
}

/// Of routes that would take a message those with `otherwise` only where there are no others.
fn rather(all: Vec<&Route>) -> impl Iterator<Item = &Route> {
    let taken = all.iter().any(|route| !route.accept.otherwise);
    all.into_iter().filter(move |route| route.accept.otherwise != taken)
}

impl Accept {
    /// Whether the patterns match this header.
    fn matches(&self, header: &Header<'_>) -> bool {
        any_trigger(&self.trigger, header)
            && any(&self.sending_application, &header.sending_application)
            && any(&self.sending_facility, &header.sending_facility)
            && any(&self.receiving_application, &header.receiving_application)
            && any(&self.receiving_facility, &header.receiving_facility)
    }
}

impl<'m> Header<'m> {
    /// The header of a message; what is not there is empty.
    fn of(message: &'m Message) -> Self {
        let field = |number| message.header(number).text().unwrap_or_default();
        let trigger = message.trigger();
        Self {
            trigger: format!("{}^{}", trigger.code, trigger.event).into(),
            code: trigger.code,
            sending_application: field(3),
            sending_facility: field(4),
            receiving_application: field(5),
            receiving_facility: field(6),
        }
    }
}

impl<'m> From<&'m Message> for Header<'m> {
    fn from(message: &'m Message) -> Self {
        Self::of(message)
    }
}

/// Of a FHIR message the MessageHeader says it, or `meta.source`.
impl<'m> From<&'m Incoming> for Header<'m> {
    fn from(incoming: &'m Incoming) -> Self {
        let message = match incoming {
            Incoming::Hl7(message) => return Self::of(message),
            Incoming::Fhir(message) => message,
        };
        let said = |header: &[&str], otherwise: &str| Cow::Borrowed(message.said(header, otherwise));
        Self {
            code: incoming.code(),
            trigger: incoming.trigger().into(),
            sending_application: said(&["source.name", "source.endpoint"], "meta.source"),
            sending_facility: said(&["sender.identifier.value", "sender.display"], ""),
            receiving_application: said(&["destination.name", "destination.endpoint"], ""),
            receiving_facility: said(
                &["destination.receiver.identifier.value", "destination.receiver.display"],
                "",
            ),
        }
    }
}

/// The files that the tests of a route name, whatever else is wrong with it: what a snapshot must hold besides.
pub fn files_named(text: &str) -> Vec<PathBuf> {
    parse::files_named(text)
}

/// The JSON Schema of a file in `routes/`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(file::RouteFile)
}

fn any(patterns: &[Pattern], value: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(value))
}

fn any_trigger(patterns: &[Pattern], header: &Header<'_>) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|pattern| {
            pattern.matches(if pattern.as_str().contains('^') { &header.trigger } else { &header.code })
        })
}

#[cfg(test)]
mod tests;

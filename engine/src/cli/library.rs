//! Mappings and routes on the command line, with an instance or without one.

use std::path::Path;

use bytes::Bytes;
use encoding_rs::Encoding;
use jiff::{Timestamp, tz::TimeZone};

use super::{Exit, Place, complain, report};
use crate::{
    config::{self, Config, Environment},
    connector::Plugin,
    error::Problem,
    fhir::is_fhir,
    hl7::batch,
    incoming::Incoming,
    mapping::{Context, Limits, Mappings},
    revision::{self, SAMPLE_REVISION},
    routing::{Known, Routes},
};

/// What messages are mapped with: as `tie.toml` says, if there is one that can be read; else as for trying things out.
pub(super) struct Library {
    pub mappings: Mappings,
    /// The character set of messages that name none.
    pub charset: &'static Encoding,
    pub context: Context,
    routes: Result<Routes, Vec<Problem>>,
}

impl Library {
    /// Reads and compiles; what is wrong with the mappings is told.
    pub fn read(place: &Place, plugins: &'static [Plugin], received: Timestamp) -> Result<Self, Exit> {
        let file = place.config_file();
        let config = std::fs::read_to_string(&file)
            .ok()
            .and_then(|text| Config::parse(&file, text.into(), plugins).ok());
        let limits = config.as_ref().map_or_else(Limits::default, revision::limits);
        let read = config::library(&place.home, &file).and_then(|library| {
            let mappings = Mappings::compile_layers(&library.mappings, &library.folders, &limits)?;
            Ok((mappings, library.routes))
        });
        let (mappings, routes) = read.map_err(|problems| wrong(&problems, place))?;
        let names = mappings.names().map(str::to_owned).collect();
        let known = Known { listeners: None, destinations: None, mappings: Some(&names) };
        let routes = Routes::parse(&routes, &known);
        let charset = config.as_ref().and_then(|config| config.listeners.first());
        let charset = charset.map_or(encoding_rs::WINDOWS_1252, |listener| listener.charset);
        let context = context(config.as_ref(), received);
        Ok(Self { mappings, charset, context, routes })
    }

    /// The routes; what is wrong with them is told.
    pub fn routes(&self, place: &Place) -> Result<&Routes, Exit> {
        self.routes.as_ref().map_err(|problems| wrong(problems, place))
    }
}

fn context(config: Option<&Config>, received: Timestamp) -> Context {
    let zone = || TimeZone::get("Europe/London").unwrap_or(TimeZone::UTC);
    Context {
        received,
        zone: config.map_or_else(zone, |config| config.zone.clone()),
        environment: config.map_or(Environment::Test, |config| config.environment).word().into(),
        revision: SAMPLE_REVISION.into(),
        coverage: false,
    }
}

/// The mappings that the routes give a message, whatever its listener, each once.
pub(super) fn mappings_of<'r>(routes: &'r Routes, message: &Incoming) -> Vec<&'r str> {
    let mut found: Vec<&str> = Vec::new();
    for route in routes.taking(message) {
        if !found.contains(&route.map.as_str()) {
            found.push(&route.map);
        }
    }
    found
}

/// The messages of a file; what has none is handed on whole, to be told why.
pub(super) fn messages(file: &Path) -> Result<Vec<Bytes>, Exit> {
    let raw = Bytes::from(super::read(file)?);
    if is_fhir(&raw) {
        return Ok(vec![raw]);
    }
    let found = batch::split(&raw).messages;
    Ok(if found.is_empty() { vec![raw] } else { found })
}

fn wrong(problems: &[Problem], place: &Place) -> Exit {
    complain(report::rendered(problems, place.snapshot().ok().as_ref(), report::wants_colour()));
    Exit::Wrong
}

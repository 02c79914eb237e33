//! One conformance suite for all destinations and one for all sources, over real sockets; and what is special to
//! each connector.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod destinations;
mod fhir;
mod fhir_update;
mod mllp_sender;
mod peer;
mod plain_http;
mod sources;

use std::sync::Arc;

use tie_engine::connector::{Destination, Options, Source};

/// Builds a destination as the engine does.
fn destination(toml: &str) -> Arc<dyn Destination> {
    let text = format!("[destination.test]\n{toml}");
    let kind = kind(toml);
    let plugin = tie_plugins::ALL.iter().find(|plugin| plugin.name == kind).expect("a known connector");
    let role = plugin.destination.as_ref().expect("a destination");
    (role.build)(&Options::from_example(&text).unwrap()).unwrap()
}

/// Builds a source as the engine does.
fn source(toml: &str) -> Box<dyn Source> {
    let text = format!("[listener.test]\n{toml}");
    let kind = kind(toml);
    let plugin = tie_plugins::ALL.iter().find(|plugin| plugin.name == kind).expect("a known connector");
    let role = plugin.source.as_ref().expect("a source");
    (role.build)(&Options::from_example(&text).unwrap()).unwrap()
}

fn kind(toml: &str) -> &str {
    toml.strip_prefix("kind = \"").and_then(|rest| rest.split('"').next()).expect("the kind comes first")
}

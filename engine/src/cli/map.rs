//! `tie map`: what a mapping, or those of each message's routes, make of messages. Works where there is no `tie.toml` too.

use std::path::PathBuf;

use bytes::Bytes;
use encoding_rs::Encoding;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Exit, Place, complain,
    library::{self, Library},
    say,
};
use crate::{
    connector::{Payload, Plugin},
    incoming::Incoming,
    mapping::Finding,
    revision::{SAMPLE_RECEIVED, Sample},
    routing::Routes,
};

/// In the place of a mapping: those that each message's routes have.
const BY_ROUTES: &str = "auto";

/// Show what a mapping makes of messages.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The mapping: `adt` for mappings/adt.rhai; `auto` for those of the routes that take the message.
    mapping: String,
    /// Files with messages: plain, framed or in batches; `-` is stdin.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// When the messages are taken to have been received; fixed so that the output can be kept.
    #[arg(long, default_value = SAMPLE_RECEIVED, value_name = "TIME")]
    received: Timestamp,
    /// Also tell the fields, or elements of FHIR, that have a value and were not read.
    #[arg(long)]
    coverage: bool,
    /// Print one JSON object a message and mapping, with how it ended.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Exit {
    let mut library = match Library::read(place, plugins, arguments.received) {
        Ok(library) => library,
        Err(exit) => return exit,
    };
    library.context.coverage = arguments.coverage;
    let routes = match (arguments.mapping == BY_ROUTES).then(|| library.routes(place)).transpose() {
        Ok(routes) => routes,
        Err(exit) => return exit,
    };
    let mappings = &library.mappings;
    if routes.is_none() && !mappings.names().any(|name| name == arguments.mapping) {
        let known: Vec<&str> = mappings.names().chain([BY_ROUTES]).collect();
        complain(format_args!(
            "tie: there is no mapping `{}`; known are {}",
            arguments.mapping,
            known.join(", ")
        ));
        return Exit::Usage;
    }
    let mut exit = Exit::Well;
    for file in &arguments.files {
        let messages = match library::messages(file) {
            Ok(messages) => messages,
            Err(exit) => return exit,
        };
        for raw in messages {
            for (name, sample) in samples(arguments, routes, &library, &raw) {
                if !matches!(sample.result(), "mapped" | "skip") {
                    exit = Exit::Wrong;
                }
                if arguments.json {
                    say(format_args!("{}\n", as_json(file, &raw, library.charset, name, &sample)));
                } else {
                    tell(name.filter(|_| routes.is_some()), &sample);
                }
            }
        }
    }
    exit
}

/// What a message becomes, with the mapping that made it: none where no route takes it.
fn samples<'a>(
    arguments: &'a Arguments,
    routes: Option<&'a Routes>,
    library: &Library,
    raw: &Bytes,
) -> Vec<(Option<&'a str>, Sample)> {
    let names = match routes {
        Some(routes) => mappings_of(routes, raw.clone(), library.charset),
        None => vec![arguments.mapping.as_str()],
    };
    if names.is_empty() {
        return vec![(None, Sample::Unrouted)];
    }
    let Library { mappings, charset, context, .. } = library;
    let sample = |name| (Some(name), Sample::of(mappings, name, raw.clone(), charset, context));
    names.into_iter().map(sample).collect()
}

/// The mappings of a message; any one for what is no message, which none can read.
fn mappings_of<'r>(routes: &'r Routes, raw: Bytes, charset: &'static Encoding) -> Vec<&'r str> {
    match Incoming::read(raw, charset) {
        Ok(message) => library::mappings_of(routes, &message),
        Err(_) => routes.iter().take(1).map(|route| route.map.as_str()).collect(),
    }
}

/// The output, and beside it what is to be known of it.
fn tell(mapping: Option<&str>, sample: &Sample) {
    if let Some(name) = mapping {
        complain(format_args!("by the mapping {name}:"));
    }
    say(sample);
    remarks(sample);
}

fn remarks(sample: &Sample) {
    for finding in sample.findings() {
        complain(format_args!("look at: {}", told(finding)));
    }
    for removed in sample.outputs().iter().flat_map(Payload::removals) {
        complain(format_args!("removed: {removed}"));
    }
    if let Sample::Done(product) = sample {
        for spot in product.unread() {
            complain(format_args!("not read: {spot}"));
        }
    }
}

/// Whoever maps a message on the command line has the message: the code may be shown.
fn told(finding: &Finding) -> String {
    match finding {
        Finding::Unmapped { table, code } => format!("the table {table} has no row for `{code}`"),
        Finding::Remark(remark) => remark.to_string(),
        Finding::Doubtful(rule) => (*rule).to_owned(),
    }
}

/// Written by hand where the outputs stand, so that their numbers keep their digits.
fn as_json(
    file: &std::path::Path,
    raw: &Bytes,
    charset: &'static Encoding,
    mapping: Option<&str>,
    sample: &Sample,
) -> String {
    let message = Incoming::read(raw.clone(), charset).ok();
    let findings: Vec<String> = sample.findings().iter().map(told).collect();
    let unread: Vec<String> = match sample {
        Sample::Done(product) => product.unread().iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let head = json!({
        "file": file.display().to_string(),
        "control_id": message.as_ref().map(|message| message.control_id()),
        "trigger": message.as_ref().map(|message| format!("{}^{}", message.code(), message.event())),
        "mapping": mapping,
        "result": sample.result(),
        "reason": sample.reason(),
        "findings": findings,
        "unread": unread,
        "removed": sample.outputs().iter().flat_map(Payload::removals).collect::<Vec<_>>(),
    });
    let head = head.to_string();
    let outputs: Vec<String> = sample.outputs().iter().map(output).collect();
    format!("{},\"outputs\":[{}]}}", head.strip_suffix('}').unwrap_or(&head), outputs.join(","))
}

fn output(payload: &Payload) -> String {
    let payload = payload.without_removals();
    let text = String::from_utf8_lossy(payload.bytes());
    match payload {
        Payload::Hl7(_) => Value::from(text).to_string(),
        Payload::FhirBundle(_) | Payload::FhirResource { .. } => text.into_owned(),
    }
}

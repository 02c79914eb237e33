//! `tie map`: what a mapping makes of messages. Works where there is no `tie.toml` too, unless routes are asked.

use std::path::PathBuf;

use bytes::Bytes;
use encoding_rs::Encoding;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{Exit, Place, complain, report, say};
use crate::{
    config::{self, Config, Environment},
    connector::{Payload, Plugin},
    error::Problem,
    hl7::{Message, batch},
    mapping::{Context, Finding, Limits, Mappings},
    revision::{self, SAMPLE_RECEIVED, Sample},
    routing::{Route, Routes},
};

/// In the place of a mapping: the one that each message's route has.
const BY_ROUTES: &str = "auto";

/// Show what a mapping makes of messages.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The mapping: `adt` for mappings/adt.rhai; `auto` for that of the first route that takes the message.
    mapping: String,
    /// Files with messages: plain, framed or in batches; `-` is stdin.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// When the messages are taken to have been received; fixed so that the output can be kept.
    #[arg(long, default_value = SAMPLE_RECEIVED, value_name = "TIME")]
    received: Timestamp,
    /// Also tell the fields that have a value and were not read.
    #[arg(long)]
    coverage: bool,
    /// Print one JSON object a message, with how it ended.
    #[arg(long)]
    json: bool,
}

/// What mappings are told of the instance.
struct Instance {
    charset: &'static Encoding,
    limits: Limits,
    context: Context,
}

pub(super) fn run(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Exit {
    let Instance { charset, limits, context } = instance(arguments, place, plugins);
    let (mappings, routes) = match mappings(arguments, place, plugins, &limits) {
        Ok(found) => found,
        Err(problems) => {
            complain(report::rendered(&problems, place.snapshot().ok().as_ref(), report::wants_colour()));
            return Exit::Wrong;
        }
    };
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
        let raw = match super::read(file) {
            Ok(raw) => Bytes::from(raw),
            Err(exit) => return exit,
        };
        for raw in messages(raw) {
            let name = match &routes {
                Some(routes) => mapping_of(routes, raw.clone(), charset),
                None => Some(arguments.mapping.clone()),
            };
            let sample = match &name {
                Some(name) => Sample::of(&mappings, name, raw.clone(), charset, &context),
                None => Sample::Unrouted,
            };
            if !matches!(sample.result(), "mapped" | "skip") {
                exit = Exit::Wrong;
            }
            if arguments.json {
                say(format_args!("{}\n", as_json(file, &raw, charset, name.as_deref(), &sample)));
            } else {
                say(&sample);
                remarks(&sample);
            }
        }
    }
    exit
}

/// All mappings, and the routes when these are to say which is taken.
fn mappings(
    arguments: &Arguments,
    place: &Place,
    plugins: &'static [Plugin],
    limits: &Limits,
) -> Result<(Mappings, Option<Routes>), Vec<Problem>> {
    if arguments.mapping != BY_ROUTES {
        return Ok((Mappings::compile(&config::mappings(&place.home)?, limits)?, None));
    }
    // Not a whole revision: what the routes' tests expect may be what is asked for here.
    let snapshot = place.snapshot()?;
    let mappings = Mappings::compile(&snapshot.mappings, limits)?;
    let config = Config::parse(&snapshot.config_file, snapshot.config.clone(), plugins)?;
    let routes = revision::routes(&snapshot, &config, &mappings.names().map(str::to_owned).collect())?;
    Ok((mappings, Some(routes)))
}

/// The mapping of the first route that takes a message; any for what is no message, which none can read.
fn mapping_of(routes: &Routes, raw: Bytes, charset: &'static Encoding) -> Option<String> {
    let message = Message::parse(raw, charset).ok();
    let takes = |route: &&Route| message.as_ref().is_none_or(|message| routes.takes(route, message));
    routes.iter().find(takes).map(|route| route.map.clone())
}

/// As `tie.toml` says, if there is one that can be read; else as for trying things out.
fn instance(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Instance {
    let file = place.config_file();
    let config =
        std::fs::read_to_string(&file).ok().and_then(|text| Config::parse(&file, text.into(), plugins).ok());
    let zone = || TimeZone::get("Europe/London").unwrap_or(TimeZone::UTC);
    let listener = config.as_ref().and_then(|config| config.listeners.first());
    Instance {
        charset: listener.map_or(encoding_rs::WINDOWS_1252, |listener| listener.charset),
        limits: config.as_ref().map_or_else(Limits::default, revision::limits),
        context: Context {
            received: arguments.received,
            zone: config.as_ref().map_or_else(zone, |config| config.zone.clone()),
            environment: config.as_ref().map_or(Environment::Test, |config| config.environment).word().into(),
            coverage: arguments.coverage,
        },
    }
}

/// The messages of a file; what has none is handed on whole, to be told why.
fn messages(raw: Bytes) -> Vec<Bytes> {
    let found = batch::split(&raw).messages;
    if found.is_empty() { vec![raw] } else { found }
}

fn remarks(sample: &Sample) {
    for finding in sample.findings() {
        complain(format_args!("look at: {}", told(finding)));
    }
    if let Sample::Done(product) = sample {
        for (segment, field) in &product.unread {
            complain(format_args!("not read: {segment}-{field}"));
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
    let message = Message::parse(raw.clone(), charset).ok();
    let findings: Vec<String> = sample.findings().iter().map(told).collect();
    let unread: Vec<String> = match sample {
        Sample::Done(product) => {
            product.unread.iter().map(|(segment, field)| format!("{segment}-{field}")).collect()
        }
        _ => Vec::new(),
    };
    let head = json!({
        "file": file.display().to_string(),
        "control_id": message.as_ref().map(|message| message.control_id()),
        "trigger": message.as_ref().map(|message| {
            let trigger = message.trigger();
            format!("{}^{}", trigger.code, trigger.event)
        }),
        "mapping": mapping,
        "result": sample.result(),
        "reason": sample.reason(),
        "findings": findings,
        "unread": unread,
    });
    let head = head.to_string();
    let outputs: Vec<String> = sample.outputs().iter().map(output).collect();
    format!("{},\"outputs\":[{}]}}", head.strip_suffix('}').unwrap_or(&head), outputs.join(","))
}

fn output(payload: &Payload) -> String {
    let text = String::from_utf8_lossy(payload.bytes());
    match payload {
        Payload::Hl7(_) => Value::from(text).to_string(),
        Payload::FhirBundle(_) | Payload::FhirResource { .. } => text.into_owned(),
    }
}

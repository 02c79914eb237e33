//! `tie map`: what a mapping makes of messages. Works where there is no `tie.toml` too.

use std::path::PathBuf;

use bytes::Bytes;
use encoding_rs::Encoding;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{Exit, Place, complain, report, say};
use crate::{
    config::{self, Config, Environment},
    connector::{Payload, Plugin},
    hl7::batch,
    incoming::{Incoming, is_fhir},
    mapping::{Context, Finding, Limits, Mappings},
    revision::{self, SAMPLE_RECEIVED, Sample},
};

/// Show what a mapping makes of messages.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The mapping: `adt` for mappings/adt.rhai.
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
    let mappings = config::mappings(&place.home).and_then(|files| Mappings::compile(&files, &limits));
    let mappings = match mappings {
        Ok(mappings) => mappings,
        Err(problems) => {
            complain(report::rendered(&problems, place.snapshot().ok().as_ref(), report::wants_colour()));
            return Exit::Wrong;
        }
    };
    if !mappings.names().any(|name| name == arguments.mapping) {
        let known: Vec<&str> = mappings.names().collect();
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
            let sample = Sample::of(&mappings, &arguments.mapping, raw.clone(), charset, &context);
            if !matches!(sample.result(), "mapped" | "skip") {
                exit = Exit::Wrong;
            }
            if arguments.json {
                say(format_args!("{}\n", as_json(file, &raw, charset, &sample)));
            } else {
                say(&sample);
                remarks(&sample);
            }
        }
    }
    exit
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
    if is_fhir(&raw) {
        return vec![raw];
    }
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
fn as_json(file: &std::path::Path, raw: &Bytes, charset: &'static Encoding, sample: &Sample) -> String {
    let message = Incoming::read(raw.clone(), charset).ok();
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
        "trigger": message.as_ref().map(|message| format!("{}^{}", message.code(), message.event())),
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

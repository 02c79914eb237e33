//! `tie plugins`: the connectors, every key they take with its default, and the schemas for editors.

use serde_json::Value;

use super::{Exit, complain, say};
use crate::{config, connector::Plugin, routing};

/// Show the connectors and what can be configured.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// One connector, to see all its keys and an example.
    name: Option<String>,
    /// Print the JSON Schema of a file, for editors, instead.
    #[arg(long, value_enum, value_name = "FILE", conflicts_with = "name")]
    schema: Option<Kind>,
}

/// The files that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// tie.toml.
    Tie,
    /// A file in routes/.
    Route,
}

pub(super) fn run(arguments: &Arguments, plugins: &'static [Plugin]) -> Exit {
    if let Some(kind) = arguments.schema {
        let schema = match kind {
            Kind::Tie => config::schema(plugins),
            Kind::Route => routing::schema().to_value(),
        };
        say(format_args!("{schema:#}\n"));
        return Exit::Well;
    }
    let Some(name) = &arguments.name else {
        for plugin in plugins {
            let roles = match (&plugin.source, &plugin.destination) {
                (Some(_), Some(_)) => "listener, destination",
                (Some(_), None) => "listener",
                (None, _) => "destination",
            };
            say(format_args!("{:<10} {:<22} {}\n", plugin.name, roles, plugin.about));
        }
        return Exit::Well;
    };
    let Some(plugin) = plugins.iter().find(|plugin| plugin.name == name) else {
        let known: Vec<&str> = plugins.iter().map(|plugin| plugin.name).collect();
        complain(format_args!("tie: there is no connector `{name}`; known are {}", known.join(", ")));
        return Exit::Usage;
    };
    say(format_args!("{}: {}\n", plugin.name, plugin.about));
    let schema = config::schema(plugins);
    if let Some(role) = &plugin.source {
        describe("listener", plugin.name, role.example, &schema);
    }
    if let Some(role) = &plugin.destination {
        describe("destination", plugin.name, role.example, &schema);
        say(answers(plugin));
    }
    Exit::Well
}

fn describe(section: &str, name: &str, example: &str, schema: &Value) {
    say(format_args!("\nAs a {section}:\n\n"));
    let variants = &schema.pointer(&format!("/properties/{section}/additionalProperties/oneOf"));
    let table = variants.and_then(Value::as_array).and_then(|variants| {
        variants.iter().find(|variant| variant.get("title").is_some_and(|title| title == name))
    });
    if let Some(table) = table {
        keys(table, schema, "", 0);
    }
    say(format_args!("\n{}\n", example.trim_end()));
}

/// What an answer means unless `errors` says otherwise. A sign of an earlier table hides that of a later.
fn answers(plugin: &Plugin) -> String {
    let mut lines = vec!["\nWhat an answer means, unless `errors` says otherwise:\n".to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    for (sign, class, why) in plugin.answers.iter().flat_map(|table| table.iter()) {
        if seen.insert(sign) {
            lines.push(format!("  {sign:<18} {:<14} {why}", class.word()));
        }
    }
    lines.join("\n") + "\n"
}

/// Every key of a table, with those of the tables in it. A schema may refer to itself: not deeper than this.
fn keys(table: &Value, schema: &Value, before: &str, depth: usize) {
    let required = table.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(properties) = table.get("properties").and_then(Value::as_object) else { return };
    for (key, value) in properties {
        let inner = resolved(value, schema);
        let about = [value, inner]
            .into_iter()
            .find_map(|value| value.get("description")?.as_str())
            .unwrap_or_default();
        let default = match value.get("default") {
            _ if required.contains(&Value::from(key.as_str())) => "required".to_owned(),
            Some(Value::Null) | None => "optional".to_owned(),
            Some(default) => format!("default {default}"),
        };
        let about = about.split_whitespace().collect::<Vec<_>>().join(" ") + words(inner).as_str();
        say(format_args!("  {:<28} {:<24} {about}\n", format!("{before}{key}"), default));
        if depth < 3 {
            keys(inner, schema, &format!("{before}{key}."), depth + 1);
        }
    }
}

/// The words that a value may be, if they are few and known.
fn words(value: &Value) -> String {
    let plain = value.get("enum").and_then(Value::as_array).into_iter().flatten();
    let described = value.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let words: Vec<&str> =
        plain.chain(described.filter_map(|variant| variant.get("const"))).filter_map(Value::as_str).collect();
    if words.is_empty() { String::new() } else { format!(" One of {}.", words.join(", ")) }
}

/// Follows a reference, also one that may be null.
fn resolved<'a>(value: &'a Value, schema: &'a Value) -> &'a Value {
    let optional = |value: &'a Value| {
        let variants = value.get("anyOf")?.as_array()?;
        variants.iter().find(|variant| variant.get("$ref").is_some())
    };
    let value = optional(value).unwrap_or(value);
    let target = value.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
    target.and_then(|target| schema.pointer(target)).unwrap_or(value)
}

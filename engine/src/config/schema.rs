//! The JSON Schema of `tie.toml`, joined from the engine's own keys and the options of every connector.

use serde_json::{Map, Value, json};

use super::tables::{DestinationTable, Head, ListenerTable};
use crate::connector::Plugin;

/// The JSON Schema of `tie.toml` with these connectors, for editors.
pub fn schema(plugins: &[Plugin]) -> Value {
    let mut root = schemars::schema_for!(Head).to_value();
    let mut definitions = take(&mut root, "$defs");
    let sources = plugins.iter().filter_map(|plugin| Some((plugin, plugin.source.as_ref()?.schema)));
    let listener =
        section(schemars::schema_for!(ListenerTable).to_value(), sources, "listener", &mut definitions);
    let destinations =
        plugins.iter().filter_map(|plugin| Some((plugin, plugin.destination.as_ref()?.schema)));
    let destination = section(
        schemars::schema_for!(DestinationTable).to_value(),
        destinations,
        "destination",
        &mut definitions,
    );
    if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("listener".to_owned(), listener);
        properties.insert("destination".to_owned(), destination);
    }
    if let Some(root) = root.as_object_mut() {
        root.insert("title".to_owned(), json!("tie.toml"));
        root.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

/// `[listener.*]` or `[destination.*]`: the engine's keys and those of the connector that `kind` names.
fn section<'a>(
    mut common: Value,
    roles: impl Iterator<Item = (&'a Plugin, fn() -> schemars::Schema)>,
    section: &str,
    definitions: &mut Map<String, Value>,
) -> Value {
    definitions.extend(take(&mut common, "$defs"));
    let variants: Vec<Value> = roles
        .map(|(plugin, schema)| {
            let mut options = schema().to_value();
            let prefix = format!("{section}.{}", plugin.name);
            move_references(&mut options, &prefix);
            let own = take(&mut options, "$defs");
            definitions.extend(own.into_iter().map(|(name, value)| (format!("{prefix}.{name}"), value)));
            joined(plugin, &common, options)
        })
        .collect();
    json!({ "type": "object", "additionalProperties": { "oneOf": variants } })
}

/// One connector's options with the engine's keys before them.
fn joined(plugin: &Plugin, common: &Value, mut options: Value) -> Value {
    let mut properties = common.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(kind) = properties.get_mut("kind").and_then(Value::as_object_mut) {
        kind.insert("const".to_owned(), json!(plugin.name));
    }
    properties.extend(take(&mut options, "properties"));
    let required: Vec<Value> = [common, &options]
        .into_iter()
        .filter_map(|schema| schema.get("required")?.as_array())
        .flatten()
        .cloned()
        .collect();
    json!({
        "title": plugin.name,
        "description": plugin.about,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn take(schema: &mut Value, key: &str) -> Map<String, Value> {
    match schema.as_object_mut().and_then(|schema| schema.remove(key)) {
        Some(Value::Object(found)) => found,
        _ => Map::new(),
    }
}

/// Two connectors may both have a definition `Tls`: each keeps its own.
fn move_references(schema: &mut Value, prefix: &str) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(name) = target.strip_prefix("#/$defs/") {
                            *target = format!("#/$defs/{prefix}.{name}");
                        }
                    }
                    _ => move_references(value, prefix),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, prefix)),
        _ => {}
    }
}

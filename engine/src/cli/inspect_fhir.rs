//! `tie inspect` of FHIR: what the engine makes of it, and the resource with one element a line.

use bytes::Bytes;

use super::{Exit, complain, say};
use crate::{incoming::FhirMessage, revision::pretty};

/// Wrong when it cannot be read.
pub(super) fn run(raw: Bytes, json: bool) -> Exit {
    let message = match FhirMessage::parse(raw.clone()) {
        Ok(message) => message,
        Err(error) => {
            complain(format_args!("tie: {error}"));
            return Exit::Wrong;
        }
    };
    let text = String::from_utf8_lossy(&raw);
    let (event, id, bytes) = (message.event(), message.control_id(), raw.len());
    if json {
        let head =
            serde_json::json!({ "trigger": format!("FHIR^{event}"), "control_id": id, "bytes": bytes })
                .to_string();
        // As it stands, so that its numbers keep their digits.
        say(format_args!("{},\"resource\":{}}}\n", head.strip_suffix('}').unwrap_or(&head), text.trim()));
    } else {
        let resources = message.resources().count();
        say(format_args!(
            "FHIR^{event}, control id {id}, {resources} resources, {bytes} bytes\n{}",
            pretty(&text)
        ));
    }
    Exit::Well
}

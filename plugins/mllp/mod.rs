//! `mllp`: HL7 v2 over TCP in MLLP frames, as a listener and as a destination.
//!
//! One write per acknowledgement and per message. Frames are found by `hl7::framing`.

mod connections;
mod listener;
mod listener_options;
mod sender;

use tie_engine::connector::{Plugin, Role};

/// The connector.
pub const PLUGIN: Plugin = Plugin {
    name: "mllp",
    about: "HL7 v2 over TCP in MLLP frames, both ways.",
    source: Some(Role {
        example: listener_options::EXAMPLE,
        schema: || schemars::schema_for!(listener_options::ListenerOptions),
        build: listener::build,
    }),
    destination: Some(Role {
        example: sender::EXAMPLE,
        schema: || schemars::schema_for!(sender::SenderOptions),
        build: sender::build,
    }),
    answers: sender::TABLES,
};

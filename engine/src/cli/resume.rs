//! `tie resume`: let a paused engine deliver again, such as after a restore.

use serde_json::json;

use super::{Exit, Place, client::Target, say};

/// Let a paused engine deliver again, such as after a restore.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Why, for the audit.
    #[arg(long, value_name = "TEXT")]
    why: String,
}

pub(super) fn run(arguments: &Arguments, place: &Place) -> Exit {
    let who = std::env::var("USER").unwrap_or_default();
    match arguments.target.post(place, "/api/resume", &json!({ "who": who, "why": arguments.why })) {
        Ok(_) => {
            say("Deliveries go on.\n");
            Exit::Well
        }
        Err(exit) => exit,
    }
}

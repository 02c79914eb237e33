//! `tie reload`: read the configuration again now. The engine does so by itself when files change.

use super::{Exit, Place, client::Target, complain, report, say};
use crate::admin::{ReloadResult, ReloadStatus};

/// Have a running engine read its configuration again now.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, place: &Place) -> Exit {
    let answer = match arguments.target.post(place, "/api/reload", &serde_json::json!({})) {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let Ok(status) = serde_json::from_value::<ReloadStatus>(answer.clone()) else {
        complain("tie: the engine answers in another version's words");
        return Exit::Unreachable;
    };
    if arguments.json {
        say(format_args!("{answer}\n"));
    } else {
        complain(
            report::rendered(&status.problems, place.snapshot().ok().as_ref(), report::wants_colour())
                .trim_end(),
        );
        say(match status.result {
            ReloadResult::Live => "The configuration is live.\n",
            ReloadResult::Unchanged => "Nothing has changed.\n",
            ReloadResult::Refused => "The configuration was refused; what was live still is.\n",
        });
    }
    if status.result == ReloadResult::Refused { Exit::Wrong } else { Exit::Well }
}

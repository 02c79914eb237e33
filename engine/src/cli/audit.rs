//! `tie audit`: who has decided what about deliveries.

use super::{Exit, Place, client::Target, complain, say};
use crate::admin::Audits;

/// Show what persons have decided about the deliveries of a running engine, the newest first.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    limit: usize,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, place: &Place) -> Exit {
    let answer = match arguments.target.get(place, &format!("/api/audit?limit={}", arguments.limit)) {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let Ok(Audits { audit }) = serde_json::from_value::<Audits>(answer.clone()) else {
        complain("tie: the engine answers in another version's words");
        return Exit::Unreachable;
    };
    if arguments.json {
        say(format_args!("{answer}\n"));
        return Exit::Well;
    }
    for line in audit {
        let why = if line.why.is_empty() { String::new() } else { format!(": {}", line.why) };
        say(format_args!(
            "{:.0}  {:<8} {:>7} deliveries by {}{why}  {}\n",
            line.at, line.action, line.deliveries, line.who, line.asked
        ));
    }
    Exit::Well
}

//! `tie replay`: do deliveries again, after the cause was mended.

use super::{Exit, Place, client::Target, complain, say};
use crate::{
    admin::{ReplayAnswer, ReplayRequest},
    journal::State,
};

/// Have a running engine do deliveries again.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// In which state they are; may be given several times.
    #[arg(long = "state", value_enum, value_name = "STATE", default_value = "dead")]
    states: Vec<Again>,
    /// To this destination only.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Of this route only.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Of the message at this place in the journal only.
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<i64>,
    /// Of messages with this control id (MSH-10) only.
    #[arg(long, value_name = "ID")]
    control_id: Option<String>,
    /// At most so many, the oldest first.
    #[arg(long, default_value_t = 1000, value_name = "NUMBER")]
    limit: usize,
    /// Only say which.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit.
    #[arg(long, default_value = "", value_name = "TEXT")]
    why: String,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// The states that a person may send back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Again {
    /// Set aside for a person.
    Dead,
    /// Its lane waits because of it.
    Parked,
    /// It waits for a person.
    Held,
    /// The mapping decided that it was not for this destination.
    Filtered,
    /// The destination has taken it: it will get it again.
    Delivered,
}

pub(super) fn run(arguments: &Arguments, place: &Place) -> Exit {
    let Arguments { states, destination, route, sequence, control_id, limit, dry_run, why, .. } = arguments;
    let request = ReplayRequest {
        states: states.iter().map(|state| state.state()).collect(),
        destination: destination.clone(),
        route: route.clone(),
        sequence: *sequence,
        control_id: control_id.clone(),
        limit: *limit,
        dry_run: *dry_run,
        who: std::env::var("USER").unwrap_or_default(),
        why: why.clone(),
    };
    let body = serde_json::to_value(&request).unwrap_or_default();
    let answer = match arguments.target.post(place, "/api/replay", &body) {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let Ok(replayed) = serde_json::from_value::<ReplayAnswer>(answer.clone()) else {
        complain("tie: the engine answers in another version's words");
        return Exit::Unreachable;
    };
    if arguments.json {
        say(format_args!("{answer}\n"));
        return Exit::Well;
    }
    for delivery in &replayed.first {
        say(format_args!("message {}  {} → {}\n", delivery.sequence, delivery.route, delivery.destination));
    }
    let more = replayed.deliveries.saturating_sub(replayed.first.len() as u64);
    if more > 0 {
        say(format_args!("… and {more} more\n"));
    }
    let verb = if replayed.dry_run { "would be" } else { "will be" };
    say(format_args!("{} deliveries {verb} done again.\n", replayed.deliveries));
    Exit::Well
}

impl Again {
    fn state(self) -> State {
        match self {
            Self::Dead => State::Dead,
            Self::Parked => State::Parked,
            Self::Held => State::Held,
            Self::Filtered => State::Filtered,
            Self::Delivered => State::Delivered,
        }
    }
}

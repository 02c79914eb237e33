//! `tie lanes`: what waits, since when, why, and how much waits behind it.

use super::{Exit, Place, client::Target, complain, say};
use crate::admin::{Lane, Lanes};

/// Show the lanes of a running engine that wait: for their next attempt or for a person.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Of this destination only.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// At most so many, the oldest first.
    #[arg(long, default_value_t = 100, value_name = "NUMBER")]
    limit: usize,
    /// Print the lanes as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, place: &Place) -> Exit {
    let mut path = format!("/api/lanes?limit={}", arguments.limit);
    if let Some(destination) = &arguments.destination {
        let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if !destination.chars().all(sound) {
            complain(format_args!("tie: `{destination}` is no name of a destination"));
            return Exit::Usage;
        }
        path += &format!("&destination={destination}");
    }
    let answer = match arguments.target.get(place, &path) {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let Ok(lanes) = serde_json::from_value::<Lanes>(answer.clone()) else {
        complain("tie: the engine answers in another version's words");
        return Exit::Unreachable;
    };
    match arguments.json {
        true => say(format_args!("{answer}\n")),
        false => say(page(&lanes)),
    }
    Exit::Well
}

fn page(Lanes { lanes, complete, counted_all }: &Lanes) -> String {
    if lanes.is_empty() {
        return "No lane waits.\n".to_owned();
    }
    let at_least = if *counted_all { "" } else { "at least " };
    let mut lines: Vec<String> = lanes.iter().map(|lane| line(lane, at_least)).collect();
    if !complete {
        lines.push(format!("… only the oldest {} are shown", lanes.len()));
    }
    lines.join("\n") + "\n"
}

fn line(lane: &Lane, at_least: &str) -> String {
    let since = lane.since.map(|since| format!(" since {since:.0}")).unwrap_or_default();
    let class = lane.class.as_deref().map(|class| format!(" ({class})")).unwrap_or_default();
    format!(
        "{:<8} message {:<8} {} → {}  lane {}{since}, {} attempts, {at_least}{} behind: {}{class}",
        lane.state.word(),
        lane.sequence,
        lane.route,
        lane.destination,
        lane.lane,
        lane.attempts,
        lane.behind,
        lane.reason,
    )
}

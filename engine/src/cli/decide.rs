//! `tie replay`, `tie release`, `tie skip`: what a person decides about deliveries, audited by the engine.

use super::{Exit, Place, client::Target, complain, say};
use crate::{
    admin::{DecisionAnswer, DecisionRequest},
    journal::{Decision, State},
};

/// Have a running engine do deliveries again, mapped anew by what is live now, in their old place in their lanes.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArguments {
    /// In which state they are; may be given several times.
    #[arg(long = "state", value_enum, value_name = "STATE", default_value = "dead")]
    states: Vec<Again>,
    #[command(flatten)]
    which: Which,
    /// Why, for the audit.
    #[arg(long, default_value = "", value_name = "TEXT")]
    why: String,
}

/// Let parked and held deliveries of a running engine go on, and their lanes with them.
#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArguments {
    /// In which state they are; may be given several times; both if it is not.
    #[arg(long = "state", value_enum, value_name = "STATE")]
    states: Vec<Waits>,
    /// Map them anew by what is live now, instead of sending what was made.
    #[arg(long)]
    remap: bool,
    #[command(flatten)]
    which: Which,
    /// Why, for the audit.
    #[arg(long, default_value = "", value_name = "TEXT")]
    why: String,
}

/// Make waiting deliveries of a running engine dead letters; their lanes go on.
#[derive(Debug, clap::Args)]
pub(super) struct SkipArguments {
    /// In which state they are; may be given several times; parked and held if it is not.
    #[arg(long = "state", value_enum, value_name = "STATE")]
    states: Vec<Stuck>,
    #[command(flatten)]
    which: Which,
    /// Why: for the audit and as the reason of the dead letter. Name no patient.
    #[arg(long, value_name = "TEXT")]
    why: String,
}

/// Which deliveries are meant.
#[derive(Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    target: Target,
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
    /// Of messages after this place in the journal only: where an earlier decision said to go on.
    #[arg(long, value_name = "NUMBER")]
    after: Option<i64>,
    /// At most so many, the oldest first; if there are more it is said where to go on. The deliveries of one message are
    /// not divided.
    #[arg(long, default_value_t = 1000, value_name = "NUMBER")]
    limit: usize,
    /// Only say which.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What may be done again.
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

/// What may be let go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Waits {
    /// Its lane waits because of it.
    Parked,
    /// It waits for a person.
    Held,
}

/// What may be set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Stuck {
    /// Its lane waits because of it.
    Parked,
    /// It waits for a person.
    Held,
    /// It would be tried again by itself.
    Retrying,
}

pub(super) fn replay(arguments: &ReplayArguments, place: &Place) -> Exit {
    let states = arguments.states.iter().map(|state| match state {
        Again::Dead => State::Dead,
        Again::Parked => State::Parked,
        Again::Held => State::Held,
        Again::Filtered => State::Filtered,
        Again::Delivered => State::Delivered,
    });
    arguments.which.decide(Decision::Replay, states.collect(), &arguments.why, place)
}

pub(super) fn release(arguments: &ReleaseArguments, place: &Place) -> Exit {
    let states = arguments.states.iter().map(|state| match state {
        Waits::Parked => State::Parked,
        Waits::Held => State::Held,
    });
    let decision = if arguments.remap { Decision::Replay } else { Decision::Release };
    arguments.which.decide(decision, or_both(states.collect()), &arguments.why, place)
}

pub(super) fn skip(arguments: &SkipArguments, place: &Place) -> Exit {
    let states = arguments.states.iter().map(|state| match state {
        Stuck::Parked => State::Parked,
        Stuck::Held => State::Held,
        Stuck::Retrying => State::Retrying,
    });
    arguments.which.decide(Decision::Skip, or_both(states.collect()), &arguments.why, place)
}

fn or_both(states: Vec<State>) -> Vec<State> {
    if states.is_empty() { vec![State::Parked, State::Held] } else { states }
}

impl Which {
    /// Asks the engine, and ends as wrong if there was nothing to decide about.
    fn decide(&self, decision: Decision, states: Vec<State>, why: &str, place: &Place) -> Exit {
        let request = DecisionRequest {
            states,
            destination: self.destination.clone(),
            route: self.route.clone(),
            sequence: self.sequence,
            control_id: self.control_id.clone(),
            after: self.after,
            limit: self.limit,
            dry_run: self.dry_run,
            who: std::env::var("USER").unwrap_or_default(),
            why: why.to_owned(),
        };
        let body = serde_json::to_value(&request).unwrap_or_default();
        let answer = match self.target.post(place, &format!("/api/{}", decision.word()), &body) {
            Ok(answer) => answer,
            Err(exit) => return exit,
        };
        let Ok(decided) = serde_json::from_value::<DecisionAnswer>(answer.clone()) else {
            complain("tie: the engine answers in another version's words");
            return Exit::Unreachable;
        };
        match self.json {
            true => say(format_args!("{answer}\n")),
            false => say(told(decision, &decided)),
        }
        if decided.deliveries > 0 { Exit::Well } else { Exit::Wrong }
    }
}

fn told(decision: Decision, decided: &DecisionAnswer) -> String {
    let mut lines: Vec<String> = decided
        .first
        .iter()
        .map(|one| format!("message {}  {} → {}", one.sequence, one.route, one.destination))
        .collect();
    let more = decided.deliveries.saturating_sub(decided.first.len() as u64);
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    if decided.without_bytes > 0 {
        let left = decided.without_bytes;
        lines.push(format!(
            "{left} more cannot be done again: retention has removed the bytes of their messages"
        ));
    }
    let verb = if decided.dry_run { "would be" } else { "will be" };
    let what = match decision {
        Decision::Replay => "done again",
        Decision::Release => "sent as they were made",
        Decision::Skip => "dead letters",
    };
    lines.push(format!("{} deliveries {verb} {what}.", decided.deliveries));
    if let Some(place) = decided.more_after {
        lines.push(format!(
            "That is not all: the limit is reached, and there are more. Go on with the same command and --after {place}"
        ));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_limit_left_is_told_with_where_to_go_on() {
        let answer = |more_after, dry_run| DecisionAnswer {
            deliveries: 1000,
            dry_run,
            without_bytes: 0,
            more_after,
            first: Vec::new(),
        };
        let all = told(Decision::Replay, &answer(None, true));
        assert!(all.ends_with("1000 deliveries would be done again.\n") && !all.contains("--after"), "{all}");
        for dry_run in [true, false] {
            let some = told(Decision::Skip, &answer(Some(41), dry_run));
            assert!(some.contains("there are more") && some.ends_with("--after 41\n"), "{some}");
        }
    }
}

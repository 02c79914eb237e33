//! `tie status`: what is live, what waits, what failed.

use super::{Exit, Place, client::Target, complain, report, say};
use crate::admin::{ReloadResult, Status};

/// Show what a running engine has live, what waits and what failed.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Print the status as JSON.
    #[arg(long)]
    json: bool,
}

/// States in the order of the columns.
const STATES: [&str; 5] = ["ready", "retrying", "parked", "held", "dead"];

pub(super) fn run(arguments: &Arguments, place: &Place) -> Exit {
    let answer = match arguments.target.get(place, "/api/status") {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let Ok(status) = serde_json::from_value::<Status>(answer.clone()) else {
        complain("tie: the engine answers in another version's words");
        return Exit::Unreachable;
    };
    if arguments.json {
        say(format_args!("{answer}\n"));
    } else {
        say(page(&status));
        if let Some(reload) = &status.last_reload {
            let problems =
                report::rendered(&reload.problems, place.snapshot().ok().as_ref(), report::wants_colour());
            complain(problems.trim_end());
        }
    }
    let refused = status.last_reload.is_some_and(|reload| reload.result == ReloadResult::Refused);
    if status.readiness.ready && !refused { Exit::Well } else { Exit::Wrong }
}

fn page(status: &Status) -> String {
    let mut lines = vec![format!("TIE {}, {}, since {}", status.version, status.environment, status.started)];
    lines.push(match status.readiness.ready {
        true => "Messages are taken.".to_owned(),
        false => format!("Messages are NOT taken: {}", status.readiness.reasons.join("; ")),
    });
    let revision = &status.revision;
    let commit = revision.git_commit.as_deref().and_then(|commit| commit.get(..12));
    lines.push(format!(
        "Revision {}{}, live since {}",
        revision.id.get(..12).unwrap_or(&revision.id),
        commit.map(|commit| format!(" (git {commit})")).unwrap_or_default(),
        revision.since
    ));
    if let Some(reload) = status.last_reload.as_ref().filter(|reload| reload.result == ReloadResult::Refused)
    {
        lines
            .push(format!("The configuration on disk was REFUSED at {}; what was live still is.", reload.at));
    }
    let journal = &status.journal;
    lines.push(format!("Journal: {} messages so far, {} in quarantine", journal.last, journal.quarantined));
    if let Some(reason) = &journal.paused {
        lines.push(format!("PAUSED, nothing is delivered: {reason}. `tie resume` lets it go on."));
    }
    lines.push(String::new());
    for listener in &status.listeners {
        let state = if listener.serving { "serving" } else { "NOT serving" };
        let reason = listener.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        lines.push(format!("listener {:<24} {:<8} {state}{reason}", listener.name, listener.kind));
    }
    for destination in &status.destinations {
        let mut state = match destination.needs_a_look() {
            true => destination.standing.to_uppercase(),
            false => destination.standing.clone(),
        };
        if let Some(rate) = &destination.rate {
            state = format!("{state}, at most {rate}");
        }
        if let Some(reason) = &destination.reason {
            state = format!("{state}: {reason}");
        }
        lines.push(format!("destination {:<21} {:<8} {state}", destination.name, destination.kind));
        let counts: Vec<String> = STATES
            .iter()
            .filter_map(|state| {
                Some((state, destination.deliveries.get(*state).filter(|number| **number > 0)?))
            })
            .map(|(state, number)| format!("{number} {state}"))
            .collect();
        if !counts.is_empty() {
            let oldest =
                destination.oldest_seconds.map(|age| format!(", the oldest for {age} s")).unwrap_or_default();
            lines.push(format!("    {}{oldest}", counts.join(", ")));
        }
    }
    lines.join("\n") + "\n"
}

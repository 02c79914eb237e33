//! `tie check`: is the configuration right?

use serde_json::json;

use super::{
    Exit, Place, complain,
    report::{self, counted},
    say,
};
use crate::{connector::Plugin, error::Problem, mapping::Override, revision::Revision};

/// Check the whole configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Exit {
    let snapshot = place.snapshot();
    let built = match &snapshot {
        Ok(snapshot) => Revision::build(snapshot, plugins),
        Err(problems) => Err(problems.clone()),
    };
    let (problems, sound) = match &built {
        Ok(revision) => (revision.warnings.as_slice(), Some(revision)),
        Err(problems) => (problems.as_slice(), None),
    };
    if arguments.json {
        let id = sound.map(|revision| &revision.id);
        let overrides = sound.map(|revision| revision.mappings.overrides());
        let told =
            json!({ "ok": sound.is_some(), "revision": id, "problems": problems, "overrides": overrides });
        say(format_args!("{told}\n"));
    } else {
        complain(report::rendered(problems, snapshot.as_ref().ok(), report::wants_colour()).trim_end());
        summary(sound, problems);
    }
    if sound.is_some() { Exit::Well } else { Exit::Wrong }
}

fn summary(sound: Option<&Revision>, problems: &[Problem]) {
    match sound {
        Some(revision) => {
            for Override { file, of, what } in revision.mappings.overrides() {
                say(format_args!("{} goes before {}: {what}\n", file.display(), of.display()));
            }
            let routes = counted(revision.routes.iter().count(), "route");
            let mappings = counted(revision.mappings.names().count(), "mapping");
            let warnings = match problems.len() {
                0 => String::new(),
                number => format!(", {number} to look at"),
            };
            say(format_args!(
                "The configuration is sound: {routes}, {mappings}{warnings}. Revision {}.\n",
                revision.short()
            ));
        }
        None => {
            let problems = counted(problems.len(), "problem");
            complain(format_args!("The configuration is not sound: {problems}."));
        }
    }
}

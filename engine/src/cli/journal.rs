//! `tie journal`: look at, copy and put back the journal of this instance.
//!
//! Promise: verify, backup and stats work beside a running engine and write nothing in its directory.

use std::path::PathBuf;

use serde_json::json;

use super::{Exit, Place, complain, say};
use crate::{
    clock::{Clock, SystemClock},
    config,
    journal::sqlite::{self, Report},
};

/// Look at, copy and put back the journal of this instance.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The journal's directory, if it is not the one in the configuration.
    #[arg(long, global = true, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Look at every page and every body: says which messages and deliveries are damaged.
    Verify,
    /// Copy the journal to a directory that has none, also while an engine runs, and read the copy back.
    Backup {
        /// Where to: a directory, made if it is not there.
        to: PathBuf,
    },
    /// Put a backup back where no journal is. It comes up paused: nothing is delivered until `tie resume`.
    Restore {
        /// The directory of the backup.
        from: PathBuf,
    },
    /// Say how much is in the journal.
    Stats,
}

pub(super) fn run(arguments: &Arguments, place: &Place) -> Exit {
    let directory = match directory(arguments, place) {
        Ok(directory) => directory,
        Err(exit) => return exit,
    };
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    runtime.block_on(async {
        match &arguments.what {
            What::Verify => match sqlite::verify(&directory).await {
                Ok(report) => verified(&report, arguments.json),
                Err(error) => failed(&error),
            },
            What::Backup { to } => match sqlite::backup(&directory, to).await {
                Ok(report) => copied(&report, "The backup", to, arguments.json),
                Err(error) => failed(&error),
            },
            What::Restore { from } => match sqlite::restore(from, &directory, SystemClock.now()).await {
                Ok(report) => {
                    let exit = copied(&report, "The restored journal", &directory, arguments.json);
                    complain(
                        "It is paused: start the engine, look at `tie status`, then `tie resume --why …`.",
                    );
                    exit
                }
                Err(error) => failed(&error),
            },
            What::Stats => stats(&directory, arguments.json).await,
        }
    })
}

fn directory(arguments: &Arguments, place: &Place) -> Result<PathBuf, Exit> {
    if let Some(directory) = &arguments.directory {
        return Ok(directory.clone());
    }
    let text = super::read(&place.config_file())?;
    match config::journal_path(&String::from_utf8_lossy(&text)) {
        Some(path) => Ok(place.home.join(path)),
        None => {
            complain(
                "tie: the configuration names no directory of a journal: say --directory; for one in PostgreSQL use its own tools (ops/runbook.md)",
            );
            Err(Exit::Usage)
        }
    }
}

fn failed(error: &dyn std::error::Error) -> Exit {
    complain(format_args!("tie: {error}"));
    Exit::Unreachable
}

fn verified(report: &Report, as_json: bool) -> Exit {
    if as_json {
        say(format_args!("{}\n", serde_json::to_value(report).unwrap_or_default()));
    } else {
        for page in &report.pages {
            say(format_args!("the database: {page}\n"));
        }
        for one in &report.damaged {
            let delivery = match (&one.route, &one.destination) {
                (Some(route), Some(destination)) => format!(", {route} → {destination}"),
                _ => String::new(),
            };
            say(format_args!("message {}{delivery}: {}\n", one.sequence, one.what));
        }
        let Report { messages, without_body, deliveries, .. } = report;
        let verdict = if report.is_sound() { "All is sound" } else { "The journal is DAMAGED" };
        say(format_args!(
            "{verdict}: looked at {messages} messages ({without_body} without their bodies) and {deliveries} deliveries.\n"
        ));
    }
    if report.is_sound() { Exit::Well } else { Exit::Wrong }
}

fn copied(report: &Report, what: &str, to: &std::path::Path, as_json: bool) -> Exit {
    match as_json {
        true => say(format_args!("{}\n", serde_json::to_value(report).unwrap_or_default())),
        false => say(format_args!(
            "{what} in {} is sound: {} messages, {} deliveries.\n",
            to.display(),
            report.messages,
            report.deliveries
        )),
    }
    Exit::Well
}

async fn stats(directory: &std::path::Path, as_json: bool) -> Exit {
    let (stats, counts) = match sqlite::glance(directory).await {
        Ok(seen) => seen,
        Err(error) => return failed(&error),
    };
    let deliveries: Vec<_> = counts
        .iter()
        .map(|one| {
            json!({ "destination": one.destination, "state": one.state, "deliveries": one.deliveries,
                    "oldest": one.oldest })
        })
        .collect();
    if as_json {
        let seen = json!({
            "messages": stats.messages, "first": stats.first, "last": stats.last, "quarantined": stats.quarantined,
            "disk_bytes": stats.disk_bytes, "used_bytes": stats.used_bytes, "search_behind": stats.search_behind,
            "deliveries": deliveries,
        });
        say(format_args!("{seen}\n"));
        return Exit::Well;
    }
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    say(format_args!(
        "{} messages, {} in quarantine; the newest is {}, the oldest kept {}\n{} MB on disk, {} MB in use; {} messages \
         not yet in the search index\n",
        stats.messages,
        stats.quarantined,
        stats.last.0,
        stats.first.map_or_else(|| "none".to_owned(), |first| first.0.to_string()),
        megabytes(stats.disk_bytes),
        megabytes(stats.used_bytes),
        stats.search_behind
    ));
    for one in &counts {
        let oldest = one.oldest.map(|oldest| format!(", the oldest received {oldest}")).unwrap_or_default();
        say(format_args!("{}: {} {}{oldest}\n", one.destination, one.deliveries, one.state.word()));
    }
    Exit::Well
}

//! What a trial stands on: a scratch directory, a database where the journal is in one, and what the journal holds.
//!
//! Promise: of a ground nothing is left when it is removed. The runs of one size of `growth` share one; all
//! other trials have their own.

use std::path::Path;

use super::{
    Failure, Options, PHASES,
    database::{Database, Server},
    fill::{Filled, Plan},
    parts::Client,
    scenario::Scenario,
    scratch::{Instance, Scratch},
};
use crate::cli::complain;

/// What a delivered admission takes, with its place in the indexes.
const KEPT_BYTES: u64 = 3_000;
/// What must be free besides: for the log, for what the trials send, and for the engine's reserve.
const SPARE_BYTES: u64 = 2_000_000_000;

/// Where trials run.
pub(super) struct Ground {
    /// The directory.
    pub scratch: Scratch,
    /// The journal's database, if it is in one.
    pub database: Option<Database>,
    filled: u64,
    sent: u64,
}

impl Ground {
    /// Makes an empty one.
    pub(super) async fn make(options: &Options, server: Option<&Server>) -> Result<Self, Failure> {
        let scratch = Scratch::make(&options.directory, &options.mappings, options.keep)?;
        if options.keep {
            complain(format_args!("the scratch directory {} is kept", scratch.home.display()));
        }
        let database = match server {
            Some(server) => {
                Some(server.database(format!("tie_bench_{}", uuid::Uuid::new_v4().simple())).await?)
            }
            None => None,
        };
        Ok(Self { scratch, database, filled: 0, sent: 0 })
    }

    /// Messages in the journal.
    pub(super) fn stored(&self) -> u64 {
        self.filled + self.sent
    }

    /// Takes into account what a trial has sent.
    pub(super) fn sent(&mut self, messages: u64) {
        self.sent += messages;
    }

    /// The journal's table in `tie.toml`.
    pub(super) fn journal(&self) -> String {
        self.database.as_ref().map_or_else(|| "[journal]\npath = \"journal\"\n".to_owned(), Database::table)
    }

    /// What the engine must have in its environment.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        self.database.as_ref().map(Database::environment).unwrap_or_default()
    }

    /// Fills the journal with so many messages, unless it has been filled.
    pub(super) async fn fill(&mut self, options: &Options, messages: u64) -> Result<(), Failure> {
        if self.filled > 0 {
            return Ok(());
        }
        complain(format_args!("the journal is filled with {messages} messages …"));
        self.scratch.configure(&Instance::new(Scenario::Growth, 1, self.journal())?)?;
        let plan = Plan { messages, patients: options.patients * PHASES };
        let filling = Client::at_home("fill", &self.scratch.home, &self.environment(), &plan).await?;
        let Filled { seconds } = filling.ended().await?;
        self.filled = messages;
        complain(format_args!("it took {seconds:.0} s"));
        Ok(())
    }

    /// Removes what a drop does not.
    pub(super) async fn remove(self) -> Result<(), Failure> {
        match self.database {
            Some(database) => database.remove().await,
            None => Ok(()),
        }
    }
}

/// Whether a directory has room for a journal of so many messages.
pub(super) fn check(directory: &Path, messages: u64) -> Result<(), Failure> {
    let system = rustix::fs::statvfs(directory);
    let system = system.map_err(|error| Failure::unable(&directory.display().to_string(), &error))?;
    has_room(directory, messages, system.f_bavail.saturating_mul(system.f_frsize))
}

fn has_room(directory: &Path, messages: u64, free_bytes: u64) -> Result<(), Failure> {
    let wanted_bytes = messages.saturating_mul(KEPT_BYTES).saturating_add(SPARE_BYTES);
    if free_bytes >= wanted_bytes {
        return Ok(());
    }
    Err(Failure::Unable(format!(
        "a journal of {messages} messages needs {:.1} GB, and {} has {:.1} GB free: name a directory on another disk by \
         --directory, or fewer messages by --stored",
        wanted_bytes as f64 / 1e9,
        directory.display(),
        free_bytes as f64 / 1e9
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_told_with_what_to_do() {
        let told = |free_bytes| has_room(Path::new("/scratch"), 5_000_000, free_bytes);
        assert!(told(17_000_000_000).is_ok());
        let Err(Failure::Unable(why)) = told(4_000_000_000) else { panic!() };
        assert_eq!(
            why,
            "a journal of 5000000 messages needs 17.0 GB, and /scratch has 4.0 GB free: name a directory on another disk by \
             --directory, or fewer messages by --stored"
        );
    }
}

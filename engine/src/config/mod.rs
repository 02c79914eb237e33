//! Configuration: `tie.toml`, which is this instance, and the snapshot of all files that make a revision.
//!
//! In:       the configuration directory.
//! Out:      a [`Snapshot`] of it, read once and named by its content; a [`Config`] that is sound in itself.
//! Promise:  an unknown key, word or reference is an error with its place; nothing is opened or spawned.
//! Not here: routes (routing), mappings (mapping), whether a connector likes its options (revision).

mod git;
mod parse;
mod schema;
mod snapshot;
mod tables;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use encoding_rs::Encoding;
use jiff::tz::TimeZone;

use crate::{
    connector::{Acknowledge, Options, Plugin, Rate},
    delivery::{Pauses, Windows},
    document::Document,
    error::Problem,
    journal::Location,
    secret::SecretRef,
};

pub use crate::{
    intake::{Environment, Patients, Unmatched},
    routing::Ages,
};
pub use schema::schema;
pub use snapshot::{Files, Library, Snapshot, library, mapping_folders, snapshot};

/// One instance of the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What it is for.
    pub environment: Environment,
    /// The time zone of time stamps without an offset.
    pub zone: TimeZone,
    /// The durable record.
    pub journal: JournalConfig,
    /// How long it keeps messages.
    pub retention: RetentionConfig,
    /// The admin listener.
    pub admin: Admin,
    /// Bounds for mappings.
    pub limits: Limits,
    /// How patients are told apart, and which are not real.
    pub patients: Arc<Patients>,
    /// What messages come in by, in the order of the file.
    pub listeners: Vec<ListenerConfig>,
    /// Where messages go, in the order of the file.
    pub destinations: Vec<DestinationConfig>,
}

/// Where the durable record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// Its directory or database; paths as written, relative to the configuration directory.
    pub location: Location,
    /// What must stay free on the directory's disk: with less, no messages are taken. None: a twentieth of it, at most
    /// 512 MB.
    pub reserve_bytes: Option<u64>,
    /// The key of the hashes as which identifiers of patients, visits and orders stand in its search keys and lanes;
    /// none: as they are.
    pub identifier_key: Option<SecretRef>,
}

/// How long the journal keeps messages; what is not said is kept for ever.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionConfig {
    /// Of routes that say nothing else.
    pub ages: Ages,
    /// Messages with a dead letter.
    pub dead_letters: Option<Duration>,
    /// Messages in quarantine.
    pub quarantine: Option<Duration>,
    /// Beyond so many bytes the oldest go before their age.
    pub size_bytes: Option<u64>,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Its address.
    pub listen: SocketAddr,
    /// Host names by which it may be called, besides its address and `localhost`.
    pub hosts: Vec<String>,
}

/// Bounds for mappings. How long a message may be is its listener's own `longest_message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest output of one mapping.
    pub output_bytes: usize,
    /// The longest time of one run of a mapping.
    pub mapping_time: Duration,
    /// The most operations of one run of a mapping.
    pub mapping_operations: u64,
    /// Messages that are taken and not stored yet, in bytes over all listeners; one listener may have half of it.
    pub unstored_bytes: usize,
}

/// A socket, folder or subscription that serves sources.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// Its name.
    pub name: String,
    /// The connector's name.
    pub kind: String,
    /// The character set of messages that name none and are not UTF-8.
    pub charset: &'static Encoding,
    /// How a message is answered that no route takes.
    pub unmatched: Unmatched,
    /// For how long a message that comes again is a repeat; none if it never is.
    pub duplicates: Option<Duration>,
    /// What an acknowledgement waits for where the route does not say.
    pub acknowledge: Acknowledge,
    /// How long it waits for that.
    pub patience: Duration,
    /// What the connector reads itself.
    pub options: Options,
}

/// A system that messages go to.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationConfig {
    /// Its name.
    pub name: String,
    /// The connector's name.
    pub kind: String,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many may be sent at once.
    pub concurrency: usize,
    /// The most requests in a time.
    pub rate: Option<Rate>,
    /// Whether what may have been taken is sent again; if nothing is said, as is right for the connector.
    pub repeat: Option<Repeat>,
    /// When it is left alone.
    pub windows: Option<Windows>,
    /// How long it is left alone when it is away or must not be used.
    pub pauses: Pauses,
    /// It is given nothing.
    pub paused: bool,
    /// What the connector reads itself.
    pub options: Options,
}

/// What happens to a message of which nobody knows whether it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Repeat {
    /// It is sent again: the receiver recognises a repeat.
    Safe,
    /// It waits for a person.
    Hold,
}

impl Config {
    /// Reads and checks the text of `tie.toml`; the connectors' own options are checked when they are built.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn parse(file: &Path, text: Arc<str>, plugins: &[Plugin]) -> Result<Self, Vec<Problem>> {
        parse::config(&Document::new(file, text), plugins)
    }

    /// The longest time that any listener looks back for repeats.
    pub fn longest_window(&self) -> Duration {
        self.listeners.iter().filter_map(|listener| listener.duplicates).max().unwrap_or_default()
    }
}

/// The directory of the journal, by the text of a `tie.toml` that may be wrong everywhere else; relative to the
/// configuration directory.
pub fn journal_path(text: &str) -> Option<PathBuf> {
    let document = Document::new("", text);
    let tree = document.tree().ok()?;
    let journal = tree.get_ref().as_table()?.get("journal")?.get_ref().as_table()?;
    journal.get("path")?.get_ref().as_str().map(PathBuf::from)
}

/// Where the admin listener is, by the text of a `tie.toml` that may be wrong everywhere else: when the
/// configuration is broken, one wants the status most.
pub fn admin_address(text: &str) -> SocketAddr {
    let document = Document::new("", text);
    let said = document.tree().ok().and_then(|tree| {
        let admin = tree.get_ref().as_table()?.get("admin")?.get_ref().as_table()?;
        admin.get("listen")?.get_ref().as_str()?.parse().ok()
    });
    said.unwrap_or_else(|| tables::AdminTable::default().listen)
}

#[cfg(test)]
mod tests;

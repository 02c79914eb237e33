//! Mapping: from a message to what a destination takes, by scripts that a hospital can read and change.
//!
//! In:       a message, the moment it was received, the zone of the place.
//! Out:      payloads ready to send, or a stated reason why there are none.
//! Promise:  P5, P8, P9. Pure: the same message and revision give the same bytes. Always bounded in steps, time,
//!           depth and size. An error names the innermost place in a script and holds no patient data.
//! Not here: which mapping a message takes (routing), reading files (config), sending (delivery).
//!
//! A script is `fn map(msg) { … }`; `mappings/README.md` lists what it may call. What is a table is written as
//! a table, a constant made by `segment_map`, and runs natively; Rhai runs where a decision is made. All scripts
//! and tables of a revision are compiled once, into one [`Mappings`] that all threads share.

mod apart;
mod asking;
mod belonging;
mod carried;
mod check;
mod comparisons;
mod compile;
mod current;
mod datum;
mod drafts;
mod engine;
mod fault;
mod groups;
mod handles;
mod host;
mod identities;
mod ignored;
mod layers;
mod lines;
mod lookups;
mod memory;
mod named;
mod nodes;
mod pairs;
mod plan;
mod preference;
mod program;
mod reading;
mod run;
mod series;
mod spans;
mod tokens;
mod units;
mod values;
mod wire;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use smol_str::SmolStr;

pub(crate) use current::processor_time;
pub use fault::MapError;
pub use layers::Override;
pub use run::Mappings;

use crate::connector::Payload;
pub use crate::fhir::types::Finding;

/// The texts of all scripts and tables, by path: `mappings/adt.rhai`, `mappings/lib/patient.rhai`,
/// `mappings/tables/administrative-sex.csv`.
pub type Files = BTreeMap<PathBuf, Arc<str>>;

/// Where mappings are unless the configuration names folders.
pub const FOLDER: &str = "mappings";

/// What a mapping may use up. At a bound it ends with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the script.
    pub operations: u64,
    /// Time of the processor; by the clock it may take 150 times as long, for others may want the processor.
    pub time: Duration,
    /// Calls within calls.
    pub depth: usize,
    /// Bytes of one text in a script.
    pub text_bytes: usize,
    /// Items of one list or map in a script.
    pub items: usize,
    /// Bytes of all that it makes.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            operations: 2_000_000,
            time: Duration::from_secs(2),
            depth: 32,
            text_bytes: 16 << 20,
            items: 50_000,
            output_bytes: 64 << 20,
        }
    }
}

/// What a mapping is told besides the message.
#[derive(Debug, Clone)]
pub struct Context {
    /// When the message was received.
    pub received: Timestamp,
    /// The zone of times that come without an offset.
    pub zone: TimeZone,
    /// `live`, `test`, `training`.
    pub environment: SmolStr,
    /// The revision of the configuration, to be told in what is made.
    pub revision: SmolStr,
    /// Whether to tell which fields or elements were read.
    pub coverage: bool,
}

/// What a mapping made of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    /// The outputs, or the reason why there are none.
    pub mapped: Mapped,
    /// What a person should look at: codes without a row, doubtful values.
    pub findings: Vec<Finding>,
    /// Every field or element that has a value, in the order of the message. Empty unless [`Context::coverage`] asks for it.
    pub coverage: Vec<Covered>,
}

/// A place of a message that has a value, and whether the mapping took it along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// Where.
    pub spot: Spot,
    /// What became of it.
    pub fate: Fate,
}

/// A place where messages of a kind have values, whichever segment or item it is in: `PID-3`, `Observation.method.text`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// A field of HL7 v2.
    Field(SmolStr, usize),
    /// An element of FHIR that holds no others: the type of its resource, and the way from there.
    Element(SmolStr, SmolStr),
}

/// What became of a field or element that has a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The mapping read the field; what it makes would be other without the element.
    Read,
    /// It is left out on purpose, for this reason.
    Ignored(SmolStr),
    /// Nobody looked at it.
    Unread,
}

impl Spot {
    /// Its segment, or the type of its resource.
    pub fn within(&self) -> &SmolStr {
        match self {
            Self::Field(segment, _) => segment,
            Self::Element(resource, _) => resource,
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(segment, number) => write!(f, "{segment}-{number}"),
            Self::Element(resource, path) => write!(f, "{resource}.{path}"),
        }
    }
}

impl Product {
    /// The places that nobody looked at, each once, in the order of the message.
    pub fn unread(&self) -> Vec<&Spot> {
        let mut found = Vec::new();
        for one in self.coverage.iter().filter(|one| one.fate == Fate::Unread) {
            if !found.contains(&&one.spot) {
                found.push(&one.spot);
            }
        }
        found
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Mapped {
    /// These are to be delivered, in this order.
    Outputs(Vec<Payload>),
    /// There is nothing to deliver, and that is right. The reason is safe to show.
    Skip(String),
    /// A person must look before it goes on.
    Hold(String),
    /// It cannot be mapped: a dead letter.
    Reject(String),
}

//! What the bench can do: which messages, how many destinations, how they stand.

use serde::Serialize;

use super::messages::Kind;

/// One way to load the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scenario {
    /// Admissions of 1.4 kB to a FHIR record, at 1, 8, 32 and 128 connections.
    Adt,
    /// Results of 36 segments to a FHIR record.
    Oru,
    /// Half admissions, half results, to four destinations.
    Mix,
    /// Admissions at a steady rate, alone and beside documents of 5 MB.
    Document,
    /// A backlog that was built while the destination was paused is worked off while messages keep coming.
    Drain,
    /// The destination is down for the whole run.
    Down,
    /// The destination is paused: messages are stored, routed and acknowledged, nothing is mapped or sent.
    Accept,
    /// One connection, one message at a time.
    Single,
    /// Admissions beside more and more messages that have been delivered.
    Growth,
    /// Admissions for one of more and more routes.
    Routes,
}

/// What a scenario is run with: some are run with several, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// What the scenario says by itself.
    Usual,
    /// At least so many messages in the journal, delivered.
    Stored(u64),
    /// So many routes.
    Routes(u32),
}

impl Step {
    /// For the line of a trial.
    pub(super) fn told(self) -> String {
        match self {
            Self::Usual => String::new(),
            Self::Stored(messages) => format!(", {messages} stored"),
            Self::Routes(routes) => format!(", {routes} routes"),
        }
    }
}

/// How the destinations stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// They answer.
    Up,
    /// The configuration has them paused.
    Paused,
    /// Nobody listens there.
    Down,
}

impl Scenario {
    /// All of them.
    pub(super) const ALL: [Self; 10] = [
        Self::Adt,
        Self::Oru,
        Self::Mix,
        Self::Document,
        Self::Drain,
        Self::Down,
        Self::Accept,
        Self::Single,
        Self::Growth,
        Self::Routes,
    ];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Adt => "adt",
            Self::Oru => "oru",
            Self::Mix => "mix",
            Self::Document => "document",
            Self::Drain => "drain",
            Self::Down => "down",
            Self::Accept => "accept",
            Self::Single => "single",
            Self::Growth => "growth",
            Self::Routes => "routes",
        }
    }

    /// At how many connections it is run unless told.
    pub(super) fn connections(self) -> &'static [u32] {
        match self {
            Self::Adt => &[1, 8, 32, 128],
            Self::Document => &[8],
            Self::Single => &[1],
            Self::Oru | Self::Mix | Self::Drain | Self::Down | Self::Accept | Self::Growth | Self::Routes => {
                &[32]
            }
        }
    }

    /// What is sent, in turn.
    pub(super) fn kinds(self) -> Vec<Kind> {
        match self {
            Self::Oru => vec![Kind::Oru],
            Self::Mix => vec![Kind::Adt, Kind::Oru],
            Self::Adt
            | Self::Document
            | Self::Drain
            | Self::Down
            | Self::Accept
            | Self::Single
            | Self::Growth
            | Self::Routes => vec![Kind::Adt],
        }
    }

    /// How many destinations there are unless told.
    pub(super) fn destinations(self) -> u8 {
        if self == Self::Mix { 4 } else { 1 }
    }

    /// How they stand at the start.
    pub(super) fn standing(self) -> Standing {
        match self {
            Self::Down => Standing::Down,
            Self::Accept | Self::Drain => Standing::Paused,
            Self::Adt
            | Self::Oru
            | Self::Mix
            | Self::Document
            | Self::Single
            | Self::Growth
            | Self::Routes => Standing::Up,
        }
    }

    /// Whether the bare road is measured. At a rate nothing is told of how fast it could be, and it has neither journal nor
    /// routes that could grow.
    pub(super) fn has_bare_road(self) -> bool {
        self.rate().is_none() && !matches!(self, Self::Growth | Self::Routes)
    }

    /// Messages a second where they come at a rate, unless told.
    pub(super) fn rate(self) -> Option<f64> {
        match self {
            Self::Document => Some(200.0),
            Self::Drain => Some(500.0),
            Self::Adt
            | Self::Oru
            | Self::Mix
            | Self::Down
            | Self::Accept
            | Self::Single
            | Self::Growth
            | Self::Routes => None,
        }
    }
}

//! The tables of `tie.toml`: what may be written, with which defaults. Their doc comments are the descriptions in the
//! JSON Schema.
//!
//! Not here: whether what is written makes sense (parse.rs), and the connectors' own keys.

use std::{net::SocketAddr, path::PathBuf};

use jiff::civil::Weekday;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::{Environment, Patients, Repeat, Unmatched};
use crate::{
    connector::{Acknowledge, ByteSize, Period, Rate},
    delivery::Pauses,
    journal::postgres::SslMode,
    secret::SecretRef,
};

/// The folder of mappings unless `tie.toml` names others.
pub(super) const MAPPINGS: &str = "mappings";

/// One instance of the engine: where it stands, what it listens to and where it delivers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// What this instance is for. Messages of another environment (MSH-11) do not belong here.
    pub environment: Environment,
    /// The time zone of time stamps without an offset, by its IANA name.
    #[serde(default = "default_zone")]
    #[schemars(with = "String")]
    pub zone: Spanned<String>,
    /// The folders of mappings, relative to the configuration directory; what the first says goes before what the
    /// others say, function by function and row by row.
    #[serde(default = "default_mappings")]
    #[schemars(with = "Vec<PathBuf>")]
    pub mappings: Spanned<Vec<PathBuf>>,
    /// The durable record of every message.
    #[schemars(with = "JournalTable")]
    pub journal: Spanned<JournalTable>,
    /// Health, metrics, status and replay by HTTP.
    #[serde(default)]
    pub admin: AdminTable,
    /// Bounds for what mappings may use.
    #[serde(default)]
    pub limits: LimitsTable,
    /// How patients are told apart, and which of them are not real.
    #[serde(default)]
    pub patient: PatientTable,
}

/// The durable record of every message: in a directory of this machine, or in a PostgreSQL database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JournalTable {
    /// The directory of the journal, relative to the configuration directory.
    pub path: Option<PathBuf>,
    /// The database of the journal, instead of a directory.
    pub postgres: Option<PostgresTable>,
    /// What must stay free on the directory's disk: with less, messages are refused until there is room. Unless told, a twentieth of
    /// the disk and at most 512 MB.
    #[serde(default)]
    pub reserve: Option<ByteSize>,
    /// With a key, numbers of patients, visits and orders stand in the search keys and lanes as keyed hashes.
    #[serde(default)]
    pub identifier_key: Option<SecretRef>,
    /// How long messages are kept; for ever unless it says otherwise.
    #[serde(default)]
    pub retention: RetentionTable,
}

/// A PostgreSQL database (15 or later), in which the journal has the schema `tie`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PostgresTable {
    /// The server's name or address; or, beginning with a slash, the directory of its socket.
    pub host: String,
    /// The server's port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The name of the database.
    #[serde(default = "default_database")]
    pub database: String,
    /// The role.
    #[serde(default = "default_database")]
    pub user: String,
    /// The role's password, by reference; without it the server must know the role otherwise.
    pub password: Option<SecretRef>,
    /// How the connection is protected, in libpq's words.
    #[serde(default)]
    pub sslmode: SslMode,
    /// Authorities that may have signed the server's certificate (PEM), besides those of the web.
    pub ca: Option<PathBuf>,
}

/// How long messages are kept. Nothing unfinished is ever removed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetentionTable {
    /// After this age of a message its bytes go, and what was sent and answered: it can be found, but not replayed.
    pub bodies: Option<Period>,
    /// After this age a message goes altogether.
    pub messages: Option<Period>,
    /// After this age messages with a dead letter may go by the ages above too.
    pub dead_letters: Option<Period>,
    /// After this age messages in quarantine go.
    pub quarantine: Option<Period>,
    /// Beyond this size the oldest finished messages go before their age, their bytes first.
    pub size: Option<ByteSize>,
}

/// Health, metrics, status and replay by HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AdminTable {
    /// The address and port. There are no accounts yet: keep it on this machine.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Host names, besides the address itself and `localhost`, by which it may be called.
    pub hosts: Vec<String>,
}

/// Bounds for what mappings may use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsTable {
    /// The longest output of one mapping.
    pub output: ByteSize,
    /// The longest time that one run of a mapping may take.
    pub mapping_time: Period,
    /// The most operations that one run of a mapping may take.
    pub mapping_operations: u64,
    /// Messages that are taken and not stored yet, over all listeners; one listener may have half of it.
    pub unstored: ByteSize,
}

/// How patients are told apart, and which of them are not real.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PatientTable {
    /// Types of identifiers (CX.5), the preferred first; `NHS` is the NHS number. Messages that share one of them, or one
    /// without a type, stay in order.
    #[schemars(with = "Vec<String>")]
    pub identifiers: Spanned<Vec<String>>,
    /// What the NHS numbers of test patients begin with: a live instance rejects their messages.
    #[schemars(with = "Vec<String>")]
    pub test_numbers: Spanned<Vec<String>>,
}

/// What the engine reads of a listener, whatever its kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerTable {
    /// The connector.
    #[schemars(with = "String")]
    pub kind: Spanned<String>,
    /// The character set of messages that name none (MSH-18) and are not UTF-8.
    #[serde(default = "default_charset")]
    #[schemars(with = "String")]
    pub charset: Spanned<String>,
    /// How a message is answered that no route takes: `accept` (AA), `error` (AE), `reject` (AR). It is kept either way.
    #[serde(default)]
    pub unmatched: Unmatched,
    /// For how long a message that comes again is a repeat, which is answered and not run again; or `off`.
    #[serde(default = "default_duplicates")]
    #[schemars(with = "String")]
    pub duplicates: Spanned<String>,
    /// What a positive acknowledgement waits for: `received` (the message is on the disk), `mapped`, `delivered`. A route
    /// may say otherwise.
    #[serde(default)]
    pub ack: Acknowledge,
    /// How long an acknowledgement waits for that; then it is AE, and a repeat is answered by how it stands then.
    #[serde(default = "default_ack_timeout")]
    pub ack_timeout: Period,
}

/// What the engine reads of a destination, whatever its kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DestinationTable {
    /// The connector.
    #[schemars(with = "String")]
    pub kind: Spanned<String>,
    /// How long one attempt may take.
    #[serde(default = "default_timeout")]
    pub timeout: Period,
    /// How many may be sent at once; those of one patient never are.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: u16,
    /// The most requests in a time, such as "50/s"; no bound if nothing is said.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// What happens to a message of which nobody knows whether it was taken: `safe` sends it again, `hold` lets it wait
    /// for a person. If nothing is said: safe for `fhir`, `mllp` and `http` with PUT, hold for `http` with POST.
    #[serde(default)]
    pub repeat: Option<Repeat>,
    /// When it is left alone, in local time: nothing is sent, nobody is alarmed.
    #[serde(default)]
    #[schemars(with = "Vec<WindowTable>")]
    pub windows: Vec<Spanned<WindowTable>>,
    /// How long it is left alone when it is away or must not be used.
    #[serde(default)]
    #[schemars(with = "CircuitTable")]
    pub circuit: Option<Spanned<CircuitTable>>,
    /// Whether it is given nothing for now: everything for it waits in order.
    #[serde(default)]
    pub paused: bool,
}

/// A maintenance window. One that ends before it begins goes over midnight; 24:00 is the end of the day.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowTable {
    /// The days on which it begins; every day if nothing is said.
    #[serde(default)]
    pub days: Vec<Day>,
    /// When it begins, such as "02:00".
    pub from: String,
    /// When it ends.
    pub to: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub(super) enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// How long a destination is left alone.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CircuitTable {
    /// Before the first probe of a destination that is away; it doubles with each probe that fails.
    pub first: Period,
    /// The longest pause between probes.
    pub longest: Period,
    /// Between probes of a destination that refuses credentials, address or certificate.
    pub held: Period,
}

fn default_port() -> u16 {
    5432
}

fn default_database() -> String {
    "tie".to_owned()
}

fn default_zone() -> Spanned<String> {
    Spanned::new(0..0, "Europe/London".to_owned())
}

fn default_mappings() -> Spanned<Vec<PathBuf>> {
    Spanned::new(0..0, vec![PathBuf::from(MAPPINGS)])
}

fn default_charset() -> Spanned<String> {
    Spanned::new(0..0, "windows-1252".to_owned())
}

fn default_duplicates() -> Spanned<String> {
    Spanned::new(0..0, "24h".to_owned())
}

fn default_ack_timeout() -> Period {
    Period::seconds(10)
}

fn default_timeout() -> Period {
    Period::seconds(30)
}

fn default_concurrency() -> u16 {
    8
}

impl Default for CircuitTable {
    fn default() -> Self {
        let Pauses { first, longest, held } = Pauses::default();
        Self { first: Period(first), longest: Period(longest), held: Period(held) }
    }
}

impl Day {
    pub(super) const ALL: [Self; 7] =
        [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    pub(super) fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

impl Default for AdminTable {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8061)), hosts: Vec::new() }
    }
}

impl Default for PatientTable {
    fn default() -> Self {
        let Patients { identifiers, test_numbers } = Patients::default();
        Self { identifiers: Spanned::new(0..0, identifiers), test_numbers: Spanned::new(0..0, test_numbers) }
    }
}

impl Default for LimitsTable {
    fn default() -> Self {
        Self {
            output: ByteSize(64_000_000),
            mapping_time: Period::seconds(2),
            mapping_operations: 5_000_000,
            unstored: ByteSize(256 << 20),
        }
    }
}

//! From the text of `tie.toml` to a sound [`Config`], or all that is wrong with it.

use std::{net::SocketAddr, path::PathBuf};

use jiff::{civil::Weekday, tz::TimeZone};
use schemars::JsonSchema;
use serde::Deserialize;
use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    Admin, Ages, Config, DestinationConfig, Environment, JournalConfig, Limits, ListenerConfig, Repeat,
    RetentionConfig, Unmatched,
};
use crate::{
    connector::{ByteSize, DESTINATION_KEYS, LISTENER_KEYS, Options, Period, Plugin, Rate},
    delivery::{Pauses, Window, Windows},
    document::Document,
    error::Problem,
};

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
    /// The durable record of every message.
    pub journal: JournalTable,
    /// Health, metrics, status and replay by HTTP.
    #[serde(default)]
    pub admin: AdminTable,
    /// Bounds for what mappings may use.
    #[serde(default)]
    pub limits: LimitsTable,
}

/// The durable record of every message.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JournalTable {
    /// The directory of the journal, relative to the configuration directory.
    pub path: PathBuf,
    /// How long messages are kept; for ever unless it says otherwise.
    #[serde(default)]
    pub retention: RetentionTable,
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
    /// How many attempts may be under way at once; those of one patient never are.
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

fn default_zone() -> Spanned<String> {
    Spanned::new(0..0, "Europe/London".to_owned())
}

fn default_charset() -> Spanned<String> {
    Spanned::new(0..0, "windows-1252".to_owned())
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
    const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    fn weekday(self) -> Weekday {
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

impl Default for LimitsTable {
    fn default() -> Self {
        Self { output: ByteSize(16_000_000), mapping_time: Period::seconds(2), mapping_operations: 5_000_000 }
    }
}

/// The file being read: what is wrong with it so far.
struct Reading<'a> {
    document: &'a Document,
    plugins: &'a [Plugin],
    problems: Vec<Problem>,
}

pub(super) fn config(document: &Document, plugins: &[Plugin]) -> Result<Config, Vec<Problem>> {
    let mut tree = document.tree()?;
    let mut reading = Reading { document, plugins, problems: Vec::new() };
    let listeners = reading.section(&mut tree, "listener", Reading::listener);
    let destinations = reading.section(&mut tree, "destination", Reading::destination);
    let head = match document.read::<Head>(tree, &["listener", "destination"]) {
        Ok(head) => head,
        Err(mut problems) => {
            problems.append(&mut reading.problems);
            return Err(problems);
        }
    };
    let zone = reading.zone(&head.zone);
    let in_zone = |mut destination: DestinationConfig| {
        destination.windows = destination.windows.map(|windows| windows.in_zone(zone.clone()));
        destination
    };
    let destinations = destinations.into_iter().map(in_zone).collect();
    if !reading.problems.is_empty() {
        return Err(reading.problems);
    }
    let LimitsTable { output, mapping_time, mapping_operations } = head.limits;
    Ok(Config {
        environment: head.environment,
        zone,
        retention: retention(&head.journal.retention),
        journal: JournalConfig { path: head.journal.path },
        admin: Admin { listen: head.admin.listen, hosts: head.admin.hosts },
        limits: Limits { output_bytes: output.bytes(), mapping_time: mapping_time.0, mapping_operations },
        listeners,
        destinations,
    })
}

fn retention(table: &RetentionTable) -> RetentionConfig {
    let age = |period: Option<Period>| period.map(|period| period.0);
    RetentionConfig {
        ages: Ages { bodies: age(table.bodies), messages: age(table.messages) },
        dead_letters: age(table.dead_letters),
        quarantine: age(table.quarantine),
        size_bytes: table.size.map(|size| size.0),
    }
}

impl Reading<'_> {
    fn fault(&mut self, what: impl Into<String>, offset: usize) {
        self.problems.push(self.document.fault(what, offset));
    }

    /// Takes `[listener.*]` or `[destination.*]` out of the tree and reads each with the help of `one`.
    fn section<'i, T>(
        &mut self,
        tree: &mut Spanned<DeValue<'i>>,
        section: &'static str,
        one: impl Fn(&mut Self, String, Spanned<DeValue<'i>>) -> Option<T>,
    ) -> Vec<T> {
        let DeValue::Table(root) = tree.get_mut() else { return Vec::new() };
        let Some(tables) = root.remove(section) else { return Vec::new() };
        let start = tables.span().start;
        let DeValue::Table(tables) = tables.into_inner() else {
            self.fault(format!("expected tables such as [{section}.name]"), start);
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, table) in tables {
            if !table.get_ref().is_table() {
                self.fault(format!("expected a table [{section}.{}]", name.get_ref()), table.span().start);
                continue;
            }
            let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
            if name.get_ref().is_empty() || !name.get_ref().chars().all(sound) {
                let problem = self
                    .document
                    .fault(format!("`{}` is no name for a {section}", name.get_ref()), name.span().start);
                self.problems.push(problem.help("lower-case letters, digits, `-` and `_`"));
            }
            found.extend(one(self, name.into_inner().into_owned(), table));
        }
        found
    }

    fn listener(&mut self, name: String, table: Spanned<DeValue<'_>>) -> Option<ListenerConfig> {
        let keys = self.common::<ListenerTable>(table, LISTENER_KEYS)?;
        self.kind("listener", &keys.kind, |plugin| plugin.source.is_some());
        let charset = crate::hl7::charset::by_name(keys.charset.get_ref());
        if charset.is_none() {
            let known =
                ["utf-8", "windows-1252", "iso-8859-1", "iso-8859-15", "us-ascii", "utf-16le", "utf-16be"];
            let what = format!("unknown character set `{}`", keys.charset.get_ref());
            let problem = self.document.fault(what, keys.charset.span().start);
            self.problems.push(problem.did_you_mean(&keys.charset.get_ref().to_ascii_lowercase(), known));
        }
        Some(ListenerConfig {
            options: Options::listener(name.as_str(), self.document.clone()),
            name,
            kind: keys.kind.into_inner(),
            charset: charset?,
            unmatched: keys.unmatched,
        })
    }

    fn destination(&mut self, name: String, table: Spanned<DeValue<'_>>) -> Option<DestinationConfig> {
        let start = table.span().start;
        let keys = self.common::<DestinationTable>(table, DESTINATION_KEYS)?;
        self.kind("destination", &keys.kind, |plugin| plugin.destination.is_some());
        if keys.timeout.0.is_zero() {
            self.fault("`timeout` must be longer than nothing", start);
        }
        if !(1..=1024).contains(&keys.concurrency) {
            self.fault("`concurrency` must be from 1 to 1024", start);
        }
        Some(DestinationConfig {
            options: Options::destination(name.as_str(), self.document.clone()),
            name,
            kind: keys.kind.into_inner(),
            timeout: keys.timeout.0,
            concurrency: usize::from(keys.concurrency),
            rate: keys.rate,
            repeat: keys.repeat,
            windows: self.windows(keys.windows),
            pauses: keys.circuit.map_or_else(Pauses::default, |table| self.pauses(&table)),
            paused: keys.paused,
        })
    }

    /// The windows; in which zone they are is known when the head of the file is read.
    fn windows(&mut self, tables: Vec<Spanned<WindowTable>>) -> Option<Windows> {
        let mut windows = Vec::new();
        for table in tables {
            let start = table.span().start;
            let WindowTable { days, from, to } = table.into_inner();
            let days: &[Day] = if days.is_empty() { &Day::ALL } else { &days };
            match Window::new(days.iter().map(|day| day.weekday()).collect(), &from, &to) {
                Ok(window) => windows.push(window),
                Err(what) => self.fault(what, start),
            }
        }
        (!windows.is_empty()).then(|| Windows::new(TimeZone::UTC, windows))
    }

    fn pauses(&mut self, table: &Spanned<CircuitTable>) -> Pauses {
        let CircuitTable { first, longest, held } = *table.get_ref();
        if first.0.is_zero() || held.0.is_zero() || first > longest {
            let what = "`circuit` needs pauses longer than nothing, and `first` not longer than `longest`";
            self.fault(what, table.span().start);
        }
        Pauses { first: first.0, longest: longest.0, held: held.0 }
    }

    /// Reads the engine's own keys of a table; the others are the connector's.
    fn common<T: serde::de::DeserializeOwned>(
        &mut self,
        table: Spanned<DeValue<'_>>,
        keys: &[&str],
    ) -> Option<T> {
        let span = table.span();
        let DeValue::Table(table) = table.into_inner() else { return None };
        let own: DeTable<'_> =
            table.into_iter().filter(|(key, _)| keys.contains(&&**key.get_ref())).collect();
        self.document
            .read(Spanned::new(span, DeValue::Table(own)), &[])
            .map_err(|problems| self.problems.extend(problems))
            .ok()
    }

    fn kind(&mut self, section: &str, kind: &Spanned<String>, can: impl Fn(&Plugin) -> bool) {
        let start = kind.span().start;
        match self.plugins.iter().find(|plugin| plugin.name == kind.get_ref()) {
            Some(plugin) if can(plugin) => {}
            Some(plugin) => self.fault(format!("`{}` cannot be a {section}", plugin.name), start),
            None => {
                let known: Vec<&str> =
                    self.plugins.iter().filter(|plugin| can(plugin)).map(|plugin| plugin.name).collect();
                let problem =
                    self.document.fault(format!("unknown kind of {section} `{}`", kind.get_ref()), start);
                let problem = problem.did_you_mean(kind.get_ref(), known.iter().copied());
                let help = problem.help.clone().unwrap_or_else(|| format!("known are {}", known.join(", ")));
                self.problems.push(problem.help(help));
            }
        }
    }

    fn zone(&mut self, zone: &Spanned<String>) -> TimeZone {
        TimeZone::get(zone.get_ref()).unwrap_or_else(|_| {
            let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
            let problem =
                self.document.fault(format!("unknown time zone `{}`", zone.get_ref()), zone.span().start);
            self.problems.push(problem.did_you_mean(zone.get_ref(), names.iter().map(String::as_str)));
            TimeZone::UTC
        })
    }
}

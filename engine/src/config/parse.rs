//! From the text of `tie.toml` to a sound [`Config`], or all that is wrong with it.

use std::{
    path::{Component, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::tz::TimeZone;
use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    Admin, Ages, Config, DestinationConfig, JournalConfig, Limits, ListenerConfig, Location, Patients,
    RetentionConfig,
    tables::{
        CircuitTable, Day, DestinationTable, Head, JournalTable, LimitsTable, ListenerTable, PatientTable,
        PostgresTable, RetentionTable, WindowTable,
    },
};
use crate::{
    connector::{Acknowledge, DESTINATION_KEYS, LISTENER_KEYS, NAME_MOST, Options, Period, Plugin},
    delivery::{Pauses, Window, Windows},
    document::Document,
    error::Problem,
    journal::postgres::Settings,
};

/// Shorter than the pause before a sender's second attempt would recognise nothing.
const WINDOW_LEAST: Duration = Duration::from_secs(60);
/// Longer would only cost memory.
const WINDOW_MOST: Duration = Duration::from_secs(31 * 24 * 3600);

/// No sender waits for longer.
const ACK_MOST: Duration = Duration::from_secs(600);

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
    reading.mappings(&head.mappings);
    let patients = reading.patients(head.patient);
    let retention = retention(&head.journal.get_ref().retention);
    let journal = reading.journal(head.journal);
    if !reading.problems.is_empty() {
        return Err(reading.problems);
    }
    let LimitsTable { output, mapping_time, mapping_operations, unstored } = head.limits;
    let limits = Limits {
        output_bytes: output.bytes(),
        mapping_time: mapping_time.0,
        mapping_operations,
        unstored_bytes: unstored.bytes(),
    };
    Ok(Config {
        environment: head.environment,
        zone,
        retention,
        journal,
        admin: Admin { listen: head.admin.listen, hosts: head.admin.hosts },
        limits,
        patients: Arc::new(patients),
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

    /// Which folders they are is read with the snapshot; here it is only judged.
    fn mappings(&mut self, folders: &Spanned<Vec<PathBuf>>) {
        let start = folders.span().start;
        if folders.get_ref().is_empty() {
            self.fault("`mappings` names no folder", start);
        }
        for folder in folders.get_ref() {
            if folder.components().any(|part| !matches!(part, Component::Normal(_))) {
                let what = format!("`{}` is no folder below the configuration directory", folder.display());
                self.fault(what, start);
            }
        }
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
            let bytes = name.get_ref().len();
            if bytes > NAME_MOST {
                let what = format!("the name of the {section} has {bytes} bytes: {NAME_MOST} at most");
                self.fault(what, name.span().start);
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
        let start = keys.kind.span().start;
        let duplicates = self.duplicates(&keys.duplicates);
        if keys.ack != Acknowledge::Received && keys.duplicates.get_ref() == "off" {
            self.fault(
                "`ack` must wait for nothing where `duplicates` is off: each repeat would be run again",
                start,
            );
        }
        if keys.ack_timeout.0.is_zero() || keys.ack_timeout.0 > ACK_MOST {
            self.fault("`ack_timeout` must be from 1ms to 10m", start);
        }
        Some(ListenerConfig {
            options: Options::listener(name.as_str(), self.document.clone()),
            name,
            kind: keys.kind.into_inner(),
            charset: charset?,
            unmatched: keys.unmatched,
            duplicates,
            acknowledge: keys.ack,
            patience: keys.ack_timeout.0,
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

    fn duplicates(&mut self, said: &Spanned<String>) -> Option<Duration> {
        if said.get_ref() == "off" {
            return None;
        }
        match said.get_ref().parse::<Period>() {
            Ok(window) if (WINDOW_LEAST..=WINDOW_MOST).contains(&window.0) => Some(window.0),
            _ => {
                let what = format!("`{}` is no window for repeats", said.get_ref());
                let problem = self.document.fault(what, said.span().start);
                self.problems.push(problem.help("a length of time from \"1m\" to \"31d\", or \"off\""));
                None
            }
        }
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

    /// An unnamed directory, besides a fault, when it is said wrongly.
    fn journal(&mut self, table: Spanned<JournalTable>) -> JournalConfig {
        let start = table.span().start;
        let JournalTable { path, postgres, reserve, identifier_key, .. } = table.into_inner();
        if postgres.is_some() && reserve.is_some() {
            self.fault("`reserve` is for a directory: the disk of a database is not seen from here", start);
        }
        let location = match (path, postgres) {
            (Some(path), None) => Location::Directory(path),
            (None, Some(PostgresTable { host, port, database, user, password, sslmode, ca })) => {
                Location::Postgres(Settings { host, port, database, user, password, sslmode, ca })
            }
            (path, _) => {
                let what = "the journal is either in a directory (`path`) or in a database (`postgres`)";
                self.fault(what, start);
                Location::Directory(path.unwrap_or_default())
            }
        };
        JournalConfig { location, reserve_bytes: reserve.map(|reserve| reserve.0), identifier_key }
    }

    fn patients(&mut self, table: PatientTable) -> Patients {
        let PatientTable { identifiers, test_numbers } = table;
        let sound = |kind: &String| {
            !kind.is_empty() && !kind.contains(|c: char| c.is_whitespace() || c.is_lowercase())
        };
        if identifiers.get_ref().is_empty() || !identifiers.get_ref().iter().all(sound) {
            let what = "`identifiers` must name types such as `NHS` and `MR`, in capital letters";
            self.fault(what, identifiers.span().start);
        }
        let digits = |number: &String| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if !test_numbers.get_ref().iter().all(digits) {
            self.fault("`test_numbers` must be digits, such as \"999\"", test_numbers.span().start);
        }
        Patients { identifiers: identifiers.into_inner(), test_numbers: test_numbers.into_inner() }
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

//! `tie coverage`: what of real messages do the mappings look at?
//!
//! Each message goes through the mappings that the routes give it. A field counts when it has a value and stands in a
//! segment of which its mapping reads or ignores anything at all; segments that a mapping does not know are told apart.
//! Of FHIR the same is said of elements and resources.
//! Not here: whether what is read comes out right.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;
use smol_str::SmolStr;

use super::{
    Exit, Place, complain,
    library::{Library, mappings_of, messages},
    say,
};
use crate::{
    connector::Plugin,
    incoming::Incoming,
    mapping::{Covered, Fate, Finding, Mapped, Product, Spot},
    revision::SAMPLE_RECEIVED,
    routing::Routes,
};

/// Show which fields of messages, or elements of FHIR, the mappings read, leave out on purpose, or do not look at.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files with messages, or folders of them (`*.hl7`, `*.fhir`).
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Wrong when a mapping failed on a message.
pub(super) fn run(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Exit {
    match report(arguments, place, plugins) {
        Ok(report) => {
            say(if arguments.json { report.json() } else { report.table() });
            if report.failed == 0 { Exit::Well } else { Exit::Wrong }
        }
        Err(exit) => exit,
    }
}

fn report(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Result<Report, Exit> {
    let mut library =
        Library::read(place, plugins, SAMPLE_RECEIVED.parse().unwrap_or(Timestamp::UNIX_EPOCH))?;
    library.context.coverage = true;
    let routes = library.routes(place)?;
    let mut report = Report::default();
    for path in &arguments.paths {
        for file in files(path)? {
            report.files += 1;
            for raw in messages(&file)? {
                report.messages += 1;
                match Incoming::read(raw, library.charset) {
                    Ok(message) => report.message(&message, &library, routes),
                    Err(_) => report.unreadable += 1,
                }
            }
        }
    }
    report.sum();
    Ok(report)
}

/// The file, or the message files below the folder, in order.
fn files(path: &Path) -> Result<Vec<PathBuf>, Exit> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error: std::io::Error| {
        complain(format_args!("tie: {}: {error}", path.display()));
        Exit::Unreachable
    };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        entries.push(entry.map_err(unreadable)?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else if entry.extension().is_some_and(|end| end == "hl7" || end == "fhir") {
            found.push(entry);
        }
    }
    Ok(found)
}

/// All that was found, of FHIR's elements as of fields. Those of messages that gave no output do not count.
#[derive(Debug, Default, Serialize)]
struct Report {
    valued_fields: usize,
    read_or_ignored: usize,
    /// Valued fields in segments that no mapping of these messages knows.
    fields_of_other_segments: usize,
    files: usize,
    messages: usize,
    mapped: usize,
    skipped: usize,
    held: usize,
    rejected: usize,
    failed: usize,
    unreadable: usize,
    without_route: usize,
    kinds: Vec<Kind>,
    ignored: BTreeMap<String, usize>,
    /// Codes without a row, by their table.
    unmapped_codes: BTreeMap<String, usize>,
    reasons: BTreeMap<String, usize>,
    #[serde(skip)]
    found: BTreeMap<(String, String), Found>,
}

/// The messages of one kind: how many, and what is in them by segment or resource.
#[derive(Debug, Default)]
struct Found {
    messages: usize,
    segments: BTreeMap<SmolStr, Fields>,
}

/// The fields of the segments of one name, or the elements of the resources of one type.
#[derive(Debug, Default)]
struct Fields {
    read: usize,
    ignored: usize,
    unread: BTreeMap<Spot, usize>,
}

/// A kind of message with its mapping.
#[derive(Debug, Serialize)]
struct Kind {
    #[serde(rename = "type")]
    trigger: String,
    mapping: String,
    messages: usize,
    valued_fields: usize,
    read_or_ignored: usize,
    segments: Vec<SegmentReport>,
}

#[derive(Debug, Serialize)]
struct SegmentReport {
    segment: String,
    mapped: bool,
    valued_fields: usize,
    read: usize,
    ignored: usize,
    /// Field to times.
    unread: BTreeMap<String, usize>,
}

impl Report {
    fn message(&mut self, message: &Incoming, library: &Library, routes: &Routes) {
        let mappings = mappings_of(routes, message);
        if mappings.is_empty() {
            self.without_route += 1;
        }
        for mapping in mappings {
            match library.mappings.run(mapping, message.clone(), &library.context) {
                Ok(product) => self.product(message, mapping, &product),
                Err(error) => {
                    self.failed += 1;
                    *self.reasons.entry(format!("error: {error}")).or_default() += 1;
                }
            }
        }
    }

    fn product(&mut self, message: &Incoming, mapping: &str, product: &Product) {
        let (count, reason) = match &product.mapped {
            Mapped::Outputs(_) => (&mut self.mapped, None),
            Mapped::Skip(reason) => (&mut self.skipped, Some(reason)),
            Mapped::Hold(reason) => (&mut self.held, Some(reason)),
            Mapped::Reject(reason) => (&mut self.rejected, Some(reason)),
        };
        *count += 1;
        if let Some(reason) = reason {
            *self.reasons.entry(reason.clone()).or_default() += 1;
            return;
        }
        for finding in &product.findings {
            if let Finding::Unmapped { table, .. } = finding {
                *self.unmapped_codes.entry(table.to_string()).or_default() += 1;
            }
        }
        let key = (format!("{}^{}", message.code(), message.event()), mapping.to_owned());
        let found = self.found.entry(key).or_default();
        found.messages += 1;
        for Covered { spot, fate } in &product.coverage {
            let fields = found.segments.entry(spot.within().clone()).or_default();
            match fate {
                Fate::Read => fields.read += 1,
                Fate::Ignored(why) => {
                    fields.ignored += 1;
                    *self.ignored.entry(format!("{spot}: {why}")).or_default() += 1;
                }
                Fate::Unread => *fields.unread.entry(spot.clone()).or_default() += 1,
            }
        }
    }

    /// Makes the totals of what was found.
    fn sum(&mut self) {
        self.kinds = std::mem::take(&mut self.found).into_iter().map(Kind::of).collect();
        for kind in &self.kinds {
            self.valued_fields += kind.valued_fields;
            self.read_or_ignored += kind.read_or_ignored;
            let others = kind.segments.iter().filter(|segment| !segment.mapped);
            self.fields_of_other_segments += others.map(|segment| segment.valued_fields).sum::<usize>();
        }
    }

    fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// As Markdown, which can be read as it is.
    fn table(&self) -> String {
        let mut out = format!(
            "{} messages of {} files: {} mapped, {} skipped, {} held, {} rejected, {} failed, {} unreadable, {} that no \
             route takes.\n\n{} of {} valued fields are read or left out on purpose ({}); {} more stand in segments that \
             no mapping knows.\n\n| message | mapping | messages | fields | covered | not read |\n|---|---|--:|--:|--:|---|\n",
            self.messages,
            self.files,
            self.mapped,
            self.skipped,
            self.held,
            self.rejected,
            self.failed,
            self.unreadable,
            self.without_route,
            self.read_or_ignored,
            self.valued_fields,
            percent(self.read_or_ignored, self.valued_fields),
            self.fields_of_other_segments,
        );
        self.kinds.iter().for_each(|kind| out.push_str(&kind.row()));
        if !self.reasons.is_empty() {
            out.push_str("\n| times | why there is no output |\n|--:|---|\n");
        }
        for (reason, times) in &self.reasons {
            out.push_str(&format!("| {times} | {reason} |\n"));
        }
        out
    }
}

impl Kind {
    fn of(((trigger, mapping), found): ((String, String), Found)) -> Self {
        let messages = found.messages;
        let segments: Vec<_> = found.segments.into_iter().map(SegmentReport::of).collect();
        let mapped = || segments.iter().filter(|segment| segment.mapped);
        let valued_fields = mapped().map(|segment| segment.valued_fields).sum();
        let read_or_ignored = mapped().map(|segment| segment.read + segment.ignored).sum();
        Self { trigger, mapping, messages, valued_fields, read_or_ignored, segments }
    }

    fn row(&self) -> String {
        let mut unread: Vec<(&String, &usize)> = self
            .segments
            .iter()
            .filter(|segment| segment.mapped)
            .flat_map(|segment| &segment.unread)
            .collect();
        unread.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        let unread: Vec<String> = unread.iter().map(|(field, times)| format!("{field} ×{times}")).collect();
        format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            self.trigger,
            self.mapping,
            self.messages,
            self.valued_fields,
            percent(self.read_or_ignored, self.valued_fields),
            unread.join(", "),
        )
    }
}

impl SegmentReport {
    fn of((segment, fields): (SmolStr, Fields)) -> Self {
        let Fields { read, ignored, unread } = fields;
        let valued_fields = read + ignored + unread.values().sum::<usize>();
        let unread = unread.into_iter().map(|(spot, times)| (spot.to_string(), times)).collect();
        Self { segment: segment.into(), mapped: read + ignored > 0, valued_fields, read, ignored, unread }
    }
}

fn percent(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "none".to_owned();
    }
    #[allow(clippy::cast_precision_loss)] // counts of fields
    let share = part as f64 * 100.0 / whole as f64;
    format!("{share:.1}%")
}

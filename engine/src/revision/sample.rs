//! One message through one mapping, printed so that people can read and keep it, and compared with what they kept.
//!
//! Promises: what is printed is the same for the same message and revision; the digits of numbers are kept; two
//! texts that differ only in the white space of JSON are the same.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use encoding_rs::Encoding;
use jiff::Timestamp;

use super::{Revision, SAMPLE_RECEIVED, SAMPLE_REVISION, route_file};
use crate::{
    connector::Payload,
    error::{Place, Problem},
    hl7::Message,
    mapping::{Context, Finding, MapError, Mapped, Mappings, Product},
    routing::{Route, RouteTest},
};

/// What became of one message.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// The bytes are no message.
    Unreadable(String),
    /// No route takes the message.
    Unrouted,
    /// The mapping ran.
    Done(Product),
    /// The mapping failed.
    Failed(MapError),
}

/// A test of a route that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TestFailure {
    /// The route.
    pub route: String,
    /// The message's file.
    pub message: PathBuf,
    /// The file of the expected output.
    pub expect: PathBuf,
    /// Where the test stands.
    pub place: Place,
    /// What is wrong, in one sentence and without anything of the message.
    pub what: String,
    /// The lines that differ: `-` expected, `+` found. Shows the content of test files.
    pub difference: String,
}

pub(super) fn run_tests(revision: &Revision, route: &Route) -> Vec<TestFailure> {
    let received = SAMPLE_RECEIVED.parse().unwrap_or(Timestamp::UNIX_EPOCH);
    route.tests.iter().filter_map(|test| run_test(revision, route, test, received)).collect()
}

fn run_test(
    revision: &Revision,
    route: &Route,
    test: &RouteTest,
    received: Timestamp,
) -> Option<TestFailure> {
    let failure = |what: String, difference: String| TestFailure {
        route: route.name.clone(),
        message: test.message.clone(),
        expect: test.expect.clone(),
        place: Place { file: route_file(route), line: test.line, column: 0 },
        what,
        difference,
    };
    let (Some(raw), Some(expected)) =
        (revision.samples.get(&test.message), revision.samples.get(&test.expect))
    else {
        return Some(failure("a file of the test is not there".to_owned(), String::new()));
    };
    let charset = charset_of(revision, route);
    let taken = |message: Message| revision.routes.takes(route, &message);
    if !Message::parse(raw.clone(), charset).map_or(true, taken) {
        return Some(failure("the route does not take this message: see `accept`".to_owned(), String::new()));
    }
    let context = Context { revision: SAMPLE_REVISION.into(), ..revision.context(received) };
    let sample = Sample::of(&revision.mappings, &route.map, raw.clone(), charset, &context);
    let expected = String::from_utf8_lossy(expected);
    let difference =
        difference(&comparable(&test.expect, &expected), &comparable(&test.expect, &sample.to_string()))?;
    let what = match &sample {
        Sample::Failed(error) => format!("the mapping failed: {error}"),
        _ => format!("the output is not as {} says", test.expect.display()),
    };
    Some(failure(what, difference))
}

/// The character set that the route's first listener assumes.
fn charset_of(revision: &Revision, route: &Route) -> &'static Encoding {
    let from = |listener: &&crate::config::ListenerConfig| route.from.first() == Some(&listener.name);
    revision.config.listeners.iter().find(from).map_or(encoding_rs::WINDOWS_1252, |listener| listener.charset)
}

impl Sample {
    /// Maps one message.
    pub fn of(
        mappings: &Mappings,
        name: &str,
        raw: Bytes,
        charset: &'static Encoding,
        context: &Context,
    ) -> Self {
        match Message::parse(raw, charset) {
            Ok(message) => match mappings.run(name, &Arc::new(message), context) {
                Ok(product) => Self::Done(product),
                Err(error) => Self::Failed(error),
            },
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }

    /// `mapped`, `skip`, `hold`, `reject`, `error`, `unreadable` or `unrouted`.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::Unrouted => "unrouted",
            Self::Failed(_) => "error",
            Self::Done(Product { mapped: Mapped::Outputs(_), .. }) => "mapped",
            Self::Done(Product { mapped: Mapped::Skip(_), .. }) => "skip",
            Self::Done(Product { mapped: Mapped::Hold(_), .. }) => "hold",
            Self::Done(Product { mapped: Mapped::Reject(_), .. }) => "reject",
        }
    }

    /// Why there is no output.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Unreadable(reason) => Some(reason.clone()),
            Self::Unrouted => Some("no route takes it".to_owned()),
            Self::Failed(error) => Some(error.to_string()),
            Self::Done(product) => match &product.mapped {
                Mapped::Outputs(_) => None,
                Mapped::Skip(reason) | Mapped::Hold(reason) | Mapped::Reject(reason) => Some(reason.clone()),
            },
        }
    }

    /// What was made.
    pub fn outputs(&self) -> &[Payload] {
        match self {
            Self::Done(Product { mapped: Mapped::Outputs(outputs), .. }) => outputs,
            _ => &[],
        }
    }

    /// What a person should look at.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Done(product) => &product.findings,
            _ => &[],
        }
    }
}

/// As it is kept in a file: the outputs one after the other, or one line that says why there are none.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = self.reason() {
            let result = if matches!(self, Self::Unreadable(_)) { "parse" } else { self.result() };
            return writeln!(f, "{result}: {reason}");
        }
        for output in self.outputs().iter().map(Payload::without_removals) {
            let text = String::from_utf8_lossy(output.bytes());
            match output {
                Payload::Hl7(_) => writeln!(f, "{}", text.trim_end().replace('\r', "\n"))?,
                Payload::FhirBundle(_) | Payload::FhirResource { .. } => f.write_str(&pretty(&text))?,
            }
        }
        Ok(())
    }
}

impl From<&TestFailure> for Problem {
    /// Without the difference: a problem is logged, and a log holds nothing of messages.
    fn from(failure: &TestFailure) -> Self {
        let TestFailure { message, place, what, .. } = failure;
        Self::error(format!("test {}: {what}", message.display())).at(
            place.file.clone(),
            place.line,
            place.column,
        )
    }
}

/// JSON with one element a line. The digits of numbers are not touched; what is no JSON comes out in some form.
pub fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut quoted, mut escaped, mut just_opened) = (0_usize, false, false, false);
    for character in text.chars() {
        if quoted {
            out.push(character);
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        if character.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(character, '}' | ']');
        if just_opened && !closes {
            new_line(&mut out, depth);
        }
        match character {
            '{' | '[' => {
                depth += 1;
                out.push(character);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !just_opened {
                    new_line(&mut out, depth);
                }
                out.push(character);
                if depth == 0 {
                    out.push('\n');
                }
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => {
                quoted = other == '"';
                out.push(other);
            }
        }
        just_opened = matches!(character, '{' | '[');
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// White space of JSON and line ends are no difference.
fn comparable(file: &Path, text: &str) -> String {
    if file.extension().is_some_and(|end| end == "json") && text.trim_start().starts_with(['{', '[']) {
        pretty(text)
    } else {
        text.replace("\r\n", "\n").replace('\r', "\n").trim_end().to_owned() + "\n"
    }
}

/// More lines than this are compared as one block: finding the shortest difference would take too long.
const LINES: usize = 2_000;
/// Lines shown before and after a difference.
const AROUND: usize = 3;

/// The lines that differ, `-` for expected and `+` for found, with some that do not around them; none if all are
/// the same.
pub fn difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let lines = script(&old, &new);
    let changed: Vec<usize> =
        lines.iter().enumerate().filter(|(_, (mark, _))| *mark != ' ').map(|(index, _)| index).collect();
    let mut shown = String::new();
    let mut last = None;
    for (index, (mark, line)) in lines.iter().enumerate() {
        let near = changed.partition_point(|at| at + AROUND < index);
        if changed.get(near).is_some_and(|at| at.abs_diff(index) <= AROUND) {
            if last.is_some_and(|last: usize| last + 1 != index) {
                shown.push_str("  …\n");
            }
            shown.push(*mark);
            shown.push(' ');
            shown.push_str(line);
            shown.push('\n');
            last = Some(index);
        }
    }
    Some(if shown.is_empty() { "  the line ends differ\n".to_owned() } else { shown })
}

/// Every line with its mark, by the longest common subsequence of the part that differs.
fn script<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let most = old.len().min(new.len()) - start;
    let end = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    let middle_old = old.get(start..old.len() - end).unwrap_or_default();
    let middle_new = new.get(start..new.len() - end).unwrap_or_default();
    let mut lines: Vec<(char, &str)> = old.iter().take(start).map(|line| (' ', *line)).collect();
    if middle_old.len() > LINES || middle_new.len() > LINES {
        lines.extend(middle_old.iter().map(|line| ('-', *line)));
        lines.extend(middle_new.iter().map(|line| ('+', *line)));
    } else {
        lines.extend(shortest(middle_old, middle_new));
    }
    lines.extend(old.iter().skip(old.len() - end).map(|line| (' ', *line)));
    lines
}

fn shortest<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    let mut common = vec![0_u16; (old.len() + 1) * width];
    let at = |table: &[u16], i: usize, j: usize| table.get(i * width + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let best = if a == b {
                at(&common, i + 1, j + 1) + 1
            } else {
                at(&common, i + 1, j).max(at(&common, i, j + 1))
            };
            if let Some(cell) = common.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                lines.push((' ', *a));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || at(&common, i + 1, j) >= at(&common, i, j + 1) => {
                lines.push(('-', *a));
                i += 1;
            }
            (_, Some(b)) => {
                lines.push(('+', *b));
                j += 1;
            }
            (_, None) => return lines,
        }
    }
}

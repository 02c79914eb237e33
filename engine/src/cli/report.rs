//! Problems, shown to people with the line they are in, and to machines as JSON.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity as Level,
    SourceCode,
};

use crate::{
    config::Snapshot,
    error::{Place, Problem, Severity},
};

/// All problems, one below the other, each with its line if the snapshot has the file.
pub(super) fn rendered(problems: &[Problem], snapshot: Option<&Snapshot>, colour: bool) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(110).with_context_lines(1);
    let mut out = String::new();
    for problem in problems {
        if handler.render_report(&mut out, &Shown::new(problem, snapshot)).is_err() {
            out.push_str(&problem.to_string());
        }
        out.push('\n');
    }
    out
}

/// So many of something: `1 route`, `2 routes`.
pub(super) fn counted(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Whether stderr is a terminal that wants colour.
pub(super) fn wants_colour() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none()
}

/// A problem in miette's words.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    source: Option<NamedSource<String>>,
    label: Option<LabeledSpan>,
}

impl<'a> Shown<'a> {
    fn new(problem: &'a Problem, snapshot: Option<&Snapshot>) -> Self {
        let place = problem.place.as_ref().filter(|place| place.line > 0);
        let text = place.and_then(|place| snapshot?.text(&place.file));
        let span = place.zip(text).and_then(|(place, text)| span(place, text));
        let (Some(place), Some(text), Some((start, length))) = (place, text, span) else {
            return Self { problem, source: None, label: None };
        };
        Self {
            problem,
            source: Some(NamedSource::new(place.file.display().to_string(), text.to_string())),
            label: Some(LabeledSpan::new(None, start, length)),
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With its line shown, the place stands there.
        match (&self.source, &self.problem.place) {
            (None, Some(place)) => write!(f, "{place}: {}", self.problem.what),
            _ => f.write_str(&self.problem.what),
        }
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<Level> {
        Some(match self.problem.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.label.iter().cloned()))
    }
}

/// The bytes to underline: the word at the place, or the line if only that is known.
fn span(place: &Place, text: &str) -> Option<(usize, usize)> {
    let mut before = 0;
    let line = text.split_inclusive('\n').enumerate().find_map(|(index, line)| {
        if index + 1 == place.line {
            return Some(line);
        }
        before += line.len();
        None
    })?;
    let content = line.trim_end();
    if place.column == 0 {
        let indent = content.len() - content.trim_start().len();
        return Some((before + indent, content.trim_start().len()));
    }
    let start: usize = content.chars().take(place.column - 1).map(char::len_utf8).sum();
    let rest = content.get(start..).unwrap_or_default();
    let mut quote = None;
    let word: usize = rest
        .chars()
        .take_while(|c| match quote {
            // A quoted word ends with its quote, a plain one with what separates words.
            None if matches!(c, '"' | '\'') => {
                quote = Some((*c, false));
                true
            }
            None => c.is_alphanumeric() || matches!(c, '_' | '-' | '.'),
            Some((_, true)) => false,
            Some((mark, false)) => {
                quote = Some((mark, *c == mark));
                true
            }
        })
        .map(char::len_utf8)
        .sum();
    Some((before + start, word.max(1).min(rest.len().max(1))))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_word_at_the_place_is_underlined() {
        let text = "from = 'hospitl'\nmäp = 5 # x\n\n  retry = 1";
        for (line, column, expected) in
            [(1, 8, "'hospitl'"), (1, 1, "from"), (2, 7, "5"), (2, 2, "äp"), (4, 0, "retry = 1")]
        {
            let place = Place { file: PathBuf::new(), line, column };
            let (start, length) = span(&place, text).unwrap();
            assert_eq!(text.get(start..start + length), Some(expected), "{line}:{column}");
        }
        assert!(span(&Place { file: PathBuf::new(), line: 9, column: 1 }, text).is_none());
        let (start, length) = span(&Place { file: PathBuf::new(), line: 3, column: 1 }, text).unwrap();
        assert!(start + length <= text.len());
    }
}

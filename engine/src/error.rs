//! Errors of configuration: what is wrong, where, and what to do next.
//!
//! Every fault that a person can write into `tie.toml`, a route, a mapping or a table becomes a [`Problem`].
//! The parsers collect them all; the command line renders them with the source line, the log and
//! `tie status` in one line. Errors of a message on the road have types of their own beside the stage.

use std::{fmt, path::PathBuf};

/// How bad a [`Problem`] is. An error keeps a configuration from going live, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a look; the configuration may run.
    Warning,
    /// The configuration must not run.
    Error,
}

/// One fault in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Whether it stops the configuration.
    pub severity: Severity,
    /// What is wrong, one sentence without a full stop.
    pub what: String,
    /// Where: the file, and if known the place in it.
    pub place: Option<Place>,
    /// What to do next, if that can be told.
    pub help: Option<String>,
}

/// A place in a file of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// The file, relative to the configuration directory.
    pub file: PathBuf,
    /// Line, from 1; 0 when only the file is known.
    pub line: usize,
    /// Column in characters, from 1; 0 when unknown.
    pub column: usize,
}

impl Problem {
    /// An error, without a place yet.
    pub fn error(what: impl Into<String>) -> Self {
        Self { severity: Severity::Error, what: what.into(), place: None, help: None }
    }

    /// A warning, without a place yet.
    pub fn warning(what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(what) }
    }

    /// Says where the fault is; line and column from 1, 0 where unknown.
    #[must_use]
    pub fn at(mut self, file: impl Into<PathBuf>, line: usize, column: usize) -> Self {
        self.place = Some(Place { file: file.into(), line, column });
        self
    }

    /// Says where the fault is by the byte offset in the text of the file.
    #[must_use]
    pub fn at_offset(self, file: impl Into<PathBuf>, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        self.at(file, line, column)
    }

    /// Says what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds "did you mean" when one of the known words is close to the one found.
    #[must_use]
    pub fn did_you_mean<'a>(self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(found, known) {
            Some(word) => self.help(format!("did you mean `{word}`?")),
            None => self,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}", self.what)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match (self.line, self.column) {
            (0, _) => Ok(()),
            (line, 0) => write!(f, ":{line}"),
            (line, column) => write!(f, ":{line}:{column}"),
        }
    }
}

/// The known word nearest to the one found, if any is near enough to be a slip of the pen.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(found, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_where_and_what_next() {
        let problem = Problem::error("unknown key `destinaton`")
            .at_offset("routes/adt.toml", "about = \"x\"\n[[to]]\ndestinaton = 1", 19)
            .did_you_mean("destinaton", ["destination", "purpose"]);
        assert_eq!(
            problem.to_string(),
            "routes/adt.toml:3:1: unknown key `destinaton` (did you mean `destination`?)"
        );
    }

    #[test]
    fn a_far_word_is_no_suggestion() {
        assert_eq!(nearest("xyz", ["destination", "purpose"]), None);
    }
}

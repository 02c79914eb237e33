//! TOML documents with places: reads a table into a type and says all that is wrong with it, not only the first.
//!
//! Promises: every problem has file, line and column; an unknown key or word comes with the nearest known one;
//! one reading of a table reports every unknown key and every wrong value in it. It does so by striking out what
//! is wrong and reading again, so any `Deserialize` type will do that does not use `flatten` or `untagged`
//! (serde loses the places there).
//! Left to others: files, and what the keys mean.

mod quantity;

use std::{path::Path, sync::Arc};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::error::{Problem, nearest};

pub use quantity::{ByteSize, Period, Rate};

/// The text of a TOML file and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The file, relative to the configuration directory.
    pub file: Arc<Path>,
    /// Its whole text.
    pub text: Arc<str>,
}

impl Document {
    /// A document, not yet read.
    pub fn new(file: impl AsRef<Path>, text: impl Into<Arc<str>>) -> Self {
        Self { file: file.as_ref().into(), text: text.into() }
    }

    /// The syntax tree.
    ///
    /// # Errors
    /// Every fault of the syntax.
    pub fn tree(&self) -> Result<Spanned<DeValue<'_>>, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            let span = table.span();
            return Ok(Spanned::new(span, DeValue::Table(table.into_inner())));
        }
        let mut problems: Vec<Problem> = errors.iter().map(|error| self.problem(error, &[])).collect();
        problems.sort_by_key(|problem| problem.place.as_ref().map(|place| (place.line, place.column)));
        Err(problems)
    }

    /// Reads a table of the tree into a type; `also_known` are keys that may be meant although the type has them not.
    ///
    /// # Errors
    /// Every unknown key, wrong value and, if nothing else is wrong before it, missing key.
    pub fn read<T: DeserializeOwned>(
        &self,
        mut table: Spanned<DeValue<'_>>,
        also_known: &[&str],
    ) -> Result<T, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut struck = Vec::new();
        loop {
            let error = match T::deserialize(toml::de::ValueDeserializer::from(table.clone())) {
                Ok(value) if problems.is_empty() => return Ok(value),
                Ok(_) => return Err(problems),
                Err(error) => error,
            };
            // A key that is missing only because its value was struck out has been reported already.
            if !missing_key(error.message()).is_some_and(|key| struck.iter().any(|gone| gone == key)) {
                problems.push(self.problem(&error, also_known));
            }
            match error.span().and_then(|span| strike(&mut table, &span)) {
                Some(key) => struck.push(key),
                None => return Err(problems),
            }
        }
    }

    /// A fault at a place of this document.
    pub fn fault(&self, what: impl Into<String>, offset: usize) -> Problem {
        Problem::error(what).at_offset(&*self.file, &self.text, offset)
    }

    fn problem(&self, error: &toml::de::Error, also_known: &[&str]) -> Problem {
        let (what, help) = plain(error.message(), also_known);
        let problem = self.fault(what, error.span().map_or(0, |span| span.start));
        match help {
            Some(help) => problem.help(help),
            None => problem,
        }
    }
}

/// The key that serde misses.
fn missing_key(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// Says in the words of a person who edits the file what serde says in the words of a programmer.
fn plain(message: &str, also_known: &[&str]) -> (String, Option<String>) {
    if let Some(key) = missing_key(message) {
        return (format!("the key `{key}` is missing"), None);
    }
    for (opening, noun, extra) in
        [("unknown field `", "key", also_known), ("unknown variant `", "value", &[])]
    {
        if let Some((found, rest)) = message.strip_prefix(opening).and_then(|rest| rest.split_once('`')) {
            let known: Vec<&str> = quoted(rest).chain(extra.iter().copied()).collect();
            return (format!("unknown {noun} `{found}`"), advice(found, &known));
        }
    }
    let mismatch = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, expected)) = mismatch.and_then(|rest| rest.split_once(", expected ")) {
        let expected = match expected {
            "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number in range",
            "a sequence" => "a list",
            table if table == "a map" || table.starts_with("struct ") => "a table",
            other => other,
        };
        return (format!("expected {expected}, found {found}"), None);
    }
    (message.to_owned(), None)
}

fn advice(found: &str, known: &[&str]) -> Option<String> {
    match (nearest(found, known.iter().copied()), known) {
        (Some(word), _) => Some(format!("did you mean `{word}`?")),
        (None, []) => None,
        (None, words) => {
            let mut words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.sort();
            Some(format!("known are {}", words.join(", ")))
        }
    }
}

/// The words between back-quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Takes out the key or value that begins and ends there; returns its key.
fn strike(value: &mut Spanned<DeValue<'_>>, span: &std::ops::Range<usize>) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(table) => {
            let here = table
                .iter()
                .find(|(key, value)| key.span() == *span || value.span() == *span)
                .map(|(key, _)| key.clone());
            match here {
                Some(key) => table.remove(&key).map(|_| key.into_inner().into_owned()),
                None => table.iter_mut().find_map(|(_, value)| strike(value, span)),
            }
        }
        DeValue::Array(array) => match array.iter().position(|value| value.span() == *span) {
            Some(index) => {
                #[allow(clippy::mem_replace_with_default)]
                // `take` does not compile: only the 'static array has a default
                let whole = std::mem::replace(array, DeArray::default());
                *array = whole
                    .into_iter()
                    .enumerate()
                    .filter(|(i, _)| *i != index)
                    .map(|(_, item)| item)
                    .collect();
                Some(String::new())
            }
            None => array.iter_mut().find_map(|value| strike(value, span)),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;

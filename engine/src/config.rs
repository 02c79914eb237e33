//! `tie.toml`: this instance.
use crate::error::Problem;
use std::path::Path;
/// A TOML error with its place, and the nearest known key when a key is unknown.
pub fn toml_problem(file: &Path, text: &str, error: &toml::de::Error) -> Problem {
    Problem::error(error.message()).at_offset(file, text, error.span().map_or(0, |span| span.start))
}

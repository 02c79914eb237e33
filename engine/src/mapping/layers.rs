//! Layers: a trust's own folder of mappings over the shipped one.
//!
//! A script of one name in several folders is one script: the functions and constants of the folder that stands first in
//! the list win, all others stay as they are. A table of one name likewise, row by row. So a trust changes one function,
//! one segment map or one code without a copy of the rest, and gets the rest anew with each release.
//!
//! Rhai knows no files inside of one script, so the lines of each further layer are counted on from the layer below it;
//! [`Parts::place`] leads back to the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use rhai::{AST, Stmt};

use super::Files;
use crate::error::Place;

/// The layers of one script or table, the lowest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts(Vec<Part>);

#[derive(Debug, Clone)]
struct Part {
    file: String,
    text: Arc<str>,
    /// The lines of all layers below.
    before: usize,
}

/// Something of a lower layer that a higher one says anew.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Override {
    /// The file that says it anew.
    pub file: PathBuf,
    /// The file below it.
    pub of: PathBuf,
    /// What: `fn put_death(p, msg)`, `const PATIENT`, `3 rows`.
    pub what: String,
}

/// The files by their path without its folder, each with its layers.
pub(super) fn stacked(files: &Files, folders: &[PathBuf], extension: &str) -> BTreeMap<PathBuf, Parts> {
    let mut found: BTreeMap<PathBuf, Parts> = BTreeMap::new();
    for folder in folders.iter().rev() {
        let deeper = |path: &Path| {
            folders
                .iter()
                .any(|other| other != folder && other.starts_with(folder) && path.starts_with(other))
        };
        for (path, text) in files {
            let Ok(below) = path.strip_prefix(folder) else { continue };
            if path.extension().is_some_and(|end| end == extension) && !deeper(path) {
                found.entry(below.to_owned()).or_default().push(path, text.clone());
            }
        }
    }
    found
}

impl Parts {
    fn push(&mut self, file: &Path, text: Arc<str>) {
        let before = self.0.iter().map(|part| part.text.lines().count() + 1).sum();
        self.0.push(Part { file: file.to_string_lossy().into_owned(), text, before });
    }

    /// The file of the lowest layer, which stands for the whole.
    pub fn file(&self) -> &str {
        self.0.first().map_or("", |part| &part.file)
    }

    /// The texts with their files, the lowest first.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|part| (part.file.as_str(), &*part.text))
    }

    /// The texts as Rhai reads them, one after the other: each with the lines of those below it left empty.
    pub fn sources(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|part| "\n".repeat(part.before) + &*part.text)
    }

    /// The file and line of a line that Rhai tells.
    pub fn place(&self, line: usize, column: usize) -> Place {
        let part = self.0.iter().rev().find(|part| part.before < line.max(1));
        let (file, before) = part.map_or(("", 0), |part| (part.file.as_str(), part.before));
        Place { file: file.into(), line: line.saturating_sub(before), column }
    }
}

/// What a layer says anew of the one below: functions and constants.
pub(super) fn overrides(below: &AST, of: &str, above: &AST, file: &str) -> Vec<Override> {
    let known: BTreeSet<(&str, usize)> =
        below.iter_functions().map(|function| (function.name, function.params.len())).collect();
    let functions = above
        .iter_functions()
        .filter(|function| known.contains(&(function.name, function.params.len())))
        .map(|function| format!("fn {}({})", function.name, function.params.join(", ")));
    let known: BTreeSet<String> = constants(below).collect();
    let constants = constants(above).filter(|name| known.contains(name)).map(|name| format!("const {name}"));
    let all = constants.chain(functions);
    all.map(|what| Override { file: file.into(), of: of.into(), what }).collect()
}

fn constants(ast: &AST) -> impl Iterator<Item = String> {
    ast.statements().iter().filter_map(|statement| match statement {
        Stmt::Var(variable, ..) => Some(variable.0.name.to_string()),
        _ => None,
    })
}

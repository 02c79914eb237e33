//! Scripts and tables as they are read from their folders, before anything is made of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use rhai::{AST, Engine, Position, Stmt};

use super::{
    layers::{self, Override, Parts},
    tokens::{self, Functions, Renames},
};
use crate::{
    error::{Place, Problem},
    fhir::{Table, Tables},
};

/// A script on its way through the compiler.
pub(super) struct Unit {
    /// What imports say: `adt`, `lib/patient`.
    pub name: String,
    /// The files that say it.
    pub parts: Parts,
    /// As written, not optimised: every place is in it.
    pub ast: AST,
    /// Alias, path, place.
    pub imports: Vec<(String, String, Position)>,
    pub functions: Functions,
}

impl Unit {
    /// A fault in this script.
    pub fn problem(&self, what: impl Into<String>, position: Position) -> Problem {
        at(Problem::error(what), &self.parts, position)
    }

    /// The scripts that it imports, by their aliases as Rhai reads them: an alias may be the name of a function too.
    pub fn aliases(&self) -> BTreeMap<String, String> {
        let read = |alias: &String| self.functions.rename(alias).unwrap_or_else(|| alias.clone());
        self.imports.iter().map(|(alias, path, _)| (read(alias), path.clone())).collect()
    }

    /// Whether it is a mapping of its own, not part of a library.
    pub fn is_mapping(&self) -> bool {
        !self.name.contains('/')
    }
}

/// A problem at a place that Rhai tells.
pub(super) fn at(problem: Problem, parts: &Parts, position: Position) -> Problem {
    let Place { file, line, column } =
        parts.place(position.line().unwrap_or(0), position.position().unwrap_or(0));
    problem.at(file, line, column)
}

/// The tables, each of all its layers.
pub(super) fn read_tables(
    stacks: &BTreeMap<PathBuf, Parts>,
    overrides: &mut Vec<Override>,
    problems: &mut Vec<Problem>,
) -> Tables {
    let mut tables = Tables::default();
    for (path, parts) in stacks {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut whole: Option<Table> = None;
        for (file, text) in parts.texts() {
            let table = match Table::parse(&name, Path::new(file), text) {
                Ok(table) => table,
                Err(found) => {
                    problems.extend(found);
                    continue;
                }
            };
            let Some(below) = &mut whole else {
                whole = Some(table);
                continue;
            };
            let rows = table.rows().count();
            match below.overlay(table) {
                Ok(replaced) => overrides.push(Override {
                    file: file.into(),
                    of: parts.file().into(),
                    what: format!("{replaced} rows anew, {} more", rows - replaced),
                }),
                Err(what) => problems.push(Problem::error(what).at(file, 1, 1)),
            }
        }
        whole.into_iter().for_each(|table| tables.insert(table));
    }
    tables
}

/// The scripts, each of all its layers, in the order of their names.
pub(super) fn read_units(
    stacks: BTreeMap<PathBuf, Parts>,
    loader: &Engine,
    overrides: &mut Vec<Override>,
    problems: &mut Vec<Problem>,
) -> Vec<Unit> {
    let mut units = Vec::new();
    for (path, parts) in stacks {
        let Some(ast) = read_parts(&parts, loader, overrides, problems) else { continue };
        let names = ast.iter_functions().map(|function| function.name.to_owned()).collect();
        let functions = Functions { names, mark: units.len() };
        let below: Vec<_> = path.with_extension("").components().filter_map(name_of).collect();
        let mut unit = Unit { name: below.join("/"), parts, ast, imports: Vec::new(), functions };
        read_top(&mut unit, problems);
        units.push(unit);
    }
    units
}

/// The layers of a script as one.
fn read_parts(
    parts: &Parts,
    loader: &Engine,
    overrides: &mut Vec<Override>,
    problems: &mut Vec<Problem>,
) -> Option<AST> {
    let mut whole: Option<AST> = None;
    for ((file, _), text) in parts.texts().zip(parts.sources()) {
        tokens::begin(Renames::default());
        match (loader.compile(text), &mut whole) {
            (Ok(ast), None) => whole = Some(ast),
            (Ok(ast), Some(below)) => {
                overrides.extend(layers::overrides(below, parts.file(), &ast, file));
                below.combine(ast);
            }
            (Err(error), _) => {
                problems.push(at(Problem::error(error.err_type().to_string()), parts, error.position()));
                return None;
            }
        }
    }
    if let Some(ast) = &mut whole {
        ast.set_source(parts.file());
    }
    whole
}

fn name_of(component: Component<'_>) -> Option<String> {
    match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    }
}

/// Notes the imports, and holds the rule of what may stand at the top of a script.
fn read_top(unit: &mut Unit, problems: &mut Vec<Problem>) {
    let mut imports = Vec::new();
    for statement in unit.ast.statements() {
        match statement {
            Stmt::Import(import, position) => {
                match import.0.get_literal_value(None).and_then(|path| path.into_string().ok()) {
                    Some(path) if !import.1.name.is_empty() => {
                        imports.push((import.1.name.to_string(), path, *position))
                    }
                    _ => problems.push(unit.problem(
                        "an import names its file and an alias: `import \"lib/patient\" as patient;`",
                        *position,
                    )),
                }
            }
            Stmt::Var(_, flags, position) if !flags.contains(rhai::ASTFlags::CONSTANT) => {
                problems.push(
                    unit.problem("a variable cannot stand outside of a function: make it `const`", *position),
                );
            }
            Stmt::Var(..) | Stmt::Noop(_) => {}
            other => {
                problems.push(unit.problem(
                    "only `import`, `const` and `fn` stand at the top of a script",
                    other.position(),
                ))
            }
        }
    }
    unit.imports = imports;
}

/// The scripts so that each comes after what it imports.
pub(super) fn ordered(mut units: Vec<Unit>, problems: &mut Vec<Problem>) -> Vec<Unit> {
    let known: BTreeSet<String> = units.iter().map(|unit| unit.name.clone()).collect();
    for unit in &units {
        for (_, path, position) in unit.imports.iter().filter(|(_, path, _)| !known.contains(path)) {
            let problem =
                unit.problem(format!("there is no script `mappings/{path}.rhai` to import"), *position);
            problems.push(problem.did_you_mean(path, known.iter().map(String::as_str)));
        }
    }
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut out = Vec::with_capacity(units.len());
    while !units.is_empty() {
        let ready = |unit: &Unit| {
            unit.imports.iter().all(|(_, path, _)| done.contains(path) || !known.contains(path))
        };
        let (now, later): (Vec<_>, Vec<_>) = units.into_iter().partition(ready);
        if now.is_empty() {
            for unit in &later {
                let position = unit.imports.first().map_or(Position::NONE, |(_, _, position)| *position);
                problems.push(unit.problem("these imports go round in a circle", position));
            }
            break;
        }
        done.extend(now.iter().map(|unit| unit.name.clone()));
        out.extend(now);
        units = later;
    }
    out
}

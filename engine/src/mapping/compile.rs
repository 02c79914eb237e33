//! Compiles the scripts and tables of a revision.
//!
//! Each script is read twice. First without its constants: its imports are followed, its constants are made
//! (segment maps become plans) and everything is checked. Then with its constants in scope, which Rhai writes
//! into the bodies of the functions; so a function may use `PATIENT` by its plain name, and a plan costs nothing
//! at run time. Scripts become modules in the order of their imports; a cycle is an error.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
    sync::Arc,
};

use parking_lot::RwLock;
use rhai::{
    AST, Array, Dynamic, Engine, EvalAltResult, ImmutableString, Module, ModuleResolver, NativeCallContext,
    OptimizationLevel, Position, Scope, Shared, Stmt,
};

use super::{
    Files, Limits, check,
    engine::build,
    fault::{self, Words, told},
    handles::PlanHandle,
    nodes,
    plan::{Cell, Plan, PlanFault},
    preference,
    run::Script,
    tokens::{self, Functions, Renames},
    values::MessageHandle,
};
use crate::{
    error::{Problem, Severity},
    fhir::{Node, Table, Tables},
};

/// A revision's mappings, ready to run.
pub(super) struct Compiled {
    pub engine: Engine,
    pub scripts: BTreeMap<String, Script>,
    pub tables: Arc<Tables>,
    pub words: Words,
    pub warnings: Vec<Problem>,
}

/// A script on its way through the compiler.
pub(super) struct Unit {
    /// What imports say: `adt`, `lib/patient`.
    pub name: String,
    /// `mappings/lib/patient.rhai`
    pub file: String,
    text: Arc<str>,
    /// As written, not optimised: every place is in it.
    pub ast: AST,
    /// Alias, path, place.
    pub imports: Vec<(String, String, Position)>,
    functions: Functions,
}

impl Unit {
    /// A fault in this script.
    pub fn problem(&self, what: impl Into<String>, position: Position) -> Problem {
        at(Problem::error(what), &self.file, position)
    }

    /// Whether it is a mapping of its own, not part of a library.
    pub fn is_mapping(&self) -> bool {
        !self.name.contains('/')
    }
}

/// Modules that are ready to be imported.
#[derive(Clone, Default)]
struct Ready(Arc<RwLock<BTreeMap<String, Shared<Module>>>>);

impl ModuleResolver for Ready {
    fn resolve(
        &self,
        _: &Engine,
        _: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let found = self.0.read().get(path).cloned();
        found.ok_or_else(|| Box::new(EvalAltResult::ErrorModuleNotFound(path.into(), position)))
    }
}

thread_local! {
    /// What plans complain of while the constants of a script are made.
    static FAULTS: RefCell<Vec<(Position, PlanFault)>> = RefCell::default();
}

pub(super) fn compile(files: &Files, limits: &Limits) -> Result<Compiled, Vec<Problem>> {
    let mut problems = Vec::new();
    let tables = Arc::new(read_tables(files, &mut problems));
    let ready = Ready::default();
    let mut engine = build(limits);
    engine.set_module_resolver(ready.clone());
    let mut loader = build(limits);
    loader.set_module_resolver(ready.clone());
    loader.set_strict_variables(false).set_optimization_level(OptimizationLevel::None);
    register_plans(&mut loader, tables.clone());
    preference::register_constant(&mut loader);

    let units = ordered(read_units(files, &loader, &mut problems), &mut problems);
    let mut signatures = check::Signatures::default();
    let mut done = Compiled {
        engine,
        scripts: BTreeMap::new(),
        tables: tables.clone(),
        words: Words::default(),
        warnings: Vec::new(),
    };
    for unit in &units {
        let whole = unit.imports.iter().all(|(_, path, _)| ready.0.read().contains_key(path));
        let constants = if whole { constants(unit, &loader, &mut problems) } else { Scope::new() };
        check::collect(unit, &mut done.words);
        check::check(unit, &constants, &tables, &mut signatures, &mut problems);
        if !whole {
            continue; // what it imports is missing or at fault, and has been told
        }
        match module(unit, &renames(unit, &units), &constants, &done.engine) {
            Ok(module) => drop(ready.0.write().insert(unit.name.clone(), module.into())),
            // Rhai stops at its first fault, which may be one that the checks have told better.
            Err(problem) if problems.iter().any(|known| same_line(known, &problem)) => {}
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(link(&units, &ready, &mut done));
    // One cause may be found by several passes: tell it once, in the order of the files.
    problems.sort_by(|one, other| key(one).cmp(&key(other)));
    problems.dedup_by(|one, other| one.place == other.place && one.place.is_some());
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(problems);
    }
    done.warnings = problems;
    Ok(done)
}

fn same_line(one: &Problem, other: &Problem) -> bool {
    match (&one.place, &other.place) {
        (Some(one), Some(other)) => one.file == other.file && one.line == other.line,
        _ => false,
    }
}

fn key(problem: &Problem) -> (&Path, usize, usize) {
    problem.place.as_ref().map_or((Path::new(""), 0, 0), |place| (&place.file, place.line, place.column))
}

fn at(problem: Problem, file: &str, position: Position) -> Problem {
    problem.at(file, position.line().unwrap_or(0), position.position().unwrap_or(0))
}

fn read_tables(files: &Files, problems: &mut Vec<Problem>) -> Tables {
    let mut tables = Tables::default();
    for (path, text) in
        files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "csv"))
    {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        match Table::parse(&name, path, text) {
            Ok(table) => tables.insert(table),
            Err(found) => problems.extend(found),
        }
    }
    tables
}

fn read_units(files: &Files, loader: &Engine, problems: &mut Vec<Problem>) -> Vec<Unit> {
    let mut units = Vec::new();
    for (path, text) in
        files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "rhai"))
    {
        let file = path.to_string_lossy().into_owned();
        let below: Vec<_> = path.with_extension("").components().skip(1).filter_map(name_of).collect();
        tokens::begin(Renames::default());
        match loader.compile(text.as_ref()) {
            Ok(mut ast) => {
                ast.set_source(file.as_str());
                let names = ast.iter_functions().map(|function| function.name.to_owned()).collect();
                let functions = Functions { names, mark: units.len() };
                let mut unit = Unit {
                    name: below.join("/"),
                    file,
                    text: text.clone(),
                    ast,
                    imports: Vec::new(),
                    functions,
                };
                read_top(&mut unit, problems);
                units.push(unit);
            }
            Err(error) => {
                problems.push(at(Problem::error(error.err_type().to_string()), &file, error.position()))
            }
        }
    }
    units
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
fn ordered(mut units: Vec<Unit>, problems: &mut Vec<Problem>) -> Vec<Unit> {
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

/// Makes the constants of a script.
fn constants(unit: &Unit, loader: &Engine, problems: &mut Vec<Problem>) -> Scope<'static> {
    let mut scope = Scope::new();
    FAULTS.with_borrow_mut(Vec::clear);
    let made = loader.run_ast_with_scope(&mut scope, &unit.ast);
    let places = check::map_places(&unit.ast);
    for (call, fault) in FAULTS.take() {
        let position = fault.row.and_then(|row| {
            let cells = places.get(&call)?.get(row)?;
            cells.get(fault.cell.unwrap_or(0) + 1).or(cells.first()).copied()
        });
        let mut problem = unit.problem(fault.what, position.unwrap_or(call));
        problem.help = fault.help;
        problems.push(problem);
    }
    if let Err(error) = made {
        let position = error.position();
        let what = told(*error, &unit.file, None)
            .err()
            .map_or_else(|| "the constants cannot be made".to_owned(), |error| error.what);
        problems.push(unit.problem(what, position));
    }
    let mut constants = Scope::new();
    for (name, constant, value) in scope.iter().filter(|(_, constant, _)| *constant) {
        debug_assert!(constant);
        constants.push_constant_dynamic(name.to_owned(), value);
    }
    constants
}

/// What the script may call by names that are given anew.
fn renames(unit: &Unit, units: &[Unit]) -> Renames {
    let imports = unit.imports.iter().filter_map(|(alias, path, _)| {
        let found = units.iter().find(|other| other.name == *path)?;
        Some((alias.clone(), found.functions.clone()))
    });
    Renames { own: unit.functions.clone(), imports: imports.collect() }
}

/// Compiles the script with its constants in scope, into a module that others can import.
fn module(unit: &Unit, renames: &Renames, constants: &Scope<'_>, engine: &Engine) -> Result<Module, Problem> {
    tokens::begin(renames.clone());
    let mut ast = engine.compile_with_scope(constants, unit.text.as_ref()).map_err(|error| {
        let problem = at(Problem::error(error.err_type().to_string()), &unit.file, error.position());
        match error.err_type() {
            rhai::ParseErrorType::VariableUndefined(name) => {
                problem.did_you_mean(name, constants.iter().map(|(name, ..)| name).collect::<Vec<_>>())
            }
            _ => problem,
        }
    })?;
    let imports: Vec<Stmt> =
        ast.statements().iter().filter(|statement| matches!(statement, Stmt::Import(..))).cloned().collect();
    ast = AST::new(imports, ast.shared_lib().clone());
    ast.set_source(unit.file.as_str());
    let mut module = Module::eval_ast_as_new(Scope::new(), &ast, engine).map_err(|error| {
        let position = error.position();
        unit.problem("its imports cannot be loaded", position)
    })?;
    for (name, _, value) in constants.iter() {
        module.set_var(name, value);
    }
    module.build_index();
    Ok(module)
}

/// Gives each mapping a call of its `map`.
fn link(units: &[Unit], ready: &Ready, done: &mut Compiled) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut scope = Scope::new();
    scope.push_constant("msg", MessageHandle);
    for (number, unit) in units.iter().enumerate().filter(|(_, unit)| unit.is_mapping()) {
        if !unit.ast.iter_functions().any(|function| function.name == "map" && function.params.len() == 1) {
            let problem = Problem::error("a mapping needs `fn map(msg)`").at(&unit.file, 0, 0);
            problems.push(problem.help("put what only other scripts use into mappings/lib/"));
            continue;
        }
        let Some(module) = ready.0.read().get(&unit.name).cloned() else { continue };
        done.engine.register_static_module(format!("m{number}"), module);
        tokens::begin(Renames::default());
        match done
            .engine
            .compile_with_scope(&scope, format!("m{number}::{}(msg)", unit.functions.inside("map")))
        {
            Ok(call) => {
                drop(done.scripts.insert(unit.name.clone(), Script { file: unit.file.clone(), call }))
            }
            Err(error) => problems.push(Problem::error(error.to_string()).at(&unit.file, 0, 0)),
        }
    }
    problems
}

/// `segment_map`, which exists only while constants are made.
fn register_plans(loader: &mut Engine, tables: Arc<Tables>) {
    loader.register_fn(
        "segment_map",
        move |context: NativeCallContext<'_>,
              segment: ImmutableString,
              target: ImmutableString,
              rows: Array|
              -> Result<PlanHandle, Box<EvalAltResult>> {
            let rows = rows.into_iter().map(cells).collect::<Result<Vec<_>, _>>()?;
            let (plan, faults) = Plan::compile(&segment, &target, &rows, &tables);
            let call = context.call_position();
            FAULTS.with_borrow_mut(|found| found.extend(faults.into_iter().map(|fault| (call, fault))));
            match plan {
                Some(plan) => Ok(Arc::new(plan)),
                None => Err(fault::fault("the segment map cannot be made")),
            }
        },
    );
}

fn cells(row: Dynamic) -> Result<Vec<Cell>, Box<EvalAltResult>> {
    let cells = row
        .into_array()
        .map_err(|_| fault::fault("a segment map is a list of rows: `[field, element, data type]`"))?;
    let cell = |cell: Dynamic| -> Result<Cell, Box<EvalAltResult>> {
        if cell.is_string() {
            return Ok(Cell::Text(cell.into_string().unwrap_or_default()));
        }
        Ok(Cell::Node(nodes::node(cell)?.unwrap_or(Node::text(""))))
    };
    cells.into_iter().map(cell).collect()
}

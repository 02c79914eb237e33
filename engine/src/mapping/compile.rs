//! Compiles the scripts and tables of a revision.
//!
//! Each script is read twice. First without its constants: its imports are followed, its constants are made
//! (segment maps become plans) and everything is checked. Then with its constants in scope, which Rhai writes
//! into the bodies of the functions; so a function may use `PATIENT` by its plain name, and a plan costs nothing
//! at run time. Scripts become modules in the order of their imports; a cycle is an error.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use rhai::{
    AST, Array, Dynamic, Engine, EvalAltResult, ImmutableString, Module, ModuleResolver, NativeCallContext,
    OptimizationLevel, Position, Scope, Shared, Stmt,
};

use super::{
    Files, Limits, Override, check,
    engine::build,
    fault::{self, Words, told},
    handles::PlanHandle,
    host::Host,
    ignored::{self, Ignored, IgnoredHandle},
    layers::{Parts, stacked},
    nodes,
    plan::{Cell, Plan, PlanFault},
    preference,
    program::{Library, Program, Source},
    run::Script,
    series,
    tokens::{self, Renames},
    units::{Unit, at, ordered, read_tables, read_units},
    values::MessageHandle,
};
use crate::{
    error::{Problem, Severity},
    fhir::{Node, Tables},
};

/// A revision's mappings, ready to run.
pub(super) struct Compiled {
    pub engine: Engine,
    pub program: Program,
    pub scripts: BTreeMap<String, Script>,
    pub tables: Arc<Tables>,
    pub words: Words,
    /// What a folder says anew of the folders below it.
    pub overrides: Vec<Override>,
    /// The layers of each script, by the file that stands for it.
    pub parts: BTreeMap<String, Parts>,
    pub warnings: Vec<Problem>,
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
    /// What is wrong with the constants of a script while they are made, by the place of the call.
    static FAULTS: RefCell<Vec<(Position, PlanFault)>> = RefCell::default();
}

/// Tells that a constant is wrong, by the place of the call that makes it.
pub(super) fn complain(call: Position, fault: PlanFault) {
    FAULTS.with_borrow_mut(|found| found.push((call, fault)));
}

pub(super) fn compile(files: &Files, folders: &[PathBuf], limits: &Limits) -> Result<Compiled, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut overrides = Vec::new();
    let tables = Arc::new(read_tables(&stacked(files, folders, "csv"), &mut overrides, &mut problems));
    let ready = Ready::default();
    let Host { mut engine, natives } = build(limits);
    engine.set_module_resolver(ready.clone());
    let mut loader = build(limits).engine;
    loader.set_module_resolver(ready.clone());
    loader.set_strict_variables(false).set_optimization_level(OptimizationLevel::None);
    register_plans(&mut loader, tables.clone());
    preference::register_constant(&mut loader);
    ignored::register_constant(&mut loader);
    series::register_constant(&mut loader);

    let units = read_units(stacked(files, folders, "rhai"), &loader, &mut overrides, &mut problems);
    let units = ordered(units, &mut problems);
    let mut signatures = check::Signatures::default();
    let mut ignored = BTreeMap::new();
    let mut library = Library::default();
    let mut done = Compiled {
        engine,
        program: Program::default(),
        scripts: BTreeMap::new(),
        tables: tables.clone(),
        words: Words::default(),
        overrides,
        parts: units.iter().map(|unit| (unit.parts.file().to_owned(), unit.parts.clone())).collect(),
        warnings: Vec::new(),
    };
    for unit in &units {
        let whole = unit.imports.iter().all(|(_, path, _)| ready.0.read().contains_key(path));
        let constants = if whole { constants(unit, &loader, &mut problems) } else { Scope::new() };
        ignored.insert(unit.name.clone(), ignored_by(unit, &constants, &ignored));
        check::collect(unit, &mut done.words);
        check::check(unit, &constants, &tables, &mut signatures, &mut problems);
        if !whole {
            continue; // what it imports is missing or at fault, and has been told
        }
        match module(unit, &renames(unit, &units), &constants, &done.engine) {
            Ok((module, ast)) => {
                let constants =
                    constants.iter().map(|(name, _, value)| (name.to_owned(), value.into())).collect();
                let (name, file, imports) = (&unit.name, unit.parts.file(), unit.aliases());
                library.add(&Source { name, file, ast: &ast, imports, constants }, &natives);
                ready.0.write().insert(unit.name.clone(), module.into());
            }
            // Rhai stops at its first fault, which may be one that the checks have told better.
            Err(problem) if problems.iter().any(|known| same_line(known, &problem)) => {}
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(link(&units, &ready, &library, &mut ignored, &mut done));
    done.program = library.program();
    // One cause may be found by several passes: tell it once, in the order of the files.
    problems.sort_by(|one, other| key(one).cmp(&key(other)));
    problems.dedup_by(|one, other| one.place == other.place && one.place.is_some());
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(problems);
    }
    // A mistake, too, leaves a script without a program: only what is otherwise sound is told so.
    problems.extend(done.scripts.values().filter(|script| script.entry.is_none()).map(run_by_rhai));
    done.warnings = problems;
    Ok(done)
}

fn run_by_rhai(script: &Script) -> Problem {
    let what = "this mapping takes longer than others: something in it is left to Rhai's own evaluator";
    let help = "do without `try`, `this`, `Fn`, `call`, `reduce` and functions in variables";
    Problem::warning(what).at(&script.file, 0, 0).help(help)
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
        let what = told(*error, unit.parts.file(), None)
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

/// What a script and all that it imports leave out on purpose.
fn ignored_by(unit: &Unit, constants: &Scope<'_>, known: &BTreeMap<String, Ignored>) -> Ignored {
    let imported = unit.imports.iter().filter_map(|(_, path, _)| known.get(path)).cloned();
    let own = constants.iter().filter_map(|(_, _, value)| value.try_cast::<IgnoredHandle>());
    imported.chain(own.map(|own| own.as_ref().clone())).flatten().collect()
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
fn module(
    unit: &Unit,
    renames: &Renames,
    constants: &Scope<'_>,
    engine: &Engine,
) -> Result<(Module, AST), Problem> {
    let mut ast = AST::empty();
    for text in unit.parts.sources() {
        tokens::begin(renames.clone());
        let part = engine.compile_with_scope(constants, text).map_err(|error| {
            let problem = at(Problem::error(error.err_type().to_string()), &unit.parts, error.position());
            match error.err_type() {
                rhai::ParseErrorType::VariableUndefined(name) => {
                    problem.did_you_mean(name, constants.iter().map(|(name, ..)| name).collect::<Vec<_>>())
                }
                _ => problem,
            }
        })?;
        ast.combine(part);
    }
    let imports: Vec<Stmt> =
        ast.statements().iter().filter(|statement| matches!(statement, Stmt::Import(..))).cloned().collect();
    ast = AST::new(imports, ast.shared_lib().clone());
    ast.set_source(unit.parts.file());
    let mut module = Module::eval_ast_as_new(Scope::new(), &ast, engine).map_err(|error| {
        let position = error.position();
        unit.problem("its imports cannot be loaded", position)
    })?;
    for (name, _, value) in constants.iter() {
        module.set_var(name, value);
    }
    module.build_index();
    Ok((module, ast))
}

/// Gives each mapping a call of its `map`.
fn link(
    units: &[Unit],
    ready: &Ready,
    library: &Library,
    ignored: &mut BTreeMap<String, Ignored>,
    done: &mut Compiled,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut scope = Scope::new();
    scope.push_constant("msg", MessageHandle);
    for (number, unit) in units.iter().enumerate().filter(|(_, unit)| unit.is_mapping()) {
        if !unit.ast.iter_functions().any(|function| function.name == "map" && function.params.len() == 1) {
            let problem = Problem::error("a mapping needs `fn map(msg)`").at(unit.parts.file(), 0, 0);
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
                let ignored = ignored.remove(&unit.name).unwrap_or_default();
                let entry = library.entry(&unit.name, &unit.functions.inside("map"), 1);
                let script = Script { file: unit.parts.file().to_owned(), entry, call, ignored };
                drop(done.scripts.insert(unit.name.clone(), script));
            }
            Err(error) => problems.push(Problem::error(error.to_string()).at(unit.parts.file(), 0, 0)),
        }
    }
    problems
}

/// `segment_map`, and `with` and `without` of one, which exist only while constants are made.
fn register_plans(loader: &mut Engine, tables: Arc<Tables>) {
    let tell = |context: &NativeCallContext<'_>, faults: Vec<PlanFault>| {
        faults.into_iter().for_each(|fault| complain(context.call_position(), fault));
    };
    let own = tables.clone();
    loader.register_fn(
        "segment_map",
        move |context: NativeCallContext<'_>,
              segment: ImmutableString,
              target: ImmutableString,
              rows: Array|
              -> Result<PlanHandle, Box<EvalAltResult>> {
            let rows = rows.into_iter().map(cells).collect::<Result<Vec<_>, _>>()?;
            let (plan, faults) = Plan::compile(&segment, &target, &rows, &own);
            tell(&context, faults);
            match plan {
                Some(plan) => Ok(Arc::new(plan)),
                None => Err(fault::fault("the segment map cannot be made")),
            }
        },
    );
    loader.register_fn(
        "with",
        move |context: NativeCallContext<'_>,
              plan: PlanHandle,
              rows: Array|
              -> Result<PlanHandle, Box<EvalAltResult>> {
            let rows = rows.into_iter().map(cells).collect::<Result<Vec<_>, _>>()?;
            let (plan, faults) = plan.with(&rows, &tables);
            tell(&context, faults);
            Ok(Arc::new(plan))
        },
    );
    loader.register_fn("without", |plan: PlanHandle, fields: Array| {
        let fields = fields.into_iter().map(Dynamic::into_string).collect::<Result<Vec<_>, _>>();
        let fields = fields.map_err(|_| fault::fault("`without` takes a list of fields: `[\"PID-6\"]`"))?;
        match plan.without(&fields) {
            Ok(plan) => Ok(Arc::new(plan)),
            Err(field) => Err(fault::fault(format!("the segment map has no row of `{field}`"))),
        }
    });
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

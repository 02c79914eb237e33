//! Checks that Rhai leaves to run time: walks a script and finds calls that no function answers, paths that
//! lead nowhere, and tables, data types and resources that do not exist. Each fault has its place.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTNode, Expr, FnCallExpr, Position, Scope, Stmt};
use smol_str::SmolStr;

use super::{engine::functions, fault::Words, handles::PlanHandle, units::Unit, wire};
use crate::{
    error::{Problem, Severity},
    fhir::{
        self, Tables,
        elements::{resource_names, type_named},
        types::CONVERTERS,
    },
    hl7,
    incoming::check_path,
};

/// The functions of each script: name and numbers of arguments.
pub(super) type Signatures = BTreeMap<String, BTreeMap<String, BTreeSet<usize>>>;

/// Where the rows of segment maps and other lists stand: for each row its own place, then those of its cells.
pub(super) type MapPlaces = BTreeMap<Position, Vec<Vec<Position>>>;

/// Finds the places of all lists of rows that constants are made of.
pub(super) fn map_places(ast: &AST) -> MapPlaces {
    let mut places = MapPlaces::new();
    ast.walk(&mut |path| {
        if let Some((call, position)) = call(path.last())
            && let Some(place) = rows_of(&call.name)
            && let Some(Expr::Array(rows, _)) = call.args.get(place)
        {
            let cells = |row: &Expr| match row {
                Expr::Array(cells, position) => {
                    std::iter::once(*position).chain(cells.iter().map(Expr::position)).collect()
                }
                other => vec![other.position()],
            };
            places.insert(position, rows.iter().map(cells).collect());
        }
        true
    });
    places
}

/// Which argument of a function that makes a constant is its list of rows.
fn rows_of(function: &str) -> Option<usize> {
    match function {
        "segment_map" => Some(2),
        "ignored" | "with" => Some(0),
        _ => None,
    }
}

/// Notes the texts and the names that stand in a script.
pub(super) fn collect(unit: &Unit, words: &mut Words) {
    unit.ast.walk(&mut |path| {
        match path.last() {
            Some(ASTNode::Expr(Expr::StringConstant(text, _))) => {
                words.literals.insert(SmolStr::new(text.as_str()));
            }
            Some(ASTNode::Expr(Expr::Variable(variable, ..))) => {
                words.names.insert(SmolStr::new(variable.1.as_str()));
            }
            Some(ASTNode::Expr(Expr::Property(property, _))) => {
                words.names.insert(SmolStr::new(property.2.as_str()));
            }
            Some(ASTNode::Expr(Expr::Map(map, _))) => {
                words.names.extend(map.0.iter().map(|(key, _)| SmolStr::new(key.name.as_str())));
            }
            node => {
                if let Some((call, _)) = call(node) {
                    words.names.insert(SmolStr::new(call.name.as_str()));
                }
            }
        }
        true
    });
}

/// Checks a script; adds its functions to the signatures.
pub(super) fn check(
    unit: &Unit,
    constants: &Scope<'_>,
    tables: &Tables,
    signatures: &mut Signatures,
    problems: &mut Vec<Problem>,
) {
    let mut own: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for function in unit.ast.iter_functions() {
        own.entry(function.name.to_owned()).or_default().insert(function.params.len());
    }
    signatures.insert(unit.name.clone(), own);
    let imports = unit.imports.iter().map(|(alias, path, _)| (alias.as_str(), path.as_str())).collect();
    let mut checker =
        Checker { unit, constants, tables, signatures, imports, resources: BTreeMap::new(), problems };
    unit.ast.walk(&mut |path| {
        checker.learn(path.last());
        true
    });
    unit.ast.walk(&mut |path| {
        checker.node(path);
        true
    });
}

struct Checker<'a> {
    unit: &'a Unit,
    constants: &'a Scope<'a>,
    tables: &'a Tables,
    signatures: &'a Signatures,
    /// Alias to script.
    imports: BTreeMap<&'a str, &'a str>,
    /// Variables that hold a resource; none where several types share a name.
    resources: BTreeMap<String, Option<&'static str>>,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    /// Learns which variables hold which resource: `let p = out.put(PATIENT, …)`.
    fn learn(&mut self, node: Option<&ASTNode<'_>>) {
        let Some(ASTNode::Stmt(Stmt::Var(variable, ..))) = node else { return };
        let name = variable.0.name.to_string();
        let found = match &variable.1 {
            Expr::Dot(dot, ..) => match &dot.rhs {
                Expr::MethodCall(call, _) if call.name == "put" => {
                    call.args.first().and_then(|first| self.type_of(first))
                }
                _ => None,
            },
            _ => None,
        };
        match self.resources.get(&name) {
            Some(known) if *known != found => drop(self.resources.insert(name, None)),
            _ => drop(self.resources.insert(name, found)),
        }
    }

    fn type_of(&self, expression: &Expr) -> Option<&'static str> {
        match expression {
            Expr::StringConstant(name, _) => type_named(name).map(|found| found.name),
            Expr::Array(plans, _) => self.type_of(plans.first()?),
            Expr::Stmt(block) => match block.statements() {
                [Stmt::If(parts, _)] => {
                    let of = |branch: &[Stmt]| match branch {
                        [Stmt::Expr(value)] => self.type_of(value),
                        _ => None,
                    };
                    let (one, other) = (of(parts.body.statements()), of(parts.branch.statements()));
                    one.filter(|_| one == other)
                }
                _ => None,
            },
            Expr::Variable(variable, ..) if variable.2.is_empty() => {
                Some(self.constants.get_value::<PlanHandle>(&variable.1)?.target.name)
            }
            _ => None,
        }
    }

    fn node(&mut self, path: &[ASTNode<'_>]) {
        match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, position)))
            | Some(ASTNode::Stmt(Stmt::FnCall(call, position))) => {
                self.function(call, *position, path);
            }
            Some(ASTNode::Expr(Expr::Dot(dot, ..))) => self.method(&dot.lhs, first_link(&dot.rhs)),
            Some(ASTNode::Expr(Expr::Index(index, ..))) if is_message(&index.lhs) => {
                if let Expr::StringConstant(text, position) = first_link(&index.rhs) {
                    self.message_path(text, *position);
                }
            }
            _ => {}
        }
    }

    fn function(&mut self, call: &FnCallExpr, position: Position, path: &[ASTNode<'_>]) {
        if call.is_operator_call() {
            return;
        }
        if call.is_qualified() {
            return self.imported(call, position);
        }
        if matches!(call.name.as_str(), "segment_map" | "ignored") && !in_constant(path) {
            let what =
                format!("`{0}` makes a constant: `const NAME = {0}(…);` at the top of the script", call.name);
            self.say(what, position);
        }
        if call.name == "table" {
            self.named(call.args.first(), "table", self.tables.names().collect());
        }
        if matches!(call.name.as_str(), "skip" | "hold" | "reject" | "fail" | "warn") {
            self.reason(call, position);
        }
        if matches!(call.name.as_str(), "reference" | "id") {
            self.named(call.args.first(), "resource", resource_names().collect());
        }
        let own = self.signatures.get(&self.unit.name);
        let counts: BTreeSet<usize> =
            [own.and_then(|own| own.get(call.name.as_str())), functions().get(call.name.as_str())]
                .into_iter()
                .flatten()
                .flatten()
                .copied()
                .collect();
        let known = own.into_iter().flat_map(BTreeMap::keys).chain(functions().keys());
        let known: Vec<String> =
            known.filter(|name| name.starts_with(char::is_alphabetic)).cloned().collect();
        self.counted(call, call.args.len(), &counts, &known, position);
    }

    /// A reason that is put together is withheld when it comes to be shown: better told now.
    fn reason(&mut self, call: &FnCallExpr, position: Position) {
        let made = match call.args.first() {
            Some(Expr::InterpolatedString(..) | Expr::Dot(..) | Expr::Index(..)) => true,
            Some(Expr::FnCall(inner, _)) => inner.is_operator_call(),
            _ => false,
        };
        if made {
            let what = format!("the reason of `{}` will be withheld: it may hold patient data", call.name);
            let mut problem = self.unit.problem(what, position).help("write it out as one text");
            problem.severity = Severity::Warning;
            self.problems.push(problem);
        }
    }

    fn imported(&mut self, call: &FnCallExpr, position: Position) {
        let alias = call.namespace.path.first().map(|word| word.name.to_string()).unwrap_or_default();
        let Some(script) = self.imports.get(alias.as_str()) else {
            let known: Vec<&str> = self.imports.keys().copied().collect();
            let problem =
                self.unit.problem(format!("`{alias}` is not imported"), position).did_you_mean(&alias, known);
            return self.problems.push(problem);
        };
        // A script with faults of its own is told of itself.
        let Some(functions) = self.signatures.get(*script) else { return };
        let counts = functions.get(call.name.as_str()).cloned().unwrap_or_default();
        let known: Vec<String> = functions.keys().cloned().collect();
        self.counted(call, call.args.len(), &counts, &known, position);
    }

    fn counted(
        &mut self,
        call: &FnCallExpr,
        count: usize,
        counts: &BTreeSet<usize>,
        known: &[String],
        position: Position,
    ) {
        if counts.is_empty() {
            let problem = self.unit.problem(format!("there is no function `{}`", call.name), position);
            return self.problems.push(problem.did_you_mean(&call.name, known.iter().map(String::as_str)));
        }
        if !counts.contains(&count) {
            let wanted = counts.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
            self.say(format!("`{}` takes {wanted} arguments, not {count}", call.name), position);
        }
    }

    /// A call on something: its object counts as an argument. Functions of scripts are not called so.
    fn method(&mut self, object: &Expr, link: &Expr) {
        let Expr::MethodCall(call, position) = link else { return };
        let counts: BTreeSet<usize> = functions()
            .get(call.name.as_str())
            .into_iter()
            .flatten()
            .filter_map(|count| count.checked_sub(1))
            .collect();
        let known: Vec<String> =
            functions().keys().filter(|name| name.starts_with(char::is_alphabetic)).cloned().collect();
        // `call` runs a closure and `curry` makes one, with any number of arguments.
        if !matches!(call.name.as_str(), "call" | "curry") {
            self.counted(call, call.args.len(), &counts, &known, *position);
        }
        let text = match call.args.first() {
            Some(Expr::StringConstant(text, position)) => Some((text.as_str(), *position)),
            _ => None,
        };
        match (call.name.as_str(), text) {
            ("all", Some((text, position))) => self.message_path(text, position),
            ("to", Some(_)) => {
                let known = CONVERTERS.iter().map(|one| one.name).chain(wire::data_types());
                self.named(call.args.first(), "data type", known.collect());
            }
            ("put", Some(_)) => self.named(call.args.first(), "resource", resource_names().collect()),
            ("set" | "add" | "get" | "has" | "clear", Some((text, position))) => {
                self.element_path(object, text, position);
                // A code of a table may look like the name of an element, but hardly like a path.
                let path = is_element(text) && text.contains(['.', '(']);
                if call.name == "get" && path && self.resource_of(object).is_none() {
                    self.received_path(text, position);
                }
            }
            ("text" | "shape", Some((text, position))) if is_element(text) => {
                self.received_path(text, position)
            }
            ("segments" | "segment", Some((text, position))) if !is_segment_name(text) => {
                self.say(format!("`{text}` is not the name of a segment"), position);
            }
            _ => {}
        }
    }

    fn message_path(&mut self, text: &str, position: Position) {
        if is_element(text) {
            return self.received_path(text, position);
        }
        if let Err(error) = hl7::Path::parse(text) {
            self.say(error.to_string(), position);
        }
    }

    /// A path into FHIR that was received.
    fn received_path(&mut self, text: &str, position: Position) {
        if let Err(error) = check_path(text) {
            self.say(error.to_string(), position);
        }
    }

    /// The type of the resource that a variable holds, if that is known.
    fn resource_of(&self, object: &Expr) -> Option<&'static str> {
        let Expr::Variable(variable, ..) = object else { return None };
        self.resources.get(variable.1.as_str()).copied().flatten()
    }

    fn element_path(&mut self, object: &Expr, text: &str, position: Position) {
        let Some(resource_type) = self.resource_of(object) else { return };
        if let Err(error) = fhir::Path::parse(resource_type, text) {
            self.say(error.0, position);
        }
    }

    /// A name that must be one of those known.
    fn named(&mut self, argument: Option<&Expr>, kind: &str, known: Vec<&str>) {
        let Some(Expr::StringConstant(name, position)) = argument else { return };
        if !known.contains(&name.as_str()) {
            let problem = self
                .unit
                .problem(format!("there is no {kind} `{name}`"), *position)
                .did_you_mean(name, known);
            self.problems.push(problem);
        }
    }

    fn say(&mut self, what: impl Into<String>, position: Position) {
        self.problems.push(self.unit.problem(what, position));
    }
}

fn call<'a>(node: Option<&'a ASTNode<'a>>) -> Option<(&'a FnCallExpr, Position)> {
    match node? {
        ASTNode::Expr(Expr::FnCall(call, position) | Expr::MethodCall(call, position)) => {
            Some((call, *position))
        }
        ASTNode::Stmt(Stmt::FnCall(call, position)) => Some((call, *position)),
        _ => None,
    }
}

/// In a chain `a.b.c` what follows `a` is nested to the right: the link next to the object.
fn first_link(expression: &Expr) -> &Expr {
    match expression {
        Expr::Dot(chain, ..) | Expr::Index(chain, ..) => first_link(&chain.lhs),
        other => other,
    }
}

/// By custom the message is called `msg`.
fn is_message(expression: &Expr) -> bool {
    matches!(expression, Expr::Variable(variable, ..) if variable.1 == "msg")
}

/// Elements of FHIR begin with a small letter, segments with a capital one.
fn is_element(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
}

fn is_segment_name(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn in_constant(path: &[ASTNode<'_>]) -> bool {
    matches!(path.first(), Some(ASTNode::Stmt(Stmt::Var(..))))
}

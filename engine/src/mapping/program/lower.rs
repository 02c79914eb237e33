//! From Rhai's tree to a program: functions and statements. Expressions are in [`chain`](super::chain).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rhai::{AST, ASTFlags, ASTNode, Expr, FlowControl, ImmutableString, Module, Stmt, StmtBlock};

use super::{
    Arm, Assign, Compound, Condition, For, Function, If, Node, Place, Program, Step, Switch, While,
    operators::Kind,
};
use crate::mapping::{datum::Datum, host::Natives};

/// Why a function has no program: Rhai must run what calls it.
#[derive(Debug)]
pub(super) struct Unable;

pub(super) type Lowering<T> = Result<T, Unable>;

/// The functions of the scripts that were lowered so far. Scripts come in the order of their imports.
#[derive(Default)]
pub(in crate::mapping) struct Library {
    functions: Vec<Option<Function>>,
    /// Which functions each one calls.
    calls: Vec<Vec<usize>>,
    /// The functions of each script, by name and number of parameters.
    numbers: BTreeMap<String, BTreeMap<(String, usize), usize>>,
    constants: BTreeMap<String, Constants>,
}

pub(super) type Constants = BTreeMap<String, Datum>;

/// A script that is to be lowered.
pub(in crate::mapping) struct Source<'a> {
    pub name: &'a str,
    pub file: &'a str,
    /// Its functions, with its constants written into them.
    pub ast: &'a AST,
    /// By alias, the scripts that it imports.
    pub imports: BTreeMap<String, String>,
    pub constants: Constants,
}

/// The functions of a script as Rhai has them.
type Bodies = BTreeMap<(String, usize), (Vec<ImmutableString>, Vec<Stmt>)>;

/// The lowering of one function.
pub(super) struct Lower<'a> {
    pub source: &'a Source<'a>,
    pub library: &'a Library,
    pub natives: &'a Natives,
    own: &'a BTreeMap<(String, usize), usize>,
    bodies: &'a Bodies,
    /// Variables that can be seen, the innermost last, with their places.
    scope: Vec<(ImmutableString, usize)>,
    /// How many places are in use, and how many were at most.
    used: usize,
    most: usize,
    pub calls: Vec<usize>,
}

impl Library {
    /// Lowers the functions of a script.
    pub fn add(&mut self, source: &Source<'_>, natives: &Natives) {
        let bodies = bodies(source.ast);
        let named: Vec<_> = bodies.keys().filter(|(name, _)| !is_closure(name)).cloned().collect();
        let first = self.functions.len();
        let own: BTreeMap<_, _> = named.iter().cloned().zip(first..).collect();
        let lowered: Vec<_> = named
            .iter()
            .filter_map(|key| bodies.get(key).map(|(parameters, body)| (key, parameters, body)))
            .map(|((name, _), parameters, body)| {
                let mut lower = Lower {
                    source,
                    library: self,
                    natives,
                    own: &own,
                    bodies: &bodies,
                    scope: Vec::new(),
                    used: 0,
                    most: 0,
                    calls: Vec::new(),
                };
                (lower.function(name, parameters, body), lower.calls)
            })
            .collect();
        for (function, calls) in lowered {
            self.functions.push(function.ok());
            self.calls.push(calls);
        }
        self.numbers.insert(source.name.to_owned(), own);
        self.constants.insert(source.name.to_owned(), source.constants.clone());
    }

    /// The number of a function, if it and all that it calls have a program.
    pub fn entry(&self, script: &str, name: &str, parameters: usize) -> Option<usize> {
        let entry = self.number(script, name, parameters)?;
        let (mut seen, mut next) = (BTreeSet::new(), vec![entry]);
        while let Some(number) = next.pop() {
            self.functions.get(number)?.as_ref()?;
            if seen.insert(number) {
                next.extend(self.calls.get(number)?);
            }
        }
        Some(entry)
    }

    /// All functions, ready to run.
    pub fn program(self) -> Program {
        Program { functions: self.functions }
    }

    pub(super) fn number(&self, script: &str, name: &str, parameters: usize) -> Option<usize> {
        self.numbers.get(script)?.get(&(name.to_owned(), parameters)).copied()
    }

    pub(super) fn constant(&self, script: &str, name: &str) -> Option<&Datum> {
        self.constants.get(script)?.get(name)
    }
}

fn is_closure(name: &str) -> bool {
    name.starts_with("anon$")
}

/// The functions of a script, closures too. Rhai shows a body only to who walks a tree, so each gets one of its own.
fn bodies(ast: &AST) -> Bodies {
    let mut found = Bodies::new();
    for (_, _, name, count, definition) in ast.shared_lib().iter_script_fn_info() {
        let mut alone = Module::new();
        alone.set_script_fn(definition.clone());
        let mut body = Vec::new();
        AST::new(Vec::<Stmt>::new(), alone).walk(&mut |path| {
            if let [ASTNode::Stmt(statement)] = path {
                body.push((*statement).clone());
            }
            true
        });
        found.insert((name.to_owned(), count), (definition.params.iter().cloned().collect(), body));
    }
    found
}

impl<'a> Lower<'a> {
    fn function(&mut self, name: &str, parameters: &[ImmutableString], body: &[Stmt]) -> Lowering<Function> {
        for parameter in parameters {
            self.declare(parameter);
        }
        let body = self.statements(body)?;
        Ok(Function { name: name.into(), file: self.source.file.to_owned(), places: self.most, body })
    }

    /// A new variable, and its place.
    pub fn declare(&mut self, name: &ImmutableString) -> usize {
        let place = self.used;
        self.used += 1;
        self.most = self.most.max(self.used);
        self.scope.push((name.clone(), place));
        place
    }

    /// What stands between braces: its variables end with it.
    pub fn within<T>(&mut self, work: impl FnOnce(&mut Self) -> Lowering<T>) -> Lowering<T> {
        let (seen, used) = (self.scope.len(), self.used);
        let done = work(self);
        self.scope.truncate(seen);
        self.used = used;
        done
    }

    pub fn place_of(&self, name: &str) -> Option<usize> {
        self.scope.iter().rev().find(|(own, _)| own == name).map(|(_, place)| *place)
    }

    /// The number of a function of this script.
    pub fn own(&self, name: &str, parameters: usize) -> Option<usize> {
        self.own.get(&(name.to_owned(), parameters)).copied()
    }

    /// The script that an alias stands for.
    pub fn import(&self, alias: &str) -> Option<&'a str> {
        self.source.imports.get(alias).map(String::as_str)
    }

    /// A closure by the name that Rhai gave it.
    pub fn closure(&self, name: &str) -> Option<&'a (Vec<ImmutableString>, Vec<Stmt>)> {
        let bodies: &'a Bodies = self.bodies;
        bodies.iter().find(|((own, _), _)| own == name).map(|(_, found)| found)
    }

    pub fn statements(&mut self, statements: &[Stmt]) -> Lowering<Vec<Node>> {
        self.within(|lower| {
            let steps = statements.iter().filter(|one| !matches!(one, Stmt::Share(..)));
            steps.map(|one| lower.statement(one)).collect()
        })
    }

    fn block(&mut self, block: &StmtBlock) -> Lowering<Vec<Node>> {
        self.statements(block.statements())
    }

    pub fn statement(&mut self, statement: &Stmt) -> Lowering<Node> {
        Ok(match statement {
            Stmt::Noop(_) => Node::Constant(Datum::Unit),
            Stmt::Expr(expression) => self.expression(expression)?,
            Stmt::FnCall(call, at) => self.call(call, *at)?,
            Stmt::Block(block) => Node::Block(self.block(block)?),
            Stmt::Var(variable, _, _) => {
                let (name, value, _) = &**variable;
                let value = self.expression(value)?;
                Node::Let(self.declare(&name.name), Box::new(value))
            }
            Stmt::Assignment(assignment) => {
                let (operator, sides) = &**assignment;
                self.assignment(operator, &sides.lhs, &sides.rhs)?
            }
            Stmt::If(parts, _) => Node::If(Box::new(If {
                condition: self.condition(&parts.expr)?,
                then: self.block(&parts.body)?,
                otherwise: self.block(&parts.branch)?,
            })),
            Stmt::Switch(parts, _) => self.switch(&parts.0, &parts.1)?,
            Stmt::While(parts, _) => self.again(parts, None)?,
            Stmt::Do(parts, flags, _) => self.again(parts, Some(!flags.contains(ASTFlags::NEGATED)))?,
            Stmt::For(parts, _) => {
                self.each_of(&parts.0.name, parts.1.as_ref().map(|own| &own.name), &parts.2)?
            }
            Stmt::BreakLoop(value, flags, _) if flags.contains(ASTFlags::BREAK) => {
                Node::Break(Box::new(self.optional(value.as_deref())?))
            }
            Stmt::BreakLoop(..) => Node::Continue,
            Stmt::Return(value, flags, at) if flags.contains(ASTFlags::BREAK) => {
                Node::Throw(Box::new(self.optional(value.as_deref())?), *at)
            }
            Stmt::Return(value, _, _) => Node::Return(Box::new(self.optional(value.as_deref())?)),
            _ => return Err(Unable),
        })
    }

    fn optional(&mut self, expression: Option<&Expr>) -> Lowering<Node> {
        expression.map_or(Ok(Node::Constant(Datum::Unit)), |value| self.expression(value))
    }

    pub fn condition(&mut self, expression: &Expr) -> Lowering<Condition> {
        Ok(Condition { node: self.expression(expression)?, at: expression.position() })
    }

    fn again(&mut self, parts: &FlowControl, after: Option<bool>) -> Lowering<Node> {
        let condition = match &parts.expr {
            Expr::Unit(_) => None,
            expression => Some(self.condition(expression)?),
        };
        Ok(Node::While(Box::new(While { condition, body: self.block(&parts.body)?, after })))
    }

    fn each_of(
        &mut self,
        item: &ImmutableString,
        number: Option<&ImmutableString>,
        parts: &FlowControl,
    ) -> Lowering<Node> {
        let over = self.expression(&parts.expr)?;
        let at = parts.expr.position();
        self.within(|lower| {
            let number = number.map(|name| lower.declare(name));
            let item = lower.declare(item);
            Ok(Node::For(Box::new(For { over, item, number, body: lower.block(&parts.body)?, at })))
        })
    }

    fn switch(&mut self, on: &Expr, cases: &rhai::SwitchCasesCollection) -> Lowering<Node> {
        let mut switch = Switch {
            on: self.expression(on)?,
            texts: HashMap::default(),
            values: Vec::new(),
            ranges: cases.ranges.iter().cloned().collect(),
            arms: Vec::new(),
            default: cases.def_case,
        };
        for case in cases.cases.values() {
            let arms: Vec<usize> = case.blocks.iter().copied().collect();
            match case.value.as_immutable_string_ref() {
                Ok(text) => drop(switch.texts.insert(text.as_str().into(), arms)),
                Err(_) => switch.values.push((case.value.clone().into(), arms)),
            }
        }
        for arm in &cases.expressions {
            let condition = match &arm.lhs {
                Expr::BoolConstant(true, _) => None,
                condition => Some(self.condition(condition)?),
            };
            switch.arms.push(Arm { condition, value: self.expression(&arm.rhs)? });
        }
        Ok(Node::Switch(Box::new(switch)))
    }

    fn assignment(&mut self, operator: &rhai::OpAssignment, to: &Expr, value: &Expr) -> Lowering<Node> {
        let at = operator.position();
        let operator = operator.get_op_assignment_info().map(|(_, _, _, name, _, plain)| Compound {
            kind: Kind::named(name),
            name,
            plain,
            natives: self.natives.named(plain, 2),
        });
        let value = self.expression(value)?;
        let place = self.place(to)?;
        Ok(Node::Assign(Box::new(Assign { place, operator, value, at })))
    }

    fn place(&mut self, expression: &Expr) -> Lowering<Place> {
        if let Expr::Variable(variable, _, _) = expression {
            let local = self.place_of(&variable.1).ok_or(Unable)?;
            return Ok(Place { local, steps: Vec::new() });
        }
        let (root, links) = super::chain::links(expression);
        let Expr::Variable(variable, _, _) = root else { return Err(Unable) };
        let local = self.place_of(&variable.1).ok_or(Unable)?;
        self.part(local, &links)
    }

    /// The part of a variable that these links lead to.
    pub fn part(&mut self, local: usize, links: &[super::chain::Link<'_>]) -> Lowering<Place> {
        let steps = links.iter().map(|link| match link.kind {
            _ if link.elvis => Err(Unable),
            super::chain::Kind::Property(name) => Ok(Step::Name(name.as_str().into(), link.at)),
            super::chain::Kind::Index(index) => Ok(Step::Index(self.expression(index)?, link.at)),
            super::chain::Kind::Method(_) => Err(Unable),
        });
        Ok(Place { local, steps: steps.collect::<Lowering<_>>()? })
    }
}

//! From Rhai's tree to a program: expressions. Rhai keeps `a.b[c].d()` as a chain that leans to the right; here each
//! link takes what stands before it.

use rhai::{ASTFlags, Expr, FnCallExpr, FnPtr, ImmutableString, Position, Stmt};

use super::{
    Call, Condition, Each, Field, Get, Index, MapLiteral, NativeCall, Node, Operator, loops,
    lower::{Lower, Lowering, Unable},
    operators,
    standard::Method,
};
use crate::{
    fhir::Name,
    hl7::Path,
    mapping::{
        asking::Ask,
        datum::Datum,
        host::{INDEXER, getter},
    },
};

/// Words that Rhai itself answers, by what it knows of the function that says them.
const OF_RHAI: [&str; 7] = ["curry", "call", "Fn", "eval", "is_def_var", "is_def_fn", "is_shared"];

/// Methods of lists, maps and texts that change what they are called on.
const CHANGING: [&str; 24] = [
    "push",
    "append",
    "insert",
    "pop",
    "shift",
    "remove",
    "truncate",
    "clear",
    "sort",
    "reverse",
    "retain",
    "drain",
    "dedup",
    "fill",
    "mixin",
    "set",
    "crop",
    "pad",
    "chop",
    "splice",
    "trim",
    "replace",
    "make_upper",
    "make_lower",
];

/// A link of a chain.
pub(super) struct Link<'e> {
    pub kind: Kind<'e>,
    pub elvis: bool,
    pub at: Position,
}

#[derive(Clone, Copy)]
pub(super) enum Kind<'e> {
    Property(&'e ImmutableString),
    Method(&'e FnCallExpr),
    Index(&'e Expr),
}

/// What a chain begins with, and its links in the order in which they are followed.
pub(super) fn links(chain: &Expr) -> (&Expr, Vec<Link<'_>>) {
    let mut links = Vec::new();
    let (mut rest, mut flags, mut is_index, root) = match chain {
        Expr::Dot(both, flags, _) => (&both.rhs, *flags, false, &both.lhs),
        Expr::Index(both, flags, _) => (&both.rhs, *flags, true, &both.lhs),
        other => return (other, links),
    };
    loop {
        let goes_on = match rest {
            Expr::Dot(both, next, _) if !is_index || !flags.contains(ASTFlags::BREAK) => {
                Some((both, *next, false))
            }
            Expr::Index(both, next, _) if !is_index || !flags.contains(ASTFlags::BREAK) => {
                Some((both, *next, true))
            }
            _ => None,
        };
        let own = goes_on.as_ref().map_or(rest, |(both, ..)| &both.lhs);
        let kind = match own {
            index if is_index => Kind::Index(index),
            Expr::Property(names, _) => Kind::Property(&names.2),
            Expr::MethodCall(call, _) => Kind::Method(call),
            other => Kind::Index(other),
        };
        links.push(Link { kind, elvis: flags.contains(ASTFlags::NEGATED), at: own.position() });
        match goes_on {
            Some((both, next, index)) => (rest, flags, is_index) = (&both.rhs, next, index),
            None => return (root, links),
        }
    }
}

impl Lower<'_> {
    pub(super) fn expression(&mut self, expression: &Expr) -> Lowering<Node> {
        if closure_of(expression).is_some() {
            return Err(Unable);
        }
        if let Some(value) = expression.get_literal_value(None) {
            return if value.is_fnptr() { Err(Unable) } else { Ok(Node::Constant(value.into())) };
        }
        Ok(match expression {
            Expr::InterpolatedString(pieces, at) => Node::Text(self.all(pieces)?, *at),
            Expr::Array(items, at) => Node::List(self.all(items)?, *at),
            Expr::Map(pairs, at) => {
                let mut names: Vec<Name> =
                    pairs.0.iter().map(|(name, _)| name.name.as_str().into()).collect();
                names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
                let place = |name: &str| names.iter().position(|own| own.as_str() == name).ok_or(Unable);
                let values =
                    pairs.0.iter().map(|(name, value)| Ok((place(&name.name)?, self.expression(value)?)));
                let values = values.collect::<Lowering<_>>()?;
                Node::Map(Box::new(MapLiteral { names, values, at: *at }))
            }
            Expr::Variable(variable, _, _) => {
                self.variable(&variable.1, variable.2.path.iter().map(|own| own.as_str()))?
            }
            Expr::FnCall(call, at) => self.call(call, *at)?,
            Expr::And(parts, _) => Node::And(self.conditions(parts)?),
            Expr::Or(parts, _) => Node::Or(self.conditions(parts)?),
            Expr::Coalesce(parts, _) => Node::Coalesce(self.all(parts.iter())?),
            Expr::Stmt(block) => Node::Block(self.statements(block.statements())?),
            Expr::Dot(..) | Expr::Index(..) => self.chain(expression)?,
            _ => return Err(Unable),
        })
    }

    fn all<'e>(&mut self, expressions: impl IntoIterator<Item = &'e Expr>) -> Lowering<Vec<Node>> {
        expressions.into_iter().map(|one| self.expression(one)).collect()
    }

    fn conditions(&mut self, parts: &[Expr]) -> Lowering<Vec<Condition>> {
        parts.iter().map(|one| self.condition(one)).collect()
    }

    fn variable<'e>(&mut self, name: &str, mut path: impl Iterator<Item = &'e str>) -> Lowering<Node> {
        let Some(alias) = path.next() else {
            if let Some(place) = self.place_of(name) {
                return Ok(Node::Local(place));
            }
            return self.source.constants.get(name).cloned().map(Node::Constant).ok_or(Unable);
        };
        let script = self.import(alias).ok_or(Unable)?;
        self.library.constant(script, name).cloned().map(Node::Constant).ok_or(Unable)
    }

    /// A call of a function by its name.
    pub(super) fn call(&mut self, call: &FnCallExpr, at: Position) -> Lowering<Node> {
        if call.capture_parent_scope || !call.is_qualified() && OF_RHAI.contains(&call.name.as_str()) {
            return Err(Unable);
        }
        let number = match call.namespace.path.first() {
            Some(alias) => {
                let script = self.import(alias.as_str()).ok_or(Unable)?;
                Some(self.library.number(script, &call.name, call.args.len()).ok_or(Unable)?)
            }
            None => self.own(&call.name, call.args.len()),
        };
        if let Some(function) = number {
            self.calls.push(function);
            return Ok(Node::Call(Box::new(Call { function, arguments: self.all(&call.args)?, at })));
        }
        match (call.op_token.is_some(), call.args.as_slice()) {
            (true, [one]) if call.name == "!" => Ok(Node::Not(Box::new(self.condition(one)?))),
            (true, [left, right]) if call.name != "contains" => Ok(Node::Operator(Box::new(Operator {
                kind: operators::Kind::named(&call.name),
                name: call.name.as_str().into(),
                left: self.expression(left)?,
                right: self.expression(right)?,
                natives: self.natives.named(&call.name, 2),
                at,
            }))),
            _ => {
                let arguments = self.all(&call.args)?;
                Ok(self.native(&call.name, arguments, None, at))
            }
        }
    }

    fn native(
        &self,
        name: &ImmutableString,
        arguments: Vec<Node>,
        object: Option<super::Place>,
        at: Position,
    ) -> Node {
        let standard = Method::named(name, arguments.len());
        let equals =
            if standard == Some(Method::Contains) { self.natives.named("==", 2) } else { Vec::new() };
        let natives = self.natives.named(name, arguments.len());
        Node::Native(Box::new(NativeCall {
            name: name.as_str().into(),
            arguments,
            object,
            natives,
            standard,
            equals,
            at,
        }))
    }

    fn chain(&mut self, expression: &Expr) -> Lowering<Node> {
        let (root, links) = links(expression);
        let variable = match root {
            Expr::Variable(variable, _, _) if variable.2.is_empty() => self.place_of(&variable.1),
            _ => None,
        };
        let mut node = self.expression(root)?;
        for (number, link) in links.iter().enumerate() {
            node = match link.kind {
                Kind::Property(name) => self.property(node, name, link),
                Kind::Index(index) => by_path(Node::Index(Box::new(Index {
                    object: node,
                    index: self.expression(index)?,
                    natives: self.natives.named(INDEXER, 2),
                    elvis: link.elvis,
                    at: link.at,
                }))),
                Kind::Method(_) if link.elvis => return Err(Unable),
                Kind::Method(call) => {
                    let before = links.get(..number).unwrap_or_default();
                    let object = match variable {
                        Some(local) if !before.is_empty() && CHANGING.contains(&call.name.as_str()) => {
                            self.part(local, before).ok()
                        }
                        _ => None,
                    };
                    self.method(node, call, object, link.at)?
                }
            };
        }
        Ok(node)
    }

    fn property(&self, object: Node, name: &ImmutableString, link: &Link<'_>) -> Node {
        let getter = getter(name);
        let (natives, indexers) = (self.natives.named(&getter, 1), self.natives.named(INDEXER, 2));
        let (name, elvis, at) = (name.as_str().into(), link.elvis, link.at);
        by_path(Node::Get(Box::new(Get {
            object,
            name,
            getter: getter.into(),
            natives,
            indexers,
            elvis,
            at,
        })))
    }

    fn method(
        &mut self,
        object: Node,
        call: &FnCallExpr,
        part: Option<super::Place>,
        at: Position,
    ) -> Lowering<Node> {
        if OF_RHAI.contains(&call.name.as_str()) {
            return Err(Unable);
        }
        if let (Some(kind), [Some(closure)]) =
            (loops::Kind::named(&call.name), call.args.iter().map(closure_of).collect::<Vec<_>>().as_slice())
        {
            return self.each(kind, object, closure, at);
        }
        let mut arguments = vec![object];
        for argument in &call.args {
            arguments.push(self.expression(argument)?);
        }
        Ok(by_path(self.native(&call.name, arguments, part, at)))
    }

    /// A method with a closure, which becomes a part of the function that it is written in: what it captures are the
    /// variables themselves.
    fn each(&mut self, kind: loops::Kind, list: Node, closure: &Closure, at: Position) -> Lowering<Node> {
        let (parameters, body) = self.closure(&closure.name).ok_or(Unable)?;
        let own = parameters.get(closure.captured..).ok_or(Unable)?;
        let (item, number) = match own {
            [item] => (item, None),
            [item, number] => (item, Some(number)),
            _ => return Err(Unable),
        };
        self.within(|lower| {
            let item = lower.declare(item);
            let number = number.map(|name| lower.declare(name));
            let body = lower.statements(body)?;
            Ok(Node::Each(Box::new(Each { kind, list, item, number, body, at })))
        })
    }
}

/// The step, or, where it asks a variable by a path that the script says, one that need not read the path each time.
fn by_path(step: Node) -> Node {
    if let Node::Get(get) = &step {
        return match &get.object {
            Node::Field(field) if field.ask == Ask::Value && get.name.as_str() == "is_absent" => {
                let (local, path, at) = (field.local, field.path.clone(), field.at);
                Node::Field(Box::new(Field { ask: Ask::IsAbsent, local, path, otherwise: step, at }))
            }
            _ => step,
        };
    }
    let (ask, object, path, at) = match &step {
        Node::Index(index) => (Ask::Value, &index.object, &index.index, index.at),
        Node::Native(call) => match (call.name.as_str(), call.arguments.as_slice()) {
            ("has", [object, path]) => (Ask::Has, object, path, call.at),
            ("text", [object, path]) => (Ask::Text, object, path, call.at),
            ("segment", [object, path]) => (Ask::Segment, object, path, call.at),
            _ => return step,
        },
        _ => return step,
    };
    let (Node::Local(local), Node::Constant(Datum::Text(path))) = (object, path) else { return step };
    let is_name = path.len() == 3;
    match Path::parse(path) {
        Ok(path) if is_name || ask != Ask::Segment => {
            Node::Field(Box::new(Field { ask, local: *local, path, otherwise: step, at }))
        }
        _ => step,
    }
}

/// A closure where it is written.
struct Closure {
    name: String,
    /// How many variables it captures: its first parameters.
    captured: usize,
}

fn closure_of(expression: &Expr) -> Option<Closure> {
    match expression {
        Expr::DynamicConstant(value, _) => {
            let pointer = value.read_lock::<FnPtr>()?;
            // A constant of the script that it captures is folded into it.
            Some(Closure { name: pointer.fn_name().to_owned(), captured: pointer.curry().len() })
        }
        // What it captures is shared first.
        Expr::Stmt(block) => match block.statements() {
            [Stmt::Share(_), Stmt::Expr(curry)] => closure_of(curry),
            [Stmt::Share(_), Stmt::FnCall(curry, _)] => curried(curry),
            _ => None,
        },
        Expr::FnCall(curry, _) => curried(curry),
        _ => None,
    }
}

fn curried(call: &FnCallExpr) -> Option<Closure> {
    let (pointer, captured) = call.args.split_first()?;
    let pointer = (call.name == "curry").then(|| closure_of(pointer)).flatten()?;
    Some(Closure { captured: captured.len(), ..pointer })
}

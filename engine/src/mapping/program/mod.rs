//! Scripts made ready to run.
//!
//! Rhai reads a script and gives its tree; here the tree becomes a program: variables are places in a frame instead of
//! names, functions of scripts are numbers, native functions stand at their call by the types they take, and closures
//! are part of the function they are written in. What a script means does not change, and a test holds the programs
//! against Rhai's own evaluator. Why: Rhai finds every function anew by a hash of its name and the types of its
//! arguments, and that was half the time of a mapping.
//!
//! One thing is not as Rhai has it: what a method is called on is worked out before the method's arguments, as it is
//! read. It shows only where both change something (`nth`, `put`).
//!
//! What has no program (a `try`, a function that is called by its name, `this`) is run by Rhai, the whole mapping.

mod arguments;
mod assign;
mod chain;
mod loops;
mod lower;
mod machine;
mod operators;
mod standard;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use rhai::{Position, RangeCase};
use smol_str::SmolStr;

use super::{asking::Ask, datum::Datum, host::Native};
use crate::{fhir::Name, hl7::Path};
pub(super) use lower::{Library, Source};
pub(super) use machine::{Flow, run};

/// The functions of all scripts of a revision, by number.
#[derive(Default)]
pub(super) struct Program {
    /// None for what has no program, which nothing that has one calls.
    functions: Vec<Option<Function>>,
}

/// A function of a script.
struct Function {
    name: SmolStr,
    /// The script that it stands in.
    file: String,
    /// How many places its variables take, its parameters first.
    places: usize,
    body: Vec<Node>,
}

/// A step of a program: each has a value, which is `()` where nothing else is said.
enum Node {
    Constant(Datum),
    /// A variable, by its place in the frame.
    Local(usize),
    /// `let`: sets a variable.
    Let(usize, Box<Node>),
    Assign(Box<Assign>),
    /// A text with values in it.
    Text(Vec<Node>, Position),
    List(Vec<Node>, Position),
    Map(Box<MapLiteral>),
    /// A call of a function of a script.
    Call(Box<Call>),
    Native(Box<NativeCall>),
    /// A field of a message or segment, by a path that the script says.
    Field(Box<Field>),
    Operator(Box<Operator>),
    Not(Box<Condition>),
    Get(Box<Get>),
    Index(Box<Index>),
    Each(Box<Each>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    /// `??`: the first that is not `()`.
    Coalesce(Vec<Node>),
    Block(Vec<Node>),
    If(Box<If>),
    Switch(Box<Switch>),
    While(Box<While>),
    For(Box<For>),
    Return(Box<Node>),
    Throw(Box<Node>, Position),
    Break(Box<Node>),
    Continue,
}

/// What must be a truth value.
struct Condition {
    node: Node,
    at: Position,
}

struct Call {
    function: usize,
    arguments: Vec<Node>,
    at: Position,
}

/// `#{ … }`
struct MapLiteral {
    /// In their order.
    names: Vec<Name>,
    /// As they are written, with their places among the names.
    values: Vec<(usize, Node)>,
    at: Position,
}

/// A call of a function that is not a script's own.
struct NativeCall {
    name: SmolStr,
    /// The object of a method first. A variable there is worked on in place.
    arguments: Vec<Node>,
    /// Where the object is kept, when it is a part of a variable that the function may change.
    object: Option<Place>,
    natives: Vec<Native>,
    /// A function of Rhai's that is known here.
    standard: Option<standard::Method>,
    /// What `==` is, for `in`.
    equals: Vec<Native>,
    at: Position,
}

/// `variable["PV1-3"]`, `variable.has("PV1-3")`, `variable.text("PV1-3")`
struct Field {
    ask: Ask,
    local: usize,
    path: Path,
    /// The same where the variable is no message and no segment.
    otherwise: Node,
    at: Position,
}

/// An operator between two values.
struct Operator {
    kind: operators::Kind,
    name: SmolStr,
    left: Node,
    right: Node,
    natives: Vec<Native>,
    at: Position,
}

/// `object.name`
struct Get {
    object: Node,
    name: Name,
    /// What Rhai calls the function that reads it.
    getter: SmolStr,
    natives: Vec<Native>,
    indexers: Vec<Native>,
    /// `?.`: nothing of nothing.
    elvis: bool,
    at: Position,
}

/// `object[index]`
struct Index {
    object: Node,
    index: Node,
    natives: Vec<Native>,
    elvis: bool,
    at: Position,
}

/// A method of lists that takes a closure.
struct Each {
    kind: loops::Kind,
    list: Node,
    /// Where the closure has its item, and the number of the item if it asks for it.
    item: usize,
    number: Option<usize>,
    body: Vec<Node>,
    at: Position,
}

struct If {
    condition: Condition,
    then: Vec<Node>,
    otherwise: Vec<Node>,
}

/// A `switch`.
struct Switch {
    on: Node,
    /// The arms to try, in order, by the text that they stand for.
    texts: HashMap<SmolStr, Vec<usize>, RandomState>,
    /// The same for what is no text.
    values: Vec<(Datum, Vec<usize>)>,
    ranges: Vec<RangeCase>,
    arms: Vec<Arm>,
    default: Option<usize>,
}

struct Arm {
    condition: Option<Condition>,
    value: Node,
}

struct While {
    condition: Option<Condition>,
    body: Vec<Node>,
    /// `do`: the body comes first; the condition says when to go on (true) or when to end (false).
    after: Option<bool>,
}

struct For {
    over: Node,
    item: usize,
    number: Option<usize>,
    body: Vec<Node>,
    at: Position,
}

/// `place = value`, `place += value`
struct Assign {
    place: Place,
    operator: Option<Compound>,
    value: Node,
    at: Position,
}

/// `+=` and its like.
struct Compound {
    kind: operators::Kind,
    /// `+=`, and `+` for what has no `+=`.
    name: &'static str,
    plain: &'static str,
    natives: Vec<Native>,
}

/// A variable, or a part of one.
struct Place {
    local: usize,
    steps: Vec<Step>,
}

enum Step {
    Name(SmolStr, Position),
    Index(Node, Position),
}

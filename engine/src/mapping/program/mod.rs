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

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use rhai::{Position, RangeCase};
use smol_str::SmolStr;

use super::{asking::Ask, datum::Datum, host::Native};
use crate::{fhir::Name, hl7::Path};
pub(super) use lower::{Library, Source};
pub(super) use machine::{Flow, run};

/// Bytes of a line of the processor's caches.
const LINE: usize = 64;

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
    body: Box<[Node]>,
}

/// A step of a program: each has a value, which is `()` where nothing else is said.
///
/// A mapping runs through some hundreds of them and finds few in the processor's nearest cache. So they are small, and what
/// each kind needs nearly always stands in one line of it; the rest is kept elsewhere.
enum Node {
    Constant(Datum),
    /// A variable, by its place in the frame.
    Local(usize),
    /// `let`: sets a variable.
    Let(usize, Box<Node>),
    Assign(Box<Assign>),
    /// A text with values in it.
    Text(Box<Several>),
    List(Box<Several>),
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
    And(Box<[Condition]>),
    Or(Box<[Condition]>),
    /// `??`: the first that is not `()`.
    Coalesce(Box<[Node]>),
    Block(Box<[Node]>),
    If(Box<If>),
    Switch(Box<Switch>),
    While(Box<While>),
    For(Box<For>),
    Return(Box<Node>),
    Throw(Box<Node>, Position),
    Break(Box<Node>),
    Continue,
}

const _: () = assert!(size_of::<Node>() == size_of::<Datum>());

struct Several {
    nodes: Box<[Node]>,
    at: Position,
}

/// What must be a truth value.
struct Condition {
    node: Node,
    at: Position,
}

struct Call {
    function: usize,
    arguments: Box<[Node]>,
    at: Position,
}

/// `#{ … }`
struct MapLiteral {
    /// In their order.
    names: Box<[Name]>,
    /// As they are written, with their places among the names.
    values: Box<[(usize, Node)]>,
    at: Position,
}

/// A call of a function that is not a script's own.
#[repr(align(64))]
struct NativeCall {
    /// The object of a method first. A variable there is worked on in place.
    arguments: Box<[Node]>,
    natives: Arc<[Native]>,
    /// Where the object is kept, when it is a part of a variable that the function may change.
    object: Option<Box<Place>>,
    /// A function of Rhai's that is known here.
    standard: Option<standard::Method>,
    at: Position,
    rest: Box<NativeRest>,
}

const _: () = assert!(size_of::<NativeCall>() == LINE);

struct NativeRest {
    name: SmolStr,
    /// What `==` is, for `in`.
    equals: Arc<[Native]>,
}

/// `variable["PV1-3"]`, `variable.has("PV1-3")`, `variable.text("PV1-3")`
struct Field {
    ask: Ask,
    local: usize,
    path: Box<Path>,
    /// The same where the variable is no message and no segment.
    otherwise: Node,
    at: Position,
}

/// An operator between two values.
#[repr(align(64))]
struct Operator {
    kind: operators::Kind,
    left: Node,
    right: Node,
    at: Position,
    rest: Box<OperatorRest>,
}

const _: () = assert!(size_of::<Operator>() == LINE);

struct OperatorRest {
    name: SmolStr,
    natives: Arc<[Native]>,
}

/// `object.name`
#[repr(align(64))]
struct Get {
    object: Node,
    name: Name,
    /// `?.`: nothing of nothing.
    elvis: bool,
    at: Position,
    /// For what is no map.
    rest: Box<GetRest>,
}

const _: () = assert!(size_of::<Get>() == LINE);

struct GetRest {
    natives: Arc<[Native]>,
    indexers: Arc<[Native]>,
    /// What Rhai calls the function that reads it.
    getter: SmolStr,
}

/// `object[index]`
struct Index {
    object: Node,
    index: Node,
    natives: Arc<[Native]>,
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
    body: Box<[Node]>,
    at: Position,
}

#[repr(align(64))]
struct If {
    condition: Condition,
    then: Box<[Node]>,
    otherwise: Box<[Node]>,
}

const _: () = assert!(size_of::<If>() == LINE);

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
    body: Box<[Node]>,
    /// `do`: the body comes first; the condition says when to go on (true) or when to end (false).
    after: Option<bool>,
}

struct For {
    over: Node,
    item: usize,
    number: Option<usize>,
    body: Box<[Node]>,
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
    natives: Arc<[Native]>,
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

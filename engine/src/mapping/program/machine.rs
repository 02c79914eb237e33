//! Runs a program.

use std::{mem::take, sync::Arc};

use rhai::{Dynamic, Engine, EvalAltResult, GlobalRuntimeState, NativeCallContext, Position};
use smol_str::SmolStr;

use super::{Call, Condition, Function, If, MapLiteral, Node, Program, Switch};
use crate::mapping::{Limits, current, datum::Datum, fault::Verdict, pairs::Map};

type Result<T> = std::result::Result<T, Flow>;

/// How often the clock is looked at, in steps; a power of two.
const CLOCK_EVERY: u64 = 256;

/// What ends the steps that follow. The value that a function or loop ends with is [`Machine::last`]: here it would make
/// every result a word longer than the value in it, to be taken apart and put together at each step.
pub(in crate::mapping) enum Flow {
    Fail(Box<EvalAltResult>),
    Return,
    Break,
    Continue,
}

const _: () = assert!(size_of::<Result<Datum>>() == size_of::<Datum>());

impl Flow {
    /// The same with a place in the script, where an error has none of its own.
    #[cold]
    pub fn placed(self, at: Position) -> Self {
        match self {
            Self::Fail(error) => Self::Fail(placed(error, at)),
            flow => flow,
        }
    }
}

impl From<Box<EvalAltResult>> for Flow {
    fn from(error: Box<EvalAltResult>) -> Self {
        Self::Fail(error)
    }
}

impl From<EvalAltResult> for Flow {
    fn from(error: EvalAltResult) -> Self {
        Self::Fail(error.into())
    }
}

/// A run of a program.
pub(super) struct Machine<'a> {
    program: &'a Program,
    pub engine: &'a Engine,
    pub limits: &'a Limits,
    global: &'a GlobalRuntimeState,
    /// The variables of all functions that are under way, and the arguments of calls that are being made.
    pub places: Vec<Datum>,
    /// What the innermost function or loop ends with, when it is left before its end.
    pub last: Datum,
    /// Where the variables of the innermost function begin.
    frame: usize,
    depth: usize,
    steps: u64,
}

/// Calls a function of the program with one argument.
pub(in crate::mapping) fn run(
    program: &Program,
    function: usize,
    argument: Datum,
    engine: &Engine,
    limits: &Limits,
    global: &GlobalRuntimeState,
) -> std::result::Result<Datum, Box<EvalAltResult>> {
    let mut machine = Machine {
        program,
        engine,
        limits,
        global,
        places: Vec::with_capacity(64),
        last: Datum::Unit,
        frame: 0,
        depth: 0,
        steps: 0,
    };
    let arguments = [Node::Constant(argument)];
    machine.enter(function, &arguments, Position::NONE).or_else(|flow| match flow {
        Flow::Fail(error) => Err(error),
        // These end within the function.
        Flow::Return | Flow::Break | Flow::Continue => Ok(Datum::Unit),
    })
}

impl Machine<'_> {
    /// The value of a step.
    ///
    /// It calls itself for what a step consists of. So what takes much code, or much of the stack, stands in functions of
    /// its own that are never made a part of this one: it stays in the processor's nearest cache.
    pub fn value(&mut self, node: &Node) -> Result<Datum> {
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::Local(place) => Ok(self.local(*place).clone()),
            Node::Let(place, value) => {
                let value = self.value(value)?;
                *self.local(*place) = value;
                Ok(Datum::Unit)
            }
            Node::Assign(assign) => self.assign(assign),
            Node::Text(pieces, at) => self.text(pieces, *at),
            Node::List(items, at) => self.list(items, *at),
            Node::Map(literal) => self.map(literal),
            Node::Call(call) => self.call(call),
            Node::Native(call) => self.native(call),
            Node::Field(field) => self.field(field),
            Node::Operator(operator) => self.operator(operator),
            Node::Not(condition) => Ok((!self.is_so(condition)?).into()),
            Node::Get(get) => self.get(get),
            Node::Index(index) => self.index(index),
            Node::Each(each) => self.each(each),
            Node::And(all) => Ok((!self.first_is(all, false)?).into()),
            Node::Or(any) => Ok(self.first_is(any, true)?.into()),
            Node::Coalesce(nodes) => self.first_of(nodes),
            Node::Block(nodes) => self.block(nodes),
            Node::If(branches) => self.branch(branches),
            Node::Switch(switch) => self.switch(switch),
            Node::While(again) => self.while_loop(again),
            Node::For(each) => self.for_loop(each),
            Node::Return(value) => self.end(value, Flow::Return),
            Node::Throw(value, at) => self.throw(value, *at),
            Node::Break(value) => self.end(value, Flow::Break),
            Node::Continue => Err(Flow::Continue),
        }
    }

    fn end(&mut self, value: &Node, flow: Flow) -> Result<Datum> {
        self.last = self.value(value)?;
        Err(flow)
    }

    /// Counts a step, which is a call or a round of a loop: a script may take only so many, and so long. What stands between
    /// them is bounded by the script's length.
    pub fn step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > self.limits.operations {
            return Err(EvalAltResult::ErrorTooManyOperations(Position::NONE).into());
        }
        if self.steps.is_multiple_of(CLOCK_EVERY) && current::is_late() {
            return Err(EvalAltResult::ErrorTerminated(Dynamic::from(Verdict::Late), Position::NONE).into());
        }
        Ok(())
    }

    /// The value of the last of several steps.
    pub fn block(&mut self, nodes: &[Node]) -> Result<Datum> {
        match nodes {
            [] => Ok(Datum::Unit),
            [before @ .., last] => {
                for node in before {
                    drop(self.value(node)?);
                }
                self.value(last)
            }
        }
    }

    /// A variable of the function at hand.
    pub fn local(&mut self, place: usize) -> &mut Datum {
        let place = self.frame + place;
        if place >= self.places.len() {
            self.places.resize(place + 1, Datum::Unit); // never: a function makes room for its own
        }
        #[allow(clippy::indexing_slicing)] // made sure of above
        &mut self.places[place]
    }

    /// How much is in use; see [`Machine::forget`].
    pub fn mark(&self) -> usize {
        self.places.len()
    }

    /// Forgets the arguments of calls that were not made because a loop or closure was left before.
    pub fn forget(&mut self, mark: usize) {
        self.places.truncate(mark);
    }

    fn call(&mut self, call: &Call) -> Result<Datum> {
        self.enter(call.function, &call.arguments, call.at)
    }

    #[inline(never)]
    fn enter(&mut self, number: usize, arguments: &[Node], at: Position) -> Result<Datum> {
        let program = self.program;
        let Some(Some(function)) = program.functions.get(number) else {
            return Err(EvalAltResult::ErrorFunctionNotFound(String::new(), at).into());
        };
        self.step()?;
        let frame = self.places.len();
        for argument in arguments {
            let value = self.value(argument)?;
            self.places.push(value);
        }
        if self.depth >= self.limits.depth {
            return Err(EvalAltResult::ErrorStackOverflow(at).into());
        }
        self.places.resize_with(frame + function.places, Datum::default);
        let outer = std::mem::replace(&mut self.frame, frame);
        self.depth += 1;
        let done = self.block(&function.body);
        self.depth -= 1;
        self.frame = outer;
        self.places.truncate(frame);
        done.or_else(|flow| match flow {
            Flow::Return | Flow::Break => Ok(take(&mut self.last)),
            Flow::Continue => Ok(Datum::Unit),
            Flow::Fail(error) => Err(inside(function, error, at).into()),
        })
    }

    /// Whether a condition holds.
    pub fn is_so(&mut self, condition: &Condition) -> Result<bool> {
        match &condition.node {
            Node::Not(condition) => return Ok(!self.is_so(condition)?),
            Node::And(all) => return Ok(!self.first_is(all, false)?),
            Node::Or(any) => return self.first_is(any, true),
            Node::Operator(operator) => {
                if let Some(truth) = self.compared_in_place(operator) {
                    return Ok(truth);
                }
            }
            _ => {}
        }
        match self.value(&condition.node)? {
            Datum::Truth(truth) => Ok(truth),
            other => Err(mismatch("bool", other.type_name(), condition.at).into()),
        }
    }

    /// Whether one of the conditions is what decides.
    fn first_is(&mut self, conditions: &[Condition], deciding: bool) -> Result<bool> {
        for condition in conditions {
            if self.is_so(condition)? == deciding {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn first_of(&mut self, nodes: &[Node]) -> Result<Datum> {
        for node in nodes {
            let value = self.value(node)?;
            if !value.is_unit() {
                return Ok(value);
            }
        }
        Ok(Datum::Unit)
    }

    fn branch(&mut self, branches: &If) -> Result<Datum> {
        if self.is_so(&branches.condition)? {
            self.block(&branches.then)
        } else {
            self.block(&branches.otherwise)
        }
    }

    #[inline(never)]
    fn switch(&mut self, switch: &Switch) -> Result<Datum> {
        let on = self.value(&switch.on)?;
        let mut fitting: &[usize] = &[];
        if let Datum::Text(text) = &on {
            fitting = switch.texts.get(text).map_or(&[], Vec::as_slice);
        } else if let Some((_, arms)) =
            switch.values.iter().find(|(own, _)| super::operators::is_same(own, &on))
        {
            fitting = arms;
        }
        let within = |range: &&rhai::RangeCase| range.contains(&on.clone().into_rhai());
        let ranges = switch.ranges.iter().filter(within).map(rhai::RangeCase::index);
        for place in fitting.iter().copied().chain(ranges) {
            let Some(arm) = switch.arms.get(place) else { continue };
            match &arm.condition {
                Some(condition) if !self.is_so(condition)? => {}
                _ => return self.value(&arm.value),
            }
        }
        match switch.default.and_then(|place| switch.arms.get(place)) {
            Some(arm) => self.value(&arm.value),
            None => Ok(Datum::Unit),
        }
    }

    #[inline(never)]
    fn list(&mut self, items: &[Node], at: Position) -> Result<Datum> {
        let items = items.iter().map(|item| self.value(item)).collect::<Result<Vec<_>>>()?;
        self.bounded(items.into(), at)
    }

    #[inline(never)]
    fn map(&mut self, literal: &MapLiteral) -> Result<Datum> {
        let mut map = Map::of(&literal.names);
        for (place, node) in &literal.values {
            map.set(*place, self.value(node)?);
        }
        self.bounded(Datum::Map(Arc::new(map)), literal.at)
    }

    #[inline(never)]
    fn throw(&mut self, value: &Node, at: Position) -> Result<Datum> {
        Err(EvalAltResult::ErrorRuntime(self.value(value)?.into_rhai(), at).into())
    }

    #[inline(never)]
    fn text(&mut self, pieces: &[Node], at: Position) -> Result<Datum> {
        let mut text = String::new();
        for piece in pieces {
            let said = match self.value(piece)? {
                Datum::Text(said) => Datum::Text(said),
                value => self.by_rhai("to_string", &mut [value], at)?,
            };
            text.push_str(said.as_text().map_or("", |said| said.as_str()));
            self.fits(text.len(), self.limits.text_bytes, "Length of string", at)?;
        }
        Ok(SmolStr::from(text).into())
    }

    /// What Rhai tells a function about its call.
    pub fn context<'b>(&'b self, name: &'b str, at: Position) -> NativeCallContext<'b> {
        NativeCallContext::new_with_all_fields(self.engine, name, None, self.global, at)
    }

    /// The value, if it is not larger than a value may be.
    pub fn bounded(&self, value: Datum, at: Position) -> Result<Datum> {
        self.is_bounded(&value, at)?;
        Ok(value)
    }

    pub fn is_bounded(&self, value: &Datum, at: Position) -> Result<()> {
        match value {
            Datum::Text(text) => {
                return self.fits(text.len(), self.limits.text_bytes, "Length of string", at);
            }
            Datum::List(_) | Datum::Map(_) => {}
            _ => return Ok(()),
        }
        let mut size = Size::default();
        size.add(value);
        self.fits(size.text, self.limits.text_bytes, "Length of string", at)?;
        self.fits(size.items, self.limits.items, "Size of array/BLOB", at)?;
        self.fits(size.pairs, self.limits.items, "Size of object map", at)
    }

    fn fits(&self, size: usize, limit: usize, what: &str, at: Position) -> Result<()> {
        if size > limit {
            return Err(EvalAltResult::ErrorDataTooLarge(what.to_owned(), at).into());
        }
        Ok(())
    }
}

/// What is in a value, and in all that is in it.
#[derive(Default)]
struct Size {
    text: usize,
    items: usize,
    pairs: usize,
}

impl Size {
    fn add(&mut self, value: &Datum) {
        match value {
            Datum::Text(text) => self.text += text.len(),
            Datum::List(items) => {
                self.items += items.len();
                items.iter().for_each(|item| self.add(item));
            }
            Datum::Map(map) => {
                self.pairs += map.len();
                map.iter().for_each(|(_, item)| self.add(item));
            }
            _ => {}
        }
    }
}

/// The error with the function that it happened in. What breaks a bound has no place.
#[cold]
fn inside(function: &Function, error: Box<EvalAltResult>, at: Position) -> Box<EvalAltResult> {
    if error.is_system_exception() || matches!(*error, EvalAltResult::ErrorInFunctionCall(..)) {
        return error;
    }
    EvalAltResult::ErrorInFunctionCall(function.name.to_string(), function.file.clone(), error, at).into()
}

/// A value of another type than is needed.
#[cold]
pub(super) fn mismatch(wanted: &str, found: &str, at: Position) -> EvalAltResult {
    EvalAltResult::ErrorMismatchDataType(wanted.to_owned(), found.to_owned(), at)
}

/// The error with the place of the call, if it has none of its own.
#[cold]
pub(super) fn placed(mut error: Box<EvalAltResult>, at: Position) -> Box<EvalAltResult> {
    if error.position().is_none() {
        error.set_position(at);
    }
    error
}

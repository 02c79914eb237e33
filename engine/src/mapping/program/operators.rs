//! Operators between values of Rhai's own types. All others are native functions.

use std::sync::Arc;

use rhai::{Dynamic, EvalAltResult, Position};
use smol_str::{SmolStr, format_smolstr};

use super::{
    Compound, Node, Operator,
    machine::{Flow, Machine},
};
use crate::mapping::{comparisons::joined, datum::Datum, host::Native, pairs::Map};

type Result<T> = std::result::Result<T, Flow>;

/// The operators that are worked out here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Plus,
    Other,
}

impl Kind {
    pub fn named(name: &str) -> Self {
        match name {
            "==" => Self::Equal,
            "!=" => Self::Unequal,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::More,
            ">=" => Self::MoreOrEqual,
            "+" | "+=" => Self::Plus,
            _ => Self::Other,
        }
    }
}

impl Machine<'_> {
    pub(super) fn operator(&mut self, operator: &Operator) -> Result<Datum> {
        if let Some(truth) = self.compared_in_place(operator) {
            return Ok(truth.into());
        }
        let both = [self.value(&operator.left)?, self.value(&operator.right)?];
        self.operated(operator.kind, &operator.name, &operator.natives, both, operator.at)
    }

    /// The comparison of a variable with a value that the script names, where they are.
    pub(super) fn compared_in_place(&mut self, operator: &Operator) -> Option<bool> {
        let (Node::Local(place), Node::Constant(right)) = (&operator.left, &operator.right) else {
            return None;
        };
        compared(operator.kind, self.local(*place), right)
    }

    #[inline(never)]
    fn operated(
        &self,
        kind: Kind,
        name: &str,
        natives: &[Native],
        mut both: [Datum; 2],
        at: Position,
    ) -> Result<Datum> {
        let [left, right] = &both;
        if let Some(value) = compared(kind, left, right) {
            return Ok(value.into());
        }
        if kind == Kind::Plus
            && let Some(value) = sum(left, right)
        {
            return self.bounded(value, at);
        }
        let unlike = unlike(kind, left, right);
        if let Some(done) = self.ours(natives, &mut both, at) {
            return done;
        }
        match unlike {
            Some(value) => Ok(value.into()),
            None => self.by_rhai(name, &mut both, at),
        }
    }

    /// `one == other` as a script says it.
    pub(super) fn is_equal(
        &self,
        one: &Datum,
        other: &Datum,
        natives: &[Native],
        at: Position,
    ) -> Result<bool> {
        if let Some(value) = compared(Kind::Equal, one, other) {
            return Ok(value);
        }
        let value = self.operated(Kind::Equal, "==", natives, [one.clone(), other.clone()], at)?;
        Ok(matches!(value, Datum::Truth(true)))
    }

    /// `target += value`
    pub(super) fn compound(
        &mut self,
        target: &mut Datum,
        operator: &Compound,
        value: Datum,
        at: Position,
    ) -> Result<()> {
        if operator.kind == Kind::Plus {
            let is_kept = match (&mut *target, &value) {
                (Datum::List(list), Datum::List(more)) => {
                    Arc::make_mut(list).extend(more.iter().cloned());
                    true
                }
                (Datum::Map(map), Datum::Map(more)) => {
                    Arc::make_mut(map).take_in(more);
                    true
                }
                (own, more) => sum(own, more).map(|sum| *own = sum).is_some(),
            };
            if is_kept {
                return self.is_bounded(target, at);
            }
        }
        let mut both = [std::mem::take(target), value];
        let done = self.in_place(operator, &mut both, at);
        let [kept, _] = both;
        *target = done?.unwrap_or(kept);
        self.is_bounded(target, at)
    }

    /// By a function for `+=`, else by one for `+`, whose value is what is kept.
    fn in_place(
        &mut self,
        operator: &Compound,
        both: &mut [Datum; 2],
        at: Position,
    ) -> Result<Option<Datum>> {
        let mut spare = both.clone();
        match self.by_rhai(operator.name, both, at) {
            Ok(_) => Ok(None),
            Err(Flow::Fail(error)) if matches!(*error, EvalAltResult::ErrorFunctionNotFound(..)) => {
                let done = self.ours(&operator.natives, &mut spare, at);
                done.unwrap_or_else(|| self.by_rhai(operator.plain, &mut spare, at)).map(Some)
            }
            Err(flow) => Err(flow),
        }
    }
}

/// The comparison of two values of one of Rhai's own types.
fn compared(kind: Kind, left: &Datum, right: &Datum) -> Option<bool> {
    match (left, right) {
        (Datum::Text(left), Datum::Text(right)) => ordered(kind, left.as_str(), right.as_str()),
        (Datum::Integer(left), Datum::Integer(right)) => ordered(kind, left, right),
        (Datum::Truth(left), Datum::Truth(right)) => ordered(kind, left, right),
        // A letter is compared as a text of one.
        (Datum::Other(left), Datum::Text(right)) => ordered(kind, letter(left)?.as_str(), right.as_str()),
        (Datum::Text(left), Datum::Other(right)) => ordered(kind, left.as_str(), letter(right)?.as_str()),
        (Datum::Unit, Datum::Unit) => match kind {
            Kind::Equal => Some(true),
            Kind::Plus | Kind::Other => None,
            _ => Some(false),
        },
        _ => None,
    }
}

fn letter(value: &Dynamic) -> Option<SmolStr> {
    let letter = value.as_char().ok()?;
    Some(SmolStr::from(letter.encode_utf8(&mut [0; 4])))
}

fn ordered<T: PartialOrd>(kind: Kind, left: T, right: T) -> Option<bool> {
    match kind {
        Kind::Equal => Some(left == right),
        Kind::Unequal => Some(left != right),
        Kind::Less => Some(left < right),
        Kind::LessOrEqual => Some(left <= right),
        Kind::More => Some(left > right),
        Kind::MoreOrEqual => Some(left >= right),
        Kind::Plus | Kind::Other => None,
    }
}

/// What Rhai says of values of different types that no function compares: they are unequal, and none is more.
fn unlike(kind: Kind, left: &Datum, right: &Datum) -> Option<bool> {
    if left.kind() == right.kind() || left.is_number() && right.is_number() {
        return None;
    }
    match kind {
        Kind::Unequal => Some(true),
        Kind::Plus | Kind::Other => None,
        _ => Some(false),
    }
}

/// The sum of two numbers, a text and another one or a number, two lists, or two maps.
fn sum(left: &Datum, right: &Datum) -> Option<Datum> {
    match (left, right) {
        (Datum::Text(left), Datum::Text(right)) => Some(Datum::Text(joined(left, right))),
        (Datum::Text(left), Datum::Integer(right)) => Some(Datum::Text(format_smolstr!("{left}{right}"))),
        (Datum::List(left), Datum::List(right)) => Some(left.iter().chain(right.iter()).cloned().collect()),
        (Datum::Integer(left), Datum::Integer(right)) => left.checked_add(*right).map(Datum::Integer),
        (Datum::Map(left), Datum::Map(right)) => {
            let mut all = Map::clone(left);
            all.take_in(right);
            Some(Datum::Map(Arc::new(all)))
        }
        _ => None,
    }
}

/// Whether a value is the one that a `switch` names: of the same type, and equal.
pub(super) fn is_same(one: &Datum, other: &Datum) -> bool {
    match (one, other) {
        (Datum::Other(one), Datum::Other(other)) => {
            matches!((one.as_char(), other.as_char()), (Ok(one), Ok(other)) if one == other)
        }
        _ => compared(Kind::Equal, one, other).unwrap_or(false),
    }
}

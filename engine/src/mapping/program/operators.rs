//! Operators between values of Rhai's own types. All others are native functions.

use rhai::{Dynamic, EvalAltResult, ImmutableString, Position};

use super::{
    Compound, Node, Operator,
    machine::{Flow, Machine, placed},
};
use crate::mapping::host::{Native, by_reference};

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
    pub(super) fn operator(&mut self, operator: &Operator) -> Result<Dynamic> {
        // Two texts are compared where they are.
        if let (Node::Local(place), Node::Constant(right)) = (&operator.left, &operator.right) {
            self.step()?;
            let left = self.local(*place);
            if let Some(value) = compared(operator.kind, left, right) {
                return Ok(value.into());
            }
        }
        let both = [self.value(&operator.left)?, self.value(&operator.right)?];
        self.operated(operator.kind, &operator.name, &operator.natives, both, operator.at)
    }

    fn operated(
        &self,
        kind: Kind,
        name: &str,
        natives: &[Native],
        mut both: [Dynamic; 2],
        at: Position,
    ) -> Result<Dynamic> {
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
        if let Some(done) = self.ours(natives, name, &mut both, at) {
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
        one: &Dynamic,
        other: &Dynamic,
        natives: &[Native],
        at: Position,
    ) -> Result<bool> {
        if let Some(value) = compared(Kind::Equal, one, other) {
            return Ok(value);
        }
        let value = self.operated(Kind::Equal, "==", natives, [one.clone(), other.clone()], at)?;
        Ok(value.as_bool().unwrap_or(false))
    }

    /// `target += value`
    pub(super) fn compound(
        &mut self,
        target: &mut Dynamic,
        operator: &Compound,
        value: Dynamic,
        at: Position,
    ) -> Result<()> {
        if operator.kind == Kind::Plus {
            if let Some(sum) = sum(target, &value) {
                *target = self.bounded(sum, at)?;
                return Ok(());
            }
            if target.is_array() && value.is_array() {
                let more = value.into_array().unwrap_or_default();
                if let Ok(mut list) = target.as_array_mut() {
                    list.extend(more);
                }
                return self.still_bounded(target, at);
            }
        }
        let mut both = [std::mem::take(target), value];
        let done = self.in_place(operator, &mut both, at);
        let [kept, _] = both;
        *target = done?.unwrap_or(kept);
        self.still_bounded(target, at)
    }

    /// By a function for `+=`, else by one for `+`, whose value is what is kept.
    fn in_place(
        &mut self,
        operator: &Compound,
        both: &mut [Dynamic; 2],
        at: Position,
    ) -> Result<Option<Dynamic>> {
        let mut spare = both.clone();
        let context = self.context(operator.name, at);
        match by_reference(both, |both| context.call_native_fn_raw(operator.name, true, both)) {
            Ok(_) => Ok(None),
            Err(error) if matches!(*error, EvalAltResult::ErrorFunctionNotFound(..)) => {
                let done = self.ours(&operator.natives, operator.plain, &mut spare, at);
                done.unwrap_or_else(|| self.by_rhai(operator.plain, &mut spare, at)).map(Some)
            }
            Err(error) => Err(placed(error, at).into()),
        }
    }

    fn still_bounded(&self, value: &mut Dynamic, at: Position) -> Result<()> {
        *value = self.bounded(std::mem::take(value), at)?;
        Ok(())
    }
}

/// The comparison of two values of one of Rhai's own types.
fn compared(kind: Kind, left: &Dynamic, right: &Dynamic) -> Option<bool> {
    // Asked first what they are: what they are not has to be named, which takes longer.
    if left.is_string() && right.is_string() {
        return ordered(
            kind,
            left.as_immutable_string_ref().ok()?.as_str(),
            right.as_immutable_string_ref().ok()?.as_str(),
        );
    }
    if left.is_int() && right.is_int() {
        return ordered(kind, left.as_int().ok()?, right.as_int().ok()?);
    }
    if left.is_bool() && right.is_bool() {
        return ordered(kind, left.as_bool().ok()?, right.as_bool().ok()?);
    }
    if left.is_unit() && right.is_unit() {
        return match kind {
            Kind::Equal => Some(true),
            Kind::Plus | Kind::Other => None,
            _ => Some(false),
        };
    }
    None
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
fn unlike(kind: Kind, left: &Dynamic, right: &Dynamic) -> Option<bool> {
    let number = |value: &Dynamic| value.is_int() || value.is_float();
    if left.type_id() == right.type_id() || number(left) && number(right) {
        return None;
    }
    match kind {
        Kind::Unequal => Some(true),
        Kind::Plus | Kind::Other => None,
        _ => Some(false),
    }
}

/// The sum of two numbers, or a text and another one.
fn sum(left: &Dynamic, right: &Dynamic) -> Option<Dynamic> {
    if left.is_string() && right.is_string() {
        let (left, right) = (left.as_immutable_string_ref().ok()?, right.as_immutable_string_ref().ok()?);
        let mut text = String::with_capacity(left.len() + right.len());
        text.push_str(&left);
        text.push_str(&right);
        return Some(ImmutableString::from(text).into());
    }
    if left.is_int() && right.is_int() {
        return left.as_int().ok()?.checked_add(right.as_int().ok()?).map(Dynamic::from);
    }
    None
}

/// Whether a value is the one that a `switch` names: of the same type, and equal.
pub(super) fn is_same(one: &Dynamic, other: &Dynamic) -> bool {
    one.type_id() == other.type_id()
        && (compared(Kind::Equal, one, other).unwrap_or(false)
            || matches!((one.as_char(), other.as_char()), (Ok(one), Ok(other)) if one == other))
}

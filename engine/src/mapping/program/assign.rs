//! Sets variables, and parts of lists and maps that are kept in one.

use std::{mem::take, sync::Arc};

use rhai::{EvalAltResult, INT, Position};
use smol_str::SmolStr;

use super::{
    Assign, Place, Step,
    arguments::from_either_end,
    machine::{Flow, Machine, mismatch},
};
use crate::mapping::datum::Datum;

type Result<T> = std::result::Result<T, Flow>;

/// A step into a list or a map.
pub(super) enum Key {
    Name(SmolStr, Position, bool),
    Number(INT, Position),
}

impl Machine<'_> {
    #[inline(never)]
    pub(super) fn assign(&mut self, assign: &Assign) -> Result<Datum> {
        let value = self.value(&assign.value)?;
        let keys = self.keys(&assign.place)?;
        let value = match &assign.operator {
            None => value,
            Some(operator) => {
                let mut target = self.taken(&assign.place, &keys)?;
                let done = self.compound(&mut target, operator, value, assign.at);
                if done.is_err() {
                    self.give_back(&assign.place, &keys, target);
                    return done.map(|()| Datum::Unit);
                }
                target
            }
        };
        if keys.is_empty() {
            *self.local(assign.place.local) = value;
            return Ok(Datum::Unit);
        }
        let mut value = Some(value);
        within(self.local(assign.place.local), &keys, true, &mut |part| {
            *part = value.take().unwrap_or_default()
        })?;
        let root = take(self.local(assign.place.local));
        *self.local(assign.place.local) = self.bounded(root, assign.at)?;
        Ok(Datum::Unit)
    }

    /// The way to a part of a variable.
    pub(super) fn keys(&mut self, place: &Place) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for step in &place.steps {
            keys.push(match step {
                Step::Name(name, at) => Key::Name(name.clone(), *at, true),
                Step::Index(node, at) => match self.value(node)? {
                    Datum::Integer(number) => Key::Number(number, *at),
                    Datum::Text(name) => Key::Name(name, *at, false),
                    other => return Err(mismatch("i64", other.type_name(), *at).into()),
                },
            });
        }
        Ok(keys)
    }

    /// Takes a part of a variable out.
    pub(super) fn taken(&mut self, place: &Place, keys: &[Key]) -> Result<Datum> {
        let mut found = Datum::Unit;
        within(self.local(place.local), keys, false, &mut |part| found = take(part))?;
        Ok(found)
    }

    /// Puts a part back that was taken out.
    pub(super) fn give_back(&mut self, place: &Place, keys: &[Key], value: Datum) {
        let mut value = Some(value);
        // It was there a moment ago.
        let _ =
            within(self.local(place.local), keys, true, &mut |part| *part = value.take().unwrap_or_default());
    }
}

/// Whether the way to a part led into what is no list and no map.
pub(super) fn leads_elsewhere(error: &EvalAltResult) -> bool {
    matches!(error, EvalAltResult::ErrorDotExpr(..) | EvalAltResult::ErrorIndexingType(..))
}

/// Works on a part of a value. A map gets what it has not yet, as the last step of an assignment.
fn within(value: &mut Datum, keys: &[Key], new: bool, work: &mut dyn FnMut(&mut Datum)) -> Result<()> {
    let Some((key, rest)) = keys.split_first() else {
        work(value);
        return Ok(());
    };
    match key {
        Key::Name(name, at, is_property) => {
            let Datum::Map(map) = value else {
                let kind = value.type_name();
                let what =
                    format!("Unknown property '{name}' - a setter is not registered for type '{kind}'");
                return Err(EvalAltResult::ErrorDotExpr(what, *at).into());
            };
            let map = Arc::make_mut(map);
            if map.get(name).is_none() && !(new && rest.is_empty()) && *is_property {
                return Err(EvalAltResult::ErrorPropertyNotFound(name.to_string(), *at).into());
            }
            within(map.entry(name), rest, new, work)
        }
        Key::Number(number, at) => {
            let Datum::List(list) = value else {
                return Err(EvalAltResult::ErrorIndexingType(value.type_name().to_owned(), *at).into());
            };
            let list = Arc::make_mut(list);
            let count = list.len();
            match from_either_end(*number, count).and_then(|place| list.get_mut(place)) {
                Some(part) => within(part, rest, new, work),
                None => Err(EvalAltResult::ErrorArrayBounds(count, *number, *at).into()),
            }
        }
    }
}

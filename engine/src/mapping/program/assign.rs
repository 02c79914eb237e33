//! Sets variables, and parts of lists and maps that are kept in one.

use std::mem::take;

use rhai::{Dynamic, EvalAltResult, INT, ImmutableString, Position};

use super::{
    Assign, Place, Step,
    arguments::from_either_end,
    machine::{Flow, Machine, mismatch},
};

type Result<T> = std::result::Result<T, Flow>;

/// A step into a list or a map.
pub(super) enum Key {
    Name(ImmutableString, Position, bool),
    Number(INT, Position),
}

impl Machine<'_> {
    pub(super) fn assign(&mut self, assign: &Assign) -> Result<Dynamic> {
        let value = self.value(&assign.value)?;
        let keys = self.keys(&assign.place)?;
        let value = match &assign.operator {
            None => value,
            Some(operator) => {
                let mut target = self.taken(&assign.place, &keys)?;
                let done = self.compound(&mut target, operator, value, assign.at);
                if done.is_err() {
                    self.give_back(&assign.place, &keys, target);
                    return done.map(|()| Dynamic::UNIT);
                }
                target
            }
        };
        if keys.is_empty() {
            *self.local(assign.place.local) = value;
            return Ok(Dynamic::UNIT);
        }
        let mut value = Some(value);
        within(self.local(assign.place.local), &keys, true, &mut |part| {
            *part = value.take().unwrap_or_default()
        })?;
        let root = take(self.local(assign.place.local));
        *self.local(assign.place.local) = self.bounded(root, assign.at)?;
        Ok(Dynamic::UNIT)
    }

    /// The way to a part of a variable.
    pub(super) fn keys(&mut self, place: &Place) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for step in &place.steps {
            keys.push(match step {
                Step::Name(name, at) => Key::Name(name.clone(), *at, true),
                Step::Index(node, at) => {
                    let key = self.value(node)?;
                    match key.as_int() {
                        Ok(number) => Key::Number(number, *at),
                        Err(found) => {
                            let name =
                                key.into_immutable_string().map_err(|_| mismatch("i64", found, *at))?;
                            Key::Name(name, *at, false)
                        }
                    }
                }
            });
        }
        Ok(keys)
    }

    /// Takes a part of a variable out.
    pub(super) fn taken(&mut self, place: &Place, keys: &[Key]) -> Result<Dynamic> {
        let mut found = Dynamic::UNIT;
        within(self.local(place.local), keys, false, &mut |part| found = take(part))?;
        Ok(found)
    }

    /// Puts a part back that was taken out.
    pub(super) fn give_back(&mut self, place: &Place, keys: &[Key], value: Dynamic) {
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
fn within(value: &mut Dynamic, keys: &[Key], new: bool, work: &mut dyn FnMut(&mut Dynamic)) -> Result<()> {
    let Some((key, rest)) = keys.split_first() else {
        work(value);
        return Ok(());
    };
    match key {
        Key::Name(name, at, is_property) => {
            let kind = value.type_name();
            let Ok(mut map) = value.as_map_mut() else {
                let what =
                    format!("Unknown property '{name}' - a setter is not registered for type '{kind}'");
                return Err(EvalAltResult::ErrorDotExpr(what, *at).into());
            };
            if !map.contains_key(name.as_str()) {
                if !(new && rest.is_empty()) && *is_property {
                    return Err(EvalAltResult::ErrorPropertyNotFound(name.to_string(), *at).into());
                }
                map.insert(name.as_str().into(), Dynamic::UNIT);
            }
            match map.get_mut(name.as_str()) {
                Some(part) => within(part, rest, new, work),
                None => Ok(()),
            }
        }
        Key::Number(number, at) => {
            let kind = value.type_name();
            let Ok(mut list) = value.as_array_mut() else {
                return Err(EvalAltResult::ErrorIndexingType(kind.to_owned(), *at).into());
            };
            let count = list.len();
            match from_either_end(*number, count).and_then(|place| list.get_mut(place)) {
                Some(part) => within(part, rest, new, work),
                None => Err(EvalAltResult::ErrorArrayBounds(count, *number, *at).into()),
            }
        }
    }
}

//! Calls of native functions, properties and indexes.

use std::mem::take;

use rhai::{Dynamic, EvalAltResult, INT, Position};

use super::{
    Get, Index, NativeCall, Node,
    machine::{Flow, Machine, mismatch, placed},
    standard::{self, Method},
};
use crate::mapping::host::{INDEXER, Native, by_reference};

type Result<T> = std::result::Result<T, Flow>;

/// Arguments that a call has room for without asking for memory.
const FEW: usize = 5;

impl Machine<'_> {
    pub(super) fn native(&mut self, call: &NativeCall) -> Result<Dynamic> {
        let mut few: [Dynamic; FEW] = Default::default();
        let mut many = Vec::new();
        let count = call.arguments.len();
        let values = match few.get_mut(..count) {
            Some(values) => values,
            None => {
                many.resize(count, Dynamic::UNIT);
                many.as_mut_slice()
            }
        };
        // The others first: they may read the variable that the function works on.
        let object = match call.arguments.first() {
            Some(Node::Local(place)) => Some(*place),
            _ => None,
        };
        for (number, (value, node)) in values.iter_mut().zip(&call.arguments).enumerate() {
            if number > 0 || object.is_none() && call.object.is_none() {
                *value = self.value(node)?;
            }
        }
        match (object, &call.object) {
            (Some(place), _) => {
                self.step()?;
                put(values, take(self.local(place)));
                let done = self.chosen(call, values);
                *self.local(place) = first(values);
                done
            }
            (None, Some(place)) => {
                let keys = self.keys(place)?;
                put(values, self.taken(place, &keys)?);
                let done = self.chosen(call, values);
                self.give_back(place, &keys, first(values));
                done
            }
            (None, None) => self.chosen(call, values),
        }
    }

    /// Calls the function that takes these. The first argument stays for the caller to take back.
    fn chosen(&mut self, call: &NativeCall, values: &mut [Dynamic]) -> Result<Dynamic> {
        let Some(native) = call.natives.iter().find(|native| native.takes(values)) else {
            if let Some(done) = self.standard(call, values) {
                return done;
            }
            return self.dispatch(&[], &call.name, values, call.at);
        };
        let kept = (!native.in_place).then(|| values.first().cloned()).flatten();
        let done = self.call_native(native, &call.name, values, call.at);
        if let Some(kept) = kept {
            put(values, kept);
        }
        done
    }

    fn standard(&mut self, call: &NativeCall, values: &mut [Dynamic]) -> Option<Result<Dynamic>> {
        let method = call.standard?;
        if method == Method::Contains {
            return self.contains(values, call);
        }
        let done = standard::call(method, values, self.limits)?;
        Some(done.map_err(|error| placed(error, call.at).into()))
    }

    /// `item in list`, and `contains`.
    fn contains(&mut self, values: &mut [Dynamic], call: &NativeCall) -> Option<Result<Dynamic>> {
        let [within, wanted] = values else { return None };
        if let (Ok(within), Ok(wanted)) = (within.as_immutable_string_ref(), wanted.as_immutable_string_ref())
        {
            return Some(Ok(within.contains(wanted.as_str()).into()));
        }
        let list = within.as_array_ref().ok()?;
        for item in list.iter() {
            match self.is_equal(item, wanted, &call.equals, call.at) {
                Ok(true) => return Some(Ok(true.into())),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(false.into()))
    }

    /// Calls a native function of ours.
    pub(super) fn call_native(
        &mut self,
        native: &Native,
        name: &str,
        values: &mut [Dynamic],
        at: Position,
    ) -> Result<Dynamic> {
        let value = native.call(|| self.context(name, at), values).map_err(|error| placed(error, at))?;
        self.bounded(value, at)
    }

    /// Has Rhai find the function, where none of ours will do.
    pub(super) fn dispatch(
        &mut self,
        natives: &[Native],
        name: &str,
        values: &mut [Dynamic],
        at: Position,
    ) -> Result<Dynamic> {
        if let Some(native) = natives.iter().find(|native| native.takes(values)) {
            return self.call_native(native, name, values, at);
        }
        let context = self.context(name, at);
        let done = by_reference(values, |values| context.call_native_fn_raw(name, true, values));
        let value = done.map_err(|error| placed(error, at))?;
        if let Some(object) = values.first_mut() {
            *object = self.bounded(take(object), at)?;
        }
        Ok(value)
    }

    pub(super) fn get(&mut self, get: &Get) -> Result<Dynamic> {
        if let Node::Local(place) = get.object {
            self.step()?;
            let mut object = [take(self.local(place))];
            let done = self.property(get, &mut object);
            let [object] = object;
            *self.local(place) = object;
            return done;
        }
        let mut object = [self.value(&get.object)?];
        self.property(get, &mut object)
    }

    fn property(&mut self, get: &Get, object: &mut [Dynamic; 1]) -> Result<Dynamic> {
        let [value] = &*object;
        if get.elvis && value.is_unit() {
            return Ok(Dynamic::UNIT);
        }
        if value.is_map()
            && let Ok(map) = value.as_map_ref()
        {
            let found = map.get(get.name.as_str()).cloned();
            return found
                .ok_or_else(|| EvalAltResult::ErrorPropertyNotFound(get.name.to_string(), get.at).into());
        }
        if let Some(native) = get.natives.iter().find(|native| native.takes(object)) {
            return self.call_native(native, &get.getter, object, get.at);
        }
        // What has no such property may have something under its name.
        let mut named = [value.clone(), get.name.clone().into()];
        if let Some(native) = get.indexers.iter().find(|native| native.takes(&named)) {
            return self.call_native(native, INDEXER, &mut named, get.at);
        }
        let kind = self.engine.map_type_name(value.type_name()).to_owned();
        self.dispatch(&[], &get.getter, object, get.at).map_err(|flow| match flow {
            Flow::Fail(error) if matches!(*error, EvalAltResult::ErrorFunctionNotFound(..)) => {
                let what =
                    format!("Unknown property '{}' - a getter is not registered for type '{kind}'", get.name);
                EvalAltResult::ErrorDotExpr(what, get.at).into()
            }
            flow => flow,
        })
    }

    pub(super) fn index(&mut self, index: &Index) -> Result<Dynamic> {
        if let Node::Local(place) = index.object {
            self.step()?;
            let key = self.value(&index.index)?;
            let mut both = [take(self.local(place)), key];
            let done = self.indexed(index, &mut both);
            let [object, _] = both;
            *self.local(place) = object;
            return done;
        }
        let object = self.value(&index.object)?;
        let key = self.value(&index.index)?;
        self.indexed(index, &mut [object, key])
    }

    fn indexed(&mut self, index: &Index, both: &mut [Dynamic; 2]) -> Result<Dynamic> {
        let [object, key] = &*both;
        if index.elvis && object.is_unit() {
            return Ok(Dynamic::UNIT);
        }
        if object.is_map()
            && let Ok(map) = object.as_map_ref()
        {
            let key = key.as_immutable_string_ref().map_err(|found| mismatch("string", found, index.at))?;
            let found = map.get(key.as_str()).cloned();
            return found
                .ok_or_else(|| EvalAltResult::ErrorPropertyNotFound(key.to_string(), index.at).into());
        }
        if object.is_array()
            && let Ok(list) = object.as_array_ref()
        {
            let number = key.as_int().map_err(|found| mismatch("i64", found, index.at))?;
            let found = from_either_end(number, list.len()).and_then(|place| list.get(place));
            return found
                .cloned()
                .ok_or_else(|| EvalAltResult::ErrorArrayBounds(list.len(), number, index.at).into());
        }
        if object.is_string()
            && let (Ok(text), Ok(number)) = (object.as_immutable_string_ref(), key.as_int())
        {
            let count = text.chars().count();
            let found = from_either_end(number, count).and_then(|place| text.chars().nth(place));
            return found
                .map(Dynamic::from)
                .ok_or_else(|| EvalAltResult::ErrorStringBounds(count, number, index.at).into());
        }
        if let Some(native) = index.natives.iter().find(|native| native.takes(both)) {
            return self.call_native(native, INDEXER, both, index.at);
        }
        let kind = self.engine.map_type_name(object.type_name()).to_owned();
        Err(EvalAltResult::ErrorIndexingType(kind, index.at).into())
    }
}

/// A place counted from the beginning, or from the end where the number is negative.
pub(super) fn from_either_end(number: INT, count: usize) -> Option<usize> {
    let distance = usize::try_from(number.unsigned_abs()).ok()?;
    if number < 0 { count.checked_sub(distance) } else { Some(distance) }
}

fn put(values: &mut [Dynamic], value: Dynamic) {
    if let Some(first) = values.first_mut() {
        *first = value;
    }
}

fn first(values: &mut [Dynamic]) -> Dynamic {
    values.first_mut().map(take).unwrap_or_default()
}

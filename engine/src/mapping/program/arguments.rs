//! Calls of native functions, properties and indexes.

use std::mem::take;

use rhai::{Dynamic, EvalAltResult, INT, Position};

use super::{
    Get, Index, NativeCall, Node, Place,
    assign::leads_elsewhere,
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
                let done = self.chosen(call, values, true);
                *self.local(place) = first(values);
                done
            }
            (None, Some(place)) => self.native_of_part(call, place, values),
            (None, None) => self.chosen(call, values, false),
        }
    }

    /// Works on a part of a list or a map where it is kept. What is in another value is a copy, and nothing is given back.
    fn native_of_part(
        &mut self,
        call: &NativeCall,
        place: &Place,
        values: &mut [Dynamic],
    ) -> Result<Dynamic> {
        let keys = self.keys(place)?;
        match self.taken(place, &keys) {
            Ok(part) => {
                put(values, part);
                let done = self.chosen(call, values, true);
                self.give_back(place, &keys, first(values));
                done
            }
            Err(Flow::Fail(error)) if leads_elsewhere(&error) => {
                if let Some(node) = call.arguments.first() {
                    put(values, self.value(node)?);
                }
                self.chosen(call, values, false)
            }
            Err(flow) => Err(flow),
        }
    }

    /// Calls the function that takes these. A first one that is lent is still there afterwards.
    fn chosen(&mut self, call: &NativeCall, values: &mut [Dynamic], lent: bool) -> Result<Dynamic> {
        let Some(native) = call.natives.iter().find(|native| native.takes(values)) else {
            return match self.standard(call, values) {
                Some(done) => done,
                None => self.by_rhai(&call.name, values, call.at),
            };
        };
        let kept = (lent && !native.in_place).then(|| values.first().cloned()).flatten();
        let done = self.called(native, &call.name, values, call.at);
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
        if within.is_string()
            && let (Ok(within), Ok(wanted)) =
                (within.as_immutable_string_ref(), wanted.as_immutable_string_ref())
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

    /// Calls the native function of ours that takes these; nothing where none does.
    pub(super) fn ours(
        &self,
        natives: &[Native],
        name: &str,
        values: &mut [Dynamic],
        at: Position,
    ) -> Option<Result<Dynamic>> {
        let native = natives.iter().find(|native| native.takes(values))?;
        Some(self.called(native, name, values, at))
    }

    fn called(&self, native: &Native, name: &str, values: &mut [Dynamic], at: Position) -> Result<Dynamic> {
        let value = native.call(|| self.context(name, at), values).map_err(|error| placed(error, at))?;
        self.bounded(value, at)
    }

    /// Has Rhai find the function, where none of ours will do.
    pub(super) fn by_rhai(&self, name: &str, values: &mut [Dynamic], at: Position) -> Result<Dynamic> {
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
        let kind = value.type_name();
        if let Some(done) = self.ours(&get.natives, &get.getter, object, get.at) {
            return done;
        }
        // What has no such property may have something under its name.
        let [value] = &*object;
        let mut named = [value.clone(), get.name.clone().into()];
        if let Some(done) = self.ours(&get.indexers, INDEXER, &mut named, get.at) {
            return done;
        }
        self.by_rhai(&get.getter, object, get.at).map_err(|flow| match flow {
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
        let kind = object.type_name();
        self.ours(&index.natives, INDEXER, both, index.at)
            .unwrap_or_else(|| Err(EvalAltResult::ErrorIndexingType(kind.to_owned(), index.at).into()))
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

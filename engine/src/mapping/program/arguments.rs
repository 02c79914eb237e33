//! Calls of native functions, fields, properties and indexes.

use std::mem::take;

use rhai::{Dynamic, EvalAltResult, INT, Position};
use smol_str::SmolStr;

use super::{
    Field, Get, Index, NativeCall, Node, Place,
    assign::leads_elsewhere,
    machine::{Flow, Machine, mismatch, placed},
    standard::{self, Method},
};
use crate::mapping::{
    asking::{Ask, ask},
    datum::Datum,
    host::Native,
};

type Result<T> = std::result::Result<T, Flow>;

impl Machine<'_> {
    #[inline(never)]
    pub(super) fn native(&mut self, call: &NativeCall) -> Result<Datum> {
        self.step()?;
        let mark = self.mark();
        // In their order; but a variable that the function works on comes last, for the others may change it.
        let is_kept = call.object.is_some() || matches!(call.arguments.first(), Some(Node::Local(_)));
        for (number, node) in call.arguments.iter().enumerate() {
            let value = match node {
                _ if number == 0 && is_kept => Datum::Unit,
                Node::Constant(value) => value.clone(),
                node => self.value(node)?,
            };
            self.places.push(value);
        }
        let done = match (call.arguments.first(), &call.object) {
            (Some(_), Some(place)) => self.native_of_part(call, place, mark),
            (Some(Node::Local(place)), None) => self.native_of_local(call, *place, mark),
            _ => self.chosen(call, mark),
        };
        self.forget(mark);
        done
    }

    /// Works on a variable, where it is kept if the function changes it: ours never do.
    fn native_of_local(&mut self, call: &NativeCall, place: usize, mark: usize) -> Result<Datum> {
        let object = self.local(place).clone();
        self.put(mark, object);
        if let Some(done) = self.by_us(call, mark) {
            return done;
        }
        // Held once, so that it can be changed without a copy.
        let object = take(self.local(place));
        self.put(mark, object);
        let done = self.by_others(call, mark);
        *self.local(place) = self.first(mark);
        done
    }

    /// Works on a part of a list or a map where it is kept. What is in another value is a copy, and nothing is given back.
    #[inline(never)]
    fn native_of_part(&mut self, call: &NativeCall, place: &Place, mark: usize) -> Result<Datum> {
        let keys = self.keys(place)?;
        match self.taken(place, &keys) {
            Ok(part) => {
                self.put(mark, part);
                let done = match self.by_us_on_a_copy(call, mark) {
                    Some(done) => done,
                    None => self.by_others(call, mark),
                };
                let object = self.first(mark);
                self.give_back(place, &keys, object);
                done
            }
            Err(Flow::Fail(error)) if leads_elsewhere(&error) => {
                if let Some(node) = call.arguments.first() {
                    let object = self.value(node)?;
                    self.put(mark, object);
                }
                self.chosen(call, mark)
            }
            Err(flow) => Err(flow),
        }
    }

    /// Calls the function that takes what stands there.
    fn chosen(&mut self, call: &NativeCall, mark: usize) -> Result<Datum> {
        self.by_us(call, mark).unwrap_or_else(|| self.by_others(call, mark))
    }

    fn by_us(&mut self, call: &NativeCall, mark: usize) -> Option<Result<Datum>> {
        let values = self.places.get_mut(mark..)?;
        let done = Native::call_one(&call.natives, values)?;
        Some(self.checked(done, call.at))
    }

    /// The same, and the first value is still there afterwards. It is held twice only where one of ours may take it: a list
    /// that is held once is changed without being copied.
    fn by_us_on_a_copy(&mut self, call: &NativeCall, mark: usize) -> Option<Result<Datum>> {
        if call.natives.is_empty() {
            return None;
        }
        let kept = self.places.get(mark).cloned()?;
        let done = self.by_us(call, mark)?;
        self.put(mark, kept);
        Some(done)
    }

    /// By a function of Rhai's, which may change the first value.
    #[inline(never)]
    fn by_others(&mut self, call: &NativeCall, mark: usize) -> Result<Datum> {
        let mut values = self.places.split_off(mark);
        let done = match self.standard(call, &mut values) {
            Some(done) => done,
            None => self.by_rhai(&call.name, &mut values, call.at),
        };
        self.places.append(&mut values);
        done
    }

    fn standard(&mut self, call: &NativeCall, values: &mut [Datum]) -> Option<Result<Datum>> {
        let method = call.standard?;
        match method {
            Method::Contains => return self.contains(values, call),
            Method::TypeOf => {
                let name = values.first()?.type_name();
                return Some(Ok(Datum::Text(self.engine.map_type_name(name).into())));
            }
            _ => {}
        }
        // Of what is nested all that is in it counts.
        let nests = matches!(values, [_, Datum::List(_) | Datum::Map(_)]);
        let done = standard::call(method, values, self.limits)?;
        let bounded =
            values.first().filter(|_| nests).map_or(Ok(()), |object| self.is_bounded(object, call.at));
        Some(bounded.and(done.map_err(|error| placed(error, call.at).into())))
    }

    /// `item in list`, and `contains`.
    fn contains(&mut self, values: &[Datum], call: &NativeCall) -> Option<Result<Datum>> {
        match values {
            [Datum::Text(within), Datum::Text(wanted)] => Some(Ok(within.contains(wanted.as_str()).into())),
            [Datum::List(list), wanted] => {
                for item in list.iter() {
                    match self.is_equal(item, wanted, &call.equals, call.at) {
                        Ok(true) => return Some(Ok(true.into())),
                        Ok(false) => {}
                        Err(error) => return Some(Err(error)),
                    }
                }
                Some(Ok(false.into()))
            }
            _ => None,
        }
    }

    /// Calls the native function of ours that takes these; nothing where none does.
    pub(super) fn ours(
        &self,
        natives: &[Native],
        values: &mut [Datum],
        at: Position,
    ) -> Option<Result<Datum>> {
        Some(self.checked(Native::call_one(natives, values)?, at))
    }

    /// What came, as it came: to take it apart here would copy it more than once.
    fn checked(&self, done: Result<Datum>, at: Position) -> Result<Datum> {
        match &done {
            Ok(value) => self.is_bounded(value, at)?,
            Err(_) => return done.map_err(|flow| flow.placed(at)),
        }
        done
    }

    /// Has Rhai find the function, where none of ours will do. The first value is as it is afterwards.
    #[cold]
    pub(super) fn by_rhai(&self, name: &str, values: &mut [Datum], at: Position) -> Result<Datum> {
        let context = self.context(name, at);
        let mut own: Vec<Dynamic> = values.iter_mut().map(|value| take(value).into_rhai()).collect();
        let mut lent: Vec<&mut Dynamic> = own.iter_mut().collect();
        let done = context.call_native_fn_raw(name, true, &mut lent);
        let object = own.into_iter().next().map(Datum::from);
        if let (Some(first), Some(object)) = (values.first_mut(), object) {
            *first = object;
        }
        let value = done.map_err(|error| placed(error, at))?;
        if let Some(object) = values.first() {
            self.is_bounded(object, at)?;
        }
        Ok(value.into())
    }

    #[inline(never)]
    pub(super) fn field(&mut self, field: &Field) -> Result<Datum> {
        let Some(done) = ask(field.ask, self.local(field.local), &field.path) else {
            return self.value(&field.otherwise);
        };
        if !matches!(field.ask, Ask::Value | Ask::IsAbsent) {
            self.step()?;
        }
        self.checked(done, field.at)
    }

    pub(super) fn get(&mut self, get: &Get) -> Result<Datum> {
        if let Node::Local(place) = get.object {
            let object = self.local(place);
            if let Datum::Map(map) = object {
                return found(map.at(&get.name), get.name.as_str(), get.at);
            }
            let object = object.clone();
            return self.property(get, object);
        }
        let object = self.value(&get.object)?;
        self.property(get, object)
    }

    #[inline(never)]
    fn property(&mut self, get: &Get, object: Datum) -> Result<Datum> {
        match &object {
            Datum::Unit if get.elvis => return Ok(Datum::Unit),
            Datum::Map(map) => return found(map.at(&get.name), get.name.as_str(), get.at),
            _ => {}
        }
        let mut alone = [object];
        if let Some(done) = self.ours(&get.natives, &mut alone, get.at) {
            return done;
        }
        // What has no such property may have something under its name.
        let [object] = alone;
        let mut named = [object, SmolStr::from(get.name.as_str()).into()];
        if let Some(done) = self.ours(&get.indexers, &mut named, get.at) {
            return done;
        }
        let [object, _] = named;
        let kind = object.type_name();
        self.by_rhai(&get.getter, &mut [object], get.at).map_err(|flow| match flow {
            Flow::Fail(error) if matches!(*error, EvalAltResult::ErrorFunctionNotFound(..)) => {
                let what = format!(
                    "Unknown property '{}' - a getter is not registered for type '{kind}'",
                    get.name.as_str()
                );
                EvalAltResult::ErrorDotExpr(what, get.at).into()
            }
            flow => flow,
        })
    }

    pub(super) fn index(&mut self, index: &Index) -> Result<Datum> {
        if let Node::Local(place) = index.object {
            let key = self.value(&index.index)?;
            let object = self.local(place).clone();
            return self.indexed(index, object, key);
        }
        let object = self.value(&index.object)?;
        let key = self.value(&index.index)?;
        self.indexed(index, object, key)
    }

    #[inline(never)]
    fn indexed(&mut self, index: &Index, object: Datum, key: Datum) -> Result<Datum> {
        let number = |key: &Datum| match key {
            Datum::Integer(number) => Ok(*number),
            other => Err(mismatch("i64", other.type_name(), index.at)),
        };
        match &object {
            Datum::Unit if index.elvis => Ok(Datum::Unit),
            Datum::Map(map) => match &key {
                Datum::Text(name) => found(map.get(name.as_str()), name, index.at),
                other => Err(mismatch("string", other.type_name(), index.at).into()),
            },
            Datum::List(list) => {
                let number = number(&key)?;
                let found = from_either_end(number, list.len()).and_then(|place| list.get(place));
                let missing = || EvalAltResult::ErrorArrayBounds(list.len(), number, index.at).into();
                found.cloned().ok_or_else(missing)
            }
            Datum::Text(text) if matches!(key, Datum::Integer(_)) => {
                let (number, count) = (number(&key)?, text.chars().count());
                let found = from_either_end(number, count).and_then(|place| text.chars().nth(place));
                let missing = || EvalAltResult::ErrorStringBounds(count, number, index.at).into();
                found.map(|found| Dynamic::from(found).into()).ok_or_else(missing)
            }
            _ => {
                let mut both = [object, key];
                self.ours(&index.natives, &mut both, index.at).unwrap_or_else(|| {
                    let [object, _] = both;
                    Err(EvalAltResult::ErrorIndexingType(object.type_name().to_owned(), index.at).into())
                })
            }
        }
    }

    fn put(&mut self, mark: usize, value: Datum) {
        if let Some(place) = self.places.get_mut(mark) {
            *place = value;
        }
    }

    fn first(&mut self, mark: usize) -> Datum {
        self.places.get_mut(mark).map(take).unwrap_or_default()
    }
}

/// What a map has under a name.
fn found(value: Option<&Datum>, name: &str, at: Position) -> Result<Datum> {
    value.cloned().ok_or_else(|| EvalAltResult::ErrorPropertyNotFound(name.to_owned(), at).into())
}

/// A place counted from the beginning, or from the end where the number is negative.
pub(super) fn from_either_end(number: INT, count: usize) -> Option<usize> {
    let distance = usize::try_from(number.unsigned_abs()).ok()?;
    if number < 0 { count.checked_sub(distance) } else { Some(distance) }
}

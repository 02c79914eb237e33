//! Loops, and the methods of lists that take a closure.

use std::ops::{Range, RangeInclusive};

use rhai::{Array, Dynamic, EvalAltResult, INT};

use super::{
    Each, For, While,
    machine::{Flow, Machine},
};

type Result<T> = std::result::Result<T, Flow>;

/// What is done with what the closure says of each item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Filter,
    Map,
    Some,
    All,
    Find,
}

impl Kind {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "filter" => Self::Filter,
            "map" => Self::Map,
            "some" => Self::Some,
            "all" => Self::All,
            "find" => Self::Find,
            _ => return None,
        })
    }

    /// What Rhai calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Map => "map",
            Self::Some => "some",
            Self::All => "all",
            Self::Find => "find",
        }
    }
}

impl Machine<'_> {
    pub(super) fn each(&mut self, each: &Each) -> Result<Dynamic> {
        let list = self.value(&each.list)?;
        let kind = self.engine.map_type_name(list.type_name()).to_owned();
        let Ok(list) = list.into_array() else {
            let call = format!("{} ({kind}, Fn)", each.kind.name());
            return Err(EvalAltResult::ErrorFunctionNotFound(call, each.at).into());
        };
        let mut kept = Array::new();
        for (number, item) in list.into_iter().enumerate() {
            let spare = matches!(each.kind, Kind::Filter | Kind::Find).then(|| item.clone());
            *self.local(each.item) = item;
            if let Some(place) = each.number {
                *self.local(place) = (number as INT).into();
            }
            let said = self.closure(each)?;
            let holds = said.as_bool().unwrap_or(false);
            match each.kind {
                Kind::Map => kept.push(said),
                Kind::Filter if holds => kept.extend(spare),
                Kind::Find if holds => return Ok(spare.unwrap_or_default()),
                Kind::Some if holds => return Ok(true.into()),
                Kind::All if !holds => return Ok(false.into()),
                _ => {}
            }
        }
        match each.kind {
            Kind::Filter | Kind::Map => self.bounded(kept.into(), each.at),
            Kind::Find => Ok(Dynamic::UNIT),
            Kind::Some => Ok(false.into()),
            Kind::All => Ok(true.into()),
        }
    }

    fn closure(&mut self, each: &Each) -> Result<Dynamic> {
        let mark = self.mark();
        match self.block(&each.body) {
            Err(Flow::Return(value)) => {
                self.forget(mark);
                Ok(value)
            }
            said => said,
        }
    }

    pub(super) fn while_loop(&mut self, again: &While) -> Result<Dynamic> {
        let mut first = again.after.is_some();
        loop {
            self.step()?;
            let wanted = again.after.unwrap_or(true);
            if !std::mem::take(&mut first)
                && let Some(condition) = &again.condition
                && self.is_so(condition)? != wanted
            {
                return Ok(Dynamic::UNIT);
            }
            if let Some(value) = self.round(&again.body)? {
                return Ok(value);
            }
        }
    }

    pub(super) fn for_loop(&mut self, each: &For) -> Result<Dynamic> {
        let over = self.value(&each.over)?;
        if let Some(range) = over.read_lock::<Range<INT>>().map(|range| range.clone()) {
            return self.rounds(each, range.map(Dynamic::from));
        }
        if let Some(range) = over.read_lock::<RangeInclusive<INT>>().map(|range| range.clone()) {
            return self.rounds(each, range.map(Dynamic::from));
        }
        if let Ok(text) = over.as_immutable_string_ref() {
            let chars: Vec<char> = text.chars().collect();
            return self.rounds(each, chars.into_iter().map(Dynamic::from));
        }
        match over.into_array() {
            Ok(list) => self.rounds(each, list.into_iter()),
            Err(_) => Err(EvalAltResult::ErrorFor(each.at).into()),
        }
    }

    fn rounds(&mut self, each: &For, items: impl Iterator<Item = Dynamic>) -> Result<Dynamic> {
        for (number, item) in items.enumerate() {
            self.step()?;
            *self.local(each.item) = item;
            if let Some(place) = each.number {
                *self.local(place) = (number as INT).into();
            }
            if let Some(value) = self.round(&each.body)? {
                return Ok(value);
            }
        }
        Ok(Dynamic::UNIT)
    }

    /// One round of a loop, and its value if it was the last.
    fn round(&mut self, body: &[super::Node]) -> Result<Option<Dynamic>> {
        let mark = self.mark();
        let value = match self.block(body) {
            Ok(_) => return Ok(None),
            Err(Flow::Continue) => None,
            Err(Flow::Break(value)) => Some(value),
            Err(flow) => return Err(flow),
        };
        self.forget(mark);
        Ok(value)
    }
}

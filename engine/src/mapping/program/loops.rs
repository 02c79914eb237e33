//! Loops, and the methods of lists that take a closure.

use std::{
    mem::take,
    ops::{Range, RangeInclusive},
};

use rhai::{Dynamic, EvalAltResult, INT};

use super::{
    Each, For, While,
    machine::{Flow, Machine},
};
use crate::mapping::datum::Datum;

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
    #[inline(never)]
    pub(super) fn each(&mut self, each: &Each) -> Result<Datum> {
        let list = match self.value(&each.list)? {
            Datum::List(list) => list,
            other => {
                let kind = self.engine.map_type_name(other.type_name());
                let call = format!("{} ({kind}, Fn)", each.kind.name());
                return Err(EvalAltResult::ErrorFunctionNotFound(call, each.at).into());
            }
        };
        let mut kept = Vec::new();
        for (number, item) in list.iter().enumerate() {
            self.step()?;
            *self.local(each.item) = item.clone();
            if let Some(place) = each.number {
                *self.local(place) = (number as INT).into();
            }
            let said = self.closure(each)?;
            let holds = matches!(said, Datum::Truth(true));
            match each.kind {
                Kind::Map => kept.push(said),
                Kind::Filter if holds => kept.push(item.clone()),
                Kind::Find if holds => return Ok(item.clone()),
                Kind::Some if holds => return Ok(true.into()),
                Kind::All if !holds => return Ok(false.into()),
                _ => {}
            }
        }
        match each.kind {
            Kind::Filter | Kind::Map => self.bounded(kept.into(), each.at),
            Kind::Find => Ok(Datum::Unit),
            Kind::Some => Ok(false.into()),
            Kind::All => Ok(true.into()),
        }
    }

    fn closure(&mut self, each: &Each) -> Result<Datum> {
        let mark = self.mark();
        match self.block(&each.body) {
            Err(Flow::Return) => {
                self.forget(mark);
                Ok(take(&mut self.last))
            }
            said => said,
        }
    }

    #[inline(never)]
    pub(super) fn while_loop(&mut self, again: &While) -> Result<Datum> {
        let mut first = again.after.is_some();
        loop {
            self.step()?;
            let wanted = again.after.unwrap_or(true);
            if !take(&mut first)
                && let Some(condition) = &again.condition
                && self.is_so(condition)? != wanted
            {
                return Ok(Datum::Unit);
            }
            if let Some(value) = self.round(&again.body)? {
                return Ok(value);
            }
        }
    }

    #[inline(never)]
    pub(super) fn for_loop(&mut self, each: &For) -> Result<Datum> {
        match self.value(&each.over)? {
            Datum::List(list) => self.rounds(each, &mut list.iter().cloned()),
            Datum::Text(text) => self.rounds(each, &mut text.chars().map(|one| Dynamic::from(one).into())),
            Datum::Other(over) => {
                if let Some(range) = over.read_lock::<Range<INT>>().map(|range| range.clone()) {
                    return self.rounds(each, &mut range.map(Datum::Integer));
                }
                if let Some(range) = over.read_lock::<RangeInclusive<INT>>().map(|range| range.clone()) {
                    return self.rounds(each, &mut range.map(Datum::Integer));
                }
                Err(EvalAltResult::ErrorFor(each.at).into())
            }
            _ => Err(EvalAltResult::ErrorFor(each.at).into()),
        }
    }

    fn rounds(&mut self, each: &For, items: &mut dyn Iterator<Item = Datum>) -> Result<Datum> {
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
        Ok(Datum::Unit)
    }

    /// One round of a loop, and its value if it was the last.
    fn round(&mut self, body: &[super::Node]) -> Result<Option<Datum>> {
        let mark = self.mark();
        let value = match self.block(body) {
            Ok(_) => return Ok(None),
            Err(Flow::Continue) => None,
            Err(Flow::Break) => Some(take(&mut self.last)),
            Err(flow) => return Err(flow),
        };
        self.forget(mark);
        Ok(value)
    }
}

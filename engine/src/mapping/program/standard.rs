//! Those of Rhai's functions for texts, lists and maps that mappings call all the time, as Rhai has them.

use std::{mem::take, sync::Arc};

use rhai::{EvalAltResult, INT, Position};
use smol_str::SmolStr;

use crate::mapping::{
    Limits,
    datum::{Datum, List},
    pairs::Map,
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A function that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Contains,
    IsEmpty,
    Len,
    Push,
    StartsWith,
    EndsWith,
    ToLower,
    ToUpper,
    Trim,
    TypeOf,
}

impl Method {
    pub fn named(name: &str, arguments: usize) -> Option<Self> {
        Some(match (name, arguments) {
            ("contains", 2) => Self::Contains,
            ("is_empty", 1) => Self::IsEmpty,
            ("len", 1) => Self::Len,
            ("push", 2) => Self::Push,
            ("starts_with", 2) => Self::StartsWith,
            ("ends_with", 2) => Self::EndsWith,
            ("to_lower", 1) => Self::ToLower,
            ("to_upper", 1) => Self::ToUpper,
            ("trim", 1) => Self::Trim,
            ("type_of", 1) => Self::TypeOf,
            _ => return None,
        })
    }
}

/// What the function gives; nothing when it is not for values of these types. Whoever calls it looks whether the object is
/// still no larger than a value may be.
pub(super) fn call(method: Method, values: &mut [Datum], limits: &Limits) -> Option<Result<Datum>> {
    let (object, arguments) = values.split_first_mut()?;
    match object {
        Datum::Text(text) => of_text(method, text, arguments).map(Ok),
        Datum::List(list) => of_list(method, list, arguments, limits),
        Datum::Map(map) => of_map(method, map, arguments).map(Ok),
        _ => None,
    }
}

fn of_map(method: Method, map: &Map, arguments: &[Datum]) -> Option<Datum> {
    Some(match method {
        Method::Contains => map.get(arguments.first().and_then(Datum::as_text)?).is_some().into(),
        Method::IsEmpty => (map.len() == 0).into(),
        Method::Len => (map.len() as INT).into(),
        _ => return None,
    })
}

fn of_text(method: Method, text: &mut SmolStr, arguments: &[Datum]) -> Option<Datum> {
    let other = || arguments.first().and_then(Datum::as_text);
    Some(match method {
        Method::IsEmpty => text.is_empty().into(),
        Method::Len => (text.chars().count() as INT).into(),
        Method::StartsWith => text.starts_with(other()?.as_str()).into(),
        Method::EndsWith => text.ends_with(other()?.as_str()).into(),
        Method::ToLower => Datum::Text(text.to_lowercase().into()),
        Method::ToUpper => Datum::Text(text.to_uppercase().into()),
        Method::Trim => {
            *text = text.trim().into();
            Datum::Unit
        }
        Method::Contains | Method::Push | Method::TypeOf => return None,
    })
}

fn of_list(
    method: Method,
    list: &mut List,
    arguments: &mut [Datum],
    limits: &Limits,
) -> Option<Result<Datum>> {
    Some(Ok(match method {
        Method::IsEmpty => list.is_empty().into(),
        Method::Len => (list.len() as INT).into(),
        Method::Push => {
            let item = arguments.first_mut()?;
            if list.len() >= limits.items {
                let what = "Size of array/BLOB".to_owned();
                return Some(Err(EvalAltResult::ErrorDataTooLarge(what, Position::NONE).into()));
            }
            Arc::make_mut(list).push(take(item));
            Datum::Unit
        }
        _ => return None,
    }))
}

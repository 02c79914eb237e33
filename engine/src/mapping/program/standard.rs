//! Those of Rhai's functions for texts and lists that mappings call all the time, as Rhai has them.

use rhai::{Array, Dynamic, EvalAltResult, INT, ImmutableString, Position};

use crate::mapping::Limits;

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
            _ => return None,
        })
    }
}

/// What the function gives; nothing when it is not for values of these types.
pub(super) fn call(method: Method, values: &mut [Dynamic], limits: &Limits) -> Option<Result<Dynamic>> {
    let (object, arguments) = values.split_first_mut()?;
    if object.is_string() {
        return of_text(method, &*object.as_immutable_string_ref().ok()?, arguments).map(Ok);
    }
    let mut list = object.as_array_mut().ok()?;
    of_list(method, &mut list, arguments, limits)
}

fn of_text(method: Method, text: &ImmutableString, arguments: &[Dynamic]) -> Option<Dynamic> {
    let other = || arguments.first().and_then(|other| other.as_immutable_string_ref().ok());
    Some(match method {
        Method::IsEmpty => text.is_empty().into(),
        Method::Len => (text.chars().count() as INT).into(),
        Method::StartsWith => text.starts_with(other()?.as_str()).into(),
        Method::EndsWith => text.ends_with(other()?.as_str()).into(),
        Method::ToLower => text.to_lowercase().into(),
        Method::ToUpper => text.to_uppercase().into(),
        Method::Contains | Method::Push => return None,
    })
}

fn of_list(
    method: Method,
    list: &mut Array,
    arguments: &mut [Dynamic],
    limits: &Limits,
) -> Option<Result<Dynamic>> {
    Some(Ok(match method {
        Method::IsEmpty => list.is_empty().into(),
        Method::Len => (list.len() as INT).into(),
        Method::Push => {
            let item = arguments.first_mut()?;
            if item.is_array() || item.is_map() {
                return None; // Rhai counts what is in it
            }
            if list.len() >= limits.items {
                let what = "Size of array/BLOB".to_owned();
                return Some(Err(EvalAltResult::ErrorDataTooLarge(what, Position::NONE).into()));
            }
            list.push(std::mem::take(item));
            Dynamic::UNIT
        }
        _ => return None,
    }))
}

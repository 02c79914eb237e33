//! Values of a message beside texts and each other: a value is compared and joined by the text of its first leaf.

use rhai::EvalAltResult;
use smol_str::SmolStr;

use super::{current::with, handles::NodeHandle, host::Host, values::FieldHandle};
use crate::hl7::Value;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Gives scripts `==`, `!=` and `+` for values, and `==` and `!=` for elements.
pub(super) fn register(host: &mut Host) {
    host.register_fn("==", |value: FieldHandle, text: SmolStr| equal(value, &text))
        .register_fn("!=", |value: FieldHandle, text: SmolStr| {
            Ok::<_, Box<EvalAltResult>>(!equal(value, &text)?)
        })
        .register_fn("==", |text: SmolStr, value: FieldHandle| equal(value, &text))
        .register_fn("!=", |text: SmolStr, value: FieldHandle| {
            Ok::<_, Box<EvalAltResult>>(!equal(value, &text)?)
        })
        .register_fn("==", |one: FieldHandle, other: FieldHandle| same(one, other))
        .register_fn("!=", |one: FieldHandle, other: FieldHandle| {
            Ok::<_, Box<EvalAltResult>>(!same(one, other)?)
        })
        .register_fn("+", |value: FieldHandle, text: SmolStr| -> Result<SmolStr> {
            Ok(joined(&value.text()?, &text))
        })
        .register_fn("+", |text: SmolStr, value: FieldHandle| -> Result<SmolStr> {
            Ok(joined(&text, &value.text()?))
        })
        // Last, for they are compared least.
        .register_fn("==", |one: NodeHandle, other: NodeHandle| one.node() == other.node())
        .register_fn("!=", |one: NodeHandle, other: NodeHandle| one.node() != other.node());
}

/// Two texts as one.
pub(super) fn joined(one: &str, other: &str) -> SmolStr {
    [one, other].concat().into()
}

fn equal(value: FieldHandle, text: &str) -> Result<bool> {
    with(|current| Ok(value.find(current).text().is_some_and(|own| own == text)))
}

fn same(one: FieldHandle, other: FieldHandle) -> Result<bool> {
    with(|current| {
        Ok(match (one.find(current), other.find(current)) {
            (Value::Absent, Value::Absent) | (Value::Null, Value::Null) => true,
            (Value::Present(one), Value::Present(other)) => one.whole() == other.whole(),
            _ => false,
        })
    })
}

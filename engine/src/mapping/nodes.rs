//! Between Rhai's values and FHIR nodes.

use rhai::{Dynamic, EvalAltResult, INT, ImmutableString};

use super::{
    current::with,
    fault::fault,
    handles::{NodeHandle, ResourceHandle},
    values::FieldHandle,
};
use crate::fhir::{Node, Object};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A script's value as a node; a resource as a reference to it; nothing for `()` and for a field without a value.
pub(super) fn node(value: Dynamic) -> Result<Option<Node>> {
    if value.is_unit() {
        return Ok(None);
    }
    if let Some(node) = value.read_lock::<NodeHandle>() {
        return Ok(Some(node.node().clone()));
    }
    if let Some(resource) = value.read_lock::<ResourceHandle>() {
        return resource.reference().map(Some);
    }
    if let Some(field) = value.read_lock::<FieldHandle>() {
        let field = *field;
        return with(|current| {
            Ok(field.find(current).text().map(|text| Node::Text(text.into())).filter(|node| !node.is_empty()))
        });
    }
    if value.is_string() {
        return Ok(value.into_immutable_string().ok().map(|text| Node::text(text.as_str())));
    }
    if value.is_bool() {
        return Ok(value.as_bool().ok().map(Node::Boolean));
    }
    if value.is_int() {
        return Ok(value.as_int().ok().map(Node::Integer));
    }
    if value.is_float() {
        let number = value.as_float().unwrap_or(f64::NAN);
        return if number.is_finite() {
            Ok(Some(Node::Decimal(number.to_string().into())))
        } else {
            Err(fault("this number is not finite"))
        };
    }
    if value.is_array() {
        let items = value.into_array().unwrap_or_default();
        let nodes =
            items.into_iter().filter_map(|item| node(item).transpose()).collect::<Result<Vec<_>>>()?;
        return Ok(Some(Node::Array(nodes)));
    }
    match value.try_cast::<rhai::Map>() {
        Some(map) => {
            let mut object = Object::with_capacity(map.len());
            for (name, value) in map {
                object.put(name.as_str(), node(value)?);
            }
            Ok(Some(Node::Object(object)))
        }
        None => Err(fault("this cannot stand in a resource")),
    }
}

/// A node as a script's value: primitives as Rhai's own, the rest as handles.
pub(super) fn dynamic(node: &Node) -> Dynamic {
    match node {
        Node::Text(text) | Node::Decimal(text) => ImmutableString::from(text.as_str()).into(),
        Node::Integer(number) => Dynamic::from(*number as INT),
        Node::Boolean(truth) => Dynamic::from(*truth),
        Node::Array(nodes) => nodes.iter().map(dynamic).collect::<rhai::Array>().into(),
        Node::Null => Dynamic::UNIT,
        node => NodeHandle::wrap(node.clone()),
    }
}

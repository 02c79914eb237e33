//! Between scripts' values and FHIR nodes.

use rhai::{Dynamic, EvalAltResult, INT};

use super::{current::with, datum::Datum, fault::fault, handles::NodeHandle, reading::ElementHandle};
use crate::fhir::{Node, Object};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A script's value as a node; a resource as a reference to it; nothing for `()` and for a field without a value.
pub(super) fn node(value: impl Into<Datum>) -> Result<Option<Node>> {
    node_of(&value.into())
}

fn node_of(value: &Datum) -> Result<Option<Node>> {
    Ok(match value {
        Datum::Unit => None,
        Datum::Text(text) => Some(Node::Text(text.clone())),
        Datum::Truth(truth) => Some(Node::Boolean(*truth)),
        Datum::Integer(number) => Some(Node::Integer(*number)),
        Datum::Node(node) => Some(node.node().clone()),
        Datum::Resource(resource) => Some(resource.reference()?),
        Datum::Field(field) => with(|current| {
            let text = field.find(current).text();
            Ok(text.map(|text| Node::Text(text.into())).filter(|node| !node.is_empty()))
        })?,
        Datum::List(items) => {
            let nodes = items.iter().filter_map(|item| node_of(item).transpose());
            Some(Node::Array(nodes.collect::<Result<_>>()?))
        }
        Datum::Map(map) => {
            let mut object = Object::with_capacity(map.len());
            for (name, value) in map.iter() {
                object.put(name, node_of(value)?);
            }
            Some(Node::Object(object))
        }
        Datum::Other(other) => Some(node_of_other(other)?),
        Datum::Message(_) | Datum::Segment(_) | Datum::Group(_) | Datum::Bundle(_) | Datum::Plan(_) => {
            return Err(cannot_stand());
        }
    })
}

fn node_of_other(value: &Dynamic) -> Result<Node> {
    if let Some(element) = value.read_lock::<ElementHandle>() {
        return Ok(element.node().clone());
    }
    match value.as_float() {
        Ok(number) if number.is_finite() => Ok(Node::Decimal(number.to_string().into())),
        Ok(_) => Err(fault("this number is not finite")),
        Err(_) => Err(cannot_stand()),
    }
}

fn cannot_stand() -> Box<EvalAltResult> {
    fault("this cannot stand in a resource")
}

/// A node as a script's value: primitives as Rhai's own, the rest as handles.
pub(super) fn datum(node: &Node) -> Datum {
    match node {
        Node::Text(text) | Node::Decimal(text) => text.clone().into(),
        Node::Integer(number) => Datum::Integer(*number as INT),
        Node::Boolean(truth) => Datum::Truth(*truth),
        Node::Array(nodes) => nodes.iter().map(datum).collect(),
        Node::Null => Datum::Unit,
        node => NodeHandle::wrap(node.clone()),
    }
}

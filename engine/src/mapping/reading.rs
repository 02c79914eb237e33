//! What scripts see of a FHIR message: its resources, and what stands in them.
//!
//! What is not there is `()`, at every step: `r.name[0].family` of a resource without a name is `()` and no error. Elements
//! and lists are handles, primitives are Rhai's own values; a decimal is a text that has the digits of the message.

use std::sync::Arc;

use rhai::{EvalAltResult, INT};
use smol_str::SmolStr;

use super::{
    current::{Current, with},
    datum::{Datum, Opaque},
    fault::fault,
    host::Host,
    values::MessageHandle,
};
use crate::{
    fhir::Node,
    incoming::{self, FhirMessage},
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A resource, an element or a list of a FHIR message.
#[derive(Clone)]
pub(super) struct ElementHandle(Arc<Node>);

impl ElementHandle {
    pub fn node(&self) -> &Node {
        &self.0
    }
}

impl Opaque for ElementHandle {}

/// A node as a script's value: primitives as Rhai's own, the rest as a handle; what is empty is nothing.
pub(super) fn value(node: &Node) -> Datum {
    if node.is_empty() {
        return Datum::Unit;
    }
    match node {
        Node::Null => Datum::Unit,
        Node::Text(text) | Node::Decimal(text) => text.clone().into(),
        Node::Integer(number) => Datum::Integer(*number as INT),
        Node::Boolean(truth) => Datum::Truth(*truth),
        Node::Object(_) | Node::Array(_) | Node::Reference(_) => ElementHandle(Arc::new(node.clone())).into(),
    }
}

/// The text of a primitive; empty for anything else.
pub(super) fn text(node: &Node) -> SmolStr {
    match node {
        Node::Text(text) | Node::Decimal(text) => text.clone(),
        Node::Integer(number) => number.to_string().into(),
        Node::Boolean(truth) => truth.to_string().into(),
        Node::Object(_) | Node::Array(_) | Node::Reference(_) | Node::Null => SmolStr::default(),
    }
}

/// Gives scripts FHIR to read.
pub(super) fn register(host: &mut Host) {
    host.register_type_with_name::<ElementHandle>("Received");
    host.register_get("resource", |_: &mut MessageHandle| fhir(|message| Ok(value(message.root()))))
        .register_get("entries", |_: &mut MessageHandle| {
            fhir(|message| Ok(message.resources().map(value).collect::<Datum>()))
        })
        .register_fn("resources", |_: &mut MessageHandle, kind: SmolStr| {
            fhir(|message| {
                let of_kind =
                    |node: &&Node| node.get("resourceType").and_then(Node::as_text) == Some(kind.as_str());
                Ok(message.resources().filter(of_kind).map(value).collect::<Datum>())
            })
        })
        .register_fn("resolve", |_: &mut MessageHandle, reference: ElementHandle| {
            fhir(|message| Ok(resolved(message, None, reference.node())))
        })
        .register_fn("resolve", |_: &mut MessageHandle, reference: SmolStr| {
            fhir(|message| Ok(resolved(message, None, &Node::Text(reference))))
        })
        .register_fn("resolve", |_: &mut MessageHandle, (): ()| ())
        .register_fn("resolve", |resource: &mut ElementHandle, reference: ElementHandle| {
            fhir(|message| Ok(resolved(message, Some(resource.node()), reference.node())))
        })
        .register_fn("resolve", |_: &mut ElementHandle, (): ()| ());
    register_element(host);
    // What is not there has nothing in it, and so on. In a mapping of HL7 v2 this stays the mistake that it is.
    host.register_indexer_get(|(): &mut (), _: SmolStr| nothing(Datum::Unit))
        .register_indexer_get(|(): &mut (), _: INT| nothing(Datum::Unit))
        .register_fn("get", |(): &mut (), _: SmolStr| nothing(Datum::Unit))
        .register_fn("all", |(): &mut (), _: SmolStr| nothing(Vec::new().into()))
        .register_fn("text", |(): &mut (), _: SmolStr| nothing(SmolStr::default().into()))
        .register_fn("has", |(): &mut (), _: SmolStr| nothing(false.into()));
}

fn register_element(host: &mut Host) {
    host.register_indexer_get(|element: &mut ElementHandle, name: SmolStr| {
        let first = incoming::items(element.node()).next();
        first.and_then(|node| node.get(&name)).map(value)
    })
    .register_indexer_get(|element: &mut ElementHandle, place: INT| {
        let place = usize::try_from(place).ok();
        place.and_then(|place| incoming::items(element.node()).nth(place)).map(value)
    })
    .register_fn("get", |element: &mut ElementHandle, path: SmolStr| {
        found(element, &path, |first| first.map(value))
    })
    .register_fn("all", |element: &mut ElementHandle, path: SmolStr| {
        let all = incoming::all(element.node(), &path).map_err(|error| fault(error.to_string()))?;
        Ok::<_, Box<EvalAltResult>>(all.into_iter().map(value).collect::<Datum>())
    })
    .register_fn("text", |element: &mut ElementHandle, path: SmolStr| {
        found(element, &path, |first| first.map(text).unwrap_or_default())
    })
    .register_fn("has", |element: &mut ElementHandle, path: SmolStr| {
        found(element, &path, |first| first.is_some())
    })
    .register_fn("shape", |element: &mut ElementHandle, stem: SmolStr| {
        let shape = incoming::shape(element.node(), &stem);
        SmolStr::from(shape.map(|(kind, _)| kind).unwrap_or_default())
    })
    .register_get("len", |element: &mut ElementHandle| incoming::items(element.node()).count() as INT);
}

fn found<T>(element: &ElementHandle, path: &str, work: impl FnOnce(Option<&Node>) -> T) -> Result<T> {
    let first = incoming::first(element.node(), path).map_err(|error| fault(error.to_string()))?;
    Ok(work(first))
}

fn fhir<T>(work: impl FnOnce(&FhirMessage) -> Result<T>) -> Result<T> {
    with(|current| match current.fhir.clone() {
        Some(message) => work(&message),
        None => Err(fault("this message is HL7 v2, no FHIR: it has segments")),
    })
}

fn nothing(value: Datum) -> Result<Datum> {
    with(|current: &mut Current| match &current.fhir {
        Some(_) => Ok(value),
        None => Err(fault("there is nothing here (`()`) that could be asked for something")),
    })
}

/// What a Reference, or its text, points to: in the resource itself, else in the Bundle.
fn resolved(message: &FhirMessage, within: Option<&Node>, reference: &Node) -> Option<Datum> {
    let literal = match reference {
        Node::Text(literal) => literal.as_str(),
        other => other.get("reference").and_then(Node::as_text).unwrap_or_default(),
    };
    let node = match literal.strip_prefix('#') {
        Some(id) => within.and_then(|resource| resource.get("contained")).and_then(|contained| {
            incoming::items(contained).find(|node| node.get("id").and_then(Node::as_text) == Some(id))
        }),
        None => message.resolve(literal),
    };
    node.map(value)
}

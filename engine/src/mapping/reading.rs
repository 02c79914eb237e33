//! What scripts see of a FHIR message: its resources, and what stands in them.
//!
//! What is not there is `()`, at every step: `r.name[0].family` of a resource without a name is `()` and no error. Elements
//! and lists are handles, primitives are Rhai's own values; a decimal is a text that has the digits of the message.

use std::{collections::BTreeSet, sync::Arc};

use rhai::{EvalAltResult, INT};
use smol_str::SmolStr;

use super::{
    current::{Current, with},
    datum::{Datum, Opaque},
    fault::{Verdict, end, fault},
    host::Host,
    pairs::Map,
    values::MessageHandle,
    wire,
};
use crate::{
    fhir::{Node, types::NHS_NUMBER},
    incoming::{self, FhirMessage, Place},
};

/// The table of the modifier extensions that the mappings take into account.
const UNDERSTOOD: &str = "modifier-extensions";

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A resource, an element or a list of a FHIR message, and the resource that it is in.
#[derive(Clone)]
pub(super) struct ElementHandle {
    node: Arc<Node>,
    place: Place,
}

impl ElementHandle {
    pub fn node(&self) -> &Node {
        &self.node
    }

    pub fn place(&self) -> Place {
        self.place
    }
}

impl Opaque for ElementHandle {}

/// A node as a script's value: primitives as Rhai's own, the rest as a handle; what is empty is nothing.
pub(super) fn value(node: &Node, place: Place) -> Datum {
    if node.is_empty() {
        return Datum::Unit;
    }
    match node {
        Node::Null => Datum::Unit,
        Node::Text(text) | Node::Decimal(text) => text.clone().into(),
        Node::Integer(number) => Datum::Integer(*number as INT),
        Node::Boolean(truth) => Datum::Truth(*truth),
        Node::Object(_) | Node::Array(_) | Node::Reference(_) => {
            ElementHandle { node: Arc::new(node.clone()), place }.into()
        }
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
    host.register_get("resource", |_: &mut MessageHandle| {
        fhir(|message| Ok(value(message.root(), Place::default())))
    })
    .register_get("entries", |_: &mut MessageHandle| {
        fhir(|message| Ok(message.placed().map(|(place, node)| value(node, place)).collect::<Datum>()))
    })
    .register_get("types", |_: &mut MessageHandle| {
        fhir(|message| {
            let types = message.resources().filter_map(|node| node.get("resourceType").map(text));
            Ok(types.collect::<BTreeSet<_>>().into_iter().collect::<Datum>())
        })
    })
    .register_fn("resources", |_: &mut MessageHandle, kind: SmolStr| {
        fhir(|message| {
            let of_kind = |node: &Node| node.get("resourceType").and_then(Node::as_text) == Some(&*kind);
            let found = message.placed().filter(|(_, node)| of_kind(node));
            Ok(found.map(|(place, node)| value(node, place)).collect::<Datum>())
        })
    })
    .register_fn("resolve", |reference: &mut ElementHandle| resolved(reference))
    .register_fn("resolve", |(): &mut ()| ())
    .register_fn("resolve", |(): &mut (), _: SmolStr| ())
    .register_fn("resolve", |said_by: &mut ElementHandle, literal: SmolStr| {
        resolved(&ElementHandle { node: Arc::new(Node::Text(literal)), place: said_by.place })
    })
    .register_fn("kind", |reference: &mut ElementHandle| fhir(|message| Ok(kind(message, reference))))
    .register_fn("kind", |(): &mut ()| SmolStr::default())
    .register_fn("key", |element: &mut ElementHandle| fhir(|message| Ok(key(message, element))))
    .register_fn("key", |(): &mut ()| SmolStr::default());
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
        first.and_then(|node| node.get(&name)).map(|node| value(node, element.place))
    })
    .register_indexer_get(|element: &mut ElementHandle, place: INT| {
        let place = usize::try_from(place).ok();
        let found = place.and_then(|place| incoming::items(element.node()).nth(place));
        found.map(|node| value(node, element.place))
    })
    .register_fn("get", |element: &mut ElementHandle, path: SmolStr| {
        found(element, &path, |first| first.map(|node| value(node, element.place)))
    })
    .register_fn("all", |element: &mut ElementHandle, path: SmolStr| {
        let all = incoming::all(element.node(), &path).map_err(|error| fault(error.to_string()))?;
        let all = all.into_iter().map(|node| value(node, element.place));
        Ok::<_, Box<EvalAltResult>>(all.collect::<Datum>())
    })
    .register_fn("text", |element: &mut ElementHandle, path: SmolStr| {
        found(element, &path, |first| first.map(text).unwrap_or_default())
    })
    .register_fn("has", |element: &mut ElementHandle, path: SmolStr| {
        found(element, &path, |first| first.is_some())
    })
    .register_fn("said", |element: &mut ElementHandle, labels: Arc<Map>| said(element.node(), &labels))
    .register_fn("shape", |element: &mut ElementHandle, stem: SmolStr| {
        let shape = incoming::shape(element.node(), &stem);
        SmolStr::from(shape.map(|(kind, _)| kind).unwrap_or_default())
    })
    .register_get("len", |element: &mut ElementHandle| incoming::items(element.node()).count() as INT);
}

/// What stands at some paths, each with its label before it, in words: `Body site: Left knee`.
fn said(node: &Node, labels: &Map) -> Result<Datum> {
    let mut told: Vec<Datum> = Vec::new();
    for (path, label) in labels.iter() {
        let label = label.as_text().ok_or_else(|| fault("a label is a text"))?;
        for one in incoming::all(node, path.as_str()).map_err(|error| fault(error.to_string()))? {
            let words = wire::words(one);
            if !words.is_empty() {
                told.push(SmolStr::from(format!("{label}: {words}")).into());
            }
        }
    }
    Ok(told.into())
}

fn found<T>(element: &ElementHandle, path: &str, work: impl FnOnce(Option<&Node>) -> T) -> Result<T> {
    let first = incoming::first(element.node(), path).map_err(|error| fault(error.to_string()))?;
    Ok(work(first))
}

pub(super) fn fhir<T>(work: impl FnOnce(&FhirMessage) -> Result<T>) -> Result<T> {
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

/// Refuses what would mean something else if a part of it were passed over, before any of it is told in HL7 v2: when the
/// first message of a run is begun.
pub(super) fn check_understood(current: &Current) -> Result<()> {
    let Some(message) = current.fhir.as_ref().filter(|_| current.drafts.is_empty()) else { return Ok(()) };
    let refused = |why: &str| Err(end(Verdict::Reject(why.to_owned())));
    if message.requests().any(|method| matches!(method, "DELETE" | "PATCH")) {
        return refused(
            "an entry of the Bundle asks for DELETE or PATCH: send the resource as it is now, with its status",
        );
    }
    if message.header().is_some_and(|header| header.get("response").is_some()) {
        return refused("the message is an answer (MessageHeader.response), nothing that has happened");
    }
    if has(message.root(), &|name, value| name == "implicitRules" && !value.is_empty()) {
        return refused("the message has rules of its own (implicitRules), which may change what it means");
    }
    let known = current.tables.get(UNDERSTOOD);
    let unknown = |one: &Node| {
        let url = one.get("url").and_then(Node::as_text).unwrap_or_default();
        known.is_none_or(|table| table.get(url).is_none())
    };
    if has(message.root(), &|name, value| name == "modifierExtension" && incoming::items(value).any(unknown))
    {
        return refused(
            "the message has a modifierExtension that changes what it means and is not in the table modifier-extensions",
        );
    }
    Ok(())
}

/// Whether any object of the tree has a member of which this is true.
fn has(node: &Node, is_so: &dyn Fn(&str, &Node) -> bool) -> bool {
    match node {
        Node::Object(object) => object.iter().any(|(name, value)| is_so(name, value) || has(value, is_so)),
        Node::Array(items) => items.iter().any(|item| has(item, is_so)),
        _ => false,
    }
}

/// What a Reference, or its text, points to in the message.
fn resolved(reference: &ElementHandle) -> Result<Option<Datum>> {
    fhir(|message| {
        let found = message.resolve(reference.place, literal(reference.node()));
        Ok(found.map(|(place, node)| value(node, place)))
    })
}

pub(super) fn literal(reference: &Node) -> &str {
    reference.as_text().or_else(|| reference.get("reference")?.as_text()).unwrap_or_default()
}

/// The type of what a Reference means: by the message, by itself, or by its identifier; empty where none of them says it.
fn kind(message: &FhirMessage, reference: &ElementHandle) -> SmolStr {
    let node = reference.node();
    let at = |path| incoming::first(node, path).ok().flatten().map(text).filter(|text| !text.is_empty());
    let literal = literal(node);
    if let Some((_, found)) = message.resolve(reference.place, literal) {
        return found.get("resourceType").map(text).unwrap_or_default();
    }
    if let Some(said) = at("type") {
        return said;
    }
    if at("identifier.system").is_some_and(|system| system == NHS_NUMBER) {
        return "Patient".into();
    }
    // `Patient/1`, or `Patient?identifier=…` of a conditional reference.
    let plain = literal.split_once("/_history/").map_or(literal, |(plain, _)| plain);
    let (path, steps_back) = plain.split_once('?').map_or((plain, 1), |(path, _)| (path, 0));
    let step = path.rsplit('/').nth(steps_back).unwrap_or_default();
    step.into()
}

/// What tells a resource, or what a Reference means, from all others of the message.
fn key(message: &FhirMessage, element: &ElementHandle) -> SmolStr {
    let node = element.node();
    let place = match node.get("resourceType") {
        Some(_) => Some(element.place),
        None => message.resolve(element.place, literal(node)).map(|(place, _)| place),
    };
    let Some(Place { entry, contained }) = place else {
        let said = |path| incoming::first(node, path).ok().flatten().map(text).unwrap_or_default();
        let by = ["identifier.system", "identifier.value", "display"].map(said);
        return format!("{}|{}", literal(node), by.join("|")).into();
    };
    format!("#{entry}{}", contained.map(|number| format!("#{number}")).unwrap_or_default()).into()
}

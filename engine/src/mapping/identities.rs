//! What resources are kept under: a system and a value, which make their ids.

use rhai::EvalAltResult;
use smol_str::SmolStr;

use super::{
    datum::Datum,
    fault::fault,
    handles::{NodeHandle, text},
    host::Host,
    nodes::{datum, node},
    plan::Plan,
};
use crate::fhir::{
    self, Name, Node, Object, Target,
    elements::{Type, type_named},
    name::name,
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Identities, of which the last argument is a text, a value of the message or a number.
pub(super) fn register(host: &mut Host) {
    host.register_fn("reference", |kind: SmolStr, system: SmolStr, value: Datum| {
        let (found, value) = (resource_named(&kind)?, text(value)?);
        let id = id_of(found, &system, &value)?;
        let identifier = Some(SmolStr::from(format!("{system}|{value}")));
        let target = Target { resource_type: found.name.into(), id, identifier };
        Ok::<_, Box<EvalAltResult>>(NodeHandle::wrap(Node::reference(Some(target), None)))
    })
    .register_fn("id", |kind: SmolStr, system: SmolStr, value: Datum| {
        let id = id_of(resource_named(&kind)?, &system, &text(value)?)?;
        Ok::<_, Box<EvalAltResult>>(SmolStr::from(id.to_string()))
    });
}

/// The first identifier that says both what it is and in which system.
pub(super) fn first_identifier(elements: &Object) -> Option<(&str, &str)> {
    let nodes = match elements.get("identifier")? {
        Node::Array(nodes) => nodes.as_slice(),
        node => std::slice::from_ref(node),
    };
    nodes.iter().find_map(|node| Some((node.get("system")?.as_text()?, node.get("value")?.as_text()?)))
}

/// What to say where a map gave none.
pub(super) fn no_identifier(plan: &Plan) -> String {
    match plan.fields_of("identifier").as_slice() {
        [] => format!(
            "this map gives a {} no identifier: give `put` a key, or a system and a value",
            plan.target.name
        ),
        fields => format!("{} has no identifier, and a {} needs one", fields.join(" and "), plan.target.name),
    }
}

/// The system and value of a key: an identifier, or a map of them.
pub(super) fn key_of(key: Datum) -> Result<(SmolStr, SmolStr)> {
    let of = |part: &dyn Fn(&Name) -> Datum| Ok((text(part(name!("system")))?, text(part(name!("value")))?));
    if let Datum::Map(map) = &key {
        return of(&|name| map.at(name).cloned().unwrap_or_default());
    }
    let of_node = |node: &Node| of(&|name| node.at(name).map_or(Datum::Unit, datum));
    match key {
        Datum::Node(node) => of_node(node.node()),
        other => match node(other) {
            Ok(Some(node @ Node::Object(_))) => of_node(&node),
            _ => Err(fault(
                "what a resource is kept under is an identifier, or a map with `system` and `value`",
            )),
        },
    }
}

/// The id of a resource that is kept under these.
pub(super) fn id_of(resource_type: &Type, system: &str, value: &str) -> Result<uuid::Uuid> {
    if system.is_empty() || value.is_empty() {
        return Err(fault(format!(
            "the identity of a {} needs a system and a value; one is empty",
            resource_type.name
        )));
    }
    Ok(fhir::id(resource_type.name, system, value))
}

pub(super) fn resource_named(name: &str) -> Result<&'static Type> {
    type_named(name).filter(|found| found.is_resource).ok_or_else(|| fault("FHIR R4 has no such resource"))
}

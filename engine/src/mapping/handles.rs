//! What scripts build: bundles, resources and pieces of them; and how they end.

use std::sync::Arc;

use rhai::{EvalAltResult, INT};
use smol_str::SmolStr;

use super::{
    current::{Current, element, with},
    datum::{Datum, List},
    fault::{Verdict, end, fault},
    host::Host,
    identities::{self, first_identifier, id_of, key_of, no_identifier, resource_named},
    nodes::{datum, node},
    pairs::Map,
    plan::{Place, Plan},
    values::SegmentHandle,
};
use crate::fhir::{
    self, Bundle, Node, Object, Resource,
    elements::{Fault, Type},
    types::{self, Finding},
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// What no message removes: what a resource is, and how it is to be read.
const KEPT: [&str; 3] = ["id", "meta", "implicitRules"];

/// A plan that a constant of the script holds.
pub(super) type PlanHandle = Arc<Plan>;

/// A bundle of the run.
#[derive(Clone, Copy)]
pub(super) struct BundleHandle {
    pub bundle: usize,
}

/// A resource in a bundle of the run.
#[derive(Clone, Copy)]
pub(super) struct ResourceHandle {
    bundle: u32,
    place: u32,
    resource_type: &'static Type,
}

/// A piece of a resource that is not in one yet.
#[derive(Clone)]
pub(super) struct NodeHandle(Arc<Node>);

impl NodeHandle {
    pub fn wrap(node: Node) -> Datum {
        match node {
            Node::Object(_) | Node::Reference(_) => Self(Arc::new(node)).into(),
            node => datum(&node),
        }
    }

    pub fn node(&self) -> &Node {
        &self.0
    }
}

impl ResourceHandle {
    fn change<T>(self, work: impl FnOnce(&mut Object) -> Result<T>) -> Result<T> {
        with(|current| match self.find_mut(current) {
            Some(resource) => work(&mut resource.elements),
            None => Err(fault("this resource is gone")),
        })
    }

    /// The resource, unless its run is over.
    pub fn find(self, current: &Current) -> Option<&Resource> {
        current.bundles.get(self.bundle as usize)?.resources().get(self.place as usize)
    }

    fn find_mut(self, current: &mut Current) -> Option<&mut Resource> {
        current.bundles.get_mut(self.bundle as usize)?.resources_mut().get_mut(self.place as usize)
    }

    /// A reference to it.
    pub fn reference(self) -> Result<Node> {
        self.look(|resource| Node::reference(Some(resource.target()), None))
    }

    fn look<T>(self, work: impl FnOnce(&Resource) -> T) -> Result<T> {
        with(|current| match self.find(current) {
            Some(resource) => Ok(work(resource)),
            None => Err(fault("this resource is gone")),
        })
    }
}

/// Gives scripts what they build with.
pub(super) fn register(host: &mut Host) {
    host.register_type_with_name::<PlanHandle>("SegmentMap");
    host.register_type_with_name::<BundleHandle>("Bundle");
    host.register_type_with_name::<ResourceHandle>("Resource");
    host.register_type_with_name::<NodeHandle>("Element");
    register_bundle(host);
    register_resource(host);
    register_removals(host);
    register_values(host);
    identities::register(host);
    register_keyed(host);
    register_node(host);
    register_endings(host);
}

fn register_bundle(host: &mut Host) {
    host.register_fn("bundle", || {
        with(|current| {
            current.bundles.push(Bundle::default());
            Ok(BundleHandle { bundle: current.bundles.len() - 1 })
        })
    })
    .register_fn("put", |out: &mut BundleHandle, plan: PlanHandle, segment: SegmentHandle| {
        put_plan(*out, &plan, segment, None)
    })
    .register_fn("put", |out: &mut BundleHandle, plans: List, segment: SegmentHandle| {
        put_all(*out, &plans, segment, None)
    })
    .register_fn("build", |out: &mut BundleHandle, plan: PlanHandle, segment: SegmentHandle| {
        with(|current| {
            let object = apply(current, *out, &plan, segment)?;
            Ok(Node::Object(object).some().map(NodeHandle::wrap))
        })
    })
    .register_get("len", |out: &mut BundleHandle| {
        with(|current| {
            Ok(current.bundles.get(out.bundle).map_or(0, |bundle| bundle.resources().len() as INT))
        })
    });
}

/// What takes a value of any type.
fn register_values(host: &mut Host) {
    host.register_fn("set", |resource: &mut ResourceHandle, at: SmolStr, value: Datum| {
        change(*resource, &at, value, fhir::Path::set)
    })
    .register_fn("add", |resource: &mut ResourceHandle, at: SmolStr, value: Datum| {
        change(*resource, &at, value, fhir::Path::add)
    })
    .register_fn("with", |own: &mut NodeHandle, name: SmolStr, value: Datum| -> Result<Datum> {
        let mut changed = own.node().clone();
        if let Node::Object(object) = &mut changed {
            object.put(name.as_str(), node(value)?);
        }
        Ok(NodeHandle::wrap(changed))
    });
}

/// Resources under a key, or under a system and a text, a value of the message or a number.
fn register_keyed(host: &mut Host) {
    host.register_fn("put", |out: &mut BundleHandle, kind: SmolStr, key: Datum| {
        let (system, value) = key_of(key)?;
        put_new(*out, &kind, &system, &value)
    })
    .register_fn("put", |out: &mut BundleHandle, kind: SmolStr, system: SmolStr, value: Datum| {
        put_new(*out, &kind, &system, &text(value)?)
    })
    .register_fn("put", |out: &mut BundleHandle, plan: PlanHandle, segment: SegmentHandle, key: Datum| {
        let (system, value) = key_of(key)?;
        put_plan(*out, &plan, segment, Some((&system, &value)))
    })
    .register_fn("put", |out: &mut BundleHandle, plans: List, segment: SegmentHandle, key: Datum| {
        let (system, value) = key_of(key)?;
        put_all(*out, &plans, segment, Some((&system, &value)))
    })
    .register_fn(
        "put",
        |out: &mut BundleHandle, plan: PlanHandle, segment: SegmentHandle, system: SmolStr, value: Datum| {
            put_plan(*out, &plan, segment, Some((&system, &text(value)?)))
        },
    );
}

fn register_resource(host: &mut Host) {
    host.register_fn("get", |resource: &mut ResourceHandle, at: SmolStr| {
        let path = element(resource.resource_type.name, &at)?;
        resource.look(|resource| path.get(&resource.elements).map(datum))
    })
    .register_fn("has", |resource: &mut ResourceHandle, at: SmolStr| {
        let path = element(resource.resource_type.name, &at)?;
        resource.look(|resource| path.get(&resource.elements).is_some_and(|node| !node.is_empty()))
    })
    .register_fn("remove", |resource: &mut ResourceHandle, name: SmolStr| {
        resource.resource_type.element(&name).ok_or_else(|| fault(resource.resource_type.unknown(&name)))?;
        resource.change(|elements| {
            elements.remove(&name);
            Ok(())
        })
    })
    .register_fn("fill", |resource: &mut ResourceHandle, plan: PlanHandle, segment: SegmentHandle| {
        fill(*resource, &plan, segment, None)
    })
    .register_fn("fill", |resource: &mut ResourceHandle, plans: List, segment: SegmentHandle| {
        fill_all(*resource, &plans, segment, None)
    })
    .register_fn(
        "fill",
        |resource: &mut ResourceHandle, plans: List, segment: SegmentHandle, besides: Arc<Map>| {
            fill_all(*resource, &plans, segment, besides_of(besides)?.as_ref())
        },
    )
    .register_fn(
        "fill",
        |resource: &mut ResourceHandle, plan: PlanHandle, segment: SegmentHandle, besides: Arc<Map>| {
            fill(*resource, &plan, segment, besides_of(besides)?.as_ref())
        },
    )
    .register_fn("complete", |resource: &mut ResourceHandle, more: NodeHandle| {
        resource.change(|elements| {
            if let Node::Object(more) = more.node() {
                elements.complete(more);
            }
            Ok(())
        })?;
        Ok::<_, Box<EvalAltResult>>(*resource)
    })
    .register_fn("reference", |resource: &mut ResourceHandle, display: Datum| {
        let display = node(display)?;
        resource.look(|resource| NodeHandle::wrap(Node::reference(Some(resource.target()), display)))
    })
    .register_get("id", |resource: &mut ResourceHandle| {
        resource.look(|resource| SmolStr::from(resource.id.to_string()))
    })
    .register_get("type", |resource: &mut ResourceHandle| SmolStr::from(resource.resource_type.name));
}

/// What the sender removed, for destinations that keep what a message leaves out.
fn register_removals(host: &mut Host) {
    host.register_fn("clear", |resource: &mut ResourceHandle, at: SmolStr| {
        let path = element(resource.resource_type.name, &at)?;
        resource.change(|elements| {
            path.clear(elements).map_err(|found| fault(format!("`{}` {}", path.last(), found.what)))
        })
    })
    .register_fn("clear", |resource: &mut ResourceHandle| {
        let own = resource.resource_type.elements().iter().map(|element| element.name);
        let own = own.filter(|name| !KEPT.contains(name));
        resource.change(|elements| {
            for name in own {
                if elements.get(name).is_none_or(Node::is_empty) {
                    elements.put(name, Some(Node::Null));
                }
            }
            Ok(())
        })
    });
}

fn register_node(host: &mut Host) {
    host.register_fn("nth", |text: SmolStr| {
        with(|current| {
            let count = current.counts.entry(text).or_default();
            *count += 1;
            Ok(*count as INT)
        })
    })
    .register_fn("element", |map: Arc<Map>| -> Result<Option<NodeHandle>> {
        Ok(node(map)?.map(|node| NodeHandle(Arc::new(node))))
    })
    .register_fn("range", |low: NodeHandle, high: NodeHandle| {
        types::range(Some(low.node().clone()), Some(high.node().clone())).map(NodeHandle::wrap)
    })
    .register_indexer_get(|own: &mut NodeHandle, name: SmolStr| own.0.get(&name).map(datum));
}

fn register_endings(host: &mut Host) {
    let ending = |verdict: fn(String) -> Verdict| {
        move |reason: SmolStr| -> Result<Datum> { Err(end(verdict(withheld_unless_literal(&reason)))) }
    };
    host.register_fn("skip", ending(Verdict::Skip))
        .register_fn("hold", ending(Verdict::Hold))
        .register_fn("reject", ending(Verdict::Reject))
        .register_fn("fail", |reason: SmolStr| -> Result<Datum> {
            Err(fault(withheld_unless_literal(&reason)))
        })
        .register_fn("warn", |reason: SmolStr| {
            with(|current| {
                let remark = Finding::Remark(shown(current, &reason).into());
                let mut findings = current.findings.borrow_mut();
                // Once a message is enough.
                if !findings.contains(&remark) {
                    findings.push(remark);
                }
                Ok(())
            })
        });
}

/// Reasons are shown in logs and pages, so only text that stands in a script may be one.
fn withheld_unless_literal(reason: &str) -> String {
    with(|current| Ok(shown(current, reason))).unwrap_or_default()
}

fn shown(current: &Current, reason: &str) -> String {
    if current.words.literals.contains(reason) {
        reason.to_owned()
    } else {
        "the mapping gave a reason that it put together at run time (withheld: it may hold patient data)"
            .to_owned()
    }
}

#[inline(never)]
fn put_plan(
    out: BundleHandle,
    plan: &PlanHandle,
    segment: SegmentHandle,
    identity: Option<(&str, &str)>,
) -> Result<ResourceHandle> {
    if !plan.target.is_resource {
        return Err(fault(format!("{} is no resource: use `build`", plan.target.name)));
    }
    with(|current| {
        if segment.find(current).is_none() {
            return Err(fault(format!("the message has no {} segment", plan.segment)));
        }
        let elements = apply(current, out, plan, segment)?;
        let (system, value) = match identity {
            Some(identity) => identity,
            None => first_identifier(&elements).ok_or_else(|| fault(no_identifier(plan)))?,
        };
        let id = id_of(plan.target, system, value)?;
        let resource = Resource { resource_type: plan.target.name.into(), id, elements };
        put(current, out, plan.target, resource)
    })
}

fn put_new(out: BundleHandle, resource_type: &str, system: &str, value: &str) -> Result<ResourceHandle> {
    let found = resource_named(resource_type)?;
    let id = id_of(found, system, value)?;
    let resource = Resource { resource_type: found.name.into(), id, elements: Object::new() };
    with(|current| put(current, out, found, resource))
}

/// Puts a resource that native code made.
pub(super) fn put_resource(
    current: &mut Current,
    out: BundleHandle,
    resource: Resource,
) -> Result<ResourceHandle> {
    put(current, out, resource_named(&resource.resource_type)?, resource)
}

fn put(
    current: &mut Current,
    out: BundleHandle,
    resource_type: &'static Type,
    resource: Resource,
) -> Result<ResourceHandle> {
    match current.bundles.get_mut(out.bundle) {
        Some(bundle) => match (u32::try_from(out.bundle), u32::try_from(bundle.put(resource))) {
            (Ok(bundle), Ok(place)) => Ok(ResourceHandle { bundle, place, resource_type }),
            _ => Err(fault("there are too many resources")),
        },
        None => Err(fault("this bundle is gone")),
    }
}

#[inline(never)]
fn fill(
    resource: ResourceHandle,
    plan: &PlanHandle,
    segment: SegmentHandle,
    besides: Option<&Object>,
) -> Result<()> {
    if plan.target.name != resource.resource_type.name && plan.target.name != "Resource" {
        return Err(fault(format!(
            "this map fills {}, not {}",
            plan.target.name, resource.resource_type.name
        )));
    }
    with(|current| {
        check_segment(plan, segment)?;
        let message = current.message.clone();
        let Some(found) = segment.find(current).and_then(|segment| message.segment_at(segment.index()))
        else {
            return Ok(());
        };
        if !plan.is_told(found, &current.coverage) {
            return Ok(());
        }
        let own = |current: &mut Current, work: &mut dyn FnMut(&mut Object)| {
            let found = resource.find_mut(current);
            found.map(|found| work(&mut found.elements)).ok_or_else(|| fault("this resource is gone"))
        };
        let mut elements = Object::new();
        own(current, &mut |own| elements = std::mem::take(own))?;
        plan.apply(found, current, &Place { bundle: resource.bundle as usize, with: besides }, &mut elements);
        // A row may have named this very resource, and put more of it into the bundle meanwhile.
        own(current, &mut |own| {
            let named = std::mem::replace(own, std::mem::take(&mut elements));
            own.complete(&named);
        })
    })
}

/// Puts a resource that several maps make, one after the other.
fn put_all(
    out: BundleHandle,
    plans: &[Datum],
    segment: SegmentHandle,
    identity: Option<(&str, &str)>,
) -> Result<ResourceHandle> {
    let (first, more) = plans.split_first().ok_or_else(|| fault("there is no map in this list"))?;
    let resource = put_plan(out, plan(first)?, segment, identity)?;
    fill_all(resource, more, segment, None).map(|()| resource)
}

fn fill_all(
    resource: ResourceHandle,
    plans: &[Datum],
    segment: SegmentHandle,
    besides: Option<&Object>,
) -> Result<()> {
    plans.iter().try_for_each(|one| fill(resource, plan(one)?, segment, besides))
}

/// What is set beside each value.
fn besides_of(map: Arc<Map>) -> Result<Option<Object>> {
    Ok(node(map)?.and_then(|node| match node {
        Node::Object(object) => Some(object),
        _ => None,
    }))
}

fn plan(value: &Datum) -> Result<&PlanHandle> {
    match value {
        Datum::Plan(plan) => Ok(plan),
        _ => Err(fault("a list of segment maps is needed here")),
    }
}

fn apply(
    current: &mut Current,
    out: BundleHandle,
    plan: &PlanHandle,
    segment: SegmentHandle,
) -> Result<Object> {
    check_segment(plan, segment)?;
    let message = current.message.clone();
    let mut elements = Object::with_capacity(12);
    if let Some(segment) = segment.find(current).and_then(|segment| message.segment_at(segment.index())) {
        plan.apply(segment, current, &Place { bundle: out.bundle, with: None }, &mut elements);
    }
    Ok(elements)
}

fn check_segment(plan: &Plan, segment: SegmentHandle) -> Result<()> {
    if segment.is(&plan.segment) {
        return Ok(());
    }
    Err(fault(format!("this map reads {}, not {}", plan.segment, segment.name())))
}

#[inline(never)]
fn change(
    resource: ResourceHandle,
    at: &str,
    value: Datum,
    how: fn(&fhir::Path, &mut Object, Node) -> std::result::Result<(), Fault>,
) -> Result<()> {
    let path = element(resource.resource_type.name, at)?;
    let Some(value) = node(value)? else { return Ok(()) };
    let value = path.element().shaped(value);
    resource.change(|elements| {
        how(&path, elements, value).map_err(|found| {
            let below = if found.path.is_empty() { String::new() } else { format!(" at `{}`", found.path) };
            fault(format!("`{}`{below} {}", path.last(), found.what))
        })
    })
}

/// The text of a string, a number or a field.
pub(super) fn text(value: Datum) -> Result<SmolStr> {
    match value {
        Datum::Text(text) => Ok(text),
        Datum::Field(field) => field.text(),
        other => match node(other)? {
            Some(Node::Text(text) | Node::Decimal(text)) => Ok(text.clone()),
            Some(Node::Integer(number)) => Ok(number.to_string().into()),
            None => Ok(SmolStr::default()),
            Some(_) => Err(fault("a text is needed here")),
        },
    }
}

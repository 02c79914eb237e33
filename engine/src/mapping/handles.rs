//! What scripts build: bundles, resources, nodes; and the tables they look codes up in.

use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, INT, ImmutableString};
use smol_str::SmolStr;

use super::{
    current::{Current, element, with},
    fault::{Verdict, end, fault},
    nodes::{dynamic, node},
    plan::Plan,
    values::{FieldHandle, SegmentHandle},
};
use crate::fhir::{
    self, Bundle, Node, Object, Resource, Target,
    elements::{Fault, Type, type_named},
    types::{
        Finding,
        resources::{self, Named},
    },
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

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
    pub bundle: usize,
    pub place: usize,
    resource_type: &'static Type,
}

/// A piece of a resource that is not in one yet.
#[derive(Clone)]
pub(super) struct NodeHandle(Arc<Node>);

/// A table of the revision, by name.
#[derive(Clone)]
struct TableHandle(ImmutableString);

/// What a table says of a code.
#[derive(Clone)]
struct RowHandle {
    table: ImmutableString,
    row: Arc<fhir::Row>,
}

impl NodeHandle {
    pub fn wrap(node: Node) -> Dynamic {
        match node {
            Node::Object(_) | Node::Reference(_) => Dynamic::from(Self(Arc::new(node))),
            node => dynamic(&node),
        }
    }

    pub fn node(&self) -> &Node {
        &self.0
    }
}

impl ResourceHandle {
    fn change<T>(self, work: impl FnOnce(&mut Object) -> Result<T>) -> Result<T> {
        with(|current| {
            match current.bundles.get_mut(self.bundle).and_then(|bundle| bundle.resource_mut(self.place)) {
                Some(resource) => work(&mut resource.elements),
                None => Err(fault("this resource is gone")),
            }
        })
    }

    fn look<T>(self, work: impl FnOnce(&Resource) -> T) -> Result<T> {
        with(|current| {
            match current.bundles.get(self.bundle).and_then(|bundle| bundle.resource(self.place)) {
                Some(resource) => Ok(work(resource)),
                None => Err(fault("this resource is gone")),
            }
        })
    }
}

/// Gives scripts what they build with.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<PlanHandle>("SegmentMap");
    engine.register_type_with_name::<BundleHandle>("Bundle");
    engine.register_type_with_name::<ResourceHandle>("Resource");
    engine.register_type_with_name::<NodeHandle>("Element");
    engine.register_type_with_name::<TableHandle>("Table");
    engine.register_type_with_name::<RowHandle>("Row");
    register_bundle(engine);
    register_named(engine);
    register_resource(engine);
    register_node(engine);
    register_table(engine);
    register_endings(engine);
}

fn register_bundle(engine: &mut Engine) {
    engine
        .register_fn("bundle", || {
            with(|current| {
                current.bundles.push(Bundle::new());
                Ok(BundleHandle { bundle: current.bundles.len() - 1 })
            })
        })
        .register_fn("put", |out: &mut BundleHandle, plan: PlanHandle, segment: SegmentHandle| {
            put_plan(*out, &plan, segment, None)
        })
        .register_fn(
            "put",
            |out: &mut BundleHandle,
             plan: PlanHandle,
             segment: SegmentHandle,
             system: Dynamic,
             value: Dynamic| {
                let identity = Some((text(system)?, text(value)?));
                put_plan(*out, &plan, segment, identity)
            },
        )
        .register_fn(
            "put",
            |out: &mut BundleHandle, resource_type: ImmutableString, system: Dynamic, value: Dynamic| {
                put_new(*out, &resource_type, &text(system)?, &text(value)?)
            },
        )
        .register_get("len", |out: &mut BundleHandle| {
            with(|current| {
                Ok(current.bundles.get(out.bundle).map_or(0, |bundle| bundle.resources().len() as INT))
            })
        });
}

/// Puts what a field names into the bundle, and gives references to it.
fn register_named(engine: &mut Engine) {
    engine
        .register_fn("refer", |out: &mut BundleHandle, data_type: ImmutableString, value: FieldHandle| {
            let mut found = refer(*out, &data_type, &[value])?;
            Ok::<_, Box<EvalAltResult>>(found.pop().unwrap_or(Dynamic::UNIT))
        })
        .register_fn(
            "refer_all",
            |out: &mut BundleHandle, data_type: ImmutableString, values: rhai::Array| {
                let values: Vec<FieldHandle> = values.into_iter().filter_map(Dynamic::try_cast).collect();
                refer(*out, &data_type, &values)
            },
        );
}

fn refer(out: BundleHandle, data_type: &str, values: &[FieldHandle]) -> Result<rhai::Array> {
    with(|current| {
        let parts: Vec<_> = values.iter().filter_map(|value| value.find(current).part()).collect();
        let Some(found) = resources::named(data_type, &parts, &current.cx(None)) else {
            return Err(fault("this data type names no resource: XCN, XON, HD and PL do"));
        };
        let Some(bundle) = current.bundles.get_mut(out.bundle) else {
            return Err(fault("this bundle is gone"));
        };
        let references = found.into_iter().map(|Named { resources, display }| {
            let display = display.map(Node::Text);
            let target = resources.last().map(Resource::target);
            for resource in resources {
                bundle.put(resource);
            }
            NodeHandle::wrap(match target {
                Some(target) => reference(target, display),
                None => Node::object([("display", display)]),
            })
        });
        Ok(references.collect())
    })
}

fn register_resource(engine: &mut Engine) {
    engine
        .register_fn("set", |resource: &mut ResourceHandle, at: ImmutableString, value: Dynamic| {
            change(*resource, &at, value, fhir::Path::set)
        })
        .register_fn("add", |resource: &mut ResourceHandle, at: ImmutableString, value: Dynamic| {
            change(*resource, &at, value, fhir::Path::add)
        })
        .register_fn("get", |resource: &mut ResourceHandle, at: ImmutableString| {
            let path = element(resource.resource_type.name, &at)?;
            resource.look(|resource| path.get(&resource.elements).map_or(Dynamic::UNIT, dynamic))
        })
        .register_fn("has", |resource: &mut ResourceHandle, at: ImmutableString| {
            let path = element(resource.resource_type.name, &at)?;
            resource.look(|resource| path.get(&resource.elements).is_some_and(|node| !node.is_empty()))
        })
        .register_fn("remove", |resource: &mut ResourceHandle, name: ImmutableString| {
            resource
                .resource_type
                .element(&name)
                .ok_or_else(|| fault(resource.resource_type.unknown(&name)))?;
            resource.change(|elements| {
                elements.remove(&name);
                Ok(())
            })
        })
        .register_fn("fill", |resource: &mut ResourceHandle, plan: PlanHandle, segment: SegmentHandle| {
            fill(*resource, &plan, segment)
        })
        .register_fn("reference", |resource: &mut ResourceHandle| {
            resource.look(|resource| NodeHandle::wrap(reference(resource.target(), None)))
        })
        .register_fn("reference", |resource: &mut ResourceHandle, display: Dynamic| {
            let display = node(display)?;
            resource.look(|resource| NodeHandle::wrap(reference(resource.target(), display)))
        })
        .register_get("id", |resource: &mut ResourceHandle| {
            resource.look(|resource| ImmutableString::from(resource.id.to_string()))
        })
        .register_get("type", |resource: &mut ResourceHandle| {
            ImmutableString::from(resource.resource_type.name)
        });
}

fn register_node(engine: &mut Engine) {
    engine
        .register_fn("build", |plan: PlanHandle, segment: SegmentHandle| {
            with(|current| {
                let object = apply(current, &plan, segment)?;
                Ok(Node::Object(object).some().map_or(Dynamic::UNIT, NodeHandle::wrap))
            })
        })
        .register_fn("reference", |resource_type: ImmutableString, system: Dynamic, value: Dynamic| {
            let (system, value) = (text(system)?, text(value)?);
            let found = resource_named(&resource_type)?;
            let id = identity(found, &system, &value)?;
            let identifier = Some(SmolStr::from(format!("{system}|{value}")));
            Ok::<_, Box<EvalAltResult>>(NodeHandle::wrap(reference(
                Target { resource_type: found.name.into(), id, identifier },
                None,
            )))
        })
        .register_fn("id", |resource_type: ImmutableString, system: Dynamic, value: Dynamic| {
            let id = identity(resource_named(&resource_type)?, &text(system)?, &text(value)?)?;
            Ok::<_, Box<EvalAltResult>>(ImmutableString::from(id.to_string()))
        })
        .register_indexer_get(|own: &mut NodeHandle, name: ImmutableString| {
            own.0.get(&name).map_or(Dynamic::UNIT, dynamic)
        })
        .register_fn("with", |own: NodeHandle, name: ImmutableString, value: Dynamic| -> Result<Dynamic> {
            let mut changed = Arc::unwrap_or_clone(own.0);
            if let Node::Object(object) = &mut changed {
                object.put(name.as_str(), node(value)?);
            }
            Ok(NodeHandle::wrap(changed))
        });
}

fn register_table(engine: &mut Engine) {
    engine
        .register_fn("table", |name: ImmutableString| {
            with(|current| match current.tables.get(&name) {
                Some(_) => Ok(TableHandle(name)),
                None => Err(fault("there is no such table")),
            })
        })
        .register_fn("get", |table: &mut TableHandle, code: Dynamic| row(table, &text(code)?, true))
        .register_fn("has", |table: &mut TableHandle, code: Dynamic| -> Result<bool> {
            Ok(!row(table, &text(code)?, false)?.is_unit())
        })
        .register_indexer_get(|table: &mut TableHandle, code: Dynamic| row(table, &text(code)?, true))
        .register_get("code", |row: &mut RowHandle| cell(row.row.code()))
        .register_get("system", |row: &mut RowHandle| cell(row.row.system()))
        .register_get("display", |row: &mut RowHandle| cell(row.row.display()))
        .register_indexer_get(|row: &mut RowHandle, column: ImmutableString| {
            with(|current| match current.tables.get(&row.table) {
                Some(table) if table.columns().any(|heading| heading == column.as_str()) => {
                    Ok(cell(table.cell(&row.row, &column)))
                }
                _ => Err(fault("the table has no such column")),
            })
        })
        .register_fn("coding", |row: &mut RowHandle| {
            let part = |cell: Option<&SmolStr>| cell.cloned().map(Node::Text);
            let row = &row.row;
            NodeHandle::wrap(Node::object([
                ("system", part(row.system())),
                ("code", part(row.code())),
                ("display", part(row.display())),
            ]))
        });
}

fn register_endings(engine: &mut Engine) {
    let ending = |verdict: fn(String) -> Verdict| {
        move |reason: ImmutableString| -> Result<Dynamic> {
            Err(end(verdict(withheld_unless_literal(&reason))))
        }
    };
    engine
        .register_fn("skip", ending(Verdict::Skip))
        .register_fn("hold", ending(Verdict::Hold))
        .register_fn("reject", ending(Verdict::Reject))
        .register_fn("fail", |reason: ImmutableString| -> Result<Dynamic> {
            Err(fault(withheld_unless_literal(&reason)))
        })
        .register_fn("warn", |reason: ImmutableString| {
            with(|current| {
                let reason = shown(current, &reason);
                current.findings.borrow_mut().push(Finding::Remark(reason.into()));
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

fn put_plan(
    out: BundleHandle,
    plan: &PlanHandle,
    segment: SegmentHandle,
    identity: Option<(ImmutableString, ImmutableString)>,
) -> Result<ResourceHandle> {
    if !plan.target.is_resource {
        return Err(fault(format!("{} is no resource: use `build`", plan.target.name)));
    }
    with(|current| {
        if segment.find(current).is_none() {
            return Err(fault(format!("the message has no {} segment", plan.segment)));
        }
        let elements = apply(current, plan, segment)?;
        let (system, value) = match &identity {
            Some((system, value)) => (system.as_str(), value.as_str()),
            None => first_identifier(&elements).ok_or_else(|| fault(no_identifier(plan)))?,
        };
        let id = self::identity(plan.target, system, value)?;
        let identifier = Some(SmolStr::from(format!("{system}|{value}")));
        let resource = Resource { resource_type: plan.target.name.into(), id, identifier, elements };
        put(current, out, plan.target, resource)
    })
}

fn put_new(out: BundleHandle, resource_type: &str, system: &str, value: &str) -> Result<ResourceHandle> {
    let found = resource_named(resource_type)?;
    let id = identity(found, system, value)?;
    let identifier = Some(SmolStr::from(format!("{system}|{value}")));
    let resource = Resource { resource_type: found.name.into(), id, identifier, elements: Object::new() };
    with(|current| put(current, out, found, resource))
}

fn put(
    current: &mut Current,
    out: BundleHandle,
    resource_type: &'static Type,
    resource: Resource,
) -> Result<ResourceHandle> {
    match current.bundles.get_mut(out.bundle) {
        Some(bundle) => Ok(ResourceHandle { bundle: out.bundle, place: bundle.put(resource), resource_type }),
        None => Err(fault("this bundle is gone")),
    }
}

fn fill(resource: ResourceHandle, plan: &PlanHandle, segment: SegmentHandle) -> Result<()> {
    if plan.target.name != resource.resource_type.name {
        return Err(fault(format!(
            "this map fills {}, not {}",
            plan.target.name, resource.resource_type.name
        )));
    }
    with(|current| {
        if plan.segment != segment.name() {
            return Err(fault(format!("this map reads {}, not {}", plan.segment, segment.name())));
        }
        let message = current.message.clone();
        let Some(found) = segment.find(current).and_then(|segment| message.segment_at(segment.index()))
        else {
            return Ok(());
        };
        let taken =
            current.bundles.get_mut(resource.bundle).and_then(|bundle| bundle.resource_mut(resource.place));
        let Some(mut elements) = taken.map(|resource| std::mem::take(&mut resource.elements)) else {
            return Err(fault("this resource is gone"));
        };
        plan.apply(found, current, &mut elements);
        if let Some(own) =
            current.bundles.get_mut(resource.bundle).and_then(|bundle| bundle.resource_mut(resource.place))
        {
            own.elements = elements;
        }
        Ok(())
    })
}

fn apply(current: &mut Current, plan: &PlanHandle, segment: SegmentHandle) -> Result<Object> {
    if plan.segment != segment.name() {
        return Err(fault(format!("this map reads {}, not {}", plan.segment, segment.name())));
    }
    let message = current.message.clone();
    let mut elements = Object::with_capacity(12);
    if let Some(segment) = segment.find(current).and_then(|segment| message.segment_at(segment.index())) {
        plan.apply(segment, current, &mut elements);
    }
    Ok(elements)
}

/// The first identifier that says both what it is and in which system.
fn first_identifier(elements: &Object) -> Option<(&str, &str)> {
    let nodes = match elements.get("identifier")? {
        Node::Array(nodes) => nodes.as_slice(),
        node => std::slice::from_ref(node),
    };
    nodes.iter().find_map(|node| Some((node.get("system")?.as_text()?, node.get("value")?.as_text()?)))
}

fn no_identifier(plan: &Plan) -> String {
    match plan.fields_of("identifier").as_slice() {
        [] => format!("this map gives a {} no identifier: give `put` a system and a value", plan.target.name),
        fields => format!("{} has no identifier, and a {} needs one", fields.join(" and "), plan.target.name),
    }
}

fn identity(resource_type: &Type, system: &str, value: &str) -> Result<uuid::Uuid> {
    if system.is_empty() || value.is_empty() {
        return Err(fault(format!(
            "the identity of a {} needs a system and a value; one is empty",
            resource_type.name
        )));
    }
    Ok(fhir::id(resource_type.name, system, value))
}

fn resource_named(name: &str) -> Result<&'static Type> {
    type_named(name).filter(|found| found.is_resource).ok_or_else(|| fault("FHIR R4 has no such resource"))
}

fn reference(target: Target, display: Option<Node>) -> Node {
    Node::object([("reference", Some(target.into())), ("display", display)])
}

fn change(
    resource: ResourceHandle,
    at: &str,
    value: Dynamic,
    how: fn(&fhir::Path, &mut Object, Node) -> std::result::Result<(), Fault>,
) -> Result<()> {
    let path = element(resource.resource_type.name, at)?;
    let Some(value) = node(value)? else { return Ok(()) };
    let value = path.element().map_or(value.clone(), |element| element.shaped(value));
    resource.change(|elements| {
        how(&path, elements, value).map_err(|found| {
            let below = if found.path.is_empty() { String::new() } else { format!(" at `{}`", found.path) };
            fault(format!("`{}`{below} {}", path.last(), found.what))
        })
    })
}

/// The text of a string, a number or a field.
fn text(value: Dynamic) -> Result<ImmutableString> {
    match node(value)? {
        Some(Node::Text(text) | Node::Decimal(text)) => Ok(text.as_str().into()),
        Some(Node::Integer(number)) => Ok(number.to_string().into()),
        None => Ok(ImmutableString::new()),
        Some(_) => Err(fault("a text is needed here")),
    }
}

fn row(table: &TableHandle, code: &str, report: bool) -> Result<Dynamic> {
    with(|current| {
        let Some(found) = current.tables.get(&table.0) else { return Err(fault("there is no such table")) };
        let row = if report { current.cx(None).look_up(found, code) } else { found.get(code) };
        Ok(row.map_or(Dynamic::UNIT, |row| {
            Dynamic::from(RowHandle { table: table.0.clone(), row: Arc::new(row.clone()) })
        }))
    })
}

fn cell(cell: Option<&SmolStr>) -> Dynamic {
    cell.map_or(Dynamic::UNIT, |text| ImmutableString::from(text.as_str()).into())
}

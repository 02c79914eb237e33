//! The compiled mappings of a revision, and one run of one of them.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use rhai::{AST, Dynamic, Engine, EvalAltResult, GlobalRuntimeState, Scope};

use super::{
    Context, FOLDER, Files, Finding, Limits, MapError, Mapped, Override, Product, carried,
    compile::{self, Compiled},
    current::{self, Coverage, Current, Deadline},
    datum::{Datum, Given},
    drafts::{self, DraftHandle},
    fault::{Verdict, Words, told},
    handles::{BundleHandle, ResourceHandle},
    ignored::Ignored,
    layers::Parts,
    memory::{Memory, Recall},
    nodes,
    program::{self, Program},
    values::MessageHandle,
};
use crate::{
    connector::Payload,
    error::{Place, Problem},
    fhir::{
        Bundle, Node, Resource, Table, Tables,
        elements::{self, Fault, is_primitive, type_named},
        write_resource,
    },
    hl7::Message,
    incoming::Incoming,
};

/// All mappings of one revision, compiled; shared by all threads.
pub struct Mappings {
    engine: Engine,
    /// What Rhai passes to its functions beside their arguments.
    global: GlobalRuntimeState,
    program: Program,
    scripts: BTreeMap<String, Script>,
    tables: Arc<Tables>,
    words: Arc<Words>,
    overrides: Vec<Override>,
    parts: BTreeMap<String, Parts>,
    warnings: Vec<Problem>,
    limits: Limits,
    /// None where nothing is to be remembered.
    memory: Option<Arc<Memory>>,
}

/// One mapping: a call of its `map`.
pub(super) struct Script {
    pub file: String,
    /// Its `map` in the program, if it has one.
    pub entry: Option<usize>,
    /// The same call for Rhai.
    pub call: AST,
    /// What it leaves out on purpose.
    pub ignored: Ignored,
}

impl Mappings {
    /// Compiles all scripts and tables of `mappings/`.
    ///
    /// # Errors
    /// Everything that is wrong, with its place: all faults of all files, not the first only.
    pub fn compile(files: &Files, limits: &Limits) -> Result<Self, Vec<Problem>> {
        Self::compile_layers(files, &[PathBuf::from(FOLDER)], limits)
    }

    /// Compiles all scripts and tables of several folders, of which the first wins.
    ///
    /// # Errors
    /// As [`Mappings::compile`].
    pub fn compile_layers(files: &Files, folders: &[PathBuf], limits: &Limits) -> Result<Self, Vec<Problem>> {
        let Compiled { engine, program, scripts, tables, words, overrides, parts, warnings } =
            compile::compile(files, folders, limits)?;
        let (words, limits) = (Arc::new(words), limits.clone());
        let global = engine.new_global_runtime_state();
        Ok(Self {
            engine,
            global,
            program,
            scripts,
            tables,
            words,
            overrides,
            parts,
            warnings,
            limits,
            memory: Some(Arc::default()),
        })
    }

    /// The names of the mappings, in order: `adt` for `mappings/adt.rhai`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.scripts.keys().map(String::as_str)
    }

    /// A code table.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// The same mappings, and nothing remembered from message to message.
    #[must_use]
    pub fn without_memory(self) -> Self {
        Self { memory: None, ..self }
    }

    /// The same mappings, run by Rhai's own evaluator and without memory: what the programs are held against.
    #[must_use]
    pub fn by_rhai(self) -> Self {
        let mut by_rhai = self.without_memory();
        by_rhai.scripts.values_mut().for_each(|script| script.entry = None);
        by_rhai
    }

    /// The mappings that Rhai itself must run, for their scripts say what has no program.
    pub fn run_by_rhai(&self) -> impl Iterator<Item = &str> {
        self.scripts.iter().filter(|(_, script)| script.entry.is_none()).map(|(name, _)| name.as_str())
    }

    /// What a folder says anew of the folders below it.
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// What is worth a look though it may run.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Maps a message.
    ///
    /// # Errors
    /// Why the mapping gave nothing, with the place in its script and without patient data.
    pub fn run(
        &self,
        name: &str,
        message: impl Into<Incoming>,
        context: &Context,
    ) -> Result<Product, MapError> {
        let script =
            self.scripts.get(name).ok_or_else(|| MapError::new(format!("there is no mapping `{name}`")))?;
        let incoming = message.into();
        let (code, event) = incoming.code_and_event();
        let (code, event) = (code.into(), event.into());
        let (message, fhir) = match incoming {
            Incoming::Hl7(message) => (message, None),
            Incoming::Fhir(fhir) => (Arc::new(Message::none()), Some(fhir)),
        };
        let elements = fhir.clone().filter(|_| context.coverage);
        let current = Current {
            message: message.clone(),
            fhir,
            code,
            event,
            of_message: Default::default(),
            tables: self.tables.clone(),
            received: context.received,
            zone: context.zone.clone(),
            environment: context.environment.clone(),
            revision: context.revision.clone(),
            bundles: Vec::new(),
            drafts: Vec::new(),
            groups: None,
            counts: Default::default(),
            findings: message.doubts().map(Finding::Doubtful).collect::<Vec<_>>().into(),
            recall: Recall::of(&message, self.memory.as_ref()).into(),
            coverage: Coverage::new(context.coverage, &message),
            words: self.words.clone(),
            deadline: Deadline::after(self.limits.time),
        };
        // A panic of a native function ends this message, not the engine.
        let caught = catch_unwind(AssertUnwindSafe(|| current::run(current, || self.evaluate(script))));
        let (done, current) = caught
            .map_err(|_| MapError::new("the mapping failed inside the engine (a panic: please report it)"))?;
        let mut current = current.ok_or_else(|| MapError::new("the mapping lost its state"))?;
        let mapped = match done? {
            Ended::With(mapped) => mapped,
            Ended::Value(mut value) => {
                let outputs = match self.outputs(&value, &current) {
                    // Mending looks at all there is, so it is done only where it must be.
                    Err(Unsent::Mendable) if mend(&mut value, &mut current) => self.outputs(&value, &current),
                    outputs => outputs,
                };
                outputs.map_err(|unsent| self.told(unsent.into(), script))?
            }
        };
        let coverage = match elements {
            Some(fhir) => carried::told(self, name, &fhir, context, &mapped, &script.ignored),
            None => current.coverage.told(&message, &script.ignored),
        };
        Ok(Product { mapped, coverage, findings: current.findings.into_inner() })
    }

    fn evaluate(&self, script: &Script) -> Result<Ended, MapError> {
        let result: Result<Datum, Box<EvalAltResult>> = match script.entry {
            Some(entry) => {
                let message = MessageHandle.into();
                program::run(&self.program, entry, message, &self.engine, &self.limits, &self.global)
            }
            None => {
                let mut scope = Scope::new();
                scope.push_constant("msg", MessageHandle);
                self.engine.eval_ast_with_scope::<Dynamic>(&mut scope, &script.call).map(Datum::from)
            }
        };
        let error = match result {
            Ok(value) => {
                return Ok(Ended::Value(Value::read(value).map_err(|error| self.told(error, script))?));
            }
            Err(error) => *error,
        };
        let verdict =
            told(error, &script.file, Some(&self.words)).map_err(|error| self.in_its_layer(error))?;
        Ok(Ended::With(match verdict {
            Verdict::Skip(reason) => Mapped::Skip(reason),
            Verdict::Hold(reason) => Mapped::Hold(reason),
            Verdict::Reject(reason) => Mapped::Reject(reason),
            Verdict::Late => return Err(MapError::new("the mapping ran longer than it may")),
        }))
    }

    /// The error with the file of the layer that it stands in.
    fn in_its_layer(&self, mut error: MapError) -> MapError {
        if let Some(place) = &mut error.place
            && let Some(parts) = place.file.to_str().and_then(|file| self.parts.get(file))
        {
            *place = parts.place(place.line, place.column);
        }
        error
    }

    /// An error of what the script returned: its place is the script as a whole.
    fn told(&self, error: MapError, script: &Script) -> MapError {
        let place =
            error.place.unwrap_or_else(|| Place { file: script.file.clone().into(), line: 0, column: 0 });
        MapError { place: Some(place), what: self.words.safe(&error.what) }
    }

    fn outputs(&self, value: &Value, current: &Current) -> Result<Mapped, Unsent> {
        let mut payloads = Vec::new();
        value.write(current, &mut payloads)?;
        if payloads.iter().map(|payload| payload.bytes().len()).sum::<usize>() > self.limits.output_bytes {
            return Err(MapError::new("the output is larger than it may be").into());
        }
        Ok(Mapped::Outputs(payloads))
    }
}

impl std::fmt::Debug for Mappings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.scripts.keys()).finish()
    }
}

/// How a script came to its end.
enum Ended {
    /// By `skip`, `hold` or `reject`.
    With(Mapped),
    /// It returned.
    Value(Value),
}

/// What `map` returned.
enum Value {
    Bundle(BundleHandle),
    Resource(ResourceHandle),
    Hl7(DraftHandle),
    /// A plain map of the script.
    Plain(Node),
    List(Vec<Value>),
}

/// Why what was made cannot be sent.
enum Unsent {
    Wrong(MapError),
    /// A sender's slip that can be taken out: see [`elements::Type::mend`].
    Mendable,
}

impl From<MapError> for Unsent {
    fn from(error: MapError) -> Self {
        Self::Wrong(error)
    }
}

impl From<Unsent> for MapError {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Wrong(error) => error,
            Unsent::Mendable => Self::new("what FHIR forbids cannot be taken out"),
        }
    }
}

/// Takes out what senders' slips put in, for these must not cost the message.
fn mend(value: &mut Value, current: &mut Current) -> bool {
    let mut mended = false;
    for bundle in &mut current.bundles {
        for resource in bundle.resources_mut() {
            let found = type_named(&resource.resource_type);
            mended |= found.is_some_and(|found| found.mend(&mut resource.elements));
        }
    }
    mended |= value.mend();
    if mended {
        let finding = "what FHIR forbids was left out: control characters, blanks in a code, an end before its beginning, or an extension without value";
        current.findings.get_mut().push(Finding::Doubtful(finding));
    }
    mended
}

impl Value {
    /// As [`mend`], for what scripts wrote as plain maps.
    fn mend(&mut self) -> bool {
        match self {
            Self::Plain(node) => {
                let found = node.get("resourceType").and_then(Node::as_text).and_then(type_named);
                match (found, node) {
                    (Some(found), Node::Object(object)) => found.mend(object),
                    _ => false,
                }
            }
            Self::List(values) => values.iter_mut().fold(false, |mended, value| value.mend() | mended),
            Self::Bundle(_) | Self::Resource(_) | Self::Hl7(_) => false,
        }
    }

    fn read(value: Datum) -> Result<Self, MapError> {
        match value {
            Datum::Bundle(bundle) => Ok(Self::Bundle(bundle)),
            Datum::Resource(resource) => Ok(Self::Resource(resource)),
            Datum::List(items) => {
                Ok(Self::List(items.iter().cloned().map(Self::read).collect::<Result<_, _>>()?))
            }
            Datum::Map(map) => {
                let node = nodes::node(map)
                    .map_err(|_| MapError::new("the map that `map` returns cannot stand in a resource"))?;
                Ok(Self::Plain(node.unwrap_or(Node::Array(Vec::new()))))
            }
            other => DraftHandle::given(other).map(Self::Hl7).ok_or_else(|| {
                MapError::new(
                    "`map` returns nothing that can be sent: return a bundle, a resource, a message or a list, or say `skip(reason)`",
                )
            }),
        }
    }

    fn write(&self, current: &Current, out: &mut Vec<Payload>) -> Result<(), Unsent> {
        match self {
            Self::Bundle(handle) => {
                let bundle =
                    current.bundles.get(handle.bundle).ok_or_else(|| MapError::new("the bundle is gone"))?;
                out.push(write_bundle(bundle)?);
            }
            Self::Resource(handle) => {
                let resource = handle.find(current);
                let resource = resource.ok_or_else(|| MapError::new("the resource is gone"))?;
                check(resource)?;
                out.push(Payload::FhirResource {
                    resource_type: resource.resource_type.to_string(),
                    id: resource.id.to_string(),
                    json: write_resource(resource),
                });
            }
            Self::Hl7(handle) => {
                let draft =
                    current.drafts.get(handle.draft).ok_or_else(|| MapError::new("the message is gone"))?;
                out.push(Payload::Hl7(drafts::print(draft)?));
            }
            Self::Plain(node) => out.push(plain(node)?),
            Self::List(values) => {
                for value in values {
                    value.write(current, out)?;
                }
            }
        }
        Ok(())
    }
}

fn write_bundle(bundle: &Bundle) -> Result<Payload, Unsent> {
    if bundle.resources().is_empty() {
        return Err(MapError::new("the bundle is empty: put a resource in, or say `skip(reason)`").into());
    }
    bundle.resources().iter().try_for_each(check)?;
    Ok(Payload::FhirBundle(bundle.write()))
}

/// Checks a resource against the elements of its type.
fn check(resource: &Resource) -> Result<(), Unsent> {
    let Some(found) = type_named(&resource.resource_type) else {
        return Err(MapError::new("a resource of no known type").into());
    };
    found.check(&resource.elements).map_err(|fault| unsent(found.name, &fault))
}

fn unsent(type_name: &str, fault: &Fault) -> Unsent {
    if fault.can_be_mended() {
        return Unsent::Mendable;
    }
    let below = if fault.path.is_empty() { "" } else { "." };
    MapError::new(format!("`{type_name}{below}{}`: {}", fault.path, fault.what)).into()
}

/// A resource or bundle that a script wrote as a plain map.
fn plain(node: &Node) -> Result<Payload, Unsent> {
    let named = node.get("resourceType").and_then(Node::as_text).unwrap_or_default();
    let found = type_named(named).filter(|found| found.is_resource && !is_primitive(named));
    let found =
        found.ok_or_else(|| MapError::new("the map that `map` returns has no `resourceType` of FHIR R4"))?;
    let Node::Object(object) = node.clone() else { return Err(MapError::new("a resource is a map").into()) };
    let object = found.shaped(object);
    found.check(&object).map_err(|fault| unsent(found.name, &fault))?;
    let id = object.get("id").and_then(Node::as_text).unwrap_or_default().to_owned();
    let node = Node::Object(object);
    if let Some(lost) = elements::unresolved(&node) {
        return Err(MapError::new(format!("`{named}`: {lost}")).into());
    }
    let json = node.to_json().into();
    if named == "Bundle" {
        return Ok(Payload::FhirBundle(json));
    }
    if id.is_empty() {
        return Err(MapError::new(format!("the {named} that `map` returns has no `id`")).into());
    }
    Ok(Payload::FhirResource { resource_type: named.to_owned(), id, json })
}

//! What the running mapping works on: the message, the bundles it builds, what it has read and noticed.
//!
//! A mapping runs on one thread from beginning to end, so its state is that thread's. What scripts hold are
//! small handles without a life of their own; outside of a run they lead nowhere and say so.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use jiff::{Timestamp, tz::TimeZone};
use rhai::EvalAltResult;
use rustix::time::{ClockId, clock_gettime};
use smol_str::SmolStr;

use super::{
    Covered, Fate, Spot,
    drafts::Written,
    fault::{Words, fault},
    groups::Tree,
    ignored::{self, Ignored},
    memory::Recall,
};
use crate::{
    fhir::{
        self, Bundle, Tables,
        types::{Cx, Finding, OfMessage},
    },
    hl7::{Message, Path, Segment, Value},
    incoming::{FhirMessage, Incoming},
};

/// The state of one run.
pub(super) struct Current {
    /// The message as HL7 v2; nothing is in it when it is FHIR.
    pub message: Arc<Message>,
    /// The message as FHIR, when it is that.
    pub fhir: Option<Arc<FhirMessage>>,
    /// What it is about, as [`Incoming::code`] and [`Incoming::event`] say it: scripts ask all the time.
    pub code: SmolStr,
    pub event: SmolStr,
    /// See [`Cx::of_message`].
    pub of_message: OfMessage,
    pub tables: Arc<Tables>,
    pub received: Timestamp,
    pub zone: TimeZone,
    pub environment: SmolStr,
    pub revision: SmolStr,
    pub bundles: Vec<Bundle>,
    pub drafts: Vec<Written>,
    pub groups: Option<Arc<Tree>>,
    /// How often `nth` was asked for each text.
    pub counts: HashMap<SmolStr, i64, RandomState>,
    pub findings: RefCell<Vec<Finding>>,
    pub recall: RefCell<Recall>,
    pub coverage: Coverage,
    pub words: Arc<Words>,
    pub deadline: Deadline,
}

/// When a run must have ended: by the time of the processor that it has used, so that nobody's message is given up
/// because the machine is busy; and, much later, by the clock.
pub(super) struct Deadline {
    processor: Duration,
    clock: Instant,
}

/// Which fields have been read, by the place of their segment. Fields above 127 count as read.
#[derive(Default)]
pub(super) struct Coverage {
    read: Option<Vec<Cell<u128>>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
    static PATHS: RefCell<HashMap<SmolStr, Rc<Path>, RandomState>> = RefCell::default();
    static ELEMENTS: RefCell<HashMap<&'static str, Elements, RandomState>> = RefCell::default();
}

/// The paths to elements of one type.
type Elements = HashMap<SmolStr, Rc<fhir::Path>, RandomState>;

/// A run may take so many times its limit by the clock: longer than a slow one waits for a processor that others want.
const PATIENCE: u32 = 150;

/// Paths that a thread keeps parsed.
const KEPT_PATHS: usize = 4096;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Makes the state the thread's own while `work` runs, and gives it back afterwards.
pub(super) fn run<T>(current: Current, work: impl FnOnce() -> T) -> (T, Option<Current>) {
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            CURRENT.with_borrow_mut(|slot| *slot = None);
        }
    }
    CURRENT.with_borrow_mut(|slot| *slot = Some(current));
    let clear = Clear;
    let done = work();
    let current = CURRENT.with_borrow_mut(Option::take);
    drop(clear);
    (done, current)
}

/// Works on the state of this thread's run.
pub(super) fn with<T>(work: impl FnOnce(&mut Current) -> Result<T>) -> Result<T> {
    CURRENT.with_borrow_mut(|slot| match slot {
        Some(current) => work(current),
        None => Err(fault("there is no message here: this works only inside of `map`")),
    })
}

/// Whether the run has taken longer than it may.
pub(super) fn is_late() -> bool {
    CURRENT.with_borrow(|slot| slot.as_ref().is_some_and(|current| current.deadline.is_over()))
}

impl Deadline {
    /// The end of a run that begins now on this thread.
    pub fn after(limit: Duration) -> Self {
        Self { processor: processor_time() + limit, clock: Instant::now() + limit * PATIENCE }
    }

    fn is_over(&self) -> bool {
        processor_time() > self.processor || Instant::now() > self.clock
    }
}

/// What this thread has used of the processor so far.
pub(crate) fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// An HL7 path, parsed once by each thread.
pub(super) fn path(text: &str) -> Result<Rc<Path>> {
    PATHS.with_borrow_mut(|paths| {
        if let Some(path) = paths.get(text) {
            return Ok(path.clone());
        }
        if paths.len() >= KEPT_PATHS {
            paths.clear();
        }
        let path = Path::parse(text)
            .map_err(|_| fault("this is not a path such as `PID-3`, `PID-3[2].4` or `OBX(3)-5`"))?;
        let path = Rc::new(path);
        paths.insert(text.into(), path.clone());
        Ok(path)
    })
}

/// A path to an element of a type, parsed once by each thread.
pub(super) fn element(type_name: &'static str, text: &str) -> Result<Rc<fhir::Path>> {
    ELEMENTS.with_borrow_mut(|elements| {
        let elements = elements.entry(type_name).or_default();
        if let Some(path) = elements.get(text) {
            return Ok(path.clone());
        }
        if elements.len() >= KEPT_PATHS {
            elements.clear();
        }
        let path = Rc::new(fhir::Path::parse(type_name, text).map_err(|error| fault(error.to_string()))?);
        elements.insert(text.into(), path.clone());
        Ok(path)
    })
}

impl Current {
    /// The message, whichever it is.
    pub fn incoming(&self) -> Incoming {
        match &self.fhir {
            Some(fhir) => Incoming::Fhir(fhir.clone()),
            None => Incoming::Hl7(self.message.clone()),
        }
    }

    /// What a converter may know.
    pub fn cx<'a>(&'a self, table: Option<&'a fhir::Table>) -> Cx<'a> {
        Cx {
            message: &self.message,
            zone: &self.zone,
            tables: &self.tables,
            table,
            segment: None,
            of_message: &self.of_message,
            findings: &self.findings,
            is_of_one_message: Cell::default(),
        }
    }
}

impl Coverage {
    /// A coverage that keeps count, or one that does not.
    pub fn new(wanted: bool, message: &Message) -> Self {
        Self { read: wanted.then(|| vec![Cell::new(0); message.segments().len()]) }
    }

    /// Notes fields of a segment as read: bit n stands for field n.
    pub fn mark(&self, segment: usize, fields: u128) {
        if let Some(slot) = self.read.as_ref().and_then(|read| read.get(segment)) {
            slot.set(slot.get() | fields);
        }
    }

    /// Notes one field of a segment as read; 0 stands for all of them.
    pub fn mark_field(&self, segment: usize, field: usize) {
        self.mark(segment, bit(field));
    }

    /// What became of each field that has a value, in the order of the message.
    pub fn told(&self, message: &Message, ignored: &Ignored) -> Vec<Covered> {
        let mut found = Vec::new();
        for (segment, read) in message.segments().zip(self.read.iter().flatten()) {
            for field in (1..=segment.len()).filter(|field| has_value(segment, *field)) {
                let fate = if field > 127 || read.get() & bit(field) != 0 || taken_for_granted(segment, field)
                {
                    Fate::Read
                } else {
                    ignored::reason_of_field(ignored, segment.name(), field)
                        .map_or(Fate::Unread, |why| Fate::Ignored(why.into()))
                };
                found.push(Covered { spot: Spot::Field(segment.name().into(), field), fate });
            }
        }
        found
    }
}

/// The bit of a field; all bits for the whole segment.
pub(super) fn bit(field: usize) -> u128 {
    if field == 0 {
        u128::MAX
    } else {
        u32::try_from(field).ok().and_then(|field| 1u128.checked_shl(field)).unwrap_or(0)
    }
}

fn has_value(segment: Segment<'_>, field: usize) -> bool {
    segment.repetitions(field).any(|value| matches!(value, Value::Present(_)))
}

/// What the engine itself reads, and set ids.
fn taken_for_granted(segment: Segment<'_>, field: usize) -> bool {
    match segment.name() {
        "MSH" => matches!(field, 1..=6 | 9..=12 | 15..=18),
        "PID" | "PV1" | "OBX" | "OBR" | "NK1" | "AL1" | "DG1" | "NTE" | "SPM" | "IN1" | "GT1" | "PR1"
        | "FT1" => field == 1,
        _ => false,
    }
}

//! HL7 v2 messages as outputs: a copy of the message with some of it changed, or a new one.
//!
//! Promise:  of a copy, what is not touched stays as it was. A new one has its header filled, states its character set where
//!           it needs one, and is not sent without a field that its version requires.

use bytes::Bytes;
use jiff::Timestamp;
use rhai::{EvalAltResult, INT};
use smol_str::SmolStr;

use super::{
    MapError,
    current::{Current, path, with},
    datum::{Datum, Given, Opaque},
    fault::fault,
    host::Host,
    nodes::node,
    reading::check_understood,
    values::MessageHandle,
    wire::WireHandle,
};
use crate::{
    fhir::{self, Node},
    hl7::{
        Message, Part, Path, Separators, Value,
        dictionary::{self, VERSIONS},
        edit::{Content, Draft, EditError},
    },
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A message of the run that is being made.
#[derive(Clone, Copy)]
pub(super) struct DraftHandle {
    pub draft: usize,
}

/// A segment of it.
#[derive(Clone, Copy)]
struct DraftSegment {
    draft: DraftHandle,
    name: [u8; 3],
    occurrence: usize,
}

impl Opaque for DraftHandle {}
impl Opaque for DraftSegment {}

/// A message that is being made.
pub(super) struct Written {
    draft: Draft,
    /// By which version it is checked when it is done; none for a copy, which is the sender's matter.
    version: Option<SmolStr>,
}

/// Gives scripts HL7 v2 messages to write.
pub(super) fn register(host: &mut Host) {
    host.register_type_with_name::<DraftHandle>("Draft");
    host.register_type_with_name::<DraftSegment>("DraftSegment");
    host.register_fn("copy", |_: &mut MessageHandle| {
        with(|current| {
            let draft = Draft::of(&current.message);
            Ok(begin(current, Written { draft, version: None }))
        })
    })
    .register_fn("hl7", || {
        with(|current| {
            let draft = Draft::new(Separators::default());
            Ok(begin(current, Written { draft, version: None }))
        })
    })
    .register_fn("hl7", |version: SmolStr, trigger: SmolStr| new(&version, &trigger))
    .register_fn("set", |draft: &mut DraftHandle, at: SmolStr, value: Datum| set(*draft, &*path(&at)?, value))
    .register_fn("append", |draft: &mut DraftHandle, name: SmolStr| append(*draft, &name))
    .register_fn("insert_after", |draft: &mut DraftHandle, at: SmolStr, name: SmolStr| {
        let path = path(&at)?;
        change(*draft, |draft| draft.insert_after(&path, &name))
    })
    .register_fn("remove", |draft: &mut DraftHandle, at: SmolStr| {
        let path = path(&at)?;
        change(*draft, |draft| match path.field {
            0 => draft.remove(&path),
            _ => draft.clear(&path),
        })
    })
    .register_fn("set", |segment: &mut DraftSegment, at: SmolStr, value: Datum| {
        let path = path(&at)?;
        if path.segment != segment.name {
            return Err(fault("this place is in another segment"));
        }
        set(segment.draft, &Path { occurrence: segment.occurrence, ..Path::clone(&path) }, value)
    })
    .register_fn("set", |segment: &mut DraftSegment, field: INT, value: Datum| {
        let field = usize::try_from(field).ok().filter(|field| (1..1000).contains(field));
        let field = field.ok_or_else(|| fault("fields are counted from 1"))?;
        let (name, occurrence) = (segment.name, segment.occurrence);
        let path =
            Path { segment: name, occurrence, field, repetition: 1, component: None, subcomponent: None };
        set(segment.draft, &path, value)
    });
}

fn begin(current: &mut Current, written: Written) -> DraftHandle {
    current.drafts.push(written);
    DraftHandle { draft: current.drafts.len() - 1 }
}

/// A message of a version and trigger event (`ORU^R01`, `ADT^A28^ADT_A05`) with its header: MSH-3 is us, MSH-7 the time of
/// receipt, MSH-10 made of the message that it is made from, so that a repeat is known as one.
fn new(version: &str, trigger: &str) -> Result<DraftHandle> {
    if !VERSIONS.contains(&version) {
        return Err(fault("this is no version of HL7 v2, such as `2.4`"));
    }
    let pieces: Vec<&str> = trigger.split('^').collect();
    let plain = |piece: &&str| {
        !piece.is_empty() && piece.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !(2..=3).contains(&pieces.len()) || !pieces.iter().all(plain) {
        return Err(fault("this is no message type, such as `ORU^R01` or `ADT^A28^ADT_A05`"));
    }
    with(|current| {
        check_understood(current)?;
        let mut draft = Draft::new(Separators::default());
        // The structure came with 2.3.1.
        let most = if VERSIONS.iter().take(3).any(|early| *early == version) { 2 } else { 3 };
        let trigger = pieces.iter().take(most).copied().collect::<Vec<_>>().join("^");
        let time = current.received.to_zoned(current.zone.clone()).strftime("%Y%m%d%H%M%S%z").to_string();
        let id = control_id(current, &trigger);
        let processing = if current.environment == "live" { "P" } else { "T" };
        for (at, content) in [
            ("MSH-3", Content::Text("TIE")),
            ("MSH-7", Content::Text(&time)),
            ("MSH-9", Content::Raw(&trigger)),
            ("MSH-10", Content::Text(&id)),
            ("MSH-11", Content::Text(processing)),
            ("MSH-12", Content::Text(version)),
        ] {
            let path = path(at)?;
            draft.set(&path, content).map_err(|error| fault(said(&error)))?;
        }
        Ok(begin(current, Written { draft, version: Some(version.into()) }))
    })
}

/// Twenty characters, as MSH-10 holds before 2.7.
fn control_id(current: &Current, trigger: &str) -> String {
    let incoming = current.incoming();
    let received: Timestamp = current.received;
    let made_of = format!(
        "{}|{}|{received}|{trigger}|{}",
        incoming.trigger(),
        incoming.control_id(),
        current.drafts.len()
    );
    let id = fhir::id("MessageHeader", "urn:tie:outbound", &made_of).simple().to_string().to_uppercase();
    id.chars().take(20).collect()
}

fn append(handle: DraftHandle, name: &str) -> Result<DraftSegment> {
    with(|current| {
        let Some(written) = current.drafts.get_mut(handle.draft) else { return Err(gone()) };
        written.draft.append(name).map_err(|error| fault(said(&error)))?;
        let segment = name.as_bytes().try_into().unwrap_or_default();
        Ok(DraftSegment { draft: handle, name: segment, occurrence: written.draft.count(name) })
    })
}

/// A field goes over as it was sent, in its three states; a text is escaped; `()` and `""` empty the place; a list is all
/// repetitions of a field. A field that is emptied has none, unless one of them is named (`PID-11[2]`).
fn set(handle: DraftHandle, path: &Path, value: Datum) -> Result<()> {
    // A new message gets no separators for what is not there; of a copy the place is emptied.
    if value.is_unit() && is_empty(handle, path)? {
        return Ok(());
    }
    if let Datum::List(values) = &value {
        return repeat(handle, path, values);
    }
    if let Datum::Field(field) = value {
        return with(|current| {
            let message = current.message.clone();
            let Some(written) = current.drafts.get_mut(handle.draft) else { return Err(gone()) };
            let separators = written.draft.separators();
            let again;
            let content = match field.of_message(&message) {
                Value::Absent => Content::Absent,
                Value::Null => Content::Null,
                Value::Present(part) if alike(part.separators(), separators) => Content::Raw(part.raw()),
                Value::Present(part) => {
                    again = rewritten(part, separators);
                    Content::Raw(&again)
                }
            };
            put(&mut written.draft, path, content).map_err(|error| fault(said(&error)))
        });
    }
    if let Some(wire) = WireHandle::given(value.clone()) {
        return change(handle, |draft| {
            let raw = wire.wire().write(draft.separators());
            draft.set(path, Content::Raw(&raw))
        });
    }
    match node(value)? {
        None => change(handle, |draft| put(draft, path, Content::Absent)),
        Some(Node::Text(text)) if text == "\"\"" => change(handle, |draft| put(draft, path, Content::Null)),
        Some(Node::Text(text) | Node::Decimal(text)) => {
            change(handle, |draft| draft.set(path, Content::Text(&text)))
        }
        Some(Node::Integer(number)) => {
            change(handle, |draft| draft.set(path, Content::Text(&number.to_string())))
        }
        Some(Node::Boolean(truth)) => {
            change(handle, |draft| draft.set(path, Content::Text(if truth { "Y" } else { "N" })))
        }
        Some(_) => Err(fault("a text is needed here: say the data type, as in `.to(\"XPN\")`")),
    }
}

/// Puts something at a place. A field that is emptied as a whole is, whatever repetitions it has.
fn put(draft: &mut Draft, path: &Path, content: Content<'_>) -> std::result::Result<(), EditError> {
    let is_whole = path.repetition == 1 && path.component.is_none();
    if is_whole && matches!(content, Content::Absent | Content::Null) {
        draft.clear(path)?;
    }
    draft.set(path, content)
}

fn is_empty(handle: DraftHandle, path: &Path) -> Result<bool> {
    with(|current| match current.drafts.get(handle.draft) {
        Some(written) => Ok(written.version.is_some() && !written.draft.holds(path)),
        None => Err(gone()),
    })
}

/// Repetitions, the empty ones left out.
fn repeat(handle: DraftHandle, path: &Path, values: &[Datum]) -> Result<()> {
    if path.component.is_some() || path.repetition != 1 {
        return Err(fault("only a field as a whole takes a list"));
    }
    change(handle, |draft| draft.clear(path))?;
    let mut place = path.clone();
    for value in values {
        match value {
            Datum::Unit => continue,
            Datum::Text(text) if text.is_empty() => continue,
            Datum::List(_) => return Err(fault("a list in a list is no repetition")),
            _ => set(handle, &place, value.clone())?,
        }
        place.repetition += 1;
    }
    Ok(())
}

fn alike(one: Separators, other: Separators) -> bool {
    one.header() == other.header()
}

/// A part of a message in the separators of another one.
fn rewritten(part: Part<'_>, separators: Separators) -> String {
    let component = char::from(separators.component).to_string();
    let inner = separators.subcomponent.map_or(" ".to_owned(), |one| char::from(one).to_string());
    let written = part.components().map(|value| {
        let pieces = value.part().into_iter().flat_map(Part::subcomponents);
        let pieces: Vec<String> = pieces
            .map(|piece| {
                let text = piece.text().unwrap_or_default();
                crate::hl7::escape::encode(&text, separators).into_owned()
            })
            .collect();
        pieces.join(&inner)
    });
    written.collect::<Vec<_>>().join(&component)
}

fn change(
    handle: DraftHandle,
    work: impl FnOnce(&mut Draft) -> std::result::Result<(), EditError>,
) -> Result<()> {
    with(|current| match current.drafts.get_mut(handle.draft) {
        Some(written) => work(&mut written.draft).map_err(|error| fault(said(&error))),
        None => Err(gone()),
    })
}

fn gone() -> Box<EvalAltResult> {
    fault("this message is gone")
}

/// The bytes to send.
pub(super) fn print(written: &Written) -> std::result::Result<Bytes, MapError> {
    let told = |error: &EditError| MapError::new(said(error));
    let Some(version) = &written.version else { return written.draft.print().map_err(|error| told(&error)) };
    let mut draft = written.draft.clone();
    let printed = draft.print().map_err(|error| told(&error))?;
    if !printed.is_ascii() {
        let charset = path("MSH-18").map_err(|_| MapError::new("no path"))?;
        draft.set(&charset, Content::Text("UNICODE UTF-8")).map_err(|error| told(&error))?;
    }
    let printed = draft.print().map_err(|error| told(&error))?;
    let message = Message::parse(printed.clone(), encoding_rs::UTF_8);
    let message = message.map_err(|error| MapError::new(error.to_string()))?;
    for segment in message.segments() {
        let required =
            dictionary::fields(Some(version), segment.name()).into_iter().filter(|field| field.required);
        for field in required.filter(|field| !(segment.name() == "MSH" && field.number <= 2)) {
            if matches!(segment.field(field.number), Value::Absent) {
                let (name, number) = (segment.name(), segment.number());
                let occurrence = if number > 1 { format!("({number})") } else { String::new() };
                return Err(MapError::new(format!(
                    "the HL7 message lacks {name}{occurrence}-{} ({}), which version {version} requires",
                    field.number, field.name
                )));
            }
        }
    }
    Ok(printed)
}

/// The error without its path, which may have been put together at run time.
pub(super) fn said(error: &EditError) -> &'static str {
    match error {
        EditError::NoSegment { .. } => "the message has no such segment",
        EditError::Fixed { .. } => "separators and whole segments cannot be set",
        EditError::NoSeparator { .. } => "the message has no separator for so deep a place",
        EditError::Structure { .. } => "this would change the structure outside of its place",
        EditError::Name { .. } => "this is not the name of a segment, such as `OBX`",
        EditError::Charset { .. } => "the character set of the message lacks a character of its content",
    }
}

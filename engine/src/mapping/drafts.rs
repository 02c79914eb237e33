//! HL7 v2 messages as outputs: a copy of the message with some of it changed, or a new one.

use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString};

use super::{
    current::{path, with},
    fault::fault,
    nodes::node,
    values::{FieldHandle, MessageHandle},
};
use crate::{
    fhir::Node,
    hl7::{
        Path, Separators, Value,
        edit::{Content, Draft, EditError},
    },
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A message of the run that is being made.
#[derive(Clone, Copy)]
pub(super) struct DraftHandle {
    pub draft: usize,
}

/// Gives scripts HL7 v2 messages to write.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<DraftHandle>("Draft");
    engine
        .register_fn("copy", |_: &mut MessageHandle| {
            with(|current| {
                current.drafts.push(Draft::of(&current.message));
                Ok(DraftHandle { draft: current.drafts.len() - 1 })
            })
        })
        .register_fn("hl7", || {
            with(|current| {
                current.drafts.push(Draft::new(Separators::default()));
                Ok(DraftHandle { draft: current.drafts.len() - 1 })
            })
        })
        .register_fn("set", |draft: &mut DraftHandle, at: ImmutableString, value: Dynamic| {
            set(*draft, &at, value)
        })
        .register_fn("append", |draft: &mut DraftHandle, name: ImmutableString| {
            change(*draft, |draft| draft.append(&name))
        })
        .register_fn("insert_after", |draft: &mut DraftHandle, at: ImmutableString, name: ImmutableString| {
            let path = path(&at)?;
            change(*draft, |draft| draft.insert_after(&path, &name))
        })
        .register_fn("remove", |draft: &mut DraftHandle, at: ImmutableString| {
            let path = path(&at)?;
            change(*draft, |draft| draft.remove(&path))
        });
}

/// A field goes over as it was sent, in its three states; a text is escaped; `()` empties the place.
fn set(handle: DraftHandle, at: &str, value: Dynamic) -> Result<()> {
    let path: &Path = &*path(at)?;
    if let Some(field) = value.read_lock::<FieldHandle>().map(|field| *field) {
        return with(|current| {
            let message = current.message.clone();
            let Some(draft) = current.drafts.get_mut(handle.draft) else { return Err(gone()) };
            let content = match field.in_text(message.text()) {
                Value::Absent => Content::Absent,
                Value::Null => Content::Null,
                Value::Present(part) => Content::Raw(part.raw()),
            };
            draft.set(path, content).map_err(|error| fault(said(&error)))
        });
    }
    match node(value)? {
        None => change(handle, |draft| draft.set(path, Content::Absent)),
        Some(Node::Text(text) | Node::Decimal(text)) => {
            change(handle, |draft| draft.set(path, Content::Text(&text)))
        }
        Some(Node::Integer(number)) => {
            change(handle, |draft| draft.set(path, Content::Text(&number.to_string())))
        }
        Some(_) => Err(fault("a text is needed here")),
    }
}

fn change(
    handle: DraftHandle,
    work: impl FnOnce(&mut Draft) -> std::result::Result<(), EditError>,
) -> Result<()> {
    with(|current| match current.drafts.get_mut(handle.draft) {
        Some(draft) => work(draft).map_err(|error| fault(said(&error))),
        None => Err(gone()),
    })
}

fn gone() -> Box<EvalAltResult> {
    fault("this message is gone")
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

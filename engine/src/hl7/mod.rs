//! HL7 v2 as bytes: framing, structure, paths, escapes, character sets, times, acknowledgements.
//!
//! Pure: no clock, socket or file. A [`Message`] keeps the exact bytes that came in, and an index of where its
//! segments and fields begin; nothing is copied until somebody asks for a decoded value.

mod message;
mod path;

pub use message::{Message, ParseError, Part, Segment, Separators, Value};
pub use path::{Path, PathError};

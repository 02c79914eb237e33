//! HL7 v2 as bytes: framing, structure, paths, escapes, character sets, times, acknowledgements.
//!
//! Pure: no clock, socket or file. A [`Message`] keeps the exact bytes that came in, and an index of where its
//! segments and fields begin; nothing is copied until somebody asks for a decoded value.
//!
//! Sources: HL7 v2.8.2 chapter 2 (structure, escapes, acknowledgement), chapter 2A (data types), the MLLP
//! release 1 transport specification, HL7 table 0211 (character sets).

pub mod ack;
pub mod batch;
pub mod charset;
pub mod dictionary;
pub mod escape;
pub mod framing;
pub mod identifier;
pub mod time;

pub mod edit;
pub mod groups;

mod exercise;
mod index;
mod locate;
mod message;
mod path;
mod scan;
mod segment;
mod separators;
mod value;

pub use charset::Charset;
#[doc(hidden)]
pub use exercise::exercise;
pub use index::{Fault, Oddity};
pub use message::{Message, ParseError, Trigger};
pub use path::{Path, PathError};
pub use segment::Segment;
pub use separators::Separators;
pub use value::{Part, Value};

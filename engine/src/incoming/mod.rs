//! What came in, read: HL7 v2 or FHIR R4 as JSON. Everything behind intake sees a message through this.
//!
//! Promise:  pure; the bytes stay as they came. What begins with `{` is FHIR, anything else HL7 v2: no v2 message can
//!           begin so. A reason why bytes cannot be read says what and where, and nothing of their content.
//! Not here: what a message means (intake, routing, mapping).

mod fhir;
pub(crate) mod json;
mod path;
mod references;

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use encoding_rs::Encoding;

use crate::{
    fhir::is_fhir,
    hl7::{Message, ParseError},
};

pub use fhir::{FhirFault, FhirMessage, PatientName};
pub use json::Fault as JsonFault;
pub use path::{PathFault, all, check_path, first, items, shape};
pub use references::Place;

/// A message of either kind. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// HL7 v2.
    Hl7(Arc<Message>),
    /// A FHIR resource or Bundle.
    Fhir(Arc<FhirMessage>),
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// As HL7 v2.
    #[error("{0}")]
    Hl7(#[from] ParseError),
    /// As FHIR.
    #[error("{0}")]
    Fhir(#[from] FhirFault),
}

impl Incoming {
    /// Reads a message. `default` is the character set of HL7 v2 messages that do not tell theirs and are not UTF-8.
    ///
    /// # Errors
    /// Why the bytes are no message: a reason that can be sent back.
    pub fn read(raw: Bytes, default: &'static Encoding) -> Result<Self, Unreadable> {
        Ok(match is_fhir(&raw) {
            true => Self::Fhir(Arc::new(FhirMessage::parse(raw)?)),
            false => Self::Hl7(Arc::new(Message::parse(raw, default)?)),
        })
    }

    /// The message as HL7 v2, if it is that.
    pub fn as_hl7(&self) -> Option<&Arc<Message>> {
        match self {
            Self::Hl7(message) => Some(message),
            Self::Fhir(_) => None,
        }
    }

    /// MSH-9.1; `FHIR`.
    pub fn code(&self) -> Cow<'_, str> {
        self.code_and_event().0
    }

    /// MSH-9.2; the type of the resource, the event of a message Bundle, the type of another Bundle.
    pub fn event(&self) -> Cow<'_, str> {
        self.code_and_event().1
    }

    /// Both.
    pub fn code_and_event(&self) -> (Cow<'_, str>, Cow<'_, str>) {
        match self {
            Self::Hl7(message) => {
                let trigger = message.trigger();
                (trigger.code, trigger.event)
            }
            Self::Fhir(message) => (Cow::Borrowed(fhir::CODE), Cow::Borrowed(message.event())),
        }
    }

    /// As routes name it: `ADT^A01`, `FHIR^Observation`.
    pub fn trigger(&self) -> String {
        match self {
            Self::Hl7(message) => message.trigger().to_string(),
            Self::Fhir(message) => format!("{}^{}", fhir::CODE, message.event()),
        }
    }

    /// MSH-10; what FHIR has for it.
    pub fn control_id(&self) -> Cow<'_, str> {
        match self {
            Self::Hl7(message) => message.control_id(),
            Self::Fhir(message) => Cow::Borrowed(message.control_id()),
        }
    }
}

impl From<&Incoming> for Incoming {
    fn from(incoming: &Incoming) -> Self {
        incoming.clone()
    }
}

impl From<&Arc<Message>> for Incoming {
    fn from(message: &Arc<Message>) -> Self {
        Self::Hl7(message.clone())
    }
}

impl From<Message> for Incoming {
    fn from(message: Message) -> Self {
        Self::Hl7(Arc::new(message))
    }
}

impl fmt::Display for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.trigger())
    }
}

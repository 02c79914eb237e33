//! A message: the exact bytes, and an index of its segments and fields.

use std::borrow::Cow;

use bytes::Bytes;

use super::Path;

/// One HL7 v2 message as received, bytes unchanged, with an index of its structure.
#[derive(Debug, Clone)]
pub struct Message {
    raw: Bytes,
}

/// The five or six characters that give a message its structure (MSH-1 and MSH-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Separators {
    /// MSH-1, usually `|`.
    pub field: u8,
    /// Usually `^`.
    pub component: u8,
    /// Usually `~`.
    pub repetition: u8,
    /// Usually `\`; none when MSH-2 is too short.
    pub escape: Option<u8>,
    /// Usually `&`; none when MSH-2 is too short.
    pub subcomponent: Option<u8>,
    /// `#` since 2.7; none otherwise.
    pub truncation: Option<u8>,
}

/// A field, repetition, component or subcomponent in its three states.
#[derive(Debug, Clone, Copy)]
pub enum Value<'m> {
    /// Nothing was sent: leave alone what is known.
    Absent,
    /// `""` was sent: remove what is known.
    Null,
    /// Something was sent.
    Present(Part<'m>),
}

/// A piece of a message that has content.
#[derive(Debug, Clone, Copy)]
pub struct Part<'m> {
    raw: &'m str,
    separators: Separators,
}

/// One segment of a message.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'m> {
    message: &'m Message,
    index: usize,
}

/// Why bytes are no HL7 v2 message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// They do not begin with `MSH` and separators.
    #[error("the message does not begin with an MSH segment")]
    NoHeader,
}

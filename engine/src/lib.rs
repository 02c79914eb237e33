//! TIE, the trust integration engine: the road of a message from a source to its destinations.
//!
//! ```text
//! source ─bytes─► intake ─append + fsync─► JOURNAL ─entry─► route ─► map ─► delivery ─► destination
//!    ▲               │                        ▲            (pure, no I/O)      │            │
//!    └──── ACK ◄─────┘                        └──────────── outcome ◄──────────┴─ receipt ◄─┘
//! ```
//!
//! A message travels one way. The acknowledgement depends on the journal alone: it says that the bytes are on
//! stable storage, and nothing more. Hand-over between the stages is by the journal and not by memory, so a
//! crash, a stop and a reload are one case: what has no outcome is done again.
//!
//! The modules stand in travelling order; `engine/tests/tidy.rs` holds who may import whom.

pub mod clock;
pub mod document;
pub mod error;
pub mod metrics;
pub mod priority;
pub mod secret;

pub mod fhir;
pub mod hl7;
pub mod incoming;

pub mod connector;
pub mod journal;

pub mod delivery;
pub mod intake;
pub mod mapping;
pub mod routing;

pub mod config;
pub mod pipeline;
pub mod revision;
pub mod supervisor;

pub mod admin;
pub mod cli;

#[cfg(test)]
mod simulation;

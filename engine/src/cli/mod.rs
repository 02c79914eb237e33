//! The command line: one file a command.

pub mod demo_record;
pub mod mllp_client;
pub mod send;

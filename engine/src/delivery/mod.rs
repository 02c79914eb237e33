//! Delivery: brings each message to its destination, in order, until there is one outcome.
//!
//! In:       deliveries that the journal holds as ready or retrying.
//! Out:      a receipt, a dead letter or a parked lane, written to the journal.
//! Promise:  P2, P4, P5, P10. One attempt in flight per lane; an outcome is recorded before the lane moves on.
//! Not here: how to speak to a receiver (plugins), what to send (mapping).

mod attempt;
pub mod circuit;
mod courier;
mod hand;
pub mod lanes;
mod limits;
mod prepare;
pub mod rate;
pub mod retry;
mod settings;
pub mod window;

pub use circuit::{Pauses, Standing};
pub use courier::Courier;
pub use prepare::{Prepare, Prepared, Remark};
pub use settings::Settings;
pub use window::{Window, Windows};

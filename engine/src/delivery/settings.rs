//! How a destination is treated.

use std::time::Duration;

use super::{circuit::Pauses, limits::Limits, window::Windows};
use crate::connector::Rate;

/// How much a destination is given, and when.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest time for one payload.
    pub timeout: Duration,
    /// Deliveries in flight at once.
    pub concurrency: usize,
    /// The most requests in a time.
    pub rate: Option<Rate>,
    /// Whether what may have been taken is sent again; if nothing is said, as is right for the connector.
    pub repeat: Option<bool>,
    /// When it is left alone.
    pub windows: Option<Windows>,
    /// It is given nothing at all.
    pub paused: bool,
    /// After a stop, what is in flight has this long to finish.
    pub grace: Duration,
    /// How long a destination that is away is left alone.
    pub pauses: Pauses,
    /// The bounds of the window on the journal.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            concurrency: 8,
            rate: None,
            repeat: None,
            windows: None,
            paused: false,
            grace: Duration::from_secs(15),
            pauses: Pauses::default(),
            limits: Limits::default(),
        }
    }
}

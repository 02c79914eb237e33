//! What happens to a delivery that a destination has not taken, by route: when again, when no more, and what then.

use std::time::Duration;

use super::ErrorClass;

/// When to try again, and the end of it unless something else is said for a class of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Before the second attempt.
    pub first: Duration,
    /// The longest pause between attempts.
    pub max: Duration,
    /// After this age of the message's first attempt, `then` happens.
    pub give_up: Duration,
    /// What happens at the end, and at once to what the receiver has rejected.
    pub then: GiveUp,
}

/// What happens to a delivery that will not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GiveUp {
    /// Set aside for a person; the lane goes on.
    DeadLetter,
    /// The lane waits for a person.
    Park,
}

/// How long a delivery is tried, and what happens then. Whichever bound is reached first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// After so many attempts.
    pub attempts: u32,
    /// After this age of the first attempt.
    pub age: Duration,
    /// What happens then.
    pub then: GiveUp,
}

/// What becomes of a delivery by how it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When to try again.
    pub retry: Retry,
    /// Nobody took it.
    pub unavailable: Limit,
    /// It may have been taken, and repeats are safe.
    pub uncertain: Limit,
    /// Read and refused.
    pub rejected: Limit,
    /// Read, and the receiver failed over it: `attempts` counts only failures between which the destination has answered
    /// others. While it fails over others too, the age is the longer of this one and `retry.give_up`.
    pub failing: Limit,
    /// Refused as if the destination were misconfigured: `attempts` counts only refusals between which the destination
    /// has answered others, so that a wrong token is never held against a message. `age` is not looked at.
    pub misconfigured: Limit,
    /// The script failed, or rejected the message.
    pub unmapped: GiveUp,
}

/// Refusals as if misconfigured, with others taken in between, after which it is the message's own fault.
pub const REFUSALS: u32 = 3;

/// The same for what the receiver fails over; more, since some say so who mean that they are busy.
pub const FAILURES: u32 = 5;

/// A message that a receiver fails over, and nobody else is there to compare it with, waits no longer than this: long
/// enough for most restarts of what stands behind a receiver, short enough for a lane that it may block.
const FAILING_AGE: Duration = Duration::from_secs(3600);

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(300),
            give_up: Duration::from_secs(24 * 3600),
            then: GiveUp::DeadLetter,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::from(Retry::default())
    }
}

/// What is said for all classes at once: what is rejected ends at once, everything else by age or when the message is
/// known to be at fault.
impl From<Retry> for Policy {
    fn from(retry: Retry) -> Self {
        let limit = |attempts| Limit { attempts, age: retry.give_up, then: retry.then };
        Self {
            retry,
            unavailable: limit(u32::MAX),
            uncertain: limit(u32::MAX),
            rejected: limit(1),
            failing: Limit { age: retry.give_up.min(FAILING_AGE), ..limit(FAILURES) },
            misconfigured: limit(REFUSALS),
            unmapped: retry.then,
        }
    }
}

impl Policy {
    /// The limit of a class of errors.
    pub fn limit(&self, class: ErrorClass) -> &Limit {
        match class {
            ErrorClass::Unavailable => &self.unavailable,
            ErrorClass::Uncertain => &self.uncertain,
            ErrorClass::Rejected => &self.rejected,
            ErrorClass::Failing => &self.failing,
            ErrorClass::Misconfigured => &self.misconfigured,
        }
    }
}

//! Waiting for what becomes of a message before it is answered, where a listener or route asks for that.
//!
//! Promise:  P1, P5, P6. The message is stored before the waiting begins, and stays whatever is answered. Only its own
//!           connection waits, for so long at most as the listener says and no longer than until a stop; so many wait
//!           at once, and whoever comes beyond is answered at once.
//! Not here: making the outcome (delivery).

use crate::{
    connector::Acknowledge,
    hl7::ack::{ErrorCode, Reason, Verdict},
    journal::{DeliveryRecord, Journal, JournalError, Sequence, State},
};

/// How a message is answered by where its deliveries stand; none while that is not settled.
fn judge(deliveries: &[DeliveryRecord], wanted: Acknowledge) -> Option<Verdict> {
    let mut settled = Some(Verdict::Accepted);
    for delivery in deliveries {
        // Only a destination that was asked gives a class: without one it was the mapping that decided.
        let asked = delivery.class.is_some();
        let done = match (delivery.state, wanted) {
            (_, Acknowledge::Received) | (State::Filtered | State::Delivered, _) => Some(true),
            (State::Ready, _) => None,
            (State::Retrying, Acknowledge::Mapped) => Some(true),
            (State::Retrying, Acknowledge::Delivered) => None,
            (State::Parked | State::Held | State::Dead, Acknowledge::Mapped) => Some(asked),
            (State::Parked | State::Held | State::Dead, Acknowledge::Delivered) => Some(false),
        };
        match done {
            Some(true) => {}
            None => settled = None,
            Some(false) => {
                let DeliveryRecord { id, state, reason, .. } = delivery;
                let text = format!("stored, but {} for {}: {reason}", state.word(), id.destination);
                return Some(Verdict::Error(Reason::new(ErrorCode::SegmentSequence, text)));
            }
        }
    }
    settled
}

/// Waits until it is settled how a stored message is answered.
pub(super) async fn settled(
    journal: &Journal,
    sequence: Sequence,
    wanted: Acknowledge,
) -> Result<Verdict, JournalError> {
    let mut changes = journal.follow(sequence);
    loop {
        if let Some(verdict) = judge(&journal.deliveries(sequence).await?, wanted) {
            return Ok(verdict);
        }
        changes.next().await;
    }
}

/// The answer to a message that is stored and whose outcome was not awaited to its end. A repeat is answered by how it
/// stands then.
pub(super) fn unsettled(wanted: Acknowledge, why: &str) -> Verdict {
    let word = match wanted {
        Acknowledge::Received => "answered",
        Acknowledge::Mapped => "mapped",
        Acknowledge::Delivered => "delivered",
    };
    Verdict::Error(Reason::new(ErrorCode::Internal, format!("stored, not yet {word}: {why}")))
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;

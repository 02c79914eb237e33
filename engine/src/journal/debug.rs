//! `Debug` of what holds patient data: names and sizes only, so that no log, panic or error text can show more (P9).

use std::fmt;

use super::{Arrival, DeliveryRecord, Entry, Exchange, Key, Keys, NewDelivery, NewMessage, Outcome, Pending};

/// Prints the named fields and `..`.
macro_rules! shown {
    ($type:ident: $($field:ident),+) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type))$(.field(stringify!($field), &self.$field))+.finish_non_exhaustive()
            }
        }
    };
}

shown!(Keys: trigger, sending_application, sending_facility);
shown!(NewDelivery: route, destination);
shown!(Pending: id, state, attempts, received, first_attempt);
shown!(DeliveryRecord: id, state, attempts, at, reason, class);
shown!(Entry: sequence, received, listener);
shown!(Arrival: sequence, received, listener);
shown!(NewMessage: received, listener, peer, keys, flag, disposition);
shown!(Outcome: id, state, at, attempts, output, revision, reason, class);
shown!(Exchange: output);

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlId(_) => "ControlId",
            Self::Patient(_) => "Patient",
            Self::NhsNumber(_) => "NhsNumber",
            Self::LocalNumber(_) => "LocalNumber",
            Self::Visit(_) => "Visit",
            Self::Order(_) => "Order",
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::journal::{Disposition, Key, conformance};

    #[test]
    fn p9_debug_shows_neither_bodies_nor_patients() {
        let mut message = conformance::message(1, &[("adt", "record")]);
        message.raw = Bytes::from_static(b"MSH|CANARY");
        message.keys.patient = "x|CANARY".to_owned();
        if let Disposition::Routed(deliveries) = &mut message.disposition {
            deliveries[0].lanes = vec!["patient|x|CANARY".to_owned()];
        }
        let shown = format!("{message:?}{:?}", Key::NhsNumber("CANARY"));
        assert!(!shown.contains("CANARY") && shown.contains("hospital"), "{shown}");
    }
}

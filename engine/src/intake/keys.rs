//! What a message can be found by, read before any mapping.
//!
//! Promise:  P6. Bounded in number and length, whatever the message holds; what is too long to be an identifier is
//!           left out.
//! Not here: storing and searching (journal).

use super::patient::{PatientKeys, People};
use crate::{
    hl7::{Message, Segment},
    journal::Keys,
};

/// Order numbers of one message.
pub(super) const MOST_ORDERS: usize = 64;
/// The longest identifier that is kept, in bytes: HL7 allows 199 for an EI, people use 20.
pub(super) const LONGEST_BYTES: usize = 200;

/// Fields with the number of an order, a document or an appointment. British laboratories put the accession number
/// into OBR-18 to 21.
const ORDER_FIELDS: [(&str, &[usize]); 7] = [
    ("ORC", &[2, 3, 4]),
    ("OBR", &[2, 3, 18, 19, 20, 21]),
    ("SPM", &[30]),
    ("SAC", &[2]),
    ("TXA", &[12, 14, 15]),
    ("SCH", &[1, 2]),
    ("RXE", &[15]),
];

/// The keys of a message, without what its patient adds.
pub(super) fn of_header(message: &Message) -> Keys {
    let header = |n| without_nul(&message.header(n).text().unwrap_or_default());
    Keys {
        control_id: without_nul(&message.control_id()),
        trigger: message.trigger().to_string(),
        sending_application: header(3),
        sending_facility: header(4),
        ..Keys::default()
    }
}

/// All keys of a message.
pub(super) fn of(message: &Message, people: &People<'_>, patient: &PatientKeys) -> Keys {
    let visit = message.segment("PV1").and_then(|visit| visit.field(19).text());
    Keys {
        patient: patient.main.as_ref().map(ToString::to_string).unwrap_or_default(),
        nhs_number: people.nhs_numbers().next().unwrap_or_default().to_owned(),
        local_number: people.local_number().and_then(sound).unwrap_or_default(),
        visit: visit.and_then(|visit| sound(&visit)).unwrap_or_default(),
        orders: orders(message),
        ..of_header(message)
    }
}

fn orders(message: &Message) -> Vec<String> {
    let mut found = Vec::new();
    for segment in message.segments() {
        let Some((_, fields)) = ORDER_FIELDS.iter().find(|(name, _)| *name == segment.name()) else {
            continue;
        };
        for number in fields.iter().flat_map(|field| numbers(segment, *field)) {
            if found.len() == MOST_ORDERS {
                return found;
            }
            if !found.contains(&number) {
                found.push(number);
            }
        }
    }
    found
}

fn numbers(segment: Segment<'_>, field: usize) -> impl Iterator<Item = String> {
    segment.repetitions(field).filter_map(|value| sound(&value.text()?))
}

pub(super) fn sound(text: &str) -> Option<String> {
    let text = without_nul(text.trim());
    (!text.is_empty() && text.len() <= LONGEST_BYTES).then_some(text)
}

/// Some senders fill fields up with NUL; not every store takes it in a text.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{super::Patients, *};

    fn keys(segments: &str) -> Keys {
        let text = format!("MSH|^~\\&|LAB^1|RXX|||20260101||ORU^R01|M1|P|2.4\r{segments}");
        let message = Message::parse(Bytes::from(text), encoding_rs::UTF_8).unwrap();
        let patients = Patients::default();
        let people = People::of(&message, &patients);
        of(&message, &people, &people.keys())
    }

    #[test]
    fn a_result_is_found_by_its_patient_visit_and_orders() {
        let keys = keys(
            &[
                segment("PID", &[(3, "999 100 1069^^^NHS^NH~ab  12 ^^^RXX^MR")]),
                segment("PV1", &[(19, "V77^^^RXX")]),
                segment("ORC", &[(2, "P1^PAS"), (3, "F1^LAB"), (4, "G1")]),
                segment("OBR", &[(2, "P1"), (3, "F2"), (18, "A1^X"), (19, "\"\""), (20, "A1"), (21, "A2")]),
                segment("OBR", &[(3, "F3~F4")]),
                segment("SPM", &[(30, "S30")]),
                segment("TXA", &[(12, "D12^Y"), (14, "D14"), (15, "D15")]),
            ]
            .concat(),
        );
        assert_eq!((keys.control_id.as_str(), keys.trigger.as_str()), ("M1", "ORU^R01"));
        assert_eq!((keys.sending_application.as_str(), keys.sending_facility.as_str()), ("LAB", "RXX"));
        assert_eq!((keys.nhs_number.as_str(), keys.local_number.as_str()), ("9991001069", "ab  12"));
        assert_eq!((keys.visit.as_str(), keys.patient.as_str()), ("V77", "nhs|9991001069"));
        assert_eq!(keys.orders, ["P1", "F1", "G1", "F2", "A1", "A2", "F3", "F4", "S30", "D12", "D14", "D15"]);
    }

    fn segment(name: &str, fields: &[(usize, &str)]) -> String {
        let last = fields.last().map_or(0, |(number, _)| *number);
        let value = |n| fields.iter().find(|(number, _)| *number == n).map_or("", |(_, value)| value);
        let fields: String = (1..=last).map(|n| format!("|{}", value(n))).collect();
        format!("{name}{fields}\r")
    }

    #[test]
    fn what_is_not_there_is_empty() {
        let keys = keys("PID|1||\rOBR|1|\"\"|\rPV1|1||||\r");
        let all = [&keys.nhs_number, &keys.local_number, &keys.visit, &keys.patient];
        assert!(all.iter().all(|key| key.is_empty()) && keys.orders.is_empty());
    }

    #[test]
    fn p6_a_thousand_orders_and_endless_numbers_are_bounded() {
        let many: String = (0..1000).map(|n| format!("OBR|{n}|P{n}\r")).collect();
        assert_eq!(keys(&many).orders.len(), MOST_ORDERS);
        let (nines, letters) = ("9".repeat(5000), "v".repeat(5000));
        let long = [segment("OBR", &[(2, &nines), (3, "F")]), segment("PV1", &[(19, &letters)])].concat();
        let keys = keys(&long);
        assert_eq!((keys.orders, keys.visit.as_str()), (vec!["F".to_owned()], ""));
    }
}

//! Journals of the benches, filled through the real store: each message with keys of its own, twenty a patient.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use jiff::Timestamp;
use tie_engine::{
    connector::Payload,
    journal::{
        DeliveryId, Disposition, Identifiers, Journal, Keys, NewDelivery, NewMessage, Outcome, State,
        sqlite::SqliteStore,
    },
    metrics::Metrics,
};

const TASKS: i64 = 128;

pub async fn open(directory: &Path) -> Journal {
    let store = SqliteStore::open(directory).await.unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    Journal::start(Arc::new(store), Identifiers::default(), Arc::new(metrics)).await.unwrap()
}

pub async fn fill(journal: &Journal, from: i64, messages: i64) {
    let next = Arc::new(AtomicI64::new(from));
    let tasks = (0..TASKS).map(|_| {
        let (journal, next) = (journal.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= from + messages {
                    return;
                }
                journal.append(message(number)).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

pub fn at(number: i64) -> Timestamp {
    Timestamp::from_millisecond(1_790_000_000_000 + number).unwrap()
}

pub fn control_id(number: i64) -> String {
    format!("C{number}")
}

/// Twenty messages a patient, far apart.
pub fn nhs_number(number: i64) -> String {
    format!("{:010}", (number % 50_000).wrapping_mul(7_919) % 10_000_000_000)
}

pub fn order(number: i64) -> String {
    format!("A{}", number.wrapping_mul(1_000_003) % 1_000_000_007)
}

pub fn message(number: i64) -> NewMessage {
    let mut raw = format!("MSH|^~\\&|PAS|RXX|TIE|RXX|20260101120000||ADT^A01|C{number}|P|2.4\r");
    let mut seed = number.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while raw.len() < 1500 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        raw.push_str(&format!(
            "PID|1||{}^^^RXX^MR||OAKLEY^FREDA^^^MRS||{seed:x}|F|||29 WEST AVENUE\r",
            seed % 100_000
        ));
    }
    let patient = number % 50_000;
    NewMessage {
        received: at(number),
        listener: "hospital".to_owned(),
        peer: "192.0.2.1".to_owned(),
        raw: Bytes::from(raw),
        keys: Keys {
            control_id: control_id(number),
            trigger: "ADT^A01".to_owned(),
            sending_application: "PAS".to_owned(),
            sending_facility: "RXX".to_owned(),
            patient: format!("rxx|{patient}"),
            nhs_number: nhs_number(number),
            local_number: patient.to_string(),
            visit: format!("V{}", number / 4),
            orders: vec![order(number)],
        },
        flag: None,
        disposition: Disposition::Routed(vec![NewDelivery {
            route: "adt".to_owned(),
            destination: "record".to_owned(),
            lanes: vec![format!("patient|rxx|{patient}")],
        }]),
    }
}

pub fn outcome(id: DeliveryId, output: Vec<Payload>) -> Outcome {
    Outcome {
        id,
        state: State::Delivered,
        at: at(0),
        attempts: 1,
        first_attempt: Some(at(0)),
        output,
        message: bytes::Bytes::new(),
        revision: "0123456789ab".to_owned(),
        reason: "200".to_owned(),
        class: None,
        detail: None,
    }
}

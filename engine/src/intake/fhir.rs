//! What a FHIR message is about and can be found by: the same keys as those of HL7 v2, read from the resources.
//!
//! Promise:  P4, P6. Every identifier and every reference by which a resource names its patient is a key of him, so that
//!           messages that name him in any of these ways stand in one line; identifiers of one system stand in the lanes of
//!           the HL7 authorities that the mappings give that system (pipeline). Bounded in number and length.
//! Not here: reading the resources (incoming).

use super::{
    keys::{LONGEST_BYTES, MOST_ORDERS, sound},
    patient::{MOST, PatientKey, PatientKeys, Patients},
};
use crate::{
    fhir::Node,
    hl7::identifier::{NHS, names_nhs, spelled},
    incoming::{FhirMessage, PatientName, all, first},
    journal::Keys,
};

/// The label of what is no real care (HL7 v3 ActReason).
const TEST_LABEL: &str = "HTEST";

/// The authority of literal references.
const REFERENCE: &str = "fhir-reference";

/// Where resources name orders, results, documents and appointments.
const NUMBERS: [&str; 5] = [
    "identifier.value",
    "basedOn.identifier.value",
    "masterIdentifier.value",
    "requisition.value",
    "groupIdentifier.value",
];

/// The identities of the patients that a message is about: NHS numbers first.
pub(super) fn patient_keys(message: &FhirMessage) -> PatientKeys {
    let mut all: Vec<PatientKey> = Vec::new();
    for key in message.patients().iter().filter_map(key) {
        if all.len() < MOST && !all.contains(&key) {
            all.push(key);
        }
    }
    all.sort_by_key(|key| key.authority != NHS);
    let mut all = all.into_iter();
    PatientKeys { main: all.next(), others: all.collect() }
}

/// What it is found by.
pub(super) fn keys(message: &FhirMessage, patient: &PatientKeys) -> Keys {
    let said = |header: &[&str], otherwise: &str| sound(message.said(header, otherwise)).unwrap_or_default();
    let local = message.patients().into_iter().find_map(|name| match name {
        PatientName::Identifier { system, value } if !names_nhs(&system) => sound(&value),
        PatientName::Identifier { .. } | PatientName::Reference(_) => None,
    });
    let nhs = patient.all().find(|key| key.authority == NHS);
    Keys {
        control_id: message.control_id().to_owned(),
        trigger: format!("FHIR^{}", message.event()),
        sending_application: said(&["source.name", "source.endpoint"], "meta.source"),
        sending_facility: said(&["sender.identifier.value", "sender.display"], ""),
        patient: patient.main.as_ref().map(ToString::to_string).unwrap_or_default(),
        nhs_number: nhs.map(|key| key.identifier.clone()).unwrap_or_default(),
        local_number: local.unwrap_or_default(),
        visit: visit(message),
        orders: orders(message),
    }
}

/// What does not belong into a live record (hazard H11): the word it is counted by, and why.
pub(super) fn stray(message: &FhirMessage, patients: &Patients) -> Option<(&'static str, &'static str)> {
    let labelled = |node: &Node| {
        ["meta.security.code", "meta.tag.code"].iter().any(|path| {
            all(node, path).is_ok_and(|codes| codes.iter().any(|code| code.as_text() == Some(TEST_LABEL)))
        })
    };
    if labelled(message.root()) || message.resources().any(labelled) {
        return Some(("environment", "a message labelled as test data (HTEST) came to a live system"));
    }
    let begins = |number: &str| patients.test_numbers.iter().any(|test| number.starts_with(test));
    let found =
        message.patients().iter().filter_map(key).any(|key| key.authority == NHS && begins(&key.identifier));
    found.then_some(("test_patient", "a message of a test patient (NHS number) came to a live system"))
}

fn key(name: &PatientName) -> Option<PatientKey> {
    match name {
        PatientName::Identifier { system, value } if names_nhs(system) => PatientKey::among(NHS, value),
        PatientName::Identifier { system, value } => {
            let key = PatientKey { authority: spelled(system), identifier: spelled(value) };
            (value.len() <= LONGEST_BYTES && system.len() <= LONGEST_BYTES).then_some(key)
        }
        PatientName::Reference(reference) => (reference.len() <= LONGEST_BYTES)
            .then(|| PatientKey { authority: REFERENCE.to_owned(), identifier: reference.to_string() }),
    }
}

fn visit(message: &FhirMessage) -> String {
    let of = |resource: &Node| {
        let own = resource.get("resourceType").and_then(Node::as_text) == Some("Encounter");
        let path = if own { "identifier.value" } else { "encounter.identifier.value" };
        first(resource, path).ok().flatten().and_then(Node::as_text).and_then(sound)
    };
    message.resources().find_map(of).unwrap_or_default()
}

fn orders(message: &FhirMessage) -> Vec<String> {
    let mut found = Vec::new();
    for resource in message.resources() {
        let kind = resource.get("resourceType").and_then(Node::as_text).unwrap_or_default();
        if matches!(kind, "Patient" | "Practitioner" | "Organization" | "Location" | "Encounter" | "Device") {
            continue;
        }
        for number in NUMBERS.iter().flat_map(|path| all(resource, path).unwrap_or_default()) {
            if found.len() == MOST_ORDERS {
                return found;
            }
            let number = number.as_text().and_then(sound);
            found.extend(number.filter(|number| !found.contains(number)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(text: &str) -> FhirMessage {
        FhirMessage::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    const RESULT: &str = r#"{"resourceType":"Bundle","type":"transaction","entry":[
        {"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","identifier":[
            {"system":"https://fhir.rxx.example.nhs.uk/Id/patient","value":"R1"},
            {"system":"https://fhir.nhs.uk/Id/nhs-number","value":"999 100 1069"}]}},
        {"resource":{"resourceType":"Observation","identifier":[{"value":"O1"}],"basedOn":[{"identifier":{"value":"P1"}}],
            "encounter":{"identifier":{"value":"V1"}},"subject":{"reference":"urn:uuid:1"}}}]}"#;

    #[test]
    fn p4_a_patient_is_known_by_every_identifier_and_the_nhs_number_comes_first() {
        let message = read(RESULT);
        let keys = patient_keys(&message);
        let shown: Vec<_> = keys.all().map(ToString::to_string).collect();
        assert_eq!(shown, ["nhs|9991001069", "https://fhir.rxx.example.nhs.uk/id/patient|r1"]);
        let found = super::keys(&message, &keys);
        assert_eq!((found.nhs_number.as_str(), found.local_number.as_str()), ("9991001069", "R1"));
        assert_eq!((found.visit.as_str(), found.orders), ("V1", vec!["O1".to_owned(), "P1".to_owned()]));
        assert_eq!((found.trigger.as_str(), found.control_id.len()), ("FHIR^transaction", 36));
        let alone = read(r#"{"resourceType":"Observation","subject":{"reference":"Patient/7"}}"#);
        assert_eq!(patient_keys(&alone).main.unwrap().to_string(), "fhir-reference|Patient/7");
    }

    #[test]
    fn h11_test_data_is_known_by_its_label_and_by_its_number() {
        let patients = Patients::default();
        assert_eq!(stray(&read(RESULT), &patients).unwrap().0, "test_patient");
        let labelled = r#"{"resourceType":"Observation","meta":{"security":[{"code":"HTEST"}]}}"#;
        assert_eq!(stray(&read(labelled), &patients).unwrap().0, "environment");
        assert_eq!(stray(&read(r#"{"resourceType":"Observation"}"#), &patients), None);
    }
}

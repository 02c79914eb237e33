//! What a FHIR listener answers: an OperationOutcome for everything, and what it can do.
//!
//! Promise:  P9, H12. Holds nothing of the message; a positive answer says that it is stored and that nothing more has
//!           happened: 202, or 200 where the route waits for more.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use tie_engine::connector::{Meaning, Reply};

/// An answer ready to send.
pub type Answer = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/fhir+json; charset=utf-8");
const ER7: HeaderValue = HeaderValue::from_static("application/hl7-v2+er7");
/// When to come again, in seconds.
const LATER: HeaderValue = HeaderValue::from_static("5");

/// The answer of the engine to a FHIR message.
pub fn of_reply(reply: &Reply) -> Answer {
    let (status, words) = match reply.meaning {
        Meaning::Stored => (
            StatusCode::ACCEPTED,
            "the message is stored and will be delivered; nothing is said of what becomes of it",
        ),
        Meaning::Done => {
            (StatusCode::OK, "the message is stored, and what its route waits for has been done")
        }
        Meaning::Unreadable => (StatusCode::BAD_REQUEST, reply.reason.as_str()),
        Meaning::Refused => (StatusCode::UNPROCESSABLE_ENTITY, reply.reason.as_str()),
        Meaning::NotNow => (StatusCode::SERVICE_UNAVAILABLE, reply.reason.as_str()),
    };
    say(status, words, reply.place.as_deref())
}

/// The answer to a message of HL7 v2: its acknowledgement.
pub fn of_hl7(reply: Reply) -> Answer {
    let status = match reply.meaning {
        Meaning::Stored | Meaning::Done => StatusCode::OK,
        Meaning::Unreadable | Meaning::Refused => StatusCode::BAD_REQUEST,
        Meaning::NotNow => StatusCode::SERVICE_UNAVAILABLE,
    };
    let Some(acknowledgement) = reply.acknowledgement else {
        return with(StatusCode::NO_CONTENT, Bytes::new(), ER7);
    };
    with(status, acknowledgement, ER7)
}

/// An OperationOutcome.
pub fn say(status: StatusCode, words: &str, place: Option<&str>) -> Answer {
    let (severity, code) = match status.as_u16() {
        200..=299 => ("information", "informational"),
        400 => ("error", "structure"),
        401 => ("error", "login"),
        403 => ("error", "forbidden"),
        404 => ("error", "not-found"),
        405 | 415 => ("error", "not-supported"),
        408 => ("error", "timeout"),
        413 => ("error", "too-long"),
        422 => ("error", "processing"),
        _ => ("error", "transient"),
    };
    let mut issue = json!({ "severity": severity, "code": code, "diagnostics": words });
    if let (Some(place), Some(issue)) = (place, issue.as_object_mut()) {
        issue.insert("expression".to_owned(), json!([place]));
    }
    let outcome = json!({ "resourceType": "OperationOutcome", "issue": [issue] });
    with(status, Bytes::from(outcome.to_string()), JSON)
}

/// What is taken, for `GET [base]/metadata`.
pub fn capabilities() -> Answer {
    let resource =
        |kind: &str| json!({ "type": kind, "interaction": [{ "code": "create" }, { "code": "update" }] });
    let kinds = [
        "Appointment",
        "Bundle",
        "Communication",
        "DiagnosticReport",
        "DocumentReference",
        "Observation",
        "Patient",
        "QuestionnaireResponse",
        "ServiceRequest",
    ];
    let statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-11-28",
        "kind": "instance",
        "software": { "name": "TIE" },
        "implementation": { "description": "Takes messages for an integration engine; every other type of R4 is taken as these are." },
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json"],
        "rest": [{
            "mode": "server",
            "resource": kinds.map(resource),
            "interaction": [{ "code": "transaction" }, { "code": "batch" }],
            "operation": [{
                "name": "process-message",
                "definition": "http://hl7.org/fhir/OperationDefinition/MessageHeader-process-message",
            }],
        }],
    });
    with(StatusCode::OK, Bytes::from(statement.to_string()), JSON)
}

fn with(status: StatusCode, body: Bytes, kind: HeaderValue) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, LATER);
    }
    answer
}

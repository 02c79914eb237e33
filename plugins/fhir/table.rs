//! What only a FHIR server can say, after FHIR R4 http.html; what HTTP says stands in `answers.rs`.

use tie_engine::connector::{Answer, ErrorClass};

use ErrorClass::{Misconfigured, Rejected, Unavailable, Uncertain};

use crate::answers;

/// FHIR's rows, then those of HTTP.
pub const TABLES: &[&[Answer]] = &[OWN, answers::HTTP];

const OWN: &[Answer] = &[
    ("payload", Rejected, "the mapping made something that cannot be sent to a FHIR server"),
    ("not-fhir", Misconfigured, "a success, but the reply is not FHIR: a login page, a proxy"),
    ("outcome-error", Rejected, "a success with an OperationOutcome of severity error or fatal"),
    ("outcome-transient", Unavailable, "the same, of a code that passes: throttled, lock-error, …"),
    ("entry-refused", Rejected, "a success with an entry that was refused (4xx)"),
    ("entry-failed", Uncertain, "a success with an entry that failed (5xx)"),
    (
        "changed",
        Unavailable,
        "update = \"merge\": what was read was changed before it could be written, three times over",
    ),
    (
        "too-long-to-merge",
        Rejected,
        "update = \"merge\": the resource that the server has is longer than longest_reply",
    ),
    ("resource-404", Rejected, "the server does not know this type of resource"),
    ("resource-405", Rejected, "the server does not take updates of this type"),
    ("resource-410", Rejected, "the resource was deleted and may not come back"),
];

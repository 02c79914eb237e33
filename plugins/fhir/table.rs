//! What each answer and each failure of a FHIR server means to the engine: a table, changeable per destination.
//!
//! After FHIR R4 http.html and RFC 9110. `Uncertain` where the server may have stored the message although it
//! did not say so. The reasons beside the lines are part of `tie plugins`.

use std::collections::BTreeMap;

use tie_engine::{
    connector::{ErrorClass, Options},
    error::Problem,
};

use ErrorClass::{Misconfigured, Rejected, Unavailable, Uncertain};

/// Sign, class, and why.
pub const TABLE: &[(&str, ErrorClass, &str)] = &[
    ("dns", Misconfigured, "the host name cannot be resolved"),
    ("tls", Misconfigured, "a certificate or TLS version is not accepted"),
    ("setup", Misconfigured, "the token or the CA file cannot be read"),
    ("refused", Unavailable, "nobody listens at the address"),
    ("unreachable", Unavailable, "no connection for another reason"),
    ("lost-before", Unavailable, "the connection was lost before the body left"),
    ("lost-after", Uncertain, "the connection was lost after the body left"),
    ("reply-cut", Uncertain, "a success, but the connection was lost within the reply"),
    ("reply-too-long", Uncertain, "a success, but the reply is longer than longest_reply"),
    ("not-fhir", Misconfigured, "a success, but the reply is not FHIR: a login page, a proxy"),
    ("outcome-error", Rejected, "a success with an OperationOutcome of severity error or fatal"),
    ("outcome-transient", Unavailable, "the same, of a code that passes: throttled, lock-error, …"),
    ("entry-refused", Rejected, "a success with an entry that was refused (4xx)"),
    ("entry-failed", Uncertain, "a success with an entry that failed (5xx)"),
    ("payload", Rejected, "the mapping made something that cannot be sent to a FHIR server"),
    ("1xx", Uncertain, "not an answer"),
    ("3xx", Misconfigured, "the address has moved; redirects are not followed"),
    ("4xx", Rejected, "any other refusal"),
    ("400", Rejected, "not valid"),
    ("401", Misconfigured, "not authenticated"),
    ("402", Misconfigured, "not paid for"),
    ("403", Misconfigured, "not authorised"),
    ("404", Misconfigured, "no FHIR server at the base address"),
    ("405", Misconfigured, "the base address does not take transactions"),
    ("406", Misconfigured, "does not answer in FHIR JSON"),
    ("407", Misconfigured, "a proxy wants credentials"),
    ("408", Unavailable, "the server did not get the request in time"),
    ("409", Unavailable, "in conflict with another write at the same time"),
    ("410", Misconfigured, "the base address is gone"),
    ("412", Rejected, "a condition matched more than one resource, or the wrong version"),
    ("415", Misconfigured, "does not take FHIR JSON"),
    ("421", Misconfigured, "not the server for this host name"),
    ("422", Rejected, "against a profile or rule of the server"),
    ("423", Unavailable, "locked"),
    ("425", Unavailable, "too early"),
    ("429", Unavailable, "too many requests; Retry-After is honoured"),
    ("resource-404", Rejected, "the server does not know this type of resource"),
    ("resource-405", Rejected, "the server does not take updates of this type"),
    ("resource-410", Rejected, "the resource was deleted and may not come back"),
    ("5xx", Uncertain, "any other failure of the server"),
    ("500", Uncertain, "the server failed, perhaps after storing"),
    ("501", Rejected, "the server cannot do this"),
    ("502", Uncertain, "a gateway got no valid answer"),
    ("503", Unavailable, "out of service; Retry-After is honoured"),
    ("504", Uncertain, "a gateway got no answer in time"),
    ("505", Misconfigured, "does not speak HTTP/1.1"),
    ("507", Unavailable, "the server's storage is full"),
    ("511", Misconfigured, "the network wants a login"),
];

/// The table with a destination's own changes.
#[derive(Debug, Default)]
pub struct Classes {
    changed: BTreeMap<String, ErrorClass>,
}

impl Classes {
    /// Checks the changes: each key is a sign of the table or a status.
    pub fn new(changed: BTreeMap<String, ErrorClass>, options: &Options) -> Result<Self, Vec<Problem>> {
        let is_status =
            |key: &str| key.len() == 3 && key.parse::<u16>().is_ok_and(|n| (100..600).contains(&n));
        let known = |key: &str| TABLE.iter().any(|(sign, ..)| *sign == key) || is_status(key);
        let problems: Vec<Problem> = changed
            .keys()
            .filter(|key| !known(key))
            .map(|key| {
                options
                    .problem_at("errors", format!("`{key}` in `errors` is neither a status nor a known sign"))
                    .did_you_mean(key, TABLE.iter().map(|(sign, ..)| *sign))
            })
            .collect();
        if problems.is_empty() { Ok(Self { changed }) } else { Err(problems) }
    }

    /// The class of a sign of the table.
    pub fn of(&self, sign: &str) -> ErrorClass {
        self.find(sign).unwrap_or(Uncertain)
    }

    /// The class of a status that is no success; `resource`: the answer to one resource, not to the base.
    pub fn of_status(&self, status: u16, resource: bool) -> ErrorClass {
        let own = if resource { self.find(&format!("resource-{status}")) } else { None };
        own.or_else(|| self.find(&status.to_string()))
            .or_else(|| self.find(&format!("{}xx", status / 100)))
            .unwrap_or(Uncertain)
    }

    fn find(&self, sign: &str) -> Option<ErrorClass> {
        let default = || TABLE.iter().find(|(name, ..)| *name == sign).map(|(_, class, _)| *class);
        self.changed.get(sign).copied().or_else(default)
    }
}

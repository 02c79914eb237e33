//! What a receiver's answers and failures mean to the engine: tables, changeable per destination by `errors`.
//!
//! Promise:  a table is data; a key of `errors` that is in none of its rows is an error with its place. What nobody
//!           knows is `Uncertain`: it may have been taken.
//! Not here: which sign an answer is (the connectors), what follows from a class (the engine).

use std::collections::BTreeMap;

use tie_engine::{
    connector::{Answer, ErrorClass, Options},
    error::Problem,
};

use ErrorClass::{Misconfigured, Rejected, Unavailable, Uncertain};

/// What HTTP itself can say (RFC 9110, RFC 6585). `Uncertain` where the server may have stored the message although
/// it did not say so.
pub const HTTP: &[Answer] = &[
    ("dns", Misconfigured, "the host name cannot be resolved"),
    ("tls", Misconfigured, "a certificate or TLS version is not accepted"),
    ("setup", Misconfigured, "the token or the CA file cannot be read"),
    ("refused", Unavailable, "nobody listens at the address"),
    ("unreachable", Unavailable, "no connection for another reason"),
    ("lost-before", Unavailable, "the connection was lost before the body left"),
    (
        "lost-after",
        Uncertain,
        "the connection was lost after the body left: closed, reset, or no HTTP came back",
    ),
    ("reply-cut", Uncertain, "a success, but the connection was lost within the reply"),
    ("reply-too-long", Uncertain, "a success, but the reply is longer than longest_reply"),
    ("1xx", Uncertain, "not an answer"),
    ("3xx", Misconfigured, "the address has moved; redirects are not followed"),
    ("4xx", Rejected, "any other refusal"),
    ("400", Rejected, "not valid"),
    ("401", Misconfigured, "not authenticated"),
    ("402", Misconfigured, "not paid for"),
    ("403", Misconfigured, "not authorised"),
    ("404", Misconfigured, "nothing at the address"),
    ("405", Misconfigured, "the address does not take this method"),
    ("406", Misconfigured, "does not answer in the format asked for"),
    ("407", Misconfigured, "a proxy wants credentials"),
    ("408", Unavailable, "the server did not get the request in time"),
    ("409", Unavailable, "in conflict with another write at the same time"),
    ("410", Misconfigured, "the address is gone"),
    ("411", Rejected, "the length is missing"),
    ("412", Rejected, "a condition matched more than one resource, or the wrong version"),
    ("413", Rejected, "too large for this receiver"),
    ("414", Misconfigured, "the address is too long"),
    ("415", Misconfigured, "does not take this format"),
    ("417", Misconfigured, "an expectation in the headers cannot be met"),
    ("421", Misconfigured, "not the server for this host name"),
    ("422", Rejected, "against a profile or rule of the server"),
    ("423", Unavailable, "locked"),
    ("424", Unavailable, "something that it depends on failed"),
    ("425", Unavailable, "too early"),
    ("426", Misconfigured, "wants another protocol"),
    ("428", Rejected, "wants a condition that the message does not have"),
    ("429", Unavailable, "too many requests; Retry-After is honoured"),
    ("431", Misconfigured, "the headers are too long"),
    ("451", Rejected, "not to be had for legal reasons"),
    ("5xx", Uncertain, "any other failure of the server"),
    ("500", Uncertain, "the server failed, perhaps after storing"),
    ("501", Rejected, "the server cannot do this"),
    ("502", Uncertain, "a gateway got no valid answer"),
    ("503", Unavailable, "out of service; Retry-After is honoured"),
    ("504", Uncertain, "a gateway got no answer in time"),
    ("505", Misconfigured, "does not speak HTTP/1.1"),
    ("507", Unavailable, "the server's storage is full"),
    ("508", Rejected, "the server found a loop"),
    ("511", Misconfigured, "the network wants a login"),
];

/// The tables of a connector with a destination's own changes.
#[derive(Debug)]
pub struct Answers {
    tables: &'static [&'static [Answer]],
    changed: BTreeMap<String, ErrorClass>,
}

impl Answers {
    /// Checks the changes: each key is a sign of the tables, or a status if the tables have statuses.
    pub fn new(
        tables: &'static [&'static [Answer]],
        changed: BTreeMap<String, ErrorClass>,
        options: &Options,
    ) -> Result<Self, Vec<Problem>> {
        let signs = || tables.iter().flat_map(|table| table.iter()).map(|(sign, ..)| *sign);
        let statuses = signs().any(|sign| sign == "5xx");
        let is_status = |key: &str| {
            statuses && key.len() == 3 && key.parse::<u16>().is_ok_and(|status| (100..600).contains(&status))
        };
        let problems: Vec<Problem> = changed
            .keys()
            .filter(|key| !signs().any(|sign| sign == *key) && !is_status(key))
            .map(|key| {
                let what = format!("`{key}` in `errors` is no sign that this destination knows");
                options.problem_at("errors", what).did_you_mean(key, signs())
            })
            .collect();
        if problems.is_empty() { Ok(Self { tables, changed }) } else { Err(problems) }
    }

    /// The class of a sign.
    pub fn of(&self, sign: &str) -> ErrorClass {
        self.find(sign).unwrap_or(Uncertain)
    }

    /// Whether the site has said something of its own about a sign.
    pub fn is_changed(&self, sign: &str) -> bool {
        self.changed.contains_key(sign)
    }

    /// Whether the tables know a sign.
    pub fn knows(&self, sign: &str) -> bool {
        self.find(sign).is_some()
    }

    /// The class of an HTTP status that is no success.
    /// `about` is a prefix of rows that go before the others, such as `resource-`.
    pub fn of_status(&self, status: u16, about: Option<&str>) -> ErrorClass {
        let own = about.and_then(|about| self.find(&format!("{about}{status}")));
        own.or_else(|| self.find(&status.to_string()))
            .or_else(|| self.find(&format!("{}xx", status / 100)))
            .unwrap_or(Uncertain)
    }

    fn find(&self, sign: &str) -> Option<ErrorClass> {
        let default = || {
            let mut rows = self.tables.iter().flat_map(|table| table.iter());
            rows.find(|(name, ..)| *name == sign).map(|(_, class, _)| *class)
        };
        self.changed.get(sign).copied().or_else(default)
    }
}

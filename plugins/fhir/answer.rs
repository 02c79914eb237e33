//! Reads what a FHIR server answered: an OperationOutcome, the statuses of a transaction's entries.
//!
//! Promise (P9): the summary has only statuses, severities and codes of the fixed FHIR value sets; a server's
//! own words, which may repeat patient data, stay in the detail.

use std::{collections::BTreeMap, fmt::Write};

use serde::Deserialize;

/// Codes of issue-type (FHIR R4) that pass by themselves.
const TRANSIENT: &[&str] = &["transient", "lock-error", "no-store", "timeout", "incomplete", "throttled"];
/// The other codes of issue-type.
const LASTING: &[&str] = &[
    "invalid",
    "structure",
    "required",
    "value",
    "invariant",
    "security",
    "login",
    "unknown",
    "expired",
    "forbidden",
    "suppressed",
    "processing",
    "not-supported",
    "duplicate",
    "multiple-matches",
    "not-found",
    "deleted",
    "too-long",
    "code-invalid",
    "extension",
    "too-costly",
    "business-rule",
    "conflict",
    "exception",
    "informational",
];

/// As much of a reply's JSON as matters.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    resource_type: String,
    issue: Vec<Issue>,
    entry: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Issue {
    severity: String,
    code: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    response: Response,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    status: String,
    outcome: Option<Box<Answer>>,
}

/// What is wrong with an answer whose status is a success.
#[derive(Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The sign in the table.
    pub sign: &'static str,
    /// In a few words, without patient data.
    pub reason: String,
}

impl Answer {
    /// Reads a body, if it is a FHIR resource as JSON.
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(body).ok().filter(|answer| !answer.resource_type.is_empty())
    }

    /// Whether there is an OperationOutcome in it, worth keeping.
    pub fn says_more(&self) -> bool {
        !self.issue.is_empty() || self.entry.iter().any(|entry| entry.response.outcome.is_some())
    }

    /// The issues by severity and code, as `error/required ×2, warning/informational`.
    pub fn summary(&self) -> Option<String> {
        let mut counts: BTreeMap<(u8, &str, &str), usize> = BTreeMap::new();
        for issue in &self.issue {
            let (rank, severity) = severity(&issue.severity);
            *counts.entry((rank, severity, code(&issue.code))).or_default() += 1;
        }
        let mut text = String::new();
        for ((_, severity, code), count) in counts {
            let comma = if text.is_empty() { "" } else { ", " };
            let times = if count > 1 { format!(" ×{count}") } else { String::new() };
            let _ = write!(text, "{comma}{severity}/{code}{times}");
        }
        (!text.is_empty()).then_some(text)
    }

    /// What is wrong in spite of a status of success.
    pub fn complaint(&self) -> Option<Complaint> {
        if self.resource_type == "OperationOutcome" {
            return self.own_complaint();
        }
        let (mut refused, mut failed, mut worst) = (0, 0, None);
        for entry in &self.entry {
            let status: u16 =
                entry.response.status.get(..3).and_then(|status| status.parse().ok()).unwrap_or(0);
            match status {
                400..500 => refused += 1,
                500.. => failed += 1,
                0..400 => continue,
            }
            worst =
                worst.or(Some((status, entry.response.outcome.as_ref().and_then(|answer| answer.summary()))));
        }
        let (status, summary) = worst?;
        let sign = if refused > 0 { "entry-refused" } else { "entry-failed" };
        let summary = summary.map(|summary| format!(": {summary}")).unwrap_or_default();
        let reason =
            format!("{} of {} entries not taken; {status}{summary}", refused + failed, self.entry.len());
        Some(Complaint { sign, reason })
    }

    fn own_complaint(&self) -> Option<Complaint> {
        let bad =
            || self.issue.iter().filter(|issue| matches!(severity(&issue.severity).1, "fatal" | "error"));
        bad().next()?;
        let passes = bad().all(|issue| TRANSIENT.contains(&issue.code.as_str()));
        let sign = if passes { "outcome-transient" } else { "outcome-error" };
        Some(Complaint { sign, reason: self.summary().unwrap_or_default() })
    }
}

fn severity(text: &str) -> (u8, &'static str) {
    match text {
        "fatal" => (0, "fatal"),
        "error" => (1, "error"),
        "warning" => (2, "warning"),
        "information" => (3, "information"),
        _ => (4, "other"),
    }
}

fn code(text: &str) -> &'static str {
    TRANSIENT.iter().chain(LASTING).copied().find(|known| *known == text).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(json: &str) -> Option<(&'static str, String)> {
        Answer::read(json.as_bytes()).unwrap().complaint().map(|complaint| (complaint.sign, complaint.reason))
    }

    #[test]
    fn a_success_with_errors_inside_is_no_success() {
        let outcome = |severity: &str, code: &str| {
            complaint(&format!(
                r#"{{"resourceType":"OperationOutcome","issue":[{{"severity":"{severity}","code":"{code}","diagnostics":"CANARY"}}]}}"#
            ))
        };
        assert_eq!(outcome("information", "informational"), None);
        assert_eq!(outcome("warning", "processing"), None);
        assert_eq!(outcome("error", "processing"), Some(("outcome-error", "error/processing".to_owned())));
        assert_eq!(outcome("fatal", "throttled"), Some(("outcome-transient", "fatal/throttled".to_owned())));
        assert_eq!(outcome("error", "CANARY"), Some(("outcome-error", "error/other".to_owned())), "P9");
    }

    #[test]
    fn a_transaction_response_is_read_entry_by_entry() {
        let bundle = |statuses: &[&str]| {
            let entries: Vec<String> =
                statuses.iter().map(|status| format!(r#"{{"response":{{"status":"{status}"}}}}"#)).collect();
            complaint(&format!(r#"{{"resourceType":"Bundle","entry":[{}]}}"#, entries.join(",")))
        };
        assert_eq!(bundle(&["200 OK", "201 Created", "304"]), None);
        assert_eq!(
            bundle(&["200 OK", "422 Unprocessable"]),
            Some(("entry-refused", "1 of 2 entries not taken; 422".to_owned()))
        );
        assert_eq!(
            bundle(&["503", "500 Oops"]),
            Some(("entry-failed", "2 of 2 entries not taken; 503".to_owned()))
        );
    }
}

//! The account of a reconciliation: counts, and what is missing, as JSON lines or in words.
//!
//! Promise: JSON lines are printed as they come; in words, what is missing is counted and the first of each kind are
//! named. So the memory does not grow with what is missing.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use super::judge::{Finding, Judgement, What};
use crate::{cli::say, journal::State};

/// So many of a kind are named in words.
const NAMED: usize = 20;

/// What came out so far.
#[derive(Debug, Default, Serialize)]
pub(super) struct Account {
    /// Different control ids in the sender's list.
    sent: u64,
    /// Those of them of which nothing is missing.
    accounted_for: u64,
    /// Deliveries by destination and state.
    destinations: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Findings by kind.
    findings: BTreeMap<What, u64>,
    #[serde(skip)]
    missing: bool,
    #[serde(skip)]
    json: bool,
    #[serde(skip)]
    named: BTreeMap<What, Vec<Finding>>,
}

impl Account {
    pub(super) fn new(json: bool) -> Self {
        Self { json, ..Self::default() }
    }

    /// Takes what was said of one control id of the sender's list.
    pub(super) fn take(&mut self, judgement: Judgement) {
        self.sent += 1;
        self.accounted_for += u64::from(judgement.is_accounted_for());
        for (destination, state) in judgement.stands {
            let of_destination = self.destinations.entry(destination).or_default();
            *of_destination.entry(State::word(state)).or_default() += 1;
        }
        judgement.findings.into_iter().for_each(|finding| self.find(finding));
    }

    /// Takes one finding.
    pub(super) fn find(&mut self, finding: Finding) {
        self.missing |= !finding.harmless;
        *self.findings.entry(finding.finding).or_default() += 1;
        if self.json {
            say(format_args!("{}\n", serde_json::to_string(&finding).unwrap_or_default()));
            return;
        }
        let named = self.named.entry(finding.finding).or_default();
        if named.len() < NAMED {
            named.push(finding);
        }
    }

    /// Whether everything is accounted for, everywhere.
    pub(super) fn is_complete(&self) -> bool {
        !self.missing
    }

    /// Prints the end of it.
    pub(super) fn close(&self) {
        if self.json {
            let summary = serde_json::json!({ "summary": self, "complete": self.is_complete() });
            say(format_args!("{summary}\n"));
        } else {
            say(self.words());
        }
    }

    fn words(&self) -> String {
        let mut text = format!(
            "{} control ids sent: {} accounted for, {} not.\n",
            self.sent,
            self.accounted_for,
            self.sent - self.accounted_for
        );
        for (destination, states) in &self.destinations {
            let states: Vec<_> = states.iter().map(|(state, number)| format!("{number} {state}")).collect();
            let _ = writeln!(text, "{destination}: {}", states.join(", "));
        }
        for harmless in [false, true] {
            for (what, named) in &self.named {
                if named.iter().any(|finding| finding.harmless == harmless) {
                    self.describe(&mut text, *what, named);
                }
            }
        }
        text
    }

    fn describe(&self, text: &mut String, what: What, named: &[Finding]) {
        let number = self.findings.get(&what).copied().unwrap_or_default();
        let _ = writeln!(text, "\n{number} {}:", what.words());
        for finding in named {
            let place = finding.sequence.map(|sequence| format!("  message {sequence}")).unwrap_or_default();
            let destination =
                finding.destination.as_ref().map(|name| format!("  {name}")).unwrap_or_default();
            let reason =
                if finding.reason.is_empty() { String::new() } else { format!("  {}", finding.reason) };
            let _ = writeln!(text, "  {}{place}{destination}{reason}", finding.control_id);
        }
        let more = number.saturating_sub(named.len() as u64);
        if more > 0 {
            let _ = writeln!(text, "  … and {more} more; --json names them all");
        }
    }
}

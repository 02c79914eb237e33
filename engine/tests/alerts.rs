//! The alert rules speak of metrics that exist, with labels that they have, and name chapters of the runbook that exist.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

use std::{collections::BTreeSet, fs, path::Path};

use tie_engine::metrics::LIST;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every word of the rules that begins like one of our metrics, with what stands in braces behind it.
fn uses(text: &str) -> Vec<(String, String)> {
    let mut uses = Vec::new();
    for (at, _) in text.match_indices("tie_") {
        if text[..at].ends_with(|before: char| before.is_ascii_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &text[at..];
        let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(rest.len());
        let selector = rest[end..].strip_prefix('{').and_then(|more| more.split('}').next());
        uses.push((rest[..end].to_owned(), selector.unwrap_or_default().to_owned()));
    }
    uses
}

#[test]
fn every_metric_in_the_rules_exists_with_its_labels() {
    for file in ["ops/prometheus/rules.yml", "ops/prometheus/rules.test.yml"] {
        let uses = uses(&read(file));
        assert!(uses.len() > 10, "{file} speaks of {} metrics", uses.len());
        for (name, selector) in uses {
            let base = name.strip_suffix("_bucket").unwrap_or(&name);
            let known = LIST.iter().find(|metric| metric.name == base);
            let Some(known) = known else { panic!("{file}: there is no metric `{name}`") };
            assert_eq!(name != base, known.kind == "histogram", "{file}: `{name}` is a {}", known.kind);
            for matcher in selector.split(',').filter(|matcher| !matcher.trim().is_empty()) {
                let label = matcher.split(['=', '!']).next().unwrap().trim();
                let own = known.labels.contains(&label) || ["instance", "job", "le"].contains(&label);
                assert!(own, "{file}: `{name}` has no label `{label}`");
            }
        }
    }
}

#[test]
fn every_alert_waits_and_leads_to_a_chapter_of_the_runbook() {
    let anchors: BTreeSet<String> = read("ops/runbook.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| {
            let kept =
                title.to_lowercase().replace(|c: char| !(c.is_alphanumeric() || c == ' ' || c == '-'), "");
            kept.replace(' ', "-")
        })
        .collect();
    let rules = read("ops/prometheus/rules.yml");
    let tests = read("ops/prometheus/rules.test.yml");
    let mut alerts = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap().trim();
        assert!(rule.contains("\n        for: "), "{name} would wake somebody at once");
        assert!(rule.contains("severity: page") || rule.contains("severity: ticket"), "{name}");
        let anchor = rule.split("ops/runbook.md#").nth(1).and_then(|rest| rest.split('"').next());
        let anchor = anchor.unwrap_or_else(|| panic!("{name} leads nowhere"));
        assert!(anchors.contains(anchor), "{name}: the runbook has no chapter `{anchor}`: {anchors:?}");
        assert!(tests.contains(name), "{name} has no test in rules.test.yml");
        alerts += 1;
    }
    assert!(alerts >= 10, "{alerts}");
}

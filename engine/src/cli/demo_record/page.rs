//! The page of the demonstration record, for people: what has arrived and the latest resources.

use std::fmt::Write;

use super::http::Record;

const HEAD: &str = r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Demonstration record</title>
<meta http-equiv="refresh" content="2"><meta name="viewport" content="width=device-width">
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.2rem 1.5rem .2rem 0;text-align:left;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}.note{color:#666}</style></head><body>
<h1>Demonstration record</h1>
<p class="note">For demonstration and tests only: kept in memory, nothing is checked, everybody may read.</p>
"#;

/// Resources shown.
const SHOWN: usize = 25;

/// Writes the page.
pub(super) fn page(record: &Record) -> String {
    let mut out = HEAD.to_owned();
    let store = &record.store;
    let _ = write!(out, "<p>{} messages taken, {} versions written", record.arrivals.len(), store.versions);
    if store.dropped > 0 {
        let _ = write!(out, ", {} of the oldest resources forgotten", store.dropped);
    }
    out += ".</p><h2>Resources</h2><table><tr><th>Type<th>Number</tr>";
    for (kind, count) in store.counts() {
        let kind = escaped(kind);
        let _ = write!(out, "<tr><td><a href=\"/fhir/{kind}\">{kind}</a><td class=n>{count}</tr>");
    }
    out += "</table><h2>Latest</h2><table><tr><th>Resource<th>Version<th>Written</tr>";
    for ((kind, id), kept) in store.latest(SHOWN) {
        let name = escaped(&format!("{kind}/{id}"));
        let _ = write!(
            out,
            "<tr><td><a href=\"/fhir/{name}\">{name}</a><td class=n>{}<td>{:.0}</tr>",
            kept.version, kept.updated
        );
    }
    out += "</table></body></html>\n";
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

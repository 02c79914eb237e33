//! The page for people: the status in one piece of HTML that needs nothing else.

use std::fmt::Write;

use jiff::Timestamp;

use super::{DestinationStatus, ReloadResult, Status};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#212b32}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #d8dde0;vertical-align:top}\
td.n,th.n{text-align:right}.bad{color:#b10e1e;font-weight:600}.good{color:#006747}code{font-size:.9em}";

/// States in the order of the columns.
const STATES: [&str; 5] = ["ready", "retrying", "parked", "held", "dead"];

/// The page.
pub(super) fn status(status: &Status, now: Timestamp) -> String {
    let mut page = String::from("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">");
    page +=
        "<meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"5\">";
    let environment = escape(&status.environment);
    line(&mut page, format_args!("<title>TIE, {environment}</title><style>{STYLE}</style>"));
    line(&mut page, format_args!("<h1>TIE <small>{} · {environment}</small></h1>", escape(&status.version)));
    head(&mut page, status, now);
    destinations(&mut page, &status.destinations);
    listeners(&mut page, status);
    routes(&mut page, status);
    page += "<p><a href=\"/metrics\">metrics</a> · <a href=\"/api/status\">status as JSON</a></p></html>\n";
    page
}

fn head(page: &mut String, status: &Status, now: Timestamp) {
    let readiness = &status.readiness;
    if readiness.ready {
        line(page, format_args!("<p class=\"good\">Messages are taken.</p>"));
    } else {
        let reasons = escape(&readiness.reasons.join("; "));
        line(page, format_args!("<p class=\"bad\">Messages are not taken: {reasons}</p>"));
    }
    let revision = &status.revision;
    let short = revision.id.get(..12).unwrap_or(&revision.id);
    let commit = revision.git_commit.as_deref().and_then(|commit| commit.get(..12));
    let commit = commit.map(|commit| format!(", git {}", escape(commit))).unwrap_or_default();
    let since = age(now.as_second() - revision.since.as_second());
    line(page, format_args!("<p>Revision <code>{}</code>{commit}, live for {since}.", escape(short)));
    let journal = &status.journal;
    let (last, quarantined) = (journal.last, journal.quarantined);
    line(
        page,
        format_args!(
            " Journal: {last} messages so far, {quarantined} in quarantine, {}.</p>",
            size(journal.disk_bytes)
        ),
    );
    let Some(reload) = &status.last_reload else { return };
    if reload.result == ReloadResult::Refused {
        let when = age(now.as_second() - reload.at.as_second());
        line(
            page,
            format_args!(
                "<p class=\"bad\">The configuration on disk was refused {when} ago; what was live still is.</p>"
            ),
        );
    }
    if !reload.problems.is_empty() {
        *page += "<ul>";
        for problem in &reload.problems {
            line(page, format_args!("<li><code>{}</code></li>", escape(&problem.to_string())));
        }
        *page += "</ul>";
    }
}

fn destinations(page: &mut String, destinations: &[DestinationStatus]) {
    *page += "<h2>Destinations</h2><table><tr><th>name<th>kind<th>state";
    for state in STATES {
        line(page, format_args!("<th class=\"n\">{state}"));
    }
    *page += "<th class=\"n\">oldest</tr>";
    for destination in destinations {
        let word = escape(&destination.standing);
        let class = if destination.needs_a_look() { "bad" } else { "good" };
        let reason =
            destination.reason.as_deref().map(|reason| format!(": {}", escape(reason))).unwrap_or_default();
        let (name, kind) = (escape(&destination.name), escape(&destination.kind));
        line(page, format_args!("<tr><td>{name}<td>{kind}<td><span class=\"{class}\">{word}</span>{reason}"));
        for state in STATES {
            let number = destination.deliveries.get(state).copied().unwrap_or(0);
            line(page, format_args!("<td class=\"n\">{number}"));
        }
        let oldest = destination.oldest_seconds.map(age).unwrap_or_default();
        line(page, format_args!("<td class=\"n\">{oldest}</tr>"));
    }
    *page += "</table>";
}

fn listeners(page: &mut String, status: &Status) {
    *page += "<h2>Listeners</h2><table><tr><th>name<th>kind<th>state</tr>";
    for listener in &status.listeners {
        let (class, word) = if listener.serving { ("good", "serving") } else { ("bad", "not serving") };
        let reason =
            listener.reason.as_deref().map(|reason| format!(": {}", escape(reason))).unwrap_or_default();
        let (name, kind) = (escape(&listener.name), escape(&listener.kind));
        line(
            page,
            format_args!("<tr><td>{name}<td>{kind}<td><span class=\"{class}\">{word}</span>{reason}</tr>"),
        );
    }
    *page += "</table>";
}

fn routes(page: &mut String, status: &Status) {
    *page += "<h2>Routes</h2><table><tr><th>name<th>from<th>mapping<th>to<th>about</tr>";
    for route in &status.routes {
        let cells = [&route.name, &route.from.join(", "), &route.map, &route.to.join(", "), &route.about];
        *page += "<tr>";
        for cell in cells {
            line(page, format_args!("<td>{}", escape(cell)));
        }
        *page += "</tr>";
    }
    *page += "</table>";
}

/// A `String` takes everything that is written to it.
fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(text);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        seconds => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB on disk", bytes.div_ceil(1_000)),
        1_000_000..1_000_000_000 => format!("{} MB on disk", bytes / 1_000_000),
        _ => format!("{}.{} GB on disk", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}

//! The figures as a table for people: a line for each trial, its floors at the end of the line.

use serde_json::Value;

/// Head, width, decimals, where the figure is, what it is divided by.
type Column = (&'static str, usize, usize, &'static [&'static str], f64);

const COLUMNS: [Column; 19] = [
    ("ack/s", 8, 0, &["acknowledged_per_second"], 1.0),
    ("deliv/s", 8, 0, &["delivered_per_second"], 1.0),
    ("road/s", 8, 0, &["road_per_second"], 1.0),
    ("p50 ms", 8, 2, &["acknowledgement_ms", "p50"], 1.0),
    ("p99", 8, 2, &["acknowledgement_ms", "p99"], 1.0),
    ("p99.9", 8, 2, &["acknowledgement_ms", "p999"], 1.0),
    ("e2e p50", 9, 1, &["end_to_end_ms", "p50"], 1.0),
    ("e2e p99", 9, 1, &["end_to_end_ms", "p99"], 1.0),
    ("cpu ms", 7, 3, &["engine_cpu_ms_per_message"], 1.0),
    ("rss MB", 7, 0, &["resident_peak_bytes"], 1e6),
    ("kB wr.", 7, 1, &["bytes_written_per_message"], 1e3),
    ("kB kept", 8, 1, &["bytes_kept_per_message"], 1e3),
    ("commit/s", 9, 0, &["commits_per_second"], 1.0),
    ("fsync/s", 8, 0, &["fsyncs_per_second"], 1.0),
    ("batch", 6, 1, &["messages_per_commit"], 1.0),
    ("disk/s", 8, 0, &["floor_disk", "messages_per_second"], 1.0),
    ("sync ms", 8, 2, &["floor_disk", "sync_ms", "p50"], 1.0),
    ("post/s", 7, 0, &["floor_posts_per_second"], 1.0),
    ("bare ms", 8, 3, &["floor_bare", "cpu_ms_per_message"], 1.0),
];

/// What the columns mean.
pub(super) const LEGEND: &str = "\
ack/s: messages acknowledged a second. deliv/s: arrived at every destination while sending. road/s: until all had arrived.\n\
p50, p99, p99.9: message to acknowledgement. e2e: message to arrival. cpu ms: of the engine, a message, until it rests.\n\
kB wr., kB kept: written and kept on disk, a message. batch: messages a commit. Floors, of the same run: disk/s, sync ms:\n\
append and fdatasync of as many messages; post/s: the client drives the receiver with the same bundle; bare ms: the CPU\n\
of a program that does the same outward work and keeps no promise but durability.\n";

/// The head of the table.
pub(super) fn head() -> String {
    let columns = COLUMNS.iter().map(|(head, width, ..)| format!("{head:>width$}"));
    format!("{:<9}{:>6}{}\n", "scenario", "conns", columns.collect::<String>())
}

/// The line of a trial, and what only its scenario measures.
pub(super) fn line(figures: &Value) -> String {
    let text =
        |key: &str| figures.get(key).map(|value| value.to_string().replace('"', "")).unwrap_or_default();
    let columns = COLUMNS.iter().map(|(_, width, decimals, place, by)| {
        let found = place.iter().try_fold(figures, |value, key| value.get(key)).and_then(Value::as_f64);
        found
            .map_or_else(|| format!("{:>width$}", "-"), |number| format!("{:>width$.decimals$}", number / by))
    });
    let line = format!("{:<9}{:>6}{}\n", text("scenario"), text("connections"), columns.collect::<String>());
    line + more(figures).as_str()
}

/// Figures of one scenario.
fn more(figures: &Value) -> String {
    let number = |place: &[&str]| {
        let found = place.iter().try_fold(figures, |value, key| value.get(key));
        found.and_then(Value::as_f64).unwrap_or_default()
    };
    if figures.get("documents").is_some() {
        return format!(
            "{:>15} alone: p50 {:.2} ms, p99 {:.2} ms; beside {} documents of {:.1} MB p99 is {:.2} times as long\n",
            "",
            number(&["alone_acknowledgement_ms", "p50"]),
            number(&["alone_acknowledgement_ms", "p99"]),
            number(&["documents"]),
            number(&["document_bytes"]) / 1e6,
            number(&["acknowledgement_p99_over_alone"]),
        );
    }
    if figures.get("drained_per_second").is_some() {
        return format!(
            "{:>15} a backlog of {} (built at {:.0}/s) drained at {:.0}/s {}, {:.3} ms of CPU each, while {}/s came\n",
            "",
            number(&["backlog_built"]),
            number(&["built_per_second"]),
            number(&["drained_per_second"]),
            match number(&["caught_up_after_seconds"]) {
                0.0 => "and had not caught up when it was given up".to_owned(),
                seconds => format!("in {seconds:.1} s"),
            },
            number(&["drain_cpu_ms_per_message"]),
            number(&["rate"]),
        );
    }
    let grown = match (figures.get("stored"), figures.get("routes")) {
        (Some(_), _) => format!(
            "{} messages were stored before; ready after {:.0} ms",
            number(&["stored"]),
            number(&["ready_after_ms"])
        ),
        (None, Some(routes)) => format!("{routes} routes"),
        (None, None) => return String::new(),
    };
    format!("{:>15} {grown}; road/s is {:.2} of the first\n", "", number(&["road_over_first"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_has_the_columns_of_the_head() {
        let figures = json!({"scenario": "adt", "connections": 32, "acknowledged_per_second": 1234.4,
            "acknowledgement_ms": {"p50": 1.25}, "resident_peak_bytes": 76_000_000});
        let line = line(&figures);
        assert_eq!(line.len(), head().len());
        assert!(line.starts_with("adt          32    1234       -       -    1.25"), "{line}");
    }
}

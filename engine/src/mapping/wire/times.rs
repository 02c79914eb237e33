//! Times, as exact as they came.

use super::{Wire, text};
use crate::{
    fhir::Node,
    hl7::time::{self, Precision, Reading},
    mapping::{current::Current, reading},
};

/// A time as exact as it came, with its offset.
pub(super) fn dtm(node: &Node, current: &Current) -> Option<Wire> {
    let own = reading::text(node);
    Wire::one(moment(if own.is_empty() { text(node, "start") } else { own.to_string() }.as_str(), current))
}

pub(super) fn date(node: &Node, current: &Current) -> Option<Wire> {
    Wire::one(moment(&reading::text(node), current).chars().take(8).collect::<String>())
}

pub(super) fn dr(node: &Node, current: &Current) -> Option<Wire> {
    Wire::of(["start", "end"].map(|name| moment(&text(node, name), current)))
}

/// `2026-01-15T09:30:00.5+01:00` as `20260115093000.5+0100`; empty for what is no time.
pub(super) fn moment(text: &str, current: &Current) -> String {
    let Ok(found) = time::parse(text, &current.zone) else { return String::new() };
    let digits = match found.precision {
        Precision::Year => "%Y",
        Precision::Month => "%Y%m",
        Precision::Day => "%Y%m%d",
        Precision::Hour => "%Y%m%d%H",
        Precision::Minute => "%Y%m%d%H%M",
        Precision::Second | Precision::Fraction(_) => "%Y%m%d%H%M%S",
    };
    let mut written = found.civil.strftime(digits).to_string();
    if let Precision::Fraction(places) = found.precision {
        // A DTM has four digits at most.
        let fraction = format!("{:09}", found.civil.subsec_nanosecond());
        written += &format!(".{}", fraction.get(..usize::from(places.min(4))).unwrap_or_default());
    }
    if found.precision >= Precision::Hour && found.reading == Reading::Stated {
        let seconds = found.offset.seconds();
        let sign = if seconds < 0 { '-' } else { '+' };
        let minutes = seconds.abs() / 60;
        written += &format!("{sign}{:02}{:02}", minutes / 60, minutes % 60);
    }
    written
}

//! Times: DTM, TS, DT, TM and DR as `dateTime`, `date`, `instant`, `time` and `Period`.
//!
//! Sources: the v2-to-FHIR maps DTM[dateTime], DR[Period]; FHIR R4 data types (a dateTime with a time has an offset).
//! Promise:  the precision that was sent is the precision that is given; a time that cannot be read is left out and
//!           reported, never guessed. How times without a zone are read is said in `hl7::time`.
//! Decided:  the offset of MSH-7 holds for the times of the message that have none.

use jiff::{SignedDuration, fmt::strtime::BrokenDownTime, tz::TimeZone};

use super::{Cx, Finding};
use crate::{
    fhir::{Node, name::name},
    hl7::{
        Part, Value,
        time::{self, Precision, Reading, Time},
    },
};

/// Minutes: a year or so. Nothing is booked for longer.
const BOUND: i64 = 600_000;
const BIRTH_TIME: &str = "http://hl7.org/fhir/StructureDefinition/patient-birthTime";

/// DTM as `dateTime`, as precise as it was sent.
pub fn date_time(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    Some(Node::text(read(part, cx)?.date_time()))
}

/// DTM as `date`: the day, month or year.
pub fn date(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    Some(Node::text(read(part, cx)?.date()))
}

/// DTM as `instant`: nothing unless it has a time of day.
pub fn instant(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    read(part, cx)?.instant().map(Node::text)
}

/// An instant so many minutes later, with the same offset; nothing for a text that is none, or too many minutes.
pub fn later(instant: &str, minutes: i64) -> Option<String> {
    let minutes = Some(minutes).filter(|minutes| (-BOUND..=BOUND).contains(minutes))?;
    let form = "%Y-%m-%dT%H:%M:%S%.f%:z";
    let read = BrokenDownTime::parse(form, instant).ok()?;
    let then = read.to_timestamp().ok()?.checked_add(SignedDuration::from_mins(minutes)).ok()?;
    Some(then.to_zoned(TimeZone::fixed(read.offset()?)).strftime(form).to_string())
}

/// TM as `time`: seconds are put where they were not sent, as FHIR wants them.
pub fn time_of_day(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    match time::parse_time_of_day(part.text().trim()) {
        Ok(time) => Some(Node::text(time.time())),
        Err(_) => unreadable(cx),
    }
}

/// DR as `Period`.
pub fn period(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    period_of(part.component(1), part.component(2), cx)
}

/// Two times as `Period`.
#[inline(never)]
pub fn period_of(start: Value<'_>, end: Value<'_>, cx: &Cx<'_>) -> Option<Node> {
    let at = |value: Value<'_>| value.part().and_then(|part| date_time(part, cx));
    if let (Value::Absent | Value::Null, Value::Absent | Value::Null) = (start, end) {
        return None;
    }
    Node::object([(name!("start"), at(start)), (name!("end"), at(end))]).some()
}

/// From when to when a name or an address holds: its start and end, else the range of old versions (DR).
pub(super) fn validity(start: Value<'_>, end: Value<'_>, range: Value<'_>, cx: &Cx<'_>) -> Option<Node> {
    let of_range = || period_of(range.subcomponent(1), range.subcomponent(2), cx);
    period_of(start, end, cx).or_else(of_range)
}

/// DTM as the extension patient-birthTime: when a time of day was sent and is not midnight to the second, which
/// stands for no time at all in the feeds that send it.
pub fn birth_time(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let text = part.text();
    let clock =
        text.trim().get(8..).filter(|clock| clock.bytes().take(2).all(|digit| digit.is_ascii_digit()))?;
    if clock.len() < 2 || clock.bytes().all(|digit| matches!(digit, b'0' | b'.')) {
        return None;
    }
    Some(Node::extension(BIRTH_TIME, name!("valueDateTime"), date_time(part, cx)?))
}

#[inline(never)]
fn read(part: Part<'_>, cx: &Cx<'_>) -> Option<Time> {
    cx.is_of_one_message.set(true);
    let text = part.text();
    let Ok(found) = time::parse(text.trim(), cx.zone) else { return unreadable(cx) };
    if found.reading == Reading::Stated || found.precision <= Precision::Day {
        return Some(found);
    }
    match cx.of_message.zone.get_or_init(|| senders_zone(cx)) {
        Some(zone) => time::parse(text.trim(), zone).ok(),
        None => Some(found),
    }
}

/// The offset of MSH-7, which holds for the whole message, when it is not the one of our own zone at that time: a
/// sender in our zone keeps its summer and winter.
fn senders_zone(cx: &Cx<'_>) -> Option<TimeZone> {
    let sent = cx.message.header(7).text()?;
    // Most senders state none, and looking is quicker than reading.
    if sent.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let sent = time::parse(sent.trim(), cx.zone).ok()?;
    let at_home = sent.reading != Reading::Stated || cx.zone.to_offset(sent.timestamp()?) == sent.offset;
    (!at_home).then(|| TimeZone::fixed(sent.offset))
}

fn unreadable<T>(cx: &Cx<'_>) -> Option<T> {
    cx.report(Finding::Doubtful("a time could not be read and was left out"));
    None
}

#[cfg(test)]
mod tests {
    use super::super::converter_tests::{check, findings};

    #[test]
    fn a_time_that_cannot_be_read_is_left_out_and_reported() {
        assert_eq!(
            findings(None, "DTM", "dateTime", "20261315"),
            ["a time could not be read and was left out"]
        );
        check("DTM", "dateTime", "yesterday", "");
    }

    #[test]
    fn an_end_is_a_start_and_a_duration() {
        let later = |instant, minutes| super::later(instant, minutes);
        assert_eq!(later("2026-02-03T23:50:00+00:00", 20).as_deref(), Some("2026-02-04T00:10:00+00:00"));
        assert_eq!(later("2026-07-03T10:00:00.5+01:00", -60).as_deref(), Some("2026-07-03T09:00:00.5+01:00"));
        assert_eq!(later("2026-02-03", 20), None);
        assert_eq!(later("9999-12-31T23:50:00+00:00", 20), None);
    }
}

//! Tests of times: what is read, what is refused, and agreement with hl7-parser.

use super::*;
use proptest::prelude::*;

fn london() -> TimeZone {
    TimeZone::get("Europe/London").unwrap()
}

fn read(text: &str) -> String {
    match parse(text, &london()) {
        Ok(time) => time.date_time().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_precision_is_kept() {
    for (text, expected) in [
        ("2026", "2026"),
        ("202603", "2026-03"),
        ("20260304", "2026-03-04"),
        ("2026030410", "2026-03-04T10:00:00+00:00"),
        ("202603041015", "2026-03-04T10:15:00+00:00"),
        ("20260304101530", "2026-03-04T10:15:30+00:00"),
        ("20260304101530.1", "2026-03-04T10:15:30.1+00:00"),
        ("20260304101530.1234", "2026-03-04T10:15:30.1234+00:00"),
        ("20260304101530.1234567891", "2026-03-04T10:15:30.123456789+00:00"),
        ("20260704101530.0000", "2026-07-04T10:15:30.0000+01:00"),
        ("20260704101530+0000", "2026-07-04T10:15:30+00:00"),
        ("20260704101530-0030", "2026-07-04T10:15:30-00:30"),
        ("202607041015+05:30", "2026-07-04T10:15:00+05:30"),
        ("20260704+0100", "2026-07-04"),
        ("2026-0500", "2026"),
        ("199401190102", "1994-01-19T01:02:00+00:00"),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
    assert_eq!(parse("20260304", &london()).unwrap().instant(), None);
}

#[test]
fn what_senders_do_is_read_as_documented() {
    for (text, expected) in [
        ("2025-05-05 23:23:32", "2025-05-05T23:23:32+01:00"),
        ("2025-05-05T23:23:32.5Z", "2025-05-05T23:23:32.5+00:00"),
        ("2025-05-05T23:23:32+02:00", "2025-05-05T23:23:32+02:00"),
        ("2025-05-05", "2025-05-05"),
        ("2025-05", "2025-05"),
        ("19760121+", "1976-01-21"),
        ("19760121\u{4}", "1976-01-21"),
        (" 19760121 ", "1976-01-21"),
        ("202601012400", "2026-01-02T00:00:00+00:00"),
        ("20261231240000", "2027-01-01T00:00:00+00:00"),
        ("20161231235960", "2016-12-31T23:59:59+00:00"),
        ("19450000", "1945"),
        ("194500", "1945"),
        ("19450600", "1945-06"),
        ("194506000000", "1945-06"),
        ("202607041015+01", "2026-07-04T10:15:00+01:00"),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn the_rest_is_an_error_with_a_reason() {
    for (text, expected) in [
        ("", "the time is empty"),
        (" \u{4}", "the time is empty"),
        ("hello", "not a time: unexpected character 1"),
        ("202", "not a time: a digit is missing"),
        ("2026030", "not a time: a digit is missing"),
        ("20261301", "not a time: there is no such month"),
        ("20260001", "not a time: there is no such month"),
        ("20260230", "not a time: there is no such day"),
        ("2026030425", "not a time: there is no such hour"),
        ("202603042401", "not a time: there is no such hour"),
        ("202603041060", "not a time: there is no such minute"),
        ("20260304101061", "not a time: there is no such second"),
        ("202603041010+1500", "not a time: there is no such offset"),
        ("202603041010+0160", "not a time: there is no such offset"),
        ("202603041010.5", "not a time: unexpected character 13"),
        ("01/02/2026", "not a time: a digit is missing"),
        ("20260304x", "not a time: unexpected character 9"),
        ("0000", "not a time: there is no such year"),
        ("2026日", "not a time: unexpected character 5"),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn the_repeated_hour_is_its_first_passing_and_the_missing_hour_moves_forward() {
    let repeated = parse("202610250130", &london()).unwrap();
    assert_eq!(
        (repeated.date_time().as_str(), repeated.reading),
        ("2026-10-25T01:30:00+01:00", Reading::Repeated)
    );
    let missing = parse("202603290130", &london()).unwrap();
    assert_eq!(
        (missing.date_time().as_str(), missing.reading),
        ("2026-03-29T02:30:00+01:00", Reading::Missing)
    );
    assert_eq!(missing.timestamp().unwrap().to_string(), "2026-03-29T01:30:00Z");
    let stated = parse("202610250130+0000", &london()).unwrap();
    assert_eq!((stated.date_time().as_str(), stated.reading), ("2026-10-25T01:30:00+00:00", Reading::Stated));
    assert_eq!(parse("20260329", &london()).unwrap().reading, Reading::Zone);
}

#[test]
fn times_of_day_are_read() {
    for (text, expected) in [
        ("10", "10:00:00"),
        ("1015", "10:15:00"),
        ("10:15:30", "10:15:30"),
        ("101530.25+0100", "10:15:30.25"),
    ] {
        assert_eq!(parse_time_of_day(text).unwrap().time(), expected, "{text}");
    }
    for text in ["", "2400", "1", "ab", "1060", "101530x"] {
        assert!(parse_time_of_day(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_errors_are_silent_about_the_text(text in "(\\PC{0,12}|[0-9]{0,26}|[0-9]{4,14}[-+.:TZ 0-9]{0,12})") {
        if let Ok(time) = parse(&text, &london()) {
            prop_assert!(!time.date_time().is_empty());
        }
        let _ = parse_time_of_day(&text);
    }

    #[test]
    fn agrees_with_hl7_parser_where_it_is_sound(
        year in 1000u16..3000, month in 1u8..13, day in 1u8..29, hour in 0u8..24, minute in 0u8..60, second in 0u8..60,
        fraction in proptest::option::of(0u32..10_000), offset in proptest::option::of((1i8..13, 0u8..60)), length in 2usize..7,
    ) {
        let mut text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}");
        text.truncate(2 + 2 * length);
        if let (Some(fraction), 6) = (fraction, length) {
            text += &format!(".{fraction:04}");
        }
        if let (Some((hours, minutes)), true) = (offset, length > 3) {
            text += &format!("+{hours:02}{minutes:02}");
        }
        let theirs = hl7_parser::datetime::parse_timestamp(&text, false).unwrap();
        let ours = parse(&text, &TimeZone::UTC).unwrap();
        prop_assert_eq!(ours.civil.year(), i16::try_from(theirs.year).unwrap());
        prop_assert_eq!(ours.civil.month().unsigned_abs(), theirs.month.unwrap_or(1));
        prop_assert_eq!(ours.civil.day().unsigned_abs(), theirs.day.unwrap_or(1));
        prop_assert_eq!(ours.civil.hour().unsigned_abs(), theirs.hour.unwrap_or(0));
        prop_assert_eq!(ours.civil.minute().unsigned_abs(), theirs.minute.unwrap_or(0));
        prop_assert_eq!(ours.civil.second().unsigned_abs(), theirs.second.unwrap_or(0));
        prop_assert_eq!(ours.civil.subsec_nanosecond().unsigned_abs(), theirs.microsecond.unwrap_or(0) * 1000);
        let seconds = theirs.offset.map_or(0, |offset| i32::from(offset.hours) * 3600 + i32::from(offset.minutes) * 60);
        let applies = ours.precision > Precision::Day;
        prop_assert_eq!(ours.offset.seconds(), if applies { seconds } else { 0 });
    }
}

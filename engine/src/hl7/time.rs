//! Points in time: DTM, TS and DT, and TM, from year to fraction of a second.
//!
//! Promise:  every text gives a reading or a [`TimeError`] that says why, never a guess that is not listed here;
//!           an error holds nothing of the text.
//! Decided, because senders do it:
//! - Without an offset the time is one of the zone that is passed in (Europe/London for the UK). The hour that
//!   comes twice in autumn is taken as its first passing (summer time). A time in the hour that is left out in
//!   spring is read with the offset before the change: 01:30 becomes 02:30 summer time, the same instant.
//! - `2025-05-05 23:23:32`, `2025-05-05T23:23:32.5+01:00` and `2025-05-05` are read as what they are in ISO 8601.
//! - `24:00` is the midnight that ends the day: the next day, 00:00. Second 60 is read as second 59.
//! - Zeros for a month or a day that is not known (`19450000`, `19450600`) lessen the precision.
//! - A sign without an offset behind it (`19760121+`) is passed over; so are blanks and control characters
//!   around the text. An offset of hours alone (`+01`) is one.
//! - An odd number of digits, a day that the month does not have, and anything else is an error.
//!
//! hl7-parser's time stamps are not used: they drop an offset of hours alone, lose the sign of `-0030` and take
//! any month; the tests compare with them where they are sound.

use jiff::{
    Timestamp,
    civil::{self, DateTime},
    tz::{AmbiguousOffset, Offset, TimeZone},
};
use smol_str::SmolStr;

/// How exact a time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// Only the year is known.
    Year,
    /// Year and month.
    Month,
    /// A day.
    Day,
    /// A day and an hour.
    Hour,
    /// Down to the minute.
    Minute,
    /// Down to the second.
    Second,
    /// Down to so many digits of a second, 1 to 9.
    Fraction(u8),
}

/// Where the offset of a time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The sender stated it.
    Stated,
    /// From the zone that was passed in.
    Zone,
    /// From the zone, in the hour that comes twice: the first passing was taken.
    Repeated,
    /// From the zone, in the hour that is left out: moved forward.
    Missing,
}

/// A point in time as exact as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// How exact it is; what is finer is zero, or one for month and day.
    pub precision: Precision,
    /// Date and time of day where it happened.
    pub civil: DateTime,
    /// The offset from UTC at that time.
    pub offset: Offset,
    /// Where the offset comes from.
    pub reading: Reading,
}

/// A time of day as exact as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOfDay {
    /// `Hour` or finer.
    pub precision: Precision,
    /// What is finer than the precision is zero.
    pub civil: civil::Time,
}

/// Why a text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// There is nothing.
    #[error("the time is empty")]
    Empty,
    /// It is not made of digits as a time is.
    #[error("not a time: unexpected character {at}")]
    Unexpected {
        /// The character that is wrong, from 1.
        at: usize,
    },
    /// A pair of digits is cut, or the year has fewer than four.
    #[error("not a time: a digit is missing")]
    Digits,
    /// There is no such month, day, hour, minute, second or offset.
    #[error("not a time: there is no such {0}")]
    OutOfRange(&'static str),
}

/// Reads a DTM, TS or DT; `zone` is for those that do not state their offset.
///
/// # Errors
/// Why it is no time.
pub fn parse(text: &str, zone: &TimeZone) -> Result<Time, TimeError> {
    let mut reader = Reader::new(text)?;
    let (mut precision, date) = reader.date()?;
    let mut civil = date.at(0, 0, 0, 0);
    if precision == Precision::Day && reader.time_follows() {
        let clock = reader.clock()?;
        precision = clock.precision;
        civil = clock.on(date)?;
    }
    let stated = reader.offset()?;
    reader.end()?;
    Ok(match stated {
        Some(offset) => Time { precision, civil, offset, reading: Reading::Stated },
        None => in_zone(precision, civil, zone),
    })
}

/// Reads a TM; an offset behind it is checked and passed over, since a time of day has none in FHIR.
///
/// # Errors
/// Why it is no time of day.
pub fn parse_time_of_day(text: &str) -> Result<TimeOfDay, TimeError> {
    let mut reader = Reader::new(text)?;
    let clock = reader.clock()?;
    reader.offset()?;
    reader.end()?;
    if clock.hour == 24 {
        return Err(TimeError::OutOfRange("hour"));
    }
    let civil = clock.on(civil::date(2000, 1, 1))?.time();
    Ok(TimeOfDay { precision: clock.precision, civil })
}

impl Time {
    /// The day, or what is known of it: `2026`, `2026-03`, `2026-03-04`. A FHIR `date`.
    pub fn date(&self) -> SmolStr {
        let [y1, y2, y3, y4] = four(self.civil.year());
        let ([m1, m2], [d1, d2]) = (two(self.civil.month()), two(self.civil.day()));
        let text = [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2];
        smol(match self.precision {
            Precision::Year => text.first_chunk::<4>().map_or(&[], |year| year.as_slice()),
            Precision::Month => text.first_chunk::<7>().map_or(&[], |month| month.as_slice()),
            _ => &text,
        })
    }

    /// The day, and the time with its offset if it has one: `2026-03-04T10:15:00+00:00`. A FHIR `dateTime`, which
    /// wants seconds wherever there are hours.
    pub fn date_time(&self) -> SmolStr {
        self.instant().unwrap_or_else(|| self.date())
    }

    /// The same as a FHIR `instant`; none if only the day is known.
    pub fn instant(&self) -> Option<SmolStr> {
        if self.precision <= Precision::Day {
            return None;
        }
        let ([y1, y2, y3, y4], civil) = (four(self.civil.year()), self.civil);
        let ([m1, m2], [d1, d2]) = (two(civil.month()), two(civil.day()));
        let [h1, h2, c1, n1, n2, c2, s1, s2] = clock(civil.time());
        let seconds = self.offset.seconds();
        let minutes = seconds.abs() / 60;
        let sign = if seconds < 0 { b'-' } else { b'+' };
        let ([p1, p2], [q1, q2]) = (two(minutes / 60), two(minutes % 60));
        let Precision::Fraction(digits) = self.precision else {
            return Some(smol(&[
                y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, c1, n1, n2, c2, s1, s2, sign, p1,
                p2, b':', q1, q2,
            ]));
        };
        let mut text = String::with_capacity(36);
        text.push_str(&self.date());
        text.push('T');
        push_clock(civil.time(), digits, &mut text);
        text.extend([sign, p1, p2, b':', q1, q2].map(char::from));
        Some(text.into())
    }

    /// The instant at which it begins.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.offset.to_timestamp(self.civil).ok()
    }
}

impl TimeOfDay {
    /// `10:15:00`, a FHIR `time`.
    pub fn time(&self) -> SmolStr {
        match self.precision {
            Precision::Fraction(digits) => {
                let mut text = String::with_capacity(18);
                push_clock(self.civil, digits, &mut text);
                text.into()
            }
            _ => smol(&clock(self.civil)),
        }
    }
}

/// To so many digits of a second.
fn push_clock(time: civil::Time, digits: u8, text: &mut String) {
    text.extend(clock(time).map(char::from));
    text.push('.');
    let end = text.len() + usize::from(digits);
    text.push_str(&format!("{:09}", time.subsec_nanosecond()));
    text.truncate(end);
}

/// `10:15:00`.
fn clock(time: civil::Time) -> [u8; 8] {
    let [h1, h2] = two(time.hour());
    let ([m1, m2], [s1, s2]) = (two(time.minute()), two(time.second()));
    [h1, h2, b':', m1, m2, b':', s1, s2]
}

/// The last two digits of a number that is not negative: many times as quick as a format.
fn two(number: impl Into<i32>) -> [u8; 2] {
    let digit = |number: i32| u8::try_from(number % 10).map_or(b'0', |digit| b'0' + digit);
    let number = number.into();
    [digit(number / 10), digit(number)]
}

fn four(number: i16) -> [u8; 4] {
    let ([a, b], [c, d]) = (two(number / 100), two(number % 100));
    [a, b, c, d]
}

fn smol(digits: &[u8]) -> SmolStr {
    std::str::from_utf8(digits).unwrap_or_default().into()
}

fn in_zone(precision: Precision, civil: DateTime, zone: &TimeZone) -> Time {
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    let (offset, reading, civil) = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => (offset, Reading::Zone, civil),
        AmbiguousOffset::Fold { before, .. } => (before, Reading::Repeated, civil),
        AmbiguousOffset::Gap { before, after } => {
            let moved = before.to_timestamp(civil).map(|instant| after.to_datetime(instant));
            (after, Reading::Missing, moved.unwrap_or(civil))
        }
    };
    // A day has no missing or repeated hour to speak of, even where one begins at midnight.
    let reading = if precision <= Precision::Day { Reading::Zone } else { reading };
    Time { precision, civil, offset, reading }
}

/// A time of day as sent; the hour may be 24.
struct Clock {
    precision: Precision,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
}

impl Clock {
    fn on(&self, date: civil::Date) -> Result<DateTime, TimeError> {
        let (date, hour) = match (self.hour, self.minute, self.second, self.nanosecond) {
            (24, 0, 0, 0) => (date.tomorrow().map_err(|_| TimeError::OutOfRange("day"))?, 0),
            (hour @ 0..=23, ..) => (date, hour),
            _ => return Err(TimeError::OutOfRange("hour")),
        };
        if !(0..=59).contains(&self.minute) {
            return Err(TimeError::OutOfRange("minute"));
        }
        let second = if self.second == 60 { 59 } else { self.second };
        let time = civil::Time::new(hour, self.minute, second, self.nanosecond);
        Ok(date.to_datetime(time.map_err(|_| TimeError::OutOfRange("second"))?))
    }
}

struct Reader<'t> {
    rest: &'t [u8],
    length: usize,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Result<Self, TimeError> {
        let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control()).as_bytes();
        if text.is_empty() { Err(TimeError::Empty) } else { Ok(Self { rest: text, length: text.len() }) }
    }

    fn date(&mut self) -> Result<(Precision, civil::Date), TimeError> {
        let (high, low) = (self.pair()?.ok_or(self.unexpected())?, self.pair()?.ok_or(TimeError::Digits)?);
        let year = i16::from(high) * 100 + i16::from(low);
        if year == 0 {
            return Err(TimeError::OutOfRange("year"));
        }
        // `-05` and `-05-04` are ISO 8601, `-0500` is an offset.
        let dashed = matches!(self.rest, [b'-', _, _] | [b'-', _, _, b'-', ..]) && self.accept(b"-");
        let Some(month) = self.pair()? else { return Ok((Precision::Year, civil::date(year, 1, 1))) };
        let day = if dashed && !self.accept(b"-") { None } else { self.pair()? };
        self.day(year, month, day)
    }

    fn day(&mut self, year: i16, month: i8, day: Option<i8>) -> Result<(Precision, civil::Date), TimeError> {
        let zeros = self.rest.iter().all(|byte| *byte == b'0');
        let (precision, month, day) = match (month, day) {
            (0, None | Some(0)) if zeros => (Precision::Year, 1, 1),
            (month, Some(0)) if zeros => (Precision::Month, month, 1),
            (month, None) => (Precision::Month, month, 1),
            (month, Some(day)) => (Precision::Day, month, day),
        };
        if zeros && precision < Precision::Day {
            self.rest = &[];
        }
        if !(1..=12).contains(&month) {
            return Err(TimeError::OutOfRange("month"));
        }
        let date = civil::Date::new(year, month, day).map_err(|_| TimeError::OutOfRange("day"))?;
        Ok((precision, date))
    }

    /// Whether a time of day comes next; passes over the `T` or blank of ISO 8601.
    fn time_follows(&mut self) -> bool {
        self.accept(b"T ");
        self.rest.first().is_some_and(u8::is_ascii_digit)
    }

    fn clock(&mut self) -> Result<Clock, TimeError> {
        let hour = self.pair()?.ok_or(self.unexpected())?;
        let mut clock = Clock { precision: Precision::Hour, hour, minute: 0, second: 0, nanosecond: 0 };
        self.accept(b":");
        let Some(minute) = self.pair()? else { return Ok(clock) };
        clock.precision = Precision::Minute;
        clock.minute = minute;
        self.accept(b":");
        let Some(second) = self.pair()? else { return Ok(clock) };
        clock.precision = Precision::Second;
        clock.second = second;
        if self.accept(b".,") {
            let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (fraction, rest) = self.rest.split_at_checked(digits).unwrap_or((self.rest, &[]));
            self.rest = rest;
            let kept = fraction.iter().take(9);
            let places = u8::try_from(kept.len()).unwrap_or(9);
            let value = kept.fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
            clock.nanosecond = value * 10i32.pow(9 - u32::from(places));
            if places > 0 {
                clock.precision = Precision::Fraction(places);
            }
        }
        Ok(clock)
    }

    fn offset(&mut self) -> Result<Option<Offset>, TimeError> {
        self.accept(b" ");
        if self.accept(b"Zz") {
            return Ok(Some(Offset::UTC));
        }
        let sign = match self.rest.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Ok(None),
        };
        self.accept(b"+-");
        let Some(hours) = self.pair()? else { return Ok(None) };
        self.accept(b":");
        let minutes = self.pair()?.unwrap_or(0);
        if hours > 14 || minutes > 59 {
            return Err(TimeError::OutOfRange("offset"));
        }
        let seconds = sign * (i32::from(hours) * 60 + i32::from(minutes)) * 60;
        Offset::from_seconds(seconds).map(Some).map_err(|_| TimeError::OutOfRange("offset"))
    }

    fn end(&self) -> Result<(), TimeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Two digits; none if there is no digit.
    fn pair(&mut self) -> Result<Option<i8>, TimeError> {
        match self.rest {
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] => {
                self.rest = rest;
                let value = (tens - b'0') * 10 + (ones - b'0');
                Ok(i8::try_from(value).ok())
            }
            [b'0'..=b'9', ..] => Err(TimeError::Digits),
            _ => Ok(None),
        }
    }

    fn accept(&mut self, any: &[u8]) -> bool {
        match self.rest {
            [first, rest @ ..] if any.contains(first) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn unexpected(&self) -> TimeError {
        TimeError::Unexpected { at: self.length - self.rest.len() + 1 }
    }
}

#[cfg(test)]
#[path = "time_tests.rs"]
mod tests;

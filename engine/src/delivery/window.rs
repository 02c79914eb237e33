//! Maintenance windows: times of the local day in which a destination is left alone.
//!
//! A window belongs to the day on which it begins and may go over midnight. Where the clocks change, the widest
//! reading counts: it begins at the earlier and ends at the later of the times that could be meant. Pure.

use std::fmt;

use jiff::{
    Timestamp,
    civil::{Date, Weekday},
    tz::TimeZone,
};

const DAY_MINUTES: u16 = 24 * 60;

/// A time of the day in which a destination is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days on which it begins.
    days: Vec<Weekday>,
    /// Minutes after midnight.
    from: u16,
    /// Minutes after the midnight before `from`; later than it.
    to: u16,
}

/// The windows of one destination, in the zone of the instance.
#[derive(Clone, PartialEq)]
pub struct Windows {
    zone: TimeZone,
    windows: Vec<Window>,
}

impl Window {
    /// A window from one time of the day to another, which is the next day's if it is not later.
    ///
    /// # Errors
    /// What is wrong: a time that is none, or a window without length.
    pub fn new(days: Vec<Weekday>, from: &str, to: &str) -> Result<Self, String> {
        let (from, to) = (minutes(from)?, minutes(to)?);
        if from == DAY_MINUTES {
            return Err("a window cannot begin at 24:00: write 00:00 and the next day".to_owned());
        }
        match from == to {
            true => Err("the window begins when it ends: for a whole day write 00:00 to 24:00".to_owned()),
            false => Ok(Self { days, from, to: if to < from { to + DAY_MINUTES } else { to } }),
        }
    }

    fn on(&self, day: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        if !self.days.contains(&day.weekday()) {
            return None;
        }
        Some((instant(day, self.from, zone, false)?, instant(day, self.to, zone, true)?))
    }
}

impl Windows {
    /// Windows in a zone.
    pub fn new(zone: TimeZone, windows: Vec<Window>) -> Self {
        Self { zone, windows }
    }

    /// The same windows in another zone.
    #[must_use]
    pub fn in_zone(self, zone: TimeZone) -> Self {
        Self { zone, ..self }
    }

    /// If `now` is in a window: when it ends.
    pub fn inside(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(self.zone.clone()).date();
        // A window that began yesterday may still be open; one of tomorrow may begin early, where clocks go back.
        let days = [today.yesterday().ok(), Some(today), today.tomorrow().ok()];
        let open = days
            .into_iter()
            .flatten()
            .flat_map(|day| self.windows.iter().filter_map(move |window| window.on(day, &self.zone)))
            .filter(|(from, to)| (*from..*to).contains(&now));
        open.map(|(_, to)| to).max()
    }
}

impl fmt::Debug for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Windows").field(&self.windows).finish()
    }
}

/// `02:00` in minutes after midnight; up to `24:00`.
fn minutes(text: &str) -> Result<u16, String> {
    let parts = text.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2);
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    parts
        .and_then(|(hours, minutes)| Some((number(hours)?, number(minutes)?)))
        .filter(|(hours, minutes)| *minutes < 60 && hours * 60 + minutes <= DAY_MINUTES)
        .map(|(hours, minutes)| hours * 60 + minutes)
        .ok_or_else(|| format!("`{text}` is no time of the day such as 02:30"))
}

fn instant(day: Date, minutes: u16, zone: &TimeZone, later: bool) -> Option<Timestamp> {
    let (days, minutes) = (minutes / DAY_MINUTES, minutes % DAY_MINUTES);
    let day = if days == 0 { day } else { day.tomorrow().ok()? };
    let time = day.at(i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?, 0, 0);
    let meant = zone.to_ambiguous_zoned(time);
    let meant = if later { meant.later() } else { meant.earlier() };
    Some(meant.ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};

    const EVERY_DAY: [Weekday; 7] = [Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday];

    fn windows(days: &[Weekday], from: &str, to: &str) -> Windows {
        let zone = TimeZone::get("Europe/London").unwrap();
        Windows::new(zone, vec![Window::new(days.to_vec(), from, to).unwrap()])
    }

    /// When the window that this moment is in ends, in UTC.
    fn ends(windows: &Windows, now: &str) -> Option<String> {
        windows.inside(now.parse().unwrap()).map(|end| end.to_string())
    }

    fn some(end: &str) -> Option<String> {
        Some(end.to_owned())
    }

    #[test]
    fn a_window_is_in_local_time_and_on_its_days() {
        let sundays = windows(&[Sunday], "02:00", "04:30");
        // 2026-03-01 and 2026-07-05 are Sundays, in winter and in summer.
        assert_eq!(ends(&sundays, "2026-03-01T01:59:59Z"), None);
        assert_eq!(ends(&sundays, "2026-03-01T02:00:00Z"), some("2026-03-01T04:30:00Z"));
        assert_eq!(ends(&sundays, "2026-03-01T04:30:00Z"), None, "the end is outside");
        assert_eq!(ends(&sundays, "2026-07-05T01:00:00Z"), some("2026-07-05T03:30:00Z"));
        assert_eq!(ends(&sundays, "2026-07-05T03:45:00Z"), None);
        assert_eq!(ends(&sundays, "2026-03-02T03:00:00Z"), None, "a Monday");
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let fridays = windows(&[Friday], "22:00", "06:00");
        assert_eq!(ends(&fridays, "2026-03-06T21:59:00Z"), None);
        assert_eq!(ends(&fridays, "2026-03-06T23:00:00Z"), some("2026-03-07T06:00:00Z"));
        assert_eq!(ends(&fridays, "2026-03-07T05:59:00Z"), some("2026-03-07T06:00:00Z"));
        assert_eq!(ends(&fridays, "2026-03-06T05:00:00Z"), None, "Thursday's night");
        let whole = windows(&[Friday], "00:00", "24:00");
        assert_eq!(ends(&whole, "2026-03-06T23:59:59Z"), some("2026-03-07T00:00:00Z"));
        assert_eq!(ends(&whole, "2026-03-07T00:00:00Z"), None);
    }

    #[test]
    fn where_clocks_change_the_widest_reading_counts() {
        // 2026-03-29: 01:00 GMT is 02:00 BST, so 01:30 does not exist. 2026-10-25: 01:30 comes twice.
        let ends_in_the_gap = windows(&EVERY_DAY, "00:30", "01:30");
        assert_eq!(ends(&ends_in_the_gap, "2026-03-29T00:45:00Z"), some("2026-03-29T01:30:00Z"));
        let begins_in_the_gap = windows(&EVERY_DAY, "01:30", "03:00");
        assert_eq!(ends(&begins_in_the_gap, "2026-03-29T01:00:00Z"), some("2026-03-29T02:00:00Z"));
        let within_the_gap = windows(&EVERY_DAY, "01:10", "01:50");
        assert!(ends(&within_the_gap, "2026-03-29T00:55:00Z").is_some(), "it is not left out");
        let twice = windows(&EVERY_DAY, "01:15", "01:45");
        for now in ["2026-10-25T00:15:00Z", "2026-10-25T00:50:00Z", "2026-10-25T01:44:00Z"] {
            assert_eq!(ends(&twice, now), some("2026-10-25T01:45:00Z"), "{now}: one window without a hole");
        }
        assert_eq!(ends(&twice, "2026-10-25T00:14:00Z"), None);
        let over = windows(&EVERY_DAY, "23:00", "02:00");
        assert_eq!(ends(&over, "2026-03-28T23:30:00Z"), some("2026-03-29T01:00:00Z"), "an hour shorter");
        assert_eq!(ends(&over, "2026-10-24T23:00:00Z"), some("2026-10-25T02:00:00Z"), "an hour longer");
    }

    #[test]
    fn overlapping_windows_end_with_the_last() {
        let zone = TimeZone::UTC;
        let window = |from, to| Window::new(EVERY_DAY.to_vec(), from, to).unwrap();
        let both = Windows::new(zone, vec![window("01:00", "03:00"), window("02:00", "05:00")]);
        assert_eq!(ends(&both, "2026-03-01T01:30:00Z"), some("2026-03-01T03:00:00Z"));
        assert_eq!(ends(&both, "2026-03-01T02:30:00Z"), some("2026-03-01T05:00:00Z"));
        assert_eq!(ends(&Windows::new(TimeZone::UTC, Vec::new()), "2026-03-01T02:30:00Z"), None);
    }

    #[test]
    fn what_is_no_window_is_told() {
        for (from, to, what) in [
            ("2:00", "04:00", "`2:00` is no time"),
            ("02:60", "04:00", "`02:60` is no time"),
            ("02:00", "24:01", "`24:01` is no time"),
            ("+2:00", "04:00", "`+2:00` is no time"),
            ("02:00", "02:00", "begins when it ends"),
            ("24:00", "02:00", "cannot begin at 24:00"),
        ] {
            let error = Window::new(EVERY_DAY.to_vec(), from, to).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }
}

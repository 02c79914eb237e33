//! How long and how often, as HL7 writes it in a word: `10D`, `D10`, `30 min`; `Q6H`, `Q1J2`, `5ID`.
//!
//! `span_of(text)` gives a number and its UCUM unit by the table `time-unit`, `()` when it is none. `pattern_of(word)` gives
//! what `Timing.repeat` has of a repeat pattern (table 0335) that is no row of a table, an empty map when it is none.
//! `whole(text)` gives a whole number above zero of up to six digits, else `()`; `minutes_of(text)` the minutes of a span of
//! whole units. `end_of(start, count, unit)` is when it ends that begins then and lasts so many units: of an instant the
//! instant, of a day its last day, for the end of a Period is within it; `()` for hours from a day, and what is no time.

use jiff::{Span, civil::Date, fmt::strtime::BrokenDownTime, tz::TimeZone};
use rhai::{EvalAltResult, INT};
use smol_str::{SmolStr, format_smolstr};

use super::{
    current::{Current, with},
    datum::Datum,
    host::Host,
    pairs::Map,
};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const INSTANT: &str = "%Y-%m-%dT%H:%M:%S%.f%:z";

/// Gives scripts all of them.
pub(super) fn register(host: &mut Host) {
    host.register_fn("whole", |text: SmolStr| whole(&text))
        .register_fn("end_of", |start: SmolStr, count: SmolStr, unit: SmolStr| {
            whole(&count).and_then(|count| end_of(&start, count, &unit))
        })
        .register_fn("minutes_of", |text: SmolStr| -> Result<Option<INT>> {
            with(|current| Ok(span_of(&text, current).and_then(|span| minutes_of(&span))))
        })
        .register_fn("span_of", |text: SmolStr| -> Result<Datum> {
            with(|current| Ok(span_of(&text, current).map_or(Datum::Unit, |span| span.into_datum())))
        })
        .register_fn("pattern_of", |word: SmolStr| -> Result<Datum> {
            with(|current| Ok(pattern_of(&word, current).unwrap_or_default().into_datum()))
        });
}

impl Map {
    fn with(mut self, name: &str, value: impl Into<Datum>) -> Self {
        *self.entry(name) = value.into();
        self
    }

    fn into_datum(self) -> Datum {
        Datum::Map(std::sync::Arc::new(self))
    }
}

fn whole(text: &str) -> Option<INT> {
    let digits = text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0)
}

fn span_of(text: &str, current: &Current) -> Option<Map> {
    let is_number = |letter: &char| letter.is_ascii_digit() || *letter == '.';
    let (number, unit): (String, String) =
        text.to_uppercase().chars().filter(|letter| *letter != ' ').partition(is_number);
    let code = unit_of(&unit, current)?;
    (!["", ".", "0"].contains(&number.as_str()))
        .then(|| Map::default().with("code", code).with("value", SmolStr::from(number)))
}

fn minutes_of(span: &Map) -> Option<INT> {
    let [Datum::Text(count), Datum::Text(unit)] = [span.get("value")?, span.get("code")?] else {
        return None;
    };
    let minutes = match unit.as_str() {
        "min" => 1,
        "h" => 60,
        "d" => 1440,
        "wk" => 10080,
        _ => return None,
    };
    whole(count)?.checked_mul(minutes)
}

fn end_of(start: &str, count: INT, unit: &str) -> Option<SmolStr> {
    let (count, unit) = if unit == "h" && count % 24 == 0 { (count / 24, "d") } else { (count, unit) };
    let span = match unit {
        "min" => Span::new().try_minutes(count),
        "h" => Span::new().try_hours(count),
        "d" => Span::new().try_days(count),
        "wk" => Span::new().try_weeks(count),
        "mo" => Span::new().try_months(count),
        "a" => Span::new().try_years(count),
        _ => return None,
    };
    if start.len() == "2026-02-03".len() {
        let day: Date = start.parse().ok().filter(|_| !matches!(unit, "min" | "h"))?;
        return Some(format_smolstr!("{}", day.checked_add(span.ok()?).ok()?.yesterday().ok()?));
    }
    let read = BrokenDownTime::parse(INSTANT, start).ok()?;
    let start = read.to_timestamp().ok()?.to_zoned(TimeZone::fixed(read.offset()?));
    Some(format_smolstr!("{}", start.checked_add(span.ok()?).ok()?.strftime(INSTANT)))
}

fn unit_of(unit: &str, current: &Current) -> Option<SmolStr> {
    current.tables.get("time-unit")?.own(unit)?.code().cloned()
}

fn pattern_of(word: &str, current: &Current) -> Option<Map> {
    let every = |times: INT, count: INT, unit: SmolStr| {
        let period = format_smolstr!("{count}");
        Map::default().with("frequency", times).with("period", period).with("periodUnit", unit)
    };
    if let Some(times) = word.strip_suffix("ID").filter(|times| !times.is_empty()) {
        return Some(every(whole(times)?, 1, "d".into()));
    }
    let rest = word.strip_prefix('Q')?;
    // `Q2J135`: every second week, on the days 1, 3 and 5, of which Monday is the first.
    if let Some((weeks, days)) = rest.split_once('J') {
        let weeks = if weeks.is_empty() { 1 } else { whole(weeks)? };
        let day = |letter: char| {
            DAYS.get(letter.to_digit(10)?.checked_sub(1)? as usize)
                .map(|day| Datum::from(SmolStr::from(*day)))
        };
        let days = days.chars().map(day).collect::<Option<Vec<_>>>().filter(|days| !days.is_empty())?;
        return Some(every(1, weeks, "wk".into()).with("dayOfWeek", days));
    }
    // Without a number only these are known to be of a time: QS is "enough", QM the morning or the month.
    let number = match rest {
        "H" | "D" | "W" => 1,
        _ => whole(rest.get(..rest.len().checked_sub(1)?)?)?,
    };
    Some(every(1, number, unit_of(rest.get(rest.len() - 1..)?, current)?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_end_is_a_start_and_so_many_units() {
        for (start, count, unit, end) in [
            ("2026-03-01", 7, "d", Some("2026-03-07")),
            ("2026-03-01", 48, "h", Some("2026-03-02")),
            ("2026-01-31", 1, "mo", Some("2026-02-27")),
            ("2026-03-01", 36, "h", None),
            ("2026-03-01T09:00:00+00:00", 36, "h", Some("2026-03-02T21:00:00+00:00")),
            ("2026-03", 7, "d", None),
        ] {
            assert_eq!(super::end_of(start, count, unit).as_deref(), end, "{start} {count} {unit}");
        }
    }
}

//! Times, sizes and rates as people write them: `"30s"`, `"5m"`, `"16MB"`, `"50/s"`.
//!
//! Promises: no unit, no number; what is printed reads back as the same quantity.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time: a whole number and `ms`, `s`, `m`, `h` or `d`, or several of them as in `1h30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Period(pub Duration);

/// A number of bytes: a whole number and `B`, `kB`, `MB`, `GB` (thousands) or `KiB`, `MiB`, `GiB` (1024s).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

const PERIOD: &str = "a length of time such as \"500ms\", \"30s\", \"5m\", \"24h\" or \"7d\"";
const SIZE: &str = "a size such as \"64kB\" or \"16MB\"";

/// So many a time: a whole number and `/s`, `/m` or `/h`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    number: u32,
    unit: &'static str,
    seconds: u32,
}

const RATE: &str = "a rate such as \"50/s\", \"600/m\" or \"1000/h\"";

/// Units of a rate, in seconds.
const RATE_UNITS: [(&str, u32); 3] = [("s", 1), ("m", 60), ("h", 3_600)];

/// Units by falling length, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units by falling size, in bytes.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl Period {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl Rate {
    /// So many in one second.
    pub fn per_second(self) -> f64 {
        f64::from(self.number) / f64::from(self.seconds)
    }
}

impl ByteSize {
    /// As a count of bytes in memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Period {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        let mut total = 0_u64;
        let mut last = u64::MAX;
        while !rest.is_empty() || last == u64::MAX {
            let (number, after) = leading_number(rest).ok_or(PERIOD)?;
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at_checked(end).ok_or(PERIOD)?;
            let (_, size) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or(PERIOD)?;
            if *size >= last {
                return Err(PERIOD);
            }
            total = number.checked_mul(*size).and_then(|part| total.checked_add(part)).ok_or(PERIOD)?;
            last = *size;
            rest = after;
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl FromStr for ByteSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = leading_number(text).ok_or(SIZE)?;
        let (_, size) = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim_start()).ok_or(SIZE)?;
        number.checked_mul(*size).map(Self).ok_or(SIZE)
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = text.split_once('/').ok_or(RATE)?;
        let (unit, seconds) = RATE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(RATE)?;
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|number| digits && *number > 0).ok_or(RATE)?;
        Ok(Self { number, unit, seconds: *seconds })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.unit)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in TIME_UNITS {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZE_UNITS.iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        let (unit, size) = whole.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

macro_rules! written_as_text {
    ($type:ty, $name:literal, $expected:expr, $pattern:literal) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

written_as_text!(Period, "Period", PERIOD, "^([0-9]+(ms|s|m|h|d))+$");
written_as_text!(Rate, "Rate", RATE, "^[0-9]+/(s|m|h)$");
written_as_text!(ByteSize, "ByteSize", SIZE, "^[0-9]+ ?(B|kB|MB|GB|KiB|MiB|GiB)$");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn periods_read_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(text.parse::<Period>().map(|period| period.0.as_millis()), Ok(millis), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "30 s",
            "-1s",
            "1.5s",
            "1s1s",
            "1s1h",
            "1w",
            "99999999999999999999s",
            "30000000000000000d",
        ] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in
            [("512B", 512), ("64kB", 64_000), ("16MB", 16_000_000), ("16 MiB", 16 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(text.parse::<ByteSize>().map(|size| size.0), Ok(bytes), "{text}");
        }
        for text in ["", "16", "MB", "16mb", "1.5MB", "-1B", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_read_as_people_write_them() {
        for (text, per_second) in [("50/s", 50.0), ("600/m", 10.0), ("1800/h", 0.5)] {
            let rate: Rate = text.parse().unwrap();
            assert!((rate.per_second() - per_second).abs() < 1e-9, "{text}");
            assert_eq!(rate.to_string(), text);
        }
        for text in ["", "50", "50/", "/s", "0/s", "+5/s", "1.5/s", "50/d", "50 / s", "99999999999/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(number in 0..u64::MAX / 2) {
            prop_assert_eq!(Period(Duration::from_millis(number)).to_string().parse(), Ok(Period(Duration::from_millis(number))));
            prop_assert_eq!(ByteSize(number).to_string().parse(), Ok(ByteSize(number)));
        }
    }
}

//! Reads time stamps until `hl7::time` lands; then this file goes.
use jiff::{civil::DateTime, tz::TimeZone};
pub struct Time {
    text: String,
    len: usize,
    dt: DateTime,
    zone: TimeZone,
}
pub fn parse(text: &str, zone: &TimeZone) -> Result<Time, ()> {
    let text: String = text.chars().filter(|c| !matches!(c, ':' | ' ' | 'T')).collect();
    let (head, off) = match text.char_indices().skip(8).find(|(_, c)| matches!(c, '+' | '-' | 'Z')) {
        Some((i, _)) => text.split_at(i),
        None => (text.as_str(), ""),
    };
    let head: String = if head.len() >= 10 && head.as_bytes().get(4) == Some(&b'-') {
        head.replace('-', "")
    } else {
        head.to_owned()
    };
    let (d, frac) = head.split_once('.').unwrap_or((&head, ""));
    if !d.bytes().all(|b| b.is_ascii_digit()) || !matches!(d.len(), 4 | 6 | 8 | 10 | 12 | 14) {
        return Err(());
    }
    let n = |a: usize, b: usize, or: i16| d.get(a..b).and_then(|t| t.parse::<i16>().ok()).unwrap_or(or);
    let nanos: i32 = format!("{frac:0<9}").get(..9).and_then(|t| t.parse().ok()).ok_or(())?;
    let dt = DateTime::new(
        n(0, 4, 0),
        n(4, 6, 1) as i8,
        n(6, 8, 1) as i8,
        n(8, 10, 0) as i8,
        n(10, 12, 0) as i8,
        n(12, 14, 0) as i8,
        nanos,
    )
    .map_err(|_| ())?;
    let zone = match off.len() {
        5 => {
            let h: i32 = off.get(1..3).and_then(|t| t.parse().ok()).ok_or(())?;
            let m: i32 = off.get(3..5).and_then(|t| t.parse().ok()).ok_or(())?;
            let s = (h * 60 + m) * 60 * if off.starts_with('-') { -1 } else { 1 };
            TimeZone::fixed(jiff::tz::Offset::from_seconds(s).map_err(|_| ())?)
        }
        0 => zone.clone(),
        _ if d.len() <= 8 => zone.clone(),
        _ => return Err(()),
    };
    Ok(Time { len: d.len(), text: frac.to_owned(), dt, zone })
}
impl Time {
    pub fn date(&self) -> String {
        self.dt
            .strftime(match self.len {
                4 => "%Y",
                6 => "%Y-%m",
                _ => "%Y-%m-%d",
            })
            .to_string()
    }
    pub fn date_time(&self) -> String {
        self.instant().unwrap_or_else(|| self.date())
    }
    pub fn instant(&self) -> Option<String> {
        if self.len < 10 {
            return None;
        }
        let z = self.dt.to_zoned(self.zone.clone()).ok()?;
        let frac = if self.text.is_empty() { String::new() } else { format!(".{}", self.text) };
        Some(format!("{}{frac}{}", z.strftime("%Y-%m-%dT%H:%M:%S"), z.strftime("%:z")))
    }
}

//! The names of segments, fields and components by version, and which fields are required: facts to check mappings and
//! messages of our own with, and to show messages by.
//!
//! Promise:  a place that the standard has in any version from 2.1 to 2.8.2 is known with its name, data type and
//!           whether it repeats; a version that is not known is read as the nearest one before it.
//! Not here: whether a message keeps to the standard (nothing here judges), local Z segments.
//! Source:   `facts.txt`, made by `ops/make-hl7-dictionary`; segment names as in the standard's chapter headings.

use std::{collections::HashMap, sync::LazyLock};

mod segments;

/// The versions that are known, oldest first.
pub const VERSIONS: [&str; 12] =
    ["2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2"];

/// A field of a segment or a component of a data type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its number, from 1.
    pub number: usize,
    /// Its name: `Patient Identifier List`.
    pub name: &'static str,
    /// Its data type: `CX`; `varies` where another field tells.
    pub data_type: &'static str,
    /// Whether it may repeat.
    pub repeats: bool,
    /// Whether a segment may not be without this field; not known of components.
    pub required: bool,
    first: usize,
    last: usize,
}

/// What a segment is called: `Patient Identification`.
pub fn segment_name(segment: &str) -> Option<&'static str> {
    segments::NAMES.iter().find(|(name, _)| *name == segment).map(|(_, meaning)| *meaning)
}

/// Whether the standard has the segment in some version.
pub fn has_segment(segment: &str) -> bool {
    FACTS.segments.contains_key(segment)
}

/// Whether the standard has the data type, with components, in some version.
pub fn has_components(data_type: &str) -> bool {
    FACTS.types.contains_key(data_type)
}

/// A field in a version of the standard, or in the newest that has it.
pub fn field(version: Option<&str>, segment: &str, number: usize) -> Option<Member> {
    find(FACTS.segments.get(segment)?, version, number)
}

/// The fields of a segment in a version, or of all versions in their newest form, by number.
pub fn fields(version: Option<&str>, segment: &str) -> Vec<Member> {
    FACTS.segments.get(segment).map(|members| all(members, version)).unwrap_or_default()
}

/// A component of a data type in a version of the standard, or in the newest that has it.
pub fn component(version: Option<&str>, data_type: &str, number: usize) -> Option<Member> {
    find(FACTS.types.get(data_type)?, version, number)
}

/// The components of a data type in a version, or of all versions in their newest form, by number.
pub fn components(version: Option<&str>, data_type: &str) -> Vec<Member> {
    FACTS.types.get(data_type).map(|members| all(members, version)).unwrap_or_default()
}

/// Everything in `facts.txt`. Members are sorted by number, then by version.
struct Facts {
    segments: HashMap<&'static str, Vec<Member>>,
    types: HashMap<&'static str, Vec<Member>>,
}

static FACTS: LazyLock<Facts> = LazyLock::new(|| read(include_str!("facts.txt")));

fn read(text: &'static str) -> Facts {
    let mut facts = Facts { segments: HashMap::new(), types: HashMap::new() };
    let mut current: Option<&mut Vec<Member>> = None;
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('=') {
            current = Some(facts.segments.entry(name).or_default());
        } else if let Some(name) = line.strip_prefix(':') {
            current = Some(facts.types.entry(name).or_default());
        } else if let (Some(members), Some(member)) = (current.as_deref_mut(), member(line)) {
            members.push(member);
        }
    }
    facts
}

/// `3 3b CX * Patient Identifier List`
fn member(line: &'static str) -> Option<Member> {
    let mut words = line.splitn(5, ' ');
    let number = words.next()?.parse().ok()?;
    let mut versions = words.next()?.chars().map(|digit| digit.to_digit(16).unwrap_or_default() as usize);
    let (first, last) = (versions.next()?, versions.next()?);
    let data_type = words.next().filter(|kind| *kind != "-").unwrap_or("varies");
    let repetition = words.next()?;
    let (repeats, required) = (matches!(repetition, "*" | "+"), matches!(repetition, "1" | "+"));
    Some(Member { number, name: words.next().unwrap_or_default(), data_type, repeats, required, first, last })
}

fn find(members: &[Member], version: Option<&str>, number: usize) -> Option<Member> {
    let fits = covers(version);
    members.iter().rfind(|member| member.number == number && fits(member)).copied()
}

fn all(members: &[Member], version: Option<&str>) -> Vec<Member> {
    let fits = covers(version);
    let mut found: Vec<Member> = Vec::new();
    for member in members.iter().filter(|member| fits(member)) {
        match found.last_mut() {
            Some(last) if last.number == member.number => *last = *member,
            _ => found.push(*member),
        }
    }
    found
}

fn covers(version: Option<&str>) -> impl Fn(&Member) -> bool {
    let place = version.and_then(place);
    move |member| place.is_none_or(|place| (member.first..=member.last).contains(&place))
}

/// The place of a version in [`VERSIONS`], or of the nearest one before it; none when it is no version.
fn place(version: &str) -> Option<usize> {
    let numbers =
        |text: &str| text.trim().split('.').map(str::parse::<u16>).collect::<Result<Vec<_>, _>>().ok();
    let wanted = numbers(version)?;
    VERSIONS.iter().rposition(|known| numbers(known).is_some_and(|known| known <= wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_known_by_version() {
        let newest = field(None, "PID", 3).unwrap();
        assert_eq!((newest.name, newest.data_type, newest.repeats), ("Patient Identifier List", "CX", true));
        assert_eq!(field(Some("2.1"), "PID", 3).unwrap().data_type, "CK");
        assert!(newest.required && !field(None, "PID", 4).unwrap().required);
        assert!(
            !field(Some("2.3"), "ORC", 1).unwrap().repeats && field(Some("2.3"), "ORC", 7).unwrap().required
        );
        assert_eq!(field(Some("2.4"), "OBX", 3).unwrap().data_type, "CE");
        assert_eq!(field(Some("2.8.2"), "OBX", 3).unwrap().data_type, "CWE");
        assert_eq!(field(Some("2.5.9"), "OBX", 3), field(Some("2.5.1"), "OBX", 3));
        assert_eq!(field(Some("2.9"), "OBX", 3), field(Some("2.8.2"), "OBX", 3));
        assert_eq!(field(Some("v2"), "OBX", 3), field(None, "OBX", 3));
        assert_eq!(field(None, "OBX", 5).unwrap().data_type, "varies");
        assert_eq!(field(None, "PID", 99), None);
        assert_eq!(field(None, "ZZZ", 1), None);
    }

    #[test]
    fn components_are_known() {
        let authority = component(Some("2.5"), "CX", 4).unwrap();
        assert_eq!((authority.name, authority.data_type), ("Assigning Authority", "HD"));
        assert_eq!(components(Some("2.5"), "HD").len(), 3);
        assert!(has_components("XPN") && !has_components("ST"));
    }

    #[test]
    fn every_fact_is_sound() {
        for (name, members) in FACTS.segments.iter().chain(&FACTS.types) {
            assert!(!members.is_empty(), "{name}");
            assert!(
                members
                    .windows(2)
                    .all(|pair| (pair[0].number, pair[0].last) < (pair[1].number, pair[1].first + 1)),
                "{name}"
            );
            assert!(members.iter().all(|one| one.first <= one.last && one.last < VERSIONS.len()), "{name}");
        }
        assert!(FACTS.segments.len() > 150 && FACTS.types.len() > 80);
        assert_eq!(fields(Some("2.5"), "PID").len(), 39);
    }

    #[test]
    fn the_segments_of_daily_work_have_names() {
        for name in "MSH EVN PID PD1 NK1 PV1 PV2 OBR OBX NTE ORC SPM MRG AL1 DG1 PR1 IN1 TXA SCH AIS AIG AIL AIP RXA RXE TQ1 MSA ERR".split(' ') {
            assert!(segment_name(name).is_some() && has_segment(name), "{name}");
        }
    }
}

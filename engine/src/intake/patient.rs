//! Who a message is about, for the order of deliveries: read before any mapping, from PID and MRG alone.
//!
//! Promise:  P4. Every identity that a later message of the same patient may come under is named: the NHS number
//!           and the local number of every PID, and those that a merge, move or link names besides.
//! Not here: what a record should show as identifiers (mappings), and lanes (pipeline, delivery).
//!
//! The preference, for each PID or MRG: the NHS number (ten digits, mod-11 valid, said to be one); else the medical
//! record number with its authority; else one without; else the first identifier that has a value. The local number
//! is named besides the NHS number, since a patient is often registered before the NHS number is traced: without it
//! the first message with the number could overtake the last one without.

use std::fmt;

use crate::hl7::{Message, Part, Segment, Value};

/// A message beyond this names a register rather than a patient; the rest of its identities is not read.
const MOST: usize = 256;

/// The identities of a message, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatientKeys {
    /// The preferred identity of the first PID; none if the message is about no patient.
    pub main: Option<PatientKey>,
    /// Its local number, and the identities of every other PID and MRG.
    pub others: Vec<PatientKey>,
}

/// One identity: normalised, so that two ways of writing it are equal. Displayed as `authority|identifier`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatientKey {
    /// Who gave the identifier; `nhs` for NHS numbers.
    pub authority: String,
    /// The identifier.
    pub identifier: String,
}

impl PatientKeys {
    /// Reads the identities of a message.
    pub fn of(message: &Message) -> Self {
        let facility = normal(&message.header(4).text().unwrap_or_default());
        let mut found = Vec::new();
        let mut main = None;
        let people = message.segments().filter(|segment| matches!(segment.name(), "PID" | "MRG"));
        for (number, segment) in people.enumerate() {
            let identities = identities(segment, &facility);
            if number == 0 && segment.name() == "PID" {
                main = identities.first().cloned();
            }
            found.extend(identities);
            if found.len() >= MOST {
                break;
            }
        }
        let mut others: Vec<PatientKey> = Vec::new();
        for key in found {
            if main.as_ref() != Some(&key) && !others.contains(&key) {
                others.push(key);
            }
        }
        match main {
            None if !others.is_empty() => Self { main: Some(others.remove(0)), others },
            main => Self { main, others },
        }
    }

    /// Every identity, the main one first.
    pub fn all(&self) -> impl Iterator<Item = &PatientKey> {
        self.main.iter().chain(&self.others)
    }
}

impl fmt::Display for PatientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.authority, self.identifier)
    }
}

impl fmt::Debug for PatientKey {
    /// Patient data: only what is no identifier.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PatientKey({}|…)", self.authority)
    }
}

/// Whether ten digits are an NHS number: the last is the check digit of the others, modulo 11.
pub fn is_nhs_number(digits: &str) -> bool {
    let values: Vec<u32> = digits.chars().filter_map(|digit| digit.to_digit(10)).collect();
    let Some((check, weighed)) = values.split_last().filter(|_| values.len() == 10 && digits.len() == 10)
    else {
        return false;
    };
    let sum: u32 = weighed.iter().zip((2..=10).rev()).map(|(value, weight)| value * weight).sum();
    match 11 - sum % 11 {
        11 => *check == 0,
        10 => false,
        expected => *check == expected,
    }
}

/// The identities of one PID or MRG: the preferred one first, at most two.
fn identities(segment: Segment<'_>, facility: &str) -> Vec<PatientKey> {
    // PID-3 since 2.3.1; before, PID-2 and PID-4 held what some senders still put there alone.
    let fields: &[usize] = if segment.name() == "PID" { &[3, 2, 4] } else { &[1, 4, 2] };
    for field in fields {
        let listed: Vec<_> = segment.repetitions(*field).filter_map(Identifier::read).collect();
        if !listed.is_empty() {
            return preferred(&listed, facility);
        }
    }
    Vec::new()
}

fn preferred(listed: &[Identifier], facility: &str) -> Vec<PatientKey> {
    let nhs = listed.iter().find_map(Identifier::nhs_number);
    let local = |wanted: fn(&Identifier) -> bool| {
        listed.iter().filter(|one| one.nhs_number().is_none()).find(|one| wanted(one))
    };
    let local = local(|one| one.is_record_number() && !one.authority.is_empty())
        .or_else(|| local(Identifier::is_record_number))
        .or_else(|| local(|one| !one.says_nhs()))
        .or_else(|| if nhs.is_none() { local(|_| true) } else { None });
    nhs.into_iter().chain(local.map(|local| local.key(facility))).collect()
}

/// One repetition of a CX field.
struct Identifier {
    value: String,
    authority: String,
    /// CX.5, upper case.
    kind: String,
}

impl Identifier {
    fn read(value: Value<'_>) -> Option<Self> {
        let part: Part<'_> = value.part()?;
        let text = |value: Value<'_>| value.text().map(|text| normal(&text)).unwrap_or_default();
        let identifier = text(part.component(1));
        // A row of one character is what senders fill a mandatory field with: thousands would share one lane.
        let first = identifier.chars().next()?;
        if identifier.chars().count() > 1 && identifier.chars().all(|one| one == first) {
            return None;
        }
        let authority = part.component(4);
        let named = text(authority.subcomponent(1));
        let authority = if named.is_empty() { text(authority.subcomponent(2)) } else { named };
        Some(Self { value: identifier, authority, kind: text(part.component(5)).to_uppercase() })
    }

    fn says_nhs(&self) -> bool {
        matches!(self.kind.as_str(), "NH" | "NHS")
            || matches!(
                self.authority.as_str(),
                "nhs" | "nhsnbr" | "nhs number" | "nhsnumber" | "2.16.840.1.113883.2.1.4.1"
            )
    }

    fn nhs_number(&self) -> Option<PatientKey> {
        let digits: String = self.value.chars().filter(|one| !matches!(one, ' ' | '-')).collect();
        let is_one = self.says_nhs() && is_nhs_number(&digits);
        is_one.then(|| PatientKey { authority: "nhs".to_owned(), identifier: digits })
    }

    fn is_record_number(&self) -> bool {
        matches!(self.kind.as_str(), "MR" | "MRN" | "PI")
    }

    /// An identifier without an authority is the sender's own.
    fn key(&self, facility: &str) -> PatientKey {
        let authority = if self.authority.is_empty() { facility } else { &self.authority };
        PatientKey { authority: authority.to_owned(), identifier: self.value.clone() }
    }
}

/// Lower case, blanks trimmed and single.
fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn check(segments: &str, expected: &[&str]) {
        let text = format!("MSH|^~\\&|PAS|RXX|||20260101||ADT^A01|1|P|2.4\r{segments}");
        let message = Message::parse(Bytes::from(text), encoding_rs::UTF_8).unwrap();
        let keys = PatientKeys::of(&message);
        let shown: Vec<_> = keys.all().map(ToString::to_string).collect();
        assert_eq!(shown, expected, "{segments}");
        assert_eq!(keys.main.is_none(), expected.is_empty());
    }

    #[test]
    fn the_nhs_number_comes_first_and_the_local_number_beside_it() {
        check("PID|1||1000006^^^RXX^MR~999 100 1069^^^^NH", &["nhs|9991001069", "rxx|1000006"]);
        check("PID|1||9991001069^^^NHS~1000006^^^RXX^MR", &["nhs|9991001069", "rxx|1000006"]);
        check("PID|1||999-100-1069^^^^NHS", &["nhs|9991001069"]);
        check("PID|1||9991001069^^^X&2.16.840.1.113883.2.1.4.1&ISO^NH", &["nhs|9991001069"]);
    }

    #[test]
    fn a_wrong_nhs_number_is_no_nhs_number() {
        check("PID|1||9991001060^^^NHS^NH~1000006^^^RXX^MR", &["rxx|1000006"]);
        check("PID|1||9991001060^^^NHS^NH", &["nhs|9991001060"]);
        check("PID|1||9991001069^^^RXX^MR", &["rxx|9991001069"]);
    }

    #[test]
    fn without_one_the_record_number_with_authority_then_any() {
        check("PID|1||A~B^^^^MR~C^^^ Ryy ^MR", &["ryy|c"]);
        check("PID|1||A~B^^^^MR", &["rxx|b"]);
        check("PID|1||A  1^^^LAB~B^^^OTHER", &["lab|a 1"]);
        check("PID|1|X9^^^OLD^PT|", &["old|x9"]);
        check("PID|1|||A7", &["rxx|a7"]);
        check("PID|1||^^^RXX^MR~\"\"^^^^MR~Z", &["rxx|z"]);
    }

    #[test]
    fn what_names_nobody_names_nobody() {
        check("EVN|A01", &[]);
        check("PID|1||", &[]);
        check("PID|1||\"\"", &[]);
        check("PID|1||0000000000^^^NHS^NH~99999^^^RXX^MR", &[]);
    }

    #[test]
    fn a_merge_names_both_identities() {
        check(
            "PID|1||9991001069^^^NHS~1000006^^^RXX^MR\rMRG|1000007^^^RXX^MR",
            &["nhs|9991001069", "rxx|1000006", "rxx|1000007"],
        );
        check("PID|1||1^^^RXX^MR\rMRG|1^^^RXX^MR", &["rxx|1"]);
        check("PID|1||1^^^RXX^MR\rMRG|", &["rxx|1"]);
        check("PID|1||1^^^RXX^MR\rMRG||||2", &["rxx|1", "rxx|2"]);
        check("MRG|2^^^RXX^MR", &["rxx|2"]);
        // A24 links two patients, A17 swaps them: two PIDs and no MRG.
        check("PID|1||1^^^RXX^MR\rPV1|1\rPID|2||2^^^RXX^MR", &["rxx|1", "rxx|2"]);
    }

    #[test]
    fn p9_debug_shows_no_identifier() {
        let text = "MSH|^~\\&|PAS|RXX|||20260101||ADT^A01|1|P|2.4\rPID|1||CANARY7^^^RXX^MR\rMRG|CANARY8";
        let message = Message::parse(Bytes::from_static(text.as_bytes()), encoding_rs::UTF_8).unwrap();
        assert!(!format!("{:?}", PatientKeys::of(&message)).to_lowercase().contains("canary"));
    }

    #[test]
    fn the_check_digit_rule() {
        for good in ["9991001069", "9434765919", "4010232137"] {
            assert!(is_nhs_number(good), "{good}");
        }
        for bad in ["", "999100106", "99910010690", "999100106٩", "999100106x", "9991001068"] {
            assert!(!is_nhs_number(bad), "{bad}");
        }
    }
}

//! Who a message is about, for the order of deliveries: read before any mapping, from PID and MRG alone.
//!
//! Promise:  P4. Every identity that a later message of the same patient may come under is named: the NHS number
//!           and the local number of every PID, and those that a merge, move or link names besides.
//! Not here: what a record should show as identifiers (mappings), and lanes (pipeline, delivery).
//!
//! The preference, for each PID, is [`Patients::identifiers`]: by default the NHS number (ten digits, mod-11 valid, said
//! to be one); else a local number of type MR, MRN or PI, rather with its authority than without; else the first
//! identifier that has a value. The local number is named besides the NHS number, since a patient is often registered
//! before the NHS number is traced: without it the first message with the number could overtake the last one without.
//! Of an MRG every identifier is named: the patient who goes may be known by any of them.

use std::{borrow::Cow, fmt};

use crate::hl7::{Message, Part, Segment, Value};

/// A message beyond this names a register rather than a patient; the rest of its identities is not read.
const MOST: usize = 256;

/// How patients are told apart, and which of them are not real.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patients {
    /// Types of identifiers (CX.5), the preferred first; `NHS` is the NHS number.
    pub identifiers: Vec<String>,
    /// What the NHS numbers of test patients begin with.
    pub test_numbers: Vec<String>,
}

impl Default for Patients {
    fn default() -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self { identifiers: texts(&[NHS, "MR", "MRN", "PI"]), test_numbers: texts(&["999"]) }
    }
}

/// The NHS number among the types of identifiers.
const NHS: &str = "NHS";

/// Events that make one patient of two: the two must differ. Those that move accounts and visits may name one twice.
const OF_PATIENTS: [&str; 5] = ["A18", "A30", "A34", "A39", "A40"];

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
    pub fn of(message: &Message, patients: &Patients) -> Self {
        let facility = normal(&message.header(4).text().unwrap_or_default());
        let mut found = Vec::new();
        let mut main = None;
        for (number, segment) in people(message).enumerate() {
            let identities = match segment.name() {
                "PID" => preferred(&in_first_field(segment), patients, &facility),
                _ => every(segment, patients, &facility),
            };
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

/// Why the merges of a message cannot be done, in words that can be read aloud; none if they can.
pub fn merge_fault(message: &Message, patients: &Patients) -> Option<&'static str> {
    if !OF_PATIENTS.contains(&message.trigger().event.as_ref()) {
        return None;
    }
    let facility = normal(&message.header(4).text().unwrap_or_default());
    let mut merges: Vec<(Vec<PatientKey>, Vec<PatientKey>)> = Vec::new();
    let mut survivor = None;
    for segment in people(message).take(MOST) {
        let identities = preferred(&in_first_field(segment), patients, &facility);
        match (segment.name(), &survivor) {
            ("PID", _) => survivor = Some(identities),
            (_, Some(survivor)) if !identities.is_empty() => merges.push((Vec::clone(survivor), identities)),
            _ => {}
        }
    }
    if merges.iter().any(|(survivor, gone)| gone.iter().all(|key| survivor.contains(key))) {
        return Some("a patient is to be merged with himself: PID and MRG have the same identifiers");
    }
    let meets = |keys: &[PatientKey], others: &[PatientKey]| keys.iter().any(|key| others.contains(key));
    for (number, (survivor, gone)) in merges.iter().enumerate() {
        for (other_survivor, other_gone) in merges.iter().skip(number + 1) {
            match (meets(survivor, other_gone), meets(other_survivor, gone)) {
                (true, true) => return Some("two merges go round in a circle: nobody would be left"),
                (true, false) | (false, true) => {
                    return Some(
                        "the patient who is left by one merge goes by another: send them one by one",
                    );
                }
                (false, false) => {}
            }
        }
    }
    None
}

/// Whether a message that merges or moves a patient names nobody who goes: it has one PID and no identifier in MRG.
pub fn lacks_the_old_identity(message: &Message) -> bool {
    let trigger = message.trigger();
    let merges = matches!(trigger.event.as_ref(), "A18" | "A30" | "A34" | "A35" | "A36")
        || trigger
            .event
            .strip_prefix('A')
            .and_then(|number| number.parse().ok())
            .is_some_and(|number: u8| (39..=51).contains(&number));
    trigger.code == "ADT"
        && merges
        && message.segments_named("PID").count() < 2
        && message
            .segments_named("MRG")
            .all(|segment| (1..=6).all(|field| segment.field(field).part().is_none()))
}

/// Every NHS number of a message that passes its check, whoever it belongs to.
pub fn nhs_numbers(message: &Message) -> impl Iterator<Item = String> {
    let fields = |segment: Segment<'_>| if segment.name() == "PID" { PID_FIELDS } else { MRG_FIELDS };
    let listed = people(message).take(MOST).flat_map(move |segment| {
        fields(segment)
            .into_iter()
            .flat_map(move |field| segment.repetitions(field).filter_map(Identifier::read))
    });
    listed.filter_map(|identifier| identifier.nhs_number()).map(|key| key.identifier)
}

/// The preferred local number of the first PID, as it was sent.
pub fn local_number(message: &Message, patients: &Patients) -> Option<String> {
    let listed = in_first_field(message.segment("PID")?);
    local(&listed, patients).map(|local| local.sent.clone())
}

/// PID-3 since 2.3.1; before, PID-2 and PID-4 held what some senders still put there alone.
const PID_FIELDS: [usize; 3] = [3, 2, 4];
/// MRG-1, MRG-4 and MRG-2 in the same way.
const MRG_FIELDS: [usize; 3] = [1, 4, 2];

fn people(message: &Message) -> impl Iterator<Item = Segment<'_>> {
    message.segments().filter(|segment| matches!(segment.name(), "PID" | "MRG"))
}

/// The identifiers of the first field that has any.
fn in_first_field(segment: Segment<'_>) -> Vec<Identifier> {
    let fields = if segment.name() == "PID" { PID_FIELDS } else { MRG_FIELDS };
    let listed =
        fields.map(|field| segment.repetitions(field).filter_map(Identifier::read).collect::<Vec<_>>());
    listed.into_iter().find(|listed| !listed.is_empty()).unwrap_or_default()
}

/// The identities that every message of a patient stands under: the preferred one first, at most two.
fn preferred(listed: &[Identifier], patients: &Patients, facility: &str) -> Vec<PatientKey> {
    let rank = |kind: &str| patients.identifiers.iter().position(|known| known == kind);
    let nhs_rank = rank(NHS);
    let nhs = nhs_rank.and_then(|_| listed.iter().find_map(Identifier::nhs_number));
    let local = local(listed, patients).or_else(|| if nhs.is_none() { listed.first() } else { None });
    let local_first = match (nhs_rank, local.and_then(|local| rank(&local.kind))) {
        (Some(nhs), Some(local)) => local < nhs,
        (None, _) => true,
        (Some(_), None) => false,
    };
    let local = local.map(|local| local.key(facility));
    let both = if local_first { [local, nhs] } else { [nhs, local] };
    both.into_iter().flatten().collect()
}

fn local<'i>(listed: &'i [Identifier], patients: &Patients) -> Option<&'i Identifier> {
    let find = |with_authority: bool| {
        patients.identifiers.iter().find_map(|kind| {
            listed.iter().find(|one| {
                one.kind == *kind && one.authority.is_empty() != with_authority && one.nhs_number().is_none()
            })
        })
    };
    find(true).or_else(|| find(false)).or_else(|| listed.iter().find(|one| !one.says_nhs()))
}

/// Every identity in a segment.
fn every(segment: Segment<'_>, patients: &Patients, facility: &str) -> Vec<PatientKey> {
    let by_nhs = patients.identifiers.iter().any(|kind| kind == NHS);
    let key = |one: Identifier| one.nhs_number().filter(|_| by_nhs).unwrap_or_else(|| one.key(facility));
    let fields = MRG_FIELDS.into_iter().flat_map(|field| segment.repetitions(field));
    fields.filter_map(Identifier::read).take(MOST).map(key).collect()
}

/// One repetition of a CX field.
struct Identifier {
    /// Lower case, blanks trimmed and single.
    value: String,
    /// As it was sent.
    sent: String,
    authority: String,
    /// CX.5, upper case.
    kind: String,
}

impl Identifier {
    fn read(value: Value<'_>) -> Option<Self> {
        let part: Part<'_> = value.part()?;
        let text = |value: Value<'_>| value.text().map(|text| normal(&text)).unwrap_or_default();
        let sent = part.component(1).text().map(Cow::into_owned).unwrap_or_default();
        let identifier = normal(&sent);
        // A row of one character is what senders fill a mandatory field with: thousands would share one lane.
        let first = identifier.chars().next()?;
        if identifier.chars().count() > 1 && identifier.chars().all(|one| one == first) {
            return None;
        }
        let authority = part.component(4);
        let named = text(authority.subcomponent(1));
        let authority = if named.is_empty() { text(authority.subcomponent(2)) } else { named };
        let sent = sent.replace('\0', "").trim().to_owned();
        Some(Self { value: identifier, sent, authority, kind: text(part.component(5)).to_uppercase() })
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

    /// An identifier without an authority is the sender's own.
    fn key(&self, facility: &str) -> PatientKey {
        let authority = if self.authority.is_empty() { facility } else { &self.authority };
        PatientKey { authority: authority.to_owned(), identifier: self.value.clone() }
    }
}

/// Lower case, blanks trimmed and single; no NUL, with which some senders fill fields up.
fn normal(text: &str) -> String {
    text.replace('\0', "").split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn check(segments: &str, expected: &[&str]) {
        let text = format!("MSH|^~\\&|PAS|RXX|||20260101||ADT^A01|1|P|2.4\r{segments}");
        let message = Message::parse(Bytes::from(text), encoding_rs::UTF_8).unwrap();
        let keys = PatientKeys::of(&message, &Patients::default());
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
        check("PID|1||A^^^RXX^PI~B^^^RXX^MR", &["rxx|b"]);
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
    fn of_whoever_goes_every_identifier_is_named() {
        check(
            "PID|1||1^^^RXX^MR\rMRG|2^^^RXX^MR~3^^^LAB^PI~9434765919^^^NHS|5||4",
            &["rxx|1", "rxx|2", "lab|3", "nhs|9434765919", "rxx|4", "rxx|5"],
        );
    }

    fn message(trigger: &str, segments: &str) -> Message {
        let text = format!("MSH|^~\\&|PAS|RXX|||20260101||{trigger}|1|P|2.4\r{segments}");
        Message::parse(Bytes::from(text), encoding_rs::UTF_8).unwrap()
    }

    #[test]
    fn the_preference_is_the_site_s() {
        let keys = |identifiers: &[&str]| {
            let identifiers = identifiers.iter().map(|kind| (*kind).to_owned()).collect();
            let patients = Patients { identifiers, ..Patients::default() };
            let message = message("ADT^A01", "PID|1||9434765919^^^NHS^NH~1^^^RXX^MR~2^^^RXX^EPR");
            let keys = PatientKeys::of(&message, &patients);
            (keys.all().map(ToString::to_string).collect::<Vec<_>>(), local_number(&message, &patients))
        };
        let found = |keys: &[&str], local: &str| {
            (keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>(), Some(local.to_owned()))
        };
        assert_eq!(keys(&["NHS", "MR"]), found(&["nhs|9434765919", "rxx|1"], "1"));
        assert_eq!(keys(&["EPR", "NHS", "MR"]), found(&["rxx|2", "nhs|9434765919"], "2"));
        assert_eq!(keys(&["EPR", "MR"]), found(&["rxx|2"], "2"));
        assert_eq!(keys(&["XX", "NHS"]), found(&["nhs|9434765919", "rxx|1"], "1"));
    }

    #[test]
    fn merges_that_cannot_be_done_are_told() {
        let fault =
            |trigger: &str, segments: &str| merge_fault(&message(trigger, segments), &Patients::default());
        let pair = |left: &str, gone: &str| format!("PID|1||{left}^^^RXX^MR\rMRG|{gone}^^^RXX^MR\r");
        let both = |one: String, other: String| [one, other].concat();
        let himself = Some("a patient is to be merged with himself: PID and MRG have the same identifiers");
        let circle = Some("two merges go round in a circle: nobody would be left");
        let chain = Some("the patient who is left by one merge goes by another: send them one by one");
        for (trigger, segments, expected) in [
            ("ADT^A40", pair("1", "2"), None),
            ("ADT^A40", pair("1", "1"), himself),
            ("ADT^A34", pair("A1", " a1 "), himself),
            ("ADT^A35", pair("1", "1"), None),
            ("ADT^A44", pair("1", "1"), None),
            (
                "ADT^A40",
                "PID|1||9434765919^^^NHS~1^^^RXX^MR\rMRG|9434765919^^^NHS~2^^^RXX^MR".to_owned(),
                None,
            ),
            ("ADT^A40", "PID|1||9434765919^^^NHS~1^^^RXX^MR\rMRG|9434765919^^^NHS".to_owned(), himself),
            ("ADT^A40", both(pair("1", "2"), pair("3", "4")), None),
            ("ADT^A40", both(pair("1", "2"), pair("1", "3")), None),
            ("ADT^A40", both(pair("1", "2"), pair("2", "1")), circle),
            ("ADT^A40", both(pair("1", "2"), pair("3", "1")), chain),
            ("ADT^A39", both(pair("2", "3"), pair("1", "2")), chain),
            ("ADT^A40", "PID|1||1^^^RXX^MR\r".to_owned(), None),
        ] {
            assert_eq!(fault(trigger, &segments), expected, "{trigger} {segments}");
        }
    }

    #[test]
    fn a_merge_or_move_that_names_nobody_who_goes_is_known() {
        for (trigger, segments, lacks) in [
            ("ADT^A34", "PID|1||1^^^RXX^MR", true),
            ("ADT^A35", "PID|1||1^^^RXX^MR\rMRG|\r", true),
            ("ADT^A44", "PID|1||1^^^RXX^MR", true),
            ("ADT^A44", "PID|1||1^^^RXX^MR\rMRG|||ACC7", false),
            ("ADT^A40", "PID|1||1^^^RXX^MR\rMRG|2", false),
            ("ADT^A24", "PID|1||1^^^RXX^MR\rPID|2||2^^^RXX^MR", false),
            ("ADT^A01", "PID|1||1^^^RXX^MR", false),
            ("ADT^A52", "PID|1||1^^^RXX^MR", false),
        ] {
            assert_eq!(lacks_the_old_identity(&message(trigger, segments)), lacks, "{trigger} {segments}");
        }
    }

    #[test]
    fn p9_debug_shows_no_identifier() {
        let text = "MSH|^~\\&|PAS|RXX|||20260101||ADT^A01|1|P|2.4\rPID|1||CANARY7^^^RXX^MR\rMRG|CANARY8";
        let message = Message::parse(Bytes::from_static(text.as_bytes()), encoding_rs::UTF_8).unwrap();
        assert!(
            !format!("{:?}", PatientKeys::of(&message, &Patients::default()))
                .to_lowercase()
                .contains("canary")
        );
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

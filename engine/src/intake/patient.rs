//! Who a message is about, for the order of deliveries: read before any mapping, from PID and MRG alone.
//!
//! Promise:  P4. Every identity that a record of the patient may stand under is named, for a mapping may choose another
//!           one than the next message's: the NHS number and every local number of every PID, and those that a merge,
//!           move or link names besides. A lane too many costs a little; a lane too few puts messages out of order.
//! Not here: what a record should show as identifiers (mappings), which authorities are one (pipeline, by the tables of
//!           the mappings), and lanes (pipeline, delivery).
//!
//! The first key is the preferred one, by [`Patients::identifiers`]: by default the NHS number (ten digits, mod-11 valid,
//! said to be one); else a local number of type MR, MRN, PI, …, rather with its authority than without; else the first
//! identifier that has a value. Then come the other identifiers of those types and those without a type; what has
//! another type (an account, a visit, an insurance) is shared by patients, or by all of them, and names nobody.
//! An authority that has both a name and a universal id gives a key under each. Of an MRG every identifier is named: the
//! patient who goes may be known by any of them; one that stands there without its authority stands under the facility
//! and under every authority that a PID of the message names.

use std::fmt;

use super::identifier::Identifier;
use crate::{
    hl7::{
        Message, Segment,
        identifier::{self, spelled},
    },
    incoming::Incoming,
};

/// A message beyond this names a register rather than a patient; the rest of its identities is not read.
pub(super) const MOST: usize = 256;

/// Authorities that the PIDs of one message name.
const MOST_AUTHORITIES: usize = 8;

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
        Self {
            identifiers: texts(&[NHS, "MR", "MRN", "PI", "PT", "PE", "EPI", "ID"]),
            test_numbers: texts(&["999"]),
        }
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
    /// Its other identities, and those of every other PID and MRG.
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
        People::of(message, patients).keys()
    }

    /// Reads the identities of a message of either kind.
    pub fn of_incoming(incoming: &Incoming, patients: &Patients) -> Self {
        match incoming {
            Incoming::Hl7(message) => Self::of(message, patients),
            Incoming::Fhir(message) => super::fhir::patient_keys(message),
        }
    }

    /// Every identity, the main one first.
    pub fn all(&self) -> impl Iterator<Item = &PatientKey> {
        self.main.iter().chain(&self.others)
    }
}

impl PatientKey {
    /// An identifier among the numbers of an authority; none among NHS numbers if it is none.
    pub fn among(authority: &str, identifier: &str) -> Option<Self> {
        let identifier = match authority {
            identifier::NHS => identifier::nhs_number(identifier)?,
            _ => identifier.to_owned(),
        };
        Some(Self { authority: authority.to_owned(), identifier })
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

/// PID-3 since 2.3.1; before, PID-2 and PID-4 held what some senders still put there alone.
const PID_FIELDS: [usize; 3] = [3, 2, 4];
/// MRG-1, MRG-4 and MRG-2 in the same way.
const MRG_FIELDS: [usize; 3] = [1, 4, 2];

/// Who a message names, read once for all that is asked of it.
pub struct People<'p> {
    patients: &'p Patients,
    /// MSH-4.
    facility: String,
    /// What the PIDs name as authorities.
    named: Vec<String>,
    said: Vec<Said>,
}

/// What a PID or an MRG says.
struct Said {
    is_pid: bool,
    /// The identifiers of each field that holds any, in the order in which the fields are asked.
    fields: [Vec<Identifier>; 3],
}

impl Said {
    fn of(segment: Segment<'_>) -> Self {
        let is_pid = segment.name() == "PID";
        let fields = if is_pid { PID_FIELDS } else { MRG_FIELDS };
        // Beyond the bound only what a test patient is known by, who must not get through.
        let is_kept = |(place, one): &(usize, Identifier)| *place < MOST || one.nhs_number.is_some();
        let fields = fields.map(|field| {
            let listed = segment.repetitions(field).filter_map(Identifier::read).enumerate();
            listed.filter(is_kept).map(|(_, one)| one).collect()
        });
        Self { is_pid, fields }
    }

    /// The identifiers of the first field that has any.
    fn in_first_field(&self) -> &[Identifier] {
        self.fields.iter().find(|listed| !listed.is_empty()).map_or(&[], Vec::as_slice)
    }

    fn all(&self) -> impl Iterator<Item = &Identifier> {
        self.fields.iter().flatten()
    }
}

impl<'p> People<'p> {
    /// Reads the PIDs and MRGs of a message.
    pub fn of(message: &Message, patients: &'p Patients) -> Self {
        let facility = spelled(&message.header(4).text().unwrap_or_default());
        let people = message.segments().filter(|segment| matches!(segment.name(), "PID" | "MRG"));
        let said: Vec<_> = people.take(MOST).map(Said::of).collect();
        let mut named: Vec<String> = Vec::new();
        let listed = said.iter().filter(|said| said.is_pid).flat_map(Said::in_first_field);
        for authority in listed.flat_map(|one| &one.authorities) {
            if named.len() < MOST_AUTHORITIES && !named.contains(authority) {
                named.push(authority.clone());
            }
        }
        Self { patients, facility, named, said }
    }

    /// Their identities.
    pub fn keys(&self) -> PatientKeys {
        let mut all: Vec<PatientKey> = Vec::new();
        for said in &self.said {
            let keys: Vec<_> = match said.is_pid {
                true => {
                    let told = self.told(said.in_first_field());
                    told.into_iter().flat_map(|one| self.keys_of(one)).collect()
                }
                false => said.all().take(MOST).flat_map(|one| self.keys_of_gone(one)).collect(),
            };
            for key in keys {
                if all.len() < MOST && !all.contains(&key) {
                    all.push(key);
                }
            }
        }
        let mut all = all.into_iter();
        PatientKeys { main: all.next(), others: all.collect() }
    }

    /// Every NHS number that passes its check, whoever it belongs to.
    pub fn nhs_numbers(&self) -> impl Iterator<Item = &str> {
        self.said.iter().flat_map(Said::all).filter_map(|one| one.nhs_number.as_deref())
    }

    /// The preferred local number of the first PID, as it was sent.
    pub fn local_number(&self) -> Option<&str> {
        let pid = self.said.iter().find(|said| said.is_pid)?;
        self.local(pid.in_first_field()).map(|local| local.sent.as_str())
    }

    /// Why their merges cannot be done, in words that can be read aloud; none if they can.
    pub fn merge_fault(&self, event: &str) -> Option<&'static str> {
        if !OF_PATIENTS.contains(&event) {
            return None;
        }
        let mut merges: Vec<(Person, Person)> = Vec::new();
        let mut survivor = None;
        for said in &self.said {
            let person = Person::of(said, self);
            match (said.is_pid, &survivor) {
                (true, _) => survivor = Some(person),
                (false, Some(survivor)) if !person.main.is_empty() => {
                    merges.push((Person::clone(survivor), person));
                }
                (false, _) => {}
            }
        }
        fault_among(&merges)
    }

    fn rank(&self, kind: &str) -> Option<usize> {
        self.patients.identifiers.iter().position(|known| known == kind)
    }

    fn nhs_number<'i>(&self, one: &'i Identifier) -> Option<&'i str> {
        one.nhs_number.as_deref().filter(|_| self.rank(NHS).is_some())
    }

    /// The identifiers that a patient is rather known by: the preferred one first, at most two.
    fn preferred<'i>(&self, listed: &'i [Identifier]) -> Vec<&'i Identifier> {
        let nhs = listed.iter().find(|one| self.nhs_number(one).is_some());
        let local = self.local(listed).or_else(|| if nhs.is_none() { listed.first() } else { None });
        let local_first = match (self.rank(NHS), local.and_then(|local| self.rank(&local.kind))) {
            (Some(nhs), Some(local)) => local < nhs,
            (None, _) => true,
            (Some(_), None) => false,
        };
        let both = if local_first { [local, nhs] } else { [nhs, local] };
        both.into_iter().flatten().collect()
    }

    /// The identifiers that name a patient: the preferred ones, then every other of a type that does.
    fn told<'i>(&self, listed: &'i [Identifier]) -> Vec<&'i Identifier> {
        let tells = |one: &&Identifier| match self.nhs_number(one) {
            Some(_) => true,
            None => !one.says_nhs() && (one.kind.is_empty() || self.rank(&one.kind).is_some()),
        };
        self.preferred(listed).into_iter().chain(listed.iter().filter(tells)).take(MOST).collect()
    }

    fn local<'i>(&self, listed: &'i [Identifier]) -> Option<&'i Identifier> {
        let find = |with_authority: bool| {
            self.patients.identifiers.iter().find_map(|kind| {
                let is_local = |one: &&Identifier| !one.says_nhs() && one.nhs_number.is_none();
                let mut of_kind = listed.iter().filter(is_local).filter(|one| one.kind == *kind);
                of_kind.find(|one| one.is_bare() != with_authority)
            })
        };
        find(true).or_else(|| find(false)).or_else(|| listed.iter().find(|one| !one.says_nhs()))
    }

    /// The keys of an identifier: as an NHS number, as a local one, or as both if it may be either.
    fn keys_of(&self, one: &Identifier) -> Vec<PatientKey> {
        let nhs = self.nhs_number(one).map(|digits| PatientKey {
            authority: identifier::NHS.to_owned(),
            identifier: digits.to_owned(),
        });
        match nhs {
            Some(nhs) if one.says_nhs() => vec![nhs],
            nhs => nhs.into_iter().chain(one.local(&self.facility)).collect(),
        }
    }

    /// Those of one who goes: what stands there without its authority may be of any that the message names.
    fn keys_of_gone(&self, one: &Identifier) -> Vec<PatientKey> {
        let mut keys = self.keys_of(one);
        if one.is_bare() && !one.says_nhs() {
            keys.extend(self.named.iter().filter_map(|authority| one.under(authority)));
        }
        keys
    }
}

/// What a patient is known by in one message, each identifier with its keys.
#[derive(Clone)]
struct Person {
    /// The preferred ones.
    main: Vec<Vec<PatientKey>>,
    /// All that name him.
    told: Vec<Vec<PatientKey>>,
}

impl Person {
    fn of(said: &Said, people: &People<'_>) -> Self {
        let listed = said.in_first_field();
        let keys = |one| if said.is_pid { people.keys_of(one) } else { people.keys_of_gone(one) };
        Self {
            main: people.preferred(listed).into_iter().map(keys).collect(),
            told: people.told(listed).into_iter().map(keys).collect(),
        }
    }

    fn meets(&self, other: &Self) -> bool {
        self.main.iter().any(|keys| meet(keys, &other.main))
    }

    /// Whether the other is known by nothing but what this one is preferred by, or by the very same in another order. A
    /// survivor may list the number that goes among his own.
    fn is(&self, other: &Self) -> bool {
        let within =
            |some: &[Vec<PatientKey>], all: &[Vec<PatientKey>]| some.iter().all(|keys| meet(keys, all));
        within(&other.main, &self.main) || within(&other.told, &self.told) && within(&self.told, &other.told)
    }
}

fn meet(keys: &[PatientKey], others: &[Vec<PatientKey>]) -> bool {
    others.iter().flatten().any(|other| keys.contains(other))
}

/// Why merges, each of a survivor and one who goes, cannot be done.
fn fault_among(merges: &[(Person, Person)]) -> Option<&'static str> {
    if merges.iter().any(|(survivor, gone)| survivor.is(gone)) {
        return Some("a patient is to be merged with himself: PID and MRG have the same identifiers");
    }
    for (number, (survivor, gone)) in merges.iter().enumerate() {
        for (other_survivor, other_gone) in merges.iter().skip(number + 1) {
            match (survivor.meets(other_gone), other_survivor.meets(gone)) {
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
        check("PID|1||9991001060^^^NHS^NHS~1000006^^^RXX^MR", &["rxx|1000006"]);
        check("PID|1||9991001069^^^RXX^MR", &["rxx|9991001069"]);
    }

    #[test]
    fn without_one_the_record_number_with_authority_then_any() {
        check("PID|1||A~B^^^^MR~C^^^ Ryy ^MR", &["ryy|c", "rxx|a", "rxx|b"]);
        check("PID|1||A^^^RXX^PI~B^^^RXX^MR", &["rxx|b", "rxx|a"]);
        check("PID|1||A~B^^^^MR", &["rxx|b", "rxx|a"]);
        check("PID|1||A  1^^^LAB~B^^^OTHER", &["lab|a 1", "other|b"]);
        check("PID|1|X9^^^OLD^PT|", &["old|x9"]);
        check("PID|1|||A7", &["rxx|a7"]);
        check("PID|1||^^^RXX^MR~\"\"^^^^MR~Z", &["rxx|z"]);
    }

    #[test]
    fn p4_every_number_that_a_record_may_stand_under_is_named_in_whatever_order() {
        check("PID|1||A^^^RXX^MR~B^^^RYY^MR", &["rxx|a", "ryy|b"]);
        check("PID|1||B^^^RYY^MR~A^^^RXX^MR", &["ryy|b", "rxx|a"]);
        check("PID|1||A^^^RXX^PT~B^^^RXX^EPI~C^^^RYY", &["rxx|a", "rxx|b", "ryy|c"]);
        // What belongs to a stay, an account or an insurance is shared with others.
        check("PID|1||A^^^RXX^MR~7^^^RXX^AN~8^^^RXX^VN~9^^^INS^MB", &["rxx|a"]);
        check("PID|1||7^^^RXX^AN", &["rxx|7"]);
        // A type that is nobody's but the sender's: the first is taken by the mappings, and only where nothing else will do.
        check("PID|1||7^^^RYY^HOUSE~8^^^RYY^BED", &["ryy|7"]);
        check("PID|1||UNKNOWN^^^RXX^MR~8^^^^HOUSE", &["rxx|8"]);
        check("PID|1||9991001069^^^NHS~8^^^RYY^HOUSE", &["nhs|9991001069", "ryy|8"]);
        check("PID|1||A^^^RXX^MR~UNKNOWN^^^LAB^PI~n/a", &["rxx|a"]);
    }

    #[test]
    fn p4_an_authority_is_known_by_its_name_and_by_its_universal_id() {
        check("PID|1||1^^^PAS&1.2.3&ISO^MR", &["pas|1", "1.2.3|1"]);
        check("PID|1||1^^^&1.2.3&ISO^MR", &["1.2.3|1"]);
    }

    #[test]
    fn p4_the_words_for_nhs_numbers_are_those_of_the_mappings() {
        let patients = Patients::default();
        for spelling in [
            "9991001069^^^NHSNMBR",
            "9991001069^^^NHSNO^NH",
            "999 100 1069^^^NHS Number",
            "9991001069^^^RXX^NHSNMBR",
            "9991001069^^^^NHSNBR",
            "9991001069^^^^HN",
            "9991001069^06^^^NI",
        ] {
            check(&format!("PID|1||{spelling}"), &["nhs|9991001069"]);
            let message = message("ADT^A01", &format!("PID|1||{spelling}"));
            let people = People::of(&message, &patients);
            assert_eq!(people.nhs_numbers().collect::<Vec<_>>(), ["9991001069"], "{spelling}");
        }
        // The mappings take it for a number of RXX, a person would take it for an NHS number: both.
        check("PID|1||9991001069^^^RXX^NH", &["nhs|9991001069", "rxx|9991001069"]);
    }

    #[test]
    fn p4_who_goes_without_an_authority_is_found_under_those_of_the_message() {
        let of_site = |segments: &str, expected: &[&str]| {
            let text = format!("MSH|^~\\&|PAS|RXX01|||20260101||ADT^A40|1|P|2.4\r{segments}");
            let message = Message::parse(Bytes::from(text), encoding_rs::UTF_8).unwrap();
            let keys = PatientKeys::of(&message, &Patients::default());
            assert_eq!(keys.all().map(ToString::to_string).collect::<Vec<_>>(), expected, "{segments}");
            merge_fault(&message)
        };
        let fine = of_site("PID|1||7^^^RXX^MR\rMRG|2000306", &["rxx|7", "rxx01|2000306", "rxx|2000306"]);
        assert_eq!(fine, None);
        let himself = of_site("PID|1||7^^^RXX^MR\rMRG|7", &["rxx|7", "rxx01|7"]);
        assert_eq!(
            himself,
            Some("a patient is to be merged with himself: PID and MRG have the same identifiers")
        );
        of_site(
            "PID|1||9434765919^^^NHS~7^^^RXX&1.2.3^MR\rMRG|9991001069~8^^^^MR",
            &[
                "nhs|9434765919",
                "rxx|7",
                "1.2.3|7",
                "rxx01|9991001069",
                "nhs|9991001069",
                "rxx|9991001069",
                "1.2.3|9991001069",
                "rxx01|8",
                "rxx|8",
                "1.2.3|8",
            ],
        );
    }

    #[test]
    fn p6_a_register_of_identities_is_bounded() {
        let many: Vec<_> = (0..3000).map(|n| format!("{n}A^^^R{n}^MR")).collect();
        let segments = format!("PID|1||{}\rMRG|{}", many.join("~"), many.join("~"));
        let keys = PatientKeys::of(&message("ADT^A40", &segments), &Patients::default());
        assert_eq!(keys.all().count(), MOST);
        let patients = Patients::default();
        let last = message("ADT^A40", &format!("{segments}~9991001069^^^NHS"));
        let people = People::of(&last, &patients);
        assert_eq!(people.said.iter().flat_map(Said::all).count(), 2 * MOST + 1);
        assert_eq!(people.nhs_numbers().collect::<Vec<_>>(), ["9991001069"]);
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
        check("PID|1||1^^^RYY^MR\rMRG||||2", &["ryy|1", "rxx|2", "ryy|2"]);
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

    fn merge_fault(message: &Message) -> Option<&'static str> {
        People::of(message, &Patients::default()).merge_fault(&message.trigger().event)
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
            let people = People::of(&message, &patients);
            let local = people.local_number().map(str::to_owned);
            (people.keys().all().map(ToString::to_string).collect::<Vec<_>>(), local)
        };
        let found = |keys: &[&str], local: &str| {
            (keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>(), Some(local.to_owned()))
        };
        assert_eq!(keys(&["NHS", "MR"]), found(&["nhs|9434765919", "rxx|1"], "1"));
        assert_eq!(keys(&["EPR", "NHS", "MR"]), found(&["rxx|2", "nhs|9434765919", "rxx|1"], "2"));
        assert_eq!(keys(&["EPR", "MR"]), found(&["rxx|2", "rxx|1"], "2"));
        assert_eq!(keys(&["XX", "NHS"]), found(&["nhs|9434765919", "rxx|1"], "1"));
    }

    #[test]
    fn merges_that_cannot_be_done_are_told() {
        let fault = |trigger: &str, segments: &str| merge_fault(&message(trigger, segments));
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
            // The survivor lists the number that goes among his own.
            ("ADT^A40", "PID|1||1^^^RXX^MR~2^^^RXX^MR\rMRG|2^^^RXX^MR".to_owned(), None),
            ("ADT^A40", "PID|1||1^^^RXX^MR~2^^^RYY^MR\rMRG|2^^^RYY^MR~1^^^RXX^MR".to_owned(), himself),
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
}

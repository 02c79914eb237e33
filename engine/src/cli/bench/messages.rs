//! The messages of the bench: invented patients, each message with a control id, times and numbers of its own.
//!
//! Promises: no two messages have the same bytes, so that nothing is answered from memory; every NHS number begins with
//! 999, which no person has, and is valid otherwise; filling in a message allocates nothing, since the client shares
//! the machine with the engine.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::sign::Sign;
use crate::hl7::framing;

/// What kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// An admission of 1.4 kB.
    Adt,
    /// A result of 36 segments.
    Oru,
    /// A document of 5 MB.
    Document,
}

/// Bytes of the document as they stand in the message, in Base64.
const DOCUMENT_BYTES: usize = 5_000_000;
/// Observations of a result: with MSH, PID, PV1, ORC and OBR it has 36 segments.
const OBSERVATIONS: usize = 31;

/// Receiving applications (MSH-5) that admissions are for; a patient's are all for one.
pub(super) const APPLICATIONS: u32 = 200;

/// A place begins with `$` and the letter of what goes there, and is as long as that is.
const ADT: &str = "MSH|^~\\&|PAS|RXX|$W$|RXX|20260115$T$$$$||ADT^A01^ADT_A01|$C$$$$$$$$$$$$$$$$|T|2.4|||||GBR|UNICODE|EN||iTKv1.0\r\
    EVN||20260115$T$$$$|||111111$E$^CLERK^ANNE^^^Miss^^RXX01|20260115092500\r\
    PID|1||$N$$$$$$$$^^^NHS~$M$$$$$^^^RXX^MR||$S$$$$$^FREDA^JANE^^MRS^^L~SCHMIDT^FREDA^^^^^PREVIOUS-MAIDEN~FREDDIE^^^^^^PREFERRED||$B$$$$$$0415|2|||$H$ WEST AVENUE^BURYTHORPE^MALTON^NORTH YORKSHIRE^YO17 9ZZ^GBR^H~PO BOX $H$^^LEEDS^^LS1 1AA^GBR^PST||01653$P$$$$^PRN^PH~07700$P$$$$^PRN^CP~^NET^Internet^p$M$$$$$@example.org|01653555199^WPN^PH|EN|M|C22|||||A|BERLIN|N||GBR||DEU|||N|ED\r\
    PD1|||MALTON GP PRACTICE^^Y$K$$$|G99$G$$$^TOWNLEY^GREGORY^^^Dr^^^GMP\r\
    NK1|1|$S$$$$$^ALBERT^J^^MR^^L|1|$H$ WEST AVENUE^BURYTHORPE^MALTON^NORTH YORKSHIRE^YO17 9ZZ^GBR^H|07700$P$$$$||||||||||1|19631111||||EN\r\
    NK1|2|$S$$$$$^MARY^ANN^^MRS^^L|2|$H$ WEST AVENUE^BURYTHORPE^MALTON^NORTH YORKSHIRE^YO17 9ZZ^GBR^H|07700$P$$$$\r\
    PV1|1|I|MAU^WARD$U^BED$V^RXX01|21|||C9999$D$^DARWIN^SAMUEL^^^Dr^^^GMC|G99$G$$$^TOWNLEY^GREGORY^^^Dr^^^GMP|C9999$D$^DARWIN^SAMUEL^^^Dr^^^GMC~C9998$D$^BLACKWELL^ELIZA^^^Dr^^^GMC|300||||19|||C9999$D$^DARWIN^SAMUEL^^^Dr^^^GMC||V$M$$$$$^^^VISITID|||||||||||||||||||||||||20260115090000\r\
    PV2|||||||||20260120||||||||||||||||2|||||||||||||A\r\
    AL1|1|DA|Z88.0^Penicillin^ICD10|5|RASH|19980701\r\
    DG1|1||J$I.9^Pneumonia, unspecified^ICD10||202601150900|A|||||||||1\r\
    ZU1|202601150830|1|C|202601150900||300\r\
    ZU8|U|1|Yes|0\r";

const RESULT: &str = "MSH|^~\\&|LIMS|RXX|TIE|RXX|20260304$T$$$$||ORU^R01^ORU_R01|$C$$$$$$$$$$$$$$$$|T|2.5.1|||||GBR|UNICODE UTF-8|EN\r\
    PID|1||$N$$$$$$$$^^^NHS~$M$$$$$^^^RXX^MR||$S$$$$$^FREDA||$B$$$$$$|F\r\
    PV1|1|I|MAU^WARD$U^BED$V||||||||||||||||V$M$$$$$\r\
    ORC|RE|P$O$$$$$$$|F$O$$$$$$$||CM\r\
    OBR|1|P$O$$$$$$$|F$O$$$$$$$|FBC^FULL BLOOD COUNT^L|||20260304090000|||||||||C9999$D$^DARWIN^SAMUEL||||||20260304$T$$$$||HM|F\r";

const LETTER: &str = "MSH|^~\\&|EPR|RXX|TIE|RXX|20260203$T$$$$||MDM^T02^MDM_T02|$C$$$$$$$$$$$$$$$$|T|2.5.1|||||GBR|UNICODE|EN||iTKv1.0\r\
    EVN|T02|20260203$T$$$$|||111111111^CLERK^ANNE^^^Miss\r\
    PID|1||$N$$$$$$$$^^^NHS~$M$$$$$^^^RXX^MR||$S$$$$$^FREDA^JANE^^MRS^^L||$B$$$$$$|2\r\
    PV1|1|O|OPD^CLIN5^^RXX01||||C9999991^DARWIN^SAMUEL^^^Dr^^^GMC|||320|||||||||V$M$$$$$^^^VISITID\r\
    TXA|1|OPL^Outpatient letter^L|AP|20260203100000|C9999991^DARWIN^SAMUEL^^^Dr^^^GMC|20260203110000|20260203111500||C9999991^DARWIN^SAMUEL^^^Dr^^^GMC||N9999993^TYPER^RUTH^^^Mrs|D$O$$$$$$$^EPR|||||LA|U|AV|||C9999991^DARWIN^SAMUEL^^^Dr^^^GMC|G9999981^TOWNLEY^GREGORY^^^Dr^^^GMP||Cardiology clinic letter\r\
    OBX|1|ED|OPL^Outpatient letter^L||^AP^PDF^Base64^";

impl Kind {
    /// In a control id.
    pub(super) fn letter(self) -> u8 {
        match self {
            Self::Adt => b'A',
            Self::Oru => b'O',
            Self::Document => b'D',
        }
    }

    /// By its letter.
    pub(super) fn of(letter: u8) -> Option<Self> {
        [Self::Adt, Self::Oru, Self::Document].into_iter().find(|kind| kind.letter() == letter)
    }

    /// The mapping that it is given to.
    pub(super) fn mapping(self) -> &'static str {
        match self {
            Self::Adt => "adt",
            Self::Oru => "oru",
            Self::Document => "documents",
        }
    }

    fn text(self) -> String {
        match self {
            Self::Adt => ADT.to_owned(),
            Self::Oru => {
                let rows = (1..=OBSERVATIONS).map(|n| {
                    format!(
                        "OBX|{n}|NM|7{n:02}-8^Analyte number {n}^LN^A{n:02}^Local {n}^L||{n}.$R$$|10*9/L^^UCUM|1.0-{n}.9|N|||F|||20260304093000||C9999992^SCIENTIST^JO\r"
                    )
                });
                rows.fold(RESULT.to_owned(), |text, row| text + row.as_str())
            }
            Self::Document => format!("{LETTER}{}||||||F\r", scan(DOCUMENT_BYTES)),
        }
    }
}

/// Base64 of what does not compress, as the pictures in a scanned letter.
fn scan(characters: usize) -> String {
    use base64::Engine;

    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    });
    let noise = words.flatten().take(characters / 4 * 3 - 9);
    let bytes: Vec<u8> = b"%PDF-1.4\n".iter().copied().chain(noise).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// One kind of message, framed, with its places to be filled in again and again.
#[derive(Debug, Clone)]
pub(super) struct Form {
    kind: Kind,
    framed: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Debug, Clone)]
struct Place {
    at: usize,
    width: usize,
    what: u8,
}

impl Form {
    /// An empty one.
    pub(super) fn new(kind: Kind) -> Self {
        let text = kind.text();
        let framed = framing::frame(text.as_bytes()).unwrap_or_else(|_| Bytes::new()).to_vec();
        let places = places(&framed);
        Self { kind, framed, places }
    }

    /// Bytes of the message without its frame.
    pub(super) fn bytes(&self) -> usize {
        self.framed.len().saturating_sub(3)
    }

    /// The message that was filled in last, without its frame.
    pub(super) fn message(&self) -> &[u8] {
        self.framed.get(1..=self.bytes()).unwrap_or_default()
    }

    /// Writes one message; gives its frame and its control id.
    pub(super) fn fill(&mut self, patient: &Patient, count: u32, sent: u64) -> (&[u8], Sign) {
        let sign = Sign { kind: self.kind, patient: patient.number, count, sent };
        let control_id = sign.written();
        for place in &self.places {
            let Some(target) = self.framed.get_mut(place.at..place.at + place.width) else { continue };
            match place.what {
                b'C' => target.copy_from_slice(&control_id),
                // Patient and count: no other message has both.
                b'O' => target.copy_from_slice(control_id.get(1..10).unwrap_or_default()),
                what => patient.put(what, count, target),
            }
        }
        (&self.framed, sign)
    }
}

fn places(framed: &[u8]) -> Vec<Place> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = memchr::memchr(b'$', framed.get(from..).unwrap_or_default()).map(|at| from + at) {
        let more = framed.iter().skip(at + 2).take_while(|byte| **byte == b'$').count();
        let what = framed.get(at + 1).copied().unwrap_or_default();
        found.push(Place { at, width: more + 2, what });
        from = at + more + 2;
    }
    found
}

/// One patient, who exists nowhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patient {
    /// Which of all.
    pub number: u32,
    /// The last seven digits of the NHS number.
    nhs: u32,
}

/// How many patients there can be, since so many numbers have a check digit.
pub(super) const PATIENTS: u32 = 900_000;

/// Some of the patients, in their order.
pub(super) fn patients(from: u32, count: u32) -> Vec<Patient> {
    let numbers = (0..1_000_000).filter_map(checked).zip(0..);
    let wanted = numbers.skip(from as usize).take(count as usize);
    wanted.map(|(nhs, number)| Patient { number, nhs }).collect()
}

/// Six digits after 999, with their check digit (modulus 11), if they have one.
fn checked(six: u32) -> Option<u32> {
    let known = 9 * (10 + 9 + 8);
    let (sum, _) = (2..=7).fold((known, six), |(sum, left), weight| (sum + left % 10 * weight, left / 10));
    match 11 - sum % 11 {
        10 => None,
        11 => Some(six * 10),
        check => Some(six * 10 + check),
    }
}

impl Patient {
    /// The NHS number.
    pub(super) fn nhs_number(&self) -> u64 {
        9_990_000_000 + u64::from(self.nhs)
    }

    /// The number at the hospital.
    pub(super) fn local_number(&self) -> u64 {
        1_000_000 + u64::from(self.number)
    }

    fn put(&self, what: u8, count: u32, place: &mut [u8]) {
        let mixed = self.number.wrapping_mul(2_654_435_761).rotate_left(7);
        let minutes = self.number.wrapping_add(count.wrapping_mul(17)) % 3600;
        match what {
            b'N' => digits(place, self.nhs_number()),
            b'M' => digits(place, self.local_number()),
            b'W' => digits(place, u64::from(self.number % APPLICATIONS)),
            // As many as a trust has: clerks, doctors, practices and their doctors, wards and their beds, diagnoses.
            b'E' => digits(place, u64::from(mixed % 300)),
            b'D' => digits(place, u64::from(mixed % 400)),
            b'K' => digits(place, u64::from(mixed % 800)),
            b'G' => digits(place, u64::from(mixed % 4000)),
            b'U' => digits(place, u64::from(mixed % 60)),
            b'V' => digits(place, u64::from(mixed / 60 % 30)),
            b'I' => digits(place, u64::from(mixed % 100)),
            b'B' => digits(place, u64::from((1930 + mixed % 80) * 10_000 + 101 + mixed / 80 % 12 * 100)),
            b'H' => digits(place, u64::from(100 + mixed % 900)),
            b'P' => digits(place, u64::from(mixed % 1_000_000)),
            b'R' => digits(place, u64::from(mixed.wrapping_add(count) % 10_000)),
            b'T' => digits(place, u64::from(100_000 + minutes / 60 * 100 + minutes % 60)),
            _ => letters(place, mixed),
        }
    }
}

fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn letters(place: &mut [u8], mut number: u32) {
    for letter in place.iter_mut() {
        *letter = b'A' + (number % 26) as u8;
        number /= 26;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hl7::Message;

    fn message(form: &mut Form, patient: &Patient, count: u32) -> Message {
        let framed = form.fill(patient, count, 7).0;
        let bytes = Bytes::copy_from_slice(framed.strip_suffix(b"\x1c\r").unwrap());
        Message::parse(bytes.slice(1..), encoding_rs::UTF_8).unwrap()
    }

    #[test]
    fn messages_are_whole_and_each_is_its_own() {
        let some = patients(40, 2);
        for (kind, bytes, segments) in [
            (Kind::Adt, 1_300..1_500, 12),
            (Kind::Oru, 4_000..6_000, 36),
            (Kind::Document, 5_000_000..5_002_000, 6),
        ] {
            let mut form = Form::new(kind);
            assert!(bytes.contains(&form.bytes()), "{kind:?}: {} bytes", form.bytes());
            let texts: Vec<_> = some
                .iter()
                .flat_map(|patient| [1, 2].map(|count| (patient, count)))
                .map(|(patient, count)| message(&mut form, patient, count))
                .collect();
            for (n, one) in texts.iter().enumerate() {
                assert_eq!(one.segments().count(), segments, "{kind:?}");
                assert!(!one.raw().contains(&b'$'));
                assert!(texts.iter().skip(n + 1).all(|other| other.raw() != one.raw()));
            }
        }
    }

    #[test]
    fn nhs_numbers_are_valid_and_nobodys() {
        let all = patients(0, PATIENTS);
        assert_eq!(all.len(), PATIENTS as usize);
        for patient in all.iter().step_by(999) {
            let mut text = [0; 10];
            patient.put(b'N', 1, &mut text);
            assert!(text.starts_with(b"999"));
            let sum: u32 =
                (2..=10).rev().zip(text).map(|(weight, digit)| weight * u32::from(digit - b'0')).sum();
            assert_eq!((11 - sum % 11) % 11, u32::from(text[9] - b'0'));
        }
    }
}

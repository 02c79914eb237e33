//! What the simulated systems send: small HL7 v2 messages that carry their own number, what the mapping is to do with
//! them, and where that would lead by the plain rules of this simulation, without the engine's routing or mapping.

use bytes::Bytes;

use super::dice::Dice;

/// What a mapping does with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// Two outputs.
    Double,
    /// ADT^A40: two patients.
    Merge,
    Skip,
    Reject,
    Throw,
    Endless,
    /// Held until the mapping is mended.
    Hold,
    /// No route takes it.
    Stray,
    /// No HL7.
    Junk,
}

/// One message of one sender.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Unique in a run; in the bytes as `#L7#`, and in what is made of them.
    pub number: usize,
    /// MSH-10; may be that of another letter.
    pub control_id: String,
    pub trigger: &'static str,
    pub patients: Vec<String>,
    pub kind: Kind,
    pub raw: Bytes,
}

/// What a sender's letters are like.
pub fn letters(dice: &mut Dice, first: usize, sender: usize, laboratory: bool) -> Vec<Letter> {
    let mut letters: Vec<Letter> = Vec::new();
    for number in first..first + 3 + dice.below(8) as usize {
        let kind = kind(dice);
        // Two patients a sender, and one of everybody's, which only merges name.
        let patient = format!("P{}", 2 * sender + dice.below(2) as usize);
        let other = match dice.below(4) {
            0 => "PX".to_owned(),
            _ => format!("P{}", 2 * sender + dice.below(2) as usize),
        };
        let merges = kind == Kind::Merge && other != patient;
        let kind = if kind == Kind::Merge && !merges { Kind::Plain } else { kind };
        let reused = letters.last().filter(|_| dice.in_thousand(60)).map(|last| last.control_id.clone());
        let control_id = reused.unwrap_or_else(|| format!("C{number}"));
        let trigger = match kind {
            Kind::Stray => "SIU^S12",
            Kind::Merge => "ADT^A40",
            _ if laboratory => "ORU^R01",
            _ => *dice.pick(&["ADT^A01", "ADT^A08"]),
        };
        let patients = if merges { vec![patient, other] } else { vec![patient] };
        let raw = write(number, &control_id, trigger, &patients, kind);
        letters.push(Letter { number, control_id, trigger, patients, kind, raw });
    }
    letters
}

fn kind(dice: &mut Dice) -> Kind {
    match dice.below(100) {
        0..60 => Kind::Plain,
        60..68 => Kind::Double,
        68..82 => Kind::Merge,
        82..86 => Kind::Skip,
        86..88 => Kind::Reject,
        88..90 => Kind::Throw,
        90 => Kind::Endless,
        91..95 => Kind::Hold,
        95..98 => Kind::Stray,
        _ => Kind::Junk,
    }
}

fn write(number: usize, control_id: &str, trigger: &str, patients: &[String], kind: Kind) -> Bytes {
    if kind == Kind::Junk {
        return Bytes::from(format!("\x07no message at all #L{number}#"));
    }
    let application = if trigger.starts_with("ORU") { "LIS" } else { "PAS" };
    let pid = format!("PID|1||{}^^^RXX^MR\r", patients[0]);
    let merged = patients.get(1).map(|other| format!("MRG|{other}^^^RXX^MR\r")).unwrap_or_default();
    let word = format!("{kind:?}").to_lowercase();
    let header = format!("MSH|^~\\&|{application}|RXX|||20260101||{trigger}|{control_id}|P|2.4\r");
    Bytes::from(format!("{header}{pid}{merged}ZSM|{word}|#L{number}#\r"))
}

/// The number of the letter that these bytes were made from, or are.
pub fn number(bytes: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.split_once("#L")?;
    rest.split_once('#')?.0.parse().ok()
}

impl Letter {
    /// The ids of the resources that a route makes of it, in order; what is sent twice is written twice.
    pub fn outputs(&self, route: &str) -> Vec<String> {
        let prefix = format!("{route}-");
        let mut ids: Vec<String> = self.patients.iter().map(|patient| format!("{prefix}{patient}")).collect();
        if self.kind == Kind::Double {
            ids.push(format!("{prefix}{}-2", self.patients[0]));
        }
        ids
    }
}

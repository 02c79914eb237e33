//! FHIR's data types as HL7 v2's: the other way of `fhir::types`, for messages that scripts write.
//!
//! Promise:  pieces stay pieces: escapes and separators are the draft's matter. Digits and offsets are kept as they came.
//!           What has no value gives nothing.
//! Decided:  - Authorities and coding systems are named by the first row of `assigning-authorities` and `coding-systems` that
//!             has the system; a system of ours (`urn:tie:…`) by the name that it was made of; any other stands as the
//!             universal id, or as the URI in CWE.3, so that nothing is mistaken for a local code.
//!           - XPN.7, XAD.7 and XTN.2 are what table 0200, 0190 and 0201 have for the use of FHIR.
//! Source:   HL7 v2.8.2 chapter 2A; the v2-to-FHIR maps read backwards.

mod codes;
mod numbers;
mod words;

use std::{ops::Deref, sync::Arc};

use rhai::EvalAltResult;
use smol_str::SmolStr;

use codes::{ce, code, cwe, plain, system_name};
use numbers::{Authority, cx, ei, hd, pl, xon};
use words::range;
pub(super) use words::words;

use super::{
    current::{Current, with},
    datum::Opaque,
    fault::fault,
    host::Host,
    reading::{self, ElementHandle},
};
use crate::{
    fhir::Node,
    hl7::{
        Separators, escape,
        time::{self, Precision, Reading},
    },
    incoming::{Place, all, first},
};

/// A value of a field in pieces: components, and subcomponents in each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wire(Vec<Vec<String>>);

/// The same as scripts hold it.
#[derive(Clone)]
pub(super) struct WireHandle(Arc<Wire>);

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;
type Convert = fn(&Node, &Source<'_>) -> Option<Wire>;

/// Where an element comes from: the run, and the resource that it stands in, by which its references are read.
pub(super) struct Source<'a> {
    current: &'a Current,
    place: Place,
}

impl Deref for Source<'_> {
    type Target = Current;

    fn deref(&self) -> &Current {
        self.current
    }
}

/// What each data type is made of.
const CONVERTERS: [(&str, Convert); 31] = [
    ("XPN", xpn),
    ("XCN", xcn),
    ("XAD", xad),
    ("XTN", xtn),
    ("CX", cx),
    ("EI", ei),
    ("HD", hd),
    ("XON", xon),
    ("PL", pl),
    ("CWE", cwe),
    ("CNE", cwe),
    ("CE", ce),
    ("CF", ce),
    ("IS", code),
    ("ID", code),
    ("TS", dtm),
    ("DTM", dtm),
    ("dateTime", dtm),
    ("DT", date),
    ("date", date),
    ("TM", tm),
    ("DR", dr),
    ("NM", nm),
    ("SN", sn),
    ("CQ", cq),
    ("units", units),
    ("range", range),
    ("ED", ed),
    ("ST", plain),
    ("TX", plain),
    ("FT", plain),
];

/// The data types that FHIR is converted to.
pub(super) fn data_types() -> impl Iterator<Item = &'static str> {
    CONVERTERS.iter().map(|(name, _)| *name)
}

impl WireHandle {
    pub fn wire(&self) -> &Wire {
        &self.0
    }
}

impl Wire {
    /// One text, and nothing else.
    fn one(text: impl Into<String>) -> Option<Self> {
        Self::of([text.into()])
    }

    /// Components without subcomponents.
    fn of<const N: usize>(components: [String; N]) -> Option<Self> {
        Self(components.into_iter().map(|text| vec![text]).collect()).some()
    }

    /// Components by their number, from 1.
    fn at(pieces: Vec<(usize, Vec<String>)>) -> Option<Self> {
        let mut wire = Self::default();
        for (number, piece) in pieces {
            if wire.0.len() < number {
                wire.0.resize(number, Vec::new());
            }
            if let Some(slot) = wire.0.get_mut(number - 1) {
                *slot = piece;
            }
        }
        wire.some()
    }

    fn some(self) -> Option<Self> {
        self.0.iter().flatten().any(|text| !text.is_empty()).then_some(self)
    }

    /// As it is sent.
    pub fn write(&self, separators: Separators) -> String {
        let inner = separators.subcomponent.map_or(" ".to_owned(), |one| char::from(one).to_string());
        let written = self.0.iter().map(|pieces| {
            let pieces: Vec<_> = pieces.iter().map(|piece| escape::encode(piece, separators)).collect();
            pieces.join(&inner).trim_end_matches(inner.as_str()).to_owned()
        });
        let outer = char::from(separators.component).to_string();
        let whole = written.collect::<Vec<_>>().join(&outer);
        whole.trim_end_matches(outer.as_str()).to_owned()
    }
}

impl Opaque for WireHandle {}

/// Gives scripts the way from FHIR to HL7 v2.
pub(super) fn register(host: &mut Host) {
    host.register_type_with_name::<WireHandle>("Field");
    host.register_fn("to", |element: &mut ElementHandle, data_type: SmolStr| {
        convert(element.node(), element.place(), &data_type)
    })
    .register_fn("to", |text: &mut SmolStr, data_type: SmolStr| {
        convert(&Node::Text(text.clone()), Place::default(), &data_type)
    })
    .register_fn("to", |number: &mut rhai::INT, data_type: SmolStr| {
        convert(&Node::Integer(*number), Place::default(), &data_type)
    })
    .register_fn("to", |truth: &mut bool, data_type: SmolStr| {
        convert(&Node::Boolean(*truth), Place::default(), &data_type)
    })
    .register_fn("to", |(): &mut (), _: SmolStr| ())
    .register_fn("raw", |wire: &mut WireHandle| SmolStr::from(wire.wire().write(Separators::default())));
}

fn convert(node: &Node, place: Place, data_type: &str) -> Result<Option<WireHandle>> {
    let found = CONVERTERS.iter().find(|(name, _)| *name == data_type);
    let (_, convert) = found.ok_or_else(|| fault("FHIR is not converted to this data type"))?;
    with(|current| {
        let wire = convert(node, &Source { current, place });
        Ok(wire.map(|wire| WireHandle(Arc::new(wire))))
    })
}

fn text(node: &Node, path: &str) -> String {
    let found = first(node, path).ok().flatten();
    found.map(|node| reading::text(node).to_string()).unwrap_or_default()
}

/// `value` of the first pair whose key it is; empty for others.
fn by<'t>(table: &[(&str, &'t str)], key: &str) -> &'t str {
    table.iter().find(|(known, _)| *known == key).map(|(_, value)| *value).unwrap_or_default()
}

fn one(text: impl Into<String>) -> Vec<String> {
    vec![text.into()]
}

/// Table 0200. UK feeds have the usual name as L.
const NAME_USES: [(&str, &str); 7] = [
    ("usual", "L"),
    ("official", "R"),
    ("nickname", "N"),
    ("maiden", "M"),
    ("old", "BAD"),
    ("temp", "TEMP"),
    ("anonymous", "MSK"),
];

fn xpn(name: &Node, from: &Source<'_>) -> Option<Wire> {
    let (given, middle) = given(name);
    let whole = text(name, "text");
    let family = text(name, "family");
    let family = if family.is_empty() && given.is_empty() { whole } else { family };
    Wire::at(vec![
        (1, one(family)),
        (2, one(given)),
        (3, one(middle)),
        (4, one(joined(name, "suffix"))),
        (5, one(joined(name, "prefix"))),
        (7, one(by(&NAME_USES, &text(name, "use")))),
        (12, one(moment(&text(name, "period.start"), from))),
        (13, one(moment(&text(name, "period.end"), from))),
    ])
}

/// The first name, and all others.
fn given(name: &Node) -> (String, String) {
    let names: Vec<String> = all(name, "given")
        .unwrap_or_default()
        .into_iter()
        .map(|node| reading::text(node).to_string())
        .collect();
    let (first, rest) =
        names.split_first().map_or((String::new(), &[][..]), |(first, rest)| (first.clone(), rest));
    (first, rest.join(" "))
}

fn joined(node: &Node, path: &str) -> String {
    let found = all(node, path).unwrap_or_default();
    found.into_iter().map(|node| reading::text(node).to_string()).collect::<Vec<_>>().join(" ")
}

/// Of a Practitioner, a PractitionerRole, or a Reference to one of them.
fn xcn<'n>(node: &'n Node, from: &Source<'n>) -> Option<Wire> {
    let (found, display) = referred(node, from);
    // A role names a person, by whom it is known; one who is not in the message by the number of the reference.
    let role = found.and_then(|(place, role)| Some((place, role.get("practitioner")?)));
    let (person, node, display) = match role {
        Some((place, practitioner)) => {
            let (person, named) = referred(practitioner, &Source { place, ..*from });
            (person, practitioner, if named.is_empty() { display } else { named })
        }
        None => (found, node, display),
    };
    let person = person.map(|(_, person)| person);
    let of_role = || found.and_then(|(_, role)| first(role, "identifier").ok().flatten());
    let identifier = match person {
        Some(person) => first(person, "identifier").ok().flatten(),
        None => node.get("identifier"),
    };
    let identifier = identifier.or_else(of_role);
    let name = person.and_then(|person| first(person, "name").ok().flatten());
    let (first_name, middle) = name.map(given).unwrap_or_default();
    let family = name.map(|name| text(name, "family")).filter(|family| !family.is_empty()).unwrap_or(display);
    let authority = identifier.map(|identifier| Authority::of(identifier, from)).unwrap_or_default();
    Wire::at(vec![
        (1, one(identifier.map(|identifier| text(identifier, "value")).unwrap_or_default())),
        (2, one(family)),
        (3, one(first_name)),
        (4, one(middle)),
        (5, one(name.map(|name| joined(name, "suffix")).unwrap_or_default())),
        (6, one(name.map(|name| joined(name, "prefix")).unwrap_or_default())),
        (9, authority.pieces()),
    ])
}

/// The resource that a reference points to in this message, or the resource itself; and how it is called.
fn referred<'n>(node: &'n Node, from: &Source<'n>) -> (Option<(Place, &'n Node)>, String) {
    if node.get("resourceType").is_some() {
        return (Some((from.place, node)), String::new());
    }
    let literal = text(node, "reference");
    let found = from.current.fhir.as_deref().and_then(|message| message.resolve(from.place, &literal));
    (found, text(node, "display"))
}

const ADDRESS_USES: [(&str, &str); 5] =
    [("home", "H"), ("work", "B"), ("temp", "C"), ("old", "BA"), ("billing", "BI")];

fn xad(address: &Node, from: &Source<'_>) -> Option<Wire> {
    let lines: Vec<String> = all(address, "line")
        .unwrap_or_default()
        .into_iter()
        .map(|node| reading::text(node).to_string())
        .collect();
    let (street, other) =
        lines.split_first().map_or((String::new(), &[][..]), |(first, rest)| (first.clone(), rest));
    let street =
        if lines.is_empty() && text(address, "city").is_empty() { text(address, "text") } else { street };
    let used = by(&ADDRESS_USES, &text(address, "use"));
    let kind = if used.is_empty() && text(address, "type") == "postal" { "M" } else { used };
    Wire::at(vec![
        (1, one(street)),
        (2, one(other.join(", "))),
        (3, one(text(address, "city"))),
        (4, one(text(address, "state"))),
        (5, one(text(address, "postalCode"))),
        (6, one(text(address, "country"))),
        (7, one(kind)),
        (9, one(text(address, "district"))),
        (13, one(moment(&text(address, "period.start"), from))),
        (14, one(moment(&text(address, "period.end"), from))),
    ])
}

fn xtn(contact: &Node, _: &Source<'_>) -> Option<Wire> {
    let (system, value) = (text(contact, "system"), text(contact, "value"));
    let used = text(contact, "use");
    if system == "email" {
        return Wire::at(vec![(2, one("NET")), (3, one("Internet")), (4, one(value))])
            .filter(|_| contact.get("value").is_some());
    }
    let code = match (used.as_str(), system.as_str()) {
        ("work", _) => "WPN",
        ("temp", _) => "VHN",
        ("home" | "mobile", _) => "PRN",
        _ => "",
    };
    let equipment = match (used.as_str(), system.as_str()) {
        ("mobile", _) => "CP",
        (_, "fax") => "FX",
        (_, "pager") => "BP",
        (_, "url") => "URL",
        (_, "phone" | "sms") => "PH",
        _ => "",
    };
    Wire::at(vec![(1, one(&*value)), (2, one(code)), (3, one(equipment))]).filter(|_| !value.is_empty())
}

/// A time as exact as it came, with its offset.
fn dtm(node: &Node, from: &Source<'_>) -> Option<Wire> {
    let own = reading::text(node);
    Wire::one(moment(if own.is_empty() { text(node, "start") } else { own.to_string() }.as_str(), from))
}

fn date(node: &Node, from: &Source<'_>) -> Option<Wire> {
    Wire::one(moment(&reading::text(node), from).chars().take(8).collect::<String>())
}

fn dr(node: &Node, from: &Source<'_>) -> Option<Wire> {
    Wire::of(["start", "end"].map(|name| moment(&text(node, name), from)))
}

/// `2026-01-15T09:30:00.5+01:00` as `20260115093000.5+0100`; empty for what is no time.
pub(super) fn moment(text: &str, from: &Source<'_>) -> String {
    let Ok(found) = time::parse(text, &from.zone) else { return String::new() };
    let digits = match found.precision {
        Precision::Year => "%Y",
        Precision::Month => "%Y%m",
        Precision::Day => "%Y%m%d",
        Precision::Hour => "%Y%m%d%H",
        Precision::Minute => "%Y%m%d%H%M",
        Precision::Second | Precision::Fraction(_) => "%Y%m%d%H%M%S",
    };
    let mut written = found.civil.strftime(digits).to_string();
    if let Precision::Fraction(places) = found.precision {
        // A DTM has four digits at most.
        let fraction = format!("{:09}", found.civil.subsec_nanosecond());
        written += &format!(".{}", fraction.get(..usize::from(places.min(4))).unwrap_or_default());
    }
    if found.precision >= Precision::Hour && found.reading == Reading::Stated {
        let seconds = found.offset.seconds();
        let sign = if seconds < 0 { '-' } else { '+' };
        let minutes = seconds.abs() / 60;
        written += &format!("{sign}{:02}{:02}", minutes / 60, minutes % 60);
    }
    written
}

/// `14:30:00.5` as `143000.5`.
fn tm(node: &Node, _: &Source<'_>) -> Option<Wire> {
    Wire::one(reading::text(node).replace(':', ""))
}

/// The number alone.
fn nm(node: &Node, _: &Source<'_>) -> Option<Wire> {
    let own = reading::text(node).to_string();
    Wire::one(if own.is_empty() { number(node, "value") } else { without_exponent(&own) })
}

fn number(node: &Node, path: &str) -> String {
    without_exponent(&text(node, path))
}

/// A number as NM has it: `1.5e3` as `1500`. One of more places than any value has is left as it is.
fn without_exponent(number: &str) -> String {
    let Some((digits, exponent)) = number.split_once(['e', 'E']) else { return number.to_owned() };
    let Some(exponent) = exponent.parse::<i32>().ok().filter(|exponent| exponent.unsigned_abs() <= 40) else {
        return number.to_owned();
    };
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let (mut all, mut point) = (format!("{whole}{part}"), whole.len() as i32 + exponent);
    while point < 1 {
        all.insert(0, '0');
        point += 1;
    }
    let point = usize::try_from(point).unwrap_or_default();
    while all.len() < point {
        all.push('0');
    }
    let (whole, part) = all.split_at(point);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

/// Of a Quantity with a comparator, a Range or a Ratio.
fn sn(node: &Node, _: &Source<'_>) -> Option<Wire> {
    let part = |path| number(node, path);
    if node.get("low").is_some() || node.get("high").is_some() {
        let (low, high) = (part("low.value"), part("high.value"));
        return match (low.is_empty(), high.is_empty()) {
            (false, false) => Wire::of([String::new(), low, "-".to_owned(), high]),
            (false, true) => Wire::of([">=".to_owned(), low]),
            (true, _) => Wire::of(["<=".to_owned(), high]),
        };
    }
    if node.get("numerator").is_some() {
        let comparator = text(node, "numerator.comparator");
        return Wire::of([comparator, part("numerator.value"), ":".to_owned(), part("denominator.value")]);
    }
    Wire::of([text(node, "comparator"), part("value")])
}

fn cq(node: &Node, from: &Source<'_>) -> Option<Wire> {
    let unit = units(node, from).map(|wire| wire.0.into_iter().flatten().collect()).unwrap_or_default();
    Wire(vec![one(number(node, "value")), unit]).some()
}

/// The unit of a Quantity: the code of UCUM with the text beside it, or the text alone.
fn units(node: &Node, from: &Source<'_>) -> Option<Wire> {
    let node = ["low", "numerator"].iter().find_map(|name| node.get(name)).unwrap_or(node);
    let (code, unit, system) = (text(node, "code"), text(node, "unit"), text(node, "system"));
    if code.is_empty() || code == unit && system.is_empty() {
        return Wire::one(if unit.is_empty() { code } else { unit });
    }
    Wire::of([code, unit, if system.is_empty() { system } else { system_name(&system, from) }])
}

/// An Attachment with its data.
fn ed(node: &Node, _: &Source<'_>) -> Option<Wire> {
    let (kind, data) = (text(node, "contentType"), text(node, "data"));
    let (group, sub) =
        kind.split_once(';').map_or(kind.as_str(), |(kind, _)| kind).split_once('/').unwrap_or(("", ""));
    let group = match group {
        "text" => "TEXT",
        "image" => "IM",
        "audio" => "AU",
        _ => "AP",
    };
    Wire::of([String::new(), group.to_owned(), sub.trim().to_uppercase(), "Base64".to_owned(), data.clone()])
        .filter(|_| !data.is_empty())
}

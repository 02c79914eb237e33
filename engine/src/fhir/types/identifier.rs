//! Identifiers: CX, EI, EIP, XON, XCN and HD as `Identifier` and `uri`; the NHS number's own rules.
//!
//! Sources: the v2-to-FHIR maps CX, EI, EIP, XON, XCN and HD; NHS Data Dictionary (NHS NUMBER, modulus 11); UK Core.
//! Promise:  an NHS number stands under its national system only when its check digit holds; otherwise it is
//!           kept without a system, so that no resource can be keyed by it, and reported.
//! Decided:  the system of an authority comes from the table `assigning-authorities` (authority/type, then
//!           authority, then universal id), then from an OID, UUID or URI that the sender gives, and last is
//!           made of sending facility and authority: stable, and never shared by two facilities.

use std::borrow::Cow;

use smol_str::{SmolStr, format_smolstr};

use crate::{
    fhir::{
        Node, Row, Table,
        elements::{is_oid, is_uuid},
        name::name,
        node::percent_encoded,
        types::{code, time},
    },
    hl7::{
        Part, Value,
        identifier::{self, may_type_nhs, names_nhs, types_nhs},
    },
};

use super::{
    Cx, Finding,
    name::Pieces,
    text::{trimmed, upper},
};

/// The system of NHS numbers.
pub const NHS_NUMBER: &str = "https://fhir.nhs.uk/Id/nhs-number";
/// How the system of an authority begins that no table knows: the sending facility and its name follow.
pub const UNKNOWN_AUTHORITY: &str = "urn:tie:authority:";
/// The system of organisations' ODS codes.
pub const ODS_ORGANIZATION: &str = "https://fhir.nhs.uk/Id/ods-organization-code";
const VERIFICATION_STATUS: &str =
    "https://fhir.hl7.org.uk/StructureDefinition/Extension-UKCore-NHSNumberVerificationStatus";
const CHECK_DIGIT: &str = "http://hl7.org/fhir/StructureDefinition/identifier-checkDigit";
/// The system of what is a URI itself.
const URI: &str = "urn:ietf:rfc:3986";
const FACILITY: &str = "urn:tie:facility";
const GMC: &str = "https://fhir.hl7.org.uk/Id/gmc-number";
const GMP: &str = "https://fhir.hl7.org.uk/Id/gmp-number";

/// CX as `Identifier`: number, check digit or trace status, authority, type, validity.
pub fn cx(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    of_cx(part, None, cx)
}

/// CX as `Identifier`: a number without authority is the sender's own, under a system of its facility (MSH-4) and
/// application (MSH-3), so that no other sender's number is taken for it.
pub fn own(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let application = cx.named(3);
    let is_named = application.is_some() || cx.named(4).is_some();
    of_cx(part, is_named.then(|| local_uri("number", application.as_deref(), cx)), cx)
}

fn of_cx(part: Part<'_>, own: Option<SmolStr>, cx: &Cx<'_>) -> Option<Node> {
    let [value, digit, _, authority, kind, _, from, to] = part.first();
    let kind = trimmed(kind);
    let mut authority = Authority::of(authority, kind.as_deref(), cx);
    let value = trimmed(value)?;
    // An NHS number needs no naming.
    if matches!(authority, Authority::None) && !authority.is_nhs(kind.as_deref()) {
        authority = Authority::of_facility(cx);
    }
    if authority.is_nhs(kind.as_deref()) {
        return Some(nhs_number(digit, &value, cx));
    }
    let system = authority.system(cx).or_else(|| own.map(Node::Text));
    let unassigned = system.is_none();
    let identifier = Node::object([
        (name!("extension"), check_digit(digit)),
        (name!("type"), type_of(kind.as_deref(), cx)),
        (name!("system"), system),
        (name!("value"), Some(Node::text(value))),
        (name!("period"), time::period_of(from, to, cx)),
        (name!("assigner"), authority.assigner()),
    ]);
    if unassigned {
        cx.report(Finding::Doubtful("an identifier has no assigning authority"));
    }
    Some(identifier)
}

/// CX as `Identifier`, if somebody is named who assigned it: in old fields a bare number says nothing.
pub fn assigned(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    self::cx(part, cx).filter(|found| found.at(name!("system")).is_some())
}

/// PID-19 as `Identifier`: a social security number, unless its type (CX.5) says what else it is.
pub fn social_security(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    typed(part, "SS", cx)
}

/// PID-20 as `Identifier`: the number of a driver's licence, in the same way.
pub fn licence(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    typed(part, "DL", cx)
}

fn typed(part: Part<'_>, kind: &str, cx: &Cx<'_>) -> Option<Node> {
    if part.component(5).part().is_some() {
        return self::cx(part, cx);
    }
    Some(identifier_of(Value::Absent, type_of(Some(kind), cx), None, &trimmed(part.component(1))?))
}

/// EI as `Identifier`: entity identifier under its namespace or universal id.
pub fn ei(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let [value, name, universal, scheme] = part.first();
    let value = trimmed(value)?;
    let authority = Authority::of_parts([name, universal, scheme].map(trimmed), None, cx);
    Some(Node::identifier(authority.system(cx), value))
}

/// EIP as `Identifier`: what the filler assigned, else what the placer assigned, typed as such.
pub fn eip(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let (assigned, kind) = match part.component(2) {
        Value::Present(filler) => (filler, "FGN"),
        Value::Absent | Value::Null => (part.component(1).part()?, "PGN"),
    };
    let value = trimmed(assigned.subcomponent(1))?;
    let names = [2, 3, 4].map(|number| trimmed(assigned.subcomponent(number)));
    let authority = Authority::of_parts(names, None, cx);
    let kind = Node::coding(Some("http://terminology.hl7.org/CodeSystem/v2-0203".into()), kind, None);
    Some(identifier_of(Value::Absent, Some(Node::concept(kind)), authority.system(cx), &value))
}

/// XON as `Identifier`: XON.10 or XON.3 under XON.6; a bare ODS code is taken as one.
pub fn xon(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let [_, _, number, _, _, authority, kind, _, _, code] = part.first();
    let value = trimmed(code).or_else(|| trimmed(number))?;
    let kind = trimmed(kind);
    let authority = Authority::of(authority, kind.as_deref(), cx);
    let system = match &authority {
        Authority::None if is_ods_code(&value) => Some(ODS_ORGANIZATION.into()),
        Authority::None => Some(Node::Text(local_uri("organization", None, cx))),
        other => other.system(cx),
    };
    Some(identifier_of(Value::Absent, type_of(kind.as_deref(), cx), system, &value))
}

/// XCN (and CNN within NDL) as `Identifier`: XCN.1 under XCN.9; C1234567 is a consultant's, G1234567 a GP's code.
pub fn xcn(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    xcn_of(&Pieces::of(part), cx)
}

/// The same of an XCN that is split already.
pub(super) fn xcn_of(pieces: &Pieces<'_>, cx: &Cx<'_>) -> Option<Node> {
    let value = trimmed(pieces.at(1))?;
    let kind = trimmed(pieces.at(13));
    let authority = Authority::of(pieces.at(9), kind.as_deref(), cx);
    let system = match (&authority, national_code(&value)) {
        (Authority::None, Some(system)) => Some(system.into()),
        (Authority::None, None) => Some(Node::Text(local_uri("person", None, cx))),
        (other, _) => other.system(cx),
    };
    Some(identifier_of(pieces.at(11), type_of(kind.as_deref(), cx), system, &value))
}

fn identifier_of(digit: Value<'_>, kind: Option<Node>, system: Option<Node>, value: &str) -> Node {
    Node::object([
        (name!("extension"), check_digit(digit)),
        (name!("type"), kind),
        (name!("system"), system),
        (name!("value"), Some(Node::text(value))),
    ])
}

fn type_of(kind: Option<&str>, cx: &Cx<'_>) -> Option<Node> {
    code::concept_of_code(kind?, "identifier-type", cx)
}

/// HD as `Identifier` of an organisation: the first of those that it gives.
pub fn hd(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    of_hd(part, cx).into_iter().next()
}

/// HD as the identifiers of an organisation: an ODS code as such, any other name under a system of the sender; and what
/// the organisation is called in all the world.
pub(super) fn of_hd(part: Part<'_>, cx: &Cx<'_>) -> Vec<Node> {
    let [name, universal, scheme] = part.first().map(trimmed);
    let global = universal.as_deref().and_then(|id| universal_uri(id, scheme.as_deref()));
    let own = |name: Cow<'_, str>| {
        let uk = matches!(cx.message.header(17).text().as_deref(), Some("GBR" | "GB" | "UK"));
        let system = if uk && is_ods_code(&name) { ODS_ORGANIZATION } else { FACILITY };
        Node::identifier(Some(system.into()), name)
    };
    let by_scheme = |id| {
        let scheme =
            scheme.as_deref().map(|scheme| format_smolstr!("{FACILITY}:{}", percent_encoded(scheme, b"")));
        Node::identifier(Some(scheme.map_or(FACILITY.into(), Node::Text)), id)
    };
    let found = match (name, global) {
        (name, Some(uri)) => [name.map(own), Some(Node::identifier(Some(URI.into()), uri))],
        (Some(name), None) => [Some(own(name)), universal.map(by_scheme)],
        (None, None) => [universal.map(own), None],
    };
    found.into_iter().flatten().collect()
}

/// HD as the system that identifiers of this authority stand under.
pub fn hd_uri(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    Authority::of_parts(part.first().map(trimmed), None, cx).system(cx)
}

/// MSH-10 as `Identifier` of the message among all messages of its sender (MSH-3): control ids begin anew, so the
/// time (MSH-7) belongs to it. Nothing where one of them cannot be used, for a repeat must give the same.
pub fn message(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let value = trimmed(part.component(1))?;
    let sent = cx.message.header(7);
    time::instant(sent.part()?, cx)?;
    let value = format!("{value}/{}", sent.text().unwrap_or_default());
    Some(Node::identifier(Some(control_id_system(cx)), value))
}

/// MSH-10 as `Identifier`: the control id under a system of the sending application (MSH-3).
pub fn control_id(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    Some(Node::identifier(Some(control_id_system(cx)), trimmed(part.component(1))?))
}

fn control_id_system(cx: &Cx<'_>) -> Node {
    let make = || {
        let sender = cx.message.header(3).part().and_then(|part| hd_uri(part, cx));
        let sender = sender.as_ref().and_then(Node::as_text).unwrap_or("urn:tie:unknown");
        Node::text(format_smolstr!("{sender}:control-id"))
    };
    cx.of_message.control_ids.get_or_init(make).clone()
}

/// CX of a visit (PV1-19, PV1-50) as `Identifier`: a number without authority is the sending facility's own.
pub fn visit(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    valid(part, "VN", "visit", cx)
}

/// CX of an account (PID-18, MRG-3) as `Identifier`, in the same way.
pub fn account(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    valid(part, "AN", "account", cx)
}

fn valid(part: Part<'_>, type_code: &str, kind: &str, cx: &Cx<'_>) -> Option<Node> {
    let [number, _, _, authority, _, _, from, to] = part.first();
    let mut identifier = numbered(number, Authority::of(authority, Some(type_code), cx), kind, cx)?;
    identifier.as_object_mut()?.push(name!("period"), time::period_of(from, to, cx));
    Some(identifier)
}

/// EI of an order as `Identifier`, as the placer numbered it: without a namespace, under the sending facility.
pub fn placer(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    order(part, "placer", cx)
}

/// EI of an order as `Identifier`, as the filler numbered it: without a namespace, under the sending facility and
/// application, for laboratory and radiology of one hospital count each for itself.
pub fn filler(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    order(part, "filler", cx)
}

fn order(part: Part<'_>, kind: &str, cx: &Cx<'_>) -> Option<Node> {
    let [number, name, universal, scheme] = part.first();
    let named = match [name, universal, scheme].map(trimmed) {
        // Within a component, as in EIP, its components are subcomponents.
        [None, None, None] => [2, 3, 4].map(|number| trimmed(part.component(1).subcomponent(number))),
        named => named,
    };
    numbered(number, Authority::of_parts(named, None, cx), kind, cx)
}

fn numbered(value: Value<'_>, authority: Authority<'_>, kind: &str, cx: &Cx<'_>) -> Option<Node> {
    let value = trimmed(value)?;
    let application = cx.message.header(3).text().filter(|_| kind == "filler");
    let system =
        authority.system(cx).unwrap_or_else(|| Node::Text(local_uri(kind, application.as_deref(), cx)));
    Some(Node::identifier(Some(system), value))
}

/// An ODS code by its form: three characters of a trust or board, or five and six of a site or practice, which have
/// both letters and digits (`12345` is a practice number of some other series).
pub fn is_ods_code(code: &str) -> bool {
    let plain = code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    let mixed =
        code.bytes().any(|byte| byte.is_ascii_digit()) && code.bytes().any(|byte| byte.is_ascii_uppercase());
    plain && (code.len() == 3 || matches!(code.len(), 5 | 6) && mixed)
}

/// Who assigned an identifier.
enum Authority<'a> {
    /// Listed in the table.
    Listed { table: &'a Table, row: &'a Row, system: &'a SmolStr },
    /// Named by the sender only.
    Named { name: Option<Cow<'a, str>>, universal: Option<Cow<'a, str>>, scheme: Option<Cow<'a, str>> },
    /// Not named.
    None,
}

impl<'a> Authority<'a> {
    fn of(hd: Value<'a>, kind: Option<&str>, cx: &Cx<'a>) -> Self {
        Self::of_parts([1, 2, 3].map(|number| trimmed(hd.subcomponent(number))), kind, cx)
    }

    #[inline(never)]
    fn of_parts([name, id, scheme]: [Option<Cow<'a, str>>; 3], kind: Option<&str>, cx: &Cx<'a>) -> Self {
        if name.is_none() && id.is_none() {
            return Self::None;
        }
        if let Some(table) = cx.tables.get("assigning-authorities")
            && let Some(row) = row_of(table, [name.as_deref(), id.as_deref(), kind])
            && let Some(system) = row.system()
        {
            return Self::Listed { table, row, system };
        }
        Self::Named { name, universal: id, scheme }
    }

    /// What a trust has written down for the numbers that its facility sends without any authority.
    fn of_facility(cx: &Cx<'a>) -> Self {
        let found = Self::of_parts([Some(format!("@{}", cx.facility()).into()), None, None], None, cx);
        if matches!(found, Self::Listed { .. }) { found } else { Self::None }
    }

    /// Whether the identifier is meant to be an NHS number: by its authority, or by a type that only it has.
    fn is_nhs(&self, kind: Option<&str>) -> bool {
        match self {
            Self::Listed { table, row, system } => {
                *system == NHS_NUMBER && table.cell(row, "check").is_some_and(|check| check == "nhs")
            }
            Self::Named { name, universal, .. } => {
                [name, universal].into_iter().flatten().any(|named| names_nhs(named))
                    || kind.is_some_and(types_nhs)
            }
            Self::None => kind.is_some_and(may_type_nhs),
        }
    }

    #[inline(never)]
    fn system(&self, cx: &Cx<'_>) -> Option<Node> {
        match self {
            Self::Listed { system, .. } => Some(Node::Text((*system).clone())),
            Self::Named { name, universal, scheme } => {
                let global = universal.as_deref().and_then(|id| universal_uri(id, scheme.as_deref()));
                let name = name.as_deref().or(universal.as_deref())?;
                Some(Node::Text(global.unwrap_or_else(|| local_uri("authority", Some(name), cx))))
            }
            Self::None => None,
        }
    }

    fn assigner(&self) -> Option<Node> {
        match self {
            Self::Listed { table, row, .. } => {
                let ods = table.cell(row, "ods")?.clone();
                let identifier = Node::identifier(Some(ODS_ORGANIZATION.into()), ods);
                Some(Node::object([(name!("identifier"), Some(identifier))]))
            }
            Self::Named { name, .. } => {
                Some(Node::object([(name!("display"), Some(Node::text(name.as_deref()?)))]))
            }
            Self::None => None,
        }
    }
}

/// The row of an authority: for this type of number, by its name, by its universal id.
fn row_of<'t>(table: &'t Table, [name, id, kind]: [Option<&str>; 3]) -> Option<&'t Row> {
    let typed = name.zip(kind).map(|(name, kind)| format_smolstr!("{name}/{kind}"));
    [typed.as_deref(), name, id].into_iter().flatten().find_map(|key| table.get(&upper(key)))
}

fn nhs_number(digit: Value<'_>, value: &str, cx: &Cx<'_>) -> Node {
    let Some(digits) = identifier::nhs_number(value) else {
        cx.report(Finding::Doubtful("an NHS number fails its check and is kept without a system"));
        let kind = Node::object([(name!("text"), Some("NHS number that failed its check".into()))]);
        return Node::object([(name!("type"), Some(kind)), (name!("value"), Some(Node::text(value)))]);
    };
    let status = trimmed(digit).and_then(|status| verification_status(&status, cx));
    Node::object([
        (name!("extension"), status.map(|status| vec![status].into())),
        (name!("system"), Some(NHS_NUMBER.into())),
        (name!("value"), Some(Node::text(digits))),
    ])
}

/// The extension for a status such as `01` or `NSTS01`; nothing for a code that is no such status.
pub fn verification_status(status: &str, cx: &Cx<'_>) -> Option<Node> {
    let row = cx.tables.get("nhs-number-status")?.get(&upper(status.trim()))?;
    Some(Node::extension(VERIFICATION_STATUS, name!("valueCodeableConcept"), row.concept()))
}

/// PID-32 as the extension: any repetition may carry the tracing status, the others say something else.
pub fn verification(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    verification_status(&part.text(), cx)
}

fn check_digit(digit: Value<'_>) -> Option<Node> {
    let digit = Node::text(trimmed(digit)?);
    Some(vec![Node::extension(CHECK_DIGIT, name!("valueString"), digit)].into())
}

/// The system of a consultant's (C) or GP's (G) national code, by its form.
fn national_code(value: &str) -> Option<&'static str> {
    let (letter, digits) = value.split_at_checked(1)?;
    let seven = digits.len() == 7 && digits.bytes().all(|digit| digit.is_ascii_digit());
    match letter {
        "C" if seven => Some(GMC),
        "G" if seven => Some(GMP),
        _ => None,
    }
}

fn universal_uri(id: &str, scheme: Option<&str>) -> Option<SmolStr> {
    match scheme.map(upper).as_deref() {
        Some("ISO") | None if is_oid(id) => Some(format_smolstr!("urn:oid:{id}")),
        Some("UUID" | "GUID") if is_uuid(&id.to_lowercase()) => {
            Some(format_smolstr!("urn:uuid:{}", id.to_lowercase()))
        }
        Some("URI" | "URL" | "HTTP") if !id.contains(char::is_whitespace) => Some(id.into()),
        _ => None,
    }
}

/// A system of the sender's own: `urn:tie:<kind>:<sending facility>[:<name>]`.
#[inline(never)]
pub(super) fn local_uri(kind: &str, name: Option<&str>, cx: &Cx<'_>) -> SmolStr {
    let facility = cx.facility();
    let facility = percent_encoded(&facility, b"");
    let name = name.map(|name| percent_encoded(name, b""));
    let colon = if name.is_some() { ":" } else { "" };
    ["urn:tie:", kind, ":", &facility, colon, name.as_deref().unwrap_or_default()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::{super::converter_tests::check, *};

    #[test]
    fn an_nhs_number_in_every_spelling_seen_live() {
        let expected = r#"{"system":"https://fhir.nhs.uk/Id/nhs-number","value":"9991001018"}"#;
        for spelling in [
            "9991001018^^^NHS",
            "9991001018^^^NHS^NH",
            "999 100 1018^^^NHSNBR^NHSNMBR",
            "9991001018^^^NHS^HN",
            "9991001018^^^^NH",
            "9991001018^^^^NHS",
            "999-100-1018^^^EPIC^NHS",
            "9991001018^^^&2.16.840.1.113883.2.1.4.1&ISO",
            // Not in the table, and no less an NHS number.
            "9991001018^^^NHS Number",
            "9991001018^^^X&https://fhir.nhs.uk/Id/nhs-number&URI",
        ] {
            check("CX", "Identifier", spelling, expected);
        }
    }

    #[test]
    fn the_shipped_table_calls_nothing_an_nhs_number_that_intake_does_not() {
        let text = include_str!("../../../../mappings/tables/assigning-authorities.csv");
        let table = crate::fhir::Table::parse("t", std::path::Path::new("t"), text).unwrap();
        let rows = table.rows().filter(|(_, row)| row.system().is_some_and(|system| system == NHS_NUMBER));
        let words: Vec<_> = rows.map(|(from, _)| from).collect();
        assert!(words.len() > 3 && words.iter().all(|word| names_nhs(word)), "{words:?}");
    }
}

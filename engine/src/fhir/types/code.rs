//! Codes: CE, CWE, CNE, CF, IS and ID as `CodeableConcept`, `Coding`, `code`, `string` and `boolean`.
//!
//! Sources: the v2-to-FHIR maps CWE[CodeableConcept], CWE[Coding], CWE[code], CWE[string] and the guide's translator logic.
//! Promise:  what was sent is never lost to a translation: the sender's own coding or text stays beside it.
//! Decided:  the field's table translates the triplets that name no world-wide coding system; names of coding systems
//!           become URIs by the table `coding-systems`, `HL7nnnn` by rule; any other name, `L` and none become a system
//!           of the sending facility. A code that its table does not have is reported and kept.

use std::borrow::Cow;

use smol_str::{SmolStr, format_smolstr};

use super::{
    Cx,
    identifier::local_uri,
    text::{phrase, trimmed, upper},
};
use crate::{
    fhir::{Node, Row, Table, name::name},
    hl7::{Part, Value},
};

const TRIGGER_EVENT: &str = "http://terminology.hl7.org/CodeSystem/v2-0003";
const TREATMENT_FUNCTION: &str =
    "https://fhir.nhs.uk/CodeSystem/NHSDataModelAndDictionary-treatment-function";

/// CWE as `CodeableConcept`: up to three codings, and text.
pub fn concept(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let mut codings = Vec::new();
    let (mut original, mut alone) = (None, None);
    let pieces = part.first();
    for triplet in Triplet::all(&pieces) {
        match triplet.row(cx) {
            Some((table, row)) if row.code().is_some() => {
                if codings.is_empty() {
                    alone = Some(row);
                }
                add(&mut codings, row.coding());
                if let Some(second) = second_coding(table, row) {
                    add(&mut codings, second);
                }
                let translated = row.code().is_none_or(|code| !code.eq_ignore_ascii_case(&triplet.code));
                if translated || triplet.system.is_some() {
                    add(&mut codings, triplet.coding(cx));
                }
            }
            Some((_, row)) => original = original.or_else(|| row.display().cloned()),
            None if cx.table.is_some() && triplet.system.is_none() => {
                original = original.or_else(|| Some(SmolStr::new(&triplet.code)));
            }
            None => add(&mut codings, triplet.coding(cx)),
        }
    }
    let sent = [pieces[8], pieces[1], pieces[4]].into_iter().find_map(phrase);
    // Words in the place of a coding system, for want of a code, are better than nothing.
    let words = || phrase(pieces[2]).filter(|words| codings.is_empty() && words.contains(' '));
    let sent = sent.or_else(words);
    let text = sent.map(Node::text).or(original.map(Node::Text));
    if let (Some(row), None, [_]) = (alone, &text, codings.as_slice()) {
        return Some(row.concept());
    }
    Node::object([(name!("coding"), Node::Array(codings).some()), (name!("text"), text)]).some()
}

/// CWE as `Coding`: by the field's table, else as it was sent.
pub fn coding(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let triplet = Triplet::all(&part.first()).next()?;
    match triplet.row(cx) {
        Some((_, row)) if row.code().is_some() => Some(row.coding()),
        _ => Some(triplet.coding(cx)),
    }
}

/// CWE, ID or IS as `code`: by the field's table; without one, as it was sent.
pub fn code(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let sent = trimmed(part.component(1)).or_else(|| trimmed(part.component(4)))?;
    match cx.table {
        Some(table) => row_of(table, &sent, cx)?.code().cloned().map(Node::Text),
        // FHIR's `code` has single blanks at most.
        None => Some(Node::text(sent)).filter(|_| !part.text().contains("  ")),
    }
}

/// CWE as `string`: original text, text or code.
pub fn string(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let found = [9, 2, 1].into_iter().find_map(|number| trimmed(part.component(number)))?;
    Some(Node::text(found))
}

/// ID as `boolean`: by the field's table, else Y and N.
pub fn boolean(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let sent = part.text();
    let table = cx.table.or_else(|| cx.tables.get("yes-no"))?;
    match row_of(table, sent.trim(), cx)?.code()?.as_str() {
        "true" => Some(Node::Boolean(true)),
        "false" => Some(Node::Boolean(false)),
        _ => None,
    }
}

/// CWE as `uri`: the code itself.
pub fn uri(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    trimmed(part.component(1)).filter(|uri| !uri.contains(char::is_whitespace)).map(Node::text)
}

/// MSG (MSH-9) as `CodeableConcept`: the trigger event as code, message code and trigger event as text.
pub fn trigger(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let (code, event) = (trimmed(part.component(1))?, trimmed(part.component(2)));
    let Some(event) = event else { return Node::object([(name!("text"), Some(Node::text(&*code)))]).some() };
    let whole = Node::text(format!("{code}^{event}"));
    let coding = Node::coding(Some(TRIGGER_EVENT.into()), Node::text(event), None);
    Node::object([(name!("coding"), Some(vec![coding].into())), (name!("text"), Some(whole))]).some()
}

/// PV1-10 in the NHS: a treatment function where it has three digits, else a code that nobody has said the system of.
pub fn treatment_function(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let code = trimmed(part.component(1))?;
    let is_function = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    let system = is_function.then(|| TREATMENT_FUNCTION.into());
    let display = trimmed(part.component(2)).map(Node::text);
    Some(Node::concept(Node::coding(system, Node::text(code), display)))
}

/// PID-22 in the NHS: sites add a code of their own to the letter (`C22`): the letter is coded, the whole stays as text.
pub fn ethnic_category(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    let sent = trimmed(part.component(1))?;
    let table = cx.table?;
    let whole = table.get(&sent);
    let first = sent.chars().next().and_then(|first| sent.get(..first.len_utf8()))?;
    let row = whole.or_else(|| table.get(first))?;
    if whole.is_some() {
        return row.concept().some();
    }
    let coding = Some(vec![row.coding()].into());
    Some(Node::object([(name!("coding"), coding), (name!("text"), Some(Node::text(sent)))]))
}

/// A bare code as a concept by one of the revision's tables; text when the table does not have it.
pub(super) fn concept_of_code(code: &str, table: &str, cx: &Cx<'_>) -> Option<Node> {
    let row = cx.tables.get(table).and_then(|table| row_of(table, code, cx));
    match row.filter(|row| row.code().is_some()) {
        Some(row) => Some(row.concept()),
        None => Node::object([(name!("text"), Some(Node::text(code)))]).some(),
    }
}

/// The row of a code as it was sent, in upper case or in lower case; none is reported.
pub(super) fn row_of<'a>(table: &'a Table, code: &str, cx: &Cx<'a>) -> Option<&'a Row> {
    let found =
        table.own(code).or_else(|| table.own(&upper(code))).or_else(|| table.own(&code.to_lowercase()));
    found.or_else(|| cx.look_up(table, code))
}

/// The URI of a coding system that all the world knows by this name.
pub(super) fn known_system<'a>(name: &str, cx: &Cx<'a>) -> Option<&'a SmolStr> {
    cx.tables.get("coding-systems")?.get(&upper(name))?.system()
}

/// The URI of a coding system by its name in CWE.3.
pub(super) fn system_uri(name: Option<&str>, cx: &Cx<'_>) -> SmolStr {
    let Some(name) = name else { return local_uri("codes", None, cx) };
    if let Some(system) = known_system(name, cx) {
        return system.clone();
    }
    let upper = upper(name);
    let digits = upper.strip_prefix("HL7").map(|rest| rest.trim_start_matches(['-', ' ']));
    match digits {
        Some(digits) if digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            format_smolstr!("http://terminology.hl7.org/CodeSystem/v2-{digits}")
        }
        _ if ["http://", "https://", "urn:"].iter().any(|start| name.starts_with(start))
            && !name.contains(char::is_whitespace) =>
        {
            name.into()
        }
        _ => local_uri("codes", Some(name), cx),
    }
}

/// Code, text and coding system: CWE has three of them.
struct Triplet<'m> {
    code: Cow<'m, str>,
    display: Option<Cow<'m, str>>,
    system: Option<Cow<'m, str>>,
    version: Option<Cow<'m, str>>,
}

impl<'m> Triplet<'m> {
    fn all(components: &[Value<'m>; 13]) -> impl Iterator<Item = Self> + use<'m> {
        let [a1, a2, a3, b1, b2, b3, a4, b4, _, c1, c2, c3, c4] = *components;
        [[a1, a2, a3, a4], [b1, b2, b3, b4], [c1, c2, c3, c4]].into_iter().filter_map(
            |[code, display, system, version]| {
                let [system, version] = [system, version].map(trimmed);
                Some(Self { code: trimmed(code)?, display: phrase(display), system, version })
            },
        )
    }

    /// What the field's table says, unless the sender names a world-wide coding system.
    fn row<'a>(&self, cx: &Cx<'a>) -> Option<(&'a Table, &'a Row)> {
        let table = cx.table?;
        if self.system.as_deref().is_some_and(|name| known_system(name, cx).is_some()) {
            return None;
        }
        Some((table, row_of(table, &self.code, cx)?))
    }

    /// The first SNOMED (`M80903`), which has letters, went by the names of SNOMED CT (`SNM`), which has digits.
    fn system_uri(&self, cx: &Cx<'_>) -> SmolStr {
        let system = system_uri(self.system.as_deref(), cx);
        let is_old = system == "http://snomed.info/sct"
            && self.code.starts_with(|one: char| one.is_ascii_alphabetic());
        if is_old { local_uri("codes", self.system.as_deref(), cx) } else { system }
    }

    fn coding(&self, cx: &Cx<'_>) -> Node {
        Node::object([
            (name!("system"), Some(Node::Text(self.system_uri(cx)))),
            (name!("version"), self.version.as_deref().map(Node::text)),
            (name!("code"), Some(Node::text(&*self.code))),
            (name!("display"), self.display.as_deref().map(Node::text)),
        ])
    }
}

/// Adds a coding that is not there yet.
fn add(codings: &mut Vec<Node>, coding: Node) {
    let same = |other: &Node| {
        other.at(name!("system")) == coding.at(name!("system"))
            && other.at(name!("code")) == coding.at(name!("code"))
    };
    if !codings.iter().any(same) {
        codings.push(coding);
    }
}

/// A row may give a second coding in `code2`, `system2`, `display2`.
fn second_coding(table: &Table, row: &Row) -> Option<Node> {
    let cell = |column| table.cell(row, column).cloned().map(Node::Text);
    Some(Node::coding(cell("system2"), cell("code2")?, cell("display2")))
}

#[cfg(test)]
mod tests {
    use super::super::converter_tests::findings;

    #[test]
    fn a_code_that_its_table_does_not_have_is_told() {
        assert_eq!(
            findings(Some("administrative-sex"), "CWE", "code", "Q"),
            ["a code is not in administrative-sex"]
        );
    }
}

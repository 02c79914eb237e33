//! HL7 v2 data types as FHIR data types: one native function each, named in [`CONVERTERS`].
//!
//! A converter gets one repetition (or component) of a field and gives one node, or nothing when there is
//! nothing to say. It never fails: what it cannot read it leaves out and reports through [`Cx::report`].

use std::cell::RefCell;

use jiff::tz::TimeZone;
use smol_str::SmolStr;

use super::{Node, Row, Table, Tables};
use crate::hl7::{Part, Value};

/// Makes a node of a part of a message.
pub type Convert = fn(Part<'_>, &Cx<'_>) -> Option<Node>;

/// One way to read one HL7 v2 data type.
#[derive(Clone, Copy)]
pub struct Converter {
    /// What mappings write: `CX`, `XPN`, `date`, …
    pub name: &'static str,
    /// The FHIR type that it gives. Several converters may share a name: the element decides.
    pub to: &'static str,
    /// The function.
    pub convert: Convert,
}

/// What a converter may know besides the part itself.
pub struct Cx<'a> {
    /// The zone of times that come without an offset.
    pub zone: &'a TimeZone,
    /// All code tables of the revision.
    pub tables: &'a Tables,
    /// The table that the mapping names for this field.
    pub table: Option<&'a Table>,
    /// What was noticed on the way.
    pub findings: &'a RefCell<Vec<Finding>>,
}

/// Something that a person should look at, though the message goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A code that its table does not have.
    Unmapped {
        /// The table.
        table: SmolStr,
        /// The code. It may be anything that a sender wrote: for the journal, never for a log.
        code: SmolStr,
    },
    /// What a script remarked.
    Remark(SmolStr),
    /// A value that breaks a rule; what rule, without the value.
    Doubtful(&'static str),
}

impl<'a> Cx<'a> {
    /// What the field's own table says of a code. A code without a row is reported; so is none without a table.
    pub fn code(&self, code: &str) -> Option<&'a Row> {
        self.look_up(self.table?, code)
    }

    /// What a table says of a code. A code without a row is reported.
    pub fn look_up(&self, table: &'a Table, code: &str) -> Option<&'a Row> {
        let row = table.get(code);
        if row.is_none() && !code.is_empty() {
            self.report(Finding::Unmapped { table: table.name().into(), code: code.into() });
        }
        row
    }

    /// Reports something that a person should look at.
    pub fn report(&self, finding: Finding) {
        self.findings.borrow_mut().push(finding);
    }
}

/// All converters. A mapping names one; when several share a name, the type of the element decides.
pub const CONVERTERS: &[Converter] = &[
    Converter { name: "CX", to: "Identifier", convert: cx },
    Converter { name: "XPN", to: "HumanName", convert: xpn },
    Converter { name: "date", to: "date", convert: date },
    Converter { name: "code", to: "code", convert: code },
    Converter { name: "string", to: "string", convert: string },
];

fn leaf(value: Value<'_>) -> Option<Node> {
    Some(Node::Text(value.text()?.into()))
}

fn cx(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let system = part.component(4).text().map(|authority| Node::text(format!("urn:id:{authority}")));
    Node::object([("system", system), ("value", leaf(part.component(1)))]).some()
}

fn xpn(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let given: Vec<_> = [2, 3].into_iter().filter_map(|number| leaf(part.component(number))).collect();
    Node::object([("family", leaf(part.component(1))), ("given", Some(given.into()))]).some()
}

fn date(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    let text = part.text();
    let digits = text.get(..8).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = digits.split_at_checked(4)?;
    let (month, day) = rest.split_at_checked(2)?;
    Some(Node::text(format!("{year}-{month}-{day}")))
}

fn code(part: Part<'_>, cx: &Cx<'_>) -> Option<Node> {
    match cx.table {
        Some(_) => Some(Node::Text(cx.code(&part.text())?.code()?.clone())),
        None => string(part, cx),
    }
}

fn string(part: Part<'_>, _: &Cx<'_>) -> Option<Node> {
    Some(Node::Text(part.text().into())).filter(|node| !node.is_empty())
}

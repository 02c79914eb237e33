//! HL7 v2 data types as FHIR data types: one native function each, named in [`CONVERTERS`].
//!
//! In:       one repetition or component of a field that has content, and a [`Cx`].
//! Out:      one node, or nothing when there is nothing to say.
//! Promise:  a converter never fails and never guesses: what it cannot read it leaves out and reports; a code that has
//!           no translation is kept as it was sent. No digit, no letter of a value is changed on the way.
//! Not here: which field feeds which element (segment maps and scripts), absent and null fields (the plan).

mod address;
mod code;
pub mod document;
mod identifier;
mod name;
mod quantity;
pub mod resources;
pub mod result;
mod telecom;
mod text;
pub mod time;

use std::{borrow::Cow, cell::RefCell};

use jiff::tz::TimeZone;
use smol_str::SmolStr;

pub use identifier::{NHS_NUMBER, ODS_ORGANIZATION, cx as identifier_of_cx, is_ods_code, own as own_number};

use super::{Node, Row, Table, Tables};
use crate::hl7::{Message, Part, Segment};

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
    /// The message that the part is of.
    pub message: &'a Message,
    /// The zone of times that come without an offset.
    pub zone: &'a TimeZone,
    /// All code tables of the revision.
    pub tables: &'a Tables,
    /// The table that the mapping names for this field.
    pub table: Option<&'a Table>,
    /// The segment that the part is of, where a segment map asks.
    pub segment: Option<Segment<'a>>,
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

    /// The sending facility (MSH-4), which keeps one hospital's own codes and numbers apart from another's;
    /// the sending application (MSH-3) where no facility is named.
    pub fn facility(&self) -> Cow<'a, str> {
        let named = |field| self.message.header(field).text().filter(|name| !name.trim().is_empty());
        named(4).or_else(|| named(3)).unwrap_or(Cow::Borrowed("unknown"))
    }
}

const fn converter(name: &'static str, to: &'static str, convert: Convert) -> Converter {
    Converter { name, to, convert }
}

/// All converters. A mapping names one; when several share a name, the type of the element decides.
pub const CONVERTERS: &[Converter] = &[
    converter("CX", "Identifier", identifier::cx),
    converter("own-number", "Identifier", identifier::own),
    converter("assigned-number", "Identifier", identifier::assigned),
    converter("EI", "Identifier", identifier::ei),
    converter("EIP", "Identifier", identifier::eip),
    converter("HD", "Identifier", identifier::hd),
    converter("HD", "uri", identifier::hd_uri),
    converter("visit-number", "Identifier", identifier::visit),
    converter("account-number", "Identifier", identifier::account),
    converter("placer-number", "Identifier", identifier::placer),
    converter("filler-number", "Identifier", identifier::filler),
    converter("verification", "Extension", identifier::verification),
    converter("control-id", "Identifier", identifier::control_id),
    converter("message", "Identifier", identifier::message),
    converter("XON", "Identifier", identifier::xon),
    converter("XON", "string", text::plain),
    converter("XPN", "HumanName", name::xpn),
    converter("XPN", "string", name::xpn_line),
    converter("XCN", "HumanName", name::xcn),
    converter("XCN", "Identifier", identifier::xcn),
    converter("XCN", "string", name::xcn_line),
    converter("XAD", "Address", address::xad),
    converter("AD", "Address", address::xad),
    converter("XTN", "ContactPoint", telecom::xtn),
    converter("TN", "ContactPoint", telecom::xtn),
    converter("CWE", "CodeableConcept", code::concept),
    converter("CWE", "Coding", code::coding),
    converter("CWE", "code", code::code),
    converter("CWE", "string", code::string),
    converter("CWE", "uri", code::uri),
    converter("CE", "CodeableConcept", code::concept),
    converter("CE", "Coding", code::coding),
    converter("CE", "code", code::code),
    converter("CE", "string", code::string),
    converter("CNE", "CodeableConcept", code::concept),
    converter("CNE", "Coding", code::coding),
    converter("CNE", "code", code::code),
    converter("CF", "CodeableConcept", code::concept),
    converter("IS", "CodeableConcept", code::concept),
    converter("IS", "Coding", code::coding),
    converter("IS", "code", code::code),
    converter("IS", "string", text::plain),
    converter("ID", "CodeableConcept", code::concept),
    converter("ID", "Coding", code::coding),
    converter("ID", "code", code::code),
    converter("ID", "boolean", code::boolean),
    converter("ID", "string", text::plain),
    converter("MSG", "CodeableConcept", code::trigger),
    converter("treatment-function", "CodeableConcept", code::treatment_function),
    converter("ethnic-category", "CodeableConcept", code::ethnic_category),
    converter("code", "code", code::code),
    converter("boolean", "boolean", code::boolean),
    converter("NM", "Quantity", quantity::nm),
    converter("NM", "decimal", quantity::decimal_of),
    converter("NM", "positiveInt", quantity::positive),
    converter("NM", "unsignedInt", quantity::positive),
    converter("NM", "integer", quantity::positive),
    converter("SI", "positiveInt", quantity::positive),
    converter("SN", "Quantity", quantity::sn),
    converter("SN", "Range", quantity::sn_range),
    converter("SN", "Ratio", quantity::sn_ratio),
    converter("SN", "string", quantity::sn_text),
    converter("CQ", "Quantity", quantity::cq),
    converter("MO", "Money", quantity::money),
    converter("CP", "Money", quantity::money),
    converter("NR", "Range", quantity::nr),
    converter("units", "Quantity", quantity::units),
    converter("reference-range", "Observation.referenceRange", result::reference_range),
    converter("DTM", "dateTime", time::date_time),
    converter("DTM", "date", time::date),
    converter("DTM", "instant", time::instant),
    converter("TS", "dateTime", time::date_time),
    converter("TS", "date", time::date),
    converter("TS", "instant", time::instant),
    converter("DT", "date", time::date),
    converter("DT", "dateTime", time::date_time),
    converter("date", "date", time::date),
    converter("dateTime", "dateTime", time::date_time),
    converter("instant", "instant", time::instant),
    converter("birth-time", "Extension", time::birth_time),
    converter("TM", "time", time::time_of_day),
    converter("DR", "Period", time::period),
    converter("ED", "Attachment", document::ed),
    converter("RP", "Attachment", document::rp),
    converter("ST", "string", text::plain),
    converter("TX", "string", text::whole),
    converter("TX", "markdown", text::whole),
    converter("FT", "string", text::whole),
    converter("FT", "markdown", text::whole),
    converter("string", "string", text::plain),
];

#[cfg(test)]
pub(crate) mod testing;

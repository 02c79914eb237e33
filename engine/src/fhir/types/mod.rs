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

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell, RefCell},
};

use jiff::tz::TimeZone;
use smol_str::SmolStr;

pub use identifier::{
    NHS_NUMBER, ODS_ORGANIZATION, UNKNOWN_AUTHORITY, cx as identifier_of_cx, is_ods_code, own as own_number,
};
pub use quantity::range;

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
    /// What holds for all of it.
    pub of_message: &'a OfMessage,
    /// What was noticed on the way.
    pub findings: &'a RefCell<Vec<Finding>>,
    /// Set by what looks at more than the part, the tables and who sends (MSH-3, 4, 17 and 21), or reports something: what it
    /// makes holds for this message alone.
    pub is_of_one_message: Cell<bool>,
}

/// What holds for all of a message, once it was asked for.
#[derive(Default)]
pub struct OfMessage {
    /// The system of the sender's control ids.
    control_ids: OnceCell<Node>,
    /// The zone that the sender's times have, where it is not our own.
    zone: OnceCell<Option<TimeZone>>,
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
    #[inline(never)]
    pub fn look_up(&self, table: &'a Table, code: &str) -> Option<&'a Row> {
        let row = table.get(code);
        if row.is_none() && !code.is_empty() {
            self.report(Finding::Unmapped { table: table.name().into(), code: code.into() });
        }
        row
    }

    /// Reports something that a person should look at.
    pub fn report(&self, finding: Finding) {
        self.is_of_one_message.set(true);
        self.findings.borrow_mut().push(finding);
    }

    /// The sending facility (MSH-4), which keeps one hospital's own codes and numbers apart from another's;
    /// the sending application (MSH-3) where no facility is named.
    pub fn facility(&self) -> Cow<'a, str> {
        self.named(4).or_else(|| self.named(3)).unwrap_or(Cow::Borrowed("unknown"))
    }

    /// What a field of MSH names, unless that is blank.
    fn named(&self, field: usize) -> Option<Cow<'a, str>> {
        self.message.header(field).text().filter(|name| !name.trim().is_empty())
    }
}

/// Each line: the names that mappings write, what they give, and how.
macro_rules! converters {
    ($($($name:literal)|+ => $to:literal: $convert:path;)+) => {
        &[$($(Converter { name: $name, to: $to, convert: $convert },)+)+]
    };
}

/// All converters. A mapping names one; when several share a name, the type of the element decides.
pub const CONVERTERS: &[Converter] = converters! {
    "CX" => "Identifier": identifier::cx;
    "own-number" => "Identifier": identifier::own;
    "assigned-number" => "Identifier": identifier::assigned;
    "social-security" => "Identifier": identifier::social_security;
    "licence-number" => "Identifier": identifier::licence;
    "EI" => "Identifier": identifier::ei;
    "EIP" => "Identifier": identifier::eip;
    "HD" => "Identifier": identifier::hd;
    "HD" => "uri": identifier::hd_uri;
    "visit-number" => "Identifier": identifier::visit;
    "account-number" => "Identifier": identifier::account;
    "placer-number" => "Identifier": identifier::placer;
    "filler-number" => "Identifier": identifier::filler;
    "verification" => "Extension": identifier::verification;
    "control-id" => "Identifier": identifier::control_id;
    "message" => "Identifier": identifier::message;
    "XON" => "Identifier": identifier::xon;
    "XPN" => "HumanName": name::xpn;
    "XPN" => "string": name::xpn_line;
    "XCN" => "HumanName": name::xcn;
    "XCN" => "Identifier": identifier::xcn;
    "XCN" => "string": name::xcn_line;
    "XAD" | "AD" => "Address": address::xad;
    "XTN" | "TN" => "ContactPoint": telecom::xtn;
    "CWE" | "CE" | "CNE" | "CF" | "IS" | "ID" => "CodeableConcept": code::concept;
    "CWE" | "CE" | "CNE" | "IS" | "ID" => "Coding": code::coding;
    "CWE" | "CE" | "CNE" | "IS" | "ID" | "code" => "code": code::code;
    "CWE" | "CE" => "string": code::string;
    "CWE" => "uri": code::uri;
    "ID" | "boolean" => "boolean": code::boolean;
    "MSG" => "CodeableConcept": code::trigger;
    "treatment-function" => "CodeableConcept": code::treatment_function;
    "ethnic-category" => "CodeableConcept": code::ethnic_category;
    "NM" => "Quantity": quantity::nm;
    "NM" => "decimal": quantity::decimal_of;
    "NM" | "SI" => "positiveInt": quantity::positive;
    "NM" => "unsignedInt": quantity::positive;
    "NM" => "integer": quantity::positive;
    "SN" => "Quantity": quantity::sn;
    "SN" => "Range": quantity::sn_range;
    "SN" => "Ratio": quantity::sn_ratio;
    "SN" => "string": quantity::sn_text;
    "CQ" => "Quantity": quantity::cq;
    "MO" | "CP" => "Money": quantity::money;
    "NR" => "Range": quantity::nr;
    "units" => "Quantity": quantity::units;
    "observed" => "CodeableConcept": result::observed;
    "reference-range" => "Observation.referenceRange": result::reference_range;
    "DTM" | "TS" | "dateTime" => "dateTime": time::date_time;
    "DTM" | "TS" | "DT" | "date" => "date": time::date;
    "DTM" | "TS" | "instant" => "instant": time::instant;
    "DT" => "dateTime": time::date_time;
    "birth-time" => "Extension": time::birth_time;
    "TM" => "time": time::time_of_day;
    "DR" => "Period": time::period;
    "ED" => "Attachment": document::ed;
    "RP" => "Attachment": document::rp;
    "XON" | "IS" | "ID" | "ST" | "string" => "string": text::plain;
    "TX" | "FT" => "string": text::whole;
    "TX" | "FT" => "markdown": text::whole;
};

#[cfg(test)]
pub(crate) mod converter_tests;

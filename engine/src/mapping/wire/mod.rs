//! FHIR's data types as HL7 v2's: the other way of `fhir::types`, for messages that scripts write.
//!
//! Promise:  pieces stay pieces: escapes and separators are the draft's matter. Digits and offsets are kept as they came.
//!           What has no value gives nothing.
//! Decided:  - Authorities and coding systems are named by the first row of `assigning-authorities` and `coding-systems` that
//!             has the system; a system of ours (`urn:tie:…`) by the name that it was made of; any other stands as the
//!             universal id, or as the URI in CWE.3, so that nothing is mistaken for a local code.
//!           - XPN.7, XAD.7 and XTN.2 are what table 0200, 0190 and 0201 have for the use of FHIR.
//! Source:   HL7 v2.8.2 chapter 2A; the v2-to-FHIR maps read backwards.

mod amounts;
mod authority;
mod codes;
mod people;
mod times;

use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString};

use self::{
    amounts::{cq, ed, nm, sn, units},
    authority::{cx, ei},
    codes::{ce, code, cwe, plain},
    people::{hd, pl, xad, xcn, xon, xpn, xtn},
    times::{date, dr, dtm},
};
use super::{
    current::{Current, with},
    fault::fault,
    reading::{self, ElementHandle},
};
use crate::{
    fhir::Node,
    hl7::{Separators, escape},
    incoming::first,
};

/// A value of a field in pieces: components, and subcomponents in each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wire(Vec<Vec<String>>);

/// The same as scripts hold it.
#[derive(Clone)]
pub(super) struct WireHandle(Arc<Wire>);

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;
type Convert = fn(&Node, &Current) -> Option<Wire>;

/// What each data type is made of.
const CONVERTERS: [(&str, Convert); 29] = [
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
    ("DR", dr),
    ("NM", nm),
    ("SN", sn),
    ("CQ", cq),
    ("units", units),
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

/// Gives scripts the way from FHIR to HL7 v2.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<WireHandle>("Field");
    engine
        .register_fn("to", |element: &mut ElementHandle, data_type: ImmutableString| {
            convert(element.node(), &data_type)
        })
        .register_fn("to", |text: &mut ImmutableString, data_type: ImmutableString| {
            convert(&Node::text(text.as_str()), &data_type)
        })
        .register_fn("to", |number: &mut rhai::INT, data_type: ImmutableString| {
            convert(&Node::Integer(*number), &data_type)
        })
        .register_fn("to", |truth: &mut bool, data_type: ImmutableString| {
            convert(&Node::Boolean(*truth), &data_type)
        })
        .register_fn("to", |(): &mut (), _: ImmutableString| ())
        .register_fn("raw", |wire: &mut WireHandle| {
            ImmutableString::from(wire.wire().write(Separators::default()))
        });
}

fn convert(node: &Node, data_type: &str) -> Result<Dynamic> {
    let found = CONVERTERS.iter().find(|(name, _)| *name == data_type);
    let (_, convert) = found.ok_or_else(|| fault("FHIR is not converted to this data type"))?;
    with(|current| {
        let wire = convert(node, current);
        Ok(wire.map_or(Dynamic::UNIT, |wire| Dynamic::from(WireHandle(Arc::new(wire)))))
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

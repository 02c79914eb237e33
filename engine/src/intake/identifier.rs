//! One identifier of a patient as a message says it (CX), and the keys that it stands for.
//!
//! Not here: which of them a patient is known by (`patient`), what an NHS number is (`hl7::identifier`).

use std::borrow::Cow;

use super::patient::PatientKey;
use crate::hl7::{
    Part, Value,
    identifier::{NHS, may_type_nhs, names_nhs, names_nobody, nhs_number, spelled, types_nhs},
};

/// One repetition of a CX field.
pub(super) struct Identifier {
    /// As [`spelled`].
    value: String,
    /// As it was sent.
    pub(super) sent: String,
    /// Who gave it: the name and the universal id of CX.4, as far as they are there; `nhs` for every word for that.
    pub(super) authorities: Vec<String>,
    /// CX.5, upper case.
    pub(super) kind: String,
    /// Its ten digits, if it may be meant to be an NHS number and is one.
    pub(super) nhs_number: Option<String>,
}

impl Identifier {
    pub(super) fn read(value: Value<'_>) -> Option<Self> {
        let part: Part<'_> = value.part()?;
        let text = |value: Value<'_>| value.text().map(|text| spelled(&text)).unwrap_or_default();
        let sent = part.component(1).text().map(Cow::into_owned).unwrap_or_default();
        let value = spelled(&sent);
        // Thousands would share one lane.
        if names_nobody(&value) {
            return None;
        }
        let named = part.component(4);
        let mut authorities = Vec::new();
        for authority in [1, 2].map(|number| text(named.subcomponent(number))) {
            let authority = if names_nhs(&authority) { NHS.to_owned() } else { authority };
            if !authority.is_empty() && !authorities.contains(&authority) {
                authorities.push(authority);
            }
        }
        let sent = sent.replace('\0', "").trim().to_owned();
        let kind = text(part.component(5)).to_uppercase();
        let mut read = Self { value, sent, authorities, kind, nhs_number: None };
        if read.says_nhs() || may_type_nhs(&read.kind) {
            read.nhs_number = nhs_number(&read.value);
        }
        Some(read)
    }

    /// Whether it is meant to be an NHS number and nothing else.
    pub(super) fn says_nhs(&self) -> bool {
        self.is_of_nhs() || types_nhs(&self.kind) || self.is_bare() && may_type_nhs(&self.kind)
    }

    fn is_of_nhs(&self) -> bool {
        self.authorities.iter().any(|authority| authority == NHS)
    }

    /// Whether nobody is named as the one who gave it.
    pub(super) fn is_bare(&self) -> bool {
        self.authorities.is_empty()
    }

    /// Its key among the numbers of an authority; none among NHS numbers if it is none.
    pub(super) fn under(&self, authority: &str) -> Option<PatientKey> {
        PatientKey::among(authority, &self.value)
    }

    /// Its keys as a local number; one without an authority is the sender's own.
    pub(super) fn local(&self, facility: &str) -> Vec<PatientKey> {
        let key =
            |authority: &str| PatientKey { authority: authority.to_owned(), identifier: self.value.clone() };
        match self.is_bare() {
            true => vec![key(facility)],
            false => self.authorities.iter().map(|authority| key(authority)).collect(),
        }
    }
}

//! Rules that hold between the elements of one object: those of FHIR R4's invariants that servers enforce and that messages
//! and scripts can break.
//!
//! Source: the constraints of the structure definitions of FHIR 4.0.1; each is named by its key.
//! Not here: rules of FHIRPath that look at other resources, warnings, rules of resources that no mapping makes.

use super::formats::is_after;
use crate::fhir::{
    Node, Object,
    name::{Name, name},
};

/// A rule as it stands below: the type it is of, its key, what it demands.
pub(super) type Line = (&'static str, &'static str, Demand);

/// A rule of one type, with the bits of the elements that it asks for: see [`super::Element`].
pub(super) struct Rule {
    line: &'static Line,
    first: u64,
    others: u64,
}

pub(super) enum Demand {
    /// One of these must be there.
    Any(&'static [&'static str]),
    /// Where the first is, one of the others must be.
    With(&'static str, &'static [&'static str]),
    /// Not both.
    Apart(&'static str, &'static str),
    /// What is told in words.
    Told(&'static str, fn(&Object) -> bool),
}

use Demand::{Any, Apart, Told, With};

/// What is said of a Period that ends before it begins, which can be mended: see [`super::Type::mend`].
pub(super) const PERIOD: &str = "ends before it begins (per-1)";
/// The same of an extension that has lost its value.
pub(super) const EMPTY: &str = "needs `value[x]` or `extension` (ext-1)";

#[rustfmt::skip]
const RULES: &[Line] = &[
    ("Age", "age-1", With("value", &["code"])),
    ("AllergyIntolerance", "ait-1, ait-2", Told("needs `clinicalStatus` unless it is entered in error, when it must not have it", |it| {
        there(it, name!("clinicalStatus")) != has_code(it, name!("verificationStatus"), &["entered-in-error"])
    })),
    ("Appointment", "app-2", With("start", &["end"])),
    ("Appointment", "app-2", With("end", &["start"])),
    ("Appointment", "app-3", Told("needs `start` and `end` unless it is proposed, cancelled or waitlist", |it| {
        there(it, name!("start")) || is(it, name!("status"), &["proposed", "cancelled", "waitlist"])
    })),
    ("Appointment", "app-4", Told("has a `cancelationReason` only when it is cancelled or noshow", |it| {
        !there(it, name!("cancelationReason")) || is(it, name!("status"), &["cancelled", "noshow"])
    })),
    ("Appointment.participant", "app-1", Any(&["type", "actor"])),
    ("Attachment", "att-1", With("data", &["contentType"])),
    ("AuditEvent.entity", "sev-1", Apart("name", "query")),
    ("Bundle.entry", "bdl-5", Any(&["resource", "request", "response"])),
    ("CarePlan.activity", "cpl-3", Apart("detail", "reference")),
    ("Composition.section", "cmp-1", Any(&["text", "entry", "section"])),
    ("Composition.section", "cmp-2", Apart("emptyReason", "entry")),
    ("Condition", "con-4", Told("has an abatement, so its `clinicalStatus` is resolved, remission or inactive", |it| {
        it.shape("abatement").is_none() || has_code(it, name!("clinicalStatus"), &["resolved", "remission", "inactive"])
    })),
    ("Condition", "con-5", Told("has no `clinicalStatus` when it is entered in error", |it| {
        !there(it, name!("clinicalStatus")) || !has_code(it, name!("verificationStatus"), &["entered-in-error"])
    })),
    ("Condition.evidence", "con-2", Any(&["code", "detail"])),
    ("Condition.stage", "con-1", Any(&["summary", "assessment"])),
    ("Consent", "ppc-1", Any(&["policy", "policyRule"])),
    ("ContactPoint", "cpt-2", With("value", &["system"])),
    ("Duration", "drt-1", With("code", &["value"])),
    ("Extension", "ext-1", Any(&["value[x]", "extension"])),
    ("Extension", "ext-1", Apart("value[x]", "extension")),
    ("FamilyMemberHistory", "fhs-1", Apart("age[x]", "born[x]")),
    ("FamilyMemberHistory", "fhs-2", With("estimatedAge", &["age[x]"])),
    ("Immunization.education", "imm-1", Any(&["documentType", "reference"])),
    ("List", "lst-1", Apart("emptyReason", "entry")),
    ("MedicationAdministration.dosage", "mad-1", Any(&["dose", "rate[x]"])),
    ("MedicationDispense", "mdd-1", Told("was handed over before it was prepared", |it| in_order(it, name!("whenPrepared"), name!("whenHandedOver")))),
    ("Observation", "obs-6", Apart("dataAbsentReason", "value[x]")),
    ("Observation", "obs-7", Told("has a value, so no component may have its own code", |it| {
        it.shape("value").is_none() || !list(it, name!("component")).iter().any(|part| shares_coding(it.at(name!("code")), part.at(name!("code"))))
    })),
    ("Observation.referenceRange", "obs-3", Any(&["low", "high", "text"])),
    ("Organization", "org-1", Any(&["identifier", "name"])),
    ("Organization", "org-2", Told("has an address for home", |it| !list(it, name!("address")).iter().any(at_home))),
    ("Organization", "org-3", Told("has a telephone at home", |it| !list(it, name!("telecom")).iter().any(at_home))),
    ("Patient.contact", "pat-1", Any(&["name", "telecom", "address", "organization"])),
    ("Period", "per-1", Told(PERIOD, |it| in_order(it, name!("start"), name!("end")))),
    ("Quantity", "qty-3", With("code", &["system"])),
    ("QuestionnaireResponse.item", "qrs-1", Apart("answer", "item")),
    ("Range", "rng-2", Told("its low is above its high", |it| {
        let bound = |name: &Name| it.at(name).and_then(|bound| bound.at(name!("value"))).and_then(number);
        bound(name!("low")).zip(bound(name!("high"))).is_none_or(|(low, high)| low <= high)
    })),
    ("Ratio", "rat-1", Told("takes a numerator and a denominator, or an extension", |it| {
        there(it, name!("numerator")) == there(it, name!("denominator")) && (there(it, name!("numerator")) || there(it, name!("extension")))
    })),
    ("ServiceRequest", "prr-1", With("orderDetail", &["code"])),
    ("Timing.repeat", "tim-1", With("duration", &["durationUnit"])),
    ("Timing.repeat", "tim-2", With("period", &["periodUnit"])),
    ("Timing.repeat", "tim-6", With("periodMax", &["period"])),
    ("Timing.repeat", "tim-7", With("durationMax", &["duration"])),
    ("Timing.repeat", "tim-8", With("countMax", &["count"])),
    ("Timing.repeat", "tim-9", With("offset", &["when"])),
    ("Timing.repeat", "tim-10", Apart("timeOfDay", "when")),
];

/// The rules of a type's own.
pub(super) fn of(type_name: &str) -> impl Iterator<Item = &'static Line> {
    RULES.iter().filter(move |(name, ..)| *name == type_name)
}

impl Rule {
    /// The rule with the bits that `bit` gives for what it asks for.
    pub fn of(line: &'static Line, mut bit: impl FnMut(&'static str) -> u64) -> Self {
        let mut all = |names: &[&'static str]| names.iter().fold(0, |bits, name| bits | bit(name));
        let (first, others) = match &line.2 {
            Any(names) => (0, all(names)),
            With(first, others) => (all(&[first]), all(others)),
            Apart(one, other) => (all(&[one]), all(&[other])),
            Told(..) => (0, 0),
        };
        Self { line, first, others }
    }

    /// What an object breaks that has a value in the elements of these bits, in words.
    pub fn broken(&self, seen: u64, object: &Object) -> Option<String> {
        let (first, others) = (seen & self.first != 0, seen & self.others != 0);
        let is_broken = match &self.line.2 {
            Any(_) => !others,
            With(..) => first && !others,
            Apart(..) => first && others,
            Told(_, holds) => !holds(object),
        };
        is_broken.then(|| self.told())
    }

    #[cold]
    fn told(&self) -> String {
        let quoted =
            |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
        let key = self.line.1;
        match &self.line.2 {
            Any(names) => format!("needs {} ({key})", quoted(names)),
            With(first, others) => format!("has `{first}`, so it needs {} ({key})", quoted(others)),
            Apart(one, other) => format!("has `{one}` and `{other}`, which cannot stand together ({key})"),
            Told(PERIOD, _) => PERIOD.to_owned(),
            Told(what, _) => format!("{what} ({key})"),
        }
    }
}

/// Whether an element has a value.
fn there(object: &Object, name: &Name) -> bool {
    object.at(name).is_some_and(|node| !node.is_empty())
}

/// Whether an extension says anything.
pub(super) fn says(extension: &Object) -> bool {
    extension.shape("value").is_some() || there(extension, name!("extension"))
}

fn is(object: &Object, name: &Name, codes: &[&str]) -> bool {
    object.at(name).and_then(Node::as_text).is_some_and(|text| codes.contains(&text))
}

fn list<'n>(object: &'n Object, name: &Name) -> &'n [Node] {
    object.at(name).map_or(&[], items)
}

fn items(node: &Node) -> &[Node] {
    match node {
        Node::Array(nodes) => nodes,
        node => std::slice::from_ref(node),
    }
}

fn codings(concept: Option<&Node>) -> &[Node] {
    concept.and_then(|concept| concept.at(name!("coding"))).map_or(&[], items)
}

fn has_code(object: &Object, name: &Name, codes: &[&str]) -> bool {
    let is_one = |coding: &Node| coding.as_object().is_some_and(|coding| is(coding, name!("code"), codes));
    codings(object.at(name)).iter().any(is_one)
}

fn shares_coding(one: Option<&Node>, other: Option<&Node>) -> bool {
    codings(one).iter().any(|coding| codings(other).contains(coding))
}

fn at_home(node: &Node) -> bool {
    node.at(name!("use")).and_then(Node::as_text) == Some("home")
}

fn number(node: &Node) -> Option<f64> {
    match node {
        Node::Integer(number) => Some(*number as f64),
        node => node.as_text()?.parse().ok(),
    }
}

fn in_order(object: &Object, first: &Name, second: &Name) -> bool {
    let text = |name: &Name| object.at(name).and_then(Node::as_text).filter(|text| !text.is_empty());
    text(first).zip(text(second)).is_none_or(|(first, second)| !is_after(first, second))
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_all;

    /// One of each kind of rule; ops/fhir/mutants.py breaks them all.
    #[test]
    fn what_does_not_go_together_is_told() {
        check_all(
            r#"
            Organization {"active":true} => needs `identifier` or `name` (org-1)
            ContactPoint {"value":"1"} => has `value`, so it needs `system` (cpt-2)
            Age {"code":"a","value":1} => has `code`, so it needs `system` (qty-3)
            Observation {"status":"final","code":{"coding":[{"code":"x"}]},"valueString":"x"} =>
            Observation {"status":"final","code":{"coding":[{"code":"x"}]},"valueString":"x","dataAbsentReason":{"text":"x"}} => has `dataAbsentReason` and `value[x]`, which cannot stand together (obs-6)
            Observation {"status":"final","code":{"coding":[{"code":"x"}]},"valueString":"x","component":[{"code":{"coding":[{"code":"x"}]}}]} => has a value, so no component may have its own code (obs-7)
            Range {"low":{"value":2},"high":{"value":10}} =>
            Range {"low":{"value":11},"high":{"value":10}} => its low is above its high (rng-2)
            "#,
        );
    }
}

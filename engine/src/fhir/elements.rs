//! The facts about FHIR R4 elements: which there are, how often they may stand, and of which type.
//!
//! `elements.txt` is made by `ops/make-r4-elements` from the structure definitions of FHIR 4.0.1; its first
//! lines tell the format. It is read once, when first asked. Mappings are checked against it when they are
//! compiled, and what scripts put together at run time is checked again before it leaves.
//! Not here: profiles, and value sets that are not required.

mod fault;
mod formats;
mod read;
mod references;
mod rules;
mod shape;

use std::{collections::HashSet, sync::OnceLock};

use foldhash::fast::RandomState;

pub(super) use self::read::known;
pub use self::{
    fault::Fault,
    formats::{is_decimal, is_oid, is_primitive, is_uuid},
    references::unresolved,
};
use self::{
    formats::Format,
    read::{Places, all},
    references::type_referred,
    rules::Rule,
};
use super::{
    Node, Object,
    name::{Known, Name, name},
};
use crate::error::nearest;

/// The codes of a required binding.
pub type Codes = HashSet<&'static str, RandomState>;

/// A resource, data type or backbone element: `Patient`, `HumanName`, `Patient.contact`.
pub struct Type {
    /// Its name.
    pub name: &'static str,
    /// Whether it can stand alone.
    pub is_resource: bool,
    /// By name, inherited ones included.
    elements: Vec<Element>,
    /// Where an element stands in `elements`.
    places: Places,
    required: Vec<usize>,
    /// The bits of the required elements.
    needs: u64,
    rules: Vec<Rule>,
}

/// One element of a type; a choice has one for each shape (`deceasedBoolean`, `deceasedDateTime`).
#[derive(Debug, Clone)]
pub struct Element {
    /// Its name in JSON.
    pub name: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// Whether it repeats, and is an array in JSON.
    pub many: bool,
    /// The name of its type: `code`, `HumanName`, `Reference`, `Patient.contact`, `Resource`.
    pub type_name: &'static str,
    /// The types of resource that a reference may point to; empty for any.
    pub targets: Vec<&'static str>,
    /// The codes of a required binding.
    pub codes: Option<&'static Codes>,
    /// `deceased[x]` for one shape of a choice.
    pub choice: Option<&'static str>,
    /// Its name as objects have it.
    key: &'static Known,
    /// A bit of its own among those of its type, the same for all shapes of a choice; none where nothing asks for it.
    bit: u64,
    /// What its type takes, found out once.
    takes: Takes,
    /// Its type, looked up once.
    kind: OnceLock<Option<&'static Type>>,
}

/// What may stand in an element, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Boolean,
    Integer,
    /// A whole number from this one on.
    From(i64),
    Decimal,
    /// Text, written so.
    Text(Format),
    /// Any resource.
    Resource,
    /// A reference to one of the targets, if it has any.
    Reference,
    /// An object of the type.
    Object,
}

/// A type by name.
pub fn type_named(name: &str) -> Option<&'static Type> {
    all().get(name)
}

/// Whether a word is the name of a type or of an element of any type.
pub fn is_name(word: &str) -> bool {
    static NAMES: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let elements = all().values().flat_map(|found| &found.elements);
        let names = elements.flat_map(|element| [Some(element.name), element.choice]).flatten();
        names.chain(all().keys().copied()).collect()
    });
    names.contains(word)
}

/// The names of all resources, in no order.
pub fn resource_names() -> impl Iterator<Item = &'static str> {
    all()
        .values()
        .filter(|found| found.is_resource && found.name != "Resource" && found.name != "DomainResource")
        .map(|found| found.name)
}

impl Type {
    /// An element by its name in JSON.
    pub fn element(&self, name: &str) -> Option<&Element> {
        self.named(&name.into())
    }

    /// An element by its name.
    pub(super) fn named(&self, name: &Name) -> Option<&Element> {
        self.elements.get(self.places.get(name.number()?)?)
    }

    /// All elements, by name.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// What to say of an element that is not there.
    pub fn unknown(&self, name: &str) -> String {
        let is_choice =
            |element: &&Element| element.choice.is_some_and(|c| c.trim_end_matches("[x]") == name);
        let hint = match self.elements.iter().find(is_choice) {
            Some(shape) => format!(", only its shapes, such as `{}`", shape.name),
            None => nearest(name, self.elements.iter().map(|element| element.name))
                .map_or_else(String::new, |word| format!("; did you mean `{word}`?")),
        };
        format!("{} has no element `{name}`{hint}", self.name)
    }

    /// Checks the elements of an object: known, of the right type and number, nothing required missing.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&'static self, object: &Object) -> Result<(), Fault> {
        if object.is_checked(self) {
            return Ok(());
        }
        let mut seen = 0;
        for (name, node) in object.entries() {
            let Some(element) = self.named(name) else {
                self.check_nameless(name.as_str(), node)?;
                continue;
            };
            element.check(node).map_err(|fault| fault.below(element.name))?;
            if element.bit != 0 && !node.is_empty() {
                if let Some(choice) = element.choice.filter(|_| seen & element.bit != 0) {
                    return Err(Fault::at(choice, "takes one of its shapes, not two"));
                }
                seen |= element.bit;
            }
        }
        if self.needs & !seen != 0 {
            self.check_required(object, seen)?;
        }
        match self.rules.iter().find_map(|rule| rule.broken(seen, object)) {
            Some(what) => Err(Fault::here(what)),
            None => {
                object.set_checked(self);
                Ok(())
            }
        }
    }

    /// A required element is there in any of its shapes, or its extension in its stead.
    #[cold]
    fn check_required(&self, object: &Object, seen: u64) -> Result<(), Fault> {
        for element in self.required.iter().filter_map(|place| self.elements.get(*place)) {
            let twin = || object.get(&format!("_{}", element.name)).is_some_and(|node| !node.is_empty());
            let is_there =
                seen & element.bit != 0 || element.is_primitive() && element.choice.is_none() && twin();
            if !is_there {
                let name = element.choice.unwrap_or(element.name);
                return Err(Fault::at(name, format!("{} needs `{name}`, which has no value", self.name)));
            }
        }
        Ok(())
    }

    /// The bits of the elements that have a value.
    fn seen(&self, object: &Object) -> u64 {
        let with_value = object.entries().iter().filter(|(_, node)| !node.is_empty());
        with_value.filter_map(|(name, _)| self.named(name)).fold(0, |seen, element| seen | element.bit)
    }

    /// Takes out what a sender's slip puts in and FHIR forbids: the end of a period that ends before it begins, control
    /// characters, blanks within a code, extensions that say nothing. Returns whether there was any.
    pub fn mend(&self, object: &mut Object) -> bool {
        let is_broken = |rule: &Rule| rule.broken(self.seen(object), object).is_some();
        if self.name == "Period" && self.rules.iter().any(is_broken) {
            return object.remove("end").is_some();
        }
        let mut mended = false;
        for (name, node) in object.own() {
            let Some(element) = self.named(name) else { continue };
            let Node::Array(nodes) = node else {
                mended |= element.mend(node);
                continue;
            };
            for node in nodes.iter_mut() {
                mended |= element.mend(node);
            }
            if element.type_name == "Extension" {
                let before = nodes.len();
                nodes.retain(|node| {
                    node.is_removal() || matches!(node, Node::Object(extension) if rules::says(extension))
                });
                mended |= nodes.len() < before;
            }
        }
        mended
    }

    /// What is no element may still stand in an object: the twin of a primitive, and the name of the type.
    #[cold]
    fn check_nameless(&self, name: &str, node: &Node) -> Result<(), Fault> {
        let base = name.trim_start_matches('_');
        if base.len() < name.len()
            && let Some(element) = self.element(base).filter(|element| element.is_primitive())
        {
            return Element::twin(element.many).check(node).map_err(|fault| fault.below(name));
        }
        if name == "resourceType" && self.is_resource {
            return Ok(());
        }
        Err(Fault::at(base, self.unknown(base)))
    }
}

impl Element {
    /// An element of which nothing is known but its name and type.
    fn of(key: &'static Known, many: bool, type_name: &'static str) -> Self {
        Self {
            name: key.text,
            required: false,
            many,
            type_name,
            targets: Vec::new(),
            codes: None,
            choice: None,
            key,
            bit: 0,
            takes: Takes::of(type_name),
            kind: OnceLock::new(),
        }
    }

    /// An element that stands in no type: the `_name` twin of a primitive, an object with an id and extensions.
    pub(super) fn twin(many: bool) -> &'static Self {
        static TWINS: OnceLock<[Element; 2]> = OnceLock::new();
        let twin = |many| Self::of(const { &Known::new("_") }, many, "Element");
        let [one, several] = TWINS.get_or_init(|| [twin(false), twin(true)]);
        if many { several } else { one }
    }

    /// Its type; none for primitives.
    pub fn kind(&self) -> Option<&'static Type> {
        *self.kind.get_or_init(|| type_named(self.type_name))
    }

    fn is_primitive(&self) -> bool {
        !matches!(self.takes, Takes::Resource | Takes::Reference | Takes::Object)
    }

    /// Checks a value of this element: an array if it repeats.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self, node: &Node) -> Result<(), Fault> {
        match (self.many, node) {
            (_, Node::Null) => Ok(()),
            (true, Node::Array(nodes)) => {
                for (place, node) in nodes.iter().enumerate() {
                    self.check_one(node).map_err(|fault| fault.at_index(place))?;
                }
                Ok(())
            }
            (true, _) => Err(Fault::here("repeats, so it takes a list")),
            (false, Node::Array(_)) => Err(Fault::here("takes one value, not a list")),
            (false, node) => self.check_one(node),
        }
    }

    /// Checks one value of this element.
    ///
    /// # Errors
    /// The first fault.
    pub fn check_one(&self, node: &Node) -> Result<(), Fault> {
        if self.is_primitive() {
            return self.check_primitive(node);
        }
        let Node::Object(object) = node else {
            return Err(self.wrong(node));
        };
        if self.takes == Takes::Resource {
            let named = object.at(name!("resourceType")).and_then(Node::as_text).and_then(type_named);
            return match named.filter(|found| found.is_resource) {
                Some(found) => found.check(object),
                None => Err(Fault::here("takes a resource, and has no `resourceType` of FHIR R4")),
            };
        }
        if self.takes == Takes::Reference && !self.targets.is_empty() {
            self.check_target(object)?;
        }
        // A choice that FHIR leaves open and a type this table does not carry are not ours to judge.
        match self.kind() {
            Some(found) => found.check(object).or_else(|fault| {
                // An empty object is not written, so it need not be whole, nor what was removed; few are, and looking costs.
                if node.is_empty() || node.is_removal() { Ok(()) } else { Err(fault) }
            }),
            None => Ok(()),
        }
    }

    fn mend(&self, node: &mut Node) -> bool {
        match (self.takes, node) {
            (Takes::Text(format), Node::Text(text)) if !text.is_empty() && !format.fits(text) => {
                let mended = format.mended(text);
                mended.map(|mended| *text = mended.into()).is_some()
            }
            (_, Node::Object(object)) => self.kind().is_some_and(|found| found.mend(object)),
            _ => false,
        }
    }

    #[inline(never)]
    fn check_primitive(&self, node: &Node) -> Result<(), Fault> {
        let fits = match (self.takes, node) {
            (Takes::From(least), Node::Integer(number)) => *number >= least,
            (Takes::Text(format), Node::Text(text)) if !text.is_empty() && !format.fits(text) => {
                return Err(Fault::here(format.fault(self.type_name)));
            }
            (Takes::Boolean, Node::Boolean(_))
            | (Takes::Integer, Node::Integer(_))
            | (Takes::Decimal, Node::Integer(_) | Node::Decimal(_))
            | (Takes::Text(_), Node::Text(_) | Node::Reference(_)) => true,
            _ => false,
        };
        if !fits {
            return Err(self.wrong(node));
        }
        match (self.codes, node) {
            (Some(codes), Node::Text(text)) if !text.is_empty() && !codes.contains(text.as_str()) => {
                Err(Fault::here(format!("takes one of {}", self.codes_in_words())))
            }
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn check_target(&self, object: &Object) -> Result<(), Fault> {
        let target = match object.at(name!("reference")) {
            Some(Node::Reference(target)) => Some(target.resource_type.as_str()),
            Some(Node::Text(text)) => type_referred(text).map(|found| found.name),
            _ => None,
        };
        match target {
            Some(target) if !self.targets.contains(&target) => {
                let takes = self.targets.join(" or ");
                Err(Fault::here(format!("takes a reference to {takes}, not to {target}")))
            }
            _ => Ok(()),
        }
    }

    /// The codes of the required binding, for error texts: the first twelve.
    pub fn codes_in_words(&self) -> String {
        let mut codes: Vec<_> = self.codes.into_iter().flatten().copied().collect();
        codes.sort_unstable();
        let more = if codes.len() > 12 { ", …" } else { "" };
        codes.truncate(12);
        format!("{}{more}", codes.join(", "))
    }

    #[cold]
    fn wrong(&self, node: &Node) -> Fault {
        let found = match node {
            Node::Object(_) => "an object",
            Node::Array(_) => "a list",
            Node::Text(_) => "a text",
            Node::Decimal(_) => "a decimal",
            Node::Integer(_) => "a whole number",
            Node::Boolean(_) => "a truth value",
            Node::Reference(_) => "a reference",
            Node::Null => "nothing",
        };
        Fault::here(format!("takes a {}, not {found}", self.type_name))
    }
}

impl Takes {
    fn of(type_name: &str) -> Self {
        match type_name {
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "positiveInt" => Self::From(1),
            "unsignedInt" => Self::From(0),
            "decimal" => Self::Decimal,
            "Resource" => Self::Resource,
            "Reference" => Self::Reference,
            primitive if is_primitive(primitive) => Self::Text(Format::of(primitive)),
            _ => Self::Object,
        }
    }
}

impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        Node::of_json(json).as_object().unwrap().clone()
    }

    /// Each line is a type, an object of it, ` => `, and the fault where it has one.
    pub(super) fn check_all(lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (given, told) = line.split_once(" =>").unwrap();
            let (name, json) = given.split_once(' ').unwrap();
            let fault = type_named(name).unwrap().check(&object(json)).err();
            let fault = fault.map(|Fault { path, what }| [path, what].join(": "));
            assert_eq!(fault.unwrap_or_default().trim_start_matches(": "), told.trim(), "{given}");
        }
    }

    #[test]
    fn all_r4_resources_are_there_with_their_bases() {
        assert_eq!(resource_names().count(), 147);
        for (owner, name, many, type_name) in [
            ("Patient", "id", false, "string"),
            ("Patient", "meta", false, "Meta"),
            ("Patient", "extension", true, "Extension"),
            ("Patient", "name", true, "HumanName"),
            ("Observation", "component", true, "Observation.component"),
            ("Observation.component", "referenceRange", true, "Observation.referenceRange"),
        ] {
            let element = type_named(owner).unwrap().element(name).unwrap();
            assert_eq!((element.many, element.type_name), (many, type_name), "{name}");
        }
        let patient = type_named("Patient").unwrap();
        assert!(patient.is_resource && patient.element("gender").unwrap().codes.unwrap().contains("female"));
        assert_eq!(patient.element("deceasedDateTime").unwrap().choice, Some("deceased[x]"));
        let subject = type_named("Encounter").unwrap().element("subject").unwrap();
        assert_eq!(subject.targets, ["Patient", "Group"]);
    }

    /// What the check rests on: a number tells names apart, a bit those elements of a type that anything asks for.
    #[test]
    fn numbers_bits_and_types_are_enough() {
        let mut numbers = std::collections::HashMap::new();
        for found in all().values() {
            for element in &found.elements {
                let known = *numbers.entry(element.key.number).or_insert(element.name);
                assert_eq!(known, element.name, "two names have one number");
                let known = is_primitive(element.type_name) || type_named(element.type_name).is_some();
                assert!(known, "{}.{}: {}", found.name, element.name, element.type_name);
                assert!(std::ptr::eq(found.element(element.name).unwrap(), element), "{}", element.name);
                let asked = element.required || element.choice.is_some();
                assert!(!asked || element.bit.is_power_of_two(), "{}.{}", found.name, element.name);
                let same = |other: &&Element| other.bit == element.bit && other.choice == element.choice;
                let others = found.elements.iter().filter(|other| other.bit != 0 && other.bit == element.bit);
                assert!(others.clone().count() == others.filter(same).count(), "{}", found.name);
            }
            assert_eq!(found.needs.count_ones() as usize, found.required.len(), "{}", found.name);
        }
    }

    #[test]
    fn plain_values_take_the_shape_of_their_element() {
        let written = r#"{"valueQuantity":{"value":"7.10"},"code":{"coding":{"code":"x"}}}"#;
        let shaped = type_named("Observation").unwrap().shaped(object(written));
        assert_eq!(
            String::from_utf8(Node::Object(shaped).to_json()).unwrap(),
            r#"{"valueQuantity":{"value":7.10},"code":{"coding":[{"code":"x"}]}}"#
        );
    }

    #[test]
    fn faults_say_where_and_what_without_values() {
        check_all(
            r#"
            Patient {"name":[{"family":"CANARY"}]} =>
            Patient {"name":[{"family":7}]} => name[0].family: takes a string, not a whole number
            Patient {"nmae":"CANARY"} => nmae: Patient has no element `nmae`; did you mean `name`?
            Patient {"deceased":true} => deceased: Patient has no element `deceased`, only its shapes, such as `deceasedBoolean`
            Patient {"gender":"CANARY"} => gender: takes one of female, male, other, unknown
            Patient {"name":"CANARY"} => name: repeats, so it takes a list
            Patient {"id":"a_b"} => id: is not written as a string
            Patient {"birthDate":"2026-02-30"} => birthDate: is not written as a date
            Patient {"_birthDate":{"x":"y"}} => _birthDate.x: Element has no element `x`
            Patient {"deceasedBoolean":true,"deceasedDateTime":"2026"} => deceased[x]: takes one of its shapes, not two
            Patient {"deceasedBoolean":true,"deceasedDateTime":""} =>
            Patient {"contained":[{"resourceType":"Patient","gender":"x"}]} => contained[0].gender: takes one of female, male, other, unknown
            Patient {"contained":[{"id":"x"}]} => contained[0]: takes a resource, and has no `resourceType` of FHIR R4
            Encounter {"status":"finished"} => class: Encounter needs `class`, which has no value
            "#,
        );
    }

    #[test]
    fn references_lead_to_what_they_may() {
        let good =
            "Patient/1 Patient?identifier=a|b/c https://x.example/fhir/Patient/1/_history/2 urn:uuid:1 #p";
        let bad = "Location/1 Location?identifier=a|b/c https://x.example/fhir/Location/1";
        for (references, fault) in
            [(good, ""), (bad, "subject: takes a reference to Patient or Group, not to Location")]
        {
            for reference in references.split(' ') {
                let subject = format!(r#""class":{{"code":"IMP"}},"subject":{{"reference":"{reference}"}}"#);
                check_all(&format!(r#"Encounter {{"status":"finished",{subject}}} => {fault}"#));
            }
        }
        for (reference, leads) in [("urn:uuid:1", true), ("urn:uuid:2", false), ("#2", false)] {
            let entry = format!(r#"{{"fullUrl":"urn:uuid:1","subject":{{"reference":"{reference}"}}}}"#);
            assert_eq!(unresolved(&Node::of_json(&entry)).is_none(), leads, "{reference}");
        }
    }
}

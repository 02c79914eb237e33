//! Paths to elements of a resource: `contact[0].name.family`, `extension(https://…/x).valueCode`.
//!
//! A path is read for a type, so an unknown element, a missing index or a wrong type is told before any value
//! is there. `[n]` counts from 0 as in FHIRPath; `[]` is one more at the end; `(url)` picks the extension of that
//! url and makes it when it is missing. A repeating element on the way must say which one; at the end it may stand
//! for all of them.

use smol_str::SmolStr;

use super::{
    Node, Object,
    elements::{Element, Fault, Type, type_named},
    name::{Name, name},
};

/// The most elements of a list that a path may reach.
const MAX_INDEX: usize = 999;

/// A place in resources of one type.
#[derive(Debug, Clone)]
pub struct Path {
    steps: Vec<Step>,
    element: &'static Element,
    start: &'static Type,
    /// All shapes, when the element is one of a choice.
    shapes: Vec<Name>,
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.start.name == other.start.name && self.steps == other.steps
    }
}

/// One name on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    name: Name,
    many: bool,
    which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    /// The whole element.
    Whole,
    /// One of a list.
    Index(usize),
    /// One more at the end of a list.
    More,
    /// The extension of this url.
    Url(SmolStr),
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PathError(pub String);

impl Path {
    /// Reads a path for a type such as `Patient` or `Patient.contact`.
    ///
    /// # Errors
    /// An unknown type or element, a repeating element without an index on the way, a path that is none.
    pub fn parse(type_name: &str, text: &str) -> Result<Self, PathError> {
        let start =
            type_named(type_name).ok_or_else(|| PathError(format!("FHIR R4 has no type `{type_name}`")))?;
        let mut at = start;
        let mut steps = Vec::new();
        let mut rest = text;
        let element = loop {
            let (name, which, after) = step(rest).ok_or_else(|| not_a_path(text))?;
            let found = find(at, name, &which)?;
            steps.push(Step { name: name.into(), many: found.many, which });
            let Some(next) = after else { break found };
            if let Some(Step { name, many: true, which: Which::Whole }) = steps.last() {
                return Err(PathError(format!("`{0}` repeats: say which one, e.g. `{0}[0]`", name.as_str())));
            }
            let own = || PathError(format!("`{name}` has no elements of its own"));
            at = found.kind().ok_or_else(own)?;
            rest = next;
        };
        if let Some(Step { name, which: Which::More, .. }) = steps.last() {
            let name = name.as_str();
            return Err(PathError(format!("`{name}` stands for the list already: leave out the `[]`")));
        }
        let is_shape = |one: &&Element| element.choice.is_some() && one.choice == element.choice;
        let shapes = at.elements().iter().filter(is_shape).map(|shape| shape.name.into()).collect();
        Ok(Self { steps, element, start, shapes })
    }

    /// The element at the end.
    pub fn element(&self) -> &'static Element {
        self.element
    }

    /// The name of the first step.
    pub fn first(&self) -> &str {
        self.steps.first().map_or("", |step| step.name.as_str())
    }

    /// The name of the last step.
    pub fn last(&self) -> &str {
        self.steps.last().map_or("", |step| step.name.as_str())
    }

    /// Whether the path stands for a whole list.
    pub fn is_list(&self) -> bool {
        matches!(self.steps.last(), Some(Step { many: true, which: Which::Whole, .. }))
    }

    /// The type of the list items that each [`Path::put`] makes one more of; none without a `[]`.
    pub fn item_type(&self) -> Option<&'static Type> {
        let mut at = self.start;
        for step in &self.steps {
            at = at.named(&step.name)?.kind()?;
            if step.which == Which::More {
                return Some(at);
            }
        }
        None
    }

    /// The item that the last [`Path::put`] made.
    pub fn item_mut<'n>(&self, object: &'n mut Object) -> Option<&'n mut Object> {
        let mut at = object;
        for step in &self.steps {
            let node = match (at.at_mut(&step.name)?, &step.which) {
                (Node::Array(nodes), Which::More) => nodes.last_mut()?,
                (Node::Array(nodes), Which::Index(place)) => nodes.get_mut(*place)?,
                (Node::Array(nodes), Which::Url(url)) => nodes.iter_mut().find(|node| has_url(node, url))?,
                (node, _) => node,
            };
            at = node.as_object_mut()?;
            if step.which == Which::More {
                return Some(at);
            }
        }
        None
    }

    /// Whether something stands there, or another shape of the same choice.
    pub fn is_taken(&self, object: &Object) -> bool {
        let there = |node: Option<&Node>| node.is_some_and(|node| !node.is_empty());
        if self.shapes.is_empty() {
            return there(self.get(object));
        }
        self.above(object).is_some_and(|above| self.shapes.iter().any(|shape| there(above.at(shape))))
    }

    /// What stands there.
    pub fn get<'n>(&self, object: &'n Object) -> Option<&'n Node> {
        self.steps.last()?.look(self.above(object)?)
    }

    /// Puts a value there in place of what was; into a list that stands whole, a single value as its only one.
    ///
    /// # Errors
    /// A value that does not fit the element.
    pub fn set(&self, object: &mut Object, node: Node) -> Result<(), Fault> {
        let node = self.whole(node);
        self.check(&node)?;
        self.put(object, node);
        Ok(())
    }

    /// A list, where the path stands for one.
    fn whole(&self, node: Node) -> Node {
        match node {
            node @ Node::Array(_) => node,
            node if self.is_list() => Node::Array(vec![node]),
            node => node,
        }
    }

    /// Puts one value more at the end of a list; each of them if it is a list itself.
    ///
    /// # Errors
    /// A value that does not fit, and an element that does not repeat.
    pub fn add(&self, object: &mut Object, node: Node) -> Result<(), Fault> {
        if !self.is_list() {
            return Err(Fault::here("takes one value: use `set`"));
        }
        let more = self.whole(node);
        self.check(&more)?;
        self.append(object, more);
        Ok(())
    }

    /// Says that the sender removed what stands there; of an extension picked by its url, the whole of it.
    ///
    /// # Errors
    /// One item of a list: of a list it can only be said what it is now, or that all of it was removed.
    pub fn clear(&self, object: &mut Object) -> Result<(), Fault> {
        let removal = match self.steps.last() {
            Some(Step { which: Which::Index(_), .. }) => {
                return Err(Fault::here("is one item of a list: clear the list, or set what is left of it"));
            }
            Some(Step { which: Which::Url(url), .. }) => Node::object([
                (name!("url"), Some(Node::Text(url.clone()))),
                (name!("extension"), Some(Node::Null)),
            ]),
            _ => Node::Null,
        };
        self.put(object, removal);
        Ok(())
    }

    /// Says that the sender removed what stands there, unless another field has said it. Of the items of a list it is the
    /// whole list.
    pub fn clear_unless_taken(&self, object: &mut Object) {
        let is_item = self.steps.iter().any(|step| step.which == Which::More);
        let is_done = !is_item && (self.is_taken(object) || self.clear(object).is_ok());
        if !is_done && object.get(self.first()).is_none_or(Node::is_empty) {
            object.put(self.first(), Some(Node::Null));
        }
    }

    /// As [`Path::set`], for a value that is known to fit.
    #[inline(never)]
    pub fn put(&self, object: &mut Object, node: Node) {
        if let Some((slot, step)) = self.slot(object) {
            *step.reach(slot) = node;
        }
    }

    /// As [`Path::add`], for values that are known to fit.
    #[inline(never)]
    pub fn append(&self, object: &mut Object, more: Node) {
        let Some((slot, step)) = self.slot(object) else { return };
        match (step.reach(slot), more) {
            (Node::Array(nodes), Node::Array(more)) => nodes.extend(more),
            (Node::Array(nodes), one) => nodes.push(one),
            (other, more @ Node::Array(_)) => *other = more,
            (other, one) => *other = Node::Array(vec![one]),
        }
    }

    /// What can be mended later is no reason for a script to end.
    #[inline(never)]
    fn check(&self, node: &Node) -> Result<(), Fault> {
        self.check_whole(node).or_else(|fault| if fault.can_be_mended() { Ok(()) } else { Err(fault) })
    }

    fn check_whole(&self, node: &Node) -> Result<(), Fault> {
        match node {
            node if self.is_list() => self.element.check(node),
            Node::Array(_) => Err(Fault::here("takes one value, not a list")),
            node => self.element.check_one(node),
        }
    }

    /// The object that holds the last step, if there is one.
    fn above<'n>(&self, object: &'n Object) -> Option<&'n Object> {
        let (_, way) = self.steps.split_last()?;
        way.iter().try_fold(object, |at, step| step.look(at)?.as_object())
    }

    /// The object that holds the last step, made on the way where it is missing.
    fn slot<'n>(&self, object: &'n mut Object) -> Option<(&'n mut Object, &Step)> {
        let (last, way) = self.steps.split_last()?;
        let mut at = object;
        for step in way {
            let node = step.reach(at);
            if !matches!(node, Node::Object(_)) {
                *node = Node::Object(Object::new());
            }
            at = node.as_object_mut()?;
        }
        Some((at, last))
    }
}

impl Step {
    fn look<'n>(&self, object: &'n Object) -> Option<&'n Node> {
        let node = object.at(&self.name)?;
        match (&self.which, node) {
            (Which::Whole, node) => Some(node),
            (Which::Index(place), Node::Array(nodes)) => nodes.get(*place),
            (Which::More, _) => None,
            (Which::Url(url), Node::Array(nodes)) => nodes.iter().find(|node| has_url(node, url)),
            _ => None,
        }
    }

    #[inline(never)]
    fn reach<'n>(&self, object: &'n mut Object) -> &'n mut Node {
        let node = object.entry(&self.name);
        if self.which == Which::Whole {
            return node;
        }
        if !matches!(node, Node::Array(_)) {
            *node = Node::Array(Vec::new());
        }
        let Node::Array(nodes) = node else { unreachable!("made an array just now") };
        let place = match &self.which {
            Which::Url(url) => nodes.iter().position(|node| has_url(node, url)).unwrap_or(nodes.len()),
            Which::Index(place) => *place,
            Which::More | Which::Whole => nodes.len(),
        };
        while nodes.len() <= place {
            nodes.push(Node::Object(match &self.which {
                Which::Url(url) => Object::of(&mut [(name!("url"), Some(Node::Text(url.clone())))]),
                _ => Object::new(),
            }));
        }
        match nodes.get_mut(place) {
            Some(node) => node,
            None => unreachable!("made long enough just now"),
        }
    }
}

fn has_url(node: &Node, url: &str) -> bool {
    node.at(name!("url")).and_then(Node::as_text) == Some(url)
}

/// The element of a step.
fn find(at: &'static Type, name: &str, which: &Which) -> Result<&'static Element, PathError> {
    let named = |name| at.element(name).ok_or_else(|| PathError(at.unknown(name)));
    let element = match name.strip_prefix('_') {
        Some(base) => Element::twin(named(base)?.many),
        None => named(name)?,
    };
    match which {
        Which::Index(_) | Which::More if !element.many => {
            Err(PathError(format!("`{name}` does not repeat: leave out the index")))
        }
        Which::Url(_) if element.type_name != "Extension" => {
            Err(PathError(format!("`{name}` is no extension: only extensions are picked by url")))
        }
        _ => Ok(element),
    }
}

/// Splits the first step off: its name, which one, and what follows the dot.
fn step(text: &str) -> Option<(&str, Which, Option<&str>)> {
    let end = text.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    if name.is_empty() {
        return None;
    }
    let (which, rest) = if let Some(inner) = rest.strip_prefix('[') {
        match inner.split_once(']')? {
            ("", rest) => (Which::More, rest),
            (number, rest) => {
                (Which::Index(number.parse().ok().filter(|number| *number <= MAX_INDEX)?), rest)
            }
        }
    } else if let Some(inner) = rest.strip_prefix('(') {
        let (url, rest) = inner.split_once(')')?;
        (Which::Url(url.trim_matches(['"', '\'']).into()), rest)
    } else {
        (Which::Whole, rest)
    };
    match rest.strip_prefix('.') {
        Some(next) => Some((name, which, Some(next))),
        None => rest.is_empty().then_some((name, which, None)),
    }
}

fn not_a_path(text: &str) -> PathError {
    PathError(format!(
        "`{text}` is not a path such as `birthDate`, `contact[0].name` or `extension(url).valueCode`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse("Patient", text).unwrap()
    }

    fn error(text: &str) -> String {
        Path::parse("Patient", text).unwrap_err().to_string()
    }

    fn json(object: Object) -> String {
        String::from_utf8(Node::Object(object).to_json()).unwrap()
    }

    #[test]
    fn sets_adds_and_gets() {
        let mut patient = Object::new();
        let mut set = |at: &str, text: &'static str| path(at).set(&mut patient, text.into()).unwrap();
        set("gender", "female");
        set("name[1].family", "B");
        set("name[0].given", "A");
        set("extension(http://x).valueCode", "z");
        set("extension(http://y).valueCode", "y");
        set("extension(http://x).valueCode", "x");
        set("_birthDate.extension(http://t).valueDateTime", "1970");
        set("gender", "male");
        path("name[0].given").add(&mut patient, "C".into()).unwrap();
        path("name[0].given").add(&mut patient, vec!["D".into(), "E".into()].into()).unwrap();
        assert_eq!(path("name[0].given[2]").get(&patient).and_then(Node::as_text), Some("D"));
        assert!(path("name[7].given").get(&patient).is_none());
        assert_eq!(
            json(patient),
            r#"{"gender":"male","name":[{"given":["A","C","D","E"]},{"family":"B"}],"extension":[{"url":"http://x","valueCode":"x"},{"url":"http://y","valueCode":"y"}],"_birthDate":{"extension":[{"url":"http://t","valueDateTime":"1970"}]}}"#
        );
    }

    #[test]
    fn an_empty_index_is_one_more() {
        let mut patient = Object::new();
        let more = path("contact[].name.family");
        for family in ["A", "B"] {
            more.set(&mut patient, family.into()).unwrap();
            more.item_mut(&mut patient).unwrap().put("gender", Some("male".into()));
        }
        assert!(more.get(&patient).is_none());
        assert_eq!(more.item_type().map(|found| found.name), Some("Patient.contact"));
        assert_eq!(
            json(patient),
            r#"{"contact":[{"name":{"family":"A"},"gender":"male"},{"name":{"family":"B"},"gender":"male"}]}"#
        );
        assert_eq!(error("contact[]"), "`contact` stands for the list already: leave out the `[]`");
        assert_eq!(error("maritalStatus[].text"), "`maritalStatus` does not repeat: leave out the index");
    }

    #[test]
    fn a_choice_is_taken_by_any_of_its_shapes() {
        let mut patient = Object::new();
        assert!(!path("deceasedDateTime").is_taken(&patient));
        path("deceasedBoolean").set(&mut patient, true.into()).unwrap();
        assert!(path("deceasedDateTime").is_taken(&patient));
        assert!(!path("active").is_taken(&patient));
    }

    #[test]
    fn a_whole_list_takes_one_or_many() {
        let mut patient = Object::new();
        path("name[0].given").set(&mut patient, "A".into()).unwrap();
        path("name[0].given").set(&mut patient, vec!["B".into()].into()).unwrap();
        assert_eq!(json(patient), r#"{"name":[{"given":["B"]}]}"#);
    }

    #[test]
    fn paths_that_lead_nowhere_say_why() {
        assert_eq!(error("name.family"), "`name` repeats: say which one, e.g. `name[0]`");
        assert_eq!(error("gender[0]"), "`gender` does not repeat: leave out the index");
        assert_eq!(error("gendre"), "Patient has no element `gendre`; did you mean `gender`?");
        assert_eq!(error("name(x)"), "`name` is no extension: only extensions are picked by url");
        assert_eq!(error("gender.x"), "`gender` has no elements of its own");
        for none in ["", ".", "name[", "name[x].y", "name[1000].family", "name[0]family", "name[0]..family"] {
            assert!(error(none).contains("is not a path such as"), "{none}: {}", error(none));
        }
        assert_eq!(Path::parse("Patiant", "x").unwrap_err().to_string(), "FHIR R4 has no type `Patiant`");
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let mut patient = Object::new();
        let mut what = |at: &str, node: Node| path(at).set(&mut patient, node).unwrap_err().what;
        assert_eq!(what("gender", "CANARY".into()), "takes one of female, male, other, unknown");
        assert_eq!(what("birthDate", vec!["1970".into()].into()), "takes one value, not a list");
        assert_eq!(what("name", "CANARY".into()), "takes a HumanName, not a text");
        let added = path("gender").add(&mut patient, "male".into());
        assert_eq!(added.unwrap_err().what, "takes one value: use `set`");
        assert!(patient.entries().is_empty());
    }
}

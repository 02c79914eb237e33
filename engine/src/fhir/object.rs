//! Objects: named elements in order. What a revision says in many messages (a table's coding, a profile, what a map sets
//! besides) is held in common: a copy costs a count, and it is checked and written once.

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    elements::Type,
    json::write_name,
    name::Name,
    node::{Node, Target, Within},
};

/// Named elements in the order they were put in.
#[derive(Clone)]
pub struct Object(Elements);

/// What a revision says in many messages is held in common: it is not copied, and checked and written once.
#[derive(Clone)]
enum Elements {
    Own(Vec<(Name, Node)>),
    Common(Arc<Common>),
}

struct Common {
    elements: Vec<(Name, Node)>,
    /// The type by which it was found to be right.
    checked: OnceLock<&'static Type>,
    /// As JSON with its braces, where all that it refers to is near; and what it refers to.
    json: OnceLock<(Vec<u8>, Vec<Target>)>,
}

impl Object {
    /// An object without elements.
    pub const fn new() -> Self {
        Self(Elements::Own(Vec::new()))
    }

    /// An object without elements, with room for some.
    pub fn with_capacity(elements: usize) -> Self {
        Self(Elements::Own(Vec::with_capacity(elements)))
    }

    /// An object of the elements that have a value, which are taken; no two have one name.
    #[inline(never)]
    pub(super) fn of(elements: &mut [(&Name, Option<Node>)]) -> Self {
        let mut own = Vec::with_capacity(elements.iter().filter(|(_, node)| node.is_some()).count());
        for (name, node) in elements {
            own.extend(node.take().map(|node| (name.clone(), node)));
        }
        Self(Elements::Own(own))
    }

    /// The same object, to be held in common by all that have a copy of it: see [`Elements`].
    #[must_use]
    pub fn in_common(self) -> Self {
        match self.0 {
            Elements::Own(elements) => Self(Elements::Common(Arc::new(Common {
                elements,
                checked: OnceLock::new(),
                json: OnceLock::new(),
            }))),
            common @ Elements::Common(_) => Self(common),
        }
    }

    /// The same object, with all objects in it held in common.
    #[must_use]
    pub(crate) fn parts_in_common(self) -> Self {
        match self.0 {
            Elements::Own(elements) => {
                elements.into_iter().map(|(name, node)| (name, node.in_common())).collect()
            }
            common @ Elements::Common(_) => Self(common),
        }
    }

    /// The shape that a choice has, and its value: `String` of `valueString`, asked for `value`.
    pub fn shape(&self, stem: &str) -> Option<(&str, &Node)> {
        self.iter().filter(|(_, node)| !node.is_empty()).find_map(|(name, node)| {
            let shape = name.strip_prefix(stem)?;
            shape.starts_with(|first: char| first.is_ascii_uppercase()).then_some((shape, node))
        })
    }

    /// Whether it has been found right by this type, and cannot have changed since.
    pub(super) fn is_checked(&self, by: &'static Type) -> bool {
        match &self.0 {
            Elements::Own(_) => false,
            Elements::Common(common) => {
                common.checked.get().is_some_and(|checked| std::ptr::eq(*checked, by))
            }
        }
    }

    /// Whether it is the same object, held in common with another one.
    pub(super) fn is_one_with(&self, other: &Self) -> bool {
        matches!((&self.0, &other.0), (Elements::Common(one), Elements::Common(other)) if Arc::ptr_eq(one, other))
    }

    /// Notes that it was found right by this type.
    pub(super) fn set_checked(&self, by: &'static Type) {
        if let Elements::Common(common) = &self.0 {
            common.checked.get_or_init(|| by);
        }
    }

    /// Puts an element at the end whose name is not there yet. Nothing is put for `None`.
    pub(super) fn push(&mut self, name: &Name, node: Option<Node>) {
        debug_assert!(self.at(name).is_none(), "{name:?} is there already");
        if let Some(node) = node {
            self.own().push((name.clone(), node));
        }
    }

    /// Puts an element at the end, or in its old place if there is one of this name. Nothing is put for `None`.
    pub fn put(&mut self, name: impl Into<Name>, node: Option<Node>) {
        let Some(node) = node else { return };
        let name = name.into();
        match self.at_mut(&name) {
            Some(old) => *old = node,
            None => self.own().push((name, node)),
        }
    }

    /// An element.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key.as_str() == name).map(|(_, node)| node)
    }

    /// An element by its name.
    pub(crate) fn at(&self, name: &Name) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key == name).map(|(_, node)| node)
    }

    /// An element by its name, to change it.
    pub(super) fn at_mut(&mut self, name: &Name) -> Option<&mut Node> {
        let place = self.entries().iter().position(|(key, _)| key == name)?;
        self.own().get_mut(place).map(|(_, node)| node)
    }

    /// The element, made empty at the end if there is none.
    #[inline(never)]
    pub(super) fn entry(&mut self, name: &Name) -> &mut Node {
        let own = self.own();
        let place = own.iter().position(|(key, _)| key == name).unwrap_or(own.len());
        if place == own.len() {
            own.push((name.clone(), Node::Object(Object::new())));
        }
        match own.get_mut(place) {
            Some((_, node)) => node,
            None => unreachable!("the element was found or just put"),
        }
    }

    /// Adds what the other object has where nothing stands yet; objects within objects likewise.
    #[inline(never)]
    pub fn complete(&mut self, other: &Self) {
        for (name, node) in other.entries() {
            match (self.at(name), node) {
                (None, node) => self.own().push((name.clone(), node.clone())),
                (Some(Node::Object(_)), Node::Object(more)) => {
                    if let Some(Node::Object(own)) = self.at_mut(name) {
                        own.complete(more);
                    }
                }
                (Some(own), node) if own.is_empty() => self.put(name, Some(node.clone())),
                (Some(_), _) => {}
            }
        }
    }

    /// Takes an element out.
    pub fn remove(&mut self, name: &str) -> Option<Node> {
        let place = self.entries().iter().position(|(key, _)| key.as_str() == name)?;
        Some(self.own().remove(place).1)
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.entries().iter().map(|(name, node)| (name.as_str(), node))
    }

    /// The elements in order.
    pub(super) fn entries(&self) -> &[(Name, Node)] {
        match &self.0 {
            Elements::Own(elements) => elements,
            Elements::Common(common) => &common.elements,
        }
    }

    /// The elements in order, to change them; copied first if others have them too.
    pub(super) fn own(&mut self) -> &mut Vec<(Name, Node)> {
        if let Elements::Common(common) = &self.0 {
            self.0 = Elements::Own(common.elements.clone());
        }
        match &mut self.0 {
            Elements::Own(elements) => elements,
            Elements::Common(_) => unreachable!("copied just now"),
        }
    }

    /// Writes the elements without braces, each after a comma.
    pub(super) fn write_more(&self, out: &mut Vec<u8>, within: &dyn Within) {
        if let Some([_, inner @ .., _]) = self.json(within) {
            out.push(b',');
            out.extend_from_slice(inner);
        } else {
            self.write_elements(false, out, within);
        }
    }

    /// Writes the elements without braces, after a comma if `first` is false; returns whether any was written.
    fn write_elements(&self, mut first: bool, out: &mut Vec<u8>, within: &dyn Within) -> bool {
        let mut any = false;
        for (name, node) in self.entries() {
            let start = out.len();
            write_name(name, first, out);
            if node.write(out, within) {
                first = false;
                any = true;
            } else {
                out.truncate(start);
            }
        }
        any
    }

    /// As JSON, where it is held in common and all that it refers to is near; made when it is first written.
    fn json(&self, within: &dyn Within) -> Option<&[u8]> {
        let Elements::Common(common) = &self.0 else { return None };
        let (text, targets) = common.json.get_or_init(|| {
            let (mut text, near) = (Vec::new(), RefCell::default());
            Self(Elements::Own(common.elements.clone())).write(&mut text, &near);
            (text, near.into_inner())
        });
        targets.iter().all(|target| within.holds(target)).then_some(text)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, within: &dyn Within) -> bool {
        if let Some(json) = self.json(within) {
            out.extend_from_slice(json);
            return !json.is_empty();
        }
        let start = out.len();
        out.push(b'{');
        if self.write_elements(true, out, within) {
            out.push(b'}');
            return true;
        }
        out.truncate(start);
        false
    }
}

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl<K: Into<Name>> FromIterator<(K, Node)> for Object {
    fn from_iter<T: IntoIterator<Item = (K, Node)>>(elements: T) -> Self {
        Self(Elements::Own(elements.into_iter().map(|(name, node)| (name.into(), node)).collect()))
    }
}

/// Names only: a node holds patient data.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries().iter().map(|(name, _)| name)).finish()
    }
}

//! Plain values take the shape of their elements: a list of one where FHIR has lists, a number where it has numbers.

use super::{Element, Takes, Type, is_decimal};
use crate::fhir::{Node, Object};

impl Type {
    /// The object as this type writes it: see [`Element::shaped`].
    #[must_use]
    pub fn shaped(&'static self, mut object: Object) -> Object {
        self.shape(&mut object);
        object
    }

    fn shape(&'static self, object: &mut Object) {
        // What is held in common is not copied for nothing.
        if self.is_shape_of(object) {
            return;
        }
        for (name, node) in object.own() {
            let Some(element) = self.named(name) else { continue };
            element.shape(node);
            if element.wants_list(node) {
                let single = std::mem::replace(node, Node::Array(Vec::new()));
                *node = Node::Array(vec![single]);
            }
        }
    }

    /// Whether [`Type::shape`] is sure to change nothing.
    fn is_shape_of(&'static self, object: &Object) -> bool {
        let is_so = |element: &Element, node: &Node| !element.wants_list(node) && element.is_shaped(node);
        let mut entries = object.entries().iter();
        object.is_checked(self)
            || entries.all(|(name, node)| self.named(name).is_none_or(|it| is_so(it, node)))
    }
}

impl Element {
    /// The node as this element writes it: a text that is a number becomes one where numbers are asked for, and
    /// a single value becomes a list of one where, below this element, lists are asked for.
    #[must_use]
    pub fn shaped(&self, mut node: Node) -> Node {
        self.shape(&mut node);
        node
    }

    fn shape(&self, node: &mut Node) {
        match (self.takes, &mut *node) {
            (_, Node::Array(nodes)) => nodes.iter_mut().for_each(|node| self.shape(node)),
            (_, Node::Object(object)) => {
                if let Some(found) = self.kind() {
                    found.shape(object);
                }
            }
            (Takes::Decimal, Node::Text(text)) if is_decimal(text) => *node = Node::Decimal(text.clone()),
            (Takes::Decimal, Node::Integer(number)) => *node = Node::Decimal(number.to_string().into()),
            (Takes::Integer | Takes::From(_), Node::Text(text)) => {
                if let Ok(number) = text.parse() {
                    *node = Node::Integer(number);
                }
            }
            _ => {}
        }
    }

    /// Whether [`Element::shape`] is sure to change nothing.
    fn is_shaped(&self, node: &Node) -> bool {
        match (self.takes, node) {
            (_, Node::Array(nodes)) => nodes.iter().all(|node| self.is_shaped(node)),
            (_, Node::Object(object)) => self.kind().is_none_or(|found| found.is_shape_of(object)),
            (Takes::Decimal, Node::Text(_) | Node::Integer(_)) => false,
            (Takes::Integer | Takes::From(_), Node::Text(_)) => false,
            _ => true,
        }
    }

    /// Whether a single value stands where a list belongs.
    fn wants_list(&self, node: &Node) -> bool {
        self.many && !matches!(node, Node::Array(_)) && !node.is_empty()
    }
}

//! What the check of a resource says.

use super::{formats, rules};

/// What is wrong with a node; the path is made of element names and indices, never of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, below the node that was checked: `name[0].family`.
    pub path: String,
    /// What is wrong, without values.
    pub what: String,
}

impl Fault {
    /// Whether [`Type::mend`](super::Type::mend) can mend it: the message goes on without what cannot be.
    pub fn can_be_mended(&self) -> bool {
        [rules::PERIOD, rules::EMPTY, formats::CONTROLS, formats::BLANKS].contains(&self.what.as_str())
    }

    pub(in super::super) fn here(what: impl Into<String>) -> Self {
        Self { path: String::new(), what: what.into() }
    }

    pub(super) fn at(path: &str, what: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into() }
    }

    pub(super) fn at_index(self, place: usize) -> Self {
        self.below(&format!("[{place}]"))
    }

    pub(super) fn below(mut self, name: &str) -> Self {
        let rest = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{rest}{}", self.path);
        self
    }
}

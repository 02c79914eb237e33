//! FHIR R4 as a tree that is written once: nodes, paths, resources, bundles, identity, element facts, tables.
//!
//! Pure: no clock, socket or file. A [`Node`] keeps its elements in the order they were put in and its decimals
//! as they were written; nothing empty is ever written. The HL7 v2 data types become nodes in [`types`]; which
//! segment feeds which element is said by mappings.

pub mod elements;
pub mod types;

mod bundle;
mod identity;
mod json;
pub(crate) mod name;
mod node;
mod object;
mod path;
mod table;

pub use bundle::{Bundle, Resource, write_resource};
pub use identity::{NAMESPACE, id};
pub use json::is_fhir;
pub use name::Name;
pub use node::{Node, Target, Within};
pub use object::Object;
pub use path::{Path, PathError, Step};
pub use table::{Row, Table, Tables};

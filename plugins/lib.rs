//! The connectors of TIE, one file or folder each. Adding one is such a file and one line in [`ALL`].

mod client;
mod fhir;

use tie_engine::connector::Plugin;

/// Every connector, in the order that `tie plugins` lists them.
pub const ALL: &[Plugin] = &[fhir::PLUGIN];

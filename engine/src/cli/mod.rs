//! .

pub mod inspect;

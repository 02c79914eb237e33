//! Paths such as `PID-3.1`, `PID-3[2].4.2` and `OBX(3)-5`, parsed once and used often.

/// A place in a message. Every number counts from 1, as in the HL7 standard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path {
    /// Three characters, upper case.
    pub segment: [u8; 3],
    /// Which of the segments of that name; 1 unless told.
    pub occurrence: usize,
    /// The field; 0 stands for the whole segment.
    pub field: usize,
    /// Which repetition; 1 unless told.
    pub repetition: usize,
    /// The component, if the path goes so deep.
    pub component: Option<usize>,
    /// The subcomponent, if the path goes so deep.
    pub subcomponent: Option<usize>,
}

/// Why a path cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a path such as `PID-3`, `PID-3[2].4.1` or `OBX(3)-5`")]
pub struct PathError {
    /// What was written.
    pub path: String,
}

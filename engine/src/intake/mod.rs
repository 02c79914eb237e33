//! Intake.
pub mod patient;

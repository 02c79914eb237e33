//! `tie.toml`: this instance.

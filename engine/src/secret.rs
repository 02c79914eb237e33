//! Secrets: configured by reference only, never printed, never serialised.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// Where a secret is kept. In `tie.toml`: `token = { env = "SCR_TOKEN" }` or `token = { file = "/run/secrets/scr" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum SecretRef {
    /// The name of an environment variable.
    Env(String),
    /// The path of a file; white space at its end is not part of the secret.
    File(std::path::PathBuf),
}

/// A secret in memory. Its `Debug` prints nothing; it has no `Display` and is not serialised.
#[derive(Clone)]
pub struct Secret(SecretString);

impl SecretRef {
    /// Fetches the secret.
    ///
    /// # Errors
    /// Says which reference could not be followed and why; never the content.
    pub fn fetch(&self) -> Result<Secret, String> {
        let value = match self {
            Self::Env(name) => {
                std::env::var(name).map_err(|_| format!("environment variable `{name}` is not set"))?
            }
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("secret file {} cannot be read: {error}", path.display()))?,
        };
        match value.trim_end() {
            "" => Err("the secret is empty".to_owned()),
            text => Ok(Secret(SecretString::from(text))),
        }
    }
}

impl Secret {
    /// The secret itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

//! What is wrong with the configuration, and where.

use std::fmt;

/// A mistake in file, environment or command line; nothing has been started yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    place: String,
    text: String,
}

impl ConfigError {
    /// A mistake at `place`.
    #[must_use]
    pub const fn new(place: String, text: String) -> Self {
        ConfigError { place, text }
    }

    /// A mistake in a flag's value.
    #[must_use]
    pub fn flag(flag: &str, text: String) -> Self {
        ConfigError::new(flag.to_owned(), text)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

impl std::error::Error for ConfigError {}

//! Names of authentication methods.

use serde::Deserialize;

/// A method, by its name in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// A client certificate.
    Certificate,
    /// The password file.
    PasswordFile,
    /// A token in place of the password.
    Jwt,
    /// Another server, by HTTP.
    Http,
    /// SCRAM-SHA-256 by AUTH packets, with the users of the password file.
    Scram,
}

impl MethodName {
    /// As [`crate::control::authn::Method::name`] has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            MethodName::Certificate => "certificate",
            MethodName::PasswordFile => "password_file",
            MethodName::Jwt => "jwt",
            MethodName::Http => "http",
            MethodName::Scram => "scram",
        }
    }
}

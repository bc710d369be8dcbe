//! Client certificates as identity.

use super::CertificateNames;

/// The names in a certificate in DER.
#[must_use]
pub fn names(_der: &[u8]) -> Option<CertificateNames> {
    None
}

/// Which name of a certificate is the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityFrom {
    /// Common name of the subject.
    CommonName,
    /// First subject alternative name.
    AlternativeName,
}

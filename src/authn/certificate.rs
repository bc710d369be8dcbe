//! Client certificates as identity.

use super::CertificateNames;

/// The names in a certificate in DER.
#[must_use]
pub fn names(_der: &[u8]) -> Option<CertificateNames> {
    None
}

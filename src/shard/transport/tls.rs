//! TLS as an engine: records in, plain text out, by rustls.
//!
//! Not here: certificates and their reload ([`crate::shard::certificates`]).

use super::{Arrival, TransportError};
use crate::engine::codec::foreign::Foreign;
use crate::shard::{proposals, vouching};
use rustls::crypto::aws_lc_rs;
use rustls::{
    AlertDescription, CertificateError, Connection, Error, InvalidMessage, OtherError,
    PeerIncompatible,
};
use std::fmt;
use std::io::{Read, Write};

/// Takes records and appends their plain text to `into`; `words` says what fails.
///
/// # Errors
/// The handshake failed or a record is not valid; an alert may wait for [`take_wire`].
pub fn receive(
    tls: &mut Connection,
    mut records: &[u8],
    into: &mut Vec<u8>,
    words: fn(&Error) -> String,
) -> Result<Arrival, TransportError> {
    let wrong = |error: &dyn fmt::Display| TransportError::Tls(error.to_string());
    let failed = |error: &Error| TransportError::Tls(words(error));
    let mut arrival = Arrival::Open;
    let first = records;
    let not_tls = |error: &Error| match (error, Foreign::of(first)) {
        (Error::InvalidMessage(_), Some(foreign)) if foreign != Foreign::Tls => {
            let what = foreign.in_place_of_tls();
            TransportError::Tls(format!("what it sends is not TLS: {what}"))
        }
        _ => failed(error),
    };
    while !records.is_empty() {
        // Takes a part only: as much as fits beside plain text that has not been read.
        let taken = tls.read_tls(&mut records).map_err(|error| wrong(&error))?;
        let state = tls.process_new_packets().map_err(|error| not_tls(&error))?;
        let bytes = state.plaintext_bytes_to_read();
        if bytes > 0 {
            let start = into.len();
            into.resize(start + bytes, 0);
            let room = into.get_mut(start..).unwrap_or_default();
            tls.reader()
                .read_exact(room)
                .map_err(|error| wrong(&error))?;
        }
        if state.peer_has_closed() {
            arrival = Arrival::Ended;
            break;
        }
        if taken == 0 {
            break;
        }
    }
    Ok(arrival)
}

/// What failed, in an operator's words.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::NoCertificatesPresented => {
            "it shows no certificate, and client_certificate is \"required\"".to_owned()
        }
        Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown),
        ) => format!(
            "it does not trust the broker's certificate (it says: {})",
            plain(alert)
        ),
        Error::AlertReceived(alert) => {
            format!("it ends the handshake (it says: {})", plain(alert))
        }
        Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered) => {
            "it offers TLS 1.1 at most; 1.2 and 1.3 are served (version_min)".to_owned()
        }
        // Missed first: a client of TLS 1.1 does not know it, one of 1.2 hardly ever leaves it out.
        Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired) => {
            "it offers TLS 1.1 at most, or 1.2 without signature algorithms; 1.2 with them and 1.3 are \
             served (version_min)"
                .to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled)
        | Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired) => {
            "it offers no version of TLS that is served (version_min)".to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => format!(
            "it offers no way to exchange keys that is served: {}",
            key_exchanges()
        ),
        Error::NoApplicationProtocol => proposals::take_unserved().map_or_else(
            || "the protocols that it proposes by ALPN are not served".to_owned(),
            |unserved| unserved.to_string(),
        ),
        Error::PeerIncompatible(why) => {
            format!("it and the broker have no way in common: {}", plain(why))
        }
        Error::PeerMisbehaved(why) => format!("it breaks the rules of TLS: {}", plain(why)),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what it sends is not TLS".to_owned()
        }
        Error::InvalidMessage(why) => format!("what it sends is not valid: {}", plain(why)),
        _ => error.to_string(),
    }
}

/// Ways to exchange keys that are served.
fn key_exchanges() -> String {
    let groups = aws_lc_rs::DEFAULT_KX_GROUPS.iter();
    let names: Vec<_> = groups.map(|group| format!("{:?}", group.name())).collect();
    names.join(", ")
}

/// What an error is called, as words: `NoSuchThing { .. }` is "no such thing", `UnknownCA` "unknown CA".
pub(super) fn plain(error: &impl fmt::Debug) -> String {
    let name = format!("{error:?}");
    let name = name.split(|c: char| !c.is_alphanumeric()).next();
    let mut words = vec![String::new()];
    let mut before = None;
    let mut letters = name.unwrap_or_default().chars().peekable();
    while let Some(c) = letters.next() {
        let ends_capitals = letters.peek().is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && before.is_some_and(|b: char| !b.is_uppercase() || ends_capitals) {
            words.push(String::new());
        }
        words.last_mut().unwrap_or(&mut String::new()).push(c);
        before = Some(c);
    }
    let in_small = |word: &String| match word.len() > 1 && !word.contains(char::is_lowercase) {
        true => word.clone(),
        false => word.to_lowercase(),
    };
    words.iter().map(in_small).collect::<Vec<_>>().join(" ")
}

/// What is wrong with a client's certificate, and which one that is.
fn of_certificate(error: &CertificateError) -> String {
    let refused = vouching::take_refused().unwrap_or_default();
    let name = refused.name;
    let text = match error {
        CertificateError::Revoked if refused.is_by_its_ca => {
            "is of a CA that is revoked itself (client_crl, client_crl_depth)"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. }
            if refused.is_by_its_ca =>
        {
            "is of a CA whose own certificate has ended"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
            if refused.is_by_its_ca =>
        {
            "is of a CA whose own certificate does not count yet; compare the clocks"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has ended",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "does not count yet; compare the clocks"
        }
        CertificateError::Revoked => "is revoked (client_crl)",
        CertificateError::UnknownIssuer => "is of no CA that is in client_ca",
        CertificateError::UnknownRevocationStatus => {
            "is of a CA whose list is not in client_crl (client_crl_depth)"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for clients (its extended key usage)"
        }
        CertificateError::BadSignature => "has a signature that is wrong",
        CertificateError::BadEncoding => "cannot be read",
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed in a way that is not served, such as SHA-1 or RSA of less than 2048 bits"
        }
        CertificateError::Other(OtherError(other)) => match other.downcast_ref() {
            Some(webpki::Error::UnsupportedCertVersion) => {
                "is of X.509 version 1, which says too little of what it is for; have the CA sign one of \
                 version 3 (`openssl x509 -req` with -extfile)"
            }
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "is that of a CA; have the CA sign one for the client"
            }
            Some(webpki::Error::EndEntityUsedAsCa) => "is signed by one that is none of a CA",
            Some(why) => return format!("its certificate{name} is not valid: {}", plain(why)),
            None => "is not valid",
        },
        why => return format!("its certificate{name} is not valid: {}", plain(why)),
    };
    format!("its certificate{name} {text}")
}

/// Encrypts bytes; they leave by [`take_wire`].
pub fn send<'a>(tls: &mut Connection, slices: impl Iterator<Item = &'a [u8]>) {
    let mut writer = tls.writer();
    for slice in slices {
        // Writing to memory without a limit fails only once the connection has failed.
        let _ = writer.write_all(slice);
    }
}

/// Appends the records that are ready to `wire`.
pub fn take_wire(tls: &mut Connection, wire: &mut Vec<u8>) {
    while tls.wants_write() {
        // Writing to memory does not fail.
        if tls.write_tls(wire).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::PeerMisbehaved;
    use std::sync::Arc;

    #[test]
    fn refusals_are_told_in_words() {
        let other = |error: webpki::Error| {
            let other = OtherError(Arc::new(error));
            Error::InvalidCertificate(CertificateError::Other(other))
        };
        for (error, wanted) in [
            (Error::NoCertificatesPresented, "it shows no certificate"),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered),
                "it offers TLS 1.1 at most; 1.2 and 1.3 are served",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon),
                "it offers no way to exchange keys that is served: X25519",
            ),
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "its certificate is of no CA that is in client_ca",
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidForName),
                "its certificate is not valid: not valid for name",
            ),
            (
                other(webpki::Error::UnsupportedCertVersion),
                "X.509 version 1",
            ),
            (other(webpki::Error::CaUsedAsEndEntity), "is that of a CA;"),
            (
                other(webpki::Error::PathLenConstraintViolated),
                "not valid: path len constraint violated",
            ),
            (
                Error::AlertReceived(AlertDescription::BadCertificate),
                "(it says: bad certificate)",
            ),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "(it says: unknown CA)",
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived),
                "rules of TLS: too much early data received",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "what it sends is not TLS",
            ),
        ] {
            let said = words(&error);
            assert!(said.contains(wanted), "{said}");
        }
    }
}

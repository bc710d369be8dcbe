//! TLS to another broker: as whom it has to show itself, and what is said if it does not.

use super::TransportError;
use super::tls::plain;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, Error, InvalidMessage};
use std::fmt;
use std::sync::Arc;

/// How to speak TLS with another broker.
#[derive(Clone)]
pub struct RemoteTls {
    /// What is trusted, and what is shown.
    pub config: Arc<ClientConfig>,
    /// The name for which its certificate has to be.
    pub server_name: ServerName<'static>,
}

impl RemoteTls {
    /// A handshake that has not begun.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn begin(&self) -> Result<ClientConnection, TransportError> {
        let name = self.server_name.clone();
        let connection = ClientConnection::new(Arc::clone(&self.config), name);
        connection.map_err(|error| TransportError::Tls(error.to_string()))
    }
}

impl fmt::Debug for RemoteTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteTls").field(&self.server_name).finish()
    }
}

/// What failed, in an operator's words.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => {
            format!("it ends the handshake (it says: {})", plain(alert))
        }
        Error::PeerIncompatible(why) => {
            format!("it and this broker have no way in common: {}", plain(why))
        }
        Error::PeerMisbehaved(why) => format!("it breaks the rules of TLS: {}", plain(why)),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what it sends is not TLS; is it a port for mqtt://?".to_owned()
        }
        Error::InvalidMessage(why) => format!("what it sends is not valid: {}", plain(why)),
        _ => error.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    let text = match error {
        CertificateError::UnknownIssuer => "is of no CA that is trusted (bridge.tls.ca)",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name than its address has (bridge.tls.server_name)"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has ended",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "does not count yet; compare the clocks"
        }
        CertificateError::BadSignature => {
            "is not signed by the CA of that name that is trusted (bridge.tls.ca)"
        }
        CertificateError::BadEncoding => "cannot be read",
        why => return format!("its certificate is not valid: {}", plain(why)),
    };
    format!("its certificate {text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::AlertDescription;

    #[test]
    fn a_certificate_is_refused_in_words_that_name_the_key() {
        for (error, wanted) in [
            (CertificateError::UnknownIssuer, "bridge.tls.ca"),
            (CertificateError::NotValidForName, "bridge.tls.server_name"),
            (CertificateError::Expired, "has ended"),
            (CertificateError::InvalidPurpose, "invalid purpose"),
        ] {
            let said = words(&Error::InvalidCertificate(error));
            assert!(said.contains(wanted), "{said}");
        }
        let said = words(&Error::AlertReceived(AlertDescription::BadCertificate));
        assert!(said.contains("(it says: bad certificate)"), "{said}");
    }
}

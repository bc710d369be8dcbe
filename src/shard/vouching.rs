//! Clients' certificates as rustls judges them, and the name of one that is refused: rustls tells why, but
//! not of whom.
//!
//! Judged and told on one thread, one behind the other, so that a cell of the thread passes the name on.

use crate::engine::telemetry::notes::quoted;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::cell::Cell;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The certificate that was refused last on this thread.
#[derive(Debug, Default)]
pub struct Refused {
    /// Its subject and serial number in brackets, behind a blank; empty if they cannot be read.
    pub name: String,
    /// Whether it is refused for what a CA above it is.
    pub is_by_its_ca: bool,
}

thread_local! {
    static REFUSED: Cell<Option<Refused>> = const { Cell::new(None) };
}

/// The certificate that was refused since this was last asked for, on this thread.
pub fn take_refused() -> Option<Refused> {
    REFUSED.take()
}

/// Judges by rustls' own verifier.
#[derive(Debug)]
pub struct Named {
    judge: Arc<dyn ClientCertVerifier>,
    /// The same, but that it asks of the client's own certificate only whether it is revoked; where `judge`
    /// asks of more.
    of_leaf: Option<Arc<dyn ClientCertVerifier>>,
}

impl Named {
    /// Judges as `judge` does.
    #[must_use]
    pub fn new(
        judge: Arc<dyn ClientCertVerifier>,
        of_leaf: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Arc<Self> {
        Arc::new(Named { judge, of_leaf })
    }
}

/// Its subject and serial number, as `openssl` writes them.
fn name(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return String::new();
    };
    let subject = quoted(&parsed.subject().to_string());
    let serial = parsed.raw_serial().iter();
    let serial: String = serial.map(|byte| format!("{byte:02X}")).collect();
    format!(" ({subject}, serial {serial})")
}

impl ClientCertVerifier for Named {
    fn offer_client_auth(&self) -> bool {
        self.judge.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.judge.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.judge.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .judge
            .verify_client_cert(end_entity, intermediates, now);
        if let Err(error) = &verified {
            let is_revoked = *error == Error::InvalidCertificate(CertificateError::Revoked);
            let of_leaf = self.of_leaf.as_ref().filter(|_| is_revoked);
            let is_by_its_ca = of_leaf.is_some_and(|judge| {
                let of_leaf = judge.verify_client_cert(end_entity, intermediates, now);
                of_leaf.is_ok()
            });
            REFUSED.set(Some(Refused {
                name: name(end_entity),
                is_by_its_ca,
            }));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

//! Clients' certificates as rustls judges them, and the name of one that is refused: rustls tells why, but
//! not of whom.
//!
//! Judged and told on one thread, one behind the other, so that a cell of the thread passes the name on.

use crate::engine::telemetry::notes::quoted;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use std::cell::Cell;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The certificate that was refused last on this thread.
#[derive(Debug, Default)]
pub struct Refused {
    /// Its subject and serial number in brackets, behind a blank; empty if they cannot be read.
    pub name: String,
    /// Whether it is refused for what the certificate of a CA above it is.
    pub is_by_its_ca: bool,
}

thread_local! {
    static REFUSED: Cell<Option<Refused>> = const { Cell::new(None) };
}

/// The certificate that was refused since this was last asked for, on this thread.
pub fn take_refused() -> Option<Refused> {
    REFUSED.take()
}

/// A CA that is trusted, and how long: rustls asks that of all certificates but these.
#[derive(Debug)]
pub struct Root {
    certificate: CertificateDer<'static>,
    subject: Vec<u8>,
    /// Its first second and its last, since 1970.
    term: (i64, i64),
}

impl Root {
    /// As its certificate says; `None` if that cannot be read.
    #[must_use]
    pub fn new(certificate: &CertificateDer<'static>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(Root {
            certificate: certificate.clone(),
            subject: parsed.subject().as_raw().to_vec(),
            term: term(&parsed),
        })
    }
}

fn term(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    let [begins, ends] = [validity.not_before, validity.not_after].map(|at| at.timestamp());
    (begins, ends)
}

/// What is wrong with a certificate of that term now, if anything is.
fn out_of_term((begins, ends): (i64, i64), now: UnixTime) -> Option<CertificateError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now > ends {
        return Some(CertificateError::Expired);
    }
    (now < begins).then_some(CertificateError::NotValidYet)
}

/// Judges by rustls' own verifier.
#[derive(Debug)]
pub struct Named {
    judge: Arc<dyn ClientCertVerifier>,
    /// The same, but that it asks of the client's own certificate only whether it is revoked; where `judge`
    /// asks of more.
    of_leaf: Option<Arc<dyn ClientCertVerifier>>,
    /// The CAs of both.
    roots: Vec<Root>,
    provider: Arc<CryptoProvider>,
}

impl Named {
    /// Judges as `judge` does, and lets no CA vouch before it counts and after it has ended.
    #[must_use]
    pub fn new(
        judge: Arc<dyn ClientCertVerifier>,
        of_leaf: Option<Arc<dyn ClientCertVerifier>>,
        roots: Vec<Root>,
        provider: &Arc<CryptoProvider>,
    ) -> Arc<Self> {
        Arc::new(Named {
            judge,
            of_leaf,
            roots,
            provider: Arc::clone(provider),
        })
    }

    /// What is wrong with the CA that vouches for a certificate, if no other does whose time it is.
    fn root_out_of_term(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<CertificateError> {
        let is_of = |root: &Root| {
            std::iter::once(own).chain(between).any(|der| {
                X509Certificate::from_der(der)
                    .is_ok_and(|(_, read)| read.issuer().as_raw() == root.subject)
            })
        };
        let in_term = |root: &&Root| out_of_term(root.term, now).is_none();
        let (counting, mut others): (Vec<_>, Vec<_>) = self.roots.iter().partition(in_term);
        others.retain(|root| is_of(root));
        let vouch = |roots: &[&Root]| self.vouch(roots, own, between, now);
        if others.is_empty() || vouch(&counting) {
            return None;
        }
        let vouching = others.iter().find(|root| vouch(&[root]));
        out_of_term(vouching.or(others.first())?.term, now)
    }

    /// Whether these vouch for a certificate. What is revoked was looked at with all.
    fn vouch(
        &self,
        roots: &[&Root],
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().map(|root| root.certificate.clone()));
        let provider = Arc::clone(&self.provider);
        WebPkiClientVerifier::builder_with_provider(store.into(), provider)
            .build()
            .is_ok_and(|judge| judge.verify_client_cert(own, between, now).is_ok())
    }

    /// Whether a certificate that is refused is so for what a CA above it is.
    fn is_by_its_ca(
        &self,
        error: &Error,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        match error {
            Error::InvalidCertificate(CertificateError::Revoked) => {
                let of_leaf = self.of_leaf.as_ref();
                of_leaf.is_some_and(|judge| judge.verify_client_cert(own, between, now).is_ok())
            }
            Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => X509Certificate::from_der(own)
                .is_ok_and(|(_, own)| out_of_term(term(&own), now).is_none()),
            _ => false,
        }
    }
}

/// Its subject and serial number, in brackets; empty if they cannot be read.
fn name(certificate: &CertificateDer<'_>) -> String {
    let named = named(certificate);
    match named.is_empty() {
        true => named,
        false => format!(" ({named})"),
    }
}

/// Subject and serial number of a certificate in DER, as `openssl` writes them; empty if they cannot be read.
#[must_use]
pub fn named(certificate: &[u8]) -> String {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return String::new();
    };
    let subject = quoted(&parsed.subject().to_string());
    let serial = parsed.raw_serial().iter();
    let serial: String = serial.map(|byte| format!("{byte:02X}")).collect();
    format!("{subject}, serial {serial}")
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
        let verified = verified.and_then(|verified| {
            let wrong = self.root_out_of_term(end_entity, intermediates, now);
            wrong.map_or(Ok(verified), |wrong| Err(Error::InvalidCertificate(wrong)))
        });
        if let Err(error) = &verified {
            REFUSED.set(Some(Refused {
                name: name(end_entity),
                is_by_its_ca: self.is_by_its_ca(error, end_entity, intermediates, now),
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

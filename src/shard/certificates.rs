//! TLS settings from files: certificates by server name, keys, client CAs and revocation lists.
//!
//! Read on the control plane, at the start and at each reload; shards get the finished
//! [`ServerConfig`]s. A file that is wrong is named, with what would be right.
//!
//! Tickets for resumption are made by a key of this set: a reload makes those of before worthless, so that
//! a client certificate that is revoked cannot be carried on by a resumed session.

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; one that is shown has to be valid.
    Optional,
    /// They have to.
    Required,
}

/// A certificate chain and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// Chain, the server's own first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// The files behind one TLS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Chosen by the server name a client asks for; the first where none fits.
    pub pairs: Vec<KeyPair>,
    /// CAs of client certificates.
    pub client_ca: Option<PathBuf>,
    /// Revoked client certificates.
    pub client_crl: Option<PathBuf>,
    /// Whether clients are asked for one.
    pub client_certificate: ClientCertificate,
    /// Whether TLS 1.2 is refused.
    pub requires_1_3: bool,
    /// Protocol to agree on where the client proposes any.
    pub alpn: &'static str,
}

/// A file that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct CertificateError {
    path: PathBuf,
    text: String,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.text)
    }
}

impl std::error::Error for CertificateError {}

fn wrong(path: &Path, text: impl fmt::Display) -> CertificateError {
    CertificateError {
        path: path.to_owned(),
        text: text.to_string(),
    }
}

/// Settings made of files, and when the first of the certificates ends.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// For connections.
    pub config: Arc<ServerConfig>,
    /// Seconds since 1970 at which the first of the server's certificates expires.
    pub expires_unix_s: i64,
}

impl TlsFiles {
    /// All files, to see whether they changed.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let pairs = self
            .pairs
            .iter()
            .flat_map(|pair| [&pair.certificate, &pair.key]);
        let clients = [&self.client_ca, &self.client_crl];
        pairs
            .chain(clients.into_iter().flatten())
            .map(PathBuf::as_path)
    }

    /// When each file was last changed.
    #[must_use]
    pub fn stamps(&self) -> Vec<Option<SystemTime>> {
        let modified = |path| std::fs::metadata(path).and_then(|file| file.modified());
        self.paths().map(|path| modified(path).ok()).collect()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Names the first file that is wrong.
    pub fn load(&self) -> Result<TlsSettings, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut resolver = ByName::default();
        let mut expires_unix_s = i64::MAX;
        for pair in &self.pairs {
            let (certified, names, expires) = load_pair(pair, &provider)?;
            expires_unix_s = expires_unix_s.min(expires);
            resolver.entries.push((names, certified));
        }
        let versions: &[_] = if self.requires_1_3 {
            &[&TLS13]
        } else {
            &[&TLS13, &TLS12]
        };
        let first = self.pairs.first().map(|pair| pair.certificate.clone());
        let at = first.unwrap_or_default();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| wrong(&at, error))?;
        let builder = match self.verifier(&provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![self.alpn.as_bytes().to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| wrong(&at, error))?;
        Ok(TlsSettings {
            config: Arc::new(config),
            expires_unix_s,
        })
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, CertificateError> {
        let Some(path) = &self.client_ca else {
            return Ok(None);
        };
        if self.client_certificate == ClientCertificate::None {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(path)? {
            roots.add(certificate).map_err(|error| wrong(path, error))?;
        }
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
        if let Some(path) = &self.client_crl {
            builder = builder.with_crls(read_crls(path)?);
        }
        if self.client_certificate == ClientCertificate::Optional {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build();
        let at = self.client_crl.as_ref().unwrap_or(path);
        Ok(Some(verifier.map_err(|error| wrong(at, error))?))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|error| wrong(path, format!("cannot be read: {error}")))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let bytes = read(path)?;
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let list = list.map_err(|error| wrong(path, error))?;
    if list.is_empty() {
        return Err(wrong(path, "has no CERTIFICATE section in PEM"));
    }
    Ok(list)
}

fn read_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    let bytes = read(path)?;
    let list: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let list = list.map_err(|error| wrong(path, error))?;
    if list.is_empty() {
        return Err(wrong(path, "has no X509 CRL section in PEM"));
    }
    Ok(list)
}

type Loaded = (Arc<CertifiedKey>, Vec<String>, i64);

fn load_pair(pair: &KeyPair, provider: &CryptoProvider) -> Result<Loaded, CertificateError> {
    let chain = read_certificates(&pair.certificate)?;
    let (names, expires) = match chain.first() {
        Some(leaf) => names_and_expiry(leaf, &pair.certificate)?,
        None => return Err(wrong(&pair.certificate, "is empty")),
    };
    let key = PrivateKeyDer::from_pem_slice(&read(&pair.key)?)
        .map_err(|error| wrong(&pair.key, format!("is no private key in PEM: {error}")))?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let text = format!("does not fit {}: {error}", pair.certificate.display());
        wrong(&pair.key, text)
    })?;
    Ok((Arc::new(certified), names, expires))
}

fn names_and_expiry(leaf: &[u8], path: &Path) -> Result<(Vec<String>, i64), CertificateError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| wrong(path, error))?;
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let names = alternative
        .iter()
        .flat_map(|names| &names.value.general_names);
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok((dns.collect(), parsed.validity().not_after.timestamp()))
}

/// Chooses the certificate whose names fit; the first if none does or no name is asked for.
#[derive(Debug, Default)]
struct ByName {
    entries: Vec<(Vec<String>, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().unwrap_or_default();
        let fitting = self
            .entries
            .iter()
            .find(|(names, _)| names.iter().any(|name| fits(name, asked)));
        fitting
            .or(self.entries.first())
            .map(|(_, certified)| Arc::clone(certified))
    }
}

/// Whether a certificate's name stands for `asked`; `*.` stands for one label.
fn fits(name: &str, asked: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => asked
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(fits("*.example.com", "a.Example.com"));
        for asked in ["example.com", "a.b.example.com", ".example.com", ""] {
            assert!(!fits("*.example.com", asked), "{asked}");
        }
        assert!(fits("mqtt.example.com", "MQTT.example.com"));
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let files = TlsFiles {
            pairs: vec![KeyPair {
                certificate: "/nowhere/cert.pem".into(),
                key: "/nowhere/key.pem".into(),
            }],
            client_ca: None,
            client_crl: None,
            client_certificate: ClientCertificate::None,
            requires_1_3: false,
            alpn: "mqtt",
        };
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains("/nowhere/cert.pem"), "{error}");
    }
}

//! TLS settings from files: certificates by server name, keys, client CAs and revocation lists.
//!
//! Read on the control plane, at the start and at each reload; shards get the finished
//! [`ServerConfig`]s. A file that is wrong is named, with what would be right.
//!
//! Tickets for resumption are made by a key of this set: a reload makes those of before worthless, so that
//! a client certificate that is revoked cannot be carried on by a resumed session. What ends by the clock
//! meanwhile is seen by `crate::shard::transport::client`.

use crate::shard::files;
use crate::shard::pem::Pem;
use crate::shard::proposals;
use crate::shard::transport::client::TlsSetup;
use crate::shard::vouching::{Named, Root};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::{
    ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, GeneralName, SubjectPublicKeyInfo, X509Certificate,
    X509Version,
};

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

/// Whose revocation the lists of `client_crl` have to tell of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationDepth {
    /// The client's own certificate.
    #[default]
    Leaf,
    /// Those of the CAs between as well.
    Chain,
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
    /// Whose revocation these have to tell of.
    pub client_crl_depth: RevocationDepth,
    /// Whether clients are asked for one.
    pub client_certificate: ClientCertificate,
    /// Whether TLS 1.2 is refused.
    pub requires_1_3: bool,
    /// Protocols to agree on where the client proposes any.
    pub alpn: &'static [&'static str],
    /// Most plain text of one record to clients; `None` for what TLS allows.
    pub record_bytes_max: Option<usize>,
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

/// What of a set of files serves for a time only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A server's own certificate.
    Own,
    /// That of a CA in its chain, which is called so.
    Between(String),
    /// That of a CA of clients, which is called so.
    ClientCa(String),
    /// A revocation list.
    RevocationList,
    /// Revocation lists none of which is of a CA of clients: they never serve.
    ForeignLists,
}

/// How long a part of a file serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The file.
    pub path: PathBuf,
    /// What in it.
    pub part: Part,
    /// Seconds since 1970.
    pub begins_unix_s: i64,
    /// Seconds since 1970.
    pub ends_unix_s: i64,
}

impl Term {
    fn new(path: &Path, part: Part, certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Term {
            path: path.to_owned(),
            part,
            begins_unix_s: validity.not_before.timestamp(),
            ends_unix_s: validity.not_after.timestamp(),
        }
    }
}

/// Settings made of files, and until when these serve.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// For connections.
    pub setup: Arc<TlsSetup>,
    /// How long certificates and revocation lists serve.
    pub terms: Vec<Term>,
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

    /// Reads the files.
    ///
    /// # Errors
    /// Names the first file that is wrong.
    pub fn load(&self) -> Result<TlsSettings, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut resolver = ByName {
            entries: Vec::new(),
            alpn: self.alpn,
        };
        let mut terms = Vec::new();
        for pair in &self.pairs {
            let (certified, names, of_pair) = load_pair(pair, &provider)?;
            terms.extend(of_pair);
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
        let verifier = self.verifier(&provider, &mut terms)?;
        let builder = match verifier.clone() {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        let protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        // With the five bytes of a record's head, as rustls counts.
        config.max_fragment_size = self.record_bytes_max.map(|bytes| bytes + 5);
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| wrong(&at, error))?;
        Ok(TlsSettings {
            setup: Arc::new(TlsSetup {
                config: Arc::new(config),
                verifier,
            }),
            terms,
        })
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
        terms: &mut Vec<Term>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, CertificateError> {
        let Some(path) = &self.client_ca else {
            return Ok(None);
        };
        if self.client_certificate == ClientCertificate::None {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        let certificates = read_certificates(path)?;
        if !certificates
            .iter()
            .any(|certificate| may_vouch(certificate))
        {
            let text = "has no certificate of a CA: what is in it vouches for no client";
            return Err(wrong(path, text));
        }
        let (mut trusted, mut names) = (Vec::new(), Vec::new());
        for (number, certificate) in (1..).zip(certificates) {
            trusted.extend(Root::new(&certificate));
            if let Ok((_, parsed)) = X509Certificate::from_der(&certificate) {
                let part = Part::ClientCa(parsed.subject().to_string());
                terms.push(Term::new(path, part, &parsed));
                names.push(parsed.subject().as_raw().to_vec());
            }
            let added = roots.add(certificate);
            added.map_err(|_| wrong(path, format!("certificate {number} is not one of a CA")))?;
        }
        let mut of_leaf = None;
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
        if let Some(path) = &self.client_crl {
            let lists = read_lists(path, &names, terms)?;
            builder = builder.with_crls(lists);
            let leaf_only = builder.clone().only_check_end_entity_revocation();
            match self.client_crl_depth {
                RevocationDepth::Leaf => builder = leaf_only,
                RevocationDepth::Chain => of_leaf = leaf_only.build().ok(),
            }
        }
        if self.client_certificate == ClientCertificate::Optional {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build();
        let at = self.client_crl.as_ref().unwrap_or(path);
        let verifier = verifier.map_err(|error| wrong(at, error))?;
        Ok(Some(Named::new(verifier, of_leaf, trusted, provider)))
    }
}

/// Revocation lists, for clients of the CAs of these names.
fn read_lists(
    path: &Path,
    names: &[Vec<u8>],
    terms: &mut Vec<Term>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    let lists =
        Pem::new(&read(path, files::LIST_BYTES_MAX)?).and_then(|pem| pem.revocation_lists());
    let lists = lists.map_err(|text| wrong(path, text))?;
    let term = |part, ends_unix_s| Term {
        path: path.to_owned(),
        part,
        // One that is ahead of its time counts as well.
        begins_unix_s: 0,
        ends_unix_s,
    };
    terms.extend(lists.iter().filter_map(|list| {
        let (_, parsed) = CertificateRevocationList::from_der(list).ok()?;
        let ends = parsed.next_update()?.timestamp();
        Some(term(Part::RevocationList, ends))
    }));
    if !lists.iter().any(|list| is_of_any(list, names)) {
        terms.push(term(Part::ForeignLists, 0));
    }
    Ok(lists)
}

/// Whether one of so many CAs has made a list; one that cannot be read may be.
fn is_of_any(list: &[u8], names: &[Vec<u8>]) -> bool {
    let parsed = CertificateRevocationList::from_der(list);
    parsed.map_or(true, |(_, list)| {
        names
            .iter()
            .any(|name| list.issuer().as_raw() == name.as_slice())
    })
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, CertificateError> {
    files::read(path, bytes_max).map_err(|error| wrong(path, error))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates =
        Pem::new(&read(path, files::CERTIFICATES_BYTES_MAX)?).and_then(|pem| pem.certificates());
    certificates.map_err(|text| wrong(path, text))
}

/// Whether a client may be trusted for this certificate: a CA's, or one that vouches for itself. Of X.509
/// version 1 it is not said.
fn may_vouch(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        // What it is instead is said where it is taken.
        return true;
    };
    parsed.version() == X509Version::V1 || parsed.is_ca() || parsed.subject() == parsed.issuer()
}

type Loaded = (Arc<CertifiedKey>, Vec<String>, Vec<Term>);

fn load_pair(pair: &KeyPair, provider: &CryptoProvider) -> Result<Loaded, CertificateError> {
    let chain = read_certificates(&pair.certificate)?;
    let of_chain = |text: &str| wrong(&pair.certificate, text);
    let parsed = chain.iter().map(|der| X509Certificate::from_der(der));
    let parsed: Vec<_> = parsed
        .map(|read| read.map(|(_, certificate)| certificate))
        .collect::<Result<_, _>>()
        .map_err(|_| of_chain("has a CERTIFICATE that is none of X.509"))?;
    let own = parsed.first().ok_or_else(|| of_chain("is empty"))?;
    let key = Pem::new(&read(&pair.key, files::CERTIFICATES_BYTES_MAX)?)
        .and_then(|pem| pem.private_key());
    let key = key.map_err(|text| wrong(&pair.key, text))?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        let text = "has a key of a kind that is not served: RSA of 2048 to 8192 bits, ECDSA on P-256, \
                    P-384 or P-521, and Ed25519 are";
        wrong(&pair.key, text)
    })?;
    check_order(&parsed).map_err(of_chain)?;
    if let Some(public) = key.public_key() {
        let fits = |certificate: &X509Certificate<'_>| has_key(certificate, &public);
        if !fits(own) {
            return Err(if parsed.iter().any(fits) {
                of_chain(WRONG_ORDER)
            } else {
                let certificate = pair.certificate.display();
                let text = format!("is not the key of the certificate in {certificate}");
                wrong(&pair.key, text)
            });
        }
    }
    let parts = parsed.iter().enumerate().map(|(at, certificate)| {
        let part = match at {
            0 => Part::Own,
            _ => Part::Between(certificate.subject().to_string()),
        };
        Term::new(&pair.certificate, part, certificate)
    });
    let (names, terms) = (names(own), parts.collect());
    Ok((Arc::new(CertifiedKey::new(chain, key)), names, terms))
}

/// Whether a certificate is of this public key. Compared without what stands beside it: keys of one kind are
/// named in more than one way.
fn has_key(certificate: &X509Certificate<'_>, public: &[u8]) -> bool {
    SubjectPublicKeyInfo::from_der(public).is_ok_and(|(_, public)| {
        public.subject_public_key == certificate.public_key().subject_public_key
    })
}

const WRONG_ORDER: &str = "the chain is in the wrong order: first the server's own certificate, then that of \
    its CA, then that CA's own";

/// Whether no certificate's CA stands elsewhere than behind it.
fn check_order(chain: &[X509Certificate<'_>]) -> Result<(), &'static str> {
    for (at, pair) in chain.windows(2).enumerate() {
        let [one, next] = pair else { continue };
        let is_of = |ca: &X509Certificate<'_>| ca.subject() == one.issuer();
        let is_own_ca = is_of(one);
        let others = chain.iter().enumerate().filter(|(other, _)| *other != at);
        if !is_own_ca && !is_of(next) && others.into_iter().any(|(_, ca)| is_of(ca)) {
            return Err(WRONG_ORDER);
        }
    }
    Ok(())
}

/// The server names that a certificate is for.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative
        .iter()
        .flat_map(|names| &names.value.general_names);
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

/// Chooses the certificate whose names fit; the first if none does or no name is asked for.
#[derive(Debug)]
struct ByName {
    entries: Vec<(Vec<String>, Arc<CertifiedKey>)>,
    alpn: &'static [&'static str],
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(proposed) = hello.alpn() {
            proposals::look_at(proposed, self.alpn);
        }
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
            client_crl_depth: RevocationDepth::Leaf,
            client_certificate: ClientCertificate::None,
            requires_1_3: false,
            alpn: &["mqtt"],
            record_bytes_max: None,
        };
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains("/nowhere/cert.pem"), "{error}");
    }
}

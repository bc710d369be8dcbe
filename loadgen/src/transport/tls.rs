//! TLS by rustls: which certificates count, and the handshake without blocking.

use mio::net::TcpStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// TLS over a socket.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// What the command line says of TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// CA certificates (PEM); else the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate chain (PEM).
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// Take any certificate.
    pub is_insecure: bool,
}

impl TlsOptions {
    /// Whether anything is given.
    pub const fn is_any(&self) -> bool {
        self.ca.is_some() || self.certificate.is_some() || self.key.is_some() || self.is_insecure
    }
}

/// A configuration for all connections, with resumption off: every connect costs a full handshake.
pub fn config(options: &TlsOptions, offers_mqtt: bool) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if options.is_insecure {
        let verifier = Arc::new(AnyCertificate(provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    } else {
        builder.with_root_certificates(roots(options.ca.as_deref())?)
    };
    let mut config = match (&options.certificate, &options.key) {
        (Some(certificate), Some(key)) => {
            let named = |path: &Path, error: String| format!("{}: {error}", path.display());
            let key_der =
                PrivateKeyDer::from_pem_file(key).map_err(|error| named(key, error.to_string()))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key_der)
                .map_err(|error| named(certificate, error.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    if offers_mqtt {
        config.alpn_protocols = vec![b"mqtt".to_vec()];
    }
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(named)?
        .collect();
    let certificates = certificates.map_err(named)?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(certificates)
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("no CA certificate is known: give --ca FILE or --insecure".into());
    }
    Ok(roots)
}

/// Begins TLS on a socket that may still be connecting.
pub fn begin(
    (config, name): (Arc<ClientConfig>, ServerName<'static>),
    socket: TcpStream,
) -> io::Result<TlsStream> {
    let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, socket))
}

/// Goes on with the handshake; whether it is over.
pub fn handshake(stream: &mut TlsStream) -> io::Result<bool> {
    while stream.conn.is_handshaking() {
        match stream.conn.complete_io(&mut stream.sock) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Checks signatures but not who signed.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

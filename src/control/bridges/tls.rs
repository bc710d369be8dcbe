//! What a bridge trusts and shows by TLS: files as the configuration names them.

use crate::control::config::{Address, BridgeTlsConfig};
use crate::shard::files;
use crate::shard::pem::Pem;
use crate::shard::transport::remote::RemoteTls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where systems keep the certificates of authorities they trust.
const SYSTEM_CA_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a bridge needs to speak TLS with an address; `None` where it does not.
///
/// # Errors
/// A file that cannot be used, or a host that is no name.
pub fn for_address(
    address: &Address,
    config: Option<&Arc<ClientConfig>>,
    settings: &BridgeTlsConfig,
) -> Result<Option<RemoteTls>, String> {
    let Some(config) = config.filter(|_| address.is_tls) else {
        return Ok(None);
    };
    let name = settings.server_name.as_deref().unwrap_or(&address.host);
    let server_name = ServerName::try_from(name.to_owned()).map_err(|_| {
        format!("bridge.tls.server_name: {name:?} is no name that a certificate can be for")
    })?;
    Ok(Some(RemoteTls {
        config: Arc::clone(config),
        server_name,
    }))
}

/// The settings of a bridge.
///
/// # Errors
/// A file that cannot be used.
pub fn load(settings: &BridgeTlsConfig) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder().with_root_certificates(roots(settings)?);
    let mut config = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => {
            let of_chain = |pem: &Pem<'_>| pem.certificates();
            let chain = read("bridge.tls.certificate", certificate, of_chain)?;
            let key = read("bridge.tls.key", key, |pem: &Pem<'_>| pem.private_key())?;
            let with = builder.with_client_auth_cert(chain, key);
            with.map_err(|error| format!("bridge.tls.certificate: {error}"))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = settings
        .alpn
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Ok(config)
}

fn roots(settings: &BridgeTlsConfig) -> Result<RootCertStore, String> {
    let of_system = || {
        let mut files = SYSTEM_CA_FILES.iter().map(PathBuf::from);
        files.find(|file| file.exists())
    };
    let Some(file) = settings.ca.clone().or_else(of_system) else {
        return Err(
            "bridge.tls.ca: this system has no file of CAs that it trusts: name one".into(),
        );
    };
    let mut roots = RootCertStore::empty();
    let certificates = read("bridge.tls.ca", &file, |pem: &Pem<'_>| pem.certificates())?;
    let (added, _) = roots.add_parsable_certificates(certificates);
    match added {
        0 => Err(format!(
            "bridge.tls.ca: {} has no CA that can be read",
            file.display()
        )),
        _ => Ok(roots),
    }
}

fn read<T>(
    key: &str,
    file: &Path,
    take: impl FnOnce(&Pem<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let wrong = |text: String| format!("{key}: {}: {text}", file.display());
    let bytes = files::read(file, files::CERTIFICATES_BYTES_MAX);
    let bytes = bytes.map_err(|error| wrong(error.to_string()))?;
    let pem = Pem::new(&bytes).map_err(wrong)?;
    take(&pem).map_err(wrong)
}

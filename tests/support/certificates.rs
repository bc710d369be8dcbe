//! Certificates for one test: a CA, a server of it for `localhost`, clients of it, revocation lists.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder with `ca.pem`, `server.pem`, `server.key`, and what a test adds.
pub struct Certificates {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    pub fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(super::unique("certificates"));
        std::fs::create_dir_all(&folder).expect("make a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "a test's CA");
        let key = KeyPair::generate().expect("make a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("sign the CA");
        let certificates = Certificates { folder, issuer };
        certificates.write("ca.pem", &certificates.issuer.pem());
        certificates.server("server", "localhost", 1);
        certificates
    }

    /// Where a file of the folder is.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("write a file");
    }

    /// Makes `FILE.pem` and `FILE.key` for a server of that name.
    pub fn server(&self, file: &str, name: &str, serial: u64) {
        let names = vec![name.to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        self.sign(file, params, serial);
    }

    /// Makes `FILE.pem` and `FILE.key` for a client with a common name.
    pub fn client(&self, file: &str, common_name: &str, serial: u64) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        self.sign(file, params, serial);
    }

    fn sign(&self, file: &str, mut params: CertificateParams, serial: u64) {
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("make a key");
        let signed = params.signed_by(&key, &self.issuer).expect("sign");
        self.write(&format!("{file}.pem"), &signed.pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    /// Writes `crl.pem`, which revokes the certificates with these serial numbers.
    pub fn revoke(&self, serials: &[u64]) {
        let year = rcgen::date_time_ymd;
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: year(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: year(2024, 1, 1),
            next_update: year(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("sign the list");
        self.write("crl.pem", &list.pem().expect("write PEM"));
    }

    /// The `[tls]` section of a broker with the server's certificate.
    pub fn section(&self) -> String {
        format!(
            "[tls]\ncertificate = {:?}\nkey = {:?}\n",
            self.path("server.pem"),
            self.path("server.key")
        )
    }

    /// What a client needs that trusts the CA and shows `client`'s certificate.
    pub fn client_config(&self, client: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("ca.pem")).expect("read the CA");
        roots.add(ca).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let certificate =
                    CertificateDer::from_pem_file(self.path(&format!("{client}.pem")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{client}.key")));
                builder
                    .with_client_auth_cert(
                        vec![certificate.expect("read a certificate")],
                        key.expect("read a key"),
                    )
                    .expect("certificate and key")
            }
        };
        Arc::new(config)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

//! Certificates for one test: a CA, a server of it for `localhost`, clients of it, revocation lists.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SigningKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A folder with `ca.pem`, `server.pem`, `server.key`, and what a test adds.
pub struct Certificates {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    pub fn new() -> Self {
        Self::within(-10_000..10_000)
    }

    /// The same, of a CA that counts from so many days from now to so many.
    pub fn within(days: Range<i64>) -> Self {
        let certificates = Self::of("a test's CA", days, |params, key| {
            CertifiedIssuer::self_signed(params, key)
        });
        certificates.write("ca.pem", &certificates.issuer.pem());
        certificates.server("server", "localhost", 1);
        certificates
    }

    /// Those of a CA between this one and its clients; `ca.pem` is this one's, `between.pem` its own.
    pub fn below(&self) -> Self {
        self.below_within(-10_000..10_000)
    }

    /// The same, of a CA that counts from so many days from now to so many.
    pub fn below_within(&self, days: Range<i64>) -> Self {
        let certificates = Self::of("a CA between", days, |params, key| {
            CertifiedIssuer::signed_by(params, key, &self.issuer)
        });
        certificates.write("ca.pem", &self.issuer.pem());
        certificates.write("between.pem", &certificates.issuer.pem());
        certificates
    }

    /// The serial number of a CA's own certificate.
    pub const CA_SERIAL: u64 = 0x1001;

    fn of(
        name: &str,
        days: Range<i64>,
        sign: impl FnOnce(
            CertificateParams,
            KeyPair,
        ) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error>,
    ) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(super::unique("certificates"));
        std::fs::create_dir_all(&folder).expect("make a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(Self::CA_SERIAL));
        let origin = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = origin + in_days(days.start);
        params.not_after = origin + in_days(days.end);
        let key = KeyPair::generate().expect("make a key");
        let issuer = sign(params, key).expect("sign the CA");
        Certificates { folder, issuer }
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

    /// The same, which end at that second since 1970.
    pub fn client_until(&self, file: &str, common_name: &str, ends_s: u64) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(ends_s);
        self.sign(file, params, 12);
    }

    /// Makes `FILE.pem` and `FILE.key` for a server, which end in so many days.
    pub fn server_for(&self, file: &str, days: i64) {
        let names = vec!["localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + in_days(days);
        self.sign(file, params, 7);
    }

    /// Makes `FILE.pem` and `FILE.key` for a server, which count from so many days on.
    pub fn server_from(&self, file: &str, days: i64) {
        let names = vec!["localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + in_days(days);
        self.sign(file, params, 8);
    }

    /// Makes `FILE.pem` and `FILE.key` of X.509 version 1, as `openssl x509 -req` does without -extfile.
    pub fn version_1(&self, file: &str, common_name: &str) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("make a key");
        let signed = params.self_signed(&key).expect("sign");
        // Without the version in front and the extensions at the end.
        let whole = children(signed.der());
        let fields: Vec<_> = children(whole[0])
            .into_iter()
            .filter(|field| !matches!(field[0], 0xA0 | 0xA3))
            .collect();
        let content = element(0x30, &fields.concat());
        let signature = key.sign(&content).expect("sign");
        let signature = element(0x03, &[&[0], &signature[..]].concat());
        let der = element(0x30, &[&content[..], whole[1], &signature].concat());
        let base64 = STANDARD.encode(der);
        let lines: Vec<_> = base64.as_bytes().chunks(64).collect();
        let body = String::from_utf8(lines.join(&b'\n')).expect("base64");
        let [begin, end] = ["BEGIN", "END"].map(|word| format!("-----{word} CERTIFICATE-----"));
        self.write(&format!("{file}.pem"), &format!("{begin}\n{body}\n{end}\n"));
        self.write(&format!("{file}.key"), &key.serialize_pem());
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
        self.revoke_until(serials, 2090);
    }

    /// The same, of a list that is out of date after a year.
    pub fn revoke_until(&self, serials: &[u64], last_year: i32) {
        let year = rcgen::date_time_ymd;
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: year(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: year(2024, 1, 1),
            next_update: year(last_year, 1, 1),
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
                let chain = CertificateDer::pem_file_iter(self.path(&format!("{client}.pem")));
                let chain: Result<Vec<_>, _> = chain.expect("read a chain").collect();
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{client}.key")));
                builder
                    .with_client_auth_cert(
                        chain.expect("read a certificate"),
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

/// The time so many days from now, since 1970; some minutes more, so that it is a matter of whole days.
fn in_days(days: i64) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    let distance = Duration::from_secs(days.unsigned_abs() * 86_400 + 600);
    if days < 0 {
        now - distance
    } else {
        now + distance
    }
}

/// The elements of a DER sequence, each whole.
fn children(sequence: &[u8]) -> Vec<&[u8]> {
    let (_, mut rest) = split(sequence);
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (head, content) = split(rest);
        let (one, others) = rest.split_at(head + content.len());
        all.push(one);
        rest = others;
    }
    all
}

/// Bytes of the first element's head, and its content.
fn split(der: &[u8]) -> (usize, &[u8]) {
    let (head, length) = match der[1] {
        short if short < 0x80 => (2, usize::from(short)),
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        other => panic!("a length of {other:#x}"),
    };
    (head, &der[head..head + length])
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a short element");
    let mut der = vec![tag];
    match length {
        0..0x80 => der.push(length as u8),
        _ => {
            der.push(0x82);
            der.extend_from_slice(&length.to_be_bytes());
        }
    }
    // Shorter than 256 bytes it would have to be written shorter.
    if (0x80..0x100).contains(&length) {
        der.splice(1..4, [0x81, length as u8]);
    }
    der.extend_from_slice(content);
    der
}

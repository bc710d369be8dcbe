//! What methods read from elsewhere: small files, and answers of HTTP servers; bounded in size and time.
//!
//! Invariants: only http:// and https://, no redirect is followed, no proxy of the environment is used, and
//! https:// always verifies the server's certificate. Not here: what an answer means.

use crate::shard::files::{self, ReadError};
use crate::shard::pem::Pem;
use rustls::RootCertStore;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Where systems keep the certificates of authorities they trust.
const SYSTEM_CA_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A key of a method's configuration has a value that cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// The key.
    pub key: &'static str,
    /// What is wrong with its value, and the remedy.
    pub text: String,
}

impl SettingError {
    pub(super) fn new(key: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        SettingError { key, text }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

impl std::error::Error for SettingError {}

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FetchError {
    /// The system, the network or the other side's protocol.
    Failed(String),
    /// Nothing came in time.
    Late {
        /// The time that there was.
        timeout_ms: u64,
    },
    /// The server answered with another status than 200.
    Status(u16),
    /// There is more than is allowed.
    TooLarge {
        /// What is allowed.
        bytes_max: usize,
    },
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Failed(text) => f.write_str(text),
            FetchError::Late { timeout_ms } => write!(f, "nothing came within {timeout_ms} ms"),
            FetchError::Status(status) => write!(f, "the server answered {status} instead of 200"),
            FetchError::TooLarge { bytes_max } => write!(f, "it is larger than {bytes_max} bytes"),
        }
    }
}

/// Reads at most `bytes_max`.
fn bounded(
    reader: impl Read,
    bytes_max: usize,
    failed: impl FnOnce(io::Error) -> FetchError,
) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    // One byte more shows that there is too much.
    let mut reader = reader.take(bytes_max as u64 + 1);
    reader.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(FetchError::TooLarge { bytes_max });
    }
    Ok(bytes)
}

/// Reads a file of at most `bytes_max`.
pub(super) fn file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
    files::read(path, bytes_max).map_err(|error| match error {
        ReadError::TooLarge { bytes_max } => FetchError::TooLarge { bytes_max },
        ReadError::System(error) => FetchError::Failed(error.to_string()),
        ReadError::Kind(_) => FetchError::Failed(format!("it {error}")),
    })
}

/// Asks one URL.
pub(super) struct Client {
    agent: Agent,
    url: Uri,
    timeout_ms: u64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.place()).finish()
    }
}

impl Client {
    /// Prepares requests to `url`, which errors call `key`. A whole exchange takes at most `timeout_ms`.
    ///
    /// # Errors
    /// A URL that cannot be asked; a `ca_file` that cannot be used.
    pub(super) fn new(
        key: &'static str,
        url: &str,
        timeout_ms: u64,
        ca_file: Option<&Path>,
    ) -> Result<Self, SettingError> {
        let url = checked_url(key, url)?;
        let timeout = Some(Duration::from_millis(timeout_ms));
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent("ringmq")
            .timeout_global(timeout);
        if url.scheme_str() == Some("https") {
            config = config.tls_config(tls(ca_file)?);
        } else if ca_file.is_some() {
            let text = format!("it has no effect on http://; make {key} https:// or remove it");
            return Err(SettingError::new("ca_file", text));
        }
        let agent = config.build().new_agent();
        Ok(Client {
            agent,
            url,
            timeout_ms,
        })
    }

    /// The URL for logs: without its query, which may be secret.
    pub(super) fn place(&self) -> String {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let authority = self.url.authority().map_or("", |it| it.as_str());
        format!("{scheme}://{authority}{}", self.url.path())
    }

    /// Gets what is there, at most `bytes_max`.
    pub(super) fn get(&self, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
        let response = self.agent.get(self.url.clone()).call();
        let response = response.map_err(|error| self.failed(&error))?;
        let status = response.status();
        self.answer(status, response.into_body().into_reader(), bytes_max)
    }

    /// Posts JSON with further `headers`; the answer has at most `bytes_max`.
    pub(super) fn post_json(
        &self,
        json: &[u8],
        headers: &HeaderMap,
        bytes_max: usize,
    ) -> Result<Vec<u8>, FetchError> {
        let mut request = self
            .agent
            .post(self.url.clone())
            .content_type("application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send(json);
        let response = response.map_err(|error| self.failed(&error))?;
        let status = response.status();
        self.answer(status, response.into_body().into_reader(), bytes_max)
    }

    fn answer(
        &self,
        status: StatusCode,
        body: impl Read,
        bytes_max: usize,
    ) -> Result<Vec<u8>, FetchError> {
        if status == StatusCode::OK {
            bounded(body, bytes_max, |error| {
                self.failed(&ureq::Error::from(error))
            })
        } else {
            Err(FetchError::Status(status.as_u16()))
        }
    }

    fn failed(&self, error: &ureq::Error) -> FetchError {
        let timeout_ms = self.timeout_ms;
        match error {
            ureq::Error::Timeout(_) => FetchError::Late { timeout_ms },
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                FetchError::Late { timeout_ms }
            }
            ureq::Error::Io(error) => FetchError::Failed(in_words(error)),
            ureq::Error::HostNotFound => FetchError::Failed(NO_HOST.to_owned()),
            error => FetchError::Failed(error.to_string()),
        }
    }
}

const NO_HOST: &str = "the name of its host cannot be resolved";

/// What went wrong on the way, without the system's numbers.
fn in_words(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there (connection refused)",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "it closed the connection before its answer was whole",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "there is no way to its network"
        }
        _ => {
            let text = error.to_string();
            let words = text.split(" (os error").next().unwrap_or_default();
            return match words.strip_prefix("failed to lookup address information") {
                Some(_) => NO_HOST.to_owned(),
                None => words.to_owned(),
            };
        }
    };
    text.to_owned()
}

fn checked_url(key: &'static str, text: &str) -> Result<Uri, SettingError> {
    // The text itself stays out of messages: it may hold a password.
    let url: Uri = text
        .parse()
        .map_err(|_| SettingError::new(key, "this is not a URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        let text = "the URL has to begin with http:// or https://";
        return Err(SettingError::new(key, text));
    }
    let authority = url.authority().map_or("", |it| it.as_str());
    if authority.contains('@') {
        let text = "user name and password must not stand in the URL, where logs show them";
        return Err(SettingError::new(key, text));
    }
    let host = url.host().unwrap_or_default();
    let port = authority.strip_prefix(host).unwrap_or_default();
    if !port.is_empty() && url.port_u16().is_none_or(|port| port == 0) {
        return Err(SettingError::new(
            key,
            "the URL's port is none from 1 to 65535",
        ));
    }
    if text.contains('#') {
        let text = "no server is told what stands in a URL from # on; leave that out";
        return Err(SettingError::new(key, text));
    }
    if url.host().is_none_or(str::is_empty) {
        return Err(SettingError::new(key, "the URL names no host"));
    }
    Ok(url)
}

fn tls(ca_file: Option<&Path>) -> Result<TlsConfig, SettingError> {
    let path = match ca_file {
        Some(path) => path,
        None => SYSTEM_CA_FILES
            .iter()
            .map(Path::new)
            .find(|path| path.exists())
            .ok_or_else(|| {
                let text = "the system has no file of authorities; name one for https://";
                SettingError::new("ca_file", text)
            })?,
    };
    let wrong = |text: &dyn fmt::Display| {
        SettingError::new("ca_file", format!("{}: {text}", path.display()))
    };
    let pem = file(path, files::CERTIFICATES_BYTES_MAX).map_err(|error| wrong(&error))?;
    let certificates = Pem::new(&pem).and_then(|pem| pem.certificates());
    let certificates = certificates.map_err(|text| wrong(&text))?;
    let (usable, _) = RootCertStore::empty().add_parsable_certificates(certificates.clone());
    let certificates: Vec<_> = certificates
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    if usable == 0 {
        return Err(wrong(&"there is no certificate in it"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::{Reply, Scratch, StandIn};
    use super::*;

    fn client(url: &str) -> Client {
        Client::new("url", url, 5_000, None).unwrap()
    }

    fn setting(url: &str, ca_file: Option<&Path>) -> SettingError {
        Client::new("url", url, 5_000, ca_file).unwrap_err()
    }

    #[test]
    fn only_plain_urls_of_http_are_taken() {
        for url in [
            "",
            "hook",
            "/hook",
            "ftp://host/",
            "file:///etc/passwd",
            "http://",
            "https://user:pass@host/",
            "http://host:99999/",
            "http://host:0/",
            "http://host:/",
            "http://[::1]:x/",
            "http://host/a#b",
            "http://a host/",
        ] {
            let error = setting(url, None);
            assert_eq!(error.key, "url", "{url}");
            assert!(!error.to_string().contains("pass@"), "{error}");
        }
    }

    #[test]
    fn an_authority_file_for_http_is_a_mistake() {
        let error = setting("http://127.0.0.1/", Some(Path::new("/x.pem")));
        assert_eq!(error.key, "ca_file");
    }

    #[test]
    fn an_authority_file_without_certificates_is_a_mistake() {
        let scratch = Scratch::new();
        let path = scratch.write("ca.pem", b"nothing");
        for path in [path.as_path(), Path::new("/nowhere/ca.pem")] {
            let error = setting("https://127.0.0.1/", Some(path));
            assert_eq!(error.key, "ca_file");
            assert!(error.text.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn an_answer_may_be_as_large_as_allowed_and_no_larger() {
        let server = StandIn::new(|_| Reply::ok("12345678"));
        let client = client(&server.url("/"));
        assert_eq!(client.get(8), Ok(b"12345678".to_vec()));
        assert_eq!(client.get(7), Err(FetchError::TooLarge { bytes_max: 7 }));
    }

    #[test]
    fn a_file_may_be_as_large_as_allowed_and_no_larger() {
        let scratch = Scratch::new();
        let path = scratch.write("file", b"12345678");
        assert_eq!(file(&path, 8), Ok(b"12345678".to_vec()));
        assert_eq!(file(&path, 7), Err(FetchError::TooLarge { bytes_max: 7 }));
    }

    #[test]
    fn no_redirect_is_followed() {
        let server = StandIn::new(|request| {
            if request.starts_with("GET /there") {
                Reply::ok("followed")
            } else {
                Reply::status("302 Found\r\nLocation: /there")
            }
        });
        let client = client(&server.url("/here"));
        assert_eq!(client.get(100), Err(FetchError::Status(302)));
        assert_eq!(server.count(), 1);
    }

    #[test]
    fn logs_do_not_show_the_query() {
        let client = client("http://host:80/path?token=hush");
        assert_eq!(client.place(), "http://host:80/path");
        assert!(!format!("{client:?}").contains("hush"));
    }

    #[test]
    fn https_trusts_the_authority_of_the_file_and_no_other() {
        let scratch = Scratch::new();
        let (server, pem) = StandIn::with_tls(|_| Reply::ok("safe"));
        let (_, other) = StandIn::with_tls(|_| Reply::ok("other"));
        let url = server.url("/");
        let trusted = scratch.write("ca.pem", pem.as_bytes());
        let client = Client::new("url", &url, 5_000, Some(&trusted)).unwrap();
        assert_eq!(client.get(100), Ok(b"safe".to_vec()));
        let other = scratch.write("other.pem", other.as_bytes());
        let client = Client::new("url", &url, 5_000, Some(&other)).unwrap();
        assert!(matches!(client.get(100), Err(FetchError::Failed(_))));
    }
}

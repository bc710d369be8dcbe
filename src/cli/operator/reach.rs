//! Where the broker answers operators, and as whom it is asked: by flags, by the environment, or as the
//! broker's own configuration says.

use super::Failure;
use crate::control::config::{AdminConfig, ConfigError};
use crate::control::text::{self, Remarks};
use crate::shard::files;
use crate::shard::listener::Place;
use crate::shard::pem::Pem;
use clap::Args;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where it answers, in place of `--admin`.
pub const URL_VARIABLE: &str = "RINGMQ_OPERATOR_URL";
/// The token itself, in place of `--token-file`.
pub const TOKEN_VARIABLE: &str = "RINGMQ_OPERATOR_TOKEN";
/// Where a broker answers if nobody has said where.
const PORT: u16 = 14_883;
/// What a file with a token has at most.
const TOKEN_BYTES_MAX: usize = 4_096;
/// Where systems keep the authorities that they trust.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Where the broker is asked, as whom, and how it is told.
#[derive(Clone, Debug, Default, Args)]
pub struct ReachArgs {
    /// Where the broker answers operators: http://HOST:PORT, https://HOST:PORT or unix:///PATH; also
    /// RINGMQ_OPERATOR_URL [default: as the configuration says, else http://127.0.0.1:14883]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub admin: Option<String>,
    /// The broker's configuration file, which says where it answers
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File with the token alone, as `ringmq token` has printed it; also RINGMQ_OPERATOR_TOKEN, the token
    /// itself
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates of the authorities to trust at https:// [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// A host and a port, and whether by TLS.
    Tcp(String, u16, bool),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Tcp(_, _, is_tls) => {
                let scheme = if *is_tls { "https" } else { "http" };
                write!(f, "{scheme}://{}", self.host())
            }
            At::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl At {
    /// How it is called in a request.
    #[must_use]
    pub fn host(&self) -> String {
        match self {
            At::Tcp(host, port, _) if host.contains(':') => format!("[{host}]:{port}"),
            At::Tcp(host, port, _) => format!("{host}:{port}"),
            At::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// Where to ask, and as whom.
#[derive(Clone)]
pub struct Reach {
    /// Where.
    pub at: At,
    /// Who asks.
    pub token: Option<String>,
    /// How, where TLS is spoken: settings, and the name that the certificate has to have.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Reach {
    /// As flags, environment and configuration say; `configured` reads that, with the environment's part.
    ///
    /// # Errors
    /// Which of them is wrong, and how.
    pub fn new(
        args: &ReachArgs,
        variable: impl Fn(&str) -> Option<String>,
        configured: impl FnOnce(Option<&Path>) -> Result<AdminConfig, ConfigError>,
    ) -> Result<Self, Failure> {
        let said = match (&args.admin, &args.config) {
            (Some(url), _) => Some(("--admin", url.clone())),
            (None, Some(_)) => None,
            (None, None) => variable(URL_VARIABLE).map(|url| (URL_VARIABLE, url)),
        };
        let (at, name) = match said {
            Some((place, url)) => {
                let at = at(&url).ok_or_else(|| {
                    Failure::Wrong(format!(
                        "{place}: {url:?} is none of http://HOST:PORT, https://HOST:PORT and unix:///PATH"
                    ))
                })?;
                (at, None)
            }
            None => {
                let configured = configured(args.config.as_deref());
                as_configured(&configured.map_err(|error| Failure::Wrong(error.to_string()))?)?
            }
        };
        let tls = match &at {
            At::Tcp(host, _, true) => {
                let name = name.as_deref().unwrap_or(host);
                Some((trust(args.ca.as_deref())?, server_name(name)?))
            }
            _ => None,
        };
        let token = token(args.token_file.as_deref(), &variable)?;
        Ok(Reach { at, token, tls })
    }
}

/// Where a URL leads.
fn at(url: &str) -> Option<At> {
    if let Some(path) = url.strip_prefix("unix://") {
        return path.starts_with('/').then(|| At::Unix(path.into()));
    }
    let (named, is_tls) = match url.strip_prefix("https://") {
        Some(named) => (named, true),
        None => (url.strip_prefix("http://").unwrap_or(url), false),
    };
    let named = named.strip_suffix('/').unwrap_or(named);
    let (host, port) = match named.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => named.split_at(named.find(':').unwrap_or(named.len())),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(is_name) {
        return None;
    }
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if port.is_empty() => PORT,
        None => return None,
    };
    Some(At::Tcp(host.to_owned(), port, is_tls))
}

/// Where a broker of that configuration answers, and how its certificate calls it: by its socket rather
/// than by its address, since who owns the broker may do all there.
fn as_configured(config: &AdminConfig) -> Result<(At, Option<String>), Failure> {
    match (&config.socket, &config.place) {
        (Some(Place::Unix(socket)), _) | (None, Some(Place::Unix(socket))) => {
            Ok((At::Unix(socket.path.clone()), None))
        }
        (_, Some(Place::Tcp(tcp))) => {
            let address = tcp.addresses.first().copied();
            let address = address
                .filter(|address| address.port() != 0)
                .ok_or_else(|| {
                    Failure::Wrong(
                    "admin.listen leaves the port to the system; say with --admin which it is (the \
                     broker's log names it)"
                        .to_owned(),
                )
                })?;
            let address = reachable(address);
            let at = At::Tcp(
                address.ip().to_string(),
                address.port(),
                config.tls.is_some(),
            );
            Ok((at, config.hosts.first().cloned()))
        }
        _ => Err(Failure::Wrong(
            "admin.listen is off, so that the broker answers nobody; set it, or admin.socket"
                .to_owned(),
        )),
    }
}

/// The address by which this machine reaches what listens on all of its own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn token(
    file: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, Failure> {
    let (place, text) = match file {
        Some(path) => {
            let place = format!("--token-file: {}", path.display());
            let wrong = |text: &dyn fmt::Display| Failure::Wrong(format!("{place}: {text}"));
            let bytes = files::read(path, TOKEN_BYTES_MAX).map_err(|error| wrong(&error))?;
            let text = text::decode(&bytes, Remarks::OwnLines).map_err(|error| wrong(&error))?;
            (place, text)
        }
        None => match variable(TOKEN_VARIABLE) {
            Some(text) => (TOKEN_VARIABLE.to_owned(), text),
            None => return Ok(None),
        },
    };
    let token = text.trim();
    let is_token = token.starts_with("ringmq_") && token.chars().all(|c| c.is_ascii_graphic());
    if !is_token {
        return Err(Failure::Wrong(format!(
            "{place}: that is no token. It begins with ringmq_, as `ringmq token` has printed it; the \
             broker's admin.token_file has only what tells whether one is right"
        )));
    }
    Ok(Some(token.to_owned()))
}

/// Trusts these authorities, or the system's.
fn trust(file: Option<&Path>) -> Result<Arc<ClientConfig>, Failure> {
    let system = AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
    let path = file.or(system).ok_or_else(|| {
        let text = "--ca: the system has no file of authorities; name one for https://";
        Failure::Wrong(text.to_owned())
    })?;
    let wrong =
        |text: &dyn fmt::Display| Failure::Wrong(format!("--ca: {}: {text}", path.display()));
    let pem = files::read(path, files::CERTIFICATES_BYTES_MAX).map_err(|error| wrong(&error))?;
    let certificates = Pem::new(&pem).and_then(|pem| pem.certificates());
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates.map_err(|text| wrong(&text))?);
    if usable == 0 {
        return Err(wrong(&"there is no certificate in it"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn server_name(host: &str) -> Result<ServerName<'static>, Failure> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| Failure::Wrong(format!("{host:?} is no name that a certificate could have")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_a_host_or_a_socket() {
        let tcp = |host: &str, port, is_tls| Some(At::Tcp(host.to_owned(), port, is_tls));
        for (url, wanted) in [
            ("http://127.0.0.1:1/", tcp("127.0.0.1", 1, false)),
            ("https://broker.example", tcp("broker.example", PORT, true)),
            ("localhost:7", tcp("localhost", 7, false)),
            ("https://[::1]:7", tcp("::1", 7, true)),
            ("unix:///run/x", Some(At::Unix("/run/x".into()))),
        ] {
            assert_eq!(at(url), wanted, "{url}");
        }
        for wrong in [
            "",
            "unix://x",
            "http://",
            "http://a/b",
            "http://a:x",
            "[::1]x",
            "mqtt://a:1",
            "a b",
        ] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
        assert_eq!(
            At::Tcp("::1".into(), 7, true).to_string(),
            "https://[::1]:7"
        );
    }

    #[test]
    fn a_token_may_come_from_a_file_with_a_byte_order_mark() {
        let name = format!("ringmq-token-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "\u{feff}ringmq_abc\r\n").unwrap();
        let read = token(Some(&path), |_| None);
        std::fs::remove_file(&path).unwrap();
        assert!(read.is_ok_and(|token| token.as_deref() == Some("ringmq_abc")));
    }

    #[test]
    fn a_hash_is_no_token() {
        let of = |text: &str| token(None, |_| Some(text.to_owned()));
        assert!(of("ringmq_abc\n").is_ok_and(|token| token.as_deref() == Some("ringmq_abc")));
        for wrong in ["", "ann view 00", "ringmq_a b", "ringmq_\u{e9}"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}

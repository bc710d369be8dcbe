//! The broker's address, and the addresses to come from.

use super::tls::{self, TlsOptions};
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

/// Connections from one loopback address; its ports are about 28,000.
const CLIENTS_PER_ADDRESS: u32 = 20_000;

/// How MQTT is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `mqtt://`
    Tcp,
    /// `mqtts://`
    Tls,
    /// `ws://`
    WebSocket,
    /// `wss://`
    Wss,
    /// `unix://`
    Unix,
}

impl Scheme {
    const ALL: [(&'static str, Scheme, u16); 5] = [
        ("mqtt", Scheme::Tcp, 1883),
        ("mqtts", Scheme::Tls, 8883),
        ("ws", Scheme::WebSocket, 80),
        ("wss", Scheme::Wss, 443),
        ("unix", Scheme::Unix, 0),
    ];

    const fn is_tls(self) -> bool {
        matches!(self, Scheme::Tls | Scheme::Wss)
    }

    const fn is_websocket(self) -> bool {
        matches!(self, Scheme::WebSocket | Scheme::Wss)
    }
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Over the network.
    Tcp(SocketAddr),
    /// On this machine.
    Unix(PathBuf),
}

/// A broker and the ways to it.
pub struct Target {
    /// As it was given, without what may be secret.
    pub text: String,
    /// The user that the URL names.
    pub user: Option<String>,
    address: Address,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    websocket_url: Option<String>,
    sources: Vec<IpAddr>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.text, self.address)
    }
}

impl Target {
    /// Resolves `text`: a URL or HOST:PORT. `clients` decides whether one loopback address is enough.
    pub fn new(
        text: &str,
        tls: &TlsOptions,
        sources: &[IpAddr],
        clients: u32,
    ) -> Result<Self, String> {
        let (scheme, default_port, rest) = split_scheme(text)?;
        if !scheme.is_tls() && tls.is_any() {
            return Err("--ca, --cert, --key and --insecure are for mqtts:// and wss://".into());
        }
        if scheme == Scheme::Unix {
            return Self::unix(text, rest, sources);
        }
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (rest, "/mqtt".to_owned()),
        };
        let (user, authority) = split_user(authority)?;
        let (host, port) = split_port(authority, default_port)?;
        let address = (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("cannot resolve {host}: {error}"))?
            .next()
            .ok_or_else(|| format!("{host} has no address"))?;
        let tls = if scheme.is_tls() {
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| format!("`{host}` cannot be in a certificate"))?;
            Some((tls::config(tls, scheme == Scheme::Tls)?, name))
        } else {
            None
        };
        let websocket_url = scheme
            .is_websocket()
            .then(|| format!("ws://{authority}{path}"));
        let sources = if sources.is_empty() {
            loopback_sources(address, clients)
        } else {
            sources.to_vec()
        };
        Ok(Target {
            text: without_secrets(text),
            user,
            address: Address::Tcp(address),
            tls,
            websocket_url,
            sources,
        })
    }

    fn unix(text: &str, path: &str, sources: &[IpAddr]) -> Result<Self, String> {
        if !path.starts_with('/') {
            return Err(format!("`{text}` names no path: unix:///PATH"));
        }
        if !sources.is_empty() {
            return Err("--source has no meaning for unix://".into());
        }
        Ok(Target {
            text: text.to_owned(),
            user: None,
            address: Address::Unix(path.into()),
            tls: None,
            websocket_url: None,
            sources: Vec::new(),
        })
    }

    /// Where to connect to.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the broker is on this machine.
    pub fn is_local(&self) -> bool {
        match &self.address {
            Address::Tcp(address) => address.ip().is_loopback(),
            Address::Unix(_) => true,
        }
    }

    pub(super) fn tls(&self) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        self.tls.clone()
    }

    pub(super) fn websocket_url(&self) -> Option<&str> {
        self.websocket_url.as_deref()
    }

    pub(super) fn source(&self, nth: u32) -> Option<IpAddr> {
        let count = self.sources.len().max(1);
        self.sources.get(nth as usize % count).copied()
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, u16, &str), String> {
    let Some((name, rest)) = text.split_once("://") else {
        return Ok((Scheme::Tcp, 1883, text));
    };
    let known = Scheme::ALL.iter().find(|(known, ..)| *known == name);
    known
        .map(|(_, scheme, port)| (*scheme, *port, rest))
        .ok_or_else(|| {
            format!("`{name}://` is not known; use mqtt://, mqtts://, ws://, wss:// or unix://")
        })
}

/// `USER@HOST`; a password has no place in a URL, for everybody can read it in the list of processes.
fn split_user(authority: &str) -> Result<(Option<String>, &str), String> {
    let Some((user, host)) = authority.rsplit_once('@') else {
        return Ok((None, authority));
    };
    if user.contains(':') {
        let instead = "use --password-file or LOADGEN_PASSWORD";
        return Err(format!(
            "a password in a URL can be read by everybody: {instead}"
        ));
    }
    let user = percent_decode_str(user).decode_utf8();
    let user = user.map_err(|_| "the user name in the URL is not UTF-8".to_owned())?;
    Ok((Some(user.into_owned()), host))
}

/// A URL without user and query, which may hold tokens.
pub fn without_secrets(text: &str) -> String {
    let text = text.split_once('?').map_or(text, |(before, _)| before);
    let Some((scheme, rest)) = text.split_once("://") else {
        let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
        return host.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

fn split_port(authority: &str, default_port: u16) -> Result<(&str, u16), String> {
    let bare = |host: &'_ str| host.starts_with('[') && host.ends_with(']');
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !bare(authority) => {
            let port = port
                .parse()
                .map_err(|_| format!("`{port}` is not a port (in `{authority}`)"))?;
            (host, port)
        }
        _ => (authority, default_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(format!("`{authority}` names no host"));
    }
    Ok((host, port))
}

fn loopback_sources(address: SocketAddr, clients: u32) -> Vec<IpAddr> {
    let is_loopback = matches!(address.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if !is_loopback || clients <= CLIENTS_PER_ADDRESS {
        return Vec::new();
    }
    let needed = clients.div_ceil(CLIENTS_PER_ADDRESS);
    let base = u32::from(Ipv4Addr::new(127, 0, 1, 0));
    let addresses = 1..=needed;
    addresses
        .map(|nth| IpAddr::V4(Ipv4Addr::from(base + nth)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str, clients: u32) -> Result<Target, String> {
        let options = TlsOptions {
            is_insecure: text.starts_with("mqtts") || text.starts_with("wss"),
            ..TlsOptions::default()
        };
        Target::new(text, &options, &[], clients)
    }

    #[test]
    fn urls_give_addresses_and_layers() {
        for (text, port, has_tls, path) in [
            ("127.0.0.1:1900", 1900, false, None),
            ("mqtt://127.0.0.1", 1883, false, None),
            ("mqtts://localhost", 8883, true, None),
            ("ws://127.0.0.1:80/x/y", 80, false, Some("/x/y")),
            ("wss://127.0.0.1", 443, true, Some("/mqtt")),
            ("mqtt://[::1]:5", 5, false, None),
            ("ws://me@127.0.0.1/x?token=t", 80, false, Some("/x?token=t")),
        ] {
            let target = target(text, 1).unwrap();
            let Address::Tcp(address) = target.address() else {
                panic!("{text}");
            };
            assert_eq!(address.port(), port, "{text}");
            assert_eq!(target.tls().is_some(), has_tls, "{text}");
            let url = target.websocket_url();
            assert_eq!(url.is_some(), path.is_some(), "{text}");
            assert!(url.is_none_or(|url| url.ends_with(path.unwrap_or(""))));
        }
        let unix = target("unix:///run/x.sock", 1).unwrap();
        assert_eq!(unix.address(), &Address::Unix("/run/x.sock".into()));
        for text in ["unix://x", "mqtt://a:secret@localhost"] {
            let said = target(text, 1).unwrap_err();
            assert!(!said.contains("secret"), "{said}");
        }
        let named = target("mqtt://a%40b@localhost", 1).unwrap();
        assert_eq!(named.user.as_deref(), Some("a@b"));
        assert_eq!(without_secrets("ws://t0ken@h:1/x?k=v"), "ws://h:1/x");
        for text in ["http://x", "mqtt://:1", "127.0.0.1:x", ""] {
            assert!(target(text, 1).is_err(), "{text}");
        }
    }

    #[test]
    fn many_clients_come_from_several_loopback_addresses() {
        assert_eq!(target("127.0.0.1", 20_000).unwrap().source(7), None);
        let target = target("127.0.0.1", 100_000).unwrap();
        let first = target.source(0);
        assert!(first.is_some() && first == target.source(5) && first != target.source(4));
    }
}

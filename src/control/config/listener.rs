//! Listeners: from URLs and `[[listener]]` tables to what is listened on.
//!
//! ```text
//!   mqtt://HOST:PORT   mqtts://HOST:PORT   ws://HOST:PORT/PATH   wss://HOST:PORT/PATH   unix:///PATH
//! ```

use super::ConfigError;
use super::file::{FileClientLimits, FileConfig, FileListener, FileTls};
use super::flags::Flags;
use super::place::Places;
use crate::engine::codec::Version;
use crate::engine::limits::Limits;
use crate::engine::shard::ListenerPolicy;
use crate::shard::certificates::{ClientCertificate, KeyPair, TlsFiles};
use crate::shard::listener::{ListenerConfig, Place, UnixPlace};
use crate::shard::transport::setup::{TrustedProxies, WebSocketSetup};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// Path of WebSockets where the URL names none.
const WEBSOCKET_PATH: &str = "/mqtt";

/// A scheme, its default port, whether it is over TLS and WebSocket.
const SCHEMES: [(&str, u16, bool, bool); 5] = [
    ("mqtt", 1883, false, false),
    ("mqtts", 8883, true, false),
    ("ws", 8083, false, true),
    ("wss", 8084, true, true),
    ("unix", 0, false, false),
];

/// A listener and what its clients may do.
pub(super) type Listening = (ListenerConfig, ListenerPolicy);

/// What the listeners need to know of the rest of the configuration.
pub(super) struct Surroundings {
    /// Whether clients can prove who they are.
    pub authenticates: bool,
    pub connect_bytes_max: usize,
    pub limits: Limits,
}

/// All listeners, in the order given.
pub(super) fn listeners(
    raw: &FileConfig,
    flags: &Flags,
    places: &Places<'_>,
    surroundings: &Surroundings,
) -> Result<Vec<Listening>, ConfigError> {
    let from_cli = !flags.listen.is_empty();
    let tables = raw.listener.as_deref().unwrap_or_default();
    let default = vec!["mqtt://127.0.0.1:1883".to_owned()];
    let urls = match (&raw.listen, from_cli) {
        (_, true) => &flags.listen[..],
        (Some(urls), false) => urls,
        (None, false) if tables.is_empty() => &default,
        (None, false) => &[],
    };
    let tables = if from_cli { &[] } else { tables };
    if urls.is_empty() && tables.is_empty() {
        let text = "names no address; leave it out for mqtt://127.0.0.1:1883";
        return Err(places.wrong("listen", text.into()));
    }
    let plain = urls.iter().map(|url| FileListener {
        url: url.clone(),
        ..FileListener::default()
    });
    let mut listeners = Vec::new();
    for (table, key) in plain
        .map(|table| (table, "listen"))
        .chain(tables.iter().map(|table| (table.clone(), "listener.url")))
    {
        let made = listener(raw, &table, surroundings);
        listeners.push(made.map_err(|text| {
            if from_cli {
                ConfigError::flag("--listen", text)
            } else {
                places.wrong(key, text)
            }
        })?);
    }
    Ok(listeners)
}

fn listener(
    raw: &FileConfig,
    table: &FileListener,
    surroundings: &Surroundings,
) -> Result<Listening, String> {
    let url = &table.url;
    let form = || {
        format!(
            "{url} is none of mqtt://HOST:PORT, mqtts://HOST:PORT, ws://HOST:PORT/PATH, \
             wss://HOST:PORT/PATH, unix:///PATH"
        )
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(form)?;
    let (scheme, port, has_tls, has_websocket) = *SCHEMES
        .iter()
        .find(|(known, ..)| *known == scheme)
        .ok_or_else(form)?;
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let place = if scheme == "unix" {
        unix_place(table, host, path).ok_or_else(form)??
    } else {
        Place::Tcp(tcp_address(url, host, port)?)
    };
    let path = if path.len() > 1 { path } else { "" };
    if !path.is_empty() && !has_websocket && scheme != "unix" {
        return Err(form());
    }
    let websocket = has_websocket.then(|| {
        let path = if path.is_empty() {
            WEBSOCKET_PATH
        } else {
            path
        };
        Arc::new(WebSocketSetup {
            path: path.to_owned(),
            connect_bytes_max: surroundings.connect_bytes_max,
        })
    });
    let tls = if has_tls {
        Some(tls_files(raw, table, has_websocket)?)
    } else {
        None
    };
    let asks_for_certificates = tls
        .as_ref()
        .is_some_and(|tls| tls.client_certificate != ClientCertificate::None);
    let policy = ListenerPolicy {
        has_certificates: asks_for_certificates,
        ..policy(raw, table, &place, surroundings)?
    };
    let config = ListenerConfig {
        scheme,
        place,
        tls,
        websocket,
        methods: table
            .methods
            .as_ref()
            .map(|methods| methods.iter().map(|m| m.as_str()).collect()),
        proxies: Arc::new(TrustedProxies {
            header_from: table.proxy_protocol_from.clone().unwrap_or_default(),
            forwarded_from: table.forwarded_from.clone().unwrap_or_default(),
        }),
    };
    Ok((config, policy))
}

fn unix_place(table: &FileListener, host: &str, path: &str) -> Option<Result<Place, String>> {
    if !host.is_empty() || path.len() < 2 {
        return None;
    }
    let mode = match &table.mode {
        None => None,
        Some(text) => match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Some(mode),
            _ => {
                let text = format!("mode {text:?} is not octal permission bits such as \"0660\"");
                return Some(Err(text));
            }
        },
    };
    Some(Ok(Place::Unix(UnixPlace {
        path: path.into(),
        mode,
        owner: (table.owner_uid, table.owner_gid),
    })))
}

fn tcp_address(url: &str, host: &str, port: u16) -> Result<SocketAddr, String> {
    let with_port = if host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'))
    {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    let addresses = with_port
        .to_socket_addrs()
        .map_err(|error| format!("{url}: {error}; the form is mqtt://HOST:PORT"))?;
    // Clients that are given a name try IPv4 more often than not.
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses
        .first()
        .copied()
        .ok_or_else(|| format!("{url}: the name has no address"))
}

fn tls_files(
    raw: &FileConfig,
    table: &FileListener,
    is_websocket: bool,
) -> Result<TlsFiles, String> {
    let url = &table.url;
    let tls: &FileTls = table.tls.as_ref().or(raw.tls.as_ref()).ok_or_else(|| {
        format!(
            "{url} needs a certificate: say `certificate = \"cert.pem\"` and `key = \"key.pem\"` \
             in the section [tls] of the configuration file"
        )
    })?;
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Err(format!("{url}: [tls] needs both `certificate` and `key`"));
    };
    let client_certificate = tls.client_certificate.unwrap_or(match tls.client_ca {
        Some(_) => ClientCertificate::Required,
        None => ClientCertificate::None,
    });
    if client_certificate != ClientCertificate::None && tls.client_ca.is_none() {
        return Err(format!(
            "{url}: client certificates are wanted; name their CA with `client_ca`"
        ));
    }
    let first = KeyPair {
        certificate: certificate.clone(),
        key: key.clone(),
    };
    let more = tls.also.iter().flatten().map(|pair| KeyPair {
        certificate: pair.certificate.clone(),
        key: pair.key.clone(),
    });
    let requires_1_3 = match tls.version_min.as_deref() {
        None | Some("1.2") => false,
        Some("1.3") => true,
        Some(other) => {
            return Err(format!(
                "tls.version_min {other:?} is not \"1.2\" or \"1.3\""
            ));
        }
    };
    Ok(TlsFiles {
        pairs: std::iter::once(first).chain(more).collect(),
        client_ca: tls.client_ca.clone(),
        client_crl: tls.client_crl.clone(),
        client_certificate,
        requires_1_3,
        alpn: if is_websocket { "http/1.1" } else { "mqtt" },
    })
}

fn policy(
    raw: &FileConfig,
    table: &FileListener,
    place: &Place,
    surroundings: &Surroundings,
) -> Result<ListenerPolicy, String> {
    let is_local = match place {
        Place::Tcp(address) => address.ip().is_loopback(),
        Place::Unix(_) => true,
    };
    let said = table.allow_anonymous.or(raw.allow_anonymous);
    if !is_local && said.is_none() && !surroundings.authenticates {
        return Err(format!(
            "{} can be reached from other machines, and no authentication is configured. \
             Listen on 127.0.0.1, configure [authentication], or say `allow_anonymous = true` in the \
             configuration file (or RINGMQ_ALLOW_ANONYMOUS=true) to let anyone in",
            table.url
        ));
    }
    let allows_anonymous = said.unwrap_or(is_local && !surroundings.authenticates);
    if !allows_anonymous && !surroundings.authenticates {
        return Err(format!(
            "{}: nobody could connect: `allow_anonymous = false`, and no [authentication]",
            table.url
        ));
    }
    let versions = match &table.protocols {
        None => vec![Version::V3_1, Version::V3_1_1, Version::V5],
        Some(names) => names
            .iter()
            .map(|name| match name.as_str() {
                "3.1" => Ok(Version::V3_1),
                "3.1.1" => Ok(Version::V3_1_1),
                "5.0" | "5" => Ok(Version::V5),
                _ => Err(format!(
                    "protocols: {name:?} is not \"3.1\", \"3.1.1\" or \"5.0\""
                )),
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(ListenerPolicy {
        allows_anonymous,
        versions,
        has_certificates: false,
        connections_max: table.connections_max.unwrap_or(usize::MAX),
        connect_rate_max: table.connect_rate_max.unwrap_or(0),
        limits: client_limits(&table.limits, &surroundings.limits),
    })
}

/// The broker's limits with those that a listener sets for its clients; `None` if it sets none.
fn client_limits(said: &FileClientLimits, limits: &Limits) -> Option<Box<Limits>> {
    let mut own = limits.clone();
    own.inflight_max = said.inflight_max.unwrap_or(own.inflight_max).max(1);
    own.queue_bytes_max = said.queue_bytes_max.unwrap_or(own.queue_bytes_max);
    own.publish_rate_max = said.publish_rate_max.unwrap_or(own.publish_rate_max);
    own.publish_bytes_rate_max = said
        .publish_bytes_rate_max
        .unwrap_or(own.publish_bytes_rate_max);
    own.subscribe_rate_max = said.subscribe_rate_max.unwrap_or(own.subscribe_rate_max);
    own.delivery_rate_max = said.delivery_rate_max.unwrap_or(own.delivery_rate_max);
    (own != *limits).then(|| Box::new(own))
}

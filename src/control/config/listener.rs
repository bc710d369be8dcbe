//! Listeners: from URLs and `[[listener]]` tables to what is listened on.
//!
//! ```text
//!   mqtt://HOST:PORT   mqtts://HOST:PORT   ws://HOST:PORT/PATH   wss://HOST:PORT/PATH   unix:///PATH
//! ```

use super::ConfigError;
use super::addresses::{settle, tcp_place};
use super::file::{FileClientLimits, FileConfig, FileListener, FileTls, StorageLevel};
use super::flags::Flags;
use super::method::MethodName;
use super::place::Places;
use super::ranges::{self, LISTENER_CONNECT_RATE, LISTENER_CONNECTIONS, RECORD_BYTES};
use crate::engine::codec::Version;
use crate::engine::limits::Limits;
use crate::engine::receipt::Level;
use crate::engine::shard::ListenerPolicy;
use crate::shard::certificates::{ClientCertificate, KeyPair, TlsFiles};
use crate::shard::listener::{ListenerConfig, Place, UnixPlace};
use crate::shard::transport::setup::{TrustedProxies, WebSocketSetup};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Where nobody says where: on this machine only, at both of its addresses.
const DEFAULT_URL: &str = "mqtt://127.0.0.1:1883";
const DEFAULT_IPV6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 1883);
/// Path of WebSockets where the URL names none.
const WEBSOCKET_PATH: &str = "/mqtt";

/// The longest path that the kernel takes for a socket.
const UNIX_PATH_BYTES_MAX: usize = 107;

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
pub(super) struct Surroundings<'a> {
    /// Whether clients can prove who they are.
    pub authenticates: bool,
    /// Methods that are asked.
    pub methods: &'a [MethodName],
    pub limits: Limits,
    /// When what is kept counts as kept.
    pub storage: StorageLevel,
}

/// What is wrong with a listener, and the key of its table that says so.
struct Mistake {
    key: &'static str,
    text: String,
}

impl From<String> for Mistake {
    fn from(text: String) -> Self {
        Mistake { key: "url", text }
    }
}

impl Mistake {
    const fn new(key: &'static str, text: String) -> Self {
        Mistake { key, text }
    }
}

/// Where it was said what to listen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenersBy {
    /// Nowhere.
    #[default]
    Default,
    /// On the command line.
    Flags,
    /// As a list of the configuration.
    List,
    /// As tables of the configuration.
    Tables,
}

impl ListenersBy {
    pub(super) fn of(raw: &FileConfig, flags: &Flags) -> Self {
        match (&raw.listen, &raw.listener) {
            _ if !flags.listen.is_empty() => ListenersBy::Flags,
            (Some(_), _) => ListenersBy::List,
            (None, Some(tables)) if !tables.is_empty() => ListenersBy::Tables,
            _ => ListenersBy::Default,
        }
    }

    /// What an operator changes.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            ListenersBy::Default => "listen of the configuration or --listen mqtt://HOST:PORT",
            ListenersBy::Flags => "--listen mqtt://HOST:PORT",
            ListenersBy::List => "listen of the configuration",
            ListenersBy::Tables => "listener.url of the configuration",
        }
    }
}

/// All listeners, in the order given.
pub(super) fn listeners(
    raw: &FileConfig,
    flags: &Flags,
    places: &Places<'_>,
    surroundings: &Surroundings<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Listening>, ConfigError> {
    let from_cli = !flags.listen.is_empty();
    let tables = raw.listener.as_deref().unwrap_or_default();
    if from_cli && !tables.is_empty() {
        let text = "stands beside [[listener]] of the configuration, whose settings it would drop; say \
                    the URL there, or leave the tables out";
        return Err(ConfigError::flag("--listen", text.into()));
    }
    if raw.listen.is_some() && !tables.is_empty() {
        let text = "stands beside [[listener]]; make each of its URLs a [[listener]] of its own";
        return Err(places.wrong("listen", text.into()));
    }
    let default = vec![DEFAULT_URL.to_owned()];
    let urls = match (&raw.listen, from_cli) {
        (_, true) => &flags.listen[..],
        (Some(urls), false) => urls,
        (None, false) if tables.is_empty() => &default,
        (None, false) => &[],
    };
    if urls.is_empty() && tables.is_empty() {
        let text = "names no address; leave it out for port 1883 of 127.0.0.1 and ::1";
        return Err(places.wrong("listen", text.into()));
    }
    let plain = urls.iter().map(|url| FileListener {
        url: url.clone(),
        ..FileListener::default()
    });
    let wrong = |mistake: Mistake, number: Option<usize>| {
        if from_cli {
            ConfigError::flag("--listen", mistake.text)
        } else if tables.is_empty() {
            places.wrong("listen", mistake.text)
        } else {
            places.wrong_of(number, &format!("listener.{}", mistake.key), mistake.text)
        }
    };
    let (mut listeners, mut urls) = (Vec::new(), Vec::new());
    for (number, table) in plain.chain(tables.iter().cloned()).enumerate() {
        let made = listener(raw, &table, surroundings).and_then(|made| {
            check_ways_in(&table, &made, surroundings.methods)?;
            Ok(made)
        });
        listeners.push(made.map_err(|mistake| wrong(mistake, Some(number)))?);
        urls.push(table.url);
    }
    let is_default = !from_cli && raw.listen.is_none() && tables.is_empty();
    if let Some((config, _)) = listeners.first_mut().filter(|_| is_default)
        && let Place::Tcp(tcp) = &mut config.place
    {
        tcp.addresses.push(DEFAULT_IPV6);
    }
    warn_of_unused(raw, &listeners, surroundings.methods, warnings);
    keep_apart(&mut listeners, &urls).map_err(|text| wrong(text.into(), None))?;
    Ok(listeners)
}

/// Tells of what no listener uses.
fn warn_of_unused(
    raw: &FileConfig,
    listeners: &[Listening],
    asked: &[MethodName],
    warnings: &mut Vec<String>,
) {
    let tables = raw.listener.as_deref().unwrap_or_default();
    let is_for_admin = raw.admin.tls.is_none()
        && raw
            .admin
            .listen
            .as_ref()
            .is_some_and(|listen| listen.starts_with("https://"));
    if raw.tls.is_some() && !is_for_admin && !uses_common_tls(listeners, tables) {
        warnings.push(
            "[tls] is used by no listener: none is mqtts:// or wss:// without a [listener.tls] of its own"
                .to_owned(),
        );
    }
    for &method in asked {
        let serving = || {
            listeners
                .iter()
                .filter(|listening| serves(listening, method))
        };
        if serving().any(|listening| lacks(listening, method).is_none()) {
            continue;
        }
        let is_served = serving().next().is_some();
        let why = match method {
            MethodName::Certificate if is_served => {
                "none asks for client certificates (tls.client_ca)"
            }
            MethodName::Scram if is_served => "none serves MQTT 5.0 (listener.protocols)",
            _ => "none has it among its methods (listener.methods)",
        };
        let name = method.as_str();
        warnings.push(format!(
            "the method {name} of [authentication] is used by no listener: {why}"
        ));
    }
}

/// Whether a listener asks a method who somebody is.
fn serves((config, _): &Listening, method: MethodName) -> bool {
    let methods = config.methods.as_ref();
    methods.is_none_or(|methods| methods.contains(&method.as_str()))
}

/// Why nobody can connect to a listener by a method; `None` if somebody may.
fn lacks((_, policy): &Listening, method: MethodName) -> Option<&'static str> {
    match method {
        MethodName::Certificate if !policy.has_certificates => {
            Some("the method certificate needs client certificates (tls.client_ca)")
        }
        MethodName::Scram if !policy.versions.contains(&Version::V5) => {
            Some("the method scram needs MQTT 5.0 (listener.protocols)")
        }
        _ => None,
    }
}

/// Whether a listener over TLS has no section of its own for it.
fn uses_common_tls(listeners: &[Listening], tables: &[FileListener]) -> bool {
    let has_own = |number: usize| tables.get(number).is_some_and(|table| table.tls.is_some());
    let mut all = listeners.iter().enumerate();
    all.any(|(number, (config, _))| config.tls.is_some() && !has_own(number))
}

/// Sees to it that no two listeners have the same place.
fn keep_apart(listeners: &mut [Listening], urls: &[String]) -> Result<(), String> {
    let places = listeners.iter_mut().map(|(config, _)| &mut config.place);
    settle(&mut places.collect::<Vec<_>>()).map_err(|(earlier, later, place)| {
        let url = |number: usize| urls.get(number).map_or("", String::as_str);
        let (one, other) = (url(earlier), url(later));
        // Of a WebSocket another path of the URL would change nothing.
        let what = if place.starts_with('/') {
            "path"
        } else {
            "port"
        };
        format!(
            "{place} is listened on twice, by {one} and by {other}; leave one out or choose another {what}"
        )
    })
}

fn listener(
    raw: &FileConfig,
    table: &FileListener,
    surroundings: &Surroundings<'_>,
) -> Result<Listening, Mistake> {
    check_numbers(table)?;
    let methods = methods(table, raw.allow_anonymous, surroundings.methods)?;
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
        .find(|(known, ..)| known.eq_ignore_ascii_case(scheme))
        .ok_or_else(form)?;
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let place = if scheme == "unix" {
        unix_place(table, host, path).ok_or_else(form)??
    } else {
        Place::Tcp(tcp_place(url, host, port)?)
    };
    let path = if path.len() > 1 { path } else { "" };
    if !path.is_empty() && !has_websocket && scheme != "unix" {
        return Err(form().into());
    }
    check_fitting(table, has_tls, has_websocket, scheme)?;
    check_origins(table)?;
    let websocket = has_websocket.then(|| websocket(table, path)).transpose()?;
    let tls = if has_tls {
        let own = table.tls.as_ref();
        Some(tls_files(
            (raw.tls.as_ref(), own),
            &table.url,
            has_websocket,
        )?)
    } else {
        None
    };
    let asks_for_certificates = tls
        .as_ref()
        .is_some_and(|tls| tls.client_certificate != ClientCertificate::None);
    let serves = |method: MethodName| {
        methods
            .as_ref()
            .is_none_or(|of| of.contains(&method.as_str()))
    };
    let policy = ListenerPolicy {
        has_certificates: asks_for_certificates,
        has_exchange: surroundings.methods.contains(&MethodName::Scram)
            && serves(MethodName::Scram),
        ..policy(raw, table, &place, surroundings)?
    };
    let config = ListenerConfig {
        scheme,
        place,
        tls,
        websocket,
        methods,
        proxies: Arc::new(proxies(table, scheme == "unix")?),
    };
    Ok((config, policy))
}

/// What a listener wants of WebSockets, with the path of its URL.
fn websocket(table: &FileListener, path: &str) -> Result<Arc<WebSocketSetup>, String> {
    if !path.chars().all(|c| c.is_ascii_graphic()) {
        let url = &table.url;
        return Err(format!(
            "{url}: write spaces and letters beyond ASCII in its path as %20 and the like"
        ));
    }
    let path = if path.is_empty() {
        WEBSOCKET_PATH
    } else {
        path
    };
    Ok(Arc::new(WebSocketSetup {
        path: (!table.any_path.unwrap_or(false)).then(|| path.to_owned()),
        origins: table
            .origins
            .iter()
            .flatten()
            .map(|origin| as_named(origin))
            .collect(),
    }))
}

/// An origin as browsers name it: without the port that its scheme has anyway.
fn as_named(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    for (scheme, port) in [("http://", ":80"), ("https://", ":443")] {
        if origin.starts_with(scheme)
            && let Some(short) = origin.strip_suffix(port)
        {
            return short.to_owned();
        }
    }
    origin
}

/// Sees to it that no key stands where it would mean nothing.
fn check_fitting(
    table: &FileListener,
    has_tls: bool,
    has_websocket: bool,
    scheme: &str,
) -> Result<(), Mistake> {
    let is_unix = scheme == "unix";
    let websockets = "WebSockets: ws:// or wss://";
    let unix = "sockets in the file system: unix://";
    let keys = [
        (
            "tls",
            table.tls.is_some(),
            has_tls,
            "TLS: mqtts:// or wss://",
        ),
        (
            "any_path",
            table.any_path.is_some(),
            has_websocket,
            websockets,
        ),
        (
            "origins",
            table.origins.is_some(),
            has_websocket,
            websockets,
        ),
        (
            "forwarded_from",
            table.forwarded_from.is_some(),
            has_websocket,
            websockets,
        ),
        (
            "real_ip_from",
            table.real_ip_from.is_some(),
            has_websocket,
            websockets,
        ),
        ("mode", table.mode.is_some(), is_unix, unix),
        ("owner_uid", table.owner_uid.is_some(), is_unix, unix),
        ("owner_gid", table.owner_gid.is_some(), is_unix, unix),
    ];
    let mut astray = keys
        .into_iter()
        .filter(|(_, is_said, fits, _)| *is_said && !*fits);
    astray.next().map_or(Ok(()), |(key, _, _, kind)| {
        let text = format!(
            "{} is none of {kind}; change the URL or leave it out",
            table.url
        );
        Err(Mistake::new(key, text))
    })
}

/// Sees to it that a browser can come from each page that is named.
fn check_origins(table: &FileListener) -> Result<(), Mistake> {
    let Some(origins) = &table.origins else {
        return Ok(());
    };
    if origins.is_empty() {
        let text = "names no page; leave it out to let all in";
        return Err(Mistake::new("origins", text.into()));
    }
    let is_origin = |origin: &str| match origin.split_once("://") {
        Some((scheme, host)) => {
            let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
            let is_host = |c: char| c.is_ascii_graphic() && !"/?#@*".contains(c);
            let (scheme, host) = (scheme.chars(), host.chars());
            scheme.clone().count() > 0 && host.clone().count() > 0 && { scheme }.all(is_scheme) && {
                host
            }
            .all(is_host)
        }
        // Of pages without a place, such as files.
        None => origin == "null",
    };
    match origins.iter().find(|origin| !is_origin(origin)) {
        None => Ok(()),
        Some(origin) => {
            let text = format!(
                "{origin:?} is not as browsers name a page: SCHEME://HOST or SCHEME://HOST:PORT, without a \
                 path, such as \"https://app.example\""
            );
            Err(Mistake::new("origins", text))
        }
    }
}

fn check_numbers(table: &FileListener) -> Result<(), Mistake> {
    let check = |key, value: Option<u64>, range: RangeInclusive<u64>| {
        let text = value.and_then(|value| ranges::wrong(value, &range));
        text.map_or(Ok(()), |text| Err(Mistake::new(key, text)))
    };
    let connections_max = table.connections_max.map(|max| max as u64);
    check("connections_max", connections_max, LISTENER_CONNECTIONS)?;
    check(
        "connect_rate_max",
        table.connect_rate_max,
        LISTENER_CONNECT_RATE,
    )
}

/// Methods that the clients of a listener may use, by name; `None` for all.
fn methods(
    table: &FileListener,
    all_anonymous: Option<bool>,
    asked: &[MethodName],
) -> Result<Option<Arc<[&'static str]>>, Mistake> {
    let Some(methods) = &table.methods else {
        return Ok(None);
    };
    if methods.is_empty() && table.allow_anonymous.or(all_anonymous) != Some(true) {
        let text = "names none: nobody could connect; leave it out for all, or say `allow_anonymous = true`";
        return Err(Mistake::new("methods", text.into()));
    }
    if let Some(missing) = methods.iter().find(|method| !asked.contains(method)) {
        let text = format!(
            "{} is none of the methods of [authentication]",
            missing.as_str()
        );
        return Err(Mistake::new("methods", text));
    }
    Ok(Some(methods.iter().map(|method| method.as_str()).collect()))
}

/// Whether a client could prove here who it is, or need not.
fn check_ways_in(
    table: &FileListener,
    listening: &Listening,
    asked: &[MethodName],
) -> Result<(), Mistake> {
    let serving = asked.iter().filter(|method| serves(listening, **method));
    let lacking: Vec<_> = serving.map(|method| lacks(listening, *method)).collect();
    let (_, policy) = listening;
    if policy.allows_anonymous || lacking.is_empty() || lacking.contains(&None) {
        return Ok(());
    }
    let key = if table.methods.is_some() {
        "methods"
    } else {
        "url"
    };
    let why: Vec<_> = lacking.into_iter().flatten().collect();
    let text = format!(
        "{}: nobody could connect: {}",
        table.url,
        why.join(", and ")
    );
    Err(Mistake::new(key, text))
}

/// Whose word counts; each network for the header that it sets, since the other may be the client's own.
fn proxies(table: &FileListener, is_unix: bool) -> Result<TrustedProxies, Mistake> {
    let proxies = TrustedProxies {
        header_from: table.proxy_protocol_from.clone().unwrap_or_default(),
        forwarded_from: table.forwarded_from.clone().unwrap_or_default(),
        real_ip_from: table.real_ip_from.clone().unwrap_or_default(),
    };
    if is_unix && !proxies.header_from.is_empty() && !is_on_this_machine(&proxies.header_from) {
        let text =
            "names nobody who can connect here: who comes by a Unix socket counts as 127.0.0.1";
        return Err(Mistake::new("proxy_protocol_from", text.into()));
    }
    let sets_both = proxies.real_ip_from.iter().find(|network| {
        let mut others = proxies.forwarded_from.iter();
        others.any(|other| network.contains(other) || other.contains(*network))
    });
    match sets_both {
        None => Ok(proxies),
        Some(network) => {
            let text = format!(
                "{network} is in forwarded_from too; say which of X-Forwarded-For and X-Real-IP it sets"
            );
            Err(Mistake::new("real_ip_from", text))
        }
    }
}

/// Whether whoever comes by a Unix socket is among them.
fn is_on_this_machine(networks: &[IpNet]) -> bool {
    let here = IpAddr::from([127, 0, 0, 1]);
    networks.iter().any(|network| network.contains(&here))
}

fn unix_place(table: &FileListener, host: &str, path: &str) -> Option<Result<Place, Mistake>> {
    if !host.is_empty() || path.len() < 2 {
        return None;
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        let text = format!(
            "{path} has {} bytes; a path of a socket has {UNIX_PATH_BYTES_MAX} at most",
            path.len()
        );
        return Some(Err(text.into()));
    }
    let mode = match &table.mode {
        None => None,
        Some(text) => match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Some(mode),
            _ => {
                let text = format!("mode {text:?} is not octal permission bits such as \"0660\"");
                return Some(Err(Mistake::new("mode", text)));
            }
        },
    };
    Some(Ok(Place::Unix(UnixPlace {
        path: path.into(),
        mode,
        owner: (table.owner_uid, table.owner_gid),
    })))
}

/// What a WebSocket's client may propose by ALPN, ...
const HTTP: [&str; 1] = ["http/1.1"];
/// ... and one of MQTT; devices made for one large service propose its own name for it.
const MQTT: [&str; 2] = ["mqtt", "x-amzn-mqtt-ca"];

/// The files of TLS at a URL, by the common section or its own.
pub(super) fn tls_files(
    (common, own): (Option<&FileTls>, Option<&FileTls>),
    url: &str,
    is_http: bool,
) -> Result<TlsFiles, String> {
    let tls: &FileTls = own.or(common).ok_or_else(|| {
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
    if tls.client_ca.is_some() && client_certificate == ClientCertificate::None {
        return Err(format!(
            "{url}: client_ca means nothing beside `client_certificate = \"none\"`; leave one of them out"
        ));
    }
    if tls.client_crl.is_some() && client_certificate == ClientCertificate::None {
        return Err(format!(
            "{url}: client_crl means nothing without client certificates; name their CA with `client_ca`"
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
    let record_bytes = tls.record_bytes_max.map(|bytes| bytes as u64);
    if let Some(text) = record_bytes.and_then(|bytes| ranges::wrong(bytes, &RECORD_BYTES)) {
        return Err(format!("tls.record_bytes_max {text}"));
    }
    Ok(TlsFiles {
        pairs: std::iter::once(first).chain(more).collect(),
        client_ca: tls.client_ca.clone(),
        client_crl: tls.client_crl.clone(),
        client_crl_depth: tls.client_crl_depth.unwrap_or_default(),
        client_certificate,
        requires_1_3,
        record_bytes_max: tls.record_bytes_max,
        alpn: if is_http { &HTTP } else { &MQTT },
    })
}

fn policy(
    raw: &FileConfig,
    table: &FileListener,
    place: &Place,
    surroundings: &Surroundings<'_>,
) -> Result<ListenerPolicy, Mistake> {
    let is_local = match place {
        Place::Tcp(tcp) => tcp
            .addresses
            .iter()
            .all(|address| address.ip().to_canonical().is_loopback()),
        Place::Unix(_) => true,
    };
    let said = table.allow_anonymous.or(raw.allow_anonymous);
    if !is_local && said.is_none() && !surroundings.authenticates {
        return Err(format!(
            "{} can be reached from other machines, and no authentication is configured. \
             Listen on 127.0.0.1, configure [authentication], or say `allow_anonymous = true` in the \
             configuration file (or RINGMQ_ALLOW_ANONYMOUS=true) to let anyone in",
            table.url
        )
        .into());
    }
    let allows_anonymous = said.unwrap_or(is_local && !surroundings.authenticates);
    if !allows_anonymous && !surroundings.authenticates {
        return Err(format!(
            "{}: nobody could connect: `allow_anonymous = false`, and no [authentication]",
            table.url
        )
        .into());
    }
    let versions = match &table.protocols {
        Some(names) if names.is_empty() => {
            let text = "names no version: nobody could connect; leave it out for all";
            return Err(Mistake::new("protocols", text.into()));
        }
        None => vec![Version::V3_1, Version::V3_1_1, Version::V5],
        Some(names) => names
            .iter()
            .map(|name| match name.as_str() {
                "3.1" => Ok(Version::V3_1),
                "3.1.1" => Ok(Version::V3_1_1),
                "5.0" | "5" => Ok(Version::V5),
                _ => {
                    let text = format!("{name:?} is not \"3.1\", \"3.1.1\" or \"5.0\"");
                    Err(Mistake::new("protocols", text))
                }
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(ListenerPolicy {
        allows_anonymous,
        versions,
        has_certificates: false,
        has_exchange: false,
        connections_max: table.connections_max.unwrap_or(usize::MAX),
        connect_rate_max: table.connect_rate_max.unwrap_or(0),
        durability: durability(table.durability, surroundings.storage)?,
        limits: client_limits(&table.limits, &surroundings.limits)?,
    })
}

/// How safe a listener's publishes are when they are acknowledged: as the store says, or less.
fn durability(said: Option<StorageLevel>, storage: StorageLevel) -> Result<Level, Mistake> {
    use StorageLevel::{Disk, Memory, Os};
    let Some(said) = said else {
        return Ok(Level::Disk);
    };
    match (said, storage) {
        (Memory, _) => Ok(Level::Memory),
        (Os, Disk) => Ok(Level::Os),
        (Os, Os) | (Disk, Disk) => Ok(Level::Disk),
        (Disk | Os, Memory) => {
            let text = "promises more than is kept: nothing is (storage.directory says where to; \
                        storage.level = \"memory\" keeps nothing)";
            Err(Mistake::new("durability", text.to_owned()))
        }
        (Disk, Os) => {
            let text = "promises more than storage.level = \"os\": a listener may only lower it";
            Err(Mistake::new("durability", text.to_owned()))
        }
    }
}

/// The broker's limits with those that a listener sets for its clients; `None` if it sets none.
fn client_limits(said: &FileClientLimits, limits: &Limits) -> Result<Option<Box<Limits>>, Mistake> {
    let mut own = limits.clone();
    own.inflight_max = said.inflight_max.unwrap_or(own.inflight_max);
    own.queue_bytes_max = said.queue_bytes_max.unwrap_or(own.queue_bytes_max);
    own.publish_rate_max = said.publish_rate_max.unwrap_or(own.publish_rate_max);
    own.publish_bytes_rate_max = said
        .publish_bytes_rate_max
        .unwrap_or(own.publish_bytes_rate_max);
    own.subscribe_rate_max = said.subscribe_rate_max.unwrap_or(own.subscribe_rate_max);
    own.delivery_rate_max = said.delivery_rate_max.unwrap_or(own.delivery_rate_max);
    if let Some((name, text)) = ranges::wrong_limit(&own) {
        // Those of [limits] have been checked, so it is one of the listener's own.
        let known = CLIENT_LIMITS.into_iter();
        let mut key = known.filter(|key| key.strip_prefix("limits.") == Some(name));
        return Err(Mistake::new(key.next().unwrap_or("limits"), text));
    }
    Ok((own != *limits).then(|| Box::new(own)))
}

/// Limits that a listener may set, by their keys.
const CLIENT_LIMITS: [&str; 6] = [
    "limits.inflight_max",
    "limits.queue_bytes_max",
    "limits.publish_rate_max",
    "limits.publish_bytes_rate_max",
    "limits.subscribe_rate_max",
    "limits.delivery_rate_max",
];

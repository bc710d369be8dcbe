//! `[[bridge]]`: other brokers that this one goes to, and what goes which way.

use super::apart;
use super::error::ConfigError;
use super::file::{
    BridgePreset, BridgeProtocol, BridgeRedirect, BridgeStart, FileBridge, FileBridgeTls,
    FileConfig, FileTopicRule,
};
use super::place::Places;
use super::ranges;
use crate::engine::bridge::CLIENT_ID_PREFIX;
use crate::engine::bridge::dial::AddressOrder;
use crate::engine::bridge::hops;
use crate::engine::bridge::plan::{Known, Protocol, TopicRule};
use crate::engine::codec::topic::{TopicFilter, TopicLimits, has_wildcard, is_shared};
use crate::engine::limits::{OwnQueue, QueueFull};
use crate::engine::message::Qos;
use crate::engine::route::TopicPart;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;

/// Most bridges.
const BRIDGES_MAX: usize = 1_000;
/// Most rules, and addresses, of one.
const RULES_MAX: usize = 1_000;
const ADDRESSES_MAX: usize = 16;
/// Longest text that goes into a CONNECT.
const TEXT_BYTES_MAX: usize = 1_024;
/// Default of `bridge.keep_alive_seconds`.
const KEEP_ALIVE_SECONDS: u16 = 60;
/// Default of `bridge.connect_timeout_ms`.
const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Default of `bridge.reconnect_ms_min`.
const RECONNECT_MS_MIN: u64 = 1_000;
/// Default of `bridge.reconnect_ms_max`.
const RECONNECT_MS_MAX: u64 = 30_000;
/// Default of `bridge.topic_alias_max`.
const TOPIC_ALIAS_MAX: u16 = 256;
/// Default of `bridge.idle_seconds`.
const IDLE_SECONDS: u64 = 60;
/// Default of `bridge.sas_seconds`.
const SAS_SECONDS: u64 = 3_600;
/// Default of `bridge.failback_ms`.
const FAILBACK_MS: u64 = 60_000;
/// Default of `bridge.redirects_max`.
const REDIRECTS_MAX: u32 = 4;
/// Longest host that a remote broker may name, with a port.
const REFERENCE_BYTES_MAX: usize = 263;
/// Default of `bridge.hops_max`: longer chains of brokers are unheard of.
const HOPS_MAX: usize = 8;
/// Schemes of addresses: whether they are of TLS, of WebSocket, and their ports.
const SCHEMES: [(&str, bool, bool, u16); 4] = [
    ("mqtt", false, false, 1883),
    ("mqtts", true, false, 8883),
    ("ws", false, true, 8083),
    ("wss", true, true, 8084),
];
/// The path of a WebSocket whose address has none.
const PATH: &str = "/mqtt";
/// Most names for ALPN.
const ALPN_MAX: usize = 8;

/// Where another broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// Whether TLS is under MQTT.
    pub is_tls: bool,
    /// The path of a WebSocket, if one is under MQTT.
    pub path: Option<Box<str>>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = (self.is_tls, self.path.is_some());
        let mut schemes = SCHEMES.iter();
        let scheme = schemes.find(|(_, is_tls, is_websocket, _)| (*is_tls, *is_websocket) == kind);
        let scheme = scheme.map_or("mqtt", |(scheme, ..)| scheme);
        let path = self.path.as_deref().unwrap_or_default();
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}{path}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}{path}", self.host, self.port),
        }
    }
}

impl Address {
    /// Another server, as one at this address names it: `HOST` or `HOST:PORT`, the first of several. It is
    /// spoken to in the same way.
    #[must_use]
    pub fn elsewhere(&self, reference: &str) -> Option<Address> {
        let named = reference.split_ascii_whitespace().next()?;
        let is_plain = named.len() <= REFERENCE_BYTES_MAX && !named.contains("://");
        let kind = (self.is_tls, self.path.is_some());
        let mut schemes = SCHEMES.iter();
        let (scheme, ..) = schemes.find(|(_, is_tls, is_ws, _)| (*is_tls, *is_ws) == kind)?;
        let path = self.path.as_deref().unwrap_or_default();
        let there = is_plain.then(|| address(&format!("{scheme}://{named}{path}")));
        // A path of its own is none of this.
        there?.ok().filter(|there| there.path == self.path)
    }
}

/// What a bridge trusts and shows by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeTlsConfig {
    /// CAs that are trusted; unless it is said, those that the system trusts.
    pub ca: Option<PathBuf>,
    /// What it shows of itself, ...
    pub certificate: Option<PathBuf>,
    /// ... and its key.
    pub key: Option<PathBuf>,
    /// For which name the other broker's certificate has to be, unless its address says that.
    pub server_name: Option<Box<str>>,
    /// Protocols that are proposed.
    pub alpn: Vec<String>,
}

/// A bridge, checked.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// Its name; of one of several connections with its number.
    pub name: Box<str>,
    /// What stands in the file as its name.
    pub stands_as: Box<str>,
    /// The part of all topics that it carries, if it is one of several connections.
    pub part: Option<TopicPart>,
    /// Where the other broker is; never empty.
    pub addresses: Vec<Address>,
    /// In which order they are tried.
    pub order: AddressOrder,
    /// Protocols, the best first.
    pub protocols: Vec<Protocol>,
    /// Client identifier there; unless it is said, of host, bridge and what tells this broker apart.
    pub client_id: Option<Box<str>>,
    /// What tells this broker apart from others of the same host name, at each start the same.
    pub apart: Box<str>,
    /// User name there.
    pub user: Option<Box<str>>,
    /// Where its password is.
    pub password_file: Option<PathBuf>,
    /// Where the key is of which tokens are made in place of a password.
    pub sas_key_file: Option<PathBuf>,
    /// How long one of them counts.
    pub sas_seconds: u64,
    /// As whom access rules see it here.
    pub local_user: Box<str>,
    /// Keep alive.
    pub keep_alive_seconds: u16,
    /// Whether both sides keep a session.
    pub is_persistent: bool,
    /// How long nothing has to pass until its line ends, if it is only there when something waits.
    pub idle_ms: Option<u64>,
    /// Whether it does not dial.
    pub is_paused: bool,
    /// Bounds of what waits for it here that are not those of any client.
    pub queue: OwnQueue,
    /// How long DNS and TCP may take.
    pub connect_timeout_ms: u64,
    /// The wait after the first failure.
    pub reconnect_ms_min: u64,
    /// The longest wait.
    pub reconnect_ms_max: u64,
    /// How often the first address is tried while another one answers; 0 for never.
    pub failback_ms: u64,
    /// Whether it goes where a remote broker sends it.
    pub follows_redirects: bool,
    /// How often in a row.
    pub redirects_max: u32,
    /// Most brokers that a message may have left before; 0 keeps no list.
    pub hops_max: usize,
    /// What the other broker is known to take, by a preset.
    pub known: Known,
    /// Most topics that stand as a number on the wire.
    pub topic_alias_max: u16,
    /// Where the other broker is told whether the line is up.
    pub remote_state_topic: Option<Box<str>>,
    /// What it trusts and shows by TLS.
    pub tls: BridgeTlsConfig,
    /// What goes which way.
    pub topics: Arc<[TopicRule]>,
}

impl BridgeConfig {
    /// Client identifier of its session here.
    #[must_use]
    pub fn session_id(&self) -> Box<str> {
        format!("{CLIENT_ID_PREFIX}{}", self.name).into()
    }
}

/// All of them.
pub(super) fn bridges(
    raw: &FileConfig,
    places: &Places<'_>,
) -> Result<Vec<Arc<BridgeConfig>>, ConfigError> {
    let said = raw.bridge.as_deref().unwrap_or_default();
    if said.is_empty() {
        return Ok(Vec::new());
    }
    let mut names = BTreeSet::new();
    let lines = said
        .iter()
        .map(|raw| usize::from(raw.connections.unwrap_or(1)));
    let lines: usize = lines.sum();
    if said.len() > BRIDGES_MAX || lines > BRIDGES_MAX {
        let text = format!("there are {lines} with all connections, more than {BRIDGES_MAX}");
        return Err(places.wrong("bridge", text));
    }
    let bridge = |raw: &FileBridge| {
        let wrong = |(key, text): Wrong| {
            let text = format!("bridge {:?}: {text}", raw.name);
            places.wrong(&format!("bridge.{key}"), text)
        };
        let connections = connections(raw, &bridge(raw).map_err(wrong)?);
        for one in &connections {
            if !names.insert(one.name.clone()) {
                let text = format!("there are two of the name {:?}", one.name);
                return Err(wrong(("name", text)));
            }
        }
        Ok(connections)
    };
    let all: Vec<_> = said.iter().map(bridge).collect::<Result<_, _>>()?;
    let mut all = all.concat();
    let apart = apart::of_broker(raw);
    // One that is disconnected for a full queue takes even less: that is not inherited.
    let of_sessions = raw.session.queue_full.map(QueueFull::from);
    let is_spared = of_sessions == Some(QueueFull::Disconnect);
    for bridge in &mut all {
        bridge.apart.clone_from(&apart);
        if is_spared {
            bridge.queue.full.get_or_insert(QueueFull::DropNewest);
        }
    }
    Ok(all.into_iter().map(Arc::new).collect())
}

/// By client identifier which of their sessions have a part of all topics.
pub(super) fn parts(bridges: &[Arc<BridgeConfig>]) -> BTreeMap<Box<str>, TopicPart> {
    let parts = bridges.iter();
    parts
        .filter_map(|bridge| Some((bridge.session_id(), bridge.part?)))
        .collect()
}

/// A bridge as the connections that it has.
fn connections(raw: &FileBridge, whole: &BridgeConfig) -> Vec<BridgeConfig> {
    let count = raw.connections.unwrap_or(1);
    let Some(of) = NonZeroU8::new(count).filter(|_| count > 1) else {
        return vec![whole.clone()];
    };
    let one = |index| BridgeConfig {
        name: format!("{}-{index}", whole.name).into(),
        part: Some(TopicPart { index, of }),
        client_id: numbered(&whole.client_id, '-', index),
        remote_state_topic: numbered(&whole.remote_state_topic, '/', index),
        ..whole.clone()
    };
    (0..count).map(one).collect()
}

fn numbered(text: &Option<Box<str>>, separator: char, index: u8) -> Option<Box<str>> {
    let text = text.as_ref()?;
    Some(format!("{text}{separator}{index}").into())
}

/// The broker's own name; unless it is said, one that no other broker has.
pub(super) fn broker_name(raw: &FileConfig, places: &Places<'_>) -> Result<Box<str>, ConfigError> {
    match raw.mqtt.broker_name.as_deref() {
        None | Some("") => Ok(format!("{:016x}", RandomState::new().hash_one(0)).into()),
        Some(name) if hops::is_name(name) => Ok(name.into()),
        Some(name) => Err(places.wrong("mqtt.broker_name", not_a_name(name))),
    }
}

/// A key, and what is wrong with it.
type Wrong = (&'static str, String);

fn not_a_name(name: &str) -> String {
    format!("{name:?} is not 1 to 64 letters, digits, `.`, `_` or `-`")
}

fn bridge(raw: &FileBridge) -> Result<BridgeConfig, Wrong> {
    if !hops::is_name(&raw.name) {
        return Err(("name", not_a_name(&raw.name)));
    }
    if let Some(wrong) = ranges::wrong_in_bridge(raw) {
        return Err(wrong);
    }
    if raw.addresses.is_empty() || raw.addresses.len() > ADDRESSES_MAX {
        let text = format!("1 to {ADDRESSES_MAX} are needed, such as \"mqtt://HOST:1883\"");
        return Err(("addresses", text));
    }
    if raw.topics.len() > RULES_MAX {
        return Err(("topics", format!("there are more than {RULES_MAX}")));
    }
    let addresses = raw.addresses.iter().map(|url| address(url));
    let addresses: Vec<_> = addresses.collect::<Result<_, _>>()?;
    check_tls_is_used(raw, &addresses)?;
    if let (Some(min), Some(max)) = (raw.reconnect_ms_min, raw.reconnect_ms_max)
        && max < min
    {
        let text = format!("{max} is less than bridge.reconnect_ms_min, {min}");
        return Err(("reconnect_ms_max", text));
    }
    let names_user = raw.user.is_some() || raw.preset == Some(BridgePreset::AzureIotHub);
    if raw.password_file.is_some() && !names_user {
        let text = "it is for a user: say bridge.user, too".to_owned();
        return Err(("password_file", text));
    }
    let mut config = checked(raw, addresses)?;
    if let Some(preset) = raw.preset {
        apply_preset(preset, &mut config, raw)?;
    }
    Ok(config)
}

/// What is said, with defaults.
fn checked(raw: &FileBridge, addresses: Vec<Address>) -> Result<BridgeConfig, Wrong> {
    let text = |key, text: &Option<String>| bounded(key, text.as_deref());
    let reconnect_ms_min = raw.reconnect_ms_min.unwrap_or(RECONNECT_MS_MIN);
    Ok(BridgeConfig {
        name: raw.name.as_str().into(),
        stands_as: raw.name.as_str().into(),
        part: None,
        addresses,
        order: raw.address_order.map(Into::into).unwrap_or_default(),
        protocols: match raw.protocol.unwrap_or_default() {
            BridgeProtocol::Auto => {
                vec![Protocol::V5, Protocol::V3_1_1_BRIDGE, Protocol::V3_1_1]
            }
            BridgeProtocol::V5 => vec![Protocol::V5],
            BridgeProtocol::V311 => vec![Protocol::V3_1_1_BRIDGE, Protocol::V3_1_1],
        },
        client_id: text("client_id", &raw.client_id)?,
        apart: "".into(),
        user: text("user", &raw.user)?,
        password_file: raw.password_file.clone(),
        sas_key_file: sas_key_file(raw)?,
        sas_seconds: raw.sas_seconds.unwrap_or(SAS_SECONDS),
        local_user: text("local_user", &raw.local_user)?
            .unwrap_or_else(|| format!("bridge-{}", raw.name).into()),
        keep_alive_seconds: raw.keep_alive_seconds.unwrap_or(KEEP_ALIVE_SECONDS),
        is_persistent: raw.persistent.unwrap_or(true),
        idle_ms: idle_ms(raw)?,
        is_paused: raw.paused.unwrap_or(false),
        queue: queue(raw)?,
        connect_timeout_ms: raw.connect_timeout_ms.unwrap_or(CONNECT_TIMEOUT_MS),
        reconnect_ms_min,
        reconnect_ms_max: raw
            .reconnect_ms_max
            .unwrap_or(RECONNECT_MS_MAX)
            .max(reconnect_ms_min),
        failback_ms: raw.failback_ms.unwrap_or(FAILBACK_MS),
        follows_redirects: raw.redirect.unwrap_or_default() == BridgeRedirect::Follow,
        redirects_max: raw.redirects_max.unwrap_or(REDIRECTS_MAX),
        hops_max: raw.hops_max.unwrap_or(HOPS_MAX),
        known: Known::NOTHING,
        topic_alias_max: raw.topic_alias_max.unwrap_or(TOPIC_ALIAS_MAX),
        remote_state_topic: state_topic(raw)?,
        tls: tls(raw)?,
        topics: raw.topics.iter().map(rule).collect::<Result<_, _>>()?,
    })
}

/// Tokens are for one service, and in place of a password.
fn sas_key_file(raw: &FileBridge) -> Result<Option<PathBuf>, Wrong> {
    let is_hub = raw.preset == Some(BridgePreset::AzureIotHub);
    match &raw.sas_key_file {
        Some(_) if !is_hub => Err((
            "sas_key_file",
            "it is for preset = \"azure-iot-hub\"".into(),
        )),
        Some(_) if raw.password_file.is_some() => Err((
            "sas_key_file",
            "say it or bridge.password_file, not both".into(),
        )),
        file => Ok(file.clone()),
    }
}

/// When the line of one ends that is only there when something waits.
fn idle_ms(raw: &FileBridge) -> Result<Option<u64>, Wrong> {
    if raw.start.unwrap_or_default() == BridgeStart::Always {
        return match raw.idle_seconds {
            Some(_) => Err(("idle_seconds", "it is for bridge.start = \"lazy\"".into())),
            None => Ok(None),
        };
    }
    if raw.persistent == Some(false) {
        let text = "lazy needs bridge.persistent: else nothing waits for it";
        return Err(("start", text.to_owned()));
    }
    Ok(Some(raw.idle_seconds.unwrap_or(IDLE_SECONDS) * 1_000))
}

/// Bounds of its own.
fn queue(raw: &FileBridge) -> Result<OwnQueue, Wrong> {
    let full = raw.queue_full.map(Into::into);
    if full == Some(QueueFull::Disconnect) {
        let text = "a bridge that is disconnected takes even less: say drop_newest or drop_oldest";
        return Err(("queue_full", text.to_owned()));
    }
    Ok(OwnQueue {
        tells: raw.start == Some(BridgeStart::Lazy),
        bytes_max: raw.queue_bytes_max,
        messages_max: raw.queue_messages_max,
        age_ms_max: raw.queue_seconds_max.map(|seconds| seconds * 1_000),
        full,
    })
}

/// The version of the hub's API that user names have.
const HUB_API: &str = "2021-04-12";
/// By which names services at port 443 tell MQTT apart: with a client's certificate, and with an authorizer.
const ALPN_CERTIFICATE: &str = "x-amzn-mqtt-ca";
const ALPN_AUTHORIZER: &str = "mqtt";

/// Sets what was not said, and says what the service would refuse: by which key, and why.
fn apply_preset(
    preset: BridgePreset,
    config: &mut BridgeConfig,
    raw: &FileBridge,
) -> Result<(), Wrong> {
    let rules = preset.rules();
    let of = |text: &str| format!("{} {text}", rules.name);
    if let Some(plain) = config.addresses.iter().find(|at| !at.is_tls)
        && rules.has_tls_only
    {
        return Err((
            "addresses",
            of(&format!("takes TLS only, and {plain} is without")),
        ));
    }
    if rules.needs_client_id && config.client_id.is_none() {
        return Err((
            "client_id",
            of("knows its clients by it: say which this one is"),
        ));
    }
    if rules.needs_user && config.user.is_none() {
        return Err(("user", of("lets nobody in without one")));
    }
    let max = rules.client_id_bytes_max;
    if config.client_id.as_ref().is_some_and(|id| id.len() > max) {
        return Err(("client_id", of(&format!("takes up to {max} bytes"))));
    }
    let range = &rules.keep_alive_seconds;
    match raw.keep_alive_seconds {
        Some(said) if !range.contains(&said) => {
            let text = format!("takes {} to {}", range.start(), range.end());
            return Err(("keep_alive_seconds", of(&text)));
        }
        _ => {}
    }
    match raw.protocol {
        None => config.protocols = rules.protocols.to_vec(),
        Some(_) => config
            .protocols
            .retain(|protocol| rules.protocols.contains(protocol)),
    }
    if config.protocols.is_empty() {
        return Err(("protocol", of("does not speak it")));
    }
    if let Some(ms) = rules
        .reconnect_ms_min
        .filter(|_| raw.reconnect_ms_min.is_none())
    {
        config.reconnect_ms_min = ms;
        config.reconnect_ms_max = config.reconnect_ms_max.max(ms);
    }
    config.known = rules.known;
    match preset {
        BridgePreset::AwsIotCore => name_protocol(config),
        BridgePreset::AzureIotHub => join_hub(config)?,
        _ => {}
    }
    Ok(())
}

/// Port 443 is for HTTP, too: which protocol it is, and how the client proves itself, is told by ALPN.
fn name_protocol(config: &mut BridgeConfig) {
    let is_443 = |at: &Address| at.port == 443 && at.path.is_none();
    if config.tls.alpn.is_empty() && config.addresses.iter().all(is_443) {
        let name = match config.tls.certificate {
            Some(_) => ALPN_CERTIFICATE,
            None => ALPN_AUTHORIZER,
        };
        config.tls.alpn = vec![name.to_owned()];
    }
}

/// A hub's clients are devices: their user names say which, and they have topics of their own.
fn join_hub(config: &mut BridgeConfig) -> Result<(), Wrong> {
    let device = config.client_id.clone().unwrap_or_default();
    if config.user.is_none()
        && let Some(hub) = config.addresses.first()
    {
        let user = format!("{}/{device}/?api-version={HUB_API}", hub.host);
        config.user = Some(user.into());
    }
    let own = format!("devices/{device}/messages/");
    let is_own = |filter: &str| filter.starts_with(&own) || filter.starts_with("$iothub/");
    let filters = config.topics.iter().map(|rule| rule.remote_filter());
    match filters.into_iter().find(|filter| !is_own(filter)) {
        Some(filter) => {
            let text = format!(
                "azure-iot-hub has no topic {filter:?}: a device sends to {own}events/ and hears \
                 {own}devicebound/ and $iothub/"
            );
            Err(("topics.remote_prefix", text))
        }
        None => Ok(()),
    }
}

/// What is said of TLS has to hold for each address: a password would go out in the clear beside it.
fn check_tls_is_used(raw: &FileBridge, addresses: &[Address]) -> Result<(), Wrong> {
    match addresses.iter().find(|address| !address.is_tls) {
        Some(plain) if raw.tls != FileBridgeTls::default() => {
            let text =
                format!("{plain} is without TLS: say mqtts:// or wss://, or leave bridge.tls out");
            Err(("addresses", text))
        }
        _ => Ok(()),
    }
}

fn bounded(key: &'static str, text: Option<&str>) -> Result<Option<Box<str>>, Wrong> {
    match text {
        Some(text) if text.len() > TEXT_BYTES_MAX || text.contains('\0') => {
            let text = format!("is longer than {TEXT_BYTES_MAX} bytes or has a NUL");
            Err((key, text))
        }
        Some("") | None => Ok(None),
        Some(text) => Ok(Some(text.into())),
    }
}

fn state_topic(raw: &FileBridge) -> Result<Option<Box<str>>, Wrong> {
    let topic = bounded("remote_state_topic", raw.remote_state_topic.as_deref())?;
    match topic {
        Some(topic) if has_wildcard(&topic) => {
            let text = format!("{topic:?} has a wildcard");
            Err(("remote_state_topic", text))
        }
        topic => Ok(topic),
    }
}

fn tls(raw: &FileBridge) -> Result<BridgeTlsConfig, Wrong> {
    let tls = &raw.tls;
    if tls.certificate.is_some() != tls.key.is_some() {
        let text = "certificate and key go together: say both or none".to_owned();
        return Err(("tls.certificate", text));
    }
    let alpn = tls.alpn.clone().unwrap_or_default();
    if alpn.len() > ALPN_MAX || alpn.iter().any(|name| !(1..=255).contains(&name.len())) {
        let text = format!("is not up to {ALPN_MAX} names of 1 to 255 bytes");
        return Err(("tls.alpn", text));
    }
    Ok(BridgeTlsConfig {
        ca: tls.ca.clone(),
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        server_name: bounded("tls.server_name", tls.server_name.as_deref())?,
        alpn,
    })
}

/// `mqtt://HOST:PORT`.
fn address(url: &str) -> Result<Address, Wrong> {
    let wrong = |why: &str| {
        let text = format!("{url:?} {why}; write mqtt://HOST:PORT, mqtts://, ws:// or wss://");
        ("addresses", text)
    };
    if url.contains('@') {
        // It may be followed by a password: not shown.
        let text = "an address has no user or password: they stand in bridge.user and bridge.password_file; \
                    write mqtt://HOST:PORT";
        return Err(("addresses", text.into()));
    }
    let mut schemes = SCHEMES.iter();
    let parts = url.split_once("://");
    let known = parts.and_then(|(begin, rest)| {
        let known = schemes.find(|(scheme, ..)| *scheme == begin)?;
        Some((rest, *known))
    });
    let Some((rest, (_, is_tls, is_websocket, usual_port))) = known else {
        return Err(wrong("is of no known scheme"));
    };
    let (rest, path) = match rest.find('/') {
        Some(at) if is_websocket => rest.split_at(at),
        _ => (rest.strip_suffix('/').unwrap_or(rest), PATH),
    };
    let is_bare = |host: &str| !host.is_empty() && !host.contains(['/', '@', '?', '#', '[', ']']);
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => return Err(wrong("has no end of its address")),
        },
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    if !is_bare(host) {
        return Err(wrong("has no host"));
    }
    let port = match port.map(str::parse) {
        None => usual_port,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(wrong("has a port that is not between 1 and 65535")),
    };
    Ok(Address {
        host: host.into(),
        port,
        is_tls,
        path: is_websocket.then(|| path.into()),
    })
}

/// As far as topics go in the protocol.
const TOPICS: TopicLimits = TopicLimits {
    bytes_max: 65_535,
    levels_max: 1_024,
};

fn rule(raw: &FileTopicRule) -> Result<TopicRule, Wrong> {
    let prefix = |key, text: &Option<String>| -> Result<Box<str>, Wrong> {
        let text = bounded(key, text.as_deref())?.unwrap_or_default();
        match has_wildcard(&text) {
            true => Err((key, format!("{text:?} has a wildcard"))),
            false => Ok(text),
        }
    };
    let rule = TopicRule {
        filter: raw.filter.as_str().into(),
        direction: raw.direction.map(Into::into).unwrap_or_default(),
        local_prefix: prefix("topics.local_prefix", &raw.local_prefix)?,
        remote_prefix: prefix("topics.remote_prefix", &raw.remote_prefix)?,
        qos_max: match raw.qos_max {
            None => Qos::ExactlyOnce,
            Some(qos) => Qos::from_bits(qos)
                .ok_or_else(|| ("topics.qos_max", format!("{qos} is not 0, 1 or 2")))?,
        },
        retain: raw.retain.map(Into::into).unwrap_or_default(),
    };
    for filter in [rule.local_filter(), rule.remote_filter()] {
        let key = "topics.filter";
        if is_shared(&filter) {
            let text = format!("{filter:?} is a shared subscription, which would lose the order");
            return Err((key, text));
        }
        if filter.contains('\0') {
            return Err((key, format!("{filter:?} has a NUL")));
        }
        TopicFilter::new(&filter, TOPICS).map_err(|error| (key, format!("{filter:?}: {error}")))?;
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls() {
        let of = |url| address(url).map(|address| address.to_string()).ok();
        assert_eq!(of("mqtt://a"), Some("mqtt://a:1883".into()));
        assert_eq!(of("mqtts://a"), Some("mqtts://a:8883".into()));
        assert_eq!(of("ws://a/b/c"), Some("ws://a:8083/b/c".into()));
        assert_eq!(of("wss://[::1]:7"), Some("wss://[::1]:7/mqtt".into()));
        assert_eq!(of("mqtt://a.b:7/"), Some("mqtt://a.b:7".into()));
        assert_eq!(of("mqtt://[::1]:7"), Some("mqtt://[::1]:7".into()));
        for wrong in [
            "a:1",
            "tcp://a",
            "mqtt://",
            "mqtt://a:0",
            "mqtt://a:x",
            "mqtt://[::1",
            "mqtt://u@a",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        let (_, text) = address("mqtt://ann:topsecret@hq:1883").unwrap_err();
        assert!(
            text.contains("bridge.user") && !text.contains("topsecret"),
            "{text}"
        );
    }

    #[test]
    fn another_server_is_spoken_to_as_the_one_that_names_it() {
        let from = address("mqtts://a.example:1").unwrap();
        let to = |reference| from.elsewhere(reference).map(|to| to.to_string());
        assert_eq!(to("b.example"), Some("mqtts://b.example:8883".into()));
        assert_eq!(to("b:9 c:8"), Some("mqtts://b:9".into()));
        assert_eq!(to("[::1]:7"), Some("mqtts://[::1]:7".into()));
        let long = "x".repeat(300);
        for wrong in ["", " ", "mqtt://b", "b:0", "u@b", "b/c", &long] {
            assert_eq!(to(wrong), None, "{wrong}");
        }
        let from = address("ws://a/p").unwrap();
        let to = from.elsewhere("b:9").map(|to| to.to_string());
        assert_eq!(to, Some("ws://b:9/p".into()));
        assert_eq!(from.elsewhere("b/q"), None);
    }

    fn of(filter: &str, local: &str, remote: &str) -> Result<TopicRule, Wrong> {
        rule(&FileTopicRule {
            filter: filter.into(),
            local_prefix: Some(local.into()),
            remote_prefix: Some(remote.into()),
            ..FileTopicRule::default()
        })
    }

    #[test]
    fn filters_are_valid_with_their_prefixes() {
        assert!(of("#", "a/", "b/").is_ok() && of("", "a", "b").is_ok());
        for (filter, local, remote) in [
            ("#", "a", "b/"),
            ("", "", "b"),
            ("a/#/b", "", ""),
            ("x", "+/", ""),
            ("#", "$share/g/", ""),
        ] {
            assert!(
                of(filter, local, remote).is_err(),
                "{local} {filter} {remote}"
            );
        }
    }
}

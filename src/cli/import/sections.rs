//! Which lines concern the whole broker, which a listener, which a bridge: what a key belongs to is decided
//! by the last `listener` or `connection` before it.

use super::lines::Line;
use super::value::{is_false, is_true};

/// Keys of a listener, ...
const OF_LISTENER: [&str; 33] = [
    "accept_protocol_versions",
    "bind_address",
    "bind_interface",
    "cafile",
    "capath",
    "certfile",
    "ciphers",
    "ciphers_tls1.3",
    "crlfile",
    "dhparamfile",
    "disable_client_cert_date_checks",
    "enable_proxy_protocol",
    "http_dir",
    "keyfile",
    "listener_allow_anonymous",
    "listener_auto_id_prefix",
    "max_connections",
    "max_qos",
    "max_topic_alias",
    "max_topic_alias_broker",
    "mount_point",
    "port",
    "protocol",
    "proxy_protocol_v2_require_tls",
    "psk_hint",
    "require_certificate",
    "socket_domain",
    "tls_engine",
    "tls_engine_kpass_sha1",
    "tls_keyform",
    "tls_version",
    "use_identity_as_username",
    "websockets_origin",
];
/// ... and more of them, ...
const OF_LISTENER_TOO: [&str; 2] = ["use_subject_as_username", "use_username_as_clientid"];
/// ... and those that are only with `per_listener_settings true`.
const OF_LISTENER_IF_SAID: [&str; 6] = [
    "acl_file",
    "allow_anonymous",
    "allow_zero_length_clientid",
    "auto_id_prefix",
    "password_file",
    "psk_file",
];

/// Keys of a bridge, besides those that begin with `bridge_`, `local_`, `remote_` and `notification`.
const OF_BRIDGE: [&str; 15] = [
    "address",
    "addresses",
    "cleansession",
    "clientid",
    "idle_timeout",
    "keepalive_interval",
    "password",
    "restart_timeout",
    "round_robin",
    "start_type",
    "threshold",
    "topic",
    "try_private",
    "username",
    "tcp_keepalive",
];

/// A listener as it is written.
#[derive(Debug)]
pub(super) struct Opened {
    /// `listener ...`; none for the one that is not written.
    pub head: Option<Line>,
    pub lines: Vec<Line>,
}

/// All lines, sorted.
#[derive(Debug)]
pub(super) struct Sections {
    pub general: Vec<Line>,
    /// They stand before the first `listener`, and concern one that is not opened.
    pub idle: Vec<Line>,
    pub listeners: Vec<Opened>,
    pub bridges: Vec<Vec<Line>>,
    /// No listener is said at all: Mosquitto serves this machine alone, and lets in who shows nothing.
    pub is_local_only: bool,
}

impl Sections {
    pub(super) fn sort(lines: Vec<Line>) -> Self {
        let mut per_listener = lines
            .iter()
            .filter(|line| line.key == "per_listener_settings");
        let is_per_listener = per_listener.next_back().is_some_and(is_true);
        let mut default = Opened {
            head: None,
            lines: Vec::new(),
        };
        let (mut general, mut listeners, mut bridges) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            match kind(&line, is_per_listener) {
                Kind::Listener => listeners.push(Opened {
                    head: Some(line),
                    lines: Vec::new(),
                }),
                Kind::OfListener => listeners
                    .last_mut()
                    .unwrap_or(&mut default)
                    .lines
                    .push(line),
                Kind::Bridge => bridges.push(vec![line]),
                Kind::OfBridge => match bridges.last_mut() {
                    Some(bridge) => bridge.push(line),
                    None => bridges.push(vec![line]),
                },
                Kind::General => general.push(line),
            }
        }
        let mut idle = Vec::new();
        let has_default = default.lines.iter().any(opens);
        let is_local_only = listeners.is_empty() && !has_default;
        if has_default || is_local_only {
            listeners.push(default);
        } else {
            idle = default.lines;
        }
        Sections {
            general,
            idle,
            listeners,
            bridges,
            is_local_only,
        }
    }
}

enum Kind {
    Listener,
    OfListener,
    Bridge,
    OfBridge,
    General,
}

fn kind(line: &Line, is_per_listener: bool) -> Kind {
    let key = line.key.as_str();
    let of_bridge = ["bridge_", "local_", "remote_", "notification"];
    match key {
        "listener" => Kind::Listener,
        "connection" => Kind::Bridge,
        _ if OF_LISTENER.contains(&key) || OF_LISTENER_TOO.contains(&key) => Kind::OfListener,
        _ if is_per_listener && OF_LISTENER_IF_SAID.contains(&key) => Kind::OfListener,
        _ if OF_BRIDGE.contains(&key) || of_bridge.iter().any(|begin| key.starts_with(begin)) => {
            Kind::OfBridge
        }
        _ => Kind::General,
    }
}

/// Whether a line that stands before the first `listener` makes Mosquitto open one on port 1883 besides.
fn opens(line: &Line) -> bool {
    match line.key.as_str() {
        "protocol" => line.value != "mqtt",
        "max_connections" => line.value != "-1",
        "max_qos" => line.value != "2",
        "allow_anonymous" | "allow_zero_length_clientid" | "max_topic_alias" | "tls_version" => {
            false
        }
        _ => !is_false(line),
    }
}

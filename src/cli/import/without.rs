//! Keys that have no counterpart here, and what to do about each.

use super::draft::Draft;
use super::lines::Line;

/// What concerns the whole broker.
const OF_BROKER: [(&str, &str); 32] = [
    (
        "allow_duplicate_messages",
        "nothing to do: it is no key of Mosquitto's any more",
    ),
    (
        "allow_zero_length_clientid",
        "a client without an identifier is given one; to have every client named, let \
         authentication.client_id bind identifiers to users",
    ),
    (
        "auto_id_prefix",
        "the broker chooses identifiers of its own; rules should not count on their beginning",
    ),
    (
        "autosave_interval",
        "nothing to do: with storage.directory what is acknowledged is on disk already",
    ),
    (
        "autosave_on_changes",
        "nothing to do: with storage.directory what is acknowledged is on disk already",
    ),
    (
        "check_retain_source",
        "a retained message is delivered whatever its publisher may do by now; who loses rights: look with \
         `GET /api/v1/retained` for what should go",
    ),
    (
        "clientid_prefixes",
        "no counterpart: let authentication.client_id = \"user_name_prefix\" bind identifiers to users, or \
         name identifiers in [bans]",
    ),
    (
        "connection_messages",
        "the log tells of refusals and their reasons, not of each connect; audit_file records who came and \
         went",
    ),
    (
        "enable_control_api",
        "the admin API is always there (admin.listen)",
    ),
    (
        "global_max_clients",
        "limits.connections_max bounds connections; sessions of clients that are away end by \
         session.expiry_seconds_max",
    ),
    (
        "log_facility",
        "the log goes to standard error, which journald takes with priorities, or to log_file",
    ),
    (
        "log_timestamp",
        "nothing to do: on a terminal and in log_file each line has its time, in the journal journald adds \
         it",
    ),
    (
        "log_timestamp_format",
        "times are written as RFC 3339; no other format is there",
    ),
    (
        "max_inflight_bytes",
        "limits.inflight_max bounds messages in flight, not their bytes",
    ),
    (
        "packet_max_auth",
        "limits.max_packet_bytes bounds all packets, limits.connect_bytes_max that of CONNECT",
    ),
    ("packet_max_connect", "say limits.connect_bytes_max"),
    (
        "packet_max_simple",
        "limits.max_packet_bytes bounds all packets",
    ),
    (
        "packet_max_sub",
        "limits.filters_per_subscribe_max bounds a SUBSCRIBE",
    ),
    (
        "packet_max_un_sub",
        "limits.filters_per_subscribe_max bounds an UNSUBSCRIBE",
    ),
    ("packet_buffer_size", "nothing to do"),
    (
        "persistence_file",
        "it is named where Mosquitto's state is to be taken over",
    ),
    (
        "pid_file",
        "nothing to do under systemd (scripts/ringmq.service), which knows the process",
    ),
    (
        "psk_file",
        "there is no TLS by pre-shared keys: give the clients certificates (listener.tls.client_ca) or \
         passwords over TLS",
    ),
    (
        "queue_qos0_messages",
        "messages of QoS 0 are not kept for clients that are away: subscribe and publish with QoS 1",
    ),
    (
        "retain_expiry_interval",
        "no counterpart: publishers of 5.0 can say a message expiry interval",
    ),
    (
        "retry_interval",
        "nothing to do: messages are repeated when their client connects again, as the standard says",
    ),
    ("set_tcp_nodelay", "nothing to do: it is always so"),
    ("store_clean_interval", "nothing to do"),
    (
        "upgrade_outgoing_qos",
        "no counterpart, and not what the standard says: publish with the QoS that is to arrive",
    ),
    (
        "user",
        "User= of scripts/ringmq.service says who the broker is; it changes to nobody by itself",
    ),
    (
        "websockets_headers_size",
        "nothing to do: the broker has a bound of its own",
    ),
    (
        "websockets_log_level",
        "nothing to do: log tells of WebSockets as of all transports",
    ),
];

/// What concerns a listener.
const OF_LISTENER: [(&str, &str); 14] = [
    (
        "bind_interface",
        "name the interface's address in listener.url instead: the listener is on all addresses until you do",
    ),
    (
        "capath",
        "put the certificates of that folder into one file (`cat FOLDER/*.pem > ca.pem`) and name it as \
         listener.tls.client_ca",
    ),
    (
        "ciphers",
        "nothing to do: only ciphers that count as safe are offered",
    ),
    (
        "ciphers_tls1.3",
        "nothing to do: only ciphers that count as safe are offered",
    ),
    (
        "dhparamfile",
        "nothing to do: keys are agreed on by elliptic curves",
    ),
    (
        "disable_client_cert_date_checks",
        "no counterpart: certificates that have ended are refused",
    ),
    (
        "http_dir",
        "the broker serves no files: let a web server do that, which may pass /mqtt on to the listener",
    ),
    (
        "listener_auto_id_prefix",
        "the broker chooses identifiers of its own",
    ),
    (
        "proxy_protocol_v2_require_tls",
        "no counterpart: let the proxy refuse what is not TLS",
    ),
    ("tls_engine", "keys are in files; none is read by an engine"),
    (
        "tls_engine_kpass_sha1",
        "keys are in files; none is read by an engine",
    ),
    ("tls_keyform", "nothing to do for pem; keys are in files"),
    (
        "max_topic_alias_broker",
        "say limits.topic_alias_out_max, which counts for all listeners",
    ),
    (
        "use_username_as_clientid",
        "authentication.client_id = \"user_name\" is like it for all listeners: a client's identifier has to \
         be its user name then, or empty; it is not replaced",
    ),
];

/// Tells what to do about a line whose key has no counterpart.
pub(super) fn tell(line: &Line, draft: &mut Draft) {
    let key = line.key.as_str();
    let mut known = OF_BROKER.iter().chain(&OF_LISTENER);
    let text = known
        .find(|(known, _)| *known == key)
        .map(|(_, text)| *text);
    let text = text.or_else(|| of_plugin(line)).unwrap_or(
        "left out: it is not known as a key of Mosquitto's; if it is one, look for what it does in the \
         README's Configuration",
    );
    draft.note(line, text);
}

/// What to do in place of a plugin.
fn of_plugin(line: &Line) -> Option<&'static str> {
    let begins = ["auth_", "plugin", "global_plugin"];
    if !begins.iter().any(|begin| line.key.starts_with(begin)) {
        return None;
    }
    if line.key.contains("_opt_") {
        return Some("left out, with its plugin");
    }
    Some(
        if line.value.contains("dynamic_security") || line.value.contains("dynsec") {
            "there are no plugins: make each client of it with `ringmq passwd` (password_file), write its \
             roles as rules of a user (acl_file), and disable clients in [bans]; or let a server of yours \
             judge, [authentication.http]"
        } else if line.value.contains("acl_file") || line.value.contains("password_file") {
            "there are no plugins: name the file that it reads as acl_file or password_file"
        } else if line.value.contains("persist") {
            "there are no plugins: storage.directory keeps the state; what the plugin has kept is not taken \
             over"
        } else {
            "there are no plugins: password_file, tokens ([authentication.jwt]) or a server of yours that is \
             asked ([authentication.http]) say who comes in; acl_file, the token or the server's answer what \
             he may do"
        },
    )
}

//! Which keys of the configuration change while the broker runs, and which need a restart: every key of
//! [`super::file`] is here, once.

/// What becomes of a key that was changed when the configuration is read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changes while the broker runs.
    Running,
    /// It needs a restart.
    Restart,
}

/// Keys by section.
type Keys = [(&'static str, &'static [&'static str])];

/// Keys that change while the broker runs.
const RUNNING: &Keys = &[
    (
        "",
        &[
            "log",
            "log_format",
            "log_file",
            "listen",
            "listener",
            "bridge",
            "allow_anonymous",
            "password_file",
            "acl_file",
            "audit_file",
        ],
    ),
    (
        "limits",
        &[
            "turn_deliveries_max",
            "turn_sends_max",
            "turn_send_bytes_max",
            "turn_us_goal",
            "max_packet_bytes",
            "topic_bytes_max",
            "topic_levels_max",
            "filters_per_subscribe_max",
            "subscriptions_per_session_max",
            "inflight_max",
            "receive_maximum",
            "memory_max_bytes",
            "connections_max",
            "connections_per_address_max",
            "connecting_max",
            "connecting_per_address_max",
            "connect_rate_max",
            "accept_lag_ms_max",
            "connect_timeout_ms",
            "takeover_wait_ms",
            "connect_bytes_max",
            "outbox_bytes_max",
            "queue_messages_max",
            "queue_bytes_max",
            "retained_messages_max",
            "retained_bytes_max",
            "topic_alias_max",
            "topic_alias_out_max",
            "publish_rate_max",
            "publish_bytes_rate_max",
            "subscribe_rate_max",
            "delivery_rate_max",
            "rate_exceeded",
        ],
    ),
    (
        "listener",
        &[
            "url",
            "allow_anonymous",
            "protocols",
            "connections_max",
            "connect_rate_max",
            "methods",
            "proxy_protocol_from",
            "forwarded_from",
            "real_ip_from",
            "any_path",
            "origins",
        ],
    ),
    (
        "listener.limits",
        &[
            "inflight_max",
            "queue_bytes_max",
            "publish_rate_max",
            "publish_bytes_rate_max",
            "subscribe_rate_max",
            "delivery_rate_max",
        ],
    ),
    (
        "session",
        &["expiry_seconds_max", "queue_full", "outbox_full"],
    ),
    (
        "mqtt",
        &[
            "keep_alive_seconds_max",
            "qos_max",
            "retain_available",
            "wildcard_subscriptions",
            "shared_subscriptions",
            "subscription_identifiers",
            "shared_strategy",
            "validate_payload_format",
            "response_information",
            "server_reference",
            "sys_interval_s",
        ],
    ),
    ("shutdown", &["deadline_ms", "drain_rate"]),
    ("watchdog", &["silence_seconds_max"]),
    (
        "bridge",
        &[
            "name",
            "preset",
            "addresses",
            "address_order",
            "protocol",
            "client_id",
            "user",
            "password_file",
            "sas_key_file",
            "sas_seconds",
            "local_user",
            "keep_alive_seconds",
            "persistent",
            "paused",
            "start",
            "idle_seconds",
            "connections",
            "queue_messages_max",
            "queue_bytes_max",
            "queue_seconds_max",
            "queue_full",
            "connect_timeout_ms",
            "reconnect_ms_min",
            "reconnect_ms_max",
            "failback_ms",
            "redirect",
            "redirects_max",
            "hops_max",
            "topic_alias_max",
            "remote_state_topic",
            "topics",
        ],
    ),
    (
        "bridge.tls",
        &["ca", "certificate", "key", "server_name", "alpn"],
    ),
    (
        "authentication.jwt",
        &[
            "algorithms",
            "secret_file",
            "public_key_file",
            "jwks_file",
            "jwks_url",
            "jwks_refresh_seconds",
            "jwks_ca_file",
            "audience",
            "issuer",
            "leeway_seconds",
            "user_claim",
            "client_id_claim",
            "acl_claim",
        ],
    ),
    (
        "authentication.http",
        &[
            "authenticate_url",
            "timeout_ms",
            "cache_ttl_ms",
            "cache_max",
            "fail_open",
            "ca_file",
            "headers",
        ],
    ),
    (
        "admin",
        &[
            "listen",
            "socket",
            "hosts",
            "token_file",
            "connections_max",
            "header_bytes_max",
            "body_bytes_max",
            "request_timeout_ms",
            "connections_per_address_max",
            "top_max",
            "traces_max",
            "trace_seconds_max",
            "trace_lines_max",
            "trace_queue_max",
            "trace_payload_bytes_max",
            "request_rate_max",
        ],
    ),
    (
        "authentication",
        &["methods", "scram", "certificate", "client_id"],
    ),
    (
        "bans",
        &[
            "file",
            "seconds",
            "failed_logins_max",
            "failed_logins_seconds",
            "flapping_connects_max",
            "flapping_seconds",
        ],
    ),
    ("tls", TLS),
    ("listener.tls", TLS),
    ("admin.tls", TLS),
];

/// Keys that need a restart; a whole listener or bridge is one of them.
#[cfg(test)]
const RESTART: &Keys = &[
    ("", &["shards", "cpus", "pin"]),
    (
        "limits",
        &[
            "gather_us_max",
            "mailbox_letters_max",
            "socket_send_bytes_max",
            "socket_unsent_bytes_max",
            "socket_receive_bytes_max",
            "tcp_keepalive_idle_seconds",
            "tcp_keepalive_interval_seconds",
            "tcp_keepalive_probes_max",
        ],
    ),
    (
        "listener",
        &["durability", "mode", "owner_uid", "owner_gid"],
    ),
    ("authentication", &["threads"]),
    ("bans", &["ipv6_prefix_bits"]),
    ("mqtt", &["broker_name"]),
    (
        "storage",
        &[
            "directory",
            "level",
            "segment_bytes",
            "disk_bytes_max",
            "free_bytes_min",
            "pending_bytes_max",
            "commit_interval_us",
        ],
    ),
];

const TLS: &[&str] = &[
    "certificate",
    "key",
    "also",
    "client_ca",
    "client_crl",
    "client_crl_depth",
    "client_certificate",
    "version_min",
    "record_bytes_max",
];

/// What becomes of a change of `key` (`section.key`); where several tables have one name, without saying of
/// which.
pub(super) fn effect_of(key: &str) -> Effect {
    if is_among(RUNNING, key) {
        Effect::Running
    } else {
        Effect::Restart
    }
}

fn is_among(keys: &Keys, key: &str) -> bool {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut of_section = keys.iter().filter(|(known, _)| *known == section);
    of_section.any(|(_, names)| names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;
    use serde::de::value::Error;
    use serde::de::{Error as _, Visitor};
    use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
    use std::cell::Cell;

    /// Asks a table for its keys, and gives it none.
    struct Asks<'a>(&'a Cell<&'static [&'static str]>);

    impl<'de> Deserializer<'de> for Asks<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("no table"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Error> {
            self.0.set(fields);
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn keys_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
        let fields: Cell<&'static [&'static str]> = Cell::new(&[]);
        assert!(T::deserialize(Asks(&fields)).is_err());
        fields.get()
    }

    /// All sections with their keys.
    fn sections() -> Vec<(&'static str, &'static [&'static str])> {
        let tls = keys_of::<file::FileTls>();
        vec![
            ("", keys_of::<file::FileConfig>()),
            ("limits", keys_of::<file::FileLimits>()),
            ("listener", keys_of::<file::FileListener>()),
            ("listener.limits", keys_of::<file::FileClientLimits>()),
            ("bridge", keys_of::<file::FileBridge>()),
            ("bridge.tls", keys_of::<file::FileBridgeTls>()),
            ("tls", tls),
            ("listener.tls", tls),
            ("admin.tls", tls),
            ("session", keys_of::<file::FileSession>()),
            ("mqtt", keys_of::<file::FileMqtt>()),
            ("shutdown", keys_of::<file::FileShutdown>()),
            ("watchdog", keys_of::<file::FileWatchdog>()),
            ("storage", keys_of::<file::FileStorage>()),
            ("admin", keys_of::<file::FileAdmin>()),
            ("bans", keys_of::<file::FileBans>()),
            ("authentication", keys_of::<file::FileAuthentication>()),
            ("authentication.jwt", keys_of::<file::FileJwt>()),
            ("authentication.http", keys_of::<file::FileHttp>()),
        ]
    }

    #[test]
    fn every_key_is_known_to_change_running_or_to_need_a_restart() {
        let sections = sections();
        let named = |section: &str, key: &str| match section {
            "" => key.to_owned(),
            _ => format!("{section}.{key}"),
        };
        let mut all = Vec::new();
        for (section, keys) in &sections {
            assert!(!keys.is_empty(), "{section}");
            for key in *keys {
                let key = named(section, key);
                let times = [RUNNING, RESTART]
                    .map(|keys| is_among(keys, &key))
                    .into_iter()
                    .filter(|is_there| *is_there)
                    .count();
                let is_section = sections.iter().any(|(section, _)| *section == key);
                assert!(
                    times == 1 || times == 0 && is_section,
                    "{key} is {times} times among what changes running and what needs a restart"
                );
                all.push(key);
            }
        }
        for (section, keys) in RUNNING.iter().chain(RESTART) {
            for key in *keys {
                let key = named(section, key);
                assert!(all.contains(&key), "there is no key {key}");
            }
        }
    }
}

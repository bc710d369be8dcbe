//! The keys of the configuration file, with their types and nothing else.

use super::flags::{LogFormat, LogLevel};
use super::method::MethodName;
use crate::control::authn::certificate::IdentityFrom;
use crate::control::authn::jwt::Algorithm;
use crate::engine::bridge::{dial, plan};
use crate::engine::limits::{Limits, RateExceeded};
use crate::engine::outbox;
use crate::engine::route::shared;
use crate::engine::session::outbound;
use crate::engine::shard::ClientIdPolicy;
use crate::shard::bans::canonical;
use crate::shard::certificates::{ClientCertificate, RevocationDepth};
use ipnet::IpNet;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileConfig {
    pub listen: Option<Vec<String>>,
    pub listener: Option<Vec<FileListener>>,
    pub bridge: Option<Vec<FileBridge>>,
    pub tls: Option<FileTls>,
    pub shards: Option<usize>,
    pub cpus: Option<String>,
    pub pin: Option<bool>,
    pub allow_anonymous: Option<bool>,
    pub password_file: Option<PathBuf>,
    pub acl_file: Option<PathBuf>,
    pub audit_file: Option<PathBuf>,
    #[serde(default)]
    pub bans: FileBans,
    #[serde(default)]
    pub authentication: FileAuthentication,
    pub log: Option<LogLevel>,
    pub log_format: Option<LogFormat>,
    pub log_file: Option<PathBuf>,
    #[serde(default)]
    pub limits: FileLimits,
    #[serde(default)]
    pub session: FileSession,
    #[serde(default)]
    pub mqtt: FileMqtt,
    #[serde(default)]
    pub shutdown: FileShutdown,
    #[serde(default)]
    pub watchdog: FileWatchdog,
    #[serde(default)]
    pub storage: FileStorage,
    #[serde(default)]
    pub admin: FileAdmin,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileAdmin {
    pub listen: Option<String>,
    pub socket: Option<PathBuf>,
    pub hosts: Option<Vec<String>>,
    pub token_file: Option<PathBuf>,
    pub tls: Option<FileTls>,
    pub connections_max: Option<usize>,
    pub header_bytes_max: Option<usize>,
    pub body_bytes_max: Option<usize>,
    pub request_timeout_ms: Option<u64>,
    pub connections_per_address_max: Option<usize>,
    pub top_max: Option<usize>,
    pub request_rate_max: Option<u64>,
    pub traces_max: Option<usize>,
    pub trace_seconds_max: Option<u64>,
    pub trace_lines_max: Option<u64>,
    pub trace_queue_max: Option<usize>,
    pub trace_payload_bytes_max: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileAuthentication {
    pub methods: Option<Vec<MethodName>>,
    pub scram: Option<bool>,
    pub certificate: Option<IdentityFrom>,
    pub client_id: Option<ClientIdPolicy>,
    pub threads: Option<usize>,
    pub jwt: Option<FileJwt>,
    pub http: Option<FileHttp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileJwt {
    pub algorithms: Option<Vec<Algorithm>>,
    pub secret_file: Option<PathBuf>,
    pub public_key_file: Option<PathBuf>,
    pub jwks_file: Option<PathBuf>,
    pub jwks_url: Option<String>,
    pub jwks_refresh_seconds: Option<u64>,
    pub jwks_ca_file: Option<PathBuf>,
    pub audience: Option<String>,
    pub issuer: Option<String>,
    pub leeway_seconds: Option<u64>,
    pub user_claim: Option<String>,
    pub client_id_claim: Option<String>,
    pub acl_claim: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileHttp {
    pub authenticate_url: Option<String>,
    pub timeout_ms: Option<u64>,
    pub cache_ttl_ms: Option<u64>,
    pub cache_max: Option<usize>,
    pub fail_open: Option<bool>,
    pub ca_file: Option<PathBuf>,
    pub headers: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileBans {
    pub file: Option<PathBuf>,
    pub seconds: Option<u64>,
    pub failed_logins_max: Option<u32>,
    pub failed_logins_seconds: Option<u64>,
    pub flapping_connects_max: Option<u32>,
    pub flapping_seconds: Option<u64>,
    pub ipv6_prefix_bits: Option<u8>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileListener {
    pub url: String,
    pub allow_anonymous: Option<bool>,
    pub protocols: Option<Vec<String>>,
    pub connections_max: Option<usize>,
    pub connect_rate_max: Option<u64>,
    pub durability: Option<StorageLevel>,
    pub methods: Option<Vec<MethodName>>,
    #[serde(default)]
    pub limits: FileClientLimits,
    #[serde(default, deserialize_with = "networks")]
    pub proxy_protocol_from: Option<Vec<IpNet>>,
    #[serde(default, deserialize_with = "networks")]
    pub forwarded_from: Option<Vec<IpNet>>,
    #[serde(default, deserialize_with = "networks")]
    pub real_ip_from: Option<Vec<IpNet>>,
    pub any_path: Option<bool>,
    pub origins: Option<Vec<String>>,
    pub mode: Option<String>,
    pub owner_uid: Option<u32>,
    pub owner_gid: Option<u32>,
    pub tls: Option<FileTls>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileBridge {
    pub name: String,
    pub preset: Option<BridgePreset>,
    pub addresses: Vec<String>,
    pub address_order: Option<AddressOrder>,
    pub protocol: Option<BridgeProtocol>,
    pub client_id: Option<String>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub sas_key_file: Option<PathBuf>,
    pub sas_seconds: Option<u64>,
    pub local_user: Option<String>,
    pub keep_alive_seconds: Option<u16>,
    pub persistent: Option<bool>,
    pub paused: Option<bool>,
    pub start: Option<BridgeStart>,
    pub idle_seconds: Option<u64>,
    pub connections: Option<u8>,
    pub queue_messages_max: Option<usize>,
    pub queue_bytes_max: Option<usize>,
    pub queue_seconds_max: Option<u64>,
    pub queue_full: Option<QueueFull>,
    pub connect_timeout_ms: Option<u64>,
    pub reconnect_ms_min: Option<u64>,
    pub reconnect_ms_max: Option<u64>,
    pub failback_ms: Option<u64>,
    pub redirect: Option<BridgeRedirect>,
    pub redirects_max: Option<u32>,
    pub hops_max: Option<usize>,
    pub topic_alias_max: Option<u16>,
    pub remote_state_topic: Option<String>,
    #[serde(default)]
    pub tls: FileBridgeTls,
    pub topics: Vec<FileTopicRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileBridgeTls {
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub server_name: Option<String>,
    pub alpn: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTopicRule {
    pub filter: String,
    pub direction: Option<BridgeDirection>,
    pub local_prefix: Option<String>,
    pub remote_prefix: Option<String>,
    pub qos_max: Option<u8>,
    pub retain: Option<BridgeRetain>,
}

/// Protocols of a bridge, the best first.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) enum BridgeProtocol {
    /// 5.0, else 3.1.1.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    #[serde(rename = "5.0")]
    V5,
    #[serde(rename = "3.1.1")]
    V311,
}

/// A provider's broker by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BridgePreset {
    AwsIotCore,
    AzureIotHub,
    AzureEventGrid,
    HivemqCloud,
    EmqxCloud,
    Rabbitmq,
    Nats,
    Mosquitto,
}

/// When a bridge dials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BridgeStart {
    #[default]
    Always,
    Lazy,
}

/// What a bridge does when the other broker sends it elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BridgeRedirect {
    #[default]
    Follow,
    Refuse,
}

/// Networks; one that is wrong is told with what would be right.
fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let networks = texts.iter().map(|text| {
        text.parse().map(canonical).map_err(|_| {
            let alone = text.parse::<IpAddr>().map(IpNet::from);
            let example = alone.map_or("10.0.0.0/8".to_owned(), |network| network.to_string());
            D::Error::custom(format!(
                "{text:?} is no network; write ADDRESS/BITS, such as {example}"
            ))
        })
    });
    networks.collect::<Result<_, _>>().map(Some)
}

/// Limits that a listener may set for its clients.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileClientLimits {
    pub inflight_max: Option<u16>,
    pub queue_bytes_max: Option<usize>,
    pub publish_rate_max: Option<u64>,
    pub publish_bytes_rate_max: Option<u64>,
    pub subscribe_rate_max: Option<u64>,
    pub delivery_rate_max: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub also: Option<Vec<FileKeyPair>>,
    pub client_ca: Option<PathBuf>,
    pub client_crl: Option<PathBuf>,
    pub client_crl_depth: Option<RevocationDepth>,
    pub client_certificate: Option<ClientCertificate>,
    pub version_min: Option<String>,
    pub record_bytes_max: Option<usize>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileKeyPair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

macro_rules! file_limits {
    ($($name:ident: $kind:ty,)+) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct FileLimits { $($name: Option<$kind>,)+ }

        impl FileLimits {
            /// Whether it is said how much may be retained.
            pub(super) const fn says_retained_bytes(&self) -> bool {
                self.retained_bytes_max.is_some()
            }

            /// Names and values.
            pub(super) fn list(limits: &Limits) -> serde_json::Map<String, serde_json::Value> {
                let mut list = serde_json::Map::new();
                $(list.insert(stringify!($name).into(), serde_json::json!(limits.$name));)+
                list
            }

            /// Puts what was said in place of the defaults.
            pub(super) fn apply(&self, limits: &mut Limits) {
                $(if let Some(value) = self.$name { limits.$name = value; })+
            }
        }
    };
}

file_limits! {
    turn_deliveries_max: usize,
    turn_sends_max: usize,
    turn_send_bytes_max: usize,
    turn_us_goal: u64,
    gather_us_max: u64,
    mailbox_letters_max: usize,
    max_packet_bytes: usize,
    topic_bytes_max: usize,
    topic_levels_max: usize,
    filters_per_subscribe_max: usize,
    subscriptions_per_session_max: usize,
    inflight_max: u16,
    receive_maximum: u16,
    connections_max: usize,
    connecting_max: usize,
    connecting_per_address_max: usize,
    connect_rate_max: u64,
    accept_lag_ms_max: u64,
    connect_timeout_ms: u64,
    takeover_wait_ms: u64,
    connect_bytes_max: usize,
    socket_send_bytes_max: usize,
    socket_unsent_bytes_max: u32,
    socket_receive_bytes_max: usize,
    tcp_keepalive_idle_seconds: u32,
    tcp_keepalive_interval_seconds: u32,
    tcp_keepalive_probes_max: u32,
    outbox_bytes_max: usize,
    queue_messages_max: usize,
    queue_bytes_max: usize,
    memory_max_bytes: u64,
    retained_messages_max: usize,
    retained_bytes_max: usize,
    topic_alias_max: u16,
    topic_alias_out_max: u16,
    connections_per_address_max: usize,
    publish_rate_max: u64,
    publish_bytes_rate_max: u64,
    subscribe_rate_max: u64,
    delivery_rate_max: u64,
    rate_exceeded: RateExceeded,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileSession {
    pub expiry_seconds_max: Option<u32>,
    pub queue_full: Option<QueueFull>,
    pub outbox_full: Option<OutboxFull>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileMqtt {
    pub keep_alive_seconds_max: Option<u16>,
    pub qos_max: Option<u8>,
    pub retain_available: Option<bool>,
    pub wildcard_subscriptions: Option<bool>,
    pub shared_subscriptions: Option<bool>,
    pub subscription_identifiers: Option<bool>,
    pub shared_strategy: Option<SharedStrategy>,
    pub validate_payload_format: Option<bool>,
    pub response_information: Option<String>,
    pub server_reference: Option<String>,
    pub broker_name: Option<String>,
    pub sys_interval_s: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileWatchdog {
    pub silence_seconds_max: Option<u32>,
}

/// When something counts as kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StorageLevel {
    /// When the disk has it: a power cut loses nothing that was acknowledged.
    #[default]
    Disk,
    /// When the operating system has it: the end of the process loses nothing that was acknowledged, a power
    /// cut about the last second.
    Os,
    /// Nothing is kept: all ends with the process.
    Memory,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileStorage {
    pub directory: Option<PathBuf>,
    pub level: Option<StorageLevel>,
    pub segment_bytes: Option<u64>,
    pub disk_bytes_max: Option<u64>,
    pub free_bytes_min: Option<u64>,
    pub pending_bytes_max: Option<usize>,
    pub commit_interval_us: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileShutdown {
    pub drain_rate: Option<u32>,
    pub deadline_ms: Option<u64>,
}

macro_rules! choices {
    ($name:ident => $target:ty { $($choice:ident,)+ }) => {
        #[derive(Clone, Copy, Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub(super) enum $name { $($choice,)+ }

        impl From<$name> for $target {
            fn from(choice: $name) -> Self {
                match choice { $($name::$choice => <$target>::$choice,)+ }
            }
        }
    };
}

choices! { QueueFull => outbound::QueueFull { DropNewest, DropOldest, Disconnect, } }
choices! { AddressOrder => dial::AddressOrder { InOrder, RoundRobin, } }
choices! { BridgeDirection => plan::Direction { In, Out, Both, } }
choices! { BridgeRetain => plan::RetainRule { Keep, Drop, Set, } }
choices! { OutboxFull => outbox::OutboxFull { DropNewest, DropOldest, } }
choices! { SharedStrategy => shared::SharedStrategy {
    RoundRobin, LeastInflight, Sticky, HashTopic, HashPublisher,
} }

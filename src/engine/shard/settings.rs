//! What the core is told before it starts, and anew when the configuration is reloaded.

use super::flapping::FlappingRule;
use crate::engine::access::ClientIdRule;
use crate::engine::codec::Version;
use crate::engine::limits::Limits;
use crate::engine::message::Qos;
use crate::engine::outbox::OutboxFull;
use crate::engine::receipt::Level;
use crate::engine::route::TopicPart;
use crate::engine::route::shared::SharedStrategy;
use crate::engine::session::granted::Granted;
use crate::engine::session::outbound::{QueueFull, QueueLimits};
use std::collections::BTreeMap;

/// What the clients of one listener may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPolicy {
    /// Whether clients that prove nothing are let in.
    pub allows_anonymous: bool,
    /// Protocol versions that are served.
    pub versions: Vec<Version>,
    /// Whether its clients may show certificates.
    pub has_certificates: bool,
    /// Whether they may prove who they are by [`crate::engine::access::EXCHANGE_METHOD`].
    pub has_exchange: bool,
    /// Most connections that came by it, on all shards together.
    pub connections_max: usize,
    /// Most that come by it per second, on all shards together; 0 for no limit.
    pub connect_rate_max: u64,
    /// Limits of its clients, if they differ from all others'.
    pub limits: Option<Box<Limits>>,
    /// How safe what its clients publish is when it is acknowledged.
    pub durability: Level,
}

impl Default for ListenerPolicy {
    fn default() -> Self {
        ListenerPolicy {
            allows_anonymous: true,
            versions: vec![Version::V3_1, Version::V3_1_1, Version::V5],
            has_certificates: false,
            has_exchange: false,
            connections_max: usize::MAX,
            connect_rate_max: 0,
            limits: None,
            durability: Level::Disk,
        }
    }
}

/// What is asked of clients, as far as a shard has to know.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// Whether there are methods to ask.
    pub has_methods: bool,
    /// Whether [`crate::engine::access::EXCHANGE_METHOD`] is among them; not every listener may serve it.
    pub has_exchange: bool,
    /// How client identifiers depend on users.
    pub client_id: ClientIdPolicy,
}

/// How client identifiers depend on users. A client without a user then names none itself: any could be, or
/// begin with, the name of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientIdPolicy {
    /// Not at all.
    #[default]
    Any,
    /// They are the user name.
    UserName,
    /// They begin with the user name and [`ClientIdRule::SEPARATOR`].
    UserNamePrefix,
}

impl ClientIdPolicy {
    /// The rule for a user, or for a client without one.
    #[must_use]
    pub fn for_user(self, user_name: Option<&str>) -> Option<ClientIdRule> {
        match (self, user_name) {
            (ClientIdPolicy::Any, _) => None,
            (_, None) => Some(ClientIdRule::Assigned),
            (ClientIdPolicy::UserName, Some(name)) => Some(ClientIdRule::Exactly(name.into())),
            (ClientIdPolicy::UserNamePrefix, Some(name)) => Some(ClientIdRule::OfUser(name.into())),
        }
    }
}

/// Settings of a shard's core, checked by the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bounds.
    pub limits: Limits,
    /// Connections for which the process has descriptors.
    pub descriptors_for_connections: usize,
    /// By the listeners' numbers.
    pub listeners: Vec<ListenerPolicy>,
    /// What is asked of clients.
    pub authentication: Authentication,
    /// How often a client may connect.
    pub flapping: FlappingRule,
    /// Whether what outlives its connection is stored.
    pub stores: bool,
    /// Most bytes of records that are not stored; who publishes more that is to be kept waits.
    pub storage_pending_bytes_max: usize,
    /// About how many bytes of a checkpoint are told at once; the next when they are stored.
    pub checkpoint_part_bytes: usize,
    /// Whether anybody reads notes.
    pub takes_notes: bool,
    /// Whether those that tell why a client is not served are said in the log.
    pub tells_why: bool,
    /// Longest session expiry interval that is granted.
    pub session_expiry_seconds_max: u32,
    /// What happens to QoS 1 and 2 messages beyond a session's queue.
    pub queue_full: QueueFull,
    /// What happens to QoS 0 messages beyond an outbox.
    pub outbox_full: OutboxFull,
    /// Longest keep alive; 0 leaves it to the client.
    pub keep_alive_seconds_max: u16,
    /// Highest QoS that is served.
    pub qos_max: Qos,
    /// Whether retained messages are.
    pub retain_available: bool,
    /// Whether filters may have wildcards.
    pub wildcard_subscriptions: bool,
    /// Whether filters may be shared.
    pub shared_subscriptions: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_identifiers: bool,
    /// How a share group's member is chosen.
    pub shared_strategy: SharedStrategy,
    /// Whether payloads announced as UTF-8 are checked.
    pub validate_payload_format: bool,
    /// Prefix for response topics.
    pub response_information: Option<Box<str>>,
    /// Server to name when this one stops.
    pub server_reference: Option<Box<str>>,
    /// What the broker is called in lists of hops.
    pub broker_name: Option<Box<str>>,
    /// By client identifier the part of all topics that a bridge's session has as one of several: known
    /// before its line comes, since what is published until then would be taken by each of them.
    pub parts: BTreeMap<Box<str>, TopicPart>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            limits: Limits::default(),
            descriptors_for_connections: usize::MAX,
            listeners: vec![ListenerPolicy::default()],
            authentication: Authentication::default(),
            flapping: FlappingRule::default(),
            stores: false,
            storage_pending_bytes_max: 32 * 1024 * 1024,
            checkpoint_part_bytes: 256 * 1024,
            takes_notes: false,
            tells_why: false,
            session_expiry_seconds_max: u32::MAX,
            queue_full: QueueFull::DropNewest,
            outbox_full: OutboxFull::DropNewest,
            keep_alive_seconds_max: 0,
            qos_max: Qos::ExactlyOnce,
            retain_available: true,
            wildcard_subscriptions: true,
            shared_subscriptions: true,
            subscription_identifiers: true,
            shared_strategy: SharedStrategy::RoundRobin,
            validate_payload_format: false,
            response_information: None,
            server_reference: None,
            broker_name: None,
            parts: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Limits of a listener's clients.
    #[must_use]
    pub fn client_limits(&self, number: u16) -> &Limits {
        let own = self
            .listener(number)
            .and_then(|policy| policy.limits.as_deref());
        own.unwrap_or(&self.limits)
    }

    /// How safe what the clients of a listener publish is when it is acknowledged.
    #[must_use]
    pub fn level(&self, number: u16) -> Level {
        let policy = self.listener(number);
        policy.map_or(Level::Disk, |policy| policy.durability)
    }

    /// Whether clients of a listener wait until the operating system has what they publish.
    #[must_use]
    pub fn waits_for_os(&self) -> bool {
        let mut levels = self.listeners.iter().map(|policy| policy.durability);
        levels.any(|level| level == Level::Os)
    }

    /// What the clients of a listener may do.
    #[must_use]
    pub fn listener(&self, number: u16) -> Option<&ListenerPolicy> {
        self.listeners.get(usize::from(number))
    }

    /// What a client is told at its CONNACK that it may do.
    #[must_use]
    pub fn granted(&self) -> Granted {
        let limits = &self.limits;
        Granted {
            packet_bytes_max: u32::try_from(limits.max_packet_bytes).unwrap_or(u32::MAX),
            receive_maximum: limits.receive_maximum,
            topic_alias_max: limits.topic_alias_max,
            qos_max: self.qos_max,
            retain: self.retain_available,
            wildcards: self.wildcard_subscriptions,
            shares: self.shared_subscriptions,
            identifiers: self.subscription_identifiers,
        }
    }

    /// Bounds of a session's queue.
    #[must_use]
    pub const fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            messages_max: self.limits.queue_messages_max,
            bytes_max: self.limits.queue_bytes_max,
            full: self.queue_full,
        }
    }
}

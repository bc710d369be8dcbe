//! What the core is told once, before it starts.

use crate::limits::Limits;
use crate::message::Qos;
use crate::outbox::OutboxFull;
use crate::route::shared::SharedStrategy;
use crate::session::outbound::{QueueFull, QueueLimits};

/// Settings of a shard's core, checked by the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bounds.
    pub limits: Limits,
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
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            limits: Limits::default(),
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
        }
    }
}

impl Settings {
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

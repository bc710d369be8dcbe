//! What a client was told at its CONNACK that it may do: that holds as long as its connection, whatever the
//! broker allows others by then.

use crate::engine::message::Qos;

/// All of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Largest packet that it may send, in bytes.
    pub packet_bytes_max: u32,
    /// Unacknowledged QoS 1 and 2 messages that it may send.
    pub receive_maximum: u16,
    /// Topic aliases that it may use.
    pub topic_alias_max: u16,
    /// Highest QoS that it may publish with.
    pub qos_max: Qos,
    /// Whether it may publish retained messages.
    pub retain: bool,
    /// Whether its filters may have wildcards.
    pub wildcards: bool,
    /// Whether they may be shared.
    pub shares: bool,
    /// Whether its subscriptions may have identifiers.
    pub identifiers: bool,
}

impl Default for Granted {
    fn default() -> Self {
        Granted {
            packet_bytes_max: u32::MAX,
            receive_maximum: u16::MAX,
            topic_alias_max: 0,
            qos_max: Qos::ExactlyOnce,
            retain: true,
            wildcards: true,
            shares: true,
            identifiers: true,
        }
    }
}

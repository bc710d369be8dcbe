//! One message on its way from broker to client, and what it waits for.
//!
//! Invariant: an entry has its message until that is settled, and not a moment longer.

use super::Delivery;

/// What an unacknowledged message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// QoS 1.
    Puback,
    /// QoS 2, first half.
    Pubrec,
    /// QoS 2, second half: the message itself is settled `[MQTT-4.3.3-6]`.
    Pubcomp,
    /// Nothing: a gap.
    Done,
}

/// An entry of the window.
#[derive(Debug)]
pub struct Inflight {
    /// Packet identifier.
    pub packet_id: u16,
    /// What it waits for.
    pub awaits: Awaits,
    /// What the store calls it, as its message had it.
    pub entry: u64,
    /// The message, until it is settled.
    pub delivery: Option<Delivery>,
}

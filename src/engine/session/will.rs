//! The will: a message the broker publishes when a client goes without saying so (3.1.2.5).

use crate::engine::message::Qos;

/// A will, checked when its CONNECT was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Topic name.
    pub topic: Box<str>,
    /// Payload.
    pub payload: Box<[u8]>,
    /// Encoded properties that are passed on (3.1.3.2); the delay is not among them.
    pub forwarded: Box<[u8]>,
    /// QoS.
    pub qos: Qos,
    /// Whether it becomes the topic's retained message.
    pub retain: bool,
    /// Message expiry interval, counted from its publication.
    pub expiry_seconds: Option<u32>,
    /// Seconds it waits after the connection ended; the session's end cuts that short.
    pub delay_seconds: u32,
}

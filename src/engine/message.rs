//! An application message as the broker keeps it: immutable and shared.
//!
//! A publish that must outlive its receive buffer (a queue, a window, the retained store, another
//! shard, a payload too large to copy per receiver) becomes one [`Message`]. Shards share it by one
//! atomic reference each ([`std::sync::Arc`]); inside a shard it is shared by [`LocalMessage`],
//! whose count is not atomic. A publish that only goes to small outboxes never becomes one.
//!
//! Not here: how a message is encoded (`codec::publish`) and who gets it (`route`, `fanout`).

use crate::engine::time::Timestamp;
use bytes::Bytes;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// Quality of service of a publish or the maximum of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// Delivered at most once, never acknowledged.
    AtMostOnce = 0,
    /// Delivered at least once, acknowledged by PUBACK.
    AtLeastOnce = 1,
    /// Delivered exactly once, by PUBREC, PUBREL and PUBCOMP.
    ExactlyOnce = 2,
}

impl Qos {
    /// The QoS of its two-bit wire form, `None` for the reserved value 3.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }

    /// The two-bit wire form.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

/// An application message, immutable once made.
///
/// Topic, 5.0 properties and payload share one allocation, in that order.
#[derive(Debug)]
pub struct Message {
    body: Bytes,
    topic_bytes: u32,
    properties_bytes: u32,
    /// QoS it was published with.
    pub qos: Qos,
    /// RETAIN flag it was published with.
    pub retain: bool,
    /// When it stops being worth delivering (MQTT 5.0 message expiry).
    pub expires_at: Option<Timestamp>,
}

impl Message {
    /// Copies the parts into one new message. `properties` is the encoded form of the 5.0 properties
    /// that are forwarded unchanged (no expiry, alias or subscription identifier).
    #[must_use]
    pub fn new(
        topic: &str,
        properties: &[u8],
        payload: &[u8],
        qos: Qos,
        retain: bool,
        expires_at: Option<Timestamp>,
    ) -> Self {
        let mut body = Vec::with_capacity(topic.len() + properties.len() + payload.len());
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(properties);
        body.extend_from_slice(payload);
        Message {
            body: Bytes::from(body),
            topic_bytes: topic.len() as u32,
            properties_bytes: properties.len() as u32,
            qos,
            retain,
            expires_at,
        }
    }

    /// Topic name.
    #[must_use]
    pub fn topic(&self) -> &str {
        // The bytes came from a `&str` in `new`; a failed check would mean a broken invariant, and
        // an empty topic matches no subscription.
        let bytes = self
            .body
            .get(..self.topic_bytes as usize)
            .unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Encoded 5.0 properties that every receiver gets unchanged.
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        let start = self.topic_bytes as usize;
        self.body
            .get(start..start + self.properties_bytes as usize)
            .unwrap_or_default()
    }

    /// Application payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let start = (self.topic_bytes + self.properties_bytes) as usize;
        self.body.get(start..).unwrap_or_default()
    }

    /// Bytes of heap memory it holds, for queue and retained limits.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.body.len() + size_of::<Message>()
    }
}

/// A shard's own handle on a [`Message`]: cloning it costs no atomic operation.
#[derive(Clone, Debug)]
#[expect(
    clippy::redundant_allocation,
    reason = "the outer count is the one that is not atomic"
)]
pub struct LocalMessage(Rc<Arc<Message>>);

impl LocalMessage {
    /// Wraps a message that this shard received or made.
    #[must_use]
    pub fn new(message: Arc<Message>) -> Self {
        LocalMessage(Rc::new(message))
    }

    /// A handle for another shard: one atomic increment.
    #[must_use]
    pub fn share(&self) -> Arc<Message> {
        Arc::clone(&self.0)
    }

    /// What falls to this handle if all of this shard share the message's bytes alike.
    #[must_use]
    pub fn share_bytes(&self) -> usize {
        self.body.len() / Rc::strong_count(&self.0)
    }

    /// Whether both handles name the same publish, also when it reached this shard by two ways.
    #[must_use]
    pub fn same_message(&self, other: &LocalMessage) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for LocalMessage {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.0
    }
}

//! A publish while it is being routed.
//!
//! It borrows topic and payload from where they lie: the receive buffer, or a message from another
//! shard. Only what must outlive the call (a queue, a window, another shard, the retained store)
//! makes it a [`Message`], once.

use crate::engine::message::{LocalMessage, Message, Qos};
use crate::engine::time::Timestamp;
use std::sync::Arc;

/// One publish on one shard.
#[derive(Debug)]
pub struct Publication<'a> {
    /// Topic name, valid.
    pub topic: &'a str,
    /// Application payload.
    pub payload: &'a [u8],
    /// Encoded properties that are passed on.
    pub forwarded: &'a [u8],
    /// QoS it was published with.
    pub qos: Qos,
    /// RETAIN flag it was published with.
    pub retain: bool,
    /// When it stops being worth delivering.
    pub expires_at: Option<Timestamp>,
    kept: Option<LocalMessage>,
}

impl<'a> Publication<'a> {
    /// A publish out of its parts.
    #[must_use]
    pub const fn new(
        topic: &'a str,
        payload: &'a [u8],
        forwarded: &'a [u8],
        qos: Qos,
        retain: bool,
        expires_at: Option<Timestamp>,
    ) -> Self {
        Publication {
            topic,
            payload,
            forwarded,
            qos,
            retain,
            expires_at,
            kept: None,
        }
    }

    /// A message that exists already.
    #[must_use]
    pub fn of(message: &'a LocalMessage) -> Self {
        Publication {
            topic: message.topic(),
            payload: message.payload(),
            forwarded: message.properties(),
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at,
            kept: Some(message.clone()),
        }
    }

    /// The message, made at the first call.
    pub fn keep(&mut self) -> &LocalMessage {
        self.kept.get_or_insert_with(|| {
            LocalMessage::new(Arc::new(Message::new(
                self.topic,
                self.forwarded,
                self.payload,
                self.qos,
                self.retain,
                self.expires_at,
            )))
        })
    }

    /// What is left of its expiry interval in whole seconds, rounded up `[MQTT-3.3.2-6]`.
    #[must_use]
    pub fn expiry_seconds(&self, now: Timestamp) -> Option<u32> {
        self.expires_at
            .map(|at| u32::try_from(at.ms_since(now).div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// Whether its expiry interval has passed.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

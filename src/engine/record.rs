//! What must be kept before an acknowledgement leaves.
//!
//! The core writes [`Persist`] effects with ascending tickets and is told the highest that is safe; an
//! acknowledgement that needs a ticket waits for it. QoS 0 and sessions that end with their connection never
//! come here. Who keeps them and how is not known here.

use crate::engine::message::Message;
use std::rc::Rc;
use std::sync::Arc;

/// Something to keep.
#[derive(Clone, Debug)]
pub enum Record {
    /// A QoS 1 or 2 message entered the queue of a session that outlives its connection.
    Queued {
        /// The session's client identifier.
        client_id: Rc<str>,
        /// The message.
        message: Arc<Message>,
    },
    /// A topic's retained message changed; an empty payload removes it.
    Retained {
        /// The new message.
        message: Arc<Message>,
    },
}

/// A record and its place in the order.
#[derive(Clone, Debug)]
pub struct Persist {
    /// Ascending by one.
    pub ticket: u64,
    /// What to keep.
    pub record: Record,
}

/// What has to be safe before an acknowledgement leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Everything up to this ticket is stored; 0 for nothing.
    pub ticket: u64,
    /// Everything retained up to this letter is visible to the shard that keeps it; 0 for nothing. Who
    /// hears of the acknowledgement and subscribes then finds no older value.
    pub letter: u64,
}

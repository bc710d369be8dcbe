//! What must be kept before an acknowledgement leaves: the changes of everything that outlives its
//! connection, one by one.
//!
//! The core writes [`Persist`] effects with ascending tickets and is told the highest that is safe; an
//! acknowledgement that needs a ticket waits for it. Played back in order, the records tell what there is:
//! sessions, their subscriptions, what is on its way to them, identifiers in use, wills, retained messages.
//! QoS 0 and sessions that end with their connection never come here, and nothing does where nothing is
//! stored.
//!
//! Invariants: a session's records stand between its [`Record::Opened`] and its [`Record::Ended`]; an
//! entry's between its [`Record::Queued`] and its [`Record::Settled`]. Who takes an entry over has its own
//! before the first is settled.
//!
//! Not here: who keeps them and how.

use crate::engine::access::acl::Acl;
use crate::engine::codec::Version;
use crate::engine::keys::{Origin, SessionNumber};
use crate::engine::message::{Message, Qos};
use crate::engine::session::Delivery;
use crate::engine::session::will::Will;
use crate::engine::time::Timestamp;
use std::rc::Rc;
use std::sync::Arc;

/// Something to keep. Times are the shard's; whoever keeps them makes them lasting.
#[derive(Clone, Debug)]
pub enum Record {
    /// A session that outlives its connection has got one: it is new, or taken up with what it has.
    Opened(Box<Opened>),
    /// It is to outlive its connection for another time.
    Expires {
        /// Which.
        session: SessionNumber,
        /// Seconds.
        seconds: u32,
    },
    /// Its connection has ended.
    Left {
        /// Which.
        session: SessionNumber,
        /// Since when it is alone.
        at: Timestamp,
    },
    /// It is gone with all it had, or ends with its connection from now on.
    Ended {
        /// Which.
        session: SessionNumber,
    },
    /// It subscribed, perhaps again.
    Subscribed(Box<Subscription>),
    /// It gave a subscription up.
    Unsubscribed {
        /// Which.
        session: SessionNumber,
        /// The filter, without share name.
        filter: Box<str>,
        /// The share name.
        share: Option<Arc<str>>,
    },
    /// A QoS 1 or 2 message is on its way to it.
    Queued {
        /// To which.
        session: SessionNumber,
        /// The message and how it is delivered; its `entry` names it from now on.
        delivery: Delivery,
        /// Of QoS 2: whose it is, until that publish is known to be complete. Otherwise it counts.
        origin: Option<Origin>,
    },
    /// It was sent for the first time.
    Sent {
        /// To which.
        session: SessionNumber,
        /// Which entry.
        entry: u64,
        /// Its packet identifier.
        packet_id: u16,
    },
    /// It goes to somebody else or is sent anew: its packet identifier is free.
    Unsent {
        /// To which.
        session: SessionNumber,
        /// Which entry.
        entry: u64,
    },
    /// PUBREC came: of the entry only its identifier is in use `[MQTT-4.3.3-6]`.
    Received {
        /// From which.
        session: SessionNumber,
        /// Which entry.
        entry: u64,
        /// Its packet identifier.
        packet_id: u16,
    },
    /// It is over: acknowledged, or dropped by a rule.
    Settled {
        /// Of which.
        session: SessionNumber,
        /// Which entry.
        entry: u64,
    },
    /// A QoS 2 publish of its client was accepted: with this identifier it is a repeat `[MQTT-4.3.3-10]`.
    Accepted {
        /// Whose.
        session: SessionNumber,
        /// Its packet identifier.
        packet_id: u16,
        /// If something of it is kept: its number, which is complete with that.
        number: u64,
    },
    /// QoS 2 publishes that came in by this shard are complete: what is kept of them counts, wherever it is.
    Complete {
        /// Those with higher numbers than this ...
        after: u64,
        /// ... up to this one.
        through: u64,
    },
    /// PUBREL came: the identifier means a new message `[MQTT-4.3.3-12]`.
    Released {
        /// Whose.
        session: SessionNumber,
        /// The packet identifier.
        packet_id: u16,
    },
    /// Its will was published or cancelled.
    WillGone {
        /// Whose.
        session: SessionNumber,
    },
    /// A topic's retained message changed; an empty payload removes it.
    Retained {
        /// The new message.
        message: Arc<Message>,
    },
    /// A topic has no retained message any more: there was no room for a newer one.
    RetainedGone {
        /// Which.
        topic: Box<str>,
    },
    /// How far it is told anew what there is.
    Checkpoint(Step),
}

impl Record {
    /// The session that it speaks of.
    #[must_use]
    pub fn session(&self) -> Option<SessionNumber> {
        Some(match self {
            Record::Opened(opened) => opened.session,
            Record::Subscribed(subscription) => subscription.session,
            Record::Expires { session, .. }
            | Record::Left { session, .. }
            | Record::Ended { session }
            | Record::Unsubscribed { session, .. }
            | Record::Queued { session, .. }
            | Record::Sent { session, .. }
            | Record::Unsent { session, .. }
            | Record::Received { session, .. }
            | Record::Settled { session, .. }
            | Record::Accepted { session, .. }
            | Record::Released { session, .. }
            | Record::WillGone { session } => *session,
            Record::Complete { .. }
            | Record::Retained { .. }
            | Record::RetainedGone { .. }
            | Record::Checkpoint(_) => return None,
        })
    }
}

/// A checkpoint tells all there is anew, over many turns, between the records of what changes meanwhile. When
/// it is safe to its end, what was told before its beginning is not needed any more.
///
/// Whoever has read all that came before passes over what is told anew. Whoever begins with it takes that,
/// and passes over changes to what is not told yet: it is told later as it is then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It begins.
    Begins,
    /// What follows is told anew.
    Restates,
    /// What follows are changes.
    Changes,
    /// It is through: all there is was told since its beginning.
    Ends,
}

/// A session as a connection has found or made it. What it has otherwise is not changed by that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub session: SessionNumber,
    /// Its client identifier.
    pub client_id: Rc<str>,
    /// Version of the connection.
    pub version: Version,
    /// Whose it is.
    pub user_name: Option<Box<str>>,
    /// Rules that its identity brought along, and the method that gave them.
    pub own_rules: Option<(&'static str, Arc<Acl>)>,
    /// Seconds it outlives its connection.
    pub expiry_seconds: u32,
    /// Most bytes that wait for it.
    pub queue_bytes_max: usize,
    /// The will of the connection.
    pub will: Option<Box<Will>>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Whose.
    pub session: SessionNumber,
    /// The filter, without share name.
    pub filter: Box<str>,
    /// The share name.
    pub share: Option<Arc<str>>,
    /// Its identifier, 0 for none.
    pub subscription_id: u32,
    /// Highest QoS.
    pub qos: Qos,
    /// Leave out what the session itself published.
    pub no_local: bool,
    /// Keep the publisher's RETAIN flag.
    pub retain_as_published: bool,
}

/// A record and its place in the order.
#[derive(Clone, Debug)]
pub struct Persist {
    /// Ascending by one.
    pub ticket: u64,
    /// What to keep.
    pub record: Record,
}

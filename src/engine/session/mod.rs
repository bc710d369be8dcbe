//! A session: what the broker keeps for a client identifier, connected or not (4.1).
//!
//! It lives on its home shard for its whole life. It owns subscriptions (by reference into the trie),
//! the window and queue toward the client, the identifiers of unfinished QoS 2 publishes from it, and
//! its will. It knows no socket: a connection is a handle.

pub mod aliases;
pub mod awaiting;
pub mod changing;
pub mod connection;
pub mod granted;
pub mod held;
pub mod holder;
pub mod id_runs;
pub mod inbound;
pub mod inflight;
pub mod left_out;
pub mod losses;
pub mod outbound;
pub mod rates;
pub mod replay;
pub mod stragglers;
pub mod tally;
pub mod unfinished;
pub mod will;

use crate::engine::codec::Version;
use crate::engine::keys::SessionNumber;
use crate::engine::keys::{ConnectionKey, GroupKey};
use crate::engine::limits::OwnQueue;
use crate::engine::message::{LocalMessage, Qos};
use crate::engine::route::TopicPart;
use crate::engine::route::trie::NodeId;
use crate::engine::time::Timestamp;
use hashbrown::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// A table with the same order of iteration in every run. Where its keys are text of clients, its hasher has
/// a seed of `crate::engine::hashing`.
pub type FixedMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// Session expiry interval that means never (3.1.2.11.2).
pub const EXPIRY_NEVER: u32 = u32::MAX;

/// Room for so many messages is kept when none is in flight, so that one at a time allocates nothing for it.
const IDLE_MESSAGES_MAX: usize = 8;

/// Subscription identifiers of one delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SubscriptionIds {
    /// None of the matching subscriptions has one.
    #[default]
    None,
    /// The usual case.
    One(u32),
    /// Several subscriptions match.
    Many(Rc<[u32]>),
}

impl SubscriptionIds {
    /// From one subscription, 0 meaning none.
    #[must_use]
    pub const fn one(id: u32) -> Self {
        if id == 0 {
            SubscriptionIds::None
        } else {
            SubscriptionIds::One(id)
        }
    }

    /// As a slice.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        match self {
            SubscriptionIds::None => &[],
            SubscriptionIds::One(id) => std::slice::from_ref(id),
            SubscriptionIds::Many(ids) => ids,
        }
    }
}

/// A message on its way to one session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What to deliver.
    pub message: LocalMessage,
    /// QoS of this delivery.
    pub qos: Qos,
    /// RETAIN flag of this delivery.
    pub retain: bool,
    /// Identifiers to name.
    pub subscription_ids: SubscriptionIds,
    /// The share group it was picked for, to pass it on if the session ends.
    pub group: Option<Rc<GroupKey>>,
    /// What the store calls it among what is on its way to the session, 0 for nothing.
    pub entry: u64,
    /// When it began to wait in the session's queue, in tenths of a second, 0 if that is not known.
    pub queued_at_ds: u32,
}

/// One subscription as the session remembers it. Where it stands among the session's others, the
/// subscriber in the trie knows: so it is found without a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRef {
    /// Where the trie has it.
    pub node: NodeId,
    /// Its share name.
    pub share: Option<Arc<str>>,
}

/// The state of one client.
#[derive(Debug)]
pub struct Session {
    /// Client identifier.
    pub client_id: Rc<str>,
    /// What the store calls it; `None` if it is not stored.
    pub number: Option<SessionNumber>,
    /// The last of its messages that the store was told of.
    pub last_entry: u64,
    /// Version of the last connection: queued messages are cut to it.
    pub version: Version,
    /// The connection, if there is one.
    pub connection: Option<ConnectionKey>,
    /// Seconds it outlives its connection.
    pub expiry_seconds: u32,
    /// Since when it has no connection, while it has none.
    pub left_at: Timestamp,
    /// When it ends, while it is without a connection.
    pub expires_at: Timestamp,
    /// What it subscribed to.
    pub subscriptions: Vec<SubscriptionRef>,
    /// Broker to client.
    pub outbound: outbound::Outbound,
    /// Client to broker.
    pub inbound: inbound::Inbound,
    /// Its will, while it is in force.
    pub will: Option<Box<will::Will>>,
    /// When the will is published, while it waits for its delay.
    pub will_at: Timestamp,
    /// Retained messages still on their way.
    pub replay: Option<Box<replay::Replay>>,
    /// Whose it is; `None` for anonymous clients where there are no rules.
    pub holder: Option<Box<holder::Holder>>,
    /// Most bytes that wait for it, as its last listener had it.
    pub queue_bytes_max: usize,
    /// Bounds of its queue that it has for itself beside that.
    pub own_queue: Option<Box<OwnQueue>>,
    /// The part of all topics that is for it, if others have the rest.
    pub part: Option<TopicPart>,
    /// What it has lost since it was last reported.
    pub losses: Option<Box<losses::Losses>>,
    /// Messages that it has lost since it began.
    pub lost_messages: u64,
    /// When its timer is set for.
    pub timer_at: Timestamp,
    /// The publish it was matched for last; tells whether another of its subscriptions matched.
    pub match_stamp: u64,
    /// Where that match stands.
    pub match_index: u32,
    /// Its subscriptions count as those of a session that outlives its connection: it did when it began.
    pub is_lasting: bool,
    /// Whether it has ever subscribed: live messages may have come then.
    pub has_subscribed: bool,
    /// Bytes of its subscriptions, about.
    pub subscribed_bytes: usize,
    /// The shortage of memory in which it has come to hold more, 0 for none.
    pub grew_in: u32,
}

/// What a subscription takes beyond its filter, about.
const SUBSCRIPTION_BYTES: usize = 256;
/// What a level of it takes that no other filter has: a node of the trie and how that is found.
const LEVEL_BYTES: usize = 88;

fn subscription_bytes(filter: &str) -> usize {
    let levels = 1 + filter.bytes().filter(|byte| *byte == b'/').count();
    filter.len() + levels * LEVEL_BYTES + SUBSCRIPTION_BYTES
}

impl Session {
    /// A new session for `client_id`.
    #[must_use]
    pub fn new(client_id: Rc<str>, version: Version) -> Self {
        Session {
            client_id,
            number: None,
            last_entry: 0,
            version,
            connection: None,
            expiry_seconds: 0,
            left_at: Timestamp::NEVER,
            expires_at: Timestamp::NEVER,
            subscriptions: Vec::new(),
            outbound: outbound::Outbound::default(),
            inbound: inbound::Inbound::default(),
            will: None,
            will_at: Timestamp::NEVER,
            replay: None,
            holder: None,
            queue_bytes_max: usize::MAX,
            own_queue: None,
            part: None,
            losses: None,
            lost_messages: 0,
            timer_at: Timestamp::NEVER,
            match_stamp: 0,
            match_index: 0,
            is_lasting: false,
            has_subscribed: false,
            subscribed_bytes: 0,
            grew_in: 0,
        }
    }

    /// From now on it counts in the sums of its shard, with what it has.
    pub fn count_in(&mut self, tally: Rc<tally::Tally>) {
        tally.subscribed(self.subscriptions.len() as isize);
        self.outbound.count_in(tally);
    }

    /// It counts no more.
    pub fn leave_tally(&mut self) {
        let subscriptions = self.subscriptions.len() as isize;
        self.outbound
            .tally(|tally| tally.subscribed(-subscriptions));
        self.outbound.leave_tally();
    }

    /// It has one more subscription, to this filter.
    pub fn count_subscription(&mut self, filter: &str) {
        self.outbound.tally(|tally| tally.subscribed(1));
        self.subscribed_bytes += subscription_bytes(filter);
    }

    /// It has one less.
    pub fn discount_subscription(&mut self, filter: &str) {
        self.outbound.tally(|tally| tally.subscribed(-1));
        let bytes = subscription_bytes(filter);
        self.subscribed_bytes = self.subscribed_bytes.saturating_sub(bytes);
    }

    /// Bytes that it holds beyond what any session does, about: messages on their way, subscriptions, will.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let held = self
            .replay
            .as_ref()
            .map_or(0, |replay| replay.held.bytes() + replay.left_out.bytes());
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| will.topic.len() + will.payload.len());
        self.outbound.held_bytes() + self.subscribed_bytes + held + will
    }

    /// Bounds of its queue, where these are the usual ones.
    #[must_use]
    pub fn queue_limits(&self, usual: &outbound::QueueLimits) -> outbound::QueueLimits {
        let own = self.own_queue.as_deref().copied().unwrap_or_default();
        outbound::QueueLimits {
            messages_max: own.messages_max.unwrap_or(usual.messages_max),
            bytes_max: self.queue_bytes_max,
            full: own.full.unwrap_or(usual.full),
        }
    }

    /// Whether it ends with its connection.
    #[must_use]
    pub const fn ends_with_connection(&self) -> bool {
        self.expiry_seconds == 0
    }

    /// When something is due for it.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        if self.connection.is_some() {
            return Timestamp::NEVER;
        }
        self.expires_at.min(self.will_at)
    }
}

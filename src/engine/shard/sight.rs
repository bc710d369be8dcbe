//! What operators see of a shard, and what they do to it by hand.
//!
//! Nothing here looks through all that there is: who asks goes on from place to place, as far as a turn goes.

use super::ShardCore;
use crate::engine::bridge;
use crate::engine::codec::Reason;
use crate::engine::codec::topic::{TopicFilter, TopicName};
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::message::Qos;
use crate::engine::route::retained::Answer;
use crate::engine::route::subscriber::Subscriber;
use crate::engine::route::trie::NodeId;
use crate::engine::session::Session;
use crate::engine::session::connection::Connection;
use crate::engine::session::outbound::QueueFull;
use crate::engine::time::Timestamp;
use std::sync::Arc;

/// A session and its connection, if there is one.
pub struct Sight<'a> {
    /// The session.
    pub session: &'a Session,
    /// Its connection.
    pub connection: Option<(ConnectionKey, &'a Connection)>,
}

/// A subscription as it stands.
pub struct Subscribed {
    /// Its filter, without the share name.
    pub filter: String,
    /// Its share name.
    pub share: Option<Arc<str>>,
    /// Its options.
    pub subscriber: Subscriber,
}

/// What would become of a message for one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent at once.
    Sent,
    /// It is sent when the connection has taken so many bytes that are before it.
    BehindUnsent(usize),
    /// It waits in the session's queue: its client is away.
    Kept,
    /// It waits in the session's queue: others are before it, or the client takes no more for now.
    Queued,
    /// It waits behind retained messages.
    BehindRetained,
    /// One member of the group gets it.
    OneOfGroup,
    /// Its client has published it and asks for none of its own.
    NoLocal,
    /// Its client may not read the topic.
    Denied,
    /// Another of a bridge's connections takes the topic: which.
    OtherConnection(u8),
    /// It is QoS 0, and its client is away.
    Absent,
    /// It is QoS 0, and its client reads too slowly.
    TooSlow,
    /// The queue is full.
    QueueFull,
}

impl ShardCore {
    /// Places for sessions, taken or not.
    #[must_use]
    pub fn session_places(&self) -> usize {
        self.clients.sessions.slots()
    }

    /// The session at a place.
    pub fn session_at(&mut self, place: usize) -> Option<SessionKey> {
        self.clients.sessions.key_at(place)
    }

    /// The session of a client identifier.
    #[must_use]
    pub fn session_of(&self, client_id: &str) -> Option<SessionKey> {
        self.clients.sessions.find(client_id)
    }

    /// What there is to see of a session.
    #[must_use]
    pub fn see(&self, key: SessionKey) -> Option<Sight<'_>> {
        let session = self.clients.sessions.get(key)?;
        let connection = session
            .connection
            .and_then(|key| Some((key, self.clients.connections.get(key)?)));
        Some(Sight {
            session,
            connection,
        })
    }

    /// For how many milliseconds the oldest of what is to reach a client has waited, in its session's queue
    /// or for its socket.
    #[must_use]
    pub fn waits_ms(&self, sight: &Sight<'_>, now: Timestamp) -> u64 {
        let sending = sight
            .connection
            .filter(|(_, connection)| connection.outbox.is_sending());
        let sending_ms = sending.map_or(0, |(_, connection)| {
            self.sampling
                .now_us
                .saturating_sub(connection.sending_since_us)
                / 1_000
        });
        sight.session.outbound.waits_ms(now).max(sending_ms)
    }

    /// Where subscriptions to exactly this filter stand.
    #[must_use]
    pub fn nodes_of(&self, filter: TopicFilter<'_>) -> Vec<NodeId> {
        self.trie.find(filter).into_iter().collect()
    }

    /// Where subscriptions that match this topic stand, in ascending order.
    #[must_use]
    pub fn nodes_matching(&self, topic: TopicName<'_>) -> Vec<NodeId> {
        let mut nodes = Vec::new();
        self.trie.matches(topic, &mut nodes);
        nodes.sort_unstable();
        nodes
    }

    /// A session's subscription, by its place among them.
    #[must_use]
    pub fn subscribed(&self, key: SessionKey, place: usize) -> Option<Subscribed> {
        let session = self.clients.sessions.get(key)?;
        let reference = session.subscriptions.get(place)?;
        let entry = self.trie.entry(reference.node)?;
        let subscriber = entry.find(key, reference.share.as_ref())?;
        Some(Subscribed {
            filter: self.trie.filter_text(reference.node),
            share: reference.share.clone(),
            subscriber: *subscriber,
        })
    }

    /// Whether a session's client may publish to a topic.
    #[must_use]
    pub fn may_publish(&self, key: SessionKey, topic: &str) -> bool {
        self.may_write(key, topic)
    }

    /// What would become of a message to `topic` that `publisher` publishes.
    #[must_use]
    pub fn verdict(
        &self,
        subscribed: &Subscribed,
        topic: &str,
        qos: Qos,
        publisher: Option<SessionKey>,
    ) -> Option<Verdict> {
        let subscriber = &subscribed.subscriber;
        let key = subscriber.session;
        let session = self.clients.sessions.get(key)?;
        let qos = qos.min(subscriber.qos);
        let other = session.part.filter(|part| !part.has(topic));
        Some(if let Some(part) = other {
            Verdict::OtherConnection(part.taker(topic))
        } else if subscriber.no_local && publisher == Some(key) {
            Verdict::NoLocal
        } else if !self.clients.may_get(key, subscriber.checked, topic) {
            Verdict::Denied
        } else if subscribed.share.is_some() {
            Verdict::OneOfGroup
        } else if subscriber.replaying {
            Verdict::BehindRetained
        } else {
            self.verdict_of_room(session, qos)
        })
    }

    fn verdict_of_room(&self, session: &Session, qos: Qos) -> Verdict {
        let limits = session.queue_limits(&self.settings.queue_limits());
        let outbound = &session.outbound;
        let has_place = limits.full == QueueFull::DropOldest
            || outbound.queued() < limits.messages_max && outbound.queue_bytes() < limits.bytes_max;
        let connection = session.connection;
        let connection = connection.and_then(|key| self.clients.connections.get(key));
        let Some(connection) = connection else {
            return match (qos, has_place) {
                (Qos::AtMostOnce, _) => Verdict::Absent,
                (_, true) => Verdict::Kept,
                (_, false) => Verdict::QueueFull,
            };
        };
        let is_behind = connection.outbox.bytes() > self.clients.shortage.qos_0_bytes_max;
        let sent = match connection.outbox.bytes() {
            0 => Verdict::Sent,
            unsent_bytes => Verdict::BehindUnsent(unsent_bytes),
        };
        if qos == Qos::AtMostOnce {
            return if is_behind { Verdict::TooSlow } else { sent };
        }
        let fits = !is_behind
            && !connection.is_throttled
            && outbound.queued() == 0
            && outbound.has_room(connection.window_max);
        match (fits, has_place) {
            (true, _) => sent,
            (false, true) => Verdict::Queued,
            (false, false) => Verdict::QueueFull,
        }
    }

    /// A step of a walk over retained messages, the broker's own if the filter begins so.
    #[must_use]
    pub fn retained_after(
        &self,
        filter: TopicFilter<'_>,
        after: Option<&Arc<str>>,
        now: Timestamp,
    ) -> Answer {
        let retained = self.retained_for(filter.as_str());
        retained.answer(filter, after, now)
    }

    /// Disconnects a client, telling it so; whether it was connected.
    pub fn expel(&mut self, now: Timestamp, client_id: &str, reason: Reason, text: &str) -> bool {
        let connection = self
            .session_of(client_id)
            .and_then(|key| self.clients.sessions.get(key)?.connection);
        if let Some(connection) = connection {
            self.disconnect(connection, reason, text, now);
        }
        connection.is_some()
    }

    /// Sends a client away for good, if it is there and has come by that listener: whether it was told.
    pub fn send_away(&mut self, now: Timestamp, key: ConnectionKey, listener: Option<u16>) -> bool {
        let connection = self.clients.connections.get(key);
        // What goes out by a bridge does so until the clients have gone, and a new line would come at once.
        let is_meant = |it: &Connection| match listener {
            Some(listener) => it.listener == listener,
            None => it.listener != bridge::LISTENER,
        };
        if !connection.is_some_and(is_meant) {
            return false;
        }
        self.clients.counters.connections_drained += 1;
        let text = "the broker is being drained";
        self.disconnect(key, Reason::ServerShuttingDown, text, now);
        true
    }

    /// Ends a session, with its connection if it has one; whether there was such a session.
    pub fn end_by_hand(&mut self, now: Timestamp, client_id: &str, text: &str) -> bool {
        let Some(key) = self.session_of(client_id) else {
            return false;
        };
        self.expel(now, client_id, Reason::AdministrativeAction, text);
        // One that outlives its connection.
        if self.clients.sessions.get(key).is_some() {
            self.end_session(key, now);
        }
        true
    }
}

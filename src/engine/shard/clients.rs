//! Sessions and connections of a shard, and the delivery of one publish to one of them.
//!
//! This is the inner loop of the broker: for QoS 0 a delivery is two table look-ups and one copy
//! into the outbox. A client that does not keep up costs the others nothing: its outbox and queue
//! are bounded, and what does not fit is dropped and counted, or waits in its session.

use super::Settings;
use super::journal::Journal;
use super::losses::{self, Losing};
use super::matches::Match;
use super::overload::Shortage;
use super::sessions::Sessions;
use crate::engine::codec::ack::Ack;
use crate::engine::codec::topic::TopicName;
use crate::engine::fanout::encoder::{Encoder, Form};
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::{ConnectionKey, OfConnection, SessionKey};
use crate::engine::message::{LocalMessage, Qos};
use crate::engine::outbox::{OutboxFull, SpareBuffers};
use crate::engine::overload::Stage;
use crate::engine::record::Record;
use crate::engine::session::connection::Connection;
use crate::engine::session::losses::LossReason;
use crate::engine::session::outbound::{Awaits, Enqueued, QueueLimits};
use crate::engine::session::{Delivery, SubscriptionIds};
use crate::engine::slots::Slots;
use crate::engine::telemetry::counters::Counters;
use crate::engine::time::Timestamp;
use std::rc::Rc;

pub(super) struct Clients {
    pub sessions: Sessions,
    pub connections: Slots<OfConnection, Connection>,
    pub encoder: Encoder,
    pub spare: SpareBuffers,
    pub counters: Counters,
    pub ready: Vec<ConnectionKey>,
    pub journal: Journal,
    /// While a publish from another shard is delivered: the last change of interest it has confirmed.
    pub routed_by: Option<u64>,
    pub shortage: Shortage,
    /// Sessions whose queue overflowed under the policy to disconnect.
    pub overflowed: Vec<SessionKey>,
    /// Connections that have to wait for deliveries; their timers are to be set.
    pub throttled: Vec<ConnectionKey>,
    pub losing: Losing,
    settings: Rc<Settings>,
}

impl Clients {
    pub(super) fn new(settings: Rc<Settings>) -> Self {
        Clients {
            sessions: Sessions::default(),
            connections: Slots::default(),
            encoder: Encoder::default(),
            spare: SpareBuffers::default(),
            counters: Counters::default(),
            ready: Vec::new(),
            journal: Journal::default(),
            routed_by: None,
            shortage: Shortage::new(Stage::Normal, settings.limits.outbox_bytes_max),
            overflowed: Vec::new(),
            throttled: Vec::new(),
            losing: Losing::default(),
            settings,
        }
    }

    pub(super) fn mark_ready(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_ready
        {
            connection.is_ready = true;
            self.ready.push(key);
        }
    }

    /// Appends a control packet. Returns whether the outbox is now so full that the client should not
    /// be read any more for now.
    pub(super) fn control(&mut self, key: ConnectionKey, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        write(connection.outbox.buffer(&mut self.spare));
        let is_full = connection.outbox.bytes() > self.settings.limits.outbox_bytes_max;
        self.mark_ready(key);
        is_full
    }

    /// Delivers a publish to a session that matched. The encoder has begun this publish.
    pub(super) fn deliver(
        &mut self,
        publication: &mut Publication<'_>,
        matched: &Match,
        now: Timestamp,
    ) {
        if matched.checked && !self.may_read(matched.session, publication.topic) {
            self.counters.dropped_not_authorized += 1;
            return;
        }
        let retain = publication.retain && matched.retain_as_published;
        let qos = publication.qos.min(matched.qos);
        let waits = matched.replaying
            || matched.group.is_some() && self.holds(matched.session, publication.topic);
        if waits && self.hold(publication, matched, qos, retain) {
            return;
        }
        let delivery = |publication: &mut Publication<'_>| Delivery {
            message: publication.keep().clone(),
            qos,
            retain,
            subscription_ids: matched.subscription_ids.clone(),
            group: matched.group.clone(),
        };
        self.offer(
            publication,
            matched.session,
            qos,
            retain,
            &matched.subscription_ids,
            delivery,
            now,
        );
    }

    /// Delivers a message that waited behind retained ones, or is one.
    pub(super) fn deliver_kept(&mut self, key: SessionKey, delivery: Delivery, now: Timestamp) {
        let message = delivery.message.clone();
        let mut publication = Publication::of(&message);
        if publication.is_expired(now) {
            self.counters.dropped_expired += 1;
            return;
        }
        if !self.may_read(key, publication.topic) {
            self.counters.dropped_not_authorized += 1;
            return;
        }
        self.encoder.begin();
        let ids = delivery.subscription_ids.clone();
        let (qos, retain) = (delivery.qos, delivery.retain);
        self.offer(&mut publication, key, qos, retain, &ids, |_| delivery, now);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the inner loop takes plain values"
    )]
    fn offer(
        &mut self,
        publication: &mut Publication<'_>,
        key: SessionKey,
        qos: Qos,
        retain: bool,
        subscription_ids: &SubscriptionIds,
        delivery: impl FnOnce(&mut Publication<'_>) -> Delivery,
        now: Timestamp,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(connection_key) = session.connection else {
            if qos == Qos::AtMostOnce {
                self.counters.dropped_client_absent += 1;
            } else {
                let delivery = delivery(publication);
                self.enqueue(key, delivery);
            }
            return;
        };
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return;
        };
        let is_fast = !connection.may_deliver(now);
        if is_fast {
            self.throttled.push(connection_key);
        }
        if qos == Qos::AtMostOnce {
            if is_fast {
                return self.lose(key, LossReason::RateLimited, 1);
            }
            let ids = subscription_ids.as_slice();
            return self.send_at_most_once(publication, key, connection_key, retain, ids, now);
        }
        let fits = !is_fast
            && session.outbound.queued() == 0
            && session.outbound.has_room(connection.window_max)
            && has_room(
                connection,
                publication,
                self.settings.limits.outbox_bytes_max,
            );
        let delivery = delivery(publication);
        if fits {
            if session.expiry_seconds > 0 {
                let client_id = Rc::clone(&session.client_id);
                let message = delivery.message.share();
                self.journal.put(Record::Queued { client_id, message });
            }
            self.send_windowed(publication, key, connection_key, delivery, now);
        } else {
            self.enqueue(key, delivery);
        }
    }

    /// Drops what has to be dropped so that a QoS 0 message finds room, or returns that it finds none.
    fn make_room(
        &mut self,
        publication: &Publication<'_>,
        session: SessionKey,
        key: ConnectionKey,
    ) -> bool {
        let bytes_max = self.shortage.qos_0_bytes_max;
        let reason = self.shortage.loss_reason();
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        let mut dropped = 0;
        if self.settings.outbox_full == OutboxFull::DropOldest {
            let bytes = publication_bytes(publication);
            dropped = connection.outbox.drop_oldest(bytes, bytes_max);
        }
        let fits = has_room(connection, publication, bytes_max);
        self.lose(session, reason, dropped as u64 + u64::from(!fits));
        fits
    }

    /// Counts messages that a session has lost, for all and for itself.
    fn lose(&mut self, key: SessionKey, reason: LossReason, count: u64) {
        if count == 0 {
            return;
        }
        *losses::counter(&mut self.counters, reason) += count;
        self.losing.add(&mut self.sessions, key, reason, count);
    }

    fn send_at_most_once(
        &mut self,
        publication: &mut Publication<'_>,
        session: SessionKey,
        key: ConnectionKey,
        retain: bool,
        subscription_ids: &[u32],
        now: Timestamp,
    ) {
        let bytes_max = self.shortage.qos_0_bytes_max;
        let oldest_give_way = self.settings.outbox_full == OutboxFull::DropOldest;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !has_room(connection, publication, bytes_max)
            && !self.make_room(publication, session, key)
        {
            return;
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let alias = connection.alias(publication.topic);
        let form = Form {
            version: connection.version,
            qos: Qos::AtMostOnce,
            retain,
            dup: false,
            packet_id: 0,
            subscription_ids,
            topic_alias: alias.number,
            alias_is_known: alias.is_known,
        };
        let put = self.encoder.put(
            publication,
            &form,
            now,
            connection.packet_bytes_max,
            &mut connection.outbox,
            &mut self.spare,
        );
        match put {
            Ok(copied_bytes) => {
                if oldest_give_way && alias.number == 0 {
                    let has_payload =
                        publication.payload.len() >= crate::engine::limits::COPY_BYTES_MAX;
                    connection.outbox.mark_droppable(copied_bytes, has_payload);
                }
                self.counters.messages_sent += 1;
                self.mark_ready(key);
            }
            Err(_) => {
                connection.take_back_alias(publication.topic, alias);
                self.lose(session, LossReason::TooLarge, 1);
            }
        }
    }

    /// Sends a QoS 1 or 2 message for which the window has room.
    fn send_windowed(
        &mut self,
        publication: &mut Publication<'_>,
        key: SessionKey,
        connection_key: ConnectionKey,
        delivery: Delivery,
        now: Timestamp,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return;
        };
        let alias = connection.alias(publication.topic);
        let ids = delivery.subscription_ids.clone();
        let (qos, retain) = (delivery.qos, delivery.retain);
        let packet_id = session.outbound.begin(delivery);
        let form = Form {
            version: connection.version,
            qos,
            retain,
            dup: false,
            packet_id,
            subscription_ids: ids.as_slice(),
            topic_alias: alias.number,
            alias_is_known: alias.is_known,
        };
        let put = self.encoder.put(
            publication,
            &form,
            now,
            connection.packet_bytes_max,
            &mut connection.outbox,
            &mut self.spare,
        );
        if put.is_ok() {
            self.counters.messages_sent += 1;
            self.mark_ready(connection_key);
        } else {
            // The client never learns of it; for the broker it counts as delivered [MQTT-3.1.2-25].
            connection.take_back_alias(publication.topic, alias);
            session.outbound.give_up(packet_id);
            self.lose(key, LossReason::TooLarge, 1);
        }
    }

    fn enqueue(&mut self, key: SessionKey, delivery: Delivery) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let queued = (session.expiry_seconds > 0).then(|| Record::Queued {
            client_id: Rc::clone(&session.client_id),
            message: delivery.message.share(),
        });
        let limits = QueueLimits {
            bytes_max: session.queue_bytes_max,
            ..self.settings.queue_limits()
        };
        match session.outbound.enqueue(delivery, &limits) {
            Enqueued::Yes => {}
            Enqueued::DroppedOldest(count) => self.lose(key, LossReason::QueueFull, count as u64),
            Enqueued::DroppedNewest => return self.lose(key, LossReason::QueueFull, 1),
            Enqueued::Disconnect => {
                self.lose(key, LossReason::QueueFull, 1);
                self.overflowed.push(key);
                return;
            }
        }
        if let Some(record) = queued {
            self.journal.put(record);
        }
    }

    /// Whether live messages of a topic wait in a session: a share group's must not overtake them.
    fn holds(&self, key: SessionKey, topic: &str) -> bool {
        let session = self.sessions.get(key);
        let replay = session.and_then(|session| session.replay.as_ref());
        replay.is_some_and(|replay| replay.holds(topic))
    }

    /// Puts a live message behind the retained ones that are still on their way.
    fn hold(
        &mut self,
        publication: &mut Publication<'_>,
        matched: &Match,
        qos: Qos,
        retain: bool,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(matched.session) else {
            return false;
        };
        let Some(replay) = &mut session.replay else {
            return false;
        };
        if publication.retain
            && matched.group.is_none()
            && let Some(confirmed) = self.routed_by
        {
            let topic = TopicName::trusted(publication.topic);
            if replay.is_unknown(topic, matched.joined as usize, confirmed) {
                // The retained messages that are due are as new.
                return true;
            }
        }
        let message = publication.keep().clone();
        let limits = self.settings.queue_limits();
        if replay.held.len() >= limits.messages_max
            || replay.held_bytes + message.size_bytes() > limits.bytes_max
        {
            self.lose(matched.session, LossReason::ReplayFull, 1);
            return true;
        }
        replay.held_bytes += message.size_bytes();
        let subscription_ids = matched.subscription_ids.clone();
        let group = matched.group.clone();
        replay.held.push(Delivery {
            message,
            qos,
            retain,
            subscription_ids,
            group,
        });
        true
    }

    /// Sends what waits in a session's queue as far as window and outbox have room.
    pub(super) fn pump(&mut self, key: SessionKey, now: Timestamp) {
        if self
            .sessions
            .get(key)
            .is_some_and(|session| session.outbound.is_held_back())
        {
            self.resend_held_back(key, now);
        }
        loop {
            let Some(session) = self.sessions.get_mut(key) else {
                return;
            };
            if session.outbound.queued() == 0 {
                return;
            }
            let Some(connection_key) = session.connection else {
                return;
            };
            let Some(connection) = self.connections.get_mut(connection_key) else {
                return;
            };
            let bytes_max = self.settings.limits.outbox_bytes_max;
            if !session.outbound.has_room(connection.window_max)
                || connection.outbox.bytes() > bytes_max / 2
            {
                return;
            }
            if !connection.may_deliver(now) {
                return self.throttled.push(connection_key);
            }
            let Some(delivery) = session.outbound.dequeue() else {
                return;
            };
            let message = delivery.message.clone();
            let mut publication = Publication::of(&message);
            if publication.is_expired(now) {
                self.counters.dropped_expired += 1;
                continue;
            }
            self.encoder.begin();
            self.send_windowed(&mut publication, key, connection_key, delivery, now);
        }
    }

    /// Sends again what a resumed session had not finished, in its first order, with DUP set and the
    /// old identifiers `[MQTT-4.4.0-1]` `[MQTT-3.3.1-1]`.
    pub(super) fn resend(&mut self, key: SessionKey, now: Timestamp) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.outbound.hold_back();
        }
        self.resend_held_back(key, now);
    }

    /// Sends again what was held back, as far as the client has room.
    fn resend_held_back(&mut self, key: SessionKey, now: Timestamp) {
        while let Some((packet_id, fits)) = self.resend_one(key, now) {
            if !fits {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.outbound.give_up(packet_id);
                }
                self.lose(key, LossReason::TooLarge, 1);
            }
        }
    }

    /// Sends one message again. Returns which, and whether the client takes it; `None` if there is none,
    /// or no room.
    fn resend_one(&mut self, key: SessionKey, now: Timestamp) -> Option<(u16, bool)> {
        let session = self.sessions.get_mut(key)?;
        let connection_key = session.connection?;
        let connection = self.connections.get_mut(connection_key)?;
        let version = connection.version;
        let entry = session.outbound.next_held_back(connection.window_max)?;
        let packet_id = entry.packet_id;
        if entry.awaits == Awaits::Pubcomp {
            let release = Ack {
                kind: crate::engine::codec::PacketType::Pubrel,
                packet_id,
                reason: crate::engine::codec::Reason::Success,
            };
            release.encode(version, connection.outbox.buffer(&mut self.spare));
            self.mark_ready(connection_key);
            return Some((packet_id, true));
        }
        let Some(delivery) = &entry.delivery else {
            return Some((packet_id, true));
        };
        let mut publication = Publication::of(&delivery.message);
        let form = Form {
            version,
            qos: delivery.qos,
            retain: delivery.retain,
            dup: true,
            packet_id,
            subscription_ids: delivery.subscription_ids.as_slice(),
            topic_alias: 0,
            alias_is_known: false,
        };
        self.encoder.begin();
        let put = self.encoder.put(
            &mut publication,
            &form,
            now,
            connection.packet_bytes_max,
            &mut connection.outbox,
            &mut self.spare,
        );
        self.counters.messages_sent += u64::from(put.is_ok());
        self.mark_ready(connection_key);
        Some((packet_id, put.is_ok()))
    }

    /// The message of a retained answer as a delivery.
    pub(super) fn retained_delivery(
        message: &LocalMessage,
        qos: Qos,
        subscription_id: u32,
    ) -> Delivery {
        Delivery {
            message: message.clone(),
            qos: message.qos.min(qos),
            retain: true,
            subscription_ids: SubscriptionIds::one(subscription_id),
            group: None,
        }
    }
}

fn publication_bytes(publication: &Publication<'_>) -> usize {
    publication.topic.len() + publication.forwarded.len() + publication.payload.len() + 32
}

/// Whether the outbox takes the publish. An empty one takes any: a message larger than the bound must
/// still be deliverable.
fn has_room(connection: &Connection, publication: &Publication<'_>, bytes_max: usize) -> bool {
    let bytes = connection.outbox.bytes();
    bytes == 0 || bytes + publication_bytes(publication) <= bytes_max
}

//! The delivery of one publish to one session.
//!
//! This is the inner loop of the broker: for QoS 0 a delivery is two table look-ups and one copy
//! into the outbox. A client that does not keep up costs the others nothing: its outbox and queue
//! are bounded, and what does not fit is dropped and counted, or waits in its session.
//!
//! Not here: QoS 1 and 2 beyond the question whether a message goes now or waits (`super::window`).

use super::clients::Clients;
use super::keeping::keep_entry;
use super::matches::Match;
use crate::engine::fanout::encoder::{Form, packet_bytes};
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::limits::COPY_BYTES_MAX;
use crate::engine::message::Qos;
use crate::engine::outbox::OutboxFull;
use crate::engine::route::subscriber::Subscriber;
use crate::engine::session::connection::Connection;
use crate::engine::session::losses::LossReason;
use crate::engine::session::{Delivery, Session, SubscriptionIds};
use crate::engine::time::Timestamp;

impl Clients {
    /// Delivers a publish to a session that matched. The encoder has begun this publish.
    pub(super) fn deliver(
        &mut self,
        publication: &mut Publication<'_>,
        matched: &Match,
        now: Timestamp,
    ) {
        if !self.may_get(matched.session, matched.checked, publication.topic) {
            return self.count_denied(matched.session, publication.topic);
        }
        let retain = publication.retain && matched.retain_as_published;
        let qos = publication.qos.min(matched.qos);
        if self.passes_lasting_by && qos == Qos::ExactlyOnce && self.is_passed_by(matched) {
            return;
        }
        let delivery = |publication: &mut Publication<'_>| Delivery {
            message: publication.keep().clone(),
            qos,
            retain,
            subscription_ids: matched.subscription_ids.clone(),
            group: matched.group.clone(),
            entry: 0,
            queued_at_ds: 0,
        };
        self.offer(
            publication,
            matched.session,
            Some(matched),
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
            return self.settle(key, delivery.entry);
        }
        if !self.may_read(key, publication.topic) {
            self.count_denied(key, publication.topic);
            return self.settle(key, delivery.entry);
        }
        self.encoder.begin();
        let ids = delivery.subscription_ids.clone();
        let (qos, retain) = (delivery.qos, delivery.retain);
        self.offer(
            &mut publication,
            key,
            None,
            qos,
            retain,
            &ids,
            |_| delivery,
            now,
        );
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the inner loop takes plain values"
    )]
    fn offer(
        &mut self,
        publication: &mut Publication<'_>,
        key: SessionKey,
        live: Option<&Match>,
        qos: Qos,
        retain: bool,
        subscription_ids: &SubscriptionIds,
        delivery: impl FnOnce(&mut Publication<'_>) -> Delivery,
        now: Timestamp,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.replay.is_some()
            && let Some(matched) = live
        {
            if !self.hold(publication, matched, qos, retain) {
                let ids = subscription_ids;
                self.offer(publication, key, None, qos, retain, ids, delivery, now);
            }
            return;
        }
        let Some(connection_key) = session.connection else {
            if qos == Qos::AtMostOnce {
                self.counters.dropped_client_absent += 1;
            } else {
                let delivery = delivery(publication);
                self.enqueue(key, delivery, now);
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
            let fits = has_room(connection, publication, self.shortage.qos_0_bytes_max);
            if fits || self.make_room(publication, key, connection_key) {
                let ids = subscription_ids.as_slice();
                self.send_at_most_once(publication, key, connection_key, retain, ids, now);
            }
            return;
        }
        let fits = !is_fast
            && session.outbound.queued() == 0
            && session.outbound.has_room(connection.window_max)
            && has_room(
                connection,
                publication,
                self.settings.limits.outbox_bytes_max,
            );
        let mut delivery = delivery(publication);
        if fits {
            self.shortage.note_growth(session);
            keep_entry(session, &mut self.journal, &mut delivery);
            self.send_windowed(publication, key, connection_key, delivery, now);
        } else {
            self.enqueue(key, delivery, now);
        }
    }

    /// Whether a share group's message is within what the client of a member takes; one that is away may take
    /// anything.
    pub(super) fn takes(
        &self,
        session: &Session,
        subscriber: &Subscriber,
        publication: &Publication<'_>,
        now: Timestamp,
    ) -> bool {
        let qos = publication.qos.min(subscriber.qos);
        let ids = SubscriptionIds::one(subscriber.subscription_id);
        let connection = session.connection.and_then(|key| self.connections.get(key));
        connection.is_none_or(|connection| fits(connection, publication, qos, &ids, now))
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

    /// Appends a message to an outbox that has room for it.
    fn send_at_most_once(
        &mut self,
        publication: &mut Publication<'_>,
        session: SessionKey,
        key: ConnectionKey,
        retain: bool,
        subscription_ids: &[u32],
        now: Timestamp,
    ) {
        let oldest_give_way = self.settings.outbox_full == OutboxFull::DropOldest;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let form = Form {
            retain,
            ..Form::plain(connection.version, Qos::AtMostOnce, subscription_ids)
        };
        let (encoder, spare) = (&mut self.encoder, &mut self.spare);
        match encoder.put_with_alias(publication, form, now, connection, spare) {
            Ok((copied_bytes, has_alias)) => {
                if oldest_give_way && !has_alias {
                    let has_payload = publication.payload.len() >= COPY_BYTES_MAX;
                    connection.outbox.mark_droppable(copied_bytes, has_payload);
                }
                self.counters.messages_sent += 1;
                connection.sent_messages += 1;
                self.ready.mark(key, connection);
            }
            Err(_) => self.lose(session, LossReason::TooLarge, 1),
        }
    }
}

/// Whether a publish without a topic alias is within what a connection's client takes.
pub(super) fn fits(
    connection: &Connection,
    publication: &Publication<'_>,
    qos: Qos,
    subscription_ids: &SubscriptionIds,
    now: Timestamp,
) -> bool {
    let max = connection.packet_bytes_max;
    if max == u32::MAX {
        return true;
    }
    let form = Form::plain(connection.version, qos, subscription_ids.as_slice());
    packet_bytes(publication, &form, now) <= max as usize
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

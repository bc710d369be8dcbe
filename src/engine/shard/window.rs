//! QoS 1 and 2 toward a client: through its window if that has room, else into its session's queue; and
//! again what a resumed session had not finished.

use super::ShardCore;
use super::clients::{Clients, PassedOn};
use super::deliver::fits;
use super::keeping::{number_entry, settle_entry};
use super::once::Unsent;
use crate::engine::codec::ack::Ack;
use crate::engine::codec::{PacketType, Reason};
use crate::engine::fanout::encoder::Form;
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::message::Qos;
use crate::engine::overload::SHED_OUTBOX_BYTES_MAX;
use crate::engine::record::Record;
use crate::engine::session::Delivery;
use crate::engine::session::inflight::Awaits;
use crate::engine::session::losses::LossReason;
use crate::engine::session::outbound::Enqueued;
use crate::engine::time::Timestamp;

impl Clients {
    /// Sends a QoS 1 or 2 message for which the window has room.
    pub(super) fn send_windowed(
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
        let ids = delivery.subscription_ids.clone();
        let (qos, retain) = (delivery.qos, delivery.retain);
        if delivery.group.is_some() && !fits(connection, publication, qos, &ids, now) {
            // It waited for a client that took more, or for none.
            return self.passed_on.push_back(PassedOn {
                from: key,
                entry: delivery.entry,
                delivery,
            });
        }
        let entry = delivery.entry;
        let packet_id = session.outbound.begin(delivery);
        if entry > 0
            && let Some(number) = session.number
        {
            self.journal.put(Record::Sent {
                session: number,
                entry,
                packet_id,
            });
            if qos == Qos::ExactlyOnce {
                return self.journal.wait_to_send(Unsent {
                    session: key,
                    number,
                    connection: connection_key,
                    entry,
                    packet_id,
                });
            }
        }
        let form = Form {
            retain,
            packet_id,
            ..Form::plain(connection.version, qos, ids.as_slice())
        };
        self.send_begun(publication, key, connection_key, &form, now);
    }

    /// Sends a message of QoS 2 whose identifier is stored by now. False if it is not to be sent any more, so
    /// that the window may have room.
    fn send_stored(&mut self, unsent: Unsent, now: Timestamp) -> bool {
        let key = unsent.session;
        let Some(session) = self.sessions.get_mut(key) else {
            return true;
        };
        // A later connection has got it with all that was unfinished.
        if session.connection != Some(unsent.connection) {
            return true;
        }
        let Some(delivery) = session.outbound.unreceived(unsent.packet_id, unsent.entry) else {
            return true;
        };
        let delivery = delivery.clone();
        let mut publication = Publication::of(&delivery.message);
        let ids = delivery.subscription_ids.as_slice();
        let form = Form {
            retain: delivery.retain,
            packet_id: unsent.packet_id,
            ..Form::plain(session.version, delivery.qos, ids)
        };
        self.encoder.begin();
        self.send_begun(&mut publication, key, unsent.connection, &form, now)
    }

    /// Sends a message for the first time that is in the window; false if its client does not take it.
    fn send_begun(
        &mut self,
        publication: &mut Publication<'_>,
        key: SessionKey,
        connection_key: ConnectionKey,
        form: &Form<'_>,
        now: Timestamp,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return false;
        };
        let (encoder, spare) = (&mut self.encoder, &mut self.spare);
        let put = encoder.put_with_alias(publication, *form, now, connection, spare);
        if put.is_ok() {
            self.counters.messages_sent += 1;
            connection.sent_messages += 1;
            self.ready.mark(connection_key, connection);
            return true;
        }
        // The client never learns of it; for the broker it counts as delivered [MQTT-3.1.2-25].
        if let Some(session) = self.sessions.get_mut(key) {
            let (entry, _) = session.outbound.give_up(form.packet_id);
            settle_entry(session, &mut self.journal, entry);
        }
        self.lose(key, LossReason::TooLarge, 1);
        false
    }

    /// Puts a message into a session's queue, or does what the policy says if that is full.
    pub(super) fn enqueue(&mut self, key: SessionKey, mut delivery: Delivery, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let known = delivery.entry;
        if self.shortage.is_frugal() {
            // Who is away may never come, and keep it for good; who is there may leave.
            let held = session.outbound.queue_bytes();
            let is_away = session.connection.is_none();
            let may_grow = if is_away {
                held + delivery.message.size_bytes() <= self.shortage.away_bytes_max
            } else {
                held <= SHED_OUTBOX_BYTES_MAX
            };
            if !may_grow {
                settle_entry(session, &mut self.journal, known);
                return self.lose(key, LossReason::MemoryShort, 1);
            }
            if !is_away {
                self.shortage.note_growth(session);
            }
        }
        delivery.queued_at_ds = now.as_ds();
        let is_new = number_entry(session, &mut delivery);
        let queued = session.number.filter(|_| is_new);
        let queued = queued.map(|session| (session, delivery.clone()));
        let limits = session.queue_limits(&self.settings.queue_limits());
        if let Some(own) = session.own_queue.as_deref() {
            if let Some(age_ms_max) = own.age_ms_max {
                self.aging.note(now.plus_ms(age_ms_max));
            }
            if own.tells && session.connection.is_none() && session.outbound.queued() == 0 {
                self.wanted.push(key);
            }
        }
        match session.outbound.enqueue(delivery, &limits) {
            Enqueued::Yes => {}
            Enqueued::DroppedOldest { count, entries } => {
                for entry in entries {
                    settle_entry(session, &mut self.journal, entry);
                }
                self.lose(key, LossReason::QueueFull, count as u64);
            }
            Enqueued::DroppedNewest => {
                settle_entry(session, &mut self.journal, known);
                return self.lose(key, LossReason::QueueFull, 1);
            }
            Enqueued::Disconnect => {
                settle_entry(session, &mut self.journal, known);
                self.lose(key, LossReason::QueueFull, 1);
                self.overflowed.push(key);
                return;
            }
        }
        if let Some((session, delivery)) = queued {
            let origin = self.journal.once.origin_at_hand(delivery.qos);
            self.journal.queue(session, delivery, origin);
        }
    }

    /// Whether a session waits for its connection to have room: else there is nothing to pump.
    #[inline]
    pub(super) fn is_owed(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            let outbound = &session.outbound;
            outbound.queued() > 0 || session.replay.is_some() || outbound.is_held_back()
        })
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
                settle_entry(session, &mut self.journal, delivery.entry);
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
            if fits {
                continue;
            }
            let Some(session) = self.sessions.get_mut(key) else {
                return;
            };
            // Of QoS 2 its client may have it by an earlier connection, and would take another message with
            // its identifier for it: that is free when PUBREL and PUBCOMP have gone.
            if let Some(entry) = session.outbound.pubrec(packet_id) {
                self.give_half_up(key, entry, packet_id);
                continue;
            }
            let (entry, left) = session.outbound.give_up(packet_id);
            match left.filter(|delivery| delivery.group.is_some()) {
                // Another member of the group may take it, and has it before it is settled here.
                Some(delivery) => {
                    self.keep(key, |session| Record::Unsent { session, entry });
                    let from = key;
                    self.passed_on.push_back(PassedOn {
                        delivery,
                        from,
                        entry,
                    });
                }
                None => {
                    settle_entry(session, &mut self.journal, entry);
                    self.lose(key, LossReason::TooLarge, 1);
                }
            }
        }
    }

    /// A message of QoS 2 is not sent again, and counts as delivered; its identifier is still in use.
    fn give_half_up(&mut self, key: SessionKey, entry: u64, packet_id: u16) {
        if entry > 0 {
            self.keep(key, |session| Record::Received {
                session,
                entry,
                packet_id,
            });
        }
        let session = self.sessions.get(key);
        let connection = session.and_then(|session| session.connection);
        self.given_up.extend(connection.map(|it| (it, packet_id)));
        self.lose(key, LossReason::TooLarge, 1);
    }

    /// Sends one message again. Returns which, and whether the client takes it; `None` if there is none,
    /// or no room.
    fn resend_one(&mut self, key: SessionKey, now: Timestamp) -> Option<(u16, bool)> {
        let session = self.sessions.get_mut(key)?;
        let connection_key = session.connection?;
        let connection = self.connections.get_mut(connection_key)?;
        let version = connection.version;
        let (first, number) = (session.outbound.first_held_back()?, session.number);
        if self.journal.once.holds_resumed(number, first.entry, key) {
            return None;
        }
        let entry = session.outbound.next_held_back(connection.window_max)?;
        let packet_id = entry.packet_id;
        if entry.awaits == Awaits::Pubcomp {
            let release = Ack {
                kind: PacketType::Pubrel,
                packet_id,
                reason: Reason::Success,
            };
            release.encode(version, connection.outbox.buffer(&mut self.spare));
            self.traffic.send(PacketType::Pubrel.first_byte());
            self.ready.mark(connection_key, connection);
            return Some((packet_id, true));
        }
        let Some(delivery) = &entry.delivery else {
            return Some((packet_id, true));
        };
        let mut publication = Publication::of(&delivery.message);
        let form = Form {
            retain: delivery.retain,
            dup: true,
            packet_id,
            ..Form::plain(version, delivery.qos, delivery.subscription_ids.as_slice())
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
        connection.sent_messages += u64::from(put.is_ok());
        self.ready.mark(connection_key, connection);
        Some((packet_id, put.is_ok()))
    }
}

impl ShardCore {
    /// Sends the messages of QoS 2 whose identifiers are stored by now, and that are complete: sent before,
    /// one would come a second time with another identifier if the broker forgot the first.
    pub(super) fn send_stored(&mut self, now: Timestamp) {
        while let Some(unsent) = self.clients.journal.next_to_send() {
            let key = unsent.session;
            if !self.clients.send_stored(unsent, now) && self.clients.is_owed(key) {
                self.clients.pump(key, now);
                self.pump_replay(key, now);
            }
        }
        self.resume_decided(now);
    }
}

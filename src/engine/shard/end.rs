//! The ends of connections and sessions, and what becomes of a will (3.1.2.5, 3.14, 4.1).

use super::admission::Place;
use super::filters::Asker;
use super::keeping::entries_of;
use super::refusals::RESERVED;
use super::{Command, ShardCore};
use crate::engine::codec::Reason;
use crate::engine::codec::control::{Disconnect, encode_disconnect};
use crate::engine::codec::topic::is_reserved;
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::mail::Passed;
use crate::engine::record::Record;
use crate::engine::session::connection::Connection;
use crate::engine::session::will::Will;
use crate::engine::session::{EXPIRY_NEVER, Session};
use crate::engine::telemetry::notes::{Event, Gone};
use crate::engine::time::Timestamp;
use crate::engine::timer::Owner;

/// What the end of a connection means for the will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WillFate {
    /// It is published, after its delay.
    Due,
    /// The client cancelled it `[MQTT-3.14.4-3]`.
    Cancelled,
}

impl ShardCore {
    /// No more bytes come from the connection, without DISCONNECT: its will is due.
    ///
    /// What it sent before and what still waits is handled first.
    pub fn receive_ended(&mut self, now: Timestamp, key: ConnectionKey) {
        if let Some(connection) = self.clients.connections.get_mut(key)
            && (connection.hold.is_some() || connection.is_asking())
        {
            connection.has_ended = true;
            return;
        }
        self.drop_connection_with(key, WillFate::Due, now);
    }

    /// How a connection ended of which no more bytes come: the first that is told counts.
    pub fn note_gone(&mut self, key: ConnectionKey, how: Gone) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.gone.get_or_insert(how);
        }
    }

    /// The same of one that has not sent its CONNECT, before it is forgotten; `during` is how far it had
    /// come in what lies under MQTT, if it is not through that.
    pub fn note_gone_early(&mut self, key: ConnectionKey, how: Gone, during: Option<&'static str>) {
        let Some(connection) = self.clients.connections.get(key) else {
            return;
        };
        let has_connected = connection.session.is_some() || connection.gate.is_some();
        let is_heard = connection.gone.is_some() || connection.hold.is_some();
        if has_connected || is_heard || connection.is_adopted {
            return;
        }
        let of_connect = match connection.unparsed_bytes() {
            0 => "before its CONNECT",
            _ => "with half a CONNECT",
        };
        let during = during.unwrap_or(of_connect);
        self.note(key, "", None, Event::GoneEarly { how, during });
    }

    /// What lies under MQTT broke, and the connection will end by it: why is told with its client's names.
    /// False if none is known yet.
    pub fn note_broken(&mut self, key: ConnectionKey, text: &str) -> bool {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return false;
        };
        if connection.session.is_some() {
            connection.goodbye = Some((Reason::Success, text.into()));
            return true;
        }
        self.note_gate(key, Reason::Success, text)
    }

    /// Closes a connection that has no session, saying nothing beyond what its outbox holds.
    pub(super) fn drop_connection(&mut self, key: ConnectionKey) {
        let connection = self.clients.connections.get(key);
        if connection.is_some_and(|connection| self.finds_no_place(connection)) {
            return self.abort_connection(key);
        }
        if self.traces.is_on() {
            self.trace_rest(key);
        }
        if let Some(mut connection) = self.forget_connection(key) {
            let place = self.admission.place_of_refused(&mut connection);
            self.close_after(key, &mut connection, Some(place));
        }
    }

    /// Closes a connection that has no session at once, saying nothing at all.
    pub(super) fn abort_connection(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.forget_connection(key) {
            let listener = connection.listener;
            self.admission.counts.leave(listener);
            self.admission.settle(connection.connects_from, listener);
            self.commands.push(Command::Abort(key));
        }
    }

    fn forget_connection(&mut self, key: ConnectionKey) -> Option<Connection> {
        let connection = self.clients.connections.vacate(key)?;
        debug_assert!(connection.session.is_none());
        let never = Timestamp::NEVER;
        self.timers
            .set(connection.timer_at, never, Owner::Connection(key));
        if connection.waits_for_memory {
            self.forget_waiting(key);
        }
        Some(connection)
    }

    /// Has one closed that is forgotten, when its last bytes are out.
    fn close_after(
        &mut self,
        key: ConnectionKey,
        connection: &mut Connection,
        place: Option<Place>,
    ) {
        let rest = connection.outbox.take_rest();
        self.commands.push(Command::Close {
            connection: key,
            rest,
            place,
        });
    }

    /// The socket of a closed connection is gone, and somebody else may have its place, if it took one.
    pub fn vacate(&mut self, place: Option<Place>) {
        if let Some(place) = place {
            self.admission.vacate(place);
        }
    }

    fn drop_connection_with(&mut self, key: ConnectionKey, fate: WillFate, now: Timestamp) {
        match self.clients.connections.get(key) {
            Some(connection) if connection.session.is_some() => self.detach(key, fate, now),
            _ => self.drop_connection(key),
        }
    }

    /// Tells a client why (5.0 only) and closes; its will is due.
    pub(super) fn disconnect(
        &mut self,
        key: ConnectionKey,
        reason: Reason,
        text: &str,
        now: Timestamp,
    ) {
        self.say_goodbye(key, reason, text);
        self.drop_connection_with(key, WillFate::Due, now);
    }

    /// Appends a DISCONNECT for a client that was accepted and speaks 5.0 `[MQTT-3.14.0-1]`.
    pub(super) fn say_goodbye(&mut self, key: ConnectionKey, reason: Reason, text: &str) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        connection.goodbye = Some((reason, text.into()));
        if connection.session.is_none() || !connection.version.is_v5() {
            return;
        }
        let packet_bytes_max = connection.packet_bytes_max;
        let settings = std::rc::Rc::clone(&self.settings);
        let reference = settings
            .server_reference
            .as_deref()
            .filter(|_| reason == Reason::ServerShuttingDown);
        let reason = match reference {
            // A client that is to go elsewhere is told so by the reason, too (4.13.2).
            Some(_) => Reason::UseAnotherServer,
            None => reason,
        };
        self.control(key, |out| {
            encode_disconnect(reason, Some(text), reference, packet_bytes_max, out);
        });
    }

    /// A client's DISCONNECT (3.14.4).
    pub(super) fn client_disconnects(
        &mut self,
        key: ConnectionKey,
        disconnect: Disconnect,
        now: Timestamp,
    ) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        // What came after it is in order.
        connection.gone = None;
        if let Some(asked) = disconnect.session_expiry_seconds {
            if connection.asked_expiry_seconds == 0 && asked != 0 {
                let text = "session expiry interval raised from 0";
                return self.violation(key, Reason::ProtocolError, text, now);
            }
            let granted = asked.min(self.settings.session_expiry_seconds_max);
            if let Some(session_key) = connection.session
                && let Some(session) = self.clients.sessions.get_mut(session_key)
                && session.expiry_seconds != granted
            {
                session.expiry_seconds = granted;
                let seconds = granted;
                self.clients
                    .keep(session_key, |session| Record::Expires { session, seconds });
            }
        }
        let fate = if disconnect.reason == Reason::Success {
            WillFate::Cancelled
        } else {
            WillFate::Due
        };
        self.drop_connection_with(key, fate, now);
    }

    /// Parts a connection from its session and closes it. The session ends, or waits for its client.
    pub(super) fn detach(&mut self, key: ConnectionKey, fate: WillFate, now: Timestamp) {
        if self.traces.is_on() {
            self.trace_rest(key);
        }
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let Some(session_key) = connection.session.take() else {
            return;
        };
        let changing = connection.changing.take();
        let version = connection.version;
        let event = match (connection.goodbye.take(), connection.gone) {
            (Some((reason, text)), _) => {
                let reason = reason.byte();
                Event::Disconnected { reason, text }
            }
            (None, Some(how)) => Event::Gone(how),
            (None, None) => {
                let (reason, text) = (0, Box::default());
                Event::Disconnected { reason, text }
            }
        };
        self.sum_up_denials(session_key);
        self.note_session(session_key, event);
        if let Some(mut connection) = self.forget_connection(key) {
            self.admission.counts.leave(connection.listener);
            self.close_after(key, &mut connection, None);
        }
        let Some(session) = self.clients.sessions.get_mut(session_key) else {
            return;
        };
        session.connection = None;
        session.left_at = now;
        let is_cancelled = fate == WillFate::Cancelled && session.will.take().is_some();
        let expiry_seconds = session.expiry_seconds;
        let delay = will_delay(session);
        if is_cancelled {
            self.keep_will_gone(session_key);
        }
        if delay == Some(0) {
            self.publish_will(session_key, Some(key), now);
        }
        if expiry_seconds == 0 {
            self.end_session(session_key, now);
        } else {
            let at = now;
            self.clients
                .keep(session_key, |session| Record::Left { session, at });
            self.groups_changed(session_key);
            self.begin_to_wait(session_key);
        }
        if let Some(changing) = changing {
            let asker = Asker {
                connection: key,
                session: session_key,
                version,
            };
            self.end_filters(now, asker, *changing);
        }
    }

    /// Sets when the will and the end of a session are due that is alone.
    pub(super) fn begin_to_wait(&mut self, key: SessionKey) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let after = |seconds| session.left_at.plus_seconds(seconds);
        session.will_at = will_delay(session).map_or(Timestamp::NEVER, after);
        session.expires_at = match session.expiry_seconds {
            EXPIRY_NEVER => Timestamp::NEVER,
            seconds => after(seconds),
        };
        self.arm_session(key);
    }

    fn arm_session(&mut self, key: SessionKey) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let deadline = session.deadline();
        let before = std::mem::replace(&mut session.timer_at, deadline);
        self.timers.set(before, deadline, Owner::Session(key));
    }

    pub(super) fn session_due(&mut self, key: SessionKey, at: Timestamp, now: Timestamp) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        if session.timer_at == at && !self.take_due(key, now) {
            self.arm_session(key);
        }
    }

    /// What is due for a session by now happens: its will, its end. Whether it has ended.
    pub(super) fn take_due(&mut self, key: SessionKey, now: Timestamp) -> bool {
        let Some(session) = self.clients.sessions.get(key) else {
            return true;
        };
        if session.connection.is_some() {
            return false;
        }
        let expired = session.expires_at <= now;
        if session.will_at <= now {
            self.publish_will(key, None, now);
        }
        if expired {
            self.clients.counters.sessions_expired += 1;
            self.end_session(key, now);
        }
        expired
    }

    /// Publishes a session's will, if it still has one, once `[MQTT-3.1.2-10]`. One to a topic that its
    /// client may not publish to is left out. `left` is the connection that it is due for, if that ends now.
    pub(super) fn publish_will(
        &mut self,
        key: SessionKey,
        left: Option<ConnectionKey>,
        now: Timestamp,
    ) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        session.will_at = Timestamp::NEVER;
        let Some(will) = session.will.take() else {
            return;
        };
        let refused = if is_reserved(&will.topic) {
            Some(RESERVED)
        } else {
            let may_write = self.may_write(key, &will.topic);
            (!may_write).then(|| self.rules_of(key))
        };
        if let Some(why) = refused {
            self.clients.counters.dropped_will_not_allowed += 1;
            let (topic, why) = (will.topic.clone(), why.into());
            self.note_owner(key, left, Event::WillLeftOut { topic, why });
        } else {
            self.route_will(key, &will, now);
        }
        // After all that has come of it.
        self.keep_will_gone(key);
    }

    fn route_will(&mut self, key: SessionKey, will: &Will, now: Timestamp) {
        let publication = Publication::new(
            &will.topic,
            &will.payload,
            &will.forwarded,
            will.qos,
            will.retain,
            will.expiry_seconds.map(|seconds| now.plus_seconds(seconds)),
        );
        self.route_unanswered(publication, Some(key), now);
    }

    fn keep_will_gone(&mut self, key: SessionKey) {
        self.clients
            .keep(key, |session| Record::WillGone { session });
    }

    /// Forgets a session: its will is due at the latest now, its subscriptions go, and what it had for
    /// a share group goes to another member.
    pub(super) fn end_session(&mut self, key: SessionKey, now: Timestamp) {
        self.publish_will(key, None, now);
        self.sum_up_denials(key);
        let Some(mut session) = self.clients.sessions.remove(key) else {
            return;
        };
        self.clients.losing.keep_of_ended(&mut session);
        let never = Timestamp::NEVER;
        self.timers
            .set(session.timer_at, never, Owner::Session(key));
        self.backlog.spend(1);
        let subscriptions = std::mem::take(&mut session.subscriptions);
        self.end_subscriptions(key, session.is_lasting, subscriptions);
        let entries = entries_of(&session);
        let mut shared = session.outbound.take_shared();
        shared.extend(
            session
                .replay
                .take()
                .into_iter()
                .flat_map(|replay| replay.held.into_list()),
        );
        for delivery in shared {
            let Some(group) = &delivery.group else {
                continue;
            };
            let mut publication = Publication::of(&delivery.message);
            self.clients.encoder.begin();
            let journal = &mut self.clients.journal;
            let number = session.number;
            let origin = number.and_then(|it| journal.once.origin_of(it, delivery.entry));
            journal.once.begin(origin);
            let cost = self.deliver_to_group(&mut publication, group, 0, Passed::default(), now);
            self.backlog.spend(cost);
        }
        self.clients.journal.once.end();
        // After others have what it had for a share group.
        if let Some(session) = session.number {
            self.clients.journal.end_entries(entries);
            self.clients.journal.put(Record::Ended { session });
        }
    }
}

/// Seconds that a session's will waits when its connection has ended: none means at once; the session's end
/// cuts a delay short (3.1.3.2.2).
fn will_delay(session: &Session) -> Option<u32> {
    let will = session.will.as_ref()?;
    Some(will.delay_seconds.min(session.expiry_seconds))
}

//! A client that comes again while its older connection stands: what it had sent by that counts first.
//!
//! ```text
//!   CONNECT ──► waits ──► the older one is read out ──► is it still there? ──► takes over
//!                 └────── limits.takeover_wait_ms ──────────────┘
//! ```
//! A client that closes and comes again at once has its last messages in the older socket, or its DISCONNECT,
//! without which its will would be published. Where many send, that socket may be read after the new one.
//! So the new connection waits at the gate, not read, until nothing is left of the older one: in its socket,
//! as the shell says, and in packets that are held. Not waited for is what stays unread for the older one's
//! own fault, by a limit. Where others of the same client have come before it, it waits for each, but no
//! longer in all; and it has taken over before its CONNECT is late.
//!
//! Invariants: who waits is looked at in each turn, a bounded number of them, and at least every
//! [`LOOK_MS`]; it counts for its address, at its home too, or does not wait.

use super::ShardCore;
use super::end::WillFate;
use super::refusals::Refused;
use crate::engine::codec::Reason;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::session::connection::{Awaited, Gate};
use crate::engine::telemetry::notes::Event;
use crate::engine::time::Timestamp;
use std::collections::VecDeque;

/// Looks that a turn takes.
const LOOKS_PER_TURN_MAX: usize = 64;
/// Longest time between two looks, in milliseconds: the older connection may be read out in a turn that finds
/// nothing else to do.
const LOOK_MS: u64 = 10;
/// So long before a CONNECT is late its client takes over.
const BEFORE_LATE_MS: u64 = 2 * LOOK_MS;

/// How far the shell has seen an older connection read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What is left of it is there by so many completions; `None` while more may be in its socket.
    pub read_by: Option<u64>,
}

/// A connection that waits to take over.
#[derive(Debug)]
pub struct Takeover {
    /// Who waits.
    pub by: ConnectionKey,
    /// The connection that it will end.
    pub older: ConnectionKey,
    session: SessionKey,
    until: Timestamp,
    /// What the shell has seen of the older one.
    pub look: Look,
}

/// A wait that is over.
#[derive(Debug)]
#[must_use = "whoever waited is let in, or has gone"]
pub struct Ended {
    takeover: Takeover,
    is_heard: bool,
}

impl Ended {
    /// Who has waited.
    #[must_use]
    pub const fn by(&self) -> ConnectionKey {
        self.takeover.by
    }
}

/// Those that wait on a shard.
#[derive(Default)]
pub(super) struct Takeovers {
    waiting: VecDeque<Takeover>,
    look_at: Timestamp,
    /// The CONNECT at hand has waited, and does not again.
    has_waited: Option<ConnectionKey>,
    /// What the older connection of the client at hand had sent was not handled.
    is_unheard: bool,
}

impl Takeovers {
    /// When those that wait are looked at again.
    pub(super) fn look_at(&self) -> Option<Timestamp> {
        (!self.waiting.is_empty()).then_some(self.look_at)
    }
}

impl ShardCore {
    /// Connections that wait to take over and are to be looked at in this turn.
    #[must_use]
    pub fn takeovers_to_look_at(&self) -> usize {
        self.takeovers.waiting.len().min(LOOKS_PER_TURN_MAX)
    }

    /// The next of them, to be given to [`ShardCore::ends_wait`].
    pub fn next_takeover(&mut self) -> Option<Takeover> {
        self.takeovers.waiting.pop_front()
    }

    /// Whether it takes over now: the older one `is_read_out` and nothing of it is held, or its time is over.
    /// Else it goes on to wait.
    pub fn ends_wait(
        &mut self,
        now: Timestamp,
        takeover: Takeover,
        is_read_out: bool,
    ) -> Option<Ended> {
        let connections = &self.clients.connections;
        if !connections.get(takeover.by)?.awaits_older() {
            return None;
        }
        let session = self.clients.sessions.get(takeover.session);
        let there = session.and_then(|session| session.connection);
        let has_changed = there.filter(|there| *there != takeover.older);
        let is_heard = has_changed.is_none()
            && connections
                .get(takeover.older)
                .is_none_or(|older| older.hold.is_none() && (older.is_paused || is_read_out));
        if is_heard || now >= takeover.until {
            return Some(Ended { takeover, is_heard });
        }
        let look = has_changed.map_or(takeover.look, |_| Look::default());
        let older = has_changed.unwrap_or(takeover.older);
        self.look_again(
            now,
            Takeover {
                older,
                look,
                ..takeover
            },
        );
        None
    }

    fn look_again(&mut self, now: Timestamp, takeover: Takeover) {
        self.takeovers.look_at = now.plus_ms(LOOK_MS);
        self.takeovers.waiting.push_back(takeover);
    }

    /// Who has waited goes on to wait, until it is read to its end.
    pub fn wait_on(&mut self, now: Timestamp, ended: Ended) {
        self.look_again(now, ended.takeover);
    }

    /// A client that waits is let in, though its older connection is not read out.
    pub(super) fn let_in_unheard(&mut self, now: Timestamp, by: ConnectionKey) {
        self.let_in_by(now, by, false);
    }

    /// A client that has waited is let in.
    pub fn let_in(&mut self, now: Timestamp, ended: Ended) {
        self.let_in_by(now, ended.takeover.by, ended.is_heard);
    }

    fn let_in_by(&mut self, now: Timestamp, by: ConnectionKey, is_heard: bool) {
        self.takeovers.has_waited = Some(by);
        self.takeovers.is_unheard = !is_heard;
        self.go_on_from_gate(now, by);
        self.takeovers.has_waited = None;
        self.takeovers.is_unheard = false;
    }

    /// Lets a CONNECT wait for the older connection of its client, if it has one and has not waited;
    /// `connect` is what it sent. Whether it waits now.
    pub(super) fn waits_for_older(
        &mut self,
        now: Timestamp,
        by: ConnectionKey,
        client_id: &str,
        connect: &[u8],
    ) -> bool {
        let wait_ms = self.settings.limits.takeover_wait_ms;
        if wait_ms == 0 || self.takeovers.has_waited == Some(by) {
            return false;
        }
        let session = self.clients.sessions.find(client_id);
        let there =
            session.and_then(|key| Some((key, self.clients.sessions.get(key)?.connection?)));
        let Some((session, older)) = there else {
            return false;
        };
        let late = self.clients.connections.get(by).map(|by| by.connect_by);
        let late = late.map_or(now, |late| late.minus_ms(BEFORE_LATE_MS));
        let until = now.plus_ms(wait_ms).min(late);
        if until <= now || !self.takes_place_to_wait(by) {
            self.takeovers.is_unheard = true;
            return false;
        }
        if let Some(connection) = self.clients.connections.get_mut(by) {
            connection.gate = Some(Box::new(Gate {
                packet: connect.into(),
                awaited: Awaited::Older,
                exchange_user: None,
            }));
        }
        self.takeovers.look_at = now;
        self.takeovers.waiting.push_back(Takeover {
            by,
            older,
            session,
            until,
            look: Look::default(),
        });
        self.pause(by);
        true
    }

    /// Whether nobody has taken the client identifier whose CONNECT came later: finding out who somebody is
    /// takes its time, and so does the wait for an older connection, and its client may have come again.
    pub(super) fn check_later(
        &mut self,
        key: ConnectionKey,
        client_id: &str,
    ) -> Result<(), Refused> {
        let connections = &self.clients.connections;
        let session = self.clients.sessions.find(client_id);
        let session = session.and_then(|session| self.clients.sessions.get(session));
        let there = session.and_then(|session| connections.get(session.connection?));
        let is_late = there.zip(connections.get(key));
        if is_late.is_none_or(|(there, this)| there.came_at <= this.came_at) {
            return Ok(());
        }
        self.clients.counters.connects_refused += 1;
        let text =
            "a connection with the same client identifier came after it, before it was let in";
        Err((Reason::UnspecifiedError, text.into()))
    }

    /// Ends the older connection of a session `[MQTT-3.1.4-3]`, and the session itself if it must not go
    /// on. Returns the session to resume.
    pub(super) fn take_over(
        &mut self,
        session_key: SessionKey,
        by: ConnectionKey,
        clean_start: bool,
        now: Timestamp,
    ) -> Option<SessionKey> {
        // No turn may have come to it yet.
        if self.take_due(session_key, now) {
            return None;
        }
        let session = self.clients.sessions.get(session_key)?;
        let ends = clean_start || session.ends_with_connection();
        if let Some(older) = session.connection {
            self.clients.counters.takeovers += 1;
            let is_unheard = std::mem::take(&mut self.takeovers.is_unheard);
            self.clients.counters.takeovers_unheard += u64::from(is_unheard);
            self.sum_up_denials(session_key);
            self.note_session(session_key, Event::TakenOver(by));
            let text = "another connection with the same client identifier";
            self.say_goodbye(older, Reason::SessionTakenOver, text);
            self.detach(older, WillFate::Due, now);
        }
        if ends {
            self.end_session(session_key, now);
        }
        // A session that ended with its connection is gone by now.
        self.clients.sessions.get(session_key).map(|_| session_key)
    }
}

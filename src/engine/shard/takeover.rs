//! A client that comes again while its older connection stands: what it had sent by that counts first.
//!
//! ```text
//!   CONNECT ──► waits ──► the older one is read out ──► takes over
//!                 └────── limits.takeover_wait_ms ─────────┘
//! ```
//! A client that closes and comes again at once has its last messages in the older socket, or its DISCONNECT,
//! without which its will would be published. Where many send, that socket may be read after the new one.
//! So the new connection waits at the gate, not read, until nothing is left of the older one: in its socket,
//! as the shell says, and in packets that are held. Not waited for is what stays unread for the older one's
//! own fault, by a limit.
//!
//! Invariant: who waits is looked at in each turn, a bounded number of them, and at least every [`LOOK_MS`].

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

/// How far the shell has seen an older connection read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What is left of it is there by so many completions; `None` while more may be in its socket.
    pub read_by: Option<u64>,
}

/// A connection that waits to take over.
#[derive(Debug)]
pub struct Takeover {
    by: ConnectionKey,
    /// The connection that it will end.
    pub older: ConnectionKey,
    until: Timestamp,
    /// What the shell has seen of the older one.
    pub look: Look,
}

/// Those that wait on a shard.
#[derive(Default)]
pub(super) struct Takeovers {
    waiting: VecDeque<Takeover>,
    look_at: Timestamp,
    /// The CONNECT at hand has waited for that older connection.
    heard: Option<(ConnectionKey, ConnectionKey)>,
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

    /// The next of them, to be given to [`ShardCore::take_over_or_wait`].
    pub fn next_takeover(&mut self) -> Option<Takeover> {
        self.takeovers.waiting.pop_front()
    }

    /// A connection takes over if the older one `is_read_out` and nothing of it is held, or its time is over.
    pub fn take_over_or_wait(&mut self, now: Timestamp, takeover: Takeover, is_read_out: bool) {
        let (by, older) = (takeover.by, takeover.older);
        let connections = &self.clients.connections;
        let waits = connections.get(by).is_some_and(|by| by.awaits_older());
        if !waits {
            return;
        }
        let is_heard = connections
            .get(older)
            .is_none_or(|older| older.hold.is_none() && (older.is_paused || is_read_out));
        if !is_heard && now < takeover.until {
            self.takeovers.look_at = now.plus_ms(LOOK_MS);
            self.takeovers.waiting.push_back(takeover);
            return;
        }
        self.clients.counters.takeovers_unheard += u64::from(!is_heard);
        self.takeovers.heard = Some((by, older));
        self.go_on_from_gate(now, by);
        self.takeovers.heard = None;
    }

    /// The older connection of a client that comes again, unless it was waited for.
    pub(super) fn unheard_older(
        &self,
        by: ConnectionKey,
        client_id: &str,
    ) -> Option<ConnectionKey> {
        let session = self.clients.sessions.find(client_id)?;
        let older = self.clients.sessions.get(session)?.connection?;
        let is_waited_for = self.settings.limits.takeover_wait_ms > 0;
        (is_waited_for && self.takeovers.heard != Some((by, older))).then_some(older)
    }

    /// A CONNECT waits for the older connection of its client.
    pub(super) fn wait_for_older(
        &mut self,
        now: Timestamp,
        by: ConnectionKey,
        older: ConnectionKey,
        connect: &[u8],
    ) {
        let Some(connection) = self.clients.connections.get_mut(by) else {
            return;
        };
        connection.gate = Some(Box::new(Gate {
            packet: connect.into(),
            awaited: Awaited::Older,
            exchange_user: None,
        }));
        self.takeovers.look_at = now;
        self.takeovers.waiting.push_back(Takeover {
            by,
            older,
            until: now.plus_ms(self.settings.limits.takeover_wait_ms),
            look: Look::default(),
        });
        self.pause(by);
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

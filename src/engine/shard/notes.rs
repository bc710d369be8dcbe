//! Notes for the audit log.
//!
//! Invariant: their number is bounded, and what is left out is counted. Of denials that count is a note of
//! its own, at the end of the time for which they are counted together: nothing else has to come for it.

use super::ShardCore;
use crate::engine::access::ACL_FILE;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::telemetry::notes::{Event, Note};
use crate::engine::time::Timestamp;
use crate::engine::timer::Owner;
use std::borrow::Cow;
use std::rc::Rc;

/// How often a client's denials are noted one by one.
const DENIALS_INTERVAL_MS: u64 = 1_000;
/// Notes that wait for the shell; more are counted and left out.
const NOTES_MAX: usize = 10_000;

impl ShardCore {
    /// Notes since the last call, with their connections.
    /// One that comes later than its connection ended has none.
    pub fn take_notes(&mut self, into: &mut Vec<(Option<ConnectionKey>, Note)>) {
        into.append(&mut self.notes);
    }

    /// Whether all are taken, not only those that tell why.
    #[must_use]
    pub fn takes_all_notes(&self) -> bool {
        self.settings.takes_notes
    }

    fn takes(&self, event: &Event) -> bool {
        self.settings.takes_notes || self.settings.tells_why && event.tells_why()
    }

    /// Closes a connection that has not named itself, and tells why.
    pub(super) fn drop_nameless(&mut self, key: ConnectionKey, text: &str) {
        self.note_nameless(key, 0, text);
        self.drop_connection(key);
    }

    /// A note about a connection that was refused before it named itself.
    pub(super) fn note_nameless(&mut self, key: ConnectionKey, reason: u8, text: &str) {
        let event = Event::Refused {
            reason,
            text: text.into(),
        };
        self.note(key, "", None, event);
    }

    /// Whether there are any.
    #[must_use]
    pub fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    pub(super) fn note(
        &mut self,
        key: impl Into<Option<ConnectionKey>>,
        client_id: &str,
        user_name: Option<&str>,
        event: Event,
    ) {
        if !self.takes(&event) {
            return;
        }
        if self.notes.len() >= NOTES_MAX {
            self.clients.counters.notes_left_out += 1;
            return;
        }
        let note = Note {
            client_id: client_id.into(),
            user_name: user_name.map(Into::into),
            event,
        };
        self.notes.push((key.into(), note));
    }

    /// A note about a session's connection.
    pub(super) fn note_session(&mut self, key: SessionKey, event: Event) {
        let session = self.clients.sessions.get(key);
        if let Some(connection) = session.and_then(|session| session.connection) {
            self.note_owner(key, Some(connection), event);
        }
    }

    /// A note about whose session it is, which `connection` may have left.
    pub(super) fn note_owner(
        &mut self,
        key: SessionKey,
        connection: Option<ConnectionKey>,
        event: Event,
    ) {
        if !self.takes(&event) {
            return;
        }
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let client_id = Rc::clone(&session.client_id);
        let user_name = session
            .holder
            .as_ref()
            .and_then(|holder| holder.user_name.clone());
        self.note(connection, &client_id, user_name.as_deref(), event);
    }

    /// A client was denied something; noted at a bounded rate per client.
    pub(super) fn note_denied(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        (action, topic): (&'static str, &str),
        why: Cow<'static, str>,
    ) {
        if !(self.settings.takes_notes || self.settings.tells_why) {
            return;
        }
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let holder = session.holder.get_or_insert_default();
        let told_until = holder.denied_at.map(|at| at.plus_ms(DENIALS_INTERVAL_MS));
        if let Some(until) = told_until
            && now < until
        {
            holder.denials_left_out = holder.denials_left_out.saturating_add(1);
            if holder.denials_left_out == 1 {
                self.timers
                    .set(Timestamp::NEVER, until, Owner::Denials(key));
            }
            return;
        }
        holder.denied_at = Some(now);
        let left_out = std::mem::take(&mut holder.denials_left_out);
        self.note_more_denied(key, told_until, left_out);
        let topic = topic.into();
        self.note_session(key, Event::Denied { action, topic, why });
    }

    /// The key of the rules that decide what a session may do.
    pub(super) fn rules_of(&self, key: SessionKey) -> &'static str {
        let session = self.clients.sessions.get(key);
        let holder = session.and_then(|session| session.holder.as_deref());
        holder.map_or(ACL_FILE, |holder| holder.rules_key())
    }

    /// Says how much more a client was denied than was said: its time has come, or the client goes.
    pub(super) fn sum_up_denials(&mut self, key: SessionKey) {
        let session = self.clients.sessions.get_mut(key);
        let Some(holder) = session.and_then(|session| session.holder.as_mut()) else {
            return;
        };
        let told_until = holder.denied_at.map(|at| at.plus_ms(DENIALS_INTERVAL_MS));
        let left_out = std::mem::take(&mut holder.denials_left_out);
        self.note_more_denied(key, told_until, left_out);
    }

    /// `due` is when that would have been said.
    fn note_more_denied(&mut self, key: SessionKey, due: Option<Timestamp>, left_out: u32) {
        if left_out > 0 {
            self.timers.set(
                due.unwrap_or(Timestamp::NEVER),
                Timestamp::NEVER,
                Owner::Denials(key),
            );
            self.note_session(key, Event::DeniedMore { left_out });
        }
    }

    /// So many notes found no taker.
    pub fn note_left_out(&mut self, count: u64) {
        self.clients.counters.notes_left_out += count;
    }
}

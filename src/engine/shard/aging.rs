//! Bounds of its queue that a session has for itself (a bridge's), and what waits there for too long: it is
//! dropped when its time is over, whether anything else happens or not.
//!
//! Not here: when that is ([`super::ages`]).

use super::ShardCore;
use super::clients::Clients;
use super::keeping::settle_entry;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::limits::OwnQueue;
use crate::engine::session::losses::LossReason;
use crate::engine::time::Timestamp;
use std::rc::Rc;

impl ShardCore {
    /// Bounds of a session's queue as its connection's listener has them, or whoever let it in.
    pub(super) fn bound_queue(&mut self, session: SessionKey, by: ConnectionKey, now: Timestamp) {
        let connection = self.clients.connections.get(by);
        let listener = connection.map_or(0, |connection| connection.listener);
        let admitted = connection.and_then(|connection| connection.admitted.as_ref());
        let own = admitted.map(|admitted| admitted.queue).unwrap_or_default();
        let part = admitted.and_then(|admitted| admitted.part);
        let usual = self.settings.client_limits(listener).queue_bytes_max;
        let Some(bounded) = self.clients.sessions.get_mut(session) else {
            return;
        };
        bounded.queue_bytes_max = own.bytes_max.unwrap_or(usual);
        bounded.own_queue = (own != OwnQueue::default()).then(|| Box::new(own));
        let is_other_part = bounded.part != part && !bounded.subscriptions.is_empty();
        bounded.part = part;
        self.clients.rules.has_parts |= part.is_some();
        if is_other_part {
            // Its subscriptions are marked anew, and each delivery is looked at until they are.
            self.fan_outs.note_change(session);
            self.clients.rules.marking.begin_one(session);
        }
        let Some(bounded) = self.clients.sessions.get_mut(session) else {
            return;
        };
        let aging = &mut self.clients.aging;
        if own.age_ms_max.is_some() {
            bounded.outbound.begin_ages(now);
            if !aging.sessions.contains(&session) {
                aging.sessions.push(session);
            }
            // It is looked at by the next turn.
            aging.note(now);
        }
    }

    /// Client identifiers of sessions for which something waits now, while nobody is connected, and that are
    /// to be told so.
    pub fn take_wanted(&mut self) -> Vec<Rc<str>> {
        let wanted = std::mem::take(&mut self.clients.wanted).into_iter();
        let wanted = wanted.filter_map(|key| self.clients.sessions.get(key));
        wanted
            .map(|session| Rc::clone(&session.client_id))
            .collect()
    }

    /// Drops what has waited too long by now.
    pub(super) fn drop_aged(&mut self, now: Timestamp) {
        if self.clients.aging.due_at > now {
            return;
        }
        let mut sessions = std::mem::take(&mut self.clients.aging.sessions);
        self.clients.aging.due_at = Timestamp::NEVER;
        sessions.retain(|key| match self.clients.drop_aged_of(*key, now) {
            Some(next_at) => {
                self.clients.aging.note(next_at);
                true
            }
            None => false,
        });
        self.backlog.spend(sessions.len());
        self.clients.aging.sessions = sessions;
    }
}

impl Clients {
    /// Drops what has waited too long in a session's queue: when the next of it will have, or `None` if there
    /// is no such bound, or no such session.
    fn drop_aged_of(&mut self, key: SessionKey, now: Timestamp) -> Option<Timestamp> {
        let session = self.sessions.get_mut(key)?;
        let age_ms_max = session.own_queue.as_ref()?.age_ms_max?;
        let aged = session.outbound.take_aged(now, age_ms_max);
        for entry in &aged {
            settle_entry(session, &mut self.journal, *entry);
        }
        let next_at = match session.outbound.queued() {
            0 => Timestamp::NEVER,
            _ => {
                let waits_ms = session.outbound.waits_ms(now);
                now.plus_ms(age_ms_max.saturating_sub(waits_ms))
            }
        };
        self.lose(key, LossReason::QueueAge, aged.len() as u64);
        Some(next_at)
    }
}

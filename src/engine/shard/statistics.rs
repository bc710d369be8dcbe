//! What a shard tells of itself: gauges, counters, and who has lost messages.

use super::ShardCore;
use crate::engine::session::Session;
use crate::engine::session::losses::Losses;
use crate::engine::telemetry::counters::Counters;
use crate::engine::telemetry::traffic::Traffic;
use std::rc::Rc;

/// Sessions that are looked at in a turn.
const LOOKS_MAX: usize = 2_048;

/// What sessions have, and how far they have been looked at.
#[derive(Default)]
pub(super) struct Sums {
    slot: usize,
    subscriptions: usize,
    queued: usize,
    inflight: usize,
}

impl Sums {
    fn add(&mut self, session: &Session) {
        self.subscriptions += session.subscriptions.len();
        self.queued += session.outbound.queued();
        self.inflight += usize::from(session.outbound.unacknowledged());
    }
}

impl ShardCore {
    /// Connections at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.connections.len()
    }

    /// Whether sessions have lost messages since [`ShardCore::take_losses`].
    #[must_use]
    pub fn has_losses(&self) -> bool {
        !self.clients.losing.is_empty()
    }

    /// Who has lost messages, and why: client identifiers.
    pub fn take_losses(&mut self) -> Vec<(Rc<str>, Losses)> {
        let clients = &mut self.clients;
        clients.losing.take(&mut clients.sessions)
    }

    /// Counters of events.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.clients.counters
    }

    /// Packets by type.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.clients.traffic
    }

    /// Gauges and counters by name.
    #[must_use]
    pub fn statistics(&self) -> Vec<(&'static str, u64)> {
        let sessions = &self.clients.sessions;
        let mut sums = Sums::default();
        for session in sessions.keys().filter_map(|key| sessions.get(key)) {
            sums.add(session);
        }
        self.list(&sums)
    }

    /// The same over turns: `None` until all sessions have been looked at, some with each call. Sessions that
    /// come and go meanwhile may be counted or not. The shard does not sleep as long as it counts.
    pub fn count_statistics(&mut self) -> Option<Vec<(&'static str, u64)>> {
        let mut sums = self.counting.take().unwrap_or_default();
        let sessions = &mut self.clients.sessions;
        for _ in 0..LOOKS_MAX {
            if sums.slot >= sessions.slots() {
                break;
            }
            if let Some(key) = sessions.key_at(sums.slot)
                && let Some(session) = sessions.get(key)
            {
                sums.add(session);
            }
            sums.slot += 1;
        }
        if sums.slot < self.clients.sessions.slots() {
            self.counting = Some(sums);
            return None;
        }
        Some(self.list(&sums))
    }

    fn list(&self, sums: &Sums) -> Vec<(&'static str, u64)> {
        let mut list = vec![
            ("connections", self.clients.connections.len() as u64),
            ("sessions", self.clients.sessions.len() as u64),
            ("subscriptions", sums.subscriptions as u64),
            ("filters", self.trie.len() as u64),
            ("retained_messages", self.retained.len() as u64),
            ("retained_bytes", self.retained.bytes() as u64),
            ("queued_messages", sums.queued as u64),
            ("inflight_messages", sums.inflight as u64),
        ];
        list.extend(self.clients.counters.list());
        list
    }
}

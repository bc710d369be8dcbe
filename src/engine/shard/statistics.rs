//! What a shard tells of itself: gauges, counters, and who has lost messages.

use super::ShardCore;
use crate::engine::session::Session;
use crate::engine::session::losses::Losses;
use crate::engine::telemetry::counters::Counters;
use std::rc::Rc;

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

    /// Gauges and counters by name.
    #[must_use]
    pub fn statistics(&self) -> Vec<(&'static str, u64)> {
        let sessions = &self.clients.sessions;
        let all = || sessions.keys().filter_map(|key| sessions.get(key));
        let sum = |of: &dyn Fn(&Session) -> usize| all().map(of).sum::<usize>();
        let mut list = vec![
            ("connections", self.clients.connections.len() as u64),
            ("sessions", sessions.len() as u64),
            (
                "subscriptions",
                sum(&|session| session.subscriptions.len()) as u64,
            ),
            ("filters", self.trie.len() as u64),
            ("retained_messages", self.retained.len() as u64),
            ("retained_bytes", self.retained.bytes() as u64),
            (
                "queued_messages",
                sum(&|session| session.outbound.queued()) as u64,
            ),
            (
                "inflight_messages",
                sum(&|session| usize::from(session.outbound.unacknowledged())) as u64,
            ),
        ];
        list.extend(self.clients.counters.list());
        list
    }
}

//! What a shard tells of itself: gauges, counters, and who has lost messages.

use super::ShardCore;
use crate::engine::session::losses::Losses;
use crate::engine::telemetry::counters::Counters;
use crate::engine::telemetry::talkers::Loudest;
use crate::engine::telemetry::traffic::Traffic;
use crate::engine::time::Timestamp;
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

    /// Packets by type.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.clients.traffic
    }

    /// Who publishes most, and where to; so many of each at most.
    pub fn loudest(&mut self, now: Timestamp, max: usize) -> Loudest {
        self.talkers.loudest(now, max)
    }

    /// Gauges and counters by name. It takes as long for many sessions as for few.
    #[must_use]
    pub fn statistics(&self) -> Vec<(&'static str, u64)> {
        let sums = self.clients.sessions.sums();
        debug_assert_eq!(sums, self.clients.sessions.sums_of_each());
        let mut list = vec![
            ("connections", self.clients.connections.len() as u64),
            ("sessions", self.clients.sessions.len() as u64),
            ("subscriptions", sums.subscriptions as u64),
            ("filters", self.trie.len() as u64),
            ("retained_messages", self.retained.len() as u64),
            ("retained_bytes", self.retained.bytes() as u64),
            ("queued_messages", sums.queued as u64),
            ("inflight_messages", sums.unacknowledged as u64),
        ];
        list.extend(self.clients.counters.list());
        list.push(("talkers_displaced", self.talkers.displaced));
        list
    }
}

//! The end of the broker: the wills of all clients, then a word to each, over turns: with very many clients
//! a turn that did it all would hold up who is still served.

use super::ShardCore;
use crate::engine::codec::Reason;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::time::Timestamp;

/// Connections that are told and closed in one turn; each is a send of its own.
const CLOSED_PER_TURN: usize = 1_024;
/// What it takes to look at a session, in eighths of a delivery, beside the will that it may have.
const LOOK_STEPS: usize = 8;

/// How far the end has got.
#[derive(Default)]
pub(super) struct Farewell {
    /// Sessions whose wills are to be published.
    wills: Vec<SessionKey>,
    /// Connections to close.
    leaving: Vec<ConnectionKey>,
    /// All that are there, and those that other shards hand over meanwhile.
    all_leave: bool,
}

impl ShardCore {
    /// First step of a shutdown: the wills of all clients, for those who are still there to get them. They
    /// are published over turns, as long as [`ShardCore::has_wills_due`].
    pub fn publish_wills(&mut self) {
        self.farewell.wills = self.clients.sessions.keys().collect();
    }

    /// Whether some of these are not published yet.
    #[must_use]
    pub fn has_wills_due(&self) -> bool {
        !self.farewell.wills.is_empty()
    }

    /// Last step of a shutdown: every client is told and closed, over turns.
    pub fn disconnect_all(&mut self) {
        self.farewell.all_leave = true;
    }

    /// Whether something of that can be done at once.
    pub(super) fn takes_leave(&self) -> bool {
        self.has_wills_due() || self.farewell.all_leave && !self.clients.connections.is_empty()
    }

    /// Goes on with it, by the part of a turn's work that it has for itself.
    pub(super) fn take_leave(&mut self, now: Timestamp) {
        let mut left = self.backlog.part_of_turn();
        while left > 0
            && let Some(session) = self.farewell.wills.pop()
        {
            let before = self.backlog.spent();
            self.publish_will(session, None, now);
            self.backlog.spend_steps(LOOK_STEPS);
            left = left.saturating_sub(self.backlog.spent().saturating_sub(before));
        }
        if !self.farewell.all_leave {
            return;
        }
        if self.farewell.leaving.is_empty() {
            self.farewell.leaving = self.clients.connections.keys().collect();
        }
        for _ in 0..CLOSED_PER_TURN {
            let Some(key) = self.farewell.leaving.pop() else {
                return;
            };
            let text = "the broker is stopping";
            self.disconnect(key, Reason::ServerShuttingDown, text, now);
        }
    }
}

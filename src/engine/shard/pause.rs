//! Which connections are not read for now.
//!
//! Reasons to pause are many; a connection is read again only when none is left.

use super::{Command, ShardCore};
use crate::engine::keys::ConnectionKey;
use crate::engine::time::Timestamp;

impl ShardCore {
    /// Reads nothing from a connection until [`Self::resume_if_room`]; false when it was paused before.
    pub(super) fn pause(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return false;
        };
        let was_paused = std::mem::replace(&mut connection.is_paused, true);
        if !was_paused {
            self.commands.push(Command::Pause(key));
        }
        !was_paused
    }

    /// Reads a paused connection again when it has taken what it asked for and the store has caught up.
    pub(super) fn resume_if_room(&mut self, key: ConnectionKey) {
        let limits = &self.settings.limits;
        if let Some(connection) = self.clients.connections.get_mut(key)
            && connection.is_paused
            && connection.outbox.bytes() < limits.outbox_bytes_max / 2
            && connection.awaiting_store.publishes()
                < usize::from(connection.granted.receive_maximum)
            && !connection.waits_for_memory
            && !connection.is_asking()
            && !connection.is_held_back()
            && connection.reads_at == Timestamp::NEVER
        {
            connection.is_paused = false;
            self.commands.push(Command::Resume(key));
        }
    }
}

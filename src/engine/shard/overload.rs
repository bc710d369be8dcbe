//! What a shard does at each stage of memory shortage ([`crate::engine::overload`]).

use super::ShardCore;
use crate::engine::keys::ConnectionKey;
use crate::engine::overload::{SHED_OUTBOX_BYTES_MAX, Stage};

impl ShardCore {
    /// The control plane says how short memory is.
    pub fn set_stage(&mut self, stage: Stage) {
        let outbox_bytes_max = self.settings.limits.outbox_bytes_max;
        self.clients.stage = stage;
        self.clients.qos_0_bytes_max = if stage >= Stage::Shed {
            outbox_bytes_max.min(SHED_OUTBOX_BYTES_MAX)
        } else {
            outbox_bytes_max
        };
        if stage < Stage::Pause {
            self.resume_publishers();
        }
    }

    fn resume_publishers(&mut self) {
        let keys: Vec<_> = self.clients.connections.keys().collect();
        for key in keys {
            if let Some(connection) = self.clients.connections.get_mut(key)
                && std::mem::take(&mut connection.waits_for_memory)
            {
                self.resume_if_room(key);
            }
        }
    }

    /// A client has published while memory is very short: it is not read until there is more.
    pub(super) fn pause_publisher(&mut self, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut connection.waits_for_memory, true) {
            return;
        }
        self.clients.counters.publishers_paused_memory += 1;
        self.pause(key);
    }
}

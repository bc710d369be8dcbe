//! Settings that change while the shard works, between two turns.
//!
//! Who is connected keeps what its CONNACK has told it ([`crate::engine::session::granted`]), its window, its
//! rates and its queue's bytes until it connects again. Everything else is asked for when it is needed, and
//! so is other at once.

use super::{Settings, ShardCore};
use std::rc::Rc;

impl ShardCore {
    /// Goes by these settings from now on, but for what is made of them at the start: what is stored and how,
    /// and memory.
    pub fn renew(&mut self, mut settings: Settings) {
        let before = &self.settings;
        settings.stores = before.stores;
        settings.storage_pending_bytes_max = before.storage_pending_bytes_max;
        settings.checkpoint_part_bytes = before.checkpoint_part_bytes;
        self.clients.rules.had_methods |= before.authentication.has_methods;
        let limits = &settings.limits;
        self.memory.set_max(limits.memory_max_bytes);
        self.backlog.set_deliveries_max(limits.turn_deliveries_max);
        self.clients
            .shortage
            .set_outbox_bytes_max(limits.outbox_bytes_max);
        self.settings = Rc::new(settings);
        self.clients.settings = Rc::clone(&self.settings);
    }
}

//! The store without a disk: what it is given is safe as long as the process lives.
//!
//! The state itself lives in the shard's sessions and retained messages, so there is nothing to copy.

use crate::engine::record::Persist;

/// Commits at once.
#[derive(Debug, Default)]
pub struct MemoryStore {
    committed: u64,
}

impl MemoryStore {
    /// Takes the records; returns the highest ticket that is committed.
    pub fn commit(&mut self, records: impl Iterator<Item = Persist>) -> u64 {
        for record in records {
            debug_assert_eq!(record.ticket, self.committed + 1, "tickets ascend by one");
            self.committed = record.ticket;
        }
        self.committed
    }
}

//! A shard's sign of life: it counts up with every turn, and a shard with nothing to do turns once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts turns; the shard writes, others read.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Turns>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Turns(AtomicU64);

impl Pulse {
    /// Another turn. Only the shard itself calls it.
    pub fn beat(&self) {
        let turns = self.0.0.load(Ordering::Relaxed);
        self.0.0.store(turns + 1, Ordering::Relaxed);
    }

    /// Turns so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }
}

//! How much memory the process uses, as shards and control plane see it.
//!
//! What the heap holds is counted where it is taken ([`heap`]) and true at every moment. What the kernel
//! holds for sockets each shard finds out while that may matter. What lies beyond, pages that the allocator
//! has not given back, code and stacks, the control plane looks up from time to time.
//!
//! Not here: what follows from it ([`crate::engine::overload`]).

use crate::engine::keys::ShardId;
use crate::engine::overload::Meter;
use crate::shard::ring::heap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The meter of one process; clones show the same.
#[derive(Clone, Debug)]
pub struct ProcessMeter(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    beyond_heap_bytes: AtomicU64,
    wants_sockets: AtomicBool,
    /// Of each shard.
    sockets_bytes: Vec<AtomicU64>,
}

impl ProcessMeter {
    /// Of a process with so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        ProcessMeter(Arc::new(Figures {
            beyond_heap_bytes: AtomicU64::new(0),
            wants_sockets: AtomicBool::new(false),
            sockets_bytes: (0..shards).map(|_| AtomicU64::new(0)).collect(),
        }))
    }

    /// What is used beyond what the heap counts, the kernel's part included.
    pub fn set_beyond_heap(&self, bytes: u64) {
        self.0.beyond_heap_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether the shards are to find out what the kernel holds.
    pub fn want_sockets(&self, wants: bool) {
        self.0.wants_sockets.store(wants, Ordering::Relaxed);
    }

    /// What the kernel holds for all shards' sockets, as far as they have found out.
    #[must_use]
    pub fn sockets_bytes(&self) -> u64 {
        let shards = self.0.sockets_bytes.iter();
        shards.map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// One shard's part of it.
    #[must_use]
    pub fn sockets(&self, shard: ShardId) -> SocketMeter {
        SocketMeter {
            figures: Arc::clone(&self.0),
            shard,
        }
    }
}

impl Meter for ProcessMeter {
    fn used_bytes(&self) -> u64 {
        heap::in_use_bytes() + self.0.beyond_heap_bytes.load(Ordering::Relaxed)
    }
}

/// What the kernel holds for one shard's sockets.
#[derive(Clone, Debug)]
pub struct SocketMeter {
    figures: Arc<Figures>,
    shard: ShardId,
}

impl SocketMeter {
    /// Whether anybody wants to know.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.figures.wants_sockets.load(Ordering::Relaxed)
    }

    /// It is so much.
    pub fn set(&self, bytes: u64) {
        if let Some(known) = self.figures.sockets_bytes.get(usize::from(self.shard)) {
            known.store(bytes, Ordering::Relaxed);
        }
    }
}

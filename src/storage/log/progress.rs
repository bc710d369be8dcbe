//! What the thread that writes and the shards tell each other, and operators, without waiting.

use crate::engine::telemetry::histogram::{BUCKETS, Histogram};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A shard has not said yet how much it has.
const UNTOLD: u64 = u64::MAX;

/// Read by both sides at any time.
#[derive(Debug)]
pub struct Progress {
    /// By shard, the highest ticket that is safe.
    safe: Vec<AtomicU64>,
    /// The highest that the operating system has, where that is told.
    written: Vec<AtomicU64>,
    /// By shard, about how many bytes the records of what there is take.
    live_bytes: Vec<AtomicU64>,
    /// And how many messages in it will be settled one by one.
    entries: Vec<AtomicU64>,
    checkpoints: AtomicU64,
    is_full: AtomicBool,
    /// Nobody waits any more for what there is no room for.
    gives_up: AtomicBool,
    /// By shard, bytes of what waits to be safe.
    pending_bytes: Vec<AtomicU64>,
    commits: AtomicU64,
    log_bytes: AtomicU64,
    segments: AtomicU64,
    /// How long syncs took: by the buckets of a histogram, and in all.
    syncs: [AtomicU64; BUCKETS],
    syncs_us: AtomicU64,
}

/// What a message on its way takes until it is over: records that it was sent and is settled, mostly in a
/// frame with few others.
const SETTLING_BYTES: u64 = 64;

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// About how many bytes the records of it would take if it were told anew.
    pub bytes: u64,
    /// And those that are to come until nobody waits for any of it.
    pub settling_bytes: u64,
}

/// What there is to tell of what is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// There is no room for more than what makes room.
    pub is_full: bool,
    /// By shard, bytes of what waits to be safe.
    pub pending_bytes: Vec<u64>,
    /// A shard beyond so many lets who publishes wait.
    pub pending_bytes_max: u64,
    /// Groups of frames that were made safe together.
    pub commits: u64,
    /// Bytes of all segments.
    pub log_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// How long syncs took.
    pub syncs: Histogram,
}

impl Progress {
    pub(super) fn new(shards: u16) -> Self {
        let zeros = || (0..shards).map(|_| AtomicU64::new(0)).collect();
        Progress {
            safe: zeros(),
            written: zeros(),
            entries: zeros(),
            live_bytes: (0..shards).map(|_| AtomicU64::new(UNTOLD)).collect(),
            checkpoints: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            gives_up: AtomicBool::new(false),
            pending_bytes: zeros(),
            commits: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            syncs: std::array::from_fn(|_| AtomicU64::new(0)),
            syncs_us: AtomicU64::new(0),
        }
    }

    /// The highest ticket of a shard that is safe.
    #[must_use]
    pub fn safe_ticket(&self, shard: u16) -> u64 {
        let known = self.safe.get(usize::from(shard));
        known.map_or(0, |ticket| ticket.load(Ordering::Acquire))
    }

    pub(super) fn set_safe(&self, shard: u16, ticket: u64) {
        if let Some(safe) = self.safe.get(usize::from(shard)) {
            safe.store(ticket, Ordering::Release);
        }
    }

    /// The highest ticket of a shard that the operating system has; 0 where that is not told.
    #[must_use]
    pub fn written_ticket(&self, shard: u16) -> u64 {
        let known = self.written.get(usize::from(shard));
        known.map_or(0, |ticket| ticket.load(Ordering::Acquire))
    }

    pub(super) fn set_written(&self, shard: u16, ticket: u64) {
        if let Some(written) = self.written.get(usize::from(shard)) {
            written.store(ticket, Ordering::Release);
        }
    }

    /// How often all shards were asked to tell anew what there is.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.load(Ordering::Acquire)
    }

    pub(super) fn ask_for_checkpoint(&self) {
        self.checkpoints.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether there is no room for more than what makes room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// All shards have stopped: what a full disk has no room for was never acknowledged, and is waited for
    /// no longer.
    pub fn give_up_what_has_no_room(&self) {
        self.gives_up.store(true, Ordering::Release);
    }

    pub(super) fn gives_up(&self) -> bool {
        self.gives_up.load(Ordering::Acquire)
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Release);
    }

    /// Bytes of a shard that wait to be safe.
    pub fn set_pending_bytes(&self, shard: u16, bytes: u64) {
        if let Some(pending_bytes) = self.pending_bytes.get(usize::from(shard)) {
            pending_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// A sync took so long.
    pub(super) fn note_sync(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.syncs.get(Histogram::bucket(us)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.syncs_us.fetch_add(us, Ordering::Relaxed);
    }

    /// A group is safe; the log has so many bytes in so many segments.
    pub(super) fn note_commit(&self, log_bytes: u64, segments: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.log_bytes.store(log_bytes, Ordering::Relaxed);
        self.segments.store(segments, Ordering::Relaxed);
    }

    /// What there is to tell an operator.
    #[must_use]
    pub fn figures(&self, pending_bytes_max: u64) -> StoreFigures {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        StoreFigures {
            is_full: self.is_full(),
            pending_bytes: self.pending_bytes.iter().map(get).collect(),
            pending_bytes_max,
            commits: get(&self.commits),
            log_bytes: get(&self.log_bytes),
            segments: get(&self.segments),
            syncs: Histogram::of(
                std::array::from_fn(|at| self.syncs.get(at).map_or(0, get)),
                get(&self.syncs_us),
            ),
        }
    }

    /// About how many bytes the records of what a shard has take, and how many messages on their way to
    /// sessions are in it.
    pub fn set_live(&self, shard: u16, bytes: u64, entries: u64) {
        let at = usize::from(shard);
        if let (Some(live_bytes), Some(of_shard)) = (self.live_bytes.get(at), self.entries.get(at))
        {
            of_shard.store(entries, Ordering::Relaxed);
            live_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// Of all shards; `None` as long as one has not said it.
    pub(super) fn live(&self) -> Option<Live> {
        let mut live = Live::default();
        for (bytes, entries) in self.live_bytes.iter().zip(&self.entries) {
            let bytes = bytes.load(Ordering::Relaxed);
            if bytes == UNTOLD {
                return None;
            }
            live.bytes = live.bytes.saturating_add(bytes);
            let entries = entries.load(Ordering::Relaxed);
            let settling = entries.saturating_mul(SETTLING_BYTES);
            live.settling_bytes = live.settling_bytes.saturating_add(settling);
        }
        Some(live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log is not taken for dead while its shards are still being built from it.
    #[test]
    fn how_much_there_is_is_known_when_every_shard_has_said_it() {
        let progress = Progress::new(2);
        progress.set_live(0, 5, 1);
        assert_eq!(progress.live(), None);
        progress.set_live(1, 7, 2);
        let live = Live {
            bytes: 12,
            settling_bytes: 3 * SETTLING_BYTES,
        };
        assert_eq!(progress.live(), Some(live));
    }
}

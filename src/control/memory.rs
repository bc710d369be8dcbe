//! Memory as the control plane sees it: what the heap does not count, and how short it is, for the log.
//!
//! The shards go by the sum themselves and at once; here is looked up, ten times a second, what they cannot
//! see. Resident memory beyond the heap's is a second witness: while it is much, or memory is short, the
//! allocator is asked to give back what is free, so that what is left is really in use.

use crate::control::machine;
use crate::engine::limits::Limits;
use crate::engine::overload::{Meter, Stage};
use crate::shard::boot::Shards;
use crate::shard::meter::ProcessMeter;
use crate::shard::ring::heap;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often the allocator is asked to give back, at most, while that decides how short memory is; and else.
const GIVE_BACK_INTERVALS: (Duration, Duration) =
    (Duration::from_millis(300), Duration::from_secs(10));
/// So much may be resident beyond the heap before the allocator is asked in any case.
const BEYOND_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The kernel counts about twice the bytes that a socket may hold.
const KERNEL_FACTOR: u64 = 2;

/// What is used, by who has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// By the heap.
    pub heap_bytes: u64,
    /// Resident in the process beyond the heap's, when that was last certain.
    pub beyond_bytes: u64,
    /// By the kernel for sockets.
    pub socket_bytes: u64,
}

impl Used {
    fn all_bytes(&self) -> u64 {
        self.heap_bytes + self.beyond_bytes + self.socket_bytes
    }
}

/// Watches memory.
pub struct MemoryWatch {
    meter: ProcessMeter,
    max_bytes: u64,
    /// What the kernel may hold for one connection; `None` if that is left to the system.
    connection_bytes_max: Option<u64>,
    stage: Stage,
    used: Used,
    resident_bytes: u64,
    /// When the allocator last gave back.
    gave_back_at: Option<Instant>,
    /// The shards have been asked to give back: what is resident at the next look is certain.
    is_asked: bool,
}

impl MemoryWatch {
    /// With the limits in force; what it finds goes to `meter`.
    #[must_use]
    pub fn new(meter: ProcessMeter, limits: &Limits) -> Self {
        let (send, receive) = (
            limits.socket_send_bytes_max as u64,
            limits.socket_receive_bytes_max as u64,
        );
        MemoryWatch {
            meter,
            max_bytes: limits.memory_max_bytes,
            connection_bytes_max: (send > 0 && receive > 0)
                .then_some((send + receive) * KERNEL_FACTOR),
            stage: Stage::Normal,
            used: Used::default(),
            resident_bytes: 0,
            gave_back_at: None,
            is_asked: false,
        }
    }

    /// So much may be used from now on.
    pub const fn set_max(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
    }

    /// How short memory was when last looked at.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Gauges for the statistics.
    #[must_use]
    pub fn gauges(&self) -> [(&'static str, u64); 5] {
        [
            ("memory_bytes", self.used.all_bytes()),
            ("memory_heap_bytes", self.used.heap_bytes),
            ("memory_resident_bytes", self.resident_bytes),
            ("memory_socket_bytes", self.used.socket_bytes),
            ("memory_stage", self.stage as u64),
        ]
    }

    /// Looks, tells the shards what they cannot see, and has memory given back.
    pub fn look(&mut self, shards: &Shards) {
        self.used.heap_bytes = heap::in_use_bytes();
        self.resident_bytes = machine::resident_bytes().unwrap_or(0);
        let is_certain = std::mem::take(&mut self.is_asked);
        if !is_certain && self.is_to_give_back(Instant::now()) {
            shards.leave_memory();
            self.is_asked = true;
        }
        if is_certain {
            heap::give_back();
            self.resident_bytes = machine::resident_bytes().unwrap_or(0);
        }
        self.believe(is_certain);
        self.used.socket_bytes = self.socket_bytes(shards.connections() as u64);
        let beyond_bytes = self.used.beyond_bytes + self.used.socket_bytes;
        self.meter.set_beyond_heap(beyond_bytes);
        let stage = self.stage.next(self.meter.used_bytes(), self.max_bytes);
        self.tell(stage);
        self.stage = stage;
    }

    fn beyond_bytes(&self) -> u64 {
        self.resident_bytes.saturating_sub(self.used.heap_bytes)
    }

    /// Whether the allocator is to give back now: then what is still resident is in use.
    fn is_to_give_back(&mut self, now: Instant) -> bool {
        let (believed, beyond) = (self.used.beyond_bytes, self.beyond_bytes());
        let would_be = self.used.all_bytes() - believed + beyond;
        let stage = |bytes| self.stage.next(bytes, self.max_bytes);
        // Beyond the bound there is no stage more: what those had that were disconnected is still resident.
        let is_over = self.max_bytes > 0 && would_be > self.max_bytes;
        let decides = is_over || stage(would_be) > stage(self.used.all_bytes());
        let is_much = beyond > BEYOND_BYTES_MAX || self.stage > Stage::Normal;
        let interval = match (decides, is_much) {
            (true, _) => GIVE_BACK_INTERVALS.0,
            (false, true) => GIVE_BACK_INTERVALS.1,
            (false, false) => Duration::MAX,
        };
        let since = self
            .gave_back_at
            .map(|at| now.saturating_duration_since(at));
        let is_due = since.map_or(self.gave_back_at.is_none(), |since| since >= interval);
        if is_due {
            self.gave_back_at = Some(now);
        }
        is_due
    }

    /// Goes by what is resident beyond the heap's: by more only if it is certain, by less in any case.
    fn believe(&mut self, is_certain: bool) {
        let beyond = self.beyond_bytes();
        let believed = &mut self.used.beyond_bytes;
        *believed = if is_certain {
            beyond
        } else {
            beyond.min(*believed)
        };
    }

    /// What the kernel holds for connections: the worst that is configured, as long as memory would not be
    /// short even then; otherwise what the shards find out.
    fn socket_bytes(&self, connections: u64) -> u64 {
        let worst = self
            .connection_bytes_max
            .map(|max| max.saturating_mul(connections));
        let rest = self.used.all_bytes();
        let is_enough = |worst: &u64| {
            let sum = rest.saturating_add(*worst);
            Stage::Normal.next(sum, self.max_bytes) < Stage::Shed
        };
        let harmless = worst.filter(is_enough);
        self.meter.want_sockets(harmless.is_none());
        harmless.unwrap_or_else(|| self.meter.sockets_bytes().min(worst.unwrap_or(u64::MAX)))
    }

    fn tell(&self, stage: Stage) {
        let (used, max) = (self.used.all_bytes() >> 20, self.max_bytes >> 20);
        if stage > self.stage {
            let (resident, sockets) = (self.resident_bytes >> 20, self.used.socket_bytes >> 20);
            warn!(
                "memory is {stage}; {used} MiB of limits.memory_max_bytes, {max} MiB, are in use: \
                 {resident} MiB are resident, {sockets} MiB the kernel holds for connections"
            );
        } else if stage < self.stage {
            info!("memory is {stage}; {used} of {max} MiB are in use");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(limits: &Limits) -> MemoryWatch {
        MemoryWatch::new(ProcessMeter::new(1), limits)
    }

    #[test]
    fn sockets_are_asked_about_when_their_worst_would_matter() {
        let limits = Limits {
            memory_max_bytes: 1_000,
            socket_send_bytes_max: 3,
            socket_receive_bytes_max: 2,
            ..Limits::default()
        };
        let watch = watch(&limits);
        let part = watch.meter.sockets(0);
        assert_eq!(watch.socket_bytes(79), 790);
        assert!(!part.is_wanted());
        part.set(100);
        assert_eq!(watch.socket_bytes(80), 100, "by count it were 800");
        assert!(part.is_wanted());
        part.set(10_000);
        assert_eq!(watch.socket_bytes(80), 800, "no more than the worst");
    }

    #[test]
    fn sockets_without_a_bound_are_always_asked_about() {
        let limits = Limits {
            memory_max_bytes: 1_000,
            socket_send_bytes_max: 0,
            ..Limits::default()
        };
        let watch = watch(&limits);
        watch.meter.sockets(0).set(7);
        assert_eq!(watch.socket_bytes(0), 7);
        assert!(watch.meter.sockets(0).is_wanted());
    }

    /// With a heap of 100 bytes; whether the allocator gives back, and what is believed to be beyond.
    fn resident(watch: &mut MemoryWatch, bytes: u64, at: Instant) -> (bool, u64) {
        watch.used.heap_bytes = 100;
        watch.resident_bytes = bytes;
        let is_certain = watch.is_to_give_back(at);
        watch.believe(is_certain);
        (is_certain, watch.used.beyond_bytes)
    }

    #[test]
    fn what_is_resident_counts_when_the_allocator_has_given_back() {
        let limits = Limits {
            memory_max_bytes: 1_000,
            ..Limits::default()
        };
        let mut watch = watch(&limits);
        let mut now = Instant::now();
        assert_eq!(resident(&mut watch, 150, now), (true, 50), "at the start");
        assert_eq!(
            resident(&mut watch, 800, now),
            (false, 50),
            "it was asked lately"
        );
        now += GIVE_BACK_INTERVALS.0;
        assert_eq!(
            resident(&mut watch, 600, now),
            (false, 50),
            "it is not short"
        );
        assert_eq!(
            resident(&mut watch, 800, now),
            (true, 700),
            "it has nothing"
        );
        assert_eq!(
            resident(&mut watch, 400, now),
            (false, 300),
            "less is believed at once"
        );
        // What was taken and never touched is not resident.
        assert_eq!(resident(&mut watch, 60, now), (false, 0));
    }

    #[test]
    fn much_that_is_free_is_given_back_though_memory_is_not_short() {
        let mut watch = watch(&Limits::default());
        let mut now = Instant::now();
        assert!(resident(&mut watch, 100, now).0, "at the start");
        assert!(!resident(&mut watch, BEYOND_BYTES_MAX + 200, now).0);
        now += GIVE_BACK_INTERVALS.1;
        assert!(
            !resident(&mut watch, BEYOND_BYTES_MAX, now).0,
            "it is not much"
        );
        assert!(resident(&mut watch, BEYOND_BYTES_MAX + 200, now).0);
    }

    #[test]
    fn what_is_free_beyond_the_bound_is_given_back_soon() {
        let mut watch = watch(&Limits {
            memory_max_bytes: 1_000,
            ..Limits::default()
        });
        let mut now = Instant::now();
        assert!(resident(&mut watch, 990, now).0);
        watch.stage = Stage::Refuse;
        now += GIVE_BACK_INTERVALS.0;
        assert!(!resident(&mut watch, 990, now).0, "it is not beyond it");
        assert!(resident(&mut watch, 1_001, now).0);
        now += GIVE_BACK_INTERVALS.0 / 2;
        assert!(!resident(&mut watch, 1_001, now).0);
    }
}

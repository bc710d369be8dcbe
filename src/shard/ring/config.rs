//! Sizes and bounds of one ring, each with the reason for its default.

use std::time::Duration;

/// When the kernel runs the completions' own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRun {
    /// At any entry into the kernel of the owning thread (`COOP_TASKRUN`).
    Cooperative,
    /// Only when the owner enters this ring to reap (`SINGLE_ISSUER | DEFER_TASKRUN`).
    Deferred,
}

/// Sizes and bounds of one ring. Counts are rounded up to powers of two.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// Submission entries. A turn may queue more: the queue is then handed over in between.
    pub entries: u32,
    /// Completion entries. Beyond them the kernel keeps completions in memory it must allocate, so
    /// there is room for a receive and a send of some thousand sockets.
    pub completions: u32,
    /// Provided receive buffers (at most 32768). They are in use only from the arrival of bytes to
    /// the end of `received`, so a few per event of a turn are enough; when they run out receives
    /// pause and nothing is lost.
    pub receive_buffers: u16,
    /// Bytes of one receive buffer. Most packets are small; a large publish takes several.
    pub receive_buffer_bytes: u32,
    /// Completions that one `turn` delivers at most, so that mail and timers get their share.
    pub events_per_turn_max: usize,
    /// Bytes after which it delivers no more: what handles them copies them, into memory that may be fresh.
    pub receive_bytes_per_turn_max: usize,
    /// Longest sleep: an owner that has nothing to do shows that often that it is there.
    pub sleep_max: Duration,
    /// Pause of a listener after the process ran out of descriptors or memory.
    pub accept_backoff: Duration,
    /// How long dropping the ring waits for operations in flight. What is left then is leaked, since
    /// the kernel may still use it.
    pub drop_wait_max: Duration,
    /// When completions are worked off.
    pub task_run: TaskRun,
    /// Where many come, how long they may gather before the owner is woken; zero for never. Needs deferred
    /// work and Linux 6.12: else events do not gather.
    pub gather_max: Duration,
}

impl RingConfig {
    /// The defaults; but where many events come, they gather for so long.
    #[must_use]
    pub fn gathering(max: Duration) -> Self {
        let task_run = if max.is_zero() {
            TaskRun::Cooperative
        } else {
            TaskRun::Deferred
        };
        RingConfig {
            gather_max: max,
            task_run,
            ..RingConfig::default()
        }
    }
}

impl Default for RingConfig {
    fn default() -> Self {
        RingConfig {
            entries: 1024,
            completions: 8192,
            receive_buffers: 512,
            receive_buffer_bytes: 8192,
            events_per_turn_max: 512,
            receive_bytes_per_turn_max: 1 << 20,
            sleep_max: Duration::from_secs(1),
            accept_backoff: Duration::from_millis(100),
            drop_wait_max: Duration::from_secs(1),
            task_run: TaskRun::Cooperative,
            gather_max: Duration::ZERO,
        }
    }
}

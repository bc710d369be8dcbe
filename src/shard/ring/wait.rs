//! Sleeping until there is something to do, or several things where many come: the one place where a shard's
//! thread sleeps.

use super::Ring;
use super::error::RingError;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

impl Ring {
    /// Hands over everything queued; then sleeps until a completion, a wake or `deadline`, at most
    /// `sleep_max`, all in one system call. Call it once per loop turn, with a deadline that has passed
    /// when there is more work.
    ///
    /// `has_more` is asked once after sleep has been announced, and must look at everything that others
    /// wake this ring for.
    ///
    /// # Errors
    /// The kernel refused the ring for good.
    pub fn wait(
        &mut self,
        deadline: Option<Instant>,
        has_more: impl FnOnce() -> bool,
    ) -> Result<(), RingError> {
        let now = Instant::now();
        let remaining = deadline.map_or(Duration::MAX, |deadline| {
            deadline.saturating_duration_since(now)
        });
        if self.has_events() || remaining.is_zero() {
            return self.queue.submit();
        }
        self.waker.0.sleeper.announce();
        let result = if has_more() {
            self.queue.submit()
        } else {
            self.counters.sleeps += 1;
            let longest = self.config.sleep_max.min(remaining);
            let several = self.gather.several(now, thread_cpu);
            let several = several.filter(|_| longest > self.config.gather_max);
            self.counters.gathers += u64::from(several.is_some());
            self.queue.submit_and_wait(longest, several)
        };
        self.waker.0.sleeper.retire();
        result
    }
}

/// What this thread has used of its CPU.
pub(super) fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

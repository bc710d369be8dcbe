//! Sleeping until there is something to do, or several things where many come: the one place where a shard's
//! thread sleeps.

use super::Ring;
use super::error::RingError;
use super::gather::ThreadUse;
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::os::unix::fs::FileExt;
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
            let several = self.gather.several(now, || self.clocks.read());
            let several = several.filter(|_| longest > self.config.gather_max);
            self.counters.gathers += u64::from(several.is_some());
            self.queue.submit_and_wait(longest, several)
        };
        self.waker.0.sleeper.retire();
        result
    }
}

/// What tells what the thread that has made it uses.
#[derive(Debug)]
pub(super) struct ThreadClocks {
    /// Time waited for a CPU; `None` where the system does not tell.
    schedstat: Option<File>,
}

impl ThreadClocks {
    pub fn new() -> Self {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        ThreadClocks { schedstat }
    }

    pub fn read(&self) -> ThreadUse {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        ThreadUse {
            cpu: Duration::try_from(cpu).unwrap_or_default(),
            waited: self.waited().unwrap_or_default(),
        }
    }

    /// The second of three numbers, in nanoseconds. (The first is behind by up to a tick.)
    fn waited(&self) -> Option<Duration> {
        let mut text = [0; 80];
        let read = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = str::from_utf8(text.get(..read)?).ok()?;
        let waited = text.split_ascii_whitespace().nth(1)?;
        waited.parse().ok().map(Duration::from_nanos)
    }
}

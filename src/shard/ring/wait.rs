//! Sleeping until there is something to do, and giving the executor its loop.
//!
//! See the module documentation of `shard::ring` for the reasons. `wait` is safe to cancel: a dropped
//! wait leaves at most the announcement of sleep behind, which costs superfluous wakes only.

use super::Ring;
use super::config::TaskRun;
use super::error::RingError;
use super::wake::Watched;
use glommio::io::{PollState, PollableFd};
use glommio::timer::Timer;
use rustix::event::{EventfdFlags, eventfd};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// What the executor polls for a ring.
pub(super) struct Waiting {
    /// Readable while the ring has completions.
    ring: PollableFd<Watched>,
    /// Always readable: waiting for it takes the executor once around its loop.
    open: PollableFd<OwnedFd>,
    /// When the executor last had its loop.
    looped_at: Instant,
}

impl Ring {
    /// Hands over everything queued; then sleeps until a completion, a wake or `deadline`. Call it
    /// once per loop turn: it also gives the executor its loop when that is due, so it must be
    /// called (with a deadline that has passed) even when there is more work.
    ///
    /// `has_mail` is asked once after sleep has been announced, and must look at every queue that
    /// others wake this ring for. Needs a glommio executor.
    ///
    /// # Errors
    /// The kernel refused the ring for good, or the executor's reactor failed.
    pub async fn wait(
        &mut self,
        deadline: Option<Instant>,
        has_mail: impl FnOnce() -> bool,
    ) -> Result<(), RingError> {
        let mut now = Instant::now();
        if self.waiting.is_none() {
            self.waiting = Some(Waiting::new(self, now)?);
        }
        if self.executor_is_due(now) {
            self.queue.submit()?;
            self.executor_loop().await?;
            now = Instant::now();
        }
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(now));
        if self.has_events() || remaining == Some(Duration::ZERO) {
            return self.queue.submit();
        }
        self.waker.0.sleeper.announce();
        let result = if has_mail() {
            self.queue.submit()
        } else {
            self.sleep(deadline, remaining).await
        };
        self.waker.0.sleeper.retire();
        result
    }

    /// First in this ring's own enter, which costs one system call and gives the lowest latency;
    /// after `hot_wait_max` without an event in the executor, which then sleeps for all its tasks.
    async fn sleep(
        &mut self,
        deadline: Option<Instant>,
        remaining: Option<Duration>,
    ) -> Result<(), RingError> {
        let hot = self
            .config
            .hot_wait_max
            .min(remaining.unwrap_or(Duration::MAX));
        if hot.is_zero() {
            self.queue.submit()?;
        } else {
            self.counters.hot_waits += 1;
            self.queue.submit_and_wait(hot)?;
        }
        let over = self.has_events() || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        // Deferred work does not make the ring's descriptor readable, so the executor would sleep
        // beside it for good: such a ring sleeps in slices of its own only.
        if over || self.config.task_run == TaskRun::Deferred {
            return Ok(());
        }
        self.counters.idle_waits += 1;
        self.sleep_in_executor(deadline).await
    }

    async fn sleep_in_executor(&mut self, deadline: Option<Instant>) -> Result<(), RingError> {
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        let mut timer =
            deadline.map(|deadline| Timer::new(deadline.saturating_duration_since(Instant::now())));
        let mut state = PollState::new();
        poll_fn(|context| {
            if let Some(timer) = &mut timer
                && Pin::new(timer).poll(context).is_ready()
            {
                return Poll::Ready(Ok(()));
            }
            waiting.ring.poll_readable(context, &mut state)
        })
        .await
        .map_err(executor_failed)?;
        waiting.looped_at = Instant::now();
        Ok(())
    }

    fn executor_is_due(&self, now: Instant) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| {
            now.saturating_duration_since(waiting.looped_at) >= self.config.executor_interval
        })
    }

    /// Yielding alone would not do: the executor then runs its ready tasks, this one among them,
    /// until its own preemption time, and looks at timers and I/O only after that.
    async fn executor_loop(&mut self) -> Result<(), RingError> {
        self.counters.executor_loops += 1;
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        waiting.open.readable().await.map_err(executor_failed)?;
        waiting.looped_at = Instant::now();
        Ok(())
    }
}

impl Waiting {
    fn new(ring: &Ring, now: Instant) -> Result<Self, RingError> {
        let failed = |source| RingError::System {
            step: "eventfd",
            source,
        };
        let open = eventfd(1, EventfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        Ok(Waiting {
            ring: PollableFd::new(Watched(ring.waker.0.clone())).map_err(executor_failed)?,
            open: PollableFd::new(open).map_err(executor_failed)?,
            looped_at: now,
        })
    }
}

fn executor_failed(error: glommio::GlommioError<()>) -> RingError {
    RingError::System {
        step: "waiting in the executor",
        source: io::Error::from(error),
    }
}

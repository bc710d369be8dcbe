//! Work that is asked for again and again and done for all who asked at once: the first after a quiet time
//! without delay, then once per interval.

use std::time::{Duration, Instant};

/// When the work is due.
#[derive(Clone, Debug)]
pub struct Pace {
    interval: Duration,
    is_asked: bool,
    done_at: Option<Instant>,
}

impl Pace {
    /// Nothing is asked for yet; then at most once per `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Pace {
            interval,
            is_asked: false,
            done_at: None,
        }
    }

    /// The work has to be done, if not now then soon.
    pub fn ask(&mut self) {
        self.is_asked = true;
    }

    /// How long until it is due; `None` if nobody asks for it.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let since = |done_at| now.saturating_duration_since(done_at);
        let rest = |done_at| self.interval.saturating_sub(since(done_at));
        self.is_asked
            .then(|| self.done_at.map_or(Duration::ZERO, rest))
    }

    /// Whether to do it now, for all who have asked so far.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.wait(now) != Some(Duration::ZERO) {
            return false;
        }
        self.is_asked = false;
        self.done_at = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_done_at_once_and_many_together() {
        let interval = Duration::from_millis(100);
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(interval);
        assert!(!pace.is_due(start) && pace.wait(start).is_none());
        pace.ask();
        assert!(pace.is_due(start));
        let mut done = Vec::new();
        for ms in 1..=250 {
            pace.ask();
            if pace.is_due(after(ms)) {
                done.push(ms);
            }
        }
        assert_eq!(done, [100, 200]);
        // The last who asked is not forgotten.
        assert_eq!(pace.wait(after(250)), Some(Duration::from_millis(50)));
        assert!(!pace.is_due(after(299)) && pace.is_due(after(300)));
        assert!(!pace.is_due(after(1_000)));
        pace.ask();
        assert!(pace.is_due(after(1_000)));
    }
}

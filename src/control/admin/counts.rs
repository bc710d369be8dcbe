//! What the admin listener counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct AdminCounts {
    /// Requests that were read.
    pub requests: AtomicU64,
    /// Of these, and of what was no request: refused.
    pub requests_refused: AtomicU64,
    /// Connections closed at once because there were too many.
    pub connections_refused: AtomicU64,
    /// Requests that did not come, or were not answered, in time.
    pub timeouts: AtomicU64,
    /// Traces that run now.
    pub traces: AtomicU64,
    /// Traces that were not begun because so many run.
    pub traces_refused: AtomicU64,
}

impl AdminCounts {
    /// One more.
    pub fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// One less of what there is now.
    pub fn take(count: &AtomicU64) {
        count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Names and values, in a fixed order.
    #[must_use]
    pub fn list(&self) -> [(&'static str, u64); 6] {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("admin_requests", get(&self.requests)),
            ("admin_requests_refused", get(&self.requests_refused)),
            ("admin_connections_refused", get(&self.connections_refused)),
            ("admin_timeouts", get(&self.timeouts)),
            ("admin_traces", get(&self.traces)),
            ("admin_traces_refused", get(&self.traces_refused)),
        ]
    }
}

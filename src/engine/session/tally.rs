//! What the sessions of a shard have, all together: kept as it changes, so that nobody has to walk over them.
//!
//! Invariant: it says what the sums over all sessions that count in it would be.

use std::cell::Cell;

/// Sums over sessions.
#[derive(Debug, Default)]
pub struct Tally {
    subscriptions: Cell<usize>,
    queued: Cell<usize>,
    unacknowledged: Cell<usize>,
}

/// Sums at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Subscriptions.
    pub subscriptions: usize,
    /// Messages that wait for room in a window.
    pub queued: usize,
    /// Messages in windows.
    pub unacknowledged: usize,
}

fn add(sum: &Cell<usize>, more: isize) {
    sum.set(sum.get().wrapping_add_signed(more));
}

impl Tally {
    /// So many more subscriptions, or less.
    pub fn subscribed(&self, more: isize) {
        add(&self.subscriptions, more);
    }

    /// So many more messages wait, or less.
    pub fn queued(&self, more: isize) {
        add(&self.queued, more);
    }

    /// So many more messages are in windows, or less.
    pub fn unacknowledged(&self, more: isize) {
        add(&self.unacknowledged, more);
    }

    /// As they are.
    #[must_use]
    pub fn sums(&self) -> Sums {
        Sums {
            subscriptions: self.subscriptions.get(),
            queued: self.queued.get(),
            unacknowledged: self.unacknowledged.get(),
        }
    }
}

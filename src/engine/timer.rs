//! Deadlines of connections and sessions, fed by `now`.
//!
//! An owner has at most one entry that counts: it remembers the time its timer is set for, and an
//! entry with another time is stale. So a deadline that moves later, as a keep alive does with every
//! packet, costs nothing until the old one is reached.

use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::time::Timestamp;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// CONNECT or keep alive.
    Connection(ConnectionKey),
    /// Will delay or session expiry.
    Session(SessionKey),
}

/// The deadlines of one shard.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, Owner)>>,
}

impl Timers {
    /// Sets a timer.
    pub fn set(&mut self, at: Timestamp, owner: Owner) {
        self.heap.push(Reverse((at, owner)));
    }

    /// The earliest entry.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes an entry that is due.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, Owner)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

//! Deadlines of connections and sessions, fed by `now`.
//!
//! An owner has at most one entry: it remembers the time its timer is set for, and takes the entry along
//! when it goes. A deadline that moves later, as a keep alive does with every packet, costs nothing until the
//! old one is reached; the owner then finds out that it is too early.

use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::time::Timestamp;
use std::collections::BTreeSet;

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// CONNECT or keep alive.
    Connection(ConnectionKey),
    /// Will delay or session expiry.
    Session(SessionKey),
    /// Denials of a session's client that were left out are to be summed up.
    Denials(SessionKey),
}

/// The deadlines of one shard.
#[derive(Debug, Default)]
pub struct Timers {
    entries: BTreeSet<(Timestamp, Owner)>,
}

impl Timers {
    /// Sets an owner's timer, which was set for `before`; NEVER for none.
    pub fn set(&mut self, before: Timestamp, at: Timestamp, owner: Owner) {
        if before != Timestamp::NEVER {
            self.entries.remove(&(before, owner));
        }
        if at != Timestamp::NEVER {
            self.entries.insert((at, owner));
        }
    }

    /// The earliest entry.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes an entry that is due.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, Owner)> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop_first()
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slots::Slots;

    #[test]
    fn an_owner_has_one_entry_and_none_when_it_is_gone() {
        let mut sessions = Slots::default();
        let owners: Vec<_> = (0..3)
            .map(|_| Owner::Session(sessions.insert(())))
            .collect();
        let at = Timestamp::from_ms;
        let mut timers = Timers::default();
        for owner in &owners {
            timers.set(Timestamp::NEVER, at(50), *owner);
        }
        timers.set(at(50), at(10), owners[2]);
        timers.set(at(50), Timestamp::NEVER, owners[0]);
        assert_eq!((timers.len(), timers.next()), (2, Some(at(10))));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(60)), Some((at(10), owners[2])));
        assert_eq!(timers.pop_due(at(60)), Some((at(50), owners[1])));
        assert!(timers.pop_due(at(60)).is_none() && timers.is_empty());
    }
}

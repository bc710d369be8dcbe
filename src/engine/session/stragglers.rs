//! Unacknowledged messages that the window has left behind: later ones were acknowledged before them, or
//! their session was resumed.
//!
//! Invariants: places ascend in the order of first sending; each entry has one place and one packet
//! identifier, and awaits something. Those in places `resent_to..held_to` have not been sent on this
//! connection, and `held` counts them. Every operation costs O(log n), none depends on what is done.

use super::id_runs::IdRuns;
use super::inflight::Inflight;
use std::collections::BTreeMap;

/// What was left behind, in the order of first sending.
#[derive(Debug, Default)]
pub struct Stragglers {
    entries: BTreeMap<u64, Inflight>,
    places: BTreeMap<u16, u64>,
    ids: IdRuns,
    next_place: u64,
    resent_to: u64,
    held_to: u64,
    held: u16,
}

impl Stragglers {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts an entry behind the others.
    pub fn push(&mut self, entry: Inflight) {
        self.places.insert(entry.packet_id, self.next_place);
        self.ids.insert(entry.packet_id);
        self.entries.insert(self.next_place, entry);
        self.next_place += 1;
    }

    /// Whether one of them has this identifier.
    #[must_use]
    pub fn contains(&self, packet_id: u16) -> bool {
        self.ids.contains(packet_id)
    }

    /// The first identifier from this one on that none of them has, with wrap.
    #[must_use]
    pub fn free_from(&self, packet_id: u16) -> Option<u16> {
        self.ids.free_from(packet_id)
    }

    /// The one with this identifier.
    pub fn get_mut(&mut self, packet_id: u16) -> Option<&mut Inflight> {
        self.entries.get_mut(self.places.get(&packet_id)?)
    }

    /// Takes it out.
    pub fn remove(&mut self, packet_id: u16) -> Option<Inflight> {
        let place = self.places.remove(&packet_id)?;
        self.ids.remove(packet_id);
        if (self.resent_to..self.held_to).contains(&place) {
            self.held -= 1;
        }
        self.entries.remove(&place)
    }

    /// All of them have to be sent again.
    pub fn hold_back(&mut self) {
        self.resent_to = 0;
        self.held_to = self.next_place;
        // There are as many identifiers.
        self.held = self.entries.len() as u16;
    }

    /// How many still have to be.
    #[must_use]
    pub const fn held(&self) -> u16 {
        self.held
    }

    /// The first of those.
    #[must_use]
    pub fn first_held_back(&self) -> Option<&Inflight> {
        let mut held = self.entries.range(self.resent_to..self.held_to);
        held.next().map(|(_, entry)| entry)
    }

    /// The first of those, which counts as sent from here on.
    pub fn next_held_back(&mut self) -> Option<&Inflight> {
        let mut held = self.entries.range(self.resent_to..self.held_to);
        let (place, entry) = held.next()?;
        self.resent_to = place + 1;
        self.held -= 1;
        Some(entry)
    }

    /// In the order of first sending.
    pub fn iter(&self) -> impl Iterator<Item = &Inflight> {
        self.entries.values()
    }

    /// Takes them all, in that order.
    pub fn into_entries(self) -> impl Iterator<Item = Inflight> {
        self.entries.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::session::inflight::Awaits;

    fn stragglers(ids: &[u16]) -> Stragglers {
        let mut stragglers = Stragglers::default();
        for &packet_id in ids {
            stragglers.push(Inflight {
                packet_id,
                awaits: Awaits::Pubcomp,
                entry: 0,
                delivery: None,
            });
        }
        stragglers
    }

    #[test]
    fn order_is_that_of_pushing_not_of_identifiers() {
        let mut behind = stragglers(&[9, 3, 7, 1]);
        assert!(behind.remove(3).is_some() && behind.remove(3).is_none());
        assert!(behind.contains(7) && !behind.contains(3));
        let left: Vec<_> = behind.iter().map(|entry| entry.packet_id).collect();
        assert_eq!(left, [9, 7, 1]);
        let taken: Vec<_> = behind.into_entries().map(|entry| entry.packet_id).collect();
        assert_eq!(taken, left);
    }

    #[test]
    fn what_is_held_back_goes_once_and_only_if_it_is_still_there() {
        let mut behind = stragglers(&[9, 3, 7, 1]);
        assert!(behind.next_held_back().is_none());
        for _ in 0..2 {
            behind.hold_back();
            assert_eq!(behind.held(), 4);
            assert_eq!(
                behind.next_held_back().map(|entry| entry.packet_id),
                Some(9)
            );
        }
        behind.remove(9);
        assert_eq!(behind.held(), 3, "it was sent already");
        behind.remove(3);
        assert_eq!(behind.held(), 2);
        // What comes later is not held back.
        behind.push(Inflight {
            packet_id: 4,
            awaits: Awaits::Pubcomp,
            entry: 0,
            delivery: None,
        });
        assert_eq!(
            behind.next_held_back().map(|entry| entry.packet_id),
            Some(7)
        );
        assert_eq!(
            behind.next_held_back().map(|entry| entry.packet_id),
            Some(1)
        );
        assert!(behind.next_held_back().is_none());
        behind.remove(4);
        assert_eq!((behind.held(), behind.len()), (0, 2));
    }
}

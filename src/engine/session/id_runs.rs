//! A set of packet identifiers, kept as runs of neighbours: the next identifier that is not in it is
//! found in one step, however many are.
//!
//! Invariants: runs neither overlap nor touch, and 0 is in none. A run more or less costs O(log runs).

use std::collections::BTreeMap;

/// The identifier after `packet_id`: they run from 1 to 65,535 and again `[MQTT-2.2.1-3]`.
#[must_use]
pub const fn following(packet_id: u16) -> u16 {
    if packet_id == u16::MAX {
        1
    } else {
        packet_id + 1
    }
}

/// Packet identifiers in use.
#[derive(Debug, Default)]
pub struct IdRuns {
    /// First to last.
    runs: BTreeMap<u16, u16>,
}

impl IdRuns {
    /// The run that `packet_id` is in.
    fn run(&self, packet_id: u16) -> Option<(u16, u16)> {
        let (&first, &last) = self.runs.range(..=packet_id).next_back()?;
        (packet_id <= last).then_some((first, last))
    }

    /// Whether it is in use.
    #[must_use]
    pub fn contains(&self, packet_id: u16) -> bool {
        self.run(packet_id).is_some()
    }

    /// From here on it is in use.
    pub fn insert(&mut self, packet_id: u16) {
        if self.contains(packet_id) {
            return;
        }
        let after = packet_id.checked_add(1);
        let last = after.and_then(|after| self.runs.remove(&after));
        let last = last.unwrap_or(packet_id);
        let before = self.runs.range_mut(..packet_id).next_back();
        match before.filter(|(_, end)| packet_id - **end == 1) {
            Some((_, end)) => *end = last,
            None => {
                self.runs.insert(packet_id, last);
            }
        }
    }

    /// It is free again.
    pub fn remove(&mut self, packet_id: u16) {
        let Some((first, last)) = self.run(packet_id) else {
            return;
        };
        if first == packet_id {
            self.runs.remove(&first);
        } else {
            self.runs.insert(first, packet_id - 1);
        }
        if packet_id < last {
            self.runs.insert(packet_id + 1, last);
        }
    }

    /// The first free identifier from `packet_id` on, with wrap; `None` if all are in use.
    #[must_use]
    pub fn free_from(&self, packet_id: u16) -> Option<u16> {
        let Some((_, last)) = self.run(packet_id) else {
            return Some(packet_id);
        };
        if last < u16::MAX {
            return Some(last + 1);
        }
        match self.run(1) {
            None => Some(1),
            Some((_, u16::MAX)) => None,
            Some((_, last)) => Some(last + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(ids: &IdRuns) -> Vec<(u16, u16)> {
        ids.runs
            .iter()
            .map(|(&first, &last)| (first, last))
            .collect()
    }

    #[test]
    fn neighbours_are_one_run() {
        let mut ids = IdRuns::default();
        for id in [5, 7, 6, 6, 1, u16::MAX, 2, u16::MAX - 1] {
            ids.insert(id);
        }
        assert_eq!(runs(&ids), [(1, 2), (5, 7), (u16::MAX - 1, u16::MAX)]);
        ids.remove(6);
        ids.remove(4);
        ids.remove(1);
        ids.remove(u16::MAX);
        let left = [(2, 2), (5, 5), (7, 7), (u16::MAX - 1, u16::MAX - 1)];
        assert_eq!(runs(&ids), left);
        assert!(ids.contains(5) && !ids.contains(6) && !ids.contains(0));
    }

    #[test]
    fn the_next_free_one_is_found_over_the_wrap() {
        let mut ids = IdRuns::default();
        assert_eq!(ids.free_from(9), Some(9));
        for id in 1..=u16::MAX {
            ids.insert(id);
        }
        assert_eq!((runs(&ids).len(), ids.free_from(9)), (1, None));
        for free in [1, 2, 300, u16::MAX] {
            ids.remove(free);
            for from in [1, 2, 299, 300, 301, u16::MAX] {
                assert_eq!(ids.free_from(from), Some(free), "from {from}");
            }
            ids.insert(free);
        }
        ids.remove(3);
        ids.remove(40_000);
        assert_eq!(ids.free_from(4), Some(40_000));
        assert_eq!(ids.free_from(40_001), Some(3));
    }

    #[test]
    fn it_does_what_a_table_of_all_identifiers_does() {
        let (seed, span) = (0x5eed_u64, 300);
        let mut random = seed;
        let mut ids = IdRuns::default();
        let mut table = [false; 65_536];
        for step in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Around the wrap, where it is hardest.
            let id = ((random >> 33) % span) as u16;
            let id = if id < 150 {
                id + 1
            } else {
                u16::MAX - id + 150
            };
            let is_used = (random >> 60) % 3 > 0;
            if is_used {
                ids.insert(id);
            } else {
                ids.remove(id);
            }
            table[usize::from(id)] = is_used;
            let mut free = id;
            while table[usize::from(free)] {
                free = following(free);
            }
            assert_eq!(ids.free_from(id), Some(free), "seed {seed:#x} step {step}");
        }
        let count = runs(&ids).into_iter().map(|(first, last)| last - first + 1);
        let used = table.iter().filter(|used| **used).count();
        assert_eq!(usize::from(count.sum::<u16>()), used);
    }
}

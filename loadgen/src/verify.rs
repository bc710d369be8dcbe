//! Whether subscribers got what their QoS promises: each message once, in order, undamaged.

use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// Messages that may be missing in one stream before they are given up as lost.
const MISSING_MAX: usize = 4096;

/// What one subscriber has seen of one stream.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    next: u32,
    received: u32,
    /// Skipped, and not come since; in order.
    missing: Option<Box<Missing>>,
}

/// Behind a pointer: most trackers, of millions, never need it.
#[derive(Clone, Debug, Default)]
struct Missing {
    sequences: Vec<u32>,
}

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first of this message.
    New,
    /// The first of this message, after a later one.
    Late,
    /// Came before.
    Again,
}

impl Tracker {
    /// Notes the arrival of message `sequence`.
    pub fn note(&mut self, sequence: u32) -> Arrival {
        if sequence >= self.next {
            if sequence > self.next {
                self.skip_to(sequence);
            }
            self.next = sequence.saturating_add(1);
            self.received += 1;
            return Arrival::New;
        }
        let Some(missing) = &mut self.missing else {
            return Arrival::Again;
        };
        match missing.sequences.binary_search(&sequence) {
            Ok(at) => {
                missing.sequences.remove(at);
                self.received += 1;
                Arrival::Late
            }
            Err(_) => Arrival::Again,
        }
    }

    fn skip_to(&mut self, sequence: u32) {
        let missing = &mut self.missing.get_or_insert_default().sequences;
        let room = MISSING_MAX.saturating_sub(missing.len());
        missing.extend((self.next..sequence).take(room));
    }

    /// What never came of `total` messages, and what came that was never sent.
    pub fn lost_and_invented(&self, total: u32) -> (u64, u64) {
        let lost = total.saturating_sub(self.received);
        let invented = self.next.saturating_sub(total).min(self.received);
        (u64::from(lost), u64::from(invented))
    }
}

/// Which messages of a stream the members of a shared group have seen together.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    words: Vec<u64>,
}

/// Sequences beyond this are not believed.
const SEEN_MAX: u32 = 1 << 30;

impl Seen {
    /// Notes message `sequence`; whether it is the first time.
    pub fn note(&mut self, sequence: u32) -> bool {
        let sequence = sequence.min(SEEN_MAX);
        let (word, bit) = (sequence as usize / 64, 1 << (sequence % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    /// Takes in what other members saw; returns how many both saw.
    pub fn merge(&mut self, other: &Seen) -> u64 {
        if other.words.len() > self.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        let mut both = 0;
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            both += u64::from((*mine & theirs).count_ones());
            *mine |= theirs;
        }
        both
    }

    /// How many different messages.
    pub fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }
}

/// Breaches over all subscribers, of one QoS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaches {
    /// Deliveries that were checked.
    pub delivered: u64,
    /// Never came.
    pub lost: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came after a later one of the same publisher and topic.
    pub reordered: u64,
    /// Damaged, of another run, never sent, or not an answer to the subscription.
    pub corrupt: u64,
}

impl Breaches {
    /// Whether `qos` allows what came: QoS 1 may repeat. What did not come is judged elsewhere.
    pub const fn are_allowed(&self, qos: usize) -> bool {
        self.reordered == 0 && self.corrupt == 0 && (self.duplicated == 0 || qos == 1)
    }
}

impl AddAssign for Breaches {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_repeats_and_reorderings_are_told_apart() {
        let mut tracker = Tracker::default();
        let arrivals = [0, 2, 1, 2, 5].map(|sequence| tracker.note(sequence));
        let expected = [
            Arrival::New,
            Arrival::New,
            Arrival::Late,
            Arrival::Again,
            Arrival::New,
        ];
        assert_eq!(arrivals, expected);
        assert_eq!(tracker.lost_and_invented(10), (6, 0));
        assert_eq!(tracker.lost_and_invented(4), (0, 2));
    }

    #[test]
    fn a_repeat_of_a_message_that_was_never_missing_is_a_repeat() {
        let mut tracker = Tracker::default();
        for sequence in 0..5 {
            assert_eq!(tracker.note(sequence), Arrival::New);
        }
        assert_eq!(tracker.note(4), Arrival::Again);
        assert_eq!(tracker.lost_and_invented(5), (0, 0));
    }

    #[test]
    fn members_of_a_group_are_merged() {
        let (mut one, mut other) = (Seen::default(), Seen::default());
        assert!(one.note(0) && one.note(100) && !one.note(100));
        assert!(other.note(1) && other.note(100) && other.note(1000));
        assert_eq!(one.merge(&other), 1);
        assert_eq!(one.count(), 4);
    }

    #[test]
    fn each_qos_allows_what_it_allows() {
        let repeated = Breaches {
            duplicated: 1,
            ..Breaches::default()
        };
        assert_eq!(
            [0, 1, 2].map(|qos| repeated.are_allowed(qos)),
            [false, true, false]
        );
        let damaged = Breaches {
            corrupt: 1,
            ..Breaches::default()
        };
        assert_eq!([0, 1, 2].map(|qos| damaged.are_allowed(qos)), [false; 3]);
    }
}

//! Statistics of all shards: asked for together, taken as they come while everything else goes on.
//!
//! Answers carry the number of their question: one that comes too late is not taken for another's.

use crate::engine::keys::ShardId;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Names and values, in a fixed order.
pub type Counts = Vec<(&'static str, u64)>;

/// What is asked, and what has been answered so far.
#[derive(Debug)]
pub struct Census {
    shards: ShardId,
    number: u64,
    /// Until when answers are waited for; `None` while nothing is asked.
    by: Option<Instant>,
    missing: BTreeSet<ShardId>,
    sums: Counts,
    /// Somebody has asked since: for what is then, not for what is told now.
    is_asked_again: bool,
}

impl Census {
    /// Of so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Census {
            shards: shards as ShardId,
            number: 0,
            by: None,
            missing: BTreeSet::new(),
            sums: Vec::new(),
            is_asked_again: false,
        }
    }

    /// Somebody wants to know: the number to ask all shards with, unless that has to wait for answers.
    pub fn ask(&mut self, now: Instant) -> Option<u64> {
        if self.by.is_some() {
            self.is_asked_again = true;
            return None;
        }
        self.number += 1;
        self.by = Some(now + ANSWER_MAX);
        self.missing = (0..self.shards).collect();
        Some(self.number)
    }

    /// A shard has answered.
    pub fn take(&mut self, shard: ShardId, number: u64, counts: Counts) {
        if number == self.number && self.missing.remove(&shard) {
            add(&mut self.sums, counts);
        }
    }

    /// Gauges and counters, summed over the shards (`_max`: of the highest), when all have answered or had
    /// their time. Those that have not are left out; `shards_silent` counts them.
    pub fn finish(&mut self, now: Instant) -> Option<Counts> {
        let by = self.by?;
        if !self.missing.is_empty() && now < by {
            return None;
        }
        self.by = None;
        let mut sums = std::mem::take(&mut self.sums);
        sums.push(("shards_silent", self.missing.len() as u64));
        self.missing.clear();
        Some(sums)
    }

    /// Whether it was asked for again before it was finished; said once.
    pub fn take_asked_again(&mut self) -> bool {
        std::mem::take(&mut self.is_asked_again)
    }
}

fn add(sums: &mut Counts, counts: Counts) {
    for (name, value) in counts {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, most)) if name.ends_with("_max") => *most = (*most).max(value),
            Some((_, sum)) => *sum += value,
            None => sums.push((name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(value: u64) -> Counts {
        vec![("a", value), ("b_max", value)]
    }

    #[test]
    fn what_all_say_is_summed_and_the_highest_of_what_is_a_maximum() {
        let mut census = Census::new(2);
        let now = Instant::now();
        let number = census.ask(now).unwrap();
        assert_eq!(census.finish(now), None);
        census.take(1, number, counts(3));
        census.take(1, number, counts(3));
        assert_eq!(census.finish(now), None);
        census.take(0, number, counts(2));
        let told = [("a", 5), ("b_max", 3), ("shards_silent", 0)];
        assert_eq!(census.finish(now).unwrap(), told);
        assert_eq!(census.finish(now), None);
    }

    #[test]
    fn who_is_silent_is_left_out_and_a_late_answer_is_none_to_the_next_question() {
        let mut census = Census::new(2);
        let now = Instant::now();
        let late = census.ask(now).unwrap();
        census.take(0, late, counts(2));
        assert_eq!(census.finish(now + ANSWER_MAX / 2), None);
        let told = [("a", 2), ("b_max", 2), ("shards_silent", 1)];
        assert_eq!(census.finish(now + ANSWER_MAX).unwrap(), told);
        census.take(1, late, counts(7));
        let next = census.ask(now).unwrap();
        census.take(1, late, counts(7));
        census.take(0, next, counts(1));
        census.take(1, next, counts(1));
        let told = [("a", 2), ("b_max", 1), ("shards_silent", 0)];
        assert_eq!(census.finish(now).unwrap(), told);
    }

    #[test]
    fn who_asks_meanwhile_is_answered_afterwards() {
        let mut census = Census::new(1);
        let now = Instant::now();
        let number = census.ask(now).unwrap();
        assert_eq!((census.ask(now), census.ask(now)), (None, None));
        census.take(0, number, counts(1));
        assert!(census.finish(now).is_some());
        assert!(census.take_asked_again() && !census.take_asked_again());
    }
}

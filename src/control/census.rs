//! Statistics of all shards: asked for together, taken as they come while everything else goes on.
//!
//! Answers carry the number of their question: one that comes too late is not taken for another's. Who asks
//! while answers are on their way is answered by the next question, all of them by one: the shards are asked
//! one thing at a time, however many want to know.

use crate::engine::keys::ShardId;
use crate::shard::report::Report;
use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Names and values, in a fixed order.
pub type Counts = Vec<(&'static str, u64)>;

/// What is asked, by whom (`A`), and what has been answered so far.
#[derive(Debug)]
pub struct Census<A> {
    number: u64,
    /// Until when answers are waited for; `None` while nothing is asked.
    by: Option<Instant>,
    missing: BTreeSet<ShardId>,
    /// What each shard told last.
    reports: Vec<Option<Arc<Report>>>,
    askers: Vec<A>,
    /// They have asked since: for what is then, not for what is told now.
    later: Vec<A>,
}

impl<A> Census<A> {
    /// Of so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Census {
            number: 0,
            by: None,
            missing: BTreeSet::new(),
            reports: vec![None; shards],
            askers: Vec::new(),
            later: Vec::new(),
        }
    }

    /// Somebody wants to know: the number to ask all shards with, unless that has to wait for answers.
    pub fn ask(&mut self, now: Instant, asker: A) -> Option<u64> {
        self.later.push(asker);
        self.ask_next(now)
    }

    /// The same for those that have asked meanwhile, if there are any.
    pub fn ask_next(&mut self, now: Instant) -> Option<u64> {
        if self.by.is_some() || self.later.is_empty() {
            return None;
        }
        self.askers = mem::take(&mut self.later);
        self.number += 1;
        self.by = Some(now + ANSWER_MAX);
        self.missing = (0..).take(self.reports.len()).collect();
        Some(self.number)
    }

    /// A shard has answered.
    pub fn take(&mut self, shard: ShardId, number: u64, report: Box<Report>) {
        if number == self.number
            && self.missing.remove(&shard)
            && let Some(last) = self.reports.get_mut(usize::from(shard))
        {
            *last = Some(Arc::from(report));
        }
    }

    /// Who is to be answered, and who has not answered, when all have or had their time.
    pub fn finish(&mut self, now: Instant) -> Option<(Vec<A>, BTreeSet<ShardId>)> {
        let by = self.by?;
        if !self.missing.is_empty() && now < by {
            return None;
        }
        self.by = None;
        Some((mem::take(&mut self.askers), mem::take(&mut self.missing)))
    }

    /// What each shard told last, by number.
    #[must_use]
    pub fn reports(&self) -> &[Option<Arc<Report>>] {
        &self.reports
    }

    /// Gauges and counters, summed over the shards (`_max`: of the highest). Those that did not answer are
    /// left out; `shards_silent` counts them.
    #[must_use]
    pub fn sums(&self, silent: &BTreeSet<ShardId>) -> Counts {
        let mut sums = Counts::new();
        for (shard, report) in (0..).zip(&self.reports) {
            if let Some(report) = report.as_ref().filter(|_| !silent.contains(&shard)) {
                add(&mut sums, &report.counts);
            }
        }
        sums.push(("shards_silent", silent.len() as u64));
        sums
    }
}

fn add(sums: &mut Counts, counts: &Counts) {
    for &(name, value) in counts {
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

    fn counts(value: u64) -> Box<Report> {
        Box::new(Report {
            counts: vec![("a", value), ("b_max", value)],
            ..Report::default()
        })
    }

    /// Sums, if all have answered or had their time.
    fn finish(census: &mut Census<u8>, now: Instant) -> Option<Counts> {
        let (_, silent) = census.finish(now)?;
        Some(census.sums(&silent))
    }

    #[test]
    fn what_all_say_is_summed_and_the_highest_of_what_is_a_maximum() {
        let mut census = Census::new(2);
        let now = Instant::now();
        let number = census.ask(now, 0).unwrap();
        assert_eq!(finish(&mut census, now), None);
        census.take(1, number, counts(3));
        census.take(1, number, counts(3));
        assert_eq!(finish(&mut census, now), None);
        census.take(0, number, counts(2));
        let told = [("a", 5), ("b_max", 3), ("shards_silent", 0)];
        assert_eq!(finish(&mut census, now).unwrap(), told);
        assert_eq!(finish(&mut census, now), None);
    }

    #[test]
    fn who_is_silent_is_left_out_and_a_late_answer_is_none_to_the_next_question() {
        let mut census = Census::new(2);
        let now = Instant::now();
        let late = census.ask(now, 0).unwrap();
        census.take(0, late, counts(2));
        assert_eq!(finish(&mut census, now + ANSWER_MAX / 2), None);
        let told = [("a", 2), ("b_max", 2), ("shards_silent", 1)];
        assert_eq!(finish(&mut census, now + ANSWER_MAX).unwrap(), told);
        census.take(1, late, counts(7));
        let next = census.ask(now, 0).unwrap();
        census.take(1, late, counts(7));
        census.take(0, next, counts(1));
        census.take(1, next, counts(1));
        let told = [("a", 2), ("b_max", 1), ("shards_silent", 0)];
        assert_eq!(finish(&mut census, now).unwrap(), told);
    }

    #[test]
    fn what_a_silent_shard_told_before_is_kept() {
        let mut census = Census::new(1);
        let now = Instant::now();
        let number = census.ask(now, 0).unwrap();
        census.take(0, number, counts(4));
        assert!(census.finish(now).unwrap().1.is_empty());
        census.ask(now, 0).unwrap();
        assert_eq!(
            census.finish(now + ANSWER_MAX).unwrap().1,
            BTreeSet::from([0])
        );
        assert_eq!(
            census.reports()[0].as_ref().unwrap().counts,
            counts(4).counts
        );
    }

    #[test]
    fn who_asks_meanwhile_is_answered_afterwards() {
        let mut census = Census::new(1);
        let now = Instant::now();
        let number = census.ask(now, 0).unwrap();
        assert_eq!((census.ask(now, 1), census.ask(now, 2)), (None, None));
        census.take(0, number, counts(1));
        assert_eq!(census.finish(now).unwrap().0, [0]);
        let next = census.ask_next(now).unwrap();
        census.take(0, next, counts(1));
        assert_eq!(census.finish(now).unwrap().0, [1, 2]);
        assert_eq!(census.ask_next(now), None);
    }
}

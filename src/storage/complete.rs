//! Which QoS 2 publishes of a shard are complete, by their numbers.
//!
//! Not here: what becomes of what is kept of the others ([`super::decided`]).

use std::collections::BTreeMap;
use std::ops::Bound;

/// Numbers of one shard's publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complete {
    /// By the number before the first, the last. None touches another.
    ranges: BTreeMap<u64, u64>,
}

impl Complete {
    /// Those after a number, up to another one.
    pub fn add(&mut self, after: u64, through: u64) {
        if through <= after {
            return;
        }
        let (mut after, mut through) = (after, through);
        if let Some((&from, &to)) = self.ranges.range(..=after).next_back()
            && to >= after
        {
            (after, through) = (from, through.max(to));
        }
        let bounds = (Bound::Excluded(after), Bound::Included(through));
        while let Some((&from, &to)) = self.ranges.range(bounds).next() {
            self.ranges.remove(&from);
            through = through.max(to);
        }
        self.ranges.insert(after, through);
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let before = self.ranges.range(..number).next_back();
        before.is_some_and(|(_, through)| *through >= number)
    }

    /// All of them: after the first, through the second.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges
            .iter()
            .map(|(after, through)| (*after, *through))
    }

    /// The highest; 0 if there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.ranges.values().next_back().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together() {
        let mut complete = Complete::default();
        for (after, through) in [(4, 5), (6, 7), (9, 20), (3, 3), (11, 12), (30, 31)] {
            complete.add(after, through);
        }
        let all = |complete: &Complete| complete.ranges().collect::<Vec<_>>();
        assert_eq!(all(&complete), [(4, 5), (6, 7), (9, 20), (30, 31)]);
        complete.add(5, 6);
        assert_eq!(all(&complete), [(4, 7), (9, 20), (30, 31)]);
        let has = |complete: &Complete| {
            (0..33)
                .filter(|n| complete.contains(*n))
                .collect::<Vec<u64>>()
        };
        let between: Vec<u64> = (5..=7).chain(10..=20).chain([31]).collect();
        assert_eq!(has(&complete), between);
        complete.add(0, 25);
        assert_eq!(all(&complete), [(0, 25), (30, 31)]);
        complete.add(25, 30);
        assert_eq!((all(&complete), complete.last()), (vec![(0, 31)], 31));
    }
}

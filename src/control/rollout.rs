//! Whether every shard has what was ordered: nobody waits for it, it is told when the last one says so.
//!
//! Orders have numbers that grow, and each holds all that those before it said: a slow shard gets the newest
//! only, and who has one has all before it.

use crate::engine::keys::ShardId;

/// The orders given, and which of them each shard has.
#[derive(Debug)]
pub struct Rollout {
    /// The newest.
    number: u64,
    /// The newest that each shard has, by its number.
    has: Vec<u64>,
    /// Orders that are to be told of: the first and the last of those that were not yet.
    news: Option<(u64, u64)>,
}

impl Rollout {
    /// To so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Rollout {
            number: 0,
            has: vec![0; shards],
            news: None,
        }
    }

    /// Something new is ordered, which is told when all have it if it `is_news`: the number to confirm it
    /// with.
    pub fn begin(&mut self, is_news: bool) -> u64 {
        self.number += 1;
        if is_news {
            self.add_news();
        }
        self.number
    }

    /// Somebody wants to be told that what was ordered last is in force: true if it is, else it is told when
    /// all have it.
    #[must_use]
    pub fn ask(&mut self) -> bool {
        let is_in_force = self.number_of_all() == self.number;
        if !is_in_force {
            self.add_news();
        }
        is_in_force
    }

    fn add_news(&mut self) {
        let first = self.news.map_or(self.number, |(first, _)| first);
        self.news = Some((first, self.number));
    }

    /// The newest order that every shard has.
    fn number_of_all(&self) -> u64 {
        self.has.iter().copied().min().unwrap_or(self.number)
    }

    /// A shard confirms an order; whether it is to be told now that all have what was news. What came after
    /// that is told on its own.
    #[must_use]
    pub fn confirm(&mut self, shard: ShardId, number: u64) -> bool {
        if let Some(has) = self.has.get_mut(usize::from(shard)) {
            *has = number.max(*has);
        }
        let all_have = self.number_of_all();
        match self.news {
            Some((first, last)) if first <= all_have => {
                self.news = (last > all_have).then_some((last, last));
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_that_all_have_what_is_news() {
        let mut rollout = Rollout::new(2);
        let older = rollout.begin(true);
        assert!(!rollout.confirm(0, older));
        let newer = rollout.begin(true);
        assert!(rollout.confirm(1, older), "both have it");
        assert!(!rollout.confirm(1, newer));
        assert!(!rollout.confirm(1, newer));
        assert!(rollout.confirm(0, newer));
        assert!(!rollout.confirm(0, newer));
        let both = rollout.begin(true);
        let both = (both, rollout.begin(true));
        assert!(!rollout.confirm(0, both.1));
        assert!(rollout.confirm(1, both.1), "both in one");
        assert!(!rollout.confirm(1, both.1));
    }

    #[test]
    fn news_are_told_though_more_follows_them_faster_than_shards_confirm() {
        let mut rollout = Rollout::new(2);
        let quiet = rollout.begin(false);
        assert!(!rollout.confirm(0, quiet) && !rollout.confirm(1, quiet));
        let news = rollout.begin(true);
        for _ in 0..3 {
            rollout.begin(false);
        }
        assert!(!rollout.confirm(0, news));
        let quiet = rollout.begin(false);
        assert!(rollout.confirm(1, quiet), "all have at least the news");
        assert!(!rollout.confirm(0, quiet));
    }

    #[test]
    fn who_asks_is_told_when_all_have_what_is_on_its_way() {
        let mut rollout = Rollout::new(2);
        assert!(rollout.ask(), "nothing is");
        let order = rollout.begin(false);
        assert!(!rollout.confirm(0, order));
        assert!(!rollout.ask());
        assert!(rollout.confirm(1, order));
        assert!(rollout.ask());
    }
}

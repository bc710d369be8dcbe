//! Whether every shard has what was ordered last: nobody waits for it, it is told when the last one says so.
//!
//! Orders have numbers: a slow shard gets the newest only, and what it says of an older one is no news.

use crate::engine::keys::ShardId;
use std::collections::BTreeSet;

/// The last order, and who has not confirmed it yet.
#[derive(Debug)]
pub struct Rollout {
    shards: ShardId,
    number: u64,
    missing: BTreeSet<ShardId>,
    /// Whether it is to be told that all have it.
    is_news: bool,
}

impl Rollout {
    /// To so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Rollout {
            shards: shards as ShardId,
            number: 0,
            missing: BTreeSet::new(),
            is_news: false,
        }
    }

    /// Something new is ordered, which is told when all have it if it `is_news`, or if what came before it
    /// and was not told yet was: the number to confirm it with.
    pub fn begin(&mut self, is_news: bool) -> u64 {
        self.number += 1;
        self.is_news |= is_news;
        self.missing = (0..self.shards).collect();
        self.number
    }

    /// A shard confirms an order; whether it is to be told that all have the newest now, said once.
    pub fn confirm(&mut self, shard: ShardId, number: u64) -> bool {
        let is_last =
            number == self.number && self.missing.remove(&shard) && self.missing.is_empty();
        is_last && std::mem::take(&mut self.is_news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_that_all_have_the_newest() {
        let mut rollout = Rollout::new(2);
        let older = rollout.begin(true);
        assert!(!rollout.confirm(0, older));
        let newer = rollout.begin(true);
        assert!(
            !rollout.confirm(1, older),
            "shard 0 has it, but not the newer one"
        );
        assert!(!rollout.confirm(1, newer));
        assert!(!rollout.confirm(1, newer));
        assert!(rollout.confirm(0, newer));
        assert!(!rollout.confirm(0, newer));
    }

    #[test]
    fn news_are_told_with_what_follows_them_at_the_latest() {
        let mut rollout = Rollout::new(1);
        let quiet = rollout.begin(false);
        assert!(!rollout.confirm(0, quiet));
        let news = rollout.begin(true);
        let quiet = rollout.begin(false);
        assert!(!rollout.confirm(0, news), "a newer one is on its way");
        assert!(rollout.confirm(0, quiet));
        let quiet = rollout.begin(false);
        assert!(!rollout.confirm(0, quiet));
    }
}

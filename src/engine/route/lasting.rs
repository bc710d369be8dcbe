//! On which filters somebody subscribes whose session outlives its connection: here, and on other shards.
//! Only they keep messages, so only they are asked whether they have. Share groups count with their filter.
//!
//! Beside the trie, since where nothing is stored there is nothing of this.
//!
//! Invariant: a filter's node stands here only while the trie has an entry for it.

use super::ShardSet;
use super::trie::NodeId;
use crate::engine::keys::ShardId;
use hashbrown::HashMap;
use std::collections::BTreeMap;

/// The filters.
#[derive(Debug, Default)]
pub struct Lasting {
    /// How many such subscriptions this shard has.
    here: BTreeMap<NodeId, u32>,
    elsewhere: HashMap<NodeId, ShardSet, foldhash::fast::FixedState>,
}

impl Lasting {
    /// One more on this shard. Whether it is the first.
    pub fn add(&mut self, node: NodeId) -> bool {
        let count = self.here.entry(node).or_default();
        *count += 1;
        *count == 1
    }

    /// One less. Whether it was the last.
    pub fn remove(&mut self, node: NodeId) -> bool {
        let Some(count) = self.here.get_mut(&node) else {
            return false;
        };
        *count -= 1;
        let was_last = *count == 0;
        if was_last {
            self.here.remove(&node);
        }
        was_last
    }

    /// Where this shard has any.
    pub fn here(&self) -> impl Iterator<Item = NodeId> {
        self.here.keys().copied()
    }

    /// Another shard has some, or none any more.
    pub fn set(&mut self, node: NodeId, shard: ShardId, lasts: bool) {
        let shards = self.elsewhere.entry(node).or_default();
        if lasts {
            shards.insert(shard);
        } else {
            shards.remove(shard);
        }
        if shards.is_empty() {
            self.elsewhere.remove(&node);
        }
    }

    /// The other shards that have some.
    #[must_use]
    pub fn elsewhere(&self, node: NodeId) -> ShardSet {
        self.elsewhere.get(&node).copied().unwrap_or_default()
    }

    /// Whether any shard has some.
    #[must_use]
    pub fn has_any(&self, node: NodeId) -> bool {
        self.here.contains_key(&node) || self.elsewhere.contains_key(&node)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.here.is_empty() && self.elsewhere.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_are_told_apart() {
        let mut lasting = Lasting::default();
        assert!(lasting.add(1) && !lasting.add(1) && lasting.add(2));
        assert!(!lasting.remove(1) && lasting.remove(1) && !lasting.remove(1));
        assert_eq!(lasting.here().collect::<Vec<_>>(), [2]);
        assert!(lasting.has_any(2) && !lasting.has_any(1));
    }

    #[test]
    fn other_shards_are_known_by_filter() {
        let mut lasting = Lasting::default();
        lasting.set(7, 1, true);
        lasting.set(7, 3, true);
        lasting.set(7, 1, false);
        assert_eq!(lasting.elsewhere(7).iter().collect::<Vec<_>>(), [3]);
        assert!(lasting.elsewhere(8).is_empty() && !lasting.is_empty());
        lasting.set(7, 3, false);
        assert!(lasting.is_empty() && !lasting.has_any(7));
    }
}

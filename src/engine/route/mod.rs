//! Routing: which sessions and which shards want a topic, and what is retained for a filter.
//!
//! Each shard holds a replica of the topic trie: local subscriptions in full, of other shards only
//! that they have some. Retained messages are split among the shards by topic.

pub mod chunked;
pub mod last_match;
pub mod lasting;
pub mod members;
pub mod retained;
pub mod shared;
pub mod subscriber;
pub mod subscribers;
pub mod trie;

use crate::engine::keys::ShardId;
use std::num::NonZeroU8;

/// A set of shards, as many as interest can be told apart for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(
    // A u128 would make every entry of the trie wider.
    [u64; 2],
);

impl ShardSet {
    const fn bits(self) -> u128 {
        (self.0[1] as u128) << 64 | self.0[0] as u128
    }

    const fn of(bits: u128) -> Self {
        ShardSet([bits as u64, (bits >> 64) as u64])
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: ShardId) {
        *self = Self::of(self.bits() | 1 << shard);
    }

    /// Removes a shard.
    pub fn remove(&mut self, shard: ShardId) {
        *self = Self::of(self.bits() & !(1 << shard));
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: ShardSet) {
        *self = Self::of(self.bits() | other.bits());
    }

    /// Removes all of `other`.
    pub fn remove_all(&mut self, other: ShardSet) {
        *self = Self::of(self.bits() & !other.bits());
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bits() == 0
    }

    /// Whether it has `shard`.
    #[must_use]
    pub const fn contains(self, shard: ShardId) -> bool {
        self.bits() & (1 << shard) != 0
    }

    /// Its shards in ascending order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut rest = self.bits();
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let shard = rest.trailing_zeros() as ShardId;
            rest &= rest - 1;
            Some(shard)
        })
    }
}

/// Hash of a client identifier or topic; the same on every shard, so it may decide where things live.
#[must_use]
pub fn stable_hash(text: &str) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    // FNV leaves the low bits weak for short texts; mix the high ones in.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash ^ hash >> 29
}

/// The shard on which a client identifier's session, or a topic's retained message, lives.
#[must_use]
pub fn home_shard(text: &str, shards: ShardId) -> ShardId {
    (stable_hash(text) % u64::from(shards.max(1))) as ShardId
}

/// Of all topics those that one of several takes: each topic is always taken by the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPart {
    /// Which of them, from 0 on.
    pub index: u8,
    /// How many there are.
    pub of: NonZeroU8,
}

impl TopicPart {
    /// Whether a topic is of this part.
    #[must_use]
    pub fn has(self, topic: &str) -> bool {
        self.taker(topic) == self.index
    }

    /// Which of them takes a topic.
    #[must_use]
    pub fn taker(self, topic: &str) -> u8 {
        (stable_hash(topic) % u64::from(self.of.get())) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_is_of_one_part() {
        let part = |index| TopicPart {
            index,
            of: NonZeroU8::new(4).unwrap(),
        };
        let mut counts = [0; 4];
        for topic in 0..4000 {
            let topic = format!("sensors/{topic}");
            let takes = (0..4).filter(|index| part(*index).has(&topic));
            let takes: Vec<_> = takes.collect();
            assert_eq!(takes, [part(0).taker(&topic)]);
            counts[usize::from(takes[0])] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn homes_are_spread() {
        let mut counts = [0; 4];
        for client in 0..4000 {
            counts[usize::from(home_shard(&format!("client-{client}"), 4))] += 1;
        }
        assert!(
            counts.iter().all(|&count| (800..1200).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn sets_list_their_shards() {
        let mut set = ShardSet::default();
        for shard in [0, 63, 127, 5] {
            set.insert(shard);
        }
        set.remove(5);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 127]);
        assert!(set.contains(127) && !set.contains(5));
    }
}

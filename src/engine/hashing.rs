//! Hashes of what clients send, another one in every run of the broker: nobody can choose names that fall
//! together.
//!
//! The seed comes from outside, so that a run is repeatable. Multiplying without a secret would not do:
//! differences that cancel out whatever the seed are easy to find then. Here every product has a secret on
//! both sides.
//!
//! Not here: where things live. That is decided by `route::stable_hash`, which is the same everywhere; who
//! makes many names of one home shard only crowds it. Packet identifiers and aliases are 16 bits each and
//! need no secret: there are not enough of them to make a chain that matters.

use foldhash::SharedSeed;
use foldhash::fast::{FixedState, FoldHasher};
use std::hash::Hasher;

/// The secrets of one shard.
#[derive(Clone, Debug)]
pub struct Hashing {
    seed: u64,
    shared: SharedSeed,
}

impl Hashing {
    /// Derives them from one number.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Hashing {
            seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x6A09_E667_F3BC_C908,
            shared: SharedSeed::from_u64(seed ^ 0xBB67_AE85_84CA_A73B),
        }
    }

    /// The hash of a text beneath a number.
    #[inline]
    #[must_use]
    pub fn of(&self, beneath: u32, text: &str) -> u64 {
        let own = self.seed ^ u64::from(beneath).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        let mut hasher = FoldHasher::with_seed(own, &self.shared);
        hasher.write(text.as_bytes());
        hasher.finish()
    }

    /// For a table of its own, which keeps its part of the secret.
    #[must_use]
    pub fn state(&self) -> FixedState {
        FixedState::with_seed(self.of(0, "table"))
    }
}

impl Default for Hashing {
    /// For who has no secret: what is made of it is repeatable and can be foreseen.
    fn default() -> Self {
        Hashing::new(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What fell together whatever the seed while a word was multiplied by a known number: the top bit of
    /// one word is undone in the next.
    #[test]
    fn texts_made_to_fall_together_do_not() {
        let word = |bit: bool| {
            if bit {
                "abc\u{e1}xy\u{e1}"
            } else {
                "abc\u{a1}xy\u{a1}"
            }
        };
        let texts: Vec<_> = (0..1_024_u32)
            .map(|bits| {
                (0..10)
                    .map(|n| word(bits >> n & 1 == 1))
                    .collect::<String>()
            })
            .collect();
        for seed in 0..16 {
            let hashing = Hashing::new(seed);
            let hashes: BTreeSet<_> = texts.iter().map(|text| hashing.of(7, text)).collect();
            assert_eq!(hashes.len(), texts.len());
            let buckets: BTreeSet<_> = hashes.iter().map(|hash| hash % 1_024).collect();
            assert!(buckets.len() > 550, "{} buckets of 1,024", buckets.len());
        }
    }

    #[test]
    fn a_seed_repeats_its_hashes_and_another_has_others() {
        let hash = |seed, beneath| Hashing::new(seed).of(beneath, "a/b");
        assert_eq!(hash(1, 0), hash(1, 0));
        assert!(hash(1, 0) != hash(2, 0) && hash(1, 0) != hash(1, 1));
    }
}

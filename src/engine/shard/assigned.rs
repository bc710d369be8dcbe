//! Client identifiers that the broker assigns `[MQTT-3.2.2-16]`.
//!
//! Who knows an identifier may take its session over, so none tells anything about another: each is a part of
//! a keyed hash (HMAC-SHA-256) of a counter, by a key that nobody outside has.

use aws_lc_rs::hmac;

/// What identifiers are made of.
pub(super) struct Assigned {
    key: hmac::Key,
    counted: u64,
    /// What is left of the last hash.
    left: Vec<u64>,
}

impl Assigned {
    /// By that key.
    pub fn new(key: &[u8]) -> Self {
        Assigned {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            counted: 0,
            left: Vec::new(),
        }
    }

    /// 64 bits that cannot be foreseen.
    pub fn next(&mut self) -> u64 {
        loop {
            if let Some(next) = self.left.pop() {
                return next;
            }
            let hash = hmac::sign(&self.key, &self.counted.to_be_bytes());
            self.counted += 1;
            let (words, _) = hash.as_ref().as_chunks::<8>();
            self.left
                .extend(words.iter().map(|word| u64::from_be_bytes(*word)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_key_repeats_its_identifiers_and_another_has_others() {
        let some = |key: &[u8]| {
            let mut assigned = Assigned::new(key);
            (0..1000).map(|_| assigned.next()).collect::<Vec<_>>()
        };
        assert_eq!(some(b"a"), some(b"a"));
        let all: BTreeSet<_> = [some(b"a"), some(b"b")].concat().into_iter().collect();
        assert_eq!(all.len(), 2000);
    }

    /// What an identifier would come from if it were a step of SplitMix64, which can be undone.
    fn undone(mixed: u64) -> u64 {
        let unshift =
            |value: u64, by: u32| (0..64 / by + 1).fold(value, |sum, _| value ^ sum >> by);
        let first = unshift(mixed, 31).wrapping_mul(0x3196_42B2_D24D_8EC3);
        unshift(unshift(first, 27).wrapping_mul(0x96DE_1B17_3F11_9089), 30)
    }

    #[test]
    fn identifiers_are_no_steps_of_a_generator_that_can_be_undone() {
        let step = 0x9E37_79B9_7F4A_7C15_u64;
        let mixed = (step ^ step >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        assert_eq!(undone(mixed ^ mixed >> 31), step);
        let mut assigned = Assigned::new(b"a");
        let states: Vec<_> = (0..1000).map(|_| undone(assigned.next())).collect();
        let steps = states.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
        assert_eq!(steps.collect::<BTreeSet<_>>().len(), 999);
    }
}

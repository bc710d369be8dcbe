//! How much of what the limits allow a turn does: less where turns take too long.
//!
//! Bounds in deliveries and sends say nothing about time: on another machine, or with memory that no cache
//! holds, the same takes ten times as long. So the turns that follow two long ones do half as much, and those
//! that follow short ones a little more again; a single long one may be somebody else's doing, who had the
//! CPU meanwhile. Work goes by the time that a turn took, sends by the time of the whole round, in which the
//! kernel carries them out: it may take twice as long.
//!
//! Invariant: between a sixteenth of the limits and all of them.
//!
//! Not here: the clock, which is the driver's.

use crate::engine::time::Lasted;

/// Parts of what the limits allow.
const PARTS: u32 = 16;

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    parts: u32,
    was_long: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            parts: PARTS,
            was_long: false,
        }
    }
}

impl Pace {
    /// What of a limit may be done now; at least 1.
    pub fn of(self, max: usize) -> usize {
        let (parts, all) = (self.parts as usize, PARTS as usize);
        (max / all * parts + max % all * parts / all).max(1)
    }

    /// The last time took so long; whether less is done therefore.
    fn follow(&mut self, took_us: u64, goal_us: u64) -> bool {
        let was_long = std::mem::replace(&mut self.was_long, took_us > goal_us);
        if took_us > goal_us {
            let before = self.parts;
            self.parts = if was_long {
                (before / 2).max(1)
            } else {
                before
            };
            return self.parts < before;
        }
        if took_us < goal_us / 2 {
            self.parts = (self.parts + 1).min(PARTS);
        }
        false
    }
}

/// The paces of a shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paces {
    pub work: Pace,
    pub sends: Pace,
}

impl Paces {
    /// The last turn lasted so long; whether the next does less therefore.
    pub fn follow(&mut self, lasted: Lasted, goal_us: u64) -> bool {
        let work = self.work.follow(lasted.turn_us, goal_us);
        let sends = self.sends.follow(lasted.round_us, goal_us * 2);
        work || sends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn lasted(turn_us: u64, round_us: u64) -> Lasted {
        Lasted { turn_us, round_us }
    }

    #[test]
    fn long_turns_are_followed_by_short_ones_until_they_are_short() {
        let mut paces = Paces::default();
        let of = |paces: &Paces| (paces.work.of(16_384), paces.sends.of(1_024));
        assert_eq!(of(&paces), (16_384, 1_024));
        assert!(
            !paces.follow(lasted(4_001, 8_001), 4_000),
            "one says nothing"
        );
        assert!(paces.follow(lasted(4_001, 8_001), 4_000));
        assert_eq!(of(&paces), (8_192, 512));
        for _ in 0..10 {
            paces.follow(lasted(9_000, 9_000), 4_000);
        }
        assert_eq!(of(&paces), (1_024, 64));
        let is_less = paces.follow(lasted(9_000, 9_000), 4_000);
        assert!(!is_less, "no less than that");
        paces.follow(lasted(3_000, 6_000), 4_000);
        assert_eq!(of(&paces), (1_024, 64), "it stays as it is in between");
        for _ in 0..20 {
            assert!(!paces.follow(lasted(1_000, 1_000), 4_000));
        }
        assert_eq!(of(&paces), (16_384, 1_024));
    }

    #[test]
    fn long_rounds_bound_the_sends_alone() {
        let mut paces = Paces::default();
        paces.follow(lasted(500, 20_000), 4_000);
        assert!(paces.follow(lasted(500, 20_000), 4_000));
        let of = (paces.work.of(16_384), paces.sends.of(1_024));
        assert_eq!(of, (16_384, 512));
    }

    #[test]
    fn something_is_done_in_each_turn() {
        let mut paces = Paces::default();
        for _ in 0..10 {
            paces.follow(lasted(9_000, 9_000), 4_000);
        }
        assert_eq!([1, 3, 33].map(|max| paces.work.of(max)), [1, 1, 2]);
    }
}

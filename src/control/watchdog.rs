//! Whether every shard still turns: for a service manager, and to end a process of which a part is dead.
//!
//! Silence is counted in looks of this loop, one per second that the process runs: a process that was stopped
//! and continued, or did not get its CPU, is not taken for dead.

use crate::engine::keys::ShardId;
use crate::shard::pulse::Pulse;

/// Looks without a turn after which a service manager hears nothing more.
const WELL_LOOKS_MAX: u32 = 3;

/// What was seen of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    turns: u64,
    looks_without: u32,
}

/// Watches over all shards.
#[derive(Debug)]
pub struct Watchdog {
    seen: Vec<Seen>,
    /// Looks without a turn after which a shard counts as dead; 0 for never.
    silence_max: u32,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All shards turn.
    Well,
    /// One has been silent for a while.
    Silent,
    /// This one is dead.
    Dead(ShardId),
}

impl Watchdog {
    /// Watches so many shards.
    #[must_use]
    pub fn new(shards: usize, silence_max: u32) -> Self {
        Watchdog {
            seen: vec![Seen::default(); shards],
            silence_max,
        }
    }

    /// A shard counts as dead after so many looks without a turn from now on; 0 for never.
    pub const fn set_silence_max(&mut self, silence_max: u32) {
        self.silence_max = silence_max;
    }

    /// Seconds for which each shard has not turned, by number.
    pub fn silences(&self) -> impl Iterator<Item = u32> {
        self.seen.iter().map(|seen| seen.looks_without)
    }

    /// Looks once; to be called about once a second.
    pub fn look(&mut self, pulses: &[Pulse]) -> Health {
        let mut health = Health::Well;
        for (shard, (seen, pulse)) in (0..).zip(self.seen.iter_mut().zip(pulses)) {
            let turns = pulse.turns();
            seen.looks_without = if turns == seen.turns {
                seen.looks_without.saturating_add(1)
            } else {
                0
            };
            seen.turns = turns;
            if self.silence_max > 0 && seen.looks_without >= self.silence_max {
                return Health::Dead(shard);
            }
            if seen.looks_without >= WELL_LOOKS_MAX {
                health = Health::Silent;
            }
        }
        health
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_does_not_turn_is_silent_then_dead() {
        let pulses = [Pulse::default(), Pulse::default()];
        let mut watchdog = Watchdog::new(2, 5);
        let mut seen = Vec::new();
        for look in 0..8 {
            pulses[0].beat();
            if look < 2 {
                pulses[1].beat();
            }
            seen.push(watchdog.look(&pulses));
        }
        use Health::{Dead, Silent, Well};
        assert_eq!(
            seen,
            [Well, Well, Well, Well, Silent, Silent, Dead(1), Dead(1)]
        );
        pulses[1].beat();
        assert_eq!(watchdog.look(&pulses), Well);
        let mut lenient = Watchdog::new(2, 0);
        let last = (0..99).map(|_| lenient.look(&pulses)).last();
        assert_eq!(last, Some(Silent));
    }
}

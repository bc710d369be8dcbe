//! What the broker gives up, step by step, when its memory nears `limits.memory_max_bytes`.
//!
//! Each core asks a [`Meter`] for the sum, before a turn and within it, and goes by that at once. Stages are
//! left a little below where they are entered, so that none flutters.
//!
//! Not here: who counts the sum.

use std::fmt;

/// Bytes that a client may be behind once memory is short: at QoS 0 in its outbox, else in its queue.
pub const SHED_OUTBOX_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an unfinished packet that a client may have sent while memory is very short.
pub const SHED_PARTIAL_BYTES_MAX: usize = 4 * 1024;
/// Spare send buffers a shard keeps while memory is short, in bytes.
pub const SHED_SPARE_BYTES_MAX: usize = 1024 * 1024;

/// Tells how much memory the process uses, and holds in the kernel.
pub trait Meter {
    /// Bytes of it, now.
    fn used_bytes(&self) -> u64;
}

/// How short memory is; each stage includes those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not at all.
    #[default]
    Normal,
    /// Nothing grows any more that stays though its client goes: what waits for clients that are away, and
    /// what is retained. Well before the others: what clients have while they are there needs room too, and
    /// memory that was given back in pieces is not free at once.
    Frugal,
    /// Messages to clients that are behind are dropped.
    Shed,
    /// Clients that publish are not read.
    Pause,
    /// New clients are refused, and those that hold most of what is not acknowledged are disconnected.
    Refuse,
}

/// Percent of the memory at which a stage begins.
const BEGINS: [(Stage, u64); 4] = [
    (Stage::Refuse, 95),
    (Stage::Pause, 90),
    (Stage::Shed, 80),
    (Stage::Frugal, 70),
];
/// Percent to which memory is brought back by disconnecting clients: below the end of the stage in which who
/// publishes is not read.
const RELIEVED_AT: u64 = 85;
/// Percent below its beginning at which a stage ends.
const LEAVES_BELOW: u64 = 3;

impl Stage {
    /// The stage after this one, with so much memory in use. `max` of 0 means no bound.
    #[must_use]
    pub fn next(self, used_bytes: u64, max_bytes: u64) -> Stage {
        if max_bytes == 0 {
            return Stage::Normal;
        }
        let percent = used_bytes.saturating_mul(100) / max_bytes;
        let holds = |(stage, begins): &(Stage, u64)| {
            let from = if self >= *stage {
                begins - LEAVES_BELOW
            } else {
                *begins
            };
            percent >= from
        };
        let found = BEGINS.iter().find(|entry| holds(entry));
        found.map_or(Stage::Normal, |(stage, _)| *stage)
    }
}

/// How many bytes have to go before memory is no longer almost gone.
#[must_use]
pub const fn surplus_bytes(used_bytes: u64, max_bytes: u64) -> u64 {
    used_bytes.saturating_sub(max_bytes / 100 * RELIEVED_AT)
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Normal => "enough",
            Stage::Frugal => {
                "filling: nothing more is retained, or kept for clients that are away or far behind"
            }
            Stage::Shed => "short: QoS 0 messages to clients that are behind are dropped",
            Stage::Pause => "very short: clients that publish or subscribe are not read",
            Stage::Refuse => {
                "almost gone: new clients are refused, and those that hold most are disconnected"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_entered_and_left() {
        let max = 1_000;
        let walk = [
            (699, Stage::Normal),
            (700, Stage::Frugal),
            (799, Stage::Frugal),
            (800, Stage::Shed),
            (900, Stage::Pause),
            (949, Stage::Pause),
            (950, Stage::Refuse),
            (920, Stage::Refuse),
            (919, Stage::Pause),
            (870, Stage::Pause),
            (869, Stage::Shed),
            (770, Stage::Shed),
            (769, Stage::Frugal),
            (670, Stage::Frugal),
            (669, Stage::Normal),
            (2_000, Stage::Refuse),
            (0, Stage::Normal),
        ];
        let mut stage = Stage::Normal;
        for (used, expected) in walk {
            stage = stage.next(used, max);
            assert_eq!(stage, expected, "{used}");
        }
        assert_eq!(Stage::Refuse.next(u64::MAX, 0), Stage::Normal, "no bound");
    }
}

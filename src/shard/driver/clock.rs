//! Time as a shard sees it: one moment per turn, counted from an origin that all shards share.

use crate::engine::telemetry::histogram::Histogram;
use crate::engine::time::{Lasted, Timestamp};
use crate::storage::log::writer::wall_ms;
use std::time::{Duration, Instant};

/// A shard's time.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    /// What the core counts then.
    origin_ms: u64,
    /// When the turn began.
    turn_at: Instant,
    /// The same, as the core counts.
    now: Timestamp,
    lasted: Lasted,
    /// The next turn follows at once.
    goes_on: bool,
    /// The longest turn since it was asked for: how late a client may have been served.
    turn_max: Duration,
    turns: Histogram,
    rounds: Histogram,
}

impl Clock {
    pub fn new((origin, origin_ms): (Instant, u64)) -> Self {
        Clock {
            origin,
            origin_ms,
            turn_at: Instant::now(),
            now: Timestamp::default(),
            lasted: Lasted::default(),
            goes_on: false,
            turn_max: Duration::ZERO,
            turns: Histogram::default(),
            rounds: Histogram::default(),
        }
    }

    /// A turn begins.
    pub fn begin_turn(&mut self, at: Instant) {
        if self.goes_on {
            let round = at.saturating_duration_since(self.turn_at);
            self.lasted.round_us = round.as_micros() as u64;
            self.rounds.add(self.lasted.round_us);
        }
        self.turn_at = at;
        let since_origin = at.saturating_duration_since(self.origin);
        self.now = Timestamp::from_ms(self.origin_ms + since_origin.as_millis() as u64);
    }

    /// The turn's work is done, and the next follows at once or not; how long it took.
    pub fn end_turn(&mut self, at: Instant, goes_on: bool) -> Duration {
        let took = at.saturating_duration_since(self.turn_at);
        self.turn_max = self.turn_max.max(took);
        let turn_us = took.as_micros() as u64;
        self.turns.add(turn_us);
        (self.lasted, self.goes_on) = (
            Lasted {
                turn_us,
                round_us: turn_us,
            },
            goes_on,
        );
        took
    }

    /// How long the last turn took.
    pub fn lasted(&self) -> Lasted {
        self.lasted
    }

    /// The turn's time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// When the turn began.
    pub fn turn_at(&self) -> Instant {
        self.turn_at
    }

    /// A moment as all shards count it.
    pub fn us(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_micros() as u64
    }

    /// How long turns took.
    pub fn turns(&self) -> &Histogram {
        &self.turns
    }

    /// How long it took from the beginning of a turn to that of the next, where that followed at once.
    pub fn rounds(&self) -> &Histogram {
        &self.rounds
    }

    /// The longest turn since the last call.
    pub fn take_turn_max(&mut self) -> Duration {
        std::mem::take(&mut self.turn_max)
    }

    /// A second of the calendar, counted since 1970, as the core counts; now if it is over.
    pub fn at_unix_s(&self, second: u64) -> Timestamp {
        let left_ms = second.saturating_mul(1000).saturating_sub(wall_ms());
        self.now.plus_ms(left_ms)
    }

    /// A time of the core on the system's clock; `None` for never.
    pub fn instant(&self, at: Timestamp) -> Option<Instant> {
        if at == Timestamp::NEVER {
            return None;
        }
        let since_origin = at.as_ms().saturating_sub(self.origin_ms);
        self.origin.checked_add(Duration::from_millis(since_origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_core_are_moments_since_the_origin() {
        let origin = Instant::now();
        let mut clock = Clock::new((origin, 7_000));
        clock.begin_turn(origin + Duration::from_millis(1500));
        assert_eq!(clock.now(), Timestamp::from_ms(8_500));
        let later = clock.now().plus_ms(250);
        assert_eq!(
            clock.instant(later),
            Some(origin + Duration::from_millis(1750))
        );
        assert_eq!(clock.instant(Timestamp::NEVER), None);
    }

    #[test]
    fn the_longest_turn_is_told_once() {
        let origin = Instant::now();
        let mut clock = Clock::new((origin, 7_000));
        for took_ms in [3, 9, 1] {
            clock.begin_turn(origin);
            clock.end_turn(origin + Duration::from_millis(took_ms), false);
        }
        assert_eq!(clock.take_turn_max(), Duration::from_millis(9));
        assert_eq!(clock.take_turn_max(), Duration::ZERO);
    }

    #[test]
    fn a_round_ends_where_the_next_begins_unless_the_shard_slept() {
        let origin = Instant::now();
        let at = |us| origin + Duration::from_micros(us);
        let mut clock = Clock::new((origin, 7_000));
        clock.begin_turn(origin);
        clock.end_turn(at(300), true);
        clock.begin_turn(at(5_000));
        let (turn_us, round_us) = (300, 5_000);
        assert_eq!(clock.lasted(), Lasted { turn_us, round_us });
        clock.end_turn(at(5_200), false);
        clock.begin_turn(at(90_000));
        let (turn_us, round_us) = (200, 200);
        assert_eq!(clock.lasted(), Lasted { turn_us, round_us });
    }
}

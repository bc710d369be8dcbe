//! Clients that are sent away, so many in a second: all, or those of one listener, which accepts nobody any
//! more.
//!
//! It goes over the sockets place by place, by some looks in each turn, and begins anew until it has found
//! nobody for a while: a connection may come over from the shard that has accepted it.

use super::Shell;
use crate::engine::turn::Rest;
use crate::shard::ring::Ring;
use std::time::{Duration, Instant};

/// Sockets that a turn looks at.
const LOOKS_MAX: usize = 1_024;
/// How long after a walk that found nobody the next one begins.
const PAUSE: Duration = Duration::from_millis(100);
/// Walks that find nobody before it is over: longer than a connect may take by default.
const EMPTY_WALKS_MAX: u32 = 200;

/// Those that are under way.
#[derive(Default)]
pub(super) struct Drainage(Vec<Drain>);

/// Whom to send away, and how fast.
struct Drain {
    /// Of this listener; `None` for all.
    listener: Option<u16>,
    /// So many in a thousand seconds.
    per_1000_s: u64,
    begun_at: Instant,
    /// How many have been sent away, or could have been if they had been there.
    done: u64,
    place: usize,
    /// Somebody was found by the walk at hand.
    has_found: bool,
    empty_walks: u32,
    goes_on_at: Instant,
}

impl Drain {
    fn new(listener: Option<u16>, per_1000_s: u64, now: Instant) -> Self {
        Drain {
            listener,
            per_1000_s,
            begun_at: now,
            done: 0,
            place: 0,
            has_found: false,
            empty_walks: 0,
            goes_on_at: now,
        }
    }

    /// How many may be sent away now.
    fn due(&self, now: Instant) -> u64 {
        let lasted_us = now.saturating_duration_since(self.begun_at).as_micros();
        let all = lasted_us * u128::from(self.per_1000_s) / 1_000_000_000;
        u64::try_from(all)
            .unwrap_or(u64::MAX)
            .saturating_sub(self.done)
    }

    /// When the next one may be.
    fn next_at(&self) -> Instant {
        let us = (u128::from(self.done) + 1) * 1_000_000_000 / u128::from(self.per_1000_s.max(1));
        let wait = Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX / 2) + 1);
        self.begun_at
            .checked_add(wait)
            .unwrap_or(self.begun_at)
            .max(self.goes_on_at)
    }

    /// A walk has come to its end.
    fn end_walk(&mut self, now: Instant) {
        self.place = 0;
        if std::mem::take(&mut self.has_found) {
            self.empty_walks = 0;
            return;
        }
        self.empty_walks += 1;
        self.goes_on_at = now + PAUSE;
        // Who comes later is not sent away all at once.
        self.done += self.due(now);
    }
}

impl Drainage {
    /// A number is another listener's from now on, whose clients stay.
    pub fn forget(&mut self, number: u16) {
        self.0.retain(|drain| drain.listener != Some(number));
    }

    /// When it goes on.
    pub fn goes_on_at(&self) -> Option<Instant> {
        self.0.iter().map(Drain::next_at).min()
    }

    /// A shard does not sleep while somebody may be sent away.
    pub fn rest(&self, rest: Rest, now: Instant) -> Rest {
        let is_due = |drain: &Drain| drain.due(now) > 0 && now >= drain.goes_on_at;
        rest.unless(self.0.iter().any(is_due))
    }
}

impl Shell {
    /// Accepts nobody any more, at one listener or at all, and sends those that are there away, so many per
    /// second on all shards together; none if that is 0.
    pub(super) fn begin_drain(&mut self, ring: &mut Ring, listener: Option<u16>, per_second: u32) {
        self.admission.stop(ring, listener);
        let per_1000_s = u64::from(per_second) * 1_000 / u64::from(self.core.shards().max(1));
        let drains = &mut self.drainage.0;
        drains.retain(|drain| drain.listener != listener);
        if per_second > 0 {
            drains.push(Drain::new(
                listener,
                per_1000_s.max(1),
                self.clock.turn_at(),
            ));
        }
    }

    /// Sends some away, as far as it is time and a turn goes.
    pub(super) fn drain(&mut self, ring: &mut Ring) {
        if self.drainage.0.is_empty() {
            return;
        }
        let now = self.clock.turn_at();
        let mut drains = std::mem::take(&mut self.drainage.0);
        let mut looks = LOOKS_MAX;
        for drain in &mut drains {
            self.go_on_draining(drain, &mut looks, now);
        }
        drains.retain(|drain| drain.empty_walks < EMPTY_WALKS_MAX);
        self.drainage.0 = drains;
        self.carry_out(ring);
    }

    fn go_on_draining(&mut self, drain: &mut Drain, looks: &mut usize, now: Instant) {
        let places = self.sockets.places();
        while *looks > 0 && now >= drain.goes_on_at && drain.due(now) > 0 {
            *looks -= 1;
            if drain.place >= places {
                drain.end_walk(now);
                continue;
            }
            let at = self.sockets.open_at(drain.place);
            drain.place += 1;
            if let Some((connection, _)) = at
                && self
                    .core
                    .send_away(self.clock.now(), connection, drain.listener)
            {
                drain.has_found = true;
                drain.done += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_due_as_time_has_passed() {
        let now = Instant::now();
        let mut drain = Drain::new(None, 2_500, now);
        assert_eq!(drain.due(now), 0);
        let later = now + Duration::from_secs(2);
        assert_eq!(drain.due(later), 5);
        drain.done = 5;
        assert_eq!(drain.due(later), 0);
        let next = drain.next_at();
        assert!(next > later && drain.due(next) == 1);
        // Nobody was there for long: the rate begins anew.
        let much_later = now + Duration::from_secs(100);
        drain.end_walk(much_later);
        assert_eq!((drain.due(much_later), drain.empty_walks), (0, 1));
        assert!(drain.next_at() >= much_later + PAUSE);
    }
}

//! When a ring lets events gather before it wakes its owner.
//!
//! An event that wakes the owner for itself costs an entry into the kernel, a turn and mostly a send of its
//! own. Where many connections send a little each, several come in the time that this takes: the kernel is
//! then told to wake the owner for several, or for what there is after `gather_max`.
//!
//! Only while receives come so fast that several are expected within that time, so that nobody waits who
//! sends alone. Where gathering makes fewer bytes come, since all who would send wait for what is gathered,
//! it ends and is not tried again for a while. (Fewer receives do not tell that: one may bring what two
//! did.) Nor where receives bring much each: the work is then in the bytes, and these are best worked at
//! while they are in the cache.
//!
//! Not here: the wait itself, and whether to sleep at all.

use std::time::{Duration, Instant};

/// How long receives are counted before it is judged how fast they come.
const WINDOW: Duration = Duration::from_millis(20);
/// So many receives within `gather_max` begin it, ...
const BEGINS_AT: f64 = 2.0;
/// ... and fewer than so many end it.
const ENDS_AT: f64 = 0.8;
/// So many times those that are expected are waited for: they come in bursts.
const BURST: f64 = 3.0;
/// Most events that are waited for.
const EVENTS_MAX: u32 = 64;
/// Where fewer bytes come than this part of what came before, it ends, ...
const KEPT_MIN: f64 = 0.6;
/// ... for so long.
const HOLD_OFF: Duration = Duration::from_secs(1);
/// So many bytes a receive are much.
const BULK_BYTES: f64 = 4_096.0;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Several {
    /// So many events, beside those that come anyhow.
    pub events: u32,
    /// Or for what there is after so many microseconds.
    pub us_max: u32,
}

/// How fast receives come, and whether events gather.
#[derive(Debug)]
pub(super) struct Gather {
    max: Duration,
    began: Instant,
    receives: u32,
    bytes: u64,
    /// Receives within `max`, by the last window.
    expected: f64,
    /// Bytes within `max` before events gathered; `None` while they do not.
    before: Option<f64>,
    not_before: Instant,
}

impl Gather {
    /// For at most `max`; never if that is zero.
    pub fn new(max: Duration, now: Instant) -> Self {
        Gather {
            max,
            began: now,
            receives: 0,
            bytes: 0,
            expected: 0.0,
            before: None,
            not_before: now,
        }
    }

    /// So many receives came in a turn, and brought so many bytes.
    pub fn note(&mut self, receives: u32, bytes: usize) {
        self.receives = self.receives.saturating_add(receives);
        self.bytes += bytes as u64;
    }

    /// What to wait for if the owner sleeps now; `None`: for the first event.
    pub fn several(&mut self, now: Instant) -> Option<Several> {
        if self.max.is_zero() {
            return None;
        }
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed >= WINDOW {
            let part = self.max.div_duration_f64(elapsed);
            let receives = f64::from(std::mem::take(&mut self.receives));
            let bytes = std::mem::take(&mut self.bytes) as f64;
            self.began = now;
            self.judge(receives * part, bytes * part, now);
        }
        self.before.map(|_| Several {
            events: ((self.expected * BURST) as u32).clamp(2, EVENTS_MAX),
            us_max: self.max.as_micros() as u32,
        })
    }

    fn judge(&mut self, expected: f64, bytes: f64, now: Instant) {
        self.expected = expected;
        let is_bulk = bytes > expected * BULK_BYTES;
        match self.before {
            Some(before) if bytes < before * KEPT_MIN => {
                self.before = None;
                self.not_before = now + HOLD_OFF;
            }
            Some(_) if expected < ENDS_AT || is_bulk => self.before = None,
            None if expected >= BEGINS_AT && !is_bulk && now >= self.not_before => {
                self.before = Some(bytes);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(50);

    struct Receiver {
        gather: Gather,
        now: Instant,
    }

    impl Receiver {
        fn new(max: Duration) -> Self {
            let now = Instant::now();
            let gather = Gather::new(max, now);
            Receiver { gather, now }
        }

        /// A window passes in which so many come in 50 us, and bring so many bytes.
        fn window_of(&mut self, receives: u32, bytes: usize) -> Option<Several> {
            self.now += WINDOW;
            self.gather.note(receives * 400, bytes * 400);
            self.gather.several(self.now)
        }

        fn window(&mut self, receives: u32) -> Option<Several> {
            self.window_of(receives, receives as usize * 100)
        }
    }

    #[test]
    fn nobody_waits_who_sends_alone_or_where_it_is_not_wanted() {
        let mut few = Receiver::new(MAX);
        let mut never = Receiver::new(Duration::ZERO);
        for _ in 0..10 {
            assert_eq!(few.window(1), None);
            assert_eq!(never.window(100), None);
        }
    }

    #[test]
    fn several_are_waited_for_while_they_come_fast() {
        let mut many = Receiver::new(MAX);
        let us_max = 50;
        let wanted = |events| Some(Several { events, us_max });
        assert_eq!(many.window(4), wanted(12));
        assert_eq!(many.window(5), wanted(15));
        assert_eq!(many.gather.several(many.now), wanted(15), "in between");
        assert_eq!(many.window(1_000), wanted(EVENTS_MAX));
    }

    #[test]
    fn it_ends_where_fewer_bytes_come_by_it_and_is_tried_again_later() {
        let mut few = Receiver::new(MAX);
        assert!(few.window(10).is_some());
        assert!(few.window_of(5, 1_000).is_some(), "as much in fewer");
        assert_eq!(few.window_of(10, 500), None);
        assert_eq!(few.window(10), None, "not at once");
        few.now += HOLD_OFF;
        assert!(few.gather.several(few.now).is_none() && few.window(10).is_some());
    }

    #[test]
    fn what_brings_much_at_once_is_not_waited_for() {
        let mut bulky = Receiver::new(MAX);
        assert_eq!(bulky.window_of(10, 100_000), None);
        assert!(bulky.window(10).is_some());
        assert_eq!(bulky.window_of(10, 100_000), None);
    }

    #[test]
    fn it_ends_when_little_comes_and_begins_with_the_next_rush() {
        let mut some = Receiver::new(MAX);
        some.gather.before = Some(0.0);
        assert!(some.window(1).is_some());
        assert_eq!(some.window(0), None);
        assert!(some.window(8).is_some());
    }
}

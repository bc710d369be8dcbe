//! When a ring lets events gather before it wakes its owner.
//!
//! An event that wakes the owner for itself costs an entry into the kernel, a turn and mostly a send of its
//! own. Where many connections send a little each, several come in the time that this takes: the kernel is
//! then told to wake the owner for several, or for what there is after `gather_max`.
//!
//! Whether that pays depends on who sends: where all wait for what is gathered, nothing else comes
//! meanwhile. So it is tried and measured, by the thread's CPU time per byte that came: it stays only
//! while it spares some and no fewer bytes come, and is judged anew again and again. (Fewer receives tell
//! nothing: one may bring what two did.)
//!
//! Only while receives come so fast that several are expected within that time, so that nobody waits who
//! sends alone; only where the thread is busy, waiting for a CPU that others have included, so that who has
//! time to spare answers at once; and not where
//! receives bring much each: the work is then in the bytes, best done while they are in the cache.
//!
//! Not here: the wait itself, and whether to sleep at all.

use std::time::{Duration, Instant};

/// How long is counted before it is judged how fast receives come.
const WINDOW: Duration = Duration::from_millis(20);
/// So many windows make a measurement.
const WINDOWS: u32 = 4;
/// So many receives within `gather_max` begin it, ...
const BEGINS_AT: f64 = 2.0;
/// ... and fewer than so many end it.
const ENDS_AT: f64 = 0.8;
/// So much of a CPU in use or wanted begins it, ...
const BUSY_BEGINS_AT: f64 = 0.5;
/// ... and less than so much, with what it spares, ends it.
const BUSY_ENDS_AT: f64 = 0.25;
/// So many times those that are expected are waited for: they come in bursts.
const BURST: f64 = 3.0;
/// Most events that are waited for.
const EVENTS_MAX: u32 = 64;
/// It pays where a byte takes no more than this part of the CPU time that it took before, ...
const COST_MAX: f64 = 0.92;
/// ... and where no fewer bytes come than this part of before: measurements are as noisy as that.
const RATE_MIN: f64 = 0.93;
/// For so long it is taken to pay on; then it is measured without once more.
const PAYS_FOR: Duration = Duration::from_secs(2);
/// Where it does not pay, it is not tried for so long, twice as long each time, ...
const HOLD_OFF_MIN: Duration = Duration::from_secs(1);
/// ... at most.
const HOLD_OFF_MAX: Duration = Duration::from_secs(16);
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

/// What a thread has had of CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ThreadUse {
    /// It has run for so long, ...
    pub cpu: Duration,
    /// ... and waited for so long while others did, if the system tells.
    pub waited: Duration,
}

/// What came in some time, and what it took of the thread's CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    windows: u32,
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.windows += other.windows;
        self.bytes += other.bytes;
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
    }

    fn is_measured(&self) -> bool {
        self.windows >= WINDOWS
    }

    fn pays_beside(&self, alone: &Count) -> bool {
        let cost = |count: &Count| count.cpu.as_secs_f64() / count.bytes as f64;
        let rate = |count: &Count| count.bytes as f64 / count.elapsed.as_secs_f64();
        cost(self) <= cost(alone) * COST_MAX && rate(self) >= rate(alone) * RATE_MIN
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Each event wakes; what that costs is measured where it might be spared.
    Alone(Count),
    /// Events gather, and it is measured what that costs; the first window has some of both.
    Tried {
        alone: Count,
        gathered: Option<Count>,
    },
    /// It pays.
    Gathers { until: Instant },
}

/// How fast receives come, and whether events gather.
#[derive(Debug)]
pub(super) struct Gather {
    max: Duration,
    began: Instant,
    /// What the thread had used then.
    used: ThreadUse,
    receives: u32,
    bytes: u64,
    /// Receives within `max`, by the last window.
    expected: f64,
    phase: Phase,
    not_before: Instant,
    hold_off: Duration,
}

impl Gather {
    /// For at most `max`; never if that is zero. `used`: by the thread until now.
    pub fn new(max: Duration, now: Instant, used: ThreadUse) -> Self {
        Gather {
            max,
            began: now,
            used,
            receives: 0,
            bytes: 0,
            expected: 0.0,
            phase: Phase::Alone(Count::default()),
            not_before: now,
            hold_off: HOLD_OFF_MIN,
        }
    }

    /// So many receives came in a turn, and brought so many bytes.
    pub fn note(&mut self, receives: u32, bytes: usize) {
        self.receives = self.receives.saturating_add(receives);
        self.bytes += bytes as u64;
    }

    /// What to wait for if the owner sleeps now; `None`: for the first event. `used` says what the thread
    /// has used, and is asked once in a window.
    pub fn several(&mut self, now: Instant, used: impl FnOnce() -> ThreadUse) -> Option<Several> {
        if self.max.is_zero() {
            return None;
        }
        if now.saturating_duration_since(self.began) >= WINDOW {
            self.end_window(now, used());
        }
        (!matches!(self.phase, Phase::Alone(_))).then(|| Several {
            events: ((self.expected * BURST) as u32).clamp(2, EVENTS_MAX),
            us_max: self.max.as_micros() as u32,
        })
    }

    fn end_window(&mut self, now: Instant, used: ThreadUse) {
        let window = Count {
            windows: 1,
            bytes: std::mem::take(&mut self.bytes),
            elapsed: now.saturating_duration_since(self.began),
            cpu: used.cpu.saturating_sub(self.used.cpu),
        };
        let waited = used.waited.saturating_sub(self.used.waited);
        let busy = (window.cpu + waited).div_duration_f64(window.elapsed);
        let receives = f64::from(std::mem::take(&mut self.receives));
        (self.began, self.used) = (now, used);
        self.expected = receives * self.max.div_duration_f64(window.elapsed);
        let is_bulk = window.bytes as f64 > receives * BULK_BYTES;
        let is_wanted =
            |receives_min, busy_min| self.expected >= receives_min && !is_bulk && busy >= busy_min;
        self.phase = match self.phase {
            Phase::Alone(count)
                if is_wanted(BEGINS_AT, BUSY_BEGINS_AT) && now >= self.not_before =>
            {
                Self::with_another_alone(count, window)
            }
            Phase::Tried { alone, gathered } if is_wanted(ENDS_AT, BUSY_ENDS_AT) => {
                self.with_another_tried(alone, gathered, window, now)
            }
            Phase::Gathers { until } if is_wanted(ENDS_AT, BUSY_ENDS_AT) && now < until => {
                self.phase
            }
            _ => Phase::Alone(Count::default()),
        };
    }

    fn with_another_alone(mut alone: Count, window: Count) -> Phase {
        alone.add(window);
        if alone.is_measured() {
            let gathered = None;
            Phase::Tried { alone, gathered }
        } else {
            Phase::Alone(alone)
        }
    }

    fn with_another_tried(
        &mut self,
        alone: Count,
        gathered: Option<Count>,
        window: Count,
        now: Instant,
    ) -> Phase {
        let gathered = gathered.map_or_else(Count::default, |mut gathered| {
            gathered.add(window);
            gathered
        });
        if !gathered.is_measured() {
            let gathered = Some(gathered);
            return Phase::Tried { alone, gathered };
        }
        if gathered.pays_beside(&alone) {
            self.hold_off = HOLD_OFF_MIN;
            let until = now + PAYS_FOR;
            return Phase::Gathers { until };
        }
        self.not_before = now + self.hold_off;
        self.hold_off = (self.hold_off * 2).min(HOLD_OFF_MAX);
        Phase::Alone(Count::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(50);
    const BUSY: f64 = 0.8;

    struct Receiver {
        gather: Gather,
        now: Instant,
        used: ThreadUse,
    }

    impl Receiver {
        fn new(max: Duration) -> Self {
            let now = Instant::now();
            let cpu = Duration::from_secs(3);
            let used = ThreadUse { cpu, waited: cpu };
            let gather = Gather::new(max, now, used);
            Receiver { gather, now, used }
        }

        /// A window passes in which so many come in 50 us, bring so many bytes, and take this part of it.
        fn window_of(&mut self, receives: u32, bytes: usize, busy: f64) -> Option<Several> {
            self.now += WINDOW;
            self.used.cpu += WINDOW.mul_f64(busy);
            self.gather.note(receives * 400, bytes * 400);
            self.gather.several(self.now, || self.used)
        }

        fn window(&mut self, receives: u32) -> Option<Several> {
            self.window_of(receives, receives as usize * 100, BUSY)
        }

        /// So many windows that are alike; whether events gather after each.
        fn gathers(&mut self, windows: u32, receives: u32, bytes: usize, busy: f64) -> Vec<bool> {
            (0..windows)
                .map(|_| self.window_of(receives, bytes, busy).is_some())
                .collect()
        }

        /// It is tried, and takes so much less CPU; then whether it stays.
        fn tried(&mut self, busy: f64, bytes: usize) -> bool {
            while self.window_of(10, 1_000, BUSY).is_none() {}
            let tried = self.gathers(WINDOWS, 10, bytes, busy);
            assert_eq!(tried, [true; WINDOWS as usize]);
            self.window_of(10, bytes, busy).is_some()
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
    fn who_has_time_to_spare_answers_at_once() {
        let mut idle = Receiver::new(MAX);
        assert_eq!(idle.gathers(10, 10, 1_000, 0.4), [false; 10]);
        assert!(idle.tried(0.5, 1_000));
        assert!(idle.window_of(10, 1_000, 0.3).is_some(), "spared by it");
        assert!(idle.window_of(10, 1_000, 0.2).is_none());
    }

    #[test]
    fn who_waits_for_a_cpu_has_no_time_to_spare() {
        let mut crowded = Receiver::new(MAX);
        for _ in 0..WINDOWS {
            crowded.used.waited += WINDOW / 2;
            crowded.window_of(10, 1_000, 0.2);
        }
        crowded.used.waited += WINDOW / 2;
        assert!(crowded.window_of(10, 1_000, 0.2).is_some());
    }

    #[test]
    fn several_are_waited_for_while_they_come_fast() {
        let mut many = Receiver::new(MAX);
        let us_max = 50;
        let wanted = |events| Some(Several { events, us_max });
        assert_eq!(many.gathers(WINDOWS - 1, 4, 400, BUSY), [false; 3]);
        assert_eq!(many.window(4), wanted(12));
        assert_eq!(many.window(5), wanted(15));
        let used = many.used;
        assert_eq!(
            many.gather.several(many.now, || used),
            wanted(15),
            "in between"
        );
        assert_eq!(many.window(1_000), wanted(EVENTS_MAX));
    }

    #[test]
    fn it_stays_where_it_spares_cpu_and_is_measured_anew() {
        let mut many = Receiver::new(MAX);
        assert!(many.tried(0.5, 1_000));
        let windows = PAYS_FOR.div_duration_f64(WINDOW) as u32;
        assert!(
            many.gathers(windows - 1, 10, 1_000, 0.5)
                .iter()
                .all(|gathers| *gathers)
        );
        assert!(many.window_of(10, 1_000, 0.5).is_none());
        assert!(many.tried(0.5, 1_000));
    }

    #[test]
    fn it_ends_where_it_spares_nothing_or_less_comes_and_is_tried_again_ever_later() {
        let mut many = Receiver::new(MAX);
        for (n, (busy, bytes)) in [(0.78, 1_000), (0.4, 800)]
            .into_iter()
            .cycle()
            .take(6)
            .enumerate()
        {
            assert!(!many.tried(busy, bytes));
            let hold_off = (HOLD_OFF_MIN * (1 << n)).min(HOLD_OFF_MAX);
            let windows = hold_off.div_duration_f64(WINDOW) as u32 - 1;
            assert!(
                many.gathers(windows + WINDOWS - 1, 10, 1_000, BUSY)
                    .iter()
                    .all(|gathers| !gathers)
            );
        }
    }

    #[test]
    fn what_brings_much_at_once_is_not_waited_for() {
        let mut bulky = Receiver::new(MAX);
        assert_eq!(bulky.gathers(10, 10, 100_000, BUSY), [false; 10]);
        assert!(bulky.tried(0.5, 1_000));
        assert_eq!(bulky.window_of(10, 100_000, BUSY), None);
    }

    #[test]
    fn it_ends_when_little_comes_and_begins_with_the_next_rush() {
        let mut some = Receiver::new(MAX);
        assert!(some.tried(0.5, 1_000));
        assert!(some.window(1).is_some());
        assert_eq!(some.window(0), None);
        assert!(some.tried(0.5, 1_000));
    }
}

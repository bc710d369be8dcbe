//! How often something may happen per second on all shards together: a bucket that holds a second's worth,
//! counted by one number that all shards move on, without a lock.
//!
//! Invariant: however many take at once, no more is taken than the rate and a second's worth allow; what was
//! owed is waited off before anything is taken.

use crate::engine::time::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

const SECOND_NS: u64 = 1_000_000_000;
const MS_NS: u64 = 1_000_000;

/// Full at first.
#[derive(Debug, Default)]
pub(super) struct CommonRate {
    /// When the bucket will be full again.
    full_at_ns: AtomicU64,
}

impl CommonRate {
    /// Takes one of `rate` per second; false if there is none. 0 is no limit.
    pub fn take(&self, rate: u64, now: Timestamp) -> bool {
        self.move_on(rate, now, |then_full| then_full <= second_after(now))
    }

    /// Takes one, which is owed if there is none.
    pub fn take_or_owe(&self, rate: u64, now: Timestamp) {
        self.move_on(rate, now, |_| true);
    }

    /// When there will be one; `None` if there is.
    pub fn empty_until(&self, rate: u64, now: Timestamp) -> Option<Timestamp> {
        let step_ns = SECOND_NS.checked_div(rate)?;
        let then_full = self.full_at_ns.load(Ordering::Relaxed) + step_ns;
        let wait_ns = then_full.checked_sub(second_after(now))?;
        (wait_ns > 0).then(|| now.plus_ms(wait_ns.div_ceil(MS_NS)))
    }

    fn move_on(&self, rate: u64, now: Timestamp, may: impl Fn(u64) -> bool) -> bool {
        let Some(step_ns) = SECOND_NS.checked_div(rate) else {
            return true;
        };
        let order = Ordering::Relaxed;
        let moved = self.full_at_ns.fetch_update(order, order, |full_at| {
            let then_full = full_at.max(nanoseconds(now)).saturating_add(step_ns);
            may(then_full).then_some(then_full)
        });
        moved.is_ok()
    }
}

const fn nanoseconds(at: Timestamp) -> u64 {
    at.as_ms().saturating_mul(MS_NS)
}

const fn second_after(now: Timestamp) -> u64 {
    nanoseconds(now).saturating_add(SECOND_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(5_000);

    #[test]
    fn a_second_s_worth_at_once_and_then_by_and_by() {
        for rate in [1, 3, 10, 1_000] {
            let common = CommonRate::default();
            let taken = (0..2 * rate).filter(|_| common.take(rate, NOW)).count();
            assert_eq!(taken as u64, rate);
            let at = common.empty_until(rate, NOW).unwrap();
            assert_eq!(at.ms_since(NOW), 1_000_u64.div_ceil(rate));
            assert!(common.take(rate, at) && !common.take(rate, at));
        }
        let common = CommonRate::default();
        assert!((0..100).all(|_| common.take(0, NOW)), "no limit");
        assert_eq!(common.empty_until(0, NOW), None);
    }

    #[test]
    fn what_is_owed_is_waited_off() {
        let common = CommonRate::default();
        for _ in 0..4 {
            common.take_or_owe(1, NOW);
        }
        assert_eq!(common.empty_until(1, NOW), Some(NOW.plus_ms(4_000)));
        assert!(!common.take(1, NOW.plus_ms(3_999)) && common.take(1, NOW.plus_ms(4_000)));
    }

    #[test]
    fn threads_together_take_no_more_than_one_would() {
        let common = CommonRate::default();
        let taken = std::thread::scope(|scope| {
            let takes = || (0..100).filter(|_| common.take(50, NOW)).count();
            let threads = [(); 4].map(|()| scope.spawn(takes));
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(taken.iter().sum::<usize>(), 50);
    }
}

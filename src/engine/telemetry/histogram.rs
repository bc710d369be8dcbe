//! How long things took, in buckets whose bounds double: an add and a look at the highest bit for each.

/// Buckets: up to 1 us, 2 us, 4 us, ... 8.4 s, and beyond.
pub const BUCKETS: usize = 25;

/// Durations in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Histogram {
    /// One that was counted elsewhere.
    #[must_use]
    pub const fn of(counts: [u64; BUCKETS], sum_us: u64) -> Self {
        Histogram { counts, sum_us }
    }

    /// The bucket of a duration: 0 and 1 fall into the first, 2 into the second, 3 and 4 into the third.
    #[must_use]
    pub fn bucket(us: u64) -> usize {
        let at = u64::BITS - us.saturating_sub(1).leading_zeros();
        (at as usize).min(BUCKETS - 1)
    }

    /// Something took so long.
    pub fn add(&mut self, us: u64) {
        self.counts[Self::bucket(us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in microseconds.
    #[must_use]
    pub const fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Upper bounds in microseconds, the last of them infinite (`None`), with how many lie in each.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.counts.iter().enumerate().map(|(at, &count)| {
            let bound = (at + 1 < BUCKETS).then_some(1 << at);
            (bound, count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_lies_within_the_bound_of_its_bucket() {
        for us in [
            0,
            1,
            2,
            3,
            4,
            5,
            8,
            9,
            1_000,
            1 << 23,
            (1 << 23) + 1,
            u64::MAX,
        ] {
            let mut histogram = Histogram::default();
            histogram.add(us);
            assert_eq!((histogram.count(), histogram.sum_us()), (1, us));
            let mut below = None;
            for (bound, count) in histogram.buckets() {
                let fits = bound.is_none_or(|bound| us <= bound);
                let is_above = below.is_none_or(|below| us > below);
                assert_eq!(count == 1, fits && is_above, "{us} {bound:?}");
                below = bound;
            }
        }
    }
}

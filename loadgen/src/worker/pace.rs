//! The open loop's schedule: message m of a group is due at start + m / rate, by publisher m % count.
//!
//! Each worker walks the part of the schedule that its own publishers have. Nothing the broker does
//! changes it.

/// A group's schedule on one worker.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The group.
    pub group: u32,
    rate: f64,
    count: u32,
    first: u32,
    step: u32,
    round: u32,
    index: u32,
    rounds_max: u32,
}

/// Nanoseconds after the start at which message `message` of client `index` of `count` is due.
pub fn intended_offset_ns(message: u32, (index, count): (u32, u32), rate: f64) -> u64 {
    let nth = f64::from(message) * f64::from(count) + f64::from(index);
    (nth * 1e9 / rate) as u64
}

impl Schedule {
    /// For the clients `worker`, `worker + workers`, ... of a group of `count`.
    pub const fn new(
        group: u32,
        count: u32,
        rate: f64,
        (worker, workers): (u32, u32),
        rounds_max: u32,
    ) -> Self {
        Schedule {
            group,
            rate,
            count,
            first: worker,
            step: workers,
            round: 0,
            index: worker,
            rounds_max,
        }
    }

    /// When the next message is due, in ns after the start.
    pub fn next_ns(&self) -> Option<u64> {
        let has_next = self.index < self.count && self.round < self.rounds_max;
        has_next.then(|| intended_offset_ns(self.round, (self.index, self.count), self.rate))
    }

    /// Takes the next message; its publisher's number in the group.
    pub const fn take(&mut self) -> u32 {
        let index = self.index;
        self.index += self.step;
        if self.index >= self.count {
            self.index = self.first;
            self.round += 1;
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_one_even_schedule() {
        let mut times = Vec::new();
        for worker in 0..2 {
            let mut schedule = Schedule::new(0, 3, 1000.0, (worker, 2), 2);
            while let Some(ns) = schedule.next_ns() {
                times.push((ns / 1000, schedule.take()));
            }
        }
        times.sort_unstable();
        let expected = [
            (0, 0),
            (1000, 1),
            (2000, 2),
            (3000, 0),
            (4000, 1),
            (5000, 2),
        ];
        assert_eq!(times, expected);
    }

    #[test]
    fn a_worker_without_publishers_has_no_schedule() {
        assert_eq!(Schedule::new(0, 1, 10.0, (1, 2), 5).next_ns(), None);
    }
}

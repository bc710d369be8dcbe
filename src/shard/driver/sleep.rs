//! Until when a shard may sleep: the earliest of what its parts have to do later.

use std::time::Instant;

/// The earliest of several moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Alarm(Option<Instant>);

impl Alarm {
    /// Something is due at `at`; nothing for `None`.
    pub fn set(mut self, at: Option<Instant>) -> Self {
        self.0 = [self.0, at].into_iter().flatten().min();
        self
    }

    /// When it rings; `None` for never.
    pub fn rings_at(self) -> Option<Instant> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_earliest_moment_counts() {
        let now = Instant::now();
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        let alarm = Alarm::default().set(None);
        assert_eq!(alarm.rings_at(), None);
        let alarm = alarm.set(Some(late)).set(Some(soon)).set(None);
        assert_eq!(alarm.rings_at(), Some(soon));
    }
}

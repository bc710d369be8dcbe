//! What the broker publishes itself: values that changed, as far as a turn has room for them.

use super::Shell;
use crate::engine::turn::Rest;
use crate::shard::orders::Announcements;
use std::collections::{BTreeMap, VecDeque};

/// Values that are to be published, and those that were.
#[derive(Default)]
pub(super) struct Announcer {
    waiting: VecDeque<(Box<str>, Box<str>)>,
    told: BTreeMap<Box<str>, Box<str>>,
}

impl Announcer {
    /// These are the values now; of what still waits nothing is left.
    pub fn take(&mut self, values: &Announcements) {
        let told = &self.told;
        let changed = values
            .iter()
            .filter(|(topic, value)| told.get(topic) != Some(value));
        self.waiting = changed.cloned().collect();
    }

    /// A shard does not sleep beside values that wait.
    pub fn rest(&self, rest: Rest) -> Rest {
        rest.unless(!self.waiting.is_empty())
    }
}

impl Shell {
    /// Publishes what waits, as far as this turn goes.
    pub(super) fn announce(&mut self) {
        let now = self.clock.now();
        while let Some((topic, value)) = self.announcer.waiting.front()
            && self.core.publish_own(now, topic, value.as_bytes())
        {
            let published = self.announcer.waiting.pop_front();
            self.announcer.told.extend(published);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::Timestamp;

    #[test]
    fn only_what_changed_is_told_and_the_newest_of_it() {
        let values = |uptime: &str| {
            vec![
                ("version".into(), "1".into()),
                ("uptime".into(), uptime.into()),
            ]
        };
        let mut announcer = Announcer::default();
        announcer.take(&values("1"));
        let first = announcer.waiting.pop_front();
        announcer.told.extend(first);
        assert_eq!(announcer.rest(Rest::Sleep(Timestamp::NEVER)), Rest::GoOn);
        announcer.take(&values("2"));
        let waiting: Vec<_> = announcer.waiting.iter().collect();
        assert_eq!(waiting, [&("uptime".into(), "2".into())]);
    }
}

//! Which QoS 2 publishes are complete, by what all shards have told, and what becomes of what is kept of the
//! others.
//!
//! A publish of which something is kept without its origin's word that all of it is stored was not
//! acknowledged: its client sends it again. So it is forgotten, on all shards alike; everywhere else it
//! counts.

use super::image::Image;
use crate::engine::keys::{Origin, ShardId};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Numbers of one shard's publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complete {
    /// By the number before the first, the last. None touches another.
    ranges: BTreeMap<u64, u64>,
}

impl Complete {
    /// Those after a number, up to another one.
    pub fn add(&mut self, after: u64, through: u64) {
        if through <= after {
            return;
        }
        let (mut after, mut through) = (after, through);
        if let Some((&from, &to)) = self.ranges.range(..=after).next_back()
            && to >= after
        {
            (after, through) = (from, through.max(to));
        }
        let bounds = (Bound::Excluded(after), Bound::Included(through));
        while let Some((&from, &to)) = self.ranges.range(bounds).next() {
            self.ranges.remove(&from);
            through = through.max(to);
        }
        self.ranges.insert(after, through);
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let before = self.ranges.range(..number).next_back();
        before.is_some_and(|(_, through)| *through >= number)
    }

    /// All of them: after the first, through the second.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges
            .iter()
            .map(|(after, through)| (*after, *through))
    }

    /// The highest; 0 if there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.ranges.values().next_back().copied().unwrap_or(0)
    }
}

/// What one shard tells the others before anybody is built anew.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its own publishes that are complete.
    complete: Complete,
    /// By shard, the highest number that an entry of its names.
    named: BTreeMap<ShardId, u64>,
}

impl Image {
    /// What it tells the others.
    #[must_use]
    pub fn told(&self) -> Told {
        let mut named: BTreeMap<ShardId, u64> = BTreeMap::new();
        let sessions = self.sessions.values();
        let entries = sessions.flat_map(|session| session.entries.values());
        for Origin { shard, number } in entries.filter_map(|entry| entry.origin) {
            let highest = named.entry(shard).or_default();
            *highest = number.get().max(*highest);
        }
        Told {
            complete: self.complete.clone(),
            named,
        }
    }

    /// What is complete counts from now on. What is not keeps its origin: it is to be settled. `told` is what
    /// all shards say, by their numbers, of which this is the one with number `own`.
    pub fn decide<'a>(&mut self, own: ShardId, told: impl Fn(ShardId) -> Option<&'a Told>) {
        let is_complete = |origin: &Origin| {
            let of_origin = told(origin.shard);
            of_origin.is_some_and(|told| told.complete.contains(origin.number.get()))
        };
        for session in self.sessions.values_mut() {
            for entry in session.entries.values_mut() {
                entry.origin = entry.origin.filter(|origin| !is_complete(origin));
                if entry.origin.is_some() {
                    entry.sent = None;
                }
            }
        }
        let all = (0..=ShardId::MAX).map_while(&told);
        let named = all.filter_map(|told| told.named.get(&own)).max();
        self.last_number = self.complete.last().max(named.copied().unwrap_or(0));
    }

    /// The last number that a publish of this shard may have had, once that is decided.
    #[must_use]
    pub const fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Nobody can tell what is complete: a message comes twice rather than not at all.
    pub fn keep_undecided(&mut self) {
        let sessions = self.sessions.values_mut();
        for entry in sessions.flat_map(|session| session.entries.values_mut()) {
            entry.origin = None;
        }
        self.complete = Complete::default();
    }

    fn forget_undecided(&mut self) {
        for session in self.sessions.values_mut() {
            session.entries.retain(|_, entry| entry.origin.is_none());
        }
        self.complete = Complete::default();
        self.last_number = 0;
    }
}

/// Decides for all shards, by their numbers, for good: origins mean nothing after that.
pub fn decide_all(images: &mut [Image]) {
    let told: Vec<Told> = images.iter().map(Image::told).collect();
    for (own, image) in (0..).zip(images) {
        image.decide(own, |shard| told.get(usize::from(shard)));
        image.forget_undecided();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::Version;
    use crate::engine::message::{LocalMessage, Message, Qos};
    use crate::engine::record::{Opened, Record};
    use crate::engine::session::{Delivery, SubscriptionIds};
    use crate::storage::rehome::number;
    use std::sync::Arc;

    #[test]
    fn ranges_grow_together() {
        let mut complete = Complete::default();
        for (after, through) in [(4, 5), (6, 7), (9, 20), (3, 3), (11, 12), (30, 31)] {
            complete.add(after, through);
        }
        let all = |complete: &Complete| complete.ranges().collect::<Vec<_>>();
        assert_eq!(all(&complete), [(4, 5), (6, 7), (9, 20), (30, 31)]);
        complete.add(5, 6);
        assert_eq!(all(&complete), [(4, 7), (9, 20), (30, 31)]);
        let has = |complete: &Complete| {
            (0..33)
                .filter(|n| complete.contains(*n))
                .collect::<Vec<u64>>()
        };
        let between: Vec<u64> = (5..=7).chain(10..=20).chain([31]).collect();
        assert_eq!(has(&complete), between);
        complete.add(0, 25);
        assert_eq!(all(&complete), [(0, 25), (30, 31)]);
        complete.add(25, 30);
        assert_eq!((all(&complete), complete.last()), (vec![(0, 31)], 31));
    }

    /// An image with one session and these entries, of publishes.
    fn image(shard: ShardId, origins: &[(ShardId, u64)]) -> Image {
        let session = number(1, shard);
        let mut image = Image::default();
        let opened = Opened {
            session,
            client_id: "one".into(),
            version: Version::V5,
            user_name: None,
            own_rules: None,
            expiry_seconds: 60,
            queue_bytes_max: 1_000,
            will: None,
        };
        let mut put = |record| image.apply(record).expect("a history");
        put(Record::Opened(Box::new(opened)));
        let message = Message::new("t", b"", b"x", Qos::ExactlyOnce, false, None);
        let message = LocalMessage::new(Arc::new(message));
        for (entry, (shard, number)) in (1..).zip(origins) {
            let delivery = Delivery {
                message: message.clone(),
                qos: Qos::ExactlyOnce,
                retain: false,
                subscription_ids: SubscriptionIds::None,
                group: None,
                entry,
            };
            put(Record::Queued {
                session,
                delivery,
                origin: Origin::new(*shard, *number),
            });
            put(Record::Sent {
                session,
                entry,
                packet_id: entry as u16,
            });
        }
        image
    }

    #[test]
    fn what_is_not_complete_is_forgotten_on_all_shards_and_no_number_comes_again() {
        let mut images = [
            image(0, &[(0, 3), (1, 7), (1, 9), (0, 4)]),
            image(1, &[(1, 7), (0, 4), (1, 8)]),
        ];
        let accepted = Record::Accepted {
            session: number(1, 0),
            packet_id: 1,
            number: 4,
        };
        images[0].apply(accepted).expect("a history");
        let (after, through) = (5, 7);
        let complete = Record::Complete { after, through };
        images[1].apply(complete).expect("a history");
        let told: Vec<Told> = images.iter().map(Image::told).collect();
        let undecided = |image: &Image| {
            let entries = image.sessions.values().flat_map(|it| &it.entries);
            let undecided = entries.filter(|(_, entry)| entry.origin.is_some());
            undecided
                .map(|(entry, it)| (*entry, it.sent.is_some()))
                .collect::<Vec<_>>()
        };
        for (own, image) in (0..).zip(&mut images) {
            image.decide(own, |shard| told.get(usize::from(shard)));
        }
        assert_eq!(undecided(&images[0]), [(1, false), (3, false)]);
        assert_eq!(undecided(&images[1]), [(3, false)]);
        assert_eq!(images.each_ref().map(Image::last_number), [4, 9]);
        decide_all(&mut images);
        let left = images.each_ref().map(|image| {
            let sessions = image.sessions.values();
            sessions
                .flat_map(|it| it.entries.keys().copied())
                .collect::<Vec<_>>()
        });
        assert_eq!(left, [vec![2, 4], vec![1, 2]]);
    }
}

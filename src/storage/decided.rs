//! What counts of what is kept of QoS 2 publishes, by what all shards have told.
//!
//! A publish of which something is kept without its origin's word that all of it is stored was not
//! acknowledged: its client sends it again. So it is forgotten, on all shards alike; everywhere else it
//! counts.

use super::complete::Complete;
use super::image::Image;
use crate::engine::keys::{Origin, ShardId};
use std::collections::BTreeMap;

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
    use crate::engine::keys::SessionNumber;
    use crate::engine::message::Qos;
    use crate::engine::record::Record;
    use crate::storage::samples;
    use std::num::NonZeroU64;

    fn number(shard: ShardId) -> SessionNumber {
        let number = 1 << ShardId::BITS | u64::from(shard);
        SessionNumber(NonZeroU64::new(number).expect("not 0"))
    }

    /// An image with one session and these entries, of publishes.
    fn image(shard: ShardId, origins: &[(ShardId, u64)]) -> Image {
        let session = number(shard);
        let mut image = Image::default();
        let mut put = |record| image.apply(record).expect("a history");
        put(samples::opened(session, "one"));
        let message = samples::message("t", "x", Qos::ExactlyOnce);
        for (entry, (shard, number)) in (1..).zip(origins) {
            let origin = Origin::new(*shard, *number);
            put(samples::queued(session, entry, &message, origin));
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
            session: number(0),
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

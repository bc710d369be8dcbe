//! QoS 2 exactly once over a crash: which publishes are complete, and what waits for that.
//!
//! What a publish leaves in sessions that last is named by its origin: the shard that it came in by, and a
//! number of that. It is complete when all of it is stored wherever it went, and its origin has stored that.
//! A crash before that forgets all of it on all shards, and its client sends it again. So nothing of it
//! reaches a subscriber before: it has its place and packet identifier in the window, and leaves when it is
//! complete.
//!
//! Invariants: an entry is undecided from the record that names its origin until this shard knows that the
//! publish is complete; what leaves a session for the first time leaves in the order of its window; a number
//! stays open until the record that ends it is told.
//!
//! Not here: who says that one is complete ([`super::complete`]), and what a start makes of what is not
//! (`crate::storage::decided`).

use crate::engine::keys::{ConnectionKey, Origin, SessionKey, SessionNumber};
use crate::engine::message::Qos;
use crate::engine::route::ShardSet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A message that is in a session's window and not sent to its client yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsent {
    pub session: SessionKey,
    /// What the store calls that.
    pub number: SessionNumber,
    /// On which connection.
    pub connection: ConnectionKey,
    pub entry: u64,
    pub packet_id: u16,
}

/// An entry, as the store calls it.
type EntryName = (SessionNumber, u64);

/// An entry of which it is not known whether its publish is complete.
#[derive(Debug)]
struct Undecided {
    origin: Origin,
    /// Its session is resumed, and goes on when that is known.
    resumes: Option<SessionKey>,
}

/// What one shard knows of it.
#[derive(Debug, Default)]
pub(super) struct Once {
    /// Of what is delivered now.
    at_hand: Option<Origin>,
    undecided: BTreeMap<EntryName, Undecided>,
    /// The same, with some that are over.
    by_origin: BTreeMap<Origin, Vec<EntryName>>,
    /// What would be sent now, by session.
    waiting: BTreeMap<SessionNumber, VecDeque<Unsent>>,
    /// It need not wait any longer.
    sendable: VecDeque<Unsent>,
    resuming: VecDeque<SessionKey>,
    /// Publishes of this shard that are under way, and the number after which this life counts.
    open: BTreeSet<u64>,
    counts_after: u64,
    /// By ticket, those that are complete when that is stored, and who else has something of them.
    pub(super) completing: VecDeque<(u64, Origin, ShardSet)>,
}

impl Once {
    /// What is delivered from now on is of this publish.
    pub(super) const fn begin(&mut self, origin: Option<Origin>) {
        self.at_hand = origin;
    }

    /// That is over.
    pub(super) const fn end(&mut self) {
        self.at_hand = None;
    }

    /// The origin of a delivery of what is at hand. Only QoS 2 is exactly once.
    pub(super) fn origin_at_hand(&self, qos: Qos) -> Option<Origin> {
        self.at_hand.filter(|_| qos == Qos::ExactlyOnce)
    }

    /// Numbers of this life are higher.
    pub(super) fn count_after(&mut self, number: u64) {
        self.counts_after = self.counts_after.max(number);
    }

    /// A publish of this shard begins.
    pub(super) fn open(&mut self, number: u64) {
        self.open.insert(number);
    }

    /// All of it is stored, or nothing of it is to be. Whether sessions here have something of it.
    pub(super) fn close(&mut self, origin: Origin) -> bool {
        self.open.remove(&origin.number.get());
        self.by_origin.contains_key(&origin)
    }

    /// The numbers of this life up to the last one that are not open: after the first, through the second.
    pub(super) fn complete(&self, last: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut after = self.counts_after;
        let ends = self.open.iter().map(|open| (open - 1, *open));
        let ranges = ends.chain([(last, last)]).map(move |(through, next)| {
            let range = (after, through);
            after = next;
            range
        });
        ranges.filter(|(after, through)| after < through)
    }

    /// An entry is told with its origin.
    pub(super) fn enter(&mut self, entry: EntryName, origin: Origin) {
        let resumes = None;
        self.undecided.insert(entry, Undecided { origin, resumes });
        self.by_origin.entry(origin).or_default().push(entry);
    }

    /// The origin that an entry is to be told with, if it is to be.
    pub(super) fn origin_of(&self, session: SessionNumber, entry: u64) -> Option<Origin> {
        if self.undecided.is_empty() {
            return None;
        }
        let undecided = self.undecided.get(&(session, entry))?;
        Some(undecided.origin)
    }

    /// An entry is over.
    pub(super) fn settle(&mut self, session: SessionNumber, entry: u64) {
        if !self.undecided.is_empty() {
            self.know(session, entry);
        }
    }

    /// A session is over.
    pub(super) fn end_session(&mut self, session: SessionNumber) {
        if self.undecided.is_empty() && self.waiting.is_empty() {
            return;
        }
        let own = self.undecided.range((session, 0)..=(session, u64::MAX));
        let own: Vec<EntryName> = own.map(|(entry, _)| *entry).collect();
        for entry in own {
            self.undecided.remove(&entry);
        }
        self.waiting.remove(&session);
    }

    /// A publish is complete.
    pub(super) fn decide(&mut self, origin: Origin) {
        for (session, entry) in self.by_origin.remove(&origin).into_iter().flatten() {
            self.know(session, entry);
        }
    }

    /// Nothing waits for what becomes of an entry any more.
    fn know(&mut self, session: SessionNumber, entry: u64) {
        let Some(known) = self.undecided.remove(&(session, entry)) else {
            return;
        };
        self.resuming.extend(known.resumes);
        let Some(waiting) = self.waiting.get_mut(&session) else {
            return;
        };
        while let Some(first) = waiting.front()
            && !self.undecided.contains_key(&(session, first.entry))
        {
            self.sendable.extend(waiting.pop_front());
        }
        if waiting.is_empty() {
            self.waiting.remove(&session);
        }
    }

    /// Whether what would be sent now has to wait; it is sent when it is complete, and all before it are.
    pub(super) fn holds(&mut self, unsent: Unsent) -> bool {
        let session = unsent.number;
        let waits = self.origin_of(session, unsent.entry).is_some();
        if !waits && !self.waiting.contains_key(&session) {
            return false;
        }
        self.waiting.entry(session).or_default().push_back(unsent);
        true
    }

    /// The next that need not wait any longer.
    pub(super) fn next_to_send(&mut self) -> Option<Unsent> {
        self.sendable.pop_front()
    }

    /// Whether a session that is resumed has to wait with an entry; it is looked at again then.
    pub(super) fn holds_resumed(
        &mut self,
        session: Option<SessionNumber>,
        entry: u64,
        key: SessionKey,
    ) -> bool {
        if self.undecided.is_empty() {
            return false;
        }
        let undecided = session.and_then(|number| self.undecided.get_mut(&(number, entry)));
        let Some(undecided) = undecided else {
            return false;
        };
        undecided.resumes = Some(key);
        true
    }

    /// The next session that may go on.
    pub(super) fn next_to_resume(&mut self) -> Option<SessionKey> {
        self.resuming.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A range that goes one too far calls complete what a crash has cut off.
    #[test]
    fn what_is_complete_ends_before_each_number_that_is_open() {
        let mut once = Once::default();
        once.count_after(10);
        let ranges = |once: &Once, last| once.complete(last).collect::<Vec<_>>();
        assert_eq!(ranges(&once, 10), []);
        assert_eq!(ranges(&once, 12), [(10, 12)]);
        for number in [11, 14, 15, 20] {
            once.open(number);
        }
        assert_eq!(ranges(&once, 20), [(11, 13), (15, 19)]);
        assert_eq!(ranges(&once, 22), [(11, 13), (15, 19), (20, 22)]);
    }
}

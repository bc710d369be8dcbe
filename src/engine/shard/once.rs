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
//! Not here: when all who were asked have stored it ([`super::receipts`]), and what a start makes of it
//! ([`crate::storage::image`]).

use super::ShardCore;
use super::clients::Clients;
use super::journal::Unsent;
use super::matches::Match;
use crate::engine::keys::{Origin, SessionKey, SessionNumber, ShardId};
use crate::engine::mail::Asked;
use crate::engine::message::Qos;
use crate::engine::receipt::Receipt;
use crate::engine::record::Record;
use crate::engine::route::ShardSet;
use crate::engine::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    completing: VecDeque<(u64, Origin, ShardSet)>,
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
    fn close(&mut self, origin: Origin) -> bool {
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
    fn decide(&mut self, origin: Origin) {
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
    fn next_to_resume(&mut self) -> Option<SessionKey> {
        self.resuming.pop_front()
    }
}

impl Clients {
    /// Whether a session is passed by with a message whose shard does not know that it asks for it. That
    /// shard would not say that it is complete, and a crash might leave it here and bring it again. Nothing
    /// is owed: there was no SUBACK, and what is retained is asked for later. A share group was picked for
    /// it.
    pub(super) fn is_passed_by(&self, matched: &Match) -> bool {
        let session = self.sessions.get(matched.session);
        matched.group.is_none() && session.is_some_and(|session| session.number.is_some())
    }
}

impl ShardCore {
    /// Whether sessions that last are passed by with a publish of another shard.
    pub(super) fn passes_lasting_by(&self, asked: Asked) -> bool {
        self.settings.stores && asked.knows_no_lasting()
    }

    /// What comes of a publish of a client is told under a number from now on, if somebody has to keep it.
    pub(super) fn begin_publish(&mut self, qos: Qos) {
        if qos == Qos::ExactlyOnce {
            let number = self.receipts.begin_numbered();
            self.clients.journal.once.open(number);
            let origin = Origin::new(self.id, number);
            self.clients.journal.once.begin(origin);
        } else {
            self.receipts.begin(qos > Qos::AtMostOnce);
        }
    }

    /// All who were asked have stored what a QoS 2 publish left with them, and nothing more comes of it. The
    /// store is told that it is complete, and accepted if its client's session lasts: in one record, so that
    /// no crash parts them.
    pub(super) fn tell_accepted(
        &mut self,
        accepted: Option<(SessionKey, u16)>,
        number: u64,
        shards: ShardSet,
    ) {
        let journal = &mut self.clients.journal;
        let origin = Origin::new(self.id, number);
        let is_kept = origin.filter(|origin| journal.once.close(*origin) || !shards.is_empty());
        let number = if is_kept.is_some() { number } else { 0 };
        let before = journal.last_ticket();
        if let Some((session, packet_id)) = accepted {
            self.clients.keep(session, |session| Record::Accepted {
                session,
                packet_id,
                number,
            });
        }
        let Some(origin) = is_kept else {
            return;
        };
        let journal = &mut self.clients.journal;
        if journal.last_ticket() == before {
            let after = number - 1;
            let through = number;
            journal.put(Record::Complete { after, through });
        }
        let ticket = journal.last_ticket();
        let completing = &mut journal.once.completing;
        completing.push_back((ticket, origin, shards));
    }

    /// More is stored: publishes of this shard may be complete, which those who have something of them are
    /// told.
    pub(super) fn complete_stored(&mut self) {
        let journal = &mut self.clients.journal;
        while let Some((ticket, ..)) = journal.once.completing.front()
            && journal.is_stored(*ticket)
            && let Some((_, origin, shards)) = journal.once.completing.pop_front()
        {
            journal.once.decide(origin);
            for shard in shards.iter() {
                self.receipts.tell_complete(shard, origin.number.get());
            }
        }
    }

    /// Publishes of another shard are complete.
    pub(super) fn complete_elsewhere(&mut self, from: ShardId, numbers: &[u64], now: Timestamp) {
        if numbers.is_empty() {
            return;
        }
        for number in numbers {
            if let Some(origin) = Origin::new(from, *number) {
                self.clients.journal.once.decide(origin);
            }
        }
        self.send_stored(now);
    }

    /// Goes on with sessions that were resumed and had to wait.
    pub(super) fn resume_decided(&mut self, now: Timestamp) {
        while let Some(key) = self.clients.journal.once.next_to_resume() {
            if self.clients.is_owed(key) {
                self.clients.pump(key, now);
                self.pump_replay(key, now);
            }
        }
    }

    /// Numbers of publishes that come are higher than this one, which may have been used before.
    pub fn count_publishes_after(&mut self, number: u64) {
        self.receipts.count_after(number);
        self.clients.journal.once.count_after(number);
    }

    /// Which publishes of this shard are complete.
    pub(super) fn put_complete(&self, put: &mut impl FnMut(Record)) {
        let complete = self.clients.journal.once.complete(self.receipts.last());
        for (after, through) in complete {
            put(Record::Complete { after, through });
        }
    }

    /// A QoS 2 publish is answered: nobody has to be waited for, or its answer waits as the receipt says
    /// then.
    pub(super) fn keep_accepted(
        &mut self,
        session: SessionKey,
        packet_id: u16,
        receipt: &mut Receipt,
    ) {
        if !self.receipts.is_kept(receipt.number, receipt.shards) {
            return self.accept_when_kept(session, packet_id, receipt);
        }
        let before = self.clients.journal.last_ticket();
        let number = std::mem::take(&mut receipt.number);
        let shards = std::mem::take(&mut receipt.shards);
        self.tell_accepted(Some((session, packet_id)), number, shards);
        let last = self.clients.journal.last_ticket();
        if last > before {
            receipt.ticket = last;
        }
    }
}

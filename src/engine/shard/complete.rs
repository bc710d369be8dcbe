//! A client's QoS 2 publish from its beginning to the word that it is complete, here and to other shards.
//!
//! Not here: what waits for that word ([`super::once`]), and whether all who were asked have stored what they
//! got ([`super::receipts`]).

use super::ShardCore;
use super::clients::Clients;
use super::matches::Match;
use crate::engine::keys::{Origin, SessionKey, ShardId};
use crate::engine::mail::Asked;
use crate::engine::message::Qos;
use crate::engine::receipt::Receipt;
use crate::engine::record::Record;
use crate::engine::route::ShardSet;
use crate::engine::time::Timestamp;

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

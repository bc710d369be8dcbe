//! What has to be stored, how far the store is, and who waits for it.
//!
//! Invariants: tickets rise by one; what is stored does not become less.
//!
//! Not here: the acknowledgements that wait; each connection has its own.

use super::once::{Once, Unsent};
use crate::engine::keys::{ConnectionKey, Origin, SessionNumber, ShardId};
use crate::engine::message::Qos;
use crate::engine::receipt::{Level, Receipt};
use crate::engine::record::{Persist, Record};
use crate::engine::session::Delivery;
use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;

/// The journal of one shard.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Not taken to the store yet.
    records: Vec<Persist>,
    last_ticket: u64,
    /// The last that tells of a session's end.
    last_ended: u64,
    /// Sessions that were given a number.
    sessions: u64,
    /// About how many messages are on their way to sessions.
    entries: u64,
    stored_through: u64,
    /// The operating system has more than that, where somebody wants to know.
    written_through: u64,
    /// Connections with acknowledgements that wait, by what the first of them waits for: a ticket to be
    /// stored, or written, then a letter to be visible.
    for_store: BTreeSet<(u64, ConnectionKey)>,
    for_written: BTreeSet<(u64, ConnectionKey)>,
    for_mail: BTreeSet<(u64, ConnectionKey)>,
    /// Connections whose CONNACK waits.
    opening: BTreeSet<(u64, ConnectionKey)>,
    /// Messages of QoS 2 that wait to be sent for the first time, by ticket.
    unsent: VecDeque<(u64, Unsent)>,
    /// The last ticket that what a resumed session sends again rests on: its packet identifier, or that its
    /// client has the message, so that PUBREL is due.
    last_sent_again: u64,
    /// What of QoS 2 is not known to be complete.
    pub(super) once: Once,
}

impl Journal {
    /// Something is to be stored.
    pub(super) fn put(&mut self, record: Record) {
        match record {
            Record::Queued { .. } => self.entries += 1,
            Record::Settled { session, entry } => {
                self.end_entries(1);
                self.once.settle(session, entry);
            }
            Record::Ended { session } => {
                self.last_ended = self.last_ticket + 1;
                self.once.end_session(session);
            }
            Record::Received { session, entry, .. } => {
                self.last_sent_again = self.last_ticket + 1;
                self.once.settle(session, entry);
            }
            _ => {}
        }
        self.restate(record);
    }

    /// A message is on its way to a session, of this publish.
    pub(super) fn queue(
        &mut self,
        session: SessionNumber,
        delivery: Delivery,
        origin: Option<Origin>,
    ) {
        if let Some(origin) = origin {
            self.once.enter((session, delivery.entry), origin);
        }
        self.put(Record::Queued {
            session,
            delivery,
            origin,
        });
    }

    /// What there is of a message on its way, told once more.
    pub(super) fn queued(&self, session: SessionNumber, delivery: &Delivery) -> Record {
        let is_once = delivery.qos == Qos::ExactlyOnce;
        let entry = delivery.entry;
        Record::Queued {
            session,
            delivery: delivery.clone(),
            origin: is_once
                .then(|| self.once.origin_of(session, entry))
                .flatten(),
        }
    }

    /// So many messages are not on their way any more.
    pub(super) const fn end_entries(&mut self, count: u64) {
        self.entries = self.entries.saturating_sub(count);
    }

    /// A message was on its way when the broker ended.
    pub(super) const fn restore_entry(&mut self) {
        self.entries += 1;
    }

    /// About how many messages are on their way to sessions.
    pub(super) const fn entries(&self) -> u64 {
        self.entries
    }

    /// Something is to be stored once more, or tells of the journal itself.
    pub(super) fn restate(&mut self, record: Record) {
        self.last_ticket += 1;
        self.records.push(Persist {
            ticket: self.last_ticket,
            record,
        });
    }

    /// A number for a session of a shard.
    pub(super) fn next_session(&mut self, shard: ShardId) -> SessionNumber {
        self.sessions += 1;
        let number = self.sessions << ShardId::BITS | u64::from(shard);
        SessionNumber(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// A session with this number is there: those to come get higher ones.
    pub(super) fn go_on_after(&mut self, number: SessionNumber) {
        self.sessions = self.sessions.max(number.0.get() >> ShardId::BITS);
    }

    /// The ticket of the last record.
    pub(super) const fn last_ticket(&self) -> u64 {
        self.last_ticket
    }

    /// The ticket of the last record of a session's end.
    pub(super) const fn last_ended(&self) -> u64 {
        self.last_ended
    }

    /// Whether there are records for the store.
    pub(super) fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// Records for the store.
    pub(super) fn take(&mut self) -> std::vec::Drain<'_, Persist> {
        self.records.drain(..)
    }

    /// Everything up to a ticket is stored. Whether that is news.
    pub(super) const fn advance(&mut self, through: u64) -> bool {
        let is_news = through > self.stored_through;
        if is_news {
            self.stored_through = through;
            if through > self.written_through {
                self.written_through = through;
            }
        }
        is_news
    }

    /// The operating system has everything up to a ticket. Whether that is news.
    pub(super) const fn advance_written(&mut self, through: u64) -> bool {
        let is_news = through > self.written_through;
        if is_news {
            self.written_through = through;
        }
        is_news
    }

    /// Whether everything up to a ticket is as safe as that.
    pub(super) fn is_safe(&self, ticket: u64, level: Level) -> bool {
        match level {
            Level::Disk => self.is_stored(ticket),
            Level::Os => ticket <= self.written_through,
            Level::Memory => true,
        }
    }

    /// Whether everything up to a ticket is stored.
    pub(super) const fn is_stored(&self, ticket: u64) -> bool {
        ticket <= self.stored_through
    }

    /// Whether acknowledgements wait.
    pub(super) fn is_awaited(&self) -> bool {
        let waiting = [&self.for_store, &self.for_written, &self.for_mail];
        waiting.iter().any(|waiting| !waiting.is_empty())
    }

    /// A connection's CONNACK waits for all so far.
    pub(super) fn wait_to_open(&mut self, connection: ConnectionKey) {
        self.opening.insert((self.last_ticket, connection));
    }

    /// The next connection whose CONNACK need not wait any longer.
    pub(super) fn next_opened(&mut self) -> Option<ConnectionKey> {
        let (ticket, _) = self.opening.first()?;
        if !self.is_stored(*ticket) {
            return None;
        }
        self.opening.pop_first().map(|(_, connection)| connection)
    }

    /// A message is sent when all so far is stored, and its publish is complete.
    pub(super) fn wait_to_send(&mut self, unsent: Unsent) {
        self.last_sent_again = self.last_ticket;
        self.unsent.push_back((self.last_ticket, unsent));
    }

    /// The next message that need not wait any longer.
    pub(super) fn next_to_send(&mut self) -> Option<Unsent> {
        loop {
            if let Some(unsent) = self.once.next_to_send() {
                return Some(unsent);
            }
            let (ticket, unsent) = *self.unsent.front()?;
            if !self.is_stored(ticket) {
                return None;
            }
            self.unsent.pop_front();
            if !self.once.holds(unsent) {
                return Some(unsent);
            }
        }
    }

    /// Whether a resumed session may send again what is unfinished.
    pub(super) const fn may_send_again(&self) -> bool {
        self.is_stored(self.last_sent_again)
    }

    /// A connection's first acknowledgement waits for this.
    pub(super) fn wait(&mut self, connection: ConnectionKey, receipt: Receipt) {
        if self.is_safe(receipt.ticket, receipt.level) {
            self.for_mail.insert((receipt.letter, connection));
        } else if receipt.level == Level::Os {
            self.for_written.insert((receipt.ticket, connection));
        } else {
            self.for_store.insert((receipt.ticket, connection));
        }
    }

    /// The next one that need not wait any longer, when letters up to `visible` are; if it has to for its
    /// next acknowledgement, it must say so again. Those that wait on are not looked at.
    pub(super) fn next_due(&mut self, visible: u64) -> Option<ConnectionKey> {
        let (stored, written) = (self.stored_through, self.written_through);
        let due = |first: Option<&(u64, _)>, until| first.is_some_and(|first| first.0 <= until);
        let next = if due(self.for_store.first(), stored) {
            self.for_store.pop_first()
        } else if due(self.for_written.first(), written) {
            self.for_written.pop_first()
        } else if due(self.for_mail.first(), visible) {
            self.for_mail.pop_first()
        } else {
            None
        };
        next.map(|(_, connection)| connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::Message;
    use crate::engine::slots::Slots;
    use std::sync::Arc;

    fn record() -> Record {
        let message = Message::new("t", b"", b"x", Qos::AtLeastOnce, true, None);
        Record::Retained {
            message: Arc::new(message),
        }
    }

    #[test]
    fn tickets_rise_by_one_over_all_that_is_taken() {
        let mut journal = Journal::default();
        let mut tickets = Vec::new();
        for _ in 0..2 {
            journal.put(record());
            journal.put(record());
            tickets.extend(journal.take().map(|persist| persist.ticket));
        }
        assert_eq!(tickets, [1, 2, 3, 4]);
        assert_eq!(journal.last_ticket(), 4);
    }

    #[test]
    fn only_who_has_what_it_waits_for_is_looked_at() {
        let mut connections = Slots::default();
        let keys: Vec<ConnectionKey> = (0..6).map(|_| connections.insert(())).collect();
        let mut journal = Journal::default();
        for (n, &key) in (0..).zip(&keys) {
            // The even ones wait for the store, the odd ones for mail.
            let (ticket, letter) = if n % 2 == 0 { (10 - n, 0) } else { (0, 10 - n) };
            journal.wait(
                key,
                Receipt {
                    ticket,
                    letter,
                    ..Receipt::default()
                },
            );
        }
        assert_eq!(journal.next_due(4), None);
        let mut due = |stored, visible| {
            journal.advance(stored);
            std::iter::from_fn(|| journal.next_due(visible)).collect::<Vec<_>>()
        };
        assert_eq!(due(7, 6), [keys[4], keys[5]]);
        assert_eq!(due(10, 6), [keys[2], keys[0]]);
        assert_eq!(due(10, 9), [keys[3], keys[1]]);
        assert!(!journal.is_awaited());
    }

    #[test]
    fn the_store_does_not_go_back() {
        let mut journal = Journal::default();
        assert!(journal.is_stored(0), "nothing has to be stored");
        assert!(!journal.is_stored(1));
        assert!(journal.advance(2) && !journal.advance(2) && !journal.advance(1));
        assert!(journal.is_stored(2) && !journal.is_stored(3));
    }
}

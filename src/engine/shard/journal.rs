//! What has to be stored, how far the store is, and who waits for it.
//!
//! Invariants: tickets rise by one; what is stored does not become less.
//!
//! Not here: the acknowledgements that wait; each connection has its own.

use crate::engine::keys::ConnectionKey;
use crate::engine::record::{Persist, Record};

/// The journal of one shard.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Not taken to the store yet.
    records: Vec<Persist>,
    last_ticket: u64,
    stored_through: u64,
    /// Connections with acknowledgements that wait for the store.
    waiting: Vec<ConnectionKey>,
}

impl Journal {
    /// Something is to be stored.
    pub(super) fn put(&mut self, record: Record) {
        self.last_ticket += 1;
        self.records.push(Persist {
            ticket: self.last_ticket,
            record,
        });
    }

    /// The ticket of the last record.
    pub(super) const fn last_ticket(&self) -> u64 {
        self.last_ticket
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
        }
        is_news
    }

    /// Whether everything up to a ticket is stored.
    pub(super) const fn is_stored(&self, ticket: u64) -> bool {
        ticket <= self.stored_through
    }

    /// Whether acknowledgements wait.
    pub(super) const fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A connection has acknowledgements that wait.
    pub(super) fn wait(&mut self, connection: ConnectionKey) {
        self.waiting.push(connection);
    }

    /// Who waits, in the order they came; those that have to wait on must say so again.
    pub(super) fn take_waiting(&mut self) -> Vec<ConnectionKey> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{Message, Qos};
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
    fn the_store_does_not_go_back() {
        let mut journal = Journal::default();
        assert!(journal.is_stored(0), "nothing has to be stored");
        assert!(!journal.is_stored(1));
        assert!(journal.advance(2) && !journal.advance(2) && !journal.advance(1));
        assert!(journal.is_stored(2) && !journal.is_stored(3));
    }
}

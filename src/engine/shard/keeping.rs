//! What the store gets to know of sessions: the places that change them call here.
//!
//! Only a session that outlives its connection has a number, and only where something is stored; without one
//! nothing of it is told.
//!
//! Not here: tickets, and who waits for them ([`super::journal`]).

use super::ShardCore;
use super::clients::Clients;
use super::journal::Journal;
use super::snapshot::{self, opened};
use crate::engine::codec::topic::Subscribed;
use crate::engine::keys::SessionNumber;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::message::Qos;
use crate::engine::record::Record;
use crate::engine::route::subscriber::Subscriber;
use crate::engine::session::{Delivery, Session};

/// A message that is to enter a session gets the number of its entry there, if it is to be kept. Whether the
/// store is to be told of it.
pub(super) fn number_entry(session: &mut Session, delivery: &mut Delivery) -> bool {
    let is_new = session.number.is_some() && delivery.entry == 0 && delivery.qos > Qos::AtMostOnce;
    if is_new {
        session.last_entry += 1;
        delivery.entry = session.last_entry;
    }
    is_new
}

/// A message is on its way to a session from now on.
#[inline]
pub(super) fn keep_entry(session: &mut Session, journal: &mut Journal, delivery: &mut Delivery) {
    if session.number.is_some() {
        put_entry(session, journal, delivery);
    }
}

fn put_entry(session: &mut Session, journal: &mut Journal, delivery: &mut Delivery) {
    if number_entry(session, delivery)
        && let Some(session) = session.number
    {
        let origin = journal.once.origin_at_hand(delivery.qos);
        journal.queue(session, delivery.clone(), origin);
    }
}

/// An entry is over.
#[inline]
pub(super) fn settle_entry(session: &Session, journal: &mut Journal, entry: u64) {
    if entry > 0
        && let Some(session) = session.number
    {
        journal.put(Record::Settled { session, entry });
    }
}

impl Clients {
    /// A message is not on its way to a session any more.
    pub(super) fn settle(&mut self, key: SessionKey, entry: u64) {
        if let Some(session) = self.sessions.get(key) {
            settle_entry(session, &mut self.journal, entry);
        }
    }

    /// Something of a session has changed.
    pub(super) fn keep(&mut self, key: SessionKey, record: impl FnOnce(SessionNumber) -> Record) {
        let session = self.sessions.get(key);
        if let Some(number) = session.and_then(|session| session.number) {
            self.journal.put(record(number));
        }
    }
}

/// Messages that are on their way to a session.
pub(super) fn entries_of(session: &Session) -> u64 {
    let held = session.replay.as_ref().map_or(0, |it| it.held.len());
    let unacknowledged = usize::from(session.outbound.unacknowledged());
    (session.outbound.queued() + unacknowledged + held) as u64
}

impl ShardCore {
    /// A session has got a connection, with what that asks for.
    pub(super) fn keep_opened(&mut self, key: SessionKey) {
        let is_kept = self.settings.stores;
        let Some(session) = self.clients.sessions.get_mut(key).filter(|_| is_kept) else {
            return;
        };
        if session.ends_with_connection() {
            return self.keep_ended(key);
        }
        let number = match session.number {
            Some(number) => number,
            None => self.clients.journal.next_session(self.id),
        };
        session.number = Some(number);
        // One that did not last has ended with its connection.
        debug_assert!(session.is_lasting || session.subscriptions.is_empty());
        session.is_lasting = true;
        self.clients.journal.put(opened(session, number));
    }

    /// The store has nothing to do with a session any more.
    pub(super) fn keep_ended(&mut self, key: SessionKey) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let entries = entries_of(session);
        if let Some(session) = session.number.take() {
            self.clients.journal.end_entries(entries);
            self.clients.journal.put(Record::Ended { session });
        }
    }

    /// Nothing leaves for a connection until the store knows of all that its CONNACK tells: an old session
    /// that has ended must not rise again.
    pub(super) fn open_when_stored(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.outbox.hold();
            self.clients.journal.wait_to_open(key);
        }
    }

    /// What was held for that leaves, where it is stored now.
    pub(super) fn open_stored(&mut self) {
        while let Some(key) = self.clients.journal.next_opened() {
            if let Some(connection) = self.clients.connections.get_mut(key) {
                connection.outbox.let_go();
                self.clients.mark_ready(key);
            }
        }
    }

    /// A session has subscribed.
    pub(super) fn keep_subscribed(&mut self, subscribed: &Subscribed<'_>, subscriber: &Subscriber) {
        self.clients.keep(subscriber.session, |session| {
            snapshot::subscribed(session, subscribed, subscriber)
        });
    }

    /// A session has given a subscription up.
    pub(super) fn keep_unsubscribed(&mut self, key: SessionKey, subscribed: &Subscribed<'_>) {
        self.clients.keep(key, |session| Record::Unsubscribed {
            session,
            filter: subscribed.filter.as_str().into(),
            share: subscribed.share.map(Into::into),
        });
    }
}

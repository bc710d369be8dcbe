//! All that the store has to know of this shard, told anew: the records that lead to what there is now.
//!
//! Invariant: played back, they tell the same as all records ever put (a simulator compares the two).
//!
//! Not here: the records of changes ([`super::keeping`]).

use super::ShardCore;
use super::journal::Journal;
use crate::engine::codec::topic::{Subscribed, TopicFilter};
use crate::engine::keys::SessionKey;
use crate::engine::keys::SessionNumber;
use crate::engine::record::{Opened, Record, Subscription};
use crate::engine::route::subscriber::Subscriber;
use crate::engine::session::inflight::Inflight;
use crate::engine::session::{Session, SubscriptionRef};
use std::rc::Rc;
use std::sync::Arc;

/// What the store knows of a session that has this number.
pub(super) fn opened(session: &Session, number: SessionNumber) -> Record {
    let holder = session.holder.as_ref();
    Record::Opened(Box::new(Opened {
        session: number,
        client_id: Rc::clone(&session.client_id),
        version: session.version,
        user_name: holder.and_then(|holder| holder.user_name.clone()),
        own_rules: holder.and_then(|holder| Some((holder.method, holder.own_acl.clone()?))),
        expiry_seconds: session.expiry_seconds,
        queue_bytes_max: session.queue_bytes_max,
        will: session.will.clone(),
    }))
}

/// The same of a subscription.
pub(super) fn subscribed(
    number: SessionNumber,
    subscribed: &Subscribed<'_>,
    subscriber: &Subscriber,
) -> Record {
    Record::Subscribed(Box::new(Subscription {
        session: number,
        filter: subscribed.filter.as_str().into(),
        share: subscribed.share.map(Into::into),
        subscription_id: subscriber.subscription_id,
        qos: subscriber.qos,
        no_local: subscriber.no_local,
        retain_as_published: subscriber.retain_as_published,
    }))
}

impl ShardCore {
    /// Everything there is, in records.
    pub fn snapshot(&self, mut put: impl FnMut(Record)) {
        self.put_complete(&mut put);
        for key in self.clients.sessions.keys() {
            self.snapshot_session(key, &mut put);
        }
        self.put_passed_on(&mut put);
        for message in self.retained.iter() {
            put(Record::Retained {
                message: Arc::clone(message),
            });
        }
    }

    /// What was taken from sessions for other members of share groups: until another has it, it is still on
    /// its way to the first.
    pub(super) fn put_passed_on(&self, put: &mut impl FnMut(Record)) {
        let passed_on = self.clients.passed_on.iter();
        for passed in passed_on.chain(self.receipts.passed_on()) {
            let session = self.clients.sessions.get(passed.from);
            let session = session.and_then(|session| session.number);
            if let Some(session) = session.filter(|_| passed.entry > 0) {
                let mut delivery = passed.delivery.clone();
                delivery.entry = passed.entry;
                put(self.clients.journal.queued(session, &delivery));
            }
        }
    }

    /// A session, without its subscriptions and messages.
    pub(super) fn put_session(
        &self,
        key: SessionKey,
        number: SessionNumber,
        mut put: impl FnMut(Record),
    ) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        put(opened(session, number));
        let is_told =
            |id: &u16| !self.fan_outs.has(key, *id) && !self.receipts.is_accepting(key, *id);
        for packet_id in session.inbound.received().filter(is_told) {
            put(Record::Accepted {
                session: number,
                packet_id,
                // That it is complete is told by itself.
                number: 0,
            });
        }
        if session.connection.is_none() {
            put(Record::Left {
                session: number,
                at: session.left_at,
            });
        }
    }

    fn snapshot_session(&self, key: SessionKey, put: &mut impl FnMut(Record)) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let Some(number) = session.number else {
            return;
        };
        self.put_session(key, number, &mut *put);
        for reference in &session.subscriptions {
            put_subscription(self, key, number, reference, put);
        }
        for entry in session.outbound.unfinished() {
            put_unfinished(&self.clients.journal, number, entry, put);
        }
        let held = session.replay.iter().flat_map(|replay| replay.held.iter());
        for delivery in session.outbound.waiting().chain(held) {
            if delivery.entry > 0 {
                put(self.clients.journal.queued(number, delivery));
            }
        }
    }
}

pub(super) fn put_subscription(
    shard: &ShardCore,
    key: SessionKey,
    number: SessionNumber,
    reference: &SubscriptionRef,
    put: &mut impl FnMut(Record),
) {
    let entry = shard.trie.entry(reference.node);
    let Some(subscriber) = entry.and_then(|entry| entry.find(key, reference.share.as_ref())) else {
        return;
    };
    let filter = shard.trie.filter_text(reference.node);
    let wanted = Subscribed {
        filter: TopicFilter::trusted(&filter),
        share: reference.share.as_deref(),
    };
    put(subscribed(number, &wanted, subscriber));
}

pub(super) fn put_unfinished(
    journal: &Journal,
    session: SessionNumber,
    unfinished: &Inflight,
    put: &mut impl FnMut(Record),
) {
    let (entry, packet_id) = (unfinished.entry, unfinished.packet_id);
    if entry == 0 {
        return;
    }
    match &unfinished.delivery {
        Some(delivery) => {
            put(journal.queued(session, delivery));
            put(Record::Sent {
                session,
                entry,
                packet_id,
            });
        }
        None => put(Record::Received {
            session,
            entry,
            packet_id,
        }),
    }
}

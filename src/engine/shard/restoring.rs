//! A shard built anew from what was kept of it: the records of a snapshot, played into a fresh core.
//!
//! What was connected counts as left now, with its will due after its delay (3.1.2.5, 3.1.2.11.2); what has
//! expired meanwhile ends in the first turn or, in a queue, at once. Only such changes are told to the store,
//! nothing that it knows.
//!
//! The others have to learn of this shard's interest before its first turn: the mail that is staged then.
//!
//! Not here: what the records were read from, and how a history becomes a snapshot.

use super::ShardCore;
use super::access::rights;
use crate::engine::access::acl::Grant;
use crate::engine::codec::topic::{Subscribed, TopicFilter};
use crate::engine::keys::{GroupKey, Origin, SessionKey, SessionNumber};
use crate::engine::message::Message;
use crate::engine::record::{Opened, Record, Subscription};
use crate::engine::route::home_shard;
use crate::engine::route::subscriber::Subscriber;
use crate::engine::route::trie::NodeId;
use crate::engine::session::holder::Holder;
use crate::engine::session::{Delivery, Session, SubscriptionRef};
use crate::engine::time::Timestamp;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// Why records are not what this shard can be built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// A session is named before it is told of.
    NoSession,
    /// A message is named that was not told just before.
    NoEntry,
    /// A client identifier, a session's number, a subscription, a message or a packet identifier in use is
    /// told of twice.
    Twice,
    /// A session or a topic belongs to another shard.
    NotHome,
    /// Something that tells of a change, not of what there is.
    Change,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RestoreError::NoSession => "something is kept of a session that is not there",
            RestoreError::NoEntry => "something is kept of a message that is not there",
            RestoreError::Twice => "something is kept twice",
            RestoreError::NotHome => {
                "a session or retained message is kept for another shard; the number of shards has changed"
            }
            RestoreError::Change => "a change is kept without what it changed",
        })
    }
}

impl std::error::Error for RestoreError {}

/// What is known only until the last record is in.
#[derive(Default)]
struct Restoring {
    sessions: HashMap<SessionNumber, SessionKey, foldhash::fast::FixedState>,
    /// Share groups with members.
    groups: BTreeSet<(NodeId, Arc<str>)>,
}

impl Restoring {
    fn key(&self, number: SessionNumber) -> Result<SessionKey, RestoreError> {
        let key = self.sessions.get(&number);
        key.copied().ok_or(RestoreError::NoSession)
    }
}

impl ShardCore {
    /// Builds what was kept, told as [`ShardCore::snapshot`] does, in a core that nothing has happened to yet
    /// and that has its access rules and its share of the retained messages' limits. What is told with an
    /// origin is not complete: it is over.
    ///
    /// # Errors
    /// The records cannot be a snapshot of this shard. The core is of no use then.
    pub fn restore(
        &mut self,
        now: Timestamp,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<(), RestoreError> {
        let mut restoring = Restoring::default();
        for record in records {
            self.restore_record(&mut restoring, record, now)?;
        }
        for (node, name) in &restoring.groups {
            self.count_members(*node, name);
        }
        self.announce_all_lasting();
        let keys: Vec<SessionKey> = self.clients.sessions.keys().collect();
        for key in keys {
            self.let_time_pass(key, now);
        }
        Ok(())
    }

    fn restore_record(
        &mut self,
        restoring: &mut Restoring,
        record: Record,
        now: Timestamp,
    ) -> Result<(), RestoreError> {
        match record {
            Record::Opened(opened) => self.restore_session(restoring, *opened),
            Record::Subscribed(subscription) => self.restore_subscription(restoring, &subscription),
            Record::Left { session, at } => {
                self.restored(restoring, session)?.left_at = at;
                Ok(())
            }
            Record::Queued {
                session,
                delivery,
                origin,
            } => self.restore_queued(restoring, session, delivery, origin),
            Record::Sent {
                session,
                entry,
                packet_id,
            } => {
                let outbound = &mut self.restored(restoring, session)?.outbound;
                let delivery = outbound.take_last_queued(entry);
                let delivery = delivery.ok_or(RestoreError::NoEntry)?;
                let is_new = outbound.restore_sent(packet_id, entry, Some(delivery));
                is_new.then_some(()).ok_or(RestoreError::Twice)
            }
            Record::Received {
                session,
                entry,
                packet_id,
            } => {
                self.clients.journal.restore_entry();
                let session = self.restored(restoring, session)?;
                session.last_entry = session.last_entry.max(entry);
                let is_new = session.outbound.restore_sent(packet_id, entry, None);
                is_new.then_some(()).ok_or(RestoreError::Twice)
            }
            Record::Accepted {
                session, packet_id, ..
            } => {
                let inbound = &mut self.restored(restoring, session)?.inbound;
                inbound.accept(packet_id);
                Ok(())
            }
            Record::Complete { through, .. } => {
                self.count_publishes_after(through);
                Ok(())
            }
            Record::Retained { message } => self.restore_retained(message, now),
            Record::Expires { .. }
            | Record::Ended { .. }
            | Record::Unsubscribed { .. }
            | Record::Unsent { .. }
            | Record::Settled { .. }
            | Record::Released { .. }
            | Record::WillGone { .. }
            | Record::RetainedGone { .. }
            | Record::Checkpoint(_) => Err(RestoreError::Change),
        }
    }

    fn restore_queued(
        &mut self,
        restoring: &Restoring,
        number: SessionNumber,
        delivery: Delivery,
        origin: Option<Origin>,
    ) -> Result<(), RestoreError> {
        self.clients.journal.restore_entry();
        let session = self.restored(restoring, number)?;
        let entry = delivery.entry;
        session.last_entry = session.last_entry.max(entry);
        if origin.is_none() {
            session.outbound.restore_queued(delivery);
        } else {
            // Its publish was never complete: its client sends it again.
            let session = number;
            let settled = Record::Settled { session, entry };
            self.clients.journal.put(settled);
        }
        Ok(())
    }

    fn restored(
        &mut self,
        restoring: &Restoring,
        number: SessionNumber,
    ) -> Result<&mut Session, RestoreError> {
        let session = self.clients.sessions.get_mut(restoring.key(number)?);
        session.ok_or(RestoreError::NoSession)
    }

    fn restore_session(
        &mut self,
        restoring: &mut Restoring,
        opened: Opened,
    ) -> Result<(), RestoreError> {
        let number = opened.session;
        if home_shard(&opened.client_id, self.shards) != self.id {
            return Err(RestoreError::NotHome);
        }
        let is_known = self.clients.sessions.find(&opened.client_id).is_some();
        if is_known || restoring.sessions.contains_key(&number) {
            return Err(RestoreError::Twice);
        }
        let mut session = Session::new(Rc::clone(&opened.client_id), opened.version);
        session.number = Some(number);
        session.is_lasting = true;
        session.expiry_seconds = opened.expiry_seconds;
        session.queue_bytes_max = opened.queue_bytes_max;
        session.will = opened.will;
        session.part = self.settings.parts.get(&*opened.client_id).copied();
        self.clients.rules.has_parts |= session.part.is_some();
        if opened.user_name.is_some() || opened.own_rules.is_some() {
            let (method, own_acl) = opened.own_rules.unzip();
            let mut holder = Holder {
                user_name: opened.user_name,
                own_acl,
                method: method.unwrap_or_default(),
                ..Holder::default()
            };
            let of_file = self.clients.rules.acl.as_ref();
            holder.rights = rights(of_file, &holder, &opened.client_id);
            session.holder = Some(Box::new(holder));
        }
        let key = self.clients.sessions.insert(session);
        self.renew_rights(key);
        self.clients.journal.go_on_after(number);
        restoring.sessions.insert(number, key);
        Ok(())
    }

    fn restore_subscription(
        &mut self,
        restoring: &mut Restoring,
        subscription: &Subscription,
    ) -> Result<(), RestoreError> {
        let key = restoring.key(subscription.session)?;
        let filter = TopicFilter::trusted(&subscription.filter);
        let subscribed = Subscribed {
            filter,
            share: subscription.share.as_deref(),
        };
        let checked = self.grant(key, &subscribed) != Grant::Unchecked;
        let node = self.trie.insert(filter);
        let share = subscription.share.clone();
        let reference = SubscriptionRef { node, share };
        if self.place_of(key, &reference).is_some() {
            return Err(RestoreError::Twice);
        }
        let session = self.clients.sessions.get_mut(key);
        let session = session.ok_or(RestoreError::NoSession)?;
        let subscriber = Subscriber {
            session: key,
            subscription_id: subscription.subscription_id,
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            checked,
            replaying: false,
            place: session.subscriptions.len() as u32,
        };
        // Other shards may have newer messages for it than what they retain.
        session.has_subscribed = true;
        session.subscriptions.push(reference);
        session.outbound.tally(|tally| tally.subscribed(1));
        self.lasting.add(node);
        match &subscription.share {
            Some(name) => self.restore_member(restoring, node, name, subscriber),
            None => {
                let text = &subscription.filter;
                self.add_subscriber(node, text, subscriber, false, &mut Vec::new());
            }
        }
        Ok(())
    }

    /// A member of a group comes back. The group is announced once, with all of them.
    fn restore_member(
        &mut self,
        restoring: &mut Restoring,
        node: NodeId,
        name: &Arc<str>,
        subscriber: Subscriber,
    ) {
        let key = GroupKey {
            filter: self.trie.shared_filter(node),
            name: Arc::clone(name),
        };
        let shards = self.shards;
        if let Some(entry) = self.trie.entry_mut(node)
            && let Some(group) = entry.groups.find_or_add(&key, shards)
        {
            group.members.join(subscriber, false);
        }
        restoring.groups.insert((node, Arc::clone(name)));
    }

    fn restore_retained(
        &mut self,
        message: Arc<Message>,
        now: Timestamp,
    ) -> Result<(), RestoreError> {
        if home_shard(message.topic(), self.shards) != self.id {
            return Err(RestoreError::NotHome);
        }
        if message.expires_at.is_some_and(|at| at <= now) {
            self.clients.counters.dropped_expired += 1;
            return Ok(());
        }
        let limits = &self.settings.limits;
        let (messages_max, bytes_max) = (limits.retained_messages_max, limits.retained_bytes_max);
        if let Err(message) = self.retained.set(message, messages_max, bytes_max) {
            self.clients.counters.dropped_retained_full += 1;
            let topic = message.topic().into();
            self.clients.journal.put(Record::RetainedGone { topic });
        }
        Ok(())
    }

    /// The time in which nobody looked: who was connected is alone from now on, and what waits too long is
    /// dropped. A clock that was put back counts as if it had stood still.
    fn let_time_pass(&mut self, key: SessionKey, now: Timestamp) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let expired = session.outbound.take_expired(now);
        // Since when it has waited is not kept.
        session.outbound.begin_ages(now);
        let is_news = session.left_at > now;
        session.left_at = session.left_at.min(now);
        self.clients.counters.dropped_expired += expired.len() as u64;
        for entry in expired {
            self.clients.settle(key, entry);
        }
        self.begin_to_wait(key);
        if is_news {
            let at = now;
            self.clients
                .keep(key, |session| Record::Left { session, at });
        }
    }
}

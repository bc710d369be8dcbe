//! Live messages that wait behind retained ones, so that a stale value never comes last.

use super::ShardCore;
use super::clients::Clients;
use super::matches::Match;
use crate::engine::codec::topic::TopicName;
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::SessionKey;
use crate::engine::message::{LocalMessage, Qos};
use crate::engine::route::trie::Trie;
use crate::engine::session::Delivery;
use crate::engine::session::losses::LossReason;
use crate::engine::time::Timestamp;
use std::collections::BTreeMap;

impl Clients {
    /// Whether live messages of a topic wait in a session: a share group's must not overtake them.
    pub(super) fn holds(&self, key: SessionKey, topic: &str) -> bool {
        let session = self.sessions.get(key);
        let replay = session.and_then(|session| session.replay.as_ref());
        replay.is_some_and(|replay| replay.held.has_topic(topic))
    }

    /// Puts a live message behind the retained ones that are still on their way; false if there are none.
    pub(super) fn hold(
        &mut self,
        publication: &mut Publication<'_>,
        matched: &Match,
        qos: Qos,
        retain: bool,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(matched.session) else {
            return false;
        };
        let Some(replay) = &mut session.replay else {
            return false;
        };
        if publication.retain
            && matched.group.is_none()
            && let Some(confirmed) = self.routed_by
        {
            let topic = TopicName::trusted(publication.topic);
            if replay.is_unknown(topic, matched.joined as usize, confirmed) {
                // The retained messages that are due are as new.
                return true;
            }
        }
        let message = publication.keep().clone();
        // As the session's queue, which may be bounded by its listener.
        let messages_max = self.settings.limits.queue_messages_max;
        if replay.held.len() >= messages_max
            || replay.held.bytes() + message.size_bytes() > session.queue_bytes_max
        {
            self.lose(matched.session, LossReason::ReplayFull, 1);
            return true;
        }
        let subscription_ids = matched.subscription_ids.clone();
        let group = matched.group.clone();
        replay.held.push(Delivery {
            message,
            qos,
            retain,
            subscription_ids,
            group,
        });
        true
    }
}

impl ShardCore {
    /// After an UNSUBSCRIBE: live messages that no subscription of the session asks for any more are
    /// dropped, and those that no retained message is due before any more go now, lest later ones of
    /// their topic overtake them.
    pub(super) fn review_held(&mut self, key: SessionKey, now: Timestamp) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let Some(replay) = &mut session.replay else {
            return;
        };
        let held = std::mem::take(&mut replay.held);
        self.backlog.spend(held.len());
        let mut released = Vec::new();
        let mut known = BTreeMap::new();
        for delivery in held.into_list() {
            let topic = delivery.message.topic();
            let (is_asked_for, is_replaying) = match known.get(topic) {
                Some(known) => *known,
                None => {
                    let found = subscribed(&self.trie, &delivery.message, key);
                    known.insert(topic.to_owned(), found);
                    found
                }
            };
            if is_replaying {
                replay.held.push(delivery);
            } else if is_asked_for || delivery.group.is_some() {
                released.push(delivery);
            }
        }
        for delivery in released {
            self.clients.deliver_kept(key, delivery, now);
        }
        self.disconnect_overflowed(now);
    }
}

/// Whether a session's own subscriptions match a message's topic, and whether retained messages are due to
/// one that does.
fn subscribed(trie: &Trie, message: &LocalMessage, key: SessionKey) -> (bool, bool) {
    let mut nodes = Vec::new();
    trie.matches(TopicName::trusted(message.topic()), &mut nodes);
    let entries = nodes.iter().filter_map(|&node| trie.entry(node));
    let own = entries.filter_map(|entry| entry.local.find(key));
    own.fold((false, false), |(_, is_replaying), local| {
        (true, is_replaying || local.replaying)
    })
}

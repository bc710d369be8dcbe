//! SUBSCRIBE and UNSUBSCRIBE (3.8, 3.10, 4.8).

use super::ShardCore;
use super::filters::Asker;
use super::refusals::{Refused, beyond, switched_off};
use crate::engine::access::acl::Grant;
use crate::engine::codec::subscribe::{
    Request, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe, answer_bytes,
};
use crate::engine::codec::topic::{Subscribed, TopicError};
use crate::engine::codec::{Reason, Version};
use crate::engine::keys::{ConnectionKey, GroupKey, SessionKey};
use crate::engine::mail::InterestChange;
use crate::engine::message::Qos;
use crate::engine::route::shared::Groups;
use crate::engine::route::subscriber::Subscriber;
use crate::engine::route::trie::NodeId;
use crate::engine::session::SubscriptionRef;
use crate::engine::session::granted::Granted;
use crate::engine::session::replay::ReplayTask;
use crate::engine::telemetry::notes::quoted;
use crate::engine::time::Timestamp;
use std::borrow::Cow;
use std::sync::Arc;

/// How it is called in a note of a denial.
const SUBSCRIBE: &str = "subscribe";

/// Why a SUBSCRIBE ends the connection instead of being answered.
struct Fatal(Reason, Cow<'static, str>);

/// Features that are switched off: 5.0 was told so in CONNACK, using them is an error (3.2.2.3.11).
fn unavailable(
    filter: &str,
    subscribed: &Subscribed<'_>,
    version: Version,
    granted: Granted,
) -> Result<Option<Refused>, Fatal> {
    let (reason, what, key) = if subscribed.share.is_some() && !granted.shares {
        let reason = Reason::SharedSubscriptionsNotSupported;
        (reason, "shared", "mqtt.shared_subscriptions")
    } else if subscribed.filter.has_wildcard() && !granted.wildcards {
        let reason = Reason::WildcardSubscriptionsNotSupported;
        (reason, "wildcard", "mqtt.wildcard_subscriptions")
    } else {
        return Ok(None);
    };
    if !version.is_v5() {
        let what = format!("{what} subscriptions are switched off");
        return Ok(Some((reason, switched_off(&what, key))));
    }
    let filter = quoted(filter);
    let what = format!("{what} subscriptions, such as to {filter}, are switched off");
    Err(Fatal(reason, switched_off(&what, key)))
}

impl ShardCore {
    pub(super) fn subscribe(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        version: Version,
        subscribe: &Subscribe<'_>,
    ) {
        let Some(session) = self.clients.connections.get(key).and_then(|c| c.session) else {
            return;
        };
        if !self.charge_subscribe(now, key, subscribe.requests.len()) {
            return;
        }
        self.backlog.spend(subscribe.requests.len());
        if subscribe.requests.len() > self.settings.limits.filters_per_subscribe_max {
            let text = self.too_many_filters(subscribe.requests.len());
            return self.violation(key, Reason::QuotaExceeded, &text, now);
        }
        let granted = self.granted_to(key);
        if subscribe.subscription_id > 0 && !granted.identifiers {
            let reason = Reason::SubscriptionIdentifiersNotSupported;
            let what = "subscription identifiers are switched off";
            let text = switched_off(what, "mqtt.subscription_identifiers");
            return self.violation(key, reason, &text, now);
        }
        if !self.may_answer(key, subscribe.requests.len(), now) {
            return;
        }
        // All are checked before one is done: a packet that ends the connection changes nothing.
        for request in &subscribe.requests {
            if let Err(Fatal(reason, text)) = self.check_request(request, version, granted) {
                return self.violation(key, reason, &text, now);
            }
        }
        let asker = Asker {
            connection: key,
            session,
            version,
        };
        self.begin_subscribing(now, asker, subscribe);
    }

    /// What a client was told that it may do.
    fn granted_to(&self, key: ConnectionKey) -> Granted {
        let connection = self.clients.connections.get(key);
        connection.map(|it| it.granted).unwrap_or_default()
    }

    fn too_many_filters(&self, filters: usize) -> Cow<'static, str> {
        let what = format!("{filters} filters in one packet");
        let max = self.settings.limits.filters_per_subscribe_max;
        beyond(&what, "limits.filters_per_subscribe_max", max)
    }

    /// Whether the answer for so many filters is within what the client takes `[MQTT-3.1.2-24]`. Ends the
    /// connection if it is not.
    fn may_answer(&mut self, key: ConnectionKey, filters: usize, now: Timestamp) -> bool {
        let connection = self.clients.connections.get(key);
        let fits = connection.is_none_or(|connection| {
            !connection.version.is_v5()
                || answer_bytes(filters) <= connection.packet_bytes_max as usize
        });
        if !fits {
            let text = "the answer is larger than the Maximum Packet Size of its CONNECT";
            self.violation(key, Reason::PacketTooLarge, text, now);
        }
        fits
    }

    /// Subscribes to one filter of a packet that was checked.
    pub(super) fn subscribe_to(
        &mut self,
        now: Timestamp,
        asker: Asker,
        subscription_id: u32,
        request: &Request<'_>,
        tasks: &mut Vec<(NodeId, u64)>,
    ) -> Reason {
        let session = asker.session;
        let granted = self.granted_to(asker.connection);
        let subscribed = match self.check_request(request, asker.version, granted) {
            Ok(Ok(subscribed)) => subscribed,
            Ok(Err((reason, why))) => {
                self.note_denied(now, session, (SUBSCRIBE, request.filter), why);
                return reason;
            }
            Err(Fatal(reason, _)) => return reason,
        };
        let grant = self.grant(session, &subscribed);
        if grant == Grant::Refused {
            self.clients.counters.subscribes_not_authorized += 1;
            let why = self.rules_of(session).into();
            self.note_denied(now, session, (SUBSCRIBE, request.filter), why);
            return Reason::NotAuthorized;
        }
        let mut options = request.options;
        let connection = self.clients.connections.get(asker.connection);
        if connection.is_some_and(|connection| connection.is_bridge) {
            options.no_local = subscribed.share.is_none();
            options.retain_as_published = true;
        }
        let options = (options, grant == Grant::Checked);
        let reason = self.subscribe_one(session, &subscribed, options, subscription_id, tasks);
        if reason == Reason::QuotaExceeded {
            let max = self.settings.limits.subscriptions_per_session_max;
            let key = "limits.subscriptions_per_session_max";
            let why = beyond("it has as many subscriptions as may be", key, max);
            self.note_denied(now, session, (SUBSCRIBE, request.filter), why);
        }
        reason
    }

    /// No shard has to learn of the subscriptions, but live messages that the session has had may be
    /// newer than what their topics' shards retain so far: asks all for a confirmation.
    pub(super) fn wait_for_retained(&mut self, session: SessionKey) {
        let session = self.clients.sessions.get(session);
        if self.shards > 1 && session.is_some_and(|session| session.has_subscribed) {
            self.announce(&InterestChange::Nothing);
        }
    }

    /// What a request is for, or what refuses it.
    fn check_request<'a>(
        &self,
        request: &Request<'a>,
        version: Version,
        granted: Granted,
    ) -> Result<Result<Subscribed<'a>, Refused>, Fatal> {
        let subscribed = match self.parse_filter(request.filter, version)? {
            Ok(subscribed) => subscribed,
            Err(refused) => return Ok(Err(refused)),
        };
        Ok(
            match unavailable(request.filter, &subscribed, version, granted)? {
                Some(refused) => Err(refused),
                None => Ok(subscribed),
            },
        )
    }

    fn subscribe_one(
        &mut self,
        session_key: SessionKey,
        subscribed: &Subscribed<'_>,
        (options, checked): (SubscriptionOptions, bool),
        subscription_id: u32,
        tasks: &mut Vec<(NodeId, u64)>,
    ) -> Reason {
        self.fan_outs.note_change(session_key);
        let qos = options.qos.min(self.settings.qos_max);
        let node = self.trie.insert(subscribed.filter);
        let mut subscriber = Subscriber {
            session: session_key,
            subscription_id,
            qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            checked,
            replaying: false,
            place: 0,
        };
        let share: Option<Arc<str>> = subscribed.share.map(Into::into);
        let reference = SubscriptionRef { node, share };
        let known = self.place_of(session_key, &reference);
        let Some(session) = self.clients.sessions.get_mut(session_key) else {
            self.trie.prune(node);
            return Reason::UnspecifiedError;
        };
        let is_new = known.is_none();
        let lasts = is_new && session.is_lasting;
        subscriber.place = known.unwrap_or(session.subscriptions.len() as u32);
        if is_new {
            let max = self.settings.limits.subscriptions_per_session_max;
            if session.subscriptions.len() >= max {
                self.trie.prune(node);
                return Reason::QuotaExceeded;
            }
            session.subscriptions.push(reference.clone());
            session.count_subscription(subscribed.filter.as_str());
            self.clients.shortage.note_growth(session);
        }
        self.keep_subscribed(subscribed, &subscriber);
        match &reference.share {
            Some(name) => self.join_group(node, name, subscriber),
            None => {
                let wants_retained = match options.retain_handling {
                    RetainHandling::Always => true,
                    RetainHandling::IfNew => is_new,
                    RetainHandling::Never => false,
                };
                let filter = subscribed.filter.as_str();
                self.add_subscriber(node, filter, subscriber, wants_retained, tasks);
            }
        }
        if lasts {
            self.add_lasting(node);
        }
        match qos {
            Qos::AtMostOnce => Reason::Success,
            Qos::AtLeastOnce => Reason::GrantedQos1,
            Qos::ExactlyOnce => Reason::GrantedQos2,
        }
    }

    /// Checks a filter. A broken one is refused in its place of the SUBACK; 3.x clients are closed
    /// for breaking the standard, since their version has no better answer `[MQTT-4.7.1-1]`.
    fn parse_filter<'a>(
        &self,
        text: &'a str,
        version: Version,
    ) -> Result<Result<Subscribed<'a>, Refused>, Fatal> {
        match Subscribed::new(text, self.settings.limits.topics()) {
            Ok(subscribed) => Ok(Ok(subscribed)),
            Err(error @ (TopicError::Empty | TopicError::Wildcard)) if !version.is_v5() => {
                let filter = quoted(text);
                let text = format!(
                    "the topic filter {filter}: {}",
                    self.settings.topic_text(error)
                );
                Err(Fatal(error.filter_reason(), text.into()))
            }
            Err(error) => Ok(Err((
                error.filter_reason(),
                self.settings.topic_text(error),
            ))),
        }
    }

    pub(super) fn add_subscriber(
        &mut self,
        node: NodeId,
        filter: &str,
        mut subscriber: Subscriber,
        wants_retained: bool,
        tasks: &mut Vec<(NodeId, u64)>,
    ) {
        let filter: Arc<str> = filter.into();
        let Some(entry) = self.trie.entry_mut(node) else {
            return;
        };
        let is_first = entry.local.is_empty();
        let known = entry.local.find(subscriber.session);
        // From now on live messages wait behind the retained ones, which are asked for later.
        let was_replaying = known.is_some_and(|known| known.replaying);
        subscriber.replaying = was_replaying || wants_retained;
        entry.local.put(subscriber);
        if is_first && self.shards > 1 {
            self.announce(&InterestChange::Add(Arc::clone(&filter)));
        }
        if wants_retained && let Some(session) = self.clients.sessions.get_mut(subscriber.session) {
            let task = ReplayTask {
                filter,
                node,
                qos: subscriber.qos,
                subscription_id: subscriber.subscription_id,
                no_local: subscriber.no_local,
                sequence: self.interest.sequence(),
                number: self.questions.next_number(),
                times: 1,
            };
            let replay = session.replay.get_or_insert_with(Box::default);
            if !was_replaying {
                replay.note_new(node);
            }
            tasks.push((node, replay.ask(task)));
        }
    }

    fn join_group(&mut self, node: NodeId, name: &Arc<str>, subscriber: Subscriber) {
        let is_online = self.is_online(subscriber.session);
        let shards = self.shards;
        let key = GroupKey {
            filter: self.trie.shared_filter(node),
            name: Arc::clone(name),
        };
        self.change_group(node, name, |groups| {
            if let Some(group) = groups.find_or_add(&key, shards) {
                group.members.join(subscriber, is_online);
            }
        });
    }

    fn is_online(&self, session: SessionKey) -> bool {
        let session = self.clients.sessions.get(session);
        session.is_some_and(|session| session.connection.is_some())
    }

    /// Changes this shard's members of a group, and brings their count up to date here and in the replicas.
    fn change_group(&mut self, node: NodeId, name: &Arc<str>, change: impl FnOnce(&mut Groups)) {
        if let Some(entry) = self.trie.entry_mut(node) {
            change(&mut entry.groups);
            self.count_members(node, name);
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        version: Version,
        unsubscribe: &Unsubscribe<'_>,
    ) {
        let Some(session) = self.clients.connections.get(key).and_then(|c| c.session) else {
            return;
        };
        if !self.charge_subscribe(now, key, unsubscribe.filters.len()) {
            return;
        }
        if unsubscribe.filters.len() > self.settings.limits.filters_per_subscribe_max {
            let text = self.too_many_filters(unsubscribe.filters.len());
            return self.violation(key, Reason::QuotaExceeded, &text, now);
        }
        if !self.may_answer(key, unsubscribe.filters.len(), now) {
            return;
        }
        for filter in &unsubscribe.filters {
            if let Err(Fatal(reason, text)) = self.parse_filter(filter, version) {
                return self.violation(key, reason, &text, now);
            }
        }
        self.backlog.spend(unsubscribe.filters.len());
        let asker = Asker {
            connection: key,
            session,
            version,
        };
        self.begin_unsubscribing(now, asker, unsubscribe);
    }

    /// Gives up one filter of a packet that was checked.
    pub(super) fn unsubscribe_from(&mut self, asker: Asker, filter: &str) -> Reason {
        match self.parse_filter(filter, asker.version) {
            Ok(Ok(subscribed)) => self.unsubscribe_one(asker.session, &subscribed),
            // Too long or too deep to be subscribed to; UNSUBACK has no code for that (3.11.3).
            Ok(Err((Reason::QuotaExceeded, _))) => Reason::NoSubscriptionExisted,
            Ok(Err((reason, _))) | Err(Fatal(reason, _)) => reason,
        }
    }

    fn unsubscribe_one(&mut self, session_key: SessionKey, subscribed: &Subscribed<'_>) -> Reason {
        self.fan_outs.note_change(session_key);
        let none = Reason::NoSubscriptionExisted;
        let Some(node) = self.trie.find(subscribed.filter) else {
            return none;
        };
        let share: Option<Arc<str>> = subscribed.share.map(Into::into);
        let reference = SubscriptionRef { node, share };
        let Some(place) = self.place_of(session_key, &reference) else {
            return none;
        };
        let Some(session) = self.clients.sessions.get_mut(session_key) else {
            return none;
        };
        debug_assert_eq!(session.subscriptions.get(place as usize), Some(&reference));
        if (place as usize) < session.subscriptions.len() {
            session.subscriptions.swap_remove(place as usize);
            session.discount_subscription(subscribed.filter.as_str());
        }
        if let Some(moved) = session.subscriptions.get(place as usize) {
            let entry = self.trie.entry_mut(moved.node);
            let share = moved.share.as_ref();
            if let Some(moved) = entry.and_then(|entry| entry.find_mut(session_key, share)) {
                moved.place = place;
            }
        }
        if let Some(replay) = &mut session.replay
            && reference.share.is_none()
        {
            replay.cancel(node);
        }
        let is_lasting = session.is_lasting;
        self.remove_subscription(session_key, is_lasting, &reference);
        self.keep_unsubscribed(session_key, subscribed);
        Reason::Success
    }

    /// Where a session has a subscription among its own, if it has it.
    pub(super) fn place_of(&self, session: SessionKey, reference: &SubscriptionRef) -> Option<u32> {
        let entry = self.trie.entry(reference.node)?;
        let found = entry.find(session, reference.share.as_ref())?;
        Some(found.place)
    }

    /// Takes a session's subscription out of the trie, and this shard's interest with its last one.
    pub(super) fn remove_subscription(
        &mut self,
        session: SessionKey,
        is_lasting: bool,
        reference: &SubscriptionRef,
    ) {
        let node = reference.node;
        if is_lasting {
            self.remove_lasting(node);
        }
        let Some(entry) = self.trie.entry_mut(node) else {
            return;
        };
        if let Some(name) = &reference.share {
            self.change_group(node, name, |groups| {
                if let Some(group) = groups.find_mut(name) {
                    group.members.leave(session);
                }
            });
        } else {
            let had_any = !entry.local.is_empty();
            entry.local.remove(session);
            if had_any && entry.local.is_empty() && self.shards > 1 {
                let filter = self.trie.filter_text(node).into();
                self.announce(&InterestChange::Remove(filter));
            }
        }
        self.trie.prune(node);
    }
}

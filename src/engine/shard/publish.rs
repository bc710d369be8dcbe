//! PUBLISH: checks, routing and delivery (3.3, 4.5, 4.6).
//!
//! One match in the local trie finds local subscribers, interested shards and share groups. Each
//! shard gets one letter per publish, whatever matches there.

use super::ShardCore;
use super::fan_out::{Source, Taken};
use super::matches::Match;
use super::picks::Picks;
use super::refusals::{RESERVED, Refused, beyond, switched_off};
use crate::engine::codec::ack::Ack;
use crate::engine::codec::publish::Publish;
use crate::engine::codec::topic::{TopicName, is_reserved};
use crate::engine::codec::{PacketType, Reason};
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::{ConnectionKey, SessionKey, ShardId};
use crate::engine::mail::{self, Asked, Mail, Passed, Phase};
use crate::engine::message::{LocalMessage, Message, Qos};
use crate::engine::receipt::Receipt;
use crate::engine::record::Record;
use crate::engine::route::retained::{Budget, Retained};
use crate::engine::route::shared::SharedStrategy;
use crate::engine::route::{ShardSet, home_shard, stable_hash};
use crate::engine::telemetry::notes::quoted;
use crate::engine::time::Timestamp;
use std::borrow::Cow;
use std::sync::Arc;

/// Why a payload is not taken.
const NOT_UTF8: &str = "a payload is not UTF-8 that says it is (mqtt.validate_payload_format)";
/// Who has more unfinished QoS 2 publishes makes the broker hold something.
const UNFINISHED_USUAL: usize = 64;
/// What keeping a retained message costs, in deliveries.
const RETAIN_WORK: usize = 4;

/// What routing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Routed {
    /// Whether anyone wanted it.
    pub matched: bool,
    /// What an acknowledgement has to wait for.
    pub receipt: Receipt,
}

fn too_many_unfinished(max: u16) -> Cow<'static, str> {
    let what = "more unfinished publishes than announced [MQTT-3.3.4-7]";
    beyond(what, "limits.receive_maximum", max)
}

impl ShardCore {
    /// A client's PUBLISH.
    pub(super) fn publish(&mut self, now: Timestamp, key: ConnectionKey, publish: &Publish<'_>) {
        let counters = &mut self.clients.counters;
        counters.messages_received += 1;
        counters.payload_bytes_received += publish.payload.len() as u64;
        if !self.charge_publish(now, key, publish.topic.len() + publish.payload.len()) {
            return;
        }
        self.pause_for_memory(key);
        if publish.properties.topic_alias.is_some() {
            return self.publish_with_alias(now, key, publish);
        }
        self.publish_to(now, key, publish, publish.topic);
    }

    #[inline]
    fn look_at_talker(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        publish: &Publish<'_>,
        topic: &str,
    ) {
        if self.talkers.is_due(self.clients.counters.messages_received) {
            self.note_talker(now, key, (topic, publish.payload.len()));
        }
    }

    /// A publish that is looked at to know who publishes most.
    #[cold]
    #[inline(never)]
    fn note_talker(&mut self, now: Timestamp, key: ConnectionKey, (topic, bytes): (&str, usize)) {
        let number = self.clients.counters.messages_received;
        let session = self.clients.connections.get(key).and_then(|it| it.session);
        if let Some(session) = session.and_then(|session| self.clients.sessions.get(session)) {
            let bytes = topic.len() + bytes;
            self.talkers
                .note(now, number, &session.client_id, topic, bytes);
        }
    }

    fn publish_with_alias(&mut self, now: Timestamp, key: ConnectionKey, publish: &Publish<'_>) {
        let alias = publish.properties.topic_alias.unwrap_or(0);
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let max = connection.granted.topic_alias_max;
        if alias > max {
            let what = format!("topic alias {alias} is above the announced maximum [MQTT-3.3.2-9]");
            let text = beyond(&what, "limits.topic_alias_max", max);
            return self.violation(key, Reason::TopicAliasInvalid, &text, now);
        }
        let aliases = connection.aliases();
        if !publish.topic.is_empty() {
            aliases.set_inbound(alias, publish.topic);
            return self.publish_to(now, key, publish, publish.topic);
        }
        let topic: Option<Box<str>> = aliases.inbound(alias).map(Into::into);
        match topic {
            Some(topic) => self.publish_to(now, key, publish, &topic),
            None => {
                let text = format!("topic alias {alias} was not set before it was used");
                self.violation(key, Reason::ProtocolError, &text, now);
            }
        }
    }

    fn publish_to(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        publish: &Publish<'_>,
        topic: &str,
    ) {
        self.look_at_talker(now, key, publish, topic);
        if let Err((reason, text)) = self.check_publish(key, publish, topic) {
            return self.violation(key, reason, &text, now);
        }
        let Some(connection) = self.clients.connections.get(key) else {
            return;
        };
        let Some(session_key) = connection.session else {
            return;
        };
        let named = (publish.qos, publish.packet_id);
        if publish.qos == Qos::ExactlyOnce
            && let Some(session) = self.clients.sessions.get_mut(session_key)
        {
            if session.inbound.is_repeat(publish.packet_id) {
                return self.answer_repeat(key, session_key, publish.packet_id, now);
            }
            let unfinished = session.inbound.unfinished();
            let is_v5 = connection.version.is_v5();
            let max = connection.granted.receive_maximum;
            if is_v5 && unfinished >= usize::from(max) {
                let text = too_many_unfinished(max);
                return self.violation(key, Reason::ReceiveMaximumExceeded, &text, now);
            }
        }
        if let Some(reason) = self.refusal(now, session_key, publish, topic) {
            let receipt = Receipt::default();
            return self.conclude(key, session_key, named, reason, receipt, now);
        }
        let expiry = publish.properties.expiry_seconds;
        let mut publication = Publication::new(
            topic,
            publish.payload,
            &publish.properties.forwarded,
            publish.qos,
            publish.retain,
            expiry.map(|seconds| now.plus_seconds(seconds)),
        );
        let hash = self.publisher_hash(session_key);
        let Some(routed) = self.route(&mut publication, Some(session_key), hash, true, now) else {
            self.accept_publish(key, named, Reason::Success);
            self.hold_for_fan_out(key);
            let source = Source::Client {
                connection: key,
                session: session_key,
                packet_id: publish.packet_id,
            };
            let taken = Taken {
                message: publication.keep().clone(),
                publisher: Some(session_key),
                hash,
                source,
            };
            return self.take_fan_out(taken);
        };
        let reason = if routed.matched {
            Reason::Success
        } else {
            Reason::NoMatchingSubscribers
        };
        self.conclude(key, session_key, named, reason, routed.receipt, now);
        self.disconnect_overflowed(now);
    }

    /// A publish is routed, or refused: it is answered, and one of QoS 2 is known when it comes again.
    #[inline(always)]
    fn conclude(
        &mut self,
        key: ConnectionKey,
        session: SessionKey,
        named: (Qos, u16),
        reason: Reason,
        mut receipt: Receipt,
        now: Timestamp,
    ) {
        let is_accepted = self.accept_publish(key, named, reason);
        debug_assert!(is_accepted || named.0 != Qos::ExactlyOnce || receipt.number == 0);
        if is_accepted {
            self.keep_accepted(session, named.1, &mut receipt);
        }
        if self.store.is_behind() && (receipt.ticket > 0 || receipt.number > 0) {
            self.hold_for_store(key);
        }
        self.answer_publish(key, named, reason, receipt, now);
    }

    /// A QoS 2 publish came again. The answer still waits if it is being delivered.
    fn answer_repeat(
        &mut self,
        key: ConnectionKey,
        session: SessionKey,
        packet_id: u16,
        now: Timestamp,
    ) {
        if self.fan_outs.answer_to(session, packet_id, key) {
            self.hold_for_fan_out(key);
        } else {
            let named = (Qos::ExactlyOnce, packet_id);
            // What the first one has changed may not be stored yet.
            let receipt = Receipt {
                number: self.receipts.of_repeat(session, packet_id),
                ..self.receipt_of_all()
            };
            self.answer_publish(key, named, Reason::Success, receipt, now);
        }
    }

    /// A publish is accepted: from now on a QoS 2 one is known when it comes again. Whether it is one.
    #[inline]
    fn accept_publish(
        &mut self,
        key: ConnectionKey,
        (qos, packet_id): (Qos, u16),
        reason: Reason,
    ) -> bool {
        qos == Qos::ExactlyOnce && self.accept_once(key, packet_id, reason)
    }

    fn accept_once(&mut self, key: ConnectionKey, packet_id: u16, reason: Reason) -> bool {
        let Some(connection) = self.clients.connections.get(key) else {
            return false;
        };
        // Who cannot be told that it failed must not be left waiting.
        let is_refused = connection.version.is_v5() && reason.is_error();
        if !is_refused
            && let Some(session) = connection.session
            && let Some(session) = self.clients.sessions.get_mut(session)
        {
            session.inbound.accept(packet_id);
            if session.inbound.unfinished() > UNFINISHED_USUAL {
                self.clients.shortage.note_growth(session);
            }
            return true;
        }
        false
    }

    /// Why a publish that breaks no rule is not taken, if it is not.
    fn refusal(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Option<Reason> {
        if is_reserved(topic) {
            self.clients.counters.dropped_dollar_topic += 1;
            self.note_denied(now, session, ("publish", topic), RESERVED.into());
            return Some(Reason::NotAuthorized);
        }
        if !self.may_write(session, topic) {
            self.clients.counters.publishes_not_authorized += 1;
            let why = self.rules_of(session).into();
            self.note_denied(now, session, ("publish", topic), why);
            return Some(Reason::NotAuthorized);
        }
        let is_checked =
            self.settings.validate_payload_format && publish.properties.payload_is_utf8;
        let is_invalid = is_checked && std::str::from_utf8(publish.payload).is_err();
        if is_invalid && publish.qos != Qos::AtMostOnce {
            self.note_denied(now, session, ("publish", topic), NOT_UTF8.into());
        }
        if is_invalid {
            return Some(Reason::PayloadFormatInvalid);
        }
        let is_full = self.store.is_full() && self.finds_disk_full(publish, topic);
        is_full.then_some(Reason::QuotaExceeded)
    }

    fn check_publish(
        &self,
        key: ConnectionKey,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Result<(), Refused> {
        let settings = &self.settings;
        if let Err(error) = TopicName::new(topic, settings.limits.topics()) {
            let text = format!(
                "the topic {} of a PUBLISH: {}",
                quoted(topic),
                settings.topic_text(error)
            );
            return Err((Reason::TopicNameInvalid, text.into()));
        }
        let connection = self.clients.connections.get(key);
        let granted = connection.map(|c| c.granted).unwrap_or_default();
        if publish.qos > granted.qos_max {
            let what = "QoS of a PUBLISH above the announced maximum";
            let text = beyond(what, "mqtt.qos_max", granted.qos_max.bits());
            return Err((Reason::QosNotSupported, text));
        }
        if publish.retain && !granted.retain {
            let what = "retained messages are switched off";
            let text = switched_off(what, "mqtt.retain_available");
            return Err((Reason::RetainNotSupported, text));
        }
        // Only 5.0 clients know the limit; others are not read while they are above it.
        if publish.qos == Qos::AtMostOnce {
            return Ok(());
        }
        let waiting = connection.filter(|c| c.version.is_v5());
        let waiting = waiting.map_or(0, |c| c.awaiting_store.publishes());
        let max = granted.receive_maximum;
        if waiting >= usize::from(max) {
            return Err((Reason::ReceiveMaximumExceeded, too_many_unfinished(max)));
        }
        Ok(())
    }

    /// PUBACK or PUBREC `[MQTT-3.3.4-1]`. 3.x cannot be told of a failure: it gets the plain packet.
    pub(super) fn answer_publish(
        &mut self,
        key: ConnectionKey,
        (qos, packet_id): (Qos, u16),
        reason: Reason,
        receipt: Receipt,
        now: Timestamp,
    ) {
        let kind = match qos {
            Qos::AtMostOnce => {
                // Nothing to answer with: the only way to tell is to close (3.3.2.3.2).
                if reason == Reason::PayloadFormatInvalid {
                    self.violation(key, reason, NOT_UTF8, now);
                }
                return;
            }
            Qos::AtLeastOnce => PacketType::Puback,
            Qos::ExactlyOnce => PacketType::Pubrec,
        };
        let ack = Ack {
            kind,
            packet_id,
            reason,
        };
        self.acknowledge_publish(key, ack, receipt);
    }

    /// Disconnects sessions whose queue overflowed under that policy.
    #[inline]
    pub(super) fn disconnect_overflowed(&mut self, now: Timestamp) {
        while let Some(session) = self.clients.overflowed.pop() {
            let connection = self
                .clients
                .sessions
                .get(session)
                .and_then(|session| session.connection);
            if let Some(connection) = connection {
                let text = "its queue is full (limits.queue_messages_max, queue_bytes_max; \
                            session.queue_full is disconnect)";
                self.disconnect(connection, Reason::QuotaExceeded, text, now);
            }
        }
    }

    /// The hash by which shared strategies tell publishers apart.
    pub(super) fn publisher_hash(&self, session: SessionKey) -> u64 {
        if self.settings.shared_strategy != SharedStrategy::HashPublisher {
            return 0;
        }
        self.clients
            .sessions
            .get(session)
            .map_or(0, |session| stable_hash(&session.client_id))
    }

    /// Delivers a publish that entered the broker on this shard to all who want it, here and elsewhere. Where
    /// it is answered, others are asked whether they have stored it. `None` if that takes several turns:
    /// nothing is done then, see [`super::fan_out`].
    pub(super) fn route(
        &mut self,
        publication: &mut Publication<'_>,
        publisher: Option<SessionKey>,
        publisher_hash: u64,
        is_answered: bool,
        now: Timestamp,
    ) -> Option<Routed> {
        if self.fan_outs.delay(publication.topic) {
            return None;
        }
        let ticket = self.clients.journal.last_ticket();
        let topic = TopicName::trusted(publication.topic);
        let nodes = self.last_match.take(&self.trie, topic);
        self.backlog.spend(1 + nodes.len());
        let mut shards = ShardSet::default();
        let mut locals = 0;
        let mut groups = 0;
        for entry in nodes.iter().filter_map(|&node| self.trie.entry(node)) {
            shards.add_all(entry.remote);
            locals += entry.local.len();
            groups += entry.groups.len();
        }
        if self
            .backlog
            .is_large(locals, groups, publication.payload.len())
        {
            self.last_match.keep(nodes);
            return None;
        }
        if self.settings.stores && is_answered {
            self.begin_publish(publication.qos);
        }
        let matched = locals + groups > 0 || !shards.is_empty();
        if locals > 0 {
            self.deliver_local(publication, &nodes, publisher, now);
        }
        let hash = self.group_hash(publication.topic, publisher_hash);
        let mut receipt = Receipt::default();
        if groups > 0 {
            let mut picks = std::mem::take(&mut self.picks);
            self.pick_groups(&nodes, hash, &mut picks);
            self.clients.encoder.begin();
            let mut cost = groups;
            for pick in picks.here.drain(..) {
                cost += self.deliver_to_pick(publication, &pick, hash, now);
            }
            self.backlog.spend(cost);
            receipt.shards = self.mail_publish(publication, &nodes, shards, Some(&mut picks), hash);
            self.picks = picks;
        } else if !shards.is_empty() {
            receipt.shards = self.mail_publish(publication, &nodes, shards, None, hash);
        }
        self.last_match.keep(nodes);
        if publication.retain && self.settings.retain_available {
            receipt.letter = self.retain_somewhere(publication);
        }
        receipt.ticket = self.news_since(ticket);
        if self.settings.stores {
            receipt.number = self.receipts.take().unwrap_or_default();
            self.clients.journal.once.end();
        }
        Some(Routed { matched, receipt })
    }

    /// What share groups are picked by, if they are by a hash.
    pub(super) fn group_hash(&self, topic: &str, publisher_hash: u64) -> u64 {
        match self.settings.shared_strategy {
            SharedStrategy::HashTopic => stable_hash(topic),
            _ => publisher_hash,
        }
    }

    /// The part of routing that does not take long however many get it: mail and what is retained. Whether
    /// anyone wants it, and what of that is to be waited for; under the number at hand.
    pub(super) fn route_elsewhere(
        &mut self,
        publication: &mut Publication<'_>,
        nodes: &[u32],
        picks: &mut Picks,
        hash: u64,
    ) -> (bool, Receipt) {
        let mut shards = ShardSet::default();
        let mut matched = false;
        for entry in nodes.iter().filter_map(|&node| self.trie.entry(node)) {
            shards.add_all(entry.remote);
            matched |= !entry.local.is_empty() || !entry.groups.is_empty();
        }
        matched |= !shards.is_empty();
        let mut receipt = Receipt {
            shards: self.mail_publish(publication, nodes, shards, Some(picks), hash),
            ..Receipt::default()
        };
        if publication.retain && self.settings.retain_available {
            receipt.letter = self.retain_somewhere(publication);
        }
        (matched, receipt)
    }

    /// A publish that entered on another shard.
    pub(super) fn publish_from_shard(
        &mut self,
        from: ShardId,
        publish: mail::Publish,
        now: Timestamp,
    ) {
        let mail::Publish {
            message,
            plain,
            groups,
            hash,
            passed,
            asked,
        } = publish;
        let message = LocalMessage::new(message);
        let mut publication = Publication::of(&message);
        let topic = TopicName::trusted(publication.topic);
        let nodes = plain.then(|| self.last_match.take(&self.trie, topic));
        let confirmed = self.interest.confirmed_by(from);
        if self.takes_turns(&publication, nodes.as_deref(), groups.len()) {
            if let Some(nodes) = nodes {
                self.last_match.keep(nodes);
            }
            return self.take_fan_out(Taken {
                message,
                publisher: None,
                hash,
                source: Source::Shard {
                    from,
                    confirmed,
                    plain,
                    groups,
                    passed,
                    asked,
                },
            });
        }
        let ticket = self.clients.journal.last_ticket();
        if asked.receipt() > 0 {
            self.receipts.begin(true);
            let origin = asked
                .origin(from)
                .filter(|_| message.qos == Qos::ExactlyOnce);
            self.clients.journal.once.begin(origin);
        }
        self.clients.routed_by = Some(confirmed);
        self.clients.passes_lasting_by = self.passes_lasting_by(asked);
        self.clients.encoder.begin();
        if let Some(nodes) = nodes {
            self.deliver_local(&mut publication, &nodes, None, now);
            self.last_match.keep(nodes);
        }
        for group in groups {
            let cost = self.deliver_to_group(&mut publication, &group, hash, passed, now);
            self.backlog.spend(cost);
        }
        self.clients.routed_by = None;
        self.clients.passes_lasting_by = false;
        self.clients.journal.once.end();
        if asked.receipt() > 0 {
            self.handled(from, asked, self.news_since(ticket));
        }
        self.charge_looks();
        self.disconnect_overflowed(now);
    }

    /// The ticket of the last record, 0 if there was none after another one.
    pub(super) fn news_since(&self, ticket: u64) -> u64 {
        let last = self.clients.journal.last_ticket();
        if last > ticket { last } else { 0 }
    }

    /// Whether a publish of another shard takes several turns here, or has to wait for one that does.
    fn takes_turns(
        &self,
        publication: &Publication<'_>,
        nodes: Option<&[u32]>,
        groups: usize,
    ) -> bool {
        let nodes = nodes.unwrap_or_default().iter();
        let entries = nodes.filter_map(|&node| self.trie.entry(node));
        let locals = entries.map(|entry| entry.local.len()).sum();
        self.fan_outs.delay(publication.topic)
            || self
                .backlog
                .is_large(locals, groups, publication.payload.len())
    }

    /// Delivers to the plain subscribers of this shard, each session once.
    fn deliver_local(
        &mut self,
        publication: &mut Publication<'_>,
        nodes: &[u32],
        publisher: Option<SessionKey>,
        now: Timestamp,
    ) {
        let stamp = self.clients.encoder.begin();
        let entries = || nodes.iter().filter_map(|&node| self.trie.entry(node));
        let mut filled = entries().filter(|entry| !entry.local.is_empty());
        let (first, second) = (filled.next(), filled.next());
        let Some(first) = first else { return };
        if second.is_none() {
            // One filter: a session has at most one subscription on it, so nothing is to be joined.
            self.backlog
                .spend_fan_out(first.local.len(), publication.payload.len());
            for subscriber in &first.local {
                if subscriber.no_local && Some(subscriber.session) == publisher {
                    let (session, replaying) = (subscriber.session, subscriber.replaying);
                    self.clients.leave_out(publication, session, replaying);
                } else {
                    self.clients
                        .deliver(publication, &Match::of(subscriber), now);
                }
            }
            return;
        }
        let receivers = entries().map(|entry| entry.local.len()).sum();
        self.backlog
            .spend_fan_out(receivers, publication.payload.len());
        self.matches.clear();
        for subscriber in entries().flat_map(|entry| &entry.local) {
            if subscriber.no_local && Some(subscriber.session) == publisher {
                let (session, replaying) = (subscriber.session, subscriber.replaying);
                self.clients.leave_out(publication, session, replaying);
                continue;
            }
            let Some(session) = self.clients.sessions.get_mut(subscriber.session) else {
                continue;
            };
            self.matches.add(subscriber, session, stamp);
        }
        for matched in self.matches.iter() {
            self.clients.deliver(publication, matched, now);
        }
    }

    /// Sends a publish to other shards; those that are asked whether they have stored it.
    fn mail_publish(
        &mut self,
        publication: &mut Publication<'_>,
        nodes: &[u32],
        plain: ShardSet,
        mut picks: Option<&mut Picks>,
        hash: u64,
    ) -> ShardSet {
        let mut receivers = plain;
        for shard in picks.iter().flat_map(|picks| picks.shards()) {
            receivers.insert(shard);
        }
        let mut asked = ShardSet::default();
        let may_ask = self.settings.stores && self.receipts.may_ask();
        if may_ask && publication.qos > Qos::AtMostOnce {
            asked = self.lasting_among(receivers, nodes, picks.as_deref());
        }
        for shard in receivers.iter() {
            let is_asked = asked.contains(shard);
            let letter = mail::Publish {
                message: publication.keep().share(),
                plain: plain.contains(shard),
                groups: picks
                    .as_mut()
                    .map_or_else(Vec::new, |picks| picks.take(shard)),
                hash,
                passed: Passed::default(),
                asked: match is_asked {
                    true => self.receipts.ask_in_order(),
                    false => self.receipts.ask_nothing(),
                },
            };
            self.stage(Phase::Live, shard, Mail::Publish(letter));
        }
        asked
    }

    /// Which of the shards that get a publish may have to keep it: those where somebody subscribes whose
    /// session outlives its connection. One that was picked for a share group may pass it on to one.
    fn lasting_among(&self, receivers: ShardSet, nodes: &[u32], picks: Option<&Picks>) -> ShardSet {
        let mut lasting = ShardSet::default();
        let mut is_grouped = false;
        for &node in nodes {
            lasting.add_all(self.lasting.elsewhere(node));
            is_grouped |= picks.is_some() && self.lasting.has_any(node);
        }
        if is_grouped {
            for shard in picks.iter().flat_map(|picks| picks.shards()) {
                lasting.insert(shard);
            }
        }
        let mut others = lasting;
        others.remove_all(receivers);
        lasting.remove_all(others);
        lasting
    }

    /// Stages a letter for another shard.
    pub(super) fn stage(&mut self, phase: Phase, to: ShardId, mail: Mail) {
        debug_assert_ne!(to, self.id);
        self.clients.counters.mail_sent += 1;
        self.staged.push(phase, to, mail);
    }

    /// Keeps a retained message on the shard its topic belongs to; the letter by which it goes there, 0 for
    /// none.
    fn retain_somewhere(&mut self, publication: &mut Publication<'_>) -> u64 {
        let message = publication.keep().share();
        let home = home_shard(message.topic(), self.shards);
        if home == self.id {
            self.retain(message);
            return 0;
        }
        let asked = self.receipts.ask_by_itself();
        self.stage(Phase::Retain, home, Mail::Retain { message, asked });
        self.staged.last_retained()
    }

    /// Retained messages of all shards are within one limit; before the first is kept.
    pub fn share_retained(&mut self, budget: Arc<Budget>) {
        self.retained = Retained::within(budget);
    }

    /// Keeps a retained message of another shard here.
    pub(super) fn retain_for(&mut self, from: ShardId, message: Arc<Message>, asked: Asked) {
        self.retain(message);
        if asked.receipt() > 0 {
            let ticket = self.clients.journal.last_ticket();
            self.handled(from, asked, ticket);
        }
    }

    /// Keeps a retained message here.
    pub(super) fn retain(&mut self, message: Arc<Message>) {
        let Some(message) = self.retain_own(message) else {
            return self.backlog.spend(RETAIN_WORK);
        };
        let limits = &self.settings.limits;
        let (messages_max, bytes_max) = (limits.retained_messages_max, limits.retained_bytes_max);
        let kept = self.settings.stores.then(|| Arc::clone(&message));
        self.backlog.spend(RETAIN_WORK);
        // What QoS 0 cannot be told of when the disk is full is dropped, and an older value with it. What is
        // acknowledged was judged where it came in.
        let is_told = message.qos > Qos::AtMostOnce || message.payload().is_empty();
        let is_full = self.store.is_full() && !is_told;
        let bytes_max = if is_full { 0 } else { bytes_max };
        let counters = &mut self.clients.counters;
        let refused = if self.clients.shortage.is_frugal() && self.retained.would_grow(&message) {
            // It would stay for good, and who would remove it might not be served then.
            self.retained.remove(message.topic());
            counters.dropped_retained_memory += 1;
            Some(message)
        } else {
            let refused = self.retained.set(message, messages_max, bytes_max).err();
            counters.dropped_retained_full += u64::from(refused.is_some());
            refused
        };
        let Some(message) = kept else {
            return;
        };
        self.clients.journal.put(match refused {
            None => Record::Retained { message },
            Some(refused) => Record::RetainedGone {
                topic: refused.topic().into(),
            },
        });
    }
}

//! What MQTT owes each client: a plain record of what was sent, subscribed and delivered, and the checks.
//!
//! Times are steps of the simulation, so that before and after are exact.

use std::collections::{HashMap, HashSet};

pub type MessageId = usize;
pub type ClientId = usize;

/// A message that was published once (its copies are the same message).
#[derive(Clone, Debug)]
pub struct Message {
    pub publisher: ClientId,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    /// An empty payload: removes what is retained.
    pub is_clear: bool,
    /// Not all clients take so large a packet.
    pub is_large: bool,
    /// Never, for a will that was not triggered.
    pub sent_at: Option<u64>,
    /// When its client said it first: a will with its CONNECT.
    pub asked_at: u64,
    /// The broker has it for good.
    pub accepted_at: Option<u64>,
    /// Sent more than once by its publisher.
    pub is_resent: bool,
    /// Sent again, maybe to a session that knew nothing of it.
    pub is_new_again: bool,
    /// Not sent by its client: no order with what is.
    pub is_will: bool,
    /// A will that must come once it is triggered.
    pub is_prompt_will: bool,
}

/// A subscription from SUBSCRIBE to its end.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub client: ClientId,
    pub epoch: usize,
    /// Without `$share`.
    pub filter: String,
    pub share: Option<String>,
    pub qos: u8,
    pub subscribed_at: u64,
    pub suback_at: Option<u64>,
    /// The connection that the SUBACK came on.
    pub link: usize,
    /// Its session outlives its connection.
    pub is_kept: bool,
    /// Its client takes no large packets on some of its connections.
    pub may_be_small: bool,
    pub unsubscribed_at: Option<u64>,
    pub unsuback_at: Option<u64>,
}

/// What a client was handed.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    pub message: MessageId,
    pub at: u64,
    pub retain: bool,
    pub dup: bool,
    /// The connection that it came on.
    pub link: usize,
}

/// What is delivered, as the client saw it.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub client: ClientId,
    pub epoch: usize,
    pub message: MessageId,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub link: usize,
}

/// The record.
#[derive(Debug, Default)]
pub struct Oracle {
    pub messages: Vec<Message>,
    pub subscriptions: Vec<Subscription>,
    deliveries: HashMap<(ClientId, usize), Vec<Delivery>>,
    /// Last message of each (client, epoch, publisher, topic, QoS) by first arrival.
    order: HashMap<(ClientId, usize, ClientId, String, u8), MessageId>,
    /// Highest value seen of each retained topic, and when.
    newest: HashMap<(ClientId, usize, String), (MessageId, u64)>,
    /// Sessions that may have ended without their client's knowing.
    pub uncertain: HashSet<(ClientId, usize)>,
    /// The broker may have disconnected clients that do not know of it: their wills may come at any time.
    pub may_cut: bool,
    /// No faults: everything comes exactly once.
    pub is_calm: bool,
    /// Memory is short now.
    is_short: bool,
    /// When it was short last.
    short_at: Option<u64>,
    /// When the broker was last killed, 0 for never.
    crashed_at: u64,
    /// All that comes of a publish is stored at once, so that a crash forgets all of it or nothing: one shard,
    /// and no fan-out over turns. Elsewhere what was not acknowledged may be kept in part, and comes again when
    /// it is sent again; not at QoS 2.
    pub is_stored_at_once: bool,
    /// What a client has said on a connection before that time is stored.
    stored_before: HashMap<usize, u64>,
}

/// Whether a filter matches a topic; there are no `$` topics here.
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    let mut filter = filter.split('/');
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Topics whose only writer makes their values comparable.
pub fn is_single_writer(topic: &str) -> bool {
    topic.starts_with("r/")
}

impl Oracle {
    pub fn new(is_calm: bool) -> Self {
        Oracle {
            is_calm,
            ..Oracle::default()
        }
    }

    /// The broker is killed and starts again.
    pub fn crashed(&mut self, now: u64) {
        self.crashed_at = now;
        // A will that went may be forgotten with its session, and no client knows.
        for will in self.messages.iter_mut().filter(|m| m.is_will) {
            will.accepted_at = None;
        }
    }

    /// What these clients were answered is not owed any more: their levels let a crash forget it.
    pub fn forget_accepted(&mut self, publishers: &[bool]) {
        for message in &mut self.messages {
            if publishers[message.publisher] {
                message.accepted_at = None;
            }
        }
    }

    /// Memory is short from now on, or is not.
    pub fn memory_is_short(&mut self, is_short: bool, now: u64) {
        if is_short || self.is_short {
            self.short_at = Some(now);
        }
        self.is_short = is_short;
    }

    /// Whether memory was short when it was published or later: nothing may have been kept of it.
    fn may_be_unkept(&self, m: &Message) -> bool {
        m.sent_at <= self.short_at
    }

    /// A request that was sent at that time is answered: all that its client said before is stored.
    pub fn stored(&mut self, link: usize, sent_at: u64) {
        let known = self.stored_before.entry(link).or_default();
        *known = sent_at.max(*known);
    }

    /// Checks an arrival against what is owed and allowed.
    pub fn arrived(&mut self, arrival: &Arrival, now: u64) -> Result<(), String> {
        let message = self
            .messages
            .get(arrival.message)
            .ok_or_else(|| format!("a message that nobody sent: {arrival:?}"))?
            .clone();
        if message.topic != arrival.topic {
            return Err(format!("a wrong topic: {arrival:?}, sent {message:?}"));
        }
        let Some(sent_at) = message.sent_at.or(self.may_cut.then_some(now)) else {
            return Err(format!("a will that was not due: {arrival:?}"));
        };
        let matching = self.matching(arrival);
        // Nobody knows when a will went: before its client knew, and it may have waited in a session for long.
        let was_before = |ended| message.asked_at < ended;
        let allowed = matching
            .iter()
            .filter(|s| s.subscribed_at < now && s.unsuback_at.is_none_or(was_before));
        let qos_max = allowed.map(|s| s.qos.min(message.qos)).max();
        match qos_max {
            None => {
                return Err(format!(
                    "no subscription asks for {arrival:?} sent at {sent_at}"
                ));
            }
            Some(qos) if arrival.qos > qos => {
                return Err(format!("QoS above {qos}: {arrival:?}"));
            }
            Some(_) => {}
        }
        let copies_max = matching.len();
        let floor = matching.iter().map(|s| s.subscribed_at).min().unwrap_or(0);
        if arrival.retain && is_single_writer(&arrival.topic) {
            self.check_not_stale(arrival, floor)?;
        }
        self.check_order(arrival, &message, now)?;
        self.check_copies(arrival, &message, copies_max)?;
        let key = (arrival.client, arrival.epoch);
        self.deliveries.entry(key).or_default().push(Delivery {
            message: arrival.message,
            at: now,
            retain: arrival.retain,
            dup: arrival.dup,
            link: arrival.link,
        });
        Ok(())
    }

    fn matching(&self, arrival: &Arrival) -> Vec<Subscription> {
        let all = self.subscriptions.iter();
        all.filter(|s| s.client == arrival.client && s.epoch == arrival.epoch)
            .filter(|s| matches(&s.filter, &arrival.topic))
            .cloned()
            .collect()
    }

    /// What was acknowledged before the oldest SUBSCRIBE was sent must not be missing in the answer.
    fn check_not_stale(&self, arrival: &Arrival, subscribed_at: u64) -> Result<(), String> {
        let newer = self.messages.iter().enumerate().find(|(id, m)| {
            *id > arrival.message
                && m.topic == arrival.topic
                && m.retain
                && m.accepted_at.is_some_and(|at| at < subscribed_at)
        });
        match newer {
            Some((id, _)) => Err(format!(
                "stale: {arrival:?} though {id} was acknowledged before the SUBSCRIBE at {subscribed_at}"
            )),
            None => Ok(()),
        }
    }

    fn check_order(
        &mut self,
        arrival: &Arrival,
        message: &Message,
        now: u64,
    ) -> Result<(), String> {
        let key = (arrival.client, arrival.epoch);
        let known = self.deliveries.get(&key);
        let is_first = known.is_none_or(|all| all.iter().all(|d| d.message != arrival.message));
        let is_shared = self.matching(arrival).iter().any(|s| s.share.is_some());
        // A copy may be handed on when its group changes.
        let mut leavers = self.subscriptions.iter().filter(|s| s.share.is_some());
        let has_leavers = leavers.any(|s| s.unsubscribed_at.is_some());
        // Or if it is too large for a member: some came to this one directly.
        let is_unordered = is_shared && (has_leavers || message.is_large || !self.is_calm);
        if is_single_writer(&arrival.topic) && is_first && !message.is_resent && !is_unordered {
            let key = (arrival.client, arrival.epoch, arrival.topic.clone());
            let (newest, at) = self.newest.entry(key).or_insert((0, now));
            // What nobody acknowledged may be forgotten, and an older value is retained again: though a session
            // has it that lives on another shard.
            let is_forgotten = |m: &Message| {
                let is_unknown = m.accepted_at.is_none_or(|at| at > self.crashed_at);
                m.sent_at <= Some(self.crashed_at) && is_unknown && !self.is_stored_at_once
            };
            let was_before = *at <= self.crashed_at;
            let may_go_back = was_before || self.messages.get(*newest).is_some_and(is_forgotten);
            if arrival.message < *newest && !(arrival.retain && may_go_back) {
                return Err(format!(
                    "older than {newest}, which came before: {arrival:?}"
                ));
            }
            (*newest, *at) = (arrival.message, now);
        }
        if arrival.retain || message.is_will || !is_first || is_unordered {
            return Ok(());
        }
        // A copy that was sent again may be the first that a new subscription sees, or a client that was away.
        let is_older = |s: &Subscription| s.suback_at.is_none_or(|at| message.sent_at < Some(at));
        // So may one that its client did not take before.
        let is_new = |s: &Subscription| is_older(s) || message.is_large && s.may_be_small;
        let may_have_missed = arrival.qos == 0
            || self.may_be_unkept(message)
            || self.matching(arrival).iter().any(is_new);
        if message.is_resent && may_have_missed {
            return Ok(());
        }
        let topic = arrival.topic.clone();
        let key = (
            arrival.client,
            arrival.epoch,
            message.publisher,
            topic,
            arrival.qos,
        );
        let last = self.order.insert(key, arrival.message);
        match last {
            Some(last) if last > arrival.message => {
                let before = &self.messages[last];
                Err(format!(
                    "out of order, {last} {before:?} came before {arrival:?} {message:?}"
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_copies(
        &self,
        arrival: &Arrival,
        message: &Message,
        copies_max: usize,
    ) -> Result<(), String> {
        let known = self.deliveries.get(&(arrival.client, arrival.epoch));
        let before = known.map_or(0, |all| {
            all.iter()
                .filter(|d| d.message == arrival.message && !d.retain && !d.dup)
                .count()
        });
        if arrival.retain || before < copies_max {
            return Ok(());
        }
        if self.repeats_after_crash(arrival, message)? {
            return Ok(());
        }
        let may_repeat = arrival.qos == 1 && (arrival.dup || message.is_resent);
        // Its client has come back and takes it no more, and it goes to another member, or back to itself.
        let may_come_back = arrival.qos == 1 && message.is_large && !self.is_calm;
        let may_resend = arrival.qos == 0 && message.qos == 1 && message.is_resent;
        if may_repeat || may_come_back || may_resend || message.is_new_again {
            return Ok(());
        }
        Err(format!("again, after {before} copies: {arrival:?}"))
    }

    /// Whether a message that came before may come again, since the broker was killed meanwhile.
    fn repeats_after_crash(&self, arrival: &Arrival, message: &Message) -> Result<bool, String> {
        let all = self.deliveries.get(&(arrival.client, arrival.epoch));
        let before = all.into_iter().flatten();
        let before = before.filter(|d| d.message == arrival.message && !d.retain);
        let before: Vec<_> = before.collect();
        let is_new = message.is_resent || message.is_will || message.is_large;
        let is_settled = |d: &&Delivery| {
            let stored = self.stored_before.get(&d.link);
            stored.is_some_and(|stored| d.at < *stored)
        };
        let was_sent_before = message.sent_at <= Some(self.crashed_at);
        let is_shared = self.matching(arrival).iter().any(|s| s.share.is_some());
        // Both shards may have what one was passing on to the other.
        if message.qos > 0 && is_shared && was_sent_before && !self.is_stored_at_once {
            return Ok(true);
        }
        if arrival.qos == 1 && !is_new && before.iter().all(is_settled) {
            return Err(format!(
                "again, though it was settled and stored: {arrival:?}"
            ));
        }
        let came_before = before.iter().any(|d| d.at <= self.crashed_at);
        let is_routed_anew = message.is_resent || message.is_will;
        // What a client sends again at QoS 2 is forgotten wherever it was kept, unless all was.
        let is_once = arrival.qos == 2 && !message.is_will && !is_shared;
        if was_sent_before && is_routed_anew && !self.is_stored_at_once && !is_once {
            return Ok(true);
        }
        Ok(match arrival.qos {
            0 => came_before && is_routed_anew,
            1 => came_before,
            _ => false,
        })
    }

    fn delivered(&self, s: &Subscription, id: MessageId) -> usize {
        let all = self.deliveries.get(&(s.client, s.epoch));
        all.map_or(0, |all| {
            all.iter()
                .filter(|d| d.message == id && d.at > s.subscribed_at)
                .count()
        })
    }

    /// Everything is at rest: was everything delivered that is owed? `epochs` are the sessions that
    /// still exist, `links` the connections that still stand, by client.
    pub fn check_complete(
        &self,
        epochs: &[Option<usize>],
        links: &[Option<usize>],
    ) -> Result<(), String> {
        for s in &self.subscriptions {
            let Some(suback_at) = s.suback_at else {
                continue;
            };
            let lasts = s.unsubscribed_at.is_none() && self.lasts(s, epochs);
            if !lasts || s.share.is_some() {
                continue;
            }
            let same_link = links[s.client] == Some(s.link);
            for (id, m) in self.messages.iter().enumerate() {
                let is_owed = m.sent_at.is_some_and(|at| at > suback_at)
                    && m.accepted_at.is_some()
                    && !m.is_clear
                    && !(m.is_large && s.may_be_small)
                    && matches(&s.filter, &m.topic)
                    && (s.qos.min(m.qos) > 0 || same_link)
                    && !self.may_be_unkept(m);
                if is_owed && self.delivered(s, id) == 0 {
                    return Err(format!("never delivered: message {id} {m:?} to {s:?}"));
                }
            }
            if same_link {
                self.check_retained_came(s)?;
            }
        }
        self.check_shares(epochs)
    }

    /// Whether the session of a subscription is there for certain.
    fn lasts(&self, s: &Subscription, epochs: &[Option<usize>]) -> bool {
        epochs[s.client] == Some(s.epoch) && !self.uncertain.contains(&(s.client, s.epoch))
    }

    /// The newest value that was acknowledged before the SUBSCRIBE, or a newer one, has come.
    fn check_retained_came(&self, s: &Subscription) -> Result<(), String> {
        let topics: HashSet<&String> = self
            .messages
            .iter()
            .filter(|m| m.retain && is_single_writer(&m.topic) && matches(&s.filter, &m.topic))
            .map(|m| &m.topic)
            .collect();
        for topic in topics {
            let all = self
                .messages
                .iter()
                .enumerate()
                .filter(|(_, m)| m.topic == *topic);
            let writes: Vec<_> = all
                .filter(|(_, m)| m.retain && m.sent_at.is_some())
                .collect();
            let known = |m: &Message| m.accepted_at.is_some_and(|at| at < s.subscribed_at);
            let Some((floor, value)) = writes.iter().rev().find(|(_, m)| known(m)) else {
                continue;
            };
            let later_clear = writes.iter().any(|(id, m)| id > floor && m.is_clear);
            if value.is_clear || later_clear || self.may_be_unkept(value) {
                continue;
            }
            let came = writes
                .iter()
                .any(|(id, _)| id >= floor && self.delivered(s, *id) > 0);
            if !came {
                return Err(format!(
                    "retained message {floor} of {topic} never came to {s:?}"
                ));
            }
        }
        Ok(())
    }

    /// Each group gets each message, and in calm weather once.
    fn check_shares(&self, epochs: &[Option<usize>]) -> Result<(), String> {
        let mut groups: HashMap<(&str, &str), Vec<&Subscription>> = HashMap::new();
        for s in &self.subscriptions {
            if let Some(share) = &s.share {
                groups.entry((share, &s.filter)).or_default().push(s);
            }
        }
        for ((share, filter), members) in groups {
            let lasting = members.iter().filter(|s| {
                s.suback_at.is_some() && s.unsubscribed_at.is_none() && self.lasts(s, epochs)
            });
            let lasting: Vec<_> = lasting.collect();
            // What a session has that ends with its connection is forgotten in a crash.
            let is_kept = members.iter().all(|s| s.is_kept);
            for (id, m) in self.messages.iter().enumerate() {
                let able = lasting.iter().filter(|s| !(m.is_large && s.may_be_small));
                let Some(since) = able.filter_map(|s| s.suback_at).min() else {
                    continue;
                };
                let qos = members.iter().map(|s| s.qos.min(m.qos)).min().unwrap_or(0);
                let is_owed = m.sent_at.is_some_and(|at| at > since)
                    && m.accepted_at.is_some()
                    && !m.is_clear
                    && matches(filter, &m.topic);
                // What was on its way at QoS 2 goes to nobody else when its session ends [MQTT-4.8.2-5], or is
                // resumed by a client that does not take it.
                let gives_up = |s: &&&Subscription| m.is_large && s.may_be_small;
                let mut ended = members
                    .iter()
                    .filter(|s| gives_up(s) || !self.lasts(s, epochs));
                let may_be_lost = ended.any(|s| s.qos.min(m.qos) == 2);
                // What a session that ends hands to another shard is not stored there yet.
                let is_handed_on =
                    !self.is_stored_at_once && members.iter().any(|s| !self.lasts(s, epochs));
                let is_forgotten = (!is_kept || is_handed_on) && m.sent_at <= Some(self.crashed_at);
                let is_forgotten = is_forgotten || self.may_be_unkept(m);
                if !is_owed || is_forgotten || may_be_lost || (qos == 0 && !self.is_calm) {
                    continue;
                }
                let own = members
                    .iter()
                    .filter(|s| !self.has_plain_match(s, &m.topic));
                let has_others = members.iter().any(|s| self.has_plain_match(s, &m.topic));
                let copies: usize = own.map(|s| self.delivered(s, id)).sum();
                if copies == 0 && !has_others {
                    let what = format!("never delivered to group {share} of {filter}");
                    return Err(format!("{what}: message {id} {m:?}"));
                }
                let leavers = members.iter().any(|s| s.unsubscribed_at.is_some());
                if self.is_calm && copies > 1 && !leavers {
                    let what = format!("{copies} copies to group {share} of {filter}");
                    return Err(format!("{what}: message {id} {m:?}"));
                }
            }
        }
        Ok(())
    }

    /// Whether the member has other subscriptions that match: its copies cannot be told apart.
    fn has_plain_match(&self, member: &Subscription, topic: &str) -> bool {
        self.subscriptions.iter().any(|s| {
            s.client == member.client
                && s.epoch == member.epoch
                && (s.share != member.share || s.filter != member.filter)
                && matches(&s.filter, topic)
        })
    }
}

//! What operators ask a shard: answered by some looks in each turn, one question after the other.
//!
//! Invariant: a turn looks at so many sessions or subscriptions and no more, however many there are. The
//! shard does not sleep before all are answered; one that nobody waits for any more is dropped.

use super::Shell;
use crate::engine::bridge::CLIENT_ID_PREFIX;
use crate::engine::codec::Version;
use crate::engine::codec::topic::{TopicFilter, TopicName};
use crate::engine::keys::SessionKey;
use crate::engine::route::trie::NodeId;
use crate::engine::session::connection::Connection;
use crate::engine::shard::sight::{Sight, Subscribed, Verdict};
use crate::engine::time::Timestamp;
use crate::engine::turn::Rest;
use crate::shard::inquiries::{
    Asked, Best, ClientRow, ClientWhole, Inquiry, RetainedRow, Sort, SubscriberRow, Subscription,
    TlsRow, Told, Wanted,
};
use crate::shard::orders::Event;
use crate::shard::peer::Peer;
use crate::shard::ring::Ring;
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Sessions that a turn looks at.
const SESSIONS_MAX: usize = 128;
/// Subscriptions that it looks at.
const SUBSCRIPTIONS_MAX: usize = 1_024;
/// Subscriptions that are told of one client.
const FILTERS_MAX: usize = 1_000;

/// Questions, and how far the first has got.
#[derive(Default)]
pub(super) struct Inquirer {
    waiting: VecDeque<Inquiry>,
    at: At,
}

/// Where a walk goes on, with what it has found.
#[derive(Default)]
struct At {
    session: usize,
    subscription: usize,
    clients: Option<Best<ClientRow>>,
    subscribers: Option<Best<SubscriberRow>>,
    retained: Vec<RetainedRow>,
    topic: Option<Arc<str>>,
}

impl Inquirer {
    /// One more question.
    pub fn take(&mut self, inquiry: Inquiry) {
        self.waiting.push_back(inquiry);
    }

    /// A shard does not sleep beside a question.
    pub fn rest(&self, rest: Rest) -> Rest {
        rest.unless(!self.waiting.is_empty())
    }
}

impl Shell {
    /// Goes on with the first question, as far as a turn goes.
    pub(super) fn inquire(&mut self, ring: &mut Ring) {
        let Some(inquiry) = self.inquirer.waiting.front().cloned() else {
            return;
        };
        if Instant::now() < inquiry.by {
            let told = match *inquiry.asked {
                Asked::Drain {
                    listener,
                    per_second,
                } => {
                    self.begin_drain(ring, listener, per_second);
                    Some(Told::Done(true))
                }
                Asked::Trace(ref order) => {
                    self.begin_trace(inquiry.number, order);
                    Some(Told::Done(true))
                }
                _ => self.look(&inquiry.asked),
            };
            let Some(told) = told else {
                return;
            };
            self.carry_out(ring);
            self.orders
                .tell(|shard| Event::Told(shard, inquiry.number, told));
        }
        self.inquirer.waiting.pop_front();
        self.inquirer.at = At::default();
    }

    /// The answer, when it is there.
    fn look(&mut self, asked: &Asked) -> Option<Told> {
        let now = self.clock.now();
        match asked {
            Asked::Clients {
                wanted,
                sort,
                after,
                max,
            } => {
                let best = self.inquirer.at.clients.take();
                let best = best.unwrap_or_else(|| Best::new(after.as_ref(), *max));
                self.look_at_clients(best, wanted, *sort, now)
            }
            Asked::Client(id) => {
                let mishaps = self.mishaps.of(id, now.as_ms());
                let whole = self.whole(id, now).map(Box::new);
                Some(Told::Client(whole, mishaps))
            }
            Asked::Disconnect {
                client_id,
                reason,
                text,
            } => Some(Told::Done(self.core.expel(now, client_id, *reason, text))),
            Asked::EndSession { client_id, text } => {
                Some(Told::Done(self.core.end_by_hand(now, client_id, text)))
            }
            Asked::EndBridge { client_id, text } => {
                self.end_bridge(client_id);
                Some(Told::Done(self.core.end_by_hand(now, client_id, text)))
            }
            Asked::AskAgain { client_id } => Some(Told::Done(self.ask_again(client_id))),
            Asked::Subscriptions { after, max, .. } | Asked::Receivers { after, max, .. } => {
                let best = self.inquirer.at.subscribers.take();
                let best = best.unwrap_or_else(|| Best::new(after.as_ref(), *max));
                self.look_at_subscribers(best, asked)
            }
            Asked::Retained { filter, after, max } => {
                self.look_at_retained(filter, after.as_deref(), *max, now)
            }
            Asked::RetainedMessage(topic) => {
                let answer = self
                    .core
                    .retained_after(TopicFilter::trusted(topic), None, now);
                let found = answer.messages.first().map(|message| {
                    let payload = Bytes::copy_from_slice(message.payload());
                    (retained_row(message, now), payload)
                });
                Some(Told::RetainedMessage(found))
            }
            Asked::Publish {
                topic,
                payload,
                qos,
                retain,
            } => self
                .core
                .publish_by_broker(now, (topic, payload), *qos, *retain)
                .then_some(Told::Done(true)),
            // It takes the ring, and the question's number.
            Asked::Drain { .. } | Asked::Trace(_) => None,
        }
    }

    fn look_at_clients(
        &mut self,
        mut best: Best<ClientRow>,
        wanted: &Wanted,
        sort: Sort,
        now: Timestamp,
    ) -> Option<Told> {
        let from = self.inquirer.at.session;
        for place in from..from + SESSIONS_MAX {
            if let Some(key) = self.core.session_at(place)
                && let Some(sight) = self.core.see(key)
            {
                let peer = self.peer_of(&sight);
                if is_wanted(wanted, &sight, peer) {
                    let waits_ms = self.core.waits_ms(&sight, now);
                    let rank = rank(sort, &sight, waits_ms);
                    let id = &sight.session.client_id;
                    let version = || self.version_of(&sight);
                    best.offer(rank, id, || row(&sight, peer, version(), (now, waits_ms)));
                }
            }
        }
        self.inquirer.at.session = from + SESSIONS_MAX;
        if self.inquirer.at.session >= self.core.session_places() {
            let count = best.count;
            return Some(Told::Clients(best.take(), count));
        }
        self.inquirer.at.clients = Some(best);
        None
    }

    fn peer_of(&self, sight: &Sight<'_>) -> Option<Peer> {
        let (connection, _) = sight.connection?;
        let socket = self.sockets.socket(connection)?;
        self.sockets.peer(socket)
    }

    /// As it speaks with who is at the other end; a bridge without a line with nobody.
    fn version_of(&self, sight: &Sight<'_>) -> Option<Version> {
        if !sight.session.client_id.starts_with(CLIENT_ID_PREFIX) {
            return Some(sight.session.version);
        }
        let (key, _) = sight.connection?;
        let layers = self.sockets.layers(self.sockets.socket(key)?)?;
        layers.line_version()
    }

    fn tls_of(&self, sight: &Sight<'_>, now: Timestamp) -> Option<TlsRow> {
        let (key, connection) = sight.connection?;
        let layers = self.sockets.layers(self.sockets.socket(key)?)?;
        let agreed = layers.agreed()?;
        let ends_at = connection.certificate_ends_at;
        Some(TlsRow {
            version: agreed.version.to_owned(),
            cipher_suite: agreed.cipher_suite,
            server_name: agreed.server_name,
            certificate: agreed.certificate,
            ends_in_seconds: (ends_at != Timestamp::NEVER).then(|| ends_at.ms_since(now) / 1_000),
        })
    }

    fn whole(&self, client_id: &str, now: Timestamp) -> Option<ClientWhole> {
        let key = self.core.session_of(client_id)?;
        let sight = self.core.see(key)?;
        let session = sight.session;
        let connection = sight.connection.map(|(_, connection)| connection);
        let ends_at = session.expires_at;
        let is_awaited = connection.is_none() && ends_at != Timestamp::NEVER;
        let replay = session.replay.as_ref();
        let filters = (0..session.subscriptions.len().min(FILTERS_MAX))
            .filter_map(|place| self.core.subscribed(key, place))
            .map(|subscribed| subscription(&subscribed));
        Some(ClientWhole {
            rates: None,
            last_errors: Vec::new(),
            row: row(
                &sight,
                self.peer_of(&sight),
                self.version_of(&sight),
                (now, self.core.waits_ms(&sight, now)),
            ),
            shard: self.orders.shard(),
            session_expiry_seconds: session.expiry_seconds,
            session_ends_in_seconds: is_awaited.then(|| ends_at.ms_since(now) / 1_000),
            silent_seconds: connection.map(|it| now.ms_since(it.heard_at) / 1_000),
            silence_ms_max: connection.map(|it| it.silence_ms_max),
            inflight_max: connection.map(|it| it.window_max),
            packet_bytes_max: connection.map(|it| it.packet_bytes_max),
            paused: connection.is_some_and(|it| it.is_paused),
            unfinished_messages: session.inbound.unfinished() as u64,
            held_messages: replay.map_or(0, |replay| replay.held.len() as u64),
            session_bytes: session.held_bytes() as u64,
            will_topic: session.will.as_ref().map(|will| will.topic.to_string()),
            method: session
                .holder
                .as_ref()
                .map(|holder| holder.method.to_owned()),
            tls: self.tls_of(&sight, now),
            filters: filters.collect(),
        })
    }

    fn look_at_subscribers(
        &mut self,
        mut best: Best<SubscriberRow>,
        asked: &Asked,
    ) -> Option<Told> {
        let nodes = self.nodes(asked);
        let mut left = SUBSCRIPTIONS_MAX;
        for _ in 0..SESSIONS_MAX {
            let place = self.inquirer.at.session;
            if let Some(key) = self.core.session_at(place)
                && !self.look_at_session(&mut best, asked, (key, &nodes), &mut left)
            {
                break;
            }
            (self.inquirer.at.session, self.inquirer.at.subscription) = (place + 1, 0);
        }
        if self.inquirer.at.session < self.core.session_places() {
            self.inquirer.at.subscribers = Some(best);
            return None;
        }
        let may_publish = match asked {
            Asked::Receivers {
                topic, publisher, ..
            } => publisher
                .as_ref()
                .and_then(|id| self.core.session_of(id))
                .map(|key| self.core.may_publish(key, topic)),
            _ => None,
        };
        let count = best.count;
        Some(Told::Subscribers(best.take(), count, may_publish))
    }

    /// Where the subscriptions stand that are asked for: anew in each turn, since they come and go.
    fn nodes(&self, asked: &Asked) -> Vec<NodeId> {
        match asked {
            Asked::Subscriptions { filter, .. } => self.core.nodes_of(TopicFilter::trusted(filter)),
            Asked::Receivers { topic, .. } => self.core.nodes_matching(TopicName::trusted(topic)),
            _ => Vec::new(),
        }
    }

    /// Looks at a session's subscriptions; false if there are more of them than a turn looks at.
    fn look_at_session(
        &mut self,
        best: &mut Best<SubscriberRow>,
        asked: &Asked,
        (key, nodes): (SessionKey, &[NodeId]),
        left: &mut usize,
    ) -> bool {
        let Some(sight) = self.core.see(key) else {
            return true;
        };
        let from = self.inquirer.at.subscription;
        let subscriptions = sight.session.subscriptions.iter().enumerate().skip(from);
        for (place, reference) in subscriptions {
            if *left == 0 {
                self.inquirer.at.subscription = place;
                return false;
            }
            *left -= 1;
            if nodes.binary_search(&reference.node).is_ok()
                && let Some(subscribed) = self.core.subscribed(key, place)
            {
                let id = &sight.session.client_id;
                let share = subscribed.share.as_deref().unwrap_or_default();
                let name = format!("{id}\0{share}\0{}", subscribed.filter);
                best.offer(0, &name, || self.subscriber_row(&sight, &subscribed, asked));
            }
        }
        true
    }

    fn subscriber_row(
        &self,
        sight: &Sight<'_>,
        subscribed: &Subscribed,
        asked: &Asked,
    ) -> SubscriberRow {
        let verdict = match asked {
            Asked::Receivers {
                topic,
                qos,
                publisher,
                ..
            } => {
                let publisher = publisher.as_ref().and_then(|id| self.core.session_of(id));
                self.core.verdict(subscribed, topic, *qos, publisher)
            }
            _ => None,
        };
        SubscriberRow {
            client_id: sight.session.client_id.to_string(),
            user: user(sight),
            connected: sight.connection.is_some(),
            subscription: subscription(subscribed),
            gets: verdict.and_then(gets),
            why: verdict.map(|verdict| why(verdict, &sight.session.client_id)),
        }
    }

    fn look_at_retained(
        &mut self,
        filter: &str,
        after: Option<&str>,
        max: usize,
        now: Timestamp,
    ) -> Option<Told> {
        let at = &mut self.inquirer.at;
        let from = at.topic.take().or_else(|| after.map(Arc::from));
        let filter = TopicFilter::trusted(filter);
        // The only topic that matches has been told.
        let is_over = from.is_some() && !filter.has_wildcard();
        if !is_over {
            let answer = self.core.retained_after(filter, from.as_ref(), now);
            let rows = answer
                .messages
                .iter()
                .map(|message| retained_row(message, now));
            at.retained
                .extend(rows.take(max - at.retained.len().min(max)));
            at.topic = answer.next;
        }
        if at.topic.is_some() && at.retained.len() < max {
            return None;
        }
        Some(Told::Retained(std::mem::take(&mut at.retained)))
    }
}

fn is_wanted(wanted: &Wanted, sight: &Sight<'_>, peer: Option<Peer>) -> bool {
    let session = sight.session;
    let connection = sight.connection.map(|(_, connection)| connection);
    let user = || session.holder.as_ref()?.user_name.as_deref();
    let is_in = |network: ipnet::IpNet| {
        peer.and_then(Peer::ip)
            .is_some_and(|ip| network.contains(&ip))
    };
    let begins = |prefix: &String| session.client_id.starts_with(prefix.as_str());
    let came_by = |number: u16| connection.is_some_and(|it| it.listener == number);
    wanted
        .is_connected
        .is_none_or(|is| is == connection.is_some())
        && wanted.id_prefix.as_ref().is_none_or(begins)
        && wanted
            .user
            .as_ref()
            .is_none_or(|name| user() == Some(name.as_str()))
        && wanted.network.is_none_or(is_in)
        && wanted.listener.is_none_or(came_by)
}

/// By which a client stands before those of less.
fn rank(sort: Sort, sight: &Sight<'_>, waits_ms: u64) -> u64 {
    let of_connection = sight.connection.map(|(_, connection)| connection);
    match sort {
        Sort::Id => 0,
        Sort::Queue => waiting_bytes(sight),
        Sort::Messages => messages_waiting(sight),
        Sort::Wait => waits_ms,
        Sort::Bytes => of_connection.map_or(0, |it| it.received_bytes + it.sent_bytes),
        Sort::Drops => sight.session.lost_messages,
        Sort::Age => u64::MAX - since(sight).as_ms(),
    }
}

/// Bytes that wait in a session and for its client's socket.
pub(super) fn waiting_bytes(sight: &Sight<'_>) -> u64 {
    let connection = sight.connection.map(|(_, connection)| connection);
    let unsent = connection.map_or(0, |connection| connection.outbox.bytes());
    (sight.session.outbound.queue_bytes() + unsent) as u64
}

/// Messages that wait in a session, or are not acknowledged.
pub(super) fn messages_waiting(sight: &Sight<'_>) -> u64 {
    let outbound = &sight.session.outbound;
    outbound.queued() as u64 + u64::from(outbound.unacknowledged())
}

/// Since when it is there, or away.
fn since(sight: &Sight<'_>) -> Timestamp {
    let came_at = sight.connection.map(|(_, connection)| connection.came_at);
    came_at.unwrap_or(sight.session.left_at)
}

fn user(sight: &Sight<'_>) -> Option<String> {
    let holder = sight.session.holder.as_ref()?;
    holder.user_name.as_ref().map(ToString::to_string)
}

fn row(
    sight: &Sight<'_>,
    peer: Option<Peer>,
    version: Option<Version>,
    (now, waits_ms): (Timestamp, u64),
) -> ClientRow {
    let session = sight.session;
    let connection = sight.connection.map(|(_, connection)| connection);
    let bytes = |of: fn(&Connection) -> u64| connection.map_or(0, of);
    ClientRow {
        client_id: session.client_id.to_string(),
        user: user(sight),
        connected: connection.is_some(),
        address: peer
            .and_then(Peer::address)
            .map(|address| address.to_string()),
        listener: None,
        listener_number: connection.map(|connection| connection.listener),
        version: version.map(|version| version.to_string()),
        since_seconds: now.ms_since(since(sight)) / 1_000,
        subscriptions: session.subscriptions.len() as u64,
        queued_messages: session.outbound.queued() as u64,
        queued_bytes: session.outbound.queue_bytes() as u64,
        inflight_messages: u64::from(session.outbound.unacknowledged()),
        unsent_bytes: bytes(|it| it.outbox.bytes() as u64),
        waits_ms,
        dropped_messages: session.lost_messages,
        received_bytes: bytes(|it| it.received_bytes),
        sent_bytes: bytes(|it| it.sent_bytes),
        received_messages: bytes(|it| it.received_messages),
        sent_messages: bytes(|it| it.sent_messages),
    }
}

fn subscription(subscribed: &Subscribed) -> Subscription {
    let filter = &subscribed.filter;
    let filter = match &subscribed.share {
        Some(share) => format!("$share/{share}/{filter}"),
        None => filter.clone(),
    };
    Subscription {
        filter,
        qos: subscribed.subscriber.qos.bits(),
        no_local: subscribed.subscriber.no_local,
    }
}

fn retained_row(message: &crate::engine::message::Message, now: Timestamp) -> RetainedRow {
    RetainedRow {
        topic: message.topic().to_owned(),
        qos: message.qos.bits(),
        payload_bytes: message.payload().len() as u64,
        expires_in_seconds: message.expires_at.map(|at| at.ms_since(now) / 1_000),
    }
}

/// Whether it would be got, as far as that is certain.
const fn gets(verdict: Verdict) -> Option<bool> {
    match verdict {
        Verdict::Sent
        | Verdict::BehindUnsent(_)
        | Verdict::Kept
        | Verdict::Queued
        | Verdict::BehindRetained => Some(true),
        Verdict::OneOfGroup => None,
        _ => Some(false),
    }
}

fn why(verdict: Verdict, client_id: &str) -> Cow<'static, str> {
    let why = match verdict {
        Verdict::Sent => "it is sent at once",
        Verdict::BehindUnsent(bytes) => {
            let text = "that wait for the client to read (limits.outbox_bytes_max)";
            return format!("it is sent behind {bytes} bytes {text}").into();
        }
        Verdict::Kept => "the client is away; its session keeps it",
        Verdict::Queued => "it waits in the client's queue behind what is not acknowledged",
        Verdict::BehindRetained => "it waits until the retained messages are there",
        Verdict::OneOfGroup => "one member of the share group gets it",
        Verdict::NoLocal => "the client published it itself, and subscribed with No Local",
        Verdict::Denied => "the client may not read the topic (acl_file, or rules of its token)",
        Verdict::OtherConnection(index) => return by_other_connection(client_id, index).into(),
        Verdict::Absent => "the client is away, and QoS 0 is not kept",
        Verdict::TooSlow => "the client reads too slowly (limits.outbox_bytes_max)",
        Verdict::QueueFull => {
            "the client's queue is full (limits.queue_messages_max, queue_bytes_max)"
        }
    };
    why.into()
}

/// Connections of a bridge are called as it is, with their number behind.
fn by_other_connection(client_id: &str, index: u8) -> String {
    let bridge = client_id
        .rsplit_once('-')
        .map_or(client_id, |(bridge, _)| bridge);
    format!("another of the bridge's connections takes the topic: {bridge}-{index}")
}

//! A store made of what Mosquitto has kept: sessions with their subscriptions and messages, retained
//! messages.
//!
//! What a client published at QoS 2 and had not released is with Mosquitto alone: it is passed on here to
//! the sessions that subscribe to it, and known as accepted, so that the client can go on with either half.
//!
//! What waits for a bridge of Mosquitto's is for the bridge here that goes on with it: it stands there by its
//! topic on this side, too.
//!
//! Not in that file, so not here: wills, shared subscriptions, protocol versions. The database of
//! persist-sqlite has wills, which are listed: who was connected comes again with its own.

use super::ToolError;
use super::check::Checked;
use super::draft::{Draft, NewStore};
use super::mosquitto::{Client, Entry, NEVER, Persisted, State, Stored, read};
use super::persist_sqlite;
use crate::engine::bridge::CLIENT_ID_PREFIX;
use crate::engine::codec::Version;
use crate::engine::codec::primitive::Reader;
use crate::engine::codec::property::PropertySet;
use crate::engine::codec::publish::MessageProperties;
use crate::engine::codec::topic::{Subscribed, TopicFilter, TopicName};
use crate::engine::keys::{SessionNumber, ShardId};
use crate::engine::limits::Limits;
use crate::engine::message::{LocalMessage, Message, Qos};
use crate::engine::record::{Opened, Record, Subscription};
use crate::engine::route::home_shard;
use crate::engine::session::{Delivery, SubscriptionIds};
use crate::engine::time::Timestamp;
use crate::storage::log::writer::wall_ms;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

/// How a database begins.
const SQLITE: &[u8] = b"SQLite format 3\0";
/// How the local client identifier of Mosquitto's bridge begins, unless it is said.
const OF_BRIDGE: &str = "local.";

/// A bridge of the broker that will start with it, which goes on for one of Mosquitto's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfBridge {
    /// By what that one's session goes in the file.
    pub local_id: Box<str>,
    /// By what the session goes here.
    pub session_id: Box<str>,
    /// As whom it is here.
    pub local_user: Box<str>,
}

impl OfBridge {
    /// The one that Mosquitto's with this client identifier at the other broker becomes, unless that said
    /// what it is called at home.
    #[must_use]
    pub fn by_client_id(client_id: &str, name: &str, local_user: &str) -> Self {
        OfBridge {
            local_id: format!("{OF_BRIDGE}{client_id}").into(),
            session_id: format!("{CLIENT_ID_PREFIX}{name}").into(),
            local_user: local_user.into(),
        }
    }
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct ImportConfig {
    /// Shards of the broker that will start with it.
    pub shards: ShardId,
    /// Sessions belong to users as the file says; otherwise to clients that do not log in.
    pub users: bool,
    /// Bridges that go on for those of Mosquitto.
    pub bridges: Vec<OfBridge>,
}

/// What could not be taken, and what was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In words, one by one.
    pub left_out: Vec<String>,
    /// QoS 0 messages that waited for somebody.
    pub at_qos_0: u64,
    /// Entries of which the message is not in the file; it had expired.
    pub without_message: u64,
    /// Publishes that Mosquitto had not passed on yet.
    pub passed_on: u64,
    /// Sessions without any subscription.
    pub without_subscription: Vec<Box<str>>,
    /// Sessions that belong to users.
    pub of_users: u64,
    /// The file does not say whose sessions are.
    pub users_unknown: bool,
    /// Messages that wait for bridges, by these.
    pub for_bridges: BTreeMap<Box<str>, u64>,
    /// Chunks of unknown kinds.
    pub unknown: u64,
}

/// A session in the making.
struct Session {
    opened: Opened,
    left_at: Timestamp,
    subscriptions: BTreeMap<(Box<str>, Option<Arc<str>>), Subscription>,
    sent: Vec<Record>,
    queued: Vec<Record>,
    packet_ids: BTreeSet<u16>,
    accepted: BTreeSet<u16>,
    last_entry: u64,
}

/// The store in the making.
struct Import<'a> {
    config: ImportConfig,
    limits: Limits,
    now_ms: u64,
    report: Report,
    messages: BTreeMap<u64, Option<LocalMessage>>,
    sources: BTreeMap<u64, &'a [u8]>,
    sessions: BTreeMap<&'a str, Session>,
    counters: BTreeMap<ShardId, u64>,
    retained: BTreeMap<Box<str>, Arc<Message>>,
    /// Clients whose sessions end with their connections, ...
    ended: BTreeSet<&'a [u8]>,
    /// ... and how many messages waited for these and for such as have none.
    waited: BTreeMap<&'a [u8], u64>,
}

/// Reads Mosquitto's file and makes a store of it.
///
/// # Errors
/// It cannot be read, or the store cannot be made: then it is not there.
pub fn import(
    file: &Path,
    to: &Path,
    config: &ImportConfig,
) -> Result<(Checked, Report), ToolError> {
    let unusable = |error| ToolError::Unusable(file.to_owned(), error);
    if !std::fs::metadata(file).map_err(unusable)?.is_file() {
        let words = format!("{}: name a plain file", file.display());
        return Err(ToolError::Wrong(words));
    }
    let wrong = |error: &dyn fmt::Display| ToolError::Wrong(format!("{}: {error}", file.display()));
    let bytes = std::fs::read(file).map_err(unusable)?;
    let (shards, report) = if bytes.starts_with(SQLITE) {
        drop(bytes);
        let tables = persist_sqlite::load(file).map_err(|error| wrong(&error))?;
        let (shards, mut report) = records(&tables.persisted(), config, wall_ms());
        report
            .left_out
            .extend(tables.wills().map(|(client, topic)| {
                let (client, topic) = (shown(client), shown(topic));
                format!("the will of '{client}' (topic '{topic}'): it comes again with its client")
            }));
        (shards, report)
    } else {
        let persisted = read(&bytes).map_err(|error| wrong(&error))?;
        records(&persisted, config, wall_ms())
    };
    let draft = Draft::begin(None, to)?;
    let mut store = NewStore::begin(draft, config.shards)?;
    for (shard, records) in shards {
        store.write(shard, records.into_iter())?;
    }
    Ok((store.finish()?, report))
}

/// What each shard is to have.
#[must_use]
pub fn records(
    persisted: &Persisted<'_>,
    config: &ImportConfig,
    now_ms: u64,
) -> (BTreeMap<ShardId, Vec<Record>>, Report) {
    let mut import = Import {
        config: config.clone(),
        limits: Limits::default(),
        now_ms,
        report: Report {
            unknown: persisted.unknown,
            users_unknown: persisted.version == 5 && !persisted.clients.is_empty(),
            ..Report::default()
        },
        messages: BTreeMap::new(),
        sources: BTreeMap::new(),
        sessions: BTreeMap::new(),
        counters: BTreeMap::new(),
        retained: BTreeMap::new(),
        ended: BTreeSet::new(),
        waited: BTreeMap::new(),
    };
    for (id, stored) in &persisted.messages {
        import.message(*id, stored);
    }
    for client in &persisted.clients {
        import.client(client);
    }
    for subscription in &persisted.subscriptions {
        import.subscription(subscription);
    }
    let (incoming, outgoing): (Vec<_>, Vec<_>) = persisted
        .entries
        .iter()
        .partition(|entry| entry.state == State::Incoming);
    for entry in outgoing {
        import.entry(entry);
    }
    for id in &persisted.retained {
        import.retained(*id);
    }
    for entry in incoming {
        import.incoming(entry);
    }
    import.finish()
}

/// As it can be shown.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<'a> Import<'a> {
    fn leave_out(&mut self, words: String) {
        self.report.left_out.push(words);
    }

    fn message(&mut self, id: u64, stored: &Stored<'a>) {
        self.sources.insert(id, stored.source);
        let message = match self.converted(stored) {
            Ok(message) => Some(LocalMessage::new(Arc::new(message))),
            Err(why) => {
                self.leave_out(format!(
                    "a message of topic '{}': {why}",
                    shown(stored.topic)
                ));
                None
            }
        };
        self.messages.insert(id, message);
    }

    fn converted(&self, stored: &Stored<'a>) -> Result<Message, &'static str> {
        let topic = std::str::from_utf8(stored.topic).map_err(|_| "its topic is not UTF-8")?;
        let valid = TopicName::new(topic, self.limits.topics());
        valid.map_err(|_| "its topic is none that may be published to")?;
        let qos = Qos::from_bits(stored.qos).ok_or("its QoS does not exist")?;
        let properties = match stored.properties {
            [] => MessageProperties::default(),
            block => MessageProperties::read(&mut Reader::new(block), PropertySet::PUBLISH)
                .map_err(|_| "its properties are not those of a message")?,
        };
        let expires_at = u64::try_from(stored.expires_at).ok().filter(|at| *at > 0);
        let expires_at = expires_at.map(|at| Timestamp::from_ms(at.saturating_mul(1_000)));
        let forwarded = &properties.forwarded;
        Ok(Message::new(
            topic,
            forwarded,
            stored.payload,
            qos,
            stored.retain,
            expires_at,
        ))
    }

    fn client(&mut self, client: &Client<'a>) {
        let name = match std::str::from_utf8(client.id) {
            Ok(name) if !name.is_empty() && !name.contains('\0') => name,
            _ => return self.leave_out(format!("session '{}': not a name", shown(client.id))),
        };
        if name.starts_with(CLIENT_ID_PREFIX) {
            return self.leave_out(format!("session '{name}': it has the name of a bridge's"));
        }
        let mut bridges = self.config.bridges.iter();
        let of_bridge = bridges.find(|it| &*it.local_id == name).cloned();
        if client.expiry_seconds == 0 && of_bridge.is_none() {
            self.ended.insert(client.id);
            return;
        }
        if self.sessions.contains_key(name) {
            return self.leave_out(format!("session '{name}': it stands there twice"));
        }
        let opened = match of_bridge {
            Some(it) => self.opened(&it.session_id, Some(it.local_user), NEVER),
            None => {
                let user_name = client.user_name.filter(|_| self.config.users).map(shown);
                self.report.of_users += u64::from(user_name.is_some());
                self.opened(name, user_name.map(Into::into), client.expiry_seconds)
            }
        };
        let Some(opened) = opened else { return };
        let session = Session {
            left_at: self.left_at(client, opened.expiry_seconds),
            opened,
            subscriptions: BTreeMap::new(),
            sent: Vec::new(),
            queued: Vec::new(),
            packet_ids: BTreeSet::new(),
            accepted: BTreeSet::new(),
            last_entry: 0,
        };
        self.sessions.insert(name, session);
    }

    fn opened(
        &mut self,
        client_id: &str,
        user_name: Option<Box<str>>,
        expiry_seconds: u32,
    ) -> Option<Opened> {
        let shard = home_shard(client_id, self.config.shards);
        let counter = self.counters.entry(shard).or_default();
        *counter += 1;
        let number = NonZeroU64::new(*counter << ShardId::BITS | u64::from(shard))?;
        Some(Opened {
            session: SessionNumber(number),
            client_id: client_id.into(),
            // The next connection says which it is.
            version: Version::V5,
            user_name,
            own_rules: None,
            expiry_seconds,
            queue_bytes_max: self.limits.queue_bytes_max,
            will: None,
        })
    }

    /// Since when a session is alone: what is left of its time goes on.
    fn left_at(&self, client: &Client<'_>, expiry_seconds: u32) -> Timestamp {
        let ends_at = u64::try_from(client.expires_at).unwrap_or(0);
        let left_at = if expiry_seconds == NEVER || ends_at == 0 {
            self.now_ms
        } else {
            let left_at = ends_at.saturating_sub(expiry_seconds.into());
            left_at.saturating_mul(1_000).min(self.now_ms)
        };
        Timestamp::from_ms(left_at)
    }

    fn session(&mut self, client: &[u8]) -> Option<&mut Session> {
        self.sessions.get_mut(std::str::from_utf8(client).ok()?)
    }

    fn subscription(&mut self, it: &super::mosquitto::Subscription<'a>) {
        let (client, filter) = (shown(it.client), shown(it.filter));
        let wanted = std::str::from_utf8(it.filter).ok();
        let wanted = wanted.and_then(|text| Subscribed::new(text, self.limits.topics()).ok());
        let is_ended = self.ended.contains(it.client);
        let Some(session) = self.session(it.client) else {
            if is_ended {
                // It was told of.
                return;
            }
            let words = format!("subscription '{filter}' of '{client}': there is no such session");
            return self.leave_out(words);
        };
        let (Some(wanted), Some(qos)) = (wanted, Qos::from_bits(it.qos)) else {
            let words =
                format!("subscription '{filter}' of '{client}': none that a client may have");
            return self.leave_out(words);
        };
        let subscription = Subscription {
            session: session.opened.session,
            filter: wanted.filter.as_str().into(),
            share: wanted.share.map(Into::into),
            subscription_id: it.id,
            qos,
            no_local: it.no_local,
            retain_as_published: it.retain_as_published,
        };
        let name = (subscription.filter.clone(), subscription.share.clone());
        session.subscriptions.insert(name, subscription);
    }

    /// A message that is to be kept for a session; `None` is counted.
    fn content(&mut self, id: u64) -> Option<LocalMessage> {
        match self.messages.get(&id) {
            Some(Some(message)) => Some(message.clone()),
            // It was told of where it was read.
            Some(None) => None,
            None => {
                self.report.without_message += 1;
                None
            }
        }
    }

    fn entry(&mut self, entry: &Entry<'a>) {
        if entry.qos == 0 {
            self.report.at_qos_0 += 1;
            return;
        }
        let Some(message) = self.content(entry.message) else {
            return;
        };
        let qos = Qos::from_bits(entry.qos);
        let (Some(session), Some(qos)) = (self.session(entry.client), qos) else {
            *self.waited.entry(entry.client).or_default() += 1;
            return;
        };
        let ids = match entry.subscription_id {
            0 => SubscriptionIds::None,
            id => SubscriptionIds::One(id),
        };
        let number = session.opened.session;
        let delivery = session.delivery(message, qos, entry.retain, ids);
        let (entry_number, packet_id) = (delivery.entry, entry.packet_id);
        let is_free = entry.state != State::Queued && session.packet_ids.insert(packet_id);
        match entry.state {
            State::Sent if is_free => session.sent.extend([
                Record::Queued {
                    session: number,
                    delivery,
                    origin: None,
                },
                Record::Sent {
                    session: number,
                    entry: entry_number,
                    packet_id,
                },
            ]),
            State::Received if is_free => session.sent.push(Record::Received {
                session: number,
                entry: entry_number,
                packet_id,
            }),
            State::Queued | State::Sent | State::Received | State::Incoming => {
                session.queued.push(Record::Queued {
                    session: number,
                    delivery,
                    origin: None,
                });
            }
        }
    }

    fn retained(&mut self, id: u64) {
        if let Some(message) = self.content(id)
            && !message.payload().is_empty()
        {
            // It may have been queued for somebody by the same name, with another flag.
            let retained = if message.retain {
                message.share()
            } else {
                Arc::new(Message::new(
                    message.topic(),
                    message.properties(),
                    message.payload(),
                    message.qos,
                    true,
                    message.expires_at,
                ))
            };
            self.retained.insert(message.topic().into(), retained);
        }
    }

    /// A client's publish that waits for its release.
    fn incoming(&mut self, entry: &Entry<'a>) {
        let Some(message) = self.content(entry.message) else {
            return;
        };
        if entry.packet_id != 0
            && let Some(session) = self.session(entry.client)
        {
            session.accepted.insert(entry.packet_id);
        }
        self.report.passed_on += 1;
        let Ok(topic) = TopicName::new(message.topic(), self.limits.topics()) else {
            return;
        };
        let source = self
            .sources
            .get(&entry.message)
            .copied()
            .unwrap_or_default();
        for (name, session) in &mut self.sessions {
            let wanted = session.wanted(topic, name.as_bytes() == source);
            let qos = wanted.iter().map(|it| it.qos).max();
            let Some(qos) = qos
                .map(|qos| qos.min(message.qos))
                .filter(|it| *it > Qos::AtMostOnce)
            else {
                continue;
            };
            let retain = message.retain && wanted.iter().any(|it| it.retain_as_published);
            let ids = wanted
                .iter()
                .map(|it| it.subscription_id)
                .filter(|id| *id > 0);
            let ids = match ids.collect::<Vec<u32>>().as_slice() {
                [] => SubscriptionIds::None,
                [id] => SubscriptionIds::One(*id),
                ids => SubscriptionIds::Many(ids.into()),
            };
            let delivery = session.delivery(message.clone(), qos, retain, ids);
            let session_number = session.opened.session;
            session.queued.push(Record::Queued {
                session: session_number,
                delivery,
                origin: None,
            });
        }
        if message.retain {
            match message.payload().is_empty() {
                true => drop(self.retained.remove(message.topic())),
                false => drop(
                    self.retained
                        .insert(message.topic().into(), message.share()),
                ),
            }
        }
    }

    /// Which sessions are not taken, with what waited in them: a line for each.
    fn tell_waited(&mut self) {
        for client in &self.ended {
            if !self.waited.contains_key(client) {
                let words = format!("session '{}': it ends with its connection", shown(client));
                self.report.left_out.push(words);
            }
        }
        for (client, messages) in std::mem::take(&mut self.waited) {
            let what = if messages == 1 { "message" } else { "messages" };
            let remedy = "let it run empty before Mosquitto is stopped";
            let id = shown(client);
            let is_ended = self.ended.contains(client);
            self.leave_out(match id.strip_prefix(OF_BRIDGE) {
                Some(there) => format!(
                    "{messages} {what} that waited for the bridge '{id}': they are not taken; {remedy}, or \
                     name by --config a configuration whose bridge has client_id = \"{there}\" (persistent, \
                     one connection)"
                ),
                None if is_ended => format!(
                    "{messages} {what} that waited for '{id}', whose session ends with its connection: they \
                     are not taken; if it is a bridge of Mosquitto's, {remedy}"
                ),
                None => format!(
                    "{messages} {what} that waited for '{id}': there is no such session; if it is a bridge \
                     of Mosquitto's, {remedy}"
                ),
            });
        }
    }

    fn finish(mut self) -> (BTreeMap<ShardId, Vec<Record>>, Report) {
        self.tell_waited();
        let mut shards: BTreeMap<ShardId, Vec<Record>> = BTreeMap::new();
        for (name, session) in std::mem::take(&mut self.sessions) {
            if session.subscriptions.is_empty() {
                self.report.without_subscription.push(name.into());
            }
            let messages = session.messages();
            let client_id = &session.opened.client_id;
            if client_id.starts_with(CLIENT_ID_PREFIX) && messages > 0 {
                self.report
                    .for_bridges
                    .insert((**client_id).into(), messages);
            }
            let shard = home_shard(client_id, self.config.shards);
            session.put_records(shards.entry(shard).or_default());
        }
        for (topic, message) in self.retained {
            let shard = home_shard(&topic, self.config.shards);
            let records = shards.entry(shard).or_default();
            records.push(Record::Retained { message });
        }
        (shards, self.report)
    }
}

impl Session {
    fn delivery(
        &mut self,
        message: LocalMessage,
        qos: Qos,
        retain: bool,
        subscription_ids: SubscriptionIds,
    ) -> Delivery {
        self.last_entry += 1;
        Delivery {
            message,
            qos,
            retain,
            subscription_ids,
            group: None,
            entry: self.last_entry,
            queued_at_ds: 0,
        }
    }

    /// Messages that wait for it.
    fn messages(&self) -> u64 {
        let is_one = |it: &&Record| matches!(it, Record::Queued { .. } | Record::Received { .. });
        self.sent.iter().chain(&self.queued).filter(is_one).count() as u64
    }

    /// Its subscriptions to a topic that it, or somebody else, publishes to.
    fn wanted(&self, topic: TopicName<'_>, is_own: bool) -> Vec<&Subscription> {
        let all = self.subscriptions.values();
        let matching = all.filter(|it| {
            it.share.is_none()
                && !(it.no_local && is_own)
                && TopicFilter::trusted(&it.filter).matches(topic)
        });
        matching.collect()
    }

    fn put_records(self, records: &mut Vec<Record>) {
        let session = self.opened.session;
        records.push(Record::Opened(Box::new(self.opened)));
        let subscriptions = self.subscriptions.into_values();
        records.extend(subscriptions.map(|it| Record::Subscribed(Box::new(it))));
        records.extend(self.sent);
        records.extend(self.queued);
        let accepted = self.accepted.into_iter();
        records.extend(accepted.map(|packet_id| Record::Accepted {
            session,
            packet_id,
            number: 0,
        }));
        let at = self.left_at;
        records.push(Record::Left { session, at });
    }
}

#[cfg(test)]
mod tests {
    use super::super::mosquitto;
    use super::*;

    fn stored(topic: &'static [u8]) -> Stored<'static> {
        Stored {
            expires_at: 0,
            source: b"",
            topic,
            payload: b"x",
            properties: b"",
            qos: 1,
            retain: false,
        }
    }

    fn client(id: &'static [u8]) -> Client<'static> {
        Client {
            id,
            user_name: Some(b"user"),
            expires_at: 0,
            expiry_seconds: NEVER,
        }
    }

    fn entry(client: &'static [u8], message: u64, packet_id: u16) -> Entry<'static> {
        Entry {
            client,
            message,
            packet_id,
            qos: 1,
            retain: false,
            state: State::Sent,
            subscription_id: 0,
        }
    }

    const CONFIG: ImportConfig = ImportConfig {
        shards: 3,
        users: true,
        bridges: Vec::new(),
    };

    #[test]
    fn what_cannot_be_taken_is_named() {
        let subscription = |client, filter| mosquitto::Subscription {
            client,
            filter,
            id: 0,
            qos: 1,
            no_local: false,
            retain_as_published: false,
        };
        let short = Client {
            expiry_seconds: 0,
            ..client(b"short")
        };
        let shortest = Client {
            expiry_seconds: 0,
            ..client(b"shortest")
        };
        let persisted = Persisted {
            messages: BTreeMap::from([
                (1, stored(b"good")),
                (2, stored(b"wild/#")),
                (3, stored(b"\xFF")),
            ]),
            clients: vec![client(b"a"), client(b"a"), client(b"\xFF"), short, shortest],
            subscriptions: vec![
                subscription(b"a", b"x/#/y"),
                subscription(b"none", b"x"),
                subscription(b"short", b"x"),
            ],
            entries: vec![
                entry(b"a", 1, 1),
                entry(b"a", 1, 1),
                entry(b"a", 2, 2),
                entry(b"a", 9, 3),
                entry(b"none", 1, 4),
                entry(b"short", 1, 1),
                entry(b"short", 1, 2),
                entry(b"local.site7", 1, 1),
                entry(b"local.site7", 1, 2),
                entry(b"local.site7", 1, 3),
            ],
            ..Persisted::default()
        };
        let (shards, report) = records(&persisted, &CONFIG, 1_000);
        let all = report.left_out.join("\n");
        for part in [
            "topic 'wild/#'",
            "topic '\u{FFFD}'",
            "session 'a': it stands there twice",
            "session '\u{FFFD}': not a name",
            "session 'shortest': it ends with its connection",
            "subscription 'x/#/y' of 'a'",
            "subscription 'x' of 'none': there is no such session",
            "1 message that waited for 'none': there is no such session; if it is a bridge",
            "2 messages that waited for 'short', whose session ends with its connection",
            "3 messages that waited for the bridge 'local.site7': they are not taken; let it run empty",
        ] {
            assert!(all.contains(part), "no '{part}' in {all}");
        }
        assert_eq!((report.left_out.len(), report.without_message), (10, 1));
        assert_eq!((report.of_users, report.without_subscription.len()), (1, 1));
        // One of two messages has the packet identifier, the other is sent anew.
        let records: Vec<_> = shards.into_values().flatten().collect();
        let count = |is: fn(&Record) -> bool| records.iter().filter(|it| is(it)).count();
        assert_eq!(count(|it| matches!(it, Record::Queued { .. })), 2);
        assert_eq!(count(|it| matches!(it, Record::Sent { .. })), 1);
    }

    #[test]
    fn what_waits_for_a_bridge_goes_to_the_one_that_goes_on_for_it() {
        let bridge = OfBridge::by_client_id("site7", "hq", "bridge-hq");
        let config = ImportConfig {
            bridges: vec![bridge],
            ..CONFIG
        };
        let short = |id| Client {
            expiry_seconds: 0,
            ..client(id)
        };
        let persisted = Persisted {
            messages: BTreeMap::from([(1, stored(b"t"))]),
            clients: vec![
                short(b"local.site7"),
                short(b"local.site8"),
                client(b"$bridge/hq"),
            ],
            entries: vec![
                entry(b"local.site7", 1, 1),
                entry(b"local.site7", 1, 2),
                entry(b"local.site8", 1, 1),
            ],
            ..Persisted::default()
        };
        let (shards, report) = records(&persisted, &config, 1_000);
        assert_eq!(report.for_bridges, [("$bridge/hq".into(), 2)].into());
        let all = report.left_out.join("\n");
        assert!(
            all.contains("'$bridge/hq': it has the name of a bridge's"),
            "{all}"
        );
        assert!(all.contains("client_id = \"site8\""), "{all}");
        assert_eq!((report.left_out.len(), report.of_users), (2, 0));
        let home = home_shard("$bridge/hq", CONFIG.shards);
        assert_eq!(shards.keys().collect::<Vec<_>>(), [&home]);
        let opened = shards[&home].iter().find_map(|record| match record {
            Record::Opened(opened) => Some(opened),
            _ => None,
        });
        let opened = opened.expect("a session");
        let user = opened.user_name.as_deref();
        assert_eq!(
            (&*opened.client_id, user),
            ("$bridge/hq", Some("bridge-hq"))
        );
        assert_eq!(opened.expiry_seconds, NEVER);
    }

    #[test]
    fn what_is_left_of_a_session_is_left_here() {
        let now_ms = 1_000_000_000;
        let ends = Client {
            expires_at: 999_999,
            expiry_seconds: 100,
            ..client(b"ends")
        };
        let persisted = Persisted {
            clients: vec![ends, client(b"never")],
            ..Persisted::default()
        };
        let shards = records(&persisted, &CONFIG, now_ms).0;
        let left = shards
            .into_values()
            .flatten()
            .filter_map(|record| match record {
                Record::Left { at, .. } => Some(at.as_ms()),
                _ => None,
            });
        let mut left: Vec<_> = left.collect();
        left.sort_unstable();
        assert_eq!(left, [999_899_000, now_ms]);
    }
}

//! What operators ask shards, and what these tell: questions, rows of answers, and how they are put in order.

use crate::engine::codec::Reason;
use crate::engine::message::Qos;
use crate::shard::trace::TraceOrder;
use bytes::Bytes;
use ipnet::IpNet;
use serde::Serialize;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// A question to a shard.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// To be told with the answer.
    pub number: u64,
    /// Nobody waits for the answer any more then.
    pub by: Instant,
    /// What is asked.
    pub asked: Arc<Asked>,
}

/// Where a row stands among others: by descending rank, then by name.
pub type Place = (Reverse<u64>, String);

/// What is asked.
#[derive(Debug)]
pub enum Asked {
    /// Clients, so many from a place on.
    Clients {
        /// Which.
        wanted: Wanted,
        /// In which order.
        sort: Sort,
        /// Behind this one.
        after: Option<Place>,
        /// So many at most.
        max: usize,
    },
    /// One client whole.
    Client(String),
    /// Disconnect a client.
    Disconnect {
        /// Which.
        client_id: String,
        /// Told to it.
        reason: Reason,
        /// Told to it, and to the log.
        text: String,
    },
    /// End a session, and its connection.
    EndSession {
        /// Whose.
        client_id: String,
        /// Told to it, and to the log.
        text: String,
    },
    /// End the session of a bridge that is no more, and what the other broker keeps of it.
    EndBridge {
        /// Its client identifier here.
        client_id: Box<str>,
        /// Told to the log.
        text: String,
    },
    /// Ask again for what a bridge was not granted here: other rules are in force.
    AskAgain {
        /// Client identifier of the bridge's session here.
        client_id: Box<str>,
    },
    /// Subscriptions to exactly a filter.
    Subscriptions {
        /// Without share name.
        filter: String,
        /// Behind this one.
        after: Option<Place>,
        /// So many at most.
        max: usize,
    },
    /// Who would get a message.
    Receivers {
        /// To this topic.
        topic: String,
        /// Of this QoS.
        qos: Qos,
        /// Published by this client.
        publisher: Option<String>,
        /// Behind this one.
        after: Option<Place>,
        /// So many at most.
        max: usize,
    },
    /// Retained messages that match a filter.
    Retained {
        /// The filter.
        filter: String,
        /// Behind this topic.
        after: Option<String>,
        /// So many at most.
        max: usize,
    },
    /// The retained message of a topic, with its payload.
    RetainedMessage(String),
    /// Accept nobody any more, and send clients away.
    Drain {
        /// At this listener; `None` for all.
        listener: Option<u16>,
        /// So many per second on all shards together; 0 for none.
        per_second: u32,
    },
    /// Follow something and tell of it from now on.
    Trace(TraceOrder),
    /// Publish something.
    Publish {
        /// To this topic.
        topic: String,
        /// This.
        payload: Bytes,
        /// At this QoS.
        qos: Qos,
        /// Whether it becomes the topic's retained message.
        retain: bool,
    },
}

/// Which clients are wanted; what is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Their identifiers begin so.
    pub id_prefix: Option<String>,
    /// Their user name.
    pub user: Option<String>,
    /// Their address is in it.
    pub network: Option<IpNet>,
    /// Number of their listener.
    pub listener: Option<u16>,
    /// Whether they are there.
    pub is_connected: Option<bool>,
}

/// In which order clients are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By identifier.
    #[default]
    Id,
    /// Most bytes that wait first.
    Queue,
    /// Most messages that wait or are not acknowledged first.
    Messages,
    /// Whose oldest message has waited longest first.
    Wait,
    /// Most bytes in both directions first.
    Bytes,
    /// Most messages lost first.
    Drops,
    /// Who has been there, or away, longest first.
    Age,
}

/// What a shard tells.
#[derive(Debug)]
pub enum Told {
    /// Clients, and how many are wanted in all.
    Clients(Vec<(Place, ClientRow)>, u64),
    /// One client whole, if it is here, and what went wrong for it here, newest first.
    Client(Option<Box<ClientWhole>>, Vec<Mishap>),
    /// Whether it was done: who it was for was here.
    Done(bool),
    /// Subscriptions, how many there are in all, and whether their publisher may publish there, if it is
    /// here.
    Subscribers(Vec<(Place, SubscriberRow)>, u64, Option<bool>),
    /// Retained messages in the order of their topics.
    Retained(Vec<RetainedRow>),
    /// The retained message of a topic.
    RetainedMessage(Option<(RetainedRow, Bytes)>),
}

/// A client, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClientRow {
    /// Client identifier.
    pub client_id: String,
    /// User name; null for anonymous clients.
    pub user: Option<String>,
    /// Whether it is connected.
    pub connected: bool,
    /// Where it is, while it is connected; null through a socket in the file system.
    pub address: Option<String>,
    /// Where it came in, while it is connected.
    pub listener: Option<String>,
    #[serde(skip)]
    #[schema(ignore)]
    /// Its number.
    pub listener_number: Option<u16>,
    /// Protocol version of its last connection; null for a bridge without a line.
    pub version: Option<String>,
    /// Seconds for which it has been connected, or away.
    pub since_seconds: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Messages that wait in its session.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Messages that it has not acknowledged.
    pub inflight_messages: u64,
    /// Bytes that wait to be sent to it.
    pub unsent_bytes: u64,
    /// Milliseconds for which the oldest of what waits for it has waited, in its session or for its socket; 0
    /// if nothing waits, or that is not known.
    pub waits_ms: u64,
    /// Messages that it did not get since its session began.
    pub dropped_messages: u64,
    /// Bytes from it by this connection, without TLS and WebSocket.
    pub received_bytes: u64,
    /// Bytes to it by this connection, without TLS and WebSocket.
    pub sent_bytes: u64,
    /// Messages from it by this connection.
    pub received_messages: u64,
    /// Messages to it by this connection.
    pub sent_messages: u64,
}

/// A client with all that there is to see of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ClientWhole {
    /// In short.
    #[serde(flatten)]
    pub row: ClientRow,
    /// The shard that has it.
    pub shard: u16,
    /// Seconds that its session outlives its connection; 4294967295 is never ending.
    pub session_expiry_seconds: u32,
    /// Seconds until its session ends, while it is away and that is known.
    pub session_ends_in_seconds: Option<u64>,
    /// Seconds since it was heard last.
    pub silent_seconds: Option<u64>,
    /// Milliseconds of silence after which it is disconnected; 0 for never.
    pub silence_ms_max: Option<u64>,
    /// QoS 1 and 2 messages that may be on their way to it at a time.
    pub inflight_max: Option<u16>,
    /// Largest packet that it takes.
    pub packet_bytes_max: Option<u32>,
    /// Whether it is not read for now because it takes too little.
    pub paused: bool,
    /// QoS 2 messages from it that are not complete.
    pub unfinished_messages: u64,
    /// Messages that wait behind retained ones.
    pub held_messages: u64,
    /// Bytes that its session holds.
    pub session_bytes: u64,
    /// The topic of its will, while that is in force.
    pub will_topic: Option<String>,
    /// How it has shown who it is.
    pub method: Option<String>,
    /// What was agreed on by TLS; null where its bytes come in the clear.
    pub tls: Option<TlsRow>,
    /// The first of its subscriptions.
    pub filters: Vec<Subscription>,
    /// How fast messages and bytes come and go; null unless that was asked for (`over_ms`), and where it has
    /// connected anew meanwhile.
    pub rates: Option<ClientRates>,
    /// What went wrong for it, newest first.
    pub last_errors: Vec<Mishap>,
}

/// How fast messages and bytes of a client come and go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ClientRates {
    /// Milliseconds for which it was looked at.
    pub over_ms: u64,
    /// Messages from it.
    pub received_messages_per_second: f64,
    /// Messages to it.
    pub sent_messages_per_second: f64,
    /// Bytes from it, without TLS and WebSocket.
    pub received_bytes_per_second: f64,
    /// Bytes to it.
    pub sent_bytes_per_second: f64,
}

impl ClientRates {
    /// Of the time between two looks at a client; `None` if it has connected anew in between.
    #[must_use]
    pub fn between(before: &ClientRow, now: &ClientRow, over_ms: u64) -> Option<Self> {
        let per_second = |of: fn(&ClientRow) -> u64| {
            let more = of(now).checked_sub(of(before))?;
            let tenths = more as f64 * 10_000.0 / over_ms.max(1) as f64;
            Some(tenths.round() / 10.0)
        };
        let is_same = before.connected && now.connected;
        is_same.then_some(())?;
        Some(ClientRates {
            over_ms,
            received_messages_per_second: per_second(|row| row.received_messages)?,
            sent_messages_per_second: per_second(|row| row.sent_messages)?,
            received_bytes_per_second: per_second(|row| row.received_bytes)?,
            sent_bytes_per_second: per_second(|row| row.sent_bytes)?,
        })
    }
}

/// Something that went wrong for a client, once or more often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Mishap {
    /// When it did so last, in milliseconds since 1970.
    pub at_ms: u64,
    /// So many seconds ago.
    pub seconds_ago: u64,
    /// How often; of messages that were lost, how many.
    pub count: u64,
    /// What, and by which limit or key.
    pub text: String,
}

/// What a client and the broker have agreed on by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct TlsRow {
    /// Version of TLS.
    pub version: String,
    /// Cipher suite.
    pub cipher_suite: String,
    /// The server name that the client has asked for.
    pub server_name: Option<String>,
    /// Subject and serial number of the certificate that it has shown.
    pub certificate: Option<String>,
    /// Seconds until that ends, or one of a CA's between that it has shown.
    pub ends_in_seconds: Option<u64>,
}

/// A subscription of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Subscription {
    /// Its filter, with the share name.
    pub filter: String,
    /// Highest QoS.
    pub qos: u8,
    /// Leaves out what the client itself publishes.
    pub no_local: bool,
}

/// A subscription of somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SubscriberRow {
    /// Whose it is.
    pub client_id: String,
    /// User name; null for anonymous clients.
    pub user: Option<String>,
    /// Whether it is connected.
    pub connected: bool,
    /// The subscription.
    #[serde(flatten)]
    pub subscription: Subscription,
    /// Whether the client would get the message; null for one of several of a share group, and where no
    /// message is asked about.
    pub gets: Option<bool>,
    /// Why, or why not.
    pub why: Option<Cow<'static, str>>,
}

/// A retained message without its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct RetainedRow {
    /// Its topic.
    pub topic: String,
    /// QoS that it was published with.
    pub qos: u8,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// Seconds until it expires, if it does.
    pub expires_in_seconds: Option<u64>,
}

/// The first rows in order, of more than are wanted.
#[derive(Debug)]
pub struct Best<R> {
    max: usize,
    after: Option<Place>,
    rows: BTreeMap<Place, R>,
    /// How many there were in all.
    pub count: u64,
}

impl<R> Best<R> {
    /// So many behind that place.
    #[must_use]
    pub fn new(after: Option<&Place>, max: usize) -> Self {
        Best {
            max,
            after: after.cloned(),
            rows: BTreeMap::new(),
            count: 0,
        }
    }

    /// One more, made if it is among them.
    pub fn offer(&mut self, rank: u64, name: &str, make: impl FnOnce() -> R) {
        self.count += 1;
        let is_behind = |place: &Place| (Reverse(rank), name) > (place.0, place.1.as_str());
        if !self.after.as_ref().is_none_or(is_behind) {
            return;
        }
        let is_full = self.rows.len() >= self.max;
        if is_full
            && self
                .rows
                .last_key_value()
                .is_none_or(|(last, _)| is_behind(last))
        {
            return;
        }
        self.rows.insert((Reverse(rank), name.to_owned()), make());
        if is_full {
            self.rows.pop_last();
        }
    }

    /// In order.
    #[must_use]
    pub fn take(&mut self) -> Vec<(Place, R)> {
        std::mem::take(&mut self.rows).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_one_connection() {
        let row = |received_messages, sent_bytes| ClientRow {
            connected: true,
            received_messages,
            sent_bytes,
            ..ClientRow::default()
        };
        let rates = ClientRates::between(&row(10, 0), &row(25, 600), 500).unwrap();
        assert_eq!(rates.received_messages_per_second, 30.0);
        assert_eq!(rates.sent_bytes_per_second, 1_200.0);
        assert_eq!(ClientRates::between(&row(10, 0), &row(2, 600), 500), None);
        let away = ClientRow::default();
        assert_eq!(ClientRates::between(&away, &row(2, 600), 500), None);
    }

    #[test]
    fn the_first_rows_are_found_page_by_page() {
        let all = [("c", 1), ("a", 5), ("b", 5), ("e", 0), ("d", 9)];
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let mut best = Best::new(after.as_ref(), 2);
            for (name, rank) in all {
                best.offer(rank, name, || name);
            }
            assert_eq!(best.count, 5);
            let rows = best.take();
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            seen.extend(rows.into_iter().map(|(_, row)| row));
        }
        assert_eq!(seen, ["d", "a", "b", "c", "e"]);
    }
}

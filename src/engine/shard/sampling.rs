//! How long it takes from the bytes of a publish to those of its deliveries and its PUBACK, by samples.
//!
//! The shell says what time it is when a turn begins and when its sends are handed over. Once a millisecond
//! at most the first publish of a turn is followed: to one of its receivers here, to one on each other shard,
//! and to its own answer. All that others pay for it is the question whether a sample is wanted.
//!
//! Not measured: what waits in a session's queue, what is delivered over several turns, share groups.

use super::ShardCore;
use crate::engine::codec::publish::Publish;
use crate::engine::codec::topic::TopicName;
use crate::engine::keys::ConnectionKey;
use crate::engine::mail::{Mail, Phase};
use crate::engine::message::Qos;
use crate::engine::route::ShardSet;
use crate::engine::telemetry::latency::Latencies;
use crate::engine::time::Timestamp;
use std::mem;
use std::sync::Arc;

/// Microseconds between samples, at least.
const INTERVAL_US: u64 = 1_000;
/// Samples that are not over.
const OPEN_MAX: usize = 64;

/// What is followed.
#[derive(Default)]
pub(super) struct Sampling {
    /// The next publish is to be followed.
    pub is_due: bool,
    /// When the turn began.
    pub now_us: u64,
    /// When a sample was begun last.
    begun_us: u64,
    open: Vec<Sample>,
    latencies: Latencies,
}

/// Something that goes out by a connection's next batch.
struct Sample {
    connection: ConnectionKey,
    since_us: u64,
    what: What,
}

enum What {
    Delivery {
        qos: Qos,
        is_local: bool,
    },
    /// An answer, which has left when so many have.
    Puback {
        taken: u64,
    },
}

impl Sampling {
    fn open(&mut self, connection: ConnectionKey, since_us: u64, what: What) {
        if self.open.len() < OPEN_MAX {
            self.open.push(Sample {
                connection,
                since_us,
                what,
            });
        }
    }
}

impl ShardCore {
    /// A turn begins, so many microseconds after a moment that is the same for all shards.
    pub fn begin_samples(&mut self, now_us: u64) {
        let sampling = &mut self.sampling;
        sampling.now_us = now_us;
        sampling.is_due |= now_us.saturating_sub(sampling.begun_us) >= INTERVAL_US;
    }

    /// Whether something is followed.
    #[must_use]
    pub fn has_samples(&self) -> bool {
        !self.sampling.open.is_empty()
    }

    /// What a turn sends is handed over: samples that went with it are over.
    pub fn end_samples(&mut self, now_us: u64) {
        let mut open = mem::take(&mut self.sampling.open);
        let latencies = &mut self.sampling.latencies;
        open.retain(|sample| {
            let Some(connection) = self.clients.connections.get(sample.connection) else {
                return false;
            };
            let us = now_us.saturating_sub(sample.since_us);
            match sample.what {
                _ if connection.is_ready => return true,
                What::Puback { taken } if connection.awaiting_store.taken() < taken => return true,
                What::Puback { .. } => latencies.add_puback(us),
                What::Delivery { qos, is_local } => latencies.add_delivery(qos, is_local, us),
            }
            false
        });
        self.sampling.open = open;
    }

    /// What was measured.
    #[must_use]
    pub const fn latencies(&self) -> &Latencies {
        &self.sampling.latencies
    }

    /// A client's PUBLISH that is followed.
    #[cold]
    #[inline(never)]
    pub(super) fn publish_sampled(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        publish: &Publish<'_>,
    ) {
        let since_us = self.sampling.now_us;
        self.sampling.is_due = false;
        self.sampling.begun_us = since_us;
        self.publish(now, key, publish);
        let Ok(topic) = TopicName::new(publish.topic, self.settings.limits.topics()) else {
            return;
        };
        let Some(publisher) = self.clients.connections.get(key) else {
            return;
        };
        if publish.qos == Qos::AtLeastOnce {
            let taken = publisher.awaiting_store.put();
            self.sampling.open(key, since_us, What::Puback { taken });
        }
        for shard in self.follow(topic, publish.qos, since_us, true).iter() {
            let followed = Mail::Sampled {
                topic: Arc::from(publish.topic),
                qos: publish.qos,
                since_us,
            };
            self.stage(Phase::Live, shard, followed);
        }
    }

    /// What came from another shard just before is followed here.
    pub(super) fn follow_from_shard(&mut self, topic: &str, qos: Qos, since_us: u64) {
        self.follow(TopicName::trusted(topic), qos, since_us, false);
    }

    /// Follows a publish to one of its receivers; the other shards that have some.
    fn follow(
        &mut self,
        topic: TopicName<'_>,
        qos: Qos,
        since_us: u64,
        is_local: bool,
    ) -> ShardSet {
        let mut shards = ShardSet::default();
        if self.fans_out() {
            return shards;
        }
        let nodes = self.last_match.take(&self.trie, topic);
        let mut receiver = None;
        for entry in nodes.iter().filter_map(|&node| self.trie.entry(node)) {
            shards.add_all(entry.remote);
            receiver = receiver.or_else(|| entry.local.first());
        }
        if let Some(subscriber) = receiver
            && let Some(session) = self.clients.sessions.get(subscriber.session)
            && let Some(key) = session.connection
            && let Some(connection) = self.clients.connections.get(key)
            && connection.is_ready
        {
            let qos = qos.min(subscriber.qos);
            self.sampling
                .open(key, since_us, What::Delivery { qos, is_local });
        }
        self.last_match.keep(nodes);
        shards
    }
}

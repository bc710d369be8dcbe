//! What a shard tells of itself when it is asked.

use crate::engine::telemetry::histogram::Histogram;
use crate::engine::telemetry::latency::Latencies;
use crate::engine::telemetry::talkers::Loudest;
use crate::engine::telemetry::traffic::Traffic;

/// Slow clients, and loud ones and topics, that a shard tells of.
pub const SLOW_MAX: usize = 100;

/// A client that is slow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slow {
    /// Its identifier.
    pub client_id: String,
    /// For so long its oldest message has waited.
    pub waits_ms: u64,
    /// Messages that wait in its session, or are not acknowledged.
    pub messages: u64,
    /// Bytes that wait in its session and for its socket.
    pub bytes: u64,
    /// Messages that it has lost since its session began.
    pub dropped_messages: u64,
}

/// What waits for a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Client identifier of its session.
    pub client_id: Box<str>,
    /// Messages in its queue.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// For so long the oldest of them has waited.
    pub oldest_ms: u64,
    /// Messages that were sent and are not acknowledged.
    pub in_flight: u64,
    /// Messages that it has lost here since its session began.
    pub dropped: u64,
}

/// Counts since the shard began, and gauges as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names and values, in a fixed order.
    pub counts: Vec<(&'static str, u64)>,
    /// Packets by type.
    pub traffic: Traffic,
    /// How long turns took.
    pub turns: Histogram,
    /// How long turns that another one followed at once took with the kernel's part: so long may a client
    /// have waited for its next turn.
    pub rounds: Histogram,
    /// How long clients waited.
    pub latencies: Latencies,
    /// Slow clients, slowest first, as the last look found them.
    pub slow: Vec<Slow>,
    /// What waits for bridges whose sessions are there.
    pub bridges: Vec<Waiting>,
    /// Who publishes most, and where to.
    pub loudest: Loudest,
}

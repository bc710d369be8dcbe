//! What a shard tells of itself when it is asked.

use crate::engine::telemetry::histogram::Histogram;
use crate::engine::telemetry::latency::Latencies;
use crate::engine::telemetry::traffic::Traffic;

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
}

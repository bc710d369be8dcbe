//! What a line counts, by the names that metrics have.

use crate::engine::codec::Reason;

/// What went through a line, and what it has ended itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Messages to the remote broker.
    pub messages_out: u64,
    /// Messages from it.
    pub messages_in: u64,
    /// Dropped: they have been where they would go, or have left too many brokers.
    pub dropped_hops: u64,
    /// Dropped: larger than the other side takes.
    pub dropped_too_large: u64,
    /// Dropped: no rule names their topic, or it is none on the other side.
    pub dropped_topic: u64,
    /// Not taken by the remote broker, which says so, ...
    pub refused_remote: u64,
    /// ... the last of them for this reason.
    pub refused_by: Option<Reason>,
    /// Times that the remote broker broke the protocol.
    pub breaches: u64,
}

impl LineCounts {
    /// So much more.
    pub fn add(&mut self, more: &LineCounts) {
        self.messages_out += more.messages_out;
        self.messages_in += more.messages_in;
        self.dropped_hops += more.dropped_hops;
        self.dropped_too_large += more.dropped_too_large;
        self.dropped_topic += more.dropped_topic;
        self.refused_remote += more.refused_remote;
        self.refused_by = more.refused_by.or(self.refused_by);
        self.breaches += more.breaches;
    }

    /// Messages that the line has ended itself.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped_hops + self.dropped_too_large + self.dropped_topic
    }

    /// All by their names.
    #[must_use]
    pub const fn list(&self) -> [(&'static str, u64); 7] {
        [
            ("bridge_messages_out", self.messages_out),
            ("bridge_messages_in", self.messages_in),
            ("bridge_messages_rejected", self.refused_remote),
            ("bridge_protocol_errors", self.breaches),
            ("dropped_bridge_hops", self.dropped_hops),
            ("dropped_bridge_too_large", self.dropped_too_large),
            ("dropped_bridge_topic", self.dropped_topic),
        ]
    }
}

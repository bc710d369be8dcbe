//! Every bound of the broker: its name, its default and why, and the relations between them.
//!
//! The names are the keys of the `[limits]` section. What happens at each bound is written in
//! `ARCHITECTURE.md`; each has a counter in `telemetry::counters`.

use crate::engine::codec::topic::TopicLimits;

/// What becomes of a message that does not fit into the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueFull {
    /// It is dropped.
    #[default]
    DropNewest,
    /// The oldest one is, in its favour.
    DropOldest,
    /// The client is disconnected with quota exceeded; what is queued stays.
    Disconnect,
}

/// Bounds of its queue that one session has for itself, as a bridge may; those that are not said are as for
/// any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnQueue {
    /// Most bytes.
    pub bytes_max: Option<usize>,
    /// Most messages.
    pub messages_max: Option<usize>,
    /// Longest wait in milliseconds.
    pub age_ms_max: Option<u64>,
    /// What happens beyond.
    pub full: Option<QueueFull>,
    /// Whether it is told when something comes to wait while nobody is connected.
    pub tells: bool,
}

/// Bounds in force, fixed when the broker starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Work of one turn of a shard, in deliveries; what costs about as much counts as one. What is beyond
    /// waits for the next turn.
    pub turn_deliveries_max: usize,
    /// Batches that one turn of a shard hands to sockets.
    pub turn_sends_max: usize,
    /// Bytes that one turn of a shard hands to sockets, as far as their send buffers take them at once; at
    /// least one batch.
    pub turn_send_bytes_max: usize,
    /// Microseconds that a turn should take at most: after two longer ones the next do less.
    pub turn_us_goal: u64,
    /// Microseconds for which what comes may gather before a shard wakes, while much comes; 0 for never.
    pub gather_us_max: u64,
    /// Letters that one shard's mailbox holds for another. A full one holds up who publishes to that shard.
    pub mailbox_letters_max: usize,
    /// Largest packet a client may send, fixed header included.
    pub max_packet_bytes: usize,
    /// Longest topic name or filter.
    pub topic_bytes_max: usize,
    /// Most levels of a topic name or filter.
    pub topic_levels_max: usize,
    /// Most filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_per_subscribe_max: usize,
    /// Most subscriptions of one session.
    pub subscriptions_per_session_max: usize,
    /// Most unacknowledged QoS 1 and 2 messages from the broker to one client.
    pub inflight_max: u16,
    /// Most unacknowledged QoS 1 and 2 messages from one client to the broker.
    pub receive_maximum: u16,
    /// Most connections of all shards together.
    pub connections_max: usize,
    /// Most connections of all shards together that are not let in yet.
    pub connecting_max: usize,
    /// Of these, from one address; 0 for half of them.
    pub connecting_per_address_max: usize,
    /// Most connections accepted per second by all shards together, 0 for no limit.
    pub connect_rate_max: u64,
    /// Longest turn of a shard after which it accepts nobody for a moment.
    pub accept_lag_ms_max: u64,
    /// How long a client may take to send its whole CONNECT.
    pub connect_timeout_ms: u64,
    /// How long a client that comes again waits until what it had sent by its older connection is handled,
    /// 0 for not at all.
    pub takeover_wait_ms: u64,
    /// Largest CONNECT.
    pub connect_bytes_max: usize,
    /// Memory of the process, and of the kernel for it, that is defended step by step ([`super::overload`]),
    /// 0 for three quarters of what machine and control groups allow.
    pub memory_max_bytes: u64,
    /// Most bytes that the kernel holds to be sent to one client, 0 for what the system gives; so are the
    /// next two.
    pub socket_send_bytes_max: usize,
    /// Of these, bytes that wait for the client to take what was sent before.
    pub socket_unsent_bytes_max: u32,
    /// Most bytes that the kernel holds of what one client has sent.
    pub socket_receive_bytes_max: usize,
    /// Seconds without a byte after which the kernel asks a TCP peer whether it is there, 0 for never.
    pub tcp_keepalive_idle_seconds: u32,
    /// Seconds between two such questions.
    pub tcp_keepalive_interval_seconds: u32,
    /// Unanswered questions after which the peer counts as gone.
    pub tcp_keepalive_probes_max: u32,
    /// Most bytes waiting to be sent to one client, those in flight included.
    pub outbox_bytes_max: usize,
    /// Most messages waiting in one session for its window or its client's return.
    pub queue_messages_max: usize,
    /// Most bytes of messages waiting in one session.
    pub queue_bytes_max: usize,
    /// Most retained messages of all shards together.
    pub retained_messages_max: usize,
    /// Most bytes of retained messages of all shards together.
    pub retained_bytes_max: usize,
    /// Most topic aliases a client may use toward the broker.
    pub topic_alias_max: u16,
    /// Most topic aliases the broker uses toward one client.
    pub topic_alias_out_max: u16,
    /// Most connections from one address, 0 for no limit.
    pub connections_per_address_max: usize,
    /// Most messages per second from one client, 0 for no limit; so are the next three.
    pub publish_rate_max: u64,
    /// Most bytes of publishes per second from one client.
    pub publish_bytes_rate_max: u64,
    /// Most filters per second that one client subscribes to or gives up.
    pub subscribe_rate_max: u64,
    /// Most messages per second to one client.
    pub delivery_rate_max: u64,
    /// What happens to a client beyond its rates.
    pub rate_exceeded: RateExceeded,
}

/// What happens to a client that publishes or subscribes faster than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RateExceeded {
    /// It is not read until it has waited long enough.
    #[default]
    Delay,
    /// It is disconnected.
    Disconnect,
}

/// Smallest packet limit that can be configured: a CONNACK and small acknowledgements must fit.
pub const PACKET_BYTES_MIN: usize = 128;
/// Largest packet of the protocol: five bytes of header and 256 MiB less one byte.
pub const PACKET_BYTES_MAX: usize = 268_435_455 + 5;
/// Most shards: interest is a mask of 128 bits.
pub const SHARDS_MAX: usize = 128;
/// Most retained messages in one answer; between two answers a shard does other work.
pub const RETAINED_ANSWER_MESSAGES_MAX: usize = 64;
/// Most retained topics looked at for one answer.
pub const RETAINED_VISITS_MAX: usize = 2_000;
/// How often a shared message may go to a shard that it was at before, since members have come or gone.
pub const SHARED_HOPS_MAX: u8 = 8;
/// Bytes of packets that wait before their client is no longer read.
pub const HELD_BYTES_MAX: usize = 32 * 1024;
/// Spare send buffers a shard keeps.
pub const SPARE_BUFFERS_MAX: usize = 4_096;
/// Bytes of spare send buffers a shard keeps.
pub const SPARE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a buffer of an outbox. A larger one would have to grow for many receivers within one fan-out.
pub const STRETCH_BYTES: usize = 16 * 1024;
/// With so many bytes in it the next packet begins another: one more of the usual size still fits.
pub const STRETCH_FULL_BYTES: usize = STRETCH_BYTES - 4_096;
/// Payloads of this size and above are referenced by a send instead of copied into it.
pub const COPY_BYTES_MAX: usize = 2_048;
/// Least bytes of an outbox: any packet the broker makes itself fits.
pub const OUTBOX_BYTES_MIN: usize = 4_096;

const _: () = assert!(STRETCH_BYTES >= OUTBOX_BYTES_MIN);
const _: () = assert!(RETAINED_ANSWER_MESSAGES_MAX <= RETAINED_VISITS_MAX);

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // A few milliseconds; and a burst of 16 messages to 1,000 subscribers still leaves as one.
            turn_deliveries_max: 16_384,
            // The kernel takes about 5 us for each.
            turn_sends_max: 512,
            turn_send_bytes_max: 2 * 1024 * 1024,
            turn_us_goal: 4_000,
            gather_us_max: 50,
            // A turn's worth of publishes fits.
            mailbox_letters_max: 4_096,
            max_packet_bytes: 2 * 1024 * 1024,
            topic_bytes_max: 65_535,
            // Deep enough for any name space in use; bounds recursion and wildcard work.
            topic_levels_max: 128,
            filters_per_subscribe_max: 1_024,
            subscriptions_per_session_max: 10_000,
            inflight_max: 1_024,
            receive_maximum: 1_024,
            connections_max: 1_000_000,
            connecting_max: 10_000,
            connecting_per_address_max: 0,
            connect_rate_max: 0,
            accept_lag_ms_max: 50,
            connect_timeout_ms: 10_000,
            takeover_wait_ms: 1_000,
            connect_bytes_max: 256 * 1024,
            memory_max_bytes: 0,
            // Most systems allow 208 KiB; 2 MB/s to a client 100 ms away.
            socket_send_bytes_max: 256 * 1024,
            socket_unsent_bytes_max: 128 * 1024,
            // What systems begin with; 600 KB/s from a client 100 ms away.
            socket_receive_bytes_max: 64 * 1024,
            // Gone after two minutes.
            tcp_keepalive_idle_seconds: 60,
            tcp_keepalive_interval_seconds: 15,
            tcp_keepalive_probes_max: 4,
            outbox_bytes_max: 8 * 1024 * 1024,
            queue_messages_max: 10_000,
            queue_bytes_max: 64 * 1024 * 1024,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1024 * 1024 * 1024,
            topic_alias_max: 64,
            topic_alias_out_max: 64,
            connections_per_address_max: 0,
            publish_rate_max: 0,
            publish_bytes_rate_max: 0,
            subscribe_rate_max: 0,
            delivery_rate_max: 0,
            rate_exceeded: RateExceeded::Delay,
        }
    }
}

impl Limits {
    /// Most connections from one address that are not let in yet.
    #[must_use]
    pub const fn connecting_of_address_max(&self) -> usize {
        match self.connecting_per_address_max {
            0 => self.connecting_max.div_ceil(2),
            max => max,
        }
    }

    /// The bounds of topics among them.
    #[must_use]
    pub const fn topics(&self) -> TopicLimits {
        TopicLimits {
            bytes_max: self.topic_bytes_max,
            levels_max: self.topic_levels_max,
        }
    }
}

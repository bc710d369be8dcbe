//! The settings of a history: mostly limits so small that they are met.

use arbitrary::Arbitrary;
use ringmq::engine::message::Qos;
use ringmq::engine::outbox::OutboxFull;
use ringmq::engine::route::shared::SharedStrategy;
use ringmq::engine::session::outbound::QueueFull;
use ringmq::engine::shard::Settings;

/// Chooses each setting by a number.
#[derive(Arbitrary, Clone, Debug)]
pub struct Profile {
    shards: u8,
    mailbox: u8,
    packet: u8,
    topic: u8,
    subscriptions: u8,
    inflight: u8,
    receive: u8,
    connections: u8,
    outbox: u8,
    queue: u8,
    retained: u8,
    aliases: u8,
    expiry: u8,
    features: u8,
    strategy: u8,
    qos: u8,
    /// Version of the clients that look what has become of the sessions.
    pub is_probed_by_v5: bool,
    /// Whether the broker stops before the clients do.
    pub is_stopped: bool,
}

fn choose<T: Copy, const N: usize>(number: u8, of: [T; N]) -> T {
    of[usize::from(number) % N]
}

impl Profile {
    /// Cores that talk to each other.
    pub fn shards(&self) -> u16 {
        choose(self.shards, [1, 2])
    }

    /// Letters that a mailbox holds.
    pub fn mailbox_letters_max(&self) -> usize {
        choose(self.mailbox, [4_096, 1, 3])
    }

    /// What the cores are told.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings {
            stores: true,
            ..Settings::default()
        };
        self.set_limits(&mut settings);
        settings.session_expiry_seconds_max = choose(self.expiry, [u32::MAX, 0, 100, 100_000]);
        settings.queue_full = choose(
            self.queue >> 4,
            [
                QueueFull::DropNewest,
                QueueFull::DropOldest,
                QueueFull::Disconnect,
            ],
        );
        let outbox_full = [OutboxFull::DropNewest, OutboxFull::DropOldest];
        settings.outbox_full = choose(self.outbox >> 4, outbox_full);
        settings.keep_alive_seconds_max = choose(self.expiry >> 4, [0, 0, 10]);
        let qos = [Qos::ExactlyOnce, Qos::AtLeastOnce, Qos::AtMostOnce];
        settings.qos_max = choose(self.qos, [qos[0], qos[0], qos[0], qos[0], qos[1], qos[2]]);
        // Most histories have every feature.
        let is_off = |bit: u8| self.features >= 0xC0 && self.features & bit != 0;
        settings.retain_available = !is_off(0x01);
        settings.wildcard_subscriptions = !is_off(0x02);
        settings.shared_subscriptions = !is_off(0x04);
        settings.subscription_identifiers = !is_off(0x08);
        settings.validate_payload_format = self.features & 0x10 != 0;
        settings.response_information = (self.features & 0x20 != 0).then(|| "r/".into());
        settings.server_reference = (self.features & 0x20 != 0).then(|| "other:1883".into());
        settings.shared_strategy = choose(
            self.strategy,
            [
                SharedStrategy::RoundRobin,
                SharedStrategy::LeastInflight,
                SharedStrategy::Sticky,
                SharedStrategy::HashTopic,
                SharedStrategy::HashPublisher,
            ],
        );
        settings
    }

    fn set_limits(&self, settings: &mut Settings) {
        let limits = &mut settings.limits;
        limits.max_packet_bytes = choose(self.packet, [2 << 20, 128, 1_024, 16_384]);
        limits.topic_bytes_max = choose(self.topic, [65_535, 5, 64]);
        limits.topic_levels_max = choose(self.topic >> 4, [128, 2, 3]);
        limits.filters_per_subscribe_max = choose(self.subscriptions >> 4, [1_024, 1, 3]);
        limits.subscriptions_per_session_max = choose(self.subscriptions, [10_000, 1, 3]);
        limits.inflight_max = choose(self.inflight, [1_024, 1, 2, 16]);
        limits.receive_maximum = choose(self.receive, [1_024, 1, 2, 16]);
        limits.connections_max = choose(self.connections, [1_000, 1_000, 1_000, 2]);
        limits.connect_timeout_ms = choose(self.connections >> 4, [10_000, 1]);
        limits.outbox_bytes_max = choose(self.outbox, [8 << 20, 4_096, 20_000]);
        limits.queue_messages_max = choose(self.queue, [10_000, 0, 1, 2, 10]);
        limits.queue_bytes_max = choose(self.queue >> 6, [64 << 20, 0, 300, 6_000]);
        limits.retained_messages_max = choose(self.retained, [1_000, 0, 1, 3]);
        limits.retained_bytes_max = choose(self.retained >> 4, [1 << 30, 0, 300, 6_000]);
        limits.topic_alias_max = choose(self.aliases, [64, 0, 1, 2]);
        limits.topic_alias_out_max = choose(self.aliases >> 4, [64, 0, 1, 2]);
    }
}

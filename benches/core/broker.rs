//! One shard and its clients: bytes in, bytes out, nothing between.

use ringmq::engine::keys::ConnectionKey;
use ringmq::engine::shard::{ConnectionCounts, Settings, ShardCore};
use ringmq::engine::time::Timestamp;
use std::sync::Arc;

pub const NOW: Timestamp = Timestamp::from_ms(1_000);

/// A shard of one.
pub struct Broker {
    pub core: ShardCore,
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

pub fn publish(topic: &str, qos: u8, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body)
}

pub fn subscribe(filters: &[String], qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        body.extend_from_slice(&text(filter));
        body.push(qos);
    }
    packet(0x82, &body)
}

impl Broker {
    pub fn new() -> Self {
        let mut settings = Settings::default();
        settings.limits.subscriptions_per_session_max = usize::MAX;
        Broker {
            core: ShardCore::new(0, 1, settings, 1, Arc::new(ConnectionCounts::new(1))),
        }
    }

    /// A 3.1.1 client.
    pub fn connect(&mut self, id: &str) -> ConnectionKey {
        let key = self.core.accept(NOW, 0).expect("below the limit");
        let body = [&b"\x00\x04MQTT\x04\x02\x00\x00"[..], &text(id)].concat();
        self.say(key, &packet(0x10, &body));
        key
    }

    /// Sends to the broker and takes all that it sends to anybody until it rests.
    pub fn say(&mut self, key: ConnectionKey, bytes: &[u8]) {
        self.core.begin_turn();
        self.core.receive(NOW, key, bytes);
        self.turn(|_, _| {});
        while self.core.wants_drain() {
            self.core.begin_turn();
            self.turn(|_, _| {});
        }
    }

    /// The end of a turn: what is stored is stored, what is to be sent is sent.
    pub fn turn(&mut self, mut hear: impl FnMut(ConnectionKey, &[u8])) {
        self.core.begin_drain();
        self.core.end_drain(NOW);
        self.core.work_off(NOW);
        if self.core.has_persist() {
            let stored = self.core.take_persist().next_back();
            let through = stored.map_or(0, |persist| persist.ticket);
            self.core.stored(NOW, through);
        }
        while let Some(key) = self.core.next_ready() {
            if let Some(batch) = self.core.take_outgoing(key) {
                for slice in batch.slices() {
                    hear(key, slice);
                }
                self.core.sent(NOW, key, batch);
            }
        }
    }
}

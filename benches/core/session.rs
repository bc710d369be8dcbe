//! QoS 1 and 2 from a publisher to a subscriber, with all acknowledgements.

use crate::allocations::at_most;
use crate::broker::{Broker, NOW, publish, subscribe};
use criterion::{Criterion, Throughput};
use ringmq::engine::keys::ConnectionKey;

const TOPIC: &str = "plant/7/temperature";

struct Pair {
    broker: Broker,
    publisher: ConnectionKey,
    subscriber: ConnectionKey,
}

impl Pair {
    fn new(qos: u8) -> Self {
        let mut broker = Broker::new();
        let subscriber = broker.connect("subscriber");
        broker.say(subscriber, &subscribe(&[TOPIC.to_owned()], qos));
        let publisher = broker.connect("publisher");
        Pair {
            broker,
            publisher,
            subscriber,
        }
    }

    /// What the subscriber gets next starts with this byte; its packet identifier.
    fn heard(&mut self, first: u8) -> [u8; 2] {
        let mut id = [0; 2];
        let subscriber = self.subscriber;
        self.broker.turn(|key, slice| {
            if key == subscriber && slice[0] == first {
                let at = if first >> 4 == 3 { 4 + TOPIC.len() } else { 2 };
                id = [slice[at], slice[at + 1]];
            }
        });
        assert_ne!(id, [0, 0], "{first:#x} has come");
        id
    }

    fn answer(&mut self, first: u8, [high, low]: [u8; 2]) {
        let packet = [first, 2, high, low];
        self.broker.core.receive(NOW, self.subscriber, &packet);
    }

    /// One message all the way.
    fn message(&mut self, qos: u8, bytes: &[u8]) {
        self.broker.core.begin_turn();
        self.broker.core.receive(NOW, self.publisher, bytes);
        let id = self.heard(0x30 | qos << 1);
        if qos == 1 {
            self.answer(0x40, id);
        } else {
            self.broker
                .core
                .receive(NOW, self.publisher, b"\x62\x02\x00\x07");
            self.answer(0x50, id);
            let id = self.heard(0x62);
            self.answer(0x70, id);
        }
        self.broker.turn(|_, _| {});
    }
}

/// A publish from a publisher to a subscriber, to its last acknowledgement.
pub fn operation(qos: u8) -> impl FnMut() {
    let mut pair = Pair::new(qos);
    let bytes = publish(TOPIC, qos, 7, &[b'x'; 64]);
    move || pair.message(qos, &bytes)
}

pub fn pairs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    for qos in [1, 2] {
        let mut operation = operation(qos);
        group.bench_function(
            format!("QoS {qos}, to the last acknowledgement"),
            |bencher| {
                bencher.iter(&mut operation);
            },
        );
        at_most(&format!("QoS {qos}"), 3.0, 100, operation);
    }
    group.finish();
}

//! One publish to many subscribers.

use crate::allocations::at_most;
use crate::broker::{Broker, NOW, publish, subscribe};
use crate::size;
use criterion::{Criterion, Throughput};
use ringmq::session::ConnectionKey;

fn audience(subscribers: usize) -> (Broker, ConnectionKey) {
    let mut broker = Broker::new();
    for n in 0..subscribers {
        let key = broker.connect(&format!("subscriber-{n}"));
        broker.say(key, &subscribe(&["plant/7/temperature".to_owned()], 0));
    }
    let publisher = broker.connect("publisher");
    (broker, publisher)
}

/// A publish, or several at once, to so many subscribers; everything that is to be sent is taken.
pub fn operation(subscribers: usize, payload_bytes: usize, at_once: usize) -> impl FnMut() {
    let (mut broker, publisher) = audience(subscribers);
    let message = publish("plant/7/temperature", 0, 0, &vec![b'x'; payload_bytes]);
    let message = message.repeat(at_once);
    move || {
        let mut bytes = 0;
        broker.core.receive(NOW, publisher, &message);
        broker.turn(|_, slice| bytes += slice.len());
        assert_eq!(bytes, message.len() * subscribers);
    }
}

pub fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan-out");
    let subscribers = size(1_000, 10);
    for (name, payload_bytes, at_once) in [
        ("64 bytes", 64, 1),
        ("64 bytes, 16 at once", 64, 16),
        ("16 KiB", 16_384, 1),
    ] {
        let mut operation = operation(subscribers, payload_bytes, at_once);
        group.throughput(Throughput::Elements((subscribers * at_once) as u64));
        group.bench_function(format!("to {subscribers}, {name}"), |bencher| {
            bencher.iter(&mut operation);
        });
        // None per delivery: what a publish needs does not grow with its audience.
        let allowed = 3.0 * at_once as f64;
        at_most(&format!("fan-out, {name}"), allowed, 20, operation);
    }
    group.finish();
}

//! One publish to many subscribers.

use crate::allocations::at_most;
use crate::broker::{Broker, NOW, publish, subscribe};
use crate::size;
use criterion::{Criterion, Throughput};
use ringmq::engine::access::acl::Acl;
use ringmq::engine::keys::ConnectionKey;
use std::sync::Arc;

/// Rules under which the subscriptions are made.
#[derive(Clone, Copy)]
pub enum Rules {
    /// There are none.
    None,
    /// All that the subscriptions match may be read.
    Unchecked,
    /// Part of it: each delivery is checked.
    Checked,
}

fn audience(subscribers: usize, rules: Rules) -> (Broker, ConnectionKey) {
    let mut broker = Broker::new();
    let (text, filter) = match rules {
        Rules::None => (None, "plant/7/temperature"),
        Rules::Unchecked => (Some("topic readwrite plant/#\n"), "plant/7/temperature"),
        Rules::Checked => (Some("topic readwrite plant/7/#\n"), "plant/+/temperature"),
    };
    if let Some(text) = text {
        let acl = Acl::parse(text).expect("rules");
        broker.core.set_acl(Some(Arc::new(acl)));
    }
    for n in 0..subscribers {
        let key = broker.connect(&format!("subscriber-{n}"));
        broker.say(key, &subscribe(&[filter.to_owned()], 0));
    }
    let publisher = broker.connect("publisher");
    (broker, publisher)
}

/// A publish, or several at once, to so many subscribers; everything that is to be sent is taken.
pub fn operation(
    subscribers: usize,
    payload_bytes: usize,
    at_once: usize,
    rules: Rules,
) -> impl FnMut() {
    let (mut broker, publisher) = audience(subscribers, rules);
    let message = publish("plant/7/temperature", 0, 0, &vec![b'x'; payload_bytes]);
    let message = message.repeat(at_once);
    move || {
        let mut bytes = 0;
        broker.core.begin_turn();
        broker.core.receive(NOW, publisher, &message);
        broker.turn(|_, slice| bytes += slice.len());
        assert_eq!(bytes, message.len() * subscribers);
    }
}

pub fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan-out");
    let subscribers = size(1_000, 10);
    for (name, payload_bytes, at_once, rules) in [
        ("64 bytes", 64, 1, Rules::None),
        ("64 bytes, 16 at once", 64, 16, Rules::None),
        ("16 KiB", 16_384, 1, Rules::None),
        (
            "64 bytes, rules that allow all of it",
            64,
            1,
            Rules::Unchecked,
        ),
        ("64 bytes, rules that allow a part", 64, 1, Rules::Checked),
    ] {
        let mut operation = operation(subscribers, payload_bytes, at_once, rules);
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

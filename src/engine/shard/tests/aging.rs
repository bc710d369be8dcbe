//! What waits too long for a bridge is dropped in time.

use super::{Shard, counter};
use crate::engine::access::Admitted;
use crate::engine::keys::ConnectionKey;
use crate::engine::limits::OwnQueue;
use crate::engine::time::Timestamp;

/// A bridge of the session `$bridge/b`, subscribed to `t`, whose messages wait for that long.
fn bridge(shard: &mut Shard, age_ms_max: Option<u64>) -> ConnectionKey {
    let admitted = Admitted {
        queue: OwnQueue {
            age_ms_max,
            ..OwnQueue::default()
        },
        ..Admitted::default()
    };
    let key = shard.core.begin_line(shard.now, Box::new(admitted));
    let connect = b"\x10\x1B\x00\x04MQTT\x05\x00\x00\x00\x05\x11\xFF\xFF\xFF\xFF\x00\x09$bridge/b";
    shard.say(key, connect);
    shard.say(key, b"\x82\x07\x00\x07\x00\x00\x01t\x01");
    key
}

fn publish(shard: &mut Shard, by: ConnectionKey, id: u8) {
    shard.say(by, &[0x32, 6, 0, 1, b't', 0, id, id]);
}

fn due_at(shard: &Shard) -> Option<Timestamp> {
    shard.core.clients.aging.due_at()
}

#[test]
fn what_waits_too_long_goes_when_its_time_is_over() {
    let mut shard = Shard::new(|_| {});
    let bridge = bridge(&mut shard, Some(10_000));
    let publisher = shard.connect(b'p', true);
    shard.core.receive_ended(shard.now, bridge);
    shard.core.tick(shard.now);
    assert_eq!(due_at(&shard), None, "nothing waits");
    let begun = shard.now;
    publish(&mut shard, publisher, 1);
    shard.now = begun.plus_ms(5_000);
    publish(&mut shard, publisher, 2);
    assert_eq!(due_at(&shard), Some(begun.plus_ms(10_000)));
    assert!(shard.core.deadline() <= due_at(&shard), "it wakes for it");
    for (at_ms, dropped, next_ms) in [
        (9_900, 0, Some(10_000)),
        (10_000, 1, Some(15_000)),
        (15_000, 2, None),
    ] {
        shard.now = begun.plus_ms(at_ms);
        shard.core.tick(shard.now);
        assert_eq!(counter(&shard, "dropped_queue_age"), dropped, "{at_ms}");
        let next = next_ms.map(|ms| begun.plus_ms(ms));
        assert_eq!(due_at(&shard), next, "{at_ms}");
    }
}

#[test]
fn without_the_bound_it_waits_on() {
    let mut shard = Shard::new(|_| {});
    let with = bridge(&mut shard, Some(10_000));
    shard.core.receive_ended(shard.now, with);
    let publisher = shard.connect(b'p', true);
    publish(&mut shard, publisher, 1);
    // It comes back as the configuration says now.
    let without = bridge(&mut shard, None);
    shard.core.receive_ended(shard.now, without);
    shard.now = shard.now.plus_ms(60_000);
    shard.core.tick(shard.now);
    assert_eq!(counter(&shard, "dropped_queue_age"), 0);
    assert_eq!(due_at(&shard), None);
}

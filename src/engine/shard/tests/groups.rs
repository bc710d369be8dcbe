//! Messages of share groups that go to another member than the one they waited for.

use super::{Shard, counter};
use crate::engine::keys::ConnectionKey;

const FILTER: &[u8] = b"$share/g/t";
/// CONNECT properties of a session that never ends.
const LASTING: &[u8] = &[5, 0x11, 0xFF, 0xFF, 0xFF, 0xFF];
/// The same of a client that takes no packet of more than 60 bytes.
const SMALL: &[u8] = &[10, 0x11, 0xFF, 0xFF, 0xFF, 0xFF, 0x27, 0, 0, 0, 60];

/// Runs turns until the shard rests; how many it took.
fn rest(shard: &mut Shard) -> usize {
    let mut turns = 0;
    while shard.core.has_work() {
        shard.begin_turn_sent();
        shard.core.work_off(shard.now);
        shard.take_commands();
        turns += 1;
        assert!(turns < 10_000, "it does not come to an end");
    }
    turns
}

fn member(shard: &mut Shard, properties: &[u8], id: u8) -> ConnectionKey {
    let key = shard.connect_with(properties, &[0, 1, id]);
    let head = [0x82, FILTER.len() as u8 + 6, 0, 1, 0, 0, FILTER.len() as u8];
    shard.receive(key, &[&head[..], FILTER, &[1]].concat());
    rest(shard);
    key
}

/// Publishes so many messages of this size.
fn publish(shard: &mut Shard, count: usize, bytes: u8) {
    let publisher = shard.connect(b'p', true);
    for _ in 0..count {
        let head = [0x32, bytes + 5, 0, 1, b't', 0, 1];
        let packet = [&head[..], &vec![b'x'; usize::from(bytes)]].concat();
        shard.receive(publisher, &packet);
        rest(shard);
    }
}

#[test]
fn what_waits_with_others_comes_over_turns() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 256);
    for id in *b"abc" {
        let key = member(&mut shard, LASTING, id);
        shard.receive(key, b"\xE0\x00");
    }
    publish(&mut shard, 600, 10);
    assert_eq!(counter(&shard, "queued_messages"), 600);
    shard.connect_with(LASTING, b"\x00\x01b");
    assert!(counter(&shard, "queued_messages") > 300, "its own only");
    let turns = rest(&mut shard);
    assert!(turns > 10, "{turns} turns");
    assert_eq!(counter(&shard, "queued_messages"), 0);
    assert_eq!(counter(&shard, "inflight_messages"), 600);
}

#[test]
fn what_nobody_there_takes_goes_on_waiting() {
    let mut shard = Shard::new(|_| {});
    let away = member(&mut shard, LASTING, b'a');
    shard.receive(away, b"\xE0\x00");
    publish(&mut shard, 600, 100);
    publish(&mut shard, 1, 10);
    let small = member(&mut shard, SMALL, b's');
    assert_eq!(counter(&shard, "queued_messages"), 600);
    assert_eq!(counter(&shard, "inflight_messages"), 1, "what it takes");
    shard.receive(small, b"\xE0\x00");
    shard.connect_with(LASTING, b"\x00\x01a");
    rest(&mut shard);
    assert_eq!(counter(&shard, "inflight_messages"), 601);
    assert_eq!(counter(&shard, "messages_sent"), 601);
    assert_eq!(counter(&shard, "dropped_packet_too_large"), 0);
}

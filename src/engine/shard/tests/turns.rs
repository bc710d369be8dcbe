//! What waits, and for what: turns that have done enough, shards that have no room.

use super::pair::Pair;
use super::{DELIVERED_T, PUBLISH_T, SUBSCRIBE_T, Shard, counter};
use crate::engine::shard::Command;

const PING: &[u8] = b"\xC0\x00";
const PONG: &[u8] = b"\xD0\x00";

fn closes(shard: &mut Shard) -> usize {
    let mut commands = Vec::new();
    shard.core.take_commands(&mut commands);
    let closes = |command: &&Command| matches!(command, Command::Close { .. });
    commands.iter().filter(closes).count()
}

/// What was filled is taken to be sent; then a turn's work on what waits, if anything does.
fn next_turn(shard: &mut Shard) -> bool {
    while shard.core.next_ready().is_some() {}
    let has_more = shard.core.has_work();
    if has_more {
        shard.core.begin_turn();
        shard.core.work_off(shard.now);
    }
    has_more
}

/// A shard whose turns deliver next to nothing, a subscriber to `t`, and others.
fn slow_shard() -> (Shard, [crate::engine::keys::ConnectionKey; 3]) {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 8);
    let keys = [b's', b'p', b'o'].map(|id| shard.connect(id, true));
    shard.say(keys[0], SUBSCRIBE_T);
    // The SUBSCRIBE has used up its turn; what is retained for it is looked for in the next.
    while shard.core.next_ready().is_some() {}
    shard.core.begin_turn();
    assert_eq!(shard.hear(keys[0]), b"");
    shard.core.begin_turn();
    (shard, keys)
}

#[test]
fn a_burst_is_worked_off_turn_by_turn_while_others_are_answered() {
    let (mut shard, [subscriber, publisher, other]) = slow_shard();
    shard.receive(publisher, &PUBLISH_T.repeat(20));
    let mut heard = shard.hear(subscriber);
    assert!(heard.len() < 20 * DELIVERED_T.len(), "{}", heard.len());
    assert_eq!(shard.say(other, PING), PONG);
    assert!(!shard.core.backlog.is_empty());
    assert!(counter(&shard, "packets_deferred") > 0);
    let mut turns = 0;
    while next_turn(&mut shard) {
        heard.extend(shard.hear(subscriber));
        turns += 1;
    }
    assert_eq!(heard, DELIVERED_T.repeat(20));
    assert!(turns > 2, "{turns}");
}

/// Else who publishes here would wait for as long as others send.
#[test]
fn mail_leaves_half_of_a_turn_to_connections_that_wait() {
    let (mut shard, [subscriber, publisher, _]) = slow_shard();
    shard.core.backlog.spend(4);
    assert!(!shard.core.is_spent_for_mail(), "nobody waits");
    shard.receive(publisher, &PUBLISH_T.repeat(20));
    shard.hear(subscriber);
    while shard.core.next_ready().is_some() {}
    shard.core.begin_turn();
    assert!(!shard.core.is_spent_for_mail());
    shard.core.backlog.spend(4);
    assert!(shard.core.is_spent_for_mail() && !shard.core.is_spent());
    shard.core.work_off(shard.now);
    assert!(!shard.hear(subscriber).is_empty());
}

#[test]
fn two_bursts_take_turns() {
    let (mut shard, [subscriber, first, second]) = slow_shard();
    shard.receive(first, &PUBLISH_T.repeat(50));
    shard.receive(second, &b"\x30\x06\x00\x01told".repeat(3));
    let mut heard = shard.hear(subscriber);
    while next_turn(&mut shard) {
        heard.extend(shard.hear(subscriber));
    }
    let payloads: Vec<_> = heard.chunks(DELIVERED_T.len()).map(|p| &p[5..]).collect();
    let last_old = payloads.iter().rposition(|payload| *payload == b"old");
    assert_eq!(payloads.len(), 53);
    assert!(last_old.is_some_and(|at| at < 40), "{last_old:?}");
}

#[test]
fn what_came_before_the_end_of_a_connection_is_handled_before_it() {
    let (mut shard, [subscriber, publisher, _]) = slow_shard();
    shard.receive(publisher, &PUBLISH_T.repeat(20));
    shard.core.receive_ended(shard.now, publisher);
    let mut heard = shard.hear(subscriber);
    let mut ended = closes(&mut shard);
    assert_eq!(ended, 0);
    while next_turn(&mut shard) {
        heard.extend(shard.hear(subscriber));
        ended += closes(&mut shard);
    }
    assert_eq!(heard, DELIVERED_T.repeat(20));
    assert_eq!((ended, shard.core.connections()), (1, 2));
}

#[test]
fn a_turn_takes_nothing_more_while_full_outboxes_wait() {
    let (mut shard, [subscriber, publisher, other]) = slow_shard();
    shard.core.begin_turn();
    shard.receive(publisher, PUBLISH_T);
    // The outbox of the subscriber is not taken: the next turn has to send first.
    shard.core.begin_turn();
    shard.receive(publisher, PUBLISH_T);
    assert_eq!(shard.say(other, PING), PONG);
    assert_eq!(counter(&shard, "packets_deferred"), 1);
    assert_eq!(counter(&shard, "messages_received"), 1);
    while let Some(key) = shard.core.next_ready() {
        if key == subscriber {
            assert_eq!(shard.hear(subscriber), DELIVERED_T);
        }
    }
    shard.core.begin_turn();
    shard.core.work_off(shard.now);
    assert_eq!(shard.hear(subscriber), DELIVERED_T);
}

#[test]
fn clients_that_come_and_go_leave_no_timers_and_no_count() {
    let mut shard = Shard::new(|settings| settings.limits.connecting_max = 1);
    for round in 0..50 {
        let key = shard.connect(b'a' + round % 20, round % 2 == 0);
        shard.say(key, b"\xE0\x00");
    }
    // Sessions of clients with clean session off remain, without a deadline.
    assert!(shard.core.timers.is_empty(), "{}", shard.core.timers.len());
    let open = shard.connect(b'z', true);
    let _connecting = shard.core.accept(shard.now, 0).unwrap();
    assert!(!shard.core.may_accept(shard.now, 0));
    shard.say(open, b"\xE0\x00");
    assert!(
        !shard.core.may_accept(shard.now, 0),
        "one is still connecting"
    );
}

#[test]
fn who_publishes_to_a_full_shard_waits_and_nobody_else() {
    let mut pair = Pair::new();
    let reader = pair.connect(1);
    let [publisher, other] = [pair.connect(0), pair.connect(0)];
    pair.receive(1, reader, b"\x82\x06\x00\x01\x00\x01x\x00");
    pair.receive(0, other, b"\x82\x06\x00\x01\x00\x01y\x00");
    pair.settle();
    pair.hear(1, reader);
    pair.hear(0, other);
    let publish_x = b"\x30\x04\x00\x01x1";
    pair.receive(0, publisher, publish_x);
    pair.cores[0].staged().flush(|_, mail| Err(mail));
    // This one hits the full mailbox; the next waits in its connection.
    pair.receive(0, publisher, &publish_x.repeat(3));
    assert_eq!(pair.cores[0].counters().publishers_paused_room, 1);
    assert_eq!(pair.cores[0].counters().messages_received, 2);
    // Everybody else goes on, also with messages for this shard.
    pair.receive(0, other, &[PING, b"\x30\x04\x00\x01y2"].concat());
    assert_eq!(pair.hear(0, other), [PONG, b"\x30\x04\x00\x01y2"].concat());
    let mut commands = Vec::new();
    pair.cores[0].take_commands(&mut commands);
    assert!(matches!(commands[..], [Command::Pause(key)] if key == publisher));
    while pair.cores[0].next_ready().is_some() {}
    let may_sleep = !pair.cores[0].has_work();
    assert!(may_sleep, "until there is room");
    let blocked = pair.cores[0].staged().blocked();
    pair.flush(0);
    pair.cores[0].mail_went(blocked);
    assert!(pair.cores[0].has_work());
    pair.work_off(0);
    pair.settle();
    assert_eq!(pair.hear(1, reader), publish_x.repeat(4));
}

#[test]
fn a_retained_publish_is_acknowledged_when_it_is_visible_where_it_is_kept() {
    use crate::engine::route::home_shard;
    let mut pair = Pair::new();
    let publisher = pair.connect(0);
    let there = (b'a'..=b'z').find(|t| home_shard(&char::from(*t).to_string(), 2) == 1);
    let topic = there.expect("a topic of shard 1");
    pair.receive(0, publisher, &[0x33, 6, 0, 1, topic, 0, 9, b'1']);
    pair.cores[0].staged().flush(|_, mail| Err(mail));
    assert_eq!(pair.hear(0, publisher), b"");
    let blocked = pair.cores[0].staged().blocked();
    pair.flush(0);
    pair.cores[0].mail_went(blocked);
    assert_eq!(pair.hear(0, publisher), b"\x40\x02\x00\x09");
}

/// 300,000 bytes to `t` at QoS 0, and a PINGREQ behind them.
fn large_and_ping() -> Vec<u8> {
    let mut packets = vec![0x30, 0xE3, 0xA7, 0x12, 0, 1, b't'];
    packets.resize(4 + 300_003, b'x');
    packets.extend_from_slice(b"\xC0\x00");
    packets
}

#[test]
fn a_large_packet_is_gathered_and_handled_once() {
    let mut shard = Shard::new(|_| {});
    let (subscriber, publisher) = (shard.connect(b's', true), shard.connect(b'p', true));
    shard.say(subscriber, SUBSCRIBE_T);
    let packets = large_and_ping();
    for repeat in 0..3 {
        for bytes in packets.chunks(8_192 - repeat) {
            assert!(shard.hear(subscriber).is_empty() && shard.hear(publisher).is_empty());
            shard.receive(publisher, bytes);
        }
        assert_eq!(shard.hear(subscriber), packets[..300_007]);
        assert_eq!(shard.hear(publisher), b"\xD0\x00");
    }
}

#[test]
fn a_large_packet_waits_for_a_turn_that_has_work_left() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 8);
    let (subscriber, publisher) = (shard.connect(b's', true), shard.connect(b'p', true));
    shard.say(subscriber, SUBSCRIBE_T);
    while shard.core.next_ready().is_some() {}
    shard.core.begin_turn();
    let packets = large_and_ping();
    shard.receive(publisher, &packets[..300_000]);
    let busy = shard.connect(b'b', true);
    shard.receive(busy, &PUBLISH_T.repeat(16));
    shard.receive(publisher, &packets[300_000..]);
    let of_busy = shard.hear(subscriber);
    assert!(of_busy.len() < 300_000, "it waits");
    while shard.core.next_ready().is_some() {}
    for _ in 0..4 {
        shard.core.begin_turn();
        shard.core.work_off(shard.now);
        while shard.core.next_ready().is_some() {}
    }
    let heard = [of_busy, shard.hear(subscriber)].concat();
    assert!(
        heard.windows(5).any(|bytes| bytes == b"xxxxx"),
        "it is handled"
    );
    assert_eq!(shard.hear(publisher), b"\xD0\x00");
}

/// Very many clients with wills, and who wants them.
const LEAVING: usize = 5_000;

#[test]
fn wills_and_farewells_of_very_many_go_over_turns() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 2_048);
    for n in 0..LEAVING {
        // With a will of QoS 0 to `t`.
        let body = format!("\0\x04MQTT\x04\x06\0\0\0\x04{n:04}\0\x01t\0\x01w");
        let key = shard.core.accept(shard.now, 0).unwrap();
        shard.begin_turn_sent();
        shard.receive(key, &[&[0x10, body.len() as u8], body.as_bytes()].concat());
    }
    let other = shard.connect(b'o', true);
    shard.say(other, SUBSCRIBE_T);
    shard.begin_turn_sent();
    shard.take_commands();
    shard.core.publish_wills();
    let mut turns = 0;
    let mut heard = Vec::new();
    while shard.core.has_wills_due() {
        assert!(shard.core.has_work(), "it does not sleep meanwhile");
        shard.begin_turn_sent();
        shard.core.work_off(shard.now);
        let of_turn = shard.say(other, PING);
        assert!(
            of_turn.ends_with(PONG) && of_turn.len() < 300 * 6,
            "{}",
            of_turn.len()
        );
        heard.extend_from_slice(&of_turn[..of_turn.len() - PONG.len()]);
        turns += 1;
    }
    assert!(turns > 5, "{turns}");
    assert_eq!(heard, b"\x30\x04\0\x01tw".repeat(LEAVING));
    shard.core.disconnect_all();
    let mut closed = Vec::new();
    while shard.core.has_work() {
        shard.begin_turn_sent();
        shard.core.work_off(shard.now);
        closed.push(closes(&mut shard));
    }
    assert_eq!(closed.iter().sum::<usize>(), LEAVING + 1);
    assert!(closed.iter().all(|closed| *closed <= 1_024), "{closed:?}");
}

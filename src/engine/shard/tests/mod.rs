//! One shard, bytes in and bytes out: what once went wrong.

mod aging;
mod fan_out;
mod filters;
mod gate;
mod groups;
mod held;
mod keeping;
mod once;
mod overload;
mod pair;
mod places;
mod presence;
mod receipts;
mod renewal;
mod restoring;
mod rules;
mod subscriptions;
mod traces;
mod turns;

use super::{Command, Settings, ShardCore};
use crate::engine::keys::ConnectionKey;
use crate::engine::shard::ConnectionCounts;
use crate::engine::time::Timestamp;
use std::sync::Arc;

const SUBSCRIBE_T: &[u8] = b"\x82\x06\x00\x07\x00\x01t\x01";
const PUBLISH_T: &[u8] = b"\x30\x06\x00\x01tnew";
const DELIVERED_T: &[u8] = PUBLISH_T;

/// A shard and its time.
struct Shard {
    core: ShardCore,
    now: Timestamp,
}

impl Shard {
    fn new(set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            stores: true,
            ..Settings::default()
        };
        set(&mut settings);
        Shard {
            core: ShardCore::new(0, 1, settings, 1, Arc::new(ConnectionCounts::new(1))),
            now: Timestamp::from_ms(1_000),
        }
    }

    /// A 3.1.1 client with that one-letter identifier.
    fn connect(&mut self, id: u8, clean: bool) -> ConnectionKey {
        let flags = if clean { 2 } else { 0 };
        let connect = [b"\x10\x0D\x00\x04MQTT\x04", &[flags, 0, 0, 0, 1, id][..]].concat();
        let key = self.core.accept(self.now, 0).unwrap();
        let answer = self.say(key, &connect);
        assert_eq!((answer[0], answer[3]), (0x20, 0), "{answer:02x?}");
        key
    }

    /// A 5.0 client that wants nothing special.
    fn connect_v5(&mut self, id: u8) -> ConnectionKey {
        self.connect_with(&[0], &[0, 1, id])
    }

    /// A 5.0 client with its own properties; its session never ends.
    fn connect_with(&mut self, properties: &[u8], id: &[u8]) -> ConnectionKey {
        let body = [b"\x00\x04MQTT\x05\x00\x00\x00", properties, id].concat();
        let key = self.core.accept(self.now, 0).unwrap();
        self.receive(key, &[&[0x10, body.len() as u8], &body[..]].concat());
        key
    }

    fn receive(&mut self, key: ConnectionKey, bytes: &[u8]) {
        self.core.receive(self.now, key, bytes);
        self.take_over();
    }

    /// Whoever waits to take over does: what older connections had sent was received.
    fn take_over(&mut self) {
        for _ in 0..self.core.takeovers_to_look_at() {
            if let Some(takeover) = self.core.next_takeover() {
                let ended = self.core.ends_wait(self.now, takeover, true);
                if let Some(ended) = ended {
                    self.core.let_in(self.now, ended);
                }
            }
        }
    }

    /// Sends to the broker; returns what it sends until it rests.
    fn say(&mut self, key: ConnectionKey, bytes: &[u8]) -> Vec<u8> {
        self.receive(key, bytes);
        self.hear(key)
    }

    /// What the broker sends to one client until it rests.
    fn hear(&mut self, key: ConnectionKey) -> Vec<u8> {
        let mut heard = Vec::new();
        loop {
            self.core.begin_drain();
            self.core.end_drain(self.now);
            let stored = self.core.take_persist().map(|persist| persist.ticket).max();
            self.core.stored(self.now, stored.unwrap_or(0));
            let Some(batch) = self.core.take_outgoing(key) else {
                return heard;
            };
            heard.extend(batch.slices().flatten());
            self.core.sent(self.now, key, batch);
        }
    }

    /// Another turn begins, with work to give: what was filled before is taken to be sent.
    fn begin_turn(&mut self) {
        while self.core.next_ready().is_some() {}
        self.core.begin_turn();
    }

    /// The same, and all of that has been sent.
    fn begin_turn_sent(&mut self) {
        while let Some(key) = self.core.next_ready() {
            if let Some(batch) = self.core.take_outgoing(key) {
                self.core.sent(self.now, key, batch);
            }
        }
        self.core.begin_turn();
    }

    fn take_commands(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        self.core.take_commands(&mut commands);
        commands
    }

    fn is_closed(&mut self, key: ConnectionKey) -> bool {
        self.take_commands().iter().any(|command| match command {
            Command::Close { connection, .. } | Command::Abort(connection) => *connection == key,
            _ => false,
        })
    }
}

/// A gauge or counter.
fn counter(shard: &Shard, name: &str) -> u64 {
    let all = shard.core.statistics();
    all.iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn retained_messages_come_even_if_nothing_may_be_queued() {
    for queue_messages_max in [0, 1] {
        let mut shard = Shard::new(|settings| {
            settings.limits.queue_messages_max = queue_messages_max;
        });
        let publisher = shard.connect(b'p', true);
        shard.receive(publisher, b"\x31\x06\x00\x01told");
        let subscriber = shard.connect(b's', true);
        let answer = shard.say(subscriber, SUBSCRIBE_T);
        assert_eq!(answer, b"\x90\x03\x00\x07\x01\x31\x06\x00\x01told");
        shard.receive(publisher, PUBLISH_T);
        assert_eq!(shard.hear(subscriber), DELIVERED_T);
    }
}

#[test]
fn a_subscribe_that_ends_the_connection_changes_nothing() {
    let mut shard = Shard::new(|_| {});
    let subscriber = shard.connect(b's', false);
    let good_and_bad = b"\x82\x0B\x00\x06\x00\x01t\x01\x00\x02a#\x01";
    assert_eq!(shard.say(subscriber, good_and_bad), b"");
    assert!(shard.is_closed(subscriber));
    let subscriber = shard.connect(b's', false);
    assert_eq!(shard.say(subscriber, SUBSCRIBE_T), b"\x90\x03\x00\x07\x01");
    let publisher = shard.connect(b'p', true);
    shard.receive(publisher, PUBLISH_T);
    assert_eq!(shard.hear(subscriber), DELIVERED_T, "it is not held");
}

#[test]
fn the_receive_maximum_is_for_5_0_and_not_for_qos_0() {
    let mut shard = Shard::new(|settings| settings.limits.receive_maximum = 2);
    let subscriber = shard.connect(b's', false);
    shard.say(subscriber, SUBSCRIBE_T);
    let publisher = shard.connect(b'p', true);
    let publish = |id: u8| [0x32, 5, 0, 1, b't', 0, id];
    // Nothing is stored before the next turn.
    for id in 1..=5 {
        shard.receive(publisher, &publish(id));
    }
    let acknowledged: Vec<_> = (1..=5).flat_map(|id| [0x40, 2, 0, id]).collect();
    assert_eq!(shard.hear(publisher), acknowledged);
    let publisher = shard.connect_v5(b'q');
    let publish = |id: u8| [0x32, 6, 0, 1, b't', 0, id, 0];
    shard.receive(publisher, &publish(1));
    shard.receive(publisher, &publish(2));
    shard.receive(publisher, b"\x30\x04\x00\x01t\x00");
    assert!(!shard.is_closed(publisher));
    shard.receive(publisher, &publish(3));
    assert!(shard.is_closed(publisher));
}

#[test]
fn a_3_1_1_client_is_not_read_while_much_waits_for_the_store() {
    let mut shard = Shard::new(|settings| settings.limits.receive_maximum = 2);
    let subscriber = shard.connect(b's', false);
    shard.say(subscriber, SUBSCRIBE_T);
    let publisher = shard.connect(b'p', true);
    shard.take_commands();
    for id in 1..=2 {
        shard.receive(publisher, &[0x32, 5, 0, 1, b't', 0, id]);
    }
    let commands = shard.take_commands();
    assert!(matches!(commands[..], [Command::Pause(key)] if key == publisher));
    shard.hear(publisher);
    let commands = shard.take_commands();
    assert!(matches!(commands[..], [Command::Resume(key)] if key == publisher));
}

#[test]
fn nobody_has_subscribed_to_a_filter_too_deep() {
    let mut shard = Shard::new(|settings| settings.limits.topic_levels_max = 2);
    let client = shard.connect_v5(b'c');
    shard.hear(client);
    let answer = shard.say(client, b"\xA2\x0A\x00\x07\x00\x00\x05a/b/c");
    assert_eq!(answer, b"\xB0\x04\x00\x07\x00\x11");
}

#[test]
fn an_unsubscribe_that_ends_the_connection_changes_nothing() {
    let mut shard = Shard::new(|_| {});
    let subscriber = shard.connect(b's', false);
    shard.say(subscriber, SUBSCRIBE_T);
    let good_and_bad = b"\xA2\x09\x00\x06\x00\x01t\x00\x02a#";
    assert_eq!(shard.say(subscriber, good_and_bad), b"");
    assert!(shard.is_closed(subscriber));
    let subscriber = shard.connect(b's', false);
    let publisher = shard.connect(b'p', true);
    shard.receive(publisher, PUBLISH_T);
    assert_eq!(shard.hear(subscriber), DELIVERED_T);
}

/// One-byte messages to `t` at QoS 0, as bytes and as what is heard.
fn messages(range: std::ops::RangeInclusive<u8>) -> Vec<u8> {
    range.flat_map(|id| [0x30, 4, 0, 1, b't', id]).collect()
}

#[test]
fn what_waited_behind_a_cancelled_subscription_is_not_overtaken() {
    let mut shard = Shard::new(|_| {});
    let subscriber = shard.connect(b's', true);
    // `+` is at rest; of `t` and `x` the retained messages are due.
    shard.say(subscriber, b"\x82\x06\x00\x01\x00\x01+\x00");
    let publisher = shard.connect(b'p', true);
    shard.receive(subscriber, b"\x82\x0A\x00\x02\x00\x01t\x00\x00\x01x\x00");
    shard.receive(publisher, &messages(1..=1));
    shard.receive(subscriber, b"\xA2\x05\x00\x03\x00\x01t");
    shard.receive(publisher, &messages(2..=2));
    let heard = shard.hear(subscriber);
    let acks = b"\x90\x04\x00\x02\x00\x00\xB0\x02\x00\x03".len();
    assert_eq!(heard.len(), acks + messages(1..=2).len(), "{heard:02x?}");
    let at = |message: Vec<u8>| heard.windows(6).position(|seen| *seen == message);
    assert!(at(messages(1..=1)) < at(messages(2..=2)), "{heard:02x?}");
}

#[test]
fn a_share_group_does_not_overtake_what_waits_for_retained_messages() {
    let mut shard = Shard::new(|_| {});
    let subscriber = shard.connect(b's', true);
    let other = shard.connect(b'o', true);
    let join = b"\x82\x0F\x00\x01\x00\x0A$share/g/t\x00";
    shard.say(subscriber, join);
    shard.say(other, join);
    let publisher = shard.connect(b'p', true);
    shard.receive(subscriber, SUBSCRIBE_T);
    shard.receive(publisher, &messages(1..=4));
    let heard = shard.hear(subscriber);
    let mut came: Vec<u8> = heard[5..].chunks(6).map(|packet| packet[5]).collect();
    assert_eq!(
        came.len(),
        6,
        "four of its own and two of the group: {heard:02x?}"
    );
    came.dedup();
    assert_eq!(came, [1, 2, 3, 4]);
}

#[test]
fn what_waits_of_a_share_group_goes_to_another_member_when_the_session_ends() {
    let mut shard = Shard::new(|_| {});
    let leaver = shard.connect(b'l', true);
    let other = shard.connect(b'o', true);
    let join = b"\x82\x0F\x00\x01\x00\x0A$share/g/t\x00";
    shard.say(leaver, join);
    shard.say(other, join);
    let publisher = shard.connect(b'p', true);
    shard.receive(leaver, SUBSCRIBE_T);
    shard.receive(publisher, &messages(1..=4));
    shard.core.receive_ended(shard.now, leaver);
    let heard = shard.hear(other);
    let mut came: Vec<u8> = heard.chunks(6).map(|packet| packet[5]).collect();
    came.sort_unstable();
    assert_eq!(came, [1, 2, 3, 4]);
}

#[test]
fn a_resumed_session_gets_no_more_at_once_than_its_new_receive_maximum() {
    let mut shard = Shard::new(|_| {});
    let never = b"\x05\x11\xFF\xFF\xFF\xFF";
    let subscriber = shard.connect_with(never, b"\x00\x01s");
    shard.say(subscriber, b"\x82\x07\x00\x07\x00\x00\x01t\x01");
    let publisher = shard.connect(b'p', true);
    for id in 1..=3 {
        shard.say(publisher, &[0x32, 6, 0, 1, b't', 0, id, id]);
    }
    assert_eq!(shard.hear(subscriber).len(), 3 * 9);
    shard.core.receive_ended(shard.now, subscriber);
    let one = b"\x08\x11\xFF\xFF\xFF\xFF\x21\x00\x01";
    let subscriber = shard.connect_with(one, b"\x00\x01s");
    for id in 1..=3 {
        let heard = shard.hear(subscriber);
        let expected = [0x3A, 7, 0, 1, b't', 0, id, 0, id];
        assert!(heard.ends_with(&expected), "{id}: {heard:02x?}");
        assert_eq!(
            heard.iter().filter(|byte| **byte == 0x3A).count(),
            1,
            "{heard:02x?}"
        );
        shard.receive(subscriber, &[0x40, 2, 0, id]);
    }
}

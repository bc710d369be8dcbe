//! Live messages that wait behind retained ones go over turns, in order.

use super::Shard;
use crate::engine::keys::ConnectionKey;
use crate::engine::session::outbound::QueueFull;

const PUBLISHES: u16 = 300;

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let length = 2 + topic.len() + payload.len();
    let head = [0x30, length as u8, 0, topic.len() as u8];
    [&head, topic.as_bytes(), payload].concat()
}

/// Payloads of the publishes in what a client hears.
fn payloads(mut heard: &[u8]) -> Vec<String> {
    let mut payloads = Vec::new();
    while let [first, length, rest @ ..] = heard {
        let (body, next) = rest.split_at(usize::from(*length));
        if first >> 4 == 3 {
            let topic_bytes = usize::from(body[1]);
            let payload = &body[2 + topic_bytes..];
            payloads.push(String::from_utf8(payload.to_vec()).unwrap());
        }
        heard = next;
    }
    payloads
}

/// A client with `k/+` that then subscribes to everything, and gets no answer from the retained messages yet;
/// meanwhile so many messages come to it by both, and as many by the second alone.
fn with_held(shard: &mut Shard) -> (ConnectionKey, ConnectionKey) {
    let [client, publisher] = [b's', b'p'].map(|id| shard.connect(id, true));
    shard.say(client, b"\x82\x08\x00\x01\x00\x03k/+\x00");
    shard
        .core
        .receive(shard.now, publisher, b"\x31\x06\x00\x01told");
    shard.begin_turn();
    shard.receive(client, b"\x82\x06\x00\x02\x00\x01#\x00");
    for number in 0..PUBLISHES {
        for place in ["k", "x"] {
            let topic = format!("{place}/{}", number % 100);
            shard.begin_turn();
            shard.receive(publisher, &publish(&topic, number.to_string().as_bytes()));
        }
    }
    (client, publisher)
}

/// What a client hears turn by turn, as long as there is work.
fn turns(shard: &mut Shard, client: ConnectionKey) -> Vec<Vec<String>> {
    let mut heard = Vec::new();
    loop {
        heard.push(payloads(&shard.hear(client)));
        while shard.core.next_ready().is_some() {}
        if !shard.core.has_work() {
            return heard;
        }
        shard.begin_turn();
        shard.core.work_off(shard.now);
    }
}

#[test]
fn after_an_unsubscribe_what_is_still_asked_for_goes_over_turns_and_in_order() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 256);
    let (client, publisher) = with_held(&mut shard);
    shard.begin_turn();
    shard.receive(client, b"\xA2\x05\x00\x03\x00\x01#");
    shard.receive(publisher, &publish("k/99", b"new"));
    let heard = turns(&mut shard, client);
    assert!(heard.len() > 10, "{} turns", heard.len());
    let most = heard.iter().map(Vec::len).max();
    assert!(most <= Some(17), "{most:?} in one turn");
    let mut wanted: Vec<_> = (0..PUBLISHES).map(|number| number.to_string()).collect();
    wanted.push("new".to_owned());
    assert_eq!(heard.concat(), wanted);
}

#[test]
fn what_waits_for_no_retained_message_goes_before_those_of_a_later_subscription() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 256);
    let (client, publisher) = with_held(&mut shard);
    shard.begin_turn();
    shard.receive(client, b"\xA2\x05\x00\x03\x00\x01#");
    // Its live copy comes to nobody.
    shard.begin_turn();
    shard.receive(publisher, b"\x31\x09\x00\x03x/9last");
    shard.begin_turn();
    shard.receive(client, b"\x82\x08\x00\x04\x00\x03x/+\x00");
    let heard = turns(&mut shard, client).concat();
    assert_eq!(heard.last().map(String::as_str), Some("last"));
    let numbers: Vec<u16> = heard.iter().filter_map(|text| text.parse().ok()).collect();
    assert!(numbers.len() > 64 && numbers.is_sorted(), "{numbers:?}");
}

#[test]
fn held_messages_that_go_are_work_of_their_turn() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 256);
    let (client, _) = with_held(&mut shard);
    shard.begin_turn();
    shard.receive(client, b"\xA2\x05\x00\x03\x00\x01#");
    shard.hear(client);
    shard.begin_turn();
    let begun = shard.core.backlog.work_left();
    shard.core.release_some(shard.now);
    let spent = begun - shard.core.backlog.work_left();
    let part = shard.core.backlog.part_of_turn() as i64;
    assert!(spent >= part, "{spent} of {part}");
}

/// What a client hears until there is no more work; also of fan-outs over turns.
fn all(shard: &mut Shard, client: ConnectionKey) -> Vec<u8> {
    let mut heard = Vec::new();
    loop {
        if !shard.core.fans_out() {
            heard.extend(shard.hear(client));
        }
        while shard.core.next_ready().is_some() {}
        if !shard.core.has_work() {
            return heard;
        }
        shard.begin_turn();
        shard.core.work_off(shard.now);
    }
}

/// A 5.0 client that has published to `o/1`, then subscribes to `o/+` with No Local, and publishes to `o/2`
/// before the retained messages have come. Another client has another filter or the same.
fn with_own(shard: &mut Shard, other_subscribes: &[u8]) -> (ConnectionKey, Vec<u8>) {
    let [client, other] = [b'n', b'o'].map(|id| shard.connect_v5(id));
    for key in [client, other] {
        all(shard, key);
    }
    shard.receive(client, OLD);
    shard.receive(other, other_subscribes);
    all(shard, other);
    shard.begin_turn();
    shard.receive(client, b"\x82\x09\x00\x01\x00\x00\x03o/+\x04");
    shard.begin_turn();
    shard.receive(client, NEW);
    let is_small = shard.core.settings.limits.turn_deliveries_max == 8;
    assert_eq!(shard.core.fans_out(), is_small, "it takes turns");
    let heard = all(shard, client);
    (client, heard)
}

const SAME_FILTER: &[u8] = b"\x82\x09\x00\x01\x00\x00\x03o/+\x00";
const OLD: &[u8] = b"\x31\x09\x00\x03o/1\x00old";
const NEW: &[u8] = b"\x31\x09\x00\x03o/2\x00new";

/// How often a packet is in what was heard.
fn times(heard: &[u8], packet: &[u8]) -> usize {
    let places = heard.windows(packet.len());
    places.filter(|place| *place == packet).count()
}

#[test]
fn own_retained_messages_come_by_no_local_only_if_they_are_older_than_the_subscription() {
    // One after the other, or in turns of their own.
    let others = [SAME_FILTER, &b"\x82\x07\x00\x01\x00\x00\x01#\x00"[..]];
    let cases = others.map(|other| [(8, other), (1_000_000, other)]);
    for (deliveries_max, other) in cases.concat() {
        let mut shard = Shard::new(|settings| {
            settings.limits.turn_deliveries_max = deliveries_max;
        });
        let (client, heard) = with_own(&mut shard, other);
        assert_eq!((times(&heard, OLD), times(&heard, NEW)), (1, 0));
        shard.receive(client, b"\x82\x09\x00\x02\x00\x00\x03o/+\x04");
        let again = all(&mut shard, client);
        assert_eq!((times(&again, OLD), times(&again, NEW)), (1, 1));
    }
}

#[test]
fn another_subscription_without_no_local_brings_own_messages_once() {
    let mut shard = Shard::new(|_| {});
    let client = shard.connect_v5(b'n');
    shard.hear(client);
    shard.receive(client, b"\x82\x09\x00\x01\x00\x00\x03o/+\x04");
    shard.receive(client, b"\x82\x09\x00\x01\x00\x00\x03o/2\x20");
    let mut heard = shard.say(client, b"\x31\x09\x00\x03o/2\x00new");
    assert_eq!(heard.split_off(heard.len() - NEW.len())[1..], NEW[1..]);
    assert!(times(&heard, &NEW[1..]) == 0, "{heard:02x?}");
}

#[test]
fn messages_that_no_local_would_have_to_leave_out_are_given_up_beyond_the_bound() {
    let mut shard = Shard::new(|settings| settings.limits.queue_bytes_max = 100);
    let (_, heard) = with_own(&mut shard, SAME_FILTER);
    assert_eq!(times(&heard, NEW), 0);
    assert_eq!(super::counter(&shard, "dropped_replay_full"), 2);
}

/// A client that acknowledges nothing, has `q/+`, and then subscribes to `h/+`, of which no retained message
/// has come yet: so many messages of each wait for it. What waits in its queue, and behind retained ones.
fn waiting(shard: &mut Shard, messages: [(&str, usize); 2]) -> (usize, usize) {
    let [client, publisher] = [b's', b'p'].map(|id| shard.connect(id, true));
    shard.say(client, b"\x82\x08\x00\x01\x00\x03q/+\x01");
    shard.begin_turn();
    shard.receive(client, b"\x82\x08\x00\x02\x00\x03h/+\x01");
    for (topic, count) in messages {
        for _ in 0..count {
            let packet = [b"\x32\x08\x00\x03", topic.as_bytes(), b"\x00\x01x"].concat();
            shard.receive(publisher, &packet);
        }
    }
    let session = shard.core.session_of("s").unwrap();
    let session = shard.core.clients.sessions.get(session).unwrap();
    let held = session
        .replay
        .as_ref()
        .map_or(0, |replay| replay.held.len());
    (session.outbound.queued(), held)
}

#[test]
fn what_waits_behind_retained_messages_has_a_bound_as_large_as_the_queues() {
    let bounded = |full| {
        Shard::new(move |settings| {
            settings.limits.queue_messages_max = 10;
            settings.limits.inflight_max = 1;
            settings.queue_full = full;
        })
    };
    let mut shard = bounded(QueueFull::DropNewest);
    assert_eq!(waiting(&mut shard, [("q/1", 7), ("h/1", 20)]), (6, 10));
    assert_eq!(super::counter(&shard, "dropped_replay_full"), 10);
    let mut shard = bounded(QueueFull::DropNewest);
    assert_eq!(waiting(&mut shard, [("h/1", 7), ("q/1", 20)]), (10, 7));
    assert_eq!(super::counter(&shard, "dropped_queue_full"), 9);
    let mut shard = bounded(QueueFull::DropOldest);
    assert_eq!(waiting(&mut shard, [("h/1", 20), ("q/1", 20)]), (10, 10));
    assert_eq!(super::counter(&shard, "dropped_queue_full"), 9);
}

//! Live messages that wait behind retained ones go over turns, in order.

use super::Shard;
use crate::engine::keys::ConnectionKey;

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

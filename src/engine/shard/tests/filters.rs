//! SUBSCRIBE and UNSUBSCRIBE that are worked off over turns.

use super::{DELIVERED_T, PUBLISH_T, Shard};
use crate::engine::codec::topic::TopicFilter;
use crate::engine::keys::ConnectionKey;

const PING: &[u8] = b"\xC0\x00";
const PONG: &[u8] = b"\xD0\x00";
const SUBACK_4: &[u8] = b"\x90\x06\x00\x09\x01\x01\x01\x01";
const UNSUBACK: &[u8] = b"\xB0\x02\x00\x09";

/// Turns in which one filter is done.
fn slow_shard() -> Shard {
    Shard::new(|settings| {
        settings.limits.turn_deliveries_max = 8;
        settings.limits.takeover_wait_ms = 0;
    })
}

fn packet(first: u8, filters: &[&str]) -> Vec<u8> {
    let mut body = vec![0, 9];
    for filter in filters {
        body.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        body.extend((first == 0x82).then_some(1));
    }
    let (low, high) = (body.len() as u8 & 0x7F, (body.len() >> 7) as u8);
    let length = if high > 0 {
        vec![low | 0x80, high]
    } else {
        vec![low]
    };
    [&[first], &length[..], &body].concat()
}

fn has(shard: &Shard, filter: &str) -> bool {
    let found = shard.core.trie.find(TopicFilter::trusted(filter));
    found.is_some()
}

/// What a client hears over so many turns.
fn turns(shard: &mut Shard, key: ConnectionKey, count: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    for _ in 0..count {
        shard.begin_turn();
        shard.core.work_off(shard.now);
        heard.extend(shard.hear(key));
    }
    heard
}

#[test]
fn many_filters_are_done_over_turns_and_answered_at_once_while_the_next_packet_waits() {
    let mut shard = slow_shard();
    let [client, other] = [b's', b'o'].map(|id| shard.connect(id, true));
    let filters = ["t", "u", "v", "w"];
    shard.begin_turn();
    shard.receive(client, &[&packet(0x82, &filters), PING].concat());
    assert_eq!(shard.hear(client), b"");
    assert!(has(&shard, "t") && !has(&shard, "u"));
    assert_eq!(shard.say(other, PING), PONG, "others are served");
    assert_eq!(turns(&mut shard, client, 2), b"");
    assert!(has(&shard, "v") && !has(&shard, "w") && shard.core.has_work());
    let heard = turns(&mut shard, client, 4);
    assert_eq!(heard, [SUBACK_4, PONG].concat());
    assert!(filters.iter().all(|filter| has(&shard, filter)));

    shard.begin_turn();
    shard.receive(client, &[&packet(0xA2, &filters), PING].concat());
    assert!(!has(&shard, "t") && has(&shard, "u"));
    assert_eq!(turns(&mut shard, client, 2), b"");
    assert!(!has(&shard, "v") && has(&shard, "w"));
    assert_eq!(turns(&mut shard, client, 4), [UNSUBACK, PONG].concat());
    assert!(shard.core.trie.is_empty() && !shard.core.has_work());
}

#[test]
fn levels_cost_too() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 1_000);
    let client = shard.connect(b's', true);
    let texts = |deep: &str| -> Vec<String> { (0..6).map(|n| format!("{n}{deep}")).collect() };
    for (deep, are_all_done) in [(String::new(), true), ("/a".repeat(60), false)] {
        let texts = texts(&deep);
        let filters: Vec<&str> = texts.iter().map(|text| &**text).collect();
        shard.begin_turn();
        shard.receive(client, &packet(0x82, &filters));
        assert!(has(&shard, filters[0]));
        assert_eq!(has(&shard, filters[5]), are_all_done);
        turns(&mut shard, client, 10);
        assert!(has(&shard, filters[5]));
    }
}

#[test]
fn a_connection_that_ends_in_between_leaves_what_was_done_and_nothing_that_is_held_for_ever() {
    let mut shard = slow_shard();
    let publisher = shard.connect(b'p', true);
    shard.receive(publisher, b"\x31\x06\x00\x01told");
    let client = shard.connect(b's', false);
    shard.begin_turn();
    shard.receive(client, &packet(0x82, &["t", "u", "v"]));
    // Another connection of the client takes over.
    let client = shard.connect(b's', false);
    assert!(has(&shard, "t") && !has(&shard, "u"));
    // No SUBACK; what is retained for the one that was done.
    assert_eq!(turns(&mut shard, client, 5), b"\x31\x06\x00\x01told");
    shard.begin_turn();
    shard.receive(publisher, PUBLISH_T);
    assert_eq!(turns(&mut shard, client, 5), DELIVERED_T);

    shard.begin_turn();
    shard.receive(client, &packet(0x82, &["u", "v"]));
    shard.begin_turn();
    shard.receive(client, b"\xE0\x00");
    let client = shard.connect(b's', true);
    assert_eq!(turns(&mut shard, client, 5), b"");
    shard.take_commands();
    assert!(shard.core.trie.is_empty() && !shard.core.has_work());
}

#[test]
fn what_came_before_the_end_of_a_connection_is_done_before_it() {
    let mut shard = slow_shard();
    let client = shard.connect(b's', false);
    shard.begin_turn();
    shard.receive(client, &packet(0x82, &["t", "u", "v"]));
    shard.core.receive_ended(shard.now, client);
    turns(&mut shard, client, 5);
    assert!(has(&shard, "v") && shard.core.connections() == 0);
}

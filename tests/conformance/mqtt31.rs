//! What MQTT 3.1 has of its own, byte by byte: a client of that time is served as its standard says.

use crate::checks::{open, raw_connect, still_serves, watch};
use crate::rule;
use crate::support::{Broker, Client, Connect, Publish, Will, frame, put_str, unique};
use crate::{V3, V4};
use std::io::Read;

const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

/// A CONNECT with these flags and fields, keep alive 0.
fn connect_bytes(flags: u8, fields: &[&str]) -> Vec<u8> {
    let mut payload = Vec::new();
    for field in fields {
        put_str(&mut payload, field);
    }
    raw_connect("MQIsdp", 3, flags, &payload)
}

/// A connection that has sent these bytes and nothing else.
fn dial(b: &Broker, bytes: &[u8]) -> Client {
    let mut client = Client::dial(b, V3);
    client.send(bytes);
    client
}

/// The next bytes that come are these.
fn hear(client: &Client, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    let heard = client.stream().read_exact(&mut got);
    heard.unwrap_or_else(|error| panic!("{error} instead of {wanted:02x?}"));
    assert_eq!(got, wanted);
}

fn is_closed(client: &Client) {
    let mut rest = Vec::new();
    // A reset is a close, too.
    let _ = client.stream().read_to_end(&mut rest);
    assert!(rest.is_empty(), "expected a close, got {rest:02x?}");
}

fn accepted(b: &Broker, bytes: &[u8]) -> Client {
    let client = dial(b, bytes);
    hear(&client, &ACCEPTED);
    client
}

fn plain(b: &Broker) -> Client {
    accepted(b, &connect_bytes(0x02, &[&unique("c")]))
}

/// A client that was accepted sends this and is closed.
fn closes(b: &Broker, bytes: &[u8]) {
    let mut client = plain(b);
    client.send(bytes);
    is_closed(&client);
    still_serves(b);
}

/// SUBSCRIBE or UNSUBSCRIBE by its first byte; a filter is followed by `more`.
fn request(first: u8, filter: &str, more: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 7];
    put_str(&mut body, filter);
    body.extend_from_slice(more);
    frame(first, &body)
}

rule!(v31_01__the_name_goes_with_its_level, |b| {
    let client = dial(b, &raw_connect("MQIsdp", 4, 2, &[0, 1, b'c']));
    hear(&client, &[0x20, 2, 0, 1]);
    is_closed(&client);
    plain(b).ping();
});
rule!(v31_02__a_client_names_itself, |b| {
    for flags in [0, 2] {
        let client = dial(b, &connect_bytes(flags, &[""]));
        hear(&client, &[0x20, 2, 0, 2]);
        is_closed(&client);
    }
    accepted(b, &connect_bytes(2, &[&format!("{:x<40}", unique("c"))])).ping();
});
rule!(v31_03__the_user_name_may_be_missing, |b| {
    accepted(b, &connect_bytes(0x82, &[&unique("c")])).ping();
});
rule!(v31_04__the_password_may_be_missing, |b| {
    accepted(b, &connect_bytes(0xC2, &[&unique("c")])).ping();
    accepted(b, &connect_bytes(0xC2, &[&unique("c"), "ann"])).ping();
    accepted(b, &connect_bytes(0xC2, &[&unique("c"), "ann", "secret"])).ping();
    is_closed(&dial(b, &connect_bytes(0x42, &[&unique("c"), "secret"])));
});
rule!(v31_05__flags_without_use_are_not_looked_at, |b| {
    for flags in [0x03, 0x0A, 0x12, 0x1A, 0x22, 0x3B] {
        accepted(b, &connect_bytes(flags, &[&unique("c")])).ping();
    }
    is_closed(&dial(b, &connect_bytes(0x1E, &[&unique("c"), "t", "p"])));
});
rule!(v31_06__no_session_present_flag, |b| {
    let bytes = connect_bytes(0, &[&unique("c")]);
    for _ in 0..2 {
        let mut client = accepted(b, &bytes);
        client.send(&[0xE0, 0]);
        is_closed(&client);
    }
});
rule!(v31_07__header_flags_without_use_are_not_looked_at, |b| {
    let mut bytes = connect_bytes(2, &[&unique("c")]);
    bytes[0] = 0x1B;
    // The beginning alone does not decide.
    let mut client = dial(b, &bytes[..1]);
    client.send(&bytes[1..]);
    hear(&client, &ACCEPTED);
    client.send(&[0x4F, 2, 0, 9, 0xC9, 0]);
    hear(&client, &[0xD0, 0]);
    client.send(&[0xE1, 0]);
    is_closed(&client);
    // Later versions reserve them.
    let mut strict = Connect::v4(&unique("c")).encode();
    strict[0] = 0x1B;
    is_closed(&dial(b, &strict));
});
rule!(v31_08__subscribe_may_have_dup, |b| {
    let topic = unique("t");
    let mut client = plain(b);
    client.send(&request(0x8A, &topic, &[1]));
    hear(&client, &[0x90, 3, 0, 7, 1]);
    open(b, V4).publish(&topic, 0, "x");
    client.expect(&topic, "x");
    let mut strict = open(b, V4);
    strict.send(&request(0x8A, &topic, &[1]));
    strict.expect_closed();
});
rule!(v31_09__unsubscribe_may_have_dup, |b| {
    let topic = unique("t");
    let mut client = plain(b);
    client.subscribe(&topic, 0);
    for _ in 0..2 {
        client.send(&request(0xAA, &topic, &[]));
        hear(&client, &[0xB0, 2, 0, 7]);
    }
    open(b, V4).publish(&topic, 0, "x");
    client.expect_nothing();
});
rule!(v31_10__pubrel_may_have_dup, |b| {
    let topic = unique("t");
    let mut watcher = watch(b, V3, &topic, 2);
    let mut client = plain(b);
    client.send(&Publish::new(&topic, 2, "x").id(5).encode(V3));
    hear(&client, &[0x50, 2, 0, 5]);
    for first in [0x62, 0x6A] {
        client.send(&[first, 2, 0, 5]);
        hear(&client, &[0x70, 2, 0, 5]);
    }
    watcher.expect(&topic, "x");
    watcher.expect_nothing();
});
rule!(v31_11__requests_have_qos_1, |b| {
    closes(b, &[0x60, 2, 0, 5]);
    closes(b, &request(0x80, "a", &[0]));
    closes(b, &request(0x86, "a", &[0]));
    closes(b, &request(0xA4, "a", &[]));
});
rule!(v31_12__the_upper_bits_of_a_requested_qos, |b| {
    let topic = unique("t");
    let mut client = plain(b);
    client.send(&request(0x82, &topic, &[0xFD]));
    hear(&client, &[0x90, 3, 0, 7, 1]);
    // Nothing of it is taken for an option of 5.0, such as not to send what is its own.
    client.publish(&topic, 1, "x");
    assert!(!client.expect(&topic, "x").retain);
    closes(b, &request(0x82, &topic, &[3]));
});
rule!(v31_13__suback_has_no_refusal, |b| {
    let mut client = plain(b);
    client.send(&request(0x82, "$share/g/", &[1]));
    hear(&client, &[0x90, 3, 0, 7, 0]);
    let mut newer = open(b, V4);
    newer.send(&request(0x82, "$share/g/", &[1]));
    hear(&newer, &[0x90, 3, 0, 7, 0x80]);
});
rule!(v31_14__a_forbidden_publish_is_acknowledged, |b| {
    let mut client = plain(b);
    client.send(&Publish::new("$SYS/x", 1, "x").id(5).encode(V3));
    hear(&client, &[0x40, 2, 0, 5]);
    client.send(&Publish::new("$SYS/x", 2, "x").id(6).encode(V3));
    hear(&client, &[0x50, 2, 0, 6]);
});
rule!(v31_15__a_session_waits_for_its_client, |b| {
    let (topic, bytes) = (unique("t"), connect_bytes(0, &[&unique("c")]));
    let mut client = accepted(b, &bytes);
    client.subscribe(&topic, 1);
    client.disconnect();
    open(b, V4).publish(&topic, 1, "x");
    let mut client = accepted(b, &bytes);
    client.expect(&topic, "x");
});
rule!(v31_16__the_will_is_for_those_who_go_without_a_word, |b| {
    let topic = unique("will");
    let mut watcher = watch(b, V3, &topic, 1);
    let will = Will::new(&topic, "gone").qos(1);
    let connect = || Connect::new(V3, &unique("c")).will(will.clone());
    connect().open(b).disconnect();
    watcher.expect_nothing();
    connect().open(b).cut();
    watcher.expect(&topic, "gone");
});
rule!(v31_17__retain_tells_stored_from_live, |b| {
    let topic = unique("t");
    open(b, V3).retain(&topic, 0, "x");
    let mut client = watch(b, V3, &topic, 0);
    assert!(client.expect(&topic, "x").retain);
    open(b, V3).retain(&topic, 0, "y");
    assert!(!client.expect(&topic, "y").retain);
});
rule!(v31_18__qos_2_takes_four_packets, |b| {
    let topic = unique("t");
    let mut watcher = plain(b);
    watcher.send(&request(0x82, &topic, &[2]));
    hear(&watcher, &[0x90, 3, 0, 7, 2]);
    let mut client = plain(b);
    client.send(&Publish::new(&topic, 2, "x").id(5).encode(V3));
    hear(&client, &[0x50, 2, 0, 5]);
    client.send(&[0x62, 2, 0, 5]);
    hear(&client, &[0x70, 2, 0, 5]);
    hear(&watcher, &Publish::new(&topic, 2, "x").id(1).encode(V3));
    watcher.send(&[0x50, 2, 0, 1]);
    hear(&watcher, &[0x62, 2, 0, 1]);
    watcher.send(&[0x70, 2, 0, 1, 0xC0, 0]);
    hear(&watcher, &[0xD0, 0]);
});
rule!(v31_19__silence_is_cut, |b| {
    let topic = unique("will");
    let mut watcher = watch(b, V3, &topic, 0);
    let connect = Connect::new(V3, &unique("c")).keep_alive(1);
    let mut client = connect.will(Will::new(&topic, "gone")).open(b);
    client.expect_closed();
    watcher.expect(&topic, "gone");
});
rule!(v31_20__one_connection_one_connect, |b| {
    let bytes = connect_bytes(2, &[&unique("c")]);
    let first = accepted(b, &bytes);
    let mut second = accepted(b, &bytes);
    is_closed(&first);
    second.send(&bytes);
    is_closed(&second);
});
rule!(v31_21__topic_names_have_no_wildcards, |b| {
    for topic in ["a/+", "#", ""] {
        closes(b, &Publish::new(topic, 0, "x").encode(V3));
    }
});
rule!(v31_22__a_ping_is_answered, |b| {
    let mut client = plain(b);
    client.send(&[0xC0, 0]);
    hear(&client, &[0xD0, 0]);
});

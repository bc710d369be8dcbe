//! Steps that many rules share.

use crate::support::{
    Broker, Client, Connect, Packet, Props, Publish, Version, frame, put_str, unique,
};
use crate::{V4, V5};

pub fn open(broker: &Broker, version: Version) -> Client {
    Connect::new(version, &unique("c")).open(broker)
}

/// A well-behaved client is still served.
pub fn still_serves(broker: &Broker) {
    let (mut client, topic) = (open(broker, V4), unique("still"));
    client.subscribe(&topic, 0);
    client.publish(&topic, 0, "served");
    client.expect(&topic, "served");
}

/// An accepted client that sends `bytes` is closed: 5.0 after DISCONNECT with one of `codes`.
pub fn breaks(broker: &Broker, version: Version, bytes: &[u8], codes: &[u8]) {
    let mut client = open(broker, version);
    client.send(bytes);
    client.expect_error(codes);
    still_serves(broker);
}

/// `bytes` sent as CONNECT are refused: by CONNACK with one of `codes` or by nothing, then the close.
pub fn refused(broker: &Broker, version: Version, bytes: &[u8], codes: &[u8]) {
    let mut client = Client::dial(broker, version);
    client.send(bytes);
    match client.next_packet() {
        None => {}
        Some(Packet::Connack { code, .. }) if codes.contains(&code) => client.expect_closed(),
        other => panic!("expected a refusal {codes:02x?}, got {other:?}"),
    }
    still_serves(broker);
}

/// Refused as malformed: silently before 5.0.
pub fn malformed_connect(broker: &Broker, version: Version, bytes: &[u8]) {
    let codes: &[u8] = if version == V5 { &[0x81, 0x82] } else { &[] };
    refused(broker, version, bytes, codes);
}

/// A CONNECT with any name, level, flags and payload.
pub fn raw_connect(name: &str, level: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_str(&mut body, name);
    body.extend_from_slice(&[level, flags, 0, 0]);
    if level >= 5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    frame(0x10, &body)
}

/// String fields one after another.
pub fn fields(texts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in texts {
        put_str(&mut out, text);
    }
    out
}

/// A SUBSCRIBE (`0x82`) or UNSUBSCRIBE (`0xA2`) with any first byte and payload.
pub fn request(first: u8, version: Version, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == V5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    frame(first, &body)
}

/// A filter and its options as they stand in SUBSCRIBE.
pub fn filter(text: &[u8], options: u8) -> Vec<u8> {
    let mut out = fields(&[text]);
    out.push(options);
    out
}

/// A watcher of `topic` at `qos`.
pub fn watch(broker: &Broker, version: Version, topic: &str, qos: u8) -> Client {
    let mut client = open(broker, version);
    client.subscribe(topic, qos);
    client
}

/// A persistent subscriber of `topic` that is away now; gives how it comes back.
pub fn absent(broker: &Broker, version: Version, topic: &str, qos: u8) -> Connect {
    let connect = Connect::new(version, &unique("absent")).persistent();
    let mut client = connect.open(broker);
    client.subscribe(topic, qos);
    client.disconnect();
    connect
}

/// What a new subscriber of `filter` gets from the retained store. Live messages of a subscription wait
/// behind its retained ones, so a live one marks their end.
pub fn retained(broker: &Broker, version: Version, filter: &str) -> Vec<Publish> {
    let mut client = watch(broker, version, filter, 2);
    let marker = unique("marker");
    let topic = filter.replace(['+', '#'], &marker);
    open(broker, version).publish(&topic, 0, &marker);
    let mut found = Vec::new();
    loop {
        let publish = client.recv_publish();
        if publish.payload == marker.as_bytes() {
            return found;
        }
        // A subscription to all topics sees what other tests publish meanwhile.
        if publish.retain {
            found.push(publish);
        }
    }
}

/// Subscribes with properties (5.0).
pub fn subscribe_props(client: &mut Client, topic: &str, options: u8, props: Props) {
    let codes = client.subscribe_with(&props, &[(topic, options)]);
    assert_eq!(codes, [options & 3], "subscription to {topic}");
}

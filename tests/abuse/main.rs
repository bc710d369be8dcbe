//! Hostile input: one test per attack, named after it. Each ends in a close with a reason or in
//! service as usual, with bounded memory, and others are served all the while.

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of the support"
)]
mod support;

use support::{
    Ack, Broker, Client, Connect, Packet, Props, Publish, Version, Will, frame, prop, shared,
    unique,
};

const VERSIONS: [Version; 3] = [Version::V3, Version::V4, Version::V5];

fn served(broker: &Broker) {
    let (mut client, topic) = (Connect::v5(&unique("good")).open(broker), unique("good"));
    client.subscribe(&topic, 2);
    client.publish(&topic, 2, "served");
    client.expect(&topic, "served");
    client.disconnect();
}

/// A conversation that has every packet a client may send; its answers do not depend on how the bytes
/// are cut.
fn conversation(version: Version, id: &str, topic: &str) -> Vec<u8> {
    let mut connect = Connect::new(version, id)
        .will(Will::new(topic, "will"))
        .login("u", "p");
    if version == Version::V5 {
        connect = connect.props(Props::new().two(prop::RECEIVE_MAXIMUM, 9).user("k", "v"));
    }
    let ack = |kind: u8, id: u16| frame(kind, &id.to_be_bytes());
    let subscribe = |id: u16| {
        let mut body = id.to_be_bytes().to_vec();
        if version == Version::V5 {
            Props::new()
                .variable(prop::SUBSCRIPTION_ID, 200)
                .put(&mut body);
        }
        support::put_str(&mut body, topic);
        body.push(0);
        frame(0x82, &body)
    };
    let unsubscribe = |id: u16| {
        let mut body = id.to_be_bytes().to_vec();
        if version == Version::V5 {
            body.push(0);
        }
        support::put_str(&mut body, topic);
        frame(0xA2, &body)
    };
    let publish = |qos| {
        Publish::new(format!("{topic}/other"), qos, vec![b'x'; 200])
            .id(7)
            .encode(version)
    };
    [
        connect.encode(),
        subscribe(1),
        publish(0),
        publish(1),
        publish(2),
        ack(0x62, 7),
        ack(0x40, 99),
        ack(0x70, 98),
        vec![0xC0, 0],
        unsubscribe(2),
    ]
    .concat()
}

/// The answers to a conversation, as kinds in a fixed order.
fn answers(client: &mut Client) -> Vec<String> {
    // SUBACK and UNSUBACK may have to wait for other shards, so DISCONNECT comes after them.
    client.wait_suback(1);
    client.expect_unsubacks(1);
    client.send(&[0xE0, 0]);
    let mut all: Vec<String> = client
        .drain_to_close()
        .iter()
        .map(|packet| match packet {
            Packet::Connack { code, .. } => format!("connack {code}"),
            Packet::Ack { kind, id, .. } => format!("{kind:?} {id}"),
            other => format!("{other:?}"),
        })
        .collect();
    all.sort();
    all
}

#[test]
fn every_packet_cut_at_every_byte() {
    let broker = shared(2, "");
    for version in VERSIONS {
        let topic = unique("cut");
        let mut whole = Client::dial(&broker, version);
        whole.send(&conversation(version, &unique("whole"), &topic));
        let expected = answers(&mut whole);
        assert!(expected.len() >= 5, "{expected:?}");
        let length = conversation(version, &unique("xx"), &topic).len();
        for cut in 1..length {
            let bytes = conversation(version, &unique("cut"), &topic);
            let cut = cut.min(bytes.len() - 1);
            let mut client = Client::dial(&broker, version);
            client.send(&bytes[..cut]);
            // Nothing tells when the broker has read the first part; a yield makes two reads likely.
            std::thread::yield_now();
            client.send(&bytes[cut..]);
            assert_eq!(
                answers(&mut client),
                expected,
                "cut at {cut} of {version:?}"
            );
        }
    }
    served(&broker);
}

#[test]
fn a_conversation_byte_by_byte() {
    let broker = shared(2, "");
    for version in VERSIONS {
        let topic = unique("bytes");
        let mut client = Client::dial(&broker, version);
        for byte in conversation(version, &unique("bytes"), &topic) {
            client.send(&[byte]);
        }
        assert!(answers(&mut client).len() >= 5);
    }
    served(&broker);
}

/// Sends `bytes` on an accepted connection and closes; the broker may answer what it likes.
fn throw(broker: &Broker, version: Version, bytes: &[u8]) {
    let mut client = Connect::new(version, &unique("bad")).open(broker);
    client.send_lossy(bytes);
    client.send_lossy(&[0xE0, 0]);
    client.stream().shutdown(std::net::Shutdown::Write).ok();
    client.drain_to_close();
}

#[test]
fn every_byte_of_every_packet_lied_about() {
    let broker = shared(2, "");
    for version in VERSIONS {
        let topic = unique("lie");
        let bytes = conversation(version, "liar", &topic);
        let connect = 2 + usize::from(bytes[1]);
        for at in 0..connect {
            for lie in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
                let mut lied = bytes[..connect].to_vec();
                lied[at] = lie;
                let mut client = Client::dial(&broker, Version::V5);
                client.send_lossy(&lied);
                client.reset();
            }
        }
        for at in connect..bytes.len() {
            for lie in [0x00, 0x7F, 0xFF] {
                let mut lied = bytes[connect..].to_vec();
                lied[at - connect] = lie;
                let mut client = Connect::new(version, &unique("liar")).open(&broker);
                client.send_lossy(&lied);
                client.reset();
            }
        }
    }
    served(&broker);
}

#[test]
fn every_first_byte() {
    let broker = shared(2, "");
    for version in VERSIONS {
        for first in 0..=255u8 {
            for body in [[].as_slice(), &[0, 1], &[0, 1, 0]] {
                let mut client = Connect::new(version, &unique("first")).open(&broker);
                client.send_lossy(&frame(first, body));
                client.reset();
            }
        }
    }
    served(&broker);
}

#[test]
fn every_property_in_every_packet_and_twice() {
    let broker = shared(2, "");
    let value = |props: Props, id: u8| match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => props.byte(id, 1),
        0x13 | 0x21 | 0x22 | 0x23 => props.two(id, 1),
        0x02 | 0x11 | 0x18 | 0x27 => props.four(id, 1000),
        0x0B => props.variable(id, 1),
        0x26 => props.user("k", "v"),
        _ => props.text(id, "x"),
    };
    for id in 0..=0x2B {
        for times in 1..=2 {
            let props = (0..times).fold(Props::new(), |props, _| value(props, id));
            let mut encoded = Vec::new();
            props.put(&mut encoded);
            let publish = Publish::new("a", 0, "x")
                .props(props.clone())
                .encode(Version::V5);
            throw(&broker, Version::V5, &publish);
            for first in [0x40, 0x50, 0x62, 0x70] {
                throw(
                    &broker,
                    Version::V5,
                    &frame(first, &[&[0, 1, 0], encoded.as_slice()].concat()),
                );
            }
            for first in [0xE0, 0xF0] {
                throw(
                    &broker,
                    Version::V5,
                    &frame(first, &[&[0], encoded.as_slice()].concat()),
                );
            }
            let tail = [&[0, 1], encoded.as_slice(), &[0, 1, b'a', 0]].concat();
            throw(&broker, Version::V5, &frame(0x82, &tail));
            throw(&broker, Version::V5, &frame(0xA2, &tail[..tail.len() - 1]));
            let mut client = Client::dial(&broker, Version::V5);
            client.send_lossy(&Connect::v5(&unique("p")).props(props).encode());
            client.reset();
        }
    }
    served(&broker);
}

#[test]
fn flood_of_tiny_packets() {
    let broker = shared(2, "");
    let mut client = Connect::v4(&unique("flood")).open(&broker);
    let pings = [0xC0, 0].repeat(1_000);
    for _ in 0..50 {
        client.send(&pings);
        for _ in 0..1_000 {
            assert_eq!(client.recv(), Packet::Pingresp);
        }
    }
    served(&broker);
}

#[test]
fn flood_of_pings_never_read() {
    let broker = Broker::start(2);
    let before = broker.resident_bytes();
    let mut client = Connect::v4(&unique("flood")).open(&broker);
    client
        .stream()
        .set_write_timeout(Some(std::time::Duration::from_millis(500)))
        .expect("set the write timeout");
    let pings = [0xC0, 0].repeat(50_000);
    for _ in 0..200 {
        client.send_lossy(&pings);
    }
    served(&broker);
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {grown} bytes");
}

#[test]
fn subscribe_with_65535_filters() {
    let broker = shared(2, "[limits]\nmax_packet_bytes = 1048576\n");
    let filters: Vec<(String, u8)> = (0..65_535).map(|n| (format!("{n}"), 0)).collect();
    let mut client = Connect::v5(&unique("many")).open(&broker);
    let bytes = client.subscribe_bytes(1, &Props::new(), &filters);
    client.send_lossy(&bytes);
    match client.next_packet() {
        Some(Packet::Suback { codes, .. }) => assert_eq!(codes.len(), 65_535),
        Some(Packet::Disconnect { code, .. }) => assert!(code >= 0x80),
        other => assert_eq!(other, None),
    }
    served(&broker);
}

#[test]
fn topic_of_32000_levels() {
    let broker = shared(2, "");
    let deep = "/".repeat(32_000);
    for version in VERSIONS {
        throw(
            &broker,
            version,
            &Publish::new(&deep, 0, "x").encode(version),
        );
        let mut client = Connect::new(version, &unique("deep")).open(&broker);
        let bytes = client.subscribe_bytes(1, &Props::new(), &[(format!("{deep}#"), 0)]);
        client.send_lossy(&bytes);
        match client.next_packet() {
            // 3.1 has no word for a refusal.
            Some(Packet::Suback { codes, .. }) if version == Version::V3 => assert_eq!(codes, [0]),
            Some(Packet::Suback { codes, .. }) => assert!(codes[0] >= 0x80, "{codes:02x?}"),
            Some(Packet::Disconnect { code, .. }) => assert!(code >= 0x80),
            other => assert_eq!(other, None),
        }
    }
    served(&broker);
}

#[test]
fn storm_of_subscribes_and_unsubscribes() {
    let broker = shared(4, "");
    let mut clients: Vec<Client> = (0..8)
        .map(|_| Connect::v4(&unique("storm")).open(&broker))
        .collect();
    for round in 0..200u16 {
        for client in &mut clients {
            let filter = format!("storm/{}/+/#", round % 10);
            let subscribe = client.subscribe_bytes(round + 1, &Props::new(), &[(&filter, 1)]);
            let unsubscribe = client.unsubscribe_bytes(round + 1, &[&filter]);
            client.send(&[subscribe, unsubscribe].concat());
        }
    }
    for client in &mut clients {
        for round in 1..=200 {
            assert_eq!(client.wait_suback(round), [1]);
        }
        client.expect_unsubacks(200);
        client.ping();
    }
    served(&broker);
}

#[test]
fn qos_2_handshakes_abandoned_at_each_step() {
    let broker = Broker::start(2);
    let topic = unique("abandoned");
    for version in VERSIONS {
        for step in 0..4 {
            let mut sender = Connect::new(version, &unique("s")).open(&broker);
            let mut receiver = Connect::new(version, &unique("r")).open(&broker);
            receiver.subscribe(&topic, 2);
            let id = sender.send_publish(&Publish::new(&topic, 2, "x"));
            if step > 0 {
                sender.wait_ack(Ack::Pubrec, id);
                sender.ack(Ack::Pubrel, id);
            }
            if step > 1 {
                let got = receiver.recv_publish();
                receiver.ack(Ack::Pubrec, got.id);
            }
            if step > 2 {
                sender.wait_ack(Ack::Pubcomp, id);
            }
            sender.reset();
            receiver.reset();
        }
    }
    served(&broker);
    broker.await_counter("connections", 0);
    broker.await_counter("sessions", 0);
    broker.await_counter("subscriptions", 0);
}

#[test]
fn alias_bound_to_ever_new_topics() {
    let broker = shared(2, "[limits]\ntopic_alias_max = 65535\n");
    let mut client = Connect::v5(&unique("alias")).open(&broker);
    for alias in 1..=65_535u16 {
        let props = Props::new().two(prop::TOPIC_ALIAS, alias);
        client.send_publish(&Publish::new(format!("alias/{alias}"), 0, "").props(props));
    }
    client.ping();
    served(&broker);
}

#[test]
fn quota_overrun_is_told() {
    let broker = shared(2, "[limits]\nreceive_maximum = 10\n");
    let mut client = Connect::v5(&unique("quota")).open(&broker);
    let mut bytes = Vec::new();
    for id in 1..=50 {
        bytes.extend(Publish::new("q", 2, "x").id(id).encode(Version::V5));
    }
    client.send_lossy(&bytes);
    let all = client.drain_to_close();
    assert!(
        matches!(all.last(), Some(Packet::Disconnect { code: 0x93, .. })),
        "{:?}",
        all.last()
    );
    served(&broker);
}

#[test]
fn slow_connects_do_not_stay() {
    let broker = Broker::with_config(2, "[limits]\nconnect_timeout_ms = 1000\n");
    let mut slow: Vec<Client> = (0..100)
        .map(|_| Client::dial(&broker, Version::V4))
        .collect();
    for client in &mut slow {
        client.send(&[0x10]);
    }
    served(&broker);
    slow.iter_mut().for_each(Client::expect_closed);
    assert!(broker.counters().get("connect_timeouts") >= 100);
}

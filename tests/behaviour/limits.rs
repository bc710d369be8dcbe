//! Every limit: what is just within it works, what is beyond is refused as the standard says, and
//! others go on unharmed.

use crate::on_shards;
use crate::support::{
    Ack, Broker, Client, Connect, Packet, Props, Publish, Version, eventually, prop, shared, unique,
};
use std::sync::Arc;

fn limited(shards: usize, limits: &str) -> Arc<Broker> {
    shared(shards, &format!("[limits]\n{limits}\n"))
}

fn v5(broker: &Broker) -> Client {
    Connect::v5(&unique("c")).open(broker)
}

fn topic_length(shards: usize) {
    let broker = limited(shards, "topic_bytes_max = 50");
    let fits = "t".repeat(50);
    let mut client = v5(&broker);
    client.subscribe(&fits, 1);
    client.publish(&fits, 1, "x");
    client.expect(&fits, "x");
    let codes = client.subscribe_with(&Props::new(), &[("t".repeat(51), 0)]);
    assert!(codes[0] >= 0x80, "{codes:02x?}");
    let id = client.send_publish(&Publish::new("t".repeat(51), 1, "x"));
    refusal(&mut client, id);
}

/// A refused PUBLISH: a failing PUBACK or the end of the connection.
fn refusal(client: &mut Client, id: u16) {
    match client.next_packet() {
        Some(Packet::Ack {
            kind: Ack::Puback,
            id: got,
            code,
            ..
        }) => {
            assert!(got == id && code >= 0x80, "{code:#04x}");
        }
        Some(Packet::Disconnect { code, .. }) => {
            assert!(code >= 0x80);
            client.expect_closed();
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn topic_levels(shards: usize) {
    let broker = limited(shards, "topic_levels_max = 4");
    let mut client = v5(&broker);
    client.subscribe("a/b/c/d", 0);
    let codes = client.subscribe_with(&Props::new(), &[("a/b/c/d/e", 0)]);
    assert!(codes[0] >= 0x80, "{codes:02x?}");
    let id = client.send_publish(&Publish::new("a/b/c/d/e", 1, "x"));
    refusal(&mut client, id);
}

fn filters_per_subscribe(shards: usize) {
    let broker = limited(shards, "filters_per_subscribe_max = 3");
    let filters =
        |count| -> Vec<(String, u8)> { (0..count).map(|n| (format!("f/{n}"), 0)).collect() };
    let mut client = v5(&broker);
    assert_eq!(client.subscribe_with(&Props::new(), &filters(3)), [0, 0, 0]);
    let bytes = client.subscribe_bytes(9, &Props::new(), &filters(4));
    client.send(&bytes);
    match client.recv() {
        Packet::Suback { codes, .. } => assert!(codes.iter().any(|code| *code >= 0x80)),
        Packet::Disconnect { code, .. } => assert!(code >= 0x80),
        other => panic!("{other:?}"),
    }
    v5(&broker).ping();
}

fn subscriptions_per_session(shards: usize) {
    let broker = limited(shards, "subscriptions_per_session_max = 2");
    let mut client = v5(&broker);
    client.subscribe("s/1", 0);
    client.subscribe("s/2", 0);
    assert_eq!(client.subscribe_with(&Props::new(), &[("s/3", 0)]), [0x97]);
    // Renewing one is no new one, and leaving one makes room.
    client.subscribe("s/2", 1);
    client.unsubscribe(&["s/1"]);
    client.subscribe("s/3", 0);
}

fn inflight(shards: usize) {
    let broker = limited(shards, "inflight_max = 2");
    for version in [Version::V4, Version::V5] {
        let topic = unique("inflight");
        let mut receiver = Connect::new(version, &unique("c")).open(&broker);
        receiver.subscribe(&topic, 1);
        let mut sender = v5(&broker);
        for n in 0..5 {
            sender.publish(&topic, 1, n.to_string());
        }
        let open = receiver.drain();
        assert_eq!(open.len(), 2);
        for publish in &open {
            receiver.complete(publish);
        }
        for n in 2..5 {
            receiver.expect(&topic, n.to_string());
        }
    }
}

fn connections(shards: usize) {
    let broker = Broker::with_config(
        shards,
        &format!("[limits]\nconnections_max = {}\n", shards * 4),
    );
    // The bound may be kept per shard, so some may be refused before all places are taken.
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..shards * 8 {
        let stream = std::net::TcpStream::connect(broker.address()).expect("connect");
        let mut client = Client::over(stream, Version::V5);
        client.send_lossy(&Connect::v5(&unique("c")).encode());
        match client.next_packet() {
            Some(Packet::Connack { code: 0, .. }) => open.push(client),
            None => refused += 1,
            Some(Packet::Connack { code, .. }) => {
                assert!(code == 0x97 || code == 0x89 || code == 0x88, "{code:#04x}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        open.len() <= shards * 4 && refused >= shards * 4,
        "{} open",
        open.len()
    );
    assert!(!open.is_empty());
    open.iter_mut().for_each(Client::ping);
    open.drain(..).for_each(Client::disconnect);
    broker.await_counter("connections", 0);
    let client = eventually("a place is free again", || {
        match Connect::v5(&unique("c")).attempt(&broker) {
            (client, Some(Packet::Connack { code: 0, .. })) => Some(client),
            _ => None,
        }
    });
    client.disconnect();
}

fn connect_bytes(shards: usize) {
    let broker = limited(shards, "connect_bytes_max = 256");
    let mut connect = Connect::v5(&unique("c"));
    connect.open(&broker).ping();
    connect.client_id = "x".repeat(300);
    let mut client = Client::dial(&broker, Version::V5);
    client.send_lossy(&connect.encode());
    if let Some(packet) = client.next_packet() {
        assert!(
            matches!(
                packet,
                Packet::Connack {
                    code: 0x95 | 0x85 | 0x97,
                    ..
                }
            ),
            "{packet:?}"
        );
        client.expect_closed();
    }
}

fn packet_size(shards: usize) {
    let broker = limited(shards, "max_packet_bytes = 2000");
    let topic = unique("size");
    let mut watcher = v5(&broker);
    watcher.subscribe(&topic, 1);
    for version in [Version::V4, Version::V5] {
        let mut client = Connect::new(version, &unique("c")).open(&broker);
        client.publish(&topic, 1, "x".repeat(1900));
        watcher.expect(&topic, "x".repeat(1900));
        client.send_lossy(
            &Publish::new(&topic, 1, "x".repeat(2000))
                .id(9)
                .encode(version),
        );
        client.expect_error(&[0x95]);
    }
    watcher.expect_nothing();
}

/// Lists of devices that some publish retained pass 1 MiB.
fn two_mebibytes_pass_by_default(shards: usize) {
    let broker = Broker::start(shards);
    let topic = unique("devices");
    let mut client = v5(&broker);
    assert_eq!(
        client.connack.number(prop::MAXIMUM_PACKET_SIZE),
        Some(2_097_152)
    );
    // First byte, three bytes of length, topic with its length, identifier, property length.
    let payload = vec![b'x'; 2_097_152 - 4 - 2 - topic.len() - 2 - 1];
    client.retain(&topic, 1, &payload);
    let mut late = v5(&broker);
    late.subscribe(&topic, 1);
    assert_eq!(late.accept().payload, payload);
    let more = Publish::new(&topic, 1, [&payload[..], b"x"].concat());
    client.send_lossy(&more.id(9).encode(Version::V5));
    client.expect_error(&[0x95]);
}

fn queue_messages(shards: usize) {
    for (policy, kept) in [("drop_newest", 0..5), ("drop_oldest", 5..10)] {
        let config =
            format!("[limits]\nqueue_messages_max = 5\n[session]\nqueue_full = \"{policy}\"\n");
        let broker = Broker::with_config(shards, &config);
        let topic = unique("queue");
        let connect = Connect::v5(&unique("c")).persistent();
        let mut client = connect.open(&broker);
        let mut sender = v5(&broker);
        sender.retain(&topic, 1, "retained");
        client.subscribe(&topic, 1);
        // What comes before this waits behind it, not in the queue.
        client.expect(&topic, "retained");
        client.disconnect();
        for n in 0..10 {
            sender.publish(&topic, 1, n.to_string());
        }
        eventually("the queue is full", || {
            (broker.counters().get("queued_messages") == 5).then_some(())
        });
        eventually("drops are counted", || {
            (broker.counters().get("dropped_queue_full") == 5).then_some(())
        });
        let mut client = connect.open(&broker);
        for n in kept {
            client.expect(&topic, n.to_string());
        }
        client.expect_nothing();
    }
}

fn queue_bytes(shards: usize) {
    let broker = limited(shards, "queue_bytes_max = 10000");
    let topic = unique("queue");
    let connect = Connect::v5(&unique("c")).persistent();
    let mut client = connect.open(&broker);
    client.subscribe(&topic, 1);
    client.disconnect();
    let mut sender = v5(&broker);
    for _ in 0..20 {
        sender.publish(&topic, 1, "x".repeat(1000));
    }
    // An acknowledged message may still be on its way to the session's shard.
    eventually("each is queued or dropped", || {
        let counters = broker.counters();
        // The first may still have waited for retained messages, within the same bound.
        let dropped = counters.get("dropped_queue_full") + counters.get("dropped_replay_full");
        (counters.get("queued_messages") + dropped >= 20).then_some(())
    });
    let mut client = connect.open(&broker);
    let mut count = 0;
    let last = unique("last");
    client.subscribe(&last, 1);
    sender.publish(&last, 1, "end");
    while client.accept().payload != b"end" {
        count += 1;
    }
    assert!(
        (5..=10).contains(&count),
        "{count} messages of 1,000 bytes fit into 10,000"
    );
}

fn a_full_queue_may_disconnect(shards: usize) {
    let config = "[limits]\nqueue_messages_max = 5\n[session]\nqueue_full = \"disconnect\"\n";
    let broker = shared(shards, config);
    let topic = unique("queue");
    let props = Props::new().two(prop::RECEIVE_MAXIMUM, 1);
    let mut client = Connect::v5(&unique("c")).props(props).open(&broker);
    client.subscribe(&topic, 1);
    let mut sender = v5(&broker);
    // When the first comes, none waits for retained messages any more.
    sender.publish(&topic, 1, "0");
    assert_eq!(client.recv_publish().payload, b"0");
    for n in 1..10 {
        sender.publish(&topic, 1, n.to_string());
    }
    client.expect_error(&[0x97]);
    sender.ping();
}

fn retained_messages(shards: usize) {
    let broker = Broker::with_config(shards, "[limits]\nretained_messages_max = 8\n");
    let stem = unique("kept");
    let mut client = v5(&broker);
    // All of the limit may be used, whichever shards the topics belong to.
    for n in 0..8 {
        client.retain(&format!("{stem}/{n}"), 1, "x");
    }
    assert_eq!(broker.counters().get("dropped_retained_full"), 0);
    for n in 0..100 {
        let id = client.send_publish(&Publish::new(format!("{stem}/{n}"), 1, "x").retain());
        client.wait_ack(Ack::Puback, id);
    }
    eventually("what does not fit is counted", || {
        let counters = broker.counters();
        let kept = counters.get("retained_messages");
        assert_eq!(kept, 8);
        (kept + counters.get("dropped_retained_full") == 100).then_some(())
    });
}

fn retained_bytes(shards: usize) {
    let broker = Broker::with_config(shards, "[limits]\nretained_bytes_max = 100000\n");
    let stem = unique("kept");
    let mut client = v5(&broker);
    for n in 0..50 {
        let publish = Publish::new(format!("{stem}/{n}"), 1, "x".repeat(10_000)).retain();
        let id = client.send_publish(&publish);
        client.wait_ack(Ack::Puback, id);
    }
    let counters = eventually("what does not fit is counted", || {
        let counters = broker.counters();
        let kept = counters.get("retained_messages");
        (kept + counters.get("dropped_retained_full") == 50).then_some(counters)
    });
    assert!(counters.get("retained_bytes") <= 100_000, "{counters:?}");
}

fn outbox_bytes(shards: usize) {
    for policy in ["drop_newest", "drop_oldest"] {
        let config =
            format!("[limits]\noutbox_bytes_max = 65536\n[session]\noutbox_full = \"{policy}\"\n");
        let broker = Broker::with_config(shards, &config);
        let topic = unique("outbox");
        let mut stalled = v5(&broker);
        stalled.subscribe(&topic, 0);
        let mut reading = v5(&broker);
        reading.subscribe(&topic, 0);
        let mut sender = v5(&broker);
        let payload = vec![b'x'; 10_000];
        // Kernel buffers take some megabytes before the outbox fills.
        for n in 0..2_000 {
            sender.publish(&topic, 0, &payload);
            assert_eq!(reading.recv_publish().payload.len(), 10_000, "message {n}");
        }
        let dropped = broker.counters().get("dropped_outbox_full");
        assert!(
            dropped > 0,
            "a client that stops reading loses QoS 0 ({policy})"
        );
    }
}

on_shards!([1, 4]
    topic_length,
    topic_levels,
    filters_per_subscribe,
    subscriptions_per_session,
    inflight,
    connections,
    connect_bytes,
    packet_size,
    two_mebibytes_pass_by_default,
    queue_messages,
    queue_bytes,
    a_full_queue_may_disconnect,
    retained_messages,
    retained_bytes,
    outbox_bytes,
);

/// Who goes beyond a limit is told of in the log: what it was, the key and its value.
#[test]
fn the_log_names_the_limit_its_key_and_its_value() {
    let config = "allow_anonymous = true\n[bans]\nflapping_connects_max = 5\nseconds = 77\n\
                  [mqtt]\nshared_subscriptions = false\nwildcard_subscriptions = false\n\
                  subscription_identifiers = false\nqos_max = 1\n\
                  [limits]\nconnections_max = 4\nconnections_per_address_max = 2\ntopic_alias_max = 3\n\
                  rate_exceeded = \"disconnect\"\npublish_rate_max = 3\nsubscribe_rate_max = 3\n\
                  publish_bytes_rate_max = 1000\nfilters_per_subscribe_max = 2\n\
                  [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n\
                  [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nconnections_max = 1\n";
    let broker = Broker::with_config(1, config);
    let attempt = |host: u8, id: &str| {
        let mut client = Client::dial(&broker, Version::V5);
        let header = format!("PROXY TCP4 10.0.0.{host} 127.0.0.1 4660 1883\r\n");
        client.send(header.as_bytes());
        Connect::v5(id).attempt_over(client).0
    };
    let said = |line: &str| eventually(line, || broker.log().contains(line).then_some(()));
    // Each ends its connection; there is room for the next when that is known.
    let ends = |host: u8, deed: &dyn Fn(&mut Client), line: &str| {
        let mut client = attempt(host, &format!("c{host}"));
        deed(&mut client);
        said(&format!(
            "client \"c{host}\" from 10.0.0.{host}:4660 is disconnected: {line}"
        ));
        broker.await_counter("connections", 0);
    };
    let publish = |count: usize, bytes: usize| {
        move |client: &mut Client| {
            for _ in 0..count {
                client.send_publish(&Publish::new("t", 0, vec![b'x'; bytes]));
            }
        }
    };
    let subscribe = |props: Props, filters: &'static [&'static str]| {
        move |client: &mut Client| {
            let filters: Vec<_> = filters.iter().map(|filter| (*filter, 0)).collect();
            let bytes = client.subscribe_bytes(7, &props, &filters);
            client.send(&bytes);
        }
    };
    let plain = Props::new;
    let rate = "more messages per second than may be (limits.publish_rate_max = 3)";
    ends(1, &publish(4, 1), rate);
    let bytes = "more bytes of topic and payload per second than may be (limits.publish_bytes_rate_max = 1000)";
    ends(2, &publish(2, 900), bytes);
    let filters = "more filters subscribed to or given up per second than may be (limits.subscribe_rate_max = 3)";
    ends(3, &subscribe(plain(), &["a", "b", "c", "d"]), filters);
    let in_one = "3 filters in one packet (limits.filters_per_subscribe_max = 2)";
    ends(4, &subscribe(plain(), &["a", "b", "c"]), in_one);
    let shared = "shared subscriptions, such as to \"$share/g/a\", are switched off (mqtt.shared_subscriptions = false) \
                  (Shared Subscriptions not supported (0x9E))";
    ends(5, &subscribe(plain(), &["$share/g/a"]), shared);
    let wildcard = "wildcard subscriptions, such as to \"a/#\", are switched off \
                    (mqtt.wildcard_subscriptions = false)";
    ends(6, &subscribe(plain(), &["a/#"]), wildcard);
    let identifiers =
        "subscription identifiers are switched off (mqtt.subscription_identifiers = false)";
    let numbered = plain().variable(prop::SUBSCRIPTION_ID, 1);
    ends(7, &subscribe(numbered, &["a"]), identifiers);
    let qos = |client: &mut Client| {
        client.send_publish(&Publish::new("t", 2, "x"));
    };
    ends(
        8,
        &qos,
        "QoS of a PUBLISH above the announced maximum (mqtt.qos_max = 1)",
    );
    let alias = |client: &mut Client| {
        let props = Props::new().two(prop::TOPIC_ALIAS, 4);
        client.send_publish(&Publish::new("t", 0, "x").props(props));
    };
    ends(
        9,
        &alias,
        "topic alias 4 is above the announced maximum [MQTT-3.3.2-9] (limits.topic_alias_max = 3)",
    );
    // Which of the limits of connections it is.
    let refused = |host: u8, line: &str| {
        let _client = attempt(host, "late");
        said(&format!(
            "client \"late\" from 10.0.0.{host}:4660 is refused: {line}"
        ));
    };
    let first = [attempt(20, "a"), attempt(20, "b")];
    // Who is not served because of its address is not heard.
    let _client = attempt(20, "late");
    said(
        "a client from 10.0.0.20:4660 is refused: as many connections from its address as may be \
         (limits.connections_per_address_max = 2)",
    );
    broker.await_counter("connections", 2);
    let second = [attempt(21, "a"), attempt(22, "b")];
    broker.await_counter("connections", 2);
    let third = [attempt(23, "c"), attempt(24, "d")];
    broker.await_counter("connections", 4);
    refused(
        25,
        "as many connections as may be (limits.connections_max = 4)",
    );
    drop((first, second, third));
    broker.await_counter("connections", 0);
    let second_listener = |id: &str| {
        let stream = std::net::TcpStream::connect(broker.addresses()[1]).expect("it accepts");
        Connect::v5(id)
            .attempt_over(Client::over(stream, Version::V5))
            .0
    };
    let _only = second_listener("only");
    let _late = second_listener("later");
    said(
        "is refused: as many connections by its listener as may be (listener.connections_max = 1)",
    );
    for _ in 0..5 {
        attempt(30, "flaps").disconnect();
    }
    said("is banned for 77 s (bans.seconds): 5 connects within 60 s (bans.flapping_connects_max)");
    eventually("it is refused, by what it did", || {
        let _client = attempt(30, "flaps");
        let line = "client \"flaps\" from 10.0.0.30:4660 is refused: it connected too often";
        broker.log().contains(line).then_some(())
    });
}

/// A rule is named as the version has it that the client speaks. One address has three lines.
#[test]
fn each_version_is_told_in_its_own_words() {
    let broker = Broker::start(1);
    let said = |line: &str| eventually(line, || broker.log().contains(line).then_some(()));
    let rule = "is disconnected: The flags of the fixed header are not those of the packet type.";
    for (version, id, rule_number) in [
        (Version::V4, "old", "[MQTT-2.2.2-2]"),
        (Version::V3, "oldest", "(MQTT 3.1)"),
    ] {
        let mut client = Connect::new(version, id).open(&broker);
        client.send(&[0x81, 6, 0, 7, 0, 1, b't', 0]);
        eventually(rule_number, || {
            let log = broker.log();
            let mut lines = log
                .lines()
                .filter(|line| line.contains(&format!("client {id:?}")));
            lines
                .any(|line| line.contains(&format!("{rule} {rule_number}")))
                .then_some(())
        });
    }
    Connect::new(Version::V3, "").attempt(&broker);
    said("is refused: The client identifier is empty. (MQTT 3.1)");
}

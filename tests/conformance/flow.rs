//! Receive maximum and maximum packet size: sections 3.1.2.11, 3.3.4 and 4.9.

use crate::V5;
use crate::checks::{open, still_serves, watch};
use crate::rule;
use crate::support::{Ack, Broker, Client, Connect, Packet, Props, Publish, prop, unique};

/// A subscriber with this receive maximum and ten messages waiting for it.
fn ten_for(b: &Broker, maximum: u16, qos: u8) -> (Client, String) {
    let topic = unique("window");
    let props = Props::new().two(prop::RECEIVE_MAXIMUM, maximum);
    let mut client = Connect::v5(&unique("c")).props(props).open(b);
    client.subscribe(&topic, qos);
    let mut publisher = open(b, V5);
    for n in 0..10 {
        publisher.publish(&topic, qos, n.to_string());
    }
    (client, topic)
}

fn window(b: &Broker, maximum: u16, qos: u8) {
    let (mut client, _) = ten_for(b, maximum, qos);
    let mut open = client.drain();
    assert_eq!(open.len(), usize::from(maximum));
    for n in 0..10 {
        let publish = open.remove(0);
        assert_eq!(publish.payload_str(), n.to_string());
        client.complete(&publish);
        open.extend(client.drain());
        assert_eq!(open.len(), usize::from(maximum).min(9 - n));
    }
}
rule!(mqtt5_3_3_4_9__receive_maximum_is_respected, |b| window(
    b, 2, 1
));
rule!(mqtt5_4_9_0_1__quota_starts_at_the_receive_maximum, |b| {
    window(b, 1, 1)
});
rule!(mqtt5_4_9_0_2__quota_0_sends_no_publish, |b| window(b, 3, 2));

fn others_pass(b: &Broker) {
    let (mut client, topic) = ten_for(b, 1, 1);
    client.ping();
    client.subscribe(&unique("other"), 1);
    client.publish(&unique("own"), 1, "x");
    client.expect(&topic, "0");
}
rule!(mqtt5_3_3_4_10__a_full_window_holds_back_publish_only, |b| {
    others_pass(b)
});
rule!(mqtt5_4_9_0_3__other_packets_are_handled_at_quota_0, |b| {
    others_pass(b)
});
rule!(r_044__qos_0_does_not_count, |b| {
    let (mut client, topic) = ten_for(b, 1, 1);
    let other = unique("qos0");
    client.subscribe(&other, 0);
    let mut publisher = open(b, V5);
    for _ in 0..5 {
        publisher.publish(&other, 0, "x");
    }
    let qos1 = client.drain().iter().filter(|p| p.qos == 1).count();
    assert_eq!(qos1, 1, "QoS 0 gives no quota back: {topic}");
});
rule!(r_046__what_gives_quota_back, |b| {
    let (mut client, topic) = ten_for(b, 1, 2);
    let first = client.recv_publish();
    client.ack(Ack::Pubrec, first.id);
    client.wait_ack(Ack::Pubrel, first.id);
    client.expect_nothing();
    client.ack(Ack::Pubcomp, first.id);
    let second = client.recv_publish();
    assert_eq!(second.payload_str(), "1");
    client.ack_with(Ack::Pubrec, second.id, 0x80);
    assert_eq!(client.recv_publish().payload_str(), "2", "{topic}");
});

const TWO: &str = "[limits]\nreceive_maximum = 2\n";
fn over_the_brokers_maximum(b: &Broker) {
    let mut client = open(b, V5);
    assert_eq!(client.connack.number(prop::RECEIVE_MAXIMUM), Some(2));
    for id in 1..=2 {
        client.send_publish(&Publish::new("a", 2, "x").id(id));
        client.wait_ack(Ack::Pubrec, id);
    }
    client.ping();
    client.send_publish(&Publish::new("a", 2, "x").id(3));
    client.expect_error(&[0x93]);
    still_serves(b);
}
rule!(
    mqtt5_3_3_4_7__more_than_the_brokers_receive_maximum,
    TWO,
    over_the_brokers_maximum
);
rule!(r_047__qos_2_counts_until_pubcomp, TWO, |b| {
    over_the_brokers_maximum(b);
    let mut client = open(b, V5);
    for _ in 0..10 {
        client.publish("a", 2, "x");
    }
});
rule!(
    mqtt5_3_3_4_8__other_packets_while_the_quota_is_used_up,
    TWO,
    |b| {
        let mut client = open(b, V5);
        for id in 1..=2 {
            client.send_publish(&Publish::new("a", 2, "x").id(id));
        }
        client.ping();
    }
);

fn limited(b: &Broker, bytes: u32) -> Client {
    let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, bytes);
    Connect::v5(&unique("c")).props(props).open(b)
}
fn oversized_are_dropped(b: &Broker) {
    let topic = unique("s");
    let mut small = limited(b, 100);
    small.subscribe(&topic, 1);
    let mut large = watch(b, V5, &topic, 1);
    let mut publisher = open(b, V5);
    publisher.publish(&topic, 1, "x".repeat(500));
    publisher.publish(&topic, 1, "y".repeat(50));
    large.expect(&topic, "x".repeat(500));
    large.expect(&topic, "y".repeat(50));
    small.expect(&topic, "y".repeat(50));
    small.expect_nothing();
    assert!(small.largest_packet_bytes <= 100);
}
rule!(mqtt5_3_1_2_24__no_packet_above_the_clients_limit, |b| {
    oversized_are_dropped(b)
});
/// SUBACK and UNSUBACK with one code more than the client takes end its connection; nothing is subscribed.
fn oversized_answers_end_the_connection(b: &Broker) {
    let stem = unique("many");
    let filters = |count: usize| {
        (0..count)
            .map(|n| (format!("{stem}/{n}"), 1))
            .collect::<Vec<_>>()
    };
    // First byte, length, identifier, property length, and a code for each filter.
    let fit = 100 - 2 - 2 - 1;
    let mut client = limited(b, 100);
    let codes = client.subscribe_with(&Props::new(), &filters(fit));
    assert_eq!((codes.len(), client.largest_packet_bytes), (fit, 100));
    let bytes = client.subscribe_bytes(9, &Props::new(), &filters(fit + 1));
    client.send(&bytes);
    client.expect_error(&[0x95]);
    let connect = Connect::v5(&unique("c")).persistent();
    let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, 100);
    let mut client = connect.clone().props(props).open(b);
    client.send(&bytes);
    client.expect_error(&[0x95]);
    let mut client = connect.open(b);
    open(b, V5).publish(&format!("{stem}/0"), 1, "x");
    client.expect_nothing();
    let names: Vec<_> = filters(fit + 1)
        .into_iter()
        .map(|(filter, _)| filter)
        .collect();
    let mut client = limited(b, 100);
    let bytes = client.unsubscribe_bytes(9, &names[..fit]);
    client.send(&bytes);
    client.expect_unsubacks(1);
    assert_eq!(client.largest_packet_bytes, 100);
    let bytes = client.unsubscribe_bytes(9, &names);
    client.send(&bytes);
    client.expect_error(&[0x95]);
}
rule!(mqtt5_3_1_2_24__answers_keep_to_it_too, |b| {
    oversized_answers_end_the_connection(b)
});
/// The size of its CONNACK is what a client has to take at least; below, it changes nothing.
fn oversized_connacks_are_not_sent(b: &Broker) {
    let topic = unique("will");
    let connect = Connect::v5(&unique("c")).persistent();
    let bytes = {
        let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, 1_000);
        connect.clone().props(props).open(b).largest_packet_bytes as u32
    };
    let mut watcher = watch(b, V5, &topic, 1);
    let mut open_one = connect
        .clone()
        .will(crate::support::Will::new(&topic, "gone"))
        .open(b);
    let limited = |max: u32| {
        let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, max);
        connect.clone().props(props)
    };
    for max in [bytes - 1, 5] {
        let (mut client, answer) = limited(max).attempt(b);
        match answer {
            Some(Packet::Connack { code: 0x83, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(client.largest_packet_bytes <= max as usize);
        client.expect_closed();
    }
    // Not even that fits.
    let (_, answer) = limited(4).attempt(b);
    assert_eq!(answer, None);
    // A broken CONNECT of which that much is known.
    let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, 5);
    let mut broken = Connect::v5(&unique("c")).props(props);
    broken.user_name = Some(vec![0xFF]);
    let (client, answer) = broken.attempt(b);
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0x81, .. })),
        "{answer:?}"
    );
    assert_eq!(client.largest_packet_bytes, 5);
    // The older connection goes on, and its will is not due.
    open_one.ping();
    watcher.expect_nothing();
    let again = limited(bytes).open(b);
    assert!(again.session_present && again.largest_packet_bytes == bytes as usize);
    watcher.expect(&topic, "gone");
}
rule!(mqtt5_3_1_2_24__connack_keeps_to_it_too, |b| {
    oversized_connacks_are_not_sent(b)
});
rule!(
    mqtt5_3_1_2_24__connack_leaves_out_what_it_can,
    "[mqtt]\nresponse_information = \"answers\"\n",
    |b| {
        let asks = |max: u32| {
            let props = Props::new().byte(prop::REQUEST_RESPONSE_INFO, 1);
            let props = props.four(prop::MAXIMUM_PACKET_SIZE, max);
            Connect::v5(&unique("c")).props(props).open(b)
        };
        let whole = asks(1_000);
        assert!(whole.connack.find(prop::RESPONSE_INFO).is_some());
        let short = asks(whole.largest_packet_bytes as u32 - 10);
        assert_eq!(short.connack.find(prop::RESPONSE_INFO), None);
    }
);
rule!(mqtt5_3_1_2_25__an_oversized_delivery_is_done, |b| {
    oversized_are_dropped(b)
});
rule!(r_057__one_clients_limits_cost_nobody_else, |b| {
    oversized_are_dropped(b)
});
rule!(r_056__size_means_the_whole_packet, |b| {
    let topic = unique("exact");
    // First byte, length, topic with its length, property length, and the payload.
    let payload = "x".repeat(100 - 2 - 2 - topic.len() - 1);
    let mut client = limited(b, 100);
    client.subscribe(&topic, 0);
    let mut publisher = open(b, V5);
    publisher.publish(&topic, 0, format!("{payload}x"));
    publisher.publish(&topic, 0, &payload);
    client.expect(&topic, &payload);
    assert_eq!(client.largest_packet_bytes, 100);
    let zero = Connect::v5("z").props(Props::new().four(prop::MAXIMUM_PACKET_SIZE, 0));
    crate::checks::refused(b, V5, &zero.encode(), &[0x82]);
});
rule!(
    mqtt5_3_2_2_15__a_packet_above_the_brokers_limit,
    "[limits]\nmax_packet_bytes = 1000\n",
    |b| {
        let mut client = open(b, V5);
        assert_eq!(client.connack.number(prop::MAXIMUM_PACKET_SIZE), Some(1000));
        // First byte, two bytes of length, topic with its length, property length.
        let fits = Publish::new("a", 0, "x".repeat(1000 - 3 - 3 - 1));
        client.publish_packet(&fits);
        client.send(&Publish::new("a", 0, "x".repeat(1000 - 3 - 3)).encode(V5));
        client.expect_error(&[0x95]);
    }
);

rule!(r_048__an_alias_may_be_bound_anew, |b| {
    let (first, second) = (unique("a"), unique("b"));
    let mut watcher = watch(b, V5, &first, 0);
    watcher.subscribe(&second, 0);
    let mut client = open(b, V5);
    for topic in [first.as_str(), &second, ""] {
        let props = Props::new().two(prop::TOPIC_ALIAS, 1);
        client.publish_packet(&Publish::new(topic, 0, "x").props(props));
    }
    for topic in [&first, &second, &second] {
        watcher.expect(topic, "x");
    }
});
fn alias(topic: &str, alias: u16) -> Publish {
    Publish::new(topic, 0, "x").props(Props::new().two(prop::TOPIC_ALIAS, alias))
}
fn bad_alias(b: &Broker, publish: &Publish, codes: &[u8]) {
    crate::checks::breaks(b, V5, &publish.encode(V5), codes);
}
rule!(r_049__unbound_alias_or_no_topic, |b| {
    bad_alias(b, &alias("", 9), &[0x82, 0x94]);
    bad_alias(b, &Publish::new("", 0, "x"), &[0x82]);
});
rule!(mqtt5_3_3_2_7__aliases_end_with_the_connection, |b| {
    let connect = Connect::v5(&unique("c")).persistent();
    let mut client = connect.open(b);
    client.publish_packet(&alias(&unique("t"), 1));
    client.cut();
    let mut client = connect.open(b);
    client.send_publish(&alias("", 1));
    client.expect_error(&[0x82, 0x94]);
});
rule!(mqtt5_3_3_2_8__alias_0, |b| bad_alias(
    b,
    &alias("a", 0),
    &[0x94]
));
fn above_the_maximum(b: &Broker) {
    let maximum = open(b, V5).connack.number(prop::TOPIC_ALIAS_MAXIMUM);
    assert_eq!(maximum, Some(10));
    bad_alias(b, &alias("a", 11), &[0x94]);
}
rule!(mqtt5_3_3_2_9__alias_above_the_maximum, |b| {
    above_the_maximum(b)
});
rule!(mqtt5_3_2_2_17__alias_above_the_maximum, |b| {
    above_the_maximum(b)
});
rule!(
    mqtt5_3_2_2_18__alias_when_none_was_announced,
    "[limits]\ntopic_alias_max = 0\n",
    |b| {
        assert_eq!(
            open(b, V5)
                .connack
                .number(prop::TOPIC_ALIAS_MAXIMUM)
                .unwrap_or(0),
            0
        );
        bad_alias(b, &alias("a", 1), &[0x94]);
    }
);
rule!(mqtt5_3_3_2_12__every_alias_up_to_the_maximum, |b| {
    let stem = unique("all");
    let mut watcher = watch(b, V5, &format!("{stem}/+"), 0);
    let mut client = open(b, V5);
    for n in 1..=10 {
        client.publish_packet(&alias(&format!("{stem}/{n}"), n));
    }
    for n in 1..=10 {
        client.publish_packet(&alias("", n));
    }
    for n in (1..=10).chain(1..=10) {
        watcher.expect(&format!("{stem}/{n}"), "x");
    }
});
rule!(r_050__an_alias_stays_on_its_hop, |b| {
    let topic = unique("hop");
    let mut watcher = watch(b, V5, &topic, 0);
    let mut client = open(b, V5);
    client.publish_packet(&alias(&topic, 3));
    client.publish_packet(&alias("", 3).retain());
    for _ in 0..2 {
        assert_eq!(
            watcher.expect(&topic, "x").props.find(prop::TOPIC_ALIAS),
            None
        );
    }
    let kept = crate::checks::retained(b, V5, &topic);
    assert_eq!((kept.len(), kept[0].topic_str()), (1, topic.as_str()));
});

/// Aliases that come to a client which announced `maximum`; topics are checked on the way.
fn aliases_to(b: &Broker, maximum: u16) -> Vec<u32> {
    let stem = unique("out");
    let props = Props::new().two(prop::TOPIC_ALIAS_MAXIMUM, maximum);
    let props = if maximum == 0 { Props::new() } else { props };
    let mut client = Connect::v5(&unique("c")).props(props).open(b);
    client.subscribe(&format!("{stem}/+"), 0);
    let mut publisher = open(b, V5);
    let (mut bound, mut seen) = (std::collections::BTreeMap::new(), Vec::new());
    for n in (0..5).chain(0..5) {
        let topic = format!("{stem}/{n}");
        publisher.publish(&topic, 0, "x");
        let got = client.recv_publish();
        let alias = got.props.number(prop::TOPIC_ALIAS);
        seen.extend(alias);
        let resolved = match alias {
            Some(alias) if got.topic.is_empty() => {
                bound.get(&alias).cloned().expect("a bound alias")
            }
            Some(alias) => {
                bound.insert(alias, got.topic_str().to_owned());
                got.topic_str().to_owned()
            }
            None => got.topic_str().to_owned(),
        };
        assert_eq!(resolved, topic);
    }
    assert!(
        seen.iter()
            .all(|alias| *alias >= 1 && *alias <= u32::from(maximum)),
        "{seen:?}"
    );
    seen
}
rule!(
    mqtt5_3_1_2_26__aliases_stay_within_the_clients_maximum,
    |b| drop(aliases_to(b, 2))
);
rule!(
    mqtt5_3_3_2_11__aliases_stay_within_the_clients_maximum,
    |b| drop(aliases_to(b, 1))
);
rule!(mqtt5_3_3_2_10__the_broker_may_use_all_aliases, |b| drop(
    aliases_to(b, 5)
));
rule!(mqtt5_3_1_2_27__no_alias_unless_announced, |b| assert!(
    aliases_to(b, 0).is_empty()
));

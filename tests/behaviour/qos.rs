//! Delivery at QoS 0, 1 and 2: complete flows, order, redelivery and the in-flight window.

use crate::on_shards;
use crate::support::{
    Ack, Broker, Client, Connect, Packet, Props, Publish, Version, Will, frame, prop, shared,
    unique,
};
use std::collections::BTreeSet;
use std::ops::Range;

const VERSIONS: [Version; 3] = [Version::V3, Version::V4, Version::V5];

fn every_qos_goes_round_between_all_versions(shards: usize) {
    let broker = shared(shards, "");
    for receiver_version in VERSIONS {
        for sender_version in VERSIONS {
            let topic = unique("qos/round");
            let mut receiver = Connect::new(receiver_version, &unique("r")).open(&broker);
            let mut sender = Connect::new(sender_version, &unique("s")).open(&broker);
            receiver.subscribe(&topic, 2);
            for qos in 0..=2 {
                let payload = format!("at {qos}");
                sender.publish(&topic, qos, &payload);
                assert_eq!(receiver.expect(&topic, &payload).qos, qos);
            }
            receiver.expect_nothing();
        }
    }
}

fn delivery_is_at_the_smaller_qos(shards: usize) {
    let broker = shared(shards, "");
    let mut sender = Connect::v4(&unique("s")).open(&broker);
    for granted in 0..=2 {
        let topic = unique("qos/granted");
        let mut receiver = Connect::v4(&unique("r")).open(&broker);
        receiver.subscribe(&topic, granted);
        for qos in 0..=2 {
            sender.publish(&topic, qos, "x");
            assert_eq!(receiver.expect(&topic, "x").qos, qos.min(granted));
        }
    }
}

fn a_thousand_messages_arrive_in_order_at_each_qos(shards: usize) {
    let broker = shared(shards, "");
    for qos in 0..=2u8 {
        let topic = unique("qos/order");
        let mut receiver = Connect::v5(&unique("r")).open(&broker);
        let mut sender = Connect::v5(&unique("s")).open(&broker);
        receiver.subscribe(&topic, qos);
        // Ten at a time stay below every window, so nothing has to be taken out of turn.
        for batch in 0..100 {
            let numbers = batch * 10..batch * 10 + 10;
            let ids: Vec<u16> = numbers
                .clone()
                .map(|n| sender.send_publish(&Publish::new(&topic, qos, n.to_string())))
                .collect();
            for id in ids {
                match qos {
                    1 => assert_eq!(sender.wait_ack(Ack::Puback, id), 0),
                    2 => {
                        assert_eq!(sender.wait_ack(Ack::Pubrec, id), 0);
                        sender.ack(Ack::Pubrel, id);
                        assert_eq!(sender.wait_ack(Ack::Pubcomp, id), 0);
                    }
                    _ => {}
                }
            }
            for n in numbers {
                receiver.expect(&topic, n.to_string());
            }
        }
        receiver.expect_nothing();
    }
}

fn a_repeated_qos_2_publish_is_delivered_once(shards: usize) {
    let broker = shared(shards, "");
    for version in VERSIONS {
        let topic = unique("qos/once");
        let mut receiver = Connect::new(version, &unique("r")).open(&broker);
        let mut sender = Connect::new(version, &unique("s")).open(&broker);
        receiver.subscribe(&topic, 2);
        let publish = Publish::new(&topic, 2, "once").id(77);
        sender.send_publish(&publish);
        assert_eq!(sender.wait_ack(Ack::Pubrec, 77), 0);
        sender.send_publish(&publish.clone().dup());
        assert_eq!(sender.wait_ack(Ack::Pubrec, 77), 0);
        for _ in 0..2 {
            sender.ack(Ack::Pubrel, 77);
            let code = sender.wait_ack(Ack::Pubcomp, 77);
            assert!(code == 0 || code == 0x92, "PUBCOMP {code:#04x}");
        }
        receiver.expect(&topic, "once");
        receiver.expect_nothing();
    }
}

fn a_qos_2_publish_is_not_doubled_over_a_reconnect(shards: usize) {
    let broker = shared(shards, "");
    for version in VERSIONS {
        let topic = unique("qos/again");
        let sender_id = unique("s");
        let mut receiver = Connect::new(version, &unique("r")).open(&broker);
        receiver.subscribe(&topic, 2);
        let connect = Connect::new(version, &sender_id).persistent();
        let mut sender = connect.open(&broker);
        let publish = Publish::new(&topic, 2, "once").id(9);
        sender.send_publish(&publish);
        sender.wait_ack(Ack::Pubrec, 9);
        sender.reset();
        let mut sender = connect.open(&broker);
        // MQTT 3.1 has no session present flag.
        assert!(sender.session_present || version == Version::V3);
        sender.send_publish(&publish.dup());
        sender.wait_ack(Ack::Pubrec, 9);
        sender.ack(Ack::Pubrel, 9);
        assert_eq!(sender.wait_ack(Ack::Pubcomp, 9), 0);
        receiver.expect(&topic, "once");
        receiver.expect_nothing();
    }
}

fn unacknowledged_messages_come_again_in_order_with_dup(shards: usize) {
    let broker = shared(shards, "");
    for version in VERSIONS {
        for qos in 1..=2 {
            let topic = unique("qos/resend");
            let connect = Connect::new(version, &unique("r")).persistent();
            let mut receiver = connect.open(&broker);
            receiver.subscribe(&topic, qos);
            let mut sender = Connect::v4(&unique("s")).open(&broker);
            let mut sent = Vec::new();
            for n in 0..5 {
                sender.publish(&topic, qos, n.to_string());
                let publish = receiver.recv_publish();
                assert!(!publish.dup, "first sending has DUP clear");
                sent.push(publish.id);
            }
            assert_eq!(BTreeSet::from_iter(&sent).len(), 5, "identifiers differ");
            receiver.reset();
            let mut receiver = connect.open(&broker);
            for (n, id) in sent.iter().enumerate() {
                let publish = receiver.expect(&topic, n.to_string());
                assert!(publish.dup, "DUP is set on resending");
                assert_eq!(publish.id, *id);
            }
            receiver.reset();
            connect.open(&broker).expect_nothing();
        }
    }
}

/// Its packets are held, since each turn takes one, and its older connection stays open.
fn what_a_client_sent_before_it_came_again_is_handled_first(shards: usize) {
    let broker = Broker::with_config(shards, "[limits]\nturn_deliveries_max = 1\n");
    let topic = unique("qos/before");
    let mut receiver = Connect::v4(&unique("r")).open(&broker);
    receiver.subscribe(&topic, 0);
    let id = unique("s");
    let mut before = Vec::new();
    for round in 0..20 {
        // With DISCONNECT, so that its will must not come.
        let sender = Connect::v4(&id).will(Will::new(&topic, "will"));
        let mut sender = sender.open(&broker);
        let numbers = (0..50).map(|n| format!("{round}.{n}"));
        let sent: Vec<_> = numbers
            .clone()
            .map(|number| Publish::new(&topic, 0, number).encode(Version::V4))
            .collect();
        sender.send(&[sent.concat(), frame(0xE0, b"")].concat());
        before.push(sender);
        Connect::v4(&id).open(&broker).disconnect();
        for number in numbers {
            receiver.expect(&topic, number);
        }
    }
    receiver.expect_nothing();
    assert_eq!(broker.counters().get("takeovers_unheard"), 0);
}

fn a_pubrel_comes_again_and_the_publish_does_not(shards: usize) {
    let broker = shared(shards, "");
    for version in VERSIONS {
        let topic = unique("qos/pubrel");
        let connect = Connect::new(version, &unique("r")).persistent();
        let mut receiver = connect.open(&broker);
        receiver.subscribe(&topic, 2);
        Connect::v4(&unique("s"))
            .open(&broker)
            .publish(&topic, 2, "x");
        let id = receiver.recv_publish().id;
        receiver.ack(Ack::Pubrec, id);
        assert_eq!(receiver.wait_ack(Ack::Pubrel, id), 0);
        receiver.reset();
        let mut receiver = connect.open(&broker);
        match receiver.recv() {
            Packet::Ack {
                kind: Ack::Pubrel,
                id: again,
                ..
            } => assert_eq!(again, id),
            other => panic!("expected the PUBREL again, got {other:?}"),
        }
        receiver.ack(Ack::Pubcomp, id);
        receiver.expect_nothing();
        receiver.reset();
        connect.open(&broker).expect_nothing();
    }
}

fn the_receive_maximum_of_a_client_is_respected(shards: usize) {
    let broker = shared(shards, "");
    for qos in 1..=2 {
        let topic = unique("qos/window");
        let mut receiver = Connect::v5(&unique("r"))
            .props(Props::new().two(prop::RECEIVE_MAXIMUM, 3))
            .open(&broker);
        receiver.subscribe(&topic, qos);
        let mut sender = Connect::v5(&unique("s")).open(&broker);
        for n in 0..10 {
            sender.publish(&topic, qos, n.to_string());
        }
        let mut open = receiver.drain();
        assert_eq!(open.len(), 3, "exactly the window is in flight");
        for n in 0..10 {
            let publish = open.remove(0);
            assert_eq!(publish.payload_str(), n.to_string());
            receiver.complete(&publish);
            open.extend(receiver.drain());
            assert_eq!(open.len(), 3.min(9 - n), "one more for each finished");
        }
    }
}

fn a_full_window_holds_back_publish_only(shards: usize) {
    let broker = shared(shards, "");
    let topic = unique("qos/full");
    let mut receiver = Connect::v5(&unique("r"))
        .props(Props::new().two(prop::RECEIVE_MAXIMUM, 1))
        .open(&broker);
    receiver.subscribe(&topic, 1);
    let mut sender = Connect::v5(&unique("s")).open(&broker);
    for n in 0..3 {
        sender.publish(&topic, 1, n.to_string());
    }
    receiver.ping();
    receiver.subscribe(&unique("qos/other"), 1);
    receiver.publish(&unique("qos/own"), 1, "own");
    let first = receiver.accept();
    assert_eq!(first.payload_str(), "0");
    receiver.expect(&topic, "1");
    receiver.expect(&topic, "2");
}

fn more_messages_than_identifiers_flow_through_one_session(shards: usize) {
    let broker = shared(shards, "");
    let topic = unique("qos/wrap");
    let mut receiver = Connect::v4(&unique("r")).open(&broker);
    receiver.subscribe(&topic, 1);
    let mut sender = Connect::v4(&unique("s")).open(&broker);
    // 66,000 messages are more than the 65,535 identifiers: they must wrap past 0.
    for batch in 0..6_600u32 {
        let ids: Vec<u16> = (0..10)
            .map(|n| sender.send_publish(&Publish::new(&topic, 1, (batch * 10 + n).to_string())))
            .collect();
        for n in 0..10 {
            receiver.expect(&topic, (batch * 10 + n).to_string());
        }
        for id in ids {
            sender.wait_ack(Ack::Puback, id);
        }
    }
}

fn ack_bytes(kind: Ack, id: u16) -> Vec<u8> {
    let flags = if kind == Ack::Pubrel { 2 } else { 0 };
    frame((kind as u8) << 4 | flags, &id.to_be_bytes())
}

/// Sends so many messages and sees each acknowledged to the end.
fn publish_together(sender: &mut Client, topic: &str, qos: u8, numbers: Range<u32>) {
    let mut bytes = Vec::new();
    let mut releases = Vec::new();
    for n in numbers.clone() {
        let publish = Publish::new(topic, qos, n.to_string()).id(sender.fresh_id());
        bytes.extend(publish.encode(sender.version));
        releases.extend(ack_bytes(Ack::Pubrel, publish.id));
    }
    let mut accepted = |bytes: &[u8]| {
        sender.send(bytes);
        for _ in numbers.clone() {
            let packet = sender.recv();
            assert!(matches!(packet, Packet::Ack { code: 0, .. }), "{packet:?}");
        }
    };
    accepted(&bytes);
    if qos == 2 {
        accepted(&releases);
    }
}

/// A subscriber that never finishes its first message gets more others than there are identifiers.
fn others_flow_past(version: Version, qos: u8, is_received: bool) {
    const BATCH: u32 = 400;
    let broker = shared(1, "");
    let topic = unique("qos/past");
    let connect = Connect::new(version, &unique("r")).persistent();
    let mut receiver = connect.open(&broker);
    receiver.subscribe(&topic, qos);
    let mut sender = Connect::v4(&unique("s")).open(&broker);
    let mut unfinished = None;
    for batch in 0..165 {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        publish_together(&mut sender, &topic, qos, numbers.clone());
        let mut answers = Vec::new();
        for n in numbers {
            let publish = loop {
                match receiver.recv() {
                    Packet::Publish(publish) => break publish,
                    Packet::Ack { id, .. } if unfinished == Some(id) => {}
                    Packet::Ack { id, .. } => answers.extend(ack_bytes(Ack::Pubcomp, id)),
                    other => panic!("expected a PUBLISH or PUBREL, got {other:?}"),
                }
            };
            assert_eq!(publish.payload_str(), n.to_string());
            assert!(!publish.dup && unfinished != Some(publish.id));
            let is_first = unfinished.is_none();
            unfinished = unfinished.or(Some(publish.id));
            if qos == 1 && !is_first {
                answers.extend(ack_bytes(Ack::Puback, publish.id));
            } else if qos == 2 && (!is_first || is_received) {
                answers.extend(ack_bytes(Ack::Pubrec, publish.id));
            }
        }
        receiver.send(&answers);
    }
    receiver.ping();
    receiver.reset();
    // It is still the first that comes again.
    match (connect.open(&broker).recv(), is_received) {
        (Packet::Publish(publish), false) => {
            assert_eq!((publish.payload_str(), publish.dup), ("0", true));
        }
        (Packet::Ack { kind, id, .. }, true) => {
            assert_eq!((kind, Some(id)), (Ack::Pubrel, unfinished));
        }
        (other, _) => panic!("expected what is unfinished, got {other:?}"),
    }
}

#[test]
fn more_messages_than_identifiers_flow_past_one_without_puback() {
    others_flow_past(Version::V4, 1, false);
}

#[test]
fn more_messages_than_identifiers_flow_past_one_without_pubrec() {
    others_flow_past(Version::V5, 2, false);
}

#[test]
fn more_messages_than_identifiers_flow_past_one_without_pubcomp() {
    others_flow_past(Version::V5, 2, true);
}

on_shards!([1, 2, 4]
    every_qos_goes_round_between_all_versions,
    delivery_is_at_the_smaller_qos,
    a_thousand_messages_arrive_in_order_at_each_qos,
    a_repeated_qos_2_publish_is_delivered_once,
    a_qos_2_publish_is_not_doubled_over_a_reconnect,
    unacknowledged_messages_come_again_in_order_with_dup,
    what_a_client_sent_before_it_came_again_is_handled_first,
    a_pubrel_comes_again_and_the_publish_does_not,
    the_receive_maximum_of_a_client_is_respected,
    a_full_window_holds_back_publish_only,
);
on_shards!([2] more_messages_than_identifiers_flow_through_one_session);

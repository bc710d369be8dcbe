//! Packet identifiers, QoS flows, redelivery and order: sections 2.3.1, 3.3.4, 4.3 to 4.6.

use crate::checks::{absent, open, watch};
use crate::rule;
use crate::support::{Ack, Broker, Connect, Packet, Props, Publish, Version, frame, prop, unique};
use crate::{V4, V5};
use std::collections::BTreeSet;

fn repeat_before_pubrel(b: &Broker, v: Version) {
    let topic = unique("repeat");
    let mut watcher = watch(b, v, &topic, 2);
    let mut client = open(b, v);
    let publish = Publish::new(&topic, 2, "x").id(6);
    for packet in [publish.clone(), publish.clone().dup(), publish] {
        client.send_publish(&packet);
        assert!(client.wait_ack(Ack::Pubrec, 6) < 0x80);
    }
    client.ack(Ack::Pubrel, 6);
    assert_eq!(client.wait_ack(Ack::Pubcomp, 6), 0);
    watcher.expect(&topic, "x");
    watcher.expect_nothing();
    client.publish_packet(&Publish::new(&topic, 2, "new").id(6));
    watcher.expect(&topic, "new");
    client.ack(Ack::Pubrel, 6);
    let again = client.wait_ack(Ack::Pubcomp, 6);
    assert!(again == 0 || again == 0x92);
}
rule!(mqtt311_2_3_1_2__an_open_id_is_a_repeat, |b| {
    repeat_before_pubrel(b, V4)
});
rule!(mqtt311_4_3_3_2__received_qos_2, |b| repeat_before_pubrel(
    b, V4
));
rule!(mqtt5_4_3_3_8__received_qos_2_gets_pubrec, |b| {
    repeat_before_pubrel(b, V5)
});
rule!(mqtt5_4_3_3_10__repeats_are_delivered_once, |b| {
    repeat_before_pubrel(b, V5)
});
rule!(mqtt5_4_3_3_11__pubrel_gets_pubcomp, |b| {
    repeat_before_pubrel(b, V5)
});
rule!(mqtt5_4_3_3_12__after_pubcomp_the_id_is_new, |b| {
    repeat_before_pubrel(b, V5)
});

/// What is acknowledged by the wrong kind of packet ends its connection; the message is not settled by that.
fn wrong_acknowledgements(b: &Broker, v: Version) {
    let topic = unique("wrong");
    for (qos, first, wrong) in [
        (1, None, Ack::Pubrec),
        (1, None, Ack::Pubcomp),
        (2, None, Ack::Puback),
        (2, None, Ack::Pubcomp),
        (2, Some(Ack::Pubrec), Ack::Puback),
    ] {
        let connect = Connect::new(v, &unique("c")).persistent();
        let mut client = connect.open(b);
        client.subscribe(&topic, qos);
        open(b, v).publish(&topic, qos, "x");
        let publish = client.recv_publish();
        if let Some(first) = first {
            client.ack(first, publish.id);
            client.wait_ack(Ack::Pubrel, publish.id);
        }
        client.ack(wrong, publish.id);
        client.expect_error(&[0x82]);
        let mut client = connect.open(b);
        if first.is_some() {
            client.wait_ack(Ack::Pubrel, publish.id);
            client.ack(Ack::Pubcomp, publish.id);
        } else {
            assert!(client.expect(&topic, "x").dup);
        }
        // One that is known no more, or never was, does no harm.
        for id in [publish.id, 999] {
            client.ack(wrong, id);
        }
        client.unsubscribe(&[&topic]);
        client.ping();
        client.disconnect();
    }
}
rule!(mqtt311_4_8_0_1__an_acknowledgement_of_the_wrong_kind, |b| {
    wrong_acknowledgements(b, V4)
});
rule!(mqtt5_4_13_1_1__an_acknowledgement_of_the_wrong_kind, |b| {
    wrong_acknowledgements(b, V5)
});

rule!(mqtt311_2_3_1_3__a_repeat_keeps_its_id, |b| {
    let topic = unique("resent");
    let mut watcher = watch(b, V4, &topic, 2);
    let connect = Connect::v4(&unique("c")).persistent();
    let mut client = connect.open(b);
    let publish = Publish::new(&topic, 2, "x").id(6);
    client.send_publish(&publish);
    client.wait_ack(Ack::Pubrec, 6);
    client.cut();
    let mut client = connect.open(b);
    client.publish_packet(&publish.dup());
    watcher.expect(&topic, "x");
    watcher.expect_nothing();
});

/// Messages left without acknowledgement come again under the same, different, non-zero identifiers.
fn resent(b: &Broker, v: Version, qos: u8) {
    let topic = unique("resent");
    let connect = Connect::new(v, &unique("c")).persistent();
    let mut client = connect.open(b);
    client.subscribe(&topic, qos);
    let mut publisher = open(b, V4);
    let mut ids = Vec::new();
    for n in 0..5 {
        publisher.publish(&topic, qos, n.to_string());
        let publish = client.recv_publish();
        assert_eq!((publish.qos, publish.dup), (qos, false));
        ids.push(publish.id);
    }
    assert_eq!(BTreeSet::from_iter(&ids).len(), 5);
    // Nothing is repeated as long as the connection lasts.
    client.expect_nothing();
    client.cut();
    let mut client = connect.open(b);
    assert!(client.session_present);
    for (n, id) in ids.iter().enumerate() {
        let publish = client.expect(&topic, n.to_string());
        assert_eq!((publish.id, publish.dup), (*id, true));
    }
    client.ping();
    client.cut();
    connect.open(b).expect_nothing();
}
rule!(mqtt311_2_3_1_4__free_ids_kept_on_resend, |b| resent(
    b, V4, 1
));
rule!(mqtt5_2_2_1_4__free_ids, |b| resent(b, V5, 1));
rule!(mqtt311_3_3_1_1__dup_on_resend, |b| resent(b, V4, 1));
rule!(mqtt5_3_3_1_1__dup_on_resend, |b| resent(b, V5, 1));
rule!(mqtt311_4_3_2_1__sending_qos_1, |b| resent(b, V4, 1));
rule!(mqtt5_4_3_2_1__new_qos_1_gets_a_free_id, |b| resent(
    b, V5, 1
));
rule!(mqtt5_4_3_2_2__first_sending_of_qos_1, |b| resent(b, V5, 1));
rule!(mqtt5_4_3_2_3__qos_1_is_unfinished_until_puback, |b| resent(
    b, V5, 1
));
rule!(mqtt5_4_3_3_1__new_qos_2_gets_a_free_id, |b| resent(
    b, V5, 2
));
rule!(mqtt5_4_3_3_2__first_sending_of_qos_2, |b| resent(b, V5, 2));
rule!(mqtt5_4_3_3_3__publish_is_unfinished_until_pubrec, |b| {
    resent(b, V5, 2)
});
rule!(mqtt311_4_1_0_1__session_state_is_held, |b| resent(b, V4, 2));
rule!(mqtt311_4_5_0_2__unacknowledged_stays_in_flight, |b| resent(
    b, V4, 1
));
rule!(mqtt311_4_6_0_1__resent_in_first_order, |b| resent(b, V4, 1));
rule!(mqtt5_4_4_0_1__resent_on_resume_only, |b| resent(b, V5, 1));

fn no_id_at_qos_0(b: &Broker, v: Version) {
    let topic = unique("qos0");
    let mut watcher = watch(b, v, &topic, 0);
    open(b, v).publish(&topic, 0, "x");
    let publish = watcher.expect(&topic, "x");
    assert_eq!(
        (publish.qos, publish.dup, publish.retain),
        (0, false, false)
    );
    watcher.expect_nothing();
}
rule!(mqtt311_2_3_1_5__no_id_at_qos_0, |b| no_id_at_qos_0(b, V4));
rule!(mqtt5_2_2_1_2__no_id_at_qos_0, |b| no_id_at_qos_0(b, V5));
rule!(mqtt311_4_3_1_1__qos_0_once_without_dup, |b| no_id_at_qos_0(
    b, V4
));
rule!(mqtt5_4_3_1_1__qos_0_once_without_dup, |b| no_id_at_qos_0(
    b, V5
));
rule!(mqtt311_3_3_1_2__qos_0_never_has_dup, |b| no_id_at_qos_0(
    b, V4
));
rule!(mqtt5_3_3_1_2__qos_0_never_has_dup, |b| no_id_at_qos_0(
    b, V5
));

fn acks_repeat_the_id(b: &Broker, v: Version) {
    let topic = unique("ids");
    let mut client = open(b, v);
    client.subscribe(&topic, 2);
    client.publish_packet(&Publish::new(&topic, 1, "1").id(0x1234));
    client.publish_packet(&Publish::new(&topic, 2, "2").id(0x1234));
    client.expect(&topic, "1");
    client.expect(&topic, "2");
    client.publish(&topic, 0, "0");
    client.expect(&topic, "0");
}
rule!(mqtt311_2_3_1_6__acks_repeat_the_id, |b| acks_repeat_the_id(
    b, V4
));
rule!(mqtt5_2_2_1_5__acks_repeat_the_id, |b| acks_repeat_the_id(
    b, V5
));
rule!(mqtt311_3_3_4_1__answer_follows_the_qos, |b| {
    acks_repeat_the_id(b, V4)
});
rule!(mqtt5_3_3_4_1__answer_follows_the_qos, |b| {
    acks_repeat_the_id(b, V5)
});

fn dup_is_not_passed_on(b: &Broker, v: Version) {
    let topic = unique("dup");
    let mut watcher = watch(b, v, &topic, 1);
    open(b, v).publish_packet(&Publish::new(&topic, 1, "x").dup().id(5));
    assert!(!watcher.expect(&topic, "x").dup);
}
rule!(mqtt311_3_3_1_3__dup_is_not_passed_on, |b| {
    dup_is_not_passed_on(b, V4)
});
rule!(mqtt5_3_3_1_3__dup_is_not_passed_on, |b| {
    dup_is_not_passed_on(b, V5)
});

fn id_is_new_after_puback(b: &Broker, v: Version) {
    let topic = unique("again");
    let mut watcher = watch(b, v, &topic, 1);
    let mut client = open(b, v);
    client.publish_packet(&Publish::new(&topic, 1, "x").id(5));
    client.publish_packet(&Publish::new(&topic, 1, "y").id(5).dup());
    watcher.expect(&topic, "x");
    watcher.expect(&topic, "y");
}
rule!(mqtt311_4_3_2_2__received_qos_1, |b| id_is_new_after_puback(
    b, V4
));
rule!(mqtt5_4_3_2_4__received_qos_1_gets_puback, |b| {
    id_is_new_after_puback(b, V5)
});
rule!(mqtt5_4_3_2_5__after_puback_the_id_is_new, |b| {
    id_is_new_after_puback(b, V5)
});

/// A QoS 2 delivery cut after PUBREC goes on with PUBREL.
fn pubrel_again(b: &Broker, v: Version) {
    let topic = unique("pubrel");
    let connect = Connect::new(v, &unique("c")).persistent();
    let mut client = connect.open(b);
    client.subscribe(&topic, 2);
    open(b, v).publish(&topic, 2, "x");
    let id = client.recv_publish().id;
    client.ack(Ack::Pubrec, id);
    assert_eq!(client.wait_ack(Ack::Pubrel, id), 0);
    client.cut();
    let mut client = connect.open(b);
    match client.recv() {
        Packet::Ack {
            kind: Ack::Pubrel,
            id: again,
            ..
        } => assert_eq!(again, id),
        other => panic!("expected PUBREL, got {other:?}"),
    }
    client.ack(Ack::Pubcomp, id);
    client.expect_nothing();
}
rule!(mqtt311_4_3_3_1__sending_qos_2, |b| pubrel_again(b, V4));
rule!(mqtt5_4_3_3_5__pubrel_is_unfinished_until_pubcomp, |b| {
    pubrel_again(b, V5)
});
rule!(mqtt5_4_3_3_6__no_publish_after_pubrel, |b| pubrel_again(
    b, V5
));
rule!(mqtt5_3_6_2_1__pubrel_codes_are_of_its_table, |b| {
    pubrel_again(b, V5);
    crate::checks::breaks(b, V5, &frame(0x62, &[0, 1, 0x80]), &[0x81, 0x82]);
});

fn both_again(b: &Broker, v: Version) {
    let topic = unique("both");
    let connect = Connect::new(v, &unique("c")).persistent();
    let mut client = connect.open(b);
    client.subscribe(&topic, 2);
    let mut publisher = open(b, v);
    publisher.publish(&topic, 2, "two");
    publisher.publish(&topic, 1, "one");
    let two = client.recv_publish();
    let one = client.recv_publish();
    client.ack(Ack::Pubrec, two.id);
    client.wait_ack(Ack::Pubrel, two.id);
    client.cut();
    let mut client = connect.open(b);
    client.wait_ack(Ack::Pubrel, two.id);
    client.ack(Ack::Pubcomp, two.id);
    assert_eq!(client.expect(&topic, "one").id, one.id);
    client.expect_nothing();
}
rule!(mqtt311_4_4_0_1__publish_and_pubrel_again, |b| both_again(
    b, V4
));

rule!(mqtt5_4_3_3_4__pubrec_below_0x80_gets_pubrel, |b| {
    let topic = unique("pubrec");
    let mut client = watch(b, V5, &topic, 2);
    let mut publisher = open(b, V5);
    for (code, goes_on) in [(0x00, true), (0x10, true), (0x80, false)] {
        publisher.publish(&topic, 2, "x");
        let id = client.recv_publish().id;
        client.ack_with(Ack::Pubrec, id, code);
        if goes_on {
            client.wait_ack(Ack::Pubrel, id);
            client.ack(Ack::Pubcomp, id);
        }
        client.expect_nothing();
    }
});
rule!(mqtt5_4_4_0_2__a_refused_message_is_settled, |b| {
    for (qos, kind) in [(1, Ack::Puback), (2, Ack::Pubrec)] {
        let topic = unique("refused");
        let connect = Connect::v5(&unique("c")).persistent();
        let mut client = connect.open(b);
        client.subscribe(&topic, qos);
        open(b, V5).publish(&topic, qos, "x");
        let id = client.recv_publish().id;
        client.ack_with(kind, id, 0x80);
        client.ping();
        client.cut();
        connect.open(b).expect_nothing();
    }
});

/// Leaves `count` messages open at `qos` and gives their identifiers.
fn left_open(
    b: &Broker,
    v: Version,
    qos: u8,
    count: usize,
) -> (crate::support::Client, Connect, Vec<u16>) {
    let topic = unique("open");
    let connect = Connect::new(v, &unique("c")).persistent();
    let mut client = connect.open(b);
    client.subscribe(&topic, qos);
    let mut publisher = open(b, v);
    for n in 0..count {
        publisher.publish(&topic, qos, n.to_string());
    }
    let ids = (0..count).map(|_| client.recv_publish().id).collect();
    (client, connect, ids)
}

fn pubacks_in_any_order(b: &Broker, v: Version) {
    let (mut client, connect, ids) = left_open(b, v, 1, 3);
    for n in [2, 0, 1] {
        client.ack(Ack::Puback, ids[n]);
    }
    client.ping();
    client.cut();
    connect.open(b).expect_nothing();
}
rule!(mqtt311_4_6_0_2__pubacks_in_any_order, |b| {
    pubacks_in_any_order(b, V4)
});
rule!(mqtt5_4_6_0_2__pubacks_in_any_order, |b| {
    pubacks_in_any_order(b, V5)
});

fn pubrels_follow_pubrecs(b: &Broker, v: Version, order: [usize; 3]) {
    let (mut client, _, ids) = left_open(b, v, 2, 3);
    for n in order {
        client.ack(Ack::Pubrec, ids[n]);
    }
    for n in order {
        match client.recv() {
            Packet::Ack {
                kind: Ack::Pubrel,
                id,
                ..
            } => assert_eq!(id, ids[n]),
            other => panic!("expected PUBREL, got {other:?}"),
        }
    }
}
rule!(mqtt311_4_6_0_3__pubrecs_in_any_order, |b| {
    pubrels_follow_pubrecs(b, V4, [1, 0, 2])
});
rule!(mqtt5_4_6_0_3__pubrecs_in_any_order, |b| {
    pubrels_follow_pubrecs(b, V5, [1, 0, 2])
});
rule!(mqtt311_4_6_0_4__pubrels_in_pubrec_order, |b| {
    pubrels_follow_pubrecs(b, V4, [0, 1, 2])
});

fn two_incoming(b: &Broker) -> crate::support::Client {
    let mut client = open(b, V5);
    for id in [2, 1] {
        client.send_publish(&Publish::new(unique("in"), 2, "x").id(id));
    }
    for id in [2, 1] {
        match client.recv() {
            Packet::Ack {
                kind: Ack::Pubrec,
                id: got,
                ..
            } => assert_eq!(got, id),
            other => panic!("expected PUBREC, got {other:?}"),
        }
    }
    client
}
rule!(mqtt5_4_6_0_1__resends_in_any_order, |b| {
    two_incoming(b);
});
rule!(mqtt5_4_6_0_4__pubrels_in_any_order, |b| {
    let mut client = two_incoming(b);
    for id in [2, 1] {
        client.ack(Ack::Pubrel, id);
    }
    for id in [2, 1] {
        match client.recv() {
            Packet::Ack {
                kind: Ack::Pubcomp,
                id: got,
                ..
            } => assert_eq!(got, id),
            other => panic!("expected PUBCOMP, got {other:?}"),
        }
    }
});

fn ordered(b: &Broker, v: Version) {
    for qos in 0..=2 {
        let topic = unique("order");
        let mut watcher = watch(b, v, &topic, qos);
        let mut publisher = open(b, v);
        for n in 0..300 {
            publisher.publish(&topic, qos, n.to_string());
            watcher.expect(&topic, n.to_string());
        }
        let back = absent(b, v, &topic, qos.max(1));
        for n in 0..50 {
            publisher.publish(&topic, qos.max(1), n.to_string());
        }
        let mut client = back.open(b);
        for n in 0..50 {
            client.expect(&topic, n.to_string());
        }
    }
}
rule!(mqtt311_4_6_0_5__topics_are_ordered, |b| ordered(b, V4));
rule!(mqtt311_4_6_0_6__order_per_publisher_topic_and_qos, |b| {
    ordered(b, V4)
});
rule!(mqtt5_4_6_0_5__order_per_publisher_topic_and_qos, |b| {
    ordered(b, V5)
});
rule!(mqtt5_4_6_0_6__topics_are_ordered, |b| ordered(b, V5));

fn unknown_acks(b: &Broker, v: Version) {
    let mut client = open(b, v);
    client.ack(Ack::Pubrel, 99);
    let code = client.wait_ack(Ack::Pubcomp, 99);
    assert!(code == if v == V5 { 0x92 } else { 0 } || code == 0);
    client.ack(Ack::Puback, 98);
    client.ack(Ack::Pubcomp, 96);
    client.ping();
}
rule!(r_039__acks_for_unknown_ids_do_no_harm, |b| {
    unknown_acks(b, V4);
    unknown_acks(b, V5);
});
rule!(mqtt5_3_2_2_5__stray_pubrel_is_answered, |b| unknown_acks(
    b, V5
));
rule!(mqtt5_3_7_2_1__pubcomp_codes_are_of_its_table, |b| {
    unknown_acks(b, V5);
    repeat_before_pubrel(b, V5);
});
rule!(mqtt5_3_4_2_1__puback_codes_are_of_its_table, |b| {
    open(b, V5).publish(&unique("nobody"), 1, "x");
    crate::checks::breaks(b, V5, &frame(0x40, &[0, 1, 5]), &[0x81, 0x82]);
});
rule!(mqtt5_3_5_2_1__pubrec_codes_are_of_its_table, |b| {
    open(b, V5).publish(&unique("nobody"), 2, "x");
    crate::checks::breaks(b, V5, &frame(0x50, &[0, 1, 5]), &[0x81, 0x82]);
});
rule!(r_040__both_sides_number_independently, |b| {
    for v in [V4, V5] {
        let (mut client, topic) = (open(b, v), unique("both"));
        client.subscribe(&topic, 1);
        open(b, v).publish(&topic, 1, "x");
        let open_id = client.recv_publish().id;
        for qos in 1..=2 {
            client.publish_packet(&Publish::new(unique("own"), qos, "y").id(open_id));
        }
        client.ack(Ack::Puback, open_id);
        client.ping();
    }
});
rule!(r_041__acks_may_be_short, |b| {
    let (topic, props) = (unique("short"), Props::new().two(prop::RECEIVE_MAXIMUM, 1));
    let mut client = Connect::v5(&unique("c")).props(props).open(b);
    client.subscribe(&topic, 1);
    let mut publisher = open(b, V5);
    for n in 0..4 {
        publisher.publish(&topic, 1, n.to_string());
    }
    for tail in [[].as_slice(), &[0], &[0, 0]] {
        let [high, low] = client.recv_publish().id.to_be_bytes();
        client.send(&frame(0x40, &[&[high, low], tail].concat()));
    }
    client.expect(&topic, "3");
});
rule!(r_042__no_matching_subscribers_only_when_true, |b| {
    let topic = unique("code");
    let mut client = open(b, V5);
    let id = client.send_publish(&Publish::new(&topic, 1, "x"));
    assert!([0, 0x10].contains(&client.wait_ack(Ack::Puback, id)));
    absent(b, V5, &topic, 1);
    let id = client.send_publish(&Publish::new(&topic, 1, "x"));
    assert_eq!(client.wait_ack(Ack::Puback, id), 0);
});
rule!(mqtt5_4_3_3_7__expiry_ends_with_the_first_sending, |b| {
    let topic = unique("expiry");
    let connect = Connect::v5(&unique("c")).persistent();
    let mut client = connect.open(b);
    client.subscribe(&topic, 2);
    let props = Props::new().four(prop::MESSAGE_EXPIRY, 1);
    open(b, V5).publish_packet(&Publish::new(&topic, 2, "x").props(props));
    client.recv_publish();
    client.cut();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    connect.open(b).expect(&topic, "x");
});
rule!(mqtt5_4_3_3_13__flow_ends_for_an_expired_message, |b| {
    let topic = unique("expired");
    absent(b, V5, &topic, 2);
    let mut client = open(b, V5);
    let props = Props::new().four(prop::MESSAGE_EXPIRY, 1);
    let id = client.send_publish(&Publish::new(&topic, 2, "x").props(props));
    client.wait_ack(Ack::Pubrec, id);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    client.ack(Ack::Pubrel, id);
    assert_eq!(client.wait_ack(Ack::Pubcomp, id), 0);
});

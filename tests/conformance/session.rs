//! Sessions: clean start, resume, expiry, takeover, DISCONNECT.

use crate::checks::{absent, breaks, open, watch};
use crate::rule;
use crate::support::{
    Ack, Broker, Client, Connect, Packet, Props, Publish, Version, Will, frame, prop, unique,
};
use crate::{V4, V5};
use std::time::Duration;

fn resumes(b: &Broker, v: Version) {
    let topic = unique("resume");
    let back = absent(b, v, &topic, 2);
    let mut publisher = open(b, v);
    for (n, qos) in [1, 2, 1, 2].into_iter().enumerate() {
        publisher.publish(&topic, qos, n.to_string());
    }
    // Over another socket, perhaps of another shard, found by its identifier.
    let mut client = Client::dial(b, v);
    client.send(&back.encode());
    match client.recv() {
        Packet::Connack {
            session_present,
            code,
            ..
        } => assert_eq!((session_present, code), (true, 0)),
        other => panic!("CONNACK comes first, not {other:?}"),
    }
    for n in 0..4 {
        client.expect(&topic, n.to_string());
    }
    assert!(
        !Connect::new(v, &unique("other"))
            .persistent()
            .open(b)
            .session_present
    );
}
rule!(mqtt311_3_1_2_4__clean_session_0_resumes, |b| resumes(b, V4));
rule!(mqtt5_3_1_2_5__clean_start_0_resumes, |b| resumes(b, V5));
rule!(mqtt311_3_1_2_5__queues_while_away, |b| resumes(b, V4));
rule!(mqtt311_3_1_3_2__state_is_found_by_client_id, |b| resumes(
    b, V4
));
rule!(mqtt5_3_1_3_2__state_is_found_by_client_id, |b| resumes(
    b, V5
));
rule!(mqtt311_3_2_0_1__connack_comes_first, |b| resumes(b, V4));
rule!(mqtt5_3_2_0_1__connack_comes_first, |b| resumes(b, V5));
rule!(mqtt311_3_2_2_2__session_present_1, |b| resumes(b, V4));
rule!(mqtt5_3_2_2_3__session_present_tells_of_state, |b| resumes(
    b, V5
));

fn cleans(b: &Broker, v: Version) {
    let topic = unique("clean");
    let back = absent(b, v, &topic, 1);
    let mut publisher = open(b, v);
    publisher.publish(&topic, 1, "old");
    let mut client = Connect::new(v, &back.client_id).open(b);
    assert!(!client.session_present);
    publisher.publish(&topic, 1, "new");
    client.expect_nothing();
    client.disconnect();
    let mut again = back.open(b);
    assert!(!again.session_present);
    again.expect_nothing();
}
rule!(mqtt311_3_1_2_6__clean_session_1_erases, |b| cleans(b, V4));
rule!(mqtt5_3_1_2_4__clean_start_1_erases, |b| cleans(b, V5));
rule!(mqtt311_3_1_4_3__clean_session_is_carried_out, |b| cleans(
    b, V4
));
rule!(mqtt5_3_1_4_4__clean_start_is_carried_out, |b| cleans(b, V5));
rule!(mqtt311_3_2_2_1__clean_means_session_present_0, |b| cleans(
    b, V4
));
rule!(mqtt5_3_2_2_2__clean_means_session_present_0, |b| cleans(
    b, V5
));

fn fresh(b: &Broker, v: Version) {
    assert!(
        !Connect::new(v, &unique("fresh"))
            .persistent()
            .open(b)
            .session_present
    );
}
rule!(
    mqtt311_3_2_2_3__no_state_means_session_present_0,
    |b| fresh(b, V4)
);
rule!(mqtt5_3_1_2_6__no_session_makes_one, |b| fresh(b, V5));

fn takeover(b: &Broker, v: Version) {
    let connect = Connect::new(v, &unique("c"));
    let mut first = connect.open(b);
    let mut second = connect.open(b);
    first.expect_error(&[0x8E]);
    second.ping();
}
rule!(mqtt311_3_1_4_2__the_newcomer_wins, |b| takeover(b, V4));
rule!(mqtt5_3_1_4_3__the_newcomer_wins, |b| takeover(b, V5));
rule!(mqtt5_3_14_4_2__who_disconnects_closes, |b| takeover(b, V5));
rule!(r_059__a_3_1_1_client_sees_a_bare_close, |b| {
    takeover(b, V4);
    breaks(b, V4, &[0xC1, 0], &[]);
});
rule!(r_058__a_takeover_keeps_the_session, |b| {
    for v in [V4, V5] {
        let topic = unique("taken");
        let connect = Connect::new(v, &unique("c")).persistent();
        let mut first = connect.open(b);
        first.subscribe(&topic, 1);
        let mut publisher = open(b, v);
        publisher.publish(&topic, 1, "x");
        first.recv_publish();
        let mut second = connect.open(b);
        assert!(second.session_present);
        assert!(second.expect(&topic, "x").dup);
        publisher.publish(&topic, 1, "y");
        second.expect(&topic, "y");
    }
});

fn lives_as_long_as_its_connection(b: &Broker, v: Version) {
    let (mut client, topic) = (open(b, v), unique("long"));
    client.subscribe(&topic, 0);
    std::thread::sleep(Duration::from_secs(2));
    open(b, v).publish(&topic, 0, "x");
    client.expect(&topic, "x");
}
rule!(
    mqtt311_4_1_0_2__no_session_ends_before_its_connection,
    |b| lives_as_long_as_its_connection(b, V4)
);
rule!(mqtt5_4_1_0_1__no_session_ends_before_its_connection, |b| {
    lives_as_long_as_its_connection(b, V5)
});

rule!(mqtt5_3_1_2_23__held_after_the_close, |b| {
    let connect = Connect::v5(&unique("c")).resume().expiry(30);
    connect.open(b).cut();
    std::thread::sleep(Duration::from_secs(1));
    assert!(connect.open(b).session_present);
});
rule!(mqtt5_4_1_0_2__gone_after_its_expiry, |b| {
    let topic = unique("gone");
    let connect = Connect::v5(&unique("c")).resume().expiry(1);
    let mut client = connect.open(b);
    client.subscribe(&topic, 1);
    client.cut();
    open(b, V5).publish(&topic, 1, "x");
    std::thread::sleep(Duration::from_millis(2500));
    let mut client = connect.open(b);
    assert!(!client.session_present);
    client.expect_nothing();
});
rule!(mqtt5_3_2_2_4__a_cut_keeps_the_session, |b| {
    let connect = Connect::v5(&unique("c")).persistent();
    for present in [false, true, true] {
        let client = connect.open(b);
        assert_eq!(client.session_present, present);
        client.cut();
    }
});
rule!(r_021__no_expiry_ends_with_the_connection, |b| {
    let connect = Connect::v5(&unique("c")).resume();
    connect.open(b).cut();
    assert!(!connect.open(b).session_present);
});
rule!(r_022__expiry_0xffffffff_is_never, |b| {
    let connect = Connect::v5(&unique("c")).resume().expiry(u32::MAX);
    let client = connect.open(b);
    assert_eq!(
        client
            .connack
            .number(prop::SESSION_EXPIRY)
            .unwrap_or(u32::MAX),
        u32::MAX
    );
    client.cut();
    std::thread::sleep(Duration::from_secs(2));
    assert!(connect.open(b).session_present);
});
rule!(r_023__disconnect_may_change_the_expiry, |b| {
    let connect = Connect::v5(&unique("c")).persistent();
    connect.open(b).disconnect_with(0, &Props::new());
    let client = connect.open(b);
    assert!(client.session_present);
    client.disconnect_with(0, &Props::new().four(prop::SESSION_EXPIRY, 0));
    assert!(!connect.open(b).session_present);
});
rule!(r_024__disconnect_may_not_raise_expiry_from_0, |b| {
    let topic = unique("will");
    let mut watcher = watch(b, V5, &topic, 0);
    let mut client = Connect::v5(&unique("c"))
        .will(Will::new(&topic, "gone"))
        .open(b);
    let mut body = vec![0];
    Props::new().four(prop::SESSION_EXPIRY, 10).put(&mut body);
    client.send(&frame(0xE0, &body));
    client.expect_error(&[0x82]);
    watcher.expect(&topic, "gone");
});
rule!(
    r_025__a_capped_expiry_is_told,
    "[session]\nexpiry_seconds_max = 1\n",
    |b| {
        let connect = Connect::v5(&unique("c")).resume().expiry(u32::MAX);
        let client = connect.open(b);
        assert_eq!(client.connack.number(prop::SESSION_EXPIRY), Some(1));
        client.cut();
        std::thread::sleep(Duration::from_millis(2500));
        assert!(!connect.open(b).session_present);
    }
);
rule!(r_026__an_empty_session_exists, |b| {
    for v in [V4, V5] {
        let connect = Connect::new(v, &unique("c")).persistent();
        connect.open(b).disconnect();
        assert!(connect.open(b).session_present);
    }
});
rule!(r_029__identifiers_are_stored_with_the_session, |b| {
    let topic = unique("id");
    let connect = Connect::v5(&unique("c")).persistent();
    let mut client = connect.open(b);
    let props = Props::new().variable(prop::SUBSCRIPTION_ID, 7);
    crate::checks::subscribe_props(&mut client, &topic, 1, props);
    client.cut();
    let mut client = connect.open(b);
    client.publish(&topic, 1, "x");
    assert_eq!(client.accept().props.subscription_ids(), [7]);
    client.subscribe(&topic, 1);
    client.publish(&topic, 1, "y");
    assert!(client.accept().props.subscription_ids().is_empty());
});
rule!(r_043__unfinished_first_then_queued, |b| {
    for v in [V4, V5] {
        let topic = unique("first");
        let connect = Connect::new(v, &unique("c")).persistent();
        let mut client = connect.open(b);
        client.subscribe(&topic, 1);
        let mut publisher = open(b, v);
        for n in 0..3 {
            publisher.publish(&topic, 1, n.to_string());
            client.recv_publish();
        }
        client.cut();
        for n in 3..6 {
            publisher.publish(&topic, 1, n.to_string());
        }
        let mut client = connect.open(b);
        for n in 0..6 {
            assert_eq!(client.expect(&topic, n.to_string()).dup, n < 3);
        }
    }
});

fn three_sessions(b: &Broker, v: Version) {
    let topic = unique("three");
    let back = absent(b, v, &topic, 1);
    let mut present = [watch(b, v, &topic, 1), watch(b, v, &topic, 0)];
    open(b, v).publish(&topic, 1, "x");
    present.iter_mut().for_each(|client| {
        client.expect(&topic, "x");
    });
    back.open(b).expect(&topic, "x");
}
rule!(mqtt311_4_5_0_1__each_matching_session_gets_it, |b| {
    three_sessions(b, V4)
});
rule!(mqtt5_4_5_0_1__each_matching_session_gets_it, |b| {
    three_sessions(b, V5)
});

fn broker_closes_after_disconnect(b: &Broker, v: Version) {
    let mut client = open(b, v);
    client.send(&[0xE0, 0]);
    client.expect_closed();
}
rule!(mqtt311_3_14_4_1__broker_closes_after_disconnect, |b| {
    broker_closes_after_disconnect(b, V4)
});
fn nothing_after_disconnect(b: &Broker, v: Version) {
    let topic = unique("after");
    let mut watcher = watch(b, v, &topic, 0);
    let mut client = open(b, v);
    let mut bytes = vec![0xE0, 0];
    bytes.extend(Publish::new(&topic, 0, "no").encode(v));
    client.send(&bytes);
    client.drain_to_close();
    watcher.expect_nothing();
}
rule!(
    mqtt311_3_14_4_2__nothing_after_disconnect_is_processed,
    |b| nothing_after_disconnect(b, V4)
);
rule!(mqtt5_3_14_4_1__nothing_after_disconnect_is_processed, |b| {
    nothing_after_disconnect(b, V5);
    takeover(b, V5);
});
rule!(mqtt5_3_14_2_1__disconnect_codes_are_of_its_table, |b| {
    let topic = unique("will");
    let mut watcher = watch(b, V5, &topic, 0);
    let mut client = Connect::v5(&unique("c"))
        .will(Will::new(&topic, "gone"))
        .open(b);
    client.send(&frame(0xE0, &[5]));
    client.expect_error(&[0x81, 0x82]);
    watcher.expect(&topic, "gone");
});
rule!(mqtt5_3_14_2_2__the_brokers_disconnect_has_no_expiry, |b| {
    // The client's decoder fails on a session expiry in the broker's DISCONNECT.
    takeover(b, V5);
    breaks(b, V5, &[0xC1, 0], &[0x81]);
});
fn small_disconnect(b: &Broker) {
    let connect = Connect::v5(&unique("c")).props(Props::new().four(prop::MAXIMUM_PACKET_SIZE, 20));
    let mut client = connect.open(b);
    client.send(&[0xC1, 0]);
    client.drain_to_close();
    assert!(client.largest_packet_bytes <= 20);
}
rule!(mqtt5_3_14_2_3__disconnect_drops_its_reason_string, |b| {
    small_disconnect(b)
});
rule!(mqtt5_3_14_2_4__disconnect_drops_its_user_properties, |b| {
    small_disconnect(b)
});
rule!(mqtt5_4_5_0_2__unacknowledged_uses_up_quota, |b| {
    let topic = unique("quota");
    let connect = Connect::v5(&unique("c"))
        .persistent()
        .props(Props::new().two(prop::RECEIVE_MAXIMUM, 1));
    let mut client = connect.open(b);
    client.subscribe(&topic, 1);
    let mut publisher = open(b, V5);
    publisher.publish(&topic, 1, "x");
    publisher.publish(&topic, 1, "y");
    let first = client.recv_publish();
    client.expect_nothing();
    client.cut();
    let mut client = connect.open(b);
    let again = client.recv_publish();
    assert_eq!((again.id, again.dup), (first.id, true));
    client.ack(Ack::Puback, again.id);
    client.expect(&topic, "y");
});

//! Wills: sections 3.1.2.5 to 3.1.2.7, 3.1.3.2 and what ends a connection.

use crate::checks::{open, retained, watch};
use crate::rule;
use crate::support::{Broker, Connect, Props, Version, Will, prop, unique};
use crate::{V4, V5};
use std::time::{Duration, Instant};

fn with_will(v: Version, topic: &str) -> Connect {
    Connect::new(v, &unique("c")).will(Will::new(topic, "gone").qos(1))
}

fn every_bad_end(b: &Broker, v: Version) {
    let topic = unique("will");
    let mut watcher = watch(b, v, &topic, 1);
    with_will(v, &topic).open(b).cut();
    watcher.expect(&topic, "gone");
    with_will(v, &topic).open(b).reset();
    watcher.expect(&topic, "gone");
    let mut client = with_will(v, &topic).open(b);
    client.send(&[0xC1, 0]);
    client.expect_error(&[0x81]);
    watcher.expect(&topic, "gone");
    let _silent = with_will(v, &topic).keep_alive(1).open(b);
    watcher.expect(&topic, "gone");
}
rule!(mqtt311_3_1_2_8__published_without_disconnect, |b| {
    every_bad_end(b, V4)
});
rule!(r_034__every_bad_end_releases_the_will, |b| {
    every_bad_end(b, V4);
    every_bad_end(b, V5);
});

fn once_at_most(b: &Broker, v: Version) {
    let topic = unique("once");
    let mut watcher = watch(b, v, &topic, 1);
    let connect = with_will(v, &topic).persistent();
    connect.open(b).cut();
    watcher.expect(&topic, "gone");
    let mut without = connect.clone();
    without.will = None;
    without.open(b).cut();
    connect.open(b).disconnect();
    without.open(b).ping();
    watcher.expect_nothing();
}
rule!(mqtt311_3_1_2_10__once_at_most, |b| once_at_most(b, V4));
rule!(mqtt5_3_1_2_10__once_at_most, |b| once_at_most(b, V5));
rule!(mqtt311_3_1_2_12__no_will_no_message, |b| {
    let mut watcher = watch(b, V4, "will/none/#", 0);
    open(b, V4).cut();
    watcher.expect_nothing();
});
fn cancelled(b: &Broker, v: Version) {
    let topic = unique("cancel");
    let mut watcher = watch(b, v, &topic, 1);
    with_will(v, &topic).open(b).disconnect();
    watcher.expect_nothing();
}
rule!(mqtt311_3_14_4_3__disconnect_cancels, |b| cancelled(b, V4));
rule!(mqtt5_3_14_4_3__disconnect_cancels, |b| {
    cancelled(b, V5);
    let topic = unique("cancel");
    let mut watcher = watch(b, V5, &topic, 1);
    with_will(V5, &topic)
        .open(b)
        .disconnect_with(0, &Props::new());
    watcher.expect_nothing();
});
fn kept(b: &Broker, v: Version, retain: bool) {
    let topic = unique("kept");
    let mut watcher = watch(b, v, &topic, 1);
    let will = Will::new(&topic, "gone");
    let will = if retain { will.retain() } else { will };
    Connect::new(v, &unique("c")).will(will).open(b).cut();
    watcher.expect(&topic, "gone");
    let found = retained(b, v, &topic);
    assert_eq!(found.len(), usize::from(retain));
    assert!(found.iter().all(|p| p.retain && p.payload == b"gone"));
}
rule!(mqtt311_3_1_2_16__will_retain_0, |b| kept(b, V4, false));
rule!(mqtt5_3_1_2_14__will_retain_0, |b| kept(b, V5, false));
rule!(mqtt311_3_1_2_17__will_retain_1, |b| kept(b, V4, true));
rule!(mqtt5_3_1_2_15__will_retain_1, |b| kept(b, V5, true));

fn delayed(topic: &str, delay: u32, expiry: u32) -> Connect {
    Connect::v5(&unique("c"))
        .resume()
        .expiry(expiry)
        .will(Will::new(topic, "gone").qos(1).delay(delay))
}
rule!(mqtt5_3_1_2_7__the_will_outlives_the_connection, |b| {
    let topic = unique("delay");
    let mut watcher = watch(b, V5, &topic, 1);
    delayed(&topic, 1, 60).open(b).cut();
    watcher.expect_nothing();
    watcher.expect(&topic, "gone");
});
fn back_in_time(b: &Broker) {
    let topic = unique("back");
    let mut watcher = watch(b, V5, &topic, 1);
    let connect = delayed(&topic, 2, 60);
    connect.open(b).cut();
    let mut again = connect.clone();
    again.will = None;
    let mut client = again.open(b);
    std::thread::sleep(Duration::from_secs(3));
    client.ping();
    watcher.expect_nothing();
}
rule!(mqtt5_3_1_3_9__a_return_in_time_cancels, back_in_time);
rule!(mqtt5_3_1_2_8__cut_disconnect_and_return, |b| {
    every_bad_end(b, V5);
    cancelled(b, V5);
    back_in_time(b);
});
rule!(r_030__the_earlier_of_delay_and_session_end, |b| {
    for (delay, expiry) in [(60, 1), (1, 60)] {
        let topic = unique("earlier");
        let mut watcher = watch(b, V5, &topic, 1);
        let start = Instant::now();
        delayed(&topic, delay, expiry).open(b).cut();
        watcher.expect(&topic, "gone");
        assert!(
            start.elapsed() >= Duration::from_millis(900),
            "not before its time"
        );
    }
});
rule!(r_031__wills_at_a_takeover, |b| {
    for (delay, clean, sent) in [(0, false, true), (30, true, true), (30, false, false)] {
        let topic = unique("taken");
        let mut watcher = watch(b, V5, &topic, 1);
        let connect = if delay == 0 {
            with_will(V5, &topic).persistent()
        } else {
            delayed(&topic, delay, 60)
        };
        let _old = connect.open(b);
        let mut newcomer = connect.clone();
        newcomer.will = None;
        newcomer.clean = clean;
        newcomer.open(b).ping();
        if sent {
            watcher.expect(&topic, "gone");
        }
        watcher.expect_nothing();
    }
});
fn kept_by_code(b: &Broker) {
    let topic = unique("code");
    let mut watcher = watch(b, V5, &topic, 1);
    for code in [0x04, 0x80] {
        with_will(V5, &topic)
            .open(b)
            .disconnect_with(code, &Props::new());
        watcher.expect(&topic, "gone");
    }
}
rule!(r_032__other_codes_leave_the_will_in_force, kept_by_code);
rule!(r_060__short_disconnects, |b| {
    let topic = unique("short");
    let mut watcher = watch(b, V5, &topic, 1);
    for (bytes, sent) in [
        ([0xE0, 0].as_slice(), false),
        (&[0xE0, 1, 4], true),
        (&[0xE0, 1, 0], false),
    ] {
        let mut client = with_will(V5, &topic).open(b);
        client.send(bytes);
        client.drain_to_close();
        if sent {
            watcher.expect(&topic, "gone");
        }
        watcher.expect_nothing();
    }
});
fn all_properties(b: &Broker) {
    let topic = unique("props");
    let mut watcher = watch(b, V5, &topic, 1);
    let sent = Props::new()
        .byte(prop::PAYLOAD_FORMAT, 1)
        .four(prop::MESSAGE_EXPIRY, 600)
        .text(prop::CONTENT_TYPE, "text/plain")
        .text(prop::RESPONSE_TOPIC, "r/1")
        .text(prop::CORRELATION_DATA, [0, 255, 128])
        .user("a", "1")
        .user("b", "2")
        .user("a", "3");
    let will = Will::new(&topic, "gone").props(sent.clone().four(prop::WILL_DELAY, 1));
    Connect::v5(&unique("c"))
        .expiry(60)
        .will(will)
        .open(b)
        .cut();
    let got = watcher.expect(&topic, "gone").props;
    for (id, value) in &sent.0 {
        if *id != prop::MESSAGE_EXPIRY && *id != prop::USER_PROPERTY {
            assert_eq!(got.find(*id), Some(value));
        }
    }
    assert!(got.number(prop::MESSAGE_EXPIRY).is_some_and(|s| s <= 600));
    assert_eq!(got.user_pairs(), sent.user_pairs());
    assert_eq!(got.find(prop::WILL_DELAY), None);
}
rule!(r_033__the_will_carries_its_properties, all_properties);
rule!(mqtt5_3_1_3_10__user_properties_of_the_will_in_order, |b| {
    all_properties(b)
});

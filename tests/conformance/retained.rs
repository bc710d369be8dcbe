//! Retained messages: section 3.3.1.3 and Retain Handling.

use crate::checks::{open, retained, watch};
use crate::rule;
use crate::support::{
    Broker, Connect, Props, Publish, Version, Will, eventually, option, prop, unique,
};
use crate::{V4, V5};

fn payloads(b: &Broker, v: Version, filter: &str) -> Vec<String> {
    let mut all: Vec<String> = retained(b, v, filter)
        .iter()
        .inspect(|p| assert!(p.retain, "RETAIN is set: {p:?}"))
        .map(|p| p.payload_str().to_owned())
        .collect();
    all.sort();
    all
}

fn survives_its_session(b: &Broker, v: Version) {
    let topic = unique("keep");
    let mut client = open(b, v);
    client.retain(&topic, 1, "x");
    client.disconnect();
    assert_eq!(payloads(b, v, &topic), ["x"]);
}
rule!(mqtt311_3_1_2_7__retained_outlive_the_session, |b| {
    survives_its_session(b, V4)
});
rule!(r_027__retained_belong_to_no_session, |b| {
    survives_its_session(b, V5)
});

fn newest_per_topic(b: &Broker, v: Version) {
    let stem = unique("newest");
    let mut client = open(b, v);
    for (leaf, payload) in [("1", "a"), ("2", "old"), ("2", "b")] {
        client.retain(&format!("{stem}/{leaf}"), 1, payload);
    }
    assert_eq!(payloads(b, v, &format!("{stem}/+")), ["a", "b"]);
}
rule!(mqtt311_3_3_1_6__the_newest_of_each_topic, |b| {
    newest_per_topic(b, V4)
});
rule!(mqtt5_3_3_1_5__the_newest_displaces_the_older, |b| {
    newest_per_topic(b, V5)
});
rule!(mqtt311_3_3_1_8__retain_is_set_for_a_new_subscription, |b| {
    newest_per_topic(b, V4)
});
rule!(mqtt311_3_3_1_5__stored_with_its_qos, |b| {
    let topic = unique("qos");
    open(b, V4).retain(&topic, 1, "x");
    let got = retained(b, V4, &topic);
    assert_eq!((got[0].qos, got[0].retain), (1, true));
});
rule!(mqtt311_3_3_1_7__retained_qos_0_displaces, |b| {
    let topic = unique("qos0");
    let mut client = open(b, V4);
    client.retain(&topic, 1, "x");
    client.retain(&topic, 0, "y");
    assert_eq!(payloads(b, V4, &topic), ["y"]);
});
fn live_has_no_retain(b: &Broker, v: Version) {
    let topic = unique("live");
    let mut watcher = watch(b, v, &topic, 1);
    open(b, v).retain(&topic, 1, "x");
    assert!(!watcher.expect(&topic, "x").retain);
}
rule!(mqtt311_3_3_1_9__live_copies_have_retain_0, |b| {
    live_has_no_retain(b, V4)
});
rule!(mqtt5_3_3_1_12__retain_as_published_0, |b| {
    live_has_no_retain(b, V5)
});
fn empty_wipes(b: &Broker, v: Version) {
    let topic = unique("wipe");
    let mut client = open(b, v);
    client.retain(&topic, 1, "x");
    let mut watcher = watch(b, v, &topic, 1);
    watcher.expect(&topic, "x");
    client.retain(&topic, 1, "");
    assert!(!watcher.expect(&topic, "").retain);
    assert!(payloads(b, v, &topic).is_empty());
}
rule!(mqtt311_3_3_1_10__an_empty_one_wipes, |b| empty_wipes(b, V4));
rule!(mqtt5_3_3_1_6__an_empty_one_wipes, |b| empty_wipes(b, V5));
fn empty_is_not_kept(b: &Broker, v: Version) {
    let topic = unique("empty");
    open(b, v).retain(&topic, 1, "");
    assert!(payloads(b, v, &topic).is_empty());
}
rule!(mqtt311_3_3_1_11__an_empty_one_is_not_kept, |b| {
    empty_is_not_kept(b, V4)
});
rule!(mqtt5_3_3_1_7__an_empty_one_is_not_kept, |b| {
    empty_is_not_kept(b, V5)
});
fn plain_leaves_it(b: &Broker, v: Version) {
    let topic = unique("plain");
    let mut client = open(b, v);
    client.retain(&topic, 1, "x");
    client.publish(&topic, 1, "y");
    assert_eq!(payloads(b, v, &topic), ["x"]);
}
rule!(mqtt311_3_3_1_12__plain_publishes_leave_it, |b| {
    plain_leaves_it(b, V4)
});
rule!(
    mqtt5_3_3_1_8__plain_publishes_leave_it,
    |b| plain_leaves_it(b, V5)
);

rule!(mqtt5_3_3_1_9__retain_handling_0_each_time, |b| {
    let topic = unique("rh0");
    open(b, V5).retain(&topic, 1, "x");
    let mut client = open(b, V5);
    for _ in 0..2 {
        client.subscribe(&topic, 1);
        assert!(client.expect(&topic, "x").retain);
    }
    client.expect_nothing();
});
rule!(mqtt5_3_3_1_10__retain_handling_1_when_new, |b| {
    let topic = unique("rh1");
    open(b, V5).retain(&topic, 1, "x");
    let mut client = open(b, V5);
    client.subscribe(&topic, 1 | option::RETAIN_IF_NEW);
    client.expect(&topic, "x");
    client.subscribe(&topic, 1 | option::RETAIN_IF_NEW);
    client.expect_nothing();
    client.unsubscribe(&[&topic]);
    client.subscribe(&topic, 1 | option::RETAIN_IF_NEW);
    client.expect(&topic, "x");
});
rule!(mqtt5_3_3_1_11__retain_handling_2_never, |b| {
    let topic = unique("rh2");
    let mut publisher = open(b, V5);
    publisher.retain(&topic, 1, "x");
    let mut client = open(b, V5);
    client.subscribe(&topic, 1 | option::RETAIN_NEVER);
    client.expect_nothing();
    publisher.publish(&topic, 1, "live");
    client.expect(&topic, "live");
});
rule!(mqtt5_3_3_1_13__retain_as_published_1, |b| {
    let topic = unique("rap");
    let mut client = watch(b, V5, &topic, 1 | option::RETAIN_AS_PUBLISHED);
    let mut publisher = open(b, V5);
    publisher.retain(&topic, 1, "x");
    publisher.publish(&topic, 1, "y");
    assert!(client.expect(&topic, "x").retain);
    assert!(!client.expect(&topic, "y").retain);
});
rule!(r_064__retained_have_retain_1_whatever_the_option, |b| {
    let topic = unique("flag");
    let mut publisher = open(b, V5);
    publisher.retain(&topic, 1, "x");
    let mut client = watch(b, V5, &topic, 1);
    assert!(client.expect(&topic, "x").retain);
    publisher.publish(&topic, 1, "y");
    assert!(!client.expect(&topic, "y").retain);
});
rule!(r_028__retained_carry_the_subscription_identifier, |b| {
    let topic = unique("id");
    open(b, V5).retain(&topic, 1, "x");
    let mut client = open(b, V5);
    let props = Props::new().variable(prop::SUBSCRIPTION_ID, 7);
    crate::checks::subscribe_props(&mut client, &topic, 1, props);
    assert_eq!(client.expect(&topic, "x").props.subscription_ids(), [7]);
});
rule!(r_035__an_empty_retained_will_clears, |b| {
    for v in [V4, V5] {
        let topic = unique("clear");
        open(b, v).retain(&topic, 1, "x");
        Connect::new(v, &unique("c"))
            .will(Will::new(&topic, "").retain())
            .open(b)
            .cut();
        // Another shard may notice it, and tell the one that is asked.
        eventually("it is cleared", || {
            payloads(b, v, &topic).is_empty().then_some(())
        });
    }
});
fn expiring(topic: &str, seconds: u32) -> Publish {
    let props = Props::new().four(prop::MESSAGE_EXPIRY, seconds);
    Publish::new(topic, 1, "x").props(props).retain()
}
rule!(r_037__retained_count_their_expiry_down, |b| {
    let topic = unique("count");
    open(b, V5).publish_packet(&expiring(&topic, 100));
    std::thread::sleep(std::time::Duration::from_secs(2));
    let left = retained(b, V5, &topic)[0]
        .props
        .number(prop::MESSAGE_EXPIRY);
    assert!(left.is_some_and(|s| (60..=98).contains(&s)), "{left:?}");
});
rule!(r_038__expired_retained_are_discarded, |b| {
    let topic = unique("gone");
    open(b, V5).publish_packet(&expiring(&topic, 1));
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(payloads(b, V5, &topic).is_empty());
});

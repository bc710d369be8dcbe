//! Properties of PUBLISH: section 3.3.2.3.

use crate::V5;
use crate::checks::{absent, breaks, open, retained, watch};
use crate::rule;
use crate::support::{Broker, Props, Publish, prop, unique};
use std::time::Duration;

/// What every way of delivery gives for a message with `props`: live, queued and retained.
fn everywhere(b: &Broker, props: &Props) -> Vec<Publish> {
    let topic = unique("props");
    let back = absent(b, V5, &topic, 1);
    let mut live = watch(b, V5, &topic, 1);
    open(b, V5).publish_packet(&Publish::new(&topic, 1, "x").props(props.clone()).retain());
    let mut all = vec![live.expect(&topic, "x"), back.open(b).expect(&topic, "x")];
    all.extend(retained(b, V5, &topic));
    assert_eq!(all.len(), 3);
    all
}

fn unchanged(b: &Broker, props: Props) {
    for publish in everywhere(b, &props) {
        assert_eq!(publish.props, props);
    }
}
rule!(mqtt5_3_3_2_4__payload_format_is_passed_on, |b| {
    unchanged(b, Props::new().byte(prop::PAYLOAD_FORMAT, 1));
});
rule!(mqtt5_3_3_2_15__response_topic_is_passed_on, |b| {
    unchanged(b, Props::new().text(prop::RESPONSE_TOPIC, "r/1"));
});
rule!(mqtt5_3_3_2_16__correlation_data_is_passed_on, |b| {
    unchanged(
        b,
        Props::new().text(prop::CORRELATION_DATA, [0, 0xFF, 0x80]),
    );
});
rule!(mqtt5_3_3_2_20__content_type_is_passed_on, |b| {
    unchanged(b, Props::new().text(prop::CONTENT_TYPE, "text/plain"));
});
rule!(mqtt5_3_3_2_17__user_properties_are_passed_on, |b| {
    let props = Props::new().user("a", "1").user("a", "2").user("", "");
    for publish in everywhere(b, &props) {
        assert_eq!(publish.props.user_pairs(), props.user_pairs());
    }
});
rule!(mqtt5_3_3_2_18__user_properties_keep_their_order, |b| {
    let props = Props::new().user("b", "1").user("a", "2").user("b", "3");
    for publish in everywhere(b, &props) {
        assert_eq!(publish.props.user_pairs(), props.user_pairs());
    }
});
rule!(r_036__no_expiry_is_added, |b| {
    for publish in everywhere(b, &Props::new()) {
        assert_eq!(publish.props, Props::new());
    }
});

fn bad(b: &Broker, props: Props, codes: &[u8]) {
    breaks(
        b,
        V5,
        &Publish::new("a", 0, "x").props(props).encode(V5),
        codes,
    );
}
rule!(mqtt5_3_3_2_13__response_topic_in_bad_utf8, |b| {
    bad(b, Props::new().text(prop::RESPONSE_TOPIC, b"\xFF"), &[0x81]);
});
rule!(mqtt5_3_3_2_14__wildcards_in_the_response_topic, |b| {
    let topic = unique("wild");
    let mut watcher = watch(b, V5, &topic, 0);
    let props = Props::new().text(prop::RESPONSE_TOPIC, "a/#");
    let bytes = Publish::new(&topic, 0, "x").props(props).encode(V5);
    breaks(b, V5, &bytes, &[0x82, 0x81, 0x90]);
    watcher.expect_nothing();
});
rule!(mqtt5_3_3_2_19__content_type_in_bad_utf8, |b| {
    bad(b, Props::new().text(prop::CONTENT_TYPE, b"\xFF"), &[0x81]);
});
rule!(mqtt5_3_3_4_6__subscription_identifier_from_a_client, |b| {
    let topic = unique("id");
    let mut watcher = watch(b, V5, &topic, 0);
    let props = Props::new().variable(prop::SUBSCRIPTION_ID, 1);
    let bytes = Publish::new(&topic, 0, "x").props(props).encode(V5);
    breaks(b, V5, &bytes, &[0x82, 0x81]);
    watcher.expect_nothing();
});

fn expiring(topic: &str, seconds: u32) -> Publish {
    Publish::new(topic, 1, "x").props(Props::new().four(prop::MESSAGE_EXPIRY, seconds))
}
rule!(mqtt5_3_3_2_5__an_expired_copy_is_deleted, |b| {
    let topic = unique("expired");
    let back = absent(b, V5, &topic, 1);
    let mut publisher = open(b, V5);
    publisher.publish_packet(&expiring(&topic, 1));
    publisher.publish(&topic, 1, "stays");
    std::thread::sleep(Duration::from_millis(2500));
    let mut client = back.open(b);
    client.expect(&topic, "stays");
    client.expect_nothing();
});
rule!(mqtt5_3_3_2_6__expiry_is_lowered_by_the_wait, |b| {
    let topic = unique("lowered");
    let back = absent(b, V5, &topic, 1);
    open(b, V5).publish_packet(&expiring(&topic, 100));
    std::thread::sleep(Duration::from_secs(2));
    let left = back
        .open(b)
        .expect(&topic, "x")
        .props
        .number(prop::MESSAGE_EXPIRY);
    assert!(left.is_some_and(|s| (60..=98).contains(&s)), "{left:?}");
});

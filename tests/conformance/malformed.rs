//! Packets that break the format: sections 1.5, 2, fixed headers, 4.8 and 4.13.

use crate::checks::{breaks, fields, filter, open, raw_connect, refused, request, still_serves};
use crate::rule;
use crate::support::{Broker, Connect, Packet, Props, Publish, Version, frame, put_str, unique};
use crate::{V4, V5};

const MALFORMED: &[u8] = &[0x81];
const EITHER: &[u8] = &[0x81, 0x82];

fn publish_topic(b: &Broker, v: Version, topic: &[u8], codes: &[u8]) {
    breaks(b, v, &Publish::new(topic, 0, "x").encode(v), codes);
}

fn subscribe_filter(b: &Broker, v: Version, text: &[u8], codes: &[u8]) {
    breaks(b, v, &request(0x82, v, 1, &filter(text, 0)), codes);
}

fn bad_utf8(b: &Broker, v: Version) {
    for text in [
        b"\xC3\x28".as_slice(),
        b"\xED\xA0\x80",
        b"a\xFF",
        b"\xF4\x90\x80\x80",
        b"\xC0\xAF",
    ] {
        publish_topic(b, v, text, MALFORMED);
        subscribe_filter(b, v, text, MALFORMED);
    }
}
rule!(mqtt311_1_5_3_1__bad_utf8_is_closed, |b| bad_utf8(b, V4));
rule!(mqtt5_1_5_4_1__bad_utf8_is_malformed, |b| bad_utf8(b, V5));

fn nul(b: &Broker, v: Version) {
    publish_topic(b, v, b"a\0b", EITHER);
    subscribe_filter(b, v, b"a\0b", EITHER);
}
rule!(mqtt311_1_5_3_2__nul_is_closed, |b| nul(b, V4));
rule!(mqtt5_1_5_4_2__nul_is_malformed, |b| nul(b, V5));
rule!(mqtt311_4_7_3_2__nul_in_topics, |b| nul(b, V4));
rule!(mqtt5_4_7_3_2__nul_in_topics, |b| nul(b, V5));

fn bom(b: &Broker, v: Version) {
    let plain = unique("bom");
    let with_bom = format!("\u{FEFF}{plain}");
    let mut client = open(b, v);
    client.subscribe(&with_bom, 0);
    client.publish(&plain, 0, "plain");
    client.publish(&with_bom, 0, "bom");
    client.expect(&with_bom, "bom");
    client.expect_nothing();
}
rule!(mqtt311_1_5_3_3__bom_is_kept, |b| bom(b, V4));
rule!(mqtt5_1_5_4_3__bom_is_kept, |b| bom(b, V5));

rule!(mqtt5_1_5_5_1__padded_length_is_malformed, |b| {
    breaks(b, V5, &[0xC0, 0x80, 0x00], MALFORMED);
});
rule!(mqtt5_1_5_7_1__user_properties_are_utf8, |b| {
    for (name, value) in [(b"k".as_slice(), b"\xFF".as_slice()), (b"\xFF", b"v")] {
        let mut props = vec![0x26];
        put_str(&mut props, name);
        put_str(&mut props, value);
        let mut body = fields(&[b"t"]);
        body.push(props.len() as u8);
        body.extend(props);
        breaks(b, V5, &frame(0x30, &body), MALFORMED);
    }
});

fn right_nibbles(b: &Broker, v: Version) {
    // The client's decoder fails on any wrong nibble; this makes every kind of packet come.
    let (mut client, topic) = (open(b, v), unique("nibble"));
    client.subscribe(&topic, 2);
    for qos in 0..=2 {
        client.publish(&topic, qos, "x");
        client.expect(&topic, "x");
    }
    client.unsubscribe(&[&topic]);
    client.ping();
}
rule!(mqtt311_2_2_2_1__flags_are_as_prescribed, |b| right_nibbles(
    b, V4
));

fn wrong_nibbles(b: &Broker, v: Version) {
    let id = [0, 1];
    for first in [0x41, 0x51, 0x60, 0x63, 0x71] {
        breaks(b, v, &frame(first, &id), MALFORMED);
    }
    breaks(b, v, &[0xC1, 0], MALFORMED);
    breaks(b, v, &[0xE1, 0], MALFORMED);
    breaks(b, v, &request(0x80, v, 1, &filter(b"a", 0)), MALFORMED);
    breaks(b, v, &request(0xA0, v, 1, &fields(&[b"a"])), MALFORMED);
}
rule!(mqtt311_2_2_2_2__wrong_flags_are_closed, |b| wrong_nibbles(
    b, V4
));
rule!(mqtt5_2_1_3_1__wrong_flags_are_malformed, |b| {
    wrong_nibbles(b, V5);
    right_nibbles(b, V5);
});
rule!(mqtt311_3_6_1_1__pubrel_flags, |b| breaks(
    b,
    V4,
    &frame(0x60, &[0, 1]),
    MALFORMED
));
rule!(mqtt5_3_6_1_1__pubrel_flags, |b| breaks(
    b,
    V5,
    &frame(0x60, &[0, 1]),
    MALFORMED
));
fn subscribe_flags(b: &Broker, v: Version) {
    breaks(b, v, &request(0x80, v, 1, &filter(b"a", 0)), MALFORMED);
}
rule!(mqtt311_3_8_1_1__subscribe_flags, |b| subscribe_flags(b, V4));
rule!(mqtt5_3_8_1_1__subscribe_flags, |b| subscribe_flags(b, V5));
fn unsubscribe_flags(b: &Broker, v: Version) {
    breaks(b, v, &request(0xA0, v, 1, &fields(&[b"a"])), MALFORMED);
}
rule!(mqtt311_3_10_1_1__unsubscribe_flags, |b| unsubscribe_flags(
    b, V4
));
rule!(mqtt5_3_10_1_1__unsubscribe_flags, |b| unsubscribe_flags(
    b, V5
));
rule!(mqtt5_3_15_1_1__auth_flags, |b| breaks(
    b,
    V5,
    &[0xF1, 0],
    MALFORMED
));

fn id_0(b: &Broker, v: Version) {
    breaks(b, v, &request(0x82, v, 0, &filter(b"a", 0)), EITHER);
    breaks(b, v, &request(0xA2, v, 0, &fields(&[b"a"])), EITHER);
    for qos in 1..=2 {
        breaks(b, v, &Publish::new("a", qos, "x").encode(v), EITHER);
    }
}
rule!(mqtt311_2_3_1_1__identifier_0_is_closed, |b| id_0(b, V4));
rule!(mqtt5_2_2_1_3__identifier_0_is_an_error, |b| id_0(b, V5));
rule!(mqtt5_2_2_2_1__property_length_is_needed, |b| {
    breaks(b, V5, &frame(0x82, &[0, 1]), MALFORMED);
    right_nibbles(b, V5);
});

rule!(mqtt311_3_3_1_4__qos_3_is_closed, |b| breaks(
    b,
    V4,
    &frame(0x36, b"\0\x01a\0\x01"),
    EITHER
));
rule!(mqtt5_3_3_1_4__qos_3_is_malformed, |b| {
    breaks(b, V5, &frame(0x36, b"\0\x01a\0\x01\0"), MALFORMED);
});
fn topic_field(b: &Broker, v: Version) {
    breaks(b, v, &frame(0x30, b"\0\x09a"), MALFORMED);
    publish_topic(b, v, b"\xFF", MALFORMED);
}
rule!(mqtt311_3_3_2_1__topic_comes_first, |b| topic_field(b, V4));
rule!(mqtt5_3_3_2_1__topic_comes_first, |b| topic_field(b, V5));
fn wildcard_topic(b: &Broker, v: Version) {
    for topic in [b"a/+".as_slice(), b"a/#", b"#", b"+"] {
        publish_topic(b, v, topic, &[0x90, 0x81, 0x82]);
    }
}
rule!(mqtt311_3_3_2_2__wildcards_in_topic_names, |b| {
    wildcard_topic(b, V4)
});
rule!(mqtt5_3_3_2_2__wildcards_in_topic_names, |b| wildcard_topic(
    b, V5
));
rule!(mqtt311_4_7_1_1__wildcards_are_for_filters, |b| {
    wildcard_topic(b, V4);
    let will = fields(&[b"id", b"a/#", b"x"]);
    refused(b, V4, &raw_connect("MQTT", 4, 6, &will), &[]);
});

rule!(mqtt311_3_8_3_1__filter_in_bad_utf8, |b| subscribe_filter(
    b, V4, b"\xFF", MALFORMED
));
rule!(mqtt5_3_8_3_1__filter_in_bad_utf8, |b| subscribe_filter(
    b, V5, b"\xFF", MALFORMED
));
rule!(mqtt311_3_8_3_3__subscribe_without_filter, |b| breaks(
    b,
    V4,
    &request(0x82, V4, 1, b""),
    EITHER
));
rule!(mqtt5_3_8_3_2__subscribe_without_filter, |b| breaks(
    b,
    V5,
    &request(0x82, V5, 1, b""),
    &[0x82]
));
rule!(mqtt311_3_8_3_4__reserved_bits_of_requested_qos, |b| {
    for options in [0x03, 0x04, 0x80] {
        breaks(b, V4, &request(0x82, V4, 1, &filter(b"a", options)), EITHER);
    }
});
rule!(mqtt5_3_8_3_5__reserved_subscription_options, |b| {
    for options in [0x40, 0x80] {
        breaks(
            b,
            V5,
            &request(0x82, V5, 1, &filter(b"a", options)),
            MALFORMED,
        );
    }
});
rule!(r_063__qos_3_and_retain_handling_3, |b| {
    for options in [0x03, 0x30] {
        breaks(b, V5, &request(0x82, V5, 1, &filter(b"a", options)), EITHER);
    }
});
rule!(mqtt5_3_8_3_4__no_local_on_a_shared_subscription, |b| {
    breaks(
        b,
        V5,
        &request(0x82, V5, 1, &filter(b"$share/g/a", 4)),
        &[0x82],
    );
});
fn unsubscribe_text(b: &Broker, v: Version) {
    breaks(b, v, &request(0xA2, v, 1, &fields(&[b"\xFF"])), MALFORMED);
    breaks(b, v, &request(0xA2, v, 1, b"\0\x09a"), MALFORMED);
}
rule!(mqtt311_3_10_3_1__unsubscribe_in_bad_utf8, |b| {
    unsubscribe_text(b, V4)
});
rule!(mqtt5_3_10_3_1__unsubscribe_in_bad_utf8, |b| {
    unsubscribe_text(b, V5)
});
rule!(mqtt311_3_10_3_2__unsubscribe_without_filter, |b| breaks(
    b,
    V4,
    &request(0xA2, V4, 1, b""),
    EITHER
));
rule!(mqtt5_3_10_3_2__unsubscribe_without_filter, |b| breaks(
    b,
    V5,
    &request(0xA2, V5, 1, b""),
    &[0x82]
));

fn disconnect_flags(b: &Broker, v: Version) {
    let topic = unique("will");
    let mut watcher = crate::checks::watch(b, V4, &topic, 0);
    let will = crate::support::Will::new(&topic, "gone");
    let mut client = Connect::new(v, &unique("c")).will(will).open(b);
    client.send(&[0xE1, 0]);
    client.expect_error(MALFORMED);
    watcher.expect(&topic, "gone");
}
rule!(mqtt311_3_14_1_1__disconnect_flags, |b| disconnect_flags(
    b, V4
));
rule!(mqtt5_3_14_1_1__disconnect_flags, |b| disconnect_flags(
    b, V5
));

/// Filters with misplaced wildcards are never granted: closed, or refused in the SUBACK.
fn never_granted(b: &Broker, v: Version, texts: &[&str]) {
    for text in texts {
        let mut client = open(b, v);
        client.send(&request(0x82, v, 1, &filter(text.as_bytes(), 0)));
        match client.next_packet() {
            None => assert_ne!(v, V5, "5.0 says why"),
            Some(Packet::Suback { codes, .. }) => {
                assert!(codes == [0x8F] || codes == [0x80], "{text}: {codes:02x?}");
            }
            Some(Packet::Disconnect { code, .. }) => {
                assert!([0x81, 0x82, 0x8F].contains(&code), "{text}: {code:#04x}");
                client.expect_closed();
            }
            Some(other) => panic!("{text}: {other:?}"),
        }
    }
    still_serves(b);
}
rule!(mqtt311_4_7_1_2__misplaced_multi_level_wildcard, |b| {
    never_granted(b, V4, &["a#", "a/#/b", "##", "a/b#"]);
});
rule!(mqtt5_4_7_1_1__misplaced_multi_level_wildcard, |b| {
    never_granted(b, V5, &["a#", "a/#/b", "##", "a/b#"]);
});
rule!(mqtt311_4_7_1_3__misplaced_single_level_wildcard, |b| {
    never_granted(b, V4, &["a+", "+a/b", "a/b+", "a/++/b"]);
    open(b, V4).subscribe("+/a/+", 0);
});
rule!(mqtt5_4_7_1_2__misplaced_single_level_wildcard, |b| {
    never_granted(b, V5, &["a+", "+a/b", "a/b+", "a/++/b"]);
    open(b, V5).subscribe("+/a/+", 0);
});
rule!(mqtt5_4_8_2_1__empty_share_name, |b| never_granted(
    b,
    V5,
    &["$share//a"]
));
rule!(mqtt5_4_8_2_2__share_name_or_filter_is_bad, |b| {
    never_granted(
        b,
        V5,
        &[
            "$share/g",
            "$share/g/",
            "$share/+/a",
            "$share/g#/a",
            "$share/g+/a",
        ],
    );
});
fn empty_topics(b: &Broker, v: Version) {
    publish_topic(b, v, b"", &[0x81, 0x82, 0x90]);
    never_granted(b, v, &[""]);
}
rule!(mqtt311_4_7_3_1__empty_topics, |b| empty_topics(b, V4));
rule!(mqtt5_4_7_3_1__empty_topics, |b| empty_topics(b, V5));

fn violation_closes_that_socket_only(b: &Broker, v: Version) {
    let mut other = open(b, v);
    breaks(b, v, &[0xC1, 0], MALFORMED);
    other.ping();
}
rule!(mqtt311_4_8_0_1__a_violation_costs_its_connection, |b| {
    violation_closes_that_socket_only(b, V4)
});
rule!(mqtt5_4_13_1_1__a_violation_costs_its_connection, |b| {
    violation_closes_that_socket_only(b, V5)
});
rule!(
    mqtt311_4_8_0_2__exceeding_a_limit_closes,
    "[limits]\nmax_packet_bytes = 4096\n",
    |b| {
        let mut other = open(b, V4);
        let mut client = open(b, V4);
        client.send_lossy(&Publish::new("a", 0, vec![b'x'; 8192]).encode(V4));
        client.expect_closed();
        other.ping();
    }
);
rule!(r_067__packets_no_client_sends, |b| {
    for v in [V4, V5] {
        for bytes in [
            [0x00, 0].as_slice(),
            &[0x20, 2, 0, 0],
            &[0x90, 3, 0, 1, 0],
            &[0xB0, 2, 0, 1],
            &[0xD0, 0],
        ] {
            breaks(b, v, bytes, EITHER);
        }
    }
    breaks(b, V4, &[0xF0, 0], EITHER);
});
rule!(r_068__five_bytes_of_remaining_length, |b| {
    for v in [V4, V5] {
        breaks(b, v, &[0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], MALFORMED);
    }
});
rule!(r_055__properties_belong_into_their_packet_once, |b| {
    let mut body = vec![0, 1];
    Props::new().four(0x02, 1).put(&mut body);
    body.extend(filter(b"a", 0));
    breaks(b, V5, &frame(0x82, &body), EITHER);
    let twice = Publish::new("a", 0, "x").props(Props::new().byte(1, 1).byte(1, 1));
    breaks(b, V5, &twice.encode(V5), &[0x82]);
});
rule!(r_062__subscription_identifier_is_1_to_268435455_once, |b| {
    for props in [
        Props::new().variable(0x0B, 0),
        Props::new().variable(0x0B, 1).variable(0x0B, 2),
    ] {
        let client = open(b, V5);
        breaks(
            b,
            V5,
            &client.subscribe_bytes(1, &props, &[("a", 0)]),
            &[0x82],
        );
    }
    let (mut client, topic) = (open(b, V5), unique("id"));
    crate::checks::subscribe_props(
        &mut client,
        &topic,
        0,
        Props::new().variable(0x0B, 268_435_455),
    );
    client.publish(&topic, 0, "x");
    assert_eq!(client.accept().props.subscription_ids(), [268_435_455]);
});
rule!(mqtt5_4_12_0_7__auth_without_a_method, |b| breaks(
    b,
    V5,
    &[0xF0, 0],
    &[0x82]
));
fn auth_codes(b: &Broker) {
    breaks(b, V5, &frame(0xF0, &[0x05]), EITHER);
}
rule!(mqtt5_3_15_2_1__auth_codes_are_of_its_table, auth_codes);

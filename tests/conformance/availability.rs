//! What a broker with features switched off announces, and what using them all the same costs.

use crate::V5;
use crate::checks::{open, request, still_serves};
use crate::rule;
use crate::support::{Broker, Client, Connect, Packet, Props, Publish, Will, prop, unique};

const QOS_1: &str = "[mqtt]\nqos_max = 1\n";
const QOS_0: &str = "[mqtt]\nqos_max = 0\n";
const NO_RETAIN: &str = "[mqtt]\nretain_available = false\n";
const NO_FEATURES: &str = "[mqtt]\nwildcard_subscriptions = false\nshared_subscriptions = false\n\
    subscription_identifiers = false\n";

fn announced(b: &Broker, property: u8) -> Option<u32> {
    open(b, V5).connack.number(property)
}

/// Publishes with `publish`, then expects DISCONNECT with `code`.
fn too_much(b: &Broker, publish: &Publish, code: u8) {
    let mut client = open(b, V5);
    client.send_publish(publish);
    client.expect_error(&[code]);
    still_serves(b);
}

rule!(mqtt5_3_2_2_9__maximum_qos_is_announced, QOS_1, |b| {
    assert_eq!(announced(b, prop::MAXIMUM_QOS), Some(1));
});
rule!(mqtt5_3_2_2_9__a_full_broker_announces_none, |b| {
    for property in [
        prop::MAXIMUM_QOS,
        prop::RETAIN_AVAILABLE,
        prop::WILDCARD_AVAILABLE,
    ] {
        assert!(
            announced(b, property).is_none_or(|value| value == 1 && property != prop::MAXIMUM_QOS)
        );
    }
});
rule!(mqtt5_3_2_2_10__subscribe_at_any_qos, QOS_0, |b| {
    let mut client = open(b, V5);
    let codes = client.subscribe_with(&Props::new(), &[(unique("q"), 2)]);
    assert!(codes[0] <= 2, "{codes:02x?}");
    client.ping();
});
rule!(mqtt5_3_2_2_11__publish_above_the_maximum_qos, QOS_0, |b| {
    assert_eq!(announced(b, prop::MAXIMUM_QOS), Some(0));
    too_much(b, &Publish::new("a", 1, "x"), 0x9B);
});
rule!(mqtt5_3_2_2_12__will_above_the_maximum_qos, QOS_0, |b| {
    Connect::v5("w")
        .will(Will::new("a", "x").qos(1))
        .expect_refused(b, &[0x9B]);
});
rule!(
    mqtt5_3_2_2_13__retained_will_without_retain,
    NO_RETAIN,
    |b| {
        Connect::v5("w")
            .will(Will::new("a", "x").retain())
            .expect_refused(b, &[0x9A]);
    }
);
rule!(mqtt5_3_2_2_14__retain_without_retain, NO_RETAIN, |b| {
    assert_eq!(announced(b, prop::RETAIN_AVAILABLE), Some(0));
    too_much(b, &Publish::new("a", 0, "x").retain(), 0x9A);
});

/// The feature's use is refused with its code, by DISCONNECT or in the SUBACK.
fn unavailable(b: &Broker, mut client: Client, bytes: &[u8], code: u8) {
    client.send(bytes);
    match client.recv() {
        Packet::Disconnect { code: got, .. } => {
            assert_eq!(got, code);
            client.expect_closed();
        }
        Packet::Suback { codes, .. } => assert_eq!(codes, [code]),
        other => panic!("expected {code:#04x}, got {other:?}"),
    }
    still_serves(b);
}
rule!(
    r_073__unavailable_features_have_their_codes,
    NO_FEATURES,
    |b| {
        for property in [
            prop::WILDCARD_AVAILABLE,
            prop::SUBSCRIPTION_IDS_AVAILABLE,
            prop::SHARED_AVAILABLE,
        ] {
            assert_eq!(announced(b, property), Some(0), "{property:#04x}");
        }
        let filter = |text: &str| request(0x82, V5, 1, &crate::checks::filter(text.as_bytes(), 0));
        unavailable(b, open(b, V5), &filter("a/#"), 0xA2);
        unavailable(b, open(b, V5), &filter("$share/g/a"), 0x9E);
        let client = open(b, V5);
        let bytes = client.subscribe_bytes(
            1,
            &Props::new().variable(prop::SUBSCRIPTION_ID, 1),
            &[("a", 0)],
        );
        unavailable(b, client, &bytes, 0xA1);
    }
);

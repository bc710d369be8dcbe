//! SUBSCRIBE, UNSUBSCRIBE and their answers, PING: sections 3.8 to 3.12.

use crate::checks::{absent, open, subscribe_props, watch};
use crate::rule;
use crate::support::{Ack, Broker, Connect, Packet, Props, Publish, Version, option, prop, unique};
use crate::{V4, V5};

fn answers_repeat_the_id(b: &Broker, v: Version) {
    let (mut client, topic) = (open(b, v), unique("id"));
    for id in [0xABCD, 1, 0xFFFF] {
        let bytes = client.subscribe_bytes(id, &Props::new(), &[(&topic, 1)]);
        client.send(&bytes);
        assert_eq!(client.wait_suback(id), [1]);
        let bytes = client.unsubscribe_bytes(id, &[&topic]);
        client.send(&bytes);
        match client.recv() {
            Packet::Unsuback { id: got, .. } => assert_eq!(got, id),
            other => panic!("expected UNSUBACK, got {other:?}"),
        }
    }
}
rule!(mqtt311_2_3_1_7__answers_repeat_the_id, |b| {
    answers_repeat_the_id(b, V4)
});
rule!(mqtt5_2_2_1_6__answers_repeat_the_id, |b| {
    answers_repeat_the_id(b, V5)
});
rule!(mqtt311_3_8_4_1__each_subscribe_gets_a_suback, |b| {
    answers_repeat_the_id(b, V4)
});
rule!(mqtt5_3_8_4_1__each_subscribe_gets_a_suback, |b| {
    answers_repeat_the_id(b, V5)
});
rule!(mqtt311_3_10_4_4__unsuback_repeats_the_id, |b| {
    answers_repeat_the_id(b, V4)
});
rule!(mqtt5_3_10_4_4__each_unsubscribe_gets_an_unsuback, |b| {
    answers_repeat_the_id(b, V5)
});

fn two_in_flight(b: &Broker, v: Version) {
    let (mut client, topic) = (open(b, v), unique("two"));
    let mut bytes = client.subscribe_bytes(3, &Props::new(), &[(format!("{topic}/1"), 0)]);
    bytes.extend(client.subscribe_bytes(4, &Props::new(), &[(format!("{topic}/2"), 1)]));
    client.send(&bytes);
    assert_eq!(client.wait_suback(3), [0]);
    assert_eq!(client.wait_suback(4), [1]);
}
rule!(mqtt311_3_8_4_2__suback_names_its_subscribe, |b| {
    two_in_flight(b, V4)
});
rule!(
    mqtt5_3_8_4_2__suback_names_its_subscribe,
    |b| two_in_flight(b, V5)
);

fn wildcards_work(b: &Broker) {
    let codes = open(b, V4).subscribe_with(&Props::new(), &[("a/#", 0), ("+/b", 1), ("#", 2)]);
    assert_eq!(codes, [0, 1, 2]);
}
rule!(mqtt311_3_8_3_2__wildcard_filters_are_granted, |b| {
    wildcards_work(b)
});

fn resubscribing_replaces(b: &Broker, v: Version) {
    let topic = unique("replace");
    let mut publisher = open(b, v);
    publisher.retain(&topic, 1, "kept");
    let mut client = open(b, v);
    for qos in [0, 1] {
        client.subscribe(&topic, qos);
        let got = client.expect(&topic, "kept");
        assert_eq!((got.qos, got.retain), (qos, true));
    }
    publisher.publish(&topic, 1, "x");
    assert_eq!(client.expect(&topic, "x").qos, 1);
    client.expect_nothing();
}
rule!(mqtt311_3_8_4_3__the_same_filter_replaces, |b| {
    resubscribing_replaces(b, V4)
});
rule!(mqtt5_3_8_4_3__the_same_filter_replaces, |b| {
    resubscribing_replaces(b, V5);
    let topic = unique("ids");
    let mut client = open(b, V5);
    for (qos, id) in [(0, 1), (1, 2)] {
        let props = Props::new().variable(prop::SUBSCRIPTION_ID, id);
        subscribe_props(&mut client, &topic, qos, props);
    }
    open(b, V5).publish(&topic, 1, "x");
    let got = client.expect(&topic, "x");
    assert_eq!((got.qos, got.props.subscription_ids()), (1, vec![2]));
    client.expect_nothing();
});
rule!(mqtt5_3_8_4_4__replacing_loses_nothing, |b| {
    let topic = unique("gapless");
    let mut publisher = open(b, V5);
    publisher.retain(&topic, 1, "kept");
    let mut client = watch(b, V5, &topic, 1);
    client.expect(&topic, "kept");
    let mut ids = Vec::new();
    for n in 0..100 {
        ids.push(publisher.send_publish(&Publish::new(&topic, 1, n.to_string())));
        if n % 10 == 0 {
            let id = client.fresh_id();
            let bytes = client.subscribe_bytes(id, &Props::new(), &[(&topic, 1)]);
            client.send(&bytes);
        }
    }
    let (mut next, mut kept) = (0, 0);
    while next < 100 || kept < 10 {
        match client.recv() {
            Packet::Publish(got) => {
                client.ack(Ack::Puback, got.id);
                if got.retain {
                    kept += 1;
                } else {
                    assert_eq!(got.payload_str(), next.to_string());
                    next += 1;
                }
            }
            Packet::Suback { codes, .. } => assert_eq!(codes, [1]),
            other => panic!("{other:?}"),
        }
    }
    for id in ids {
        publisher.wait_ack(Ack::Puback, id);
    }
});

fn several_filters(b: &Broker, v: Version) {
    let (mut client, stem) = (open(b, v), unique("several"));
    let filters = [("a", 2), ("b", 0), ("c", 1)].map(|(leaf, qos)| (format!("{stem}/{leaf}"), qos));
    assert_eq!(client.subscribe_with(&Props::new(), &filters), [2, 0, 1]);
    let mut publisher = open(b, v);
    for (topic, qos) in &filters {
        publisher.publish(topic, 2, "x");
        assert_eq!(client.expect(topic, "x").qos, *qos);
    }
}
rule!(mqtt311_3_8_4_4__several_filters_in_turn, |b| {
    several_filters(b, V4)
});
rule!(mqtt5_3_8_4_5__several_filters_in_turn, |b| several_filters(
    b, V5
));
rule!(mqtt311_3_8_4_5__one_code_per_filter, |b| several_filters(
    b, V4
));
rule!(mqtt311_3_9_3_1__codes_in_order, |b| several_filters(b, V4));
rule!(mqtt5_3_9_3_1__codes_in_order, |b| several_filters(b, V5));
rule!(mqtt5_3_8_4_6__one_code_per_filter_doubles_included, |b| {
    let (mut client, topic) = (open(b, V5), unique("double"));
    let filters = [(&topic, 0), (&topic, 1), (&topic, 2)];
    assert_eq!(client.subscribe_with(&Props::new(), &filters), [0, 1, 2]);
});

const TWO_SUBSCRIPTIONS: &str = "[limits]\nsubscriptions_per_session_max = 2\n";

/// The third filter is over the limit: a failure code of the version's own, the others deliver.
fn a_failed_filter(b: &Broker, v: Version, failures: &[u8]) {
    let (mut client, stem) = (open(b, v), unique("failed"));
    let filters = ["a", "b", "c"].map(|leaf| (format!("{stem}/{leaf}"), 1));
    let codes = client.subscribe_with(&Props::new(), &filters);
    assert_eq!(codes[..2], [1, 1]);
    assert!(failures.contains(&codes[2]), "{codes:02x?}");
    let mut publisher = open(b, v);
    for (topic, _) in &filters {
        publisher.publish(topic, 1, "x");
    }
    client.expect(&filters[0].0, "x");
    client.expect(&filters[1].0, "x");
    client.ping();
}
rule!(
    mqtt311_3_9_3_2__codes_are_0_1_2_and_0x80,
    TWO_SUBSCRIPTIONS,
    |b| a_failed_filter(b, V4, &[0x80])
);
rule!(
    mqtt5_3_9_3_2__codes_are_of_subacks_table,
    TWO_SUBSCRIPTIONS,
    |b| a_failed_filter(b, V5, &[0x97, 0x80])
);
rule!(
    mqtt5_3_8_4_7__a_code_tells_grant_or_failure,
    TWO_SUBSCRIPTIONS,
    |b| a_failed_filter(b, V5, &[0x97, 0x80])
);

fn smaller_qos(b: &Broker, v: Version) {
    let topic = unique("min");
    let mut client = watch(b, v, &topic, 1);
    let mut publisher = open(b, v);
    for qos in 0..=2 {
        publisher.publish(&topic, qos, "x");
        assert_eq!(client.expect(&topic, "x").qos, qos.min(1));
    }
}
rule!(mqtt311_3_8_4_6__the_smaller_qos, |b| smaller_qos(b, V4));
rule!(mqtt5_3_8_4_8__the_smaller_qos, |b| smaller_qos(b, V5));

fn best_granted_qos(b: &Broker, v: Version) {
    let stem = unique("best");
    let topic = format!("{stem}/b");
    let mut client = watch(b, v, &format!("{stem}/#"), 0);
    client.subscribe(&topic, 2);
    open(b, v).publish(&topic, 2, "x");
    // One joint copy or two; one of them at QoS 2.
    let best = client.drain().iter().map(|p| p.qos).max();
    assert_eq!(best, Some(2));
}
rule!(mqtt311_3_3_5_1__the_best_granted_qos, |b| best_granted_qos(
    b, V4
));
rule!(mqtt5_3_3_4_2__the_best_granted_qos, |b| best_granted_qos(
    b, V5
));

/// What comes for two overlapping subscriptions with these identifiers: all identifiers, and by copy.
fn overlapping(b: &Broker, ids: [u32; 2]) -> (Vec<u32>, Vec<Vec<u32>>) {
    let stem = unique("overlap");
    let topic = format!("{stem}/b");
    let mut client = open(b, V5);
    for (filter, id) in [format!("{stem}/#"), topic.clone()].iter().zip(ids) {
        subscribe_props(
            &mut client,
            filter,
            1,
            Props::new().variable(prop::SUBSCRIPTION_ID, id),
        );
    }
    open(b, V5).publish(&topic, 1, "x");
    let copies: Vec<Vec<u32>> = client
        .drain()
        .iter()
        .map(|p| p.props.subscription_ids())
        .collect();
    let mut all = copies.concat();
    all.sort_unstable();
    (all, copies)
}
rule!(mqtt5_3_3_4_3__identifiers_of_all_matches, |b| assert_eq!(
    overlapping(b, [1, 2]).0,
    [1, 2]
));
rule!(mqtt5_3_3_4_4__a_joint_copy_lists_all, |b| {
    let (all, copies) = overlapping(b, [1, 2]);
    assert!(copies.len() != 1 || copies[0] == all, "{copies:?}");
    assert_eq!(all, [1, 2]);
});
rule!(mqtt5_3_3_4_5__separate_copies_carry_their_own, |b| {
    let (all, copies) = overlapping(b, [1, 2]);
    assert!(
        copies.len() != 2 || copies.iter().all(|ids| ids.len() == 1),
        "{copies:?}"
    );
    assert_eq!(all, [1, 2]);
});
rule!(r_061__the_same_identifier_twice, |b| assert_eq!(
    overlapping(b, [5, 5]).0,
    [5, 5]
));

fn exact_text_only(b: &Broker, v: Version) {
    let stem = unique("exact");
    let topic = format!("{stem}/b");
    let mut client = watch(b, v, &format!("{stem}/+"), 0);
    client.subscribe(&topic, 0);
    client.unsubscribe(&[&topic]);
    open(b, v).publish(&topic, 0, "x");
    client.expect(&topic, "x");
    client.expect_nothing();
}
rule!(mqtt311_3_10_4_1__only_the_identical_filter, |b| {
    exact_text_only(b, V4)
});
rule!(mqtt5_3_10_4_1__only_the_identical_filter, |b| {
    exact_text_only(b, V5)
});

fn nothing_after_unsuback(b: &Broker, v: Version) {
    let stem = unique("off");
    let topics = [format!("{stem}/1"), format!("{stem}/2")];
    let mut client = open(b, v);
    for topic in &topics {
        client.subscribe(topic, 1);
    }
    let codes = client.unsubscribe(&[&topics[0], &topics[1]]);
    assert!(v == V4 || codes == [0, 0]);
    let mut publisher = open(b, v);
    for topic in &topics {
        publisher.publish(topic, 1, "x");
    }
    client.expect_nothing();
}
rule!(mqtt311_3_10_4_2__nothing_after_unsuback, |b| {
    nothing_after_unsuback(b, V4)
});
rule!(mqtt5_3_10_4_2__nothing_after_unsuback, |b| {
    nothing_after_unsuback(b, V5)
});
rule!(mqtt311_3_10_4_6__several_filters_one_by_one, |b| {
    nothing_after_unsuback(b, V4)
});

fn begun_deliveries_end(b: &Broker, v: Version) {
    let topic = unique("begun");
    let mut client = watch(b, v, &topic, 2);
    open(b, v).publish(&topic, 2, "x");
    let id = client.recv_publish().id;
    client.unsubscribe(&[&topic]);
    client.ack(Ack::Pubrec, id);
    client.wait_ack(Ack::Pubrel, id);
    client.ack(Ack::Pubcomp, id);
    client.ping();
}
rule!(mqtt311_3_10_4_3__begun_deliveries_end, |b| {
    begun_deliveries_end(b, V4)
});
rule!(mqtt5_3_10_4_3__begun_deliveries_end, |b| {
    begun_deliveries_end(b, V5)
});

rule!(mqtt311_3_10_4_5__answered_when_nothing_was_removed, |b| {
    open(b, V4).unsubscribe(&["never/subscribed"]);
});
fn unsuback_codes(b: &Broker) {
    let (mut client, topic) = (open(b, V5), unique("known"));
    client.subscribe(&topic, 0);
    assert_eq!(
        client.unsubscribe(&["un/1", &topic, "un/2"]),
        [0x11, 0, 0x11]
    );
}
rule!(mqtt5_3_10_4_5__no_subscription_existed, unsuback_codes);
rule!(mqtt5_3_10_4_6__several_filters_one_by_one, |b| {
    unsuback_codes(b)
});
rule!(mqtt5_3_11_3_1__codes_in_order, unsuback_codes);
rule!(mqtt5_3_11_3_2__codes_are_of_unsubacks_table, |b| {
    unsuback_codes(b)
});

fn ping(b: &Broker, v: Version) {
    let mut client = open(b, v);
    client.send(&[0xC0, 0, 0xC0, 0]);
    assert_eq!(client.recv(), Packet::Pingresp);
    assert_eq!(client.recv(), Packet::Pingresp);
}
rule!(mqtt311_3_12_4_1__each_pingreq_gets_a_pingresp, |b| ping(
    b, V4
));
rule!(mqtt5_3_12_4_1__each_pingreq_gets_a_pingresp, |b| ping(
    b, V5
));

rule!(mqtt5_3_8_3_3__no_local, |b| {
    let (mut client, topic) = (open(b, V5), unique("local"));
    client.subscribe(&topic, 1 | option::NO_LOCAL);
    client.publish(&topic, 1, "own");
    client.expect_nothing();
    open(b, V5).publish(&topic, 1, "other");
    client.expect(&topic, "other");
});
rule!(mqtt5_3_8_3_3__own_retained_messages_that_are_newer, |b| {
    for _ in 0..10 {
        let topic = unique("own");
        let mut client = open(b, V5);
        client.retain(&topic, 1, "old");
        let id = client.fresh_id();
        let none = Props::new();
        let new = format!("{topic}/new");
        let mut both =
            client.subscribe_bytes(id, &none, &[(format!("{topic}/#"), option::NO_LOCAL)]);
        both.extend(Publish::new(&new, 0, "new").retain().encode(V5));
        client.send(&both);
        client.wait_suback(id);
        client.expect(&topic, "old");
        client.expect_nothing();
    }
});
rule!(r_065__no_local_goes_by_client_id, |b| {
    let stem = unique("nl");
    let topic = format!("{stem}/b");
    let connect = Connect::v5(&unique("c")).persistent();
    let mut client = connect.open(b);
    client.subscribe(&format!("{stem}/#"), 1 | option::NO_LOCAL);
    client.subscribe(&topic, 1);
    client.publish(&topic, 1, "own");
    client.expect(&topic, "own");
    client.expect_nothing();
    client.unsubscribe(&[&topic]);
    client.cut();
    let mut client = connect.open(b);
    client.publish(&topic, 1, "own");
    client.expect_nothing();
});
rule!(r_066__matching_messages_may_come_before_suback, |b| {
    let topic = unique("early");
    open(b, V4).retain(&topic, 1, "x");
    let mut client = watch(b, V4, &topic, 1);
    client.expect(&topic, "x");
});

/// All answers to a client with this maximum packet size stay within it.
fn within(b: &Broker, limit: u32) {
    let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, limit);
    let mut client = Connect::v5(&unique("c")).props(props).open(b);
    let topic = unique("small");
    client.subscribe_with(&Props::new(), &[("$share/g/x", 1)]);
    client.unsubscribe(&["un/known"]);
    for qos in 1..=2 {
        let id = client.send_publish(&Publish::new("$SYS/x", qos, "x"));
        match qos {
            1 => drop(client.wait_ack(Ack::Puback, id)),
            _ => drop(client.wait_ack(Ack::Pubrec, id)),
        }
    }
    client.ack(Ack::Pubrel, 999);
    client.wait_ack(Ack::Pubcomp, 999);
    client.subscribe("q", 2);
    open(b, V5).publish(&topic, 2, "x");
    client.ping();
    assert!(client.largest_packet_bytes <= limit as usize);
}
const SMALL: u32 = 24;
rule!(mqtt5_3_4_2_2__puback_drops_its_reason_string, |b| within(
    b, SMALL
));
rule!(mqtt5_3_4_2_3__puback_drops_its_user_properties, |b| within(
    b, SMALL
));
rule!(mqtt5_3_5_2_2__pubrec_drops_its_reason_string, |b| within(
    b, SMALL
));
rule!(mqtt5_3_5_2_3__pubrec_drops_its_user_properties, |b| within(
    b, SMALL
));
rule!(mqtt5_3_7_2_2__pubcomp_drops_its_reason_string, |b| within(
    b, SMALL
));
rule!(
    mqtt5_3_7_2_3__pubcomp_drops_its_user_properties,
    |b| within(b, SMALL)
);
rule!(mqtt5_3_9_2_1__suback_drops_its_reason_string, |b| within(
    b, SMALL
));
rule!(mqtt5_3_9_2_2__suback_drops_its_user_properties, |b| within(
    b, SMALL
));
rule!(
    mqtt5_3_11_2_1__unsuback_drops_its_reason_string,
    |b| within(b, SMALL)
);
rule!(mqtt5_3_11_2_2__unsuback_drops_its_user_properties, |b| {
    within(b, SMALL)
});
fn small_pubrel(b: &Broker) {
    let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, SMALL);
    let mut client = Connect::v5(&unique("c")).props(props).open(b);
    client.subscribe("small/+", 2);
    open(b, V5).publish("small/r", 2, "x");
    client.expect("small/r", "x");
    assert!(client.largest_packet_bytes <= SMALL as usize);
}
rule!(mqtt5_3_6_2_2__pubrel_drops_its_reason_string, |b| {
    small_pubrel(b)
});
rule!(mqtt5_3_6_2_3__pubrel_drops_its_user_properties, |b| {
    small_pubrel(b)
});
rule!(mqtt5_3_1_2_29__no_problem_information_when_asked, |b| {
    let props = Props::new().byte(prop::REQUEST_PROBLEM_INFO, 0);
    let mut client = Connect::v5(&unique("c")).props(props).open(b);
    let id = client.send_publish(&Publish::new("$SYS/x", 1, "x"));
    let sub = client.subscribe_bytes(7, &Props::new(), &[("a#", 0)]);
    client.wait_for("PUBACK", |p| match p {
        Packet::Ack { id: i, props, .. } if *i == id => {
            assert_eq!(*props, Props::new());
            Some(())
        }
        _ => None,
    });
    client.send(&sub);
    if let Packet::Suback { props, .. } = client.recv() {
        assert_eq!(props, Props::new());
    }
});
rule!(
    mqtt311_3_3_5_2__a_forbidden_publish_is_never_delivered,
    |b| {
        let (mut watcher, topic) = (open(b, V4), unique("$SYS/denied"));
        watcher.subscribe("$SYS/#", 1);
        let mut client = open(b, V4);
        client.send_publish(&Publish::new(&topic, 1, "x"));
        match client.next_packet() {
            None
            | Some(Packet::Ack {
                kind: Ack::Puback, ..
            }) => {}
            other => panic!("expected PUBACK or the close, got {other:?}"),
        }
        assert!(watcher.drain().iter().all(|p| p.topic_str() != topic));
    }
);
rule!(r_072__messages_cross_versions, |b| {
    let topic = unique("cross");
    let back = absent(b, V4, &topic, 2);
    let mut old = watch(b, V4, &topic, 2);
    let mut new = watch(b, V5, &topic, 2);
    let props = Props::new()
        .user("k", "v")
        .text(prop::CONTENT_TYPE, "text/plain");
    open(b, V5).publish_packet(&Publish::new(&topic, 2, "five").props(props).retain());
    open(b, V4).publish(&topic, 1, "four");
    for client in [&mut old, &mut new, &mut back.open(b)] {
        // Of two publishers: one may overtake the other [MQTT-4.6.0-6].
        let mut got = [client.accept(), client.accept()];
        got.sort_by_key(|got| got.qos);
        let [four, five] = got;
        assert_eq!((&*four.payload, four.qos), (&b"four"[..], 1));
        assert_eq!(four.props, Props::new());
        assert_eq!((&*five.payload, five.qos), (&b"five"[..], 2));
        assert_eq!(
            (&*five.topic, &*four.topic),
            (topic.as_bytes(), topic.as_bytes())
        );
    }
});

//! Shared subscriptions: section 4.8.2.

use crate::V5;
use crate::checks::{open, subscribe_props, watch};
use crate::rule;
use crate::support::{Ack, Broker, Client, Connect, Props, Publish, Version, prop, unique};

fn group(topic: &str) -> String {
    format!("$share/g/{topic}")
}

fn member(b: &Broker, topic: &str, qos: u8) -> Client {
    watch(b, Version::V5, &group(topic), qos)
}

rule!(r_011__queue_is_a_share_group, |b| {
    let topic = unique("queue");
    let filter = format!("$queue/{topic}/#");
    let mut members = [V5, Version::V4].map(|v| watch(b, v, &filter, 1));
    let mut publisher = open(b, V5);
    for n in 0..10 {
        publisher.publish(&format!("{topic}/x"), 1, n.to_string());
    }
    let got = members.each_mut().map(|client| client.drain().len());
    assert_eq!(got.iter().sum::<usize>(), 10, "{got:?}");
    // It is the same group by its other name.
    let same = format!("$share/$queue/{topic}/#");
    assert_eq!(members[0].unsubscribe(&[&same, &filter]), [0, 0x11]);
    for broken in ["$queue", "$queue/"] {
        open(b, V5).subscribe_refused(broken, 0x8F);
    }
});
rule!(mqtt5_4_8_2_3__a_member_gets_its_own_qos, |b| {
    let topic = unique("qos");
    let mut members = [member(b, &topic, 0), member(b, &topic, 2)];
    let mut publisher = open(b, V5);
    for _ in 0..20 {
        publisher.publish(&topic, 2, "x");
    }
    let got = members.each_mut().map(|client| client.drain());
    assert!(got[0].iter().all(|p| p.qos == 0) && got[1].iter().all(|p| p.qos == 2));
    assert_eq!(got[0].len() + got[1].len(), 20);
});

/// Members of a group on `topic`, first the one that got the QoS `qos` message, with the rest behind.
fn chosen(b: &Broker, topic: &str, qos: u8, expiry: u32) -> (Client, Connect, Client, Publish) {
    let connects = [(); 2].map(|()| Connect::v5(&unique("m")).resume().expiry(expiry));
    let mut clients = connects.each_ref().map(|connect| {
        let mut client = connect.open(b);
        client.subscribe(&group(topic), qos);
        client
    });
    open(b, V5).publish(topic, qos, "x");
    let mut got = clients.each_mut().map(|client| client.drain());
    let first = usize::from(got[0].is_empty());
    assert_eq!((got[first].len(), got[1 - first].len()), (1, 0));
    let publish = got[first].remove(0);
    let [a, c] = clients;
    let (winner, other) = if first == 0 { (a, c) } else { (c, a) };
    (winner, connects[first].clone(), other, publish)
}
rule!(mqtt5_4_8_2_4__a_begun_qos_2_delivery_stays, |b| {
    let topic = unique("begun");
    let (winner, connect, mut other, publish) = chosen(b, &topic, 2, 60);
    winner.cut();
    other.expect_nothing();
    let mut winner = connect.open(b);
    let again = winner.accept();
    assert_eq!((again.id, again.dup), (publish.id, true));
    other.expect_nothing();
});
rule!(
    mqtt5_4_8_2_5__a_begun_qos_2_delivery_dies_with_its_session,
    |b| {
        let topic = unique("lost");
        let (winner, _, mut other, _) = chosen(b, &topic, 2, 60);
        winner.disconnect_with(0, &Props::new().four(prop::SESSION_EXPIRY, 0));
        other.expect_nothing();
    }
);
rule!(mqtt5_4_8_2_6__a_refusal_discards, |b| {
    for (qos, kind) in [(1, Ack::Puback), (2, Ack::Pubrec)] {
        let topic = unique("refused");
        let (mut winner, connect, mut other, publish) = chosen(b, &topic, qos, 60);
        winner.ack_with(kind, publish.id, 0x80);
        winner.expect_nothing();
        winner.cut();
        other.expect_nothing();
        connect.open(b).expect_nothing();
    }
});
rule!(r_018__an_unacknowledged_qos_1_goes_to_another, |b| {
    let topic = unique("handed");
    let (winner, _, mut other, _) = chosen(b, &topic, 1, 60);
    winner.disconnect_with(0, &Props::new().four(prop::SESSION_EXPIRY, 0));
    other.expect(&topic, "x");
});
rule!(r_011__the_rest_is_an_ordinary_filter, |b| {
    let name = unique("finance");
    let mut client = watch(b, V5, &format!("$share/consumer1//{name}"), 1);
    let mut publisher = open(b, V5);
    publisher.publish(&name, 1, "no");
    publisher.publish(&format!("/{name}"), 1, "yes");
    client.expect(&format!("/{name}"), "yes");
    client.expect_nothing();
});
rule!(r_012__one_copy_per_group, |b| {
    let stem = unique("groups");
    let mut clients: Vec<Client> = ["$share/g1/", "$share/g1/", "$share/g2/", "$share/g2/", ""]
        .iter()
        .map(|prefix| watch(b, V5, &format!("{prefix}{stem}/+"), 1))
        .collect();
    open(b, V5).publish(&format!("{stem}/b"), 1, "x");
    let got: Vec<usize> = clients
        .iter_mut()
        .map(|client| client.drain().len())
        .collect();
    assert_eq!((got[0] + got[1], got[2] + got[3], got[4]), (1, 1, 1));
});
rule!(r_013__dollar_rules_hold_behind_the_share_name, |b| {
    let name = unique("g");
    let mut client = watch(b, V5, &format!("$share/{name}/#"), 1);
    let mut publisher = open(b, V5);
    let topic = unique("normal");
    publisher.send_publish(&Publish::new("$SYS/x", 0, "no"));
    publisher.ping();
    publisher.publish(&topic, 1, "yes");
    let got = client.drain();
    assert!(got.iter().all(|p| p.topic[0] != b'$') && got.iter().any(|p| p.topic_str() == topic));
});
rule!(r_014__joining_brings_no_retained, |b| {
    let topic = unique("kept");
    let mut publisher = open(b, V5);
    publisher.retain(&topic, 1, "x");
    let mut client = member(b, &topic, 1);
    client.expect_nothing();
    publisher.publish(&topic, 1, "live");
    client.expect(&topic, "live");
});
rule!(r_015__subscribing_twice_is_one_membership, |b| {
    let topic = unique("twice");
    let mut client = member(b, &topic, 0);
    client.subscribe(&group(&topic), 1);
    let mut publisher = open(b, V5);
    publisher.publish(&topic, 1, "x");
    assert_eq!(client.expect(&topic, "x").qos, 1);
    assert_eq!(client.unsubscribe(&[&group(&topic)]), [0]);
    publisher.publish(&topic, 1, "y");
    client.expect_nothing();
});
rule!(r_016__only_the_full_text_leaves, |b| {
    let topic = unique("full");
    let mut client = member(b, &topic, 1);
    assert_eq!(client.unsubscribe(&[&topic]), [0x11]);
    open(b, V5).publish(&topic, 1, "x");
    client.expect(&topic, "x");
});
rule!(r_017__plain_and_shared_are_two, |b| {
    let topic = unique("plain");
    let mut client = member(b, &topic, 1);
    client.subscribe(&topic, 1);
    open(b, V5).publish(&topic, 1, "x");
    client.expect(&topic, "x");
    client.expect(&topic, "x");
    client.expect_nothing();
});
rule!(r_019__a_group_lives_with_its_last_session, |b| {
    let topic = unique("last");
    let connect = Connect::v5(&unique("m")).persistent();
    let mut client = connect.open(b);
    client.subscribe(&group(&topic), 1);
    client.cut();
    let mut publisher = open(b, V5);
    publisher.publish(&topic, 1, "waits");
    let mut client = connect.open(b);
    client.expect(&topic, "waits");
    client.ping();
    client.disconnect_with(0, &Props::new().four(prop::SESSION_EXPIRY, 0));
    publisher.publish(&topic, 1, "nobody");
    member(b, &topic, 1).expect_nothing();
});
rule!(r_020__only_the_members_own_identifier, |b| {
    let topic = unique("id");
    let mut members = [1, 2].map(|id| {
        let mut client = open(b, V5);
        let props = Props::new().variable(prop::SUBSCRIPTION_ID, id);
        subscribe_props(&mut client, &group(&topic), 0, props);
        client
    });
    let mut publisher = open(b, V5);
    for _ in 0..10 {
        publisher.publish(&topic, 0, "x");
    }
    let mut count = 0;
    for (client, id) in members.iter_mut().zip([1, 2]) {
        let got = client.drain();
        count += got.len();
        assert!(got.iter().all(|p| p.props.subscription_ids() == [id]));
    }
    assert_eq!(count, 10);
});

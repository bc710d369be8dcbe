//! What the broker publishes under `$SYS`.

use crate::storage::Place;
use crate::support::{Broker, Client, Connect, Packet, Publish, Setup, Version, eventually};
use std::collections::BTreeMap;

const EACH_SECOND: &str = "[mqtt]\nsys_interval_s = 1\n";

fn text(publish: &Publish) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&publish.topic), text(&publish.payload))
}

/// The next value of a topic that is as wanted.
fn await_value(client: &mut Client, topic: &str, wanted: impl Fn(&str) -> bool) -> Publish {
    loop {
        let publish = client.recv_publish();
        let (known, value) = text(&publish);
        if known == format!("$SYS/broker/{topic}") && wanted(&value) {
            return publish;
        }
    }
}

crate::on_shards! { [1, 4]
    values_are_retained_and_told_anew_when_they_change,
}

fn values_are_retained_and_told_anew_when_they_change(shards: usize) {
    let broker = Broker::with_config(shards, EACH_SECOND);
    eventually("they are published", || {
        (broker.counters().get("connections_accepted") == 0).then_some(())
    });
    let mut watcher = Connect::v5("watcher").open(&broker);
    watcher.subscribe("$SYS/broker/#", 0);
    let version = await_value(&mut watcher, "version", |_| true);
    assert_eq!(version.qos, 0);
    await_value(&mut watcher, "clients/connected", |value| value == "1");
    let mut late = Connect::v5("late").open(&broker);
    await_value(&mut watcher, "clients/connected", |value| value == "2");
    await_value(&mut watcher, "uptime", |value| value.ends_with(" seconds"));
    late.subscribe("$SYS/broker/version", 0);
    let version = late.recv_publish();
    assert!(version.retain && text(&version).1.starts_with("ringmq version "));
    late.subscribe("$SYS/broker/load/connections/+", 0);
    let average = late.recv_publish();
    let (topic, value) = text(&average);
    assert!(
        topic.starts_with("$SYS/broker/load/connections/"),
        "{topic}"
    );
    assert!(
        value
            .split_once('.')
            .is_some_and(|(_, cents)| cents.len() == 2),
        "{value}"
    );
    broker.stop();
}

#[test]
fn they_are_the_brokers_own_and_no_clients() {
    let place = Place::new();
    let config = format!("{EACH_SECOND}[limits]\nretained_messages_max = 1\n");
    let broker = place.setup(2).config(&config).start();
    let mut client = Connect::v5("c").open(&broker);
    client.subscribe("$SYS/#", 0);
    await_value(&mut client, "uptime", |_| true);
    // They take no place of clients', and wildcards do not see them.
    client.retain("kept", 1, "x");
    let counters = broker.counters();
    assert_eq!(counters.get("retained_messages"), 1);
    assert_eq!(counters.get("dropped_retained_full"), 0);
    let mut other = Connect::v5("o").open(&broker);
    other.subscribe("#", 0);
    other.expect("kept", "x");
    other.expect_nothing();
    // Nobody says them but the broker.
    client.send(&Publish::new("$SYS/broker/version", 0, "mine").encode(Version::V5));
    client.ping();
    broker.await_counter("dropped_dollar_topic", 1);
    broker.stop();
    // Nothing of them is kept on disk.
    let again = place.setup(2).start();
    let mut client = Connect::v5("c").open(&again);
    client.subscribe("$SYS/#", 0);
    client.expect_nothing();
    client.subscribe("kept", 0);
    client.expect("kept", "x");
    again.stop();
}

#[test]
fn rules_say_who_reads_them() {
    let rules = format!(
        "{}/{}",
        env!("CARGO_TARGET_TMPDIR"),
        crate::support::unique("rules")
    );
    std::fs::write(&rules, "topic read $SYS/broker/version\n").expect("write");
    let broker = Broker::with_config(1, &format!("acl_file = {rules:?}\n{EACH_SECOND}"));
    let mut client = Connect::v5("c").open(&broker);
    client.subscribe("$SYS/#", 0);
    let (topic, _) = text(&client.recv_publish());
    assert_eq!(topic, "$SYS/broker/version");
    eventually("others are withheld", || {
        (broker.counters().get("dropped_not_authorized") > 0).then_some(())
    });
    client.send(&[0xC0, 0]);
    assert_eq!(client.recv(), Packet::Pingresp);
    broker.stop();
}

#[test]
fn the_averages_and_counts_are_those_of_clients() {
    let broker = Broker::with_config(2, EACH_SECOND);
    let mut watcher = Connect::v5("watcher").open(&broker);
    watcher.subscribe("$SYS/broker/#", 0);
    let mut client = Connect::v5("c").open(&broker);
    client.subscribe("a", 1);
    for _ in 0..3 {
        client.publish("a", 1, "1234");
        client.accept();
    }
    let mut missing = BTreeMap::from([
        ("publish/messages/received", "3"),
        ("publish/bytes/received", "12"),
        ("subscriptions/count", "2"),
        ("ringmq/shards", "2"),
        ("ringmq/messages_received", "3"),
        ("clients/maximum", "2"),
    ]);
    while !missing.is_empty() {
        let (topic, value) = text(&watcher.recv_publish());
        let topic = topic.strip_prefix("$SYS/broker/").expect("its beginning");
        if missing.get(topic) == Some(&&*value) {
            missing.remove(topic);
        }
    }
    broker.stop();
}

#[test]
fn they_can_be_switched_off() {
    let broker = Setup::new()
        .shards(1)
        .config("[mqtt]\nsys_interval_s = 0\n")
        .start();
    let mut client = Connect::v5("c").open(&broker);
    client.subscribe("$SYS/#", 0);
    client.expect_nothing();
    broker.stop();
}

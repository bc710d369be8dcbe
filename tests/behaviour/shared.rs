//! How each strategy spreads the messages of a shared subscription over its members.

use crate::on_shards;
use crate::support::{Ack, Broker, Client, Connect, Publish, shared, unique};
use std::collections::BTreeSet;

fn strategy(shards: usize, name: &str) -> std::sync::Arc<Broker> {
    shared(shards, &format!("[mqtt]\nshared_strategy = \"{name}\"\n"))
}

fn members(broker: &Broker, filter: &str, count: usize) -> Vec<Client> {
    let filter = format!("$share/{}/{filter}", unique("g"));
    (0..count)
        .map(|_| {
            let mut client = Connect::v5(&unique("m")).open(broker);
            client.subscribe(&filter, 1);
            client
        })
        .collect()
}

/// Takes what each member got, acknowledged.
fn taken(members: &mut [Client]) -> Vec<Vec<Publish>> {
    members
        .iter_mut()
        .map(|client| {
            let got = client.drain();
            for publish in &got {
                client.complete(publish);
            }
            got
        })
        .collect()
}

fn round_robin_serves_all_members_alike(shards: usize) {
    let broker = strategy(shards, "round_robin");
    let topic = unique("rr");
    let mut members = members(&broker, &topic, 8);
    let mut publisher = Connect::v5(&unique("p")).open(&broker);
    for n in 0..80 {
        publisher.publish(&topic, 1, n.to_string());
    }
    let counts: Vec<usize> = taken(&mut members).iter().map(Vec::len).collect();
    assert_eq!(counts, [10; 8]);
}

fn sticky_keeps_to_one_member_until_it_leaves(shards: usize) {
    let broker = strategy(shards, "sticky");
    let topic = unique("sticky");
    let mut members = members(&broker, &topic, 4);
    let mut publisher = Connect::v5(&unique("p")).open(&broker);
    for left in (1..=4).rev() {
        for _ in 0..10 {
            publisher.publish(&topic, 1, "x");
        }
        let counts: Vec<usize> = taken(&mut members).iter().map(Vec::len).collect();
        let chosen = counts.iter().position(|count| *count == 10);
        let chosen = chosen.unwrap_or_else(|| panic!("{left} members left, spread as {counts:?}"));
        members.remove(chosen).disconnect();
    }
}

fn least_inflight_passes_a_slow_member_by(shards: usize) {
    let broker = strategy(shards, "least_inflight");
    let topic = unique("least");
    let mut members = members(&broker, &topic, 2);
    let mut publisher = Connect::v5(&unique("p")).open(&broker);
    // Neither acknowledges: the messages in flight stay level where both are on one shard.
    for _ in 0..10 {
        publisher.publish(&topic, 1, "x");
    }
    let open: Vec<Vec<Publish>> = members.iter_mut().map(Client::drain).collect();
    assert_eq!(open.iter().map(Vec::len).sum::<usize>(), 10);
    if shards == 1 {
        assert_eq!(open.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5]);
        // The first catches up, so the next five are its own.
        for publish in &open[0] {
            members[0].ack(Ack::Puback, publish.id);
        }
        members[0].ping();
        for _ in 0..5 {
            publisher.publish(&topic, 1, "y");
        }
        assert_eq!(members[0].drain().len(), 5);
        assert!(members[1].drain().is_empty());
    }
}

fn hash_topic_keeps_a_topic_with_its_member(shards: usize) {
    let broker = strategy(shards, "hash_topic");
    let stem = unique("topics");
    let mut members = members(&broker, &format!("{stem}/+"), 4);
    let mut publishers: Vec<Client> = (0..2)
        .map(|_| Connect::v5(&unique("p")).open(&broker))
        .collect();
    for _ in 0..3 {
        for n in 0..32 {
            for publisher in &mut publishers {
                publisher.publish(&format!("{stem}/{n}"), 1, "x");
            }
        }
    }
    let topics: Vec<BTreeSet<Vec<u8>>> = taken(&mut members)
        .iter()
        .map(|got| got.iter().map(|publish| publish.topic.clone()).collect())
        .collect();
    let total: usize = topics.iter().map(BTreeSet::len).sum();
    assert_eq!(total, 32, "each topic went to one member");
    assert!(
        topics.iter().filter(|set| !set.is_empty()).count() > 1,
        "topics are spread"
    );
}

fn hash_publisher_keeps_a_publisher_with_its_member(shards: usize) {
    let broker = strategy(shards, "hash_publisher");
    let topic = unique("publishers");
    let mut members = members(&broker, &topic, 4);
    for n in 0..24 {
        let mut publisher = Connect::v5(&unique("p")).open(&broker);
        for _ in 0..3 {
            publisher.publish(&topic, 1, n.to_string());
        }
    }
    let publishers: Vec<BTreeSet<Vec<u8>>> = taken(&mut members)
        .iter()
        .map(|got| got.iter().map(|publish| publish.payload.clone()).collect())
        .collect();
    let total: usize = publishers.iter().map(BTreeSet::len).sum();
    assert_eq!(total, 24, "each publisher's messages went to one member");
    assert!(publishers.iter().filter(|set| !set.is_empty()).count() > 1);
}

fn connected_members_are_preferred(shards: usize) {
    let broker = shared(shards, "");
    let topic = unique("online");
    let filter = format!("$share/g/{topic}");
    let away = Connect::v5(&unique("m")).persistent();
    let mut client = away.open(&broker);
    client.subscribe(&filter, 1);
    let mut here = Connect::v5(&unique("m")).open(&broker);
    here.subscribe(&filter, 1);
    client.disconnect();
    let mut publisher = Connect::v5(&unique("p")).open(&broker);
    for _ in 0..10 {
        publisher.publish(&topic, 1, "x");
    }
    assert_eq!(here.drain().len(), 10);
    away.open(&broker).expect_nothing();
}

on_shards!([1, 2, 4]
    round_robin_serves_all_members_alike,
    sticky_keeps_to_one_member_until_it_leaves,
    least_inflight_passes_a_slow_member_by,
    hash_topic_keeps_a_topic_with_its_member,
    hash_publisher_keeps_a_publisher_with_its_member,
    connected_members_are_preferred,
);

//! How each strategy spreads the messages of a shared subscription over its members.

use crate::on_shards;
use crate::support::{Ack, Broker, Client, Connect, Props, Publish, prop, shared, unique};
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

/// Who takes only small packets passes others on, wherever the other members are, and nothing is lost by it.
fn a_member_passes_on_what_it_cannot_take(shards: usize) {
    for name in ["round_robin", "sticky", "hash_topic", "least_inflight"] {
        let broker = strategy(shards, name);
        let topic = unique("large");
        let filter = format!("$share/g/{topic}");
        let limited = |id: &str| {
            let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, 200);
            Connect::v5(&unique(id)).props(props)
        };
        let mut small: Vec<_> = (0..7).map(|_| limited("small").open(&broker)).collect();
        let mut large = Connect::v5(&unique("large")).open(&broker);
        for client in small.iter_mut().chain([&mut large]) {
            client.subscribe(&filter, 1);
        }
        let before = broker.counters().get("dropped_packet_too_large");
        let mut publisher = Connect::v5(&unique("p")).open(&broker);
        let text = |n: usize| format!("{n:0500}");
        for n in 0..16 {
            publisher.publish(&topic, 1, text(n));
            publisher.publish(&topic, 0, text(n));
        }
        // The last of them may still be on their way from shard to shard.
        let got: Vec<_> = (0..32).map(|_| large.recv_publish()).collect();
        got.iter().for_each(|publish| large.complete(publish));
        small.iter_mut().for_each(Client::expect_nothing);
        let counters = broker.counters();
        assert_eq!(counters.get("dropped_packet_too_large"), before, "{name}");
        // Where nobody takes it, it is lost once.
        large.disconnect();
        publisher.publish(&topic, 1, text(0));
        broker.await_counter("dropped_packet_too_large", before + 1);
    }
}

/// What waited for a member that returns with a smaller maximum goes to another as well.
fn what_waited_is_passed_on_if_it_is_too_large(shards: usize) {
    let broker = shared(shards, "");
    let topic = unique("waited");
    let filter = format!("$share/g/{topic}");
    let away = Connect::v5(&unique("m")).persistent();
    let mut client = away.open(&broker);
    client.subscribe(&filter, 1);
    client.disconnect();
    let mut publisher = Connect::v5(&unique("p")).open(&broker);
    for n in 0..4 {
        publisher.publish(&topic, 1, format!("{n:0500}"));
    }
    let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, 200);
    let other = Connect::v5(&unique("other")).persistent();
    let mut offline = other.open(&broker);
    offline.subscribe(&filter, 1);
    let got = {
        let mut all = Vec::new();
        while all.len() < 4 {
            all.push(offline.accept().payload_str().to_owned());
        }
        all.sort();
        all
    };
    assert_eq!(got, (0..4).map(|n| format!("{n:0500}")).collect::<Vec<_>>());
    offline.disconnect();
    // Now both are away: what the first cannot take when it returns waits for the other.
    for n in 4..8 {
        publisher.publish(&topic, 1, format!("{n:0500}"));
    }
    away.clone().props(props).open(&broker).expect_nothing();
    let mut offline = other.open(&broker);
    let mut got: Vec<_> = (4..8)
        .map(|_| offline.accept().payload_str().to_owned())
        .collect();
    got.sort();
    assert_eq!(got, (4..8).map(|n| format!("{n:0500}")).collect::<Vec<_>>());
}

/// All members were away: the first that returns gets what waits, with whomever it does.
fn the_first_that_returns_takes_what_waits(shards: usize) {
    for name in ["round_robin", "sticky", "hash_topic"] {
        let broker = strategy(shards, name);
        let stem = unique("away");
        let filter = format!("$share/g/{stem}/#");
        let members: Vec<_> = (0..8)
            .map(|_| Connect::v5(&unique("m")).persistent())
            .collect();
        for member in &members {
            let mut client = member.open(&broker);
            client.subscribe(&filter, 1);
            client.subscribe(&format!("{stem}/own"), 1);
            client.disconnect();
        }
        let mut publisher = Connect::v5(&unique("p")).open(&broker);
        for n in 0..600 {
            publisher.publish(&format!("{stem}/{n}"), 1, n.to_string());
        }
        publisher.publish(&format!("{stem}/own"), 1, "own");
        let mut first = members[0].open(&broker);
        let mut seen = BTreeSet::new();
        let mut own = 0;
        while seen.len() < 601 || own < 2 {
            let publish = first.accept();
            // Once by the group, once by its own subscription.
            own += usize::from(publish.payload_str() == "own");
            seen.insert(publish.payload_str().to_owned());
        }
        assert_eq!(own, 2, "{name}");
        first.expect_nothing();
        for member in &members[1..] {
            let mut client = member.open(&broker);
            client.expect(&format!("{stem}/own"), "own");
            client.expect_nothing();
        }
    }
}

on_shards!([1, 2, 4]
    a_member_passes_on_what_it_cannot_take,
    what_waited_is_passed_on_if_it_is_too_large,
    the_first_that_returns_takes_what_waits,
    round_robin_serves_all_members_alike,
    sticky_keeps_to_one_member_until_it_leaves,
    least_inflight_passes_a_slow_member_by,
    hash_topic_keeps_a_topic_with_its_member,
    hash_publisher_keeps_a_publisher_with_its_member,
    connected_members_are_preferred,
);
